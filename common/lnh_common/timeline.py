"""Stamps that show where the time of one request goes, through all processes that it comes by.

A process that is to be looked at wraps some of its functions when it starts (`wrap`), each so that the time is noted
before or after a call. One that is not has no trace of this in its way. Times are CLOCK_MONOTONIC, which all processes
of a machine share; each process notes in a file of its own (`Recorder`), which the one who asks maps and reads.

    file     [number of stamps, 8 bytes][names of the points, a line each; HEAD bytes with the number]
             [stamp] * KEPT, the newest, in a ring
    stamp    [CLOCK_MONOTONIC in nanoseconds, 8 bytes][processor time of the thread, likewise][number of its point, 8]
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Final, NamedTuple

VARIABLE: Final = "LNH_TIMELINE"  # set to anything: a member's balancer and workers note their stamps
KEPT: Final = 1 << 16  # stamps
_COUNT: Final = struct.Struct("<Q")
_STAMP: Final = struct.Struct("<QQQ")
_HEAD: Final = 4096
_BYTES: Final = _HEAD + KEPT * _STAMP.size


class Point(NamedTuple):
    """A moment in a process's part of a request.

    Args:
        name: what happens then.
        owner, function: the class or module, and its function at whose call the time is noted.
        before: note it before the call rather than after.
    """

    name: str
    owner: Any
    function: str
    before: bool = False


class Stamp(NamedTuple):
    """A moment, and what happened then, in which process.

    Args:
        at: nanoseconds of CLOCK_MONOTONIC.
        spent: nanoseconds of processor time of the thread so far.
    """

    at: int
    spent: int
    process: str
    point: str


class Recorder:
    """Notes stamps in a file that others may read meanwhile; one thread at a time."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _BYTES)
            self._map: Final = mmap.mmap(descriptor, _BYTES)
        finally:
            os.close(descriptor)
        listed = "\n".join(names).encode()
        assert _COUNT.size + len(listed) <= _HEAD, "the names of a process's points are few"
        self._map[_COUNT.size : _COUNT.size + len(listed)] = listed
        self._count = 0

    def note(self, point: int) -> None:
        """Note that this point is reached now."""
        where = _HEAD + self._count % KEPT * _STAMP.size
        _STAMP.pack_into(self._map, where, time.monotonic_ns(), time.thread_time_ns(), point)
        self._count += 1
        _COUNT.pack_into(self._map, 0, self._count)


def begin(member: Path, process: str, points: Sequence[Point]) -> None:
    """Note, for as long as this process lives, when its points are reached; nothing unless `VARIABLE` is set.

    Args:
        member: the member's directory.
        process: its name, of which digits and a dash at the end tell several of a kind apart.
    """
    if os.environ.get(VARIABLE):
        wrap(points, Recorder(_file(member, process), [point.name for point in points]).note)


def read(member: Path) -> list[Stamp]:
    """Read the stamps that the processes of a member have kept, in the order of their times."""
    found: list[Stamp] = []
    for path in _file(member, "").glob("*"):
        content = path.read_bytes()
        (count,) = _COUNT.unpack_from(content)
        names = content[_COUNT.size : _HEAD].rstrip(b"\0").decode().split("\n")
        process = path.name.rstrip("0123456789").rstrip("-")
        for number in range(max(0, count - KEPT), count):
            at, spent, point = _STAMP.unpack_from(content, _HEAD + number % KEPT * _STAMP.size)
            found.append(Stamp(at, spent, process, names[point]))
    return sorted(found)


def _file(member: Path, process: str) -> Path:
    return member / "run" / "timeline" / process


def wrap(points: Sequence[Point], note: Callable[[int], None]) -> Callable[[], None]:
    """Have `note` called with the number of each point when it is reached; returns what undoes it."""
    undo: list[tuple[Any, str, Any]] = []
    for number, point in enumerate(points):
        before = getattr(point.owner, point.function)
        undo.append((point.owner, point.function, before))
        setattr(point.owner, point.function, _noting(before, number, note, before=point.before))

    def unwrap() -> None:
        for owner, function, was in reversed(undo):
            setattr(owner, function, was)

    return unwrap


def _noting(function: Any, number: int, note: Callable[[int], None], *, before: bool) -> Any:
    @wraps(function)
    def noting(*args: Any, **named: Any) -> Any:
        if before:
            note(number)
            return function(*args, **named)
        result = function(*args, **named)
        note(number)
        return result

    return noting


def follow(stamps: Sequence[Stamp], way: Sequence[tuple[str, str]]) -> list[Stamp] | None:
    """Find the stamps of the points of `way`, each the first behind the one before; None where one is missing.

    Args:
        stamps: of one request that was alone, in the order of their times.
        way: the process and point of each step.
    """
    found: list[Stamp] = []
    rest = iter(stamps)
    for step in way:
        stamp = next((stamp for stamp in rest if (stamp.process, stamp.point) == step), None)
        if stamp is None:
            return None
        found.append(stamp)
    return found
