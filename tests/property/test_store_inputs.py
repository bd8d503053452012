"""Whatever another store sends: it is understood or refused, and nothing else happens."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnh_common.errors import LnhError, MemberReadOnly, SealBroken
from lnh_common.messages.store import Commit, Key, MemberInfo, Put
from lnh_common.wire import codec
from lnh_services.store.disk.snapshots import Incoming
from lnh_services.store.disk.sqlite import Disk
from lnh_services.store.log import entries
from lnh_services.store.log.entries import ClusterId, Epoch, MemberId, Milliseconds, Open, Write
from lnh_services.store.log.window import Base, Configuration, Removed
from lnh_services.store.net import peers
from lnh_services.store.net.transfer import Chunk, End, Offer, Stop, Want
from lnh_services.store.replication.messages import (  # fmt: skip
    Append,
    Appended,
    Ask,
    Behind,
    Expelled,
    Fetch,
    Fetched,
    Forward,
    Forwarded,
    Go,
    Keep,
    Kept,
    Persist,
    Ping,
    Pong,
    Prepare,
    Rejected,
    RemoveMember,
    Report,
)
from sizes import sized

CLUSTER, ME = ClusterId(b"C" * 16), MemberId(b"M" * 16)
EPOCH = Epoch(3, ME)
INFO = MemberInfo(id=ME, name="A", host="::1", port=7000, key=b"k" * 32)
GENESIS = entries.genesis(CLUSTER)
OPEN = entries.make_entry(GENESIS, EPOCH, Milliseconds(1), Open((INFO,), (ME,)))
PUT = Put(key=Key(table="t", id=b"1"), expected=0, head=b"h", body=b"b", tags=(b"x",))
COMMIT = Commit(client=b"c" * 16, session=b"s" * 16, sequence=1, issued_at=1, changes=(PUT,))
WRITE = entries.make_entry(OPEN.position(), EPOCH, Milliseconds(2), Write(COMMIT))
AT = WRITE.position()
CODE, TEXT, DETAIL = MemberReadOnly("no").to_wire()
WORDS: list[Any] = [
    Ping(EPOCH, b"i" * 16, 7), Pong(EPOCH, 7, 1500, 2), Append(EPOCH, GENESIS, (OPEN, WRITE), 2),
    Appended(EPOCH, 2, AT.hash, b"i" * 16, 2), Behind(EPOCH, b"i" * 16, (AT, GENESIS), diverged=False),
    Rejected(EPOCH), Report(EPOCH, EPOCH, AT, AT, (INFO,), (ME,), 1500, (AT,), OPEN, primary=True), Ask(),
    Prepare(EPOCH), Fetch(EPOCH, (AT,)), Fetched(EPOCH, GENESIS, (OPEN, WRITE)), Keep(OPEN), Kept(EPOCH),
    Go(EPOCH, AT), Forward(EPOCH, 1, Write(COMMIT)), Forward(EPOCH, 2, RemoveMember(ME)),
    Forwarded(1, 0, (CODE, TEXT, DETAIL), 0), Expelled(Removed(ME, EPOCH, 2, INFO)),
    Offer(b"s" * 8, EPOCH), Want(b"s" * 8, 3), Chunk(b"s" * 8, 3, b"data"), End(b"s" * 8, 4, b"h" * 32), Stop(b"s" * 8),
]  # fmt: skip


@pytest.mark.parametrize("word", WORDS, ids=lambda word: type(word).__name__)
def test_what_a_store_says_is_what_another_hears(word: Any) -> None:
    assert peers.read(peers.pack(word)) == word


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_noise_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(LnhError):
        peers.read(frames)


@settings(max_examples=sized(200))
@given(st.sampled_from(WORDS), st.data())
def test_a_message_that_was_changed_is_understood_or_refused(word: Any, data: st.DataObject) -> None:
    frames = peers.pack(word)
    where = data.draw(st.sampled_from((0, 2)))
    frame = bytearray(frames[where])
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    frames[where] = bytes(frame[: data.draw(st.integers(0, len(frame)))]) if data.draw(st.booleans()) else bytes(frame)
    try:
        heard = peers.read(frames)
    except LnhError:
        return
    if isinstance(heard, Append | Fetched):  # what is heard at all is a log
        entries.check_chain(heard.previous, heard.entries)


@pytest.fixture(scope="module")
def snapshot() -> list[bytes]:
    with tempfile.TemporaryDirectory() as name:
        engine = Disk(Path(name))
        base = Base(GENESIS, Milliseconds(0), Configuration())
        engine.persist(
            Persist(number=1, found=(CLUSTER, ME, base), promised=EPOCH, entries=(OPEN, WRITE), committed=2), "boot"
        )
        outgoing = engine.send()
        chunks = []
        while (chunk := outgoing.next()) is not None:
            chunks.append(chunk)
        engine.close()
        return [b"".join(chunks), outgoing.hash]


def take(incoming: Incoming, chunks: list[bytes], hash_: bytes) -> None:
    for chunk in chunks:
        incoming.take(chunk)
    incoming.finish(hash_)


@settings(max_examples=sized(150))
@given(data=st.data())
def test_a_snapshot_that_was_changed_is_never_taken(snapshot: list[bytes], data: st.DataObject) -> None:
    whole, hash_ = bytearray(snapshot[0]), snapshot[1]
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(whole)))
    with tempfile.TemporaryDirectory() as name:
        incoming = Disk(Path(name)).receive(CLUSTER)
        with pytest.raises(SealBroken):
            take(incoming, [bytes(whole[:cut]), bytes(whole[cut:])], hash_)
        incoming.discard()
        assert not list(Path(name).iterdir())


@pytest.mark.parametrize("version", [2**63, 2**64 - 1, -(2**63) - 1])
def test_a_snapshot_with_a_number_that_no_store_writes_is_refused(
    snapshot: list[bytes], tmp_path: Path, version: int
) -> None:
    whole = snapshot[0]
    header = whole[: 4 + int.from_bytes(whole[:4], "big")]
    rows = codec.encode(["items", [["t", b"", b"id", version, b"", b"head", b"body"]]])
    incoming = Disk(tmp_path).receive(CLUSTER)
    with pytest.raises(SealBroken, match="no store writes"):
        incoming.take(header + len(rows).to_bytes(4, "big") + rows)
    incoming.discard()
