"""Each call of the blocking SDK and its twin of `lnh.aio` ask the same of the cluster, and make the same of its answers."""

from __future__ import annotations

import asyncio
import inspect
import io
import random
import shutil
import tempfile
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.inspect import type_info

import lnh
import lnh.admin
import lnh.aio
import lnh.aio.admin
import lnh.aio.backups
import lnh.backups
from lnh_common.messages.base import Message
from lnh_common.pkcs11.attributes import Attribute
from models.twins import SUBJECTS, Awaited, Blocking, subject, value_of, view
from sizes import sized
from surface import LEFT_OUT

# What is not asked of the cluster, or not by itself: fields of any operation; and what is held by tests of its own.
_OTHERS: Final = frozenset({"call", "call_each", "ask", "credentials", "saved", "adopt", "abandon"})


def calls() -> Iterator[tuple[str, str]]:
    for name in SUBJECTS:
        kind = getattr(lnh, name, None) or getattr(lnh.admin, name, None) or lnh.backups.Backups
        for method, found in inspect.getmembers(kind, inspect.isfunction):
            left_out = f"{found.__module__}.{found.__qualname__}" in LEFT_OUT
            if not method.startswith("_") and method not in _OTHERS and not left_out:
                yield name, method


CALLS: Final = list(calls())
_PLACES: Final = {"path": "source", "source": "source", "target": "target", "directory": ""}  # by arguments' names


class Arguments:
    """Draws arguments by the annotations of what they are for; of one seed the same, for either SDK.

    Args:
        made: an object of the SDK, where one is wanted.
        place: a directory of its own, with a file.
    """

    def __init__(self, seed: int, made: Callable[[random.Random], Any], place: Path) -> None:
        self.chance = random.Random(seed)
        self.made = made
        self.place = place

    def of(self, function: Callable[..., Any]) -> dict[str, Any]:
        hints = _hints(function)
        given: dict[str, Any] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            if name == "self":
                continue
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= {"label": "a"} if self.chance.random() < 0.3 else {}
            elif parameter.default is parameter.empty or self.chance.random() < 0.3:
                given[name] = 7.0 if name == "timeout" else self.value(name, hints[name])
        return given

    def value(self, name: str, wanted: Any) -> Any:
        if name in _PLACES:
            return self.place / _PLACES[name]
        chance, origin, parts = self.chance, typing.get_origin(wanted), typing.get_args(wanted)
        if origin in {typing.Union, types.UnionType}:
            return self.value(name, chance.choice(parts))
        if origin is typing.Literal:
            return chance.choice(parts)
        kind = origin or wanted
        if kind is Mapping:
            return {Attribute.LABEL: "b"} if parts[0] is Attribute else {}
        if kind in {Sequence, Iterable, list, tuple}:
            return [self.value(name, parts[0]) for _ in range(chance.randrange(3))]
        if inspect.isclass(kind) and issubclass(kind, Enum):
            return chance.choice(list(kind))
        if inspect.isclass(kind) and issubclass(kind, Message):
            return None if kind is Message else value_of(type_info(kind), chance)
        drawn: dict[Any, Callable[[], Any]] = {
            str: lambda: chance.choice(("a", "b", "CN=a", "a password")),
            bytes: lambda: chance.randbytes(chance.randrange(20)),
            bytearray: lambda: bytearray(chance.randbytes(3)),
            memoryview: lambda: memoryview(chance.randbytes(3)),
            bool: lambda: chance.random() < 0.5,
            int: lambda: chance.choice((0, 1, 3, 128, 256)),
            float: lambda: 3.0,
            type(None): lambda: None,
            typing.BinaryIO: lambda: io.BytesIO(chance.randbytes(5)),
            object: lambda: "a",
            Callable: lambda: lambda *_: "a password",
        }
        found = drawn.get(kind)
        return found() if found is not None else self.made(chance)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of a function's parameters; that of its result may be there for type checkers only."""
    parameters = inspect.signature(function).parameters.values()
    annotated = types.SimpleNamespace(__annotations__={each.name: each.annotation for each in parameters})
    del annotated.__annotations__["self"]
    return typing.get_type_hints(annotated, inspect.unwrap(function).__globals__)


