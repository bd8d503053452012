"""Checks what is given to the SDK where it is given: a wrong type is named before anything is sent.

    @checked
    class Key: ...

The checks are made of the annotations that the methods have anyway, so there is nothing to forget, and no second place.
"""

from __future__ import annotations

import enum
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, MalformedMessage
from lnh_common.messages.base import Message
from lnh_common.wire import codec

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_SPECIAL: Final = frozenset({"__getitem__"})
_TEXT: Final = (str, bytes, bytearray, memoryview)  # collections too, and never meant as such
_WORDS: Final[dict[object, str]] = {
    bool: "True or False",
    int: "a number",
    float: "a number",
    str: "text",
    bytes: "bytes",
    type(None): "None",
    Mapping: "a mapping",
    Sequence: "a sequence",
    Iterable: "an iterable",
    Callable: "something to call",
    typing.BinaryIO: "an open binary file",
}
_BYTES_LIKE: Final = (bytearray, memoryview)  # beside `bytes`, which alone is named


@dataclass(frozen=True)
class Check:
    """A check of one argument.

    Args:
        fits: whether a value passes.
        wanted: names for people what passes.
    """

    fits: Callable[[Any], bool]
    wanted: str


def checked(kind: type[T]) -> type[T]:
    """Make the public methods of a class check their arguments."""
    for name, found in list(vars(kind).items()):
        if isinstance(found, types.FunctionType) and (name in _SPECIAL or not name.startswith("_")):
            setattr(kind, name, checks(found))
    return kind


def checks(function: F) -> F:
    """Make a function check its arguments; a wrong one raises ArgumentInvalid before anything is done."""
    found: dict[str, Check | None] = {}

    def check(arguments: tuple[Any, ...], others: dict[str, Any]) -> None:
        if not found:  # when it is first called: what an annotation names may be imported late, and few functions are
            found.update(_checks_of(function))
        for name, value in zip(found, arguments, strict=False):
            wanted = found[name]
            if wanted is not None and not wanted.fits(value):
                raise _wrong(function, name, value, wanted)
        for name, value in others.items():
            wanted = found.get(name)
            if wanted is not None and not wanted.fits(value):
                raise _wrong(function, name, value, wanted)

    @functools.wraps(function)
    def call(*arguments: Any, **others: Any) -> Any:
        check(arguments, others)
        return function(*arguments, **others)

    @functools.wraps(function)
    async def call_and_wait(*arguments: Any, **others: Any) -> Any:
        check(arguments, others)
        return await function(*arguments, **others)

    return typing.cast("F", call_and_wait if inspect.iscoroutinefunction(function) else call)


def check_message(message: Message, kind: type[Message]) -> None:
    """Raise ArgumentInvalid, naming the field, for a message whose values are not of their types or bounds.

    Args:
        kind: the request of its operation, which a generic message's own type does not tell.
    """
    try:
        codec.convert(msgspec.to_builtins(message, builtin_types=(bytes,)), kind)
    except (MalformedMessage, TypeError, ValueError, RecursionError) as error:
        raise ArgumentInvalid(f"{type(message).__name__}: {error}") from None


def _wrong(function: Callable[..., Any], name: str, value: object, check: Check) -> ArgumentInvalid:
    # The value itself may be a secret.
    said = f" ({value})" if isinstance(value, float) else ""
    return ArgumentInvalid(f"{function.__name__}: {name} is {type(value).__name__}{said}; {check.wanted} is wanted")


def is_timeout(value: object) -> bool:
    """Tell whether this is a number of seconds that an operation may take."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and 0 < value <= limits.MAX_DEADLINE_MS / 1000


def _checks_of(function: Callable[..., Any]) -> dict[str, Check | None]:
    """Make the checks of a function's named parameters, in their order."""
    parameters = [
        each
        for each in inspect.signature(function).parameters.values()
        if each.kind not in {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    ]
    written = {each.name: each.annotation for each in parameters if each.annotation is not inspect.Parameter.empty}
    # Not of the function itself: what its result is called may be imported for type checkers only.
    annotated = types.SimpleNamespace(__annotations__=written)
    hints = typing.get_type_hints(annotated, function.__globals__)
    return {each.name: _check(each.name, hints[each.name]) if each.name in hints else None for each in parameters}


def _check(name: str, annotation: Any) -> Check | None:
    check = check_of(annotation)
    if name != "timeout":
        return check
    may_be_none = type(None) in typing.get_args(annotation)
    wanted = f"seconds, more than 0 and at most {limits.MAX_DEADLINE_MS // 1000},"
    return Check(lambda value: is_timeout(value) or (may_be_none and value is None), wanted)


def check_of(annotation: Any) -> Check | None:
    """Make the check of an annotation; None where everything passes."""
    if isinstance(annotation, TypeVar):
        annotation = annotation.__bound__
    if annotation is Any or annotation is object or annotation is None:
        return None
    origin = typing.get_origin(annotation)
    if origin in {typing.Union, types.UnionType}:
        parts = [check_of(each) for each in typing.get_args(annotation)]
        if None in parts:
            return None
        either = [part for part in parts if part is not None]
        words = [
            part.wanted
            for part, each in zip(either, typing.get_args(annotation), strict=True)
            if each not in _BYTES_LIKE and each is not type(None)
        ]
        return Check(lambda value: any(part.fits(value) for part in either), " or ".join(dict.fromkeys(words)))
    if origin is typing.Literal:
        values = typing.get_args(annotation)
        return Check(lambda value: value in values, " or ".join(map(repr, values)))
    if origin is typing.Annotated:
        return check_of(typing.get_args(annotation)[0])
    return _check_of_class(origin or annotation)


def _check_of_class(kind: Any) -> Check:
    wanted = _WORDS.get(kind) or kind.__name__
    if kind is typing.BinaryIO:
        return Check(lambda value: callable(getattr(value, "read", None)), wanted)
    if kind is float:
        return Check(lambda value: isinstance(value, int | float) and not isinstance(value, bool), wanted)
    if kind is int:
        return Check(lambda value: isinstance(value, int) and not isinstance(value, bool | enum.Enum), wanted)
    if kind in {Iterable, Sequence}:
        return Check(lambda value: isinstance(value, kind) and not isinstance(value, _TEXT), wanted)
    return Check(lambda value: isinstance(value, kind), wanted)
