"""Balancers of several members in virtual time: real `Router`s, workers that queue, links that delay; one seed, one run.

`python -m simulation.balancing` (from tests/, or with it on the path) prints the table of docs/performance.md: what a client
waits, under the product's choice beside round robin and least connections. All three see the same members, pings, and
retries; they differ in the choice alone.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from lnh_common.errors import Busy
from lnh_services.balancer.backends import Backend, Request
from lnh_services.balancer.peers import GONE_AFTER, PING_EVERY
from lnh_services.balancer.routing import Router

TICK: Final = 0.05
OWN_HOP: Final = 0.0001  # seconds between a balancer and a worker
DEADLINE: Final = 10.0


class RoundRobin(Router):
    """Takes up backends in turn, each as often as it has workers; own and far ones alike."""

    def __init__(self, backends: list[Backend]) -> None:
        super().__init__(backends)
        self._turn = itertools.count()

    def choose(self, now: float, request: Request) -> int | None:
        chosen = candidates(self, stays=request.stays)
        turns = [number for number, backend in chosen for _ in range(backend.weight)]
        return turns[next(self._turn) % len(turns)] if turns else None


class LeastConnections(Router):
    """Takes the backend with the fewest requests for its workers; an own one if it is as good."""

    def choose(self, now: float, request: Request) -> int | None:
        chosen = candidates(self, stays=request.stays)
        return min(chosen, key=lambda each: len(each[1].outstanding) / each[1].weight)[0] if chosen else None


def candidates(router: Router, *, stays: bool) -> list[tuple[int, Backend]]:
    """Backends that can be sent to, of the lowest tier that has one."""
    found = [
        (number, backend)
        for number, backend in enumerate(router.backends)
        if backend.up and backend.open and (not backend.far or (router.forwards and not stays))
    ]
    lowest = min((backend.tier for _, backend in found), default=0)
    return [(number, backend) for number, backend in found if backend.tier == lowest]


POLICIES: Final[dict[str, Callable[[list[Backend]], Router]]] = {
    "expected time": Router,
    "least connections": LeastConnections,
    "round robin": RoundRobin,
}


@dataclass(frozen=True)
class Spec:
    """One member.

    Args:
        service: mean seconds of a small request at one worker; drawn exponentially, and never less than half of it.
        rate: requests a second of its own clients.
        link: seconds to it, one way.
        stops: intervals in which all its processes stand still.
        near: it is in the group of the first.
    """

    workers: int = 2
    service: float = 0.005
    rate: float = 0.0
    link: float = 0.0003
    stops: tuple[tuple[float, float], ...] = ()
    near: bool = True


@dataclass(frozen=True)
class Scenario:
    name: str
    members: tuple[Spec, ...]
    seconds: float = 12.0


@dataclass
class Outcome:
    """What clients saw: seconds of each answered request, sorted; and who worked how much."""

    latencies: list[float]
    errors: int
    moved: int
    forwarded: list[int]  # by entry member
    served: list[int]  # by member, of all

    def quantile(self, share: float) -> float:
        return self.latencies[min(int(len(self.latencies) * share), len(self.latencies) - 1)]


@dataclass
class Worker:
    queue: list[tuple[bytes, float]] = field(default_factory=list)  # tags and what they take
    busy: bool = False


class Member:
    """One member of a running scenario."""

    def __init__(self, world: World, number: int, spec: Spec, make: Callable[[list[Backend]], Router]) -> None:
        self.world = world
        self.number = number
        self.spec = spec
        self.router = make([Backend(f"worker-{n}") for n in range(spec.workers)])
        self.workers = [Worker() for _ in range(spec.workers)]
        self.far: dict[int, int] = {}  # backend, by member
        self.pinged: dict[int, list[float]] = {}
        self.served = 0

    def begin(self) -> None:
        for number in range(len(self.workers)):
            self.router.up(0.0, number)
        for other in self.world.members:
            if other is not self:
                tier = 0 if other.spec.near == self.spec.near else 1
                self.far[other.number] = self.router.add(Backend(str(other.number), tier, far=True))
                self.pinged[other.number] = []
        self.router.set_forwards(0.0, forwards=True)

    def is_stopped(self, now: float) -> float:
        """When it goes on; 0 while it runs."""
        return next((end for begin, end in self.spec.stops if begin <= now < end), 0.0)

    def send(self, now: float, requests: list[Request]) -> None:
        for request in requests:
            if request.backend is None:
                continue
            if request.backend < len(self.workers):
                self.world.at(now + OWN_HOP, self, self.enqueue, request.backend, request.tag)
            else:
                other = self.other(request.backend)
                delay = self.spec.link + other.spec.link
                self.world.at(now + delay, other, other.take, self, request.tag)

    def other(self, backend: int) -> Member:
        return self.world.members[next(number for number, at in self.far.items() if at == backend)]

    # What happens here

    def arrive(self, now: float) -> None:
        try:
            self.send(now, [self.router.admit(now, b"client", [b"", b"", b""], "key.sign", now + DEADLINE)])
        except Busy:
            self.world.errors += 1

    def take(self, now: float, asker: Member, tag: bytes) -> None:
        account = b"%d" % asker.number
        try:
            request = self.router.admit(
                now, account, [b"", b"", b""], "key.sign", now + DEADLINE, account, tag, foreign=True
            )
        except Busy:
            self.world.at(now + self.spec.link + asker.spec.link, asker, asker.declined, self, tag)
        else:
            self.send(now, [request])

    def declined(self, now: float, by: Member, tag: bytes) -> None:
        request = self.router.rejected(now, self.far[by.number], tag)
        if request is not None:
            self.send(now, [request])

    def enqueue(self, now: float, number: int, tag: bytes) -> None:
        worker = self.workers[number]
        takes = self.world.draw.expovariate(1 / (0.5 * self.spec.service)) + 0.5 * self.spec.service
        worker.queue.append((tag, takes))
        if not worker.busy:
            self.begin_next(now, number)

    def begin_next(self, now: float, number: int) -> None:
        worker = self.workers[number]
        worker.busy = bool(worker.queue)
        if worker.queue:
            tag, takes = worker.queue.pop(0)
            self.world.at(now + takes, self, self.done, number, tag)

    def done(self, now: float, number: int, tag: bytes) -> None:
        self.served += 1
        request = self.router.settle(now, number, tag)
        self.begin_next(now, number)
        if request is None:
            return
        if request.foreign:
            asker = self.world.members[int(request.client)]
            self.world.at(now + self.spec.link + asker.spec.link, asker, asker.answered, self, request.client_tag)
        else:
            self.world.answered(now, request)

    def answered(self, now: float, by: Member, tag: bytes) -> None:
        request = self.router.settle(now, self.far[by.number], tag)
        if request is not None:
            self.world.answered(now, request)

    # What time brings

    def tick(self, now: float) -> None:
        self.world.errors += len(self.router.expire(now))
        self.world.at(now + TICK, self, self.tick)

    def ping(self, now: float) -> None:
        for number, backend in self.far.items():
            other = self.world.members[number]
            if self.pinged[number] and now - self.pinged[number][0] > GONE_AFTER and self.router.backends[backend].up:
                self.send(now, self.router.down(now, backend))
            self.pinged[number].append(now)
            self.world.at(now + self.spec.link + other.spec.link, other, other.pong, self, now)
        self.world.at(now + PING_EVERY, self, self.ping)

    def pong(self, now: float, asker: Member, asked: float) -> None:
        self.world.at(now + self.spec.link + asker.spec.link, asker, asker.heard, self, asked)

    def heard(self, now: float, by: Member, asked: float) -> None:
        backend = self.far[by.number]
        self.pinged[by.number] = [sent for sent in self.pinged[by.number] if sent > asked]
        self.send(now, self.router.up(now, backend))
        self.send(now, self.router.report(now, backend, takes=True, round_trip=now - asked, weight=by.spec.workers))


class World:
    """Runs one scenario under one policy."""

    def __init__(self, scenario: Scenario, make: Callable[[list[Backend]], Router], seed: int) -> None:
        self.draw = random.Random(seed)
        self.errors = 0
        self.latencies: list[float] = []
        self._events: list[tuple[float, int, Member, Callable[..., None], tuple[object, ...]]] = []
        self._order = itertools.count()
        self._end = scenario.seconds
        self.members: list[Member] = []
        self.members += [Member(self, number, spec, make) for number, spec in enumerate(scenario.members)]
        for member in self.members:
            member.begin()
            self.at(0.0, member, member.ping)
            self.at(0.0, member, member.tick)
            now = 0.5
            while member.spec.rate and (now := now + self.draw.expovariate(member.spec.rate)) < self._end:
                self.at(now, member, member.arrive)

    def at(self, when: float, member: Member, act: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._events, (when, next(self._order), member, act, arguments))

    def answered(self, now: float, request: Request) -> None:
        self.latencies.append(now - request.begun)

    def run(self) -> Outcome:
        while self._events and self._events[0][0] < self._end + DEADLINE + 1:
            now, _, member, act, arguments = heapq.heappop(self._events)
            until = member.is_stopped(now)
            if until:
                self.at(until, member, act, *arguments)
            else:
                act(now, *arguments)
        assert all(member.router.requests == 0 for member in self.members), (
            "a request was neither answered nor given up"
        )
        return Outcome(
            sorted(self.latencies),
            self.errors,
            sum(member.router.retried for member in self.members),
            [member.router.forwarded for member in self.members],
            [member.served for member in self.members],
        )


def run(scenario: Scenario, policy: str, seed: int = 1) -> Outcome:
    return World(scenario, POLICIES[policy], seed).run()


def _stops(first: float, every: float, lasts: float, until: float) -> tuple[tuple[float, float], ...]:
    moments = itertools.takewhile(lambda begin: begin < until, itertools.count(first, every))
    return tuple((begin, begin + lasts) for begin in moments)


QUICK: Final = Spec()
EQUAL: Final = Scenario("equal members", (replace(QUICK, rate=800), QUICK, QUICK))
SLOW: Final = Scenario("one ten times slower", (replace(QUICK, rate=550), QUICK, replace(QUICK, service=0.05)))
FLAPPING: Final = Scenario(
    "one that stops 1 s in every 3", (replace(QUICK, rate=550), QUICK, replace(QUICK, stops=_stops(1.0, 3.0, 1.0, 12)))
)
UNEQUAL: Final = Scenario(
    "1, 2 and 4 workers, the last half as quick",
    (replace(QUICK, workers=1, rate=700), QUICK, replace(QUICK, workers=4, service=0.01)),
)
DISTANT: Final = Scenario("one 20 ms away", (replace(QUICK, rate=600), QUICK, replace(QUICK, link=0.02)))
ALL_BUSY: Final = Scenario("each with clients of its own", (replace(QUICK, rate=300),) * 3)
SCENARIOS: Final = (EQUAL, SLOW, FLAPPING, UNEQUAL, DISTANT, ALL_BUSY)


def table(scenarios: Iterable[Scenario] = SCENARIOS) -> list[str]:
    """The lines of a table: for each scenario and policy, what a client waits in milliseconds."""
    lines = [
        "| members | choice | p50 | p99 | p99.9 | refused | forwarded | tried again |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for scenario in scenarios:
        for policy in POLICIES:
            outcome = run(scenario, policy)
            waits = " | ".join(f"{1000 * outcome.quantile(share):.0f}" for share in (0.5, 0.99, 0.999))
            share = 100 * sum(outcome.forwarded) / len(outcome.latencies)
            lines.append(
                f"| {scenario.name} | {policy} | {waits} | {outcome.errors} | {share:.0f} % | {outcome.moved} |"
            )
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
