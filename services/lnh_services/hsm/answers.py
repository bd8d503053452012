"""Compares each answer of a store with its question, and refuses another item, however genuine.

A seal says what an item is, not that it is the one that was wanted: a store could answer a question for one user with
the record of another, whose seal is as good. So every item that the HSM gets comes through here, and is compared with
the question before anything of it is believed; a page has to go on behind where it was asked to, in order and without
an end that never comes. Items that are left out of an answer nobody can see: the threat model says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol, TypeVar

from lnh_common.errors import SealBroken
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.store import (
    GET,
    GET_EACH,
    SCAN,
    SCOPES,
    Get,
    Gets,
    Got,
    Item,
    Key,
    ListScopes,
    Scan,
    Scanned,
    Scopes,
)
from lnh_services.hsm.effects import Peer, Steps, ask

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class Asks(Protocol):
    """The asking end of the bus, as `bus.client.Client` is."""

    async def ask(self, operation: Operation[Q, R], message: Q, *, timeout: float) -> R:
        """Ask, and wait for the answer for `timeout` seconds; raises what the peer answered."""


def checked_item(asked: Get, got: Got) -> Item | None:
    """Return the item of an answer; raises SealBroken when another one was asked for."""
    if got.item is not None and got.item.key != asked.key:
        raise SealBroken(f"the store was asked for {_name(asked.key)} and served {_name(got.item.key)}")
    return got.item


def checked_page(asked: Scan, page: Scanned) -> Scanned:
    """Return the page as it came; raises SealBroken when its items are of another scope, out of order, or too many."""
    last = asked.after
    for item in page.items:
        key = item.key
        if (key.table, key.scope) != (asked.table, asked.scope):
            raise SealBroken(f"the store was asked for items of {asked.table} and served {_name(key)}")
        if key.id <= last:
            raise SealBroken(f"the store served {_name(key)} twice or out of order")
        last = key.id
    if len(page.items) > asked.limit:
        raise SealBroken(f"the store was asked for {asked.limit} items of {asked.table} and served {len(page.items)}")
    if page.more and not page.items:
        raise SealBroken(f"the store says that there are more items of {asked.table}, and serves none")
    return page


def checked_scopes(asked: ListScopes, page: Scopes) -> Scopes:
    """Return the page as it came; raises SealBroken when its scopes are out of order, or too many."""
    before = (asked.after,) if asked.after is not None else ()
    listed = (*before, *page.scopes)
    if any(one >= other for one, other in itertools.pairwise(listed)) or len(page.scopes) > asked.limit:
        raise SealBroken(f"the store served scopes of {asked.table} out of order, or too many")
    if page.more and not page.scopes:
        raise SealBroken(f"the store says that there are more scopes of {asked.table}, and serves none")
    return page


def get(key: Key, *, body: bool = True) -> Steps[tuple[Item | None, bool]]:
    """Ask, as a worker, for an item, or None, and whether the answer is current. Raises SealBroken."""
    asked = Get(key=key, body=body)
    got = yield from ask(Peer.STORE, GET, asked)
    return checked_item(asked, got), got.current


def get_each(keys: Sequence[Key]) -> Steps[list[tuple[Item | None, bool]]]:
    """Ask for several items at once, each answered as by `get`; raises SealBroken."""
    asked = Gets(gets=tuple(Get(key=key) for key in keys))
    gots = (yield from ask(Peer.STORE, GET_EACH, asked)).gots
    if len(gots) != len(keys):
        raise SealBroken(f"the store was asked for {len(keys)} items and served {len(gots)}")
    return [(checked_item(get, got), got.current) for get, got in zip(asked.gets, gots, strict=True)]


def scan(asked: Scan) -> Steps[Scanned]:
    """Ask, as a worker, for a page; raises SealBroken."""
    return checked_page(asked, (yield from ask(Peer.STORE, SCAN, asked)))


async def fetch(store: Asks, key: Key, timeout: float, *, body: bool = True) -> Item | None:
    """Ask, as the core, for an item, or None. Raises SealBroken, and what the store answers."""
    asked = Get(key=key, body=body)
    return checked_item(asked, await store.ask(GET, asked, timeout=timeout))


async def fetch_page(store: Asks, asked: Scan, timeout: float) -> Scanned:
    """Ask, as the core, for a page; raises SealBroken, and what the store answers."""
    return checked_page(asked, await store.ask(SCAN, asked, timeout=timeout))


async def fetch_scopes(store: Asks, asked: ListScopes, timeout: float) -> Scopes:
    """Ask, as the core, for a page of scopes; raises SealBroken, and what the store answers."""
    return checked_scopes(asked, await store.ask(SCOPES, asked, timeout=timeout))


def scopes(asked: ListScopes) -> Steps[Scopes]:
    """Ask, as a worker, for a page of scopes; raises SealBroken."""
    return checked_scopes(asked, (yield from ask(Peer.STORE, SCOPES, asked)))


def _name(key: Key) -> str:
    return f"{key.table} {key.id.hex()}" + (f" of {key.scope.hex()}" if key.scope else "")
