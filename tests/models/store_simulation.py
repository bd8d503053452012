"""One member's store in virtual time: its replica and worker leases are real; disk, workers and clients are not.

One seed is one run. The disk loses what was not fsynced and refuses when it is full; the process crashes at any
point; messages are delayed; workers stall. After every step the invariants of the replicated log are checked.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from lnh_common.errors import LnhError, StorageFailed
from lnh_common.messages.store import Commit, Key, Put
from lnh_services.store import log, state
from lnh_services.store import replica as core
from lnh_services.store.caches import Seconds, WorkerId, WorkerLeases
from lnh_services.store.log import ClusterId, Entry, Epoch, MemberId, Milliseconds
from lnh_services.store.replica import Durable, InSync, Interest, ReadId, Replica, RequestId
from models.storage import DictStorage

CLUSTER, MEMBER = ClusterId(b"C" * 16), MemberId(b"M" * 16)
LEASE_MS = 1000
KEYS = [Key(table="t", scope=b"s", id=bytes([n])) for n in range(3)]


@dataclass
class Disk:
    """What survives a crash."""

    promised: Epoch = log.NO_EPOCH
    entries: list[Entry] = field(default_factory=list)
    committed: int = 0
    storage: DictStorage = field(default_factory=DictStorage)

    def take(self, entries: tuple[Entry, ...], committed: int) -> dict[int, state.Answer]:
        self.entries += entries
        answers = {}
        for entry in self.entries[self.committed : committed]:
            content = entry.content()
            if isinstance(content, log.Write):
                answers[entry.index] = state.apply(self.storage, entry.index, entry.log_time, content.commit).answer
        self.committed = committed
        return answers

    def load(self) -> Durable | None:
        if not self.entries:
            return None
        sets = [
            InSync(e.index, c.in_sync) for e in self.entries if isinstance(c := e.content(), log.Open | log.SetChange)
        ]
        in_force = max(i for i, s in enumerate(sets) if s.index <= self.committed)
        last = self.entries[-1]
        return Durable(
            CLUSTER, MEMBER, self.promised, last.position(), last.log_time, self.committed, (MEMBER,),
            tuple(sets[in_force:]),
        )  # fmt: skip


@dataclass
class Reading:
    """A read in progress, with what it may not be older than."""

    key: Key
    at_least: int


@dataclass
class Worker:
    """An hsm worker: its cache, its lease, and the messages on their way to it and from it."""

    name: WorkerId
    cache: dict[Key, int] = field(default_factory=dict)
    lease_end: float = 0.0
    inbox: deque[tuple[object, ...]] = field(default_factory=deque)
    outbox: deque[tuple[object, ...]] = field(default_factory=deque)
    reading: dict[ReadId, Reading] = field(default_factory=dict)
    spoiled: set[ReadId] = field(default_factory=set)  # a forget came while it was read: not cached


@dataclass
class Request:
    """What a client waits for; `commit` is None for the creation of the cluster."""

    commit: Commit | None


class Simulation:
    """Runs one member from a seed; every method is one thing that may happen."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.disk = Disk()
        self.history: list[bytes] = []  # hashes that were ever durable
        self.on_disk_now: core.Effect | None = None
        self.workers = [Worker(WorkerId(bytes([n]) * 16)) for n in range(2)]
        self.requests: dict[RequestId, Request] = {}
        self.acknowledged: dict[tuple[bytes, int], state.Answer] = {}
        self.seen = dict.fromkeys(KEYS, 0)  # the newest version of each key anyone was told of
        self.numbers = 0
        self.sequence = 0
        self.issued: list[Commit] = []
        self.acks = self.crashes = self.reads = self.cached_reads = 0
        self.alive = False
        self.start()

    # The process

    def start(self) -> None:
        self.alive = True
        self.on_disk_now = None
        self.queue: deque[RequestId] = deque()
        self.replica = Replica(self.random.randbytes(16))
        self.fence = self.now + LEASE_MS / 1000
        self.leases = WorkerLeases(LEASE_MS, Seconds(self.fence))
        self.serving: dict[ReadId, Worker] = {}
        found = self.disk.load()
        if found is not None:
            self.run(self.replica.recover(found))

    def crash(self) -> None:
        if self.on_disk_now is not None and self.random.random() < 0.5:
            self.take_to_disk()  # it was durable, but nobody heard
        self.alive = False
        self.crashes += 1
        self.on_disk_now = None
        self.requests.clear()
        for worker in self.workers:
            worker.outbox.clear()
            worker.reading.clear()
            if self.random.random() < 0.5:
                worker.inbox.clear()

    def run(self, effects: list[core.Effect]) -> None:
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            if isinstance(effect, core.Reply):
                self.reply(effect.request, effect.answer)
            elif isinstance(effect, core.Serve):
                self.serve(effect.read)
            elif isinstance(effect, core.Forget):
                told = self.leases.open_round(Seconds(self.now), effect.round)
                for worker in self.workers:
                    if worker.name in told:
                        worker.inbox.append(("forget", effect.round, effect.keys, effect.everything))
                todo.extend(self.rounds_over())
            else:
                assert self.on_disk_now is None, "two things on the disk at once"
                self.on_disk_now = effect

    def rounds_over(self) -> list[core.Effect]:
        over = self.leases.finished(Seconds(self.now))
        return [effect for round_ in over for effect in self.replica.forgotten(round_)]

    def utc(self) -> Milliseconds:
        return Milliseconds(int((1_700_000_000 + self.now + self.random.uniform(-2, 2)) * 1000))  # it jumps about

    def reply(self, number: RequestId, answer: state.Answer) -> None:
        request = self.requests.pop(number)
        if isinstance(answer, StorageFailed) or request.commit is None:
            return
        self.acks += 1
        name = (request.commit.session, request.commit.sequence)
        before = self.acknowledged.setdefault(name, answer)
        assert _same(before, answer), f"{name} was answered {before}, then {answer}"
        if isinstance(answer, int):
            for change in request.commit.changes:
                assert isinstance(change, Put)
                self.seen[change.key] = max(self.seen[change.key], change.expected + 1)

    def serve(self, number: ReadId) -> None:
        worker = self.serving.pop(number)
        if number in worker.reading:
            item = self.disk.storage.get(worker.reading[number].key)
            worker.inbox.append(("got", number, item.version if item else 0))

    # What may happen

    def step(self) -> None:
        happens = [self.some_time, self.restart_or_crash]
        if self.alive:
            happens += [self.write] * 3 + [self.begin] * 4 + [self.disk_answers] * 4 + [self.retry_opening]
            happens += [self.worker_asks] * 2 + [self.store_hears] * 5
        happens += [self.worker_hears] * 6 + [self.worker_reads] * 6
        self.random.choice(happens)()
        self.check()

    def some_time(self) -> None:
        self.now += self.random.choice([0.001, 0.001, 0.01, 0.01, 0.05, 0.05, 0.2, 1.1])
        if self.alive:
            self.run(self.rounds_over())

    def restart_or_crash(self) -> None:
        if not self.alive:
            self.start()
        elif self.random.random() < 0.1:
            self.crash()

    def write(self) -> None:
        """A new request, or the repetition of an old one; a guess at versions, so some are refused."""
        if self.sequence and self.random.random() < 0.4:
            commit = self.issued[self.random.randrange(len(self.issued))]
        else:
            self.sequence += 1
            changed = self.random.sample(KEYS, self.random.randint(1, 2))
            puts = tuple(
                Put(key=key, expected=max(0, self.version(key) - (self.random.random() < 0.1)), head=b"")
                for key in changed
            )
            now = self.utc()
            commit = Commit(client=b"c" * 16, session=b"s" * 16, sequence=self.sequence, issued_at=now, changes=puts)
            self.issued.append(commit)
        self.numbers += 1
        number = RequestId(self.numbers)
        self.requests[number] = Request(commit)
        self.queue.append(number)

    def version(self, key: Key) -> int:
        item = self.disk.storage.get(key)
        return item.version if item else 0

    def begin(self) -> None:
        if not self.replica.idle or self.on_disk_now is not None:
            return
        if self.replica.phase is core.Phase.NONE:
            self.numbers += 1
            number = RequestId(self.numbers)
            self.requests[number] = Request(None)
            self.run(self.replica.create(self.utc(), number, CLUSTER, MEMBER))
        elif self.queue:
            numbers = [self.queue.popleft() for _ in range(min(len(self.queue), self.random.randint(1, 4)))]
            batch = [(n, commit) for n in numbers if (commit := self.requests[n].commit) is not None]
            self.run(self.replica.write(self.utc(), batch))

    def disk_answers(self) -> None:
        effect = self.on_disk_now
        if effect is None:
            return
        if self.random.random() < 0.1:
            self.on_disk_now = None
            self.run(self.replica.refused(StorageFailed("full")))
            return
        answers = self.take_to_disk()
        if isinstance(effect, core.Promise):
            self.run(self.replica.has_promised(self.utc(), effect.epoch))
        elif isinstance(effect, core.Found | core.Persist):
            self.run(self.replica.persisted(effect.receipt, answers))

    def take_to_disk(self) -> dict[int, state.Answer]:
        effect, self.on_disk_now = self.on_disk_now, None
        if isinstance(effect, core.Promise):
            assert effect.epoch > self.disk.promised, "a promise that goes back"
            self.disk.promised = effect.epoch
            return {}
        if isinstance(effect, core.Found):
            self.disk = Disk(promised=effect.promised)
            return self.disk.take((effect.entry,), 1)
        assert isinstance(effect, core.Persist)
        return self.disk.take(effect.entries, effect.committed)

    def retry_opening(self) -> None:
        if self.on_disk_now is None:
            self.run(self.replica.retry(self.utc()))

    def worker_asks(self) -> None:
        worker = self.random.choice(self.workers)
        worker.outbox.append(("attach", self.now))

    def store_hears(self) -> None:
        worker = self.random.choice(self.workers)
        for _ in range(min(len(worker.outbox), self.random.randint(1, 3))):
            self.store_hears_one(worker, worker.outbox.popleft())

    def store_hears_one(self, worker: Worker, message: tuple[object, ...]) -> None:
        match message:
            case ("attach", float(sent)):
                if self.replica.phase is not core.Phase.PROMISING:
                    grant = self.leases.attach(Seconds(self.now), worker.name)
                    worker.inbox.append(("attached", sent, grant.lease_ms, grant.fresh))
            case ("forgotten", int(round_)):
                self.leases.forgotten(worker.name, round_)
                self.run(self.rounds_over())
            case ("read", int(number), Key() as key):
                read = ReadId(number)
                self.serving[read] = worker
                self.run(self.replica.read(read, Interest(key.table, key.scope, key.id)))

    def worker_hears(self) -> None:
        worker = self.random.choice(self.workers)
        for _ in range(min(len(worker.inbox), self.random.randint(1, 3))):
            self.worker_hears_one(worker, worker.inbox.popleft())

    def worker_hears_one(self, worker: Worker, message: tuple[object, ...]) -> None:
        match message:
            case ("attached", float(sent), int(lease_ms), bool(fresh)):
                if fresh:
                    worker.cache.clear()
                    worker.spoiled |= set(worker.reading)
                worker.lease_end = sent + lease_ms / 1000
            case ("forget", int(round_), frozenset() as keys, bool(everything)):
                for key in list(worker.cache):
                    if everything or key in keys:
                        del worker.cache[key]
                worker.spoiled |= {n for n, r in worker.reading.items() if everything or r.key in keys}
                worker.outbox.append(("forgotten", round_))
            case ("got", int(number), int(version)):
                reading = worker.reading.pop(ReadId(number), None)
                if reading is not None:
                    self.told(reading, version)
                    if ReadId(number) not in worker.spoiled:
                        worker.cache[reading.key] = version

    def worker_reads(self) -> None:
        """From its cache under a lease, else from the store."""
        worker, key = self.random.choice(self.workers), self.random.choice(KEYS)
        reading = Reading(key, self.seen[key])
        if self.now >= worker.lease_end:
            worker.cache.clear()
        if key in worker.cache:
            self.cached_reads += 1
            self.told(reading, worker.cache[key])
        elif self.alive:
            self.numbers += 1
            worker.reading[ReadId(self.numbers)] = reading
            worker.outbox.append(("read", self.numbers, key))

    def told(self, reading: Reading, version: int) -> None:
        assert version >= reading.at_least, f"a read gave version {version}; {reading.at_least} was known before it"
        self.seen[reading.key] = max(self.seen[reading.key], version)
        self.reads += 1

    # The invariants

    def check(self) -> None:
        hashes = [entry.hash for entry in self.disk.entries]
        assert hashes[: len(self.history)] == self.history, "an entry that was durable is gone"  # 2, 9
        if len(hashes) == len(self.history):
            return
        self.history = hashes
        log.check_chain(log.genesis(CLUSTER), self.disk.entries)
        replayed, acted = DictStorage(), []
        for entry in self.disk.entries[: self.disk.committed]:
            content = entry.content()
            if isinstance(content, log.Write):
                applied = state.apply(replayed, entry.index, entry.log_time, content.commit)
                if applied.changed:
                    acted.append((content.commit.session, content.commit.sequence))
        assert len(acted) == len(set(acted)), "a request acted twice"  # 5
        assert replayed.items == self.disk.storage.items, "the state is not what the log says"  # 7
        for (session, sequence), answer in self.acknowledged.items():
            if isinstance(answer, int):
                assert (session, sequence) in acted, "an acknowledged write is gone"  # 3


def _same(one: state.Answer, other: state.Answer) -> bool:
    if isinstance(one, LnhError) and isinstance(other, LnhError):
        return one.to_wire() == other.to_wire()
    return one == other


def run(seed: int, steps: int = 1000) -> Simulation:
    """Run one seed; raises AssertionError when an invariant breaks."""
    simulation = Simulation(seed)
    for _ in range(steps):
        simulation.step()
    return simulation
