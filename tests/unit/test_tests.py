"""What holds of the tests themselves: limits that a test lowers are whole again after it, and soaks try more examples."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from lnh_common import limits
from lnh_common.messages import objects
from lowered import lower

TESTS = Path(__file__).parents[1]


def test_a_type_first_decoded_while_a_limit_is_lowered_keeps_its_own() -> None:
    whole = limits.PAGE_ITEMS
    with pytest.MonkeyPatch.context() as patch:
        lower(patch, PAGE_ITEMS=3)
        msgspec.convert({"limit": whole}, objects.Find)
    assert whole == limits.PAGE_ITEMS


def test_no_test_sets_a_limit_otherwise() -> None:
    others = [path.name for path in TESTS.rglob("*.py") if "setattr(limits" in path.read_text()]
    assert sorted(others) == sorted(["lowered.py", Path(__file__).name])


def test_each_property_tries_more_examples_in_a_soak() -> None:
    fixed = [path.name for path in TESTS.rglob("*.py") if re.search(r"max_examples=\d", path.read_text())]
    assert not fixed, "max_examples=sized(...)"
