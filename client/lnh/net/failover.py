"""Decides which way to the cluster is used when, and when one is given up. Pure: no socket, no clock.

A *way* is a member's client port and its CURVE key. A connection has the registered member, which comes first, and the
alternates that the cluster told of. Whatever is behind a way, the pinned cluster identity is what is trusted.

    in use -- lost --> resting -- its rest is over --> may be used again
       ^                                                    |
       '--------- chosen: the best that does not rest ------'

- One way is in use by all channels of a connection. A channel that finds it gone says so (`lost`), and the best of the
  others is used; `turn` tells every channel that it changed. While all others rest, the one that was lost stays in use:
  a member is always asked, and no way is gone to more often than its rests allow.
- The best: one that was not lost before one that was; then by what was last told of it: read-write before read-only
  before unreachable; then the registered member, its affinity group, and an order of this client's own, so that the
  clients of a dead member spread over the others.
- The registered member is gone back to (`seek`, `found`) when it is said to be read-write, and has answered: it may
  have been lost because it restarts, and what it says before it is in step again is older than what the others say.
  Requests under way are then answered where they are.
- A way that is `behind` is alive, and not in step with the cluster: it rests as one that was lost, so that another
  member is asked, but requests under way on it stay there, and it is not thought to be gone.
- A way that is lost again soon gets more time before it is lost once more (`patience`), and is gone back to later: on a
  machine or a network that is merely slow, clients do not run to and fro.

`Vigil` judges one connection to a way. A way is gone that refuses connections, is not there in time, or, asked, is
silent for a while and answers no probe. The probe is refused by the balancer itself, at once: a slow operation is not
silence, and is never sent twice for being slow. With one way there is nothing to judge.
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
    """The state that a way's member was last said to be in; the lower, the better."""

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
class Way:
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
    """A way as the cluster tells of it."""

    way: Way
    state: State = State.READ_WRITE


class _Standing:
    """The present knowledge of one way."""

    __slots__ = ("listed", "losses", "lost", "lost_at", "rests_until", "state", "trials", "try_at", "way")

    def __init__(self, way: Way) -> None:
        self.way = way
        self.listed = True
        self.state = State.READ_WRITE
        self.lost = False
        self.lost_at = float("-inf")
        self.losses = 0
        self.rests_until = float("-inf")
        self.trials = 0
        self.try_at = float("-inf")


