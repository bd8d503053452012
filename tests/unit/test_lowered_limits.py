"""A limit that a test lowers is whole again after it, also in the types of messages."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lnh_common import limits
from lnh_common.messages import objects
from lowered import lower


def test_a_type_first_decoded_while_a_limit_is_lowered_keeps_its_own() -> None:
    whole = limits.PAGE_ITEMS
    with pytest.MonkeyPatch.context() as patch:
        lower(patch, PAGE_ITEMS=3)
        msgspec.convert({"limit": whole}, objects.Find)
    assert whole == limits.PAGE_ITEMS


def test_no_test_sets_a_limit_otherwise() -> None:
    tests = Path(__file__).parents[1]
    others = [path.name for path in tests.rglob("*.py") if "setattr(limits" in path.read_text()]
    assert sorted(others) == sorted(["lowered.py", Path(__file__).name])
