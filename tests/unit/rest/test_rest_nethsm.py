"""NetHSM's paths through a member that is behind: no answer has a place to say so, so none is given that could be wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest

from lnh.aio import Cluster, KeyringSession, Session
from lnh.aio.objects.keys import StoredObject, of_view
from lnh.aio.objects.listings import Listing
from lnh_common.errors import LnhError, MemberBehind, ObjectUnknown
from lnh_common.messages.base import Behind
from lnh_common.messages.objects import ObjectView
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_rest.handlers import nethsm
from lnh_rest.logins import Login, Logins
from lnh_rest.nethsm_shapes import NetHsmNewKey
from lnh_rest.route import Call

BEHIND = Behind(whole_until=1, behind_ms=1000)


class _Holder(KeyringSession):
    """A session through a member that has some objects; `cluster` is what a member in step has, if there is one."""

    def __init__(self, here: tuple[str, ...], cluster: tuple[str, ...] | None) -> None:
        self.here = here
        self.cluster = cluster

    def find(
        self, template: Mapping[Attribute, Any] | None = None, *, current: bool = False, **_: object
    ) -> Listing[StoredObject]:
        wanted = (template or {}).get(Attribute.LABEL)

        async def pages() -> AsyncIterator[tuple[list[StoredObject], Behind | None, tuple[Any, ...]]]:
            if current and self.cluster is None:
                raise MemberBehind("this member is behind")
            labels = self.cluster if current and self.cluster is not None else self.here
            found = [key(self, label) for label in labels if wanted in (None, label)]
            yield found, None if current else BEHIND, ()

        return Listing(pages())


def key(session: _Holder, label: str) -> StoredObject:
    attributes = {
        Attribute.CLASS.value: ObjectClass.SECRET_KEY.value,
        Attribute.KEY_TYPE.value: KeyType.AES.value,
        Attribute.LABEL.value: label,
    }
    return of_view(session, ObjectView(handle=label.encode().ljust(16), version=1, attributes=attributes))


def call(holder: _Holder, name: str = "", body: object = None) -> Call:
    login: Login[Session] = Login(holder, "krco", "", 10**10)
    return Call(cast("Cluster", None), Logins(lambda _: False), 0.0, path={"key": name}, login=login, body=body)


def test_a_key_that_is_there_is_used_through_a_member_that_is_behind() -> None:
    assert asyncio.run(nethsm._key(call(_Holder(("a",), None), "a"))).label == "a"


@pytest.mark.parametrize(("cluster", "error"), [(None, MemberBehind), (("b",), ObjectUnknown)])
def test_that_a_key_is_not_there_is_said_by_a_member_in_step(
    cluster: tuple[str, ...] | None, error: type[LnhError]
) -> None:
    with pytest.raises(error):
        asyncio.run(nethsm._key(call(_Holder((), cluster), "a")))


def test_a_key_that_the_member_lacks_is_found_through_another() -> None:
    assert asyncio.run(nethsm._key(call(_Holder((), ("a",)), "a"))).label == "a"


def test_keys_are_listed_by_a_member_in_step_or_not_at_all() -> None:
    assert sorted(asyncio.run(nethsm._keys(call(_Holder(("a",), ("a", "b"))))).values()) == ["a", "b"]
    with pytest.raises(MemberBehind):
        asyncio.run(nethsm._keys(call(_Holder(("a",), None))))


def test_that_an_id_is_free_is_known_by_a_member_in_step_alone() -> None:
    new = NetHsmNewKey(type="Generic", mechanisms=("AES_Encryption_CBC",), length=256, id="a")
    with pytest.raises(MemberBehind):
        asyncio.run(nethsm.nethsm_generate_key(call(_Holder((), None), body=new)))
