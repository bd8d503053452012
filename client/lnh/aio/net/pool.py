"""Lends the one channel of a connection to any number of tasks of one event loop.

A task's share of the channel (`Share`) is its own requests. What tasks ask in one turn of the loop leaves together, and
their uses of keys share seals. `Channel` (`lnh.net.channel`) decides all there is to decide; here is what wakes it: its
sockets' descriptors, and a timer while requests are under way. There is no thread, and no task of the pool's own.

A descriptor of libzmq tells until it is heeded that something came, and not again while it is left unread: so it is
heeded after each step, and what is left is seen to. A share that is given back in the midst of a call, because its task
was cancelled, abandons its requests, and the channel is as good as before: a cancellation comes where a task waits, and
no line of the channel is left by it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from lnh.net.channel import Channel, Routes
from lnh.net.link import Line
from lnh.net.request import Credentials, Request
from lnh_common import limits
from lnh_common.bus.process import OwnProcess
from lnh_common.errors import Busy, ConnectionClosed
from lnh_common.messages.base import Message, Operation
from lnh_common.wire.channel import SessionKeys

TASKS: Final = limits.REQUESTS_PER_CLIENT  # that use one connection at once: the balancer takes so many requests of it


class Share:
    """One task's share of a channel: the requests that it made.

    Attributes:
        requests: those under way.
    """

    def __init__(self, driver: Driver) -> None:
        self.requests: Final[set[Request]] = set()
        self._driver: Final = driver
        self._woken: asyncio.Future[None] | None = None

    def submit(
        self,
        operation: Operation[Any, Any],
        fields: dict[str, Any] | Message,
        timeout: float,
        *,
        route: bytes = b"",
        token: bytes = b"",
        seal: SessionKeys | Credentials | None = None,
        current: bool = False,
    ) -> Request:
        """Make a request, which leaves in this turn of the loop, with whatever else is due by then."""
        return self._driver.submit(
            self, operation, fields, timeout, route=route, token=token, seal=seal, current=current
        )

    async def wait(self, request: Request) -> dict[str, Any]:
        """Wait for the answer's fields; raises the error that the request ended with.

        A cancellation of a write that may have been done has OutcomeUnknown for its cause.
        """
        try:
            while not request.done:
                await self.step(0)
        except asyncio.CancelledError as error:
            left_open = self._driver.left_open(request)
            if left_open is None:
                raise
            raise error from left_open
        return request.result()

    async def step(self, _timeout: float) -> None:
        """Wait until one of the requests ends, which it does at its own deadline."""
        assert self.requests, "waits for nothing"
        self._driver.check()
        self._woken = asyncio.get_running_loop().create_future()
        try:
            await self._woken
        finally:
            self._woken = None
        self._driver.check()

    def abandon(self, requests: Iterable[Request]) -> None:
        """Forget requests whose answers nobody waits for any more."""
        for request in list(requests):
            self._driver.abandon(request)
            self.requests.discard(request)

    def ended(self, request: Request) -> None:
        """Take in that a request ended."""
        self.requests.discard(request)
        self.wake()

    def wake(self) -> None:
        """Have the task look at its requests."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


class Loan:
    """One share, and its holder."""

    __slots__ = ("channel",)

    def __init__(self, channel: Share) -> None:
        self.channel: Final = channel


