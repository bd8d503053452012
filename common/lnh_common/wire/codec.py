"""CBOR in and out, strictly: what came from outside is decoded here and nowhere else.

`cbor2` parses with every liberty switched off (size first, then depth, no tags, no duplicate keys,
no indefinite lengths; RFC 8949), `msgspec.convert` checks the shape. After that the type is trusted.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable
from functools import cache
from types import UnionType
from typing import Any, Final, NoReturn, TypeVar

import cbor2
import msgspec

from lnh_common import limits, shapes
from lnh_common.errors import MalformedMessage

T = TypeVar("T")

_BYTES: Final = (bytes,)


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("a CBOR tag")


# Every tag cbor2 would decode by itself; an unknown one goes to `tag_hook`.
_KNOWN_TAGS: Final = (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
_NO_TAGS: Final = dict.fromkeys(_KNOWN_TAGS, _refuse_tag)


# cbor2.loads ignores what follows the item. Parsed as the first of a pair, an item that is followed by
# anything but our end mark is noticed; the mark is random, so that no sender can supply it.
_PAIR: Final = b"\x82"
_END: Final = secrets.token_bytes(16)
_END_ITEM: Final = b"\x50" + _END


def encode(value: object) -> bytes:
    """Encode plain values or a message as one canonical CBOR item (RFC 8949, 4.2.1)."""
    if hasattr(value, "__struct_fields__"):  # a Struct, told quicker than by isinstance
        value = msgspec.to_builtins(value, builtin_types=_BYTES)
    return cbor2.dumps(value)


def decode(data: bytes, limit: int = limits.BODY_BYTES) -> Any:
    """Parse one CBOR item of at most `limit` bytes.

    Raises MalformedMessage for anything that is not exactly one plain item.
    """
    if len(data) > limit:
        raise MalformedMessage(f"{len(data)} bytes; at most {limit}")
    try:
        item, end = cbor2.loads(
            _PAIR + data + _END_ITEM,
            tag_hook=_refuse_tag,
            semantic_decoders=_NO_TAGS,
            max_depth=limits.DECODE_DEPTH + 1,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
    except (cbor2.CBORDecodeError, ValueError, TypeError, RecursionError, OverflowError, MemoryError) as error:
        raise MalformedMessage("not valid CBOR") from error
    if end != _END:
        raise MalformedMessage("bytes after the CBOR item")
    return item


def convert(value: Any, kind: type[T]) -> T:
    """Check a decoded value against a message type.

    Raises MalformedMessage naming the field, never the value.
    """
    try:
        if isinstance(kind, UnionType):
            return _one_of(value, kind)
        return msgspec.convert(value, kind, builtin_types=_BYTES)
    except msgspec.ValidationError as error:
        problem = shapes.problem(error)
        raise MalformedMessage(
            str(problem), {"advice": f"correct {problem.field or 'the value'}"} if problem.is_value else None
        ) from None


def _one_of(value: Any, kind: UnionType) -> Any:
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert((value,), _around(kind), builtin_types=_BYTES).value
    return msgspec.convert(value, kind, builtin_types=_BYTES)  # and raise the error that names the place in the value


@cache
def _around(kind: UnionType) -> Any:
    """Make a struct around one of several types: msgspec keeps what checks a struct, and builds a union's each time."""
    return msgspec.defstruct("Around", [("value", kind)], array_like=True)


def prepare(kinds: Iterable[type[Any]]) -> None:
    """Build now what checks values against these message types, which else the first value of each would wait for."""
    for kind in kinds:
        with contextlib.suppress(msgspec.ValidationError):
            msgspec.convert({}, kind, builtin_types=_BYTES)


def decode_as(data: bytes, kind: type[T], limit: int = limits.BODY_BYTES) -> T:
    """Parse one CBOR item, and check it against a message type, as `decode` and `convert` do."""
    return convert(decode(data, limit), kind)
