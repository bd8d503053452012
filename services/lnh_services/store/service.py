"""The store's shell: carries out the replica's effects on disk and caches, and answers its two sockets.

One loop, one writer thread. Requests become events of the replica, one step at a time; what arrives during a
step is the next batch, so that a hundred writers cost one fsync. Reads are made on the loop's thread.

The hsm's door takes everything; the services' door only reads. A store whose disk fails in a way that leaves
open what is durable exits at once, answering nobody: its next start reads what is really there.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from lnh_common import limits
from lnh_common.bus.server import Call, Server
from lnh_common.errors import (
    AlreadyDone,
    ConfigurationInvalid,
    LnhError,
    NoCluster,
    SealBroken,
    StorageFailed,
    Unreachable,
)
from lnh_common.events import Log
from lnh_common.messages import store as messages
from lnh_common.messages.base import Empty, Message
from lnh_services.paths import MemberDirectory
from lnh_services.store import replica as core
from lnh_services.store import state
from lnh_services.store.caches import Seconds, WorkerId, WorkerLeases
from lnh_services.store.changes import KEYS_AT_ONCE, Rate, RecentChanges
from lnh_services.store.engine import DiskFull, DiskUncertain, Engine, LastStop, Outcome, Sizes
from lnh_services.store.log import ClusterId, MemberId, Milliseconds
from lnh_services.store.replica import Interest, Phase, ReadId, Replica, RequestId

R = TypeVar("R", bound=Message)

BATCH_ENTRIES: Final = 512
BATCH_BYTES: Final = 8 * limits.MIB
TICK: Final = 0.5  # how often a trouble is looked at again
WATCH_MARGIN: Final = 0.05  # a watch is answered so long before its asker gives up
EXIT_DISK: Final = 74  # EX_IOERR
EXIT_BUG: Final = 70  # EX_SOFTWARE

_DISK_EFFECTS: Final = (core.Found, core.Promise, core.Persist, core.Erase)
DiskEffect = core.Found | core.Promise | core.Persist | core.Erase

_log: Final = Log("store")


class _Write(NamedTuple):
    request: RequestId
    commit: messages.Commit
    weight: int


class _Order(NamedTuple):
    """A creation or an erasure: done alone, when nothing is in flight."""

    request: RequestId
    message: messages.Create | messages.Destroy


class _Read(NamedTuple):
    perform: Callable[[], Message]
    answer: asyncio.Future[Any]


class StoreService:
    """One member's store. Made and used within a running loop.

    Raises ConfigurationInvalid when another store runs on the same directory.
    """

    def __init__(self, directory: MemberDirectory) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self._directory: Final = directory
        self._lock: Final = _lock(directory.data("store") / "store.lock")
        self._engine: Final = Engine(directory.data("store"))
        self._writer: Final = ThreadPoolExecutor(1, "store-writer")
        self._boot: Final = _boot_id()
        self._replica: Final = Replica(os.urandom(16))
        self._leases = WorkerLeases(limits.WORKER_LEASE_MS, _boottime())
        self._identities: dict[WorkerId, bytes] = {}
        self._changes: Final = RecentChanges()
        self._watchers: set[asyncio.Future[None]] = set()
        self._rate: Final = Rate()
        self._numbers = 0
        self._writes: deque[_Write] = deque()
        self._orders: deque[_Order] = deque()
        self._requests: dict[RequestId, asyncio.Future[core.Reply]] = {}
        self._reads: dict[ReadId, _Read] = {}
        self._forget: messages.Forget | None = None
        self._problem: StorageFailed | None = None  # the disk refuses; passes by itself
        self._damage: SealBroken | None = None  # what is on disk is wrong; does not
        self._loaded = False
        self._writing = False  # the writer thread has something to do
        self._stopping = False
        self._scheduled = False
        self._lease_timer: asyncio.TimerHandle | None = None
        self._hsm: Final = Server(directory.store_for_hsm, name="store.hsm")
        self._services: Final = Server(directory.store_for_services, name="store.services")
        self._enter_handlers()

    def _enter_handlers(self) -> None:
        for door in (self._hsm, self._services):
            door.serve(messages.GET, self._get)
            door.serve(messages.SCAN, self._scan)
            door.serve(messages.COUNT, self._count)
            door.serve(messages.WATCH, self._watch)
            door.serve(messages.STATUS, self._status)
        self._hsm.serve(messages.COMMIT, self._commit)
        self._hsm.serve(messages.RECALL, self._recall)
        self._hsm.serve(messages.CREATE, self._create)
        self._hsm.serve(messages.DESTROY, self._destroy)
        self._hsm.serve(messages.ATTACH, self._attach)
        self._hsm.on_cast(messages.FORGOTTEN, self._forgotten)

    # Life

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish what was begun."""
        self._load()
        self._hsm.start()
        self._services.start()
        try:
            while not stop.is_set():
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stop.wait(), TICK)
                    break
                self._tick()
            await self._finish()
        finally:
            await asyncio.gather(self._hsm.close(0.2), self._services.close(0.2))
            self._writer.shutdown(wait=True)
            self._note_stop()
            self._engine.close()
            os.close(self._lock)

    def _load(self) -> None:
        """Open what is on disk; a trouble is kept, said in every answer, and tried again if it can pass."""
        try:
            found = self._engine.load()
        except SealBroken as error:
            self._engine.close()
            self._loaded = True
            self._damaged(error)
            return
        except StorageFailed as error:
            self._engine.close()
            self._troubled(error)
            return
        self._loaded = True
        self._untroubled()
        if found is None:
            _log.info("no cluster")
            return
        durable, last_stop = found
        self._leases = WorkerLeases(limits.WORKER_LEASE_MS, self._fence(last_stop))
        self._changes.restart(durable.committed)
        _log.info("loaded", epoch=str(durable.promised), last=durable.last.index, committed=durable.committed)
        self._run(self._replica.recover(durable))

    def _fence(self, last_stop: LastStop) -> Seconds:
        """When no worker can hold a lease of an earlier incarnation any more."""
        now = _boottime()
        if self._boot and last_stop.boot != self._boot:
            return now  # the machine was started since, and its workers with it
        latest = Seconds(now + limits.WORKER_LEASE_MS / 1000)
        return latest if last_stop.lease_end is None else Seconds(min(latest, max(now, last_stop.lease_end)))

    async def _finish(self) -> None:
        """Take nothing new; let what waits become durable and be answered."""
        self._stopping = True
        for watcher in list(self._watchers):
            _wake(watcher)
        pending = set(self._requests.values())
        if pending:
            await asyncio.wait(pending, timeout=2 * limits.WORKER_LEASE_MS / 1000 + limits.DISK_STALL)
            await asyncio.sleep(0)  # their handlers send the answers

    def _note_stop(self) -> None:
        if self._loaded and self._damage is None:
            try:
                self._engine.stop(self._boot, self._leases.latest_end(_boottime()))
            except StorageFailed as error:
                _log.warning("stop not noted", problem=str(error))  # the next start waits a lease longer

    def _tick(self) -> None:
        if self._damage is not None or self._writing:
            return
        if not self._loaded:
            self._load()
        elif self._problem is not None:
            if self._replica.phase in (Phase.PROMISING, Phase.OPENING):
                self._run(self._replica.retry(_utc()))
            else:
                self._submit(self._engine.probe, self._probed)

    # Reads

    async def _get(self, call: Call, get: messages.Get) -> messages.Got:
        key = get.key
        return await self._read(
            Interest(key.table, key.scope, key.id),
            lambda: messages.Got(item=self._engine.get(key, body=get.body), index=self._replica.committed),
        )

    async def _scan(self, call: Call, scan: messages.Scan) -> messages.Scanned:
        def perform() -> messages.Scanned:
            items, more = self._engine.scan(scan)
            return messages.Scanned(items=tuple(items), more=more, index=self._replica.committed)

        return await self._read(Interest(scan.table, scan.scope), perform)

    async def _count(self, call: Call, count: messages.Count) -> messages.Counted:
        return await self._read(
            Interest(count.table, count.scope),
            lambda: messages.Counted(count=self._engine.count(count.table, count.scope), index=self._replica.committed),
        )

    async def _read(self, interest: Interest, perform: Callable[[], R]) -> R:
        self._check_sound()
        number = ReadId(self._next_number())
        answer: asyncio.Future[R] = self._loop.create_future()
        self._reads[number] = _Read(perform, answer)
        try:
            self._run(self._replica.read(number, interest))
            return await answer
        finally:
            self._reads.pop(number, None)
            self._replica.withdraw(number)

    def _serve_read(self, number: ReadId) -> None:
        read = self._reads.get(number)
        if read is None or read.answer.done():
            return
        try:
            self._check_sound()
            if self._replica.phase is Phase.NONE:
                raise NoCluster("this member's store holds no cluster")
            read.answer.set_result(read.perform())
        except SealBroken as error:
            self._damaged(error)
            read.answer.set_exception(error)
        except LnhError as error:
            read.answer.set_exception(error)

    # Writes

    async def _commit(self, call: Call, commit: messages.Commit) -> messages.Committed:
        state.check(commit)
        self._check_sound()
        weight = sum(len(c.head) + len(c.body) for c in commit.changes if isinstance(c, messages.Put))
        number = RequestId(self._next_number())
        self._writes.append(_Write(number, commit, weight))
        reply = await self._answered(number)
        index = _index(reply)
        return messages.Committed(index=index, duplicate=index != reply.entry)

    async def _recall(self, call: Call, recall: messages.Recall) -> messages.Recalled:
        self._check_sound()
        record = self._engine.record(recall.client, recall.session, recall.sequence)
        if record is None:
            return messages.Recalled(known=False, index=0)
        if isinstance(record.answer, LnhError):
            raise record.answer
        return messages.Recalled(known=True, index=record.answer)

    async def _create(self, call: Call, create: messages.Create) -> Empty:
        return await self._order(create)

    async def _destroy(self, call: Call, destroy: messages.Destroy) -> Empty:
        return await self._order(destroy)

    async def _order(self, message: messages.Create | messages.Destroy) -> Empty:
        self._check_sound()
        number = RequestId(self._next_number())
        self._orders.append(_Order(number, message))
        _index(await self._answered(number))
        return Empty()

    async def _answered(self, number: RequestId) -> core.Reply:
        """The replica's answer to a request."""
        if self._stopping:
            raise Unreachable("this store is stopping")
        future: asyncio.Future[core.Reply] = self._loop.create_future()
        self._requests[number] = future
        self._schedule()
        try:
            return await future
        finally:
            del self._requests[number]

    def _schedule(self) -> None:
        """Begin the next step once every message that is ready has been taken."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._begin_step)

    def _begin_step(self) -> None:
        self._scheduled = False
        if self._damage is not None:
            self._refuse_waiting(self._damage)
        elif self._problem is not None and not self._writing and not self._replica.idle:
            self._refuse_waiting(self._problem)  # the epoch itself could not be opened
        elif self._replica.idle and not self._writing:
            if self._orders:
                self._run(self._carry_out(self._orders.popleft()))
                self._schedule()
            elif self._writes:
                self._run(self._write_batch())

    def _carry_out(self, order: _Order) -> list[core.Effect]:
        if order.request not in self._requests:
            return []  # its deadline passed before it began
        message, held = order.message, self._replica.cluster
        if isinstance(message, messages.Create):
            if held == message.cluster and self._replica.member == message.member:
                return [core.Reply(order.request, self._replica.committed)]
            if held:
                return [core.Reply(order.request, AlreadyDone(f"the store holds cluster {held.hex()}"))]
            return self._replica.create(_utc(), order.request, ClusterId(message.cluster), MemberId(message.member))
        if not held:
            return [core.Reply(order.request, 0)]
        if held != message.cluster:
            return [core.Reply(order.request, NoCluster(f"the store holds cluster {held.hex()}, not this one"))]
        return self._replica.destroy(order.request)

    def _write_batch(self) -> list[core.Effect]:
        if self._replica.phase is Phase.NONE:
            self._refuse_waiting(NoCluster("this member's store holds no cluster"))
            return []
        batch: list[tuple[RequestId, messages.Commit]] = []
        weight = 0
        while self._writes and len(batch) < BATCH_ENTRIES and weight < BATCH_BYTES:
            write = self._writes.popleft()
            if write.request in self._requests:  # else its deadline passed before it was appended
                batch.append((write.request, write.commit))
                weight += write.weight
        return self._replica.write(_utc(), batch) if batch else []

    def _refuse_waiting(self, error: LnhError) -> None:
        waiting = [order.request for order in self._orders] + [write.request for write in self._writes]
        self._orders.clear()
        self._writes.clear()
        for request in waiting:
            self._reply(core.Reply(request, error))

    # Effects

    def _run(self, effects: list[core.Effect]) -> None:
        """Carry out effects, and those that follow at once."""
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            if isinstance(effect, core.Reply):
                self._reply(effect)
            elif isinstance(effect, core.Serve):
                self._serve_read(effect.read)
            elif isinstance(effect, core.Forget):
                todo.extend(self._begin_forgetting(effect))
            else:
                self._to_disk(effect)
        if self._writes or self._orders:
            self._schedule()

    def _reply(self, reply: core.Reply) -> None:
        future = self._requests.get(reply.request)
        if future is not None and not future.done():
            future.set_result(reply)

    def _to_disk(self, effect: DiskEffect) -> None:
        if isinstance(effect, core.Persist):
            self._submit(
                lambda: self._engine.persist(effect.entries, effect.committed),
                lambda outcome: self._persisted(effect.receipt, outcome),
            )
        elif isinstance(effect, core.Promise):
            self._submit(
                lambda: self._engine.promise(effect.epoch, self._boot),
                lambda _: self._run(self._replica.has_promised(_utc(), effect.epoch)),
            )
        elif isinstance(effect, core.Found):
            self._changes.restart(0)
            self._submit(
                lambda: self._engine.found(effect.cluster, effect.member, effect.promised, effect.entry, self._boot),
                lambda outcome: self._persisted(effect.receipt, outcome),
            )
        else:
            self._submit(self._engine.erase, self._erased)

    def _submit(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Have the writer thread do `work`, then call `then` here with its result."""
        assert not self._writing, "the writer does one thing at a time"
        self._writing = True
        watchdog = self._loop.call_later(limits.DISK_STALL, self._stalled)

        def done(future: ThreadFuture[Any]) -> None:
            self._loop.call_soon_threadsafe(self._written, future, watchdog, then)

        self._writer.submit(work).add_done_callback(done)

    def _written(self, future: ThreadFuture[Any], watchdog: asyncio.TimerHandle, then: Callable[[Any], None]) -> None:
        watchdog.cancel()
        self._writing = False
        error = future.exception()
        if error is None:
            self._untroubled()
            then(future.result())
        elif isinstance(error, DiskFull):
            self._troubled(error)
            self._run(self._replica.refused(error))
        elif isinstance(error, SealBroken):
            self._damaged(error)
            self._run(self._replica.refused(error))
        else:
            if isinstance(error, DiskUncertain):
                _log.failure("disk failed, exiting", problem=str(error))
                _exit(EXIT_DISK)
            _log.bug("writer failed, exiting", error)
            _exit(EXIT_BUG)
        self._schedule()

    def _persisted(self, receipt: core.Acknowledgement, outcome: Outcome) -> None:
        for index, keys in outcome.changed:
            self._changes.add(index, keys)
        self._rate.add(self._loop.time(), len(outcome.answers))
        self._run(self._replica.persisted(receipt, outcome.answers))
        for watcher in list(self._watchers):
            _wake(watcher)

    def _erased(self, _: None) -> None:
        self._changes.restart(0)
        self._run(self._replica.erased())
        for watcher in list(self._watchers):
            _wake(watcher)
        _log.info("erased")

    def _probed(self, _: None) -> None:
        """The disk takes writes again; nothing else follows."""

    def _stalled(self) -> None:
        _log.failure("disk answers nothing, exiting", seconds=limits.DISK_STALL)
        _exit(EXIT_DISK)

    # The workers' caches

    async def _attach(self, call: Call, attach: messages.Attach) -> messages.Attached:
        self._check_sound()
        worker = WorkerId(attach.worker)
        if self._replica.phase is Phase.PROMISING:
            # Until this start is on disk, the next one would not know that leases may have been granted since.
            return messages.Attached(lease_ms=0, index=self._replica.committed, fresh=True, read_write=False)
        grant = self._leases.attach(_boottime(), worker)
        moved = self._identities.get(worker) != call.identity
        self._identities[worker] = call.identity
        if moved and not grant.fresh and self._forget is not None:
            self._hsm.cast(call.identity, messages.FORGET, self._forget)  # the first may have gone to the old one
        return messages.Attached(
            lease_ms=grant.lease_ms,
            index=self._replica.committed,
            fresh=grant.fresh,
            read_write=self._replica.is_read_write,
        )

    async def _forgotten(self, call: Call, forgotten: messages.Forgotten) -> None:
        self._leases.forgotten(WorkerId(forgotten.worker), forgotten.sequence)
        self._look_at_leases()

    def _begin_forgetting(self, forget: core.Forget) -> list[core.Effect]:
        everything = forget.everything or len(forget.keys) > KEYS_AT_ONCE
        keys = () if everything else tuple(forget.keys)
        self._forget = messages.Forget(sequence=forget.round, keys=keys, everything=everything)
        now = _boottime()
        for worker in self._leases.open_round(now, forget.round):
            self._hsm.cast(self._identities[worker], messages.FORGET, self._forget)
        return self._rounds_over(now)

    def _look_at_leases(self) -> None:
        self._run(self._rounds_over(_boottime()))

    def _rounds_over(self, now: Seconds) -> list[core.Effect]:
        effects = [effect for round_ in self._leases.finished(now) for effect in self._replica.forgotten(round_)]
        if self._lease_timer is not None:
            self._lease_timer.cancel()
            self._lease_timer = None
        change = self._leases.next_change()
        if change is not None:
            # A little late rather than early: the loop's clock is not the leases'.
            self._lease_timer = self._loop.call_later(max(0.0, change - now) + 0.001, self._look_at_leases)
        else:
            self._forget = None
            known = set(self._leases.known(now))
            self._identities = {worker: at for worker, at in self._identities.items() if worker in known}
        return effects

    # Watching, status, troubles

    async def _watch(self, call: Call, watch: messages.Watch) -> messages.Changed:
        self._check_sound()
        until = call.deadline - min(WATCH_MARGIN, call.remaining() / 4)
        while True:
            changed = self._changes.since(watch.index, watch.tables)
            if changed is not None:
                return changed
            if self._stopping or self._loop.time() >= until:
                return self._changes.nothing()
            woken = self._loop.create_future()
            self._watchers.add(woken)
            timer = self._loop.call_at(until, _wake, woken)
            try:
                await woken
            finally:
                timer.cancel()
                self._watchers.discard(woken)

    async def _status(self, call: Call, _: Empty) -> messages.Status:
        replica = self._replica
        trouble = self._damage or self._problem
        return messages.Status(
            state=self._state(),
            cluster=replica.cluster,
            member=replica.member,
            primary=replica.primary,
            epoch=replica.epoch.number,
            in_sync=replica.in_sync,
            last_index=replica.durable.index,
            committed_index=replica.committed,
            applied_index=replica.committed,
            items=(sizes := self._sizes()).items,
            bytes_on_disk=sizes.bytes,
            commits_per_second=self._rate.at(self._loop.time()),
            problem=str(trouble) if trouble else "",
        )

    def _state(self) -> str:
        if self._damage or self._problem:
            return "failed"
        if self._replica.phase is Phase.NONE:
            return "none"
        return "read-write" if self._replica.is_read_write else "read-only"

    def _sizes(self) -> Sizes:
        try:
            return self._engine.sizes()
        except StorageFailed:
            return Sizes(0, 0)
        except SealBroken as error:
            self._damaged(error)
            return Sizes(0, 0)

    def _check_sound(self) -> None:
        """Raises what keeps this store from serving anything at all."""
        if self._damage is not None:
            raise SealBroken(str(self._damage))
        if not self._loaded:
            raise StorageFailed(str(self._problem))

    def _damaged(self, error: SealBroken) -> None:
        if self._damage is None:
            self._damage = error
            _log.failure("damaged", problem=str(error))

    def _troubled(self, error: StorageFailed) -> None:
        if self._problem is None:
            _log.failure("disk refuses", problem=str(error))
        self._problem = error

    def _untroubled(self) -> None:
        if self._problem is not None:
            _log.info("disk takes writes again")
            self._problem = None

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers


def _index(reply: core.Reply) -> int:
    """The index a request was answered with; raises the error it was answered with."""
    if isinstance(reply.answer, LnhError):
        raise reply.answer
    return reply.answer


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _boottime() -> Seconds:
    return Seconds(time.clock_gettime(time.CLOCK_BOOTTIME))


def _utc() -> Milliseconds:
    return Milliseconds(time.time_ns() // 1_000_000)


def _boot_id() -> str:
    """Names this boot of the machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _lock(path: Path) -> int:
    """Hold the file's lock for the life of the process; the kernel gives it up even after a SIGKILL."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationInvalid(f"{path} is locked: another store runs on this member directory") from error
    return descriptor


def _exit(code: int) -> NoReturn:
    """End at once: no answer that is not certain may leave, and no later step may begin."""
    os._exit(code)
