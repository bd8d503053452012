"""`lnh doctor`'s checks, one by one: what each sees, and that a cluster that is well has no finding."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from msgspec.structs import replace

from lnh.diagnosis import CHECKS, Check, Finding, Scene, Severity, diagnose
from lnh_cli.main import tree
from lnh_common.messages.member import ServiceState, Status
from lnh_common.messages.membership import ServiceHealth
from lnh_common.messages.overview import (
    BackupFigures,
    BalancerFigures,
    Figures,
    HsmFigures,
    MachineFigures,
    Overview,
    Seen,
    StoreFigures,
    UnfinishedRekey,
)
from models.overviews import AT, GIB, figures, overview, sight


@dataclass(frozen=True)
class Ill:
    """A cluster in which one check finds something, and what that says."""

    shown: Overview
    where: str
    what: str
    asked_at: float = AT
    local: bool = False
    supervisor: Status | None = None
    compatible: tuple[str, ...] = ()
    also: frozenset[str] = frozenset()  # other checks that see the same trouble


def with_b(**fields: object) -> Overview:
    """Of three members, b is like that."""
    return overview(sight("a"), sight("b", **fields), sight("c"))


def told_by_b(**parts: object) -> Overview:
    return with_b(figures=figures(**parts))


ILL: dict[str, Ill] = {
    "primary-silent": Ill(
        overview(
            sight("a", state="unreachable", last_heard=AT - 12, figures=None),
            sight("b", state="read-only"), sight("c", state="read-only"), member=b"b" * 16,
        ),
        "a", "the primary a is silent, last heard 12 s ago",
    ),
    "no-primary": Ill(overview(primary=b""), "", "no member is primary"),
    "primary-alone": Ill(
        overview(
            sight("a"), sight("b", state="unreachable", figures=None), sight("c", state="unreachable", figures=None)
        ),
        "a", "a is alone", also=frozenset({"member-unreachable"}),
    ),
    "stopped": Ill(overview(), "", "no supervisor runs", local=True),
    "service-not-running": Ill(
        overview(), "", "the backup service is waiting, after 3 restarts (the last one ended with -9)",
        local=True, supervisor=Status(ready=False, services=(
            ServiceState(name="store", state="running", pid=7, restarts=0, since=9.0),
            ServiceState(name="backup", state="waiting", pid=0, restarts=3, since=0.5, exit=-9),
        )),
    ),
    "cut-off": Ill(
        overview(
            sight("a", state="unreachable", figures=None), sight("b", state="read-only"),
            sight("c", state="unreachable", figures=None), member=b"b" * 16,
        ),
        "b", "b, which was asked, hears no other member",
        also=frozenset({"primary-silent", "member-unreachable"}),
    ),
    "no-cluster": Ill(
        overview(sight("a", id=b"", role="none", state="none"), cluster=b"", member=b"", primary=b"", groups=()),
        "", "a is in no cluster",
    ),
    "member-unreachable": Ill(
        with_b(state="unreachable", last_heard=0, figures=None), "b", "b is unreachable, never heard"
    ),
    "member-read-only": Ill(with_b(state="read-only"), "b", "b is read-only although the primary a answers"),
    "joining-long": Ill(
        with_b(state="joining", figures=figures(joining=300, waiting_for=("c",))), "b", "for 300 s, waiting for c"
    ),
    "diverged": Ill(with_b(state="diverged"), "b", "had to drop entries"),
    "expelled": Ill(with_b(state="expelled"), "b", "was removed"),
    "store-failed": Ill(told_by_b(store=StoreFigures(committed_index=5000, applied_index=5000, problem="no space")),
                        "b", "fails: no space"),
    "damaged": Ill(
        told_by_b(hsm=HsmFigures(state="activated", locked_memory=True, damaged="the stored policy record was changed")),
        "b", "b is damaged: the stored policy record was changed",
    ),
    "behind": Ill(told_by_b(store=StoreFigures(applied_index=1000)), "b", "4000 entries behind"),
    "group-unavailable": Ill(
        overview(sight("a"), sight("b", group="east", state="failed"), sight("c"), groups=("east", "local", "west")),
        "east", "no member of group east is available (b)", also=frozenset({"store-failed"}),
    ),
    "service-down": Ill(
        told_by_b(services=(ServiceHealth(name="backup", state="unreachable", milliseconds=9, problem="no answer"),)),
        "b", "the backup service of b does not answer: no answer",
    ),
    "workers-down": Ill(told_by_b(balancer=BalancerFigures(workers=4, workers_serving=1)), "b", "1 of 4 hsm workers"),
    "hsm-sealed": Ill(told_by_b(hsm=HsmFigures(state="sealed", locked_memory=True),
                                balancer=BalancerFigures(workers=2)), "b", "the HSM of b is sealed"),
    "overload": Ill(
        told_by_b(balancer=BalancerFigures(refused_per_second=12.5, workers=2, workers_serving=2)), "b", "refuses 12.5"
    ),
    "disk-nearly-full": Ill(
        told_by_b(machine=MachineFigures(disk_free=GIB, disk_total=100 * GIB)), "b", "1024 MiB of 102400 MiB are free"
    ),
    "version-skew": Ill(with_b(product="0.1.4"), "", "members run versions 0.1.4, 0.2.0"),
    "version-behind": Ill(overview(product="0.1"), "", "every member runs version 0.2, and the cluster's is 0.1"),
    "clock-skew": Ill(with_b(skew_ms=-4500), "b", "the clock of b is 4.5 s behind"),
    "client-clock-skew": Ill(overview(), "", "this machine is 90.0 s ahead of", asked_at=AT + 90),
    "backup-failed": Ill(
        told_by_b(backup=BackupFigures(schedule="daily", last_member="b", last_problem="disk full")),
        "b", "the last scheduled backup (b) failed: disk full",
    ),
    "backup-overdue": Ill(told_by_b(backup=BackupFigures(schedule="daily", overdue=True)), "", "is overdue"),
    "figures-missing": Ill(with_b(figures=None), "b", "tells nothing of itself"),
    "one-member": Ill(overview(sight("a")), "", "one member"),
    "many-members": Ill(overview(*(sight(name) for name in "abcde")), "", "5 members; 4 is the recommended maximum"),
    "no-backup": Ill(
        overview(*(sight(name, figures=figures(backup=BackupFigures())) for name in "abc")), "", "there is no backup"
    ),
    "memory-not-locked": Ill(told_by_b(hsm=HsmFigures(state="activated")), "b", "may not lock its memory"),
    "activation-on-same-disk": Ill(
        told_by_b(machine=MachineFigures(disk_free=GIB, disk_total=GIB, activation_beside=True)), "b", "activation file"
    ),
    "keys-not-separated": Ill(
        overview(), "payments", "the keyring payments has key_uses = compatible", compatible=("many", "payments")
    ),
    "rekey-unfinished": Ill(
        replace(
            overview(),
            rekeys=(
                UnfinishedRekey(label="payments", begun_at=int(AT) - 3600),
                UnfinishedRekey(label="under way", begun_at=int(AT) - 60),
            ),
        ),
        "payments", "the rekey of payments began 60 minutes ago, and is not through",
    ),
    "one-user": Ill(
        told_by_b(machine=MachineFigures(disk_free=GIB, disk_total=GIB, users=1)), "b", "run as one user"
    ),
}  # fmt: skip


def findings(ill: Ill) -> list[Finding]:
    return diagnose(
        Scene(ill.shown, ill.asked_at, local=ill.local, supervisor=ill.supervisor, compatible=ill.compatible)
    )


def test_a_cluster_that_is_well_has_no_finding() -> None:
    assert diagnose(Scene(overview(), AT)) == []


def test_every_check_is_tested_here_and_has_a_name_of_its_own() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert set(names) == set(ILL)


@pytest.mark.parametrize("name", sorted(ILL))
def test_a_check_finds_what_it_is_for_and_says_what_to_do(name: str) -> None:
    ill = ILL[name]
    found = findings(ill)
    assert {finding.check for finding in found} == {name, *ill.also}
    (finding,) = (finding for finding in found if finding.check == name and finding.where == ill.where)
    assert ill.what in finding.what
    for text in (finding.what, finding.why, finding.do):
        assert text
        assert "{" not in text


def test_what_was_dropped_is_told_also_of_a_member_that_joins() -> None:
    shown = with_b(state="joining", figures=figures(store=StoreFigures(diverged=True)))
    assert {finding.check for finding in diagnose(Scene(shown, AT))} == {"diverged"}


def test_a_member_of_which_nothing_is_seen_is_told_by_its_supervisor_alone() -> None:
    seen = Seen(cluster=b"", member=b"", primary=b"", epoch=0, at=1000 * AT, groups=(), members=())
    scene = Scene(Overview(label="", seen=seen), AT, local=True)
    assert [finding.check for finding in diagnose(scene)] == ["stopped"]


def test_problems_come_before_advice() -> None:
    shown = overview(sight("a", figures=figures(hsm=HsmFigures(state="activated"))), sight("b", state="diverged"))
    assert [finding.severity for finding in diagnose(Scene(shown, AT))] == [Severity.PROBLEM, Severity.ADVICE]


def test_the_archive_directory_of_each_member_is_looked_at() -> None:
    shown = told_by_b(backup=BackupFigures(schedule="daily", problem="no such directory"))
    (finding,) = diagnose(Scene(shown, AT))
    assert (finding.check, finding.where) == ("backup-failed", "b")
    assert "no such directory" in finding.what


def test_an_unusable_data_directory_is_told_though_the_store_says_nothing() -> None:
    (finding,) = (each for each in diagnose(Scene(with_b(state="failed"), AT)) if each.check == "store-failed")
    assert "its data cannot be used" in finding.what


def test_a_group_without_members_and_one_with_one_that_serves_are_well() -> None:
    shown = overview(sight("a"), sight("b", group="east", state="diverged"), sight("c", group="east"))
    shown = replace(shown, seen=replace(shown.seen, groups=("east", "local", "empty")))
    assert {finding.check for finding in diagnose(Scene(shown, AT))} == {"diverged"}


DOCS = Path(__file__).parents[3] / "docs"
COMMANDS = {  # each with its verbs, if it is a noun
    name: set(command.commands) if isinstance(command, typer.core.TyperGroup) else set()
    for name, command in typer.main.get_group(tree()).commands.items()
}


def anchors(page: Path) -> set[str]:
    """What the headings of a page may be pointed to by."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_where_a_check_points_to_there_is_something(check: Check) -> None:
    for text in (check.why, check.do):
        for page, anchor in re.findall(r"docs/([a-z/-]+\.md)(?:#([a-z-]+))?", text):
            assert anchor, f"a whole page ({page}) is no recipe"
            assert anchor in anchors(DOCS / page)
        for noun, verb in re.findall(r"\blnh ([a-z-]+)(?: ([a-z-]+))?", text):
            group = COMMANDS.get(noun)
            assert group is not None, f"there is no lnh {noun}"
            assert not group or verb in group, f"there is no lnh {noun} {verb}"


