"""Passwords at the local console: how often one may be wrong, and who resets whose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from lnh_common import errors, limits
from lnh_common.messages import console
from lnh_common.messages.session import Role
from lnh_common.messages.store import Commit, Get
from lnh_services.hsm.appliance.state import HsmState
from lnh_services.hsm.auth import online_attempts
from lnh_services.hsm.cluster import create
from lnh_services.hsm.records import (
    AttemptsRecord,
    ClusterRecord,
    HolderLockRecord,
    LockRecord,
    Open,
    UserRecord,
)
from lnh_services.hsm.worker.core import CLUSTER_RECORD
from models.console import SO, OneAppliance, password_of


@pytest.mark.parametrize("password", ["short77", "x" * 256])
def test_a_password_of_a_wrong_length_changes_nothing(appliance: OneAppliance, password: str) -> None:
    async def go() -> None:
        with pytest.raises(errors.PasswordInvalid):
            await appliance.ask(console.APPLIANCE_INIT, console.InitAppliance(admin="alice", password=password))
        assert not (await appliance.ask(console.APPLIANCE_SHOW)).initialised

    asyncio.run(go())


def test_ten_wrong_so_passwords_lock_it_also_across_a_restart(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.hsm_init()
        wrong = console.InstallPackage(so_password="wrong password", name="cluster")
        for attempt in range(limits.FAILURES_BEFORE_LOCK):
            if attempt == 5:
                appliance.restart()
                await appliance.activate()
            with pytest.raises(errors.PasswordIncorrect):
                await appliance.ask(console.PACKAGE_INSTALL, wrong)
        appliance.restart()
        await appliance.activate()
        with pytest.raises(errors.PasswordLocked, match="900 s"):
            await appliance.install()
        appliance.now += limits.LOCK_SECONDS
        await appliance.install()
        assert appliance.vault.opened.so.failures == 0

    asyncio.run(go())


def test_pulling_the_plug_gives_no_free_guess_and_takes_none_of_a_right_password(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.hsm_init()
        for number in range(3 * limits.FAILURES_BEFORE_LOCK):
            await interrupted(appliance, appliance.install(), after=number % 2)
        assert appliance.vault.opened.so.failures == 1
        for number in range(limits.FAILURES_BEFORE_LOCK - 1):
            await interrupted(appliance, appliance.ask(console.PACKAGE_INSTALL, wrong(number)), after=1)
        assert appliance.vault.opened.so.failures == limits.FAILURES_BEFORE_LOCK
        with pytest.raises(errors.PasswordLocked):
            await appliance.ask(console.PACKAGE_INSTALL, wrong(99))
        await appliance.install()  # what it would tell could be known before the others were counted
        assert appliance.vault.opened.so.failures == 0

    def wrong(number: int) -> console.InstallPackage:
        return console.InstallPackage(so_password=f"wrong password {number}", name="cluster")

    async def interrupted(appliance: OneAppliance, act: Coroutine[Any, Any, object], *, after: int) -> None:
        """The plug is pulled after so many changes of the state, of the two that an attempt makes."""
        change, changes = appliance.vault.change, iter(range(after))

        def pull(made: Callable[[HsmState], HsmState]) -> None:
            if next(changes, None) is None:
                raise errors.StorageFailed("the plug is pulled")
            change(made)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(appliance.vault, "change", pull)
            with pytest.raises(errors.StorageFailed):
                await act
        appliance.restart()
        await appliance.activate()

    asyncio.run(go())


@pytest.mark.parametrize("in_cluster", [False, True])
def test_the_so_resets_an_admin(appliance: OneAppliance, in_cluster: bool) -> None:
    async def go() -> None:
        await appliance.appliance_init()
        await appliance.hsm_init()
        await appliance.install()
        if in_cluster:
            await appliance.cluster_create()
        reset = console.ResetAdmin(so_password=SO, admin="alice", password="reset password")
        with pytest.raises(errors.NameUnknown):
            await appliance.ask(console.APPLIANCE_RESET_ADMIN, msgspec.structs.replace(reset, admin="bob"))
        await appliance.ask(console.APPLIANCE_RESET_ADMIN, reset)
        if not in_cluster:
            await appliance.cluster_create()
        assert password_of(appliance, Role.USER, "alice") == ["reset password"]

    asyncio.run(go())


def test_a_reset_by_the_so_forgives_the_admins_failures(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.cluster()
        cluster = appliance.vault.opened.cluster
        assert cluster is not None
        got = appliance.store.items.answer(Get(key=cluster.records().key_of(ClusterRecord, CLUSTER_RECORD)), 0)
        records = cluster.records(cluster.records().read(ClusterRecord, got.item).instance)  # type: ignore[attr-defined]
        scope = online_attempts.scope(records, Role.USER, "alice", b"")
        open_ = Open(bytes(16), int(appliance.now))
        locked = LockRecord(failures=10, until=int(appliance.now) + 900, succeeded=7)
        puts = (
            records.put(locked, online_attempts.UNREGISTERED, 0, scope=scope),
            records.put(HolderLockRecord(failures=40, last=int(appliance.now)), online_attempts.HOLDER, 0, scope=scope),
            records.put(AttemptsRecord(names=(b"n",), open=(open_,)), online_attempts.UNREGISTERED, 0, scope=scope),
            records.put(AttemptsRecord(open=(open_,)), online_attempts.HOLDER, 0, scope=scope),
        )
        commit = Commit(
            client=bytes(16), session=bytes(16), sequence=1, issued_at=int(appliance.now * 1000), changes=puts
        )
        appliance.store.items.answer(commit, int(appliance.now * 1000))
        reset = console.ResetAdmin(so_password=SO, admin="alice", password="reset password")
        await appliance.ask(console.APPLIANCE_RESET_ADMIN, reset)
        locks, attempts = (appliance.store.items.storage.in_scope(table, scope) for table in online_attempts.CLEARED)
        assert {records.read(AttemptsRecord, item).open for item in attempts} == {()}
        by_id = {item.key.id: item for item in locks}
        assert records.read(LockRecord, by_id[online_attempts.UNREGISTERED]) == LockRecord(succeeded=7)
        assert records.read(HolderLockRecord, by_id[online_attempts.HOLDER]) == HolderLockRecord()

    asyncio.run(go())


def test_so_po_and_co_change_their_own_passwords_with_the_old_ones(appliance: OneAppliance) -> None:
    new, wrong = "a new password", "a wrong password"

    async def go() -> None:
        await appliance.appliance_init()
        await appliance.hsm_init()
        made = console.CreatePartition(
            label="own", version=0, so_password=SO, po_password="the own po", co_password="the own co"
        )
        await appliance.ask(console.PARTITION_CREATE, made)
        of_so = console.ChangeSoPassword(so_password=SO, new=new)
        for officer, old in ((console.Officer.PO, "the own po"), (console.Officer.CO, "the own co")):
            change = console.ChangeOfficerPassword(label="own", officer=officer, password=old, new=new)
            with pytest.raises(errors.PasswordIncorrect, match=officer.name):
                await appliance.ask(console.PARTITION_PASSWORD, msgspec.structs.replace(change, password=wrong))
            with pytest.raises(errors.PasswordInvalid):
                await appliance.ask(console.PARTITION_PASSWORD, msgspec.structs.replace(change, new="short"))
            await appliance.ask(console.PARTITION_PASSWORD, change)
            with pytest.raises(errors.PasswordIncorrect):
                await appliance.ask(console.PARTITION_PASSWORD, change)
        with pytest.raises(errors.PartitionUnknown):
            await appliance.ask(console.PARTITION_PASSWORD, msgspec.structs.replace(change, label="none"))
        with pytest.raises(errors.PasswordIncorrect):
            await appliance.ask(console.HSM_PASSWORD, msgspec.structs.replace(of_so, so_password=wrong))
        await appliance.ask(console.HSM_PASSWORD, of_so)
        delete = console.PartitionRef(so_password=SO, label="own")
        with pytest.raises(errors.PasswordIncorrect):
            await appliance.ask(console.PARTITION_DELETE, delete)
        await appliance.deactivate()
        await appliance.activate()
        await appliance.ask(console.PARTITION_DELETE, msgspec.structs.replace(delete, so_password=new))

    asyncio.run(go())
    assert appliance.vault.opened.so.failures == 0
    trail = appliance.trail_path.read_text()
    assert '"partition.password"' in trail
    assert new not in trail


def test_the_so_resets_nobody_but_admins(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.cluster()
        cluster = appliance.vault.opened.cluster
        assert cluster is not None
        got = appliance.store.items.answer(Get(key=cluster.records().key_of(ClusterRecord, CLUSTER_RECORD)), 0)
        records = cluster.records(cluster.records().read(ClusterRecord, got.item).instance)  # type: ignore[attr-defined]
        put = records.put(UserRecord(name="mia", role="monitor"), create.user_id("mia"), 0)
        commit = create.first_commit(with_po(appliance), int(appliance.now * 1000))
        appliance.store.items.answer(
            msgspec.structs.replace(commit, sequence=1, changes=(put,)), int(appliance.now * 1000)
        )
        with pytest.raises(errors.ArgumentInvalid, match="monitor"):
            await appliance.ask(
                console.APPLIANCE_RESET_ADMIN,
                console.ResetAdmin(so_password=SO, admin="mia", password="reset password"),
            )
        # A store that serves the admin's record for hers does not change who she is.
        items = appliance.store.items.storage.items
        items["user", b"", create.user_id("mia")] = items["user", b"", create.user_id("alice")]
        with pytest.raises(errors.SealBroken, match="was asked for user"):
            await appliance.ask(
                console.APPLIANCE_RESET_ADMIN,
                console.ResetAdmin(so_password=SO, admin="mia", password="reset password"),
            )

    def with_po(appliance: OneAppliance) -> HsmState:
        state = appliance.vault.opened
        assert state.cluster is not None
        return msgspec.structs.replace(state, cluster=msgspec.structs.replace(state.cluster, po=state.so.password))

    asyncio.run(go())
