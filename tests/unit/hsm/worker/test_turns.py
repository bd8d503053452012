"""From turn to turn: a cached key is used without waiting, and everything else of a request is the same then."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

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
from lnh_common.messages import hsm, objects, session, store
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.session import Credential, Role
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.wire import channel, codec
from lnh_common.wire import frames as wire
from lnh_common.wire.bundles import VOUCHED, Entry
from lnh_common.wire.channel import SessionKeys
from lnh_services.hsm.effects import Ask, Deadline, Steps, Turn
from lnh_services.hsm.worker import warming
from lnh_services.hsm.worker.handlers.table import SERVED
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


def begun(scene: Scene, entry: Entry) -> Steps[wire.Frames]:
    header = wire.Header.parse(entry.header)
    return scene.core.serve(header, entry.token, entry.body, Deadline(scene.world.now + 10))


def answer(steps: Steps[wire.Frames]) -> wire.Frames:
    """What a request is answered that has come to its last turn."""
    with pytest.raises(StopIteration) as done:
        steps.send(None)
    frames: wire.Frames = done.value.value
    return frames


def test_a_cached_key_is_used_from_turn_to_turn_without_waiting(scene: Scene) -> None:
    entry, keys = scene.entry()
    uses = scene.core.operations
    steps = begun(scene, entry)
    assert steps.send(None) is Turn.USE
    assert scene.core.operations == uses
    assert steps.send(None) is Turn.SEAL
    assert scene.core.operations == uses + 1
    header, token, body = answer(steps)
    assert token == VOUCHED, "the balancer is told that a session speaks, and takes it off"
    assert wire.Header.parse(header).kind is wire.Kind.REPLY
    signature = channel.open_reply(keys, wire.Header.parse(entry.header), entry.body, body)["data"]
    verify = objects.Verify(handle=scene.public, mechanism=Mechanism.ECDSA, data=bytes(32), signature=signature)
    scene.client.ask(objects.VERIFY, verify, scene.keyring)


def test_what_is_not_cached_is_asked_for_and_what_is_forbidden_comes_to_no_use(scene: Scene) -> None:
    good, _ = scene.entry()
    tampered = good._replace(body=good.body[:-1] + bytes([good.body[-1] ^ 1]))
    assert isinstance(begun(scene, scene.entry(scene.use(handle=bytes(16)))[0]).send(None), Ask)
    assert isinstance(begun(scene, scene.entry(route=bytes(16))[0]).send(None), Ask), "a refusal is recorded"
    for entry in (tampered, good._replace(token=b"unknown")):
        with pytest.raises(StopIteration):  # a hint: there is no key to seal it under
            begun(scene, entry).send(None)
    scene.world.now += 3600  # issued an hour ago; the token is over too
    assert begun(scene, good).send(None) is Turn.SEAL


def test_a_use_that_fails_is_refused_under_the_seal_and_counts_once(scene: Scene) -> None:
    entry, keys = scene.entry(scene.use(data=b"no digest"))
    before = scene.core.operations
    steps = begun(scene, entry)
    assert [steps.send(None), steps.send(None)] == [Turn.USE, Turn.SEAL]
    assert scene.core.operations == before + 1
    header, token, body = answer(steps)
    assert token == b""
    with pytest.raises(DataLength):
        channel.open_reply(keys, wire.Header.parse(entry.header), entry.body, body)
    assert wire.Header.parse(header).kind is wire.Kind.REPLY


def test_what_was_invalidated_is_not_used(scene: Scene) -> None:
    entry, _ = scene.entry()
    key = store.Key(table="object", scope=scene.keyring, id=scene.private)
    scene.core.invalidate(store.Invalidate(sequence=1, keys=(key,)))
    assert isinstance(begun(scene, entry).send(None), Ask)
    scene.client.ask(objects.SIGN, scene.use(), scene.keyring)
    assert begun(scene, entry).send(None) is Turn.USE
    scene.core.lease_until = scene.world.now  # it ended while others of the bundle were served
    assert isinstance(begun(scene, entry).send(None), Ask)


def together(scene: Scene, *uses: tuple[Operation[Any, Any], Message]) -> tuple[list[list[Any]], int]:
    """The outcomes of uses under one seal, and how many keys were used before anything was asked for."""
    asked = objects.Uses(uses=tuple((each.name, codec.decode(codec.encode(message))) for each, message in uses))
    frames, keys = scene.client.sealed(objects.USES, asked, scene.keyring)
    header = wire.Header.parse(frames[0])
    steps = begun(scene, Entry(TAG, *frames))
    used = sum(1 for _ in itertools.takewhile(lambda turn: turn is Turn.USE, steps))
    steps.close()
    answered = scene.world.serve(scene.core, frames)
    return channel.open_reply(keys, header, frames[2], answered[2])["outcomes"], used


def test_uses_under_one_seal_have_each_its_own_outcome(scene: Scene) -> None:
    signature = scene.client.ask(objects.SIGN, scene.use(), scene.keyring).data
    verify = objects.Verify(handle=scene.public, mechanism=Mechanism.ECDSA, data=bytes(32), signature=signature)
    wrong = msgspec.structs.replace(verify, data=b"\x01" * 32)
    uses: tuple[tuple[Operation[Any, Any], Message], ...] = (
        (objects.SIGN, scene.use()),
        (objects.VERIFY, verify),
        (objects.VERIFY, wrong),
        (objects.SIGN, scene.use(data=b"no digest")),
    )
    first, used = together(scene, *uses)
    assert used == 1, "the public key is not in use yet"
    before = scene.core.operations
    second, used = together(scene, *uses)
    assert used == len(uses)
    assert scene.core.operations > before + len(uses), "each counts"
    for outcomes in (first, second):
        assert [outcome[0] for outcome in outcomes] == [0, 0, SignatureInvalid.code, DataLength.code]
        again = msgspec.structs.replace(verify, signature=outcomes[0][1]["data"])
        scene.client.ask(objects.VERIFY, again, scene.keyring)


def test_a_use_that_may_not_be_among_others_is_refused_and_the_others_are_served(scene: Scene) -> None:
    many = objects.UseMany(handle=scene.private, mechanism=Mechanism.ECDSA, items=(bytes(32),))
    refused = (
        (objects.SIGN_MANY, many, UnknownOperation),
        (objects.DESTROY, objects.Destroy(handle=scene.private), UnknownOperation),
        (objects.SIGN, scene.use(handle=bytes(16)), ObjectUnknown),
        (objects.SIGN, objects.ObjectRef(handle=scene.private), MalformedMessage),
    )
    for operation, message, error in refused:
        outcomes, _ = together(scene, (objects.SIGN, scene.use()), (operation, message))
        assert [outcome[0] for outcome in outcomes] == [0, error.code]


def test_uses_of_another_keyring_are_refused_whole_and_recorded(scene: Scene) -> None:
    asked = objects.Uses(uses=((objects.SIGN.name, codec.decode(codec.encode(scene.use()))),))
    before = len(scene.world.audit)
    with pytest.raises(PermissionDenied):
        scene.client.ask(objects.USES, asked, bytes(16))
    assert [entry.outcome for entry in scene.world.audit[before:]] == ["PermissionDenied"]


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
    outcomes, _ = together(scene, (objects.VERIFY, verify), (objects.SIGN, scene.use()))
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
        other.ask(objects.DESTROY, objects.Destroy(handle=scene.private), scene.keyring)

    outcomes = during_the_first(scene, monkeypatch, destroy)
    assert outcomes[1][0] == MemberBehind.code  # it was invalidated, and this member cannot know whether it is there
    assert outcomes[1][2]["doubted"] == ObjectUnknown.code


def test_a_session_that_is_new_to_a_worker_asks_in_two_stages(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ages of all; then what it rests on and the key that is used, at once."""
    fresh = scene.world.worker()
    scene.world.run(fresh.started())  # as the loop does when it gets its lease
    asked: list[Message] = []
    answer = scene.world.answer

    def noted(ask: Ask) -> Message:
        if ask.waits:
            asked.append(ask.message)
        return answer(ask)

    monkeypatch.setattr(scene.world, "answer", noted)
    other = dataclasses.replace(scene.client, worker=fresh, connection=bytes(16))
    other.ask(objects.SIGN, scene.use(), scene.keyring)
    assert [type(message) for message in asked] == [hsm.Seen, store.Gets]
    asked.clear()
    other.ask(objects.SIGN, scene.use(), scene.keyring)
    assert asked == []


