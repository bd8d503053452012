"""The PKCS#11 gateway over a pure hsm worker: an application's bytes go in, and a member's answers come out."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import msgspec

from lnh.aio.objects.session import ObjectSession
from lnh.sessions import asked
from lnh_common.messages.admin import CLUSTER_POLICY, ROLE_SET, KeyringView, PolicyChange, SetRole
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.objects import RANDOM, RandomBytes
from lnh_common.messages.session import CHANGE_PASSWORD, ChangePassword, Credential, Role
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.wire import codec
from lnh_pkcs11.application import Token
from lnh_pkcs11.calls import CALLS_BY_ID, CALLS_BY_NAME
from lnh_pkcs11.fields import split
from lnh_pkcs11.layouts import VALUE_KINDS, ValueKind
from lnh_pkcs11.numbers import CKR
from lnh_pkcs11.refusals import Refused
from lnh_pkcs11.server import Peer, Request, Server
from lnh_pkcs11.ways import BARE, Way
from models.worker import Client, World, make_keyring

T = TypeVar("T")
SLOT = 7


def done(work: Coroutine[Any, Any, T]) -> T:
    """The result of what waits for nobody."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    raise AssertionError("it waits")


def answered(peer: Peer, request: Request) -> bytes:
    """The frame of the reply."""
    answer = peer.answer(request)
    return answer if isinstance(answer, bytes) else done(answer)