class Driver:
    """Wakes a channel from the loop that runs when this is made.

    Attributes:
        fault: an exception that is none of the product's, and left the channel in the midst of something.
    """

    def __init__(self, channel: Channel) -> None:
        self.fault: Exception | None = None
        self.loop: Final = asyncio.get_running_loop()
        self._channel: Final = channel
        self._shares: Final[dict[Request, Share]] = {}
        self._read: Final[dict[Line, tuple[int, int]]] = {}  # the descriptors that are watched
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._follow_lines()

    def submit(
        self,
        share: Share,
        operation: Operation[Any, Any],
        fields: dict[str, Any] | Message,
        timeout: float,
        **others: Any,
    ) -> Request:
        """Make a request of a share."""
        self.check()
        request = self._channel.submit(operation, fields, timeout, **others)
        self._shares[request] = share
        share.requests.add(request)
        self._drive_soon()
        return request

    def check(self) -> None:
        """Raise the fault that the channel was closed for, if there is one."""
        if self.fault is not None:
            raise self.fault

    def abandon(self, request: Request) -> None:
        """Forget a request."""
        if self._shares.pop(request, None) is not None:
            self._channel.abandon([request])

    def left_open(self, request: Request) -> BaseException | None:
        """Make the error of a write that may have been done, and whose caller stops waiting; None where none was."""
        return self._channel.requests.left_open(time.monotonic(), request)

    def close(self) -> None:
        """Close the channel, and wake who still waits."""
        if not self.loop.is_closed():
            for watched in self._read.values():
                for descriptor in watched:
                    self.loop.remove_reader(descriptor)
        self._read.clear()
        for handle in (self._soon, self._timer):
            if handle is not None:
                handle.cancel()
        self._channel.close()
        for share in set(self._shares.values()):
            share.wake()
        self._shares.clear()

    # --- what wakes it

    def _drive_soon(self) -> None:
        if self._soon is None:
            self._soon = self.loop.call_soon(self._drive)

    def _drive(self) -> None:
        self._soon = None
        self._step(watches=False)

    def _receive(self) -> None:
        """Take in what came, and send what is due."""
        self._step(watches=False)

    def _look(self) -> None:
        """Take in what happened to the connection, too."""
        self._step(watches=True)

    def _tick(self) -> None:
        self._timer = None
        self._step(watches=True)

    def _step(self, *, watches: bool) -> None:
        channel = self._channel
        try:
            ended = channel.step(0)
            if watches:
                channel.watch()
                ended += channel.step(0)
        except Exception as error:  # a fault of ours: it is its callers' to hear, who would wait for ever
            self.fault = error
            self.close()
            return
        for request in ended:
            if request in self._shares:
                self._shares.pop(request).ended(request)
        self._follow_lines()
        if channel.heed():
            self._drive_soon()
        if len(channel.requests):
            self._wake_in(channel.due_in)

    def _wake_in(self, seconds: float) -> None:
        """Have the timer come no later than this."""
        at = self.loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(at, self._tick)

    def _follow_lines(self) -> None:
        """Watch the descriptors of the lines there are now."""
        lines = self._channel.lines
        if len(lines) == len(self._read) and all(line in self._read for line in lines):
            return
        for line in [line for line in self._read if line not in lines]:
            for descriptor in self._read.pop(line):
                self.loop.remove_reader(descriptor)
        for line in lines:
            if line not in self._read:
                self._read[line] = line.descriptors
                messages, events = line.descriptors
                self.loop.add_reader(messages, self._receive if line is lines[0] else self._look)
                self.loop.add_reader(events, self._look)


class Pool:
    """Lends shares of one channel, which is made in the loop that first asks for one.

    Args:
        routes: of the connection.
        owner: the process that it belongs to.
    """

    def __init__(self, routes: Routes, owner: OwnProcess) -> None:
        self._routes: Final = routes
        self._owner: Final = owner
        self._driver: Driver | None = None
        self._lent: Final[set[Loan]] = set()
        self._waiting: Final[deque[asyncio.Future[bool]]] = deque()
        self._closed = False

    async def borrow(self, timeout: float) -> Loan:
        """Lend a share to the caller alone, until `give_back`.

        Raises ConnectionClosed, also in another event loop than that of the first call; Busy when so many tasks use the
        connection that none comes back within `timeout` seconds.
        """
        driver = self._open()
        end = time.monotonic() + timeout
        while len(self._lent) >= TASKS:
            if not await self._wait(end - time.monotonic()):
                raise Busy(f"{TASKS} tasks use this connection, which is the limit, for {timeout:g} s")
            driver = self._open()
        loan = Loan(Share(driver))
        self._lent.add(loan)
        return loan

    def give_back(self, loan: Loan) -> None:
        """Take a share back, and abandon what is under way of it."""
        loan.channel.abandon(loan.channel.requests)
        self._lent.discard(loan)
        self._wake_one()
        self._close_idle()

    async def close(self) -> None:
        """Lend no more, and close the channel once nobody uses it."""
        self._closed = True
        for waiter in self._waiting:
            _tell(waiter, is_free=True)
        self._close_idle()

    def _open(self) -> Driver:
        self._owner.check()
        if self._closed:
            raise ConnectionClosed("this connection was closed")
        if self._driver is None or self._driver.fault is not None:
            self._driver = Driver(Channel(self._routes))
        elif self._driver.loop is not asyncio.get_running_loop():
            raise ConnectionClosed(
                "this connection belongs to the event loop that first used it", {"advice": "open one in each loop"}
            )
        return self._driver

    async def _wait(self, seconds: float) -> bool:
        """Wait until a share came back, and tell whether one did."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, lambda: _tell(waiter, is_free=False))
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._wake_one()  # it may have been told already
            raise
        finally:
            timer.cancel()
            self._waiting.remove(waiter)

    def _wake_one(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                _tell(waiter, is_free=True)
                return

    def _close_idle(self) -> None:
        if self._closed and not self._lent and self._driver is not None and self._owner.is_here:
            driver, self._driver = self._driver, None
            driver.close()


def _tell(waiter: asyncio.Future[bool], *, is_free: bool) -> None:
    if not waiter.done():
        waiter.set_result(is_free)
