"""A balancer and its workers in virtual time: strangers and clients without a login ask as much as they can, and one
session signs, one signature after another."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from lnh_common.errors import Busy
from lnh_services.balancer.backends import Backend, Request
from lnh_services.balancer.budgets import Peer
from lnh_services.balancer.routing import Router

WORKERS = 2
SIGNATURE = 0.00015  # seconds of a worker
REFUSAL = 0.0003
LOGIN = 0.001
SECONDS = 3.0
FRAMES = [b"", b"", bytes(200)]


@dataclass
class World:
    """A router, its workers, and what is to happen."""

    seed: int
    now: float = 0.0
    latencies: list[float] = field(default_factory=list)
    answered: Counter[Peer] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.router = Router([Backend(f"worker-{number}") for number in range(WORKERS)])
        for number in range(WORKERS):
            self.router.up(0.0, number)
        self.free_at = [0.0] * WORKERS
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()
        self.costs: dict[bytes, float] = {}
        self.then: dict[bytes, Callable[[], None]] = {}

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), what))

    def ask(self, peer: Peer, account: bytes, operation: str, cost: float, then: Callable[[], None]) -> None:
        """One request; `then` happens when it is answered. Raises Busy."""
        request = self.router.admit(self.now, account, FRAMES, operation, self.now + 10, account, b"", peer)
        self.costs[request.tag], self.then[request.tag] = cost, then
        self._send(request)

    def _send(self, request: Request) -> None:
        if request.backend is not None:
            backend = request.backend
            self.free_at[backend] = max(self.free_at[backend], self.now) + self.costs[request.tag]
            self.at(self.free_at[backend], lambda: self._settle(backend, request))

    def _settle(self, backend: int, request: Request) -> None:
        if self.router.settle(self.now, backend, request.tag) is not None:
            self.answered[request.peer] += 1
            self.then[request.tag]()

    def flood(self, peer: Peer, account: bytes, operation: str, cost: float) -> None:
        """Ask without end: as many requests as are taken, and again a moment later."""
        with suppress(Busy):
            for _ in range(64):
                self.ask(peer, account, operation, cost, lambda: None)
        self.at(self.now + self.draw.uniform(0.0005, 0.002), lambda: self.flood(peer, account, operation, cost))

    def sign(self) -> None:
        """A session's signature, and the next after it."""
        began = self.now

        def done() -> None:
            self.latencies.append(self.now - began)
            self.at(self.now + self.draw.uniform(0.0001, 0.0005), self.sign)

        self.ask(Peer.SESSION, b"session", "key.sign", SIGNATURE, done)

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] < until:
            self.now, _, what = heapq.heappop(self.events)
            what()
            for request in self.router.due(self.now, lambda _: True):
                self._send(request)

    def p99(self) -> float:
        return sorted(self.latencies)[len(self.latencies) * 99 // 100]


def attacked(seed: int) -> World:
    world = World(seed)
    for number in range(8):
        world.flood(Peer.STRANGER, b"stranger %d" % number, "session.login", LOGIN)
        world.flood(Peer.CLIENT, b"client %d" % number, "key.sign", REFUSAL)
    return world


@pytest.mark.parametrize("seed", range(5))
def test_a_session_signs_nearly_as_quickly_while_all_others_ask_as_much_as_they_can(seed: int) -> None:
    alone, beside = World(seed), attacked(seed)
    for world in (alone, beside):
        world.sign()
        world.run(SECONDS)
    most_before_it = (4 * LOGIN + 8 * REFUSAL) / WORKERS + LOGIN  # all that others have at workers, badly shared out
    assert beside.p99() <= alone.p99() + most_before_it
    assert len(beside.latencies) > len(alone.latencies) / 3
    assert beside.answered[Peer.STRANGER] > 0
    assert beside.answered[Peer.CLIENT] > 0


@pytest.mark.parametrize("seed", range(5))
def test_a_client_that_comes_anew_has_its_turn_beside_a_flood(seed: int) -> None:
    world, took = attacked(seed), []
    world.run(1.0)
    began = world.now
    world.ask(Peer.CLIENT, b"new", "session.login", LOGIN, lambda: took.append(world.now - began))
    world.run(2.0)
    assert took
    assert took[0] < 0.1
