"""`lnh engine check`: of an etcd that is well nothing is told but that, and each fault has words and an advice of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lnh_common import limits
from lnh_common.etcd import EtcdSettings
from lnh_services.store.etcd.requests import Differed, Done, Refused, Unknown, Why
from lnh_services.store.etcd_client.check.judge import Finding, State, healthy, judge
from lnh_services.store.etcd_client.check.probe import _ahead, _disk
from lnh_services.store.etcd_client.check.seen import Disk, Endpoint, Seen, Way, Whole
from lnh_services.store.etcd_client.client import EtcdNode, Status
from lnh_services.store.etcd_client.failures import Failure

NOW, DAY = 1_800_000_000.0, 86_400
URLS = tuple(f"https://etcd{number}:2379" for number in range(3))
STATUS = Status(etcd=1, version="3.5.11", leader=7, alarms=(), size=limits.MIB, used=limits.MIB, learner=False)
WELL = Seen(
    settings=EtcdSettings(URLS, "lnh/prod/", ca="ca.pem", certificate="a.pem", key="a.key"),
    now=NOW,
    own_end=NOW + 90 * DAY,
    endpoints=tuple(
        Endpoint(
            url,
            Way.OPEN,
            ends=NOW + 90 * DAY,
            anybody=False,
            ahead=0.4,
            disk=Disk(limits.ETCD_QUOTA_BYTES, 0.004, 0.016),
            status=STATUS,
        )
        for url in URLS
    ),
    whole=Whole(
        login=None,
        by_role=True,
        nodes=tuple(EtcdNode(f"n{number}", (url,), learner=False) for number, url in enumerate(URLS)),
        read=Done(5),
        write=Differed(5),
        outside=Refused(Why.FORBIDDEN, "permission denied"),
        large=Differed(5),
        commits=(0.002, 0.003, 0.030),
    ),
)


def of_first(**changed: Any) -> Seen:
    first, *others = WELL.endpoints
    return msgspec.structs.replace(WELL, endpoints=(msgspec.structs.replace(first, **changed), *others))


def of_status(**changed: Any) -> Seen:
    return of_first(status=msgspec.structs.replace(STATUS, **changed))


def of_whole(**changed: Any) -> Seen:
    assert WELL.whole is not None
    return msgspec.structs.replace(WELL, whole=msgspec.structs.replace(WELL.whole, **changed))


def of_all(**changed: Any) -> Seen:
    return msgspec.structs.replace(WELL, **changed)


def nodes(voters: int, learners: int = 0) -> tuple[EtcdNode, ...]:
    return tuple(EtcdNode(f"n{number}", (), learner=number >= voters) for number in range(voters + learners))


FORBIDDEN = Refused(Why.FORBIDDEN, "etcdserver: permission denied")
BIG = limits.ETCD_QUOTA_BYTES
IN_CLEAR = EtcdSettings(("http://127.0.0.1:2379",), "lnh/prod/")
W, F = State.WARNING, State.FAILED

# What is so, the check that tells it, how it ends, and some of its words.
FAULTS: dict[str, tuple[Seen, str, State, str]] = {
    "certificate expired": (of_first(ends=NOW - 1), "certificate", F, "has expired"),
    "certificate ends": (of_first(ends=NOW + 3 * DAY), "certificate", W, "expires in 3 days"),
    "own certificate expired": (of_all(own_end=NOW - 1), "own-certificate", F, "has expired"),
    "own certificate ends": (of_all(own_end=NOW + 1), "own-certificate", W, "expires in 0 days"),
    "anybody": (of_first(anybody=True), "client-certificate", W, "without a certificate"),
    "clock ahead": (of_first(ahead=61.0), "clock", W, "61 s ahead of"),
    "clock behind": (of_first(ahead=-7.0), "clock", W, "7 s behind"),
    "3.4.28": (of_status(version="3.4.28"), "version", W, "older than 3.4.29"),
    "3.5.10": (of_status(version="3.5.10"), "version", W, "older than 3.5.11"),
    "3.3.27": (of_status(version="3.3.27"), "version", F, "older than 3.4"),
    "no version": (of_status(version="Not provided"), "version", F, "none that is known"),
    "no status": (of_first(status=Failure("no answer in time")), "leader", F, "does not say how it stands"),
    "no leader": (of_status(leader=0), "leader", F, "sees no leader"),
    "learner": (of_status(learner=True), "leader", W, "a learner"),
    "no space": (of_status(alarms=("memberID:1 alarm:NOSPACE ",)), "alarm", F, "NOSPACE"),
    "corrupt": (of_status(alarms=("memberID:1 alarm:CORRUPT ",)), "alarm", F, "CORRUPT"),
    "other alarm": (of_status(alarms=("etcdserver: no leader",)), "alarm", F, "etcdserver: no leader"),
    "small quota": (of_first(disk=Disk(BIG - 1, 0.004, 0.016)), "quota", W, "which is small"),
    "nearly full": (of_status(size=BIG * 9 // 10), "quota", W, "are taken"),
    "slow fsync": (of_first(disk=Disk(BIG, 0.016, 0.016)), "disk", W, "16 ms"),
    "slow commits": (of_first(disk=Disk(BIG, 0.004, 0.032)), "disk", W, "32 ms"),
    "two etcds": (of_status(etcd=2), "one-etcd", F, "different etcds"),
    "two versions": (of_status(version="3.6.1"), "one-etcd", W, "3.5, 3.6"),
    "no nodes told": (of_whole(nodes=Failure("gone")), "nodes", F, "does not list its nodes"),
    "one node": (of_whole(nodes=nodes(1)), "nodes", W, "1 of its nodes"),
    "learners": (of_whole(nodes=nodes(2, 1)), "nodes", W, "2 of its nodes"),
    "even": (of_whole(nodes=nodes(4)), "nodes", W, "an even number"),
    "not all named": (of_whole(nodes=nodes(5)), "nodes", W, "3 endpoints of 5 nodes"),
    "no login": (of_whole(login=Failure("authentication failed")), "login", F, "no login as"),
    "no authentication": (of_whole(by_role=False, outside=Done(5)), "login", W, "authentication is off"),
    "may not read": (of_whole(read=FORBIDDEN, write=FORBIDDEN), "prefix", F, "may not read below lnh/prod/"),
    "may not write": (of_whole(write=FORBIDDEN), "prefix", F, "may not write below lnh/prod/"),
    "no answer": (of_whole(write=Unknown(None, "no answer in time")), "prefix", F, "no answer in time"),
    "role too wide": (of_whole(outside=Done(5)), "prefix", W, "outside lnh/prod/"),
    "too large": (of_whole(large=Refused(Why.TOO_LARGE, "too large")), "request-size", F, "does not take a request"),
    "slow": (of_whole(commits=(0.06, 0.07, 0.08)), "latency", W, "within 70 ms"),
    "in clear": (
        of_all(settings=IN_CLEAR, own_end=None, endpoints=(Endpoint(IN_CLEAR.endpoints[0], Way.OPEN, status=STATUS),)),
        "reach",
        W,
        "in clear",
    ),
    **{
        f"way {way.name}": (of_first(way=way, text="", status=None, ends=None), "reach", F, way.value)
        for way in Way
        if way is not Way.OPEN
    },
}


def told(seen: Seen) -> dict[tuple[str, str], Finding]:
    return {(each.check, each.where): each for each in judge(seen)}


def test_of_an_etcd_that_is_well_every_check_says_so_and_asks_for_nothing() -> None:
    findings = judge(WELL)
    assert {each.state for each in findings} == {State.OK}
    assert {each.do for each in findings} == {""}
    assert healthy(findings)
    assert len(findings) == 3 * 9 + 7


@pytest.mark.parametrize(("seen", "check", "state", "words"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_once_with_its_own_words_and_an_advice(
    seen: Seen, check: str, state: State, words: str
) -> None:
    well = told(WELL)
    found = [each for key, each in told(seen).items() if each != well.get(key) and each.check == check]
    assert [each.state for each in found] == [state]
    assert words in found[0].what
    assert found[0].do
    assert healthy(judge(seen)) == (state is not State.FAILED)


def test_every_fault_has_words_of_its_own() -> None:
    said = [
        next(each.what for each in judge(seen) if each.check == check and each.state is state)
        for seen, check, state, _ in FAULTS.values()
    ]
    assert len({*said}) == len(said) - 1, "that of a node's certificate, and of one's own, alone are alike"


def test_a_full_etcd_is_told_by_its_alarm_and_by_nothing_else() -> None:
    full = Unknown(Why.NO_SPACE, "etcdserver: mvcc: database space exceeded")
    checks = {each.check for each in judge(of_whole(write=full, large=full, commits=()))}
    assert not checks & {"prefix", "request-size", "latency"}


def test_the_operators_page_has_a_row_for_every_check() -> None:
    page = (Path(__file__).parents[3] / "docs" / "engine-etcd.md").read_text().partition("## What is checked")[2]
    rows = {
        name for row in re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE) for name in re.findall(r"`([a-z-]+)`", row)
    }
    assert rows == {each.check for each in judge(WELL)}
    assert f"({limits.ETCD_REQUEST_BYTES // limits.KIB} KiB)" in page


def test_what_was_not_reached_is_not_judged() -> None:
    closed = tuple(Endpoint(url, Way.CLOSED) for url in URLS)
    findings = judge(of_all(endpoints=closed, whole=None, own_end=None))
    assert [(each.check, each.where) for each in findings] == [("reach", url) for url in URLS]


METRICS = """
# TYPE etcd_server_quota_backend_bytes gauge
etcd_server_quota_backend_bytes 2.147483648e+09
# TYPE etcd_disk_wal_fsync_duration_seconds histogram
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 50
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.002"} 98
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.004"} 99
etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 100
etcd_disk_wal_fsync_duration_seconds_sum 1
etcd_disk_wal_fsync_duration_seconds_count 100
# TYPE etcd_disk_backend_commit_duration_seconds histogram
etcd_disk_backend_commit_duration_seconds_bucket{le="0.001"} 0
etcd_disk_backend_commit_duration_seconds_bucket{le="+Inf"} 0
etcd_disk_backend_commit_duration_seconds_sum 0
etcd_disk_backend_commit_duration_seconds_count 0
"""


def test_a_nodes_figures_are_the_bound_below_which_99_of_100_lie() -> None:
    assert _disk(METRICS) == Disk(quota=2**31, fsync=0.004, commit=None)
    assert _disk("no metrics") is None
    assert _disk("") == Disk()


def test_a_date_is_compared_with_the_middle_of_its_second() -> None:
    assert _ahead("Thu, 01 Jan 1970 00:01:40 GMT", 90.5) == 10.0
    assert _ahead("yesterday", 90.5) is None
    assert _ahead(None, 90.5) is None
