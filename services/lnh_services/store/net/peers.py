"""Connects stores: one ROUTER that receives, one DEALER to each other member that sends, over TCP and CURVE.

A connection is admitted by its key: the keys of the members in force, and of those removed, who are to learn why. The
sender of a message is the member whose key its connection proved to hold (ZAP's User-Id); nothing in a message says who
sent it. Everything may be lost: nothing is kept for a member that is not connected, and the queue to a slow one is
bounded; a sender that must be heard says it again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zmq

from lnh_common import limits
from lnh_common.bus import curve, monitor, zap
from lnh_common.bus.asyncio_socket import CurvePump, Pump
from lnh_common.bus.connections import Connection, Connections
from lnh_common.bus.resolver import NAMES, endpoint
from lnh_common.errors import LnhError, MalformedMessage, SealBroken
from lnh_common.events import Log
from lnh_common.messages.store import MemberInfo
from lnh_common.wire import codec
from lnh_common.wire import frames as wire
from lnh_services.store.log import entries
from lnh_services.store.log.entries import MemberId
from lnh_services.store.log.window import REMOVED_KEPT
from lnh_services.store.net.transfer import Transfer
from lnh_services.store.replication.messages import Append, Fetched, Keep, Message, Ping, Pong, Report

STORE_PORT: Final = 2  # after a member's base port
MESSAGE_BYTES: Final = 16 * limits.MIB  # the largest: a batch of entries, and one more
QUEUE_BYTES: Final = 64 * limits.MIB  # what waits for one member
QUEUE_MESSAGES: Final = 16_384
REMOVED_IDLE: Final = 10.0  # seconds a connection to a removed member stays after the last word
_HIGH_WATER_MARK: Final = 16  # messages in libzmq, beyond our own queue
_HANDSHAKE_BYTES: Final = 1024  # the largest frame of CURVE's handshake, and some more

_REPLICA: Final = "store.replica"
_SNAPSHOT: Final = "store.snapshot"

OnMessage = Callable[[MemberId, Message], None]
OnTransfer = Callable[[MemberId, Transfer], None]

_log: Final = Log("store.peers")


@dataclass(eq=False)
class _Link:
    """The sending connection to one member, and what waits for it."""

    info: MemberInfo
    socket: zmq.Socket[bytes]
    monitor: zmq.Socket[bytes]
    queue: deque[wire.Frames] = field(default_factory=deque)
    size: int = 0
    connected: bool = False
    pumps: list[Pump] = field(default_factory=list)
    problem: str = ""
    used: float = 0.0
    at: str = ""  # the endpoint, with the host's address as it was found
    again: asyncio.TimerHandle | None = None  # it was refused, and is to connect again then


class PeerStores:
    """Connects this member's store with the others'. Made and used within a running loop.

    Args:
        address: ZeroMQ endpoint to bind once there are other members.
        keys: the key file of the member ports, read when there are others, and anew after `leave`.
        on_message, on_transfer: called with what a member says; must not raise.
    """

    def __init__(self, address: str, keys: Path, on_message: OnMessage, on_transfer: OnTransfer) -> None:
        self.problem = ""  # why others cannot connect
        self.dropped = 0  # messages to members that are slow or away
        self._address: Final = address
        self._key_file: Final = keys
        self._keys: curve.KeyPair | None = None
        self._on_message: Final = on_message
        self._on_transfer: Final = on_transfer
        self._loop: Final = asyncio.get_running_loop()
        self._context: Final[zmq.Context[zmq.Socket[bytes]]] = zmq.Context()
        self._known: dict[bytes, MemberId] = {}  # by key in Z85
        self._infos: dict[MemberId, MemberInfo] = {}
        self._listed: frozenset[MemberId] = frozenset()
        self._links: dict[MemberId, _Link] = {}
        self._authenticator: zmq.Socket[bytes] | None = None
        self._router: zmq.Socket[bytes] | None = None
        self._connections: Connections[bool] | None = None
        self._asking: Pump | None = None  # of the authenticator, which stays
        self._pumps: list[Pump] = []
        self._refused = 0

    # Who there is

    def know(self, members: Iterable[MemberInfo], removed: Iterable[MemberInfo] = ()) -> None:
        """Take the other members from this list; `removed` members, and those known before, may still connect."""
        listed = {MemberId(info.id): info for info in members}
        gone = {MemberId(info.id): info for info in removed} | self._infos
        gone = {id_: info for id_, info in gone.items() if id_ not in listed}
        for id_ in list(self._links):
            if self._infos[id_] != listed.get(id_):
                self._disconnect(id_)
        kept = list(gone.items())[-REMOVED_KEPT:]
        self._listed = frozenset(listed)
        self._infos = dict(kept) | listed
        # Of two with one key the listed counts: an appliance that comes back should have a new one, but may not.
        self._known = {curve.to_z85(info.key): id_ for id_, info in self._infos.items()}
        if listed:
            self.open()
            for id_ in sorted(listed):
                self._connect(id_)

    def tidy(self) -> None:
        """Try again to listen, if that failed, and end connections that were made to tell removed members.

        Call it now and then.
        """
        self.open()
        idle = self._loop.time() - REMOVED_IDLE
        for id_ in [id_ for id_, link in self._links.items() if id_ not in self._listed and link.used < idle]:
            self._disconnect(id_)

    def open(self) -> None:
        """Listen, if there are other members and nothing is in the way; `problem` says what is."""
        if self._router is not None or not self._listed:
            return
        try:
            self._keys = self._keys or curve.KeyPair.load(self._key_file)
            self._bind(self._keys)
        except (zmq.ZMQError, OSError, LnhError) as error:
            if not self.problem:
                _log.failure("cannot listen", address=self._address, problem=str(error))
            self.problem = f"other members cannot connect to {self._address}: {error}"
        else:
            self.problem = ""
            _log.info("listening", address=self._address)

    def _bind(self, keys: curve.KeyPair) -> None:
        if self._authenticator is None:
            self._authenticator = zap.socket(self._context)
            self._asking = Pump(self._authenticator, self._admit)
        router = self._context.socket(zmq.ROUTER)
        _common_options(router)
        router.rcvhwm = _HIGH_WATER_MARK
        router.maxmsgsize = MESSAGE_BYTES
        router.ipv6 = "[" in self._address
        curve.serve(router, keys)
        # Who has said nothing yet may be a member that begins with a long message.
        budgets = {
            False: limits.STRANGERS._replace(held=2 * MESSAGE_BYTES),
            True: limits.PEERS._replace(held=limits.MEMBERS * MESSAGE_BYTES),
        }
        connections = Connections(router, budgets, lambda each: bool(each.key), self._on_refused)
        try:
            router.bind(self._address)
        except zmq.ZMQError:
            connections.close()
            router.close(0)
            raise
        self._router, self._connections = router, connections
        self._pumps.append(CurvePump(router, connections, self._receive))

    def _admit(self, frames: list[bytes]) -> None:
        assert self._authenticator is not None, "it was asked"
        self._authenticator.send_multipart(zap.answer(frames, lambda shake: shake.key in self._known))

    def _connect(self, id_: MemberId) -> _Link | None:
        if id_ in self._links or self._keys is None:
            return self._links.get(id_)
        info = self._infos[id_]
        socket = self._context.socket(zmq.DEALER)
        _common_options(socket)
        socket.immediate = True  # safe where nothing is received (bus/dealer.py)
        socket.sndhwm = _HIGH_WATER_MARK
        socket.rcvhwm, socket.maxmsgsize = 1, _HANDSHAKE_BYTES  # nothing is received on it
        socket.reconnect_ivl = 50
        socket.reconnect_ivl_max = 500
        socket.connect_timeout = 1000
        curve.connect(socket, curve.to_z85(info.key), self._keys)
        link = _Link(info, socket, socket.get_monitor_socket(curve.LINK_EVENTS), used=self._loop.time())
        # A DEALER's pump is woken when it can be written to as well.
        link.pumps += [Pump(link.monitor, lambda frames: self._on_event(link, frames))]
        self._loop.add_reader(int(socket.getsockopt(zmq.FD)), self._flush, link)
        self._find(link)
        self._links[id_] = link
        return link

    def _find(self, link: _Link) -> None:
        """Connect to the address that the member's host has now; a host may come back with another one."""
        address = NAMES.address(link.info.host)
        if address is None or (at := endpoint(address, link.info.port + STORE_PORT)) == link.at:
            return
        if link.at:
            link.socket.disconnect(link.at)
        link.socket.ipv6 = "[" in at
        link.socket.connect(at)
        link.at = at

    def _disconnect(self, id_: MemberId) -> None:
        link = self._links.pop(id_, None)
        if link is None:
            return
        if link.again is not None:
            link.again.cancel()
        for pump in link.pumps:
            pump.stop()
        self._loop.remove_reader(int(link.socket.getsockopt(zmq.FD)))
        monitor.end(link.socket, link.monitor)
        link.socket.close(0)

    def is_connected(self, member: MemberId) -> bool:
        """Tell whether a message to this member can leave now."""
        link = self._links.get(member)
        return link is not None and link.connected

    def leave(self) -> None:
        """Listen to no member, and forget them all and the own key, since this member is in no cluster any more."""
        for id_ in list(self._links):
            self._disconnect(id_)
        self._infos, self._known, self._listed = {}, {}, frozenset()
        self._keys = None
        self.problem = ""
        for pump in self._pumps:
            pump.stop()
        self._pumps.clear()
        if self._router is not None and self._connections is not None:
            self._connections.close()
            self._router.close(0)
        self._connections = self._router = None

    def close(self) -> None:
        """Drop every message that was not sent, and close. A second call changes nothing."""
        self.leave()
        if self._asking is not None:
            self._asking.stop()
        if self._authenticator is not None:
            self._authenticator.close(0)
        self._asking = self._authenticator = None
        self._context.term()

    # Sending

    def send(self, to: MemberId, message: Message) -> None:
        """Send a message to a member, listed or removed; it may be lost."""
        # Leases hang on pings: they do not wait behind a long batch.
        self._send(to, message, first=isinstance(message, Ping | Pong))

    def transfer(self, to: MemberId, transfer: Transfer) -> None:
        """Send a word about a snapshot; it may be lost."""
        self._send(to, transfer)

    def _send(self, to: MemberId, word: Message | Transfer, *, first: bool = False) -> None:
        link = self._links.get(to)
        if link is None and to in self._infos:
            link = self._connect(to)
        if link is None or not link.connected:
            if link is not None:
                self._find(link)
            self.dropped += 1
            return
        link.used = self._loop.time()
        frames = pack(word)
        size = len(frames[2])
        if link.size + size > QUEUE_BYTES or len(link.queue) >= QUEUE_MESSAGES:
            self.dropped += 1
            return
        (link.queue.appendleft if first else link.queue.append)(frames)
        link.size += size
        self._flush(link)

    def _flush(self, link: _Link) -> None:
        """Give libzmq what it takes; its descriptor says when it takes more."""
        if link.socket.closed:
            return
        while link.queue:
            try:
                link.socket.send_multipart(link.queue[0], zmq.NOBLOCK)
            except zmq.Again:
                if not int(link.socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT:
                    return
                continue
            link.size -= len(link.queue.popleft()[2])
        link.socket.getsockopt(zmq.EVENTS)  # takes note of what its descriptor told

    def _on_event(self, link: _Link, frames: list[bytes]) -> None:
        event = monitor.parse(frames).event
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            link.connected, link.problem = True, ""
            _log.info("connected", peer=link.info.name)
        elif event == zmq.EVENT_DISCONNECTED:
            if link.connected:
                _log.info("disconnected", peer=link.info.name)
            link.connected = False
            self.dropped += len(link.queue)
            link.queue.clear()
            link.size = 0
        else:
            problem = curve.explain(event)
            if link.problem != problem:
                link.problem = problem
                _log.warning("handshake failed", peer=link.info.name, problem=problem)
            if event & curve.REFUSED_EVENTS and link.again is None:
                link.again = self._loop.call_later(curve.REFUSED_AGAIN, self._connect_again, link)

    def _connect_again(self, link: _Link) -> None:
        """Connect again to a member that refused; it may have heard of this member by now."""
        link.again = None
        if not link.connected:
            link.socket.disconnect(link.at)
            link.socket.connect(link.at)

    # Receiving

    def _receive(self, frames: list[bytes], connection: Connection) -> None:
        sender = self._known.get(connection.key.encode())
        if sender is None:
            return  # removed so long ago that it is forgotten, and still connected
        try:
            word = read(frames[1:])
        except LnhError as error:
            _log.warning("malformed message", peer=self._infos[sender].name, problem=str(error))
            return
        if isinstance(word, Transfer):
            self._on_transfer(sender, word)
        elif word is not None:
            self._on_message(sender, word)

    def _on_refused(self, _: int) -> None:
        self._refused += 1
        if self._refused.bit_count() == 1:  # at powers of two: seen, and never a flood
            _log.warning("handshakes refused", so_far=self._refused)


def _common_options(socket: zmq.Socket[bytes]) -> None:
    """Set the options that both ends of a connection have.

    No heartbeats: with them libzmq 4.3 aborts the process when a connection breaks of which it had stopped reading (its
    issues 3596 and 4364). The replica's pings find silent members, TCP's own means find dead ones.
    """
    socket.linger = 0
    socket.handshake_ivl = 2000
    # Not acknowledged by the other machine for so long: the connection is given up and made anew, since what is cut and
    # joined again would otherwise wait for the kernel's ever longer retries.
    socket.setsockopt(zmq.TCP_MAXRT, 1500)
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = 5
    socket.tcp_keepalive_intvl = 2
    socket.tcp_keepalive_cnt = 3


def _check_entries(message: Message) -> None:
    """Raise SealBroken unless the entries in a message follow one another and decode: no disk ever holds others."""
    if isinstance(message, Append | Fetched):
        entries.check_chain(message.previous, message.entries)
        for entry in message.entries:
            entry.content()
        return
    kept = message.open if isinstance(message, Keep) else message.kept if isinstance(message, Report) else None
    if kept is not None:
        entries.check_chain(entries.Position(kept.epoch, kept.index - 1, kept.previous), (kept,))
        if not isinstance(kept.content(), entries.Open):
            raise SealBroken(f"entry {kept.index} is not the open of an epoch")


def read(frames: list[bytes]) -> Message | Transfer | None:
    """Decode and check what another store says; None for an operation of a later version.

    Raises MalformedMessage, UnsupportedVersion, or SealBroken for entries that are none.
    """
    if len(frames) != 3 or frames[1]:
        raise MalformedMessage(f"{len(frames)} frames; a message between stores has 3, the second empty")
    header = wire.Header.parse(frames[0])
    if header.kind is not wire.Kind.CAST:
        raise MalformedMessage("stores send casts only")
    if header.operation == _SNAPSHOT:
        transfer: Transfer = codec.decode_as(frames[2], Transfer, MESSAGE_BYTES)  # type: ignore[arg-type]
        return transfer
    if header.operation != _REPLICA:
        return None
    message: Message = codec.decode_as(frames[2], Message, MESSAGE_BYTES)  # type: ignore[arg-type]
    _check_entries(message)
    return message


def pack(word: Message | Transfer) -> list[bytes]:
    """Encode a message in frames."""
    operation = _SNAPSHOT if isinstance(word, Transfer) else _REPLICA
    return [wire.request(operation, 0, 0, kind=wire.Kind.CAST).pack(), b"", codec.encode(word)]
