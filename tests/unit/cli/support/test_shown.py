"""The comparison of a table with its JSON finds what is missing, empty or another there, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from shown import Comparison, Shown

ROW = {"label": "payments", "objects": 3, "roles": ["krso", "krco"], "made": "2023-11-14T22:13:20Z", "class": "secret"}
COLUMNS = tuple(ROW)
TOLD = {"label": "payments", "objects": 3, "roles": ["krso", "krco"], "made": 1_700_000_000, "class": "SECRET_KEY"}


def faults(shown: Shown, told: Any, **how: Any) -> list[str]:
    return list(Comparison(shown, told, **how).faults())


def test_what_is_the_same_in_both_has_no_faults() -> None:
    assert faults(Shown(tables=[([ROW], COLUMNS)]), [TOLD]) == []
    assert faults(Shown(records=[ROW]), TOLD) == []
    said = Shown(lines=["payments has 3 objects"])
    assert faults(said, TOLD, names=frozenset({"payments"})) == []


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize(
    ("name", "value"), [("objects", 0), ("roles", []), ("label", ""), ("made", 0), ("class", None), ("roles", ["krso"])]
)
def test_what_is_empty_in_the_json_only_is_a_fault(name: str, value: object, anew: bool) -> None:
    for shown, told in (
        (Shown(tables=[([ROW], COLUMNS)]), [TOLD | {name: value}]),
        (Shown(records=[ROW]), TOLD | {name: value}),
    ):
        (fault,) = faults(shown, told, anew=anew)
        assert fault.startswith(f"{name} is ")


def test_what_is_missing_in_the_json_is_a_fault() -> None:
    told = {name: value for name, value in TOLD.items() if name != "objects"}
    (fault,) = faults(Shown(records=[ROW]), told)
    assert fault == "objects is 3 in the table, and nowhere in the JSON"
    assert faults(Shown(records=[ROW]), told, computed=frozenset({"objects"})) == []
    assert faults(Shown(tables=[([ROW], COLUMNS)]), {"other": []}) != []
    assert faults(Shown(lines=["deleted payments"]), {"done": True}, names=frozenset({"payments"})) != []


def test_another_value_is_a_fault_unless_each_run_has_its_own() -> None:
    told = TOLD | {"objects": 44}
    assert len(faults(Shown(records=[ROW]), told)) == 1
    assert faults(Shown(records=[ROW]), told, anew=True) == []
    assert faults(Shown(records=[ROW]), told, moves=frozenset({"objects"})) == []
    assert faults(Shown(records=[ROW]), told | {"objects": 0}, moves=frozenset({"objects"})) != []
