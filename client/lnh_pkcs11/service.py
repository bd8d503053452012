"""Serves the gateway's socket: a thin shell around `server.py`, in one event loop.

The socket's directory and mode say who gets in, and SO_PEERCRED who it is: this user, root, or, where a group was
named, its members.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import pwd
import signal
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from lnh_common import limits
from lnh_common.unix_sockets import make_room
from lnh_pkcs11.handlers.general import log_out
from lnh_pkcs11.keyrings import Keyrings
from lnh_pkcs11.server import NotSpoken, Peer, Request, Server

_log: Final = logging.getLogger("lnh.pkcs11")
_CREDENTIALS: Final = struct.Struct("3i")
_DRAWN: Final = 16
_READ_BYTES: Final = 64 * limits.KIB
_GARBAGE: Final = 50_000  # objects after which cycles are looked for: requests leave none


class Socket(asyncio.BufferedProtocol):
    """One application's socket.

    All sockets of a service are read into one piece of memory, as none of them keeps it; asyncio's own way takes a
    quarter of a megabyte for each read, which costs more than to answer what is read.
    """

    def __init__(self, service: Service) -> None:
        self._service: Final = service
        self._peer: Final = Peer(service.server, os.urandom(_DRAWN))
        self._transport: asyncio.Transport | None = None
        self._waiting: Final[deque[Request]] = deque()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._is_full = False  # of replies that the application does not read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or not."""
        assert isinstance(transport, asyncio.Transport), "a socket's"
        if not self._service.admits(transport.get_extra_info("socket"), self):
            transport.abort()
            return
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the memory that is read into."""
        return self._service.memory

    def buffer_updated(self, nbytes: int) -> None:
        """Take in the bytes that were read, and leave none of them behind: PINs are among them."""
        memory = self._service.memory
        data = bytes(memory[:nbytes])
        memory[:nbytes] = bytes(nbytes)
        if self._transport is not None:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        """Begin what bytes ask for."""
        assert self._transport is not None, "it is open"
        try:
            greeting, requests = self._peer.receive(data)
        except NotSpoken as error:
            _log.info("a client was put out: %s", error)
            self._transport.abort()
            return
        if greeting:
            self._transport.write(greeting)
        self._waiting.extend(requests)
        self._begin()
        if self._waiting:
            self._transport.pause_reading()

    def _begin(self) -> None:
        """Begin what may be under way at once; what is beyond waits, and no more is read."""
        while self._waiting and not self._is_full and len(self._tasks) < limits.PKCS11_REQUESTS:
            answer = self._peer.answer(self._waiting.popleft())
            if isinstance(answer, bytes):
                self._send(answer)
                continue
            task = self._service.loop.create_task(self._serve(answer))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def _serve(self, answer: Coroutine[Any, Any, bytes]) -> None:
        self._send(await answer)

    def _send(self, reply: bytes) -> None:
        if self._transport is not None:
            self._transport.write(reply)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._waiting:
            self._go_on()

    def _go_on(self) -> None:
        self._begin()
        if not self._waiting and self._transport is not None:
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """Begin nothing more while replies are left unread."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Go on with what waits."""
        self._is_full = False
        self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        """Drop what the application had, with its last socket."""
        self._transport = None
        self._service.leave(self)
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        ended = self._peer.close()
        if ended:
            self._service.spawn(log_out(ended))

    def abort(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.abort()


class Service:
    """The gateway.

    Args:
        keyrings: those that it serves.
        group: whose members are let in; None for this user alone.

    Attributes:
        sockets: those that are open.
        memory: that they are read into.
    """

    def __init__(self, keyrings: Keyrings, *, group: int | None = None) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self.server: Final = Server(keyrings)
        self.sockets: Final[set[Socket]] = set()
        self.memory: Final = memoryview(bytearray(_READ_BYTES))
        self._keyrings: Final = keyrings
        self._group: Final = group
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._alone: Final = asyncio.Event()
        self._alone.set()

    def admits(self, connected: socket.socket, of: Socket) -> bool:
        """Tell whether a client is let in, by what the kernel says of its process."""
        pid, uid, gid = _CREDENTIALS.unpack(
            connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if len(self.sockets) >= limits.PKCS11_SOCKETS:
            _log.warning("process %d was not let in: %d sockets are open", pid, limits.PKCS11_SOCKETS)
            return False
        if uid not in {0, os.getuid()} and (self._group is None or self._group not in _groups(uid, gid)):
            _log.warning("process %d of user %d was not let in", pid, uid)
            return False
        self.sockets.add(of)
        self._alone.clear()
        return True

    def leave(self, socket_: Socket) -> None:
        """Take in that a socket was closed."""
        self.sockets.discard(socket_)
        if not self.sockets:
            self._alone.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def serve(self, path: Path, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Serve until told to stop; raises NotPossible where another gateway has the socket."""
        listening, inode = bound(path, self._group)
        server = await self.loop.create_unix_server(lambda: Socket(self), sock=listening)
        try:
            ready()
            await stop.wait()
        finally:
            server.close()
            for each in list(self.sockets):
                each.abort()
            await self._alone.wait()
            await self._end_tasks()
            await self._keyrings.close()
            unbind(path, inode)

    async def _end_tasks(self) -> None:
        """Wait for the logouts under way, but for no longer than a moment: sessions end with their tokens, too."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=limits.PKCS11_END_SECONDS)
        if late:
            _log.warning("%d logouts were not done within %g s", len(late), limits.PKCS11_END_SECONDS)
        for each in late:
            each.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def bound(path: Path, group: int | None) -> tuple[socket.socket, int]:
    """Bind the socket, of mode 0600, or 0660 with a group; returns it and its inode.

    Raises NotPossible where somebody listens there.
    """
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True)
        if group is not None:
            os.chown(path.parent, -1, group)
            path.parent.chmod(0o750)
    make_room(path, "gateway", "use it: lnh pkcs11 env; or serve elsewhere: --socket PATH")
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    if group is not None:
        os.chown(path, -1, group)
        path.chmod(0o660)
    return listening, path.stat().st_ino


def unbind(path: Path, inode: int) -> None:
    """Remove the socket, if it is still that one and not a later gateway's."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            path.unlink()


def _groups(uid: int, gid: int) -> set[int]:
    """Return the groups of a user, as the system has them."""
    try:
        return {gid, *os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)}
    except KeyError:
        return {gid}


async def run(path: Path, group: int | None, timeout: float, ready: Callable[[], None]) -> None:
    """Serve the keyrings of this client until SIGINT or SIGTERM.

    Args:
        path: of the socket.
        group: whose members are let in; None for this user alone.
        timeout: seconds an operation may take.
        ready: called once clients can connect.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    gc.collect()
    gc.freeze()  # what is here by now stays
    gc.set_threshold(_GARBAGE)
    await Service(Keyrings(timeout=timeout), group=group).serve(path, ready, stop)
