"""The audit trail: it continues, rotates, survives, and shows where it was edited."""

from __future__ import annotations

import itertools
import json
import resource
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lnh_common import limits
from lnh_common.errors import AuditFailed, SealBroken
from lnh_common.files import open_regular
from lnh_common.messages.hsm import AuditEntry
from lnh_common.messages.store import Item, Put
from lnh_common.wire.audit import DropDetail, Position, RecordLine
from lnh_services.hsm.audit import anchor
from lnh_services.hsm.audit import trail as audit
from lnh_services.hsm.audit.refusals import Refusals
from lnh_services.hsm.audit.trail import Trail, page, verify
from sizes import sized

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = KEY.public_key().public_bytes_raw()
NOW = 1_700_000_000_000


def entry(target: str = "key", **detail: object) -> AuditEntry:
    return AuditEntry(
        identity="alice", role="admin", operation="key.generate", target=target, outcome="ok", detail=detail
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def opened(path: Path, segment_bytes: int = 1 << 20) -> Trail:
    trail = Trail(path, "a", segment_bytes)
    trail.open(NOW)
    return trail


def written(path: Path, records: int = 5) -> Trail:
    """A trail of an opening record, `records` records, a head in their middle and one at the end."""
    trail = opened(path)
    for number in range(records):
        trail.append([entry(f"key {number}", count=number)], NOW + number)
        if number == records // 2:
            trail.sign(KEY, NOW)
    trail.sign(KEY, NOW)
    return trail


@pytest.mark.parametrize("segment_bytes", [1 << 20, 700])
@pytest.mark.parametrize("most", [1, 600, 1 << 20])
def test_lines_are_read_a_page_at_a_time_from_any_index_to_any_other(path: Path, segment_bytes: int, most: int) -> None:
    trail = opened(path, segment_bytes)
    for number in range(9):
        trail.append([entry("k" * (number * 37 % 90))], NOW)
        if number % 3 == 1:
            trail.sign(KEY, NOW)
    whole = [line for segment in audit.segments(path) for line in segment.read_text().splitlines()]
    last = trail.position.index
    assert len(whole) == last
    with path.open("a") as newest:
        newest.write('{"index":')  # a line that is being written
    for after in range(last + 2):
        for until in (after, last - 2, last, last + 9):
            found: list[str] = []
            index = after
            while True:
                page_, reached = audit.lines(path, index, until, most)
                assert len(page_) <= 1 or sum(len(line) + 1 for line in page_[:-1]) < most
                if not page_:
                    break
                found += page_
                index = reached
            assert found == whole[after : max(after, min(until, last))]


@pytest.mark.parametrize("moment", range(1, 4))
def test_a_page_is_whole_though_a_segment_is_begun_or_dropped_while_it_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    trail = Trail(path, "a", 1500, 3)
    trail.open(NOW)
    while len(audit.segments(path)) < 3:
        trail.append([entry()], NOW)
        trail.sign(KEY, NOW)
    count = itertools.count(1)
    last = trail.position.index

    def late(each: Path, *flags: int) -> int:
        """Open a file, some segments later."""
        if next(count) == moment:
            with monkeypatch.context() as patch:
                patch.setattr(audit, "open_regular", open_regular)
                before = path.stat().st_ino
                while path.stat().st_ino == before:
                    trail.append([entry("later")], NOW)
                trail.sign(KEY, NOW)
        return open_regular(each, *flags)

    with monkeypatch.context() as patch:
        patch.setattr(audit, "open_regular", late)
        found, index = audit.lines(path, last - 2, last, 1 << 20)
    assert next(count) > moment
    assert (len(found), index) == (2, last)


def bounded(path: Path, most: int = 3) -> Trail:
    trail = Trail(path, "a", 1500, most)
    trail.open(NOW)
    return trail


def test_the_oldest_segments_are_dropped_beyond_a_bound_and_the_trail_says_which(path: Path) -> None:
    trail = bounded(path)
    most = 0
    for number in range(60):
        trail.append([entry(f"key {number}")], NOW)
        trail.sign(KEY, NOW)
        there = audit.segments(path)
        most = max(most, len(there))
        report = verify(path, PUBLIC)
        assert report.problem == "", number
    assert most <= 4, "the head itself may begin a segment"
    assert there[0].name > "audit-000005.jsonl"
    drops = [record for record in page(path, 0, 1000) if record["operation"] == "audit.drop"]
    assert drops[-1]["identity"] == "hsm"
    first = json.loads(there[0].read_bytes().splitlines()[0])
    assert (drops[-1]["detail"]["last"], drops[-1]["detail"]["hash"]) == (first["index"] - 1, first["previous"])
    assert bounded(path).position.index > trail.position.index  # it goes on there after a restart
    assert verify(path, PUBLIC).problem == ""
    there[0].unlink()  # somebody who drops another
    assert f"{there[1].name} line 1: index" in verify(path, PUBLIC).problem


def test_a_segment_that_cannot_be_removed_yet_is_dropped_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trail = bounded(path, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_: (_ for _ in ()).throw(PermissionError("no")))
        for number in range(20):
            trail.append([entry(f"key {number}")], NOW)
            trail.sign(KEY, NOW)
        assert len(audit.segments(path)) > 3
    assert verify(path, PUBLIC).problem == ""
    trail.sign(KEY, NOW)
    assert len(audit.segments(path)) <= 3, "the head itself may begin a segment"
    assert verify(path, PUBLIC).problem == ""


def test_only_the_core_says_that_lines_were_dropped(path: Path) -> None:
    trail = opened(path, 700)
    for number in range(9):
        trail.append([entry(f"key {number}")], NOW)
    there = audit.segments(path)
    first = json.loads(there[1].read_bytes().splitlines()[0])
    said = {"last": first["index"] - 1, "hash": first["previous"]}
    trail.append(
        [AuditEntry(identity="eve", role="", operation="audit.drop", target="", outcome="ok", detail=said)], NOW
    )
    there[0].unlink()
    assert "no signed record says" in verify(path, PUBLIC).problem


def forged_drop(position: Position, last: Position, **signed: str) -> bytes:
    """A line behind `position` by which the core is to have said that all lines up to `last` were dropped."""
    line = RecordLine(
        index=position.index + 1, time=NOW, member="a", identity="hsm", role="", operation="audit.drop", target="",
        outcome="ok", detail={"hash": last.hash.hex(), "last": last.index, **signed}, previous=position.hash.hex(),
    )  # fmt: skip
    return msgspec.structs.replace(line, hash=line.digest().hex()).spelling()


def signed_by(key: Ed25519PrivateKey, last: Position) -> dict[str, str]:
    said = DropDetail(last=last.index, hash=last.hash.hex(), signer=key.public_key().public_bytes_raw().hex())
    return {"signature": key.sign(said.signed()).hex(), "signer": said.signer}


@pytest.mark.parametrize("key", [None, Ed25519PrivateKey.from_private_bytes(b"f" * 32)])
def test_a_trail_replaced_by_a_record_of_its_drop_is_found_after_a_restart_too(
    path: Path, key: Ed25519PrivateKey | None
) -> None:
    trail = written(path)
    head, end = trail.head, trail.position
    assert head is not None
    trail.close()
    path.write_bytes(forged_drop(end, end, **(signed_by(key, end) if key else {})))
    for _ in range(2):
        problem = audit.Reading(path).verify(PUBLIC, head).problem
        assert f"index {end.index + 1} where 1 belongs" in problem
        assert "cluster's log holds a head" in problem
        assert ("no signed record" in problem) is (key is None), "an HSM before this one may have dropped lines"
        assert not audit.holds(path, head), "so the anchor stays"
        trail = opened(path)
        trail.append([entry()], NOW)
        trail.sign(KEY, NOW)
        trail.close()


@pytest.mark.parametrize("key", [None, Ed25519PrivateKey.from_private_bytes(b"f" * 32)])
def test_segments_removed_beside_a_forged_record_of_it_are_found_after_a_restart_too(
    path: Path, key: Ed25519PrivateKey | None
) -> None:
    trail = opened(path, 2000)
    for number in range(30):
        trail.append([entry(str(number))], NOW)
        trail.sign(KEY, NOW)
    trail.close()
    there = audit.segments(path)
    first = json.loads(there[2].read_bytes().splitlines()[0])
    last = Position(first["index"] - 1, bytes.fromhex(first["previous"]))
    for segment in there[:2]:
        segment.unlink()
    with path.open("ab") as newest:
        newest.write(forged_drop(trail.position, last, **(signed_by(key, last) if key else {})))
    for _ in range(2):
        assert "no signed record says" in audit.Reading(path).verify(PUBLIC, trail.head).problem
        trail = opened(path, 2000)
        trail.append([entry()], NOW)
        trail.sign(KEY, NOW)
        trail.close()


def test_what_is_no_detail_of_a_drop_is_not_believed_and_breaks_nothing(path: Path) -> None:
    trail = opened(path)
    details: list[dict[str, object]] = [
        {"last": [], "hash": {}},
        {"last": 1, "hash": "zz", "signer": "", "signature": ""},
        {"last": -1},
    ]
    for detail in details:
        drop = AuditEntry(identity="hsm", role="", operation="audit.drop", target="", outcome="ok", detail=detail)
        trail.append([drop], NOW)
    assert verify(path, PUBLIC).problem == ""


def test_an_anchored_head_may_be_missing_only_where_this_hsm_dropped_it(path: Path) -> None:
    trail = bounded(path)
    trail.append([entry()], NOW)
    trail.sign(KEY, NOW)
    head = trail.head
    assert head is not None
    while audit.holds(path, head):
        trail.append([entry()], NOW)
        trail.sign(KEY, NOW)
    assert audit.Reading(path).verify(PUBLIC, head).problem == ""


def test_nothing_is_dropped_while_nothing_can_be_signed(path: Path) -> None:
    trail = bounded(path)
    for number in range(30):
        trail.append([entry(f"key {number}")], NOW)
    assert len(audit.segments(path)) > 5
    trail.sign(KEY, NOW)
    assert len(audit.segments(path)) <= 4
    assert verify(path, PUBLIC).problem == ""


def test_a_line_that_does_not_hold_is_not_exported(path: Path) -> None:
    written(path).close()
    path.write_bytes(path.read_bytes().replace(b"key 3", b"key 4", 1))
    with pytest.raises(AuditFailed, match="lnh audit verify"):
        audit.lines(path, 0, 99, 1 << 20)


def test_a_trail_verifies_and_says_what_is_signed(path: Path) -> None:
    trail = written(path)
    report = verify(path, PUBLIC)
    assert (report.records, report.signed, report.problem) == (6, 6, "")
    trail.append([entry()], NOW)
    report = verify(path, PUBLIC)
    assert (report.records, report.signed) == (7, 6)
    assert report.head == trail.position.hash.hex()


def test_only_its_owner_may_read_it(path: Path) -> None:
    opened(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_byte_can_be_changed_unnoticed(path: Path) -> None:
    written(path, 2)
    whole = path.read_bytes()
    line_of = [whole[:at].count(b"\n") + 1 for at in range(len(whole))]
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        problem = verify(path, PUBLIC).problem
        assert f"line {line_of[at]}:" in problem, (at, whole[at : at + 1], problem)


@pytest.mark.parametrize("edit", ["remove", "repeat", "swap"])
def test_no_line_can_be_removed_repeated_or_moved_unnoticed(path: Path, edit: str) -> None:
    written(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for at in range(len(lines) - 1):
        changed = {
            "remove": lines[:at] + lines[at + 1 :],
            "repeat": lines[: at + 1] + lines[at:],
            "swap": [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]],
        }[edit]
        path.write_bytes(b"".join(changed))
        expected = at + 2 if edit == "repeat" else at + 1
        assert f"line {expected}:" in verify(path, PUBLIC).problem


def test_a_line_spelt_in_another_way_is_a_change(path: Path) -> None:
    written(path)
    lines = path.read_bytes().splitlines()
    lines[1] = json.dumps(json.loads(lines[1])).encode()
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert "line 2: spelt" in verify(path, PUBLIC).problem


def test_a_chain_forged_anew_has_no_head_of_this_hsm(path: Path) -> None:
    forger = Ed25519PrivateKey.generate()
    trail = opened(path)
    trail.append([entry()], NOW)
    trail.sign(forger, NOW)
    assert verify(path, PUBLIC).signed == 0
    trail.sign(KEY, NOW)
    trail.append([entry()], NOW)
    assert verify(path, PUBLIC).signed == 2
    trail.sign(forger, NOW)
    assert "another HSM" in verify(path, PUBLIC).problem


def test_a_trail_continues_after_a_restart(path: Path) -> None:
    written(path).close()
    trail = opened(path)
    trail.append([entry()], NOW)
    assert trail.unsigned == 2
    assert trail.head is not None
    report = verify(path, PUBLIC)
    assert (report.records, report.signed, report.problem) == (8, 6, "")


def test_half_a_line_left_by_a_crash_is_cut_and_said_so(path: Path) -> None:
    written(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[1][:100])
    opened(path).close()
    assert verify(path, PUBLIC).problem == ""
    (*_, last) = page(path, 0, 100)
    assert (last["operation"], last["detail"]) == ("audit.open", {"cut_bytes": 100})


def test_a_trail_edited_at_its_end_is_kept_as_it_is_and_continued_behind(path: Path) -> None:
    written(path).close()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"alice", b"mallo")
    edited = b"".join(lines)
    path.write_bytes(edited)
    trail = opened(path)
    trail.append([entry()], NOW)
    assert (path.parent / "audit-000001.jsonl").read_bytes() == edited
    assert "audit-000001.jsonl line 4:" in verify(path, PUBLIC).problem
    assert json.loads(path.read_bytes().splitlines()[0])["detail"] == {"broken_after": 3}


def test_segments_are_one_chain(path: Path) -> None:
    trail = opened(path, segment_bytes=2000)
    for number in range(30):
        trail.append([entry(str(number))], NOW)
    trail.sign(KEY, NOW)
    there = audit.segments(path)
    assert len(there) > 3
    assert there[-1] == path
    assert all(segment.stat().st_size <= 2000 for segment in there)
    assert verify(path, PUBLIC).signed == 31
    trail.close()
    trail = opened(path, segment_bytes=2000)
    trail.append([entry()], NOW)
    assert verify(path, PUBLIC).problem == ""
    there[1].unlink()
    assert f"{there[2].name} line 1:" in verify(path, PUBLIC).problem


def test_a_crash_between_two_segments_loses_nothing(path: Path) -> None:
    written(path).close()
    path.rename(path.with_name("audit-000001.jsonl"))
    trail = opened(path)
    trail.append([entry()], NOW)
    assert verify(path, PUBLIC).problem == ""
    path.write_bytes(b"")
    opened(path)
    assert verify(path, PUBLIC).problem == ""


def test_pages_run_through_all_segments(path: Path) -> None:
    trail = opened(path, segment_bytes=2000)
    for number in range(30):
        trail.append([entry(str(number))], NOW)
        if number % 7 == 0:
            trail.sign(KEY, NOW)
    seen: list[str] = []
    after = 0
    while records := page(path, after, 4):
        seen += [record["target"] for record in records]
        after = records[-1]["index"]
    assert seen == ["", *map(str, range(30))]


def test_a_full_disk_leaves_no_half_line_and_is_tried_again(path: Path) -> None:
    trail = written(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
    try:
        with pytest.raises(AuditFailed, match="could not be written"):
            trail.append([entry()], NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    trail.append([entry("again")], NOW)
    report = verify(path, PUBLIC)
    assert (report.records, report.problem) == (7, "")


def test_a_trail_that_cannot_be_written_says_so_at_the_first_act_and_recovers(path: Path) -> None:
    written(path).close()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        trail = opened(path)
        with pytest.raises(AuditFailed):
            trail.append([entry()], NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    trail.append([entry()], NOW)
    assert [record["operation"] for record in page(path, 8, 9)] == ["audit.open", "key.generate"]
    assert verify(path, PUBLIC).problem == ""


@settings(max_examples=sized(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(max_size=20),
            st.dictionaries(
                st.text(max_size=5),
                st.recursive(
                    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                    max_leaves=5,
                ),
                max_size=4,
            ),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_an_entry_says_the_trail_verifies(path: Path, entries: list[tuple[str, dict[str, object]]]) -> None:
    path.unlink(missing_ok=True)
    trail = opened(path)
    trail.append([msgspec.structs.replace(entry(target), detail=detail) for target, detail in entries], NOW)
    trail.close()
    opened(path).close()
    report = verify(path, None)
    assert (report.records, report.problem) == (len(entries) + 2, "")
    assert len(page(path, 0, 100)) == len(entries) + 2


def test_an_anchor_proves_what_was_cut_off_or_replaced(path: Path) -> None:
    trail = written(path)
    head = trail.head
    assert head is not None
    (change,) = anchor.commit(head, bytes(16), None, NOW).changes
    assert isinstance(change, Put)
    item = Item(key=change.key, version=1, head=change.head)
    kept = anchor.read(item, PUBLIC)
    assert kept == head
    assert audit.Reading(path).verify(PUBLIC, kept).anchored == 6
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))
    assert "ends at line 4" in audit.Reading(path).verify(PUBLIC, kept).problem
    path.unlink()
    trail = opened(path)
    for _ in range(20):
        trail.append([entry("other")], NOW)
    trail.sign(KEY, NOW)
    assert f"line {head.index - 1}:" in audit.Reading(path).verify(PUBLIC, kept).problem
    with pytest.raises(SealBroken):
        anchor.read(item, Ed25519PrivateKey.generate().public_key().public_bytes_raw())


def refusal(
    who: str = "alice", target: str = "key", peer: str = "client-1", outcome: str = "PermissionDenied"
) -> AuditEntry:
    return AuditEntry(identity=who, role="", operation="user.add", target=target, outcome=outcome, peer=peer)


def test_refusals_that_repeat_are_one_record_a_minute_with_a_count(path: Path) -> None:
    trail = opened(path)
    for number in range(4000):
        trail.append([refusal(target=f"user {number % 2}")], NOW + number)
    trail.tell_refusals(NOW + 59_999)
    assert [record["outcome"] for record in page(path, 0, 99)] == ["ok", "PermissionDenied"]
    trail.tell_refusals(NOW + 60_000)
    trail.tell_refusals(NOW + 60_001)
    *_, last = page(path, 0, 99)
    assert (last["identity"], last["target"], last["outcome"]) == ("alice", "", "PermissionDenied")
    assert last["detail"] == {"count": 3999, "first": NOW + 1, "last": NOW + 3999}
    trail.append([refusal()], NOW + 60_002)
    trail.tell_refusals(NOW, all_of_them=True)
    report = verify(path, None)
    assert (report.records, report.problem) == (4, "")


def test_a_count_names_who_was_refused_as_far_as_it_may(path: Path) -> None:
    trail = opened(path)
    for number in range(100):
        trail.append([refusal(who=f"name {number % 20}", peer="stranger")], NOW)
    trail.tell_refusals(NOW + 60_000)
    *_, last = page(path, 0, 99)
    assert last["identity"] == "several"
    assert last["detail"]["count"] == 99
    assert len(last["detail"]["identities"]) == limits.REFUSED_IDENTITIES
    assert sum(last["detail"]["identities"].values()) + last["detail"]["others"] == 99


def test_what_is_no_refusal_or_of_another_kind_is_a_record_of_its_own(path: Path) -> None:
    trail = opened(path)
    trail.append([entry(), entry(), refusal(), refusal(peer="client-2"), refusal(outcome="SealBroken")], NOW)
    assert len(page(path, 0, 99)) == 6


def test_a_kind_that_was_quiet_for_a_minute_is_recorded_anew(path: Path) -> None:
    trail = opened(path)
    for minute in range(3):
        trail.append([refusal()], NOW + minute * 60_000)
        trail.tell_refusals(NOW + (minute + 1) * 60_000)
    assert [record["detail"] for record in page(path, 0, 99)[1:]] == [{}, {}, {}]


def test_a_refusal_that_could_not_be_written_is_counted(path: Path) -> None:
    trail = opened(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))
    try:
        for _ in range(2):
            with suppress(AuditFailed):
                trail.append([refusal()], NOW)
        with pytest.raises(AuditFailed):
            trail.tell_refusals(NOW + 60_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    trail.tell_refusals(NOW + 60_000)
    *_, last = page(path, 0, 99)
    assert last["detail"]["count"] == 2


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from("abc"),
            st.sampled_from(["PermissionDenied", "SealBroken"]),
            st.integers(-30_000, 90_000),
        ),
        max_size=200,
    )
)
def test_however_refusals_come_each_is_told_once_and_records_are_bounded(
    events: list[tuple[int, str, str, int]],
) -> None:
    refusals, told, now, minutes = Refusals(), 0, NOW, 1
    written = 0
    for who, peer, outcome, step in events:
        now += step
        minutes += step < 0 or step >= 60_000
        due = refusals.due(now)
        refusals.written(now)
        kept = refusals.sift([refusal(who=f"name {who}", peer=peer, outcome=outcome)], now)
        told += len(kept) + sum(each.detail["count"] for each in due)
        written += len(kept) + len(due)
    told += sum(each.detail["count"] for each in refusals.due(now, all_of_them=True))
    assert told == len(events)
    assert written <= 6 * 2 * (minutes + (now - NOW) // 60_000 + len(events) // 20 + 2)


def test_more_kinds_than_are_kept_are_counted_as_one() -> None:
    refusals = Refusals()
    kept = [
        each for number in range(limits.REFUSAL_KINDS + 50) for each in refusals.sift([refusal(peer=str(number))], NOW)
    ]
    assert len(kept) == limits.REFUSAL_KINDS
    (told,) = refusals.due(NOW, all_of_them=True)
    assert (told.operation, told.outcome, told.detail["count"]) == ("several", "refused", 50)


def test_a_report_counts_the_lines_that_are_signatures(path: Path) -> None:
    written(path)
    report = verify(path, PUBLIC)
    lines = path.read_bytes().count(b"\n")
    assert (report.records, report.signatures) == (6, 2)
    assert report.records + report.signatures == lines
