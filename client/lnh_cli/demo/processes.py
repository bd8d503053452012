"""Finds, kills, stops and awaits all processes of a member on this machine.

A member's services lead process groups of their own, and their children die by a signal of the kernel a moment later.
No signal to one process or one group reaches all at once, and until the last is gone a member may still answer. So a
member is killed, or made to stand still, process by process, and each is waited for.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

SECONDS: Final = 30.0  # that a process may take to end or to stand still; the kernel lets it finish a write to its disk
_LOOK_EVERY: Final = 0.01
_MODULE: Final = b"lnh_services."
_SUPERVISOR: Final = (b"lnh-member", b"lnh_services.member")
_ASKERS: Final = {b"--init", b"--wait-ready", b"--health"}  # with these words `lnh-member` only asks about a member


def of_member(directory: Path, part: str = "") -> list[int]:
    """Find the running processes of a member by their command lines, whatever their parents are by now.

    Args:
        directory: the member's, as its processes were told it.
        part: text in the command lines that are meant, such as `lnh_services.hsm`; all of them without it.

    Returns:
        Their process ids, the supervisor's first: it starts what the others miss.
    """
    wanted, piece = os.fsencode(directory.absolute()), os.fsencode(part)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):  # it ended while it was looked at
            line = (entry / "cmdline").read_bytes()
            words = line.split(b"\0")
            if wanted in words and piece in line and _is_of_a_member(words):
                found.append((not any(word.endswith(_SUPERVISOR) for word in words), int(entry.name)))
    return [pid for _, pid in sorted(found)]


def _is_of_a_member(words: Collection[bytes]) -> bool:
    return _ASKERS.isdisjoint(words) and any(word.startswith(_MODULE) or word.endswith(_SUPERVISOR) for word in words)


def has_ended(pid: int) -> bool:
    """Tell whether no thread of a process runs any more; a zombie's first thread may have ended before the others."""
    return all(state in "ZX" for state in _states(pid))


def stands_still(pid: int) -> bool:
    """Tell whether each of a process's threads is stopped, or has ended."""
    return all(state in "TtZX" for state in _states(pid))


def _states(pid: int) -> list[str]:
    """Read the states of a process's threads (proc(5)); none for a process that does not exist."""
    states = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                states.append((thread / "stat").read_text().rpartition(")")[2].split()[0])
    return states


def kill(directory: Path, part: str = "") -> None:
    """Kill every process of a member, or of a part of it, and wait until none is left.

    A part that is killed alone is started again, unless the supervisor stands still.

    Raises:
        TimeoutError: one of them goes on.
    """
    seen: set[int] = set()
    ends = time.monotonic() + SECONDS
    while pids := of_member(directory, part):
        _signal(pids, signal.SIGKILL)
        seen.update(pids)
        _check_time(ends, pids, "killed")
        time.sleep(_LOOK_EVERY)
    _wait(seen, has_ended, "killed")


def kill_children() -> None:
    """Kill every process that this one started, whoever knows of it: an interrupt may come just as one was started.

    Raises:
        TimeoutError: one of them goes on.
    """
    here, found = os.getpid(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it ended while it was looked at
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == here:
                    found.append(int(entry.name))
    _signal(found, signal.SIGKILL)
    _wait(found, has_ended, "killed")


def wait_for_end(directory: Path, seconds: float) -> None:
    """Wait until no process of a member is left.

    Raises:
        TimeoutError: one goes on.
    """
    ends = time.monotonic() + seconds
    while pids := of_member(directory):
        _check_time(ends, pids, "told to end")
        time.sleep(_LOOK_EVERY)


@contextmanager
def standing_still(*directories: Path, part: str = "") -> Iterator[list[int]]:
    """Have every process of these members, or of a part of them, stand still meanwhile; yields their ids.

    Their connections stay. All of them go on at the end, whatever happens.

    Raises:
        TimeoutError: one of them goes on.
    """
    with held() as hold:
        still: list[int] = []
        while fresh := [pid for each in directories for pid in of_member(each, part) if pid not in still]:
            hold(fresh)
            still += fresh
        yield still


@contextmanager
def held(*pids: int) -> Iterator[Callable[[Collection[int]], None]]:
    """Have these processes stand still meanwhile, in this order; yields a function that does the same to more.

    Raises:
        TimeoutError: one of them goes on.
    """
    still: list[int] = []

    def hold(more: Collection[int]) -> None:
        still.extend(more)
        _signal(more, signal.SIGSTOP)
        _wait(more, stands_still, "stopped")

    try:
        hold(pids)
        yield hold
    finally:
        _signal(still[::-1], signal.SIGCONT)


def _signal(pids: Collection[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait(pids: Collection[int], condition: Callable[[int], bool], what: str) -> None:
    ends = time.monotonic() + SECONDS
    while left := [pid for pid in pids if not condition(pid)]:
        _check_time(ends, left, what)
        time.sleep(_LOOK_EVERY)


def _check_time(ends: float, pids: Collection[int], what: str) -> None:
    if time.monotonic() > ends:
        raise TimeoutError(f"processes {', '.join(map(str, pids))} were {what}, and go on")
