"""A simulated cluster in virtual time: machines, the network between them, clients, administrators, and faults.

`run(plan)` runs one and raises Failure, with the plan and what happened last, when an invariant breaks. Everything
that is drawn comes from generators of the plan's seed, so the same plan is the same run.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from lnh_common import limits
from lnh_common.errors import (
    LnhError,
)
from lnh_common.messages.store import Commit
from lnh_services.store.etcd.requests import AskEtcd
from lnh_services.store.log import entries
from lnh_services.store.log.entries import Epoch, MemberId, Milliseconds, Write
from lnh_services.store.replication import durability, primary
from lnh_services.store.replication.messages import Append, Erase, Install, Keep, Message, Persist, RequestId
from lnh_services.store.replication.replica import Phase, Replica
from models.linearizability import check
from models.versioned_items import VersionedItems
from simulation import plan as plans
from simulation.clients import KEYS, Clients
from simulation.disk import Snapshot
from simulation.machine import LEFT, Machine, Process
from simulation.outside import CLUSTER, Outside, ignored
from simulation.plan import Action, Plan
from simulation.regrouping import Regrouped
from simulation.telling import Failure, shown
from simulation.truth import Report, Truth, name_of, touches
from simulation.workers import Worker

FORMING = 20.0  # seconds in which a cluster without faults has formed
HEALING = 40.0  # ... and in which it is in sync again when faults stop
ATTACH = limits.WORKER_LEASE_MS / 3000
TRACED = 600
APPLIED_AT_ONCE = 3  # items, in place of durability.APPLIED_AT_ONCE, so that some have more to catch up with
PATIENCE = 20_000  # steps of the checker, which tries the log's order first and so needs few where all is well


class World:
    """One run."""

    def __init__(self, plan: Plan, make_replica: Callable[[bytes], Replica] = Replica) -> None:
        self.plan = plan
        self.profile = plan.profile
        self.make_replica = make_replica
        self.now = 0.0
        self.steps = 0
        self.faults = 0
        self.drift = primary.DRIFT
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0
        self._numbers = 0
        self._trace: deque[tuple[float, int, str, Any]] = deque(maxlen=TRACED)
        self.digest = 0
        self.truth = Truth(entries.genesis(CLUSTER))
        self.snapshots: dict[int, Snapshot] = {}
        self.no_longer_waited: set[RequestId] = set()
        self.loss, self.duplication, self.slowness = 0.0, 0.0, 0.0
        self.cut: dict[tuple[int, int], float] = {}
        self._links: dict[tuple[int, int], random.Random] = {}
        self.machines = [Machine(self, slot) for slot in range(plans.SLOTS)]
        self.slots = {machine.id: machine.slot for machine in self.machines}
        self.fresh = list(range(plans.SLOTS))  # slots never used
        self.clients = Clients(self)
        self.outside = Outside(self)
        self.regrouped = Regrouped()
        self.settling = False

    # Time and chance

    def stream(self, place: str) -> random.Random:
        return random.Random(f"{self.plan.seed}/{place}")

    def at(self, when: float, act: Callable[[], None]) -> None:
        self._scheduled += 1
        heapq.heappush(self._queue, (when, self._scheduled, act))

    def run_until(self, end: float, done: Callable[[], bool] | None = None) -> bool:
        """Answers whether `done` came true."""
        look = 0
        while self._queue and self._queue[0][0] <= end:
            self.now, _, act = heapq.heappop(self._queue)
            act()
            look += 1
            if done is not None and look % 50 == 0 and done():
                return True
        self.now = max(self.now, end)
        return done is not None and done()

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def trace(self, slot: int, what: str, thing: Any) -> None:
        self._trace.append((self.now, slot, what, thing))

    def tell(self) -> list[str]:
        names = {machine.id.hex(): f"m{machine.slot}" for machine in self.machines}
        lines = []
        for at, slot, what, thing in self._trace:
            line = f"{at:9.4f} m{slot} {what} {shown(thing)}"
            for long, short in names.items():
                line = line.replace(long, short).replace(long[:8], short)
            lines.append(line)
        return lines

    # The network

    def send(self, process: Process, to: MemberId, message: Message) -> None:
        machine = process.machine
        if isinstance(message, Append):
            for entry in message.entries:
                self.truth.sees(entry, machine.id, process.life, self.now)
        elif isinstance(message, Keep):
            self.truth.sees(message.open, machine.id, process.life, self.now)
        self._carry(machine.slot, to, lambda target: target.receive(machine.id, message), 1.0)

    def ask_etcd(self, process: Process, effect: AskEtcd) -> None:
        raise AssertionError("there is no etcd in this world")

    def send_snapshot(self, process: Process, to: MemberId, number: int, epoch: Epoch) -> None:
        sender = process.machine.id
        self._carry(process.machine.slot, to, lambda target: target.offered(sender, number, epoch), 10.0)

    def _carry(self, here: int, to: MemberId, deliver: Callable[[Process], None], slowness: float) -> None:
        there = self.slots.get(to)
        if there is None or here == there:
            assert there is not None, "a message to nobody"
            raise AssertionError(f"m{here} sends itself a message")
        rng = self._links.get((here, there))
        if rng is None:
            rng = self._links[here, there] = self.stream(f"link {here} {there}")
        lost, repeated, slow = rng.random(), rng.random(), rng.random()
        delay = rng.uniform(0.0003, 0.003) * slowness
        if self.cut.get((here, there), 0.0) > self.now or lost < self.loss:
            return
        if slow < self.slowness:
            delay += rng.expovariate(4.0)

        def arrives() -> None:
            process = self.machines[there].process
            if process is not None:
                process.soon(lambda: deliver(process))

        self.at(self.now + delay, arrives)
        if repeated < self.duplication:
            self.at(self.now + delay + rng.expovariate(5.0), arrives)

    # What is watched

    def counted(self, replica: Replica, member: MemberId) -> int:
        """How far the primary takes the member's log to be durable; -1 if it is none."""
        role = replica.role
        return role._of(member).match if isinstance(role, primary.Primary) else -1

    def watch(self, process: Process) -> None:
        """6: whoever has a valid lease is in every set that a primary waits for."""
        machine, replica = process.machine, process.replica
        serving = _serves(replica)
        if serving:
            self._serves_rightly(process)
        if not replica.is_current(machine.instant()):
            return
        assert replica.promised in self.truth.served, (
            f"6: m{machine.slot} has a lease in {replica.promised}, not yet served"
        )
        for other in self.machines:
            if other is machine or other.process is None:
                continue
            if self.serves(other):
                self._in_set_of(other, machine)
            if self.serves(machine) and other.process.replica.is_current(other.instant()):
                self._in_set_of(machine, other)

    def serves(self, machine: Machine) -> bool:
        """Whether a member writes, and others that are read-write must be in its set."""
        return _serves(_replica(machine))

    def _serves_rightly(self, process: Process) -> None:
        """Whoever promised an epoch holds its `open`, durably, before its candidate serves."""
        epoch = process.replica.promised
        if epoch in self.truth.served or epoch.candidate != process.machine.id:
            return
        self.truth.served.add(epoch)
        opened = process.replica.history.configuration.opened
        hash_ = self.truth.at[epoch, self.truth.opened[epoch].before.index + 1]
        assert opened <= process.replica.committed, f"{epoch} is served, and its `open` is not committed"
        for machine in self.machines:
            if machine.id in self.truth.promisers.get(epoch, ()) and machine.id in process.replica.ids:
                disk = machine.disk.stable
                kept = disk.kept is not None and disk.kept.epoch >= epoch
                assert kept or disk.promised > epoch or disk.holds(self.truth.entries[hash_].position()), (
                    f"{epoch} is served, and m{machine.slot}, which promised it, does not hold its `open`"
                )

    def _in_set_of(self, leader: Machine, member: Machine) -> None:
        assert leader.process is not None
        assert member.process is not None
        leading, following = leader.process.replica, member.process.replica
        history = leading.history
        if leading.promised.candidate != leader.id:
            return  # it serves no longer, and knows
        waited_for = all(member.id in configuration.in_sync for _, configuration in history.turns(leading.committed))
        if waited_for and (following.promised == leading.promised or not self.serves(member)):
            return
        parted = self.truth.take_overs(leading.promised, following.promised)
        excused = any(each.forced or {leader.id, member.id} & each.removed for each in parted)
        assert excused, (
            f"6: m{member.slot} has a lease in {following.promised}, and m{leader.slot} serves {leading.promised} "
            "without waiting for it"
        )

    def has_acknowledged(self, process: Process, index: int) -> None:
        """A primary answers for an entry: it is durable, and what it changes is in no cache, wherever a lease may be."""
        replica = process.replica
        position = replica.history.position(index)
        if position is None:
            return
        waited = [configuration.in_sync for _, configuration in replica.history.turns(replica.committed)]
        everywhere = tuple(member for member in waited[0] if all(member in each for each in waited))
        by = (process.machine.id, process.life) if _serves(replica) else None  # None: it just handed over
        self.truth.acknowledges(by, replica.promised, position, everywhere)
        if self.truth.was_forced:
            return
        entry = self.truth.entries[position.hash]
        content = entry.content()
        for member in everywhere:
            machine = self.machines[self.slots[member]]
            assert machine.disk.stable.holds(position), f"{index} is acknowledged, and not durable at m{machine.slot}"
            if isinstance(content, Write) and self.truth.applied[entry.hash][1]:
                for worker in machine.workers:
                    self._has_invalidated(machine, worker, content.commit, index)

    def _has_invalidated(self, machine: Machine, worker: Worker, commit: Commit, index: int) -> None:
        if worker.is_read_write():
            for key, view in worker.cache.items():
                if touches(commit, key):
                    assert view.applied.index >= index, (
                        f"{index} is acknowledged, and a cache at m{machine.slot} is older"
                    )

    def has_stored(self, machine: Machine, step: Persist | Install | Erase) -> None:
        """Something became durable."""
        if isinstance(step, Persist):
            self.digest = zlib.crc32(repr((self.now, machine.slot, step.number, step.committed)).encode(), self.digest)

    def withdrawn(self, step: Persist) -> None:
        """A member alone could not store these entries: they never were."""
        for entry in step.entries:
            if self.truth.entries.pop(entry.hash, None) is not None:
                del self.truth.at[entry.epoch, entry.index]
                content = entry.content()
                if isinstance(content, entries.Open):
                    del self.truth.opened[entry.epoch]
                if isinstance(content, Write):
                    self.truth.named[name_of(content.commit)].remove(entry)

    # A run

    def run(self) -> Report:
        few = patch.object(durability, "APPLIED_AT_ONCE", APPLIED_AT_ONCE)
        with few, patch.object(limits, "LOG_ENTRIES", self.profile.log_entries):
            try:
                self._form()
                self._suffer()
                if self._heal():
                    self._judge()
            except Exception as error:
                why = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
                raise Failure(self.plan, self.now, why, self.tell()) from error
        openings = list(self.truth.opened.values())
        return Report(
            steps=self.steps,
            faults=self.faults,
            acknowledged=len(self.truth.acknowledged),
            reads=len(self.clients.sights),
            cached=sum(sight.cached for sight in self.clients.sights),
            denied=self.clients.denied,
            retried=self.clients.retried,
            openings=len(openings),
            take_overs=sum(bool(each.removed) for each in openings),
            snapshots=len(self.snapshots),
            dropped=sum(len(machine.disk.seen.saved) for machine in self.machines),
            digest=self.digest,
        )

    def _form(self) -> None:
        """A cluster of the profile's size, without faults."""
        first = self.use_slot()
        number = RequestId(self.number())
        assert first.process is not None
        replica = first.process.replica
        first.process.ask(number, ignored, lambda now: replica.create(now, number, CLUSTER, first.info))
        assert self.run_until(self.now + 2, lambda: replica.phase is Phase.PRIMARY), "no cluster could be created"
        for _ in range(1, self.profile.members):
            self.outside.join(first, self.use_slot())
        assert self.run_until(self.now + FORMING, self._all_in_sync), f"no cluster formed: {self._configurations()}"
        for machine in self.machines:
            for worker in machine.workers:
                self.at(self.now + worker.rng.uniform(0, ATTACH), self._attaching(machine, worker))

    def _attaching(self, machine: Machine, worker: Worker) -> Callable[[], None]:
        def asks() -> None:
            process = machine.process
            if process is not None and worker.stalled_until <= self.now:
                sent = machine.boot(self.now)
                process.from_worker(worker, lambda: process.attach(worker, sent))
            self.at(self.now + ATTACH, asks)

        return asks

    def _suffer(self) -> None:
        self.loss, self.duplication, self.slowness = (
            self.profile.loss, self.profile.duplication, self.profile.slowness,
        )  # fmt: skip
        began = self.now
        for action in self.plan.actions:
            self.at(began + action.at, lambda action=action: self._act(action))  # type: ignore[misc]
        self.run_until(began + self.profile.seconds)

    def _act(self, action: Action) -> None:
        if action.kind not in plans.WORKLOAD:
            self.trace(-1, action.kind, action.args)
            self.faults += action.kind not in plans.ADMINISTRATION
        doer = self.clients if action.kind in plans.WORKLOAD else self.outside
        getattr(doer, f"do_{action.kind}")(*action.args)

    def _heal(self) -> bool:
        """Faults stop; 8: all members are in sync again without help. False where an administrator must decide."""
        self.settling = True
        self.trace(-1, "heal", None)
        self.loss = self.duplication = self.slowness = 0.0
        self.cut.clear()
        for machine in self.machines:
            machine.disk.slow_until = machine.disk.full_until = 0.0
            machine.stalled_until = min(machine.stalled_until, self.now)
            for worker in machine.workers:
                worker.stalled_until = min(worker.stalled_until, self.now)
            process = machine.process
            if process is not None:
                process.ends_after = process.stalls_after = None
                self.at(self.now, process.go_on)
            elif machine.slot not in self.fresh:
                machine.start()
        end = self.now + HEALING
        while not self.run_until(min(end, self.now + 1.0), self._all_in_sync):
            self._finish_joining()
            if self.now >= end:
                assert self._asks_for_an_administrator(), f"8: not in sync again: {self._configurations()}"
                return False
        for machine in self._listed():
            for worker in machine.workers:
                for key in KEYS:
                    self.clients.read(machine, worker, (key,))
        self.run_until(self.now + 0.5)
        assert self.run_until(self.now + HEALING / 4, self._all_in_sync), (
            f"8: in sync no longer: {self._configurations()}"
        )
        return True

    def _asks_for_an_administrator(self) -> bool:
        """After force: two sides that both committed, or a member that was passed over and knows the new primary not."""
        if not self.truth.was_forced:
            return False
        members = [m for m in self.machines if m.process is not None and _replica(m).phase not in LEFT]
        states = [machine.disk.seen.applied for machine in members]
        apart = any(
            not self.truth.holds(one, other) and not self.truth.holds(other, one) for one in states for other in states
        )
        leader = self.leader()
        return apart or (leader is not None and any(leader.id not in _replica(member).ids for member in members))

    def _finish_joining(self) -> None:
        """A join that was cut off needs its administrator again."""
        leader = self.leader()
        if leader is not None and leader.process is not None:
            infos = leader.process.replica.members
            for machine in self.machines:
                process = machine.process
                if (
                    any(machine.id == each.id for each in infos)
                    and process is not None
                    and process.replica.phase is Phase.NONE
                ):
                    self.outside.adopt(machine, infos)

    def leader(self) -> Machine | None:
        serving = [m for m in self.machines if m.process is not None and _serves(m.process.replica)]
        return max(serving, key=lambda machine: _replica(machine).promised, default=None)

    def _listed(self) -> list[Machine]:
        leader = self.leader()
        assert leader is not None, "no primary"
        return [self.machines[self.slots[id_]] for id_ in _replica(leader).ids]

    def _all_in_sync(self) -> bool:
        leader = self.leader()
        if leader is None:
            return False
        replica = _replica(leader)
        ids = set(replica.ids)
        if set(replica.configuration.in_sync) != ids or replica.applied != replica.history.last.index:
            return False
        for machine in self.machines:
            if machine.process is None:
                continue
            other = machine.process.replica
            if machine.id not in ids:
                # One that has joined a side that was given up asks for its administrator: nobody knows it.
                removed = any(each.member == machine.id for each in replica.configuration.removed)
                if other.phase not in LEFT and (removed or other.is_current(machine.instant())):
                    return False
            elif (
                other.promised != replica.promised
                or other.applied != replica.applied
                or not other.is_current(machine.instant())
            ):
                return False
        return True

    def _configurations(self) -> str:
        lines = []
        for machine in self.machines:
            if machine.process is not None:
                replica = machine.process.replica
                name = {each.id: f"m{each.slot}" for each in self.machines}
                lines.append(
                    f"\n  m{machine.slot} {machine.id.hex()[:8]} {replica.phase.value} {type(replica.role).__name__} promised {replica.promised} "
                    f"last {replica.history.last.epoch}/{replica.history.last.index} committed {replica.committed} "
                    f"applied {replica.applied} members {[name[id_] for id_ in replica.ids]} "
                    f"set {[name[id_] for id_ in replica.configuration.in_sync]} current {replica.is_current(machine.instant())}"
                )
        return "".join(lines)

    # The judgement at the end

    def _judge(self) -> None:
        leader = self.leader()
        assert leader is not None, "no primary"
        tip = leader.disk.seen.applied
        listed = self._listed()
        for machine in listed:
            assert machine.disk.seen.applied == tip, "members in sync at different entries"
            ours, theirs = machine.disk.seen.storage, leader.disk.seen.storage
            assert (ours.items, ours.marks) == (theirs.items, theirs.marks), f"7: m{machine.slot} has another state"
            assert _records(ours) == _records(theirs), f"7: m{machine.slot} has other records"
        self.regrouped.judge(self.truth, leader)
        violation = check(self.clients.history(tip), VersionedItems(KEYS), PATIENCE)
        assert violation is None, f"4: {violation}"

    def use_slot(self) -> Machine:
        machine = self.machines[self.fresh.pop(0)]
        machine.start()
        return machine

    def crash(self, machine: Machine, down: float) -> None:
        if machine.process is not None:
            machine.crash()
            self.at(self.now + down, lambda: machine.start() if machine.process is None and not self.settling else None)

    def used(self) -> list[Machine]:
        """Machines that ever were part of the cluster."""
        return [machine for machine in self.machines if machine.slot not in self.fresh]

    def pick(self, number: int) -> Machine:
        """Some machine; mostly one that is a member as far as the newest primary knows."""
        leader = self.leader()
        used = self.used()
        if leader is not None and number % 9:
            used = [machine for machine in used if machine.id in _replica(leader).ids] or used
        return used[number // 9 % len(used)]


def _records(storage: Any) -> dict[Any, Any]:
    return {
        at: (r.number, r.log_time, r.answer.to_wire() if isinstance(r.answer, LnhError) else r.answer)
        for at, r in storage.records.items()
    }


def _serves(replica: Replica) -> bool:
    return replica.phase is Phase.PRIMARY


def _replica(machine: Machine) -> Replica:
    assert machine.process is not None, "a machine without a process"
    return machine.process.replica


def run(plan: Plan, make_replica: Callable[[bytes], Replica] = Replica) -> Report:
    """Run a plan; raises Failure when an invariant breaks."""
    return World(plan, make_replica).run()


__all__ = ["Failure", "Milliseconds", "World", "run"]
