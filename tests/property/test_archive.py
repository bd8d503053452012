"""The archive file: what was written comes out, and whatever else a file holds is refused."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lnh_common.errors import ArchiveInvalid
from lnh_common.messages.backup import Row
from lnh_common.messages.hsm import SmkGeneration
from lnh_common.wire import archives, codec
from lnh_common.wire.archives import Outline
from lnh_services import archived
from lnh_services.archived import Grouping
from lnh_services.hsm.appliance.state import Cluster
from lnh_services.hsm.backup import archive_keys as keys
from models.archives import CHUNK, cluster, written


def read(data: bytes, whose: Cluster | None = None) -> bytes:
    file = io.BytesIO(data)
    about = archives.outline(file)
    key = keys.open_archive(whose or cluster(), about.header_bytes, about.manifest_bytes, about.seal)
    return b"".join(archives.plaintext(file, about, key))


def spans(data: bytes) -> list[tuple[int, int]]:
    """Where each frame of a file is, the header's first."""
    found, at = [], len(archives.MAGIC)
    while at < len(data) - 8:
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((at, at + 4 + length))
        at += 4 + length
    return found


PLAIN = bytes(range(256)) * 2
WHOLE = written(PLAIN)
OTHER = written(PLAIN, id_=b"b" * 16)
FRAMES = spans(WHOLE)
CHUNKS = FRAMES[1:-1]


@given(st.binary(max_size=5 * CHUNK), st.integers(1, 20))
def test_what_is_written_is_read(plaintext: bytes, pieces: int) -> None:
    data = written(plaintext, pieces)
    assert read(data) == plaintext
    about = archives.check_copy(io.BytesIO(data))
    assert (about.manifest.size, about.size, about.header.index) == (len(plaintext), len(data), 7)


@given(st.integers(0, len(WHOLE) - 1))
def test_an_archive_that_ends_early_is_refused(length: int) -> None:
    with pytest.raises(ArchiveInvalid):
        read(WHOLE[:length])
    with pytest.raises(ArchiveInvalid):
        archives.check_copy(io.BytesIO(WHOLE[:length]))


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_changed_byte_anywhere_is_refused(at: int, mask: int) -> None:
    changed = bytearray(WHOLE)
    changed[at] ^= mask
    with pytest.raises(ArchiveInvalid):
        read(bytes(changed))


@given(st.binary(min_size=1, max_size=40))
def test_what_is_appended_is_refused(more: bytes) -> None:
    with pytest.raises(ArchiveInvalid):
        read(WHOLE + more)


@given(st.permutations(range(len(CHUNKS))))
def test_chunks_in_another_order_are_refused(order: list[int]) -> None:
    moved = b"".join(WHOLE[slice(*CHUNKS[number])] for number in order)
    data = WHOLE[: CHUNKS[0][0]] + moved + WHOLE[CHUNKS[-1][1] :]
    if data == WHOLE:
        assert read(data) == PLAIN
    else:
        with pytest.raises(ArchiveInvalid):
            read(data)


@given(st.sets(st.integers(0, len(FRAMES) - 1), min_size=1))
def test_parts_of_another_archive_of_the_same_cluster_are_refused(swapped: set[int]) -> None:
    parts = [(OTHER if number in swapped else WHOLE)[slice(*span)] for number, span in enumerate(FRAMES)]
    data = archives.MAGIC + b"".join(parts) + WHOLE[-8:]
    if len(swapped) == len(FRAMES):
        assert read(data) == PLAIN
    else:
        with pytest.raises(ArchiveInvalid):
            read(data)


@given(st.integers(1, len(CHUNKS) - 1))
def test_a_cut_archive_with_a_fitting_manifest_is_refused_for_its_seal(kept: int) -> None:
    about = archives.outline(io.BytesIO(WHOLE))
    manifest = codec.encode(replace(about.manifest, chunks=kept, size=kept * CHUNK))
    end = codec.encode([manifest, about.seal])
    framed = len(end).to_bytes(4, "big") + end
    data = WHOLE[: CHUNKS[kept - 1][1]] + framed + len(framed).to_bytes(4, "big") + archives.END
    with pytest.raises(ArchiveInvalid, match="sealed it so"):
        read(data)
    forged = replace(archives.outline(io.BytesIO(data)), manifest=codec.decode_as(manifest, archives.Manifest))
    with pytest.raises(ArchiveInvalid):  # and though it were: the chunk that is last now was not the last one
        b"".join(archives.plaintext(io.BytesIO(data), forged, _key(about)))


