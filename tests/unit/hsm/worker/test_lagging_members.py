"""A client goes over to a member that is behind: it is not told that its session is over, which would be wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lnh_common import errors
from lnh_common.messages import admin, hsm, objects, session, store
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.session import ChangePassword, Credential, Logout, Role
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.wire import bundles, codec
from lnh_services.hsm.effects import Ask
from lnh_services.hsm.worker.rollback_guard import HighestSeen
from models.worker import ADMIN_PASSWORD, KRCO, KRSO, Client, World, make_keyring

RANDOM = objects.RandomBytes(length=8)
ADMIN = Credential(role=Role.USER, name="admin", password=ADMIN_PASSWORD)
Act = Callable[[Client, bytes], object]


class Behind:
    """A member that stands where the cluster stood when this was made, and is read-only."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.items = dict(world.store.storage.items)
        self.worker = world.worker()
        self.seen = HighestSeen()

    def ask(self, client: Client, keyring: bytes) -> Any:
        """Have this member serve a request of the session that the client has."""
        here, there = client.worker, self.world.store.storage.items
        self.world.store.storage.items, client.worker = self.items, self.worker
        self.world.seen, seen = self.seen, self.world.seen
        self.world.attach(self.worker, read_write=False)
        try:
            return client.ask(objects.RANDOM, RANDOM, keyring)
        finally:
            self.world.store.storage.items, client.worker, self.world.seen = there, here, seen

    def catches_up(self) -> None:
        self.items = dict(self.world.store.storage.items)
        self.worker.drop_everything()


@pytest.fixture
def keyring(client: Client) -> bytes:
    return make_keyring(client)


def login(client: Client, keyring: bytes, password: str = KRCO) -> None:
    client.login(Credential(role=Role.KRCO, keyring=keyring, password=password))


def with_a_new_password(client: Client, keyring: bytes) -> None:
    client.world.now += 5
    old = Credential(role=Role.KRCO, keyring=keyring, password=KRCO)
    client.ask(session.CHANGE_PASSWORD, ChangePassword(credential=old, new="another password"))
    login(client, keyring, "another password")


def of_a_new_client(client: Client, keyring: bytes) -> None:
    client.register("another")
    login(client, keyring)


def after_a_restore(client: Client, keyring: bytes) -> None:
    client.world.renew_instance()
    login(client, keyring)


@pytest.mark.parametrize("opened", [with_a_new_password, of_a_new_client, after_a_restore])
def test_a_session_opened_elsewhere_is_served_once_the_member_has_caught_up(
    world: World, client: Client, keyring: bytes, opened: Act
) -> None:
    behind = Behind(world)
    opened(client, keyring)
    with pytest.raises(errors.MemberBehind, match="not been in step"):
        behind.ask(client, keyring)
    behind.catches_up()
    assert len(behind.ask(client, keyring).data) == 8


def test_a_keyring_made_elsewhere_is_served_once_the_member_has_caught_up(world: World, client: Client) -> None:
    behind = Behind(world)
    keyring = make_keyring(client)
    login(client, keyring)
    with pytest.raises(errors.MemberBehind, match="not been in step"):
        behind.ask(client, keyring)
    behind.catches_up()
    assert len(behind.ask(client, keyring).data) == 8


def ended(client: Client, keyring: bytes) -> None:
    client.ask(session.LOGOUT, Logout(), keyring)


def changed(client: Client, keyring: bytes) -> None:
    client.world.now += 5
    other = Client(client.world, client.worker, client.key, client.id)
    other.login(Credential(role=Role.KRSO, keyring=keyring, password=KRSO))
    other.ask(admin.ROLE_SET, admin.SetRole(password="another password"), keyring)


def revoked(client: Client, keyring: bytes) -> None:
    client.as_administrator().ask(admin.CLIENT_REVOKE, admin.ClientRef(client="client"))


@pytest.mark.parametrize(
    ("ends", "error"),
    [(ended, errors.SessionEnded), (changed, errors.CredentialChanged), (revoked, errors.ClientRevoked)],
)
def test_what_a_read_only_member_knows_for_certain_it_says(
    world: World, client: Client, keyring: bytes, ends: Act, error: type[errors.LnhError]
) -> None:
    login(client, keyring)
    ends(client, keyring)
    with pytest.raises(error):
        Behind(world).ask(client, keyring)


