"""What the balancer and a worker say to each other: any entries come out as they went in, and nothing else parses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnh_common import limits
from lnh_common.errors import MalformedMessage
from lnh_common.wire.bundles import ENTRIES, ENTRIES_TAKEN, TAG_BYTES, Bundle, Entry, unpack

entries = st.builds(
    Entry,
    st.binary(min_size=TAG_BYTES, max_size=TAG_BYTES),
    st.binary(max_size=60),
    st.binary(max_size=300),
    st.binary(max_size=300),
)


def bundled(*given_entries: Entry) -> bytes:
    bundle = Bundle()
    for entry in given_entries:
        bundle.add(*entry)
    return bundle.take()


@given(st.lists(entries, min_size=1, max_size=ENTRIES))
def test_entries_come_out_as_they_went_in(given_entries: list[Entry]) -> None:
    assert unpack([bundled(*given_entries)]) == given_entries


@given(st.lists(entries, min_size=1, max_size=3), st.data())
def test_a_bundle_that_is_cut_is_refused_or_ends_between_entries(
    given_entries: list[Entry], data: st.DataObject
) -> None:
    frame = bundled(*given_entries)
    cut = data.draw(st.integers(0, len(frame) - 1))
    whole = [bundled(*given_entries[:count]) for count in range(1, len(given_entries))]
    if frame[:cut] in whole:
        assert unpack([frame[:cut]]) == given_entries[: 1 + whole.index(frame[:cut])]
    else:
        with pytest.raises(MalformedMessage):
            unpack([frame[:cut]])


@given(st.lists(st.binary(max_size=80), max_size=3))
def test_any_bytes_parse_or_are_refused(frames: list[bytes]) -> None:
    try:
        parsed = unpack(frames)
    except MalformedMessage:
        return
    assert bundled(*parsed) == frames[0]


def test_a_bundle_is_full_before_it_is_more_than_a_socket_takes() -> None:
    bundle = Bundle()
    body = bytes(limits.BODY_BYTES)
    added = 0
    while not bundle.add(bytes(TAG_BYTES), bytes(limits.HEADER_BYTES), bytes(limits.TOKEN_BYTES), body):
        body = bytes(1)
        added += 1
    assert added == 0
    small = Bundle()
    count = 1
    while not small.add(bytes(TAG_BYTES), b"header", b"token", b"body"):
        count += 1
    assert count == ENTRIES
    full = Bundle()
    while not full.add(bytes(TAG_BYTES), b"header", b"token", bytes(limits.BODY_BYTES // 4 - 1)):
        pass
    full.add(bytes(TAG_BYTES), bytes(limits.HEADER_BYTES), bytes(limits.TOKEN_BYTES), bytes(limits.BODY_BYTES))
    assert len(full.take()) < 2 * limits.BODY_BYTES


@given(st.integers(ENTRIES_TAKEN + 1, 10 * ENTRIES_TAKEN))
def test_more_entries_than_any_sender_lays_together_are_refused(count: int) -> None:
    with pytest.raises(MalformedMessage, match="more than"):
        unpack([bundled(*[Entry(bytes(8), b"h", b"", b"")] * count)])
