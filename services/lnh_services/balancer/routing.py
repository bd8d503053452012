"""Chooses the backend that does a request's work: pure, no sockets and no clock.

A *backend* is where requests can be sent: each hsm worker of this member (*own*), and each other member (*far*), which
places requests at its own workers and nowhere else. A backend has a `tier`: 0 for own workers and the members of the
same affinity group, 1 for everybody else; a tier is used only while nobody of a lower one is up.

Work is counted in units of a small request. The time of a request at a backend is expected from the work that this
member has outstanding there and from the measured time of a unit, with whatever else the backend had to do then:

    expected = round trip + (outstanding + its own work) * unit / workers

Among own workers the one with the least outstanding is taken. Only if that one is expected to take longer than
`FORWARD_ABOVE` (an idle one never is) are the far backends looked at, and one of them is taken if it is expected to be
clearly `QUICKER`. A hop costs both balancers some 0.3 ms of processor time, and another worker begins with cold caches;
so a request that takes a worker little time itself (`WORTH_A_HOP`) is kept until the wait is long. A key pair that does
is always kept: it waits for the primary's disk, from wherever it is asked. So members with as much to do do not send
each other work, and a slow one gets less. Not nothing: what was measured long ago counts for little, so everybody is
tried again. A far backend that comes up gets a few requests at a time, and one more for each answer: one that flaps, or
is about to hang, has little to lose.

A member that is read-only serves alone: `forwards` is False, and only own workers are chosen.

The life of a request, and the rule that keeps every one accounted for:

    admit -> (waiting) -> outstanding at a backend -> settle     its answer goes to its client
               ^    |            |
               |    '- expire    '- expire                     its client gets an error
               '- down, rejected -'                            the backend died, or did nothing: to another, or waiting

A request is in exactly one of those (or given up, until the next `expire`) until it is settled or expired, and is
counted against its client, its class of peers and the totals for exactly that long. A request of a class that has turns
(`budgets.py`) waits its turn first; `due` names it then. Sending the same bytes again is safe for every operation:
writes are told apart where they are applied. A second answer for a tag finds no request and is dropped. A request of
another member (`foreign`) stays here, and does not wait: without a worker it is given up at once.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lnh_common import limits
from lnh_common.errors import Busy, DeadlineExceeded, LnhError, Unreachable
from lnh_common.messages.base import OPERATIONS, Effect
from lnh_common.wire.bundles import FORWARDED
from lnh_services.balancer.backends import MEASURED, PAIR, PATIENCE, UNIT, WORK, Backend, Frames, Request, Tag, lost_at
from lnh_services.balancer.budgets import BUDGETS, Peer, Share
from lnh_services.balancer.operations import STICKS
from lnh_services.balancer.unserved import NO_WORKER

_TAG: Final = struct.Struct(">Q")

COME_AGAIN: Final = 1  # seconds, said with Busy: a client that waits for a turn had better not ask at once
MOVES: Final = 2  # backends that may die under a request before it is given up: it may be what kills them
LATENCIES: Final = 4096  # newest answers that percentiles are taken of

WORTH_A_HOP: Final = 0.003  # seconds of a worker from which on a request is large beside what a hop costs
FORWARD_ABOVE: Final = 0.002  # seconds that an own worker is expected to take; below, such a one is not forwarded, ...
FORWARD_SMALL_ABOVE: Final = 0.016  # ... and below this, no smaller one
QUICKER: Final = 0.8  # of what an own worker is expected to take; a far backend that takes longer is not worth a hop
WINDOW: Final = 16  # requests for each worker that a far backend gets at first: what one bundle holds


@dataclass(frozen=True)
class Bounds:
    """The bounds of what is taken on at once; a request beyond them is refused as Busy."""

    requests: int = limits.REQUESTS_IN_FLIGHT
    requests_per_client: int = limits.REQUESTS_PER_CLIENT
    bytes: int = limits.BYTES_IN_FLIGHT


class Router:
    """Keeps account of the balancer's requests and backends. Times are seconds of one monotonic clock.

    Args:
        backends: own workers, which stay; others come and go (`add`, `remove`).

    Attributes:
        forwards: whether this member may have work done elsewhere; False until it is told so.
        no_worker: the reason why no own backend is up, for errors of requests that waited in vain.
    """

    def __init__(self, backends: list[Backend], bounds: Bounds | None = None) -> None:
        self.backends: Final[list[Backend]] = []
        self.bounds: Final = bounds or Bounds()
        self.waiting: deque[Request] = deque()
        self.clients: dict[bytes, int] = {}  # requests of each connection that has any
        self.forwards = False
        self.no_worker = NO_WORKER
        self.requests = 0
        self.bytes = 0
        self.settled = 0
        self.refused = 0
        self.retried = 0
        self.expired = 0
        self.forwarded = 0  # requests sent to other members
        self.taken = 0  # ... and taken on from them
        self.latencies: deque[float] = deque(maxlen=LATENCIES)
        self._own: Final[list[tuple[int, Backend]]] = []
        self._far: dict[int, Backend] = {}
        self._given_up: list[tuple[Request, LnhError]] = []  # until the next `expire`
        self.shares: Final[dict[Peer, Share[Request]]] = {peer: Share(budget) for peer, budget in BUDGETS.items()}
        self._turns: Final = [share for share in self.shares.values() if share.has_turns]
        self._last_tag = 0
        for backend in backends:
            self.add(backend)

    # --- backends

    def add(self, backend: Backend) -> int:
        """Add a backend, which is down, and return its number."""
        if not backend.far:
            assert not self._far, "own backends come first, and stay"
            self.backends.append(backend)
            self._own.append((len(self.backends) - 1, backend))
            return len(self.backends) - 1
        free = (number for number in range(len(self._own), len(self.backends)) if number not in self._far)
        number = next(free, len(self.backends))
        self.backends[number : number + 1] = [backend]
        self._far[number] = backend
        return number

    def remove(self, now: float, number: int) -> list[Request]:
        """Remove a far backend; returns the requests to send elsewhere, as `down` does."""
        moved = self.down(now, number)
        del self._far[number]
        return moved

    def known(self) -> list[Backend]:
        """Return the backends there are."""
        return [*(backend for _, backend in self._own), *(self._far[number] for number in sorted(self._far))]

    def own_up(self) -> int:
        """Count the own backends that are up."""
        return sum(backend.up for _, backend in self._own)

    def up(self, now: float, backend: int) -> list[Request]:
        """Note that a backend can be sent to; returns the requests to send now (each names its backend)."""
        at = self.backends[backend]
        at.up = True
        at.heard = now
        return self._assign_waiting(now) if at.open else []

    def report(self, now: float, backend: int, *, takes: bool, round_trip: float, weight: int = 1) -> list[Request]:
        """Take in how a far backend says it stands; returns the requests to send now.

        Args:
            takes: whether it takes work at all.
            round_trip: seconds there and back.
            weight: its workers.
        """
        at = self.backends[backend]
        at.round_trip, at.weight = round_trip, max(weight, 1)
        if takes and not at.open:
            at.window = WINDOW * at.weight
        opened = takes and at.up and not at.open
        at.open = takes
        return self._assign_waiting(now) if opened else []

    def down(self, now: float, backend: int) -> list[Request]:
        """Note that a backend is gone, with all it had not answered; returns the requests to send elsewhere now.

        A write that it had may have been done. Its client is told to ask again, and knows then that a member which says
        that it is read-only does not say "not done"; sent elsewhere from here, it would not know of the first try.
        """
        at = self.backends[backend]
        at.up = False
        at.open = not at.far
        orphans = list(at.outstanding.values())
        at.outstanding.clear()
        at.work = 0
        for request in orphans:
            if request.writes:
                self._leave_open(request, "who had this request is gone")
            else:
                self._move(now, request, "workers died while they had this request")
        return [request for request in orphans if request.backend is not None]

    def set_forwards(self, now: float, *, forwards: bool) -> list[Request]:
        """Set whether work may be done elsewhere; returns the requests to send now."""
        begins = forwards and not self.forwards
        self.forwards = forwards
        return self._assign_waiting(now) if begins else []

    # --- requests

    def admit(
        self,
        now: float,
        client: bytes,
        frames: Frames,
        operation: str,
        deadline: float,
        account: bytes | None = None,
        client_tag: bytes = b"",
        peer: Peer = Peer.SESSION,
        *,
        stays: bool = False,
        foreign: bool = False,
    ) -> Request:
        """Take a request on and choose its backend; with all down, or until its turn, it waits (`backend` is None).

        Raises Busy, naming the limit, and takes nothing on; Unreachable for a request of another member without a
        worker.
        """
        if account is None:
            account = client
        size = len(frames[1]) + len(frames[2])
        if foreign:
            peer = Peer.MEMBER
        bounds = self.bounds
        share = self.shares[peer]
        if (
            self.requests >= bounds.requests
            or self.clients.get(account, 0) >= bounds.requests_per_client
            or self.bytes + size > bounds.bytes
        ):
            self.refused += 1
            raise self._busy(account)
        if refusal := share.refusal(account, size):
            self.refused += 1
            raise Busy(refusal, {"seconds": COME_AGAIN})
        if foreign:
            if not self.own_up():
                self.refused += 1
                raise Unreachable(NO_WORKER)
            self.taken += 1
            stays = True
        self._last_tag += 1
        tag = _TAG.pack(self._last_tag | FORWARDED if foreign else self._last_tag)
        work = WORK.get(operation, 1)
        known = OPERATIONS.get(operation)
        writes = known is None or known.effect is Effect.WRITE
        request = Request(
            tag,
            client,
            account,
            frames,
            size,
            work,
            now,
            deadline,
            client_tag,
            peer,
            stays=stays,
            foreign=foreign,
            writes=writes,
            sticks=operation in STICKS,
        )
        self.requests += 1
        self.bytes += size
        self.clients[account] = self.clients.get(account, 0) + 1
        share.begin(account, size)
        if share.has_turns:
            share.enter(account, request, work * UNIT)
        else:
            self._assign(now, request)
        return request

    def due(self, now: float, stands: Callable[[Request], bool]) -> list[Request]:
        """Give backends to the requests whose turn has come; returns those to send now (each names its backend).

        Args:
            stands: whether a request's sender is still there; a request without its sender is thrown away.
        """
        sent = []
        for share in self._turns:
            while (request := share.next(now)) is not None:
                request.turn = True
                if stands(request):
                    request.patience = now + PATIENCE
                    self._assign(now, request)
                    if request.backend is not None:
                        sent.append(request)
                else:
                    self._forget(request)
        return sent

    @property
    def turns_waiting(self) -> int:
        """Count the requests that wait their turn."""
        return sum(share.waiting for share in self._turns)

    def settle(self, now: float, backend: int, tag: Tag) -> Request | None:
        """Take in an answer of a backend; returns its request, or None when nobody waits for it any more."""
        at = self.backends[backend]
        at.heard = now
        request = at.outstanding.pop(tag, None)
        if request is None:
            return None
        at.work -= request.work
        at.settled += 1
        if self._far:  # else there is nothing to compare
            at.window += 1
            if request.work in MEASURED:
                at.measure(now, request)
            elif request.work == PAIR:
                at.measure_pair(now, request)
        self._forget(request)
        self.settled += 1
        self.latencies.append(now - request.begun)
        return request

    def rejected(self, now: float, backend: int, tag: Tag) -> Request | None:
        """Take in that a backend did not do a request; returns it, to be sent to its new backend or waiting for one.

        A far backend gets nothing more until it reports that it takes work. A request of another member has ended with
        that, and a write goes back to its client as in `down`: their `backend` is None.
        """
        at = self.backends[backend]
        at.heard = now
        if at.far:
            at.open = False
        request = at.outstanding.pop(tag, None)
        if request is None:
            return None
        at.work -= request.work
        if request.foreign:
            request.backend = None
            self._forget(request)
        elif request.writes:  # another member's worker says so too when its lease ended after it had done it
            self._leave_open(request, "the member that had this request is read-only")
        else:
            self._move(now, request, "backends refused this request")
        return request

    def expire(self, now: float) -> list[tuple[Request, LnhError]]:
        """Give up requests that have waited too long; returns each with the error that its client gets."""
        given_up, self._given_up = self._given_up, []
        for at in self.backends:
            for tag in [tag for tag, request in at.outstanding.items() if request.deadline <= now]:
                request = at.outstanding.pop(tag)
                at.work -= request.work
                if request.work in MEASURED:
                    at.measure(now, request)
                given_up.append((request, DeadlineExceeded(lost_at(now, at, request))))
        if self.waiting:
            still: deque[Request] = deque()
            for request in self.waiting:
                if request.deadline <= now:
                    given_up.append((request, DeadlineExceeded(f"no worker took it for {now - request.begun:.1f} s")))
                elif request.patience <= now:
                    given_up.append((request, Unreachable(self.no_worker)))
                else:
                    still.append(request)
            self.waiting = still
        for share in self._turns:
            for request in share.all_waiting() if share.waiting else ():
                if request.deadline <= now:
                    share.withdraw(request.account, request)
                    given_up.append((request, DeadlineExceeded("its turn did not come before the deadline")))
                elif request.patience <= now:
                    share.withdraw(request.account, request)
                    given_up.append(
                        (request, Busy("its turn did not come in time: ask again", {"seconds": COME_AGAIN}))
                    )
        for request, _ in given_up:
            self._forget(request)
        self.expired += len(given_up)
        return given_up

    def unserved(self, asked_at: float, why: LnhError) -> None:
        """Take in why no own backend is up and will not be soon; requests that wait are given up with these words.

        Args:
            asked_at: when that was asked; it says nothing of requests that came later.
        """
        self._given_up += [(request, why) for request in self.waiting if request.begun < asked_at]
        self.waiting = deque(request for request in self.waiting if request.begun >= asked_at)

    # --- choosing

    def choose(self, now: float, request: Request) -> int | None:
        """Choose the backend for a request; None when there is none.

        A request that was sent somewhere already goes to an own backend, if any is up, rather than on another
        adventure.
        """
        if request.sticks:
            return self._kept(request.client)
        own: int | None = None
        best: Backend | None = None
        best_rank = (False, 0.0)
        for number, at in self._own:
            if at.up:
                rank = (at.is_silent(now), at.work / at.weight)
                if best is None or rank < best_rank:
                    own, best, best_rank = number, at, rank
        if not self._far or not self.forwards or request.stays:
            return own
        work = request.work
        if best is None:
            return self._elsewhere(now, work)
        silent = best_rank[0]
        if not silent:
            if not best.work or request.moves or (work == PAIR and best.pair < WORTH_A_HOP):
                return own
            expected = (best.work + work) * best.unit / best.weight
            is_small = work in MEASURED and work * best.unit < WORTH_A_HOP
            if expected <= (FORWARD_SMALL_ABOVE if is_small else FORWARD_ABOVE):
                return own
            return self._quicker(now, work, best, expected, own)
        return self._quicker(now, work, best, float("inf"), own)

    def _kept(self, client: bytes) -> int | None:
        """Choose the own backend that a connection always gets, while the same ones are up."""
        up = [number for number, at in self._own if at.up]
        return up[zlib.crc32(client) % len(up)] if up else None

    def _quicker(self, now: float, work: int, best: Backend, than: float, own: int | None) -> int | None:
        """Choose a far backend of an own one's tier, with room, that is clearly quicker; else the own one."""
        than *= QUICKER
        for number, at in self._far.items():
            if at.up and at.open and at.tier == best.tier and len(at.outstanding) < at.window:
                expected = at.expected(now, work, best.unit)
                if expected < than:
                    own, than = number, expected
        return own

    def _elsewhere(self, now: float, work: int) -> int | None:
        """Choose the far backend that is expected to be the quickest, of the lowest tier; None where none has room."""
        best = None
        best_rank = (0, False, 0.0)
        for number, at in self._far.items():
            if at.up and at.open:
                rank = (at.tier, len(at.outstanding) >= at.window, at.expected(now, work, at.unit))
                if best is None or rank < best_rank:
                    best, best_rank = number, rank
        return best

    def _assign(self, now: float, request: Request) -> None:
        chosen = self.choose(now, request)
        request.backend = chosen
        if chosen is None:
            if not request.foreign:
                self.waiting.append(request)
            else:
                self._given_up.append((request, Unreachable(NO_WORKER)))
            return
        at = self.backends[chosen]
        if not at.work:
            at.heard = now
        at.work += request.work
        at.outstanding[request.tag] = request
        request.sent = now
        request.ahead = at.work
        if at.far:
            self.forwarded += 1

    def _assign_waiting(self, now: float) -> list[Request]:
        waiting, self.waiting = self.waiting, deque()
        for request in waiting:
            self._assign(now, request)
        return [request for request in waiting if request.backend is not None]

    def _move(self, now: float, request: Request, why: str) -> None:
        """Move a request whose backend is gone to another backend, or give it up when that happened too often."""
        request.backend = None
        request.moves += 1
        if request.moves > MOVES:
            self._given_up.append((request, Unreachable(f"{request.moves} {why}")))
            return
        request.patience = now + PATIENCE
        self._assign(now, request)
        self.retried += 1

    def _leave_open(self, request: Request, why: str) -> None:
        """End a write that may have been done, so that its client sends it again."""
        request.backend, request.open = None, True
        self._given_up.append((request, Busy(f"{why}: ask again", {"seconds": COME_AGAIN})))

    def _forget(self, request: Request) -> None:
        self.requests -= 1
        self.bytes -= request.size
        self.shares[request.peer].end(request.account, request.size, had_turn=request.turn)
        left = self.clients[request.account] - 1
        if left:
            self.clients[request.account] = left
        else:
            del self.clients[request.account]

    def _busy(self, account: bytes) -> Busy:
        bounds = self.bounds
        if self.requests >= bounds.requests:
            return Busy(
                f"{bounds.requests} requests are in flight in this member, which is the limit", {"seconds": COME_AGAIN}
            )
        if self.clients.get(account, 0) >= bounds.requests_per_client:
            return Busy(
                f"{bounds.requests_per_client} requests are in flight on this connection, which is the limit",
                {"seconds": COME_AGAIN},
            )
        return Busy(
            f"{bounds.bytes} bytes of requests are in flight in this member, which is the limit",
            {"seconds": COME_AGAIN},
        )
