"""A connection of `lnh.aio` with the face of a blocking one, so that both go through the same tests: its loop has a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from lnh.aio.net.connection import Connection, Link
from lnh.aio.net.pool import Share
from lnh.net.failover import Endpoint
from lnh.net.request import Request
from lnh_common.bus import curve
from models.loopback import CLUSTER, PUBLIC, Member

T = TypeVar("T")

_TURN = 0.005  # seconds that a step takes: the channel does its work by itself


class ChannelInLoop:
    """A share of a channel, used from a thread."""

    def __init__(self, share: Share, connection: ConnectionInLoop) -> None:
        self._share = share
        self._connection = connection

    def submit(self, *arguments: Any, **how: Any) -> Request:
        async def submitted() -> Request:
            return self._share.submit(*arguments, **how)

        return self._connection.run(submitted())

    def wait(self, request: Request) -> dict[str, Any]:
        return self._connection.run(self._share.wait(request))

    def step(self, _: float) -> None:
        self._connection.run(asyncio.sleep(_TURN))


class ConnectionInLoop:
    """A connection, used from any thread."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def call(self, *arguments: Any, **how: Any) -> dict[str, Any]:
        return self.run(self._connection.call(*arguments, **how))

    def statement(self, *arguments: Any) -> Any:
        return self.run(self._connection.statement(*arguments))

    def learn(self, *arguments: Any) -> None:
        self.run(self._connection.learn(*arguments))

    @contextmanager
    def channel(self) -> Iterator[ChannelInLoop]:
        lent = self._connection.channel()
        share = self.run(lent.__aenter__())
        try:
            yield ChannelInLoop(share, self)
        finally:
            self.run(lent.__aexit__(None, None, None))

    @property
    def endpoint(self) -> Endpoint:
        return self._connection.endpoint

    @property
    def alternates(self) -> tuple[Endpoint, ...]:
        return self._connection.alternates


@contextmanager
def connected(*members: Member, epoch: int = 0, failover: bool = True) -> Iterator[ConnectionInLoop]:
    """As `loopback.connected`."""
    first, *others = members
    link = Link(first.endpoint.address, first.keys.public, curve.KeyPair.generate())
    connection = Connection(
        link,
        PUBLIC,
        CLUSTER,
        client=b"k" * 16,
        epoch=epoch,
        alternates=[each.endpoint for each in others],
        failover=failover,
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    in_loop = ConnectionInLoop(connection, loop)
    try:
        yield in_loop
    finally:
        in_loop.run(connection.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
