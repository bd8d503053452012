"""What the pure hsm worker keeps under its leases, and what it drops."""

from __future__ import annotations

from typing import Any

import pytest

from lnh_common import errors
from lnh_common.messages import admin, objects, store
from lnh_services.hsm.worker.core import WorkerCore
from models.worker import Client, World, generate_ec, sign


def test_a_worker_whose_lease_ended_keeps_nothing_and_still_answers_from_the_store(
    world: World, client: Client, keyring: bytes
) -> None:
    pair = generate_ec(client, keyring)
    sign(client, keyring, pair.private.handle)
    client.worker.lease_until = 0.0
    sign(client, keyring, pair.private.handle)
    assert len(client.worker.caches.keys) == 0
    assert len(client.worker.caches.sessions) == 0


def lease(worker: WorkerCore, *, mode: bool) -> None:
    """A new lease of this mode, of an empty cache."""
    worker.take_lease(worker.boot(), store.Attached(lease_ms=10**9, index=0, fresh=True, read_write=mode))


def test_a_lease_that_does_not_go_on_from_the_one_before_keeps_nothing(
    world: World, client: Client, keyring: bytes
) -> None:
    pair = generate_ec(client, keyring)
    sign(client, keyring, pair.private.handle)
    worker = client.worker
    goes_on = store.Attached(lease_ms=1000, index=0, fresh=False, read_write=True)
    worker.take_lease(worker.boot(), goes_on)
    assert len(worker.caches.keys) == 1
    world.now += 2  # the answer that said "fresh" was to a question that this worker had given up
    worker.take_lease(worker.boot(), goes_on)
    assert len(worker.caches.keys) == 0
    assert len(worker.caches.sessions) == 0


def test_what_was_not_current_is_not_cached_under_a_read_write_lease(
    world: World, client: Client, keyring: bytes
) -> None:
    pair = generate_ec(client, keyring)
    world.store.current = False
    lease(client.worker, mode=True)
    sign(client, keyring, pair.private.handle)
    caches = client.worker.caches
    assert [len(cache) for cache in (caches.keys, caches.sessions, caches.records, caches.policies)] == [0, 0, 0, 0]
    asked = world.asked
    sign(client, keyring, pair.private.handle)
    assert world.asked > asked  # also what it rests on is read again
    world.store.current = True
    sign(client, keyring, pair.private.handle)
    assert len(caches.keys) == len(caches.sessions) == 1


def test_a_read_only_lease_lets_all_be_cached_until_all_is_to_be_dropped(
    world: World, client: Client, keyring: bytes
) -> None:
    pair = generate_ec(client, keyring)
    world.store.current = False
    lease(client.worker, mode=False)
    sign(client, keyring, pair.private.handle)
    caches = client.worker.caches
    assert len(caches.keys) == len(caches.sessions) == 1
    asked = world.asked
    sign(client, keyring, pair.private.handle)
    assert world.asked == asked
    client.worker.invalidate(store.Invalidate(sequence=1, keys=(), everything=True))
    assert not client.worker.is_leased()
    sign(client, keyring, pair.private.handle)
    assert len(caches.keys) == len(caches.sessions) == 0


def test_a_read_only_member_honours_tokens_only_as_long_as_policy_says(
    world: World, client: Client, keyring: bytes
) -> None:
    pair = generate_ec(client, keyring)
    client.as_administrator().ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"read_only_max": 60}))
    lease(client.worker, mode=False)
    sign(client, keyring, pair.private.handle)
    world.now += 59
    lease(client.worker, mode=False)
    sign(client, keyring, pair.private.handle)
    world.now += 2
    lease(client.worker, mode=False)
    for _ in range(2):  # by the long way, and when all is cached
        with pytest.raises(errors.MemberReadOnly, match="more than 60 s"):
            sign(client, keyring, pair.private.handle)
    lease(client.worker, mode=True)
    sign(client, keyring, pair.private.handle)


def test_a_session_is_not_cached_when_what_it_was_checked_against_changed_meanwhile(
    world: World, client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = generate_ec(client, keyring)
    lease(client.worker, mode=True)
    answer = world.answer

    def changing(asked: Any) -> Any:
        answered = answer(asked)
        gets = asked.message.gets if isinstance(asked.message, store.Gets) else (asked.message,)
        for get in gets:
            if isinstance(get, store.Get) and get.key.table == "client":
                client.worker.invalidate(store.Invalidate(sequence=1, keys=(get.key,)))
        return answered

    monkeypatch.setattr(world, "answer", changing)
    sign(client, keyring, pair.private.handle)
    assert len(client.worker.caches.sessions) == 0


def test_a_request_goes_on_when_its_worker_drops_everything_while_it_waits(
    world: World, client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, left = world.answer, [3]

    def dropping(asked: Any) -> Any:
        if left[0]:
            left[0] -= 1
            client.worker.drop_everything()
        return answer(asked)

    monkeypatch.setattr(world, "answer", dropping)
    client.ask(objects.FIND, objects.Find(), keyring)
    left[0] = 3
    pair = generate_ec(client, keyring)
    left[0] = 3
    sign(client, keyring, pair.private.handle)
