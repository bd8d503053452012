"""What the SDK makes of listings that are not current: what is believed, and when a member that is in step is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest

from lnh.keyring_lists import keyring_labelled, keyring_listing
from lnh.objects.listings import Listing
from lnh.objects.session import ObjectSession
from lnh_common.errors import KeyringUnknown, LimitReached, MemberBehind, ObjectUnknown
from lnh_common.messages.admin import Keyrings, KeyringView, ListKeyrings
from lnh_common.messages.base import Behind, Message, Operation, Skipped
from lnh_common.messages.objects import Found, ObjectView
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass

BEHIND = Behind(whole_until=1_700_000_000_000, behind_ms=60_000)


def secret(number: int, label: str = "a") -> ObjectView:
    attributes = {
        Attribute.CLASS.value: ObjectClass.SECRET_KEY.value,
        Attribute.KEY_TYPE.value: KeyType.AES.value,
        Attribute.LABEL.value: label,
    }
    return ObjectView(handle=bytes([number]) * 16, version=1, attributes=attributes)


class Session(ObjectSession):
    """Objects as a member has them that is behind, and as one has them that is in step: None if nobody is."""

    def __init__(self, behind: Iterable[ObjectView], in_step: Iterable[ObjectView] | None = None) -> None:
        super().__init__()
        self.behind, self.in_step = list(behind), None if in_step is None else list(in_step)
        self.asked: list[bool] = []

    def call(
        self,
        operation: Operation[Any, Any],
        fields: dict[str, Any] | Message,
        timeout: float | None = None,
        *,
        current: bool = False,
    ) -> dict[str, Any]:
        self.asked.append(current)
        if current and self.in_step is None:
            raise BEHIND.refusal()
        objects = self.in_step if current and self.in_step is not None else self.behind
        if not current and not objects:
            if self.in_step is None:
                raise BEHIND.refusal()
            objects, current = self.in_step, True  # the connection has found another member
        found = Found(objects=tuple(objects), more=False, behind=None if current else BEHIND)
        fields = msgspec.to_builtins(found, builtin_types=(bytes,))
        assert isinstance(fields, dict)
        return fields

    def call_each(self, *_: object, **__: object) -> Iterator[dict[str, Any]]:
        raise NotImplementedError


def test_a_listing_says_whether_it_is_current_and_up_to_when_it_is_whole() -> None:
    listing = Session([secret(1)]).find()
    assert listing.current, "nothing of it was taken yet"
    assert [one.handle for one in listing] == [b"\1" * 16]
    assert not listing.current
    assert listing.whole_until is not None
    assert listing.whole_until.isoformat() == "2023-11-14T22:13:20+00:00"
    current = Session([], [secret(1)]).find(current=True)
    assert len(list(current)) == 1
    assert current.current
    assert current.whole_until is None


def test_of_several_pages_the_oldest_is_what_a_listing_says() -> None:
    older, unknown = Behind(whole_until=5, behind_ms=1), Behind(whole_until=0, behind_ms=1)
    told = (None, BEHIND, older, BEHIND, None)
    listing: Listing[int] = Listing(([number], each, ()) for number, each in enumerate(told, 1))
    assert list(listing) == [1, 2, 3, 4, 5]
    assert listing.behind == older
    made = Listing(([number], each, ()) for number, each in enumerate((older, unknown), 1)).each(str)
    assert list(made) == ["1", "2"]
    assert made.behind == unknown
    assert made.whole_until is None


def test_a_listing_says_what_every_page_left_out() -> None:
    one, two = (Skipped(id=bytes([number]) * 16, why="it was changed") for number in (1, 2))
    listing = Listing(iter([([1], None, (one,)), ([], None, ()), ([2], None, (two,))])).each(str)
    assert list(listing) == ["1", "2"]
    assert listing.skipped == (one, two)
    assert listing.current


def test_an_empty_list_of_a_member_that_is_behind_is_no_list() -> None:
    with pytest.raises(MemberBehind):
        list(Session([]).find())


def test_one_key_is_believed_and_none_or_several_are_not() -> None:
    one = Session([secret(1)])
    assert one.get_key(label="a").handle == b"\1" * 16
    assert one.asked == [False]
    with pytest.raises(MemberBehind):
        Session([]).get_key(label="a")
    with pytest.raises(MemberBehind):
        Session([secret(1), secret(2)]).get_key(label="a")
    with pytest.raises(MemberBehind):
        one.get_key(label="a", current=True)


def test_a_member_in_step_says_whether_there_is_none_one_or_several() -> None:
    assert Session([secret(1), secret(2)], [secret(2)]).get_key(label="a").handle == b"\2" * 16
    with pytest.raises(ObjectUnknown):
        Session([secret(1), secret(2)], []).get_key(label="a")
    with pytest.raises(ObjectUnknown):
        Session([], []).get_key(label="a")
    with pytest.raises(LimitReached):
        Session([], [secret(1), secret(2)]).get_key(label="a")


class Keyring:
    """Lists keyrings as `Session` does objects, two on a page."""

    def __init__(self, behind: Iterable[str], in_step: Iterable[str] | None = None) -> None:
        self.behind, self.in_step = list(behind), in_step

    def __call__(self, message: ListKeyrings, *, current: bool = False) -> Keyrings:
        if current and self.in_step is None:
            raise BEHIND.refusal()
        labels = list(self.in_step or ()) if current else self.behind
        start = message.after[0] if message.after else 0
        page = tuple(KeyringView(id=label.encode(), label=label) for label in labels[start : start + 2] if label)
        more, told = start + 2 < len(labels), None if current else BEHIND
        return Keyrings(keyrings=page, more=more, last=bytes([start + 2]), behind=told)


def test_a_page_on_which_no_keyring_is_visible_is_not_the_end() -> None:
    listing = keyring_listing(Keyring(["", "", "a", "b", "", "c"]), current=False)
    assert [view.label for view in listing] == ["a", "b", "c"]
    assert not listing.current
    with pytest.raises(MemberBehind):
        list(keyring_listing(Keyring(["", "", ""]), current=False))


def test_a_keyring_is_denied_by_a_member_that_is_in_step_only() -> None:
    assert keyring_labelled(Keyring(["a"]), "a").label == "a"
    assert keyring_labelled(Keyring(["b"], ["a"]), "a").label == "a"
    with pytest.raises(MemberBehind):
        keyring_labelled(Keyring(["b"]), "a")
    with pytest.raises(KeyringUnknown):
        keyring_labelled(Keyring(["b"], ["b"]), "a")
