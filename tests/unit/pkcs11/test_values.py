"""Attributes as applications give them, into the product's."""

from __future__ import annotations

import pytest

from lnh_common.pkcs11.attributes import Attribute
from lnh_pkcs11 import values
from lnh_pkcs11.fields import Attribute as Given


@pytest.mark.parametrize(
    ("given", "stands_for"),
    [
        ("02020102", "02020102"),
        ("0200", "0200"),  # of DER, though no number
        ("00dae9", "020300dae9"),
        ("02", "020102"),
        ("0203", "02020203"),
        ("", ""),
    ],
)
def test_a_serial_number_is_der_also_where_only_its_contents_are_given(given: str, stands_for: str) -> None:
    read = values.template([Given(Attribute.SERIAL_NUMBER.value, bytes.fromhex(given))])
    assert read == {Attribute.SERIAL_NUMBER: bytes.fromhex(stands_for)}
    assert values.wanted([Given(Attribute.SERIAL_NUMBER.value, bytes.fromhex(given))]) == read
