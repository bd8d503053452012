"""The thread that writes: what comes of a step is told while the store is there to hear it."""

from __future__ import annotations

import asyncio
import threading

from lnh_common.errors import SealBroken
from lnh_services.store.disk.disk_errors import DiskFull
from lnh_services.store.disk.writer import Writer


def test_what_was_written_is_told_in_the_order_asked() -> None:
    async def go() -> None:
        writer, done = Writer(), asyncio.Event()
        told: list[object] = []
        for number in range(3):
            writer.submit(lambda number=number: number, told.append, unexpected, unexpected)  # type: ignore[misc]
        writer.submit(lambda: None, lambda _: done.set(), unexpected, unexpected)
        await asyncio.wait_for(done.wait(), 10)
        assert told == [0, 1, 2]
        writer.close()

    asyncio.run(go())


def test_a_step_that_ends_while_the_writer_is_closed_is_waited_for_and_told_nobody() -> None:
    async def go() -> None:
        writer, begun = Writer(), threading.Event()
        told: list[object] = []
        written: list[int] = []

        def write() -> None:
            begun.wait(10)
            written.append(1)

        writer.submit(write, told.append, unexpected, unexpected)
        asyncio.get_running_loop().run_in_executor(None, begun.set)
        writer.close()
        assert written == [1]
        for _ in range(3):
            await asyncio.sleep(0)
        assert told == []

    asyncio.run(go())


def unexpected(error: DiskFull | SealBroken) -> None:
    raise AssertionError(f"no step failed: {error}")
