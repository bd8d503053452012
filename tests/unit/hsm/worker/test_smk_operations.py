"""The operations on the SMK in a worker, and a rollover under what it serves: who may is the table's."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec
import pytest

from lnh_common import errors
from lnh_common.messages import admin, hsm, objects, smk, store
from lnh_common.messages.base import Empty, Message
from lnh_common.messages.session import CHANGE_PASSWORD, ChangePassword, Credential, Role
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.cluster.smk_backup import check_value
from lnh_services.hsm.effects import Ask
from lnh_services.hsm.records import CredentialRecord
from models.rolling import Rolling
from models.worker import ADMIN_PASSWORD, KRCO, Client, World, generate_ec, make_keyring, sign


class Core(World):
    """A world whose core makes backups."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[smk.MakeSmkBackup] = []

    def answer(self, asked: Ask) -> Message:
        if isinstance(asked.message, smk.MakeSmkBackup):
            self.orders.append(asked.message)
            return smk.SmkBackupMade(text="a backup")
        return super().answer(asked)


@pytest.fixture
def world() -> Core:
    return Core()


@pytest.fixture
def administrator(world: Core) -> Client:
    return Client(world, world.worker()).as_administrator()


def test_a_request_that_comes_again_is_one_order(world: Core, administrator: Client) -> None:
    """It takes an Argon2id of 256 MiB, and an SDK that hears nothing for so long sends its request again."""
    sent, keys = administrator.sealed(smk.SMK_BACKUP, smk.BackupSmk(passphrase="a passphrase"))
    for _ in range(2):
        answer = world.serve(administrator.worker, sent)
        assert administrator.open(smk.SMK_BACKUP, sent, keys, answer).text == "a backup"
    administrator.ask(smk.SMK_BACKUP, smk.BackupSmk(passphrase="a passphrase"))
    first, again, other = world.orders
    assert first == again
    assert first.id != other.id


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (smk.BackupSmk(passphrase="short"), errors.PasswordInvalid),
        (smk.BackupSmk(), errors.PasswordInvalid),
        (smk.BackupSmk(threshold=1, count=3), errors.ArgumentInvalid),
        (smk.BackupSmk(threshold=3, count=2), errors.ArgumentInvalid),
        (smk.BackupSmk(threshold=2), errors.ArgumentInvalid),
    ],
)
def test_what_protects_nothing_is_refused_before_the_core_is_asked(
    world: Core, administrator: Client, asked: smk.BackupSmk, error: type[errors.LnhError]
) -> None:
    with pytest.raises(error):
        administrator.ask(smk.SMK_BACKUP, asked)
    assert world.orders == []


def test_the_generations_are_shown_with_check_values_and_without_keys(world: Core, administrator: Client) -> None:
    shown = administrator.ask(smk.SMK_SHOW, Empty())
    held = administrator.worker.secrets().secrets.smk
    assert [(each.generation, each.check) for each in shown.generations] == [
        (each.generation, check_value(each.key).hex()) for each in held
    ]


def _commits(asked: Ask) -> bool:
    message = asked.message
    return isinstance(message, store.Commit) and any(isinstance(change, store.Put) for change in message.changes)


@pytest.fixture
def rolling() -> Rolling:
    return Rolling()


@pytest.fixture
def client(rolling: Rolling) -> Client:
    return Client(rolling, rolling.worker()).register()


def _secret_key(label: str) -> objects.GenerateKey:
    template = {Attribute.VALUE_LEN.value: 32, Attribute.LABEL.value: label}
    return objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=template)


def test_sessions_names_and_locks_outlive_a_rollover(rolling: Rolling, client: Client) -> None:
    keyring = make_keyring(client)
    krco = Credential(role=Role.KRCO, keyring=keyring, password=KRCO)
    client.login(krco)
    pair = generate_ec(client, keyring)
    wrong = Credential(role=Role.USER, name="admin", password="not the password")
    other = Client(rolling, client.worker).register("other")
    for _ in range(9):
        with pytest.raises(errors.PasswordIncorrect):
            other.login(msgspec.structs.replace(wrong, password=os.urandom(8).hex()))
    administrator = client.as_administrator()
    rolling.use_another_generation()
    assert sign(client, keyring, pair.private.handle), "the session goes on"
    generate_ec(client, keyring)
    client.login(krco)
    with pytest.raises(errors.NameTaken):
        administrator.ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label="payments"))
    with pytest.raises(errors.PasswordIncorrect):
        other.login(wrong)
    with pytest.raises(errors.PasswordLocked):
        other.login(wrong)
    assert rolling.seals() == {1, 2}
    assert rolling.damage == []


