"""Puts into the product's words what is wrong with the shape of a value.

`msgspec` checks shapes, and its errors are for the author of the types: "Expected `str` of length >= 1 - at `$.label`".
A user reads "label: at least 1 character" instead. One table has a row for each form of its errors; an error of a form
that no row knows is told without its words.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from lnh_common import text

_TYPES: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "bytes": "bytes",
    "array": "a list",
    "object": "named fields",
    "null": "nothing",
}
_UNITS: Final = {"str": "character", "bytes": "byte", "array": "item", "object": "entry"}
_BOUNDS: Final = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than", "==": "exactly"}


class Problem(NamedTuple):
    """A fault in the shape of a value.

    Args:
        field: where, as "label" or "alternates, item 2, key"; "" for the value as a whole.
        what: what is wrong there, as "at least 1 character".
        is_value: whether the value is of the right kind and only its range or length is wrong, which a user can mend.
    """

    field: str
    what: str
    is_value: bool

    def __str__(self) -> str:
        return f"{self.field}: {self.what}" if self.field else self.what


def problem(error: msgspec.ValidationError, shape: Any = None) -> Problem:
    """Word a validation error.

    Args:
        shape: the type that the value was to be of, where that is known: then the words that a field takes are named.
    """
    words, _, path = str(error).partition(" - at ")
    field = _field(path)
    for pattern, said, is_value in _FORMS:
        found = re.fullmatch(pattern, words, re.DOTALL)
        if found is not None:
            what = said(found)
            if pattern == _NO_SUCH_WORD and (taken := _words_of(shape, field)):
                what = f"{what}: {', '.join(taken)}"
            return Problem(field, what, is_value)
    return Problem(field, "is not what belongs there", is_value=False)


def _words_of(shape: Any, field: str) -> list[str]:
    """List the words that a field takes; empty where it takes others than words, or lies in a list."""
    kind = shape
    for name in field.split(", ") if field else ():
        is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        kind = {each.name: each.type for each in msgspec.structs.fields(kind)}.get(name) if is_struct else None
    if not (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        return []
    return [each.value for each in kind if isinstance(each.value, str)]


def _field(path: str) -> str:
    """Spell `$.alternates[1].key` as "alternates, item 2, key"."""
    steps = re.findall(r"\.([^.\[\]`]+)|\[([0-9]+)\]|\[(\.\.\.)\]", path)
    return ", ".join(name or (f"item {int(number) + 1}" if number else "one of them") for name, number, _ in steps)


def _kinds(found: re.Match[str]) -> str:
    kinds = [_TYPES.get(kind.strip(), kind.strip()) for kind in found[1].split("|")]
    return f"is {' or '.join(kinds)}, not {_TYPES.get(found[2], found[2])}"


def _length(found: re.Match[str]) -> str:
    many = "" if found[3] == "1" else "ies" if found[1] == "object" else "s"
    unit = _UNITS[found[1]]
    return f"{_BOUNDS[found[2]]} {found[3]} {unit[:-1] if many == 'ies' else unit}{many}"


_NO_SUCH_WORD: Final = r"Invalid enum value (.*)"
_FORMS: Final[tuple[tuple[str, Callable[[re.Match[str]], str], bool], ...]] = (
    (r"Expected `([^`]+)`, got `([^`]+)`", _kinds, False),
    (r"Expected `(str|bytes|array|object)` of length (>=|<=|==) ([0-9]+)", _length, True),
    (
        r"Expected `array` of (at least |at most )?length ([0-9]+), got ([0-9]+)",
        lambda found: f"{found[1] or 'exactly '}{found[2]} items, not {found[3]}",
        False,
    ),
    (
        r"Expected `(?:int|float)` (>=|<=|>|<) (\S+)",
        lambda found: f"{_BOUNDS[found[1]]} {found[2]}",
        True,
    ),
    (re.escape(f"Expected `str` matching regex {text.NAME!r}"), lambda _: f"is {text.NAME_WORDS}", True),
    (r"Expected `str` matching regex .*", lambda _: "is not of the form that belongs there", True),
    (r"Object missing required field `([^`]*)`", lambda found: f"{found[1]} is missing", False),
    (r"Object contains unknown field `([^`]*)`", lambda found: f"{found[1]!r} is not known here", False),
    (r"Invalid base64 encoded string", lambda _: "is not base64", True),
    (r"Invalid value (.*)", lambda _: "is none of the values there are", True),
    (_NO_SUCH_WORD, lambda found: f"{found[1]} is none of the values there are", True),
)
