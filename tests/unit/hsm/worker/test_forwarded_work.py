"""Another member's request is served under a read-write lease from its beginning to its answer, or not at all."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lnh_common.errors import Busy, LnhError, MemberReadOnly, OutcomeUnknown
from lnh_common.messages import admin, hsm, store
from lnh_common.messages.base import Operation
from lnh_common.wire.bundles import FORWARDED, TAG_BYTES, is_forwarded, refusal
from lnh_services.hsm.effects import Peer
from lnh_services.hsm.worker.loop import Worker
from lnh_services.hsm.worker.tasks import Waiting
from lnh_services.paths import MemberDirectory
from models.worker import Client, World

LEASE = 1.0


def attached(*, read_write: bool = True, fresh: bool = False, lease_ms: int = int(1000 * LEASE)) -> store.Attached:
    return store.Attached(lease_ms=lease_ms, index=0, fresh=fresh, read_write=read_write)


def test_a_lease_that_is_renewed_in_time_is_one_lease() -> None:
    world = World()
    core = world.worker()
    core.take_lease(world.now, attached())
    begun = core.lapses
    for _ in range(5):
        world.now += 0.5 * LEASE
        core.take_lease(world.now, attached())
    assert core.was_read_write_since(begun)
    world.now += LEASE
    assert not core.was_read_write_since(begun)
    assert not core.is_read_write()


@pytest.mark.parametrize("event", ["ended", "invalidated", "read-only", "fresh", "none"])
def test_a_request_that_saw_the_lease_end_is_not_answered_though_there_is_another(event: str) -> None:
    world = World()
    core = world.worker()
    core.take_lease(world.now, attached())
    begun = core.lapses
    if event == "ended":
        world.now += LEASE
    elif event == "invalidated":
        core.invalidate(store.Invalidate(sequence=1, keys=(), everything=True))
    elif event == "read-only":
        core.take_lease(world.now, attached(read_write=False))
        assert not core.is_read_write(), "it may use its caches, but they may be old"
    elif event == "fresh":
        core.take_lease(world.now, attached(fresh=True))
    else:
        core.take_lease(world.now, attached(lease_ms=0))
        assert not core.is_read_write()
    core.take_lease(world.now, attached())
    assert core.is_read_write()
    assert not core.was_read_write_since(begun)


def test_who_asked_another_member_is_not_told_that_this_one_is_read_only() -> None:
    """The store may know before the worker's lease has ended."""
    world = World()
    client = Client(world, world.worker()).register()
    administrator = client.as_administrator()
    create = admin.CreateKeyrings(label="payments")
    world.read_only = True
    sent, keys = administrator.sealed(admin.KEYRING_CREATE, create)
    assert world.serve(client.worker, sent, forwarded=True) == [b"", b"", b""]
    with pytest.raises(MemberReadOnly):
        administrator.open(admin.KEYRING_CREATE, sent, keys, world.serve(client.worker, sent))
    world.read_only = False
    made = administrator.open(admin.KEYRING_CREATE, sent, keys, world.serve(client.worker, sent, forwarded=True))
    assert made.keyrings[0].label == "payments"


def test_the_tag_says_where_a_request_came_from() -> None:
    for number in (1, 2**40, FORWARDED - 1):
        assert not is_forwarded(number.to_bytes(TAG_BYTES, "big"))
        assert is_forwarded((number | FORWARDED).to_bytes(TAG_BYTES, "big"))
    assert refusal(b"12345678") == (b"12345678", b"", b"", b"")


@pytest.mark.parametrize("answer", [MemberReadOnly("no lease"), Busy("a snapshot is being installed")])
@pytest.mark.parametrize(
    ("operation", "tries", "proven"),
    [(store.COMMIT, 1, True), (store.COMMIT, 2, False), (store.COMMIT_EACH, 2, False), (store.GET, 2, True)],
)
def test_a_store_that_is_asked_again_proves_nothing_by_doing_nothing(
    operation: Operation[Any, Any], tries: int, proven: bool, answer: LnhError
) -> None:
    """It may have passed the first try on to the primary, whose answer got lost: so histories of members cut off said."""
    waiting = Waiting([], Peer.STORE, operation, [], tries=tries)
    assert (waiting.proven(answer) is answer) == proven
    assert isinstance(waiting.proven(answer), type(answer) if proven else OutcomeUnknown)
    assert waiting.proven(done := store.Committed(index=1)) is done


def test_only_a_store_that_was_started_anew_is_asked_again(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that grants a fresh lease because the last one ended: it has the question, and answers it once."""
    worker = Worker(MemberDirectory(short_path), 0)
    again: list[Waiting] = []
    monkeypatch.setattr(worker, "_transmit", again.append)
    asked = Waiting([], Peer.STORE, store.COMMIT, [], sent_at=1.0, tries=1)
    worker._waiting = {1: asked, 2: Waiting([], Peer.CORE, hsm.AUDIT, [], sent_at=1.0, tries=1)}

    def attach(incarnation: bytes) -> list[Waiting]:
        steps = worker._attach(0.0)
        next(steps)
        with pytest.raises(StopIteration):
            steps.send(msgspec.structs.replace(attached(fresh=True, read_write=False), incarnation=incarnation))
        return again

    with closing(worker):
        for _ in range(2):
            assert attach(b"first") == []
        assert attach(b"second") == [asked]