@pytest.mark.parametrize("again", [False, True])
def test_a_write_that_a_rollover_overtakes_acts_only_when_it_is_asked_for_anew(
    rolling: Rolling, client: Client, again: bool
) -> None:
    keyring = make_keyring(client)
    client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    sent, keys = client.sealed(objects.GENERATE, _secret_key("mine"), keyring)
    rolling.at = _commits
    for _ in range(1 + again):
        with pytest.raises(errors.SmkRolled):
            client.open(objects.GENERATE, sent, keys, rolling.serve(client.worker, sent))
    client.ask(objects.GENERATE, _secret_key("mine"), keyring)
    found = client.ask(objects.FIND, objects.Find(template={Attribute.LABEL.value: "mine"}), keyring)
    assert len(found.objects) == 1


@pytest.mark.parametrize("at", [_commits, lambda asked: isinstance(asked.message, hsm.Derive)])
def test_a_credential_that_was_sealed_before_a_rollover_is_not_stored_after_it(
    rolling: Rolling, client: Client, at: Callable[[Ask], bool]
) -> None:
    administrator = client.as_administrator()
    added = admin.AddUser(name="mia", role="monitor", password="a password")
    sent, keys = administrator.sealed(admin.USER_ADD, added)
    rolling.at = at
    with pytest.raises(errors.SmkRolled):
        administrator.open(admin.USER_ADD, sent, keys, rolling.serve(administrator.worker, sent))
    administrator.ask(admin.USER_ADD, added)
    _, records = rolling.records()
    where = records.key_of(CredentialRecord, credentials.credential_id(Role.USER, "mia"))
    item = rolling.store.storage.get(where)
    assert item is not None
    assert records.read(CredentialRecord, item).generation == 2
    Client(rolling, administrator.worker).login(Credential(role=Role.USER, name="mia", password="a password"))


def test_a_password_is_changed_while_the_smk_is_rolled_over(rolling: Rolling, client: Client) -> None:
    """Overtaken is what counts the attempt, which is written down again as it is then."""
    rolling.at = _commits
    mine = Credential(role=Role.USER, name="admin", password=ADMIN_PASSWORD)
    client.ask(CHANGE_PASSWORD, ChangePassword(credential=mine, new="another password"))
    assert rolling.seals() == {1, 2}
    client.login(msgspec.structs.replace(mine, password="another password"))


def test_an_hsm_without_the_generation_in_use_is_behind_and_not_damaged(rolling: Rolling, client: Client) -> None:
    held = rolling.secrets
    rolling.use_another_generation()
    there, rolling.secrets = rolling.secrets, held  # this member's core has not heard of it
    stale = Client(rolling, rolling.worker(), client.key, client.id)
    mine = Credential(role=Role.USER, name="admin", password=ADMIN_PASSWORD)
    for _ in range(2):
        with pytest.raises(errors.MemberBehind, match="generation 2, which this HSM has not taken yet"):
            stale.login(mine)
    assert rolling.damage == []
    rolling.secrets = there
    stale.login(mine)


def test_how_far_a_rollover_is_is_shown(rolling: Rolling, client: Client) -> None:
    administrator = client.as_administrator()
    before = administrator.ask(smk.SMK_SHOW, Empty())
    assert (before.in_use, before.progress, before.left) == (1, "no rollover is under way", 0)
    rolling.use_another_generation()
    shown = administrator.ask(smk.SMK_SHOW, Empty())
    assert [each.generation for each in shown.generations] == [1, 2]
    assert (shown.in_use, "sealed under it anew" in shown.progress) == (2, True)
    assert 0 < shown.left < shown.records, "the cluster's own record is under it already"
