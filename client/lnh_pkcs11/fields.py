"""Reads the fields of requests, and writes those of replies, as `calls.py` and `layouts.py` say. Pure.

What comes from a client is bounded before it is believed: counts by the bytes that are there, nesting by
`layouts.DEPTH`. A body that does not read as its letters say raises Refused, with ARGUMENTS_BAD.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

from lnh_common import limits
from lnh_pkcs11 import layouts
from lnh_pkcs11.layouts import Field, FieldKind, Layout, ValueKind
from lnh_pkcs11.numbers import CKR, MECHANISMS
from lnh_pkcs11.refusals import Refused
from lnh_pkcs11.ways import BARE, Way

_NULL: Final = 0xFFFF_FFFF
_ULONG: Final = 8
_ATTRIBUTE: Final = 24  # sizeof(CK_ATTRIBUTE) where a CK_ULONG has 8 bytes

Parameters: TypeAlias = "dict[str, Any]"


class Malformed(Refused):
    """A request does not read as its letters say."""

    def __init__(self, why: str) -> None:
        super().__init__(CKR.ARGUMENTS_BAD, why)


class Given(NamedTuple):
    """A mechanism that was given.

    Args:
        type: CKM_.
        parameters: by the names of its struct's members; None for none.
        layout: the number of the struct; `layouts.RAW` for one of another size.
    """

    type: int
    parameters: Parameters | None = None
    layout: int = 0


class Attribute(NamedTuple):
    """An attribute that was given, or is answered.

    Args:
        type: CKA_.
        value: by the kind of its value: bytes, a number, numbers or attributes; None where there is none to be had.
    """

    type: int
    value: bytes | int | list[int] | list[Attribute] | None


class Room(NamedTuple):
    """Room for one attribute.

    Args:
        size: bytes; 0 asks for the length.
        within: room for each attribute of a template.
    """

    type: int
    size: int
    within: tuple[Room, ...] = ()


class Short(NamedTuple):
    """A reply for which there is no room, or that was only asked for its length."""

    length: int


@dataclass
class Reader:
    """Reads a body from its beginning to its end."""

    data: bytes
    way: Way
    at: int = 0

    def take(self, length: int) -> bytes:
        """Read so many bytes."""
        end = self.at + length
        taken = self.data[self.at : end]
        if len(taken) != length:
            raise Malformed(f"{length} bytes wanted, {len(taken)} are there")
        self.at = end
        return taken

    def number(self, size: int) -> int:
        """Read a number of so many bytes."""
        end = self.at + size
        taken = self.data[self.at : end]
        if len(taken) != size:
            raise Malformed(f"{size} bytes wanted, {len(taken)} are there")
        self.at = end
        return int.from_bytes(taken, "big")

    def text(self) -> bytes | None:
        """Read a length and its bytes; None for NULL."""
        length = self.number(4)
        return None if length == _NULL else self.take(length)

    def count(self, each: int, most: int = limits.TEMPLATE_ATTRIBUTES) -> int:
        """Read a count of things of at least so many bytes each."""
        count = self.number(4)
        if count > most or count * each > len(self.data) - self.at:
            raise Malformed(f"a count of {count}")
        return count

    def done(self) -> None:
        """Check that nothing is left."""
        if self.at != len(self.data):
            raise Malformed(f"{len(self.data) - self.at} bytes behind the last field")


# --- what is read


def _ulong(reader: Reader) -> int:
    return reader.number(_ULONG)


def _byte(reader: Reader) -> int:
    return reader.number(1)


def _bytes(reader: Reader) -> bytes | None:
    """Read bytes; None where the application gave NULL."""
    if reader.number(1):
        return reader.text()
    reader.number(4)
    return None


def _room(reader: Reader) -> int | None:
    """Read the room of a buffer; None asks for the length alone."""
    room = reader.number(4)
    return None if room == 0 else 0 if room == _NULL else room


def _attributes(reader: Reader, depth: int = 0) -> list[Attribute]:
    if depth >= layouts.DEPTH:
        raise Malformed("templates within templates, too deep")
    return [_attribute(reader, depth) for _ in range(reader.count(5))]


def _attribute(reader: Reader, depth: int) -> Attribute:
    number = reader.number(4)
    if not reader.number(1):
        return Attribute(number, None)
    length = reader.number(4)
    kind = layouts.VALUE_KINDS.get(number, ValueKind.BYTES)
    value, actual = _VALUES[kind](reader, depth)
    if kind is ValueKind.TEMPLATE or actual == length:
        return Attribute(number, value)
    return Attribute(number, b"" if length == 0 else None)


def _one_byte(reader: Reader, depth: int) -> tuple[int, int]:
    return reader.number(1), 1


def _one_ulong(reader: Reader, depth: int) -> tuple[int, int]:
    return reader.number(_ULONG), _ULONG


def _some_bytes(reader: Reader, depth: int) -> tuple[bytes, int]:
    value = reader.text() or b""
    return value, len(value)


def _numbers(reader: Reader, depth: int) -> tuple[list[int], int]:
    numbers = [reader.number(_ULONG) for _ in range(reader.count(_ULONG, limits.KIB))]
    return numbers, _ULONG * len(numbers)


def _template(reader: Reader, depth: int) -> tuple[list[Attribute], int]:
    within = _attributes(reader, depth + 1)
    return within, _ATTRIBUTE * len(within)


_VALUES: Final[dict[ValueKind, Callable[[Reader, int], tuple[Any, int]]]] = {
    ValueKind.BYTES: _some_bytes,
    ValueKind.BYTE: _one_byte,
    ValueKind.ULONG: _one_ulong,
    ValueKind.DATE: _some_bytes,
    ValueKind.MECHANISMS: _numbers,
    ValueKind.TEMPLATE: _template,
}


def _rooms(reader: Reader, depth: int = 0) -> tuple[Room, ...]:
    if depth >= layouts.DEPTH:
        raise Malformed("templates within templates, too deep")
    rooms = []
    for _ in range(reader.count(8)):
        number, size = reader.number(4), reader.number(4)
        nests = number in layouts.TEMPLATES and size and reader.way is not Way.P11_KIT_0
        rooms.append(Room(number, size, _rooms(reader, depth + 1) if nests else ()))
    return tuple(rooms)


def _mechanism(reader: Reader) -> Given | None:
    number = reader.number(4)
    if number == layouts.NO_MECHANISM:
        return None
    known = MECHANISMS.get(number)
    if reader.way.own:
        return _with_form(reader, number, layouts.LAYOUTS.get(known, ()) if known else ())
    if known is None or not reader.way.passes(known):
        raise Refused(CKR.MECHANISM_INVALID, f"mechanism {number:#x} does not come this way")
    if known in BARE:
        if reader.way is not Way.P11_KIT_2 and reader.text() is not None:
            raise Malformed("parameters of a mechanism that has none")
        return Given(number)
    first = layouts.LAYOUTS[known][0]
    if reader.way is Way.P11_KIT_2 and not reader.number(1):
        return Given(number)
    return Given(number, _struct(reader, first), 1)


def _with_form(reader: Reader, number: int, mine: Sequence[Layout]) -> Given:
    form = reader.number(1)
    if form == 0:
        return Given(number)
    if form == layouts.RAW:
        reader.text()
        return Given(number, {}, layouts.RAW)
    if form > len(mine):
        raise Malformed(f"parameters of form {form}")
    return Given(number, _struct(reader, mine[form - 1]), form)


def _message(reader: Reader) -> Given:
    """Read the parameters of a message; the type is 0."""
    return _with_form(reader, 0, layouts.MESSAGE_LAYOUTS)


def _struct(reader: Reader, layout: Layout, depth: int = 0) -> Parameters:
    if depth >= layouts.DEPTH:
        raise Malformed("structs within structs, too deep")
    return {each.name: _member(reader, each, depth) for each in layout.fields}


def _member(reader: Reader, member: Field, depth: int) -> Any:
    if member.kind is FieldKind.ULONG:
        return reader.number(_ULONG)
    if member.kind is FieldKind.BOOL:
        return reader.number(1) != 0
    if member.kind is FieldKind.STRUCT:
        assert member.layout is not None, "a struct has a layout"
        return _struct(reader, member.layout, depth + 1) if reader.number(1) else None
    if member.kind is FieldKind.ARRAY:
        assert member.layout is not None, "an array has a layout"
        inner = member.layout
        return [_struct(reader, inner, depth + 1) for _ in range(reader.count(1))]
    value = reader.text()
    if member.kind is FieldKind.INLINE and (value is None or len(value) != member.size):
        raise Malformed(f"{member.name} has {member.size} bytes")
    if member.kind is FieldKind.FIXED and value is not None and len(value) != member.size:
        raise Malformed(f"{member.name} points to {member.size} bytes")
    return value or b""


_READERS: Final[dict[str, Callable[[Reader], Any]]] = {
    "u": _ulong,
    "y": _byte,
    "s": Reader.text,
    "z": Reader.text,
    "ay": _bytes,
    "fy": _room,
    "fu": _room,
    "aA": _attributes,
    "fA": _rooms,
    "M": _mechanism,
    "P": _message,
}
_LETTERS: Final = re.compile(r"ay|au|aA|fy|fu|fA|[uysvzMP]")


@cache
def split(letters: str) -> tuple[str, ...]:
    """Split letters into fields."""
    return tuple(_LETTERS.findall(letters))


@cache
def _readers(letters: str) -> tuple[Callable[[Reader], Any], ...]:
    return tuple(_READERS[each] for each in split(letters))


def read(letters: str, data: bytes, way: Way, at: int = 0) -> list[Any]:
    """Read all fields of a request; raises Refused."""
    reader = Reader(data, way, at)
    values = [each(reader) for each in _readers(letters)]
    reader.done()
    return values


# --- what is written


@dataclass
class Writer:
    """Writes a body."""

    way: Way
    parts: list[bytes] = field(default_factory=list)

    def number(self, size: int, value: int) -> None:
        """Write a number of so many bytes."""
        self.parts.append(value.to_bytes(size, "big"))

    def text(self, value: bytes | None) -> None:
        """Write a length and its bytes; NULL for None."""
        self.number(4, _NULL if value is None else len(value))
        self.parts.append(value or b"")


def _write_ulong(writer: Writer, value: int) -> None:
    writer.number(_ULONG, value)


def _write_byte(writer: Writer, value: int) -> None:
    writer.number(1, value)


def _write_version(writer: Writer, value: tuple[int, int]) -> None:
    writer.parts.append(bytes(value))


def _write_bytes(writer: Writer, value: bytes | Short) -> None:
    if isinstance(value, Short):
        writer.number(1, 0)
        writer.number(4, value.length)
        return
    writer.number(1, 1)
    writer.text(value)


def _write_numbers(writer: Writer, value: Sequence[int] | Short) -> None:
    if isinstance(value, Short):
        writer.number(1, 0)
        writer.number(4, value.length)
        return
    writer.number(1, 1)
    writer.number(4, len(value))
    for each in value:
        writer.number(_ULONG, each)


def _write_attributes(writer: Writer, value: Sequence[Attribute]) -> None:
    writer.number(4, len(value))
    for each in value:
        writer.number(4, each.type)
        writer.number(1, 0 if each.value is None else 1)
        if each.value is not None:
            _write_value(writer, layouts.VALUE_KINDS.get(each.type, ValueKind.BYTES), each.value)


def length_of(attribute: Attribute) -> int:
    """Compute the ulValueLen of an attribute that has a value."""
    kind, value = layouts.VALUE_KINDS.get(attribute.type, ValueKind.BYTES), attribute.value
    if kind is ValueKind.BYTE or value is None:
        return 1
    if kind is ValueKind.ULONG:
        return _ULONG
    assert not isinstance(value, int), "the kind says so"
    return len(value) * {ValueKind.MECHANISMS: _ULONG, ValueKind.TEMPLATE: _ATTRIBUTE}.get(kind, 1)


def _write_value(writer: Writer, kind: ValueKind, value: Any) -> None:
    if kind is ValueKind.BYTE:
        writer.number(4, 1)
        writer.number(1, value)
    elif kind is ValueKind.ULONG:
        writer.number(4, _ULONG)
        writer.number(_ULONG, value)
    elif kind is ValueKind.MECHANISMS:
        writer.number(4, _ULONG * len(value))
        writer.number(4, len(value))
        for each in value:
            writer.number(_ULONG, each)
    elif kind is ValueKind.TEMPLATE:
        writer.number(4, _ATTRIBUTE * len(value))
        _write_attributes(writer, value)
    else:
        writer.number(4, len(value))
        writer.text(value)


def _write_message(writer: Writer, value: Given) -> None:
    """Write parameters of a message as they came, with what comes back in place."""
    writer.number(1, value.layout)
    if not value.layout:
        return
    for each in layouts.MESSAGE_LAYOUTS[value.layout - 1].fields:
        assert value.parameters is not None, "a struct has members"
        if each.kind is FieldKind.ULONG:
            writer.number(_ULONG, value.parameters[each.name])
        else:
            writer.text(value.parameters[each.name])


_WRITERS: Final[dict[str, Callable[[Writer, Any], None]]] = {
    "u": _write_ulong,
    "y": _write_byte,
    "v": _write_version,
    "s": Writer.text,
    "ay": _write_bytes,
    "au": _write_numbers,
    "aA": _write_attributes,
    "P": _write_message,
}


def write(letters: str, values: Sequence[Any], way: Way) -> bytes:
    """Write all fields of a reply."""
    writer = Writer(way)
    for write_one, value in zip(_writers(letters), values, strict=True):
        write_one(writer, value)
    return b"".join(writer.parts)


@cache
def _writers(letters: str) -> tuple[Callable[[Writer, Any], None], ...]:
    return tuple(_WRITERS[each] for each in split(letters))
