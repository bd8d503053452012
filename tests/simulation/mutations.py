"""Known faults of the protocol, each put into the replica by replacing one rule: the simulator must see every one.

A mutation says in which kind of run it shows (`profile`), so that few seeds are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import msgspec

from lnh_common.errors import LnhError
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.store.log.entries import Epoch, MemberId, Members, Open, Position
from lnh_services.store.log.window import Configuration
from lnh_services.store.machine import apply
from lnh_services.store.machine.apply import Applied
from lnh_services.store.replication import member_list
from lnh_services.store.replication.candidate import Candidate
from lnh_services.store.replication.durability import Durability
from lnh_services.store.replication.follower import Follower
from lnh_services.store.replication.knowledge import Knowledge
from lnh_services.store.replication.member import Local
from lnh_services.store.replication.messages import Appended, Durable, Effect, Go, Instant, Listing, Persist
from lnh_services.store.replication.primary import Primary, Progress, Promotion
from lnh_services.store.replication.replica import Replica
from models.storage import DictStorage
from simulation import plan
from simulation.plan import Profile

Change = tuple[Any, str, Any]  # class or module, name, and what stands in its place


@dataclass(frozen=True)
class Mutation:
    """A fault.

    Args:
        profile: of a run in which it shows.
        shown_by: a seed whose run shows it; it is tried first, since others may show nothing.
    """

    changes: tuple[Change, ...]
    profile: Profile
    shown_by: int = 0

    @contextmanager
    def applied(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, instead in self.changes:
                stack.enter_context(patch.object(owner, name, instead))
            yield


def _only(members: int = 3, seconds: float = 10.0, log_entries: int = 12, **rates: float) -> Profile:
    """A profile in which only these faults happen, so many times as often as usual."""
    workload = dict.fromkeys(plan.WORKLOAD, 1.5)
    quiet = {kind: 0.0 for kind in plan.RATES if kind not in plan.WORKLOAD}
    return Profile(
        members=members, seconds=seconds, rates={**workload, **quiet, **rates}, slowness=0.05, log_entries=log_entries
    )


# The rules as they must not be


def _change_again(configuration: Configuration, order: Listing) -> Members | None:
    changed: Members | None = member_list._CHANGES[type(order)](configuration, order)
    return changed


def _vouched_before_fsync(self: Local) -> int:
    return min(self.known.history.last.index, self.invalidated_index)


def _counts_any_incarnation(self: Primary, message: Appended, progress: Progress) -> bool:
    return message.epoch == self._epoch


_may_drop = Primary.may_drop


def _may_drop_at_once(self: Primary, now: Instant, member: MemberId, progress: Progress) -> bool:
    progress.granted_until = 0.0
    return _may_drop(self, now, member, progress)


def _lease_from_receipt(self: Follower, now: Instant, sent: float, lease_ms: int) -> float:
    return now.boot + lease_ms / 1000


def _matches_by_index(self: Follower, previous: Position) -> bool:
    return previous.index <= self._known.history.last.index


_recover = Replica.recover


def _recover_without_promise(self: Replica, now: Instant, found: Durable) -> list[Effect]:
    last = found.entries[-1].epoch if found.entries else found.base.position.epoch
    return _recover(self, now, msgspec.structs.replace(found, promised=last))


def _may_grant_early(self: Primary, member: MemberId) -> bool:
    return self.serving and member in self._known.configuration.in_sync and member not in self._leaving


def _committable_by_committed_set(self: Primary, own: int) -> int:
    if self._awaits or self._unheard:
        return self._known.committed
    in_sync = self._known.committed_configuration().in_sync or self.in_sync
    best = min(self._vouched(member, own) for member in in_sync)
    return best if best >= self._opened.index else self._known.committed


def _hand_over_and_go_on(self: Primary, now: Instant, promotion: Promotion) -> None:
    known, last = self._known, self._known.history.last
    if promotion.target in self.in_sync and known.committed == last.index and self.may_hand_over(last.index):
        self._out.send(promotion.target, Go(Epoch(self._epoch.term + 1, promotion.target), last))
        self._promotion = None
        for origin, order in self._requests.take_held():
            self.take(now, origin, order)


_asked = Candidate._asked


def _asked_with_one_missing(self: Candidate, now: Instant) -> None:
    """One that does not answer is done without, as if that had been asked for."""
    missing = [member for member in self._survivors if member not in self._reports]
    with patch.object(self, "_force", self._force or len(missing) == 1):
        _asked(self, now)


_apply = apply.apply


class _NoRecords(DictStorage):
    """A storage that remembers no request."""

    def __init__(self, storage: DictStorage) -> None:
        self.items, self.records, self.marks = storage.items, storage.records, storage.marks

    def record(self, client: bytes, session: bytes, sequence: int) -> None:
        return None


def _apply_without_looking(storage: DictStorage, index: int, log_time: Any, commit: Any) -> Applied:
    blind = _NoRecords(storage)
    applied = _apply(blind, index, log_time, commit)
    storage.items = blind.items  # an attempt that is undone puts another dict in place
    return applied


_begin_install, _installed = Replica._begin_install, Replica._installed


def _invalidates_nothing(self: Local) -> int:
    return 0


def _begin_install_without_invalidating(self: Replica, *arguments: Any) -> None:
    with patch.object(Local, "invalidate_everything", _invalidates_nothing):
        _begin_install(self, *arguments)


def _installed_without_invalidating(self: Replica, *arguments: Any) -> None:
    with patch.object(Local, "invalidate_everything", _invalidates_nothing):
        _installed(self, *arguments)


def _prepare_by_the_log(self: Candidate, now: Instant) -> None:
    """The epoch after the log's last one, whatever was promised."""
    self._above = self._known.promised = self._known.history.last.epoch
    _prepare(self, now)


