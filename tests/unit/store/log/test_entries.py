"""The log's chain: whatever is changed, moved, dropped or taken from elsewhere is noticed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lnh_common.errors import SealBroken
from lnh_common.messages.store import Commit, Key, MemberInfo, Put
from lnh_common.wire import codec
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import ClusterId, Entry, Epoch, MemberId, Milliseconds, Open, Write

CLUSTER, MEMBER = ClusterId(b"C" * 16), MemberId(b"M" * 16)
EPOCH = Epoch(1, MEMBER)
INFO = MemberInfo(id=MEMBER, name="alpha", host="127.0.0.1", port=4000, key=bytes(32))
OPEN = Open((INFO,), (MEMBER,))


def _chain(length: int) -> list[Entry]:
    entries: list[Entry] = []
    last = log.genesis(CLUSTER)
    for index in range(1, length + 1):
        put = Put(key=Key(table="t", id=b"%d" % index), expected=0, head=b"head")
        commit = Commit(client=b"c" * 16, session=b"s" * 16, sequence=index, issued_at=index, changes=(put,))
        payload = OPEN if index == 1 else Write(commit)
        entries.append(log.make_entry(last, EPOCH, Milliseconds(index), payload))
        last = entries[-1].position()
    return entries


def test_a_sound_chain_ends_at_its_last_entry() -> None:
    entries = _chain(5)
    assert log.check_chain(log.genesis(CLUSTER), entries) == entries[-1].position()


def test_a_payload_comes_back_as_it_was_written() -> None:
    opening, write = _chain(2)
    assert opening.content() == OPEN
    content = write.content()
    assert isinstance(content, Write)
    assert content.commit.sequence == 2


def test_what_a_member_keeps_of_an_entry_it_made_is_what_the_others_decode() -> None:
    for entry in _chain(3):
        assert entry.content() == codec.decode_as(entry.payload, log.Payload)  # type: ignore[arg-type]  # a union


@pytest.mark.parametrize(
    "change",
    [
        {"payload": b"\xa0"},
        {"hash": b"\0" * 32},
        {"previous": b"\0" * 32},
        {"log_time": 99},
        {"index": 9},
        {"epoch": Epoch(2, MEMBER)},
        {"epoch": Epoch(1, MemberId(b"X" * 16))},
    ],
)
def test_an_entry_changed_in_any_field_breaks_the_chain(change: dict[str, object]) -> None:
    entries = _chain(4)
    entries[2] = msgspec.structs.replace(entries[2], **change)
    with pytest.raises(SealBroken, match="entry"):
        log.check_chain(log.genesis(CLUSTER), entries)


def test_a_missing_entry_breaks_the_chain() -> None:
    entries = _chain(4)
    del entries[1]
    with pytest.raises(SealBroken, match="2 is missing"):
        log.check_chain(log.genesis(CLUSTER), entries)


def test_another_clusters_log_is_refused() -> None:
    with pytest.raises(SealBroken):
        log.check_chain(log.genesis(ClusterId(b"D" * 16)), _chain(2))


def test_a_chain_rehashed_by_one_who_set_time_back_is_refused() -> None:
    first = log.make_entry(log.genesis(CLUSTER), EPOCH, Milliseconds(5), OPEN)
    second = log.make_entry(first.position(), EPOCH, Milliseconds(4), OPEN)
    with pytest.raises(SealBroken, match="time"):
        log.check_chain(log.genesis(CLUSTER), [first, second])


def test_a_payload_that_is_no_payload_is_a_broken_seal() -> None:
    entry = msgspec.structs.replace(_chain(1)[0], payload=b"\x01")
    with pytest.raises(SealBroken, match="does not decode"):
        entry.content()


def test_the_documented_vector_holds() -> None:
    cluster, member = ClusterId(bytes(range(16))), MemberId(bytes(range(16, 32)))
    start = log.genesis(cluster)
    info = MemberInfo(id=member, name="alpha", host="127.0.0.1", port=4000, key=bytes(range(32)))
    opening = Open((info,), (member,))
    entry = log.make_entry(start, Epoch(1, member), Milliseconds(1_700_000_000_000), opening)
    documented = (Path(__file__).parents[4] / "docs/formats/store.md").read_text("utf-8")
    for value in (start.hash, entry.payload, entry.hash):
        assert value.hex() in "".join(documented.split())
