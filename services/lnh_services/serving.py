"""Shares among the services' `main` functions: the argument, settings, log, signals and exit code.

Exit codes: 0 stopped in order, 1 failed, 2 wrong usage or settings.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lnh_common.errors import ConfigurationInvalid, FileModeUnsafe
from lnh_common.events import Log
from lnh_common.text import shown
from lnh_services import configuration, logs
from lnh_services.configuration import Settings
from lnh_services.paths import MemberDirectory

if TYPE_CHECKING:
    import asyncio  # two services have loops of their own, and start sooner without it

_PR_SET_PDEATHSIG: Final = 1

SUPERVISOR_VARIABLE: Final = "LNH_SUPERVISOR_PID"  # set by the supervisor for what it starts

_COLLECT_EVERY: Final = 50_000  # objects made and not freed, in place of 700

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


@dataclass(frozen=True)
class Member:
    """The member that a service belongs to: its directory and settings."""

    directory: MemberDirectory
    settings: Settings


def prepare(service: str, arguments: list[str] | None = None, *, stderr: bool = False) -> Member:
    """Parse `--member-dir DIR`, read the settings, make the directories, open the log; `umask 077` from here on.

    Raises SystemExit (2) for wrong usage, ConfigurationInvalid for wrong settings.
    """
    parser = argparse.ArgumentParser(prog=f"python -m lnh_services.{service}", description=f"The {service} service.")
    parser.add_argument("--member-dir", required=True, metavar="DIR", help="the member's directory")
    directory = MemberDirectory(parser.parse_args(arguments).member_dir)
    return open_member(service, directory, stderr=stderr)


def open_member(service: str, directory: MemberDirectory, *, stderr: bool = False) -> Member:
    """Prepare as `prepare` does, with the directory known."""
    os.umask(0o077)
    settings = configuration.load(directory.settings)
    directory.create()
    logs.configure(service, directory, settings.log, stderr=stderr)
    return Member(directory, settings)


def run(service: str, main: Callable[[Member, asyncio.Event], Awaitable[None]]) -> int:
    """Run an asyncio service until SIGTERM or SIGINT sets its event; returns the exit code."""
    import asyncio

    spare_collections()
    return guarded(service, lambda member: asyncio.run(_until_signalled(member, main)))


def spare_collections() -> None:
    """Leave what the start made out of garbage collections, and make those rare: requests leave no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY)


def guarded(service: str, main: Callable[[Member], None]) -> int:
    """Prepare, run `main`, and turn what it raises into a log line and an exit code."""
    if parent := os.environ.pop(SUPERVISOR_VARIABLE, ""):
        die_with_parent(int(parent))
    try:
        member = prepare(service)
    except (ConfigurationInvalid, FileModeUnsafe) as error:
        print(f"{service}: {shown(str(error))}", file=sys.stderr)
        return EXIT_USAGE
    log = Log(service)
    log.info("started", member=member.settings.name)
    try:
        main(member)
    except (ConfigurationInvalid, FileModeUnsafe) as error:
        log.failure("stopped by its settings", problem=str(error))
        return EXIT_USAGE
    except Exception as error:  # the last place where it can be written down; the supervisor starts it again
        log.bug("failed", error)
        return EXIT_FAILED
    log.info("stopped")
    return EXIT_OK


async def _until_signalled(member: Member, main: Callable[[Member, asyncio.Event], Awaitable[None]]) -> None:
    import asyncio

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await main(member, stop)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent`, the process that started it, dies. Linux only.

    Called in the child at its start; a parent that is already gone ends it at once.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EXIT_FAILED)
