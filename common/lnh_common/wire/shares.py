"""Spells a share of a split secret for paper, and parses it as somebody typed it. docs/formats/shares.md is exact.

    # share 1 of 3, any 2 of which open SET
    AEKR SEZT IAYC AMIB
    ... five such lines: base32 of eight bytes and of two that check them

A line that was mistyped, or two that were exchanged, are named before anything is tried.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from lnh_common import limits
from lnh_common.errors import ArgumentInvalid

SET_BYTES: Final = 4
SHARE_BYTES: Final = 32
MARK_BYTES: Final = 16
_FORMAT: Final = 1
_LABEL: Final = b"lnh-share-1"
_DATA: Final = 8  # bytes a line, before its check
_CHECK: Final = 2
_LINE: Final = 16  # characters
LINES: Final = 5
_GROUP: Final = 4
_ALIKE: Final = str.maketrans("018", "OIB")  # none of these digits is in base32

Set = Annotated[bytes, msgspec.Meta(min_length=SET_BYTES, max_length=SET_BYTES)]
Mark = Annotated[bytes, msgspec.Meta(min_length=MARK_BYTES, max_length=MARK_BYTES)]


class Split(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The public part of a split secret: it stands beside what the secret opens, and says nothing without shares.

    Args:
        set: 4 random bytes, what names the shares.
        threshold, count: how many shares open it, of how many.
        marks: of each share, by which a wrong one is told.
        copies: the secret, sealed once for each `threshold` of the shares, in the order of their numbers.
    """

    set: Set
    threshold: Annotated[int, msgspec.Meta(ge=limits.SHARES_TOGETHER, le=limits.SHARES)]
    count: Annotated[int, msgspec.Meta(ge=limits.SHARES_TOGETHER, le=limits.SHARES)]
    marks: Annotated[tuple[Mark, ...], msgspec.Meta(max_length=limits.SHARES)]
    copies: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=limits.SHARES_COPIES)]


@dataclass(frozen=True)
class Share:
    """One share, of one holder; `index` counts from 1."""

    set: bytes
    threshold: int
    count: int
    index: int
    secret: bytes = field(repr=False)

    def text(self) -> str:
        """Spell the share for paper."""
        data = bytes([_FORMAT, *self.set, self.threshold << 4 | self.count, self.index, 0]) + self.secret
        lines = []
        for number in range(LINES):
            part = data[number * _DATA : (number + 1) * _DATA]
            spelt = base64.b32encode(part + _check(number, part)).decode()
            lines.append(" ".join(spelt[at : at + _GROUP] for at in range(0, _LINE, _GROUP)))
        told = f"# share {self.index} of {self.count}, any {self.threshold} of which open {self.set.hex()}"
        return "\n".join([told, *lines]) + "\n"

    @classmethod
    def parse(cls, text: str) -> Share:
        """Parse a share, in five lines or in one; raises ArgumentInvalid, which names the line that is wrong."""
        rows = [row for row in text.splitlines() if not row.lstrip().startswith("#")]
        spelt = _letters("".join(rows))
        if len(spelt) != LINES * _LINE:
            raise ArgumentInvalid(f"a share has {LINES * _LINE} letters and digits; this has {len(spelt)}")
        data = b"".join(_line(number, spelt[number * _LINE : (number + 1) * _LINE]) for number in range(LINES))
        format_, numbers, index, spare = data[0], data[SET_BYTES + 1], data[SET_BYTES + 2], data[SET_BYTES + 3]
        threshold, count = numbers >> 4, numbers & 0xF
        if format_ != _FORMAT or spare:
            raise ArgumentInvalid(f"a share of format {format_}; this version reads {_FORMAT}")
        if not (limits.SHARES_TOGETHER <= threshold <= count <= limits.SHARES and 1 <= index <= count):
            raise ArgumentInvalid(f"a share that says it is {index} of {count}, any {threshold} of which open")
        return cls(data[1 : SET_BYTES + 1], threshold, count, index, data[_DATA:])


def check_numbers(threshold: int, count: int) -> None:
    """Raise ArgumentInvalid unless a secret can be split so."""
    low, high = limits.SHARES_TOGETHER, limits.SHARES
    if not low <= threshold <= count <= high:
        raise ArgumentInvalid(
            f"{threshold} of {count} shares: at least {low} open it, and there are at most {high}",
            {"advice": "as 2-of-3, or 3-of-5"},
        )


def is_line(text: str) -> bool:
    """Tell whether a text has the length of one line of a share."""
    return len(_letters(text)) == _LINE


def check_line(number: int, text: str) -> None:
    """Raise ArgumentInvalid unless a line, counted from 0, is as it was written."""
    _line(number, _letters(text))


def _letters(text: str) -> str:
    return "".join(text.split()).replace("-", "").upper().translate(_ALIKE)


def _line(number: int, spelt: str) -> bytes:
    try:
        decoded = base64.b32decode(spelt)
    except ValueError:
        decoded = b""
    part = decoded[:_DATA]
    if decoded[_DATA:] != _check(number, part):
        raise ArgumentInvalid(f"line {number + 1} of the share is not as it was written: {_LINE} letters and digits")
    return part


def _check(number: int, part: bytes) -> bytes:
    return hashlib.sha256(_LABEL + bytes([number]) + part).digest()[:_CHECK]
