"""Keeps the entries that a member had to drop, for an administrator to look at.

Each unbroken run of dropped entries is one file of its own, `divergent-<epoch>-<index>.cbor`, named for its last entry
(which names, through its hash, all before it). docs/formats/store.md has the content.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from lnh_common import limits
from lnh_common.errors import LnhError, MalformedMessage, SealBroken
from lnh_common.wire import codec
from lnh_services.durable import read_private, replace_file
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import ClusterId, Entry, MemberId

FORMAT: Final = 1
PATTERN: Final = "divergent-*.cbor"
FILE_BYTES: Final = 4 * limits.LOG_BYTES  # what is read back; a log is bounded, and nothing longer is ever dropped


class Saved(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The content of one file."""

    format: int
    cluster: bytes
    member: bytes
    entries: tuple[Entry, ...]


class Listed(NamedTuple):
    """One file and its content, or why that cannot be read."""

    path: Path
    saved: Saved | None
    problem: str


def save(directory: Path, cluster: ClusterId, member: MemberId, entries: Sequence[Entry]) -> None:
    """Make dropped entries durable; the content of an earlier file is never lost. Raises StorageFailed."""
    for run in _runs(entries):
        last = run[-1]
        name = f"divergent-{last.epoch.term}.{last.epoch.candidate.hex()}-{last.index}.cbor"
        path = directory / name
        if path.exists():
            try:
                if len(read(path).entries) >= len(run):
                    continue  # dropped once before: they agree on all that both hold
            except LnhError:
                path.rename(path.with_suffix(".unreadable"))
        replace_file(path, codec.encode(Saved(FORMAT, cluster, member, run)))


def read(path: Path) -> Saved:
    """Read a file; raises SealBroken when it is not what `save` wrote, StorageFailed when it cannot be read."""
    data = read_private(path, FILE_BYTES)
    try:
        saved = codec.decode_as(data or b"", Saved, FILE_BYTES)
    except MalformedMessage as error:
        raise SealBroken(f"{path.name} does not decode") from error
    if saved.format != FORMAT:
        raise SealBroken(f"{path.name} has format {saved.format}; this version reads {FORMAT}")
    for entry in saved.entries:
        fields = (entry.epoch, entry.index, entry.log_time, entry.previous, entry.payload)
        if log.entry_hash(*fields) != entry.hash:
            raise SealBroken(f"{path.name}: entry {entry.index} was changed: its hash does not fit")
    return saved


def find(directory: Path) -> list[Listed]:
    """List every file of entries that were ever dropped here, oldest first."""
    paths = sorted((written, path) for path in directory.glob(PATTERN) if (written := _written(path)) is not None)
    return [_listed(path) for _, path in paths]


def _written(path: Path) -> int | None:
    """Return when a file was written last, in nanoseconds; None for one that is gone."""
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return None


def _listed(path: Path) -> Listed:
    try:
        return Listed(path, read(path), "")
    except LnhError as error:
        return Listed(path, None, str(error))


def _runs(entries: Iterable[Entry]) -> list[tuple[Entry, ...]]:
    """Split entries where one does not follow the one before."""
    runs: list[list[Entry]] = []
    for entry in entries:
        if runs and entry.previous == runs[-1][-1].hash:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return [tuple(run) for run in runs]
