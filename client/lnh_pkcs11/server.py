"""The gateway's end of a socket: bytes in, requests and replies out. Pure: `service.py` has the sockets.

A `Peer` is one socket. It reads the handshake and the frames, and says which requests came; each is answered by
`answer`, in any order. No request ends a socket: one that is too long is passed over and refused, and what does not
read as it should is refused. A `Server` knows which sockets are of one application.
"""

from __future__ import annotations

import inspect
import logging
import struct
from collections.abc import Coroutine, Iterator
from typing import Any, Final, NamedTuple

from lnh_common import limits
from lnh_common.errors import LnhError, TokenExpired, TokenUnknown
from lnh_common.text import shown
from lnh_pkcs11 import fields
from lnh_pkcs11.application import Application, Login, Tokens
from lnh_pkcs11.calls import CALLS_BY_ID, ERROR, MODULE, MODULE_ONLY, MODULE_VERSION, PROCESS_BYTES, Call
from lnh_pkcs11.handlers.table import HANDLERS, REFUSED
from lnh_pkcs11.numbers import CKR
from lnh_pkcs11.refusals import Refused, ckr_of
from lnh_pkcs11.ways import P11_KIT, Way, way_of

_log: Final = logging.getLogger("lnh.pkcs11")
_HEADER: Final = struct.Struct(">III")
_TWO: Final = struct.Struct(">II")


class NotSpoken(Exception):
    """A client begins as no client does."""


class Request(NamedTuple):
    """One request.

    Args:
        code: the client's name for it.
        data: its body; empty for one that was too long.
        is_long: whether it was.
    """

    code: int
    data: bytes
    is_long: bool = False


class Server:
    """The applications that use the gateway.

    Args:
        tokens: the keyrings there are.
    """

    def __init__(self, tokens: Tokens) -> None:
        self.tokens: Final = tokens
        self._processes: Final[dict[bytes, tuple[Application, set[Peer]]]] = {}

    def join(self, way: Way, process: bytes, peer: Peer) -> Application:
        """Return the application of a process, which one of its sockets opens."""
        app, peers = self._processes.setdefault(process, (Application(way, self.tokens), set()))
        peers.add(peer)
        return app

    def leave(self, process: bytes, peer: Peer) -> list[Login]:
        """Take in that a socket was closed; returns the logins that end with the last one of its process."""
        app, peers = self._processes[process]
        peers.discard(peer)
        if peers:
            return []
        del self._processes[process]
        return app.end()


class Peer:
    """One socket.

    Attributes:
        way: the way in, once it is known.
        app: its application, likewise.
    """

    def __init__(self, server: Server, drawn: bytes) -> None:
        self._server: Final = server
        self._process = drawn  # of p11-kit's client each socket is a process
        self._buffer = bytearray()
        self._passing = 0  # bytes of a request that is too long
        self._long: int | None = None
        self.way: Way | None = None
        self.app: Application | None = None

    def receive(self, data: bytes) -> tuple[bytes, list[Request]]:
        """Take bytes in; returns what to send at once, and the requests that are whole. Raises NotSpoken."""
        self._buffer += data
        greeting = b"" if self.app is not None else self._greet()
        return greeting, list(self._requests()) if self.app is not None else []

    def _greet(self) -> bytes:
        if not self._buffer:
            return b""
        way = way_of(self._buffer[0])
        if way is None:
            raise NotSpoken(f"a first byte {self._buffer[0]:#x}")
        length = 1
        answer = bytes([P11_KIT.index(way)]) if not way.own else b""
        if way.own:
            length += 1 + PROCESS_BYTES
            if len(self._buffer) < length:
                return b""
            version = min(self._buffer[1], MODULE_VERSION)
            if not version:
                raise NotSpoken("version 0 of the module")
            answer = bytes([MODULE, version])
            self._process = way.value.encode() + bytes(self._buffer[2:length])
        del self._buffer[:length]
        self.way = way
        self.app = self._server.join(way, self._process, self)
        return answer

    def _requests(self) -> Iterator[Request]:
        while True:
            if self._long is not None:
                passed = min(self._passing, len(self._buffer))
                del self._buffer[:passed]
                self._passing -= passed
                if self._passing:
                    return
                code, self._long = self._long, None
                yield Request(code, b"", is_long=True)
            if len(self._buffer) < _HEADER.size:
                return
            code, options, length = _HEADER.unpack_from(self._buffer)
            if options + length > limits.PKCS11_FRAME_BYTES:
                del self._buffer[: _HEADER.size]
                self._passing, self._long = options + length, code
                continue
            end = _HEADER.size + options + length
            if len(self._buffer) < end:
                return
            data = bytes(self._buffer[_HEADER.size + options : end])
            del self._buffer[:end]
            yield Request(code, data)

    def answer(self, request: Request) -> bytes | Coroutine[Any, Any, bytes]:
        """Begin what a request asks for; returns its reply's frame, or what waits for others and then returns that."""
        assert self.way is not None, "the handshake came first"
        assert self.app is not None, "the handshake came first"
        try:
            call, values = _read(request, self.way)
            results = HANDLERS[call.name](self.app, *values)
            if inspect.iscoroutine(results):
                return self._awaited(request, call, values, results)
            return _reply(request, call, results, self.way)
        except Exception as error:  # whatever it is, it is this request's alone
            return _refusal(request, error)

    async def _awaited(
        self, request: Request, call: Call, values: list[Any], results: Coroutine[Any, Any, tuple[Any, ...]]
    ) -> bytes:
        assert self.way is not None, "the handshake came first"
        try:
            return _reply(request, call, await results, self.way)
        except (TokenUnknown, TokenExpired) as error:
            self._lost(values)
            return _refusal(request, error)
        except Exception as error:  # whatever it is, it is this request's alone
            return _refusal(request, error)

    def _lost(self, values: list[Any]) -> None:
        """Close the sessions at a token whose login is over, as the application is told that they are."""
        session = self.app.sessions.get(values[0]) if self.app is not None and values else None
        if session is not None and self.app is not None:
            self.app.close_all(session.slot)

    def close(self) -> list[Login]:
        """Take in that the socket was closed; returns the logins that end with it."""
        return [] if self.app is None else self._server.leave(self._process, self)