class WorkerSession(ObjectSession):
    """A session of a keyring's role with a pure worker, as `lnh.aio` has it."""

    def __init__(self, client: Client, keyring: bytes, role: Role, password: str) -> None:
        super().__init__()
        self.client, self.keyring, self.ended = client, keyring, False
        self._credential = Credential(role=role, keyring=keyring, password=password)
        self.asked: list[str] = []
        client.login(self._credential)

    async def call(
        self,
        operation: Operation[Any, Any],
        fields: dict[str, Any] | Message,
        timeout: float | None = None,
        *,
        current: bool = False,
    ) -> dict[str, Any]:
        self.asked.append(operation.name)
        message = codec.convert(fields, operation.request) if isinstance(fields, dict) else fields
        answer = self.client.ask(operation, message, self.keyring)
        made: dict[str, Any] = msgspec.to_builtins(answer, builtin_types=(bytes,))
        return made

    async def call_each(
        self, calls: Iterable[tuple[Operation[Any, Any], dict[str, Any]]], in_flight: int, timeout: float | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        for operation, fields in calls:
            yield await self.call(operation, fields)

    async def random(self, length: int) -> bytes:
        return (await self.ask(RANDOM, RandomBytes(length=length))).data

    async def logout(self) -> None:
        self.ended = True

    async def set_krco(self, password: str) -> None:
        await self.ask(ROLE_SET, SetRole(password=password))


@dataclass
class Keyrings:
    """One keyring in one slot, in a world of its own, and what was opened of it."""

    policy: dict[str, Any] = field(default_factory=dict)
    opened: list[WorkerSession] = field(default_factory=list)
    time: float = 0.0
    behind: bool = False

    def __post_init__(self) -> None:
        self.world = World()
        self.client = Client(self.world, self.world.worker()).register()
        self.id = make_keyring(self.client)
        if self.policy:
            self.client.as_administrator().ask(CLUSTER_POLICY, PolicyChange(changes=self.policy))
        view = KeyringView(id=self.id, label="payments")
        keyring = SimpleNamespace(
            id=self.id, label="payments", view=view, login=self._login, change_password=self._change
        )
        self._token = SimpleNamespace(slot=SLOT, cluster=SimpleNamespace(label="prod"), keyring=keyring)

    async def _login(self, role: Role, password: Any) -> WorkerSession:
        session = WorkerSession(self.client, self.id, role, asked(password))
        self.opened.append(session)
        return session

    async def _change(self, role: Role, old: str, new: str) -> None:
        credential = Credential(role=role, keyring=self.id, password=old)
        other = Client(self.world, self.client.worker)  # whose secret is its own
        other.register(f"changer-{os.urandom(4).hex()}").ask(
            CHANGE_PASSWORD, ChangePassword(credential=credential, new=new), self.id
        )

    async def listed(self) -> list[Token]:
        self._token.behind = self.behind
        return [cast("Token", self._token)]

    async def token(self, slot: int) -> Token:
        if slot != SLOT:
            raise Refused(CKR.SLOT_ID_INVALID)
        return (await self.listed())[0]

    def now(self) -> float:
        return self.time


class Answered(Exception):
    """A call was answered with this CKR."""

    def __init__(self, ckr: int) -> None:
        super().__init__(CKR(ckr).name)
        self.ckr = CKR(ckr)


class Program:
    """An application at the gateway, which encodes and decodes by itself."""

    def __init__(self, server: Server, way: Way = Way.MODULE, process: bytes = b"") -> None:
        self.way = way
        self.peer = Peer(server, os.urandom(16))
        self.code = 0x10
        first = b"\x4c\x01" + (process or os.urandom(16)) if way.own else bytes([list(Way).index(way)])
        self.greeting, requests = self.peer.receive(first)
        assert requests == []

    def call(self, name: str, *values: Any) -> Any:
        """The fields of the reply, or the only one; raises Answered."""
        row = CALLS_BY_NAME[name]
        request, reply = row.fields(own=self.way.own)
        letters = split(request)
        assert len(letters) == len(values), f"{name} has {request}"
        body = b"".join(self.encode(each, value) for each, value in zip(letters, values, strict=True))
        fields = decode(
            self.exchange(struct.pack(">II", row.id, len(request)) + request.encode() + body), row.id, reply
        )
        return fields[0] if len(fields) == 1 else fields

    def exchange(self, body: bytes) -> bytes:
        """The body of the reply to a body."""
        self.code += 1
        sent, requests = self.peer.receive(struct.pack(">III", self.code, 0, len(body)) + body)
        assert sent == b""
        (request,) = requests
        frame = answered(self.peer, request)
        code, options, length = struct.unpack(">III", frame[:12])
        assert (code, options, length) == (self.code, 0, len(frame) - 12)
        return frame[12:]

    def encode(self, letters: str, value: Any) -> bytes:
        """A field; of a mechanism a number, or a number and its parameters, or None."""
        if letters == "u":
            return struct.pack(">Q", value)
        if letters == "y":
            return bytes([value])
        if letters in {"s", "z"}:
            return struct.pack(">I", len(value)) + bytes(value)
        if letters == "ay":
            return b"\0" + bytes(4) if value is None else b"\1" + struct.pack(">I", len(value)) + bytes(value)
        if letters in {"fy", "fu"}:
            return struct.pack(">I", 0 if value is None else value or 0xFFFFFFFF)
        if letters == "aA":
            return attributes(value)
        if letters == "fA":
            return struct.pack(">I", len(value)) + b"".join(
                struct.pack(">II", *(each if isinstance(each, tuple) else (each, 4096))) for each in value
            )
        if value is None:
            return b"\xff" * 4
        number, parameters = value if isinstance(value, tuple) else (value, None)
        head = struct.pack(">I", number) if letters == "M" else b""
        if not self.way.own and parameters is None:
            return head + (b"\xff" * 4 if self.way is not Way.P11_KIT_2 else b"" if number in BARE else b"\0")
        form = b"" if self.way in {Way.P11_KIT_0, Way.P11_KIT_1} else b"\0" if parameters is None else b"\1"
        given: bytes = parameters or b""
        return head + form + given


class SocketProgram(Program):
    """An application at a gateway that runs."""

    def __init__(self, path: Path, way: Way = Way.MODULE) -> None:
        self.way, self.code = way, 0x10
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        self.socket.sendall(b"\x4c\x01" + os.urandom(16) if way.own else bytes([list(Way).index(way)]))
        self.greeting = self._read(2 if way.own else 1)

    def exchange(self, body: bytes) -> bytes:
        self.code += 1
        self.socket.sendall(struct.pack(">III", self.code, 0, len(body)) + body)
        code, options, length = struct.unpack(">III", self._read(12))
        assert (code, options) == (self.code, 0)
        return self._read(length)

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            assert piece, "the gateway closed the socket"
            data += piece
        return data


def attributes(template: dict[int, Any]) -> bytes:
    """An aA."""
    return struct.pack(">I", len(template)) + b"".join(_attribute(*each) for each in template.items())


def _attribute(number: int, value: Any) -> bytes:
    kind = VALUE_KINDS.get(number, ValueKind.BYTES)
    if kind is ValueKind.BYTE:
        length, encoded = 1, bytes([value])
    elif kind is ValueKind.ULONG:
        length, encoded = 8, struct.pack(">Q", value)
    elif kind is ValueKind.MECHANISMS:
        length, encoded = 8 * len(value), struct.pack(f">I{len(value)}Q", len(value), *value)
    elif kind is ValueKind.TEMPLATE:
        length, encoded = 24 * len(value), attributes(value)
    else:
        value = value if isinstance(value, bytes) else struct.pack("@L", value)
        length, encoded = len(value), struct.pack(">I", len(value)) + value
    return struct.pack(">IBI", number, 1, length) + encoded


def decode(body: bytes, number: int, letters: str) -> list[Any]:
    """The fields of a reply; raises Answered for an error."""
    got, length = struct.unpack(">II", body[:8])
    said = body[8 : 8 + length].decode()
    rest = body[8 + length :]
    if got == 0:
        assert said == "u"
        raise Answered(int.from_bytes(rest, "big"))
    assert (got, said) == (number, letters)
    found: list[Any] = []
    for each in split(letters):
        value, rest = _field(each, rest)
        found.append(value)
    assert rest == b""
    return found


def _field(letters: str, data: bytes) -> tuple[Any, bytes]:
    if letters == "u":
        return int.from_bytes(data[:8], "big"), data[8:]
    if letters == "v":
        return tuple(data[:2]), data[2:]
    if letters == "s":
        length = int.from_bytes(data[:4], "big")
        return data[4 : 4 + length].decode(), data[4 + length :]
    if letters in {"ay", "au"}:
        valid, length = struct.unpack(">BI", data[:5])
        if not valid:
            return Length(length), data[5:]
        size = length if letters == "ay" else 8 * length
        value: Any = data[5 : 5 + size]
        return value if letters == "ay" else list(struct.unpack(f">{length}Q", value)), data[5 + size :]
    if letters == "aA":
        return _attributes(data)
    assert letters == "P"
    form, data = data[0], data[1:]
    if form == 0:
        return {}, data
    named: dict[str, Any] = {}
    for name in ("pIv", "ulIvFixedBits", "ivGenerator", "pTag") if form == 1 else ("pNonce", "pTag"):
        if name in {"ulIvFixedBits", "ivGenerator"}:
            named[name], data = int.from_bytes(data[:8], "big"), data[8:]
        else:
            length = int.from_bytes(data[:4], "big")
            named[name], data = data[4 : 4 + length], data[4 + length :]
    return named, data


class Length(int):
    """A length that was answered in place of a value."""


def _attributes(data: bytes) -> tuple[dict[int, Any], bytes]:
    count, data = int.from_bytes(data[:4], "big"), data[4:]
    found: dict[int, Any] = {}
    for _ in range(count):
        number, valid, data = int.from_bytes(data[:4], "big"), data[4], data[5:]
        if not valid:
            found[number] = None
            continue
        length, data = int.from_bytes(data[:4], "big"), data[4:]
        kind = VALUE_KINDS.get(number, ValueKind.BYTES)
        if kind is ValueKind.BYTE:
            found[number], data = data[0], data[1:]
        elif kind is ValueKind.ULONG:
            found[number], data = int.from_bytes(data[:8], "big"), data[8:]
        elif kind is ValueKind.TEMPLATE:
            found[number], data = _attributes(data)
        elif kind is ValueKind.MECHANISMS:
            total = int.from_bytes(data[:4], "big")
            found[number] = list(struct.unpack(f">{total}Q", data[4 : 4 + 8 * total]))
            data = data[4 + 8 * total :]
        else:
            assert int.from_bytes(data[:4], "big") == length
            found[number], data = data[4 : 4 + length], data[4 + length :]
    return found, data


def packed(*fields: int | bytes) -> bytes:
    """Parameters of a mechanism: numbers and bytes."""
    return b"".join(
        struct.pack(">Q", each) if isinstance(each, int) else struct.pack(">I", len(each)) + each for each in fields
    )


def logged_in(keyrings: Keyrings, way: Way = Way.MODULE, *, password: str, user: int = 1) -> tuple[Program, int]:
    """A program with a read-write session that is logged in."""
    program = Program(Server(keyrings), way)
    session = program.call("OpenSession", SLOT, 6)
    program.call("Login", session, user, password.encode())
    return program, session


_SAMPLES: dict[str, tuple[Any, ...]] = {
    "u": (1, 2**64 - 1),
    "y": (0, 1),
    "z": (b"label",),
    "s": (b"label".ljust(32),),
    "ay": (b"", b"bytes", None),
    "fy": (None, 64),
    "fu": (None, 8),
    "aA": (
        {Attribute.CLASS: 3, Attribute.LABEL: b"ca", Attribute.SIGN: 1, Attribute.START_DATE: b"20261124"},
        {Attribute.ALLOWED_MECHANISMS: [1, 2], Attribute.UNWRAP_TEMPLATE: {Attribute.SENSITIVE: 1}},
    ),
    "fA": ([Attribute.LABEL, (Attribute.VALUE, 0)],),
    "M": (None, Mechanism.RSA_PKCS, (Mechanism.RSA_PKCS_PSS, packed(0x250, 2, 32))),
    "P": ((0, packed(bytes(12), 0, 3, bytes(16))),),
}


def samples(way: Way) -> Iterator[tuple[Way, bytes]]:
    """Bodies of each call that comes this way, each field with each of its samples."""
    program = Program(Server(cast("Any", None)), way)
    for row in CALLS_BY_ID.values():
        letters = row.fields(own=way.own)[0]
        for number in range(max([len(_SAMPLES[each]) for each in split(letters)], default=1)):
            values = [program.encode(each, _SAMPLES[each][number % len(_SAMPLES[each])]) for each in split(letters)]
            yield way, struct.pack(">II", row.id, len(letters)) + letters.encode() + b"".join(values)
