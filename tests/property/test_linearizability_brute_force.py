"""The checker against trying every order, on small histories."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from lnh_common.errors import LnhError, ObjectUnknown, VersionConflict
from lnh_common.messages.store import Change, Delete, DeleteScope, Key, Put
from models.linearizability import UNKNOWN, Operation, check
from models.versioned_items import Items, Saw, VersionedItems, Wrote
from sizes import sized

KEYS = [Key(table="t", scope=b"s", id=bytes([n])) for n in (1, 2)]
MODEL = VersionedItems(KEYS)


def by_brute_force(history: Sequence[Operation]) -> bool:
    """Whether some order of the known operations and some of the others fits."""
    known = [operation for operation in history if operation.is_known]
    unknown = [operation for operation in history if not operation.is_known]
    return any(
        _fits(order)
        for count in range(len(unknown) + 1)
        for some in itertools.combinations(unknown, count)
        for order in itertools.permutations([*known, *some])
    )


def _fits(order: Sequence[Operation]) -> bool:
    if any(later.end < earlier.call for at, earlier in enumerate(order) for later in order[at + 1 :]):
        return False
    state = MODEL.initial(KEYS)
    for operation in order:
        after = MODEL.step(state, operation)
        if after is None:
            return False
        state = after
    return True


KEY = st.sampled_from(KEYS)
VERSION = st.integers(0, 2)
CHANGE: st.SearchStrategy[Change] = st.one_of(
    st.builds(Put, key=KEY, expected=VERSION, head=st.sampled_from([b"a", b"b"])),
    st.builds(Delete, key=KEY),
    st.just(DeleteScope(key=Key(table="t", scope=b"s"))),
)
VALUE = st.tuples(st.integers(1, 2), st.sampled_from([b"a", b"b"]))


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    call = draw(st.integers(0, 8))
    end = call + draw(st.integers(0, 5))
    if draw(st.booleans()):
        keys = draw(st.lists(KEY, min_size=1, max_size=2, unique=True))
        return Operation(call, end, Saw(keys), {key: draw(VALUE) for key in keys if draw(st.booleans())})
    changes = Wrote(draw(st.lists(CHANGE, min_size=1, max_size=2)))
    if draw(st.integers(0, 3)) == 0:
        return Operation(call, UNKNOWN, changes)
    results: list[type[LnhError] | bool] = [True, True, VersionConflict, ObjectUnknown]
    return Operation(call, end, changes, draw(st.sampled_from(results)))


def _answered(state: Items, operation: Operation) -> Operation:
    """The operation with the result it has in this state."""
    results: list[object] = [True, VersionConflict, ObjectUnknown]
    if isinstance(operation.action, Saw):
        results = [{key: value for key, value in zip(KEYS, state, strict=True) if value and key in operation.action}]
    asked = [Operation(0, 1, operation.action, result) for result in results]
    return next(each for each in asked if MODEL.step(state, each) is not None)


@settings(max_examples=sized(200))
@given(st.lists(operations(), max_size=5))
def test_any_history_gets_the_same_verdict(history: list[Operation]) -> None:
    assert (check(history, MODEL) is None) == by_brute_force(history)


@settings(max_examples=sized(200))
@given(st.data())
def test_right_histories_are_accepted_and_often_not_with_one_result_changed(
    data: st.DataObject,
) -> None:
    """Results come from a true order, so that both verdicts are met often."""
    state = MODEL.initial(KEYS)
    history: list[Operation] = []
    for moment, operation in enumerate(data.draw(st.lists(operations(), min_size=1, max_size=5))):
        answer = _answered(state, operation)
        after = MODEL.step(state, answer)
        assert after is not None
        state = after
        early, late = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
        end = moment + late if operation.is_known or isinstance(operation.action, Saw) else UNKNOWN
        history.append(Operation(moment - early, end, answer.action, answer.result))
    assert check(history, MODEL) is None
    changed = data.draw(st.integers(0, len(history) - 1))
    other = data.draw(operations().filter(lambda each: type(each.action) is type(history[changed].action)))
    history[changed] = Operation(history[changed].call, history[changed].end, other.action, other.result)
    assert (check(history, MODEL) is None) == by_brute_force(history)
