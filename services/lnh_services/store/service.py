"""The store's two doors: answer the hsm and the other services, through the driver.

The hsm's door takes everything. The services' door takes no write and nothing that founds or ends a cluster here; it
reads, and lets membership coordinate: who is a member, who is primary. Both are ipc sockets in a directory that only
the member's own processes can enter.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from lnh_common.bus.server import Call, Server
from lnh_common.errors import ArgumentInvalid, ConfigurationInvalid, LnhError
from lnh_common.files import NotRegular, open_regular
from lnh_common.messages import store as messages
from lnh_common.messages.base import Empty, Operation
from lnh_common.wire import codec
from lnh_services.serving import Member
from lnh_services.store import status
from lnh_services.store.disk.readings import Readings
from lnh_services.store.driver import Driver
from lnh_services.store.engine import State
from lnh_services.store.leases.worker_leases import WorkerId
from lnh_services.store.log.entries import LeaseSettings, MemberId
from lnh_services.store.machine import apply
from lnh_services.store.replication import messages as protocol
from lnh_services.store.replication.messages import Reply
from lnh_services.store.replication.reads import Interest

WATCH_MARGIN: Final = 0.5  # seconds; a watch is answered so long before its asker gives up


class StoreService:
    """One member's store. Made and used within a running loop.

    Raises ConfigurationInvalid when another store runs on the same directory.
    """

    def __init__(self, member: Member) -> None:
        directory = member.directory
        self._loop: Final = asyncio.get_running_loop()
        self._lock: Final = _lock(directory.data("store") / "store.lock")
        self._driver: Final = Driver(member, self._tell, self._wake_watchers)
        self._ordering: Final = self._driver.ordering
        self._state: Final[State] = self._driver.disk
        self._readings: Final = Readings(self._driver.disk)
        self._identities: dict[WorkerId, bytes] = {}
        self._watchers: set[asyncio.Future[None]] = set()
        self._hsm: Final = Server(directory.store_for_hsm, name="store.hsm")
        self._services: Final = Server(directory.store_for_services, name="store.services")
        self._enter_handlers()

    def _enter_handlers(self) -> None:
        for door in (self._hsm, self._services):
            door.serve(messages.GET, self._get)
            door.serve(messages.GET_EACH, self._get_each)
            door.serve(messages.SCAN, self._scan)
            door.serve(messages.SCOPES, self._scopes)
            door.serve(messages.COUNT, self._count)
            door.serve(messages.WATCH, self._watch)
            door.serve(messages.STATUS, self._status)
            door.serve(messages.ADOPT, self._adopt)
            for operation, order in _ORDERS.items():
                door.serve(operation, self._submits(order))
            door.serve(messages.PROMOTE, self._promote)
            door.serve(messages.TAKE_OVER, self._take_over)
            door.serve(messages.DIVERGENT, self._divergent)
            door.serve(messages.DIVERGENT_ACKNOWLEDGE, self._acknowledge_divergence)
        self._services.serve(messages.READING_BEGIN, self._begin_reading)
        self._services.serve(messages.READING_PART, self._read_part)
        self._services.serve(messages.READING_END, self._end_reading)
        self._hsm.serve(messages.COMMIT, self._commit)
        self._hsm.serve(messages.COMMIT_EACH, self._commit_each)
        self._hsm.serve(messages.RECALL, self._recall)
        self._hsm.serve(messages.CREATE, self._create)
        self._hsm.serve(messages.DESTROY, self._destroy)
        self._hsm.serve(messages.LEASE_SETTINGS, self._submits(_lease_settings))
        self._hsm.serve(messages.ATTACH, self._attach)
        self._hsm.on_cast(messages.INVALIDATED, self._invalidated)

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish requests that were begun."""
        self._driver.load()
        self._hsm.start()
        self._services.start()
        try:
            await stop.wait()
            self._driver.stopping = True
            self._wake_watchers()
            await self._driver.finish()
        finally:
            await asyncio.gather(self._hsm.close(0.2), self._services.close(0.2))
            self._readings.end()
            await self._driver.close()
            os.close(self._lock)

    # Reads

    async def _get(self, call: Call, get: messages.Get) -> messages.Got:
        key = get.key
        return await self._driver.read(
            Interest(key.table, key.scope, key.id),
            lambda current: messages.Got(
                item=self._state.get(key, body=get.body), index=self._ordering.applied, current=current
            ),
        )

    async def _get_each(self, call: Call, asked: messages.Gets) -> messages.Gots:
        return messages.Gots(gots=tuple([await self._get(call, get) for get in asked.gets]))

    async def _scan(self, call: Call, scan: messages.Scan) -> messages.Scanned:
        def perform(current: bool) -> messages.Scanned:
            items, more = self._state.scan(scan)
            return messages.Scanned(items=tuple(items), more=more, index=self._ordering.applied, current=current)

        return await self._driver.read(Interest(scan.table, scan.scope), perform)

    async def _scopes(self, call: Call, asked: messages.ListScopes) -> messages.Scopes:
        def perform(current: bool) -> messages.Scopes:
            scopes, more = self._state.scopes(asked.table, asked.after, asked.limit)
            return messages.Scopes(scopes=tuple(scopes), more=more, index=self._ordering.applied, current=current)

        return await self._driver.read(None, perform)

    async def _count(self, call: Call, count: messages.Count) -> messages.Counted:
        return await self._driver.read(
            Interest(count.table, count.scope),
            lambda current: messages.Counted(
                count=self._state.count(count.table, count.scope), index=self._ordering.applied, current=current
            ),
        )

    async def _recall(self, call: Call, recall: messages.Recall) -> messages.Recalled:
        def perform(current: bool) -> messages.Recalled:
            answer = self._state.recall(recall.client, recall.session, recall.sequence)
            if isinstance(answer, LnhError):
                raise answer
            return messages.Recalled(known=answer is not None, index=answer or 0)

        if recall.sequence > apply.INTEGER_MAX:
            raise ArgumentInvalid(f"sequence {recall.sequence}; at most {apply.INTEGER_MAX}")
        # Whatever is in flight may be this very request: durable, but not every cache has dropped what it changes.
        return await self._driver.read(None, perform)

    async def _begin_reading(self, call: Call, _: Empty) -> messages.Reading:
        self._driver.check_sound()
        self._driver.check_member()
        return await self._readings.begin()

    async def _read_part(self, call: Call, asked: messages.ReadPart) -> messages.Part:
        return await self._readings.part(asked)

    async def _end_reading(self, call: Call, asked: messages.ReadingRef) -> Empty:
        await self._readings.finish(asked)
        return Empty()

    # Writes

    async def _commit(self, call: Call, commit: messages.Commit) -> messages.Committed:
        apply.check(commit)
        return _committed(await self._driver.submit(commit))

    async def _commit_each(self, call: Call, asked: messages.Commits) -> messages.Outcomes:
        outcomes: list[messages.Committed | list[Any] | None] = []
        checked: list[messages.Commit] = []
        for fields in asked.commits:
            try:
                commit = codec.convert(fields, messages.Commit)
                apply.check(commit)
            except LnhError as error:
                outcomes.append(error.to_wire())
            else:
                checked.append(commit)
                outcomes.append(None)
        replies = iter(await self._driver.submit_each(checked))
        return messages.Outcomes(outcomes=tuple(each or _outcome(next(replies)) for each in outcomes))

    # The cluster

    async def _create(self, call: Call, create: messages.Create) -> Empty:
        await self._driver.create(create)
        return Empty()

    async def _adopt(self, call: Call, adopt: messages.Adopt) -> Empty:
        if adopt.member not in adopt.members:
            raise ArgumentInvalid("the member that is to join is not among the members")
        await self._driver.adopt(adopt)
        return Empty()

    async def _destroy(self, call: Call, destroy: messages.Destroy) -> Empty:
        await self._driver.destroy(destroy.cluster)
        return Empty()

    def _submits(
        self, order: Callable[[Any], protocol.Order]
    ) -> Callable[[Call, Any], Coroutine[Any, Any, messages.Committed]]:
        """Make what serves an operation by submitting the order that its request stands for."""

        async def submit(call: Call, asked: Any) -> messages.Committed:
            return _committed(await self._driver.submit(order(asked)))

        return submit

    async def _promote(self, call: Call, asked: messages.MemberRef) -> Empty:
        _index(await self._driver.submit(protocol.Promote(MemberId(asked.member))))
        return Empty()

    async def _take_over(self, call: Call, asked: messages.TakeOver) -> messages.Committed:
        lost = frozenset(MemberId(member) for member in asked.lost)
        return _committed(await self._driver.take_over(lost, force=asked.force))

    async def _divergent(self, call: Call, _: Empty) -> messages.Divergent:
        directory, diverged = self._driver.disk.directory, self._driver.standing().diverged
        return await asyncio.to_thread(status.divergent, directory, diverged=diverged)

    async def _acknowledge_divergence(self, call: Call, _: Empty) -> Empty:
        self._driver.check_member()
        _index(await self._driver.acknowledge_divergence())
        return Empty()

    # The workers' caches

    async def _attach(self, call: Call, attach: messages.Attach) -> messages.Attached:
        worker = WorkerId(attach.worker)
        attached = self._driver.attach(worker)
        if self._identities.get(worker) != call.identity:
            known = {*self._driver.caches.leased_workers(), worker}
            self._identities = {w: identity for w, identity in self._identities.items() if w in known}
            self._identities[worker] = call.identity
            if not attached.fresh:
                self._driver.caches.remind(worker)
        return attached

    async def _invalidated(self, call: Call, told: messages.Invalidated) -> None:
        self._driver.caches.invalidated(WorkerId(told.worker), told.sequence)

    def _tell(self, worker: WorkerId, invalidation: messages.Invalidate) -> None:
        self._hsm.cast(self._identities[worker], messages.INVALIDATE, invalidation)

    # Watching and status

    async def _watch(self, call: Call, watch: messages.Watch) -> messages.Changed:
        self._driver.check_sound()
        until = call.deadline - min(WATCH_MARGIN, call.remaining() / 4)
        looked = watch.index
        while True:
            changed = self._driver.changes.since(looked, watch.tables)
            if changed is not None:
                return changed
            looked = self._driver.changes.last
            if self._driver.stopping or self._loop.time() >= until:
                return self._driver.changes.nothing()
            woken = self._loop.create_future()
            self._watchers.add(woken)
            timer = self._loop.call_at(until, _wake, woken)
            try:
                await woken
            finally:
                timer.cancel()
                self._watchers.discard(woken)

    def _wake_watchers(self) -> None:
        for watcher in list(self._watchers):
            _wake(watcher)

    async def _status(self, call: Call, _: Empty) -> messages.Status:
        return status.status(self._driver)


