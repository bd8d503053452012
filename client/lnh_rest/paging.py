"""Cuts a whole list into pages, each with a cursor that leads to the next. Pure.

The list is in the order of its keys, and a cursor is the last key of a page: what is added or removed between two pages
moves nothing else.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import TypeVar

from lnh_common.errors import ArgumentInvalid
from lnh_rest.problems import Refused

T = TypeVar("T")


def page(items: Iterable[T], key: Callable[[T], str], cursor: str, limit: int) -> tuple[list[T], str, int]:
    """Return a page, the cursor of the next one (empty where it is the last), and how many there are in all.

    Raises Refused (422) for a cursor that was never given.
    """
    after = decode(cursor) if cursor else None
    ordered = sorted(items, key=key)
    rest = [each for each in ordered if after is None or key(each) > after]
    found = rest[:limit]
    more = len(rest) > len(found)
    return found, encode(key(found[-1])) if more else "", len(ordered)


def encode(key: str) -> str:
    """Make the cursor of a key."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def decode(cursor: str) -> str:
    """Read the key of a cursor; raises Refused (422) for one that was never given."""
    try:
        key = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        key = ""
    if not key or encode(key) != cursor:
        raise no_cursor()
    return key


def no_cursor() -> Refused:
    """Make the refusal of a cursor that was never given."""
    error = ArgumentInvalid("cursor: is none that a page gave", {"advice": "take `next` of a page as it is"})
    return Refused(error, 422)
