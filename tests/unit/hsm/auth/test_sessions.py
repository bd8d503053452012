"""Sessions and logins at the pure hsm worker: what ends them, and what guessing passwords comes to."""

from __future__ import annotations

from typing import Any

import pytest

from lnh_common import errors, limits
from lnh_common.messages import admin, objects, session, store
from lnh_common.messages.base import Empty, Operation
from lnh_common.messages.session import ChangePassword, Credential, Role
from lnh_common.wire import frames
from lnh_services.hsm.effects import Steps
from lnh_services.hsm.worker.core import WorkerCore
from models.worker import ADMIN_PASSWORD, KRCO, KRSO, Client, World, generate_ec, sign


def test_a_changed_password_ends_sessions_of_before(client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    current = Credential(role=Role.KRCO, keyring=keyring, password=KRCO)
    token, secret = client.token, client.secret
    client.ask(session.CHANGE_PASSWORD, ChangePassword(credential=current, new="something else"))
    client.token, client.secret = token, secret
    with pytest.raises(errors.TokenUnknown):
        sign(client, keyring, pair.private.handle)
    client.login(Credential(role=Role.KRCO, keyring=keyring, password="something else"))
    sign(client, keyring, pair.private.handle)


def test_a_revoked_client_is_refused_with_the_session_it_has(client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    client.as_administrator().ask(admin.CLIENT_REVOKE, admin.ClientRef(client="client"))
    with pytest.raises(errors.ClientRevoked):
        sign(client, keyring, pair.private.handle)
    with pytest.raises(errors.ClientRevoked):
        client.login()


def revoke(world: World, client: Client) -> None:
    client.as_administrator().ask(admin.CLIENT_REVOKE, admin.ClientRef(client="client"))


def log_out(world: World, client: Client) -> None:
    client.ask(session.LOGOUT, session.Logout())


def change_password(world: World, client: Client) -> None:
    keyring = client.ask(admin.KEYRING_LIST, admin.ListKeyrings()).keyrings[0].id
    token, secret = client.token, client.secret
    credential = Credential(role=Role.KRCO, keyring=keyring, password=KRCO)
    client.ask(session.CHANGE_PASSWORD, ChangePassword(credential=credential, new="another password"))
    client.token, client.secret = token, secret


def delete_keyring(world: World, client: Client) -> None:
    keyring = client.ask(admin.KEYRING_LIST, admin.ListKeyrings()).keyrings[0].id
    client.as_administrator().ask(admin.KEYRING_DELETE, admin.KeyringRef(keyring=keyring))


def let_expire(world: World, client: Client) -> None:
    world.now += limits.TOKEN_LIFETIME + limits.CLOCK_TOLERANCE + 1


def restore(world: World, client: Client) -> None:
    world.renew_instance()


ENDS = {
    revoke: errors.ClientRevoked,
    log_out: errors.SessionEnded,
    change_password: errors.CredentialChanged,
    delete_keyring: errors.CredentialChanged,
    let_expire: errors.TokenExpired,
    restore: errors.ClusterRestored,
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("known", [True, False], ids=["known session", "new worker"])
def test_that_a_session_is_over_is_said_under_its_seal_and_to_nobody_else(
    world: World, client: Client, keyring: bytes, end: Any, known: bool
) -> None:
    client.ask(objects.FIND, objects.Find(), keyring)
    end(world, client)
    worker = client.worker if known else world.worker()
    sent, keys = client.sealed(objects.FIND, objects.Find(), keyring)
    answer = world.serve(worker, sent)
    assert frames.Header.parse(answer[0]).kind is frames.Kind.REPLY
    with pytest.raises(ENDS[end]) as caught:
        client.open(objects.FIND, sent, keys, answer)
    assert type(caught.value) is ENDS[end]
    sent[2] = sent[2][:-1] + bytes([sent[2][-1] ^ 1])
    answer = world.serve(worker, sent)
    assert frames.Header.parse(answer[0]).kind is frames.Kind.ERROR
    assert isinstance(frames.parse_error(answer[2]), errors.ChannelInvalid)


def test_a_session_that_logged_out_is_over_on_every_worker(world: World, client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    client.ask(session.LOGOUT, session.Logout())
    mine, other = client.worker, world.worker()
    for client.worker in (mine, other):
        with pytest.raises(errors.TokenUnknown):
            sign(client, keyring, pair.private.handle)


def test_logging_out_everywhere_ends_the_other_sessions_of_the_role(client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    token, secret = client.token, client.secret
    client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    client.ask(session.LOGOUT, session.Logout(everywhere=True))
    client.token, client.secret = token, secret
    with pytest.raises(errors.TokenUnknown):
        sign(client, keyring, pair.private.handle)
    client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    sign(client, keyring, pair.private.handle)


def test_a_renewed_session_goes_on_and_a_forgotten_one_expires(world: World, client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    world.now += limits.TOKEN_LIFETIME - 1
    client.token = client.ask(session.RENEW, Empty()).token
    world.now += limits.TOKEN_LIFETIME - 1
    sign(client, keyring, pair.private.handle)
    world.now += limits.CLOCK_TOLERANCE + 10
    client.worker = world.worker()
    with pytest.raises(errors.TokenExpired):
        sign(client, keyring, pair.private.handle)


def test_an_expired_token_is_refused_also_by_a_worker_that_knows_it(
    world: World, client: Client, keyring: bytes
) -> None:
    pair = generate_ec(client, keyring)
    sign(client, keyring, pair.private.handle)
    world.now += limits.TOKEN_LIFETIME + limits.CLOCK_TOLERANCE + 1
    with pytest.raises(errors.TokenExpired):
        sign(client, keyring, pair.private.handle)


def test_the_first_krso_password_is_good_for_nothing_but_being_changed(client: Client) -> None:
    administrator = client.as_administrator()
    keyring = administrator.ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label="x")).keyrings[0].id
    administrator.ask(admin.ROLE_INIT, admin.InitRole(keyring=keyring, password="a first password"))
    with pytest.raises(errors.PasswordMustChange):
        client.login(Credential(role=Role.KRSO, keyring=keyring, password="a first password"))


def test_the_administrator_cannot_take_a_keyring_whose_krso_is_set(client: Client, keyring: bytes) -> None:
    with pytest.raises(errors.AlreadyDone):
        client.as_administrator().ask(admin.ROLE_INIT, admin.InitRole(keyring=keyring, password="mine now, all of it"))


def test_ten_wrong_passwords_lock_and_time_unlocks(world: World, client: Client, keyring: bytes) -> None:
    wrong = Credential(role=Role.KRCO, keyring=keyring, password="not this one")
    for _ in range(limits.FAILURES_BEFORE_LOCK):
        with pytest.raises(errors.PasswordIncorrect):
            client.login(wrong)
    right = Credential(role=Role.KRCO, keyring=keyring, password=KRCO)
    with pytest.raises(errors.PasswordLocked):
        client.login(right)
    world.now += limits.LOCK_SECONDS + 1
    client.login(right)


def test_guessing_through_many_clients_delays_nobody_who_knows_the_password(
    world: World, client: Client, keyring: bytes
) -> None:
    wrong = Credential(role=Role.KRCO, keyring=keyring, password="not this one")
    right = Credential(role=Role.KRCO, keyring=keyring, password=KRCO)
    guessing = [Client(world, world.worker()).register(f"guess-{number}") for number in range(4)]
    for turn in range(limits.FAILURES_BEFORE_DELAY):
        with pytest.raises(errors.PasswordIncorrect):
            guessing[turn % 4].login(wrong)
    with pytest.raises(errors.PasswordLocked, match="from all clients") as caught:
        guessing[0].login(wrong)
    assert caught.value.detail == {"seconds": 1}
    newcomer = Client(world, world.worker()).register("newcomer")
    with pytest.raises(errors.PasswordLocked):
        newcomer.login(right)
    client.login(right)
    world.now += 1
    newcomer.login(right)


def test_a_reset_by_the_krso_forgives_the_krcos_failures(world: World, client: Client, keyring: bytes) -> None:
    wrong = Credential(role=Role.KRCO, keyring=keyring, password="not this one")
    for _ in range(limits.FAILURES_BEFORE_LOCK):
        with pytest.raises(errors.PasswordIncorrect):
            client.login(wrong)
    with pytest.raises(errors.PasswordLocked):
        client.login(wrong)
    client.login(Credential(role=Role.KRSO, keyring=keyring, password=KRSO))
    client.ask(admin.ROLE_SET, admin.SetRole(password="another password"), keyring)
    client.login(Credential(role=Role.KRCO, keyring=keyring, password="another password"))


def test_a_password_that_was_set_is_not_told_as_undone_amid_too_many_logins(
    client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.PasswordIncorrect):
        client.login(Credential(role=Role.KRCO, keyring=keyring, password="not this one"))
    client.login(Credential(role=Role.KRSO, keyring=keyring, password=KRSO))

    def somebody_else_is_first(_: WorkerCore, *__: store.Change, lasting: bool) -> Steps[bool]:
        yield from ()
        return False

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(WorkerCore, "own_commit", somebody_else_is_first)
        with pytest.raises(errors.OutcomeUnknown, match="many logins"):
            client.ask(admin.ROLE_SET, admin.SetRole(password="another password"), keyring)
    client.login(Credential(role=Role.KRCO, keyring=keyring, password="another password"))


def test_an_unknown_user_is_told_what_a_wrong_password_is_told(client: Client) -> None:
    said = []
    for name in ("admin", "nobody"):
        with pytest.raises(errors.PasswordIncorrect) as caught:
            client.login(Credential(role=Role.USER, name=name, password="not this one"))
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_wrong_passwords_are_in_the_audit_trail_and_passwords_are_not(world: World, client: Client) -> None:
    with pytest.raises(errors.PasswordIncorrect):
        client.login(Credential(role=Role.USER, name="admin", password="not this one"))
    assert world.audit[-1].outcome == "PasswordIncorrect"
    assert "not this one" not in repr(world.audit)
    assert ADMIN_PASSWORD not in repr(world.audit)


def test_an_administrator_on_an_unregistered_machine_renews_and_ends_its_session(client: Client) -> None:
    guest = client.as_administrator()
    assert not guest.id
    renewed = guest.ask(session.RENEW, Empty())
    guest.token = renewed.token
    guest.ask(admin.USER_LIST, Empty())
    guest.ask(session.LOGOUT, session.Logout())
    with pytest.raises(errors.TokenUnknown):
        guest.ask(admin.USER_LIST, Empty())


def test_a_client_without_a_login_learns_the_ways_and_the_names_of_keyrings_alone(
    client: Client, keyring: bytes
) -> None:
    client.login()
    assert [each.label for each in client.ask(admin.KEYRING_LIST, admin.ListKeyrings()).keyrings] == ["payments"]
    refused: list[Operation[Any, Any]] = [admin.CLUSTER_SHOW, admin.GROUP_LIST, admin.STATUS, admin.CLIENT_LIST]
    for operation in refused:
        with pytest.raises(errors.PermissionDenied):
            client.ask(operation, Empty())


def test_the_krco_looks_at_the_keyrings_policy_and_the_krso_changes_it(client: Client, keyring: bytes) -> None:
    change = admin.PolicyChange(changes={"objects_per_keyring": 7})
    with pytest.raises(errors.PermissionDenied, match="KRSO"):
        client.ask(admin.KEYRING_POLICY, change, keyring)
    before = client.ask(admin.KEYRING_POLICY, admin.PolicyChange(), keyring).policy
    assert before["objects_per_keyring"] == limits.OBJECTS_PER_KEYRING
    client.login(Credential(role=Role.KRSO, keyring=keyring, password=KRSO))
    client.ask(admin.KEYRING_POLICY, change, keyring)
    client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    assert client.ask(admin.KEYRING_POLICY, admin.PolicyChange(), keyring).policy == before | change.changes


def test_whom_a_keyring_is_assigned_to_is_for_those_who_may_see_the_clients(client: Client, keyring: bytes) -> None:
    administrator = client.as_administrator()
    administrator.ask(admin.CLIENT_ASSIGN, admin.Assignment(client="client", keyring=keyring))
    asked = admin.KeyringRef(keyring=keyring)
    assert administrator.ask(admin.KEYRING_SHOW, asked).clients == ("client",)
    client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    shown = client.ask(admin.KEYRING_SHOW, asked, keyring)
    assert (shown.label, shown.clients) == ("payments", ())
