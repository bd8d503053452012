"""A keyring that is given another key while it is used, at any moment and however it is interrupted, loses nothing.

A machine of hypothesis drives two workers of one cluster: objects are made, changed, found, used and destroyed, passwords
change, requests stop half-way and go on later, a rekey is begun and goes on step by step in between, and the SMK is rolled
over. After each step
whoever logs in finds exactly the objects that there are, by their labels too, and each does what it did. Once a rekey is
over, no stored object opens under a key of before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from lnh_common import errors, limits
from lnh_common.errors import LnhError
from lnh_common.messages import admin, objects, session, store
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.session import ChangePassword, Credential, Logout, Role
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.wire import codec
from lnh_common.wire import frames as wire
from lnh_common.wire.channel import SessionKeys
from lnh_services.hsm.auth.tokens import open_token, token_epoch
from lnh_services.hsm.effects import Ask, Deadline, Steps, Turn, Work
from lnh_services.hsm.objects.stored import KeyringKeys
from lnh_services.hsm.worker.core import WorkerCore
from lowered import lower
from models.rolling import Rolling
from models.worker import KRCO, KRSO, Client, World, make_keyring
from sizes import sized

LABELS: Final = ("red", "green", "blue")
DATA: Final = b"what is encrypted"
# What somebody may be told whose session ended, or whose object changed or went, at this moment.
OVERTAKEN: Final = (
    errors.CredentialChanged, errors.VersionConflict, errors.Busy, errors.ObjectUnknown, errors.NotPossible,
    errors.AlreadyDone, errors.SessionEnded, errors.SmkRolled,
)  # fmt: skip


@dataclass
class Paused:
    """A request that stopped half-way: what it asks others is answered when it goes on."""

    world: World
    client: Client
    operation: Operation[Any, Any]
    sent: wire.Frames
    keys: SessionKeys
    steps: Steps[wire.Frames]
    asked: Any = None
    answered: Any = None

    @classmethod
    def begun(cls, client: Client, operation: Operation[Any, Any], message: Message, keyring: bytes) -> Paused:
        sent, keys = client.sealed(operation, message, keyring)
        header = wire.Header.parse(sent[0])
        steps = client.worker.serve(header, sent[1], sent[2], Deadline(client.world.now + 10))
        return cls(client.world, client, operation, sent, keys, steps)

    def go_on(self, asks: int) -> Message | None:
        """Go on until `asks` of its questions are answered, the last answer not looked at; its reply once it is done."""
        try:
            while asks:
                self.asked = self._send()
                self.answered = self._answer()
                asks -= not isinstance(self.asked, Turn)
        except StopIteration as done:
            reply: Message = self.client.open(self.operation, self.sent, self.keys, done.value)
            return reply
        return None

    def _send(self) -> object:
        if isinstance(self.answered, LnhError):
            return self.steps.throw(self.answered)
        return self.steps.send(self.answered)

    def _answer(self) -> Any:
        if isinstance(self.asked, Turn):
            return None
        if isinstance(self.asked, Work):
            return self.asked.compute()
        assert isinstance(self.asked, Ask)
        try:
            answer = self.world.answer(self.asked)
        except LnhError as error:
            return error
        return answer if self.asked.waits else None


class Rekeyed(RuleBasedStateMachine):
    """A keyring, and what is known of it."""

    made = Bundle("made")
    sessions = Bundle("sessions")
    paused = Bundle("paused")

    def __init__(self) -> None:
        super().__init__()
        self.world = Rolling()
        self.workers = [self.world.worker(), self.world.worker()]
        client = Client(self.world, self.workers[0]).register()
        self.client = client
        self.keyring = make_keyring(client)
        self.passwords = {Role.KRSO: KRSO, Role.KRCO: KRCO}
        self.labels: dict[bytes, str] = {}  # of each object
        self.encrypted: dict[bytes, objects.Result] = {}
        self.open = False
        self.rolling = False
        self.generation = 1
        self.keys_before: list[bytes] = []
        self.newest = self._keyring_key(self._login(Role.KRSO, self.workers[0]))
        self.numbers = iter(range(10**6))
        self.steps = iter(range(10**6))

    def _login(self, role: Role, worker: WorkerCore) -> Client:
        made = replace(self.client, worker=worker, connection=os.urandom(16), token=b"", sequence=0)
        made.login(Credential(role=role, keyring=self.keyring, password=self.passwords[role]))
        return made

    def _keyring_key(self, client: Client) -> bytes:
        epoch, sealed = token_epoch(client.token)
        return open_token(sealed, self.world.cluster, epoch, self.world.secrets.channel[0].seed).keyring_key

    def _asked(self, client: Client, operation: Operation[Any, Any], message: Message) -> Any:
        try:
            return client.ask(operation, message, self.keyring)
        except OVERTAKEN:
            return None

    # --- what clients do

    @rule(target=sessions, role=st.sampled_from((Role.KRSO, Role.KRCO)), at=st.integers(0, 1))
    def logs_in(self, role: Role, at: int) -> Client:
        return self._login(role, self.workers[at])

    @rule(target=made, by=sessions, label=st.sampled_from(LABELS))
    def makes(self, by: Client, label: str) -> Any:
        view = self._asked(by, objects.GENERATE, _aes(label))
        if view is None:
            return multiple()
        self._took_in(view.handle, label)
        return view.handle

    def _took_in(self, handle: bytes, label: str) -> None:
        self.labels[handle] = label
        use = objects.Use(handle=handle, mechanism=Mechanism.AES_GCM, data=DATA)
        fresh = self._login(Role.KRCO, self.workers[0])
        self.encrypted[handle] = fresh.ask(objects.ENCRYPT, use, self.keyring)

    @rule(by=sessions, handle=made, label=st.sampled_from(LABELS))
    def relabels(self, by: Client, handle: bytes, label: str) -> None:
        message = objects.SetAttributes(handle=handle, template={Attribute.LABEL.value: label})
        if self._asked(by, objects.SET, message) is not None:
            self.labels[handle] = label

    @rule(by=sessions, handle=consumes(made))
    def destroys(self, by: Client, handle: bytes) -> None:
        if self._asked(by, objects.DESTROY, objects.Destroy(handle=handle)) is not None:
            del self.labels[handle]

    @rule(by=sessions, handle=made)
    def decrypts(self, by: Client, handle: bytes) -> None:
        encrypted = self.encrypted[handle]
        reply = self._asked(by, objects.DECRYPT, _decrypts(handle, encrypted))
        assert reply is None or reply.data == DATA

    @rule(role=st.sampled_from((Role.KRSO, Role.KRCO)))
    def changes_a_password(self, role: Role) -> None:
        new = f"password number {next(self.numbers)}"
        given = Credential(role=role, keyring=self.keyring, password=self.passwords[role])
        replace(self.client, connection=os.urandom(16), sequence=0).ask(
            session.CHANGE_PASSWORD, ChangePassword(credential=given, new=new)
        )
        self.passwords[role] = new

    @rule()
    def resets_the_krco(self) -> None:
        new = f"password number {next(self.numbers)}"
        self._login(Role.KRSO, self.workers[0]).ask(admin.ROLE_SET, admin.SetRole(password=new), self.keyring)
        self.passwords[Role.KRCO] = new

    @rule(by=sessions)
    def logs_out_everywhere(self, by: Client) -> None:
        self._asked(by, session.LOGOUT, Logout(everywhere=True))

    @rule(at=st.integers(0, 1))
    def restarts_a_worker(self, at: int) -> None:
        self.workers[at].drop_everything()

    # --- requests that take their time

    @rule(
        target=paused, by=sessions, label=st.sampled_from(LABELS), asks=st.integers(1, 8),
        kind=st.sampled_from(("make", "find", "set", "destroy", "rekey", "reseal", "reset", "logout")),
        handle=made,
    )  # fmt: skip
    def begins(self, by: Client, label: str, asks: int, kind: str, handle: bytes) -> Any:
        asked: dict[str, tuple[Operation[Any, Any], Message]] = {
            "make": (objects.GENERATE, _aes(label)),
            "find": (objects.FIND, objects.Find(template={Attribute.LABEL.value: label})),
            "set": (objects.SET, objects.SetAttributes(handle=handle, template={Attribute.LABEL.value: label})),
            "destroy": (objects.DESTROY, objects.Destroy(handle=handle)),
            "rekey": (admin.KEYRING_REKEY, Empty()),
            "reseal": (admin.KEYRING_RESEAL, Empty()),
            "reset": (admin.ROLE_SET, admin.SetRole(password=self.passwords[Role.KRCO])),
            "logout": (session.LOGOUT, Logout(everywhere=True)),
        }
        pause = Paused.begun(by, *asked[kind], self.keyring)
        return multiple() if self._goes_on(pause, asks) else pause

    @rule(target=paused, pause=consumes(paused), asks=st.integers(1, 30))
    def goes_on(self, pause: Paused, asks: int) -> Any:
        return multiple() if self._goes_on(pause, asks) else pause

    def _goes_on(self, pause: Paused, asks: int) -> bool:
        try:
            return pause.go_on(asks) is not None
        except (*OVERTAKEN, errors.PermissionDenied):
            return True
        finally:
            self._look()

    def _look(self) -> None:
        """Learn from the store itself what came of requests that were not waited for."""
        items = self._items()
        for handle in self.labels.keys() - items.keys():
            del self.labels[handle]
        fresh = self._login(Role.KRCO, self.workers[0])
        for handle in sorted(items):
            view = fresh.ask(objects.SHOW, objects.Show(handle=handle), self.keyring)
            label = view.attributes[Attribute.LABEL.value]
            if handle in self.labels:
                self.labels[handle] = label
            else:
                self._took_in(handle, label)

    # --- the rekey

    @precondition(lambda self: not self.open)
    @rule(at=st.integers(0, 1))
    def is_rekeyed(self, at: int) -> None:
        officer = self._login(Role.KRSO, self.workers[at])
        state = officer.ask(admin.KEYRING_REKEY, Empty(), self.keyring)
        assert (state.generation, state.open, state.done) == (self.generation + 1, True, 0)
        with pytest.raises(errors.CredentialChanged):
            officer.ask(objects.FIND, objects.Find(), self.keyring)

    @precondition(lambda self: self.open)
    @rule()
    def is_not_rekeyed_again_meanwhile(self) -> None:
        with pytest.raises(errors.AlreadyDone):
            self._login(Role.KRSO, self.workers[0]).ask(admin.KEYRING_REKEY, Empty(), self.keyring)

    @precondition(lambda self: self.open)
    @rule(at=st.integers(0, 1))
    def goes_on_with_the_rekey(self, at: int) -> None:
        state = self._asked(self._login(Role.KRSO, self.workers[at]), admin.KEYRING_RESEAL, Empty())
        self.open = state is None or state.open

    # --- the SMK, meanwhile

    @precondition(lambda self: not self.rolling and len(self.world.secrets.smk) < limits.SMK_GENERATIONS)
    @rule()
    def the_smk_is_rolled_over(self) -> None:
        self.world.use_another_generation()
        self.rolling = True

    @precondition(lambda self: self.rolling)
    @rule(records=st.integers(1, 12))
    def records_are_sealed_under_it_anew(self, records: int) -> None:
        self.rolling = not self.world.seal_anew(records)

    # --- what holds

    def _items(self) -> dict[bytes, store.Item]:
        return {item.key.id: item for item in self.world.store.storage.in_scope(store.OBJECTS, self.keyring)}

    @invariant()
    def everything_is_there_for_whoever_logs_in(self) -> None:
        assert self.world.damage == []
        step = next(self.steps)
        fresh = self._login((Role.KRSO, Role.KRCO)[step // 2 % 2], self.workers[step % 2])
        self._learn(fresh)
        found = fresh.ask(objects.FIND, objects.Find(), self.keyring)
        assert not found.skipped
        assert {view.handle for view in found.objects} == self.labels.keys() == self._items().keys()
        label = LABELS[step % len(LABELS)]
        search = objects.Find(template={Attribute.LABEL.value: label})
        labelled = {view.handle for view in fresh.ask(objects.FIND, search, self.keyring).objects}
        assert labelled == {handle for handle, own in self.labels.items() if own == label}
        for handle in self.labels:
            reply = fresh.ask(objects.DECRYPT, _decrypts(handle, self.encrypted[handle]), self.keyring)
            assert reply.data == DATA

    def _learn(self, fresh: Client) -> None:
        """Learn of the key, and check that once a rekey is over everything is sealed under the newest alone."""
        state = fresh.ask(admin.KEYRING_REKEY_STATE, Empty(), self.keyring)
        self.open = state.open  # a request that was not waited for may have begun or ended it
        newest = self._keyring_key(fresh)
        if newest != self.newest:
            self.keys_before.append(self.newest)
            self.newest, self.generation = newest, self.generation + 1
        assert state.generation == self.generation
        assert newest not in self.keys_before
        if state.open:
            return
        keys = KeyringKeys.derive(newest, self.world.cluster, self.keyring)
        for item in self._items().values():
            keys.read(item)
            for old in self.keys_before:
                with pytest.raises(errors.SealBroken):
                    KeyringKeys.derive(old, self.world.cluster, self.keyring).read_attributes(item)


def _aes(label: str) -> objects.GenerateKey:
    template = {Attribute.VALUE_LEN.value: 32, Attribute.LABEL.value: label}
    return objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=template)


def _decrypts(handle: bytes, encrypted: objects.Result) -> objects.Decrypt:
    return objects.Decrypt(
        handle=handle, mechanism=Mechanism.AES_GCM, data=encrypted.data, parameters=codec.encode({"iv": encrypted.iv})
    )


@pytest.fixture(scope="module", autouse=True)
def two_objects_a_step() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        lower(patch, OBJECTS_PER_RESEAL=2)
        yield


TestRekeyed = Rekeyed.TestCase
TestRekeyed.settings = settings(max_examples=sized(5), stateful_step_count=25)
