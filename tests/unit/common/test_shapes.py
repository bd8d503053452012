"""What is wrong with a value's shape is said in the product's words, not the decoder's."""

from __future__ import annotations

import enum
import re
from typing import Annotated, Any

import msgspec
import pytest

from lnh_common import shapes
from lnh_common.errors import MalformedMessage
from lnh_common.wire import codec


class Colour(enum.Enum):
    RED = "red"


class Pair(msgspec.Struct, array_like=True):
    first: int
    second: str


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    """One field for each form of msgspec's errors."""

    label: Annotated[str, msgspec.Meta(min_length=1, max_length=3)]
    size: Annotated[int, msgspec.Meta(ge=1, le=5)] = 1
    ratio: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    numbers: Annotated[tuple[int, ...], msgspec.Meta(max_length=2)] = ()
    colour: Colour = Colour.RED
    named: dict[str, int] = {}
    few: Annotated[dict[str, int], msgspec.Meta(max_length=1)] = {}
    pair: Pair | None = None
    fixed: tuple[int, str] = (1, "a")
    key: Annotated[bytes, msgspec.Meta(min_length=2, max_length=2)] = b"ab"
    form: Annotated[str, msgspec.Meta(pattern="^a$")] = "a"
    either: int | str | None = None


DECODERS_WORDS = re.compile(r"Expected|`|\$|\bstr\b|\bint\b|regex|Object|enum|msgspec")


def test_where_the_shape_is_known_the_words_that_a_field_takes_are_named() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"label": "a", "colour": "blue"}, Shape)
    named = ", ".join(each.value for each in Colour)
    assert str(shapes.problem(caught.value, Shape)) == f"colour: 'blue' is none of the values there are: {named}"


@pytest.mark.parametrize(
    ("fields", "said", "is_value"),
    [
        ({}, "label is missing", False),
        ({"label": ""}, "label: at least 1 character", True),
        ({"label": "abcd"}, "label: at most 3 characters", True),
        ({"label": 1}, "label: is text, not a whole number", False),
        ({"size": 0}, "size: at least 1", True),
        ({"size": 6}, "size: at most 5", True),
        ({"size": True}, "size: is a whole number, not true or false", False),
        ({"ratio": 0.0}, "ratio: more than 0.0", True),
        ({"ratio": 1.0}, "ratio: less than 1.0", True),
        ({"numbers": [1, 2, 3]}, "numbers: at most 2 items", True),
        ({"numbers": [1, "x"]}, "numbers, item 2: is a whole number, not text", False),
        ({"colour": "blue"}, "colour: 'blue' is none of the values there are", True),
        ({"named": {"a": "b"}}, "named, one of them: is a whole number, not text", False),
        ({"few": {"a": 1, "b": 2}}, "few: at most 1 entry", True),
        ({"pair": [1]}, "pair: at least 2 items, not 1", False),
        ({"fixed": [1]}, "fixed: exactly 2 items, not 1", False),
        ({"key": b"a"}, "key: at least 2 bytes", True),
        ({"form": "b"}, "form: is not of the form that belongs there", True),
        ({"either": b"a"}, "either: is a whole number or text or nothing, not bytes", False),
        ({"tone": 1}, "'tone' is not known here", False),
    ],
)
def test_each_form_of_a_wrong_shape_has_words_of_its_own(fields: dict[str, Any], said: str, is_value: bool) -> None:
    given = fields if not fields or "label" in fields else {"label": "a", **fields}
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(given, Shape, builtin_types=(bytes,))
    found = shapes.problem(caught.value)
    assert (str(found), found.is_value) == (said, is_value)
    assert not DECODERS_WORDS.search(said)


def test_a_form_that_no_row_knows_is_told_without_its_words() -> None:
    found = shapes.problem(msgspec.ValidationError("Exhausted `flux` - at `$.label`"))
    assert str(found) == "label: is not what belongs there"


def test_a_value_out_of_its_range_is_the_senders_to_correct() -> None:
    with pytest.raises(MalformedMessage, match="label: at least 1 character") as caught:
        codec.convert({"label": ""}, Shape)
    assert caught.value.detail == {"advice": "correct label"}
    with pytest.raises(MalformedMessage) as caught:
        codec.convert({"label": 1}, Shape)
    assert caught.value.detail == {}
