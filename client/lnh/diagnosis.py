"""Diagnoses a cluster: what is wrong, why it matters and what to do, by a table of checks over what members tell. Pure.

Each row of `CHECKS` looks for one thing in a `Scene`. A **problem** makes the cluster unhealthy; an **advice** is
something that a careful operator would change, and is shown beside. Adding a check is a row and a function.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from lnh_common import limits
from lnh_common.messages import member
from lnh_common.messages.overview import BackupFigures, Figures, Overview, Sight
from lnh_common.versions import minor

JOINING_SECONDS: Final = 120
BEHIND_ENTRIES: Final = 2000
REKEY_SECONDS: Final = 600  # a keyring of many thousand objects is through by then
DISK_SHARE: Final = 0.05  # of the disk free, below which it is nearly full
DISK_BYTES: Final = 256 * limits.MIB  # ... or so little, whatever the disk
SKEW_MS: Final = 2_000
CLIENT_SKEW_SECONDS: Final = limits.CLOCK_TOLERANCE / 2

ACTIVATED: Final = "activated"
SERVING: Final = "serving"
AVAILABLE: Final = "read-write"
COMPATIBLE: Final = "compatible"
SERVES_NOBODY: Final = frozenset({"unreachable", "failed", "expelled", "none"})


class Severity(str, enum.Enum):
    """The severity of a finding: a problem makes the cluster unhealthy."""

    PROBLEM = "problem"
    ADVICE = "advice"


@dataclass(frozen=True)
class Spot:
    """The place where a check found something: a member, a group or nothing, and what is seen there."""

    where: str
    what: str


@dataclass(frozen=True)
class Finding:
    """A fault that a check found. `do` is a command or an act, with the member's or group's name in it."""

    check: str
    severity: Severity
    where: str
    what: str
    why: str
    do: str


@dataclass(frozen=True)
class Check:
    """One row.

    Args:
        look: yields the spots where it is so.
        why: why that matters.
        do: what to do about it; `{where}` stands for the spot's.
    """

    name: str
    severity: Severity
    look: Callable[[Scene], Iterable[Spot]]
    why: str
    do: str


@dataclass(frozen=True)
class Scene:
    """The input of the checks.

    Args:
        overview: as a member told it.
        asked_at: UTC seconds by the clock of the machine that asked.
        local: whether it is looked at from the member's own machine.
        supervisor: the supervisor's answer there; None where it does not answer, or is not asked.
        compatible: labels of the keyrings whose policy says `key_uses = compatible`.
    """

    overview: Overview
    asked_at: float
    local: bool = False
    supervisor: member.Status | None = None
    compatible: tuple[str, ...] = ()

    @property
    def asked(self) -> Sight | None:
        """The member that was asked, as it sees itself."""
        return next((each for each in self.members if each.id == self.overview.seen.member), None)

    @property
    def members(self) -> tuple[Sight, ...]:
        """The members, as the member that was asked sees them."""
        return self.overview.seen.members

    @property
    def primary(self) -> Sight | None:
        """The primary, if the member that was asked knows one."""
        return next((each for each in self.members if each.id and each.id == self.overview.seen.primary), None)

    @property
    def reached(self) -> list[Sight]:
        """The members that answered."""
        return [each for each in self.members if each.state != "unreachable"]

    def told(self) -> Iterator[tuple[Sight, Figures]]:
        """Yield the members that told of themselves."""
        for each in self.members:
            if each.figures is not None:
                yield each, each.figures

    def silence(self, member: Sight) -> str:
        """Say for how long a member was not heard."""
        if not member.last_heard:
            return "never heard since the member asked was started"
        return f"last heard {max(0, self.overview.seen.at // 1000 - member.last_heard)} s ago"


def diagnose(scene: Scene) -> list[Finding]:
    """Return all findings, problems first, in the order of the table."""
    found = [
        Finding(check.name, check.severity, spot.where, spot.what, check.why, check.do.format(where=spot.where))
        for check in CHECKS
        for spot in check.look(scene)
    ]
    return sorted(found, key=lambda finding: finding.severity is not Severity.PROBLEM)


# --- the primary


def _primary_silent(scene: Scene) -> Iterator[Spot]:
    primary = scene.primary
    if primary is not None and primary.state == "unreachable":
        yield Spot(primary.name, f"the primary {primary.name} is silent, {scene.silence(primary)}")


def _no_primary(scene: Scene) -> Iterator[Spot]:
    if scene.primary is None and len(scene.members) > 1:
        yield Spot("", "no member is primary as far as the member asked knows")


def _primary_alone(scene: Scene) -> Iterator[Spot]:
    primary = scene.primary
    others = [each for each in scene.members if each is not primary]
    apart = all(each.state in ("unreachable", "joining") for each in others)
    if primary is not None and primary.state == AVAILABLE and others and apart:
        yield Spot(primary.name, f"the primary {primary.name} is alone: no other member is in step")


# --- the member that was asked


def _stopped(scene: Scene) -> Iterator[Spot]:
    if scene.local and scene.supervisor is None:
        yield Spot("", "no supervisor runs this member")


def _restarts(scene: Scene) -> Iterator[Spot]:
    for service in scene.supervisor.services if scene.supervisor is not None else ():
        if service.state != "running":
            ended = f" (the last one ended with {service.exit})" if service.exit is not None else ""
            yield Spot("", f"the {service.name} service is {service.state}, after {service.restarts} restarts{ended}")


def _no_cluster(scene: Scene) -> Iterator[Spot]:
    if scene.members and not scene.overview.seen.cluster:
        yield Spot("", f"{scene.members[0].name} is in no cluster")


def _cut_off(scene: Scene) -> Iterator[Spot]:
    asked = scene.asked
    others = [each for each in scene.members if each is not asked]
    alone = bool(others) and all(each.state == "unreachable" for each in others)
    if asked is not None and asked is not scene.primary and alone:
        yield Spot(asked.name, f"{asked.name}, which was asked, hears no other member")


# --- members


def _unreachable(scene: Scene) -> Iterator[Spot]:
    for each in scene.members:
        if each.state == "unreachable" and each is not scene.primary:
            yield Spot(each.name, f"{each.name} is unreachable, {scene.silence(each)}")


def _read_only(scene: Scene) -> Iterator[Spot]:
    # The view's words are up to some seconds old, each of another age; what members tell when asked is of one moment.
    primary = scene.primary
    if primary is None or not _is_primary_now(primary):
        return
    for each, figures in scene.told():
        if each is not primary and _state_now(each, figures) == "read-only" and each.state == "read-only":
            yield Spot(each.name, f"{each.name} is read-only although the primary {primary.name} answers")


def _is_primary_now(primary: Sight) -> bool:
    """Tell whether the primary told at this moment that it is one."""
    store = primary.figures.store if primary.figures is not None else None
    return store is not None and store.primary in (b"", primary.id) and store.state in ("", AVAILABLE)


def _state_now(member: Sight, figures: Figures) -> str:
    """Return the state that a member told at this moment; one of version 0.1 tells it to the other members alone."""
    return (figures.store.state if figures.store is not None else "") or member.state


def _joining_long(scene: Scene) -> Iterator[Spot]:
    for each, figures in scene.told():
        if each.state == "joining" and figures.joining > JOINING_SECONDS:
            waits = f", waiting for {', '.join(figures.waiting_for)}" if figures.waiting_for else ""
            yield Spot(each.name, f"{each.name} has been joining for {figures.joining} s{waits}")


def _diverged(scene: Scene) -> Iterator[Spot]:
    for each in scene.members:
        store = each.figures.store if each.figures is not None else None
        if each.state == "diverged" or (store is not None and store.diverged):
            yield Spot(each.name, f"{each.name} had to drop entries it had applied, and nobody has looked at them")


def _expelled(scene: Scene) -> Iterator[Spot]:
    for each in scene.members:
        if each.state == "expelled":
            yield Spot(each.name, f"{each.name} was removed from the cluster")


def _failed(scene: Scene) -> Iterator[Spot]:
    for each in scene.members:
        problem = each.figures.store.problem if each.figures is not None and each.figures.store is not None else ""
        if each.state == "failed" or problem:
            yield Spot(each.name, f"the store of {each.name} fails: {problem or 'its data cannot be used'}")


def _damaged(scene: Scene) -> Iterator[Spot]:
    for each in scene.members:
        cause = each.figures.hsm.damaged if each.figures is not None and each.figures.hsm is not None else ""
        if each.state == "damaged" or cause:
            yield Spot(each.name, f"{each.name} is damaged{f': {cause}' if cause else ''}")


def _behind(scene: Scene) -> Iterator[Spot]:
    primary = scene.primary
    if primary is None or primary.figures is None or primary.figures.store is None:
        return
    committed = primary.figures.store.committed_index
    for each, figures in scene.told():
        if each.state != "joining" and figures.store is not None:
            lag = committed - figures.store.applied_index
            if lag > BEHIND_ENTRIES:
                yield Spot(each.name, f"{each.name} is {lag} entries behind the primary")


def _many_members(scene: Scene) -> Iterator[Spot]:
    if len(scene.members) > limits.RECOMMENDED_MEMBERS:
        yield Spot("", f"{len(scene.members)} members; {limits.RECOMMENDED_MEMBERS} is the recommended maximum")


def _one_member(scene: Scene) -> Iterator[Spot]:
    if len(scene.members) == 1 and scene.overview.seen.cluster:
        yield Spot("", "the cluster has one member")


def _versions(scene: Scene) -> Iterator[Spot]:
    products = sorted({each.product for each in scene.members if each.product})
    if len(products) > 1:
        yield Spot("", f"members run versions {', '.join(products)}")


def _version_behind(scene: Scene) -> Iterator[Spot]:
    products = {minor(each.product) for each in scene.members}
    if len(products) == 1 and products != {scene.overview.product} and scene.overview.product:
        yield Spot("", f"every member runs version {products.pop()}, and the cluster's is {scene.overview.product}")


def _clocks(scene: Scene) -> Iterator[Spot]:
    for each in scene.members:
        if abs(each.skew_ms) > SKEW_MS:
            yield Spot(each.name, f"the clock of {each.name} is {_skew(each.skew_ms / 1000)} that of the member asked")


def _client_clock(scene: Scene) -> Iterator[Spot]:
    skew = scene.asked_at - scene.overview.seen.at / 1000
    if abs(skew) > CLIENT_SKEW_SECONDS:
        yield Spot("", f"the clock of this machine is {_skew(skew)} that of the member asked")


def _skew(seconds: float) -> str:
    return f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'}"


def _tells_nothing(scene: Scene) -> Iterator[Spot]:
    for each in scene.reached:
        if each.figures is None:
            yield Spot(each.name, f"{each.name} answers, but tells nothing of itself")


# --- groups


def _groups(scene: Scene) -> Iterator[Spot]:
    for group in scene.overview.seen.groups:
        inside = [each for each in scene.members if each.group == group]
        if inside and all(each.state in SERVES_NOBODY for each in inside):
            names = ", ".join(each.name for each in inside)
            yield Spot(group, f"no member of group {group} is available ({names})")


# --- services and machines


def _services(scene: Scene) -> Iterator[Spot]:
    for each, figures in scene.told():
        for service in figures.services:
            if service.state != SERVING:
                problem = f": {service.problem}" if service.problem else ""
                yield Spot(each.name, f"the {service.name} service of {each.name} does not answer{problem}")


def _workers(scene: Scene) -> Iterator[Spot]:
    for each, figures in scene.told():
        if figures.balancer is not None and _is_activated(figures):
            serving, workers = figures.balancer.workers_serving, figures.balancer.workers
            if serving < workers:
                yield Spot(each.name, f"{serving} of {workers} hsm workers of {each.name} serve")


def _sealed(scene: Scene) -> Iterator[Spot]:
    for each, figures in scene.told():
        if figures.hsm is not None and not _is_activated(figures):
            yield Spot(each.name, f"the HSM of {each.name} is {figures.hsm.state}")


def _is_activated(figures: Figures) -> bool:
    return figures.hsm is not None and figures.hsm.state == ACTIVATED


def _overload(scene: Scene) -> Iterator[Spot]:
    for each, figures in scene.told():
        if figures.balancer is not None and figures.balancer.refused_per_second > 0:
            rate = figures.balancer.refused_per_second
            yield Spot(each.name, f"{each.name} refuses {rate:g} requests a second: its queues are full")


def _disk(scene: Scene) -> Iterator[Spot]:
    for each, figures in scene.told():
        disk = figures.machine
        if disk is not None and disk.disk_total and disk.disk_free < max(DISK_BYTES, DISK_SHARE * disk.disk_total):
            free, total = disk.disk_free // limits.MIB, disk.disk_total // limits.MIB
            yield Spot(each.name, f"the disk of {each.name} is nearly full: {free} MiB of {total} MiB are free")


def _memory(scene: Scene) -> Iterator[Spot]:
    for each, figures in scene.told():
        if figures.hsm is not None and not figures.hsm.locked_memory:
            yield Spot(each.name, f"the HSM of {each.name} may not lock its memory (mlockall)")


def _activation(scene: Scene) -> Iterator[Spot]:
    for each, figures in scene.told():
        if figures.machine is not None and figures.machine.activation_beside:
            yield Spot(each.name, f"the activation file of {each.name} is on the disk of the HSM state it opens")


def _users(scene: Scene) -> Iterator[Spot]:
    for each, figures in scene.told():
        if figures.machine is not None and figures.machine.users == 1:
            yield Spot(each.name, f"all services of {each.name} run as one user, with each other's data in reach")


# --- keyrings


def _keys_not_separated(scene: Scene) -> Iterator[Spot]:
    for label in scene.compatible:
        yield Spot(label, f"the keyring {label} has key_uses = {COMPATIBLE}")


def _rekeys(scene: Scene) -> Iterator[Spot]:
    for each in scene.overview.rekeys:
        age = max(0, scene.overview.seen.at // 1000 - each.begun_at)
        if age > REKEY_SECONDS:
            yield Spot(each.label, f"the rekey of {each.label} began {age // 60} minutes ago, and is not through")


# --- backup


def _backup_failed(scene: Scene) -> Iterator[Spot]:
    for each, figures in scene.told():
        kept = figures.backup
        if kept is not None and kept.problem:
            yield Spot(each.name, f"the backup directory of {each.name} cannot be used: {kept.problem}")
    # The schedule is the cluster's: what its last run came to is the same at every member.
    for name, problem in sorted({(each.last_member, each.last_problem) for each in _backups(scene)}):
        if problem:
            yield Spot(name, f"the last scheduled backup{f' ({name})' if name else ''} failed: {problem}")


def _backup_overdue(scene: Scene) -> Iterator[Spot]:
    if any(kept.overdue for kept in _backups(scene)):
        yield Spot("", "the scheduled backup is overdue")


def _backup_none(scene: Scene) -> Iterator[Spot]:
    kept = _backups(scene)
    if kept and all(each.schedule == "none" and not each.backups for each in kept):
        yield Spot("", "there is no backup, and no schedule for one")


def _backups(scene: Scene) -> list[BackupFigures]:
    return [figures.backup for _, figures in scene.told() if figures.backup is not None]


_PROBLEM, _ADVICE = Severity.PROBLEM, Severity.ADVICE

CHECKS: Final = (
    Check("primary-silent", _PROBLEM, _primary_silent,
          "every other member is read-only until it is back: keys are used, nothing can be changed",
          "start it again, or mend its network; lost for good: lnh member delete {where}, through another member"),
    Check("no-primary", _PROBLEM, _no_primary,
          "nothing can be changed until a member is primary",
          "wait some seconds for an epoch that opens; if it lasts, start the members that are down; lnh member list"),
    Check("primary-alone", _PROBLEM, _primary_alone,
          "what it acknowledges now is on one machine only, and lost with it",
          "bring the other members back, or let a new one join: lnh member invite"),
    Check("stopped", _PROBLEM, _stopped,
          "it serves nobody",
          "start it: lnh-member --member-dir DIR, or its systemd unit"),
    Check("service-not-running", _PROBLEM, _restarts,
          "the member does only part of its work",
          "the supervisor starts it again; if it stays so, look at its log in DIR/log"),
    Check("cut-off", _PROBLEM, _cut_off,
          "it may be the one that is cut off: then all is well with the others, and it knows nothing of it",
          "ask another one: lnh doctor --member HOST:PORT; then mend the network of {where}"),
    Check("member-unreachable", _PROBLEM, _unreachable,
          "it serves nobody, and the cluster survives one loss fewer",
          "start it, or mend its network (base port to base port + 3); lost for good: lnh member delete {where}"),
    Check("member-read-only", _PROBLEM, _read_only,
          "what is changed through it is refused, and what it shows may be old",
          "mend the network between it and the primary (base port + 2); look at log/store.log there"),
    Check("joining-long", _PROBLEM, _joining_long,
          "it is not counted on until it has caught up and every member knows it",
          "start the members it waits for; look at log/store.log there; given up: lnh member delete {where}"),
    Check("diverged", _PROBLEM, _diverged,
          "somebody may have been told that these changes were made, and they are not in the cluster",
          "lnh member divergent {where}; once you have looked, with --seen"),
    Check("expelled", _PROBLEM, _expelled,
          "it serves nobody any more",
          "lnh cluster leave on it, then let it join again: lnh member invite"),
    Check("store-failed", _PROBLEM, _failed,
          "it can keep nothing, so it acknowledges nothing",
          "make room on its disk; look at log/store.log there; if its data is damaged, remove it and let it join anew"),
    Check("damaged", _PROBLEM, _damaged,
          "its store served what is not genuine, or older than was used; others do its work",
          "find out who changed its data; lnh member remove {where}, then join anew; mended otherwise: start it"),
    Check("behind", _PROBLEM, _behind,
          "reads there wait, and it would take long to take over",
          "look at its load, its disk and its network"),
    Check("group-unavailable", _PROBLEM, _groups,
          "clients of these members are served by other groups, from farther away",
          "bring one of its members back, or lnh member move another one to {where}"),
    Check("service-down", _PROBLEM, _services,
          "the member does only part of its work",
          "the supervisor starts it again; if it stays so, look at its log in DIR/log there"),
    Check("workers-down", _PROBLEM, _workers,
          "the member does less than it could",
          "they are started again by themselves; if it stays so, look at log/hsm.log there"),
    Check("hsm-sealed", _PROBLEM, _sealed,
          "the member cannot use any key",
          "lnh hsm activate --member-dir DIR, on {where}"),
    Check("overload", _PROBLEM, _overload,
          "clients are told to try again",
          "add workers (member.toml) or members, or move members to the busy group: lnh member move NAME GROUP"),
    Check("disk-nearly-full", _PROBLEM, _disk,
          "a member whose disk is full acknowledges nothing, and leaves the set of members in step",
          "make room: old archives (lnh backup delete), logs, other files"),
    Check("version-skew", _PROBLEM, _versions,
          "it is meant for the time of an upgrade only",
          "finish the upgrade, one member at a time (docs/operations.md#upgrading)"),
    Check("version-behind", _ADVICE, _version_behind,
          "what is new in the members' version is not served yet, and a member may still go back to the version before",
          "lnh cluster upgrade, once no member is to go back (docs/operations.md#upgrading)"),
    Check("clock-skew", _PROBLEM, _clocks,
          "sessions, invitations and what is issued at a time go by the clocks",
          "set the clock of {where}: NTP"),
    Check("client-clock-skew", _PROBLEM, _client_clock,
          "requests seem old or early to the members, and are refused",
          "set the clock of this machine, or of the member: NTP"),
    Check("backup-failed", _PROBLEM, _backup_failed,
          "what the last good archive does not hold is lost if the members are",
          "mend what it says, then: lnh backup now; the schedule tries again by itself, every quarter of an hour"),
    Check("backup-overdue", _PROBLEM, _backup_overdue,
          "what the last good archive does not hold is lost if the members are",
          "lnh backup now, and look at log/backup.log of the members"),
    Check("figures-missing", _ADVICE, _tells_nothing,
          "what is wrong there is not seen",
          "ask again; a member of version 0.1 cannot tell: upgrade {where}"),
    Check("no-cluster", _ADVICE, _no_cluster,
          "it serves no clients",
          "lnh cluster create, or lnh cluster join with an invitation of another member"),
    Check("one-member", _ADVICE, _one_member,
          "its loss is the loss of everything since the last backup",
          "let another one join: lnh member invite"),
    Check("many-members", _ADVICE, _many_members,
          "every change waits for every member in step, so each more makes changes slower",
          "lnh member remove those that are not needed"),
    Check("no-backup", _ADVICE, _backup_none,
          "a mistake is replicated too: only an archive brings back what was deleted",
          "lnh backup now; lnh backup schedule"),
    Check("memory-not-locked", _ADVICE, _memory,
          "keys in clear may be written to swap",
          "LimitMEMLOCK=infinity (systemd), ulimit -l unlimited, or no swap on {where}"),
    Check("activation-on-same-disk", _ADVICE, _activation,
          "who takes the disk can open the HSM",
          "keep the activation secret elsewhere, or activate by hand: lnh hsm activate"),
    Check("keys-not-separated", _ADVICE, _keys_not_separated,
          "who may make keys there can talk the bytes of a SENSITIVE key out of the HSM, in ways published for PKCS#11",
          "lnh keyring policy key_uses=separated -k {where}, as its KRSO; a key of two uses is refused from then on;"
          " for all keyrings: lnh cluster policy key_uses=separated"),
    Check("rekey-unfinished", _ADVICE, _rekeys,
          "who has the key of before still opens what is not sealed anew, and no other rekey begins",
          "lnh keyring rekey -k {where}, as its KRSO: it goes on where it stopped"),
    Check("one-user", _ADVICE, _users,
          "who breaks into one service can reach the files of the others",
          "give each service its own data alone (docs/operations.md#services-kept-apart)"),
)  # fmt: skip

BY_NAME: Final = {check.name: check for check in CHECKS}