@pytest.mark.parametrize("lease", ["goes on", "ends"])
def test_a_key_destroyed_while_a_new_session_is_read_is_not_used(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, lease: str
) -> None:
    """The key comes with the records of the session, and is older than what was invalidated before it is used."""
    fresh = scene.world.worker()
    scene.world.run(fresh.started())
    answer = scene.world.answer
    destroyed: list[Ask] = []

    def interrupted(ask: Ask) -> Message:
        reply = answer(ask)
        if isinstance(ask.message, store.Gets) and not destroyed:
            assert ask.message.gets[-1].key.id == scene.private, "the key is among what is read"
            destroyed.append(ask)
            if lease == "ends":
                fresh.lease_until = scene.world.now
                scene.world.workers.remove(fresh)
            scene.client.ask(objects.DESTROY, objects.Destroy(handle=scene.private), scene.keyring)
        return reply

    monkeypatch.setattr(scene.world, "answer", interrupted)
    other = dataclasses.replace(scene.client, worker=fresh, connection=bytes(16))
    with pytest.raises(ObjectUnknown if lease == "goes on" else MemberBehind):
        other.ask(objects.SIGN, scene.use(), scene.keyring)
    assert destroyed


def test_decoders_of_a_first_signature_are_built_at_a_workers_start(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: set[type[Any]] = set()
    convert = codec.convert

    def noted(value: Any, kind: type[Any]) -> Any:
        decoded.add(kind)
        return convert(value, kind)

    other = dataclasses.replace(scene.client, worker=scene.world.worker(), connection=bytes(16))
    monkeypatch.setattr(codec, "convert", noted)
    other.ask(objects.SIGN, scene.use(), scene.keyring)
    structs = {kind for kind in decoded if hasattr(kind, "__struct_fields__")} - {objects.SIGN.reply}  # the client does
    assert len(structs) > 5
    assert structs <= warming.kinds(SERVED.values()), "what is missing is built while the client waits"
