"""Worker leases and invalidations, in virtual time."""

from __future__ import annotations

from lnh_services.store.leases.worker_leases import Grant, WorkerId, WorkerLeases
from lnh_services.store.replication.messages import Seconds

ONE, TWO = WorkerId(b"1" * 16), WorkerId(b"2" * 16)


def _leases(fence: float = 0.0) -> WorkerLeases:
    return WorkerLeases(1000, Seconds(fence))


def test_a_worker_that_is_not_known_begins_with_empty_caches() -> None:
    leases = _leases()
    assert leases.attach(Seconds(10), ONE).fresh
    assert not leases.attach(Seconds(10.5), ONE).fresh
    assert leases.attach(Seconds(11.6), ONE).fresh


def test_an_invalidation_with_nobody_is_over_at_once() -> None:
    leases = _leases()
    assert leases.begin(Seconds(10), 1) == []
    assert leases.finished(Seconds(10)) == [1]
    assert leases.next_change() is None


def test_an_invalidation_ends_when_everyone_has_said_so() -> None:
    leases = _leases()
    leases.attach(Seconds(10), ONE)
    leases.attach(Seconds(10), TWO)
    assert set(leases.begin(Seconds(10.1), 1)) == {ONE, TWO}
    leases.invalidated(ONE, 1)
    assert leases.finished(Seconds(10.2)) == []
    leases.invalidated(TWO, 1)
    assert leases.finished(Seconds(10.2)) == [1]


def test_a_silent_workers_invalidation_ends_with_its_lease_and_not_before() -> None:
    leases = _leases()
    leases.attach(Seconds(10), ONE)
    leases.begin(Seconds(10.5), 1)
    assert leases.next_change() == Seconds(11)
    assert leases.finished(Seconds(10.999)) == []
    assert leases.finished(Seconds(11)) == [1]


def test_a_worker_that_owes_an_answer_gets_only_what_is_left_of_its_lease() -> None:
    leases = _leases()
    leases.attach(Seconds(10), ONE)
    leases.begin(Seconds(10.5), 1)
    assert leases.attach(Seconds(10.75), ONE).lease_ms == 1000
    assert leases.attach(Seconds(11.25), ONE).lease_ms == 500
    assert leases.finished(Seconds(11.7)) == []
    assert leases.finished(Seconds(11.75)) == [1]


def test_steady_writes_end_no_lease() -> None:
    leases = _leases()
    leases.attach(Seconds(10), ONE)
    for number in range(1, 100):
        now = 10 + number * 0.3
        leases.begin(Seconds(now), number)
        leases.invalidated(ONE, number - 1)
        assert leases.attach(Seconds(now + 0.1), ONE) == Grant(1000, fresh=False, read_write=True)


def test_a_word_about_another_invalidation_changes_nothing() -> None:
    leases = _leases()
    leases.attach(Seconds(10), ONE)
    leases.begin(Seconds(10), 2)
    leases.invalidated(ONE, 1)
    leases.invalidated(TWO, 2)
    assert leases.finished(Seconds(10.1)) == []


def test_no_invalidation_is_over_before_leases_of_an_earlier_incarnation_have_ended() -> None:
    leases = _leases(fence=11)
    leases.begin(Seconds(10), 1)
    assert leases.finished(Seconds(10.9)) == []
    assert leases.next_change() == Seconds(11)
    assert leases.finished(Seconds(11)) == [1]


def test_the_latest_end_covers_every_lease_granted() -> None:
    leases = _leases(fence=9)
    leases.attach(Seconds(10), ONE)
    assert leases.latest_end(Seconds(10.5)) == Seconds(11)
    assert leases.latest_end(Seconds(12)) == Seconds(12)


def test_a_lease_never_outlasts_what_it_may_and_an_earlier_longer_one_still_counts() -> None:
    leases = _leases()
    assert leases.attach(Seconds(10), ONE, until=Seconds(10.25)).lease_ms == 250
    assert leases.attach(Seconds(10.1), ONE, until=Seconds(20)).lease_ms == 1000
    assert leases.attach(Seconds(10.2), ONE, until=Seconds(10.5)).lease_ms == 300
    assert leases.begin(Seconds(10.6), 1) == [ONE]  # the answer with the shorter lease may have been lost
    assert leases.finished(Seconds(11.0)) == []
    assert leases.finished(Seconds(11.2)) == [1]
    assert leases.attach(Seconds(12), TWO, until=Seconds(11)).lease_ms == 0


def test_after_an_invalidation_about_everything_every_lease_begins_anew() -> None:
    leases = _leases()
    leases.attach(Seconds(10), ONE, read_write=False)
    leases.attach(Seconds(10), TWO, read_write=False)
    leases.begin(Seconds(10.1), 1, everything=True)
    assert leases.attach(Seconds(10.1), TWO, read_write=False).lease_ms == 0
    leases.invalidated(ONE, 1)
    assert leases.attach(Seconds(10.2), ONE, read_write=False).lease_ms == 0  # it could cache what is not current
    assert leases.finished(Seconds(10.2)) == []
    leases.invalidated(TWO, 1)
    assert leases.finished(Seconds(10.3)) == [1]
    for worker in (ONE, TWO):
        assert leases.attach(Seconds(10.4), worker, read_write=True) == Grant(1000, fresh=True, read_write=True)


def test_a_lease_keeps_its_mode_until_it_ends() -> None:
    leases = _leases()
    leases.attach(Seconds(10), ONE)
    assert leases.attach(Seconds(10.4), ONE, read_write=False) == Grant(600, fresh=False, read_write=True)
    assert leases.attach(Seconds(11), ONE, read_write=False) == Grant(1000, fresh=True, read_write=False)
    assert leases.attach(Seconds(11.5), ONE, read_write=False) == Grant(1000, fresh=False, read_write=False)
    assert leases.attach(Seconds(11.6), ONE, read_write=True).lease_ms == 0
    assert leases.attach(Seconds(12.5), ONE, read_write=True) == Grant(1000, fresh=True, read_write=True)
