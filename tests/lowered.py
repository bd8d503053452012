"""Lower a limit for one test, so that a few things reach it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import pkgutil
from collections.abc import Iterator

import msgspec
import pytest

import lnh_common
from lnh_common import limits


def _structs(of: type) -> Iterator[type]:
    each: type
    for each in of.__subclasses__():
        yield each
        yield from _structs(each)


@functools.cache
def _read_annotations() -> None:
    """Have every type of a message read its annotations, which it does but once: when it is first decoded.

    A test that lowered a limit before that would leave it so in the type, for every later test of its process.
    """
    for module in pkgutil.walk_packages(lnh_common.__path__, "lnh_common."):
        importlib.import_module(module.name)
    for each in _structs(msgspec.Struct):
        if each.__module__.startswith("lnh_"):
            with contextlib.suppress(TypeError):  # of one that is never decoded: it holds what no message can
                msgspec.msgpack.Decoder(each)


def lower(monkeypatch: pytest.MonkeyPatch, **to: float) -> None:
    """Give limits (by their names in `lnh_common.limits`) other values until the test ends.

    What a message type says of itself stays as it is: a type knows its limits from the first decoding on.
    """
    _read_annotations()
    for name, value in to.items():
        monkeypatch.setattr(limits, name, value)
