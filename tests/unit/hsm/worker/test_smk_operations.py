"""The operations on the SMK in a worker: who may is the table's; here, what the core is asked for."""

from __future__ import annotations

import pytest

from lnh_common import errors
from lnh_common.messages import smk
from lnh_common.messages.base import Empty, Message
from lnh_services.hsm.cluster.smk_backup import check_value
from lnh_services.hsm.effects import Ask
from models.worker import Client, World


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
