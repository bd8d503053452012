"""Decides which endpoint to the cluster is used when, and when one is given up. Pure: no socket, no clock.

An *endpoint* is a member's client port and its CURVE key. A connection has the registered member, which comes first,
and the alternates that the cluster told of. Whatever is behind an endpoint, the pinned cluster identity is what is
trusted.

    in use -- lost --> resting -- its rest is over --> may be used again
       ^                                                    |
       '--------- chosen: the best that does not rest ------'

- One endpoint is in use by all channels of a connection. A channel that finds it gone says so (`lost`), and the best of
  the others is used; `turn` tells every channel that it changed. While all others rest, the one that was lost stays in
  use: a member is always asked, and no endpoint is gone to more often than its rests allow.
- The best: one that was not lost before one that was; then by what was last told of it: read-write before read-only
  before unreachable; then the registered member, its affinity group, and an order of this client's own, so that the
  clients of a dead member spread over the others.
- The registered member is gone back to (`seek`, `found`) when it is said to be read-write, and has answered: it may
  have been lost because it restarts, and what it says before it is in step again is older than what the others say.
  Requests under way are then answered where they are.
- An endpoint that is `behind` is alive, and not in step with the cluster: it rests as one that was lost, so that
  another member is asked, but requests under way on it stay there, and it is not thought to be gone.
- An endpoint that is lost again soon gets more time before it is lost once more (`patience`), and is gone back to
  later: on a machine or a network that is merely slow, clients do not run to and fro.

`Vigil` judges one connection to an endpoint. An endpoint is gone that refuses connections, is not there in time, or,
asked, is silent for a while and answers no probe. The probe is refused by the balancer itself, at once: a slow
operation is not silence, and is never sent twice for being slow. With one endpoint there is nothing to judge.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

CONNECT_WITHIN: Final = 0.5  # seconds from the attempt to the end of the handshake
DOUBT_AFTER: Final = 0.2  # seconds without a word from a member that was asked
PROVE_WITHIN: Final = 0.3  # seconds for the answer to a probe
REST: Final = (0.25, 1.0)  # seconds after a loss: the first and the longest
RETURN: Final = (1.0, 30.0)  # seconds after a loss, or a vain trial, before the registered member is tried: likewise
STEADY: Final = 10.0  # seconds in use after which earlier losses are forgotten
_PATIENCE: Final = 4  # times the bounds above, at most
_DOUBLED: Final = 10  # no more often


class State(enum.IntEnum):
    """The state that an endpoint's member was last said to be in; the lower, the better."""

    READ_WRITE = 0
    READ_ONLY = 1
    UNREACHABLE = 2

    @classmethod
    def of(cls, told: str) -> State:
        """Read a member's state as the view names it."""
        return _STATES.get(told, cls.READ_ONLY)


_STATES: Final = {
    "read-write": State.READ_WRITE,
    "unreachable": State.UNREACHABLE,
    "failed": State.UNREACHABLE,
    "damaged": State.UNREACHABLE,
}


@dataclass(frozen=True)
class Endpoint:
    """One member's client port.

    Args:
        address: host:port.
        key: its 32-byte CURVE key.
        group: its affinity group; empty when that is not known.
    """

    address: str
    key: bytes
    group: str = ""


@dataclass(frozen=True)
class Told:
    """An endpoint as the cluster tells of it."""

    endpoint: Endpoint
    state: State = State.READ_WRITE


class _Tracked:
    """The present knowledge of one endpoint."""

    __slots__ = ("endpoint", "listed", "losses", "lost", "lost_at", "rests_until", "state", "trials", "try_at")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.listed = True
        self.state = State.READ_WRITE
        self.lost = False
        self.lost_at = float("-inf")
        self.losses = 0
        self.rests_until = float("-inf")
        self.trials = 0
        self.try_at = float("-inf")