def test_some_checks_point_to_a_page_and_most_to_a_command() -> None:
    pointers = [check.do for check in CHECKS if "docs/" in check.do]
    assert len(pointers) >= 2
    assert sum("lnh " in check.do for check in CHECKS) > len(CHECKS) / 2


@pytest.mark.parametrize("state", ["read-only", "diverged", "joining"])
def test_a_group_whose_members_answer_is_not_called_unavailable(state: str) -> None:
    told = overview(*(sight(name, group="east", state=state) for name in "abc"), groups=("east",))
    assert "group-unavailable" not in {finding.check for finding in diagnose(Scene(told, AT))}


def as_told(state: str, primary: bytes = b"a" * 16) -> Figures:
    store = StoreFigures(last_index=5000, committed_index=5000, applied_index=5000, state=state, primary=primary)
    return figures(store=store)


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        (as_told("read-write"), as_told("read-only"), True),
        (figures(), figures(), True),  # of version 0.1, which tells less
        (as_told("read-only"), as_told("read-only"), False),  # it was lost and came back, and does not lead yet
        (as_told("read-write"), as_told("read-write"), False),  # it was read-only when it was heard last
        (as_told("read-write", b"b" * 16), as_told("read-only"), False),
        (None, as_told("read-only"), False),
    ],
)
def test_read_only_though_the_primary_answers_is_said_of_one_moment_alone(
    a: Figures | None, b: Figures, found: bool
) -> None:
    told = overview(sight("a", figures=a), sight("b", state="read-only", figures=b), sight("c"))
    assert ("member-read-only" in {each.check for each in diagnose(Scene(told, AT))}) == found


def test_a_primary_is_not_said_to_be_read_only_although_it_answers_itself() -> None:
    told = overview(sight("a", state="read-only", figures=as_told("read-only")), sight("b"), sight("c"))
    assert "member-read-only" not in {each.check for each in diagnose(Scene(told, AT))}
