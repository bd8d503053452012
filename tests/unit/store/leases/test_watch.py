"""What those who watch are told."""

from __future__ import annotations

from lnh_common.messages.store import Key
from lnh_services.store.leases import watch
from lnh_services.store.leases.watch import Rate, RecentChanges

A, B = Key(table="a", id=b"1"), Key(table="b", id=b"1")


def test_only_what_changed_after_the_index_in_the_named_tables_is_told() -> None:
    recent = RecentChanges()
    recent.add(1, frozenset({A}))
    recent.add(2, frozenset({B}))
    recent.add(3, frozenset())
    told = recent.since(1, ["a", "b"])
    assert told is not None
    assert (told.index, told.keys, told.everything) == (3, (B,), False)
    assert recent.since(2, ["a", "b"]) is None
    assert recent.since(1, ["a"]) is None


def test_one_who_is_too_far_behind_or_from_another_state_reads_everything() -> None:
    recent = RecentChanges()
    recent.restart(10)
    for index in (9, 11):
        told = recent.since(index, ["a"])
        assert told is not None
        assert told.everything


def test_what_is_kept_is_bounded() -> None:
    recent = RecentChanges()
    for index in range(1, 40):
        recent.add(index, frozenset(Key(table="a", id=b"%d" % n) for n in range(1000)))
    told = recent.since(1, ["a"])
    assert told is not None
    assert told.everything
    assert recent._keys <= watch.KEPT_KEYS
    assert recent.since(39, ["a"]) is None


def test_a_rate_counts_its_window_only() -> None:
    rate = Rate(window=5)
    rate.add(0, 10)
    rate.add(4, 10)
    assert rate.at(4) == 4
    assert rate.at(6) == 2
    assert rate.at(20) == 0