def _lease_settings(asked: messages.SetLeaseSettings) -> protocol.SetLeaseSettings:
    return protocol.SetLeaseSettings(LeaseSettings(asked.lease_ms, asked.alone_ms))


# The orders about members and groups, as the replica and the log know them: what is asked was checked at the door.
_ORDERS: Final[dict[Operation[Any, messages.Committed], Callable[[Any], protocol.Order]]] = {
    messages.MEMBER_SET: lambda asked: protocol.SetMember(asked.member),
    messages.MEMBER_DOOR: lambda asked: protocol.SetDoor(MemberId(asked.member), asked.door),
    messages.MEMBER_MOVE: lambda asked: protocol.MoveMember(MemberId(asked.member), asked.group, asked.request),
    messages.MEMBER_REMOVE: lambda asked: protocol.RemoveMember(MemberId(asked.member)),
    messages.GROUP_CREATE: lambda asked: protocol.CreateGroup(asked.group, asked.request),
    messages.GROUP_DELETE: lambda asked: protocol.DeleteGroup(asked.group, asked.request),
}


def _index(reply: Reply) -> int:
    """Return the index of an answer; raises the error that it is."""
    if isinstance(reply.answer, LnhError):
        raise reply.answer
    return reply.answer


def _committed(reply: Reply) -> messages.Committed:
    index = _index(reply)
    return messages.Committed(index=index, duplicate=index != reply.entry)


def _outcome(reply: Reply) -> messages.Committed | list[Any]:
    return reply.answer.to_wire() if isinstance(reply.answer, LnhError) else _committed(reply)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _lock(path: Path) -> int:
    """Hold the file's lock for the life of the process; the kernel gives it up even after a SIGKILL."""
    try:
        descriptor = open_regular(path, os.O_CREAT | os.O_RDWR)
    except NotRegular as error:
        raise ConfigurationInvalid(f"{path}: {error.strerror}; remove it") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationInvalid(f"{path} is locked: another store runs on this member directory") from error
    return descriptor
