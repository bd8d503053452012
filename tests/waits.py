"""The waits of tests: for a condition, never for a time, and a test that waits in vain says for what."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeVar

from lnh_cli.demo.local import StepFailed
from lnh_common.errors import LnhError

T = TypeVar("T")

DEADLINE = 60.0  # of what takes a second, on a machine that stands still now and then
# A look takes processor from what is waited for. So the next one is after this share of what was waited already, ...
_SHARE = 0.1
_LONGEST = 0.05  # ... after so many seconds at most


def wait_until(condition: Callable[[], T | None], what: str, within: float = DEADLINE, every: float = 0.01) -> T:
    """Wait for a condition with a deadline, and return what it finds; the test fails, saying what did not come.

    Args:
        condition: whether it is so; a question that was refused, or had no answer, is asked again.
        every: seconds between two looks, at least; more where a look takes much of the processor.
    """
    began = time.monotonic()
    while True:
        refusal = ""
        try:
            found = condition()
            if found:
                return found
        except (LnhError, StepFailed) as error:
            refusal = f": {error}"
        waited = time.monotonic() - began
        assert waited < within, f"{what} did not come within {within:g} s{refusal}"
        time.sleep(_pause(waited, every))


async def until(
    condition: Callable[[], Awaitable[object] | object], what: str, within: float = DEADLINE, every: float = 0.005
) -> None:
    """Wait as `wait_until` does, and let the loop go on; the condition may be awaited."""
    began = time.monotonic()
    while True:
        refusal = ""
        try:
            found = condition()
            if await found if isawaitable(found) else found:
                return
        except LnhError as error:
            refusal = f": {error}"
        waited = time.monotonic() - began
        assert waited < within, f"{what} did not come within {within:g} s{refusal}"
        await asyncio.sleep(_pause(waited, every))


def _pause(waited: float, every: float) -> float:
    return max(every, min(waited * _SHARE, _LONGEST))


def exit_code_of(child: int, within: float = DEADLINE) -> int:
    """Wait for a forked child's end, and return its exit code; the test fails if it stands still."""
    end = time.monotonic() + within
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"the child stood still for {within:g} s")
        time.sleep(0.01)
