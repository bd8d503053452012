"""The replica's rules one by one, by hand-fed events; what they come to together is tested by the simulation."""

from __future__ import annotations

from typing import TypeVar

import pytest
from msgspec.structs import replace

from lnh_common.errors import MemberReadOnly, NotPossible, OutcomeUnknown, StorageFailed
from lnh_common.messages.store import Commit, DeleteScope, Key, MemberInfo, Put, Sweep
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import (
    ClusterId,
    Epoch,
    LeaseSettings,
    MemberId,
    Milliseconds,
    Open,
    SetChange,
    Write,
)
from lnh_services.store.log.window import Base, Configuration, Removed
from lnh_services.store.replication import messages as say
from lnh_services.store.replication import primary
from lnh_services.store.replication.durability import APPLIED_AT_ONCE
from lnh_services.store.replication.messages import Durable, Effect, Instant, ReadId, RequestId, Seconds
from lnh_services.store.replication.primary import granted_ms
from lnh_services.store.replication.replica import Interest, Phase, Replica

CLUSTER = ClusterId(b"C" * 16)
A, B, C = (MemberId(letter * 16) for letter in (b"A", b"B", b"C"))
INFO = {id_: MemberInfo(id=id_, name=id_[:1].decode(), host="::1", port=4000, key=bytes(32)) for id_ in (A, B, C)}
KEY = Key(table="t", scope=b"s", id=b"1")
E = TypeVar("E")


def at(seconds: float = 0.0) -> Instant:
    return Instant(Seconds(1000 + seconds), Milliseconds(int(1_000_000 + seconds * 1000)))


def commit(key: Key = KEY, sequence: int = 1) -> Commit:
    put = Put(key=key, expected=0, head=b"") if key.id else DeleteScope(key=key)
    return Commit(client=b"c" * 16, session=b"s" * 16, sequence=sequence, issued_at=1_000_000, changes=(put,))


def only(kind: type[E], effects: list[Effect]) -> E:
    (found,) = (effect for effect in effects if isinstance(effect, kind))
    return found


def said(effects: list[Effect], to: MemberId) -> list[say.Message]:
    return [effect.message for effect in effects if isinstance(effect, say.Send) and effect.to == to]


def carried_out(replica: Replica, effects: list[Effect], now: Instant) -> list[Effect]:
    """What is left when disk and caches do at once what they are asked: replies, messages, reads."""
    left: list[Effect] = []
    todo = list(effects)
    while todo:
        effect = todo.pop(0)
        if isinstance(effect, say.Persist):
            todo += replica.persisted(now, effect.number, {})
        elif isinstance(effect, say.Invalidate):
            todo += replica.invalidated(now, effect.number)
        else:
            left.append(effect)
    return left


def founded() -> Replica:
    replica = Replica(b"i" * 16)
    effects = carried_out(replica, replica.create(at(), RequestId(1), CLUSTER, INFO[A]), at())
    assert only(say.Reply, effects) == say.Reply(RequestId(1), 1, 1)
    return replica


def begun(replica: Replica, key: Key = KEY, now: Instant | None = None, number: int = 2) -> list[Effect]:
    assert replica.submit(now or at(), RequestId(number), commit(key, number)) == []
    return replica.flush(now or at())


def durable(members: tuple[MemberId, ...], *, candidate: MemberId, promised: Epoch | None = None) -> Durable:
    """What a member finds that stored the `open` of epoch 1 and knows it committed."""
    epoch = Epoch(1, candidate)
    infos = tuple(INFO[member] for member in members)
    entry = log.make_entry(log.genesis(CLUSTER), epoch, Milliseconds(1), Open(infos, members))
    base = Base(log.genesis(CLUSTER), Milliseconds(0), Configuration())
    return Durable(CLUSTER, A, promised or epoch, base, (entry,), 1)


def member_of(candidate: MemberId = B) -> Replica:
    """A follows `candidate`, in a set with it."""
    replica = Replica(b"i" * 16)
    carried_out(replica, replica.recover(at(), durable((A, candidate), candidate=candidate)), at())
    return replica


