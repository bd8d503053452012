"""What is answered where a buffer was given, or only its length asked for (PKCS#11 v3.1, 5.2)."""

from __future__ import annotations

from collections.abc import Sequence

from lnh_pkcs11.fields import Short


def fit(data: bytes, room: int | None) -> bytes | Short:
    """Return bytes, or their length where they do not fit or only that was asked for.

    An empty result is given in any case: p11-kit before 0.25 asks for nothing's length as it asks for nothing.
    """
    return Short(len(data)) if is_short(len(data), room) else data


def fit_numbers(numbers: Sequence[int], room: int | None) -> Sequence[int] | Short:
    """Return numbers, or their count, likewise."""
    return Short(len(numbers)) if is_short(len(numbers), room) else numbers


def is_short(length: int, room: int | None) -> bool:
    """Tell whether a result of this length is not given."""
    return length > 0 if room is None else length > room
