"""A simulated cluster in virtual time: machines, the network between them, clients, administrators, and faults.

`run(plan)` runs one and raises Failure, with the plan and what happened last, when an invariant breaks. Everything
that is drawn comes from generators of the plan's seed, so the same plan is the same run.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from lnh_common import limits
from lnh_common.errors import (
    LnhError,
    MemberReadOnly,
    NoCluster,
    NotPossible,
    ObjectUnknown,
    StorageFailed,
    VersionConflict,
)
from lnh_common.messages.store import Change, Commit, Delete, DeleteScope, Key, MemberInfo, Put
from lnh_services.store import log, primary, state
from lnh_services.store.log import ClusterId, Epoch, MemberId, Milliseconds, Terms, Write
from lnh_services.store.protocol import (
    Append,
    Effect,
    Erase,
    Install,
    Instant,
    Keep,
    Message,
    Order,
    Persist,
    Promote,
    ReadId,
    RemoveMember,
    RequestId,
    SetMember,
    SetTerms,
)
from lnh_services.store.replica import Interest, Phase, Replica
from models.linearizability import UNKNOWN, Operation, check
from models.versioned_items import Saw, VersionedItems, Wrote
from simulation import plan as plans
from simulation.disk import Snapshot
from simulation.machine import MIDDLE, Machine, Process, Reading, View, Worker
from simulation.plan import Action, Plan
from simulation.truth import Report, Truth, name_of, touches

CLUSTER = ClusterId(b"C" * 16)
TABLE, SCOPE = "t", b"s"
KEYS = [Key(table=TABLE, scope=SCOPE, id=bytes([n])) for n in range(plans.KEYS)]
WHOLE = Key(table=TABLE, scope=SCOPE)
FORMING = 20.0  # seconds in which a cluster without faults has formed
HEALING = 40.0  # ... and in which it is in sync again when faults stop
ATTACH = limits.WORKER_LEASE_MS / 3000
TRACED = 600
FOR_EVER = 1e9
PATIENCE = 20_000  # steps of the checker, which tries the log's order first and so needs few where all is well
KNOWN: dict[type[LnhError], object] = {VersionConflict: VersionConflict, ObjectUnknown: ObjectUnknown}
NOT_TAKEN = (MemberReadOnly, NoCluster, NotPossible)  # the store says that the order was never appended or passed on


class Failure(AssertionError):
    """An invariant broke.

    Args:
        plan: what to run again.
        at: the virtual time.
        trace: the last that happened, one line each.
    """

    def __init__(self, plan: Plan, at: float, why: str, trace: list[str]) -> None:
        super().__init__(why)
        self.plan = plan
        self.at = at
        self.why = why
        self.trace = trace

    def told(self) -> str:
        """Everything one needs to look into it."""
        actions = [f"  {action.at:8.4f} {action.kind}{action.args}" for action in self.plan.actions]
        head = [f"seed {self.plan.seed} at {self.at:.4f}: {self.why}", f"{self.plan.profile}", "actions:"]
        return "\n".join([*head, *actions, "the last that happened:", *self.trace])


@dataclass
class Call:
    """A client's write, over all its tries."""

    commit: Commit
    began: float
    who: str
    ended: float = UNKNOWN
    result: object = None
    entry: int = 0
    tries: int = 0
    refused: int = 0  # tries of which a store said that it neither appended nor forwarded the write


