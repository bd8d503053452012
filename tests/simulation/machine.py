"""A simulated machine: its clock, its disk, a store process that runs a real Replica, and hsm workers with caches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from lnh_common import limits
from lnh_common.errors import StorageFailed
from lnh_common.messages import store
from lnh_common.messages.store import Commit, Key, MemberInfo
from lnh_services.store.etcd.requests import AskEtcd
from lnh_services.store.leases.worker_leases import Grant, WorkerId, WorkerLeases
from lnh_services.store.log.entries import MemberId, Milliseconds, Position
from lnh_services.store.machine import apply
from lnh_services.store.replication.candidate import Candidate
from lnh_services.store.replication.messages import (
    Appended,
    Effect,
    Erase,
    Expelled,
    Forwarded,
    Install,
    Instant,
    Invalidate,
    Message,
    Persist,
    Ping,
    ReadId,
    Reply,
    Report,
    RequestId,
    Say,
    Seconds,
    Send,
    SendSnapshot,
    Serve,
)
from lnh_services.store.replication.replica import Phase, Replica
from models.versioned_items import Value
from simulation.disk import Disk, Snapshot
from simulation.workers import Heard, Reading, View, Worker

if TYPE_CHECKING:
    from simulation.world import World

TICK = 0.05
DISK_RETRY = 0.2
LEFT = (Phase.NONE, Phase.EXPELLED)
MIDDLE = 1.7e12  # of UTC, in milliseconds
Replied = Callable[[apply.Answer, int], None]


class Machine:
    """One place for a member. `slot` is its number in the simulation; its id is never used again."""

    def __init__(self, world: World, slot: int) -> None:
        self.world = world
        self.slot = slot
        self.rng = world.stream(f"machine {slot}")
        self.id = MemberId(self.rng.randbytes(16))
        self.info = MemberInfo(id=self.id, name=f"m{slot}", host=f"host{slot}", port=9000, key=self.rng.randbytes(32))
        half = world.drift / 2.1
        self.rate = 1.0 + self.rng.choice((-half, half, self.rng.uniform(-half, half)))
        self.origin = self.rng.uniform(0, 1000)
        self.utc_offset = self.rng.randint(-2000, 2000)
        self.disk = Disk()
        self.process: Process | None = None
        self.lives = 0
        self.stalled_until = 0.0
        self.starts_at = 0.0
        self.workers = [
            Worker(WorkerId(bytes([slot, number]) * 8), world.stream(f"worker {slot} {number}"), self._boot_now)
            for number in range(world.profile.workers)
        ]
        self.last_epoch_number = 0  # the newest epoch it ever had a lease in, for stale reads

    # Clocks

    def boot(self, now: float) -> float:
        return self.origin + now * self.rate

    def _boot_now(self) -> float:
        return self.boot(self.world.now)

    def world_time(self, boot: float) -> float:
        return (boot - self.origin) / self.rate

    def instant(self) -> Instant:
        now = self.world.now
        return Instant(Seconds(self.origin + now * self.rate), Milliseconds(int(MIDDLE + now * 1000) + self.utc_offset))

    # The process

    def start(self) -> None:
        assert self.process is None, "two processes on one machine"
        self.lives += 1
        self.world.trace(self.slot, "starts", self.lives)
        self.process = Process(self, self.lives)
        self.process.begin()

    def crash(self) -> None:
        process = self.process
        if process is None:
            return
        self.process = None
        self.world.trace(self.slot, "crashes", None)
        process.alive = False
        if process.on_disk is not None and self.rng.random() < 0.5:
            # It was durable, but nobody heard.
            self.disk.carry_out(process.on_disk, self.world.snapshots, self.world.truth.applies)
        self.disk.lose(self.rng)
        for worker in self.workers:
            for reading in worker.reading.values():
                reading.told(None)
            worker.reading.clear()
        process.abandon()

    def stall(self, until: float) -> None:
        if until > self.stalled_until:
            self.stalled_until = until
            self.world.at(until, self._go_on)

    def _go_on(self) -> None:
        if self.process is not None and self.world.now >= self.stalled_until:
            self.process.go_on()


class Process:
    """One life of a store: replica, worker leases, and what is under way."""

    def __init__(self, machine: Machine, life: int) -> None:
        self.machine = machine
        self.world = machine.world
        self.life = life
        self.alive = True
        self.replica = self.world.make_replica(machine.rng.randbytes(16))
        fence = Seconds(machine.instant().boot + limits.WORKER_LEASE_MS / 1000)
        self.leases = WorkerLeases(limits.WORKER_LEASE_MS, fence)
        self.requests: dict[RequestId, Replied] = {}
        self.reads: dict[ReadId, tuple[Worker, Reading]] = {}
        self.on_disk: Persist | Install | Erase | None = None
        self.todo: deque[Effect] = deque()
        self.backlog: deque[Callable[[], None]] = deque()
        self.heard: dict[MemberId, bytes] = {}  # the incarnation a member last gave, as this process heard it
        self.busy = False
        self.installed = 0  # where the last snapshot stands that took the place of the state
        self.ends_after: int | None = None  # crash between two effects
        self.stalls_after: tuple[int, float] | None = None

    def begin(self) -> None:
        found = self.machine.disk.seen.load()
        if found is not None:
            self.soon(lambda: self.run(lambda now: self.replica.recover(now, found)))
        self.soon(self._tick)

    # Events

    def later(self, delay: float, act: Callable[[], None]) -> None:
        """An event of this process: gone if it dies first, late if it is stalled."""
        self.world.at(self.world.now + delay, lambda: self.soon(act))

    def soon(self, act: Callable[[], None]) -> None:
        """Do it now, or once what is under way is done and the process runs."""
        if self.alive:
            self.backlog.append(act)
            self.go_on()

    def run(self, event: Callable[[Instant], list[Effect]]) -> None:
        """Hand the replica an event; what comes of it is carried out next."""
        self.world.steps += 1
        self.todo.extend(event(self.machine.instant()))

    def go_on(self) -> None:
        """Carry out effects, then take the next event, for as long as the process runs."""
        if self.busy:
            return
        self.busy = True
        while self.alive and self.machine.stalled_until <= self.world.now:
            if self.todo:
                if self._may_go_on():
                    self._effect(self.todo.popleft())
                    if not self.todo:
                        self.world.watch(self)
            elif self.backlog:
                self.backlog.popleft()()
            else:
                break
        self.busy = False

    def _may_go_on(self) -> bool:
        """Between two effects a process may die, or be stalled."""
        if self.ends_after is not None:
            self.ends_after -= 1
            if self.ends_after < 0:
                self.world.crash(self.machine, self.machine.starts_at)
                return False
        if self.stalls_after is not None:
            left, duration = self.stalls_after
            self.stalls_after = (left - 1, duration)
            if left <= 0:
                self.stalls_after = None
                self.world.trace(self.machine.slot, "stalls", duration)
                self.machine.stall(self.world.now + duration)
                return False
        return True

    def _effect(self, effect: Effect) -> None:
        kind = type(effect)
        if kind is Send:
            self._send(effect.to, effect.message)  # type: ignore[union-attr]
        elif kind is Persist or kind is Install or kind is Erase:
            self._to_disk(effect)  # type: ignore[arg-type]
        elif isinstance(effect, Reply):
            self._reply(effect)
        elif isinstance(effect, Serve):
            self._serve(effect)
        elif isinstance(effect, Invalidate):
            self._invalidate(effect)
        elif isinstance(effect, SendSnapshot):
            self._send_snapshot(effect)
        elif isinstance(effect, AskEtcd):
            self.world.ask_etcd(self, effect)
        else:
            assert isinstance(effect, Say), "an effect nobody knows"
            self.world.trace(self.machine.slot, "says", effect)

    def _tick(self) -> None:
        self._look_at_leases()
        self.run(self.replica.tick)
        self.later(TICK, self._tick)

    # Messages

    def _send(self, to: MemberId, message: Message) -> None:
        if isinstance(message, Appended):
            position = Position(message.epoch, message.index, message.hash)
            assert self.machine.disk.stable.holds(position), (
                f"an acknowledgement of {message.index}, which is not durable"
            )
            self._have_invalidated_before_the_snapshot()
        if isinstance(message, Expelled):
            assert message.removed.index <= self.replica.committed, "a removal that is not committed expels"
        self.world.send(self, to, message)
        if isinstance(message, Forwarded) and message.entry:
            self.world.has_acknowledged(self, message.entry)

    def _have_invalidated_before_the_snapshot(self) -> None:
        """Nothing is acknowledged while a cache may hold what was there before a snapshot took its place."""
        for worker in self.machine.workers:
            if worker.is_leased():
                for view in worker.cache.values():
                    assert view.applied.index >= self.installed, (
                        f"a cache at m{self.machine.slot} is of {view.applied.index}, a snapshot of {self.installed}"
                    )

    def receive(self, sender: MemberId, message: Message) -> None:
        self.world.trace(self.machine.slot, "hears", message)
        if isinstance(message, Report) and isinstance(self.replica.role, Candidate):  # else the `open` is made
            self.world.truth.promises(sender, message.epoch)
        if isinstance(message, Appended):
            self._hear_acknowledgement(sender, message)
        else:
            self.run(lambda now: self.replica.receive(now, sender, message))
        incarnation = getattr(message, "incarnation", None)
        heeded = isinstance(message, Ping) or getattr(message, "epoch", None) == self.replica.promised
        if incarnation is not None and heeded and not isinstance(message, Appended):
            self.heard[sender] = incarnation

    def _hear_acknowledgement(self, sender: MemberId, message: Appended) -> None:
        """An acknowledgement of another incarnation never raises what is counted."""
        before = self.world.counted(self.replica, sender)
        self.run(lambda now: self.replica.receive(now, sender, message))
        if message.incarnation != self.heard.get(sender):
            after = self.world.counted(self.replica, sender)
            assert after <= before, f"an acknowledgement of another incarnation raised {before} to {after}"

    def _send_snapshot(self, effect: SendSnapshot) -> None:
        number = len(self.world.snapshots) + 1
        self.world.snapshots[number] = self.machine.disk.seen.snapshot()
        self.world.send_snapshot(self, effect.to, number, effect.epoch)

    def offered(self, sender: MemberId, number: int, epoch: object) -> None:
        base = self.world.snapshots[number].base
        self.world.trace(self.machine.slot, "is offered a snapshot at", base.position)
        self.run(lambda now: self.replica.offered(now, sender, number, epoch, base))  # type: ignore[arg-type]

    # Disk

    def _to_disk(self, step: Persist | Install | Erase) -> None:
        assert self.on_disk is None, "two steps with the disk at once"
        if isinstance(step, Persist):
            for entry in step.entries:
                self.world.truth.sees(entry, self.machine.id, self.life, self.world.now)
        self.on_disk = step
        self.world.trace(self.machine.slot, "to disk", step)
        self._disk_works()

    def _disk_works(self) -> None:
        step, disk, rng = self.on_disk, self.machine.disk, self.machine.rng
        delay = (
            rng.uniform(0.0001, 0.0003) if isinstance(step, Persist) and not step.sync else rng.uniform(0.0005, 0.006)
        )
        if disk.slow_until > self.world.now:
            delay += rng.uniform(0, 2 * disk.delay)
        self.later(delay, self._disk_answers)

    def _disk_answers(self) -> None:
        step, disk = self.on_disk, self.machine.disk
        assert step is not None, "the disk has nothing to do"
        if disk.full_until > self.world.now and isinstance(step, Persist) and (step.entries or step.found):
            self.world.trace(self.machine.slot, "disk is full", step.number)
            if not self.replica.may_withdraw(step):
                self.later(DISK_RETRY, self._disk_works)  # others may know of it: it is tried until the disk takes it
                return
            self.on_disk = None
            self.world.withdrawn(step)
            self.run(lambda now: self.replica.refused(now, step.number, StorageFailed("the disk is full")))
            return
        self.on_disk = None
        answers = disk.carry_out(step, self.world.snapshots, self.world.truth.applies)
        if isinstance(step, Persist):
            self.world.truth.commits(disk.seen.applied)
        self.world.has_stored(self.machine, step)
        if isinstance(step, Install):
            self.installed = step.base.position.index
        self.run(lambda now: self.replica.persisted(now, step.number, answers))

    # Requests

    def ask(self, number: RequestId, replied: Replied, event: Callable[[Instant], list[Effect]]) -> None:
        self.requests[number] = replied

        def asked() -> None:
            if number in self.requests:
                self.run(event)
                self.later(0.0, lambda: self.run(self.replica.flush))

        self.soon(asked)

    def withdraw(self, number: RequestId) -> None:
        """Nobody waits any more."""
        if self.requests.pop(number, None) is not None:
            self.world.no_longer_waited.add(number)

    def abandon(self) -> None:
        requests, self.requests = self.requests, {}
        for replied in requests.values():
            replied(StorageFailed("the store died"), -1)

    def _reply(self, reply: Reply) -> None:
        self.world.trace(self.machine.slot, "replies", reply)
        replied = self.requests.pop(reply.request, None)
        if replied is None:
            assert reply.request in self.world.no_longer_waited, f"request {reply.request} is answered twice"
            return
        if reply.entry and self.replica.is_serving():
            self.world.has_acknowledged(self, reply.entry)
        replied(reply.answer, reply.entry)

    # Reads

    def _serve(self, serve: Serve) -> None:
        found = self.reads.pop(serve.read, None)
        if found is None:
            return
        worker, reading = found
        heard = None
        current = self.replica.is_current(self.machine.instant())
        if current != serve.current:
            self.reads[serve.read] = found
            self.later(0.0, lambda: self.run(lambda now: self.replica.read(now, serve.read, reading.interest)))
            return
        if self.machine.disk.seen.base and self.replica.phase not in LEFT:
            view = View(_look(self.machine, reading.keys), self.machine.disk.seen.applied)
            heard = Heard(view, current)
        self.to_worker(worker, lambda: self._told(worker, serve.read, heard))

    def _told(self, worker: Worker, number: ReadId, heard: Heard | None) -> None:
        reading = worker.reading.pop(number, None)
        if reading is None:
            return
        self.world.trace(self.machine.slot, f"worker {worker.name[-1]} is told", (reading.keys, reading.spoiled))
        if heard is not None:
            worker.hears(reading, heard)
        reading.told(heard)

    # Workers

    def _invalidate(self, effect: Invalidate) -> None:
        now = self.machine.instant().boot
        for name in self.leases.begin(now, effect.number, everything=effect.everything):
            for worker in self.machine.workers:
                if worker.name == name:
                    self.to_worker(worker, self._invalidating(worker, effect))
        self._look_at_leases()

    def _invalidating(self, worker: Worker, effect: Invalidate) -> Callable[[], None]:
        def hears() -> None:
            self.world.trace(self.machine.slot, f"worker {worker.name[-1]} drops", effect)
            worker.invalidate(
                store.Invalidate(sequence=effect.number, keys=tuple(effect.keys), everything=effect.everything)
            )
            self.from_worker(worker, lambda: self._has_invalidated(worker, effect.number))

        return hears

    def _has_invalidated(self, worker: Worker, number: int) -> None:
        self.leases.invalidated(worker.name, number)
        self._look_at_leases()

    def _look_at_leases(self) -> None:
        boot = Seconds(self.machine.instant().boot)
        for number in self.leases.finished(boot):
            self.world.trace(self.machine.slot, "invalidation over", number)
            self.soon(self._invalidation_over(number))
        change = self.leases.next_change()
        if change is not None and change > boot:
            self.later((change - boot) / self.machine.rate + 0.001, self._look_once)

    def _look_once(self) -> None:
        for number in self.leases.finished(Seconds(self.machine.instant().boot)):
            self.world.trace(self.machine.slot, "invalidation over", number)
            self.soon(self._invalidation_over(number))

    def _invalidation_over(self, number: int) -> Callable[[], None]:
        return lambda: self.run(lambda now: self.replica.invalidated(now, number))

    def attach(self, worker: Worker, sent: float) -> None:
        """A worker asks for its lease, as it asks the driver."""
        now = self.machine.instant()
        current = self.replica.is_current(now)
        grant = Grant(0, fresh=False, read_write=current)
        if current or self.replica.phase is Phase.MEMBER:
            until = Seconds(self.replica.current_until(now)) if current else None
            grant = self.leases.attach(now.boot, worker.name, read_write=current, until=until)
        self.to_worker(worker, lambda: self._attached(worker, sent, grant))

    def _attached(self, worker: Worker, sent: float, grant: Grant) -> None:
        self.world.trace(self.machine.slot, f"worker {worker.name[-1]} attached", (sent, grant))
        worker.attached(sent, grant)

    def to_worker(self, worker: Worker, hears: Callable[[], None]) -> None:
        """Say something to a worker; in order, and late if it is stalled."""
        worker.last_in = max(worker.last_in, self.world.now + worker.rng.uniform(0.0001, 0.001))

        def arrives() -> None:
            if worker.stalled_until > self.world.now:
                self.world.at(worker.stalled_until, arrives)
            else:
                hears()

        self.world.at(worker.last_in, arrives)

    def from_worker(self, worker: Worker, hears: Callable[[], None]) -> None:
        worker.last_out = max(worker.last_out, self.world.now + worker.rng.uniform(0.0001, 0.001))
        self.world.at(worker.last_out, lambda: self.soon(hears))


def _look(machine: Machine, keys: tuple[Key, ...]) -> dict[Key, Value]:
    items = machine.disk.seen.storage.items
    found = {}
    for key in keys:
        item = items.get((key.table, key.scope, key.id))
        if item is not None:
            found[key] = (item.version, item.head)
    return found


__all__ = ["Commit", "Machine", "Phase", "Process", "Replica", "Snapshot"]
