"""Keeps the hsm's other processes running: the Argon2id process, and the workers once there is work for them."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from typing import Final

from lnh_common.events import Log
from lnh_services.hsm.crypto.process_hardening import child_environment
from lnh_services.paths import MemberDirectory

FIRST_DELAY: Final = 0.1  # seconds before the first restart in a row
LONGEST_DELAY: Final = 5.0
STEADY: Final = 10.0  # one that ran so long starts the row anew
STOP_SECONDS: Final = 5.0


def restart_delay(in_a_row: int) -> float:
    """Compute the seconds to wait before restart number `in_a_row` (from 1) of a process that keeps dying."""
    return float(min(FIRST_DELAY * 2 ** min(in_a_row - 1, 16), LONGEST_DELAY))


class Child:
    """One process, started again when it ends, until it is stopped.

    Args:
        module: what `python -m` runs.
        arguments: its arguments; never a secret.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str]) -> None:
        self.name: Final = name
        self._command: Final = (sys.executable, "-m", module, *arguments)
        self._log: Final = Log("hsm.children")
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def is_running(self) -> bool:
        """Tell whether the process lives."""
        return self._process is not None and self._process.returncode is None

    def start(self) -> None:
        """Start the process; starting what is started changes nothing."""
        if self._task is None:
            self._stopping = asyncio.Event()
            self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End the process: politely, and after `STOP_SECONDS` by force. Stopping what is stopped changes nothing."""
        if self._task is None:
            return
        self._stopping.set()
        task, self._task = self._task, None
        await task

    async def _keep(self) -> None:
        in_a_row = 0
        while not self._stopping.is_set():
            began = asyncio.get_running_loop().time()
            code = await self._run()
            if self._stopping.is_set():
                return
            lived = asyncio.get_running_loop().time() - began
            in_a_row = 1 if lived >= STEADY else in_a_row + 1
            delay = restart_delay(in_a_row)
            self._log.warning("child ended", child=self.name, exit=code, restart_in=delay)
            await _wait(self._stopping, delay)

    async def _run(self) -> int | None:
        try:
            process = await asyncio.create_subprocess_exec(*self._command, stdin=DEVNULL, env=child_environment())
        except OSError as error:
            self._log.failure("child not started", child=self.name, error=error.strerror)
            return None
        self._process = process
        self._log.info("child started", child=self.name, child_pid=process.pid)
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not ended.done():
            await _end(process, ended)
        return await ended


async def _end(process: Process, ended: asyncio.Task[int]) -> None:
    process.terminate()
    await asyncio.wait((ended,), timeout=STOP_SECONDS)
    if not ended.done():
        process.kill()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait((waiting,), timeout=seconds)
    waiting.cancel()


class Workers:
    """The hsm workers of this member.

    Args:
        count: how many.
    """

    def __init__(self, directory: MemberDirectory, count: int) -> None:
        self._children: Final = tuple(
            Child(
                f"worker-{number}",
                "lnh_services.hsm.worker.loop",
                ("--member-dir", str(directory.root), "--number", str(number)),
            )
            for number in range(count)
        )

    @property
    def running(self) -> int:
        """The number of workers that run."""
        return sum(child.is_running for child in self._children)

    def start(self) -> None:
        """Start every worker."""
        for child in self._children:
            child.start()

    async def stop(self) -> None:
        """Stop every worker, and wait for their end."""
        await asyncio.gather(*(child.stop() for child in self._children))


def argon2_process(directory: MemberDirectory) -> Child:
    """Make the Argon2id process of a member."""
    return Child("argon2", "lnh_services.hsm.crypto.argon2", ("--member-dir", str(directory.root)))