@dataclass(frozen=True)
class Sight:
    """A read that was told as current."""

    keys: tuple[Key, ...]
    began: float
    ended: float
    view: View
    slot: int
    epoch: Epoch
    cached: bool


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
        self.truth = Truth(log.genesis(CLUSTER))
        self.snapshots: dict[int, Snapshot] = {}
        self.no_longer_waited: set[RequestId] = set()
        self.loss, self.duplication, self.slowness = 0.0, 0.0, 0.0
        self.cut: dict[tuple[int, int], float] = {}
        self._links: dict[tuple[int, int], random.Random] = {}
        self.machines = [Machine(self, slot) for slot in range(plans.SLOTS)]
        self._slots = {machine.id: machine.slot for machine in self.machines}
        self._fresh = list(range(plans.SLOTS))  # slots never used
        self.calls: list[Call] = []
        self.sights: list[Sight] = []
        self.versions: dict[Key, int] = dict.fromkeys(KEYS, 0)  # what clients believe
        self._sequence = 0
        self.retried = 0
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
            line = f"{at:9.4f} m{slot} {what} {_shown(thing)}"
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

    def send_snapshot(self, process: Process, to: MemberId, number: int, epoch: Epoch) -> None:
        sender = process.machine.id
        self._carry(process.machine.slot, to, lambda target: target.offered(sender, number, epoch), 10.0)

    def _carry(self, here: int, to: MemberId, deliver: Callable[[Process], None], slowness: float) -> None:
        there = self._slots.get(to)
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
        assert replica.promised in self.truth.served, f"6: m{machine.slot} has a lease in {replica.promised}, not yet served"
        for other in self.machines:
            if other is machine or other.process is None:
                continue
            if _serves(other.process.replica):
                self._in_set_of(other, machine)
            if serving and other.process.replica.is_current(other.instant()):
                self._in_set_of(machine, other)

    def _serves_rightly(self, process: Process) -> None:
        """Whoever promised an epoch holds its `open`, durably, before its opener serves."""
        epoch = process.replica.promised
        if epoch in self.truth.served or epoch.opener != process.machine.id:
            return
        self.truth.served.add(epoch)
        opened = process.replica.history.standing.opened
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
        if leading.promised.opener != leader.id:
            return  # it serves no longer, and knows
        if all(member.id in standing.in_sync for _, standing in history.turns(leading.committed)):
            if following.promised == leading.promised or not _serves(following):
                return
        parted = self.truth.take_overs(leading.promised, following.promised)
        excused = any(each.forced or {leader.id, member.id} & each.removed for each in parted)
        assert excused, (
            f"6: m{member.slot} has a lease in {following.promised}, and m{leader.slot} serves {leading.promised} "
            "without waiting for it"
        )

    def has_acknowledged(self, process: Process, index: int) -> None:
        """A primary answers for an entry: it is durable, and forgotten, wherever a lease may be."""
        replica = process.replica
        position = replica.history.position(index)
        if position is None:
            return
        waited = [standing.in_sync for _, standing in replica.history.turns(replica.committed)]
        everywhere = tuple(member for member in waited[0] if all(member in each for each in waited))
        by = (process.machine.id, process.life) if _serves(replica) else None  # None: it just handed over
        self.truth.acknowledges(by, replica.promised, position, everywhere)
        if self.truth.was_forced:
            return
        entry = self.truth.entries[position.hash]
        content = entry.content()
        for member in everywhere:
            machine = self.machines[self._slots[member]]
            assert machine.disk.stable.holds(position), f"{index} is acknowledged, and not durable at m{machine.slot}"
            if isinstance(content, Write) and self.truth.applied[entry.hash][1]:
                for worker in machine.workers:
                    self._has_forgotten(machine, worker, content.commit, index)

    def _has_forgotten(self, machine: Machine, worker: Worker, commit: Commit, index: int) -> None:
        if machine.boot(self.now) < worker.lease_end and worker.read_write:
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
                if isinstance(content, log.Open):
                    del self.truth.opened[entry.epoch]
                if isinstance(content, Write):
                    self.truth.named[name_of(content.commit)].remove(entry)

    # A run

    def run(self) -> Report:
        with patch.object(limits, "LOG_ENTRIES", self.profile.log_entries):
            try:
                self._form()
                self._suffer()
                self._heal()
                self._judge()
            except Exception as error:
                why = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
                raise Failure(self.plan, self.now, why, self.tell()) from error
        openings = list(self.truth.opened.values())
        return Report(
            steps=self.steps,
            faults=self.faults,
            acknowledged=len(self.truth.acknowledged),
            reads=len(self.sights),
            cached=sum(sight.cached for sight in self.sights),
            retried=self.retried,
            openings=len(openings),
            take_overs=sum(bool(each.removed) for each in openings),
            snapshots=len(self.snapshots),
            dropped=sum(len(machine.disk.seen.saved) for machine in self.machines),
            digest=self.digest,
        )

    def _form(self) -> None:
        """A cluster of the profile's size, without faults."""
        first = self._use_slot()
        number = RequestId(self.number())
        assert first.process is not None
        replica = first.process.replica
        first.process.ask(number, _ignored, lambda now: replica.create(now, number, CLUSTER, first.info))
        assert self.run_until(self.now + 2, lambda: replica.phase is Phase.PRIMARY), "no cluster could be created"
        for _ in range(1, self.profile.members):
            self._join(first, self._use_slot())
        assert self.run_until(self.now + FORMING, self._all_in_sync), f"no cluster formed: {self._standings()}"
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
        getattr(self, f"do_{action.kind}")(*action.args)

    def _heal(self) -> None:
        """Faults stop; 8: all members are in sync again without help."""
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
            elif machine.slot not in self._fresh:
                machine.start()
        end = self.now + HEALING
        while not self.run_until(min(end, self.now + 1.0), self._all_in_sync):
            self._finish_joining()
            assert self.now < end, f"8: not in sync again: {self._standings()}"
        for machine in self._listed():
            for worker in machine.workers:
                for key in KEYS:
                    self._read(machine, worker, (key,))
        self.run_until(self.now + 0.5)
        assert self.run_until(self.now + HEALING / 4, self._all_in_sync), f"8: in sync no longer: {self._standings()}"

    def _finish_joining(self) -> None:
        """A join that was cut off needs its administrator again."""
        leader = self._leader()
        if leader is not None and leader.process is not None:
            infos = leader.process.replica.members
            for machine in self.machines:
                process = machine.process
                if machine.info in infos and process is not None and process.replica.phase is Phase.NONE:
                    self._adopt(machine, infos)

    def _leader(self) -> Machine | None:
        serving = [m for m in self.machines if m.process is not None and _serves(m.process.replica)]
        return max(serving, key=lambda machine: _replica(machine).promised, default=None)

    def _listed(self) -> list[Machine]:
        leader = self._leader()
        assert leader is not None, "no primary"
        return [self.machines[self._slots[id_]] for id_ in _replica(leader).ids]

    def _all_in_sync(self) -> bool:
        leader = self._leader()
        if leader is None:
            return False
        replica = _replica(leader)
        ids = set(replica.ids)
        if set(replica.standing.in_sync) != ids or replica.applied != replica.history.last.index:
            return False
        for machine in self.machines:
            if machine.process is None:
                continue
            other = machine.process.replica
            if machine.id not in ids:
                # One that has joined a side that was given up asks for its administrator: nobody knows it.
                removed = any(each.member == machine.id for each in replica.standing.removed)
                if other.phase not in (Phase.NONE, Phase.EXPELLED) and (removed or other.is_current(machine.instant())):
                    return False
            elif (
                other.promised != replica.promised
                or other.applied != replica.applied
                or not other.is_current(machine.instant())
            ):
                return False
        return True

    def _standings(self) -> str:
        lines = []
        for machine in self.machines:
            if machine.process is not None:
                replica = machine.process.replica
                name = {each.id: f"m{each.slot}" for each in self.machines}
                lines.append(
                    f"\n  m{machine.slot} {machine.id.hex()[:8]} {replica.phase.value} {type(replica.role).__name__} promised {replica.promised} "
                    f"last {replica.history.last.epoch}/{replica.history.last.index} committed {replica.committed} "
                    f"applied {replica.applied} members {[name[id_] for id_ in replica.ids]} "
                    f"set {[name[id_] for id_ in replica.standing.in_sync]} current {replica.is_current(machine.instant())}"
                )
        return "".join(lines)

    # The judgement at the end

    def _judge(self) -> None:
        leader = self._leader()
        assert leader is not None, "no primary"
        tip = leader.disk.seen.applied
        listed = self._listed()
        for machine in listed:
            assert machine.disk.seen.applied == tip, "members in sync at different entries"
            ours, theirs = machine.disk.seen.storage, leader.disk.seen.storage
            assert (ours.items, ours.marks) == (theirs.items, theirs.marks), f"7: m{machine.slot} has another state"
            assert _records(ours) == _records(theirs), f"7: m{machine.slot} has other records"
        history: list[Operation] = []
        for call in self.calls:
            operation = self._operation(call, tip)
            if operation is not None:
                history.append(operation)
        for sight in self.sights:
            if self._counts(sight, tip):
                values = dict(sight.view.values)
                who = f"m{sight.slot}{' cached' if sight.cached else ''} at {sight.view.applied.index}"
                history.append(
                    Operation(sight.began, sight.ended, Saw(sight.keys), values, who, hint=sight.view.applied.index)
                )
        violation = check(history, VersionedItems(KEYS), PATIENCE)
        assert violation is None, f"4: {violation}"

    def _operation(self, call: Call, tip: log.Position) -> Operation | None:
        """What the checker needs of a call; None where it left no trace in the log that is in force."""
        entries = self.truth.named.get(name_of(call.commit), [])
        if call.tries == call.refused:
            assert not entries, f"a call of {call.who} was refused as not taken, and is in the log"
            return None
        kept = [entry for entry in entries if self.truth.holds(tip, entry.position())]
        action = Wrote(call.commit.changes)
        if call.ended != UNKNOWN and not any(entry.index == call.entry for entry in kept):
            parted = [
                each
                for entry in entries
                if entry.index == call.entry
                for each in self.truth.take_overs(tip.epoch, entry.epoch)
            ]
            assert parted, f"3: the write of {call.who} at {call.entry} was acknowledged, and is lost"
        elif call.ended != UNKNOWN:
            who = f"{call.who} at {call.entry}"
            return Operation(call.began, call.ended, action, call.result, who, hint=min(each.index for each in kept))
        # What became of it nobody was told. Where it acted it is in the log, and did so at any time after its call.
        acted = [entry for entry in kept if self.truth.applied[entry.hash][1]]
        if not acted:
            return None
        return Operation(call.began, FOR_EVER, action, True, f"{call.who} unanswered", hint=acted[0].index)

    def _counts(self, sight: Sight, tip: log.Position) -> bool:
        """Whether a read must fit: not one of a member that was removed as lost, or of a side that was given up by force."""
        machine = self.machines[sight.slot]
        parted = self.truth.take_overs(tip.epoch, sight.epoch)
        if any(each.forced or machine.id in each.removed for each in parted):
            return False
        if not self.truth.holds(tip, sight.view.applied):
            parted = self.truth.take_overs(tip.epoch, sight.view.applied.epoch)
            assert parted, f"3: m{sight.slot} showed what {sight.view.applied.index} wrote, and it is lost"
            return False
        return True

    # Members

    def _use_slot(self) -> Machine:
        machine = self.machines[self._fresh.pop(0)]
        machine.start()
        return machine

    def _join(self, via: Machine, machine: Machine) -> None:
        process = via.process

        def listed(answer: state.Answer, entry: int) -> None:
            if isinstance(answer, int) and via.process is process and process is not None:
                self._adopt(machine, process.replica.members)

        self._order(via, SetMember(machine.info), listed)

    def _adopt(self, machine: Machine, members: tuple[MemberInfo, ...]) -> None:
        process = machine.process
        if process is None or process.replica.phase is not Phase.NONE or process.requests:
            return
        number = RequestId(self.number())
        self.trace(machine.slot, "is adopted", None)

        def adopts(now: Instant) -> list[Effect]:
            if process.replica.phase is not Phase.NONE:
                process.withdraw(number)
                return []
            return process.replica.adopt(now, number, CLUSTER, machine.info, members)

        process.ask(number, _ignored, adopts)

    def _order(self, via: Machine, order: Order, replied: Callable[[state.Answer, int], None]) -> None:
        process = via.process
        if process is not None:
            number = RequestId(self.number())
            self.trace(via.slot, "is asked", order)
            process.ask(number, replied, lambda now: process.replica.submit(now, number, order))

    def crash(self, machine: Machine, down: float) -> None:
        if machine.process is not None:
            machine.crash()
            self.at(self.now + down, lambda: machine.start() if machine.process is None and not self.settling else None)

    def _used(self) -> list[Machine]:
        """Machines that ever were part of the cluster."""
        return [machine for machine in self.machines if machine.slot not in self._fresh]

    def _pick(self, number: int) -> Machine:
        """Some machine; mostly one that is a member as far as the newest primary knows."""
        leader = self._leader()
        used = self._used()
        if leader is not None and number % 9:
            used = [machine for machine in used if machine.id in _replica(leader).ids] or used
        return used[number // 9 % len(used)]

    # Actions: faults

    def do_crash(self, slot: int, down: float, primary_too: bool) -> None:
        machine = self._pick(slot)
        leader = self._leader()
        if primary_too and leader is not None:
            machine = leader
        self.crash(machine, down)

    def do_crash_between(self, slot: int, effects: int, down: float) -> None:
        machine = self._pick(slot)
        machine.starts_at = down
        if machine.process is not None:
            machine.process.ends_after = effects

    def do_power_cut(self, down: float) -> None:
        for machine in self._used():
            self.crash(machine, down * (1 + machine.slot / 3))

    def do_stall(self, slot: int, effects: int, duration: float) -> None:
        machine = self._pick(slot)
        if machine.process is not None:
            machine.process.stalls_after = (effects, duration)

    def do_stall_worker(self, slot: int, number: int, duration: float) -> None:
        workers = self._pick(slot).workers
        workers[number % len(workers)].stalled_until = self.now + duration

    def do_slow_disk(self, slot: int, duration: float, delay: float) -> None:
        disk = self._pick(slot).disk
        disk.slow_until, disk.delay = self.now + duration, delay

    def do_full_disk(self, slot: int, duration: float) -> None:
        self._pick(slot).disk.full_until = self.now + duration

    def do_cut(self, one: int, other: int, duration: float) -> None:
        """One way only."""
        self.cut[self._pick(one).slot, self._pick(other).slot] = self.now + duration

    def do_isolate(self, slot: int, duration: float) -> None:
        alone = self._pick(slot).slot
        self._part([alone], [slot for slot in range(plans.SLOTS) if slot != alone], duration)

    def do_split(self, mask: int, duration: float) -> None:
        one = [slot for slot in range(plans.SLOTS) if mask >> slot & 1]
        self._part(one, [slot for slot in range(plans.SLOTS) if slot not in one], duration)

    def _part(self, ones: list[int], others: list[int], duration: float) -> None:
        for one in ones:
            for other in others:
                self.cut[one, other] = self.cut[other, one] = self.now + duration

    def do_lose_tail(self, slot: int, after: float, down: float, apart: float) -> None:
        """The primary dies with its last entries on their way to its disk, and one that has them is away meanwhile."""
        leader, other = self._leader(), self._pick(slot)
        if leader is None or other is leader:
            return
        leader.disk.slow_until, leader.disk.delay = self.now + after, 1.0

        def dies() -> None:
            self._part([other.slot], [slot for slot in range(plans.SLOTS) if slot != other.slot], apart)
            self.crash(leader, down)

        self.at(self.now + after, dies)

    def do_jump(self, slot: int, milliseconds: int) -> None:
        self._pick(slot).utc_offset += milliseconds

    # Actions: administration

    def do_join(self, slot: int, number: int) -> None:
        if len(self._fresh) > 0 and len(self._used()) < self.profile.members + 2:
            self._join(self._pick(slot), self._use_slot())

    def do_promote(self, slot: int, number: int) -> None:
        via = self._pick(slot)
        target = self._member_of(via, number)
        if target is not None:
            self._order(via, Promote(target), _ignored)

    def do_remove(self, slot: int, number: int) -> None:
        via = self._pick(slot)
        target = self._member_of(via, number)
        if target is not None and via.process is not None and len(via.process.replica.ids) > 2:
            self._order(via, RemoveMember(target), _ignored)

    def _member_of(self, via: Machine, number: int) -> MemberId | None:
        if via.process is None:
            return None
        ids = via.process.replica.ids
        return ids[number % len(ids)] if ids else None

    def do_take_over(self, how: str, long: float, admins: tuple[tuple[int, int, bool, float], ...]) -> None:
        """The primary is lost, or so the administrators think; `long` says for how long it really is."""
        leader = self._leader()
        if leader is None:
            return
        if how == "crash":
            self.crash(leader, long)
        elif how == "isolate":
            self._part([leader.slot], [slot for slot in range(plans.SLOTS) if slot != leader.slot], long)
        for slot, more, force, patience in admins:
            via = self._pick(slot)
            if via is not leader:
                act = self._taking_over(via, leader.id, more, force, patience, 3)
                self.at(self.now + patience, act)

    def _taking_over(
        self, via: Machine, leader: MemberId, more: int, force: bool, patience: float, tries: int
    ) -> Callable[[], None]:
        """One try of an administrator, who tries again when it is refused."""

        def replied(answer: state.Answer, entry: int) -> None:
            if isinstance(answer, LnhError) and tries > 1:
                again = self._taking_over(via, leader, more, force, patience, tries - 1)
                self.at(self.now + patience / 3, again)

        def takes_over() -> None:
            process = via.process
            if process is None or self.settling or process.replica.phase is not Phase.MEMBER:
                return
            others = [id_ for id_ in process.replica.ids if id_ not in (leader, via.id)]
            lost = frozenset([leader, *others[:more]])
            self.truth.lost.setdefault(via.id, []).append((lost, force))
            number = RequestId(self.number())
            names = sorted(self._slots[member] for member in lost)
            self.trace(via.slot, "is to take over", (names, force))
            process.ask(number, replied, lambda now: process.replica.take_over(now, number, lost, force=force))

        return takes_over

    def do_terms(self, slot: int, lease_ms: int) -> None:
        self._order(self._pick(slot), SetTerms(Terms(lease_ms=lease_ms)), _ignored)

    def do_look(self, slot: int) -> None:
        process = self._pick(slot).process
        if process is not None and process.replica.phase is Phase.MEMBER:
            number = RequestId(self.number())
            process.ask(number, _ignored, lambda now: process.replica.acknowledge_divergence(now, number))

    # Actions: clients

    def do_write(
        self, client: int, shape: str, keys: tuple[int, int], guess: int, tries: tuple[Any, ...], withdraws: bool
    ) -> None:
        self._sequence += 1
        head = self._sequence.to_bytes(4, "big")
        one, two = (KEYS[key] for key in keys)
        changes: tuple[Change, ...]
        if shape == "delete":
            changes = (Delete(key=one, expected=None if guess else self.versions[one]),)
        elif shape == "clear":
            changes = (DeleteScope(key=WHOLE),)
        else:
            written = [one, two] if shape == "two" else [one]
            changes = tuple(Put(key=key, expected=max(0, self.versions[key] + guess), head=head) for key in written)
        commit = Commit(
            client=bytes([client]) * 16,
            session=b"s" * 16,
            sequence=self._sequence,
            issued_at=int(MIDDLE + self.now * 1000),
            changes=changes,
        )
        call = Call(commit, self.now, f"c{client}/{self._sequence}")
        self.calls.append(call)
        self._try(call, list(tries), withdraws)

    def _try(self, call: Call, tries: list[tuple[int, float, float]], withdraws: bool) -> None:
        """One try, and the next when it fails or takes too long."""
        if call.ended != UNKNOWN or not tries or self.settling:
            return
        slot, patience, pause = tries.pop(0)
        machine = self._pick(slot)
        process = machine.process
        if process is None:
            self.at(self.now + pause, lambda: self._try(call, tries, withdraws))
            return
        self.retried += call.tries > 0
        number = RequestId(self.number())
        call.tries += 1
        over = False

        def replied(answer: state.Answer, entry: int) -> None:
            nonlocal over
            self._answered(call, answer, entry)
            if not over:
                over = True
                self.at(self.now + pause, lambda: self._try(call, tries, withdraws))

        def too_late() -> None:
            nonlocal over
            if not over:
                over = True
                if withdraws:
                    process.withdraw(number)
                self._try(call, tries, withdraws)

        self.trace(machine.slot, "is asked", call.commit)
        process.ask(number, replied, lambda now: process.replica.submit(now, number, call.commit))
        self.at(self.now + patience, too_late)

    def _answered(self, call: Call, answer: state.Answer, entry: int) -> None:
        if isinstance(answer, NOT_TAKEN) or (isinstance(answer, StorageFailed) and entry == 0):
            call.refused += 1
            return
        result = True if isinstance(answer, int) else KNOWN.get(type(answer))
        if result is None:
            return
        if call.ended != UNKNOWN:
            same = (
                call.result == result
                or self.truth.was_forced
                or any(each.removed for each in self.truth.opened.values())
            )
            assert same, f"{call.who} was answered {call.result}, then {result}"
            return
        call.ended, call.result, call.entry = self.now, result, entry
        if result is True:
            for change in call.commit.changes:
                self._learn(change)

    def _learn(self, change: Change) -> None:
        if isinstance(change, Put):
            self.versions[change.key] = change.expected + 1
        elif isinstance(change, Delete):
            self.versions[change.key] = 0
        elif isinstance(change, DeleteScope):
            self.versions = dict.fromkeys(KEYS, 0)

    def do_read(self, slot: int, worker: int, key: int | None) -> None:
        machine = self._pick(slot)
        keys = tuple(KEYS) if key is None else (KEYS[key],)
        self._read(machine, machine.workers[worker % len(machine.workers)], keys)

    def _read(self, machine: Machine, worker: Worker, keys: tuple[Key, ...]) -> None:
        """From the worker's cache under its lease, else from the store."""
        if worker.stalled_until > self.now:
            return
        began = self.now
        if machine.boot(self.now) >= worker.lease_end:
            worker.cache.clear()
        process = machine.process
        if len(keys) == 1 and keys[0] in worker.cache:
            if worker.read_write:
                self._saw(machine, keys, began, worker.cache[keys[0]], cached=True)
        elif process is not None:
            number = ReadId(self.number())

            def told(view: View | None) -> None:
                if view is not None:
                    self._saw(machine, keys, began, view, cached=False)

            interest = Interest(TABLE, SCOPE, keys[0].id if len(keys) == 1 else None)
            reading = Reading(keys, interest, told)
            worker.reading[number] = reading

            def asks() -> None:
                process.reads[number] = (worker, reading)
                process.run(lambda now: process.replica.read(now, number, interest))

            process.from_worker(worker, asks)

    def _saw(self, machine: Machine, keys: tuple[Key, ...], began: float, view: View, *, cached: bool) -> None:
        values = {key: view.values[key] for key in keys if key in view.values}
        self.trace(machine.slot, "shows", (keys, values, view.applied.index, cached))
        for key in keys:
            self.versions[key] = values[key][0] if key in values else 0
        epoch = machine.disk.seen.promised
        self.sights.append(Sight(keys, began, self.now, View(values, view.applied), machine.slot, epoch, cached))


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


def _ignored(answer: state.Answer, entry: int) -> None:
    """Administrators look at the cluster, not at the answer."""


def _shown(thing: Any) -> str:
    """A line that a person can read: long bytes are cut, ids stand as hexadecimal digits."""
    if isinstance(thing, log.Entry):
        return f"<{thing.epoch}/{thing.index} {_shown(thing.content())}>"
    if isinstance(thing, Epoch):
        return str(thing)
    if isinstance(thing, log.Position):
        return f"{thing.epoch}/{thing.index}"
    if isinstance(thing, MemberInfo):
        return thing.name
    if isinstance(thing, Key):
        return thing.id.hex() or "*"
    if isinstance(thing, bytes):
        return thing.hex()[:32]
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return f"{type(thing).__name__}({', '.join(_shown(each) for each in thing)})"
    if isinstance(thing, tuple | list | frozenset | set):
        return f"({', '.join(_shown(each) for each in thing)})"
    if isinstance(thing, dict):
        return f"{{{', '.join(f'{_shown(key)}: {_shown(value)}' for key, value in thing.items())}}}"
    fields: Iterable[str] = getattr(thing, "__struct_fields__", ())
    if fields:
        default = {name: getattr(thing, name) for name in fields}
        shown = [f"{name}={_shown(value)}" for name, value in default.items() if value not in (None, (), False)]
        return f"{type(thing).__name__}({', '.join(shown)})"
    return str(thing)


def run(plan: Plan, make_replica: Callable[[bytes], Replica] = Replica) -> Report:
    """Run a plan; raises Failure when an invariant breaks."""
    return World(plan, make_replica).run()


__all__ = ["Failure", "Milliseconds", "World", "run"]
