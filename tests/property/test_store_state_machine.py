"""The state machine on dicts, on SQLite, and as a naive model says: all three agree."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, DeadlineExceeded, OutcomeUnknown
from lnh_common.messages.store import (
    Change,
    Commit,
    Delete,
    DeleteScope,
    Item,
    Key,
    Put,
    Require,
    Stage,
    Sweep,
    Switch,
    Unchanged,
    versions_hash,
)
from lnh_services.store.disk import items
from lnh_services.store.log.entries import Milliseconds
from lnh_services.store.machine import apply
from lnh_services.store.machine.restore_swap import ABANDONED_MS, EVERYTHING
from lowered import lower
from models.naive_store import Naive, kind
from models.storage import DictStorage
from sizes import sized

START = 1_700_000_000_000
WINDOW = limits.DUPLICATE_WINDOW * 1000

ids = st.sampled_from([b"a", b"b", b"c", b"d"])
scopes = st.sampled_from([b"", b"s"])
tags = st.lists(st.sampled_from([b"x", b"y", b"z"]), unique=True, max_size=3).map(tuple)
versions = st.integers(0, 3)


@st.composite
def keys(draw: st.DrawFn) -> Key:
    return Key(table=draw(st.sampled_from(["t", "u"])), scope=draw(scopes), id=draw(ids))


@st.composite
def puts(draw: st.DrawFn) -> Put:
    own = draw(tags)
    return Put(
        key=draw(keys()),
        expected=draw(versions),
        head=draw(st.binary(max_size=3)),
        body=draw(st.binary(max_size=3)),
        tags=own,
        unique=own[: draw(st.integers(0, 1))],
        limit=draw(st.none() | st.integers(0, 4)),
    )


changes = st.one_of(
    puts(),
    puts(),
    st.builds(Delete, key=keys(), expected=st.none() | versions),
    st.builds(DeleteScope, key=st.builds(Key, table=st.sampled_from(["t", "u"]), scope=scopes)),
    st.builds(Require, key=keys(), version=versions),
    st.builds(
        Unchanged,
        key=st.builds(Key, table=st.sampled_from(["t", "u"]), scope=scopes),
        hash=st.lists(st.tuples(ids, st.integers(1, 2)), max_size=2, unique_by=lambda each: each[0])
        .map(sorted)
        .map(versions_hash),
    ),
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[int, Commit]:
    """How much log time passes, and a request (a few names, so that many are repetitions)."""
    elapsed = draw(st.sampled_from([0, 1, 1000, 60_000, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW]))
    commit = Commit(
        client=draw(st.sampled_from([b"c" * 16, b"d" * 16])),
        session=draw(st.sampled_from([b"1" * 16, b"2" * 16])),
        sequence=draw(st.integers(1, 6)),
        issued_at=-draw(st.sampled_from([-1000, 0, 5, WINDOW, WINDOW + 1, 200 * WINDOW])),
        changes=tuple(draw(st.lists(changes, min_size=1, max_size=4))),
    )
    return elapsed, commit


def items_of(storage: DictStorage) -> dict[Key, Item]:
    return {item.key: item for item in storage.items.values()}


def _database() -> items.ItemStorage:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(items.SCHEMA)
    return items.ItemStorage(connection)


def _next_step(database: items.ItemStorage) -> items.ItemStorage:
    """End a durable step: what was kept for its end is written, and what was kept in memory is gone."""
    database.finish()
    return items.ItemStorage(database._connection)


@pytest.mark.parametrize("kept", [0, 2, 1024])
def test_dicts_sqlite_and_the_naive_model_agree(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, DUPLICATE_RECORDS=kept)

    @settings(max_examples=sized(60), deadline=None, derandomize=True)
    @given(st.lists(st.tuples(requests(), st.booleans()), max_size=40))
    def check(steps: list[tuple[tuple[int, Commit], bool]]) -> None:
        dicts, database, naive = DictStorage(), _database(), Naive()
        time = START
        for index, ((elapsed, commit), ends_a_step) in enumerate(steps, 1):
            time += elapsed
            issued = msgspec.structs.replace(commit, issued_at=max(0, time + commit.issued_at))
            fresh = naive.never_acted(issued)
            allowed = naive.allowed(index, time, issued)
            one = apply.apply(dicts, index, Milliseconds(time), issued)
            two = apply.apply(database, index, Milliseconds(time), issued)
            assert kind(one.answer) in [kind(answer) for answer in allowed] or (
                fresh and isinstance(one.answer, OutcomeUnknown) and dicts.mark(issued.client, issued.session)
            )
            if fresh and isinstance(one.answer, OutcomeUnknown):
                # The store could not know it as new; it did nothing, so the model must forget that it acted.
                naive = _without(naive, issued, dicts)
            assert kind(one.answer) == kind(two.answer)
            assert one.changed == two.changed
            assert items_of(dicts) == naive.items
            if ends_a_step or index == len(steps):
                database = _next_step(database)
                assert {item.key: item for item in database.everything()} == naive.items
            for table in ("t", "u"):
                for scope in (b"", b"s"):
                    assert database.count(table, scope) == dicts.count(table, scope)

    check()


def _without(naive: Naive, commit: Commit, truth: DictStorage) -> Naive:
    acted = naive.acted.pop((commit.client, commit.session, commit.sequence), None)
    if acted is not None:
        naive.orders[commit.client] -= 1
    naive.items = items_of(truth)
    return naive


def _write(sequence: int, issued_at: int, session: bytes = b"s" * 16, expected: int | None = None) -> Commit:
    key = Key(table="t", id=b"k%d" % sequence)
    change = Put(key=key, expected=0 if expected is None else expected, head=b"")
    return Commit(client=b"c" * 16, session=session, sequence=sequence, issued_at=issued_at, changes=(change,))


def test_a_record_outlives_the_window_while_it_is_among_the_newest() -> None:
    database = _database()
    apply.apply(database, 1, Milliseconds(START), _write(1, START))
    for sequence in range(2, limits.DUPLICATE_RECORDS + 1):
        late = START + 10 * WINDOW
        assert apply.apply(database, sequence, Milliseconds(late), _write(sequence, late)).answer == sequence
    again = apply.apply(database, 5000, Milliseconds(START + 10 * WINDOW), _write(1, START))
    assert again.answer == 1
    assert not again.changed


def test_a_record_beyond_the_newest_stays_until_the_window_has_passed() -> None:
    database = _database()
    for sequence in range(1, limits.DUPLICATE_RECORDS + 50):
        apply.apply(database, sequence, Milliseconds(START), _write(sequence, START))
    assert apply.apply(database, 5000, Milliseconds(START + WINDOW), _write(1, START)).answer == 1


def test_an_evicted_request_is_answered_outcome_unknown_and_does_not_act() -> None:
    database = _database()
    count = limits.DUPLICATE_RECORDS + 50
    for sequence in range(1, count):
        apply.apply(database, sequence, Milliseconds(START), _write(sequence, START))
    late = Milliseconds(START + WINDOW + 1)
    for sequence in range(count, count + 20):
        apply.apply(database, sequence, late, _write(sequence, late))
    answer = apply.apply(database, 9000, late, _write(1, late)).answer
    assert isinstance(answer, OutcomeUnknown)
    assert database.count("t", b"") == count + 19


def test_a_write_issued_before_the_window_is_refused_and_changes_nothing() -> None:
    database = _database()
    applied = apply.apply(database, 1, Milliseconds(START), _write(1, START - WINDOW - 1))
    assert isinstance(applied.answer, DeadlineExceeded)
    assert database.count("t", b"") == 0


def test_marks_go_when_nothing_they_cover_can_be_mistaken_for_new(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, DUPLICATE_RECORDS=1)
    dicts = DictStorage()
    for n, hours in enumerate(range(0, 24 * 7, 1), 1):
        time = Milliseconds(START + hours * 3_600_000)
        apply.apply(dicts, n, time, _write(n, time, session=n.to_bytes(16, "big")))
    assert len(dicts.marks) <= 26
    end = Milliseconds(START + 24 * 7 * 3_600_000)
    for n, hours in enumerate(range(0, 24 * 7, 1), 1):
        issued = START + hours * 3_600_000
        again = apply.apply(dicts, 9000 + n, end, _write(n, issued, session=n.to_bytes(16, "big")))
        assert again.answer == n or isinstance(again.answer, OutcomeUnknown)
        assert not again.changed


# --- restores

staged = st.builds(
    Item, key=keys(), version=st.integers(1, 9), head=st.binary(max_size=3), body=st.binary(max_size=3), tags=tags
)
acts = st.one_of(
    changes,
    st.tuples(st.sampled_from(["begin", "stage", "stage", "foreign"]), st.lists(staged, max_size=3).map(tuple)),
    st.tuples(st.just("switch"), st.sampled_from([(), ("u",), ("t", "u")])),
    st.builds(Sweep, limit=st.integers(1, 3)),
)
pauses = st.sampled_from([0, 1000, ABANDONED_MS, ABANDONED_MS + 1])


@settings(max_examples=sized(60), deadline=None)
@given(st.lists(st.tuples(pauses, st.lists(acts, min_size=1, max_size=3)), max_size=25))
def test_a_restore_takes_the_place_of_everything_at_once_or_not_at_all(
    steps: list[tuple[int, list[Change | tuple[str, tuple[Any, ...]]]]],
) -> None:
    dicts, database, naive = DictStorage(), _database(), Naive()
    time, restore = START, 0

    def change_of(act: Change | tuple[str, tuple[Any, ...]]) -> Change:
        nonlocal restore
        if not isinstance(act, tuple):
            return act
        what, values = act
        restore += what == "begin"
        name = (9999 if what == "foreign" else restore).to_bytes(16, "big")
        return Switch(restore=name, carried=values) if what == "switch" else Stage(
            restore=name, items=values, begins=what == "begin"
        )  # fmt: skip

    for index, (elapsed, parts) in enumerate(steps, 1):
        time += elapsed
        commit = Commit(
            client=b"c" * 16,
            session=b"s" * 16,
            sequence=index,
            issued_at=time,
            changes=tuple(change_of(part) for part in parts),
        )
        apply.check(commit)
        (allowed,) = naive.allowed(index, time, commit)
        one = apply.apply(dicts, index, Milliseconds(time), commit)
        two = apply.apply(database, index, Milliseconds(time), commit)
        assert kind(one.answer) == kind(two.answer) == kind(allowed)
        assert one.changed == two.changed
        assert (EVERYTHING in one.changed) == (
            isinstance(one.answer, int) and any(isinstance(change, Switch) for change in commit.changes)
        )
        database = _next_step(database)
        assert items_of(dicts) == naive.items == {item.key: item for item in database.everything()}
        counts, hidden = database.totals()
        assert sum(counts.values()) == len(naive.items)
        assert hidden == len(dicts.aside)
        assert database.eras() == dicts.eras()
    while database.totals()[1]:
        before = database.totals()[1]
        for storage in (dicts, database):
            apply.apply(storage, 1000, Milliseconds(time + 2 * ABANDONED_MS), _sweep(before, time + 2 * ABANDONED_MS))
        database = _next_step(database)
        assert database.totals()[1] == len(dicts.aside) < before, "what nobody sees is gone in the end"
    assert {item.key: item for item in database.everything()} == naive.items
    left = database._connection.execute("SELECT count(*) FROM tags").fetchone()
    assert left == (sum(len(item.tags) for item in naive.items.values()),)


def _sweep(sequence: int, now: int) -> Commit:
    return Commit(
        client=b"w" * 16, session=b"s" * 16, sequence=sequence, issued_at=now, changes=(Sweep(limit=2),)
    )  # fmt: skip


def test_tables_of_the_stores_own_are_not_to_be_had() -> None:
    for table in ("~eras", "00/t", "~x"):
        for change in (
            Put(key=Key(table=table, id=b"i"), expected=0, head=b""),
            Stage(restore=b"r" * 16, items=(Item(key=Key(table=table, id=b"i"), version=1, head=b""),)),
        ):
            with pytest.raises(ArgumentInvalid):
                apply.check(Commit(client=b"c" * 16, session=b"s" * 16, sequence=1, issued_at=0, changes=(change,)))
