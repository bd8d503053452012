"""The base of the service's JSON, and how answers become JSON."""

from __future__ import annotations

import base64
import enum
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from typing_extensions import dataclass_transform

from lnh_common.messages.base import Message
from lnh_common.text import json_text

_TOLD_APART: Final = frozenset({"behind", "skipped"})  # of a listing: its page tells


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The fields of a JSON object; an unknown one is refused."""


class Secretive(Body):
    """A JSON object with a secret in it: its `repr` shows nothing."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(redacted)"


class Octets:
    """Names a body or an answer that is bytes as they are, however many, and no JSON."""


@dataclass(frozen=True)
class Stream:
    """An answer that is bytes as they are.

    Args:
        parts: of the answer; an error on the way cuts it off, so that nobody takes it for whole.
        length: of all of them; None where nobody knows it yet.
        tag: the ETag, without quotes; empty for none.
        name: of a file to save it as; empty for none.
        begin: of a part of something longer: the place of its first byte.
    """

    parts: AsyncIterator[bytes]
    length: int | None = None
    tag: str = ""
    name: str = ""
    begin: int = 0


@dataclass(frozen=True)
class Text:
    """An answer that is text, of the route's media type."""

    text: str


def encode(answer: Body | Message) -> bytes:
    """Encode an answer as JSON: bytes of the service's own fields as base64, those of a view as hexadecimal."""
    return json_text(plain(answer)).encode()


def plain(value: Any, *, data: bool = False) -> Any:
    """Turn a value into one that JSON has.

    Args:
        data: whether bytes are data, and so base64.
    """
    if isinstance(value, bytes):
        return base64.b64encode(value).decode() if data else value.hex()
    if isinstance(value, Body):
        return {each: plain(getattr(value, each), data=True) for each in value.__struct_fields__}
    if isinstance(value, msgspec.Struct):
        return {each: plain(getattr(value, each)) for each in value.__struct_fields__ if each not in _TOLD_APART}
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(name): plain(each, data=data) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each, data=data) for each in value]
    return value