def primary_of(*others: MemberId) -> tuple[Replica, dict[MemberId, bytes]]:
    """A is primary of a set of itself and `others`, whose incarnations are answered too."""
    replica = Replica(b"i" * 16)
    incarnations = {other: other[:1] * 8 for other in others}
    effects = carried_out(replica, replica.recover(at(), durable((A, *others), candidate=A)), at())
    epoch = Epoch(2, A)
    assert [said(effects, other) for other in others] == [[say.Prepare(epoch)] for _ in others]
    for other in others:
        report = replace(replica.report(epoch), kept=None)
        effects = carried_out(replica, replica.receive(at(), other, report), at())
    for other in others:
        carried_out(replica, replica.receive(at(), other, say.Kept(epoch)), at())
        carried_out(replica, replica.receive(at(), other, say.Ping(epoch, incarnations[other], 1)), at())
    for other in others:
        acknowledge(replica, other, incarnations[other])
    assert replica.phase is Phase.PRIMARY
    return replica, incarnations


def acknowledge(
    replica: Replica, member: MemberId, incarnation: bytes, now: Instant | None = None, epoch: Epoch | None = None
) -> list[Effect]:
    last = replica.history.last
    message = say.Appended(epoch or replica.promised, last.index, last.hash, incarnation, last.index)
    return carried_out(replica, replica.receive(now or at(), member, message), now or at())


# Alone


def test_a_new_cluster_has_this_member_as_primary_and_its_only_member() -> None:
    replica = founded()
    assert replica.phase is Phase.PRIMARY
    assert (replica.primary, replica.ids, replica.configuration.in_sync) == (A, (A,), (A,))
    assert (replica.committed, replica.promised) == (1, Epoch(1, A))


def test_a_write_is_answered_only_when_it_is_durable_and_in_no_cache() -> None:
    replica = founded()
    effects = begun(replica)
    persist, invalidation = only(say.Persist, effects), only(say.Invalidate, effects)
    assert persist.committed == 2
    assert replica.persisted(at(), persist.number, {2: 2}) == []
    assert replica.invalidated(at(), invalidation.number) == [say.Reply(RequestId(2), 2, 2)]


def test_caches_may_be_invalidated_before_the_entry_is_durable() -> None:
    replica = founded()
    effects = begun(replica)
    assert replica.invalidated(at(), only(say.Invalidate, effects).number) == []
    answered = replica.persisted(at(), only(say.Persist, effects).number, {2: 2})
    assert answered == [say.Reply(RequestId(2), 2, 2)]


def test_what_comes_during_a_step_is_the_next_one() -> None:
    replica = founded()
    effects = begun(replica)
    assert begun(replica, number=3) == []
    assert begun(replica, number=4) == []
    then = replica.persisted(at(), only(say.Persist, effects).number, {2: 2})
    assert [entry.index for entry in only(say.Persist, then).entries] == [3, 4]


def test_a_step_applies_only_so_much_and_the_rest_follows() -> None:
    replica = founded()
    sweep = Commit(client=b"c" * 16, session=b"s" * 16, sequence=1, issued_at=1_000_000, changes=(Sweep(limit=2000),))
    deep = replace(commit(), changes=(Put(key=KEY, expected=0, head=bytes(2_000_000)),))
    effects: list[Effect] = []
    for number, each in enumerate([sweep] * 5 + [commit()] * 3 + [deep, sweep], 2):
        effects += replica.submit(at(), RequestId(number), replace(each, sequence=number))
    effects += replica.flush(at())
    before, applied, answered = replica.applied, [], []
    while steps := [effect for effect in effects if isinstance(effect, say.Persist)]:
        (step,) = steps
        applied.append(step.committed)
        answered += [effect.request for effect in carried_out(replica, [e for e in effects if e is not step], at())
                     if isinstance(effect, say.Reply)]  # fmt: skip
        effects = replica.persisted(at(), step.number, {})
    answered += [effect.request for effect in carried_out(replica, effects, at()) if isinstance(effect, say.Reply)]
    assert APPLIED_AT_ONCE == 4096
    # Two sweeps at a time; the large one weighs nearly as much as a step may.
    assert [index - before for index in applied] == [2, 4, 8, 9, 10]
    assert sorted(answered) == list(range(2, 12))


def test_reads_of_what_is_in_flight_wait_and_others_do_not() -> None:
    replica = founded()
    effects = begun(replica)
    assert replica.read(at(), ReadId(1), Interest("t", b"s", b"1")) == []
    assert replica.read(at(), ReadId(2), Interest("t", b"s")) == []
    assert replica.read(at(), ReadId(3), None) == []
    assert replica.read(at(), ReadId(4), Interest("t", b"s", b"2")) == [say.Serve(ReadId(4), current=True)]
    assert replica.read(at(), ReadId(5), Interest("t", b"other")) == [say.Serve(ReadId(5), current=True)]
    replica.withdraw_read(ReadId(2))
    left = carried_out(replica, effects, at())
    assert left == [
        say.Reply(RequestId(2), 2, 2), say.Serve(ReadId(1), current=True), say.Serve(ReadId(3), current=True)
    ]  # fmt: skip


