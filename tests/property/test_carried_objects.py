"""What a session carries opens in its place and nowhere else, whatever is changed about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnh_common.errors import SealBroken
from lnh_common.pkcs11.attributes import Attribute
from lnh_services.hsm.objects.stored import KeyringKeys

IDS = st.binary(min_size=16, max_size=16)
PLACES = st.fixed_dictionaries(
    {
        "keyring_key": st.binary(min_size=32, max_size=32),
        "cluster": IDS,
        "keyring": IDS,
        "session": IDS,
        "handle": IDS,
    }
)
ATTRIBUTES = st.fixed_dictionaries({Attribute.TOKEN: st.just(False), Attribute.LABEL: st.text(max_size=20)})


def keys_of(place: dict[str, bytes]) -> KeyringKeys:
    return KeyringKeys.derive(place["keyring_key"], place["cluster"], place["keyring"])


def sealed_at(place: dict[str, bytes], attributes: dict[Attribute, Any], value: bytes) -> bytes:
    return keys_of(place).seal_for_session(place["session"], place["handle"], attributes, value)


@given(PLACES, PLACES, st.sets(st.sampled_from(["keyring_key", "cluster", "keyring", "session", "handle"])), ATTRIBUTES)
def test_it_opens_in_its_own_place_only(
    place: dict[str, bytes], other: dict[str, bytes], changed: set[str], attributes: dict[Attribute, Any]
) -> None:
    sealed = sealed_at(place, attributes, b"value")
    elsewhere = place | {name: other[name] for name in changed}
    keys = keys_of(elsewhere)
    if elsewhere == place:
        assert keys.open_for_session(place["session"], place["handle"], sealed) == (attributes, b"value")
        return
    with pytest.raises(SealBroken):
        keys.open_for_session(elsewhere["session"], elsewhere["handle"], sealed)


@given(PLACES, ATTRIBUTES, st.data())
def test_a_changed_byte_does_not_open(
    place: dict[str, bytes], attributes: dict[Attribute, Any], data: st.DataObject
) -> None:
    sealed = bytearray(sealed_at(place, attributes, b"value"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealBroken):
        keys_of(place).open_for_session(place["session"], place["handle"], bytes(sealed))
