"""A PKCS#8 that came with zeros behind it, as SoftHSM2 wraps one, is read without them; nothing else is changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnh_services.hsm.objects.from_keys import without_padding
from models.keys import pair


@pytest.mark.parametrize("kind", ["RSA", "P-256", "P-521", "Ed25519", "ML-DSA-65"])
@pytest.mark.parametrize("zeros", range(8))
def test_zeros_that_fill_a_block_are_dropped(kind: str, zeros: int) -> None:
    value = pair(kind)[1].value
    assert without_padding(value + bytes(zeros)) == value


@pytest.mark.parametrize("behind", [bytes(8), b"\1", b"\0\1", bytes(16)])
def test_anything_else_behind_it_stays_and_is_refused_by_whoever_reads_it(behind: bytes) -> None:
    value = pair("P-256")[1].value + behind
    assert without_padding(value) == value


@given(st.binary(max_size=300))
def test_of_whatever_bytes_no_more_than_zeros_go(value: bytes) -> None:
    left = without_padding(value)
    gone = value[len(left) :]
    assert value.startswith(left)
    assert len(gone) < 8
    assert not any(gone)
