"""Drives the replica: carries its effects out on disk and in the workers' caches, and reports back to it.

One loop, one writer thread. Requests become events of the replica, one step at a time; what arrives during a
step is the next batch, so that a hundred writers cost one fsync. Reads are made on the loop's thread.

A store whose disk fails in a way that leaves open what is durable exits at once, answering nobody: its next
start reads what is really there.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, ParamSpec, TypeVar

from lnh_common import limits
from lnh_common.errors import AlreadyDone, LnhError, NoCluster, SealBroken, StorageFailed, Unreachable
from lnh_common.events import Log
from lnh_common.messages import store as messages
from lnh_common.messages.base import Message
from lnh_services.store import replica as core
from lnh_services.store.caches import Seconds, WorkerId, WorkerLeases
from lnh_services.store.changes import KEYS_AT_ONCE, Rate, RecentChanges
from lnh_services.store.engine import DiskFull, DiskUncertain, Engine, LastStop, Outcome, Sizes
from lnh_services.store.log import ClusterId, MemberId, Milliseconds
from lnh_services.store.replica import Interest, Phase, ReadId, Replica, RequestId

R = TypeVar("R", bound=Message)
P = ParamSpec("P")

BATCH_ENTRIES: Final = 512
BATCH_BYTES: Final = 8 * limits.MIB
EXIT_DISK: Final = 74  # EX_IOERR
EXIT_BUG: Final = 70  # EX_SOFTWARE

DiskEffect = core.Found | core.Promise | core.Persist | core.Erase
Refused = Callable[[LnhError], list[core.Effect]]
Tell = Callable[[WorkerId, messages.Forget], None]

_log: Final = Log("store")


def _certain(method: Callable[P, None]) -> Callable[P, None]:
    """Guards a turn of the replica: where an invariant broke, the process ends rather than go on uncertain."""

    @functools.wraps(method)
    def turn(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception as error:  # whatever it is, nothing after it may be answered
            _log.bug("invariant broken, exiting", error)
            _exit(EXIT_BUG)

    return turn


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


class Driver:
    """Runs one member's replica. Made and used within a running loop.

    Args:
        directory: where the database is.
        tell: sends a Forget to a worker that has a lease; the word may get lost.
        on_change: called after `changes` grew.
    """

    def __init__(self, directory: Path, tell: Tell, on_change: Callable[[], None]) -> None:
        self.replica: Final = Replica(os.urandom(16))
        self.changes: Final = RecentChanges()
        self.engine: Final = Engine(directory)
        self.stopping = False
        self._loop: Final = asyncio.get_running_loop()
        self._tell: Final = tell
        self._on_change: Final = on_change
        self._writer: Final = ThreadPoolExecutor(1, "store-writer")
        self._boot: Final = _boot_id()
        self._leases = WorkerLeases(limits.WORKER_LEASE_MS, _boottime())
        self._rate: Final = Rate()
        self._numbers = 0
        self._writes: deque[_Write] = deque()
        self._orders: deque[_Order] = deque()
        self._requests: dict[RequestId, asyncio.Future[core.Reply]] = {}
        self._reads: dict[ReadId, _Read] = {}
        self._served: set[ReadId] = set()  # carried out, but the answer has not left yet
        self._forget: messages.Forget | None = None  # of the round that is open
        self._problem: StorageFailed | None = None  # the disk refuses; passes by itself
        self._damage: SealBroken | None = None  # what is on disk is wrong; does not
        self._loaded = False
        self._writing = False  # the writer thread has something to do
        self._scheduled = False
        self._lease_timer: asyncio.TimerHandle | None = None

    # Life

    def load(self) -> None:
        """Open what is on disk; a trouble is kept, said in every answer, and tried again if it can pass."""
        try:
            found = self.engine.load()
        except SealBroken as error:
            self.engine.close()
            self._loaded = True
            self._damaged(error)
            return
        except StorageFailed as error:
            self.engine.close()
            self._troubled(error)
            return
        self._loaded = True
        self._untroubled()
        if found is None:
            _log.info("no cluster")
            return
        durable, last_stop = found
        self._leases = WorkerLeases(limits.WORKER_LEASE_MS, self._fence(last_stop))
        self.changes.restart(durable.committed)
        _log.info("loaded", epoch=str(durable.promised), last=durable.last.index, committed=durable.committed)
        self._run(self.replica.recover(durable))

    def _fence(self, last_stop: LastStop) -> Seconds:
        """When no worker can hold a lease of an earlier incarnation any more."""
        now = _boottime()
        if self._boot and last_stop.boot != self._boot:
            return now  # the machine was started since, and its workers with it
        latest = Seconds(now + limits.WORKER_LEASE_MS / 1000)
        return latest if last_stop.lease_end is None else Seconds(min(latest, max(now, last_stop.lease_end)))

    async def finish(self) -> None:
        """Take nothing new; let what waits become durable and be answered."""
        self.stopping = True
        pending = set(self._requests.values())
        if pending:
            await asyncio.wait(pending, timeout=2 * limits.WORKER_LEASE_MS / 1000 + limits.DISK_STALL)
            await asyncio.sleep(0)  # their handlers send the answers

    def close(self) -> None:
        """Close the database; `finish` comes before."""
        self._writer.shutdown(wait=True)
        self._note_stop()
        self.engine.close()

    def _note_stop(self) -> None:
        if self._loaded and self._damage is None:
            try:
                self.engine.stop(self._boot, self._leases.latest_end(_boottime()))
            except StorageFailed as error:
                _log.warning("stop not noted", problem=str(error))  # the next start waits a lease longer

    @_certain
    def tick(self) -> None:
        """Look again at a trouble that may have passed; called now and then."""
        if self._damage is not None or self._writing:
            return
        if not self._loaded:
            self.load()
        elif self._problem is not None:
            if self.replica.phase in (Phase.PROMISING, Phase.OPENING):
                self._run(self.replica.retry(_utc()))
            else:
                self._submit(self.engine.probe, _nothing, None)

    @property
    def trouble(self) -> LnhError | None:
        """What keeps the store from acknowledging writes."""
        return self._damage or self._problem

    @property
    def commits_per_second(self) -> float:
        return self._rate.at(self._loop.time())

    def sizes(self) -> Sizes:
        """Of the database; zeros if that cannot be told."""
        try:
            return self.engine.sizes()
        except StorageFailed:
            return Sizes(0, 0)
        except SealBroken as error:
            self._damaged(error)
            return Sizes(0, 0)

    def check_sound(self) -> None:
        """Raises what keeps this store from serving anything at all: SealBroken or StorageFailed."""
        if self._damage is not None:
            raise SealBroken(str(self._damage))
        if not self._loaded:
            raise StorageFailed(str(self._problem))

    # What is asked

    async def read(self, interest: Interest | None, perform: Callable[[], R]) -> R:
        """What `perform` reads, once nothing in flight touches it (with None: once nothing is in flight)."""
        self.check_sound()
        number = ReadId(self._next_number())
        answer: asyncio.Future[R] = self._loop.create_future()
        self._reads[number] = _Read(perform, answer)
        try:
            self._begin_read(number, interest)
            return await answer  # from here on nothing waits until the answer is sent
        finally:
            del self._reads[number]
            self._served.discard(number)
            self.replica.withdraw(number)

    async def commit(self, commit: messages.Commit) -> core.Reply:
        """Have a checked commit appended, made durable and applied; the answer may be an error."""
        self.check_sound()
        weight = sum(len(c.head) + len(c.body) for c in commit.changes if isinstance(c, messages.Put))
        number = RequestId(self._next_number())
        self._writes.append(_Write(number, commit, weight))
        return await self._answered(number)

    async def order(self, message: messages.Create | messages.Destroy) -> core.Reply:
        """Found a cluster, or erase one; the answer may be an error."""
        self.check_sound()
        number = RequestId(self._next_number())
        self._orders.append(_Order(number, message))
        return await self._answered(number)

    def attach(self, worker: WorkerId) -> messages.Attached:
        """Grant a lease; the answer must leave right away."""
        self.check_sound()
        if self.replica.phase is Phase.PROMISING:
            # Until this start is on disk, the next one would not know that leases may have been granted since.
            return messages.Attached(lease_ms=0, index=self.replica.committed, fresh=True, read_write=False)
        grant = self._leases.attach(_boottime(), worker)
        return messages.Attached(
            lease_ms=grant.lease_ms,
            index=self.replica.committed,
            fresh=grant.fresh,
            read_write=self.replica.is_read_write,
        )

    def remind(self, worker: WorkerId) -> None:
        """Tell a worker again what it must forget: it has a new connection, and the word may be lost."""
        if self._forget is not None:
            self._tell(worker, self._forget)

    def forgotten(self, worker: WorkerId, round_: int) -> None:
        """A worker has forgotten what it was told to."""
        self._leases.forgotten(worker, round_)
        self._look_at_leases()

    def leased_workers(self) -> list[WorkerId]:
        """Those who hold a lease now."""
        return self._leases.known(_boottime())

    # Steps

    async def _answered(self, number: RequestId) -> core.Reply:
        """The replica's answer to a request."""
        if self.stopping:
            raise Unreachable("this store is stopping")
        future: asyncio.Future[core.Reply] = self._loop.create_future()
        self._requests[number] = future
        self._schedule()
        try:
            return await future
        finally:
            del self._requests[number]

    @_certain
    def _begin_read(self, number: ReadId, interest: Interest | None) -> None:
        self._run(self.replica.read(number, interest))

    def _serve_read(self, number: ReadId) -> None:
        read = self._reads.get(number)
        if read is None or read.answer.done():
            return
        self._served.add(number)
        try:
            self._check_readable()
            read.answer.set_result(read.perform())
        except SealBroken as error:
            self._damaged(error)
            read.answer.set_exception(error)
        except Exception as error:  # the read's own trouble, a bug too; the bus answers it
            read.answer.set_exception(error)

    def _check_readable(self) -> None:
        self.check_sound()
        if self.replica.phase is Phase.NONE:
            raise NoCluster("this member's store holds no cluster")

    def _schedule(self) -> None:
        """Begin the next step once every message that is ready has been taken."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._begin_step)

    @_certain
    def _begin_step(self) -> None:
        self._scheduled = False
        if self._served:
            # An answer must not follow the Forget of a later step: a worker would cache what is old by then.
            self._schedule()
            return
        if self._damage is not None:
            self._refuse_waiting(self._damage)
        elif self._problem is not None and not self._writing and not self.replica.idle:
            self._refuse_waiting(self._problem)  # the epoch itself could not be opened
        elif self.replica.idle and not self._writing:
            if self._orders:
                self._run(self._carry_out(self._orders.popleft()))
                self._schedule()
            elif self._writes:
                self._run(self._write_batch())

    def _carry_out(self, order: _Order) -> list[core.Effect]:
        if order.request not in self._requests:
            return []  # its deadline passed before it began
        message, held = order.message, self.replica.cluster
        if isinstance(message, messages.Create):
            if held == message.cluster and self.replica.member == message.member:
                return [core.Reply(order.request, self.replica.committed)]
            if held:
                return [core.Reply(order.request, AlreadyDone(f"the store holds cluster {held.hex()}"))]
            return self.replica.create(_utc(), order.request, ClusterId(message.cluster), MemberId(message.member))
        if not held:
            return [core.Reply(order.request, 0)]
        if held != message.cluster:
            return [core.Reply(order.request, NoCluster(f"the store holds cluster {held.hex()}, not this one"))]
        return self.replica.destroy(order.request)

    def _write_batch(self) -> list[core.Effect]:
        if self.replica.phase is Phase.NONE:
            self._refuse_waiting(NoCluster("this member's store holds no cluster"))
            return []
        batch: list[tuple[RequestId, messages.Commit]] = []
        weight = 0
        while self._writes and len(batch) < BATCH_ENTRIES and weight < BATCH_BYTES:
            write = self._writes.popleft()
            if write.request in self._requests:  # else its deadline passed before it was appended
                batch.append((write.request, write.commit))
                weight += write.weight
        return self.replica.write(_utc(), batch) if batch else []

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
        refused = self.replica.refused
        if isinstance(effect, core.Persist):
            self._submit(
                lambda: self.engine.persist(effect.entries, effect.committed),
                lambda outcome: self._persisted(effect.receipt, outcome),
                refused,
            )
        elif isinstance(effect, core.Promise):
            self._submit(
                lambda: self.engine.promise(effect.epoch, self._boot),
                lambda _: self._run(self.replica.has_promised(_utc(), effect.epoch)),
                refused,
            )
        elif isinstance(effect, core.Found):
            self.changes.restart(0)
            self._submit(
                lambda: self.engine.found(effect.cluster, effect.member, effect.promised, effect.entry, self._boot),
                lambda outcome: self._persisted(effect.receipt, outcome),
                refused,
            )
        else:
            self._submit(self.engine.erase, self._erased, refused)

    def _submit(self, work: Callable[[], Any], then: Callable[[Any], None], refused: Refused | None) -> None:
        """Have the writer thread do `work`; then call `then` here with its result, or `refused` with the error."""
        assert not self._writing, "the writer does one thing at a time"
        self._writing = True
        watchdog = self._loop.call_later(limits.DISK_STALL, self._stalled)

        def done(future: ThreadFuture[Any]) -> None:
            self._loop.call_soon_threadsafe(self._written, future, watchdog, then, refused)

        self._writer.submit(work).add_done_callback(done)

    @_certain
    def _written(
        self,
        future: ThreadFuture[Any],
        watchdog: asyncio.TimerHandle,
        then: Callable[[Any], None],
        refused: Refused | None,
    ) -> None:
        watchdog.cancel()
        self._writing = False
        error = future.exception()
        if error is None:
            self._untroubled()
            then(future.result())
        elif isinstance(error, DiskFull | SealBroken):
            if isinstance(error, SealBroken):
                self._damaged(error)
            else:
                self._troubled(error)
            if refused is not None:
                self._run(refused(error))
            self._refuse_waiting(error)  # also what was sent twice: both get the same answer
        else:
            if isinstance(error, DiskUncertain):
                _log.failure("disk failed, exiting", problem=str(error))
                _exit(EXIT_DISK)
            _log.bug("writer failed, exiting", error)
            _exit(EXIT_BUG)
        self._schedule()

    def _persisted(self, receipt: core.Acknowledgement, outcome: Outcome) -> None:
        for index, keys in outcome.changed:
            self.changes.add(index, keys)
        self._rate.add(self._loop.time(), len(outcome.answers))
        effects = self.replica.persisted(receipt, outcome.answers)
        self.changes.add(self.replica.committed, frozenset())  # entries that change no item move the index too
        self._run(effects)
        self._on_change()

    def _erased(self, _: None) -> None:
        self.changes.restart(0)
        self._run(self.replica.erased())
        self._on_change()
        _log.info("erased")

    def _stalled(self) -> None:
        _log.failure("disk answers nothing, exiting", seconds=limits.DISK_STALL)
        _exit(EXIT_DISK)

    # The workers' caches

    def _begin_forgetting(self, forget: core.Forget) -> list[core.Effect]:
        everything = forget.everything or len(forget.keys) > KEYS_AT_ONCE
        keys = () if everything else tuple(forget.keys)
        self._forget = messages.Forget(sequence=forget.round, keys=keys, everything=everything)
        now = _boottime()
        for worker in self._leases.open_round(now, forget.round):
            self._tell(worker, self._forget)
        return self._rounds_over(now)

    @_certain
    def _look_at_leases(self) -> None:
        self._run(self._rounds_over(_boottime()))

    def _rounds_over(self, now: Seconds) -> list[core.Effect]:
        effects = [effect for round_ in self._leases.finished(now) for effect in self.replica.forgotten(round_)]
        if self._lease_timer is not None:
            self._lease_timer.cancel()
            self._lease_timer = None
        change = self._leases.next_change()
        if change is not None:
            # A little late rather than early: the loop's clock is not the leases'.
            self._lease_timer = self._loop.call_later(max(0.0, change - now) + 0.001, self._look_at_leases)
        else:
            self._forget = None
        return effects

    # Troubles

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


def _nothing(_: None) -> None:
    """The disk took a probe; nothing follows."""


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


def _exit(code: int) -> NoReturn:
    """End at once: no answer that is not certain may leave, and no later step may begin."""
    os._exit(code)
