"""Reads the content of an archive: the cluster's items, in the form of the store's snapshot stream.

    records, each after four bytes of its length:  [format, cluster, base]  ["items", rows]...  ["end", [count]]

Pure. Every row of a whole archive comes out, or ArchiveInvalid. docs/formats/archive.md is exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from lnh_common import limits
from lnh_common.errors import ArchiveInvalid, MalformedMessage
from lnh_common.messages.backup import Row
from lnh_common.wire import codec

FORMAT: Final = 1
RECORD_BYTES: Final = 2 * limits.BODY_BYTES
_LENGTH: Final = 4


class Grouping(msgspec.Struct, frozen=True):
    """The affinity groups of an archive, and the group of each member, by its id."""

    groups: tuple[str, ...] = (limits.LOCAL_GROUP,)
    members: tuple[tuple[bytes, str], ...] = ()


def _tell_nobody(_: Grouping) -> None:
    pass


def batches(
    chunks: Iterable[bytes], counts: dict[str, int], tell: Callable[[Grouping], None] = _tell_nobody
) -> Iterator[list[Row]]:
    """Yield the rows of an archive's plaintext, some at a time.

    Args:
        counts: number of items of each table, as the manifest says.
        tell: called with the groups, before the first row.

    Raises ArchiveInvalid.
    """
    found: Counter[str] = Counter()
    first, ended = True, False
    for record in _records(chunks):
        if ended:
            raise ArchiveInvalid("its content goes on after its end")
        if first:
            tell(_read_header(record))
            first = False
            continue
        match record:
            case ["items", list(rows)]:
                batch = _rows(rows)
                found.update(row[0] for row in batch)
                yield batch
            case ["end", [int(count)]] if count == found.total():
                ended = True
            case _:
                raise ArchiveInvalid("its content is not what this version writes")
    if not ended or dict(found) != {table: count for table, count in counts.items() if count}:
        raise ArchiveInvalid("items are missing in it")


def _records(chunks: Iterable[bytes]) -> Iterator[Any]:
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        at = 0
        while len(waiting) - at >= _LENGTH:
            length = int.from_bytes(waiting[at : at + _LENGTH], "big")
            if length > RECORD_BYTES:
                raise ArchiveInvalid(f"a record in it claims {length} bytes; at most {RECORD_BYTES}")
            if len(waiting) - at < _LENGTH + length:
                break
            try:
                yield codec.decode(bytes(waiting[at + _LENGTH : at + _LENGTH + length]), RECORD_BYTES)
            except MalformedMessage as error:
                raise ArchiveInvalid(f"a record in it does not decode: {error}") from None
            at += _LENGTH + length
        del waiting[:at]
    if waiting:
        raise ArchiveInvalid("its content ends within a record")


def _read_header(record: Any) -> Grouping:
    match record:
        case [int(format_), bytes(), list(base)] if format_ <= FORMAT:
            return _grouping(base)
        case [int(format_), *_] if format_ > FORMAT:
            raise ArchiveInvalid(f"its content has format {format_}; this version reads {FORMAT}")
    raise ArchiveInvalid("its content does not begin as this version writes it")


def _grouping(base: list[Any]) -> Grouping:
    """Read the groups from the base of the log: `[position, log time, [members, ... groups as the tenth, ...]]`."""
    match base:
        case [_, _, [list(members), _, _, _, _, _, _, _, _, list(groups), *_]]:
            placed = [[each.get("id"), each.get("group", limits.LOCAL_GROUP)] for each in members if type(each) is dict]
            try:
                return codec.convert({"groups": groups, "members": placed}, Grouping)
            except MalformedMessage as error:
                raise ArchiveInvalid(f"what it says of groups is not what this version writes: {error}") from None
    return Grouping()


def _rows(rows: list[Any]) -> list[Row]:
    try:
        return codec.convert(rows, list[Row])
    except MalformedMessage as error:
        raise ArchiveInvalid(f"an item in it is none: {error}") from None


def parse_tags(packed: bytes) -> tuple[bytes, ...]:
    """Split the tags of a row, each after one byte of length; raises ArchiveInvalid."""
    tags, at = [], 0
    while at < len(packed):
        end = at + 1 + packed[at]
        if end > len(packed):
            raise ArchiveInvalid("the tags of an item in it do not decode")
        tags.append(packed[at + 1 : end])
        at = end
    return tuple(tags)
