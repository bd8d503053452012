"""r || s out of DER: the same as by way of the numbers, for every length that a number may have."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import utils
from hypothesis import given
from hypothesis import strategies as st

from lnh_services.hsm.crypto.mechanisms.ecdsa import raw

SIZES = (32, 48, 66)  # bytes of a number of P-256, P-384 and P-521


@st.composite
def signatures(draw: st.DrawFn) -> tuple[int, int, int]:
    size = draw(st.sampled_from(SIZES))
    bits = 521 if size == 66 else 8 * size
    number = st.integers(1, bits).flatmap(lambda length: st.integers(1, 2**length - 1))
    return size, draw(number), draw(number)


@given(signatures())
def test_r_and_s_are_taken_out_of_der_as_the_library_does(signature: tuple[int, int, int]) -> None:
    size, r, s = signature
    assert raw(utils.encode_dss_signature(r, s), size) == r.to_bytes(size, "big") + s.to_bytes(size, "big")