class Ways:
    """The ways of one connection.

    Args:
        registered: the first point of contact.
        alternates: the others that are known from earlier.
        client: the client whose order of equal ways this is.

    Attributes:
        current: the way in use.
        turn: counts the changes of it.
    """

    def __init__(self, registered: Way, alternates: Iterable[Way] = (), client: bytes = b"") -> None:
        self._client: Final = client
        self._first: Final = _Standing(registered)
        self._standings: list[_Standing] = [self._first]
        self._standings += [_Standing(way) for way in alternates if way.key != registered.key]
        self._used = self._first
        self._used_since = float("-inf")
        self.turn = 0

    @property
    def current(self) -> Way:
        """The way in use."""
        return self._used.way

    @property
    def is_away(self) -> bool:
        """Tell whether another way than the registered member's is in use."""
        return self._used is not self._first

    @property
    def is_only(self) -> bool:
        """Tell whether there is nowhere else to go."""
        return len(self._standings) == 1

    @property
    def alternates(self) -> tuple[Way, ...]:
        """All ways but the registered member's."""
        return tuple(standing.way for standing in self._standings if standing is not self._first)

    @property
    def members(self) -> tuple[Way, ...]:
        """Return the ways to all members that are listed, as far as that is known, and the one in use."""
        return tuple(each.way for each in self._standings if each.listed or each is self._used)

    def patience(self, now: float) -> int:
        """Return the factor by which the way in use gets more time: more than 1 when it was lost lately."""
        if now - self._used_since >= STEADY:
            return 1
        return min(1 << min(self._used.losses, _DOUBLED), _PATIENCE)

    def is_lost(self, way: Way) -> bool:
        """Tell whether nothing more is expected from this way, so that its open requests are asked elsewhere."""
        standing = self._find(way)
        return standing is None or standing.lost

    def lost(self, now: float, way: Way) -> None:
        """Note that a way was found gone: it rests, and another is used if it was the one in use."""
        standing = self._find(way)
        if standing is None:
            return
        if now >= standing.rests_until:  # else it is known already
            standing.lost = True
            standing.lost_at = now
            self._rest(now, standing, State.UNREACHABLE)
        self._use_another(now, standing)

    def behind(self, now: float, way: Way) -> None:
        """Note that a way's member is not in step with the cluster: another is used if it was the one in use."""
        standing = self._find(way)
        if standing is None:
            return
        if now >= standing.rests_until:
            self._rest(now, standing, State.READ_ONLY)
        self._use_another(now, standing)

    def _rest(self, now: float, standing: _Standing, state: State) -> None:
        """Leave a way alone for a while, in this state until the cluster is heard to say otherwise."""
        if standing is self._used and now - self._used_since >= STEADY:
            standing.losses = standing.trials = 0
        standing.losses += 1
        standing.state = state
        standing.rests_until = now + _doubled(REST, standing.losses)
        standing.try_at = now + _doubled(RETURN, standing.losses + standing.trials)

    def _use_another(self, now: float, standing: _Standing) -> None:
        """Use the best of the ways that do not rest, if there is one, in place of this one."""
        awake = [other for other in self._standings if now >= other.rests_until]
        if standing is self._used and awake:
            self._use(now, min(awake, key=self._rank))

    def seek(self, now: float) -> Way | None:
        """Return the registered member when it is time to try it again; the caller tries it, and reports the result.

        A caller that never does is asked to again later.
        """
        first = self._first
        if self._used is first or not first.listed or first.state is not State.READ_WRITE or now < first.try_at:
            return None
        first.trials += 1
        first.try_at = now + _doubled(RETURN, first.trials)
        return first.way

    def found(self, now: float, way: Way) -> None:
        """Note that the registered member answers: it is used from now on."""
        if way.key == self._first.way.key and self._used is not self._first:
            self._use(now, self._first)

    def learned(self, now: float, told: Sequence[Told]) -> bool:
        """Take in the members that the cluster lists; tell whether the alternates are others than before.

        The registered member stays, and the way in use stays until it is lost.
        """
        if not told:
            return False
        before = self.alternates
        known = {standing.way.key: standing for standing in self._standings}
        listed = {each.way.key: each for each in told}
        for standing in self._standings:
            standing.listed = standing.way.key in listed
        kept = [self._first]
        for key, each in listed.items():
            standing = known.get(key) or _Standing(each.way)
            standing.state = each.state
            if each.state is State.READ_WRITE and now - standing.lost_at > STEADY:
                standing.lost = False
            if standing is self._first:
                # Its address stays as it was registered; it may have more than one.
                self._first.way = Way(self._first.way.address, key, each.way.group)
            elif standing is self._used:
                standing.way = Way(standing.way.address, key, each.way.group)
                kept.append(standing)
            else:
                standing.way = each.way
                kept.append(standing)
        if not self._used.listed and self._used is not self._first:
            kept.append(self._used)
        self._standings = kept
        return set(self.alternates) != set(before)

    def _find(self, way: Way) -> _Standing | None:
        return next((standing for standing in self._standings if standing.way.key == way.key), None)

    def _rank(self, standing: _Standing) -> tuple[bool, bool, State, bool, bool, bytes]:
        return (
            not standing.listed,
            standing.lost,
            standing.state,
            standing is not self._first,
            standing.way.group != self._first.way.group,
            hashlib.sha256(self._client + standing.way.key).digest(),
        )

    def _use(self, now: float, standing: _Standing) -> None:
        self.turn += 1  # first: a channel that looks in vain for a change stays where it is
        standing.lost = False
        self._used_since = now
        self._used = standing


class Verdict(enum.Enum):
    """The judgement of a connection."""

    WELL = "well"
    DOUBTED = "doubted"  # to be probed
    GONE = "gone"


class Vigil:
    """Judges one connection to a way by what was heard of it. Its owner sets `heard` at every message.

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
        """Give the way as much time again, because there is no other one to use."""
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
