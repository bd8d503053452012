"""Whole messages sent and received as pyzmq does, whatever they have in them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from lnh_common.bus import quick

Socket = zmq.Socket[bytes]


class Pair:
    def __init__(self) -> None:
        self.context: zmq.Context[Socket] = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.router_mandatory = True
        self.dealer = self.context.socket(zmq.DEALER)
        self.router.bind("inproc://quick")
        self.dealer.connect("inproc://quick")
        self.dealer.send(b"")
        self.identity, _ = self.router.recv_multipart()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    one = Pair()
    yield one
    one.context.destroy(0)


@given(frames=st.lists(st.binary(max_size=300), min_size=1, max_size=6))
def test_a_message_is_the_same_on_the_other_side_in_both_ways_of_sending(pair: Pair, frames: list[bytes]) -> None:
    quick.send(pair.dealer, frames)
    assert quick.is_ready(pair.router)
    assert pair.router.recv_multipart() == [pair.identity, *frames]
    quick.send(pair.router, [pair.identity, *frames])
    pair.dealer.send_multipart(frames)
    assert quick.receive(pair.dealer) == frames
    assert quick.receive(pair.router) == [pair.identity, *frames]
    assert not quick.is_ready(pair.dealer)
    assert not quick.is_ready(pair.router)


def test_a_large_message_too(pair: Pair) -> None:
    frames = [b"a", bytes(1 << 20), b""]
    quick.send(pair.dealer, frames)
    assert quick.receive(pair.router) == [pair.identity, *frames]


def test_nothing_to_be_received_nobody_there_and_no_room_are_errors_at_once(pair: Pair) -> None:
    with pytest.raises(zmq.Again):
        quick.receive(pair.dealer)
    with pytest.raises(zmq.ZMQError) as gone:
        quick.send(pair.router, [b"nobody", b"x"])
    assert gone.value.errno == zmq.EHOSTUNREACH
    full = pair.context.socket(zmq.DEALER)
    with pytest.raises(zmq.Again):
        quick.send(full, [b"x"])
    full.close(0)


def test_a_receive_waits_as_long_as_its_socket_does(pair: Pair) -> None:
    pair.dealer.rcvtimeo = 1
    with pytest.raises(zmq.Again):
        quick.receive(pair.dealer, 0)
    pair.dealer.rcvtimeo = -1
