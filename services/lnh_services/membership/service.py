"""The membership service: the view of the cluster, orders from the hsm, and the member port.

    run/membership/services.ipc   the view, for everyone in this member
    run/membership/hsm.ipc        orders, which are the hsm's alone
    base port + 1, CURVE          other members; a key that is no member's may say hello and ask to join

`procedures.py` has what is done together with others, `view.py` what is shown; here are sockets and time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import lnh_common
from lnh_common.bus import curve
from lnh_common.bus.client import Client
from lnh_common.bus.gate import Gate
from lnh_common.bus.server import Call, Server
from lnh_common.errors import LnhError, NotPossible, PermissionDenied, Unreachable
from lnh_common.events import Log
from lnh_common.messages import backup, balancer, console, hsm, overview, store
from lnh_common.messages import membership as messages
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.store import MemberInfo, Status
from lnh_services.durable import replace_file
from lnh_services.membership import figures, procedures
from lnh_services.membership.peers import PeerMemberships
from lnh_services.membership.port import MemberPort
from lnh_services.membership.steps import Ask, Here, Steps
from lnh_services.membership.view import This, told_state, view
from lnh_services.paths import MemberDirectory
from lnh_services.serving import Member

M = TypeVar("M", bound=Message)

_LOOK_EVERY: Final = 2.0  # seconds between questions to the own services, and the age of what figures are made of
_FOLLOW_EVERY: Final = 1.0  # ... and to the own store and the peers
_FOLLOW_ALONE: Final = 2.0  # ... where there are none
_KNOCK_EVERY: Final = 5.0  # ... and to those that removed this member, until one of them proves it
DISMISSALS: Final = "dismissal"  # the table where hsm workers keep them

_log: Final = Log("membership")


@dataclass(frozen=True)
class Asked:
    """A service that this one asks how it is.

    Args:
        every: seconds between two questions, while it answers and nobody wants figures.
    """

    name: str
    status: Operation[Empty, Any]
    address: Callable[[MemberDirectory], str]
    every: float = _LOOK_EVERY


GROUP_ORDERS: Final[dict[Operation[Any, messages.Done], Operation[Any, store.Committed]]] = {
    messages.MOVE: store.MEMBER_MOVE,
    messages.GROUP_CREATE: store.GROUP_CREATE,
    messages.GROUP_DELETE: store.GROUP_DELETE,
}
STORE: Final = Asked("store", store.STATUS, lambda directory: directory.store_for_services)
OTHERS: Final = (
    Asked("hsm", console.HSM_SHOW, lambda directory: directory.hsm_for_services),
    Asked("balancer", balancer.STATUS, lambda directory: directory.balancer_status, 5.0),
    Asked("backup", backup.STATUS, lambda directory: directory.backup_for_services, 5.0),
)


class Membership:
    """The membership service of one member. Made and used within a running loop."""

    def __init__(self, member: Member) -> None:
        self._settings: Final = member.settings
        self._directory: Final = member.directory
        self._timeout: Final = member.settings.timeouts.status / 1000
        directory = member.directory
        self._server: Final = Server(directory.membership_for_services, name="membership")
        self._orders: Final = Server(directory.membership_for_hsm, name="membership.orders")
        self._clients: Final = {
            asked.name: Client(asked.address(directory), name=f"membership.{asked.name}") for asked in (STORE, *OTHERS)
        }
        self._gate: Final = Gate()
        self._peers: Final = PeerMemberships(self._keys, self._timeout)
        self._port: Final = MemberPort(self._settings, self._enter_peer_handlers, self._is_member)
        self._health: dict[str, messages.ServiceHealth] = {}
        self._told: dict[str, Any] = {}  # the other services' last answers, by name
        self._told_at: dict[str, float] = {}
        self._began: Final = time.monotonic()
        self._joining_since: float | None = None
        self._known: Status | None = None
        self._dismissed_from = b""  # the cluster that removed this member, once the HSM has the proof
        self._running: dict[tuple[str, Message], asyncio.Task[Message]] = {}
        self._enter_handlers()

    def _enter_handlers(self) -> None:
        for server in (self._server, self._orders):
            server.serve(messages.STATUS, self._status)
            server.serve(overview.SEEN, self._seen)
        orders = self._orders
        orders.serve(messages.PREPARE, self._prepare)
        orders.serve(messages.JOIN, self._by(procedures.ask_to_join))
        orders.serve(messages.SET, self._by(procedures.set_member))
        for operation, order in GROUP_ORDERS.items():
            orders.serve(operation, self._by(partial(procedures.regroup, order)))
        orders.serve(messages.PROMOTE, self._by(lambda order: procedures.promote(order.member)))
        orders.serve(messages.REMOVE, self._by(_remove))
        orders.serve(messages.LEAVE, self._by(procedures.leave))
        orders.serve(messages.DELETE, self._by(procedures.delete_cluster))
        orders.serve(messages.DIVERGENT, self._by(procedures.look_at_divergent))

    def _enter_peer_handlers(self, server: Server) -> None:
        server.serve(messages.PEER_HELLO, self._on_hello)
        server.serve(messages.PEER_JOIN, self._on_join)
        server.serve(messages.PEER_HEALTH, self._members_only(self._on_health))
        server.serve(overview.PEER_FIGURES, self._members_only(self._on_figures))
        server.serve(messages.PEER_DIVERGENT, self._members_only(self._on_divergent))
        server.serve(messages.PEER_DISMISSED, self._members_only(self._on_dismissed))

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        self._server.start()
        self._orders.start()
        looking = [asyncio.create_task(self._look(asked)) for asked in OTHERS]
        looking.append(asyncio.create_task(self._follow()))
        if self._settings.metrics.port:
            looking.append(asyncio.create_task(self._measure()))
        try:
            await stop.wait()
        finally:
            for task in (*looking, *self._running.values()):
                task.cancel()
            await asyncio.gather(*looking, return_exceptions=True)
            await asyncio.gather(self._server.close(), self._orders.close(), self._port.close())
            await self._peers.close()
            self._gate.close()
            for client in self._clients.values():
                await client.close()

    # --- looking around

    async def _look(self, asked: Asked) -> None:
        while True:
            await self._look_at(asked)
            await asyncio.sleep(_LOOK_EVERY if self._told[asked.name] is None else asked.every)

    async def _look_at(self, asked: Asked) -> None:
        self._told[asked.name] = await self._ask(asked)
        self._told_at[asked.name] = time.monotonic()

    async def _look_again(self) -> None:
        """Ask the services that were not asked lately, for somebody who wants to know how they are now."""
        late = time.monotonic() - _LOOK_EVERY
        await asyncio.gather(*(self._look_at(asked) for asked in OTHERS if self._told_at.get(asked.name, late) <= late))

    async def _measure(self) -> None:
        """Put this member's figures where Prometheus finds them, until cancelled."""
        # A tenth of a second that few members need.
        from lnh_common.metrics import Own
        from lnh_services.membership.metrics import MetricsPort

        port = MetricsPort(self._settings.metrics)
        port.open()
        try:
            while port.is_open:
                await self._look_again()
                view = await self._view()
                port.metrics.put(Own(self._settings.name, view, self._figures(view), time.time()))
                await asyncio.sleep(_LOOK_EVERY)
        finally:
            port.close()

    async def _ask(self, asked: Asked) -> Any:
        """Ask one service for its status, or None; its health is kept."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        answer, problem = None, ""
        try:
            answer = await self._clients[asked.name].ask(asked.status, Empty(), timeout=self._timeout)
        except LnhError as error:
            problem = str(error)
        state = "serving" if answer is not None else "unreachable"
        before = self._health.get(asked.name)
        if before is None or before.state != state:
            _log.info("service health", service=asked.name, state=state, problem=problem)
        self._health[asked.name] = messages.ServiceHealth(
            name=asked.name, state=state, milliseconds=int(1000 * (loop.time() - begun)), problem=problem
        )
        return answer

    async def _follow(self) -> None:
        """Keep the member port, the peers and the HSM in step with what the store lists."""
        while True:
            try:
                await self._follow_once()
            except LnhError as error:
                _log.warning("not done, tried again", problem=str(error))
            except Exception as error:  # a bug must not end the watch over the cluster
                _log.bug("following failed", error)
            alone = self._known is not None and len(self._known.members) == 1
            await asyncio.sleep(_FOLLOW_ALONE if alone else _FOLLOW_EVERY)

    async def _follow_once(self) -> None:
        status = await self._own_status()
        if status is None:
            return
        if not status.cluster:
            await self._port.close()
            await self._peers.close()
            return
        if status.state == "expelled" and self._dismissed_from == status.cluster:
            await self._port.close()
            await self._peers.close()  # it knocks at no former member's port any more
            return
        await self._port.open(self._keys())
        removed_by = await self._peers.follow(status)
        if removed_by is not None or status.state == "expelled":
            await self._expelled(status, removed_by)
        else:
            await self._run(procedures.say_door(status, self._door()))

    async def _own_status(self) -> Status | None:
        """Ask the store for its status; it is kept, so that the member port knows which keys to admit."""
        status: Status | None = await self._ask(STORE)
        if status is not None:
            self._known = status
        return status

    async def _expelled(self, status: Status, told: messages.Welcome | None) -> None:
        """Have the HSM stop serving, and wipe if an HSM of the cluster has dismissed this member."""
        if told is None:
            told = next(iter(await self._peers.hello(status.members, status)), None)
        reason = status.expelled or "another member says that this one was removed from the cluster"
        if told and told.removed and not status.expelled:
            reason += f" by entry {told.removed.index} of epoch {told.removed.epoch}"
        depart = hsm.Depart(
            cluster=status.cluster,
            departure=hsm.Departure.EXPELLED,
            reason=reason,
            proof=told.proof if told else b"",
        )
        await self._clients["hsm"].ask(hsm.DEPART, depart, timeout=self._timeout)
        if depart.proof:
            self._dismissed_from = status.cluster
        await self._peers.close()
        await asyncio.sleep(_KNOCK_EVERY)

    # --- this member

    def _keys(self) -> curve.KeyPair:
        return curve.KeyPair.load(self._directory.member_keys)

    def _door(self) -> bytes:
        """Read the CURVE public key of this member's balancer."""
        return curve.to_raw(self._directory.client_public.read_bytes().strip())

    async def _status(self, call: Call, request: Empty) -> messages.View:
        return await self._view()

    async def _view(self) -> messages.View:
        status = await self._own_status()
        this = This(self._settings.name, f"{self._settings.host}:{self._settings.client_port}")
        seen = view(this, status, self._health, self._peers.heard, time.time(), damaged=self._is_damaged())
        joins = status is not None and any(
            each.id == status.member and each.state == "joining" for each in seen.members
        )
        if not joins:
            self._joining_since = None
        elif self._joining_since is None:
            self._joining_since = time.monotonic()
        return seen

    def _is_damaged(self) -> bool:
        """Tell whether the HSM, as it was asked last, says that the store served what it must not have."""
        told = self._told.get("hsm")
        return isinstance(told, console.HsmView) and bool(told.damaged)

    async def _seen(self, call: Call, request: Empty) -> overview.Seen:
        """Show the cluster with what every member that was heard of lately tells of itself now."""
        await self._look_again()
        view = await self._view()
        own, listed = (self._known.member, self._known.members) if self._known is not None else (b"", ())
        heard = {each.id for each in view.members if each.state != "unreachable"} - {own}
        told, skews = await self._peers.figures(each for each in listed if each.id in heard)
        told[own] = self._figures(view)
        return figures.seen(view, own, told, skews, _now_ms())

    def _figures(self, view: messages.View) -> overview.Figures:
        """Put together what this member tells of itself, once `_view` has asked its store."""
        joining = int(time.monotonic() - self._joining_since) if self._joining_since is not None else 0
        return figures.figures(
            self._known if self._health["store"].state == figures.SERVING else None,
            self._told,
            self._health,
            at=_now_ms(),
            running=int(time.monotonic() - self._began),
            joining=joining,
            waiting_for=view.waiting_for,
            machine=figures.machine(self._directory, self._settings),
        )

    async def _on_figures(self, call: Call, request: Empty) -> overview.Figures:
        await self._look_again()
        return self._figures(await self._view())

    async def _prepare(self, call: Call, request: messages.Prepare) -> messages.Prepared:
        status = await self._own_status()
        if status is None:
            raise Unreachable("this member's store does not answer")
        if request.renew:
            if status.cluster:
                raise NotPossible("this member is in a cluster, and keeps its key while it is")
            await self._port.close()
            await self._peers.close()
            self._renew_key()
        else:
            await self._port.open(self._keys())
        listed = next((each for each in status.members if each.id == request.member), None)
        return messages.Prepared(member=listed or self._own_info(request.member))

    def _renew_key(self) -> None:
        self._directory.member_keys.unlink(missing_ok=True)
        made = curve.KeyPair.generate()
        made.save(self._directory.member_keys)
        replace_file(self._directory.member_public, made.public + b"\n")
        _log.info("member key renewed")

    def _own_info(self, member: bytes) -> MemberInfo:
        return MemberInfo(
            id=member,
            name=self._settings.name,
            host=self._settings.host,
            port=self._settings.client_port,
            key=self._keys().raw_public,
        )

    # --- procedures

    def _by(self, procedure: Callable[[Any], Steps[Message]]) -> Callable[[Call, Any], Awaitable[Any]]:
        """Make a handler that carries an order out by its procedure; asked again meanwhile, it is the same order."""

        async def carry_out(call: Call, order: Message) -> Message:
            which = (call.header.operation, order)
            task = self._running.get(which)
            if task is None:
                task = asyncio.create_task(self._run(procedure(order)))
                self._running[which] = task
                task.add_done_callback(lambda done: self._ended(which, done))
            return await asyncio.shield(task)

        return carry_out

    def _ended(self, which: tuple[str, Message], task: asyncio.Task[Message]) -> None:
        del self._running[which]
        if not task.cancelled():
            task.exception()  # read here too: its asker may have gone

    async def _run(self, steps: Steps[M]) -> M:
        """Feed a procedure the answers to what it asks, until it is done."""
        answer: Message | LnhError | None = None
        while True:
            try:
                step = steps.throw(answer) if isinstance(answer, LnhError) else steps.send(answer)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            if not isinstance(step, Ask):
                await asyncio.sleep(step.seconds)
                answer = None
                continue
            try:
                answer = await self._perform(step)
            except LnhError as error:
                answer = error

    async def _perform(self, step: Ask) -> Message:
        if isinstance(step.whom, Here):
            client = self._clients[step.whom.value]
            return await client.ask(step.operation, step.message, timeout=step.timeout)
        return await self._peers.ask(step.whom, step.operation, step.message, step.timeout)

    # --- what peers say

    def _members_only(self, handler: Callable[[Call, M], Awaitable[Any]]) -> Callable[[Call, M], Awaitable[Any]]:
        async def guarded(call: Call, request: M) -> Any:
            if not self._is_member(call.key):
                await self._own_status()  # it may have been listed a moment ago
            if not self._is_member(call.key):
                raise PermissionDenied("this key is not that of a member")
            return await handler(call, request)

        return guarded

    def _is_member(self, key: bytes) -> bool:
        return self._known is not None and any(each.key == key for each in self._known.members)

    async def _on_hello(self, call: Call, hello: messages.Hello) -> messages.Welcome:
        status = await self._own_status()
        if status is None:
            raise Unreachable("this member's store does not answer")
        removed, proof = None, b""
        was_here = bool(hello.cluster) and hello.cluster == status.cluster
        if was_here and all(each.id != hello.member for each in status.members):
            removed = next((each for each in status.removed if each.member == hello.member), None)
            proof = await self._dismissal_of(hello.member)
        return messages.Welcome(
            cluster=status.cluster,
            member=status.member,
            product=lnh_common.VERSION,
            listed=any(each.id == hello.member and each.key == call.key for each in status.members),
            removed=removed,
            proof=proof,
        )

    async def _dismissal_of(self, member: bytes) -> bytes:
        with contextlib.suppress(LnhError):
            get = store.Get(key=store.Key(table=DISMISSALS, id=member))
            item = (await self._clients["store"].ask(store.GET, get, timeout=self._timeout)).item
            return item.head if item else b""
        return b""

    async def _on_health(self, call: Call, request: Empty) -> messages.Health:
        status = await self._own_status()
        if status is None:
            raise Unreachable("this member's store does not answer")
        return messages.Health(
            cluster=status.cluster,
            member=status.member,
            product=lnh_common.VERSION,
            state=told_state(status.state, damaged=self._is_damaged()),
            primary=status.primary,
            epoch=status.epoch,
            index=status.last_index,
            listed=tuple(each.id for each in status.members),
            diverged=status.diverged,
        )

    async def _on_join(self, call: Call, request: messages.RequestToJoin) -> messages.Joined:
        return await self._run(procedures.admit(call.key, request))

    async def _on_divergent(self, call: Call, order: messages.LookAtDivergent) -> store.Divergent:
        return await self._run(procedures.own_divergent(order))

    async def _on_dismissed(self, call: Call, word: messages.Dismissed) -> Empty:
        if self._known is None or (word.cluster, word.member) != (self._known.cluster, self._known.member):
            raise NotPossible("that is about another member")
        depart = hsm.Depart(
            cluster=word.cluster,
            departure=hsm.Departure.LEFT if word.left else hsm.Departure.EXPELLED,
            reason=word.reason,
            proof=word.proof,
        )
        return await self._clients["hsm"].ask(hsm.DEPART, depart, timeout=self._timeout)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _remove(order: messages.Remove) -> Steps[messages.Done]:
    return procedures.remove_lost(order) if order.lost else procedures.remove(order)
