"""What the balancer asks its workers, and what it tells of itself."""

from __future__ import annotations

from typing import Final

from lnh_common.messages.base import Empty, Message, operation


class WorkerLoad(Message):
    """An hsm worker's word that it lives: requests served since it started, keys in its cache."""

    served: int
    cached_keys: int = 0


class PlaceView(Message):
    """One place where work is done: `state` is serving, silent (has work and answers nothing) or down."""

    name: str
    state: str
    requests: int
    work: int


class Status(Message):
    """Latencies in microseconds over the newest answers; rates a second over the last few."""

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
    places: tuple[PlaceView, ...]


HSM_PING: Final = operation("hsm.ping", Empty, WorkerLoad)
STATUS: Final = operation("balancer.status", Empty, Status)