def test_deleting_a_scope_makes_reads_of_each_of_its_items_wait() -> None:
    replica = founded()
    begun(replica, Key(table="t", scope=b"s"))
    assert replica.read(at(), ReadId(1), Interest("t", b"s", b"1")) == []


def test_log_time_never_goes_back() -> None:
    replica = founded()
    effects = begun(replica, now=Instant(at().boot, Milliseconds(5)))
    assert only(say.Persist, effects).entries[0].log_time == at().utc


def test_a_restart_promises_the_next_epoch_before_it_opens_it() -> None:
    replica = Replica(b"i" * 16)
    effects = replica.recover(at(), durable((A,), candidate=A, promised=Epoch(3, A)))
    promise, invalidation = only(say.Persist, effects), only(say.Invalidate, effects)
    assert (promise.promised, promise.entries, invalidation.everything) == (Epoch(4, A), (), True)
    opening = only(say.Persist, replica.persisted(at(), promise.number, {}))
    assert isinstance(opening.entries[0].content(), Open)
    assert (opening.entries[0].epoch, opening.committed) == (Epoch(4, A), 2)
    replica.persisted(at(), opening.number, {})
    assert not replica.is_serving()  # its caches may hold what an earlier incarnation never knew
    replica.invalidated(at(), invalidation.number)
    assert replica.is_serving()


def test_what_a_full_disk_refuses_never_was() -> None:
    replica = founded()
    effects = begun(replica)
    error = StorageFailed("full")
    assert replica.refused(at(), only(say.Persist, effects).number, error) == [say.Reply(RequestId(2), error)]
    assert (replica.history.last.index, replica.committed) == (1, 1)
    replica.invalidated(at(), only(say.Invalidate, effects).number)
    carried_out(replica, replica.tick(at(0.1)), at(0.1))  # looks whether the disk takes writes again
    again = carried_out(replica, begun(replica, number=3), at())
    assert only(say.Reply, again) == say.Reply(RequestId(3), 2, 2)


def test_a_refused_creation_leaves_no_cluster() -> None:
    replica = Replica(b"i" * 16)
    effects = replica.create(at(), RequestId(1), CLUSTER, INFO[A])
    error = StorageFailed("full")
    assert replica.refused(at(), only(say.Persist, effects).number, error) == [say.Reply(RequestId(1), error)]
    assert replica.phase is Phase.NONE


def test_a_joiner_whose_disk_is_full_is_told_so_and_may_begin_again() -> None:
    replica = Replica(b"i" * 16)
    error = StorageFailed("the disk is full")
    effects = replica.adopt(at(), RequestId(1), CLUSTER, INFO[A], (INFO[A], INFO[B]))
    assert say.Reply(RequestId(1), error) in replica.refused(at(), only(say.Persist, effects).number, error)
    assert replica.phase is Phase.NONE
    effects = carried_out(replica, replica.adopt(at(), RequestId(2), CLUSTER, INFO[A], (INFO[A], INFO[B])), at())
    assert say.Reply(RequestId(2), 0) in effects


def test_erasing_ends_in_no_cluster() -> None:
    replica = founded()
    erase = only(say.Erase, replica.destroy(at(), RequestId(9)))
    assert replica.persisted(at(), erase.number, {}) == [say.Reply(RequestId(9), 0)]
    assert (replica.phase, replica.cluster) == (Phase.NONE, b"")


# With others


def test_nothing_is_committed_before_every_member_of_the_set_acknowledged_it() -> None:
    replica, incarnations = primary_of(B, C)
    carried_out(replica, begun(replica), at())
    acknowledge(replica, B, incarnations[B])
    assert replica.committed < replica.history.last.index
    answered = acknowledge(replica, C, incarnations[C])
    assert only(say.Reply, answered).request == RequestId(2)


