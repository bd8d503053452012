"""The short way of a key's use: the same answer as the long one, and no answer where that one would have to look."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lnh_common import channel, codec, wire
from lnh_common.attributes import Attribute
from lnh_common.bundles import VOUCHED, Entry
from lnh_common.channel import SessionKeys
from lnh_common.errors import (
    DataLength,
    MalformedMessage,
    MemberBehind,
    ObjectUnknown,
    PermissionDenied,
    SessionEnded,
    SignatureInvalid,
    UnknownOperation,
)
from lnh_common.mechanisms import CURVES, Mechanism, Use
from lnh_common.messages import objects, session, store
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.session import Credential, Role
from lnh_services.hsm.ready import open_ready
from lnh_services.hsm.steps import Ask
from models.worker import KRCO, Client, World, make_keyring

TAG = bytes(8)


class Scene:
    """A client whose key one worker has used."""

    def __init__(self) -> None:
        self.world = World()
        self.client = Client(self.world, self.world.worker()).register()
        self.core = self.client.worker
        self.keyring = make_keyring(self.client)
        self.client.login(Credential(role=Role.KRCO, keyring=self.keyring, password=KRCO))
        pair = self.client.ask(
            objects.GENERATE_PAIR,
            objects.GenerateKeyPair(
                mechanism=Mechanism.EC_KEY_PAIR_GEN,
                public_template={Attribute.EC_PARAMS.value: CURVES["P-256"].oid},
            ),
            self.keyring,
        )
        self.private, self.public = pair.private.handle, pair.public.handle
        self.client.ask(objects.SIGN, self.use(), self.keyring)

    def use(self, data: bytes = bytes(32), handle: bytes = b"") -> objects.Use:
        return objects.Use(handle=handle or self.private, mechanism=Mechanism.ECDSA, data=data)

    def entry(self, use: objects.Use | None = None, route: bytes | None = None) -> tuple[Entry, SessionKeys]:
        route = self.keyring if route is None else route
        frames, keys = self.client.sealed(objects.SIGN, use or self.use(), route)
        return Entry(TAG, *frames), keys


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_cached_key_signs_and_the_signature_verifies(scene: Scene) -> None:
    entry, keys = scene.entry()
    ready = open_ready(scene.core, entry)
    assert ready is not None
    uses = scene.core.operations
    assert ready.act(scene.core)
    assert scene.core.operations == uses + 1
    header, token, body = ready.answer()
    assert token == VOUCHED, "the balancer is told that a session speaks, and takes it off"
    assert wire.Header.parse(header).kind is wire.Kind.REPLY
    signature = channel.open_reply(keys, wire.Header.parse(entry.header), entry.body, body)["data"]
    verify = objects.Verify(handle=scene.public, mechanism=Mechanism.ECDSA, data=bytes(32), signature=signature)
    scene.client.ask(objects.VERIFY, verify, scene.keyring)


def test_what_has_to_be_looked_up_or_refused_goes_the_long_way(scene: Scene) -> None:
    good, _ = scene.entry()
    tampered = good._replace(body=good.body[:-1] + bytes([good.body[-1] ^ 1]))
    for entry in (
        tampered,
        good._replace(token=b"unknown"),
        good._replace(header=b"no header"),
        scene.entry(route=bytes(16))[0],
        scene.entry(scene.use(handle=bytes(16)))[0],
    ):
        assert open_ready(scene.core, entry) is None
    scene.world.now += 3600  # issued an hour ago; the token is over too
    assert open_ready(scene.core, good) is None


def test_a_use_that_fails_goes_the_long_way_and_counts_once(scene: Scene) -> None:
    entry, _ = scene.entry(scene.use(data=b"no digest"))
    ready = open_ready(scene.core, entry)
    assert ready is not None
    before = scene.core.operations
    assert not ready.act(scene.core)
    assert scene.core.operations == before


def test_what_was_forgotten_is_not_used(scene: Scene) -> None:
    entry, _ = scene.entry()
    opened = open_ready(scene.core, entry)
    assert opened is not None
    scene.core.lease_until = scene.world.now  # it ended while others of the bundle were served
    assert not opened.act(scene.core)
    assert open_ready(scene.core, entry) is None
    scene.core.lease_until = scene.world.now + 10
    key = store.Key(table="object", scope=scene.keyring, id=scene.private)
    assert open_ready(scene.core, entry) is not None
    scene.core.forget(store.Forget(sequence=1, keys=(key,)))
    assert open_ready(scene.core, entry) is None


def together(
    scene: Scene, *uses: tuple[Operation[Any, Any], Message]
) -> tuple[list[list[Any]], list[list[Any]] | None]:
    """The outcomes of uses under one seal the long way, and, where it is taken, the short way."""
    asked = objects.Uses(uses=tuple((each.name, codec.decode(codec.encode(message))) for each, message in uses))
    frames, keys = scene.client.sealed(objects.USES, asked, scene.keyring)
    header = wire.Header.parse(frames[0])
    ready = open_ready(scene.core, Entry(TAG, *frames))
    short = None
    if ready is not None:
        assert ready.act(scene.core)
        short = channel.open_reply(keys, header, frames[2], ready.answer()[2])["outcomes"]
    answer = scene.world.serve(scene.core, frames)
    return channel.open_reply(keys, header, frames[2], answer[2])["outcomes"], short


def test_uses_under_one_seal_have_each_its_own_outcome_the_short_way_and_the_long(scene: Scene) -> None:
    signature = scene.client.ask(objects.SIGN, scene.use(), scene.keyring).data
    verify = objects.Verify(handle=scene.public, mechanism=Mechanism.ECDSA, data=bytes(32), signature=signature)
    wrong = msgspec.structs.replace(verify, data=b"\x01" * 32)
    uses: tuple[tuple[Operation[Any, Any], Message], ...] = (
        (objects.SIGN, scene.use()),
        (objects.VERIFY, verify),
        (objects.VERIFY, wrong),
        (objects.SIGN, scene.use(data=b"no digest")),
    )
    _, short = together(scene, *uses)
    assert short is None, "the public key is not in use yet"
    before = scene.core.operations
    long, short = together(scene, *uses)
    assert short is not None
    assert scene.core.operations == before + 2 * len(uses)
    for outcomes in (long, short):
        assert [outcome[0] for outcome in outcomes] == [0, 0, SignatureInvalid.code, DataLength.code]
        again = msgspec.structs.replace(verify, signature=outcomes[0][1]["data"])
        scene.client.ask(objects.VERIFY, again, scene.keyring)


def test_a_use_that_may_not_be_among_others_is_refused_and_the_others_are_served(scene: Scene) -> None:
    many = objects.UseMany(handle=scene.private, mechanism=Mechanism.ECDSA, items=(bytes(32),))
    refused = (
        (objects.SIGN_MANY, many, UnknownOperation),
        (objects.DESTROY, objects.ObjectRef(handle=scene.private), UnknownOperation),
        (objects.SIGN, scene.use(handle=bytes(16)), ObjectUnknown),
        (objects.SIGN, objects.ObjectRef(handle=scene.private), MalformedMessage),
    )
    for operation, message, error in refused:
        outcomes, short = together(scene, (objects.SIGN, scene.use()), (operation, message))
        assert short is None
        assert [outcome[0] for outcome in outcomes] == [0, error.code]


def test_uses_of_another_keyring_are_refused_whole_and_recorded(scene: Scene) -> None:
    asked = objects.Uses(uses=((objects.SIGN.name, codec.decode(codec.encode(scene.use()))),))
    before = len(scene.world.audit)
    with pytest.raises(PermissionDenied):
        scene.client.ask(objects.USES, asked, bytes(16))
    assert [entry.outcome for entry in scene.world.audit[before:]] == ["PermissionDenied"]


def test_uses_under_one_seal_end_with_the_lease(scene: Scene) -> None:
    uses = objects.Uses(uses=((objects.SIGN.name, codec.decode(codec.encode(scene.use()))),) * 2)
    frames, _ = scene.client.sealed(objects.USES, uses, scene.keyring)
    ready = open_ready(scene.core, Entry(TAG, *frames))
    assert ready is not None
    before = scene.core.operations
    key = scene.core.caches.keys.get((scene.keyring, scene.private))
    assert key is not None
    operate = key.prepared.get((Use.SIGN, Mechanism.ECDSA, b""))
    assert operate is not None

    def signs_until_the_lease_ends(data: bytes) -> Any:
        scene.core.lease_until = scene.world.now
        return operate(data)

    key.prepared.put((Use.SIGN, Mechanism.ECDSA, b""), signs_until_the_lease_ends)
    ready = open_ready(scene.core, Entry(TAG, *frames))
    assert ready is not None
    assert not ready.act(scene.core), "the second use came after the end"
    assert scene.core.operations == before


def during_the_first(scene: Scene, monkeypatch: pytest.MonkeyPatch, act: Callable[[Client], None]) -> list[list[Any]]:
    """The outcomes of a use whose key has to be fetched, while which something happens elsewhere, and of a cached one."""
    other = dataclasses.replace(scene.client, worker=scene.world.worker(), connection=bytes(16))
    answer = scene.world.answer
    asked: list[Ask] = []

    def interrupted(ask: Ask) -> Message:
        reply = answer(ask)
        if isinstance(ask.message, store.Get) and ask.message.key.id == scene.public and not asked:
            asked.append(ask)
            act(other)
        return reply

    monkeypatch.setattr(scene.world, "answer", interrupted)
    verify = objects.Verify(handle=scene.public, mechanism=Mechanism.ECDSA, data=bytes(32), signature=bytes(64))
    outcomes, short = together(scene, (objects.VERIFY, verify), (objects.SIGN, scene.use()))
    assert short is None
    assert asked, "the key was fetched"
    return outcomes


def test_a_session_that_ends_during_one_use_is_over_for_those_behind_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = during_the_first(
        scene, monkeypatch, lambda other: (other.ask(session.LOGOUT, session.Logout()), None)[1]
    )
    assert [outcome[0] for outcome in outcomes] == [SessionEnded.code] * 2


def test_a_lease_that_ends_during_one_use_is_over_for_those_behind_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def destroy(other: Client) -> None:
        scene.core.lease_until = scene.world.now
        scene.world.workers.remove(scene.core)  # it is not waited for any more
        other.ask(objects.DESTROY, objects.ObjectRef(handle=scene.private), scene.keyring)

    outcomes = during_the_first(scene, monkeypatch, destroy)
    assert outcomes[1][0] == MemberBehind.code  # it was forgotten, and this member cannot know whether it is there
    assert outcomes[1][2]["doubted"] == ObjectUnknown.code
