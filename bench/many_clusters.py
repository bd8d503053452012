"""One client's 3500 keyrings over ten clusters, in one event loop.

`python -m bench.many_clusters` measures these rows. Ten members take some minutes to set up, and 3 GB of memory, so
`make bench` leaves them out.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Final

import lnh
import lnh.aio
from bench import member
from bench.rows import WINDOWS, Row, at_most, run
from lnh import admin
from lnh.registration import hello
from lnh_cli.demo.local import Place
from lnh_common import limits

CLUSTERS: Final = limits.CLUSTERS_PER_CLIENT
EACH: Final = limits.KEYRINGS_PER_CLUSTER // CLUSTERS
WHAT: Final = f"{CLUSTERS * EACH} keyrings over {CLUSTERS} clusters"
MOST: Final = 100.0  # milliseconds


def _fill(configuration: lnh.Configuration, place: Place, index: int) -> None:
    """Register the client with one more cluster, and give that its keyrings."""
    password, po_password = (place.secret(name).read_text().strip() for name in ("admin", "po"))
    address = place.first.address.read_text().strip()
    fingerprint = hello(address).fingerprint
    lnh.register(configuration, address, "bench", "admin", lambda: password, wanted=fingerprint, index=index)
    with (
        lnh.connect(index, directory=configuration.directory) as cluster,
        admin.login(cluster.connection, "admin", password, po_password=po_password) as administration,
    ):
        begin = 2  # beside `payments`, which is there
        while begin <= EACH:
            total = min(EACH + 1 - begin, limits.KEYRINGS_PER_CREATE)
            administration.create_keyrings("ring", total, begin)
            begin += total


async def _listed(clusters: Sequence[lnh.aio.Cluster]) -> None:
    async def labels(cluster: lnh.aio.Cluster) -> list[str]:
        return [keyring.label async for keyring in cluster.keyrings()]

    found = await asyncio.gather(*map(labels, clusters))
    assert sum(map(len, found)) == CLUSTERS * EACH, "all are listed"


async def _found(clusters: Sequence[lnh.aio.Cluster]) -> None:
    await asyncio.gather(*(cluster.keyring(f"ring{EACH // 2}") for cluster in clusters))


async def _milliseconds(configuration: lnh.Configuration) -> tuple[float, float]:
    async with AsyncExitStack() as opened:
        clusters = [
            await opened.enter_async_context(lnh.aio.connect(index, directory=configuration.directory))
            for index in range(CLUSTERS)
        ]

        async def median(act: Callable[[Sequence[lnh.aio.Cluster]], Awaitable[None]]) -> float:
            took = []
            await act(clusters)
            for _ in range(4 * WINDOWS):
                began = time.perf_counter()
                await act(clusters)
                took.append((time.perf_counter() - began) * 1e3)
            return statistics.median(took)

        return await median(_listed), await median(_found)


def measure() -> Iterator[Row]:
    with ExitStack() as running, tempfile.TemporaryDirectory(prefix="lnh-") as directory:
        configuration = lnh.Configuration(Path(directory) / "client")
        for index in range(CLUSTERS):
            _fill(configuration, running.enter_context(member.running()).place, index)
        listed, found = asyncio.run(_milliseconds(configuration))
        yield at_most(f"{WHAT}: list all, p50", listed, "ms", MOST)
        yield at_most(f"{WHAT}: find one in each, p50", found, "ms", MOST)


if __name__ == "__main__":
    sys.exit(run(measure))
