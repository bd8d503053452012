"""The checker of histories, on known ones."""

from __future__ import annotations

import pytest

from lnh_common.errors import ObjectUnknown, VersionConflict
from lnh_common.messages.store import Change, Delete, DeleteScope, Key, Put, Require
from models.linearizability import UNKNOWN, Operation, check
from models.versioned_items import Saw, VersionedItems, Wrote

X, Y = (Key(table="t", scope=b"s", id=bytes([n])) for n in (1, 2))
SCOPE = Key(table="t", scope=b"s")


def put(call: float, end: float, expected: int, head: bytes, key: Key = X, result: object = True) -> Operation:
    return wrote(call, end, Put(key=key, expected=expected, head=head), result=result)


def wrote(call: float, end: float, *changes: Change, result: object = True) -> Operation:
    return Operation(call, end, Wrote(changes), result)


def saw(call: float, end: float, **values: tuple[int, bytes]) -> Operation:
    """A read of X, Y or both: None where there was nothing."""
    keys = {"x": X, "y": Y}
    found = {keys[name]: value for name, value in values.items() if value is not None}
    return Operation(call, end, Saw(keys[name] for name in values), found)


NOTHING: tuple[int, bytes] = None  # type: ignore[assignment]
ONE, TWO = (1, b"1"), (2, b"2")

LINEARIZABLE = {
    "nothing happened": [],
    "a read after its write": [put(0, 1, 0, b"1"), saw(2, 3, x=ONE)],
    "a read during the write sees the old value": [put(0, 5, 0, b"1"), saw(2, 3, x=NOTHING), saw(6, 7, x=ONE)],
    "a read during the write sees the new value": [put(0, 5, 0, b"1"), saw(2, 3, x=ONE), saw(6, 7, x=ONE)],
    "equal moments overlap": [put(0, 1, 0, b"1"), saw(1, 2, x=NOTHING)],
    "of two at once the second is refused": [
        put(0, 9, 0, b"1"), put(0, 9, 0, b"2", result=VersionConflict), saw(10, 11, x=ONE),
    ],
    "an unknown write took effect": [put(0, UNKNOWN, 0, b"1"), saw(2, 3, x=ONE)],
    "an unknown write took effect late": [put(0, UNKNOWN, 0, b"1"), saw(2, 3, x=NOTHING), saw(4, 5, x=ONE)],
    "an unknown write never took effect": [put(0, UNKNOWN, 0, b"1"), put(2, 3, 0, b"2"), saw(4, 5, x=(1, b"2"))],
    "a deletion": [put(0, 1, 0, b"1"), wrote(2, 3, Delete(key=X)), saw(4, 5, x=NOTHING), put(6, 7, 0, b"2")],
    "a deletion of nothing": [wrote(2, 3, Delete(key=X), result=ObjectUnknown)],
    "a whole scope": [put(0, 1, 0, b"1"), put(0, 1, 0, b"1", key=Y), wrote(2, 3, DeleteScope(key=SCOPE)), saw(4, 5, x=NOTHING, y=NOTHING)],
    "two keys at once": [
        wrote(0, 5, Put(key=X, expected=0, head=b"1"), Put(key=Y, expected=0, head=b"1")),
        saw(1, 2, x=NOTHING), saw(3, 4, y=ONE), saw(3, 4, x=ONE, y=ONE),
    ],
    "a requirement that holds": [put(0, 1, 0, b"1"), wrote(2, 3, Require(key=X, version=1), Put(key=Y, expected=0, head=b"2"))],
}  # fmt: skip

NOT_LINEARIZABLE = {
    "a read before the write": [saw(0, 1, x=ONE), put(2, 3, 0, b"1")],
    "a stale read": [put(0, 1, 0, b"1"), saw(2, 3, x=NOTHING)],
    "a read that goes back": [put(0, 9, 0, b"1"), saw(1, 2, x=ONE), saw(3, 4, x=NOTHING)],
    "two that both succeed": [put(0, 9, 0, b"1"), put(0, 9, 0, b"2")],
    "a lost write": [put(0, 1, 0, b"1"), put(2, 3, 0, b"2")],
    "a refusal without reason": [put(0, 1, 0, b"1", result=VersionConflict), saw(2, 3, x=NOTHING)],
    "an unknown write took effect and did not": [
        put(0, UNKNOWN, 0, b"1"), saw(2, 3, x=ONE), saw(4, 5, x=NOTHING),
    ],
    "an unknown write before its call": [saw(0, 1, x=ONE), put(2, UNKNOWN, 0, b"1")],
    "half of a commit": [
        wrote(0, 5, Put(key=X, expected=0, head=b"1"), Put(key=Y, expected=0, head=b"1")),
        saw(1, 2, x=ONE), saw(3, 4, y=NOTHING),
    ],
    "two orders at once": [
        put(0, 9, 0, b"1"), put(0, 9, 0, b"1", key=Y), saw(1, 2, x=ONE), saw(3, 4, x=ONE, y=NOTHING),
        saw(1, 2, y=ONE),
    ],
    "a requirement that did not hold": [wrote(2, 3, Require(key=X, version=1), Put(key=Y, expected=0, head=b"2"))],
}  # fmt: skip


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_linearizable_histories_are_accepted(name: str) -> None:
    assert check(LINEARIZABLE[name], VersionedItems([X, Y])) is None


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_other_histories_are_refused(name: str) -> None:
    assert check(NOT_LINEARIZABLE[name], VersionedItems([X, Y])) is not None


def test_a_violation_shows_what_fits_and_what_does_not() -> None:
    violation = check([put(0, 1, 0, b"1"), put(2, 3, 1, b"2"), saw(4, 5, x=ONE)], VersionedItems([X, Y]))
    assert violation is not None
    assert [operation.end for operation in violation.placed] == [1, 3]
    assert [operation.call for operation in violation.stuck] == [4]
    assert "2 operations fit" in str(violation)


def test_many_operations_at_once_are_decided_by_what_was_seen_before() -> None:
    """Without the cache these would be 14! orders."""
    writers = [put(0, 100, 0, bytes([n]), result=VersionConflict if n else True) for n in range(14)]
    unknown = [put(0, UNKNOWN, n, b"u") for n in range(1, 8)]
    history = [*writers, *unknown, saw(50, 51, x=(1, b"\0")), saw(200, 201, x=(9, b"w"))]
    assert check(history, VersionedItems([X, Y])) is not None
    assert check(history[:-1], VersionedItems([X, Y])) is None
