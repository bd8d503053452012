"""A store that answers falsely: what it serves is genuine, and not what it was asked for.

A `Lie` is told at every look-up of one item, or of one page, while all other answers stay true. So it is what a store
can do that was broken into: it has every record there is, and every record there was, and can make none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from lnh_common.messages.base import Message
from lnh_common.messages.store import Get, Got, Item, Key, Scan, Scanned

Place = tuple[str, bytes, bytes]

_OTHERS: Final = 2  # of one table, that are served instead


@dataclass(frozen=True)
class Lie:
    """What is answered instead.

    Args:
        name: for a test that fails.
        about: the look-ups that it is told at.
        tell: makes it of the true answer.
        leaves_out: the answer is true, but for what is missing in it.
    """

    name: str
    about: Callable[[Message], bool]
    tell: Callable[[Message], Message]
    leaves_out: bool = False


def lies(
    asked: Get | Scan, answer: Message, items: Mapping[Place, Item], before: Mapping[Place, Item]
) -> Iterator[Lie]:
    """Every lie about one look-up.

    Args:
        answer: the true one.
        items: what the store holds.
        before: what it held once.
    """
    if isinstance(asked, Get):
        yield from _about_item(asked, answer, items, before)
    else:
        yield from _about_page(asked, answer, items, before)


def _about_item(
    asked: Get, answer: Message, items: Mapping[Place, Item], before: Mapping[Place, Item]
) -> Iterator[Lie]:
    key = asked.key

    def is_asked(message: Message) -> bool:
        return isinstance(message, Get) and message.key == key

    def lie(name: str, item: Item | None, *, leaves_out: bool = False) -> Lie:
        return Lie(name, is_asked, lambda true: _with(true, item=item), leaves_out)

    for other in _instead_of(key, items):
        item = other if asked.body else msgspec.structs.replace(other, body=b"")
        yield lie(f"{_name(other.key)} for {_name(key)}", item)
    old = before.get((key.table, key.scope, key.id))
    if old is not None and old != items.get((key.table, key.scope, key.id)):
        yield lie(f"an older {_name(key)}", old)
    if isinstance(answer, Got) and answer.item is not None:
        yield lie(f"no {_name(key)}", None, leaves_out=True)


def _about_page(
    asked: Scan, answer: Message, items: Mapping[Place, Item], before: Mapping[Place, Item]
) -> Iterator[Lie]:
    assert isinstance(answer, Scanned), "a page is answered"
    page, what = answer.items, f"{asked.table} {asked.scope.hex()}"
    others = [item for item in items.values() if item not in page]

    def is_asked(message: Message) -> bool:
        return isinstance(message, Scan) and _of(message) == _of(asked)

    def lie(name: str, *served: Item, more: bool = answer.more, leaves_out: bool = False) -> Lie:
        return Lie(f"{name} in {what}", is_asked, lambda true: _with(true, items=served, more=more), leaves_out)

    for other in _instead_of(Key(table=asked.table, scope=asked.scope), {_place(each): each for each in others}):
        yield lie(f"{_name(other.key)} alone", other, leaves_out=True)
        more = sorted((*page, other), key=lambda item: item.key.id)
        yield lie(f"{_name(other.key)} too", *more, leaves_out=True)  # of what is then on the next page
        if page:
            yield lie(f"{_name(other.key)} instead", other, *page[1:], leaves_out=True)
    yield lie("more, and none", more=True)
    if page:
        yield lie("the first twice", page[0], *page)
        yield lie("the same again and again", *page, more=True, leaves_out=True)
        yield lie("nothing", leaves_out=True)
        yield lie("all but the first", *page[1:], leaves_out=True)
    if len(page) > 1:
        yield lie("another order", *reversed(page))
    for item in page:
        old = before.get(_place(item))
        if old is not None and old != item:
            yield lie(f"an older {_name(item.key)}", *(old if each is item else each for each in page))


def _instead_of(key: Key, items: Mapping[Place, Item]) -> Iterator[Item]:
    """Some of what could be served for an item, or in a page, of this place."""
    alike = [item for item in items.values() if (item.key.table, item.key.scope) == (key.table, key.scope)]
    yield from [item for item in alike if item.key.id != key.id][:_OTHERS]
    elsewhere = [item for item in items.values() if item.key.table == key.table and item.key.scope != key.scope]
    yield from elsewhere[:_OTHERS]
    yield from [item for item in items.values() if item.key.table != key.table][:2]


def _of(scan: Scan) -> tuple[str, bytes, tuple[bytes, ...]]:
    return scan.table, scan.scope, scan.tags


def _place(item: Item) -> Place:
    return item.key.table, item.key.scope, item.key.id


def _with(true: Message, **fields: object) -> Message:
    return msgspec.structs.replace(true, **fields)


def _name(key: Key) -> str:
    return f"{key.table} {key.id.hex()[:8]}"