@pytest.mark.parametrize("more", [False, True])
def test_that_entries_are_committed_is_said_with_the_next_or_once_it_is_applied(more: bool) -> None:
    replica, incarnations = primary_of(B)
    carried_out(replica, begun(replica), at())
    last = replica.history.last
    message = say.Appended(replica.promised, last.index, last.hash, incarnations[B], last.index)
    acknowledged = replica.receive(at(), B, message)
    assert replica.committed == last.index
    assert said(acknowledged, B) == []
    if more:
        assert begun(replica, number=3) == [], "the disk applies, and what comes meanwhile waits"
    applied = replica.persisted(at(), only(say.Persist, acknowledged).number, {})
    (append,) = said(applied, B)
    assert isinstance(append, say.Append)
    assert append.committed == last.index
    assert len(append.entries) == more


@pytest.mark.parametrize("wrong", ["epoch", "hash", "incarnation"])
def test_an_acknowledgement_that_differs_in_anything_does_not_count(wrong: str) -> None:
    replica, incarnations = primary_of(B)
    carried_out(replica, begun(replica), at())
    last = replica.history.last
    fields = {"epoch": replica.promised, "hash": last.hash, "incarnation": incarnations[B]}
    fields[wrong] = {"epoch": Epoch(1, A), "hash": bytes(32), "incarnation": b"another"}[wrong]
    message = say.Appended(index=last.index, matched=last.index, **fields)  # type: ignore[arg-type]
    replica.receive(at(), B, message)
    assert replica.committed < last.index


def test_a_member_that_starts_again_far_down_a_long_log_is_sent_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(primary, "WINDOW", 10)
    replica, incarnations = primary_of(B)
    for number in range(40):
        carried_out(replica, begun(replica, number=10 + number), at())
        acknowledge(replica, B, incarnations[B])
    assert replica.committed == replica.history.last.index > 40
    shared = replica.history.position(35)
    assert shared is not None
    carried_out(replica, replica.receive(at(), B, say.Ping(replica.promised, b"new" * 5, 1)), at())
    behind = say.Behind(replica.promised, b"new" * 5, (shared,), diverged=False)
    (append,) = said(carried_out(replica, replica.receive(at(), B, behind), at()), B)
    assert isinstance(append, say.Append)
    assert (append.previous, append.entries[0].index, len(append.entries)) == (shared, 36, replica.committed - 35)


def test_a_lease_is_granted_only_to_members_of_the_committed_set() -> None:
    replica, _ = primary_of(B)
    pong = said(replica.receive(at(), B, say.Ping(replica.promised, b"B" * 8, 7)), B)
    assert pong == [say.Pong(replica.promised, 7, granted_ms(LeaseSettings().lease_ms), replica.committed)]
    replica.take(at(), RequestId(5), say.SetMember(INFO[C]))
    carried_out(replica, replica.flush(at()), at())
    acknowledge(replica, B, b"B" * 8)
    other = said(replica.receive(at(), C, say.Ping(replica.promised, b"C" * 8, 1)), C)[0]
    assert isinstance(other, say.Pong)
    assert other.lease_ms == 0


def test_a_silent_member_leaves_the_set_only_after_its_last_lease_has_ended() -> None:
    replica, _ = primary_of(B)
    carried_out(replica, replica.receive(at(0.2), B, say.Ping(replica.promised, b"B" * 8, 7)), at(0.2))
    now, ends = 0.2, 0.2 + granted_ms(LeaseSettings().lease_ms) / 1000
    while replica.configuration.in_sync == (A, B):
        assert now <= 0.2 + LeaseSettings().lease_ms / 1000, "the silent member is dropped only after L"
        now += 0.05
        carried_out(replica, replica.tick(at(now)), at(now))
    assert now > ends
    assert isinstance(replica.history.entry(replica.history.last.index).content(), SetChange)
    assert replica.committed == replica.history.last.index


def test_a_member_that_pings_and_acknowledges_nothing_leaves_the_set() -> None:
    replica, incarnations = primary_of(B)
    carried_out(replica, begun(replica), at())
    now, left = 0.0, 0.0
    while now < 10:
        now += 0.05
        ping = say.Ping(replica.promised, incarnations[B], int(now * 100))
        carried_out(replica, replica.receive(at(now), B, ping), at(now))
        carried_out(replica, replica.tick(at(now)), at(now))
        if replica.configuration.in_sync == (A,):
            left = left or now
        assert not left or replica.configuration.in_sync == (A,), f"it left at {left}, and came back at {now}"
    assert left
    acknowledge(replica, B, incarnations[B], at(now))
    carried_out(replica, replica.tick(at(now + 0.05)), at(now + 0.05))
    assert replica.configuration.in_sync == (A, B)


