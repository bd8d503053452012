"""Judges what was seen of an etcd: each check says that it is well, or what is wrong and what to do. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from statistics import median
from typing import Final, TypeAlias

import msgspec

from lnh_common import limits
from lnh_services.store.etcd.requests import Done, Outcome, Refused, Unknown, Why
from lnh_services.store.etcd_client.check.seen import Endpoint, Seen, Way, Whole
from lnh_services.store.etcd_client.client import Status
from lnh_services.store.etcd_client.failures import Failure

LEAST: Final = {(3, 4): 29, (3, 5): 11}  # patch levels of the versions that are fit for production
OLDEST: Final = min(LEAST)
ENDS_SOON: Final = 30 * 86_400  # seconds before a certificate expires
CLOCK: Final = 5.0  # seconds that clocks may differ: more than an HTTP date and a slow answer make of clocks in step
FSYNC: Final = 0.010  # seconds, of 99 in 100: what etcd's own documentation asks of a disk, ...
COMMIT: Final = 0.025
ANSWER: Final = 0.050  # ... and what half of the writes here take at most, from this machine
FULL: Final = 0.8  # of the quota
_WORDS: Final = {
    Way.UNRESOLVED: "correct the host name, or the resolver of this machine",
    Way.CLOSED: "start etcd there, or correct host and port (--listen-client-urls)",
    Way.SILENT: "look at the way there (firewall, routes), and whether etcd hangs",
    Way.NOT_TLS: "start etcd with --cert-file, --key-file, --client-cert-auth and --trusted-ca-file",
    Way.NOT_TRUSTED: "name the CA of etcd's certificates in `ca`; if it is the right one, somebody else answers there",
    Way.OTHER_NAME: "name the endpoint as its certificate does, or have the certificate made for this name or address",
    Way.EXPIRED: "renew the certificate of this node (--cert-file); etcd reads it anew by itself",
    Way.OURS_REFUSED: "name a certificate of a CA in etcd's --trusted-ca-file, with the extended use clientAuth",
    Way.OTHER: "look at etcd's log",
}


class State(str, enum.Enum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(msgspec.Struct, frozen=True):
    """What a check found.

    Args:
        where: the endpoint; empty: the etcd as a whole.
        what: what is so.
        do: what to do about it; empty where nothing is to be done.
    """

    check: str
    where: str
    state: State
    what: str
    do: str = ""


_Told: TypeAlias = tuple[State, str, str]


def judge(seen: Seen) -> list[Finding]:
    """Carry out every check on what was seen; what could not be looked at has no finding but the one that says why."""
    found = [
        Finding(name, endpoint.url, *told)
        for endpoint in seen.endpoints
        for name, check in _OF_AN_ENDPOINT.items()
        if (told := check(seen, endpoint)) is not None
    ]
    found += [Finding(name, "", *told) for name, check in _OF_ALL.items() if (told := check(seen)) is not None]
    if seen.whole is not None:
        whole = seen.whole
        found += [Finding(name, "", *told) for name, each in _OF_THE_WHOLE.items() for told in each(seen, whole)]
    return found


def healthy(findings: list[Finding]) -> bool:
    """Tell whether nothing failed."""
    return not any(each.state is State.FAILED for each in findings)


def _well(what: str) -> _Told:
    return State.OK, what, ""


# Of one endpoint


def _way(seen: Seen, at: Endpoint) -> _Told | None:
    if at.way is not Way.OPEN:
        return State.FAILED, f"{at.way.value}{': ' if at.text else ''}{at.text}", _WORDS[at.way]
    if at.url.startswith("http:"):
        return State.WARNING, "reached in clear, which a loopback address alone permits", _WORDS[Way.NOT_TLS]
    return _well("reached, by TLS")


def _anybody(seen: Seen, at: Endpoint) -> _Told | None:
    if at.anybody is None:
        return None
    if at.anybody:
        advice = "start etcd with --client-cert-auth and --trusted-ca-file"
        return State.WARNING, "it lets in clients without a certificate", advice
    return _well("it demands a certificate of clients")


def _certificate(seen: Seen, at: Endpoint) -> _Told | None:
    if at.ends is None:
        return None
    return _until(seen, at.ends, "renew the certificate of this node (--cert-file)")


def _own_certificate(seen: Seen) -> _Told | None:
    if seen.own_end is None:
        return None
    return _until(seen, seen.own_end, "renew the certificate that `certificate` names")


def _until(seen: Seen, ends: float, advice: str) -> _Told:
    days = int((ends - seen.now) // 86_400)
    if ends <= seen.now:
        return State.FAILED, "the certificate has expired", advice
    if ends - seen.now < ENDS_SOON:
        return State.WARNING, f"the certificate expires in {days} days", advice
    return _well(f"the certificate is valid for {days} days")


def _clock(seen: Seen, at: Endpoint) -> _Told | None:
    if at.ahead is None:
        return None
    if abs(at.ahead) > CLOCK:
        way = "ahead of" if at.ahead > 0 else "behind"
        what = f"its clock is {abs(at.ahead):.0f} s {way} this machine's"
        return State.WARNING, what, "keep both in step (chrony, systemd-timesyncd): certificates and logs go by them"
    return _well("its clock is in step with this machine's")


def _version(seen: Seen, at: Endpoint) -> _Told | None:
    if not isinstance(at.status, Status):
        return None
    said = at.status.version
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", said)
    if match is None:
        return (
            State.FAILED,
            f"its version {said!r} is none that is known",
            "use an etcd of version 3.4.29, 3.5.11 or newer",
        )
    major, minor, patch = map(int, match.groups())
    if (major, minor) < OLDEST:
        return State.FAILED, f"version {said} is older than 3.4", "upgrade etcd to 3.4.29, 3.5.11 or newer"
    least = LEAST.get((major, minor), 0)
    if patch < least:
        advice = f"upgrade etcd to {major}.{minor}.{least} or newer before production: older ones have known faults"
        return State.WARNING, f"version {said} is older than {major}.{minor}.{least}", advice
    return _well(f"version {said}")


def _node(seen: Seen, at: Endpoint) -> _Told | None:
    if isinstance(at.status, Failure):
        return State.FAILED, f"it does not say how it stands: {at.status.text}", "look at etcd's log"
    if at.status is None:
        return None
    if at.status.leader == 0:
        advice = "start enough nodes for a majority, and look at the ways between them (--initial-advertise-peer-urls)"
        return State.FAILED, "it sees no leader, so nothing is written or read", advice
    if at.status.learner:
        return State.WARNING, "it is a learner, which answers nothing", "promote it: etcdctl member promote"
    return _well("it has a leader")


def _alarm(seen: Seen, at: Endpoint) -> _Told | None:
    if not isinstance(at.status, Status):
        return None
    if any("NOSPACE" in each for each in at.status.alarms):
        advice = "compact and defragment it, raise --quota-backend-bytes, then: etcdctl alarm disarm"
        return State.FAILED, "alarm NOSPACE: its database reached the quota, and it takes no writes", advice
    if any("CORRUPT" in each for each in at.status.alarms):
        advice = "replace this node's data by another's: etcdctl member remove, then add it empty"
        return State.FAILED, "alarm CORRUPT: this node's data differs from the others'", advice
    if at.status.alarms:
        return State.FAILED, f"it says of itself: {', '.join(at.status.alarms)}", "look at etcd's log"
    return _well("no alarm")


def _quota(seen: Seen, at: Endpoint) -> _Told | None:
    if not isinstance(at.status, Status) or at.disk is None or not at.disk.quota:
        return None
    said = f"{at.status.size / limits.MIB:.0f} MiB of a quota of {at.disk.quota / limits.MIB:.0f} MiB"
    if at.disk.quota < limits.ETCD_QUOTA_BYTES:
        least = limits.ETCD_QUOTA_BYTES // limits.MIB
        return State.WARNING, f"{said}, which is small", f"start etcd with --quota-backend-bytes of {least} MiB or more"
    if at.status.size > FULL * at.disk.quota:
        return State.WARNING, f"{said} are taken", "defragment it (etcdctl defrag), or raise --quota-backend-bytes"
    return _well(said)


def _disk(seen: Seen, at: Endpoint) -> _Told | None:
    if at.disk is None or at.disk.fsync is None or at.disk.commit is None:
        return None
    said = f"99 of 100 fsync within {_ms(at.disk.fsync)}, commits within {_ms(at.disk.commit)}"
    if at.disk.fsync > FSYNC or at.disk.commit > COMMIT:
        advice = f"give etcd a disk of its own, an SSD: fsync within {_ms(FSYNC)}, commits within {_ms(COMMIT)}"
        return State.WARNING, said, advice
    return _well(said)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


# Of all endpoints, and the etcd as a whole


def _one_etcd(seen: Seen) -> _Told | None:
    ids = {each.status.etcd for each in seen.endpoints if isinstance(each.status, Status)}
    if len(ids) > 1:
        return State.FAILED, "the endpoints are of different etcds", "name the nodes of one etcd (etcdctl member list)"
    versions = {each.status.version.rpartition(".")[0] for each in seen.endpoints if isinstance(each.status, Status)}
    if len(versions) > 1:
        return State.WARNING, f"nodes of different versions: {', '.join(sorted(versions))}", "end the upgrade"
    return _well("all endpoints are of one etcd") if ids else None


def _nodes(seen: Seen, whole: Whole) -> Iterator[_Told]:
    if isinstance(whole.nodes, Failure):
        yield State.FAILED, f"it does not list its nodes: {whole.nodes.text}", "look at etcd's log"
        return
    voters = [each for each in whole.nodes if not each.learner]
    if len(voters) < 3:
        advice = "run three nodes, or five: the loss of one stops it otherwise"
        yield State.WARNING, f"{len(voters)} of its nodes vote", advice
    elif len(voters) % 2 == 0:
        advice = "remove one, or add one: an even number survives the loss of no more nodes, and has more to lose"
        yield State.WARNING, f"{len(voters)} of its nodes vote, an even number", advice
    elif len(seen.settings.endpoints) < len(voters):
        what = f"{len(seen.settings.endpoints)} endpoints of {len(voters)} nodes"
        yield State.WARNING, what, "name all nodes in `endpoints`: the others are no help when these are lost"
    else:
        yield _well(f"{len(voters)} nodes, all of them named")


def _login(seen: Seen, whole: Whole) -> Iterator[_Told]:
    if whole.login is not None:
        advice = "correct `user` and the file that `password_file` names, or let the certificate's CN be the user"
        yield State.FAILED, f"no login as {seen.settings.user!r}: {whole.login.text}", advice
    elif whole.by_role is False:
        advice = "turn it on: a user root, a role for this prefix, a user with it, then etcdctl auth enable"
        yield State.WARNING, "authentication is off: whoever reaches it reads and writes everything", advice
    elif whole.by_role:
        yield _well(
            f"logged in as {seen.settings.user!r}" if seen.settings.user else "the certificate's CN is the user"
        )


def _prefix(seen: Seen, whole: Whole) -> Iterator[_Told]:
    prefix = seen.settings.prefix
    for act, outcome in (("read", whole.read), ("write", whole.write)):
        if isinstance(outcome, Refused) and outcome.why is Why.FORBIDDEN:
            advice = f"grant it: etcdctl role grant-permission ROLE --prefix=true readwrite {prefix}"
            yield State.FAILED, f"this user may not {act} below {prefix}: {outcome.text}", advice
            return
        if isinstance(outcome, Refused | Unknown) and not _is_told_elsewhere(outcome):
            yield State.FAILED, f"a {act} below {prefix} has no answer: {outcome.text}", "look at etcd's log"
            return
    if any(_is_told_elsewhere(each) for each in (whole.read, whole.write)):
        return
    if isinstance(whole.outside, Done) and whole.by_role:
        advice = f"give it a role for {prefix} and no more: a member that is taken over is to reach nothing else"
        yield State.WARNING, f"this user may read outside {prefix}, too", advice
    else:
        yield _well(f"this user reads and writes below {prefix}{' alone' if whole.by_role else ''}")


def _is_told_elsewhere(outcome: Outcome) -> bool:
    """Tell whether the checks of alarms say it already."""
    return isinstance(outcome, Unknown) and outcome.why is Why.NO_SPACE


def _size(seen: Seen, whole: Whole) -> Iterator[_Told]:
    kib = limits.ETCD_REQUEST_BYTES // limits.KIB
    if isinstance(whole.large, Refused) and whole.large.why is Why.TOO_LARGE:
        advice = f"start etcd with --max-request-bytes={3 * limits.MIB // 2}, its default, or more"
        yield State.FAILED, f"it does not take a request of {kib} KiB: {whole.large.text}", advice
    elif not isinstance(whole.large, Refused | Unknown):
        yield _well(f"it takes requests of {kib} KiB")


def _answer(seen: Seen, whole: Whole) -> Iterator[_Told]:
    if not whole.commits:
        return
    half = median(whole.commits)
    said = f"half of {len(whole.commits)} writes answered within {_ms(half)}, all within {_ms(max(whole.commits))}"
    if half > ANSWER:
        advice = "bring members and nodes nearer to one another, or give etcd faster disks: each write waits so long"
        yield State.WARNING, said, advice
    else:
        yield _well(said)


# A row a check, in the order in which they are shown.
_OF_AN_ENDPOINT: Final[dict[str, Callable[[Seen, Endpoint], _Told | None]]] = {
    "reach": _way,
    "client-certificate": _anybody,
    "certificate": _certificate,
    "clock": _clock,
    "version": _version,
    "leader": _node,
    "alarm": _alarm,
    "quota": _quota,
    "disk": _disk,
}
_OF_ALL: Final[dict[str, Callable[[Seen], _Told | None]]] = {
    "own-certificate": _own_certificate,
    "one-etcd": _one_etcd,
}
_OF_THE_WHOLE: Final[dict[str, Callable[[Seen, Whole], Iterator[_Told]]]] = {
    "nodes": _nodes,
    "login": _login,
    "prefix": _prefix,
    "request-size": _size,
    "latency": _answer,
}
