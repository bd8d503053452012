"""The kept log: what it says at each point, how it is shortened, and where two logs part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnh_common.messages.store import MemberInfo
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import (
    ClusterId,
    Entry,
    Epoch,
    LeaseSettings,
    MemberId,
    Members,
    Milliseconds,
    Open,
    SetChange,
)
from lnh_services.store.log.window import Base, Configuration, History
from lowered import lower

CLUSTER = ClusterId(b"C" * 16)
A, B, C = (MemberId(letter * 16) for letter in (b"A", b"B", b"C"))
INFO = {id_: MemberInfo(id=id_, name=id_[:1].decode(), host="::1", port=4000, key=bytes(32)) for id_ in (A, B, C)}
GENESIS = Base(log.genesis(CLUSTER), Milliseconds(0), Configuration())

_ids = st.lists(st.sampled_from([A, B, C]), min_size=1, unique=True).map(lambda ids: tuple(sorted(ids)))
_infos = _ids.map(lambda ids: tuple(INFO[id_] for id_ in ids))
_payloads = st.one_of(
    st.builds(Open, _infos, _ids),
    st.builds(SetChange, _ids),
    st.builds(Members, _infos),
    st.builds(LeaseSettings, st.integers(100, 5000)),
)


def _chain(payloads: list[log.Payload], before: History, number: int) -> list[Entry]:
    entries: list[Entry] = []
    last = before.last
    for payload in payloads:
        entries.append(log.make_entry(last, Epoch(number, A), Milliseconds(1), payload))
        last = entries[-1].position()
    return entries


def _history(payloads: list[log.Payload], number: int = 1) -> History:
    history = History(GENESIS)
    history.extend(_chain(payloads, history, number))
    return history


@given(st.lists(_payloads, min_size=1, max_size=12), st.data())
def test_what_stands_at_an_index_is_what_its_prefix_says_however_the_log_was_cut(
    payloads: list[log.Payload], data: st.DataObject
) -> None:
    history = _history(payloads)
    expected = [Configuration()]
    for entry in history.entries:
        expected.append(expected[-1].after(entry))
    if data.draw(st.booleans()):
        history.shorten(data.draw(st.integers(1, len(payloads))))
    first = history.base.position.index
    last = data.draw(st.integers(first, len(payloads)))
    dropped = history.truncate(last)
    assert [entry.index for entry in dropped] == list(range(last + 1, len(payloads) + 1))
    assert history.configuration == expected[last]
    for index in range(first, last + 1):
        assert history.configuration_at(index) == expected[index]
    assert [configuration for _, configuration in history.turns(first)] == _without_repeats(expected[first : last + 1])


def _without_repeats(configurations: list[Configuration]) -> list[Configuration]:
    return [each for number, each in enumerate(configurations) if number == 0 or each != configurations[number - 1]]


@given(st.lists(_payloads, max_size=20), st.lists(_payloads, max_size=20), st.lists(_payloads, max_size=20), st.data())
def test_an_outline_finds_a_position_of_both_logs_and_the_newest_without_a_fork(
    common: list[log.Payload], one: list[log.Payload], other: list[log.Payload], data: st.DataObject
) -> None:
    mine, theirs = _history(common), _history(common)
    mine.extend(_chain(one, mine, 2))
    theirs.extend(_chain(other, theirs, 3))
    shared = mine.shared(theirs.outline())
    assert shared is not None  # at least the genesis
    assert shared.index <= len(common)
    assert mine.has(shared)
    assert theirs.has(shared)
    if not other:
        assert shared.index == len(common)


def test_the_log_is_dropped_some_at_a_time_and_never_what_is_not_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, LOG_ENTRIES=8)
    history = _history([LeaseSettings(number) for number in range(1, 11)])
    assert history.surplus(10) == 0
    history.extend(_chain([LeaseSettings(100)], history, 1))
    assert history.surplus(11) == 3
    assert history.surplus(2) == 1
    base = history.shorten(3)
    assert (base.position.index, base.configuration.lease_settings) == (3, LeaseSettings(3))
    assert history.position(3) == base.position
    assert history.position(2) is None
    assert [entry.index for entry in history.following(3, 2, 10**6)] == [4, 5]


def test_a_member_joins_until_it_is_first_in_the_set_and_is_remembered_when_removed() -> None:
    history = _history([Open((INFO[A],), (A,)), Members((INFO[A], INFO[B]))])
    assert history.configuration.joining == ((B, 2),)
    history.extend(_chain([SetChange((A, B)), SetChange((A,)), Members((INFO[A],))], history, 1))
    assert history.configuration_at(3).joining == ()
    assert history.configuration_at(4).joining == ()
    assert [(removed.member, removed.index) for removed in history.configuration.removed] == [(B, 5)]
