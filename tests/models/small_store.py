"""Stores of several members over real sockets, on one log of dicts: what membership and the hsm ask of them, in step.

Not the replica: there is no election, no disk and no delay. A member's store is read-write while it is listed and
`cut_off` does not name it; a removed one is expelled. It stands in where joining and leaving are tested without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from lnh_common.bus.server import Call, Server
from lnh_common.errors import AlreadyDone, NotPossible
from lnh_common.messages import store
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.store import MemberInfo
from lnh_services.paths import MemberDirectory
from models.storage import DictStore

T = TypeVar("T")

PASSED_ON: tuple[Operation[Any, Any], ...] = (
    store.GET,
    store.GET_EACH,
    store.SCAN,
    store.SCOPES,
    store.COUNT,
    store.COMMIT,
    store.COMMIT_EACH,
    store.RECALL,
)
ORDERS: tuple[Operation[Any, Any], ...] = (
    store.STATUS,
    store.CREATE,
    store.ADOPT,
    store.DESTROY,
    store.MEMBER_SET,
    store.MEMBER_DOOR,
    store.MEMBER_REMOVE,
    store.PROMOTE,
    store.TAKE_OVER,
)


class Log:
    """What all members of one cluster hold."""

    def __init__(self) -> None:
        self.items = DictStore()
        self.members: list[MemberInfo] = []
        self.removed: list[store.RemovedMember] = []
        self.primary = b""
        self.epoch = 1
        self.in_step = True  # whether a joiner comes into step at all


class SmallStore:
    """One member's; it begins as `info` says when its hsm creates a cluster."""

    def __init__(self, directory: MemberDirectory, log: Log, info: Callable[[bytes], MemberInfo]) -> None:
        self.directory, self.log, self.info = directory, log, info
        self.cluster = self.member = b""
        self.cut_off = False
        self.asked: list[str] = []
        self.refuse: dict[str, Exception] = {}
        self._servers: list[Server] = []

    async def start(self) -> None:
        for address in (self.directory.store_for_hsm, self.directory.store_for_services):
            server = Server(address, name="small-store")
            for operation in PASSED_ON:
                server.serve(operation, self._items)
            for order in ORDERS:
                server.serve(order, self._ordered)
            server.serve(store.ATTACH, self._attach)
            server.serve(store.WATCH, self._watch)
            server.on_cast(store.INVALIDATED, self._invalidated)
            server.start()
            self._servers.append(server)

    async def stop(self) -> None:
        for server in self._servers:
            await server.close(0)

    async def _items(self, call: Call, message: Message) -> Any:
        return self.log.items.answer(message, time.time_ns() // 1_000_000)

    async def _attach(self, call: Call, message: store.Attach) -> store.Attached:
        # Nobody is told what to drop here; with each lease, several a second, workers drop everything.
        return store.Attached(lease_ms=1000, index=self.log.items.index, fresh=True, read_write=not self.cut_off)

    async def _watch(self, call: Call, message: store.Watch) -> store.Changed:
        await asyncio.sleep(max(0.0, call.remaining() - 0.1))
        return store.Changed(index=self.log.items.index, keys=())

    async def _invalidated(self, call: Call, message: store.Invalidated) -> None:
        pass

    async def _ordered(self, call: Call, message: Message) -> Any:
        name = call.header.operation
        self.asked.append(name)
        if name in self.refuse:
            raise self.refuse[name]
        return self._carry_out(name, message)

    def _carry_out(self, name: str, message: Message) -> Message:
        log = self.log
        match message:
            case Empty():
                return self.status()
            case store.Create():
                self._begin(message.cluster, message.member.id)
                if not log.members:
                    log.members, log.primary = [message.member], message.member.id
            case store.Adopt():
                self._begin(message.cluster, message.member.id)
            case store.Destroy():
                if message.cluster == self.cluster:
                    self.cluster = self.member = b""
            case store.SetMember(member=changed):
                if any(gone.member == changed.id for gone in log.removed):
                    raise NotPossible("this member was removed; it joins again with a new id and key")
                log.members = [each for each in log.members if each.id != changed.id] + [changed]
                return store.Committed(index=log.items.index)
            case store.SetDoor(member=which, door=door):
                log.members = [
                    msgspec.structs.replace(each, door=door) if each.id == which else each for each in log.members
                ]
                return store.Committed(index=log.items.index)
            case store.MemberRef(member=member) if name == store.PROMOTE.name:
                log.primary, log.epoch = member, log.epoch + 1
            case store.MemberRef(member=member):
                self._remove(member)
                return store.Committed(index=log.items.index)
            case store.TakeOver(lost=lost):
                for member in lost:
                    self._remove(member)
                log.primary, log.epoch = self.member, log.epoch + 1
                return store.Committed(index=log.items.index)
        return Empty()

    def _begin(self, cluster: bytes, member: bytes) -> None:
        if self.cluster not in (b"", cluster):
            raise AlreadyDone("the store holds another cluster")
        self.cluster, self.member = cluster, member

    def _remove(self, member: bytes) -> None:
        log = self.log
        log.items.index += 1
        log.members = [each for each in log.members if each.id != member]
        log.removed.append(store.RemovedMember(member=member, epoch=log.epoch, index=log.items.index))

    def status(self) -> store.Status:
        log = self.log
        gone = next((each for each in log.removed if each.member == self.member), None)
        late = self.cut_off or (not log.in_step and self.member != log.primary)
        state = "none" if not self.cluster else "expelled" if gone else "read-only" if late else "read-write"
        in_sync = tuple(each.id for each in log.members if log.in_step or each.id == log.primary)
        return store.Status(
            state=state, cluster=self.cluster, member=self.member, primary=log.primary, epoch=log.epoch,
            in_sync=in_sync if self.cluster else (), last_index=log.items.index, committed_index=log.items.index,
            applied_index=log.items.index, items=0, bytes_on_disk=0, commits_per_second=0.0,
            members=tuple(log.members) if self.cluster else (), removed=tuple(log.removed),
            promotable=in_sync if self.member == log.primary else None, take_over_of=(log.primary,),
            catching_up=tuple(each.id for each in log.members if each.id not in in_sync),
            expelled=f"entry {gone.index} of epoch {gone.epoch} removed this member from the cluster" if gone else "",
        )  # fmt: skip


class Loop:
    """An asyncio loop in a thread of its own, for servers that a test runs beside real processes."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)
        with contextlib.suppress(RuntimeError):
            self.loop.close()
