"""Requests that a worker takes turn by turn, many at a time and out of its caches, are answered as each one by itself.

There is one way of a request through a worker (`WorkerCore.serve`). What differs is what the worker has cached, and that the
real loop stops many requests at the same turn. So whatever is asked, in whatever order, after whatever fault: a worker
that was new to it all says the same, and records the same.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import failed
from lnh_common.errors import LnhError
from lnh_common.messages import admin, hsm, objects, session, store
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.session import Credential, Role
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.wire import channel, codec
from lnh_common.wire import frames as wire
from lnh_common.wire.bundles import Entry
from lnh_common.wire.channel import SessionKeys
from lnh_services.hsm.effects import Ask
from lnh_services.hsm.worker import loop as module
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.loop import Worker
from lnh_services.hsm.worker.tasks import Task, WayBack
from lnh_services.paths import MemberDirectory
from models.worker import KRCO, KRSO, Client, World, make_keyring
from sizes import sized

M = Mechanism
OBJECT = store.OBJECTS
DAY = 86_400


class Scene:
    """A keyring with some keys, and clients of different standing; one worker that has used it all."""

    def __init__(self) -> None:
        self.world = World()
        self.world.now += 6300  # some minutes before midnight
        self.warm = self.world.worker()
        self.client = Client(self.world, self.warm).register()
        self.keyring = make_keyring(self.client)
        self.client.login(Credential(role=Role.KRCO, keyring=self.keyring, password=KRCO))
        self.administrator = self.client.as_administrator()
        self.unassigned = Client(self.world, self.warm).register("another")
        self.unassigned.login()
        edwards = CURVES["Ed25519"]
        pair = self.client.ask(
            objects.GENERATE_PAIR,
            objects.GenerateKeyPair(
                mechanism=M.EC_EDWARDS_KEY_PAIR_GEN, public_template={Attribute.EC_PARAMS.value: edwards.oid}
            ),
            self.keyring,
        )
        self.private, self.public = pair.private.handle, pair.public.handle
        self.secret = self._secret({Attribute.ENCRYPT.value: True, Attribute.DECRYPT.value: True})
        self.mac = self._secret({Attribute.SIGN.value: True})
        self.expiring = self._secret({Attribute.SIGN.value: True, Attribute.END_DATE.value: "2023-11-14"})  # today
        self.in_session = self.client.ask(
            objects.GENERATE_IN_SESSION,
            objects.GenerateKey(
                mechanism=M.AES_KEY_GEN, template={Attribute.VALUE_LEN.value: 32, Attribute.SIGN.value: True}
            ),
            self.keyring,
        )
        self.sealed_for_it = self.client.ask(
            objects.ENCRYPT, objects.Use(handle=self.secret, mechanism=M.AES_GCM, data=b"data"), self.keyring
        )

    def _secret(self, template: dict[int, Any]) -> bytes:
        asked = objects.GenerateKey(mechanism=M.AES_KEY_GEN, template={Attribute.VALUE_LEN.value: 32, **template})
        return self.client.ask(objects.GENERATE, asked, self.keyring).handle

    # What may be asked: every one has the same answer each time

    def sign(self) -> tuple[Operation[Any, Any], Message]:
        return objects.SIGN, objects.Use(handle=self.private, mechanism=M.EDDSA, data=b"data")

    def sign_many(self) -> tuple[Operation[Any, Any], Message]:
        return objects.SIGN_MANY, objects.UseMany(handle=self.private, mechanism=M.EDDSA, items=(b"a", b"b"))

    def verify_what_is_none(self) -> tuple[Operation[Any, Any], Message]:
        return objects.VERIFY, objects.Verify(handle=self.public, mechanism=M.EDDSA, data=b"", signature=bytes(64))

    def decrypt(self) -> tuple[Operation[Any, Any], Message]:
        parameters = codec.encode({"iv": self.sealed_for_it.iv})
        use = objects.Decrypt(
            handle=self.secret, mechanism=M.AES_GCM, parameters=parameters, data=self.sealed_for_it.data
        )
        return objects.DECRYPT, use

    def authenticate(self) -> tuple[Operation[Any, Any], Message]:
        return objects.SIGN, objects.Use(handle=self.mac, mechanism=M.AES_CMAC, data=b"data")

    def after_its_end(self) -> tuple[Operation[Any, Any], Message]:
        return objects.SIGN, objects.Use(handle=self.expiring, mechanism=M.AES_CMAC, data=b"data")

    def not_allowed(self) -> tuple[Operation[Any, Any], Message]:
        return objects.SIGN, objects.Use(handle=self.secret, mechanism=M.AES_CMAC, data=b"data")

    def of_the_session(self) -> tuple[Operation[Any, Any], Message]:
        use = objects.Use(
            handle=self.in_session.handle, sealed=self.in_session.sealed, mechanism=M.AES_CMAC, data=b"data"
        )
        return objects.SIGN, use

    def of_no_object(self) -> tuple[Operation[Any, Any], Message]:
        return objects.SIGN, objects.Use(handle=bytes(16), mechanism=M.EDDSA, data=b"data")

    def malformed(self) -> tuple[Operation[Any, Any], Message]:
        return objects.SIGN, objects.ObjectRef(handle=self.private)

    def several(self) -> tuple[Operation[Any, Any], Message]:
        asked = (self.sign(), self.verify_what_is_none(), self.after_its_end(), self.of_no_object(), self.sign())
        uses = tuple((operation.name, codec.decode(codec.encode(message))) for operation, message in asked)
        return objects.USES, objects.Uses(uses=uses)

    def show(self) -> tuple[Operation[Any, Any], Message]:
        return objects.SHOW, objects.ObjectRef(handle=self.private)

    # What may happen before it is asked

    def nothing(self) -> None:
        """Go on."""

    def invalidate_a_key(self) -> None:
        self._forget(store.Key(table=OBJECT, scope=self.keyring, id=self.private))

    def destroy_a_key(self) -> None:
        self._beside().ask(objects.DESTROY, objects.Destroy(handle=self.private), self.keyring)

    def drop_everything(self) -> None:
        self.warm.invalidate(store.Invalidate(sequence=0, keys=(), everything=True))
        self.world.attach(self.warm)

    def end_the_session(self) -> None:
        self._beside().ask(session.LOGOUT, session.Logout())

    def revoke_the_client(self) -> None:
        self.administrator.ask(admin.CLIENT_REVOKE, admin.ClientRef(client="client"))

    def forbid_the_mechanism(self) -> None:
        officer = Client(self.world, self.world.worker()).register("officer")
        officer.login(Credential(role=Role.KRSO, keyring=self.keyring, password=KRSO))
        allowed = [int(each) for each in (M.AES_CMAC, M.AES_GCM)]
        officer.ask(admin.KEYRING_POLICY, admin.PolicyChange(changes={"allowed_mechanisms": allowed}), self.keyring)

    def let_the_day_end(self) -> None:
        self.world.now += 300
        for worker in self.world.workers:
            self.world.attach(worker)

    def let_a_year_pass(self) -> None:
        self.world.now += 366 * DAY
        for worker in self.world.workers:
            self.world.attach(worker)

    def _beside(self) -> Client:
        """The same session, at another worker."""
        return dataclasses.replace(self.client, worker=self.world.worker(), connection=bytes(16))

    def _forget(self, key: store.Key) -> None:
        self.warm.invalidate(store.Invalidate(sequence=1, keys=(key,)))


ASKED: tuple[Callable[[Scene], tuple[Operation[Any, Any], Message]], ...] = (
    Scene.sign, Scene.sign_many, Scene.verify_what_is_none, Scene.decrypt, Scene.authenticate, Scene.after_its_end,
    Scene.not_allowed, Scene.of_the_session, Scene.of_no_object, Scene.malformed, Scene.several, Scene.show,
)  # fmt: skip
FAULTS: tuple[Callable[[Scene], None], ...] = (
    Scene.nothing, Scene.invalidate_a_key, Scene.destroy_a_key, Scene.drop_everything, Scene.end_the_session,
    Scene.revoke_the_client, Scene.forbid_the_mechanism, Scene.let_the_day_end, Scene.let_a_year_pass,
)  # fmt: skip
CHANGES: tuple[Callable[[wire.Frames], wire.Frames], ...] = (
    lambda frames: frames,
    lambda frames: [frames[0], frames[1], frames[2][:-1] + bytes([frames[2][-1] ^ 1])],  # its seal is broken
    lambda frames: [frames[0], frames[1][:-1] + bytes([frames[1][-1] ^ 1]), frames[2]],  # and its token's
)
Asked = tuple[
    Callable[[Scene], tuple[Operation[Any, Any], Message]], str, bytes | None, Callable[[wire.Frames], wire.Frames]
]
Sent = tuple[wire.Frames, SessionKeys]


@contextmanager
def loop(scene: Scene, core: WorkerCore) -> Iterator[Callable[[list[wire.Frames]], list[wire.Frames]]]:
    """The real worker's way with what came together; whom it asks answers at once, but after the batch."""
    answers: dict[bytes, wire.Frames] = {}
    asked: list[tuple[Task, Ask]] = []
    with failed.directory() as place, pytest.MonkeyPatch.context() as patch:
        worker = Worker(MemberDirectory(Path(place)), 0)
        with closing(worker):
            worker.core = core
            patch.setattr(module, "boot_time", lambda: scene.world.now)
            patch.setattr(worker, "_ask", lambda task, ask: asked.append((task, ask)))

            def send(way_back: WayBack, frames: wire.Frames) -> None:
                answers[way_back[1]] = frames

            patch.setattr(worker, "_send", send)

            def serve(batch: list[wire.Frames]) -> list[wire.Frames]:
                tags = [number.to_bytes(8, "big") for number in range(len(batch))]
                worker._serve([(b"", Entry(tag, *frames)) for tag, frames in zip(tags, batch, strict=True)])
                while asked:
                    task, ask = asked.pop(0)
                    try:
                        answer: Any = scene.world.answer(ask)
                    except LnhError as error:
                        answer = error
                    worker._advance(task, answer)
                return [answers.pop(tag) for tag in tags]

            yield serve