def said(result: Any, place: Path) -> Any:
    """A result as both SDKs have it: objects by what they are."""
    if isinstance(result, BaseException):
        return (
            "raised",
            type(result).__name__,
            str(result).replace(str(place), "PLACE"),
            getattr(result, "detail", None),
        )
    if isinstance(result, list | tuple):
        about = {name: getattr(result, name) for name in ("behind", "skipped") if hasattr(result, name)}
        return [said(each, place) for each in result], about
    if hasattr(result, "handle") and hasattr(result, "attributes"):
        return type(result).__name__, result.handle, result.version, result.attributes, result.sealed
    if type(result).__module__.startswith("lnh.") and not isinstance(result, bytes):
        return type(result).__name__
    return str(result).replace(str(place), "PLACE") if isinstance(result, Path) else result


def blocking(seed: int, name: str, method: str, place: Path) -> tuple[Any, list[object]]:
    connection = Blocking(seed)
    of = subject(lnh, connection, name, random.Random(seed))
    session = of if name == "KeyringSession" else subject(lnh, connection, "KeyringSession", random.Random(seed))
    function = getattr(type(of), method)
    arguments = Arguments(seed, lambda chance: session.adopt(view(chance)), place).of(function)
    try:
        result = function(of, **arguments)
        if isinstance(result, Iterator):
            listed = list(result)
            result = (listed, getattr(result, "behind", None), getattr(result, "skipped", None))
    except Exception as error:  # whatever it is, the twin must raise the same
        result = error
    return said(result, place), connection.to.asked


async def awaited(seed: int, name: str, method: str, place: Path) -> tuple[Any, list[object]]:
    connection = Awaited(seed)
    of = subject(lnh.aio, connection, name, random.Random(seed))
    session = of if name == "KeyringSession" else subject(lnh.aio, connection, "KeyringSession", random.Random(seed))
    function = getattr(type(of), method)
    arguments = Arguments(seed, lambda chance: session.adopt(view(chance)), place).of(function)
    try:
        result = function(of, **arguments)
        if inspect.iscoroutine(result):
            result = await result
        if hasattr(result, "__aiter__"):
            listed = [each async for each in result]
            result = (listed, getattr(result, "behind", None), getattr(result, "skipped", None))
    except Exception as error:  # as above
        result = error
    return said(result, place), connection.to.asked


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Counter[str]]:
    """How many calls had a result, and how many an error: a comparison of errors alone would show little."""
    counted: Counter[str] = Counter()
    yield counted
    if counted.total() > len(CALLS):
        assert counted["result"] > counted["raised"] / 2, counted


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lnh.backups, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(lnh.aio.backups, "_LOOK_EVERY", 0.0)


@pytest.mark.parametrize(("name", "method"), CALLS, ids=[f"{name}.{method}" for name, method in CALLS])
def test_a_call_and_its_twin_ask_and_answer_the_same(name: str, method: str, outcomes: Counter[str]) -> None:
    @settings(max_examples=sized(6))
    @given(st.integers(0, 1 << 30))
    def check(seed: int) -> None:
        found: list[Any] = []
        for sdk in (blocking, awaited):
            place = Path(tempfile.mkdtemp())
            (place / "source").write_bytes(random.Random(seed).randbytes(40))
            try:
                made = sdk(seed, name, method, place)
                found.append(asyncio.run(made) if inspect.iscoroutine(made) else made)
            finally:
                shutil.rmtree(place)
        ours, theirs = found
        assert theirs == ours
        outcomes["raised" if isinstance(ours[0], tuple) and ours[0][0] == "raised" else "result"] += 1

    check()


def test_the_table_of_calls_is_all_there_is() -> None:
    assert len(CALLS) > 140
    assert {("PrivateKey", "sign"), ("Administration", "promote"), ("KeyringSession", "find")} <= set(CALLS)
