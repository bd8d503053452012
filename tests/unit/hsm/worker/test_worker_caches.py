"""What the pure hsm worker keeps under its leases, and what it drops."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnh_common import errors, limits
from lnh_common.messages import admin, objects, store
from lnh_services.hsm.worker.core import WorkerCore
from models.worker import Client, World, generate_ec, sign
from sizes import sized


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


def labels(client: Client) -> list[str]:
    return sorted(each.label for each in client.ask(admin.KEYRING_LIST, admin.ListKeyrings()).keyrings)


@pytest.fixture
def lister(world: World, client: Client) -> Client:
    """A registered client without a login."""
    client.login()
    return client


def test_keyrings_that_were_listed_are_listed_again_without_a_question(world: World, lister: Client) -> None:
    other = Client(world, world.worker(), lister.key, lister.id)
    other.login()
    administrator = lister.as_administrator()
    made = administrator.ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label="ring", total=3)).keyrings

    def both(wanted: list[str]) -> None:
        assert [labels(each) for each in (lister, other)] == [wanted, wanted]
        asked = world.asked
        assert [labels(each) for each in (lister, other)] == [wanted, wanted]
        assert world.asked == asked

    both(["ring1", "ring2", "ring3"])
    administrator.ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label="payments"))
    both(["payments", "ring1", "ring2", "ring3"])
    administrator.ask(admin.KEYRING_DELETE, admin.KeyringRef(keyring=made[0].id))
    both(["payments", "ring2", "ring3"])
    others = Client(world, lister.worker).register("another")
    others.login()
    administrator.ask(admin.CLIENT_ASSIGN, admin.Assignment(client="another", keyring=made[1].id))
    both(["payments", "ring3"])
    assert labels(others) == ["payments", "ring2", "ring3"]
    administrator.ask(admin.CLIENT_UNASSIGN, admin.Assignment(client="another", keyring=made[1].id))
    both(["payments", "ring2", "ring3"])  # assigned to nobody, it is everybody's


@settings(max_examples=sized(40), deadline=None)
@given(
    st.lists(st.sampled_from(["create", "delete", "assign", "list here", "list there", "lease", "forget"]), max_size=25)
)
def test_a_list_that_was_kept_is_the_one_that_is_stored(steps: list[str]) -> None:
    world = World()
    here = Client(world, world.worker()).register()
    there = Client(world, world.worker(), here.key, here.id)
    here.login()
    there.login()
    administrator = here.as_administrator()
    seen: dict[str, bytes] = {}
    for number, step in enumerate(steps):
        if step == "create":
            made = administrator.ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label=f"ring{number}")).keyrings
            seen[made[0].label] = made[0].id
        elif step == "delete" and seen:
            administrator.ask(admin.KEYRING_DELETE, admin.KeyringRef(keyring=seen.popitem()[1]))
        elif step == "assign" and seen:
            label = min(seen)
            administrator.ask(admin.CLIENT_ASSIGN, admin.Assignment(client="client", keyring=seen[label]))
        elif step == "lease":
            lease(there.worker, mode=True)
        elif step == "forget":
            there.worker.drop_everything()
        elif step.startswith("list"):
            assert labels(here if step == "list here" else there) == sorted(seen)


def test_keyrings_that_changed_while_they_were_listed_are_not_kept(
    world: World, lister: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    lister.as_administrator().ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label="ring"))
    answer = world.answer
    change = store.Key(table="keyring", id=bytes(16))  # one that was made meanwhile, and is not on the page

    def changing(asked: Any) -> Any:
        answered = answer(asked)
        if isinstance(asked.message, store.Scan):
            lister.worker.invalidate(store.Invalidate(sequence=1, keys=(change,)))
        return answered

    monkeypatch.setattr(world, "answer", changing)
    assert labels(lister) == ["ring"]
    assert len(lister.worker.caches.pages) == 0
    monkeypatch.undo()
    assert labels(lister) == ["ring"]
    assert len(lister.worker.caches.pages) == 1
    lister.worker.invalidate(store.Invalidate(sequence=2, keys=(store.Key(table="client", id=lister.id),)))
    assert len(lister.worker.caches.pages) == 1


def test_keyrings_are_kept_under_a_lease_that_lets_them_be_and_no_longer(world: World, lister: Client) -> None:
    lister.as_administrator().ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label="ring"))
    pages = lister.worker.caches.pages
    world.store.current = False
    lease(lister.worker, mode=True)
    assert labels(lister) == ["ring"]
    assert len(pages) == 0
    lease(lister.worker, mode=False)
    assert labels(lister) == ["ring"]
    assert len(pages) == 1
    assert lister.ask(admin.KEYRING_LIST, admin.ListKeyrings()).behind is not None  # of what was kept, too
    lister.worker.lease_until = 0.0
    assert labels(lister) == ["ring"]
    assert len(pages) == 0


def test_a_list_that_leaves_something_out_is_not_kept(world: World, lister: Client) -> None:
    made = lister.as_administrator().ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label="ring", total=2)).keyrings
    items = world.store.storage.items
    at = ("keyring", b"", made[0].id)
    whole, items[at] = items[at], msgspec.structs.replace(items[at], body=bytes(32))
    assert [each.id for each in lister.ask(admin.KEYRING_LIST, admin.ListKeyrings()).skipped] == [made[0].id]
    items[at] = whole
    assert labels(lister) == ["ring1", "ring2"]


def test_whatever_pages_are_asked_for_no_more_are_kept_than_there_is_room_for(lister: Client) -> None:
    lister.as_administrator().ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label="ring"))
    for number in range(limits.CACHED_PAGES + 10):
        lister.ask(admin.KEYRING_LIST, admin.ListKeyrings(after=bytes(14) + number.to_bytes(2, "big")))
    assert len(lister.worker.caches.pages) == limits.CACHED_PAGES


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
