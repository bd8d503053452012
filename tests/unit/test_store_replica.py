"""The replica's rules one by one; what they come to together is tested by the simulation."""

from __future__ import annotations

import pytest

from lnh_common.errors import StorageFailed
from lnh_common.messages.store import Commit, DeleteScope, Key, Put
from lnh_services.store import log
from lnh_services.store import replica as core
from lnh_services.store.log import ClusterId, Epoch, MemberId, Milliseconds, Open
from lnh_services.store.replica import Durable, InSync, Interest, Phase, ReadId, Replica, RequestId

CLUSTER, ME, OTHER = ClusterId(b"C" * 16), MemberId(b"M" * 16), MemberId(b"N" * 16)
NOW = Milliseconds(1_000_000)


def _commit(key: Key, sequence: int = 1) -> Commit:
    put = Put(key=key, expected=0, head=b"") if key.id else DeleteScope(key=key)
    return Commit(client=b"c" * 16, session=b"s" * 16, sequence=sequence, issued_at=NOW, changes=(put,))


KEY = Key(table="t", scope=b"s", id=b"1")


def _founded() -> Replica:
    replica = Replica(b"i" * 16)
    found, forget = replica.create(NOW, RequestId(1), CLUSTER, ME)
    assert isinstance(found, core.Found)
    assert isinstance(forget, core.Forget)
    replica.forgotten(forget.round)
    assert replica.persisted(found.receipt, {}) == [core.Reply(RequestId(1), 1, 1)]
    return replica


def _write(replica: Replica, key: Key = KEY, now: Milliseconds = NOW) -> tuple[core.Forget, core.Persist]:
    forget, persist = replica.write(now, [(RequestId(2), _commit(key))])
    assert isinstance(forget, core.Forget)
    assert isinstance(persist, core.Persist)
    return forget, persist


def _durable(promised: Epoch, last_epoch: Epoch, members: tuple[MemberId, ...] = (ME,)) -> Durable:
    entry = log.make_entry(log.genesis(CLUSTER), last_epoch, NOW, Open(ME, members, members))
    return Durable(CLUSTER, ME, promised, entry.position(), NOW, 1, members, (InSync(1, members),))


def test_a_new_cluster_has_this_member_as_primary_and_its_only_member() -> None:
    replica = _founded()
    assert replica.phase is Phase.PRIMARY
    assert (replica.primary, replica.members, replica.in_sync) == (ME, (ME,), (ME,))
    assert (replica.committed, replica.epoch) == (1, Epoch(1, ME))


def test_a_write_is_answered_only_when_it_is_durable_and_forgotten() -> None:
    replica = _founded()
    forget, persist = _write(replica)
    assert persist.committed == 2
    assert replica.persisted(persist.receipt, {2: 2}) == []
    assert replica.forgotten(forget.round) == [core.Reply(RequestId(2), 2, 2)]


def test_caches_may_have_forgotten_before_the_entry_is_durable() -> None:
    replica = _founded()
    forget, persist = _write(replica)
    assert replica.forgotten(forget.round) == []
    assert replica.persisted(persist.receipt, {2: 2}) == [core.Reply(RequestId(2), 2, 2)]


def test_every_changed_key_of_a_batch_is_forgotten_in_one_round() -> None:
    replica = _founded()
    other = Key(table="t", scope=b"s", id=b"2")
    effects = replica.write(NOW, [(RequestId(2), _commit(KEY)), (RequestId(3), _commit(other, 2))])
    forgets = [effect for effect in effects if isinstance(effect, core.Forget)]
    assert [forget.keys for forget in forgets] == [frozenset({KEY, other})]


def test_reads_of_what_is_in_flight_wait_until_it_is_answered() -> None:
    replica = _founded()
    forget, persist = _write(replica)
    assert replica.read(ReadId(1), Interest("t", b"s", b"1")) == []
    assert replica.read(ReadId(2), Interest("t", b"s")) == []
    assert replica.read(ReadId(3), None) == []
    assert replica.read(ReadId(4), Interest("t", b"s", b"2")) == [core.Serve(ReadId(4))]
    assert replica.read(ReadId(5), Interest("t", b"other")) == [core.Serve(ReadId(5))]
    replica.withdraw(ReadId(2))
    replica.persisted(persist.receipt, {2: 2})
    served = replica.forgotten(forget.round)
    assert served == [core.Reply(RequestId(2), 2, 2), core.Serve(ReadId(1)), core.Serve(ReadId(3))]


def test_deleting_a_scope_makes_reads_of_each_of_its_items_wait() -> None:
    replica = _founded()
    _write(replica, Key(table="t", scope=b"s"))
    assert replica.read(ReadId(1), Interest("t", b"s", b"1")) == []


def test_log_time_never_goes_back() -> None:
    replica = _founded()
    forget, persist = _write(replica, now=Milliseconds(NOW - 5000))
    assert persist.entries[0].log_time == NOW
    replica.forgotten(forget.round)
    replica.persisted(persist.receipt, {})
    assert _write(replica, now=Milliseconds(NOW + 1))[1].entries[0].log_time == NOW + 1