def _key(about: Outline) -> bytes:
    return keys.open_archive(cluster(), about.header_bytes, about.manifest_bytes, about.seal)


def test_a_foreign_archive_is_refused_by_name() -> None:
    with pytest.raises(ArchiveInvalid, match="another cluster: prod"):
        read(WHOLE, cluster(2))
    with pytest.raises(ArchiveInvalid, match="SMK generation 1, which this HSM does not hold"):
        read(WHOLE, cluster(generation=2))
    impostor = replace(cluster(), smk=(SmkGeneration(generation=1, key=b"x" * 32),))
    with pytest.raises(ArchiveInvalid, match="it was changed"):
        read(WHOLE, impostor)


def test_a_newer_format_is_refused_saying_so() -> None:
    about = archives.outline(io.BytesIO(WHOLE))
    fields = codec.decode(about.header_bytes)
    header = codec.encode([archives.FORMAT + 1, *fields[1:], "a new field"])
    data = archives.MAGIC + len(header).to_bytes(4, "big") + header + WHOLE[about.start :]
    with pytest.raises(ArchiveInvalid, match="a newer version made it"):
        archives.outline(io.BytesIO(data))


@given(st.binary(max_size=300))
def test_any_other_file_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveInvalid):
        archives.outline(io.BytesIO(data))
    with pytest.raises(ArchiveInvalid):
        archives.outline(io.BytesIO(archives.MAGIC + data))


# --- what is in it


def record(value: object) -> bytes:
    packed = codec.encode(value)
    return len(packed).to_bytes(4, "big") + packed


HEADER = record([1, b"c" * 16, []])
ROW = ["user", b"", b"id", 1, b"", b"head", b"body"]


def rows(*records: bytes, count: int, size: int) -> list[Row]:
    data = b"".join(records)
    chunks = (data[at : at + size] for at in range(0, len(data), size))
    return [row for batch in archived.batches(chunks, {"user": count}) for row in batch]


@given(st.lists(st.integers(0, 4), max_size=5), st.integers(1, 100))
def test_every_row_comes_out_however_it_is_cut(sizes: list[int], size: int) -> None:
    count = sum(sizes)
    found = rows(
        HEADER, *(record(["items", [ROW] * n]) for n in sizes), record(["end", [count]]), count=count, size=size
    )
    assert found == [tuple(ROW)] * count


@pytest.mark.parametrize(
    ("records", "count"),
    [
        ([record([2, b"c" * 16, []]), record(["end", [0]])], 0),
        ([record(["end", [0]])], 0),
        ([HEADER], 0),
        ([HEADER, record(["end", [1]])], 0),
        ([HEADER, record(["items", [ROW]]), record(["end", [1]])], 2),
        ([HEADER, record(["end", [0]]), record(["end", [0]])], 0),
        ([HEADER, record(["items", [ROW[:-1]]]), record(["end", [1]])], 1),
        ([HEADER, record(["others", [ROW]]), record(["end", [1]])], 1),
        ([HEADER, record(["end", [0]])[:-1]], 0),
        ([HEADER, b"\0\0\0\1\xff", record(["end", [0]])], 0),
        ([HEADER, b"\xff\xff\xff\xff"], 0),
    ],
)
def test_content_that_is_not_whole_is_refused(records: list[bytes], count: int) -> None:
    with pytest.raises(ArchiveInvalid):
        rows(*records, count=count, size=1000)


def test_groups_are_read_and_a_version_without_any_has_one() -> None:
    members = [{"id": b"a" * 16, "name": "a", "group": "far"}, {"id": b"b" * 16, "name": "b"}]
    configuration = [members, [], [], 0, b"", [], [], [1500, 0], 1500, ["far", "local"], []]
    for base, expected in (
        ([[1, b""], 0, configuration], Grouping(("far", "local"), ((b"a" * 16, "far"), (b"b" * 16, "local")))),
        ([[1, b""], 0, configuration[:9]], Grouping()),
        ([], Grouping()),
    ):
        told: list[Grouping] = []
        chunks = [record([1, b"c" * 16, base]) + record(["end", [0]])]
        assert list(archived.batches(chunks, {}, told.append)) == []
        assert told == [expected]
    with pytest.raises(ArchiveInvalid):
        list(archived.batches([record([1, b"c" * 16, [0, 0, [[], 0, 0, 0, 0, 0, 0, 0, 0, [7]]]])], {}))
