"""A worker with much slow work renews its lease, and takes each step of a login, between uses of keys: in stints."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
import zmq

from lnh_common import limits
from lnh_common.messages import store
from lnh_common.messages.base import Empty
from lnh_common.wire import frames as wire
from lnh_common.wire.bundles import Entry
from lnh_common.wire.frames import Frames, Header
from lnh_services.hsm.effects import Ask, Peer, Steps, Turn
from lnh_services.hsm.worker import loop as module
from lnh_services.hsm.worker.loop import Worker
from lnh_services.hsm.worker.tasks import Waiting, WayBack
from lnh_services.paths import MemberDirectory

SLOW = 0.04  # seconds of an RSA-4096 signature on a machine that is short of processors
LEASE = 1.0
HEADER = wire.request("object.sign", 1, 1000).pack()


class Run:
    """A worker whose clock is the test's, and what it did when."""

    def __init__(self, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worker = worker
        self.now = 100.0
        self.opened: list[bytes] = []
        self.cold: set[bytes] = set()  # whose keys have to be asked for
        self.answered: list[bytes] = []
        self.heard_store: list[float] = []
        self.waits: list[int] = []
        self.batch: list[tuple[bytes, Entry]] = []
        assert Peer.STORE in worker._peers
        monkeypatch.setattr(module, "boot_time", lambda: self.now)
        monkeypatch.setattr(worker.core, "serve", self.serve)
        monkeypatch.setattr(worker.core, "lease_until", math.inf)
        monkeypatch.setattr(worker, "_receive", self.receive)
        monkeypatch.setattr(worker, "_send", self.send)
        monkeypatch.setattr(worker, "_drain_peer", lambda *_: self.heard_store.append(self.now))
        monkeypatch.setattr(worker, "_run_timers", lambda now: now + LEASE / 2)
        monkeypatch.setattr(worker, "_poller", self)

    def serve(self, header: Header, token: bytes, *_: object, **__: object) -> Steps[Frames]:
        """A use of a key that takes its time."""
        self.opened.append(token)
        if token in self.cold:
            yield Ask(Peer.STORE, store.STATUS, Empty())
        yield Turn.USE
        self.now += SLOW
        yield Turn.SEAL
        return [token, b"", b""]

    def receive(self) -> list[tuple[bytes, Entry]]:
        batch, self.batch = self.batch, []
        return batch

    def send(self, way_back: WayBack, frames: Frames) -> None:
        assert frames[0] == way_back[1]
        self.answered.append(frames[0])

    def poll(self, milliseconds: int) -> list[tuple[zmq.Socket[bytes], int]]:
        self.waits.append(milliseconds)
        return [(self.worker._front, zmq.POLLIN)] if self.batch else []


@pytest.fixture
def run(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    worker = Worker(MemberDirectory(short_path), 0)
    poller = worker._poller
    with closing(worker):
        yield Run(worker, monkeypatch)
        monkeypatch.undo()
        assert worker._poller is poller


def test_slow_uses_together_leave_room_for_the_lease_and_are_each_answered_once(run: Run) -> None:
    tags = [number.to_bytes(8, "big") for number in range(31)]
    run.batch = [(b"balancer", Entry(tag, HEADER, tag, b"")) for tag in tags]
    began = run.now
    for _ in range(50):
        run.worker._poll()
        if len(run.answered) == len(tags):
            break
    assert run.answered == tags
    assert run.now == pytest.approx(began + SLOW * len(tags)), "each was done once"
    assert run.now - began > LEASE, "it took longer than a lease"
    moments = [began, *run.heard_store]
    assert max(later - earlier for earlier, later in pairwise(moments)) < module._STINT + 2 * SLOW
    assert set(run.waits[1:]) <= {0}, "while something is left it does not wait for more"


def test_what_is_left_is_opened_anew_since_what_is_stored_may_have_changed(run: Run) -> None:
    tags = [number.to_bytes(8, "big") for number in range(4)]
    run.batch = [(b"balancer", Entry(tag, HEADER, tag, b"")) for tag in tags]
    for _ in range(4):
        run.worker._poll()
    assert run.answered == tags
    assert run.opened.count(tags[0]) == 1
    assert run.opened.count(tags[-1]) == 2


def test_where_as_many_wait_as_may_only_what_would_have_to_wait_is_turned_away(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = [number.to_bytes(8, "big") for number in range(3)]
    run.cold = {tags[1]}
    refused: list[bytes] = []

    def send(way_back: WayBack, frames: Frames) -> None:
        kind = Header.parse(frames[0]).kind if way_back[1] in run.cold else None
        (refused if kind is wire.Kind.ERROR else run.answered).append(way_back[1])

    monkeypatch.setattr(run.worker, "_send", send)
    full = Waiting([], Peer.STORE, store.STATUS, [])
    run.worker._waiting = dict.fromkeys(range(limits.REQUESTS_IN_FLIGHT), full)
    run.batch = [(b"balancer", Entry(tag, HEADER, tag, b"")) for tag in tags]
    run.worker._poll()
    assert refused == [tags[1]]
    assert run.answered == [tags[0], tags[2]]
    assert len(run.worker._waiting) == limits.REQUESTS_IN_FLIGHT, "nothing was asked for it"
    run.worker._waiting = {}