class Endpoints:
    """The endpoints of one connection.

    Args:
        registered: the first point of contact.
        alternates: the others that are known from earlier.
        client: the client whose order of equal endpoints this is.

    Attributes:
        current: the endpoint in use.
        turn: counts the changes of it.
    """

    def __init__(self, registered: Endpoint, alternates: Iterable[Endpoint] = (), client: bytes = b"") -> None:
        self._client: Final = client
        self._first: Final = _Tracked(registered)
        self._all: list[_Tracked] = [self._first]
        self._all += [_Tracked(endpoint) for endpoint in alternates if endpoint.key != registered.key]
        self._used = self._first
        self._used_since = float("-inf")
        self.turn = 0

    @property
    def current(self) -> Endpoint:
        """The endpoint in use."""
        return self._used.endpoint

    @property
    def is_away(self) -> bool:
        """Tell whether another endpoint than the registered member's is in use."""
        return self._used is not self._first

    @property
    def is_only(self) -> bool:
        """Tell whether there is nowhere else to go."""
        return len(self._all) == 1

    @property
    def alternates(self) -> tuple[Endpoint, ...]:
        """All endpoints but the registered member's."""
        return tuple(tracked.endpoint for tracked in self._all if tracked is not self._first)

    @property
    def members(self) -> tuple[Endpoint, ...]:
        """Return the endpoints to all members that are listed, as far as that is known, and the one in use."""
        return tuple(each.endpoint for each in self._all if each.listed or each is self._used)

    def patience(self, now: float) -> int:
        """Return the factor by which the endpoint in use gets more time: more than 1 when it was lost lately."""
        if now - self._used_since >= STEADY:
            return 1
        return min(1 << min(self._used.losses, _DOUBLED), _PATIENCE)

    def is_lost(self, endpoint: Endpoint) -> bool:
        """Tell whether nothing more is expected from this endpoint, so that its open requests are asked elsewhere."""
        tracked = self._find(endpoint)
        return tracked is None or tracked.lost

    def lost(self, now: float, endpoint: Endpoint) -> None:
        """Note that an endpoint was found gone: it rests, and another is used if it was the one in use."""
        tracked = self._find(endpoint)
        if tracked is None:
            return
        if now >= tracked.rests_until:  # else it is known already
            tracked.lost = True
            tracked.lost_at = now
            self._rest(now, tracked, State.UNREACHABLE)
        self._use_another(now, tracked)

    def behind(self, now: float, endpoint: Endpoint) -> None:
        """Note that an endpoint's member is not in step with the cluster: another is used if it was the one in use."""
        tracked = self._find(endpoint)
        if tracked is None:
            return
        if now >= tracked.rests_until:
            self._rest(now, tracked, State.READ_ONLY)
        self._use_another(now, tracked)

    def _rest(self, now: float, tracked: _Tracked, state: State) -> None:
        """Leave an endpoint alone for a while, in this state until the cluster is heard to say otherwise."""
        if tracked is self._used and now - self._used_since >= STEADY:
            tracked.losses = tracked.trials = 0
        tracked.losses += 1
        tracked.state = state
        tracked.rests_until = now + _doubled(REST, tracked.losses)
        tracked.try_at = now + _doubled(RETURN, tracked.losses + tracked.trials)

    def _use_another(self, now: float, tracked: _Tracked) -> None:
        """Use the best of the endpoints that do not rest, if there is one, in place of this one."""
        awake = [other for other in self._all if now >= other.rests_until]
        if tracked is self._used and awake:
            self._use(now, min(awake, key=self._rank))

    def seek(self, now: float) -> Endpoint | None:
        """Return the registered member when it is time to try it again; the caller tries it, and reports the result.

        A caller that never does is asked to again later.
        """
        first = self._first
        if self._used is first or not first.listed or first.state is not State.READ_WRITE or now < first.try_at:
            return None
        first.trials += 1
        first.try_at = now + _doubled(RETURN, first.trials)
        return first.endpoint

    def found(self, now: float, endpoint: Endpoint) -> None:
        """Note that the registered member answers: it is used from now on."""
        if endpoint.key == self._first.endpoint.key and self._used is not self._first:
            self._use(now, self._first)

    def learned(self, now: float, told: Sequence[Told]) -> bool:
        """Take in the members that the cluster lists; tell whether the alternates are others than before.

        The registered member stays, and the endpoint in use stays until it is lost.
        """
        if not told:
            return False
        before = self.alternates
        known = {tracked.endpoint.key: tracked for tracked in self._all}
        listed = {each.endpoint.key: each for each in told}
        for tracked in self._all:
            tracked.listed = tracked.endpoint.key in listed
        kept = [self._first]
        for key, each in listed.items():
            tracked = known.get(key) or _Tracked(each.endpoint)
            tracked.state = each.state
            if each.state is State.READ_WRITE and now - tracked.lost_at > STEADY:
                tracked.lost = False
            if tracked is self._first:
                # Its address stays as it was registered; it may have more than one.
                self._first.endpoint = Endpoint(self._first.endpoint.address, key, each.endpoint.group)
            elif tracked is self._used:
                tracked.endpoint = Endpoint(tracked.endpoint.address, key, each.endpoint.group)
                kept.append(tracked)
            else:
                tracked.endpoint = each.endpoint
                kept.append(tracked)
        if not self._used.listed and self._used is not self._first:
            kept.append(self._used)
        self._all = kept
        return set(self.alternates) != set(before)

    def _find(self, endpoint: Endpoint) -> _Tracked | None:
        return next((tracked for tracked in self._all if tracked.endpoint.key == endpoint.key), None)

    def _rank(self, tracked: _Tracked) -> tuple[bool, bool, State, bool, bool, bytes]:
        return (
            not tracked.listed,
            tracked.lost,
            tracked.state,
            tracked is not self._first,
            tracked.endpoint.group != self._first.endpoint.group,
            hashlib.sha256(self._client + tracked.endpoint.key).digest(),
        )

    def _use(self, now: float, tracked: _Tracked) -> None:
        self.turn += 1  # first: a channel that looks in vain for a change stays where it is
        tracked.lost = False
        self._used_since = now
        self._used = tracked


