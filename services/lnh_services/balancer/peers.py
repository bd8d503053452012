"""Connects to the other members' balancers: a link to each, and the port on which they bring their work.

    port    ROUTER, tcp, CURVE     base + 3; the doors of listed members are admitted, nobody else
    links   DEALER, tcp, CURVE     one to each other listed member's port, under this member's door key
    view    DEALER, ipc            membership's view: who is listed, and whether this member is read-write

Both ends say bundles (`wire/bundles.py`), as to a worker: a request and its answer are the client's frames, byte for
byte, but for the deadline in the header, which no seal binds and which shrinks by the time waited here. An entry with
the tag of pings asks how the member stands. Work that came in on the port is for own workers alone, so no request goes
further than one hop. A request that is not done, because this member is not read-write or takes no more, is answered by
an empty entry, and its sender has it done elsewhere. A member that does not answer pings for a while is taken for gone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
import zmq

from lnh_common import limits
from lnh_common.bus import curve, quick
from lnh_common.bus.connections import Connections, on_the_wire
from lnh_common.bus.dealer import Dealer
from lnh_common.bus.quiet import Quiet
from lnh_common.bus.zap import Handshake
from lnh_common.errors import LnhError, MalformedMessage, UnknownOperation, Unreachable
from lnh_common.events import Log
from lnh_common.messages import balancer
from lnh_common.messages.base import Empty
from lnh_common.wire import bundles, codec
from lnh_common.wire import frames as wire
from lnh_common.wire.bundles import PING_TAG, Bundle, Entry
from lnh_services.balancer.backends import Backend, Request
from lnh_services.balancer.caller import PolledCaller
from lnh_services.balancer.neighbours import Neighbour, Neighbours
from lnh_services.balancer.operations import ROUTED
from lnh_services.balancer.pings import Pings
from lnh_services.balancer.routing import Router
from lnh_services.configuration import Settings
from lnh_services.paths import MemberDirectory

Socket = zmq.Socket[bytes]

ZAP_DOMAIN: Final = b"balancers"
PING_EVERY: Final = 0.25
GONE_AFTER: Final = 0.75  # seconds without an answer to pings
_REFUSED_AGAIN: Final = (
    1.0  # seconds after a failed handshake, which libzmq does not try again: it may have been too early
)
_REACH_AGAIN: Final = 5.0  # seconds without a connection after which it is made anew
_WEIGHT_OF_NEWEST: Final = 0.3  # of a ping's time, in what counts as the round trip
_SHRINKS_FROM: Final = 0.01  # seconds waited, from which on the deadline in the header is rewritten
_BURST: Final = 256
_BUNDLES_WAITING: Final = 4096
_NOBLOCK: Final = zmq.NOBLOCK


@dataclass(eq=False)
class Link:
    """The connection to another member."""

    neighbour: Neighbour
    number: int
    dealer: Dealer
    outbox: Bundle = field(default_factory=Bundle)
    pings: Pings = field(default_factory=Pings)
    away_since: float = 0.0
    said: str = ""  # the problem that was logged last


class PeerBalancers:
    """The balancer's connections to other members, each a backend of its router. Part of the balancer's loop.

    Args:
        poller, quiet: of that loop: for sockets with work, and for those that seldom have something to say.
        keys: of the door.
        send: sends a request to the backend it was given.
        answer: answers a request of this member's own client.
    """

    def __init__(
        self,
        context: zmq.Context[Socket],
        poller: zmq.Poller,
        quiet: Quiet,
        directory: MemberDirectory,
        settings: Settings,
        keys: curve.KeyPair,
        router: Router,
        send: Callable[[Request], None],
        answer: Callable[[Request, Entry], None],
    ) -> None:
        self.neighbours: Final = Neighbours(keys.raw_public)
        self.dropped: Final[Counter[str]] = Counter()
        self.declined = 0
        self.stopping = False
        self._context: Final = context
        self._poller: Final = poller
        self._quiet: Final = quiet
        self._keys: Final = keys
        self._router: Final = router
        self._send: Final = send
        self._answer: Final = answer
        self._log: Final = Log("balancer.peers")
        self._links: Final[dict[int, Link]] = {}
        self._doors: frozenset[str] = frozenset()
        self._answers: Final[dict[bytes, Bundle]] = {}  # to be sent, by who asked
        self._pings = 0
        self._next_ping = self._ticked = 0.0
        self._works = False  # whether there are others: their work comes in on the port
        self._port, self._callers = self._bind(settings)
        self._quiet.add(
            self._port, self._callers.monitor
        )  # read at all times: anybody can knock, and some once were members
        self._view: Final = PolledCaller(
            context, directory.membership_for_services, self.neighbours.follow(lambda: self._view.asked_at)
        )

    def _bind(self, settings: Settings) -> tuple[Socket, Connections[bool]]:
        socket = self._context.socket(zmq.ROUTER)
        curve.serve(socket, self._keys, ZAP_DOMAIN)
        _common_options(socket)
        socket.linger = 500  # what was done for others in the last moment
        socket.router_mandatory = True
        socket.ipv6 = ":" in settings.listen
        # Nobody else is admitted; who has said nothing yet may be a member that begins with a long bundle.
        budgets = {False: limits.STRANGERS._replace(held=4 * limits.BODY_BYTES), True: limits.PEERS}
        callers = Connections(socket, budgets, lambda caller: bool(caller.key), self._failed_handshake)
        socket.bind(settings.endpoint(settings.peer_port))
        return socket, callers

    def group_of(self, backend: Backend) -> str:
        """Return the affinity group of a backend that is another member."""
        link = next(link for link in self._links.values() if self._router.backends[link.number] is backend)
        return link.neighbour.group

    def admits(self, shake: Handshake) -> bool:
        """Tell whether this key belongs to a listed member's balancer."""
        return shake.key.decode() in self._doors

    # --- the loop

    def receive(self, ready: dict[Socket | int, int]) -> None:
        """Take in requests and answers of other members."""
        if self._port in ready:
            self._drain_port()
        for link in list(self._links.values()):
            if link.dealer.socket in ready:
                self._drain_link(link)

    def watch(self, ready: set[Socket]) -> None:
        """Take in which connections came and went."""
        for link in list(self._links.values()):
            if link.dealer.monitor in ready:
                link.dealer.watch()
        if self._port in ready:
            self._drain_port()
        if self._callers.monitor in ready:
            self._callers.watch()

    def tick(self, now: float) -> float | None:
        """Do what is due; returns the seconds until the next call, None where there is no other member."""
        if self._view.dealer.monitor.poll(0):
            self._view.dealer.watch()
        self._view.receive(now)
        self._view.tick(now)
        self._follow(now)
        self._callers.look(now)
        self._start(self._router.set_forwards(now, forwards=not self.neighbours.alone(now)))
        if now - self._ticked > GONE_AFTER / 2:
            self._stood_still(now)
        self._ticked = now
        if not self._links:
            return None
        if now >= self._next_ping:
            self._next_ping = now + PING_EVERY
            for link in list(self._links.values()):
                self._look_after(now, link)
        return self._next_ping - now

    def flush(self) -> bool:
        """Send the entries that wait; tells whether there were any."""
        sent = False
        for link in list(self._links.values()):
            if link.outbox:
                sent = True
                self._flush_link(link)
        if self._answers:
            for identity, bundle in self._answers.items():
                self._flush_answers(identity, bundle)
            self._answers.clear()
        return sent

    def close(self) -> None:
        """Close every connection and the port."""
        for link in list(self._links.values()):
            link.dealer.close()
        self._view.dealer.close()
        self._callers.close()
        self._port.close()

    # --- who there is

    def _follow(self, now: float) -> None:
        """Have a link to each other listed member, and to nobody else."""
        others = self.neighbours.others
        wanted = dict(others)
        for link in list(self._links.values()):
            found = wanted.get(link.neighbour.id)
            if found is not None and (found.endpoint, found.door) == (link.neighbour.endpoint, link.neighbour.door):
                if found != link.neighbour:
                    link.neighbour = found
                    backend = self._router.backends[link.number]
                    backend.name, backend.tier = found.name, _tier(found)
                del wanted[found.id]
            else:
                self._disconnect(now, link)
        for other in wanted.values():
            self._connect(now, other)
        self._doors = frozenset(curve.to_z85(other.door).decode() for other in others.values())
        if bool(others) != self._works:
            self._works = bool(others)
            if self._works:  # what is polled makes every poll slower
                self._quiet.remove(self._port)
                self._poller.register(self._port, zmq.POLLIN)
            else:
                self._poller.unregister(self._port)
                self._quiet.add(self._port)

    def _connect(self, now: float, other: Neighbour) -> None:
        socket = self._context.socket(zmq.DEALER)
        _common_options(socket)
        socket.reconnect_ivl = 50
        socket.reconnect_ivl_max = 500
        socket.connect_timeout = 1000
        socket.ipv6 = ":" in other.host
        curve.connect(socket, curve.to_z85(other.door), self._keys)
        number = self._router.add(Backend(other.name, _tier(other), far=True))
        dealer = Dealer(socket, other.endpoint, lambda up: self._changed(number, up=up))
        self._links[number] = Link(other, number, dealer, away_since=now)
        self._poller.register(socket, zmq.POLLIN)
        self._quiet.add(dealer.monitor)
        self._log.info("member listed", member=other.name, endpoint=other.endpoint)

    def _disconnect(self, now: float, link: Link) -> None:
        del self._links[link.number]
        self._poller.unregister(link.dealer.socket)
        self._quiet.remove(link.dealer.monitor)
        link.dealer.close()
        self._start(self._router.remove(now, link.number))
        self._log.info("member listed no more", member=link.neighbour.name)

    def _changed(self, number: int, *, up: bool) -> None:
        link = self._links[number]
        now = time.monotonic()
        link.pings.clear()
        link.away_since = now
        if up:
            self._ping(now, link)
        else:
            while self._drain_link(link):
                pass  # what it answered before it went still counts
            self._down(now, link, "the connection is gone")

    def _down(self, now: float, link: Link, why: str) -> None:
        link.outbox.clear()
        if not self._router.backends[link.number].up:
            return
        moved = self._router.down(now, link.number)
        self._log.warning("member away", member=link.neighbour.name, why=why, moved=len(moved))
        self._start(moved)

    def _start(self, requests: list[Request]) -> None:
        """Send requests that were given a backend; what was on a backend that died meanwhile was moved by that."""
        for request in requests:
            if request.backend is not None and request.tag in self._router.backends[request.backend].outstanding:
                self._send(request)

    # --- how they are

    def _stood_still(self, now: float) -> None:
        """Excuse every member's silence: this process had no processor for a while, and heard nothing."""
        for link in self._links.values():
            link.pings.excuse(now)

    def _look_after(self, now: float, link: Link) -> None:
        silent_for = link.pings.silent_for(now)
        if not link.dealer.connected:
            link.dealer.watch()  # where its name leads now
        away_for = 0.0 if link.dealer.connected else now - link.away_since
        if link.dealer.problem != link.said:
            link.said = link.dealer.problem
            if link.said:
                self._log.warning("member not reached", member=link.neighbour.name, problem=link.said)
        if max(silent_for, away_for) > (_REFUSED_AGAIN if link.said else _REACH_AGAIN):
            link.away_since = now
            link.dealer.renew()
        elif link.dealer.connected:
            backend = self._router.backends[link.number]
            backend.round_trip = max(backend.round_trip, silent_for)
            if silent_for > GONE_AFTER:
                self._down(now, link, "it does not answer")
            self._ping(now, link)

    def _ping(self, now: float, link: Link) -> None:
        self._pings += 1
        link.pings.asked(now, self._pings)
        header = wire.request(balancer.PEER_PING.name, self._pings, int(1000 * GONE_AFTER)).pack()
        if link.outbox.add(PING_TAG, header, b"", codec.encode(Empty())):
            self._flush_link(link)

    def _heard(self, now: float, link: Link, entry: Entry) -> None:
        """Take in how a member says it stands."""
        try:
            header = wire.Header.parse(entry.header)
            load = codec.decode_as(entry.body, balancer.Load)
        except LnhError as error:
            self._note("member's word", member=link.neighbour.name, problem=str(error))
            return
        asked = link.pings.answered(header.request_id)
        if asked is None:
            return
        backend = self._router.backends[link.number]
        took = now - asked
        if took > GONE_AFTER:
            return  # it was away, and answers what it was asked meanwhile; how far it is a later answer tells
        if not backend.up:
            backend.round_trip = took
            self._log.info("member reached", member=link.neighbour.name, milliseconds=round(1000 * took, 1))
        self._start(self._router.up(now, link.number))
        takes = load.takes and load.workers > 0
        round_trip = backend.round_trip + (took - backend.round_trip) * _WEIGHT_OF_NEWEST
        self._start(self._router.report(now, link.number, takes=takes, round_trip=round_trip, weight=load.workers))

    # --- work of ours that others do

    def dispatch(self, request: Request) -> None:
        """Send a request to the member that it was given to."""
        assert request.backend is not None, "a request is sent to the backend it was given"
        link = self._links[request.backend]
        header, token, body = request.frames
        waited = request.sent - request.begun
        if waited >= _SHRINKS_FROM:
            said = wire.Header.parse(header)
            header = msgspec.structs.replace(said, deadline_ms=max(1, said.deadline_ms - int(1000 * waited))).pack()
        if link.outbox.add(request.tag, header, token, body):
            self._flush_link(link)

    def _flush_link(self, link: Link) -> None:
        if not link.dealer.send([link.outbox.take()]):
            self._down(time.monotonic(), link, "it takes nothing more")

    def _drain_link(self, link: Link) -> bool:
        """Pass on a member's answers; tells whether there may be more."""
        now = time.monotonic()
        for _ in range(_BURST):
            try:
                frames = quick.receive(link.dealer.socket)
            except zmq.Again:
                return False
            try:
                entries = bundles.unpack(frames)
            except MalformedMessage as error:
                self._note("member's frames", member=link.neighbour.name, problem=str(error))
                continue
            for entry in entries:
                if entry.tag == PING_TAG:
                    self._heard(now, link, entry)
                elif entry.header:
                    request = self._router.settle(now, link.number, entry.tag)
                    if request is not None:
                        self._answer(request, entry._replace(token=b""))  # own workers alone vouch for anybody
                else:
                    moved = self._router.rejected(now, link.number, entry.tag)
                    if moved is not None:
                        self._start([moved])
        return True

    # --- work of others that we do

    def _drain_port(self) -> None:
        for _ in range(_BURST):
            try:
                identity = self._port.recv(_NOBLOCK)
            except zmq.Again:
                return
            frames = [self._port.recv(0, copy=False)]
            while frames[-1].more:
                frames.append(self._port.recv(0, copy=False))
            frame = frames[0]
            caller = self._callers.take(identity, frame, sum(on_the_wire(len(each)) for each in frames))
            if caller is None:
                self.dropped["member gone"] += 1
                continue
            if len(frames) > 1:
                self.dropped["member's frames"] += 1
                if len(frames) > limits.FRAMES_TAKEN:
                    self._callers.end(caller)
                continue
            key = caller.key
            if key not in self._doors:  # listed no more; its connection lasts
                self.dropped["not a member's"] += 1
                continue
            try:
                entries = bundles.unpack([frame.bytes])
            except MalformedMessage as error:
                self._note("member's frames", member=key, problem=str(error))
                continue
            for entry in entries:
                self._take(identity, key.encode(), entry)

    def _take(self, identity: bytes, account: bytes, entry: Entry) -> None:
        now = time.monotonic()
        try:
            header = wire.Header.parse(entry.header)
            if entry.tag == PING_TAG:
                self._tell(now, identity, header)
                return
            frames = [entry.header, entry.token, entry.body]
            wire.check_frames(frames)
            if header.kind is not wire.Kind.REQUEST or header.operation not in ROUTED:
                raise UnknownOperation(f"operation {header.operation!r} is not forwarded")
            why = "this member is stopping" if self.stopping else self.neighbours.alone(now)
            if why:
                raise Unreachable(why)
            deadline = now + wire.word_within(header.deadline_ms)
            request = self._router.admit(
                now, identity, frames, header.operation, deadline, account, entry.tag, foreign=True
            )
        except LnhError as error:
            self._log.debug("declined", error=str(error))
            self.decline(identity, entry.tag)
            return
        self._start([request])

    def _tell(self, now: float, identity: bytes, header: wire.Header) -> None:
        takes = not self.stopping and not self.neighbours.alone(now)
        load = balancer.Load(takes=takes, workers=self._router.own_up())
        self._give_back(identity, Entry(PING_TAG, header.answer(wire.Kind.REPLY).pack(), b"", codec.encode(load)))

    def give_back(self, request: Request, header: bytes, token: bytes, body: bytes) -> None:
        """Answer another member's request."""
        self._give_back(request.client, Entry(request.client_tag, header, token, body))

    def decline(self, identity: bytes, tag: bytes) -> None:
        """Tell another member that its request of this tag was not done."""
        self.declined += 1
        self._give_back(identity, bundles.refusal(tag))

    def _give_back(self, identity: bytes, entry: Entry) -> None:
        bundle = self._answers.setdefault(identity, Bundle())
        if bundle.add(*entry):
            self._flush_answers(identity, bundle)

    def _flush_answers(self, identity: bytes, bundle: Bundle) -> None:
        if not bundle:
            return
        frame = bundle.take()
        caller = self._callers.of(identity)
        if caller is None or not self._callers.give(caller, on_the_wire(len(frame))):
            self.dropped["member gone" if caller is None else "member does not read"] += 1
            return
        try:
            quick.send(self._port, (identity, frame))
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            self.dropped["member gone"] += 1

    # --- what is rare

    def _failed_handshake(self, event: int) -> None:
        self._note("member's handshake", problem=curve.explain(event))

    def _note(self, what: str, **fields: str) -> None:
        """Count a message that was dropped; it is logged at powers of two, so that it is seen and never a flood."""
        self.dropped[what] += 1
        if self.dropped[what].bit_count() == 1:
            self._log.warning(f"{what} dropped", so_far=self.dropped[what], **fields)


def _tier(neighbour: Neighbour) -> int:
    return 0 if neighbour.near else 1


def _common_options(socket: Socket) -> None:
    """Set the options of both ends, without ZeroMQ's heartbeats.

    With them libzmq aborts when a connection breaks of which it had stopped reading.
    """
    socket.linger = 0
    socket.sndhwm = socket.rcvhwm = _BUNDLES_WAITING
    socket.maxmsgsize = 2 * limits.BODY_BYTES
    socket.handshake_ivl = 2000
    socket.setsockopt(zmq.TCP_MAXRT, 1500)
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = 5
    socket.tcp_keepalive_intvl = 2
    socket.tcp_keepalive_cnt = 3
