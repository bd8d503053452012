"""The local console: the order of things, who may, and that nothing is half done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lnh_common import errors, limits
from lnh_common.messages import console, store
from lnh_common.messages.base import OPERATIONS, Effect, Operation
from lnh_common.messages.hsm import Mark
from lnh_common.messages.session import Role
from lnh_services.hsm.appliance import preconditions
from lnh_services.hsm.appliance.preconditions import NEEDS
from lnh_services.hsm.audit import trail
from lnh_services.hsm.cluster import create
from lnh_services.hsm.core.damage import DamageMark
from lnh_services.hsm.worker.core import CLUSTER_RECORD
from lnh_services.hsm.worker.policies import policy_id
from models.console import ACTIVATION, ADMIN, PO, SO, OneAppliance, password_of

Step = Callable[[OneAppliance], Awaitable[object]]


def test_every_console_operation_has_a_row_of_needs() -> None:
    rows = {row.name for row in vars(console).values() if row in OPERATIONS.values()}
    assert rows | {row.name for row in console.IN_PARTITION.values()} == set(NEEDS)


def test_records_are_where_the_workers_look_for_them() -> None:
    assert CLUSTER_RECORD == CLUSTER_RECORD
    assert policy_id(b"") == create.POLICY_RECORD


REFUSALS: list[tuple[str, list[Step], Step, type[errors.LnhError], str]] = [
    ("activate, not initialised", [], OneAppliance.activate, errors.NotInitialised, "not initialised"),
    ("install, not initialised", [], OneAppliance.install, errors.NotInitialised, "not initialised"),
    ("init twice", [OneAppliance.hsm_init], OneAppliance.hsm_init, errors.AlreadyDone, "is initialised"),
    ("admin twice", [OneAppliance.appliance_init], OneAppliance.appliance_init, errors.AlreadyDone, "first admin"),
    ("activate twice", [OneAppliance.hsm_init], OneAppliance.activate, errors.AlreadyDone, "is activated"),
    (
        "install, sealed",
        [OneAppliance.hsm_init, OneAppliance.deactivate],
        OneAppliance.install,
        errors.NotActivated,
        "not activated",
    ),
    (
        "install twice",
        [OneAppliance.hsm_init, OneAppliance.install],
        OneAppliance.install,
        errors.AlreadyDone,
        "is installed",
    ),
    (
        "cluster, no admin",
        [OneAppliance.hsm_init, OneAppliance.install],
        OneAppliance.cluster_create,
        errors.NotInitialised,
        "no admin",
    ),
    (
        "cluster, no package",
        [OneAppliance.appliance_init, OneAppliance.hsm_init],
        OneAppliance.cluster_create,
        errors.NotInitialised,
        "package",
    ),
    ("cluster twice", [OneAppliance.cluster], OneAppliance.cluster_create, errors.AlreadyDone, "one cluster"),
    (
        "partition, package",
        [OneAppliance.hsm_init, OneAppliance.install],
        OneAppliance.partition,
        errors.PartitionDisabled,
        "disabled",
    ),
    (
        "partition twice",
        [OneAppliance.hsm_init, OneAppliance.partition],
        OneAppliance.partition,
        errors.NameTaken,
        "own",
    ),
]


@pytest.mark.parametrize(
    ("before", "step", "error", "words"), [row[1:] for row in REFUSALS], ids=[r[0] for r in REFUSALS]
)
def test_a_refusal_names_what_is_missing(
    appliance: OneAppliance, before: list[Step], step: Step, error: type[errors.LnhError], words: str
) -> None:
    async def go() -> None:
        for each in before:
            await each(appliance)
        with pytest.raises(error, match=words):
            await step(appliance)

    asyncio.run(go())


def test_the_package_is_refused_while_there_are_v1_partitions_and_names_them(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.appliance_init()
        await appliance.hsm_init()
        await appliance.partition("mine", version=1)
        with pytest.raises(errors.NotPossible, match="mine") as refused:
            await appliance.install()
        assert "lnh partition delete mine" in refused.value.detail["advice"]
        await appliance.ask(console.PARTITION_DELETE, console.PartitionRef(so_password=SO, label="mine"))
        await appliance.install()

    asyncio.run(go())


def test_a_cluster_is_refused_beside_v1_partitions_that_an_earlier_version_left(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.appliance_init()
        await appliance.hsm_init()
        await appliance.partition("mine", version=1)
        appliance.vault.change(lambda state: preconditions.install(state, "cluster"))
        with pytest.raises(errors.NotPossible, match="mine"):
            await appliance.cluster_create()
        assert appliance.store.asked == []

    asyncio.run(go())


def test_what_forbids_an_act_is_told_before_anybody_is_asked_for_a_password(appliance: OneAppliance) -> None:
    async def check(act: Operation[Any, Any], target: str = "") -> None:
        await appliance.ask(console.CONSOLE_CHECK, console.Check(operation=act.name, target=target))

    async def go() -> None:
        with pytest.raises(errors.NotInitialised, match="lnh hsm init"):
            await check(console.PARTITION_CREATE, "mine")
        await check(console.HSM_INIT)
        await appliance.hsm_init()
        with pytest.raises(errors.AlreadyDone):
            await check(console.HSM_INIT)
        await check(console.PARTITION_CREATE, "mine")
        await appliance.partition("mine", version=1)
        with pytest.raises(errors.NameTaken, match="mine"):
            await check(console.PARTITION_CREATE, "mine")
        with pytest.raises(errors.PartitionUnknown, match="yours"):
            await check(console.PARTITION_DELETE, "yours")
        with pytest.raises(errors.NotPossible, match="mine"):
            await check(console.PACKAGE_INSTALL, "cluster")
        await appliance.ask(console.PARTITION_DELETE, console.PartitionRef(so_password=SO, label="mine"))
        with pytest.raises(errors.NameUnknown, match="no package"):
            await check(console.PACKAGE_INSTALL, "clusters")
        await appliance.install()
        with pytest.raises(errors.AlreadyDone):
            await check(console.PACKAGE_INSTALL, "cluster")
        with pytest.raises(errors.UnknownOperation):
            await check(store.STATUS)

    asyncio.run(go())


def test_the_package_disables_own_partitions_and_only_reimaging_reverses_it(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.hsm_init()
        assert (await appliance.partition()).accessible
        await appliance.install()
        (view,) = (await appliance.ask(console.PARTITION_LIST)).partitions
        assert not view.accessible
        with pytest.raises(errors.PartitionDisabled):
            await appliance.ask(console.PARTITION_DELETE, console.PartitionRef(so_password=SO, label="own"))
        await appliance.ask(console.HSM_FACTORY_RESET, console.AsSo(so_password=SO))
        await appliance.hsm_init()
        with pytest.raises(errors.PartitionDisabled):
            await appliance.partition()
        await appliance.ask(console.APPLIANCE_REIMAGE)
        await appliance.hsm_init()
        assert (await appliance.partition()).accessible

    asyncio.run(go())


def test_partitions_are_deleted_by_the_so(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.hsm_init()
        await appliance.partition()
        with pytest.raises(errors.PartitionUnknown):
            await appliance.ask(console.PARTITION_DELETE, console.PartitionRef(so_password=SO, label="other"))
        await appliance.ask(console.PARTITION_DELETE, console.PartitionRef(so_password=SO, label="own"))
        assert (await appliance.ask(console.PARTITION_LIST)).partitions == ()

    asyncio.run(go())


def test_a_domain_is_drawn_and_shown_once_unless_one_is_given(appliance: OneAppliance) -> None:
    async def go() -> None:
        drawn = (await appliance.hsm_init()).domain
        assert len(bytes.fromhex(drawn)) == 16
        assert appliance.vault.opened.domain == drawn
        await appliance.ask(console.HSM_FACTORY_RESET, console.AsSo(so_password=SO))
        message = console.InitHsm(label="b", so_password=SO, activation=ACTIVATION, domain="ours")
        assert (await appliance.ask(console.HSM_INIT, message)).domain == ""
        assert appliance.vault.opened.domain == "ours"

    asyncio.run(go())


def test_an_admin_made_before_the_hsm_moves_into_it(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.appliance_init()
        assert [user.name for user in appliance.vault.situation.appliance.waiting] == ["alice"]
        await appliance.hsm_init()
        assert [user.name for user in appliance.vault.opened.users] == ["alice"]
        assert appliance.vault.situation.appliance.waiting == ()
        assert (await appliance.ask(console.APPLIANCE_SHOW)).users == ("alice",)

    asyncio.run(go())


def test_an_admin_made_while_the_hsm_is_sealed_moves_at_activation(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.hsm_init()
        await appliance.deactivate()
        await appliance.appliance_init()
        appliance.restart()
        await appliance.activate()
        assert [user.name for user in appliance.vault.opened.users] == ["alice"]

    asyncio.run(go())


def test_what_began_is_finished_when_its_asker_is_gone(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.hsm_init()
        asked = asyncio.ensure_future(appliance.install())
        await asyncio.sleep(0)
        asked.cancel()
        await appliance.console.finish(5)
        assert appliance.vault.opened.packages == ("cluster",)

    asyncio.run(go())


def test_deactivation_needs_the_activation_secret_and_ends_the_workers(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.cluster()
        assert appliance.workers.running
        with pytest.raises(errors.ActivationFailed):
            await appliance.ask(console.HSM_DEACTIVATE, console.Activate(activation=b"another secret"))
        assert appliance.workers.running
        await appliance.deactivate()
        assert appliance.vault.state is None
        assert appliance.workers.running == 0
        view = await appliance.ask(console.HSM_SHOW)
        assert (view.state, view.label, view.cluster) == ("sealed", "hsm-a", "")
        with pytest.raises(errors.NotActivated):
            await appliance.ask(console.CONSOLE_CLUSTER)
        await appliance.activate()
        assert appliance.workers.running

    asyncio.run(go())


def test_a_cluster_is_its_partition_its_records_and_the_users_who_move_into_it(appliance: OneAppliance) -> None:
    async def go() -> None:
        assert (await appliance.ask(console.CONSOLE_CLUSTER)) == console.ConsoleCluster(created=False)
        created = await appliance.cluster()
        state = appliance.vault.opened
        assert state.cluster is not None
        assert state.users == ()
        assert state.cluster.po is None
        (view,) = (await appliance.ask(console.PARTITION_LIST)).partitions
        assert (view.label, view.version, view.accessible) == ("prod", 1, True)
        shown = await appliance.ask(console.CONSOLE_CLUSTER)
        assert (shown.cluster, shown.fingerprint, shown.door) == (
            created.cluster,
            created.fingerprint,
            "localhost:7100",
        )
        assert (await appliance.ask(console.APPLIANCE_SHOW)).users == ("alice",)
        assert password_of(appliance, Role.USER, "alice") == [ADMIN]
        assert password_of(appliance, Role.PO, "") == [PO]

    asyncio.run(go())


@pytest.mark.parametrize("lost", range(1, 5))
def test_a_cluster_whose_creation_was_interrupted_is_finished_as_the_same(appliance: OneAppliance, lost: int) -> None:
    async def go() -> None:
        await appliance.appliance_init()
        await appliance.hsm_init()
        await appliance.install()
        appliance.store.lose_answer_of = lost
        with pytest.raises(errors.OutcomeUnknown):
            await appliance.cluster_create()
        begun = appliance.vault.opened.cluster
        assert appliance.workers.running == 0
        appliance.restart()
        await appliance.activate()
        if begun is not None:
            with pytest.raises(errors.ArgumentInvalid, match="prod"):
                await appliance.cluster_create("other")
            with pytest.raises(errors.PasswordIncorrect, match="another PO password"):
                await appliance.cluster_create("prod", po="some other password")
        created = await appliance.cluster_create()
        assert begun is None or begun.id.hex() == created.cluster
        assert appliance.store.cluster.hex() == created.cluster
        assert password_of(appliance, Role.PO, "") == [PO]
        assert appliance.workers.running

    asyncio.run(go())


def test_a_store_that_holds_another_cluster_is_not_written_over(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.appliance_init()
        await appliance.hsm_init()
        await appliance.install()
        appliance.store.cluster = b"another clusters"
        with pytest.raises(errors.NotPossible, match=b"another clusters".hex()):
            await appliance.cluster_create()
        assert appliance.vault.opened.cluster is None

    asyncio.run(go())


def test_a_factory_reset_erases_the_hsm_and_its_cluster_and_keeps_packages(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.cluster()
        await appliance.ask(console.HSM_FACTORY_RESET, console.AsSo(so_password=SO))
        assert appliance.store.cluster == b""
        assert appliance.workers.running == 0
        assert not (appliance.directory / "hsm.state").exists()
        shown = await appliance.ask(console.APPLIANCE_SHOW)
        assert (shown.packages, shown.initialised) == (("cluster",), False)
        await appliance.appliance_init()
        await appliance.hsm_init()
        await appliance.cluster_create()

    asyncio.run(go())


def test_a_factory_reset_without_a_cluster_keeps_the_admin(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.appliance_init()
        await appliance.hsm_init()
        await appliance.ask(console.HSM_FACTORY_RESET, console.AsSo(so_password=SO))
        await appliance.hsm_init()
        assert (await appliance.ask(console.APPLIANCE_SHOW)).users == ("alice",)

    asyncio.run(go())


@pytest.mark.parametrize("sealed", [False, True])
def test_reimaging_destroys_everything_but_the_trail(appliance: OneAppliance, sealed: bool) -> None:
    async def go() -> None:
        await appliance.cluster()
        if sealed:
            appliance.restart()
        await appliance.ask(console.APPLIANCE_REIMAGE)
        assert appliance.store.cluster == b""
        assert {path.name for path in appliance.directory.iterdir()} == {"audit.jsonl"}
        assert trail.verify(appliance.trail_path, None).problem == ""
        await appliance.cluster()

    asyncio.run(go())


def test_an_act_that_cannot_be_recorded_is_not_done(appliance: OneAppliance, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        await appliance.hsm_init()

        def full(*_: object, **__: object) -> int:
            raise errors.AuditFailed("no space")

        monkeypatch.setattr(appliance.trail, "append", full)
        with pytest.raises(errors.AuditFailed):
            await appliance.install()
        assert appliance.vault.opened.packages == ()

    asyncio.run(go())


def test_acts_and_refusals_are_in_the_trail_and_no_password_is(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.cluster()
        with pytest.raises(errors.PasswordIncorrect):
            await appliance.ask(
                console.PACKAGE_INSTALL, console.InstallPackage(so_password="wrong password", name="cluster")
            )
        records = (await appliance.ask(console.AUDIT_SHOW, console.AuditPage())).records
        acts = [(record["operation"], record["outcome"]) for record in records]
        assert acts[1:3] == [("appliance.init", "begun"), ("appliance.init", "ok")]
        assert acts[-2:] == [("package.install", "begun"), ("package.install", "PasswordIncorrect")]
        text = appliance.trail_path.read_bytes()
        assert not [
            secret for secret in (SO, PO, ADMIN, "wrong password", ACTIVATION.decode()) if secret.encode() in text
        ]

    asyncio.run(go())


def test_the_report_compares_the_trail_with_its_anchor_in_the_store(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.cluster()
        await appliance.console.anchor()
        report = await appliance.ask(console.AUDIT_VERIFY)
        assert (report.problem, report.anchored) == ("", report.records - 1)  # the creation's own `ok` came after
        appliance.desk.sign()
        await appliance.console.anchor()
        report = await appliance.ask(console.AUDIT_VERIFY)
        assert report.anchored == report.signed == report.records
        lines = appliance.trail_path.read_bytes().splitlines(keepends=True)
        appliance.trail_path.write_bytes(b"".join(lines[:4]))
        appliance.restart()
        await appliance.activate()
        for _ in range(2):
            assert "cluster's log" in (await appliance.ask(console.AUDIT_VERIFY)).problem
            appliance.desk.sign()
            with pytest.raises(errors.AuditFailed, match="lacks lines"):
                await appliance.console.anchor()

    asyncio.run(go())


def test_reads_are_not_changes() -> None:
    changing = {name for name in NEEDS if OPERATIONS[name].effect is Effect.WRITE}
    assert changing.isdisjoint({"hsm.show", "appliance.show", "partition.list", "console.cluster", "audit.verify"})


@pytest.mark.parametrize(("setting", "told"), [(limits.LEASE_MS, 0), (3000, 3000)])
def test_a_cluster_begins_with_the_lease_settings_of_the_member_that_created_it(
    appliance: OneAppliance, setting: int, told: int
) -> None:
    appliance.lease_ms = setting
    appliance.restart()
    asyncio.run(appliance.cluster())
    assert appliance.store.lease_ms == told


def test_an_hsm_that_is_activated_anew_takes_what_its_store_has(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.cluster()
        cluster = appliance.vault.opened.cluster
        assert cluster is not None
        appliance.damage.note(cluster.member, "the stored policy record was changed")
        appliance.damage.note(cluster.member, "another one")
        appliance.seen.note([Mark(item=bytes(16), born=0, version=7)])
        assert (await appliance.ask(console.HSM_SHOW)).damaged == "the stored policy record was changed"
        await appliance.deactivate()
        await appliance.activate()
        assert (await appliance.ask(console.HSM_SHOW)).damaged == ""
        assert len(appliance.seen) == 0

    asyncio.run(go())


def test_the_mark_of_a_member_is_not_that_of_the_one_it_becomes_when_it_joins_anew() -> None:
    mark = DamageMark()
    mark.note(b"a" * 16, "a record was changed")
    assert (mark.cause(b"a" * 16), mark.cause(b"b" * 16)) == ("a record was changed", "")
    mark.note(b"b" * 16, "another one")
    assert (mark.cause(b"a" * 16), mark.cause(b"b" * 16)) == ("", "another one")
