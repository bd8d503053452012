"""A gateway of a few lines for the PKCS#11 module: it takes the module's sockets and answers what a test says."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from lnh_pkcs11.calls import ERROR, MODULE, MODULE_VERSION, PROCESS_BYTES

_HEADER: Final = struct.Struct(">III")


def number(value: int) -> bytes:
    """Encode a field u."""
    return struct.pack(">Q", value)


def array(data: bytes | None, length: int | None = None) -> bytes:
    """Encode a field ay; without data, its length alone."""
    if data is None:
        return struct.pack(">BI", 0, length or 0)
    return struct.pack(">BI", 1, len(data) if length is None else length) + data


def numbers(values: list[int] | None, count: int | None = None) -> bytes:
    """Encode a field au; without values, their count alone."""
    if values is None:
        return struct.pack(">BI", 0, count or 0)
    return struct.pack(">BI", 1, len(values) if count is None else count) + b"".join(map(number, values))


def text(value: str, length: int) -> bytes:
    """Encode a field s, padded to its length."""
    return struct.pack(">I", length) + value.encode().ljust(length)


def attribute(kind: int, value: bytes | None, length: int | None = None) -> bytes:
    """Encode one attribute of a reply: its value as it travels after its length; None is one that is not told."""
    if value is None:
        return struct.pack(">IB", kind, 0)
    return struct.pack(">IBI", kind, 1, len(value) if length is None else length) + value


def blob(value: bytes | None) -> bytes:
    """Encode the value of an attribute of bytes, or a pointer of parameters; None is 0xffffffff."""
    return struct.pack(">I", 0xFFFFFFFF) if value is None else struct.pack(">I", len(value)) + value


def body(call: int, signature: str, fields: bytes = b"") -> bytes:
    """Encode the body of a request or a reply."""
    return struct.pack(">II", call, len(signature)) + signature.encode() + fields


def refused(ckr: int) -> bytes:
    """Encode the body of a reply that is an error."""
    return body(ERROR, "u", number(ckr))


@dataclass(frozen=True)
class Request:
    """One request, as it came.

    Args:
        id: of the call.
        signature: the letters of its fields.
        fields: all of them, as bytes.
        process: the token that its socket began with.
        code: of its frame.
    """

    id: int
    signature: str
    fields: bytes
    process: bytes
    code: int


Answer: TypeAlias = Callable[[Request], bytes]
"""Gives the body of a reply."""


class Silence(Exception):
    """The gateway ends the connection without an answer."""


@dataclass
class Gateway:
    """A socket, and a thread for each connection.

    Args:
        path: of the socket.
        answer: what each request gets.
        frame: turns a code and a body into what is sent; other than a frame's bytes, to lie.
        greet: whether a connection is answered its version.
    """

    path: Path
    answer: Answer
    frame: Callable[[int, bytes], bytes] = lambda code, data: _HEADER.pack(code, 0, len(data)) + data
    greet: bool = True
    requests: list[Request] = field(default_factory=list)
    processes: list[bytes] = field(default_factory=list)
    _connections: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listener: socket.socket | None = None

    def start(self) -> None:
        """Listen, in the place of a gateway of before."""
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """End, as a process ends: with all its sockets."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.path.unlink(missing_ok=True)
        self.hang_up()

    def hang_up(self, keep: int = 0) -> None:
        """Close every connection but the last ones."""
        with self._lock:
            for connection in self._connections[: len(self._connections) - keep]:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
                self._connections.remove(connection)

    @property
    def connected(self) -> int:
        """How many connections there are."""
        with self._lock:
            return len(self._connections)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, Silence):
            self._talk(connection)
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)
        connection.close()

    def _talk(self, connection: socket.socket) -> None:
        module, version, *process = _read(connection, 2 + PROCESS_BYTES)
        assert (module, version) == (MODULE, MODULE_VERSION)
        self.processes.append(bytes(process))
        if not self.greet:
            _read(connection, 1)
        connection.sendall(bytes([MODULE, MODULE_VERSION]))
        while True:
            code, options, length = _HEADER.unpack(_read(connection, _HEADER.size))
            assert options == 0
            data = _read(connection, length)
            call, letters = struct.unpack_from(">II", data)
            request = Request(call, data[8 : 8 + letters].decode(), data[8 + letters :], bytes(process), code)
            self.requests.append(request)
            connection.sendall(self.frame(code, self.answer(request)))


@contextlib.contextmanager
def serving(path: Path, answer: Answer) -> Iterator[Gateway]:
    """Serve at a path, until the end of the block."""
    gateway = Gateway(path, answer)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()


def _read(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise Silence
        data += part
    return data
