"""A simulated cluster whose entries a model of etcd orders: the same machines, clients and invariants, and some more.

Beside what `world.py` checks: entries are written under the current fence and follow the head; when a member takes the
lead unasked, no other is read-write; no lease is longer than the authority of the primary that granted it; what is
trimmed is on the disks of a majority, and of two members at least.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from lnh_services.store.etcd import leader
from lnh_services.store.etcd.leader import Leader
from lnh_services.store.etcd.observer import Observer
from lnh_services.store.etcd.ordering import EtcdOrdering
from lnh_services.store.etcd.place import Keys, Lead, Place, unpack
from lnh_services.store.etcd.requests import AskEtcd, Outcome, Transaction
from lnh_services.store.log.entries import Entry, Position
from lnh_services.store.replication.replica import Phase
from simulation import plan as plans
from simulation.etcd import Etcd
from simulation.machine import Machine, Process
from simulation.outside import CLUSTER, Outside
from simulation.plan import Plan
from simulation.truth import Report
from simulation.world import World

KEYS = Keys(CLUSTER)
TRIM_ENTRIES = 6


class EtcdWorld(World):
    """One run."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, EtcdOrdering)
        self.etcd = Etcd(self.stream("etcd"), lambda: self.now, self.at)
        self.outside: EtcdOutside = EtcdOutside(self)
        self.unasked = 0  # times that the lead was taken so
        self.trimmed = 0
        self.restored = False

    # etcd

    def ask_etcd(self, process: Process, effect: AskEtcd) -> None:
        machine = process.machine
        self.trace(machine.slot, "asks etcd", effect)

        def answered(outcome: Outcome) -> None:
            if machine.process is process:
                process.soon(lambda: hears(outcome))

        def hears(outcome: Outcome) -> None:
            self.trace(machine.slot, "hears of etcd", (effect.id, outcome))
            replica = process.replica
            assert isinstance(replica, EtcdOrdering), "another engine asks etcd"
            process.run(lambda now: replica.etcd_answered(now, effect.id, outcome))

        self.etcd.ask(machine.slot, effect.request, lambda request: self._changes(process, request), answered)

    def _changes(self, process: Process, request: Transaction) -> None:
        """etcd is about to carry out a transaction: is it one that may be?"""
        values = dict(self.etcd.kept.values)
        before = Place.of(KEYS, values.items())
        values |= {put.key: put.value for put in request.puts}
        after = Place.of(KEYS, values.items())
        self.trace(process.machine.slot, "is carried out in etcd", None)
        lead = after.leads()
        if before.lead is not None and before.lead != after.lead:
            self._takes(process, before.leads(), lead, unasked=KEYS.beat in {each.key for each in request.compares})
        written = [entry for put in request.puts if b"/log/" in put.key for entry in unpack(put.value)]
        incarnation = process.replica.incarnation
        assert (lead.member, lead.incarnation) == (process.machine.id, incarnation) or not request.puts, (
            f"fence: m{process.machine.slot} writes while {lead.epoch} has the lead"
        )
        if written:
            self._orders(process, written, before, after, lead)
        for deleted in request.deletes:
            found = [entry.position() for _, value in self.etcd.kept.found(deleted) for entry in unpack(value)]
            if found:
                self._trims(process, found[-1])

    def _orders(self, process: Process, written: list[Entry], before: Place, after: Place, lead: Lead) -> None:
        if before.head is not None:
            head = before.ends()
            assert (written[0].previous, written[0].index) == (head.hash, head.index + 1), "head: an entry was dropped"
        assert written[-1].position() == after.ends(), "head: it is not the last entry"
        for entry in written:
            assert entry.epoch == lead.epoch, f"fence: an entry of {entry.epoch} while {lead.epoch} has the lead"
            self.truth.sees(entry, process.machine.id, process.life, self.now)

    def _takes(self, process: Process, old: Lead, new: Lead, *, unasked: bool) -> None:
        assert new.term > old.term, f"lead: {new.epoch} after {old.epoch}"
        self.unasked += unasked
        for machine in self.used():
            if machine.process is None or machine.process is process:
                continue
            current = machine.process.replica.is_current(machine.instant())
            primary = machine.process.replica.is_serving()
            assert not current or not (unasked or primary), (
                f"authority: {new.epoch} takes the lead while m{machine.slot} is read-write"
            )

    def _trims(self, process: Process, until: Position) -> None:
        self.trimmed += 1
        held = [self.machines[self.slots[id_]].disk.stable.holds(until) for id_ in process.replica.ids]
        needed = min(len(held), max(2, len(held) // 2 + 1))
        assert sum(held) >= needed, f"trim: {until.index} is on {sum(held)} disks of {len(held)}"

    # What is watched

    def serves(self, machine: Machine) -> bool:
        """A primary without authority writes nothing, and is no hindrance."""
        return super().serves(machine) and self._replica(machine).is_current(machine.instant())

    def watch(self, process: Process) -> None:
        super().watch(process)
        replica = process.replica
        if not isinstance(replica.role, Observer) or not replica.is_current(process.machine.instant()):
            return
        granter = self.machines[self.slots[replica.promised.candidate]]
        role = granter.process.replica.role if granter.process is not None else None
        if (
            isinstance(role, Leader)
            and granter.process is not None
            and granter.process.replica.promised == replica.promised
        ):
            assert role.has_authority(granter.instant()), (
                f"authority: m{process.machine.slot} has a lease that outlives it"
            )

    def _replica(self, machine: Machine) -> EtcdOrdering:
        assert machine.process is not None, "a machine without a process"
        assert isinstance(machine.process.replica, EtcdOrdering), "another engine"
        return machine.process.replica

    # A run

    def run(self) -> Report:
        with patch.object(leader, "TRIM_ENTRIES", TRIM_ENTRIES):
            return super().run()

    def _heal(self) -> bool:
        self.etcd.heal()
        return super()._heal()

    def _asks_for_an_administrator(self) -> bool:
        """A member that etcd contradicts goes on when somebody has put etcd right."""
        return self.restored and bool(self.stopped())

    def _judge(self) -> None:
        super()._judge()
        assert not any(machine.disk.seen.saved for machine in self.machines), "an ordered entry was dropped"

    def stopped(self) -> list[Machine]:
        """Machines that hold etcd for what it was not."""
        return [m for m in self.used() if m.process is not None and self._replica(m).is_stopped]


class EtcdOutside(Outside):
    """What happens to etcd, beside all else."""

    world: EtcdWorld

    def do_etcd_cut(self, slot: int, duration: float) -> None:
        """No request of a machine reaches etcd."""
        self.world.etcd.cut[self.world.pick(slot).slot] = self.world.now + duration

    def do_etcd_deaf(self, slot: int, duration: float) -> None:
        """Requests reach etcd, and no answer comes back."""
        self.world.etcd.deaf[self.world.pick(slot).slot] = self.world.now + duration

    def do_etcd_cut_primary(self, duration: float) -> None:
        leader = self.world.leader()
        if leader is not None:
            self.world.etcd.cut[leader.slot] = self.world.now + duration

    def do_part_primary(self, duration: float) -> None:
        """The primary's host is cut off from members and etcd, and lives on."""
        leader = self.world.leader()
        if leader is not None:
            self.do_etcd_cut_primary(duration)
            self._part([leader.slot], [slot for slot in range(plans.SLOTS) if slot != leader.slot], duration)

    def do_etcd_election(self, duration: float) -> None:
        """There is no leader in etcd: what comes meanwhile is lost, or carried out later."""
        self.world.etcd.without_leader_until = self.world.now + duration

    def do_etcd_slow(self, duration: float, slowness: float) -> None:
        etcd = self.world.etcd
        etcd.slow_until, etcd.slowness = self.world.now + duration, slowness

    def do_etcd_full(self, duration: float) -> None:
        self.world.etcd.full_until = self.world.now + duration

    def do_etcd_backup(self) -> None:
        self.world.etcd.backups.append(self.world.etcd.kept.copy())

    def do_etcd_restore(self) -> None:
        """etcd is put back to its newest backup."""
        if self.world.etcd.backups:
            self.world.etcd.kept = self.world.etcd.backups[-1].copy()
            self.world.restored = True


def run(plan: Plan) -> Report:
    """Run a plan; raises Failure when an invariant breaks."""
    return EtcdWorld(plan).run()


__all__ = ["Any", "EtcdWorld", "Phase", "run"]