def test_a_restart_promises_the_next_epoch_before_it_opens_it() -> None:
    replica = Replica(b"i" * 16)
    promise, forget = replica.recover(_durable(Epoch(3, ME), Epoch(1, ME)))
    assert promise == core.Promise(Epoch(4, ME))
    assert isinstance(forget, core.Forget)
    assert forget.everything
    assert not replica.idle
    (persist,) = replica.has_promised(NOW, Epoch(4, ME))
    assert isinstance(persist, core.Persist)
    assert isinstance(persist.entries[0].content(), Open)
    assert (persist.entries[0].epoch, persist.committed) == (Epoch(4, ME), 2)
    replica.persisted(persist.receipt, {})
    assert not replica.is_read_write
    replica.forgotten(forget.round)
    assert replica.is_read_write


def test_nothing_commits_without_the_others_of_the_set() -> None:
    replica = Replica(b"i" * 16)
    replica.recover(_durable(Epoch(1, ME), Epoch(1, ME), (ME, OTHER)))
    (persist,) = replica.has_promised(NOW, Epoch(2, ME))
    assert isinstance(persist, core.Persist)
    assert persist.committed == 1
    replica.acknowledged[OTHER] = 2
    assert replica._committable(2) == 2


def test_nothing_commits_in_an_epoch_before_its_open() -> None:
    replica = Replica(b"i" * 16)
    replica.recover(_durable(Epoch(1, ME), Epoch(1, ME), (ME, OTHER)))
    replica.has_promised(NOW, Epoch(2, ME))
    replica.committed = 0
    replica.acknowledged[OTHER] = 1
    assert replica._committable(2) == 0


def test_an_acknowledgement_of_another_incarnation_stops_the_replica() -> None:
    replica = _founded()
    _, persist = _write(replica)
    stale = core.Acknowledgement(persist.receipt.epoch, 2, persist.receipt.hash, b"o" * 16)
    with pytest.raises(AssertionError):
        replica.persisted(stale, {})


def test_what_the_disk_refused_never_was() -> None:
    replica = _founded()
    forget, persist = _write(replica)
    replica.read(ReadId(1), Interest("t", b"s", b"1"))
    full = StorageFailed("full")
    assert replica.refused(full) == [core.Reply(RequestId(2), full), core.Serve(ReadId(1))]
    assert replica.forgotten(forget.round) == []
    again = _write(replica)[1]
    assert again.entries[0].index == persist.entries[0].index
    assert again.entries[0].previous == persist.entries[0].previous


def test_an_epoch_the_disk_refused_is_opened_later() -> None:
    replica = Replica(b"i" * 16)
    _, forget = replica.recover(_durable(Epoch(1, ME), Epoch(1, ME)))
    assert isinstance(forget, core.Forget)
    replica.forgotten(forget.round)
    replica.refused(StorageFailed("full"))
    assert replica.retry(NOW) == [core.Promise(Epoch(2, ME))]
    assert replica.read(ReadId(1), Interest("t", b"s", b"1")) == [core.Serve(ReadId(1))]
    replica.has_promised(NOW, Epoch(2, ME))
    replica.refused(StorageFailed("full"))
    (persist,) = replica.retry(NOW)
    assert isinstance(persist, core.Persist)
    assert persist.entries[0].index == 2
    replica.persisted(persist.receipt, {})
    assert replica.is_read_write


def test_reads_after_a_refused_opening_wait_until_older_caches_have_forgotten() -> None:
    replica = Replica(b"i" * 16)
    _, forget = replica.recover(_durable(Epoch(1, ME), Epoch(1, ME)))
    assert isinstance(forget, core.Forget)
    replica.refused(StorageFailed("full"))
    assert replica.read(ReadId(1), Interest("t", b"s", b"1")) == []
    assert replica.retry(NOW) == []
    assert replica.forgotten(forget.round) == [core.Serve(ReadId(1))]
    assert replica.retry(NOW) == [core.Promise(Epoch(2, ME))]


def test_a_refused_creation_leaves_no_cluster() -> None:
    replica = Replica(b"i" * 16)
    replica.create(NOW, RequestId(1), CLUSTER, ME)
    replica.refused(StorageFailed("full"))
    assert (replica.phase, replica.cluster, replica.idle) == (Phase.NONE, b"", True)


def test_an_erased_store_holds_nothing_and_says_so_only_when_caches_forgot() -> None:
    replica = _founded()
    forget, erase = replica.destroy(RequestId(9))
    assert isinstance(forget, core.Forget)
    assert erase == core.Erase()
    assert replica.erased() == []
    assert replica.forgotten(forget.round) == [core.Reply(RequestId(9), 0)]
    assert (replica.phase, replica.cluster) == (Phase.NONE, b"")