def test_a_member_of_a_higher_epoch_makes_the_primary_open_another_above_it() -> None:
    replica, _ = primary_of(B)
    effects = replica.receive(at(), B, say.Rejected(Epoch(7, B)))
    assert only(say.Persist, effects).promised == Epoch(8, A)
    assert not replica.is_current(at())


def test_a_member_acknowledges_what_is_durable_and_in_no_cache() -> None:
    replica = member_of()
    entry = log.make_entry(replica.history.last, Epoch(1, B), Milliseconds(2), log.Write(commit()))
    carried_out(replica, replica.receive(at(), B, say.Append(Epoch(1, B), replica.history.last, (), 1)), at())
    effects = replica.receive(at(), B, say.Append(Epoch(1, B), replica.history.last, (entry,), 1))
    assert said(effects, B) == [], "one acknowledgement, of what is durable"
    persisted = replica.persisted(at(), only(say.Persist, effects).number, {})
    assert said(persisted, B) == []
    (appended,) = said(replica.invalidated(at(), only(say.Invalidate, effects).number), B)
    assert appended == say.Appended(Epoch(1, B), 2, entry.hash, b"i" * 16, 2)


def test_a_member_acknowledges_again_what_it_is_sent_again() -> None:
    replica = member_of()
    before = replica.history.last
    entry = log.make_entry(before, Epoch(1, B), Milliseconds(2), log.Write(commit()))
    append = say.Append(Epoch(1, B), before, (entry,), 1)
    first = said(carried_out(replica, replica.receive(at(), B, append), at()), B)[-1]
    assert said(replica.receive(at(), B, append), B) == [first], "the first may be lost"
    sign_of_life = say.Append(Epoch(1, B), replica.history.last, (), 1)
    assert said(replica.receive(at(), B, sign_of_life), B) == [first]


def test_a_lease_counts_from_when_it_was_asked_for() -> None:
    replica = member_of()
    (ping,) = said(replica.tick(at(0.0)), B)
    assert isinstance(ping, say.Ping)
    effects = replica.receive(at(1.0), B, say.Pong(Epoch(1, B), ping.number, 1500, 1))
    assert not replica.is_current(at(1.0))  # caches filled without a lease are emptied first
    carried_out(replica, effects, at(1.0))
    assert replica.is_current(at(1.49))
    assert not replica.is_current(at(1.51))


def leased(replica: Replica, epoch: Epoch, now: float) -> list[Effect]:
    """Grant a lease; what is left of its effects."""
    ping = next(message for message in said(replica.tick(at(now)), B) if isinstance(message, say.Ping))
    return carried_out(replica, replica.receive(at(now), B, say.Pong(epoch, ping.number, 1500, 1)), at(now))


def test_a_member_holds_writes_from_a_change_of_primary_to_its_next_lease() -> None:
    replica = member_of()
    leased(replica, Epoch(1, B), 1.0)
    replica.receive(at(1.1), B, say.Pong(Epoch(2, B), 0, 0, 1))
    assert replica.promised == Epoch(2, B)
    assert replica.submit(at(1.2), RequestId(2), commit()) == []
    (forward,) = said(leased(replica, Epoch(2, B), 1.5), B)
    assert isinstance(forward, say.Forward)


def test_a_member_holds_no_writes_for_a_primary_that_gives_it_no_lease() -> None:
    replica = member_of()
    leased(replica, Epoch(1, B), 1.0)
    replica.receive(at(1.1), B, say.Pong(Epoch(2, B), 0, 0, 1))
    assert replica.submit(at(1.2), RequestId(2), commit()) == []
    (refused,) = replica.submit(at(3.2), RequestId(3), commit())
    assert isinstance(refused, say.Reply)
    assert isinstance(refused.answer, MemberReadOnly)
    late = [effect for effect in replica.tick(at(11.2)) if isinstance(effect, say.Reply)]
    assert [reply.request for reply in late] == [RequestId(2)]


def test_a_member_whose_first_lease_under_a_new_primary_ended_refuses_writes_at_once() -> None:
    replica = member_of()
    leased(replica, Epoch(1, B), 1.0)
    replica.receive(at(1.1), B, say.Pong(Epoch(2, B), 0, 0, 1))
    leased(replica, Epoch(2, B), 1.2)
    lapsed = at(2.9)  # it would hold until 3.1
    assert not replica.is_current(lapsed)
    (refused,) = replica.submit(lapsed, RequestId(2), commit())
    assert isinstance(refused, say.Reply)
    assert isinstance(refused.answer, MemberReadOnly)


