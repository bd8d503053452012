"""The client door of a member: one tight loop over `zmq.Poller` that takes all that is ready before it polls again.

    front   ROUTER, tcp, CURVE     clients (`front.py`); each key may ask what `clients.py` says; the hsm decides
    door    ROUTER, tcp, CURVE     the published key; answers `hello` alone (`door.py`)
                                   (what a class of peers may use up: `budgets.py`, and `bus/connections.py`)
    backs   DEALER, ipc, a worker  bundles of requests, and of answers back: docs/formats/balancer-worker.md
    store   DEALER, ipc            the registered clients' keys (`caller.py`)
    hsm     DEALER, ipc            why no worker is up (`unserved.py`)
    status  ROUTER, ipc            `balancer.status`
    peers                          the other members' balancers (`peers.py`)

It reads headers and can read no body: bodies are sealed between the client and an hsm worker. Of an answer it reads the
tag alone. `routing.py` decides; here is what happens on sockets, written for speed: messages that are ready at the same
time travel together.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import zmq

from lnh_common import limits
from lnh_common.bus import curve, intake, quick, zap
from lnh_common.bus.connections import Connections
from lnh_common.bus.dealer import Dealer
from lnh_common.bus.quiet import Quiet
from lnh_common.errors import Busy, LnhError, MalformedMessage
from lnh_common.events import Log
from lnh_common.messages import balancer
from lnh_common.messages.base import Empty
from lnh_common.messages.session import HELLO
from lnh_common.wire import bundles, codec
from lnh_common.wire import frames as wire
from lnh_common.wire.bundles import PING_TAG, VOUCHED, Bundle, Entry
from lnh_services.balancer import ports, unserved
from lnh_services.balancer.backends import Backend, Request
from lnh_services.balancer.budgets import BUDGETS, Peer
from lnh_services.balancer.caller import PolledCaller
from lnh_services.balancer.clients import Clients
from lnh_services.balancer.door import Door, stranger
from lnh_services.balancer.front import DOMAIN, Front
from lnh_services.balancer.greetings import Greetings
from lnh_services.balancer.peers import ZAP_DOMAIN, PeerBalancers
from lnh_services.balancer.routing import Router
from lnh_services.balancer.status import Rates, Served, percentiles, view_of
from lnh_services.configuration import Settings
from lnh_services.paths import MemberDirectory

Socket = zmq.Socket[bytes]

_BURST: Final = 256  # messages of one socket before the next has its turn
_TICK_BUSY_MS: Final = 50  # between looks at deadlines while there are requests
_TICK_GROWS_MS: Final = 5  # ... at connections while this process grows
_TICK_LOOK_MS: Final = 100  # ... while a client is connected
_TICK_IDLE_MS: Final = 500
_PING_EVERY: Final = 1.0
_HELLO: Final = b"hello"  # the client, and the account, of the hello that a worker is asked for everybody
_NOBLOCK: Final = zmq.NOBLOCK


class Balancer:
    """One member's balancer; `run` it in the thread that made it."""

    def __init__(self, directory: MemberDirectory, settings: Settings) -> None:
        self._settings: Final = settings
        self._log: Final = Log("balancer")
        self._context: Final = ports.context()
        self._poller: Final = zmq.Poller()  # of what requests and answers come in on; all else is behind ...
        self._quiet: Final = Quiet()
        self._look = True  # ... which is to be looked at, whatever its descriptor says
        self._router: Final = Router([Backend(f"worker-{number}") for number in range(settings.worker_count)])
        self._dropped: Final[Counter[str]] = Counter()
        self._rates: Final = Rates()
        self._served: Final = Served(settings.worker_count)
        self._stopping = False
        self._next_tick = 0.0
        self._next_ping = 0.0
        self._tell_cut = {"clients": 1, "door": 1}
        self._grows = False  # this process did, when connections were looked at last

        keys = curve.KeyPair.load(directory.client_keys)
        self._zap: Final = zap.socket(self._context)
        self._clients: Final = Clients()
        self._front: Final = Front(
            self._context,
            keys,
            self._clients,
            self._router,
            self._dropped,
            self._failed_handshake,
            lambda now, client, header, tag: self._greetings.ask(now, (self._front.answer, client, header, tag)),
            self._dispatch,
        )
        self._callers: Final = self._front.callers
        self._listen(settings.client_port, self._front.socket)
        port = ports.client_port(self._context, curve.DOOR, b"lnh door", limits.DOOR_BYTES)
        visitors = Connections(port, BUDGETS, stranger, self._failed_handshake)
        self._listen(settings.door_port, port)
        self._door: Final = Door(
            port,
            visitors,
            self._quiet,
            self._dropped,
            lambda now, client, header: self._greetings.ask(now, (self._answer_at_door, client, header, b"")),
            self._refuse_at_door,
        )
        self._greetings: Final[Greetings[_Asker]] = Greetings(self._ask_hello, self._greet)
        self._status: Final = self._context.socket(zmq.ROUTER)
        self._status.linger = 0
        self._status.bind(directory.balancer_status)
        self._workers: Final = [self._reach(n, directory.worker_address(n)) for n in range(settings.worker_count)]
        self._backs: Final = [worker.socket for worker in self._workers]
        self._outboxes: Final = [Bundle() for _ in self._workers]
        self._store: Final = PolledCaller(self._context, directory.store_for_services, self._clients.follow())
        self._hsm: Final = PolledCaller(
            self._context,
            directory.hsm_for_services,
            unserved.follow(lambda: bool(self._router.waiting), self._unserved),
        )
        self._peers: Final = PeerBalancers(
            self._context,
            self._poller,
            self._quiet,
            directory,
            settings,
            keys,
            self._router,
            self._dispatch,
            self._answered,
        )
        self._idle_ms = _TICK_IDLE_MS
        store, hsm = self._store.dealer, self._hsm.dealer
        self._quiet.add(self._zap, self._status, self._callers.monitor)
        self._quiet.add(store.socket, store.monitor, hsm.socket, hsm.monitor)
        self._quiet.add(*(worker.monitor for worker in self._workers))
        for source in (self._front.socket, *self._backs, self._quiet.descriptor):
            self._poller.register(source, zmq.POLLIN)

    def _listen(self, port: int, socket: Socket) -> None:
        """Bind a socket for clients, whose connections are watched already."""
        socket.ipv6 = ":" in self._settings.listen
        socket.bind(self._settings.endpoint(port))

    def _reach(self, number: int, address: str) -> Dealer:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = 2 * limits.REQUESTS_IN_FLIGHT
        socket.reconnect_ivl = 20
        socket.reconnect_ivl_max = 200
        return Dealer(socket, address, lambda up: self._link(number, up))

    def run(self, wake: int) -> None:
        """Serve until `wake`, a file descriptor, becomes readable; then finish what is in flight and return."""
        self._poller.register(wake, zmq.POLLIN)
        gc.collect()
        gc.freeze()
        end = None
        while end is None or (self._router.requests and time.monotonic() < end):
            self._turn(wake)
            if self._stopping and end is None:
                self._poller.unregister(wake)
                end = time.monotonic() + self._settings.timeouts.stop / 1000
        self._close()

    def _turn(self, wake: int) -> None:
        patience = _TICK_GROWS_MS if self._grows else _TICK_BUSY_MS if self._router.requests else self._idle_ms
        ready = dict(self._poller.poll(0 if self._look else patience))
        if self._front.socket in ready:
            self._front.drain()
        for number, back in enumerate(self._backs):
            if back in ready:
                self._drain_back(number, back)
        self._peers.receive(ready)
        now = time.monotonic()
        ticks = now >= self._next_tick
        if ticks:
            self._tick(now)
        if ticks or self._look or self._quiet.descriptor in ready:
            seldom = self._quiet.ready()
            self._look = bool(seldom)  # there may be more, and what is used is to be looked at again
            self._rare(seldom)
        if wake in ready:
            self._stop()
        if self._router.turns_waiting:
            for request in self._router.due(now, self._stands):
                self._dispatch(request)
        self._front.flush()
        # A backend that is found dead moves its requests to the others'.
        while self._peers.flush() or any(self._outboxes):
            for backend, outbox in enumerate(self._outboxes):
                if outbox:
                    self._flush(backend)

    def _stop(self) -> None:
        self._stopping = self._front.stopping = self._peers.stopping = True
        self._log.info("stopping", in_flight=self._router.requests)

    def _rare(self, ready: set[Socket]) -> None:
        """Handle everything that is neither a request nor an answer."""
        self._peers.watch(ready)
        for worker in self._workers:
            if worker.monitor in ready:
                worker.watch()
        if self._zap in ready:
            self._authenticate()
        for caller in (self._store, self._hsm):
            if caller.dealer.monitor in ready:
                caller.dealer.watch()
                caller.tick(time.monotonic())
            if caller.dealer.socket in ready:
                caller.receive(time.monotonic())
        for connections in (self._callers, self._door.visitors):
            if connections.monitor in ready:
                connections.watch()
        if self._door.socket in ready:
            self._door.drain()
        if self._status in ready:
            self._answer_status()

    # --- requests

    def _dispatch(self, request: Request) -> None:
        backend = request.backend
        assert backend is not None, "a request is sent to the backend it was given"
        if backend >= len(self._outboxes):
            self._peers.dispatch(request)
            return
        header, token, body = request.frames
        self._served.had_work(backend)
        if self._outboxes[backend].add(request.tag, header, token, body):
            self._flush(backend)

    def _flush(self, backend: int) -> None:
        """Send a worker the entries that wait for it."""
        try:
            self._backs[backend].send(self._outboxes[backend].take(), quick.NOBLOCK)
        except zmq.Again:
            self._backend_down(backend)

    def _drain_back(self, number: int, back: Socket) -> bool:
        """Pass on a worker's answers; tells whether there may be more."""
        now = time.monotonic()
        settle = self._router.settle
        for _ in range(_BURST):
            if not quick.is_ready(back):
                return False
            frames = quick.receive(back)
            try:
                entries = bundles.unpack(frames)
            except MalformedMessage as error:
                self._dropped["worker's frames"] += 1
                self._log.failure("a worker broke the contract of frames", worker=number, error=str(error))
                continue
            for entry in entries:
                if entry.header:
                    request = settle(now, number, entry.tag)
                    if request is not None:
                        self._answered(request, entry)
                    elif entry.tag == PING_TAG:
                        self._count_served(number, entry.body)
                else:
                    self._declined(now, number, entry.tag)
        return True

    def _answered(self, request: Request, entry: Entry) -> None:
        _, header, token, body = entry
        if request.foreign:
            self._peers.give_back(request, header, b"", body)
        elif request.client is _HELLO:
            self._greetings.told(time.monotonic(), body, good=wire.Header.parse(header).kind is wire.Kind.REPLY)
        else:
            if token == VOUCHED:
                self._front.vouch(request.client)
            self._front.answer(request.client, [header, b"", body], request.client_tag)

    def _count_served(self, number: int, body: bytes) -> None:
        try:
            served = codec.decode_as(body, balancer.WorkerLoad).served
        except MalformedMessage:
            self._dropped["worker's frames"] += 1
            return
        self._served.says(number, served)

    def _declined(self, now: float, number: int, tag: bytes) -> None:
        """Take in that a worker did nothing for another member's request: this member is not read-write any more."""
        request = self._router.rejected(now, number, tag)
        if request is not None and request.foreign:
            self._peers.decline(request.client, request.client_tag)
        elif request is not None and request.backend is not None:
            self._dispatch(request)

    def _stands(self, request: Request) -> bool:
        return request.client is _HELLO or self._callers.of(request.client) is not None

    def _send_seldom(self, socket: Socket, client: bytes, frames: list[bytes]) -> None:
        """Send at a socket that is looked at seldom."""
        ports.send(socket, client, frames, self._dropped)
        self._look = True  # to send may take in that there is something to be read

    # --- hello

    def _answer_at_door(self, client: bytes, frames: list[bytes], _: bytes) -> None:
        self._send_seldom(self._door.socket, client, frames)

    def _refuse_at_door(self, client: bytes, header: bytes, error: LnhError) -> None:
        refused = intake.refusal(header, error)
        if refused.answer is None:
            self._dropped["malformed"] += 1
        else:
            self._send_seldom(self._door.socket, client, refused.answer)

    def _ask_hello(self, now: float) -> None:
        """Have a worker answer `hello` for all that ask."""
        frames = [wire.request(HELLO.name, 0, int(limits.DEADLINE * 1000)).pack(), b"", codec.encode(Empty())]
        try:
            request = self._router.admit(
                now, _HELLO, frames, HELLO.name, now + limits.DEADLINE, _HELLO, peer=Peer.MEMBER, stays=True
            )
        except Busy as error:
            self._greetings.told(now, codec.encode(error.to_wire()), good=False)
            return
        if request.backend is not None:
            self._dispatch(request)

    def _greet(self, asker: _Asker, answer: bytes, good: bool) -> None:
        """Give an asker the answer to `hello`, or the error that came in its place."""
        give, client, header, tag = asker
        kind = wire.Kind.REPLY if good else wire.Kind.ERROR
        give(client, [wire.Header.parse(header).answer(kind).pack(), b"", answer], tag)

    # --- backends

    def _link(self, number: int, up: bool) -> None:
        if up:
            self._log.info("worker up", worker=number)
            for request in self._router.up(time.monotonic(), number):
                self._dispatch(request)
        else:
            while self._drain_back(number, self._backs[number]):
                pass  # what it answered before it went still counts
            self._backend_down(number)

    def _backend_down(self, number: int) -> None:
        self._outboxes[number].clear()
        moved = self._router.down(time.monotonic(), number)
        self._log.warning("worker down", worker=number, moved=len(moved), waiting=len(self._router.waiting))
        for request in moved:
            # A backend that dies during this loop moves its requests itself; those were dispatched there.
            if request.backend is not None and request.tag in self._router.backends[request.backend].outstanding:
                self._dispatch(request)

    def _unserved(self, why: LnhError) -> None:
        if isinstance(why, unserved.LASTING):
            self._router.unserved(self._hsm.asked_at, why)
        else:
            self._router.no_worker = str(why)

    # --- what is rare

    def _authenticate(self) -> None:
        for _ in range(_BURST):
            try:
                frames = self._zap.recv_multipart(_NOBLOCK)
            except zmq.Again:
                return
            self._zap.send_multipart(zap.answer(frames, self._admits), _NOBLOCK)

    def _admits(self, shake: zap.Handshake) -> bool | None:
        if shake.domain == ZAP_DOMAIN:
            return self._peers.admits(shake)
        return self._front.admits(shake.key.decode()) if shake.domain == DOMAIN else True

    def _failed_handshake(self, event: int) -> None:
        self._dropped["handshake"] += 1
        if self._dropped["handshake"].bit_count() == 1:  # at powers of two: seen, and never a flood
            problem = curve.explain(event)
            self._log.warning("handshakes failed", so_far=self._dropped["handshake"], problem=problem)

    def _look_at_connections(self, now: float) -> None:
        """Cut connections that hold too much; tell of all that were cut, each time that there are twice as many."""
        self._grows = False
        for name, connections in (("clients", self._callers), ("door", self._door.visitors)):
            self._grows |= connections.look(now)
            if connections.cut >= self._tell_cut[name]:
                self._tell_cut[name] = 2 * connections.cut
                self._log.warning("connections cut", so_far=connections.cut, port=name, last=connections.cut_last)

    def _tick(self, now: float) -> None:
        for request, error in self._router.expire(now):
            if request.client is _HELLO:
                self._greetings.told(now, codec.encode(error.to_wire()), good=False)
            elif request.foreign and request.open:
                self._peers.give_back(request, *wire.error_frames(wire.Header.parse(request.frames[0]), error))
            elif request.foreign:
                self._peers.decline(request.client, request.client_tag)
            else:
                self._front.refuse(request.client, request.frames[0], error, request.client_tag)
        if now >= self._next_ping:
            self._next_ping = now + _PING_EVERY
            self._rates.note(now, self._served.total, self._router.refused)
            self._ping()
        self._store.tick(now)
        self._hsm.tick(now)
        until = self._peers.tick(now)
        self._look_at_connections(now)
        self._next_tick = now + (_TICK_GROWS_MS if self._grows else _TICK_BUSY_MS) / 1000
        if self._door.reopen(now):
            self._look = True
        idle_ms = _TICK_LOOK_MS if self._callers or self._door.visitors else _TICK_IDLE_MS
        self._idle_ms = idle_ms if until is None else min(idle_ms, int(1000 * until) + 1)

    def _ping(self) -> None:
        header = wire.request(balancer.HSM_PING.name, 0, int(1000 * _PING_EVERY)).pack()
        body = codec.encode(Empty())
        for number, outbox in enumerate(self._outboxes):  # own workers alone
            at = self._router.backends[number]
            asks = at.up and self._served.asks(number, has_work=bool(at.outstanding))
            if asks and outbox.add(PING_TAG, header, b"", body):
                self._flush(number)

    def _answer_status(self) -> None:
        for _ in range(_BURST):
            try:
                client, *frames = self._status.recv_multipart(_NOBLOCK)
            except zmq.Again:
                return
            taken = intake.read(frames, (balancer.STATUS.name,))
            if isinstance(taken, intake.Refused):
                answer = taken.answer
            else:
                answer = [taken.header.answer(wire.Kind.REPLY).pack(), b"", codec.encode(self.status(time.monotonic()))]
            if answer is not None:
                self._send_seldom(self._status, client, answer)

    def status(self, now: float) -> balancer.Status:
        """Make the answer to `balancer.status`."""
        router, peers = self._router, self._peers
        served, refused = self._rates.per_second(now, self._served.total, router.refused)
        p50, p99 = percentiles(router.latencies)
        return balancer.Status(
            state="stopping" if self._stopping else "serving",
            connections=len(self._callers),
            requests_per_second=served,
            refused_per_second=refused,
            p50=p50,
            p99=p99,
            in_flight=router.requests,
            waiting=len(router.waiting),
            retried=router.retried,
            expired=router.expired,
            dropped=self._dropped.total() + peers.dropped.total(),
            backends=tuple(view_of(each, now, peers.group_of(each) if each.far else "") for each in router.known()),
            group=peers.neighbours.group,
            alone=peers.neighbours.alone(now),
            forwarded=router.forwarded,
            taken=router.taken,
            declined=peers.declined,
        )

    def _close(self) -> None:
        self._quiet.close()
        self._callers.close()
        self._door.visitors.close()
        self._peers.close()
        for dealer in (self._store.dealer, self._hsm.dealer, *self._workers):
            dealer.close()
        for socket in (self._front.socket, self._door.socket, self._status, self._zap):
            socket.close()
        self._context.term()


# Of hello: what gives the answer, who asks, its header and its tag.
_Asker = tuple[Callable[[bytes, list[bytes], bytes], None], bytes, bytes, bytes]
