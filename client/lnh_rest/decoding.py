"""Decodes what comes in: JSON bodies, queries and paths. Pure.

JSON is read strictly: UTF-8, no name twice in an object, no NaN, at most 16 deep, no halves of surrogate pairs. What is
wrong is told in the product's words, never in a decoder's.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from lnh_common import limits, shapes
from lnh_common.errors import ArgumentInvalid, MalformedMessage, NameUnknown
from lnh_rest.schemas import LARGEST

T = TypeVar("T")

_EXACT: Final = 1 << 53  # up to which a float holds every integer


class _TwiceError(ValueError):
    """An object has a name twice."""


def body(data: bytes, kind: Any) -> Any:
    """Decode a JSON body into its type; raises MalformedMessage, ArgumentInvalid."""
    return _converted(_json(data), kind, strict=True)


def query(data: bytes, kind: type[T]) -> T:
    """Decode a query string into its type; raises ArgumentInvalid."""
    try:
        text = data.decode("ascii")
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=bool(text),
            errors="strict",
            max_num_fields=limits.REST_QUERY_FIELDS,
        )
    except ValueError:  # of which UnicodeDecodeError is one
        raise ArgumentInvalid("the query is not NAME=VALUE pairs in UTF-8, percent-encoded") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise ArgumentInvalid("the query names a field twice")
    found: T = _converted(given, kind, strict=False)
    return found


def segments(raw_path: bytes) -> list[str]:
    """Split a path at its slashes and decode each part; an encoded slash stays within its part.

    Raises NameUnknown for what is no UTF-8.
    """
    try:
        return [unquote_to_bytes(part).decode() for part in raw_path.removeprefix(b"/").split(b"/")]
    except UnicodeDecodeError:
        raise NameUnknown("no such path", {"advice": "percent-encode UTF-8"}) from None


def _json(data: bytes) -> Any:
    try:
        value = json.loads(data.decode(), object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)
        _check(value, limits.DECODE_DEPTH)
    except _TwiceError as error:
        raise MalformedMessage(str(error), {"advice": "give each name once"}) from None
    except (ValueError, RecursionError):  # of which UnicodeDecodeError and JSONDecodeError are two
        raise MalformedMessage("the body is not JSON in UTF-8", {"advice": "send JSON (RFC 8259)"}) from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _TwiceError("the body has a name twice in one object")
        found[name] = value
    return found


def _constant(_: str) -> NoReturn:
    raise ValueError


def _number(text: str) -> float:
    """Read a number with a fraction or an exponent; JSON Schema takes 35.0 for an integer."""
    found = float(text)
    return int(found) if found.is_integer() and abs(found) <= _EXACT else found


def _check(value: Any, deep: int) -> None:
    """Raise ValueError for what is too deep, and for text that is no Unicode; ArgumentInvalid for a huge number."""
    if isinstance(value, str):
        value.encode()
        return
    if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
        raise ArgumentInvalid(f"the body has a number beyond {LARGEST}", _MEND)
    if isinstance(value, dict | list):
        if not deep:
            raise ValueError
        for each in value:
            _check(each, deep - 1)
        if isinstance(value, dict):
            for each in value.values():
                _check(each, deep - 1)


def _converted(value: Any, kind: Any, *, strict: bool) -> Any:
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise ArgumentInvalid(str(shapes.problem(error)), _MEND) from None


_MEND: Final[dict[str, Any]] = {"advice": "correct the field that the message names; /v1/openapi.json has all fields"}