def test_a_member_without_a_lease_refuses_writes_and_serves_what_it_has() -> None:
    replica = member_of()
    (reply,) = replica.submit(at(), RequestId(2), commit())
    assert isinstance(reply, say.Reply)
    assert isinstance(reply.answer, MemberReadOnly)
    assert replica.read(at(), ReadId(1), Interest("t", b"s", b"1")) == [say.Serve(ReadId(1), current=False)]


def test_a_member_promises_a_higher_epoch_once_and_reports_when_that_is_durable() -> None:
    replica = member_of()
    effects = replica.receive(at(), B, say.Prepare(Epoch(5, B)))
    assert said(effects, B) == []
    (report,) = said(replica.persisted(at(), only(say.Persist, effects).number, {}), B)
    assert isinstance(report, say.Report)
    assert (report.epoch, report.last) == (Epoch(5, B), replica.history.last)
    assert said(replica.receive(at(), B, say.Prepare(Epoch(4, B))), B) == [say.Rejected(Epoch(5, B))]


def test_entries_that_contradict_a_newer_epoch_are_dropped_and_saved_first() -> None:
    replica = member_of()
    old = log.make_entry(replica.history.last, Epoch(1, B), Milliseconds(2), log.Write(commit()))
    shared = replica.history.last
    carried_out(replica, replica.receive(at(), B, say.Append(Epoch(1, B), shared, (old,), 1)), at())
    opening = log.make_entry(shared, Epoch(2, B), Milliseconds(3), Open((INFO[A], INFO[B]), (A, B)))
    effects = replica.receive(at(), B, say.Append(Epoch(2, B), shared, (opening,), 1))
    step = only(say.Persist, effects)
    assert (step.promised, step.dropped, step.entries) == (Epoch(2, B), (old,), (opening,))
    assert any(isinstance(effect, say.Invalidate) and effect.everything for effect in effects)


def test_two_entries_of_one_epoch_at_one_index_stop_the_store() -> None:
    replica = member_of()
    shared = replica.history.last
    one = log.make_entry(shared, Epoch(1, B), Milliseconds(2), log.Write(commit()))
    other = log.make_entry(shared, Epoch(1, B), Milliseconds(3), log.Write(commit()))
    replica.receive(at(), B, say.Append(Epoch(1, B), shared, (one,), 1))
    with pytest.raises(AssertionError, match="one epoch"):
        replica.receive(at(), B, say.Append(Epoch(1, B), shared, (other,), 1))


def test_an_unknown_sender_is_not_heeded() -> None:
    replica = member_of()
    assert replica.receive(at(), C, say.Prepare(Epoch(9, C))) == []
    assert replica.promised == Epoch(1, B)


def test_a_member_removed_by_a_committed_entry_stops() -> None:
    replica = member_of()
    effects = replica.receive(at(), B, say.Expelled(Removed(A, Epoch(3, B), 9)))
    assert only(say.Persist, effects).expelled == Removed(A, Epoch(3, B), 9)
    assert replica.phase is Phase.EXPELLED
    (reply,) = replica.submit(at(), RequestId(2), commit())
    assert isinstance(reply, say.Reply)
    assert isinstance(reply.answer, NotPossible)


def test_of_two_that_removed_each_other_the_higher_epoch_stays() -> None:
    replica = Replica(b"i" * 16)
    carried_out(replica, replica.recover(at(), durable((A,), candidate=A)), at())  # in epoch 2 by now; C is unknown
    carried_out(replica, replica.receive(at(), C, say.Expelled(Removed(A, Epoch(1, C), 9))), at())
    before = replica.phase
    carried_out(replica, replica.receive(at(), C, say.Expelled(Removed(A, Epoch(3, C), 9))), at())
    assert (before, replica.phase) == (Phase.PRIMARY, Phase.EXPELLED)


def test_a_take_over_is_refused_while_the_primary_answers_or_a_survivor_is_missing() -> None:
    replica = Replica(b"i" * 16)
    carried_out(replica, replica.recover(at(), durable((A, B, C), candidate=B)), at())
    (reply,) = replica.take_over(at(), RequestId(2), frozenset({C}), force=False)
    assert isinstance(reply, say.Reply)
    assert "not among the lost" in str(reply.answer)
    carried_out(replica, replica.take_over(at(), RequestId(3), frozenset({B}), force=False), at())
    replies = [
        effect
        for step in range(60)
        for effect in carried_out(replica, replica.tick(at(step / 20)), at(step / 20))
        if isinstance(effect, say.Reply)
    ]
    assert [reply.request for reply in replies] == [RequestId(3)]
    assert "no answer from C" in str(replies[0].answer)
    assert replica.promised == Epoch(1, B)  # nothing was promised


