"""A CURVE server that strangers and members ask: strangers use up their own part, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import zmq

from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.bus.client import Client
from lnh_common.bus.gate import Gate
from lnh_common.bus.server import Call, Server
from lnh_common.messages import membership
from lnh_common.messages.base import Empty
from lnh_common.wire import codec, frames
from waits import until

Scenario = Callable[["Place"], Awaitable[None]]


class Place:
    """A server, one member that it knows, and strangers."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.outside: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.gate = Gate(context=self.context)
        self.keys, self.member = curve.KeyPair.generate(), curve.KeyPair.generate()
        self.server = Server(
            "tcp://127.0.0.1:*", name="test", keys=self.keys, in_flight=64, context=self.context,
            knows=lambda key: key == self.member.raw_public,
        )  # fmt: skip
        self.served = 0
        self.waits = asyncio.Event()
        self.waits.set()
        self.server.serve(membership.PEER_HEALTH, self._health)
        self.server.start()
        self.client = Client(self.server.address, server_key=self.keys.public, keys=self.member, context=self.outside)

    async def _health(self, call: Call, _: Empty) -> membership.Health:
        self.served += 1
        await self.waits.wait()
        return membership.Health(
            cluster=b"", member=b"m" * 16, product="", state="", primary=b"", epoch=0, index=0, listed=(),
            diverged=False,
        )  # fmt: skip

    def stranger(self) -> zmq.Socket[bytes]:
        made = self.outside.socket(zmq.DEALER)
        made.linger = 0
        made.sndhwm = 0
        curve.connect(made, self.keys.public, curve.KeyPair.generate())
        made.connect(self.server.address)
        return made

    async def ask(self) -> None:
        await self.client.ask(membership.PEER_HEALTH, Empty(), timeout=20)

    async def close(self) -> None:
        await self.client.close()
        await self.server.close(0)
        self.gate.close()
        self.outside.destroy(0)
        self.context.term()


def play(scenario: Scenario) -> None:
    async def run() -> None:
        place = Place()
        try:
            await asyncio.wait_for(scenario(place), 60)
        finally:
            await place.close()

    asyncio.run(run())


def question() -> list[bytes]:
    return [frames.request(membership.PEER_HEALTH.name, 1, 60_000).pack(), b"", codec.encode(Empty())]


def test_strangers_that_wait_have_half_of_the_places_and_a_member_gets_in() -> None:
    async def scenario(place: Place) -> None:
        await place.ask()
        place.waits.clear()
        strangers = [place.stranger() for _ in range(4)]
        for stranger in strangers:
            for _ in range(40):
                stranger.send_multipart(question())
        await until(lambda: place.served == 33, "33 that are served")
        asked = asyncio.create_task(place.ask())
        await until(lambda: place.served == 34, "the member")
        place.waits.set()
        await asked
        assert place.server.dropped["over its budget"] > 0

    play(scenario)


def test_strangers_are_answered_so_often_a_second_and_no_more() -> None:
    async def scenario(place: Place) -> None:
        stranger, loop = place.stranger(), asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(2000):
            stranger.send_multipart(question())
        await until(lambda: place.served + place.server.dropped["over its budget"] == 2000, "the fate of 2000 requests")
        assert place.served <= limits.STRANGERS_AT_SERVICES * (1 + loop.time() - begun) + 1
        await place.ask()

    play(scenario)


def test_handshakes_that_fail_by_the_thousand_are_read_and_nobody_else_notices() -> None:
    async def scenario(place: Place) -> None:
        port = int(place.server.address.rpartition(":")[2])
        for number in range(2500):
            socket.create_connection(("127.0.0.1", port)).close()
            if number % 100 == 0:
                await place.ask()
        await until(lambda: place.server.dropped["handshake"] >= 2500, "2500 refused handshakes")
        await place.ask()

    play(scenario)


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_message_of_too_many_frames_costs_its_sender_the_connection(size: int) -> None:
    async def scenario(place: Place) -> None:
        stranger = place.stranger()
        watched = stranger.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        stranger.send_multipart([zmq.Frame(bytes(size))] * (limits.FRAMES_TAKEN + 1), copy=False)
        await until(lambda: bool(watched.poll(0)), "the end of the connection")
        await place.ask()
        watched.close(0)

    play(scenario)
