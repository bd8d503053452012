"""Messages of the balancer: to its workers and the other members' balancers, and about itself."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from lnh_common.messages.base import Empty, Message, operation


class WorkerLoad(Message):
    """Answer that an hsm worker lives: requests served since it started, keys in its cache."""

    served: int
    cached_keys: int = 0


class Load(Message):
    """Answer how a member stands to another that may send it work.

    Args:
        takes: whether it is read-write, and so takes work.
        workers: how many of its workers are up.
    """

    takes: bool
    workers: Annotated[int, msgspec.Meta(ge=0, le=4096)]


class BackendView(Message):
    """Describe one backend that work is sent to: a worker, or another member's balancer.

    Args:
        state: serving, silent (has work and answers nothing), down, or closed (a member that takes no work).
        requests, work: outstanding.
        group: of another member; empty for a worker.
        settled: requests answered since the balancer started.
        round_trip: microseconds to another member and back.
        unit: microseconds that a small request took of late.
    """

    name: str
    state: str
    requests: int
    work: int
    group: str = ""
    settled: int = 0
    round_trip: int = msgspec.field(default=0, name="way")
    unit: int = 0


class Status(Message):
    """Describe the balancer: latencies in microseconds over the newest answers; recent rates a second.

    Args:
        requests_per_second: that this member's workers answered; each request that came under a shared seal counts.
        group: of this member.
        alone: why no work is done elsewhere; empty when it may be.
        forwarded: requests sent to other members.
        taken: requests taken on from other members.
        declined: requests of other members that were not taken on, or not done.
    """

    state: str
    connections: int
    requests_per_second: float
    refused_per_second: float
    p50: int
    p99: int
    in_flight: int
    waiting: int
    retried: int
    expired: int
    dropped: int
    backends: tuple[BackendView, ...] = msgspec.field(name="places")
    group: str = ""
    alone: str = ""
    forwarded: int = 0
    taken: int = 0
    declined: int = 0


HSM_PING: Final = operation("hsm.ping", Empty, WorkerLoad)
PEER_PING: Final = operation("balancer.ping", Empty, Load)
STATUS: Final = operation("balancer.status", Empty, Status)