def test_a_take_over_refuses_when_the_lost_primary_answers() -> None:
    replica = Replica(b"i" * 16)
    carried_out(replica, replica.recover(at(), durable((A, B, C), candidate=B)), at())
    carried_out(replica, replica.take_over(at(), RequestId(3), frozenset({B}), force=False), at())
    report = replica.report(log.NO_EPOCH)
    replica.receive(at(), C, report)
    effects = replica.receive(at(), B, replace(report, primary=True))
    assert "answers as primary" in str(only(say.Reply, effects).answer)


def test_after_a_stall_the_primary_commits_nothing_before_it_has_heard_the_others() -> None:
    replica, incarnations = primary_of(B)
    carried_out(replica, replica.tick(at(1.0)), at(1.0))  # it ticked at 0 last: more than half a lease
    carried_out(replica, begun(replica, now=at(1.0)), at(1.0))
    assert not replica.is_current(at(1.0))
    acknowledge(replica, B, incarnations[B], at(1.1))
    assert replica.is_current(at(1.1))
    assert replica.committed == replica.history.last.index


def test_a_write_passed_on_when_the_primary_changes_has_an_unknown_outcome() -> None:
    replica = member_of()
    (ping,) = said(replica.tick(at(0.0)), B)
    assert isinstance(ping, say.Ping)
    carried_out(replica, replica.receive(at(), B, say.Pong(Epoch(1, B), ping.number, 1500, 1)), at())
    (forward,) = replica.submit(at(0.1), RequestId(2), commit())
    assert isinstance(forward, say.Send)
    effects = replica.receive(at(0.2), B, say.Prepare(Epoch(2, B)))
    assert isinstance(only(say.Reply, effects).answer, OutcomeUnknown)


# Left behind by a take-over that never was


OPEN = durable((A, B, C), candidate=B).entries[0]
TAKEN = Epoch(2, C)
AGAIN = Epoch(3, B)
REOPENED = log.make_entry(OPEN.position(), AGAIN, Milliseconds(3), Open((INFO[A], INFO[B], INFO[C]), (B, C)))


def left_behind() -> Replica:
    """A holds the `open` of a take-over by C, without B: C lost it before it served."""
    replica = Replica(b"i" * 16)
    found = durable((A, B, C), candidate=B)
    taken = log.make_entry(OPEN.position(), TAKEN, Milliseconds(2), Open((INFO[A], INFO[C]), (A, C), (A,)))
    found = replace(found, promised=TAKEN, entries=(OPEN, taken), kept=taken)
    carried_out(replica, replica.recover(at(), found), at())
    return replica


def report_of(committed: log.Position) -> say.Report:
    """What a member says of itself that has committed so far."""
    infos = (INFO[A], INFO[B], INFO[C])
    return say.Report(log.NO_EPOCH, AGAIN, committed, committed, infos, (B, C), 1500, (committed,), None, primary=False)


def hears_of_the_old_primary(replica: Replica, now: Instant) -> list[Effect]:
    append = say.Append(AGAIN, OPEN.position(), (REOPENED,), 2)
    return carried_out(replica, replica.receive(now, B, append), now)


def test_a_member_that_kept_an_open_that_never_served_follows_the_old_primary() -> None:
    replica = left_behind()
    assert hears_of_the_old_primary(replica, at(0.5)) == []
    asked = said(carried_out(replica, replica.tick(at(1.5)), at(1.5)), C)
    assert say.Ask() in asked
    carried_out(replica, replica.receive(at(1.6), C, report_of(REOPENED.position())), at(1.6))
    effects = hears_of_the_old_primary(replica, at(1.7))
    appended = said(effects, B)[-1]
    assert isinstance(appended, say.Appended)
    assert (appended.epoch, appended.hash) == (AGAIN, REOPENED.hash)
    assert (replica.promised, replica.ids) == (AGAIN, (A, B, C))


def test_who_promises_again_after_a_restart_is_heeded_too() -> None:
    """That is, the promise was durable, the new log was not: the member's own list still lacks the candidate."""
    replica = left_behind()
    replica.follow(at(), AGAIN)
    carried_out(replica, replica.receive(at(1.6), C, report_of(REOPENED.position())), at(1.6))
    assert hears_of_the_old_primary(replica, at(1.7))
    assert replica.history.last == REOPENED.position()


