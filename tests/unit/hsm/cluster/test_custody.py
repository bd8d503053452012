"""The acts on the SMK in the core: a backup is made once, and a new HSM takes it whole or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lnh_common import errors
from lnh_common.messages import console, smk
from lnh_common.messages.hsm import Derive
from lnh_common.wire.smk_backups import SmkBackup
from lnh_services import durable
from lnh_services.hsm.appliance.state import Cluster, Phase
from lnh_services.hsm.cluster import custody
from models.console import SO, OneAppliance
from waits import until

DOMAIN = "the cloning domain"
PASSPHRASE = "a long passphrase"


def order(passphrase: str = PASSPHRASE, number: int = 1) -> smk.MakeSmkBackup:
    return smk.MakeSmkBackup(id=bytes([number]) * 16, passphrase=passphrase)


def restoring(text: str, passphrase: str = PASSPHRASE, so: str = SO) -> console.RestoreSmk:
    return console.RestoreSmk(so_password=so, backup=text, passphrase=passphrase)


def held(desk: OneAppliance) -> Cluster:
    cluster = desk.vault.opened.cluster
    assert cluster is not None
    return cluster


@pytest.fixture
def old(tmp_path: Path) -> OneAppliance:
    (tmp_path / "old").mkdir()
    desk = OneAppliance(tmp_path / "old")
    asyncio.run(desk.cluster(DOMAIN))
    return desk


def new(tmp_path: Path, domain: str = DOMAIN) -> OneAppliance:
    (tmp_path / "new").mkdir()
    desk = OneAppliance(tmp_path / "new", "b", 7200)
    asyncio.run(desk.hsm_init(domain))
    asyncio.run(desk.install())
    return desk


def backed_up(desk: OneAppliance) -> str:
    return asyncio.run(desk.custody.backup(order())).text


def test_a_new_hsm_takes_the_smk_and_identity_and_is_another_member(old: OneAppliance, tmp_path: Path) -> None:
    text = backed_up(old)
    desk = new(tmp_path)
    desk.now = old.now + 86_400
    done = asyncio.run(desk.ask(console.SMK_RESTORE, restoring(text)))
    desk.restart()
    asyncio.run(desk.activate())
    was, now = held(old), held(desk)
    assert (now.id, now.label, now.identity, now.smk, now.phase) == (
        was.id, was.label, was.identity, was.smk, Phase.CREATED,
    )  # fmt: skip
    assert now.member != was.member
    assert [seed.epoch > was.channel[-1].epoch + 86_400 for seed in now.channel] == [True]
    assert now.channel[-1].seed != was.channel[-1].seed
    assert done == console.RestoredSmk(
        label="prod", cluster=was.id.hex(), fingerprint=done.fingerprint, generation=was.smk[-1].generation
    )
    assert desk.workers.running
    assert desk.vault.situation.appliance.initialised
    assert [each.label for each in desk.vault.opened.partitions] == ["prod"]


def test_neither_passphrase_nor_key_is_in_the_trail_or_the_file(old: OneAppliance, tmp_path: Path) -> None:
    text = backed_up(old)
    desk = new(tmp_path)
    asyncio.run(desk.ask(console.SMK_RESTORE, restoring(text)))
    trail = desk.trail_path.read_text()
    assert '"smk.restore"' in trail
    assert PASSPHRASE not in trail
    assert held(old).smk[0].key not in SmkBackup.parse(text).sealed


def split_in(desk: OneAppliance, threshold: int, count: int) -> smk.SmkBackupMade:
    asked = smk.MakeSmkBackup(id=bytes(16), threshold=threshold, count=count)
    return asyncio.run(desk.custody.backup(asked))


def test_as_many_shares_as_are_needed_restore_it_and_the_domain_is_needed_too(
    old: OneAppliance, tmp_path: Path
) -> None:
    made = split_in(old, 2, 3)
    assert len(made.shares) == 3
    desk = new(tmp_path)
    for given, error in ((made.shares[:1], errors.ArgumentInvalid), ((), errors.ArgumentInvalid)):
        request = console.RestoreSmk(so_password=SO, backup=made.text, shares=given)
        with pytest.raises(error, match="2 open it"):
            asyncio.run(desk.ask(console.SMK_RESTORE, request))
    request = console.RestoreSmk(so_password=SO, backup=made.text, shares=made.shares[1:])
    asyncio.run(desk.ask(console.SMK_RESTORE, request))
    assert held(desk).smk == held(old).smk
    assert not any(line in desk.trail_path.read_text() for share in made.shares for line in share.splitlines()[1:])


def test_shares_open_nothing_in_an_hsm_of_another_domain(old: OneAppliance, tmp_path: Path) -> None:
    made = split_in(old, 2, 2)
    desk = new(tmp_path, "another domain")
    request = console.RestoreSmk(so_password=SO, backup=made.text, shares=made.shares)
    with pytest.raises(errors.PasswordIncorrect, match="this HSM's cloning domain is another one"):
        asyncio.run(desk.ask(console.SMK_RESTORE, request))


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("so", errors.PasswordIncorrect),
        ("passphrase", errors.PasswordIncorrect),
        ("domain", errors.PasswordIncorrect),
        ("text", errors.ArgumentInvalid),
        ("store", errors.NotPossible),
    ],
)
def test_what_is_wrong_changes_nothing(
    old: OneAppliance, tmp_path: Path, wrong: str, error: type[errors.LnhError]
) -> None:
    text = backed_up(old)
    desk = new(tmp_path, "another domain" if wrong == "domain" else DOMAIN)
    if wrong == "store":
        desk.store.cluster = b"o" * 16
    request = restoring(
        text[:-9] if wrong == "text" else text,
        "another passphrase" if wrong == "passphrase" else PASSPHRASE,
        "somebody else" if wrong == "so" else SO,
    )
    with pytest.raises(error):
        asyncio.run(desk.ask(console.SMK_RESTORE, request))
    assert desk.vault.opened.cluster is None
    assert desk.vault.opened.partitions == ()
    assert not desk.workers.running


class Killed(BaseException):
    """The core was killed here."""


@pytest.mark.parametrize("at", range(5))
def test_a_core_that_is_killed_at_any_write_has_all_of_it_or_nothing(
    old: OneAppliance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Of its four writes two count the attempt at the SO's password; the fifth never comes."""
    text, appliance, writes = backed_up(old), new(tmp_path), 0
    replace_file = durable.replace_file

    def killed(path: Path, data: bytes) -> None:
        nonlocal writes
        if writes == at:
            raise Killed
        writes += 1
        replace_file(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace_file", killed)
        if at < 4:
            with pytest.raises(Killed):
                asyncio.run(appliance.ask(console.SMK_RESTORE, restoring(text)))
        else:
            asyncio.run(appliance.ask(console.SMK_RESTORE, restoring(text)))
    assert writes == at
    appliance.restart()
    asyncio.run(appliance.activate())
    if at < 3:
        assert appliance.vault.opened.cluster is None
        asyncio.run(appliance.ask(console.SMK_RESTORE, restoring(text)))
    assert held(appliance).smk == held(old).smk
    assert appliance.vault.situation.appliance.initialised


def test_an_hsm_with_a_cluster_takes_no_other_smk(old: OneAppliance) -> None:
    text = backed_up(old)
    with pytest.raises(errors.AlreadyDone, match="one cluster"):
        asyncio.run(old.ask(console.SMK_RESTORE, restoring(text)))


def test_there_is_no_backup_without_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(errors.NoCluster):
        backed_up(new(tmp_path))


def test_an_order_that_comes_again_gets_the_same_backup_for_a_while(
    old: OneAppliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived = 0

    async def derive(request: Derive) -> bytes:
        nonlocal derived
        derived += 1
        await asyncio.sleep(0)
        return bytes(32)

    monkeypatch.setattr(old.custody, "_derive", derive)

    async def twice() -> list[smk.SmkBackupMade]:
        backup = old.custody.backup
        made = [*await asyncio.gather(backup(order()), backup(order())), await backup(order())]
        monkeypatch.setattr(custody, "KEPT_SECONDS", 0.0)
        made.append(await backup(order(number=2)))
        await until(lambda: old.custody._making is None, "its end")
        return [*made, await backup(order(number=2))]

    first, *again, other, later = asyncio.run(twice())
    assert all(each.text == first.text for each in again)
    assert len({first.text, other.text, later.text}) == 3
    assert derived == 3, "it is forgotten after a while, with its shares"
