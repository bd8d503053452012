"""Which place does a request's work: pure, no sockets and no clock.

A *place* is where requests can be sent: now each hsm worker of this member, in `tier` 0; the other members of an
affinity group, and then everybody else, are places of the same kind. Among the places of the lowest tier that has
one up, the one with the least outstanding work for its weight is taken; work is counted in units of a small request,
so that a key pair being generated weighs more than a signature. A place that has work and has been silent for a while
is passed over while another will do.

The life of a request, and the rule that keeps every one accounted for:

    admit -> (waiting) -> outstanding at a place -> settle     its answer goes to the client
               ^    |            |
               |    '- expire    '- expire                     the client gets an error
               '---- down -------'                             the place died: to another place, or waiting again

A request is in exactly one of those (or given up, until the next `expire`) until it is settled or expired, and is
counted against its client and the totals for exactly that long. Sending the same bytes again is safe for every
operation: writes are told apart where they are applied. A second answer for a tag finds no request and is dropped.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from typing import Final

from lnh_common import limits
from lnh_common.errors import Busy, DeadlineExceeded, LnhError, Unreachable
from lnh_common.messages import objects, session

Frames = list[bytes]
Tag = bytes

_TAG: Final = struct.Struct(">Q")

SILENT_AFTER: Final = 0.25  # seconds without any answer from a place that has work
PATIENCE: Final = 2.0  # seconds a request waits for a place to come up before its client is told
MOVES: Final = 2  # places that may die under a request before it is given up: it may be what kills them
LATENCIES: Final = 4096  # newest answers that percentiles are taken of

# Work of an operation, in units of a small one.
WORK: Final[dict[str, int]] = {
    objects.GENERATE_PAIR.name: 64,
    objects.GENERATE.name: 4,
    objects.SIGN_MANY.name: 32,
    session.LOGIN.name: 4,
    session.REGISTER.name: 4,
    session.CHANGE_PASSWORD.name: 4,
}


@dataclass(frozen=True)
class Bounds:
    """How much is taken on at once; what is beyond is refused as Busy."""

    requests: int = limits.REQUESTS_IN_FLIGHT
    requests_per_client: int = limits.REQUESTS_PER_CLIENT
    bytes: int = limits.BYTES_IN_FLIGHT


class Request:
    """One request while the balancer is answerable for it.

    `client` is where its answer goes, `client_tag` the client's own name of it if it came in a bundle, and `account`
    whose bound it counts against; `place` is None while it waits for one.
    """

    __slots__ = (
        "account",
        "begun",
        "client",
        "client_tag",
        "deadline",
        "frames",
        "moves",
        "patience",
        "place",
        "size",
        "tag",
        "work",
    )

    def __init__(
        self,
        tag: Tag,
        client: bytes,
        account: bytes,
        frames: Frames,
        size: int,
        work: int,
        begun: float,
        deadline: float,
        client_tag: bytes,
    ) -> None:
        self.tag = tag
        self.client = client
        self.client_tag = client_tag
        self.account = account
        self.frames = frames
        self.size = size
        self.work = work
        self.begun = begun
        self.deadline = deadline
        self.patience = begun + PATIENCE
        self.moves = 0
        self.place: int | None = None


class Place:
    """Somewhere work is done.

    Args:
        name: for status.
        tier: lower ones are used while any of them is up.
        weight: how many workers stand behind it.
    """

    __slots__ = ("heard", "name", "outstanding", "tier", "up", "weight", "work")

    def __init__(self, name: str, tier: int = 0, weight: int = 1) -> None:
        self.name = name
        self.tier = tier
        self.weight = weight
        self.up = False
        self.work = 0
        self.heard = 0.0  # when it last answered, or last went from idle to having work
        self.outstanding: dict[Tag, Request] = {}

    def is_silent(self, now: float) -> bool:
        """Whether it has work and has answered nothing for a while."""
        return self.work > 0 and now - self.heard > SILENT_AFTER


class Router:
    """The balancer's accounts. Times are seconds of one monotonic clock."""

    def __init__(self, places: list[Place], bounds: Bounds | None = None) -> None:
        self.places: Final = places
        self.bounds: Final = bounds or Bounds()
        self.waiting: deque[Request] = deque()
        self.clients: dict[bytes, int] = {}  # requests of each connection that has any
        self.requests = 0
        self.bytes = 0
        self.settled = 0
        self.refused = 0
        self.retried = 0
        self.expired = 0
        self.latencies: deque[float] = deque(maxlen=LATENCIES)
        self._given_up: list[tuple[Request, LnhError]] = []  # until the next `expire`
        self._last_tag = 0

    def admit(
        self,
        now: float,
        client: bytes,
        frames: Frames,
        operation: str,
        deadline: float,
        account: bytes | None = None,
        client_tag: bytes = b"",
    ) -> Request:
        """Take a request on and choose its place; with all places down it waits (`place` is None).

        Raises Busy, naming the limit, and takes nothing on.
        """
        if account is None:
            account = client
        size = len(frames[1]) + len(frames[2])
        bounds = self.bounds
        if (
            self.requests >= bounds.requests
            or self.clients.get(account, 0) >= bounds.requests_per_client
            or self.bytes + size > bounds.bytes
        ):
            self.refused += 1
            raise self._busy(account)
        self._last_tag += 1
        request = Request(
            _TAG.pack(self._last_tag), client, account, frames, size, WORK.get(operation, 1), now, deadline, client_tag
        )
        self.requests += 1
        self.bytes += size
        self.clients[account] = self.clients.get(account, 0) + 1
        self._assign(now, request)
        return request

    def settle(self, now: float, place: int, tag: Tag) -> Request | None:
        """An answer came from a place; None when nobody waits for it any more."""
        at = self.places[place]
        at.heard = now
        request = at.outstanding.pop(tag, None)
        if request is None:
            return None
        at.work -= request.work
        self._forget(request)
        self.settled += 1
        self.latencies.append(now - request.begun)
        return request

    def up(self, now: float, place: int) -> list[Request]:
        """A place can be sent to; answers the requests to send now (each names its place)."""
        self.places[place].up = True
        self.places[place].heard = now
        waiting, self.waiting = self.waiting, deque()
        for request in waiting:
            self._assign(now, request)
        return [request for request in waiting if request.place is not None]

    def down(self, now: float, place: int) -> list[Request]:
        """A place is gone, and what it had not answered with it; answers the requests to send elsewhere now."""
        at = self.places[place]
        at.up = False
        orphans = list(at.outstanding.values())
        at.outstanding.clear()
        at.work = 0
        for request in orphans:
            request.place = None
            request.moves += 1
            if request.moves > MOVES:
                self._given_up.append(
                    (request, Unreachable(f"{request.moves} workers died while they had this request"))
                )
                continue
            request.patience = now + PATIENCE
            self._assign(now, request)
            self.retried += 1
        return [request for request in orphans if request.place is not None]

    def expire(self, now: float) -> list[tuple[Request, LnhError]]:
        """Give up what has waited too long; answers each with the error its client gets."""
        given_up, self._given_up = self._given_up, []
        for at in self.places:
            for tag in [tag for tag, request in at.outstanding.items() if request.deadline <= now]:
                request = at.outstanding.pop(tag)
                at.work -= request.work
                given_up.append((request, DeadlineExceeded("no worker answered before the deadline")))
        if self.waiting:
            still: deque[Request] = deque()
            for request in self.waiting:
                if request.deadline <= now:
                    given_up.append((request, DeadlineExceeded("no worker was free before the deadline")))
                elif request.patience <= now:
                    given_up.append((request, Unreachable("no worker of this member is running")))
                else:
                    still.append(request)
            self.waiting = still
        for request, _ in given_up:
            self._forget(request)
        self.expired += len(given_up)
        return given_up

    def choose(self, now: float) -> int | None:
        """The place for the next request, or None when all are down."""
        best = None
        best_rank = (0, False, 0.0)
        for number, at in enumerate(self.places):
            if at.up:
                rank = (at.tier, at.is_silent(now), at.work / at.weight)
                if best is None or rank < best_rank:
                    best, best_rank = number, rank
        return best

    def _assign(self, now: float, request: Request) -> None:
        chosen = self.choose(now)
        request.place = chosen
        if chosen is None:
            self.waiting.append(request)
            return
        at = self.places[chosen]
        if not at.work:
            at.heard = now
        at.work += request.work
        at.outstanding[request.tag] = request

    def _forget(self, request: Request) -> None:
        self.requests -= 1
        self.bytes -= request.size
        left = self.clients[request.account] - 1
        if left:
            self.clients[request.account] = left
        else:
            del self.clients[request.account]

    def _busy(self, account: bytes) -> Busy:
        bounds = self.bounds
        if self.requests >= bounds.requests:
            return Busy(f"{bounds.requests} requests are in flight in this member, which is the limit")
        if self.clients.get(account, 0) >= bounds.requests_per_client:
            return Busy(f"{bounds.requests_per_client} requests are in flight on this connection, which is the limit")
        return Busy(f"{bounds.bytes} bytes of requests are in flight in this member, which is the limit")
