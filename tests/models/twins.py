"""One fake cluster for both SDKs: it notes what is asked of it, and answers anything with something of the right type."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from enum import Enum
from typing import Any, Final

import msgspec
from msgspec import inspect as types

import lnh.admin
import lnh.aio.admin
from lnh_common.errors import LimitReached, LnhError, MemberBehind, ObjectUnknown
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.objects import ObjectView, SessionObject
from lnh_common.messages.session import LoggedIn
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass

A = Attribute
LOGGED_IN: Final = LoggedIn(token=b"token", session=b"x" * 16, expires=1 << 40, ends=1 << 41)
KEYRING: Final = b"k" * 16
MOST: Final = 40  # requests of one call
_ERRORS: Final = (ObjectUnknown("none is there"), MemberBehind("behind", {"behind_ms": 5000}))
_KEY_TYPES: Final = {
    ObjectClass.SECRET_KEY: (KeyType.AES, KeyType.GENERIC_SECRET),
    ObjectClass.PRIVATE_KEY: (KeyType.EC, KeyType.RSA, KeyType.ML_KEM),
    ObjectClass.PUBLIC_KEY: (KeyType.EC, KeyType.RSA, KeyType.ML_KEM),
}


def view(chance: random.Random, of: ObjectClass | None = None, *, in_session: bool = False) -> ObjectView:
    """An object of this class, or of any."""
    object_class = of or chance.choice(list(ObjectClass))
    attributes: dict[int, Any] = {A.CLASS.value: object_class.value, A.LABEL.value: chance.choice("ab")}
    if object_class in _KEY_TYPES:
        key_type = chance.choice(_KEY_TYPES[object_class])
        attributes[A.KEY_TYPE.value] = key_type.value
        if key_type is KeyType.EC:
            attributes[A.EC_PARAMS.value] = CURVES["P-256"].oid
    else:
        attributes[A.VALUE.value] = chance.randbytes(4)
    handle = chance.randbytes(16)
    if in_session:
        return SessionObject(handle=handle, version=1, attributes=attributes, sealed=chance.randbytes(4))
    return ObjectView(handle=handle, version=1, attributes=attributes)


def value_of(kind: types.Type, chance: random.Random) -> Any:
    """Some value of a type."""
    match kind:
        case types.StructType(cls=cls) if issubclass(cls, ObjectView):
            return view(chance, in_session=issubclass(cls, SessionObject))
        case types.StructType(cls=cls, fields=fields):
            return cls(**{field.name: value_of(field.type, chance) for field in fields})
        case types.UnionType(types=several):
            return value_of(chance.choice(several), chance)
        case types.Metadata(type=inner):
            return value_of(inner, chance)
        case types.EnumType(cls=enum):
            members: list[Enum] = list(enum)
            return chance.choice(members)
        case types.LiteralType(values=values):
            return chance.choice(values)
        case types.ListType(item_type=item):
            return [value_of(item, chance) for _ in range(chance.randrange(3))]
        case types.VarTupleType(item_type=item):
            return tuple(value_of(item, chance) for _ in range(chance.randrange(3)))
        case types.TupleType(item_types=items):
            return tuple(value_of(item, chance) for item in items)
        case types.DictType():
            return {}
        case types.BoolType():
            return chance.random() < 0.5
        case types.IntType():
            return chance.randrange(1, 9)
        case types.FloatType():
            return float(chance.randrange(9))
        case types.StrType():
            return chance.choice(("a", "b", "running"))
        case types.BytesType():
            return chance.randbytes(16)
        case _:
            return None


class Request:
    """A request of `call_each`."""

    def __init__(self, answer: dict[str, Any] | LnhError) -> None:
        self.answer = answer
        self.done = False


class Asked:
    """What was asked, in order, and the answers: the n-th is the same for every cluster of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.asked: list[object] = []
        self.requests: list[Request] = []

    def answer(
        self, operation: Operation[Any, Any], fields: dict[str, Any] | Message, **how: object
    ) -> dict[str, Any] | LnhError:
        said = msgspec.to_builtins(fields, builtin_types=(bytes,))
        if "stream" in said:
            said["stream"] = b"drawn"
        how.pop("seal", None)
        self.asked.append((operation.name, said, how))
        if len(self.asked) > MOST:
            return LimitReached("enough was asked")
        chance = random.Random(f"{self.seed} {len(self.asked)}")
        if chance.random() < 0.15:
            return LnhError.from_wire(chance.choice(_ERRORS).to_wire())
        made = value_of(types.type_info(operation.reply), chance)
        answered: dict[str, Any] = msgspec.to_builtins(made, builtin_types=(bytes,))
        return answered

    def call(
        self, operation: Operation[Any, Any], fields: dict[str, Any] | Message, timeout: float, **how: object
    ) -> dict[str, Any]:
        answer = self.answer(operation, fields, timeout=timeout, **how)
        if isinstance(answer, LnhError):
            raise answer
        return answer

    # --- as a channel

    def submit(
        self, operation: Operation[Any, Any], fields: dict[str, Any] | Message, timeout: float, **how: object
    ) -> Request:
        self.requests.append(Request(self.answer(operation, fields, timeout=timeout, **how)))
        return self.requests[-1]

    def step(self, _: float) -> None:
        self.requests.pop(0).done = True

    def wait(self, request: Request) -> dict[str, Any]:
        while not request.done:
            self.step(0)
        if isinstance(request.answer, LnhError):
            raise request.answer
        return request.answer

    def abandon(self, requests: Sequence[Request]) -> None:
        self.requests = [each for each in self.requests if each not in requests]