@pytest.mark.parametrize(
    "why", ["an earlier epoch", "the word of nobody", "a later take-over", "a removal for certain"]
)
def test_an_old_primary_is_not_heeded_for(why: str) -> None:
    replica = left_behind()
    now = at(1.6)
    told = report_of(OPEN.position() if why == "an earlier epoch" else REOPENED.position())
    carried_out(replica, replica.receive(now, B if why == "the word of nobody" else C, told), now)
    if why == "a later take-over":
        later = Open((INFO[A], INFO[C]), (A, C), (A,))
        open_ = log.make_entry(REOPENED.position(), Epoch(4, C), Milliseconds(4), later)
        carried_out(replica, replica.receive(now, C, say.Keep(open_)), now)
    elif why == "a removal for certain":
        replica._known.commit(2)
    promised = replica.promised
    assert hears_of_the_old_primary(replica, now) == [] or why == "a removal for certain"
    assert replica.promised == promised
    assert B not in replica.ids


def test_a_promise_that_comes_while_the_greatest_log_is_fetched_counts() -> None:
    """Whoever promised keeps the `open` before it serves; and if its log is greater still, that one is taken."""
    replica = Replica(b"i" * 16)
    carried_out(replica, replica.recover(at(), durable((A, B, C), candidate=A)), at())
    epoch, own = replica.promised, replica.history.last
    entries = [log.make_entry(own, own.epoch, Milliseconds(2), Write(commit()))]
    entries.append(log.make_entry(entries[0].position(), own.epoch, Milliseconds(3), Write(commit(sequence=2))))
    report = replica.report(epoch)
    carried_out(replica, replica.receive(at(), B, replace(report, last=entries[0].position())), at())
    (fetch,) = said(carried_out(replica, replica.tick(at(0.6)), at(0.6)), B)
    assert isinstance(fetch, say.Fetch)
    (fetch,) = said(replica.receive(at(0.7), C, replace(report, last=entries[1].position())), C)
    assert isinstance(fetch, say.Fetch)
    stale = say.Fetched(epoch, own, (entries[0],))
    assert carried_out(replica, replica.receive(at(0.7), B, stale), at(0.7)) == []
    carried_out(replica, replica.receive(at(0.8), C, say.Fetched(epoch, own, tuple(entries))), at(0.8))
    assert replica.history.entry(4).previous == entries[1].hash
    effects = carried_out(replica, replica.tick(at(0.9)), at(0.9))
    for promiser in (B, C):
        assert any(isinstance(message, say.Keep) for message in said(effects, promiser))


def test_the_primary_says_who_may_be_promoted() -> None:
    replica, _ = primary_of(B, C)
    standing = replica.standing(at())
    assert (standing.phase, standing.primary, standing.is_joining) == (Phase.PRIMARY, A, False)
    assert (standing.promotable, standing.catching_up, standing.take_over_of) == ((A, B, C), (), (A,))
    assert [lag.member for lag in standing.lags] == [B, C]
    new = MemberInfo(id=b"D" * 16, name="d", host="host", port=7400, key=bytes(32))
    assert replica.submit(at(), RequestId(9), say.SetMember(new)) == []
    replica.flush(at())
    standing = replica.standing(at())
    assert (standing.promotable, standing.catching_up) == ((A, B, C), (new.id,)), "it is listed, and not in step yet"


def test_a_follower_knows_whose_loss_needs_a_take_over() -> None:
    replica = member_of(B)
    standing = replica.standing(at())
    assert (standing.phase, standing.promotable, standing.lags) == (Phase.MEMBER, None, ())
    assert (standing.primary, standing.take_over_of) == (b"", (B,)), "while it knows no primary, any other may be it"
    carried_out(replica, replica.receive(at(), B, say.Pong(replica.promised, 1, 0, 1)), at())
    standing = replica.standing(at())
    assert (standing.primary, standing.take_over_of) == (B, (B,))
    assert standing.in_sync == (A, B)
    assert not standing.catching_up


def test_a_store_without_a_cluster_needs_nothing_of_anybody() -> None:
    standing = Replica(b"i" * 16).standing(at())
    assert standing.phase is Phase.NONE
    assert (standing.promotable, standing.take_over_of, standing.catching_up) == (None, (), ())
