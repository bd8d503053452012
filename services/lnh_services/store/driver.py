"""Drives what orders entries: carries its effects out on disk, in caches and to other members, and reports back.

One loop, one writer thread, one thread for snapshots. Requests become events; requests that arrive during a step with
the disk are the next batch, so that a hundred writers cost one fsync. Reads are made on the loop's thread.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from lnh_common import limits
from lnh_common.errors import AlreadyDone, LnhError, NoCluster, NotPossible, SealBroken, StorageFailed, Unreachable
from lnh_common.events import Log
from lnh_common.messages import store as messages
from lnh_common.messages.base import Message
from lnh_services.serving import Member
from lnh_services.store.disk.disk_errors import DiskFull
from lnh_services.store.disk.snapshots import Incoming
from lnh_services.store.disk.sqlite import Disk, LastStop, Outcome, Sizes
from lnh_services.store.disk.writer import Writer, certain
from lnh_services.store.engine import ordering
from lnh_services.store.etcd.requests import AskEtcd
from lnh_services.store.leases import clock
from lnh_services.store.leases.invalidation import Event, Invalidations, Tell
from lnh_services.store.leases.watch import Rate, RecentChanges
from lnh_services.store.leases.worker_leases import WorkerId
from lnh_services.store.log.entries import ClusterId, Epoch, MemberId, Milliseconds
from lnh_services.store.log.window import Base, Removed
from lnh_services.store.machine.restore_swap import EVERYTHING
from lnh_services.store.net.peers import PeerStores
from lnh_services.store.net.transfer import Offer, Transfer, Transfers
from lnh_services.store.replication import messages as protocol
from lnh_services.store.replication.messages import (
    Effect,
    Erase,
    Install,
    Instant,
    Order,
    Persist,
    ReadId,
    Reply,
    RequestId,
    Seconds,
)
from lnh_services.store.replication.primary import LOOKS_MS
from lnh_services.store.replication.reads import Interest
from lnh_services.store.replication.standing import Phase, Standing

R = TypeVar("R", bound=Message)

TICK: Final = LOOKS_MS / 1000  # seconds: how often time passes for what orders while there are other members
SLOW_TICK: Final = 0.5  # ... and while there are none; and how often a trouble is looked at again

Asking = Callable[[Instant, RequestId], list[Effect]]

_log: Final = Log("store")


class _Read(NamedTuple):
    interest: Interest | None
    perform: Callable[[bool], Message]
    answer: asyncio.Future[Any]


class Driver:
    """Runs what orders one member's entries (`engine.py`). Made and used within a running loop.

    Args:
        member: the directory and settings of the member.
        tell: sends an Invalidate to a worker that has a lease; the word may get lost.
        on_change: called after `changes` grew.
    """

    def __init__(self, member: Member, tell: Tell, on_change: Callable[[], None]) -> None:
        settings = member.settings
        self.ordering: Final = ordering(settings.engine.kind, os.urandom(16))
        self.changes: Final = RecentChanges()
        self.disk: Final = Disk(member.directory.data("store"))
        self.caches: Final = Invalidations(tell, self._turn, self.ordering.invalidated)
        self.stopping = False
        self._loop: Final = asyncio.get_running_loop()
        self._on_change: Final = on_change
        self._writer: Final = Writer()
        self._peers: Final = PeerStores(
            settings.endpoint(settings.store_port), member.directory.member_keys, self._heard, self._heard_of_snapshot
        )
        self._transfers: Final = Transfers(self.disk, self._peers.transfer, self._arrived, self._damaged)
        self._boot: Final = clock.boot_id()
        self._rate: Final = Rate()
        self._numbers = 0
        self._requests: dict[RequestId, asyncio.Future[Reply]] = {}
        self._reads: dict[ReadId, _Read] = {}
        self._opening: set[asyncio.Future[None]] = set()  # writes that wait for the end of an opening
        self._arrivals: dict[int, Incoming] = {}  # snapshots that may be installed
        self._lifecycle: Final = asyncio.Lock()  # creation, adoption, erasure: one after the other
        self._cluster = ClusterId(b"")
        self._others: tuple[messages.MemberInfo, ...] = ()
        self._removed: tuple[Removed, ...] = ()
        self._told: tuple[tuple[messages.MemberInfo, ...], bytes] = ((), b"")  # that watchers were told of
        self._problem: StorageFailed | None = None  # the disk refuses; passes by itself
        self._damage: SealBroken | None = None  # what is on disk is wrong; does not
        self._again: Persist | Install | Erase | None = None  # a step the disk had no room for
        self._sizes: Sizes | None = None
        self._loaded = False
        self._closed = False
        self._noted = False  # on disk is that this start may grant leases
        self._flushing = False
        self._ticking: asyncio.TimerHandle | None = None
        self._look_at = 0.0

    # Life

    def load(self) -> None:
        """Open the database; a trouble is kept, told in every answer, and tried again if it can pass."""
        self._load()
        self._tick()

    def _load(self) -> None:
        try:
            found = self.disk.load()
        except SealBroken as error:
            self._loaded = True
            self._damaged(error)
            self.disk.close()
            return
        except StorageFailed as error:
            self.disk.close()
            self._troubled(error)
            return
        self._loaded = True
        self._sizes = None
        self._untroubled()
        if found is None:
            self._noted = True
            _log.info("no cluster")
            return
        durable, last_stop = found
        self.caches.begin_anew(self._fence(last_stop))
        self.changes.restart(durable.committed)
        self._note_start()
        last = durable.entries[-1].index if durable.entries else durable.base.position.index
        _log.info("loaded", epoch=str(durable.promised), last=last, committed=durable.committed)
        self._turn(lambda now: self.ordering.recover(now, durable))

    def _fence(self, last_stop: LastStop) -> Seconds:
        """Compute when no worker can hold a lease of an earlier incarnation any more."""
        now = clock.now().boot
        if self._boot and last_stop.boot != self._boot:
            return Seconds(now)  # the machine was started since, and its workers with it
        latest = Seconds(now + limits.WORKER_LEASE_MS / 1000)
        return latest if last_stop.lease_end is None else Seconds(min(latest, max(now, last_stop.lease_end)))

    def _note_start(self) -> None:
        def noted(_: None) -> None:
            self._noted = True
            self._untroubled()

        self._writer.submit(lambda: self.disk.note_start(self._boot), noted, self._troubled, self._damaged)

    async def finish(self) -> None:
        """Take no new requests, and let those that wait become durable and be answered."""
        self.stopping = True
        self._wake_waiting()
        pending = set(self._requests.values())
        if pending:
            await asyncio.wait(pending, timeout=2 * limits.WORKER_LEASE_MS / 1000 + limits.DISK_STALL)
            await asyncio.sleep(0)  # their handlers send the answers

    async def close(self) -> None:
        """Leave the other members, and close the database; `finish` comes before."""
        if self._ticking is not None:
            self._ticking.cancel()
        await self._transfers.close()
        self._closed = True  # a turn that is still called for would find neither peers nor writer
        self._peers.close()
        self._writer.close()
        self._note_stop()
        self.disk.close()

    def _note_stop(self) -> None:
        if self._loaded and self._damage is None:
            try:
                self.disk.note_stop(self._boot, self.caches.latest_end())
            except StorageFailed as error:
                _log.warning("stop not noted", problem=str(error))  # the next start waits a lease longer

    # What stands

    @property
    def trouble(self) -> LnhError | None:
        """The error that keeps the store from acknowledging writes."""
        return self._damage or self._problem

    @property
    def listening_problem(self) -> str:
        """The reason why other members cannot connect; empty if they can."""
        return self._peers.problem

    @property
    def commits_per_second(self) -> float:
        """Return the writes that were applied of late, a second."""
        return self._rate.at(self._loop.time())

    def is_current(self) -> bool:
        """Tell whether this member is read-write."""
        return self._damage is None and self.ordering.is_current(clock.now())

    def standing(self) -> Standing:
        """Return how this member stands."""
        return self.ordering.standing(clock.now())

    def heard_ms(self, heard: float) -> int:
        """Return how many milliseconds ago something was heard; -1 if it never was."""
        return int((clock.now().boot - heard) * 1000) if heard > 0 else -1

    def lease_left(self) -> float:
        """Return the seconds that this member may go on as read-write without hearing anything; 0 if it is not."""
        now = clock.now()
        if self._damage is not None or not self.ordering.is_current(now):
            return 0.0
        return max(0.0, self.ordering.current_until(now) - now.boot)

    def sizes(self) -> Sizes:
        """Return the database's sizes, kept until the next step, because an idle store is asked too.

        They are zeros where the store cannot tell.
        """
        if self._sizes is None:
            try:
                self._sizes = self.disk.sizes()
            except StorageFailed:
                return Sizes(0, 0, 0)
            except SealBroken as error:
                self._damaged(error)
                return Sizes(0, 0, 0)
        return self._sizes

    def check_sound(self) -> None:
        """Raise the error that keeps this store from serving anything at all: SealBroken or StorageFailed."""
        if self._damage is not None:
            raise SealBroken(str(self._damage))
        if not self._loaded:
            raise StorageFailed(str(self._problem))

    # What is asked

    async def read(self, interest: Interest | None, perform: Callable[[bool], R]) -> R:
        """Carry out a read once nothing in flight touches its interest (with None: once nothing is in flight).

        `perform` is told whether what it reads is current.
        """
        self.check_sound()
        number = ReadId(self._next_number())
        answer: asyncio.Future[R] = self._loop.create_future()
        self._reads[number] = _Read(interest, perform, answer)
        try:
            self._turn(lambda now: self.ordering.read(now, number, interest))
            return await answer  # from here on nothing waits until the answer is sent
        finally:
            del self._reads[number]
            self.caches.served.discard(number)
            self.ordering.withdraw_read(number)

    async def submit(self, order: Order) -> Reply:
        """Have the cluster carry out a checked order; the answer may be an error."""
        return (await self.submit_each((order,)))[0]

    async def submit_each(self, orders: Sequence[Order]) -> list[Reply]:
        """Submit independent orders, in this order.

        While this member opens an epoch, as a primary does that starts again, it waits: the orders were not yet
        appended anywhere, and usually they can be within a second.
        """
        while self._is_opening():
            woken = self._loop.create_future()
            self._opening.add(woken)
            try:
                await woken
            finally:
                self._opening.discard(woken)
        if self._problem is not None and not self.is_current():
            raise StorageFailed(str(self._problem))
        return await self._asked_each([partial(self.ordering.submit, order=order) for order in orders])

    def _is_opening(self) -> bool:
        held_up = self._damage is not None or self._problem is not None or self.stopping
        return self.ordering.phase is Phase.OPENING and not held_up

    def _wake_waiting(self) -> None:
        if self._opening and not self._is_opening():
            for woken in self._opening:
                if not woken.done():
                    woken.set_result(None)

    async def take_over(self, lost: frozenset[MemberId], *, force: bool) -> Reply:
        """Become primary in place of a lost one; the answer may be an error."""
        return await self._asked(lambda now, request: self.ordering.take_over(now, request, lost, force=force))

    async def acknowledge_divergence(self) -> Reply:
        """Note that an administrator has looked at the dropped entries."""
        return await self._asked(self.ordering.acknowledge_divergence)

    async def create(self, create: messages.Create) -> None:
        """Found a cluster of this member alone. Raises AlreadyDone, StorageFailed."""
        cluster, member = ClusterId(create.cluster), create.member
        async with self._lifecycle:
            if not self._holds(cluster, MemberId(member.id)):
                _check(await self._asked(lambda now, request: self.ordering.create(now, request, cluster, member)))

    async def adopt(self, adopt: messages.Adopt) -> None:
        """Begin as a member of a cluster. Raises AlreadyDone, StorageFailed."""
        cluster, member, members = ClusterId(adopt.cluster), adopt.member, adopt.members
        async with self._lifecycle:
            if not self._holds(cluster, MemberId(member.id)):
                _check(
                    await self._asked(lambda now, request: self.ordering.adopt(now, request, cluster, member, members))
                )

    async def destroy(self, cluster: bytes) -> None:
        """Erase everything of this cluster. Raises NoCluster when the store holds another one."""
        async with self._lifecycle:
            held = self.ordering.cluster
            if not held:
                return
            if held != cluster:
                raise NoCluster(f"the store holds cluster {held.hex()}, not this one")
            _check(await self._asked(self.ordering.destroy))

    def _holds(self, cluster: ClusterId, member: MemberId) -> bool:
        held = self.ordering.cluster
        if held and (held, self.ordering.member) != (cluster, member):
            raise AlreadyDone(f"the store holds cluster {held.hex()}")
        return bool(held)

    async def _asked(self, event: Asking) -> Reply:
        """Return the answer to a request."""
        return (await self._asked_each((event,)))[0]

    async def _asked_each(self, events: Iterable[Asking]) -> list[Reply]:
        self.check_sound()
        if self.stopping:
            raise Unreachable("this store is stopping")
        futures: dict[RequestId, asyncio.Future[Reply]] = {}
        try:
            for event in events:
                number = RequestId(self._next_number())
                futures[number] = self._requests[number] = self._loop.create_future()
                self._begin(event, number)
            self._flush_soon()
            return await asyncio.gather(*futures.values())
        finally:
            for number in futures:
                del self._requests[number]

    def _begin(self, event: Asking, number: RequestId) -> None:
        self._turn(lambda now: event(now, number))

    def _flush_soon(self) -> None:
        """Begin the next step once every message that is ready has been taken."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._turn(self.ordering.flush)

    # Time

    @certain
    def _tick(self) -> None:
        self._ticking = self._loop.call_later(TICK if self._others else SLOW_TICK, self._tick)
        if self._loaded:
            self._turn(self.ordering.tick)
        now = self._loop.time()
        if now >= self._look_at:
            self._look_at = now + SLOW_TICK
            self._look_again()

    def _look_again(self) -> None:
        """Try again what is in trouble and may have passed."""
        if self._damage is not None:
            return
        self._peers.tidy()
        if not self._loaded:
            self._load()
        elif self._again is not None:
            step, self._again = self._again, None
            self._to_disk(step)
        elif not self._noted:
            self._note_start()

    # What happens

    @certain
    def _turn(self, event: Event) -> None:
        if self._damage is None and not self._closed:
            self._run(event(clock.now()))
            self._follow_members()
            self._wake_waiting()

    def _heard(self, sender: MemberId, message: protocol.Message) -> None:
        self._turn(lambda now: self.ordering.receive(now, sender, message))

    def _heard_of_snapshot(self, sender: MemberId, word: Transfer) -> None:
        if self._damage is not None or not self.ordering.cluster:
            return
        if not isinstance(word, Offer) or self.ordering.wants_snapshot(word.epoch):
            self._transfers.hear(self.ordering.cluster, sender, word)

    def _arrived(self, sender: MemberId, epoch: Epoch, base: Base, incoming: Incoming) -> None:
        number = self._next_number()
        self._arrivals[number] = incoming
        self._turn(lambda now: self.ordering.offered(now, sender, number, epoch, base))
        if not self.ordering.is_installing:
            self._discard_arrivals()

    def _discard_arrivals(self) -> None:
        for incoming in self._arrivals.values():
            incoming.discard()
        self._arrivals.clear()

    def _follow_members(self) -> None:
        """Take in the member list, which may have changed; a member without a cluster, as an expelled one, has none."""
        cluster = self.ordering.cluster if self.ordering.phase is not Phase.EXPELLED else ClusterId(b"")
        if self._cluster != cluster:
            self._cluster = cluster
            self._peers.leave()
            self._others, self._removed = (), ()
        if not cluster:
            return
        others = tuple(info for info in self.ordering.members if info.id != self.ordering.member)
        removed = self.ordering.removed
        if others != self._others or removed is not self._removed:
            self._removed = removed
            # Those too that an `open` kept beside the log leaves out: it may never serve.
            left_out = [info for info in self.ordering.listed if info.id != self.ordering.member]
            self._peers.know(others, [*(each.info for each in removed if each.info is not None), *left_out])
        if others != self._others:
            alone, self._others = not self._others, others
            if alone and self._ticking is not None:
                self._ticking.cancel()
                self._ticking = self._loop.call_later(0, self._tick)

    # Effects

    def _run(self, effects: list[Effect]) -> None:
        """Carry out effects, and those that follow at once."""
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            if isinstance(effect, protocol.Send):
                self._peers.send(effect.to, effect.message)
            elif isinstance(effect, Reply):
                self._reply(effect)
            elif isinstance(effect, protocol.Serve):
                todo.extend(self._serve_read(effect))
            elif isinstance(effect, protocol.Invalidate):
                todo.extend(self.caches.begin(effect))
            elif isinstance(effect, protocol.SendSnapshot):
                self._transfers.send(effect.to, effect.epoch)
            elif isinstance(effect, protocol.Say):
                _log.info(effect.event, **effect.fields)
            else:
                assert not isinstance(effect, AskEtcd), "no store here is ordered by etcd"
                self._to_disk(effect)

    def _reply(self, reply: Reply) -> None:
        future = self._requests.get(reply.request)
        if future is not None and not future.done():
            future.set_result(reply)

    def _serve_read(self, serve: protocol.Serve) -> list[Effect]:
        read = self._reads.get(serve.read)
        if read is None or read.answer.done():
            return []
        try:
            self._check_readable()
            result = read.perform(serve.current)
        except SealBroken as error:
            self._damaged(error)
            return []
        except Exception as error:  # the read's own trouble, a bug too; the bus answers it
            read.answer.set_exception(error)
            return []
        now = clock.now()
        if serve.current and not self.ordering.is_current(now):
            return self.ordering.read(now, serve.read, read.interest)  # the lease ended meanwhile
        self.caches.served.add(serve.read)
        read.answer.set_result(result)
        return []

    def check_member(self) -> None:
        """Raise NoCluster while this store holds no cluster."""
        if self.ordering.phase is Phase.NONE:
            raise NoCluster("this member's store holds no cluster")

    def _check_readable(self) -> None:
        self.check_sound()
        self.check_member()
        if self.ordering.phase is Phase.EXPELLED:
            raise NotPossible("this member was removed from the cluster")

    # The disk

    def _to_disk(self, step: Persist | Install | Erase) -> None:
        def full(error: DiskFull) -> None:
            self._no_room(step, error)

        if isinstance(step, Persist):
            if step.found is not None:
                self.changes.restart(0)
            work = lambda: self.disk.persist(step, self._boot)  # noqa: E731  # short, and named where it is used
            self._writer.submit(work, lambda outcome: self._persisted(step, outcome), full, self._damaged)
        elif isinstance(step, Install):
            incoming = self._arrivals[step.snapshot]
            install = lambda: self.disk.install(step, incoming)  # noqa: E731  # as above
            self._writer.submit(install, lambda _: self._installed(step), full, self._damaged)
        else:
            self._transfers.stop()
            self._writer.submit(self.disk.erase, lambda _: self._erased(step), full, self._damaged)

    def _persisted(self, step: Persist, outcome: Outcome) -> None:
        self._untroubled()
        self._sizes = None
        self._noted = self._noted or step.found is not None
        before = self.changes.last
        for index, keys in outcome.changed:
            self.changes.add(index, keys)
            if EVERYTHING in keys:
                self.changes.restart(index)
        self._rate.add(self._loop.time(), len(outcome.answers))
        self._turn(lambda now: self.ordering.persisted(now, step.number, outcome.answers))
        self._note_members(before)
        self._on_change()

    def _note_members(self, before: int) -> None:
        """Move the index, also for entries that change no item, and note whether members or the primary are others.

        Args:
            before: the index of the last time. While it stays, a watcher would not see what is noted; where they are
                others already, an entry that says so is still to be applied.
        """
        applied, now_so = self.ordering.applied, (self.ordering.members, self.ordering.primary)
        changed = applied > before and now_so != self._told
        if changed:
            self._told = now_so
        self.changes.add(applied, frozenset({messages.MEMBERS} if changed else ()))

    def _installed(self, step: Install) -> None:
        self._untroubled()
        self._sizes = None
        del self._arrivals[step.snapshot]
        self._discard_arrivals()
        self.changes.restart(step.base.position.index)
        self._turn(lambda now: self.ordering.persisted(now, step.number, {}))
        self._on_change()

    def _erased(self, step: Erase) -> None:
        self._sizes = None
        self.changes.restart(0)
        self._turn(lambda now: self.ordering.persisted(now, step.number, {}))
        self._discard_arrivals()
        self._on_change()
        _log.info("erased")

    def _no_room(self, step: Persist | Install | Erase, error: DiskFull) -> None:
        """Take in that the disk took nothing of the step.

        A step that other members may know of is tried until the disk takes it.
        """
        self._troubled(error)
        if self.ordering.may_withdraw(step):
            self._turn(lambda now: self.ordering.refused(now, step.number, error))
        else:
            self._again = step

    # The workers' caches

    def attach(self, worker: WorkerId) -> messages.Attached:
        """Grant a lease; the answer must leave right away."""
        self.check_sound()
        now = clock.now()
        current = self.ordering.is_current(now)
        attached = partial(
            messages.Attached,
            index=self.ordering.applied,
            read_write=current,
            incarnation=self.ordering.incarnation,
            whole_until=self._whole_until(now, current=current),
        )
        # Until this start is on disk, the next one would not know that leases may have been granted since. A primary
        # that does not serve now may do so again at once: only one that follows another invalidates everything before.
        if not self._noted or not (current or self.ordering.phase is Phase.MEMBER):
            return attached(lease_ms=0, fresh=False)
        until = Seconds(self.ordering.current_until(now)) if current else None
        grant = self.caches.leases.attach(now.boot, worker, read_write=current, until=until)
        return attached(lease_ms=grant.lease_ms, fresh=grant.fresh, read_write=grant.read_write)

    def _whole_until(self, now: Instant, *, current: bool) -> Milliseconds:
        """Compute until when everything acknowledged is applied here: later writes have a later log time."""
        if current:
            return now.utc
        if self.ordering.phase is Phase.NONE:
            return Milliseconds(0)
        return min(now.utc, self.ordering.applied_time)

    # Troubles

    def _damaged(self, error: SealBroken) -> None:
        """Stop serving, and speak to no other member any more."""
        if self._damage is not None:
            return
        self._damage = error
        _log.failure("damaged", problem=str(error))
        self._transfers.stop()
        self._peers.close()
        self._wake_waiting()
        for waiting in [*self._requests.values(), *(read.answer for read in self._reads.values())]:
            if not waiting.done():
                waiting.set_exception(SealBroken(str(error)))

    def _troubled(self, error: StorageFailed) -> None:
        if self._problem is None:
            _log.failure("disk refuses", problem=str(error))
        self._problem = error
        self._wake_waiting()

    def _untroubled(self) -> None:
        if self._problem is not None:
            _log.info("disk takes writes again")
            self._problem = None

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers


def _check(reply: Reply) -> None:
    if isinstance(reply.answer, LnhError):
        raise reply.answer