def newer(world: World) -> World:
    """The same cluster as members see it that have the next channel epoch."""
    seed = hsm.ChannelSeed(epoch=2, seed=os.urandom(32), end=world.secrets.channel[-1].end + 86400)
    world.secrets = msgspec.structs.replace(world.secrets, channel=(*world.secrets.channel, seed))
    return world


def test_a_token_of_an_epoch_that_has_not_come_here_yet_leads_to_another_member(
    world: World, client: Client, keyring: bytes
) -> None:
    old = client.worker
    newer(world)
    client.worker = world.worker()
    login(client, keyring)
    client.worker = old
    with pytest.raises(errors.Unreachable, match="not come"):
        client.ask(objects.RANDOM, RANDOM, keyring)
    sent, _ = client.sealed(objects.RANDOM, RANDOM, keyring)
    assert world.serve(old, sent, forwarded=True) == [*bundles.refusal(b"")[1:]]


def test_a_login_to_an_epoch_that_has_not_come_here_yet_leads_to_another_member(world: World, client: Client) -> None:
    old = client.worker
    newer(world)
    client.worker = world.worker()
    sent, keys = client.sealed(session.LOGIN, session.Login(credentials=(ADMIN,)))
    with pytest.raises(errors.Unreachable, match="not come"):
        client.open(session.LOGIN, sent, keys, world.serve(old, sent))
    assert client.open(session.LOGIN, sent, keys, world.serve(client.worker, sent)).token


def test_a_token_of_an_epoch_that_is_over_is_unknown(world: World, client: Client, keyring: bytes) -> None:
    login(client, keyring)
    world.secrets = msgspec.structs.replace(newer(world).secrets, channel=world.secrets.channel[1:])
    client.worker = world.worker()
    with pytest.raises(errors.TokenUnknown, match="over"):
        client.ask(objects.RANDOM, RANDOM, keyring)


def test_what_a_member_that_is_behind_does_not_have_may_be_there(world: World, client: Client, keyring: bytes) -> None:
    login(client, keyring)
    world.attach(client.worker, read_write=False)
    with pytest.raises(errors.MemberBehind, match="no object") as said:
        client.ask(objects.SHOW, objects.Show(handle=b"h" * 16), keyring)
    assert said.value.detail["doubted"] == errors.ObjectUnknown.code
    assert said.value.detail["whole_until"] == int(world.now * 1000)
    use = objects.Use(handle=b"h" * 16, mechanism=Mechanism.AES_GCM, data=b"")
    together = objects.Uses(uses=(("key.encrypt", codec.decode(codec.encode(use))),))
    outcomes = client.ask(objects.USES, together, keyring).outcomes
    assert outcomes[0][0] == errors.MemberBehind.code
    with pytest.raises(errors.MemberReadOnly, match="no object"):
        client.ask(objects.DESTROY, objects.Destroy(handle=b"h" * 16), keyring)


def test_a_lease_that_ends_while_a_request_is_served_makes_its_refusal_a_doubt(
    world: World, client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(client, keyring)
    answer = world.answer

    def lapse(asked: Ask) -> Message:
        if asked.operation is store.GET:  # it lapses, and is read-write again at once: what is read is between
            world.attach(client.worker, read_write=False)
            world.attach(client.worker)
        return answer(asked)

    monkeypatch.setattr(world, "answer", lapse)
    with pytest.raises(errors.MemberBehind, match="no object"):
        client.ask(objects.SHOW, objects.Show(handle=b"h" * 16), keyring)
    monkeypatch.undo()
    with pytest.raises(errors.ObjectUnknown):
        client.ask(objects.SHOW, objects.Show(handle=b"h" * 16), keyring)


def test_what_the_store_did_not_call_current_makes_no_refusal_certain(
    world: World, client: Client, keyring: bytes
) -> None:
    login(client, keyring)
    world.store.current = False  # as of a member that has just promised another epoch
    assert client.worker.is_read_write()
    asked: tuple[tuple[Operation[Any, Any], Message], ...] = (
        (objects.SHOW, objects.Show(handle=b"h" * 16)),
        (objects.SIGN, objects.Use(handle=b"h" * 16, mechanism=Mechanism.ECDSA, data=b"")),
        (objects.DESTROY, objects.Destroy(handle=b"h" * 16)),
    )
    for operation, message in asked:
        with pytest.raises(errors.MemberBehind, match="no object"):
            client.ask(operation, message, keyring)
    world.store.current = True
    with pytest.raises(errors.ObjectUnknown):
        client.ask(objects.SHOW, objects.Show(handle=b"h" * 16), keyring)