class Verdict(enum.Enum):
    """The judgement of a connection."""

    WELL = "well"
    DOUBTED = "doubted"  # to be probed
    GONE = "gone"


class Vigil:
    """Judges one connection to an endpoint by what was heard of it. Its owner sets `heard` at every message.

    Attributes:
        heard: when anything last came.
        probed: when it was probed, without a word since; 0 for never.
    """

    __slots__ = ("_since", "_up", "heard", "probed", "refused")

    def __init__(self, now: float) -> None:
        self.down(now)

    def down(self, now: float) -> None:
        """Note that there is no connection, and an attempt at one begins."""
        self._up = self.refused = False
        self._since = self.heard = now
        self.probed = 0.0

    def up(self, now: float) -> None:
        """Note that the connection is there."""
        self._up = True
        self.refused = False
        self.asked(now)

    def asked(self, now: float) -> None:
        """Note that something is asked while nothing was under way: from now on silence counts."""
        self.heard = now
        self.probed = 0.0

    def waits(self, now: float) -> None:
        """Give the endpoint as much time again, because there is no other one to use."""
        self.refused = False
        self._since = now
        self.asked(now)

    def judge(self, now: float, patience: int, *, waiting: bool) -> Verdict:
        """Judge the connection.

        Args:
            patience: the factor by which its bounds are longer.
            waiting: whether requests are under way.
        """
        if not self._up:
            return Verdict.GONE if self.refused or now - self._since > CONNECT_WITHIN * patience else Verdict.WELL
        if not waiting:
            return Verdict.WELL
        if self.probed:
            return Verdict.GONE if now - self.probed > PROVE_WITHIN * patience else Verdict.WELL
        return Verdict.DOUBTED if now - self.heard > DOUBT_AFTER else Verdict.WELL


def _doubled(bounds: tuple[float, float], count: int) -> float:
    first, longest = bounds
    return min(first * (1 << min(max(count - 1, 0), _DOUBLED)), longest)
