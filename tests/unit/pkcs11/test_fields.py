"""Fields of requests: what comes from outside is bounded before it is believed."""

from __future__ import annotations

import struct

import pytest

from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_pkcs11 import layouts
from lnh_pkcs11.fields import Attribute as Given
from lnh_pkcs11.fields import Given as Chosen
from lnh_pkcs11.fields import Malformed, Room, read
from lnh_pkcs11.refusals import Refused
from lnh_pkcs11.ways import Way

COUNT = struct.Struct(">I")


def nested(depth: int) -> bytes:
    """An aA of templates within templates."""
    if depth == 0:
        return COUNT.pack(0)
    within = nested(depth - 1)
    return COUNT.pack(1) + struct.pack(">IBI", Attribute.UNWRAP_TEMPLATE, 1, 24) + within


def test_templates_within_templates_go_so_deep() -> None:
    read("aA", nested(layouts.DEPTH - 1), Way.MODULE)
    with pytest.raises(Malformed, match="too deep"):
        read("aA", nested(layouts.DEPTH), Way.MODULE)


@pytest.mark.parametrize("letters", ["aA", "fA"])
def test_a_count_is_bounded_by_what_is_there_and_by_the_limit(letters: str) -> None:
    for count in (1, 65, 2**32 - 1):
        with pytest.raises(Malformed, match=f"a count of {count}"):
            read(letters, COUNT.pack(count) + bytes(8 * count if count == 65 else 0), Way.MODULE)


def test_rooms_within_rooms_are_read_where_the_client_sends_them() -> None:
    number = Attribute.UNWRAP_TEMPLATE.value
    flat = COUNT.pack(1) + struct.pack(">II", number, 24)
    assert read("fA", flat, Way.P11_KIT_0) == [(Room(number, 24),)]
    within = flat + COUNT.pack(1) + struct.pack(">II", Attribute.LABEL, 8)
    assert read("fA", within, Way.MODULE) == [(Room(number, 24, (Room(Attribute.LABEL.value, 8),)),)]


def test_a_value_that_is_not_of_its_length_is_none() -> None:
    whole = COUNT.pack(1) + struct.pack(">IBI", Attribute.KEY_TYPE, 1, 4) + bytes(8)
    assert read("aA", whole, Way.MODULE) == [[Given(Attribute.KEY_TYPE.value, None)]]
    invalid = COUNT.pack(1) + struct.pack(">IB", Attribute.KEY_TYPE, 0)
    assert read("aA", invalid, Way.MODULE) == [[Given(Attribute.KEY_TYPE.value, None)]]


def test_a_mechanism_reads_as_each_way_sends_it() -> None:
    bare = COUNT.pack(Mechanism.SHA256)
    assert read("M", bare + b"\xff" * 4, Way.P11_KIT_1) == [Chosen(Mechanism.SHA256)]
    assert read("M", bare, Way.P11_KIT_2) == [Chosen(Mechanism.SHA256)]
    assert read("M", bare + b"\0", Way.MODULE) == [Chosen(Mechanism.SHA256)]
    iv = COUNT.pack(Mechanism.AES_CBC)
    given = Chosen(Mechanism.AES_CBC, {"iv": bytes(16)}, 1)
    assert read("M", iv + COUNT.pack(16) + bytes(16), Way.P11_KIT_1) == [given]
    for way in (Way.P11_KIT_2, Way.MODULE):
        assert read("M", iv + b"\1" + COUNT.pack(16) + bytes(16), way) == [given]
        assert read("M", iv + b"\0", way) == [Chosen(Mechanism.AES_CBC)]
        assert read("M", b"\xff" * 4, way) == [None]
    with pytest.raises(Refused, match="does not come this way"):
        read("M", iv + COUNT.pack(16) + bytes(16), Way.P11_KIT_0)
    with pytest.raises(Malformed, match="iv has 16 bytes"):
        read("M", iv + b"\1" + COUNT.pack(15) + bytes(15), Way.MODULE)
    with pytest.raises(Malformed, match="form 9"):
        read("M", iv + b"\t", Way.MODULE)
    raw = iv + b"\xff" + COUNT.pack(5) + bytes(5)
    assert read("M", raw, Way.MODULE) == [Chosen(Mechanism.AES_CBC, {}, layouts.RAW)]