class Owner:
    def check(self) -> None:
        pass


class Blocking:
    """A connection of the blocking SDK."""

    cluster = b"c" * 16
    owner = Owner()

    def __init__(self, seed: int) -> None:
        self.to = Asked(seed)

    def call(self, *arguments: Any, **how: Any) -> dict[str, Any]:
        return self.to.call(*arguments, **how)

    def call_with_credential(
        self, operation: Operation[Any, Any], message: Message, timeout: float, *, route: bytes = b""
    ) -> tuple[Message, bytes]:
        answer = self.to.answer(operation, message, timeout=timeout, route=route)
        if isinstance(answer, LnhError):
            raise answer
        return LOGGED_IN, b"s" * 32

    def learn(self, *_: object) -> None:
        pass

    @contextmanager
    def channel(self, _: float) -> Iterator[Asked]:
        yield self.to

    def close(self) -> None:
        self.to.asked.append("close")


class Awaited:
    """A connection of `lnh.aio`: the same, and others have their turn before each answer."""

    cluster = Blocking.cluster
    owner = Blocking.owner

    def __init__(self, seed: int) -> None:
        self.blocking = Blocking(seed)
        self.to = self.blocking.to

    async def call(self, *arguments: Any, **how: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        return self.to.call(*arguments, **how)

    async def call_with_credential(self, *arguments: Any, **how: Any) -> tuple[Message, bytes]:
        await asyncio.sleep(0)
        return self.blocking.call_with_credential(*arguments, **how)

    async def learn(self, *_: object) -> None:
        await asyncio.sleep(0)

    @asynccontextmanager
    async def channel(self, _: float) -> AsyncIterator[AwaitedChannel]:
        yield AwaitedChannel(self.to)

    async def close(self) -> None:
        self.blocking.close()


class AwaitedChannel:
    """A channel whose answers are awaited."""

    def __init__(self, to: Asked) -> None:
        self.to = to
        self.submit = to.submit
        self.abandon = to.abandon

    @property
    def requests(self) -> list[Request]:
        return self.to.requests

    async def step(self, timeout: float) -> None:
        await asyncio.sleep(0)
        self.to.step(timeout)

    async def wait(self, request: Request) -> dict[str, Any]:
        await asyncio.sleep(0)
        return self.to.wait(request)


def subject(sdk: Any, connection: Any, name: str, chance: random.Random) -> Any:
    """An object of one SDK's class of this name, with what it needs.

    Args:
        sdk: `lnh`, or `lnh.aio`.
    """
    session = sdk.KeyringSession(connection, b"s" * 32, LOGGED_IN, route=KEYRING, timeout=5.0)
    administration = sdk.admin.Administration(connection, b"s" * 32, LOGGED_IN, timeout=5.0)
    if name == "KeyringSession":
        return session
    if name == "Administration":
        return administration
    if name == "Backups":
        return administration.backups
    if name == "Keyring":
        return sdk.Keyring(connection, lnh.admin.KeyringView(id=KEYRING, label="payments"), timeout=5.0)
    if name == "Cluster":
        return sdk.Cluster(connection, None, timeout=5.0)
    in_session = chance.random() < 0.3
    classes = {
        "SecretKey": ObjectClass.SECRET_KEY,
        "PrivateKey": ObjectClass.PRIVATE_KEY,
        "PublicKey": ObjectClass.PUBLIC_KEY,
        "Certificate": ObjectClass.CERTIFICATE,
        "DataObject": ObjectClass.DATA,
    }
    return session.adopt(view(chance, classes[name], in_session=in_session))


SUBJECTS: Final = (
    "Cluster",
    "Keyring",
    "KeyringSession",
    "Administration",
    "Backups",
    "SecretKey",
    "PrivateKey",
    "PublicKey",
    "Certificate",
    "DataObject",
)
