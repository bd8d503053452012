"""Keeps what is known of a request and of a backend: what is outstanding, and how long work takes there. Pure.

Work is counted in units of a small request. `routing.py` says what is decided by it.
"""

from __future__ import annotations

from typing import Final

from lnh_common.messages import objects, session
from lnh_services.balancer.budgets import Peer

Frames = list[bytes]
Tag = bytes

SILENT_AFTER: Final = 0.25  # seconds without any answer from a backend that has work
PATIENCE: Final = 2.0  # seconds a request waits for a backend to come up before its client is told
UNIT: Final = 0.0002  # seconds a unit is taken to need where nothing was measured
_LEAST: Final = UNIT / 10
_WEIGHT_OF_NEWEST: Final = 0.1  # of a measurement, in what counts
_AT_MOST_TIMES: Final = 4.0  # ... and no measurement counts for more than so many times what counted before
_HALVED_AFTER: Final = 1.0  # seconds without a measurement after which what was measured far counts half

# Work of an operation, in units of a small one.
WORK: Final[dict[str, int]] = {
    objects.GENERATE_PAIR.name: 64,
    objects.GENERATE_PAIRS.name: 256,
    objects.GENERATE_MANY.name: 256,
    objects.GENERATE.name: 4,
    objects.STREAM.name: 4,
    objects.SIGN_MANY.name: 32,
    objects.WRAP_MANY.name: 8,
    objects.VERIFY_MANY.name: 32,
    objects.ENCRYPT_MANY.name: 32,
    objects.DECRYPT_MANY.name: 32,
    objects.USES.name: 8,  # one to sixteen, which is sealed
    session.LOGIN.name: 4,
    session.REGISTER.name: 4,
    session.CHANGE_PASSWORD.name: 4,
}
# What small requests weigh, and uses that came together: by these a backend is measured, and they may not be worth a
# hop. Of the others, most of the time is not a worker's, or they are rare, or they are large whatever was measured.
MEASURED: Final = frozenset({1, WORK[objects.USES.name]})
# Some take a worker 0.6 ms and some seconds, and a balancer cannot see of what kind they are: they are measured apart.
PAIR: Final = WORK[objects.GENERATE_PAIR.name]


class Request:
    """One request while the balancer is answerable for it.

    Attributes:
        client: the connection that its answer goes to.
        client_tag: the name that its sender gave it, if it came in a bundle.
        account: the account whose bound it counts against.
        peer: the class of its sender.
        turn: whether it has had its turn, where its class has any.
        sticks: all of its connection goes to one own worker, which keeps what came before.
        stays: it is about this member, or came from another: it goes to own workers alone.
        foreign: another member sent it.
        writes: it may change something: only its client may send it again, knowing that it does.
        open: the backend that had it is gone, and may have done it.
        backend: None while it waits for one.
        sent: when it went to its backend, where `ahead` was outstanding then, its own work included.
    """

    sent: float
    ahead: int

    __slots__ = (
        "account",
        "ahead",
        "backend",
        "begun",
        "client",
        "client_tag",
        "deadline",
        "foreign",
        "frames",
        "moves",
        "open",
        "patience",
        "peer",
        "sent",
        "size",
        "stays",
        "sticks",
        "tag",
        "turn",
        "work",
        "writes",
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
        peer: Peer,
        *,
        stays: bool,
        foreign: bool,
        writes: bool,
        sticks: bool,
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
        self.stays = stays
        self.sticks = sticks
        self.foreign = foreign
        self.writes = writes
        self.peer = peer
        self.turn = False
        self.open = False
        self.patience = begun + PATIENCE
        self.moves = 0
        self.backend: int | None = None


class Backend:
    """A backend that does work: a worker or another member.

    Args:
        name: for status.
        tier: lower ones are used while any of them is up.
        weight: how many workers stand behind it.
        far: it is another member.

    Attributes:
        up: it can be sent to.
        open: it takes work: a far one says so, and says when it does not.
        round_trip: seconds to a far backend and back.
        unit, unit_at: seconds that a unit of work took, and when that was measured last.
        pair, pair_at: seconds between the answers to two key pairs while there is more to make, and when the last came.
        window: how many requests it is given at once; own backends, any number.
    """

    __slots__ = (
        "far",
        "heard",
        "name",
        "open",
        "outstanding",
        "pair",
        "pair_at",
        "round_trip",
        "settled",
        "tier",
        "unit",
        "unit_at",
        "up",
        "weight",
        "window",
        "work",
    )

    def __init__(self, name: str, tier: int = 0, weight: int = 1, *, far: bool = False) -> None:
        self.name = name
        self.tier = tier
        self.weight = weight
        self.far = far
        self.up = False
        self.open = not far
        self.work = 0
        self.heard = 0.0  # when it last answered, or last went from idle to having work
        self.outstanding: dict[Tag, Request] = {}
        self.settled = 0
        self.round_trip = 0.0
        self.unit = UNIT
        self.unit_at = float("-inf")
        self.pair = UNIT * PAIR
        self.pair_at = float("-inf")
        self.window = 0

    def is_silent(self, now: float) -> bool:
        """Tell whether the backend has work and has answered nothing for a while."""
        return self.work > 0 and now - self.heard > SILENT_AFTER

    def expected(self, now: float, work: int, usual: float) -> float:
        """Compute the seconds that more work would take here, there and back.

        Args:
            usual: the time of a unit elsewhere; it counts where nothing was measured for long.
        """
        unit = usual + (self.unit - usual) / (1 + max(now - self.unit_at, 0.0) / _HALVED_AFTER)
        return self.round_trip + (self.work + work) * unit / self.weight

    def measure(self, now: float, request: Request) -> None:
        """Take in how long a request took that went through the queue here."""
        took = (now - request.sent - self.round_trip) * self.weight / request.ahead
        self.unit = _averaged(self.unit, max(took, _LEAST))
        self.unit_at = now

    def measure_pair(self, now: float, request: Request) -> None:
        """Take in when a key pair was answered: not how long it took, most of which is the primary's disk."""
        self.pair = _averaged(self.pair, max(now - max(request.sent, self.pair_at), _LEAST))
        self.pair_at = now


def lost_at(now: float, at: Backend, request: Request) -> str:
    """Tell what is known of a request that a backend does not answer."""
    had = f"{at.name} has had it for {now - request.sent:.1f} s without an answer"
    moved = f", after {request.moves} that were lost with it" if request.moves else ""
    return f"{had}{moved}; it last answered anything {now - at.heard:.1f} s ago"


def _averaged(average: float, newest: float) -> float:
    return average + (min(newest, _AT_MOST_TIMES * average) - average) * _WEIGHT_OF_NEWEST
