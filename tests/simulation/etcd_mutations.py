"""Known faults of the roles over etcd, each put in by replacing one rule: the simulator must see every one."""

from __future__ import annotations

from typing import Any

from lnh_services.store.etcd import leader, observer
from lnh_services.store.etcd.leader import Leader
from lnh_services.store.etcd.observer import Observer, Taking
from lnh_services.store.etcd.ordering import EtcdOrdering
from lnh_services.store.etcd.place import AUTHORITY, BATCH_BYTES, BATCH_ENTRIES, Place
from lnh_services.store.etcd.requests import Compare, Outcome, Unknown
from lnh_services.store.log.entries import Entry, Position
from lnh_services.store.replication.knowledge import Knowledge
from lnh_services.store.replication.messages import Instant
from lnh_services.store.replication.primary import Primary
from simulation import etcd_plan, plan
from simulation.mutations import Mutation
from simulation.plan import Profile


def _only(members: int = 3, seconds: float = 12.0, log_entries: int = 12, **rates: float) -> Profile:
    """A profile in which only these faults happen, so many times as often as usual."""
    workload = dict.fromkeys(plan.WORKLOAD, 1.5)
    quiet = {kind: 0.0 for kind in (*plan.RATES, *etcd_plan.RATES) if kind not in plan.WORKLOAD}
    return Profile(
        members=members, seconds=seconds, rates={**workload, **quiet, **rates}, slowness=0.05, log_entries=log_entries
    )


# The rules as they must not be


def _fences_nothing(self: Leader) -> tuple[Compare, ...]:
    return ()


def _committable_by_etcd(self: Leader, own: int) -> int:
    return max(self._known.committed, min(own, self._known.ordered))


def _touched_by_nothing(self: EtcdOrdering, interest: Any) -> int:
    return 0


def _kept_by_itself(self: Leader) -> int:
    return min(self._disk.durable, self._known.ordered)


def _wall_clock(self: Observer, now: Instant) -> float:
    return now.utc / 1000


_proposed = Leader._proposed


def _proposed_or_failed(self: Leader, now: Instant, outcome: Outcome) -> None:
    _proposed(self, now, outcome)
    if isinstance(outcome, Unknown):
        ordered = self._known.ordered
        self._local.retract()
        self._known.order(ordered)
        self._batch = ()


def _batch_as_it_is_now(self: Leader) -> tuple[Entry, ...]:
    return self._known.history.following(self._known.ordered, BATCH_ENTRIES, BATCH_BYTES)


def _authority_from_now_on(self: Leader, now: Instant) -> bool:
    """As long again as a beat gives, as if it had been counted by those who wait for its end."""
    return now.boot < self._authority + AUTHORITY / 2


_compares = Observer.compares


def _compares_no_head(self: Observer, taking: Taking) -> tuple[Compare, ...]:
    return tuple(each for each in _compares(self, taking) if each.key != self._keys.head)


def compares_no_beat(self: Observer, taking: Taking) -> tuple[Compare, ...]:
    """Forget that the primary may have renewed its authority since."""
    return tuple(each for each in _compares(self, taking) if each.key != self._keys.beat)


def _is_silent_soon(self: Observer, now: Instant, place: Place) -> bool:
    lead, beat, since = self._sighting
    if (lead, beat) != (place.lead, place.beat):
        since = now.boot
    self._sighting = (place.lead, place.beat, since)
    return now.boot - since > AUTHORITY / 3


def _never_went_back(place: Place, held: Position) -> bool:
    return False


_begin_leader = Leader.__init__


def _takes_leases_for_ended(self: Leader, *arguments: Any, **named: Any) -> None:
    _begin_leader(self, *arguments, **{**named, "ended": True})


def _all_is_ordered(self: Knowledge) -> int:
    return self.history.last.index


CUT_OFF = _only(etcd_cut_primary=4.0, part_primary=6.0)
UNKNOWN = _only(etcd_deaf=10.0, etcd_slow=6.0, etcd_election=4.0)

MUTATIONS: dict[str, Mutation] = {
    "write without the fence": Mutation(((Leader, "fences", _fences_nothing),), CUT_OFF, shown_by=3),
    "acknowledge on etcd's word alone": Mutation(((Leader, "_committable", _committable_by_etcd),), _only(isolate=5.0)),
    "serve reads before they are settled": Mutation(
        ((EtcdOrdering, "_last_touching", _touched_by_nothing),), _only(slow_disk=3.0, cut=2.0)
    ),
    "grant beyond the authority": Mutation(((Leader, "lease_ms", Primary.lease_ms),), CUT_OFF),
    "trim what this member alone has": Mutation(
        ((Leader, "kept_by_enough", _kept_by_itself),), _only(isolate=6.0, slow_disk=6.0)
    ),
    "count silence by the wall clock": Mutation(((Observer, "moment", _wall_clock),), _only(jump=60.0, isolate=8.0)),
    "take the lead before the authority ended": Mutation(((Observer, "is_silent", _is_silent_soon),), CUT_OFF),
    "act longer than the authority": Mutation(((Leader, "has_authority", _authority_from_now_on),), CUT_OFF),
    "take an unknown outcome for a failure": Mutation(
        ((Leader, "_proposed", _proposed_or_failed),), UNKNOWN, shown_by=1
    ),
    "propose more when the fate of a batch is unknown": Mutation(
        ((Leader, "batch", _batch_as_it_is_now), (Leader, "_may_append", Leader.has_authority)), UNKNOWN
    ),
    "take the lead whatever the head": Mutation(
        ((Observer, "compares", _compares_no_head),), _only(promote=8.0, crash=8.0, etcd_slow=10.0), shown_by=1
    ),
    "take leases for ended when the primary hands over": Mutation(
        ((Leader, "__init__", _takes_leases_for_ended),), _only(promote=10.0, isolate=6.0, cut=4.0, crash=4.0)
    ),
    "tell members what etcd has not ordered": Mutation(
        ((Knowledge, "ordered", property(_all_is_ordered)),), _only(etcd_slow=10.0)
    ),
    "go on where etcd went back": Mutation(
        ((leader, "is_rolled_back", _never_went_back), (observer, "is_rolled_back", _never_went_back)),
        _only(etcd_backup=3.0, etcd_restore=2.0, crash=3.0),
    ),
}