_prepare = Candidate._prepare


def _go_on_in_the_old_epoch(self: Replica, now: Instant, above: Epoch) -> None:
    configuration = self.configuration
    self._known.promised = epoch = self.history.last.epoch
    assert epoch.candidate == self.member
    self.role = Primary(self._local, self, now, Open(configuration.members, configuration.in_sync))


_begin_primary = Primary.__init__


def _without_keepers(self: Primary, *arguments: Any, **named: Any) -> None:
    named["keepers"] = frozenset()
    _begin_primary(self, *arguments, **named)


def _may_grant_before_serving(self: Primary, member: MemberId) -> bool:
    return all(member in configuration.in_sync for _, configuration in self._known.history.turns(self._known.committed))


def _committed_unmatched(self: Follower, committed: int) -> int:
    return min(committed, self._known.history.last.index)


def _expelling_early(self: Knowledge) -> Any:
    return self.configuration.removed


def _touched_by_nothing(self: Replica, interest: Any) -> int:
    return 0


def _projected_by_the_log(self: Primary) -> int:
    return self._committable(self._known.history.last.index) if self._acts() else self._known.committed


def _may_withdraw_alone(self: Replica, step: Persist) -> bool:
    return step.found is not None or not self._known.others


def _take_offer_first(self: Durability) -> Any:
    with patch.object(self, "_wanted", {}):
        return _take_offer(self)


_take_offer = Durability.take_offer


def _told_as_it_is(self: WorkerCore, operation: Any, refusal: LnhError, begun: int) -> LnhError:
    return refusal


def _is_read_write_by_now(self: WorkerCore, begun: int) -> bool:
    return self.is_read_write()


def _notes_nothing(self: WorkerCore, current: bool) -> None:
    """The lease alone vouches for what is read under it."""


DIVERGENCES = _only(lose_tail=8.0, crash=8.0, isolate=5.0, slow_disk=8.0)
RESTARTS = _only(crash=8.0, crash_between=6.0)
SEPARATIONS = _only(isolate=5.0, cut=4.0, stall=2.0)

