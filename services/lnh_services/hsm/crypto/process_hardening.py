"""Hardens every hsm process first of all, so that its memory stays its own (Linux prctl(2), mlock(2)).

No core dump, no debugger of the same user, no new privileges, no inherited files, no swap where the system lets us.
Nothing here may make the process fail later: memory that is allocated in future is locked only where no limit could
then refuse an allocation.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_MCL_ONFAULT: Final = 4  # lock a page when it is first used, rather than fill every reserved one now
_CAP_IPC_LOCK: Final = 14
_UMASK: Final = 0o077
_FIRST_INHERITED: Final = 3

PARENT_VARIABLE: Final = "HSM_CORE_PID"
"""The environment variable by which the core tells a child whose death it must not survive."""


@dataclass(frozen=True)
class Hardening:
    """The result of hardening; `problems` says what the system did not allow, and what would."""

    undumpable: bool
    locked_memory: bool
    problems: tuple[str, ...]


def harden() -> Hardening:
    """Harden this process; call it before any file, socket or thread is opened.

    Raises nothing: what the system refuses is in `problems`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    problems: list[str] = []
    os.umask(_UMASK)
    _close_inherited()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    undumpable = _prctl(libc, _PR_SET_DUMPABLE, 0)
    if not undumpable:
        problems.append("this process can be traced and dumped by others of its user")
    if not _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1):
        problems.append("this process could gain privileges")
    locked = _lock_memory(libc)
    if not locked:
        problems.append("memory is not locked and may be written to swap: raise the limit (ulimit -l unlimited)")
    _follow_parent(libc)
    return Hardening(undumpable, locked, tuple(problems))


def child_environment() -> dict[str, str]:
    """Make the environment of a process that must not outlive this one (it calls `harden`)."""
    return {**os.environ, PARENT_VARIABLE: str(os.getpid())}


def may_lock_future(soft_limit: int, effective_capabilities: int) -> bool:
    """Tell whether locking future memory can never make an allocation fail (mlock(2), "Limits and permissions")."""
    return soft_limit == resource.RLIM_INFINITY or bool(effective_capabilities >> _CAP_IPC_LOCK & 1)


def _lock_memory(libc: ctypes.CDLL) -> bool:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if not may_lock_future(soft, _effective_capabilities()):
        # Not even what is mapped now: a locked stack or a locked block that grows beyond the limit is refused later.
        return False
    return bool(libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0)


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> bool:
    zero = ctypes.c_ulong(0)
    return bool(libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero) == 0)


def _close_inherited() -> None:
    highest = max((int(entry.name) for entry in Path("/proc/self/fd").iterdir()), default=_FIRST_INHERITED)
    os.closerange(_FIRST_INHERITED, highest + 1)


def _follow_parent(libc: ctypes.CDLL) -> None:
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if not parent:
        return
    _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before we asked to be told
        os._exit(1)
