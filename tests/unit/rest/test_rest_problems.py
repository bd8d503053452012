"""Every error of the product is a problem with a status, and tells no more than it should."""

from __future__ import annotations

import json

import pytest

from lnh_common.errors import ERRORS, ApprovalNeeded, LnhError, ObjectUnknown
from lnh_rest import problems
from lnh_rest.base import encode
from lnh_rest.problems import Refused, problem


@pytest.mark.parametrize("kind", ERRORS.values(), ids=lambda kind: kind.__name__)
def test_each_error_has_a_status_of_its_own_or_of_its_base(kind: type[LnhError]) -> None:
    assert any(each in problems.STATUSES for each in kind.__mro__), "give it a row in problems.py"
    assert 400 <= problems.status_of_kind(kind) < 600
    told = json.loads(encode(problem(Refused(kind("why")), "id")))
    assert (told["ckr"], told["code"], told["advice"]) == (kind.ckr, kind.code, kind.advice)
    assert told["title"]
    assert told["type"].endswith(kind.__name__)


def test_an_advice_of_the_moment_takes_the_place_of_the_general_one() -> None:
    told = problem(Refused(ObjectUnknown("none", {"advice": "look there"})), "id")
    assert told.advice == "look there"


def test_what_an_error_says_beside_is_told_where_it_is_known_to_be_no_secret() -> None:
    told = problem(Refused(ApprovalNeeded("wait", {"approval": "0a", "token": "secret"})), "id")
    assert told.about == {"approval": "0a"}


def test_text_from_outside_does_nothing_to_a_terminal() -> None:
    told = encode(problem(Refused(ObjectUnknown("\x1b[31mred\u202e")), "id")).decode()
    assert "\x1b" not in told
    assert "\u202e" not in told