def said(sent: Sent, answer: wire.Frames) -> object:
    """What an asker learns."""
    frames, keys = sent
    header = wire.Header.parse(answer[0])
    try:
        if header.kind is wire.Kind.ERROR:
            raise wire.parse_error(answer[2])
        return channel.open_reply(keys, wire.Header.parse(frames[0]), frames[2], answer[2])
    except LnhError as error:
        return error.to_wire()


def recorded(entries: list[hsm.AuditEntry]) -> Counter[tuple[str, ...]]:
    return Counter((entry.identity, entry.role, entry.operation, entry.target, entry.outcome) for entry in entries)


_asked = st.tuples(
    st.sampled_from(ASKED),
    st.sampled_from(("client",) * 6 + ("administrator", "unassigned")),
    st.sampled_from((None,) * 6 + (bytes(16),)),
    st.sampled_from((CHANGES[0],) * 6 + CHANGES[1:]),
)


@settings(max_examples=sized(25), suppress_health_check=[HealthCheck.too_slow])
@given(
    cold=st.sets(st.sampled_from(ASKED), max_size=4),
    faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=2),
    asked=st.lists(_asked, min_size=4, max_size=12),
)
def test_a_batch_out_of_the_caches_is_answered_and_recorded_as_each_by_itself(
    cold: set[Any], faults: list[Callable[[Scene], None]], asked: list[Asked]
) -> None:
    scene = Scene()
    with loop(scene, scene.warm) as serve:
        for each in [asked_before for asked_before in ASKED if asked_before not in cold]:
            operation, message = each(scene)
            serve([scene.client.sealed(operation, message, scene.keyring)[0]])
        for fault in faults:
            with suppress(LnhError):  # what the one before it forbids
                fault(scene)
        sent: list[Sent] = []
        for each, who, route, change in asked:
            operation, message = each(scene)
            asker: Client = getattr(scene, who)
            frames, keys = asker.sealed(operation, message, scene.keyring if route is None else route)
            sent.append((change(frames), keys))
        before = len(scene.world.audit)
        together = [
            said(each, answer) for each, answer in zip(sent, serve([frames for frames, _ in sent]), strict=True)
        ]
        trail = recorded(scene.world.audit[before:])
    before = len(scene.world.audit)
    alone = [said(each, scene.world.serve(scene.world.worker(), each[0])) for each in sent]
    assert together == alone
    assert trail == recorded(scene.world.audit[before:])