MUTATIONS: dict[str, Mutation] = {
    "acknowledge before fsync": Mutation(
        ((Local, "vouched", property(_vouched_before_fsync)),), _only(slow_disk=4.0, crash=4.0)
    ),
    "count acknowledgements of another incarnation": Mutation(
        ((Primary, "counts", _counts_any_incarnation),), RESTARTS
    ),
    "drop from the set before the lease ends": Mutation(((Primary, "may_drop", _may_drop_at_once),), SEPARATIONS),
    "count a lease from receipt": Mutation(((Follower, "lease_end", _lease_from_receipt),), SEPARATIONS),
    "skip the previous-hash check": Mutation(((Follower, "matches", _matches_by_index),), DIVERGENCES),
    "forget `promised` on restart": Mutation(
        ((Replica, "recover", _recover_without_promise),),
        _only(crash=10.0, crash_between=10.0, promote=8.0),
        shown_by=14,
    ),
    "grant before the add commits": Mutation(((Primary, "may_grant", _may_grant_early),), SEPARATIONS),
    "commit with the set at append time": Mutation(
        ((Primary, "_committable", _committable_by_committed_set),), SEPARATIONS, shown_by=6
    ),
    "let the old primary write after handing over": Mutation(
        ((Primary, "_try_hand_over", _hand_over_and_go_on),), _only(promote=8.0, isolate=4.0, cut=3.0), shown_by=13
    ),
    "open on one promise too few": Mutation(
        ((Candidate, "_asked", _asked_with_one_missing),), _only(take_over=8.0, split=12.0, isolate=3.0), shown_by=8
    ),
    "check duplicates at append only": Mutation(((apply, "apply", _apply_without_looking),), _only(isolate=2.0)),
    "serve reads without waiting for pending entries": Mutation(
        ((Replica, "_last_touching", _touched_by_nothing),), _only(slow_disk=3.0, cut=2.0)
    ),
    "skip the invalidation on snapshot": Mutation(
        (
            (Replica, "_begin_install", _begin_install_without_invalidating),
            (Replica, "_installed", _installed_without_invalidating),
        ),
        _only(log_entries=4, isolate=6.0, crash=3.0),
    ),
    "reuse an epoch": Mutation(((Candidate, "_prepare", _prepare_by_the_log),), DIVERGENCES, shown_by=21),
    "go on in the old epoch after a restart": Mutation(((Replica, "reopen", _go_on_in_the_old_epoch),), RESTARTS),
    "serve before every promiser stored the `open`": Mutation(
        ((Primary, "__init__", _without_keepers),), _only(crash=8.0, isolate=6.0, join=3.0), shown_by=5
    ),
    "grant before the `open` commits": Mutation(
        ((Primary, "may_grant", _may_grant_before_serving),), _only(crash=8.0, slow_disk=4.0, isolate=3.0)
    ),
    "advance the commit index to an index never matched": Mutation(
        ((Follower, "known_committed", _committed_unmatched),), DIVERGENCES, shown_by=19
    ),
    "let an uncommitted removal expel": Mutation(
        ((Knowledge, "expelling", _expelling_early),), _only(4, remove=10.0, join=4.0, slow_disk=15.0)
    ),
    "answer a certain no from a member out of step": Mutation(((WorkerCore, "told", _told_as_it_is),), SEPARATIONS),
    "answer a certain no under a lease that its member outlived": Mutation(
        ((WorkerCore, "note", _notes_nothing),), DIVERGENCES, shown_by=3
    ),
    "answer a certain no that was read before the member was in step": Mutation(
        ((WorkerCore, "was_read_write_since", _is_read_write_by_now),),
        _only(crash=10.0, isolate=10.0, cut=10.0, read=10.0, write=3.0),
        shown_by=2,
    ),
    "change groups again when asked again": Mutation(((member_list, "change", _change_again),), _only(regroup=20.0)),
}

# What the replica itself once did wrong, as the simulator found.
ONCE: dict[str, Mutation] = {
    "commit before the primary's own caches have dropped what changes": Mutation(
        ((Primary, "projected", _projected_by_the_log),), _only(stall_worker=20.0), shown_by=18
    ),
    "take back an `open` that the disk refused": Mutation(
        ((Replica, "may_withdraw", _may_withdraw_alone),), _only(2, take_over=10.0, full_disk=20.0), shown_by=3
    ),
    "install a snapshot before its promise is durable": Mutation(
        ((Durability, "take_offer", _take_offer_first),), _only(join=20.0, slow_disk=15.0), shown_by=13
    ),
}
