"""What comes in is read strictly, and refused in the product's words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnh_common.errors import ArgumentInvalid, LnhError
from lnh_common.pkcs11.attributes import ATTRIBUTES, Attribute, KeyType, Kind, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_rest import attributes, decoding
from lnh_rest.admin_shapes import Changes
from lnh_rest.shapes import KeyringLogin, NewKeys, ObjectQuery, RandomLength, Sign, UserLogin
from lnh_rest.table import ROUTES
from sizes import sized

BODIES = [route.body for route in ROUTES if route.body is not None]
NOT_OUR_WORDS = re.compile(
    r"Expected `|- at `|msgspec|invalid literal|object is not|\b[A-Z]\w*Error\b|codec can't|NoneType|line 1"
)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def in_our_words(read: Callable[[], object]) -> None:
    """What is refused is refused by an error of the product that is not in a decoder's words."""
    said = ""
    try:
        read()
    except LnhError as error:
        said = str(error)
    assert not NOT_OUR_WORDS.search(said), said


def refusal(data: bytes, kind: Any) -> str:
    with pytest.raises(LnhError) as caught:
        decoding.body(data, kind)
    said = f"{caught.value} {caught.value.detail}"
    assert not NOT_OUR_WORDS.search(said), said
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"data": "\xff"}', "not JSON"),
        (b'{"data": "\\ud800"}', "not JSON"),
        (b'{"data": NaN}', "not JSON"),
        (b'{"data": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"parameters": ' + b"[" * 20 + b"]" * 20 + b"}", "not JSON"),
        (b'{"data": "", "data": ""}', "a name twice"),
        (b'{"data": "aGk=", "who": 1}', "'who' is not known here"),
        (b'{"data": 5}', "data: is bytes, not a whole number"),
        (b'{"data": "a"}', "data: is not base64"),
        (b'{"data": "aGk=", "der": 1}', "der: is true or false"),
        (b"[]", "is named fields, not a list"),
        (b"null", "is named fields, not nothing"),
        (b"{}", "data is missing"),
    ],
)
def test_what_is_wrong_in_a_body_is_named(data: bytes, said: str) -> None:
    assert said in refusal(data, Sign)


def test_a_login_says_as_whom_and_takes_no_other_fields() -> None:
    assert "as is missing" in refusal(b"{}", UserLogin | KeyringLogin)
    assert "as: is none of the values" in refusal(b'{"as": "root"}', UserLogin | KeyringLogin)
    assert "not known here" in refusal(b'{"as": "user", "keyring": "a"}', UserLogin | KeyringLogin)


def test_no_login_shows_its_password() -> None:
    login = decoding.body(b'{"as": "user", "user": "admin", "password": "very secret"}', UserLogin | KeyringLogin)
    assert "very secret" not in repr(login)


@given(value=_JSON, kind=st.sampled_from(BODIES))
@settings(max_examples=sized(100))
def test_any_json_is_taken_or_refused_in_our_words(value: Any, kind: Any) -> None:
    in_our_words(lambda: decoding.body(json.dumps(value).encode(), kind))


@given(data=st.binary(max_size=64), kind=st.sampled_from(BODIES))
@settings(max_examples=sized(200))
def test_any_bytes_are_taken_or_refused_in_our_words(data: bytes, kind: Any) -> None:
    in_our_words(lambda: decoding.body(data, kind))


@pytest.mark.parametrize(
    "query",
    [
        b"limit=0",
        b"limit=257",
        b"limit=",
        b"limit=1&limit=2",
        b"a=1",
        b"label=%FF",
        b"\xff",
        b"limit",
        b"id=0",
        b"x=1&" * 40,
    ],
)
def test_a_query_with_something_wrong_is_refused(query: bytes) -> None:
    with pytest.raises(LnhError) as caught:
        decoding.query(query, ObjectQuery)
    assert not NOT_OUR_WORDS.search(str(caught.value))


def test_a_query_is_read_by_its_types() -> None:
    read = decoding.query(b"limit=5&label=a%20b&key_type=AES", ObjectQuery)
    assert (read.limit, read.label, read.key_type, read.id) == (5, "a b", "AES", None)


_VALUES = {
    Kind.BOOL: st.booleans(),
    Kind.INT: st.integers(0, 1 << 31),
    Kind.BYTES: st.binary(max_size=40),
    Kind.TEXT: st.text(max_size=40),
    Kind.DATE: st.just("2026-11-24"),
    Kind.MECHANISMS: st.lists(st.sampled_from([each.value for each in Mechanism]), max_size=3),
}
_NAMED = {
    Attribute.CLASS: st.sampled_from([each.value for each in ObjectClass]),
    Attribute.KEY_TYPE: st.sampled_from([each.value for each in KeyType]),
    Attribute.KEY_GEN_MECHANISM: st.sampled_from([each.value for each in Mechanism]),
}
_FLAT = {
    each: _NAMED.get(each, _VALUES[rule.kind]) for each, rule in ATTRIBUTES.items() if rule.kind is not Kind.TEMPLATE
}
_SETS = st.fixed_dictionaries({}, optional=_FLAT)


@given(inner=_SETS, outer=_SETS)
@settings(max_examples=sized(50))
def test_attributes_come_back_from_json_as_they_were(inner: dict[Attribute, Any], outer: dict[Attribute, Any]) -> None:
    given_ = {**outer, Attribute.UNWRAP_TEMPLATE: {each.value: value for each, value in inner.items()}}
    assert attributes.parse(json.loads(json.dumps(attributes.shown(given_)))) == given_


@given(value=st.dictionaries(st.sampled_from([each.name.lower() for each in Attribute]) | st.text(), _JSON, max_size=3))
@settings(max_examples=sized(50))
def test_any_attributes_are_taken_or_refused_in_our_words(value: dict[str, Any]) -> None:
    in_our_words(lambda: attributes.parse(value))


@given(
    which=st.sampled_from(Mechanism),
    value=st.dictionaries(st.sampled_from(["aad", "iv", "hash", "length"]), _JSON, max_size=2),
)
@settings(max_examples=sized(50))
def test_any_parameters_are_taken_or_refused_in_our_words(which: Mechanism, value: dict[str, Any]) -> None:
    in_our_words(lambda: attributes.parameters(which, value))


def test_a_body_of_keys_is_read_with_its_defaults() -> None:
    read = decoding.body(b'{"key_type": "AES"}', NewKeys)
    assert (read.total, read.index, read.attributes, read.bits) == (1, 1, {}, None)


def test_a_number_is_whole_however_it_is_written() -> None:
    for text in (b"35", b"35.0", b"3.5e1", b"350E-1"):
        assert decoding.body(b'{"length": ' + text + b"}", RandomLength).length == 35
    assert "length: is a whole number" in refusal(b'{"length": 35.5}', RandomLength)


def test_a_number_that_no_message_carries_is_refused_before_it_is_sent() -> None:
    largest = (1 << 63) - 1
    for number in (largest, -largest):
        assert decoding.body(b'{"changes": {"a": [%d]}}' % number, Changes).changes == {"a": [number]}
    for number in (largest + 1, -largest - 1, 34932374209503043114552524800):
        with pytest.raises(ArgumentInvalid, match="number"):
            decoding.body(b'{"changes": {"a": [%d]}}' % number, Changes)