def _read(request: Request, way: Way) -> tuple[Call, list[Any]]:
    """Read a request: its call, and the values of its fields; raises Refused."""
    if request.is_long:
        raise Refused(CKR.DEVICE_MEMORY, f"a request of more than {limits.PKCS11_FRAME_BYTES} bytes")
    call, at = _call(request.data, way)
    if not way.own and call.name in MODULE_ONLY:
        raise Refused(CKR.FUNCTION_NOT_SUPPORTED, "p11-kit does not pass what the parameters point to")
    values = fields.read(call.fields(own=way.own)[0], request.data, way, at)
    if call.name in REFUSED:
        raise Refused(*REFUSED[call.name])
    return call, values


def _call(data: bytes, way: Way) -> tuple[Call, int]:
    """Read which call a request is, and where its fields begin; raises Refused."""
    if len(data) < _TWO.size:
        raise fields.Malformed("no call")
    number, length = _TWO.unpack_from(data)
    call = CALLS_BY_ID.get(number)
    if call is None or (not way.own and call.since.value == (3, 2)):
        raise Refused(CKR.FUNCTION_NOT_SUPPORTED, f"call {number}")
    end = _TWO.size + length
    if data[_TWO.size : end] != call.fields(own=way.own)[0].encode():
        raise fields.Malformed(f"C_{call.name}: other fields")
    return call, end


def _reply(request: Request, call: Call, results: tuple[Any, ...], way: Way) -> bytes:
    letters = call.fields(own=way.own)[1]
    body = _TWO.pack(call.id, len(letters)) + letters.encode() + fields.write(letters, results, way)
    return _HEADER.pack(request.code, 0, len(body)) + body


def _refusal(request: Request, error: Exception) -> bytes:
    """Make the reply to a request that an error ended; what is none of the product's is a fault, and is logged."""
    if isinstance(error, Refused | LnhError):
        call = CALLS_BY_ID.get(int.from_bytes(request.data[:4], "big"))
        name = call.name if call is not None else "?"
        ckr = error.ckr if isinstance(error, Refused) else ckr_of(error, name)
        _log.info("C_%s is answered CKR_%s: %s", name, ckr.name, shown(str(error)))
    else:
        ckr = CKR.GENERAL_ERROR
        _log.error("a request met a fault", exc_info=error)
    body = _TWO.pack(ERROR, 1) + b"u" + int(ckr).to_bytes(8, "big")
    return _HEADER.pack(request.code, 0, len(body)) + body
