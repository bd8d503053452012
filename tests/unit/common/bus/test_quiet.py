"""Sockets behind one descriptor: what is ready is named, also when the news was taken in on the way."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest
import zmq

from lnh_common.bus.quiet import Quiet

Socket = zmq.Socket[bytes]


class Pairs:
    """Ends of connections: `near` ones are looked at through `quiet`, `far` ones speak."""

    def __init__(self, count: int) -> None:
        self.context: zmq.Context[Socket] = zmq.Context()
        self.quiet = Quiet()
        self.near: list[Socket] = []
        self.far: list[Socket] = []
        for number in range(count):
            for ends in (self.near, self.far):
                socket = self.context.socket(zmq.PAIR)
                socket.linger = 0
                ends.append(socket)
            self.near[-1].bind(f"inproc://{number}")
            self.far[-1].connect(f"inproc://{number}")
        self.quiet.add(*self.near)

    def is_told(self, seconds: float) -> bool:
        return bool(select.select([self.quiet.descriptor], [], [], seconds)[0])

    def settle(self) -> None:
        """Take in that the connections stand."""
        while self.is_told(0.05):
            assert self.quiet.ready() == set()

    def end(self) -> None:
        self.quiet.close()
        self.context.destroy(linger=0)


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    made = Pairs(3)
    made.settle()
    yield made
    made.end()


def test_whoever_has_something_to_say_is_named_until_it_is_read(pairs: Pairs) -> None:
    assert not pairs.is_told(0)
    pairs.far[1].send(b"one")
    pairs.far[1].send(b"two")
    assert pairs.is_told(5)
    assert pairs.quiet.ready() == {pairs.near[1]}
    assert pairs.near[1].recv() == b"one"
    assert pairs.quiet.ready() == {pairs.near[1]}
    assert pairs.near[1].recv() == b"two"
    assert pairs.quiet.ready() == set()
    pairs.far[2].send(b"three")
    assert pairs.is_told(5)
    assert pairs.quiet.ready() == {pairs.near[2]}


def test_what_a_use_of_the_socket_took_in_is_named_all_the_same(pairs: Pairs) -> None:
    pairs.far[0].send(b"word")
    assert pairs.is_told(5)
    pairs.near[0].send(b"another")  # takes in, on the way, that there is something to be read
    pairs.near[0].getsockopt(zmq.EVENTS)
    assert not pairs.is_told(0)
    assert pairs.quiet.ready() == {pairs.near[0]}


def test_one_that_is_removed_is_looked_at_no_more(pairs: Pairs) -> None:
    pairs.quiet.remove(pairs.near[0])
    pairs.far[0].send(b"word")
    assert pairs.near[0].poll(5000)
    assert not pairs.is_told(0)
    assert pairs.quiet.ready() == set()
