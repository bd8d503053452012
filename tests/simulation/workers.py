"""Hsm workers of a simulated machine: the real `WorkerCore`'s lease, and what it lets a client be told, around a cache.

What a worker does with what it read (opening seals, mechanisms) is not simulated; what it may keep, for how long, and
what it may say for certain is decided by the product's own code.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from lnh_common.errors import ObjectUnknown
from lnh_common.messages import objects
from lnh_common.messages.store import Attached, Invalidate, Key
from lnh_services.hsm.auth.tokens import OpenSession, Token
from lnh_services.hsm.effects import Steps
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.rollback_guard import Ahead, Read
from lnh_services.store.leases.worker_leases import Grant, WorkerId
from lnh_services.store.log.entries import Position
from lnh_services.store.replication.messages import ReadId
from lnh_services.store.replication.replica import Interest
from models.versioned_items import Value

EMPTY: dict[Key, Value] = {}


@dataclass(frozen=True)
class View:
    """What a read found, and of which state."""

    values: dict[Key, Value]
    applied: Position


@dataclass(frozen=True)
class Heard:
    """A store's answer, and whether it said that this was current."""

    view: View
    current: bool


Told = Callable[["Heard | None"], None]  # None: no answer


@dataclass
class Reading:
    """A read under way from a worker."""

    keys: tuple[Key, ...]
    interest: Interest
    told: Told
    spoiled: bool = False  # an invalidation came meanwhile: not cached


def _no_token(core: WorkerCore, sealed: bytes, token: Token, ahead: Ahead) -> Steps[OpenSession]:
    raise AssertionError("no sessions are simulated")


class Worker(WorkerCore):
    """One worker: caches that it uses only under a lease.

    Args:
        boot: seconds of its machine's clock.
    """

    def __init__(self, name: WorkerId, rng: random.Random, boot: Callable[[], float]) -> None:
        super().__init__({}, _no_token, boot, boot)
        self.name = name
        self.rng = rng
        self.cache: dict[Key, View] = {}
        self.reading: dict[ReadId, Reading] = {}
        self.stalled_until = 0.0
        self.last_in = 0.0
        self.last_out = 0.0

    def attached(self, sent: float, grant: Grant) -> None:
        """Its store answered what it asked at `sent`, by its machine's clock."""
        self.take_lease(
            sent, Attached(lease_ms=grant.lease_ms, index=0, fresh=grant.fresh, read_write=grant.read_write)
        )

    def begin(self) -> int:
        """Begin to serve a request, as `serve` does; what its answer is to be judged by."""
        if not self.is_leased():
            self.drop_everything()
        return self.lapses

    def hears(self, reading: Reading, heard: Heard) -> None:
        """Its store answered: the answer is kept as far as it may be."""
        self.note(heard.current)
        if self.may_cache(Read(heard.view, 1, heard.current, reading.spoiled)):
            view = heard.view
            for key in reading.keys:
                self.cache[key] = View({key: view.values[key]} if key in view.values else EMPTY, view.applied)

    def denies(self, begun: int) -> bool:
        """Whether a client is told, for certain, that there is none; else that this member may be behind."""
        return isinstance(self.told(objects.SHOW, ObjectUnknown("no object"), begun), ObjectUnknown)

    def invalidate(self, message: Invalidate) -> None:
        super().invalidate(message)
        for key in list(self.cache):
            if _concerns(message.keys, key):
                del self.cache[key]
        for reading in self.reading.values():
            reading.spoiled = reading.spoiled or any(_concerns(message.keys, key) for key in reading.keys)

    def drop_everything(self) -> None:
        super().drop_everything()
        self.cache.clear()
        for reading in self.reading.values():
            reading.spoiled = True


def _concerns(keys: tuple[Key, ...], key: Key) -> bool:
    return key in keys or Key(table=key.table, scope=key.scope) in keys
