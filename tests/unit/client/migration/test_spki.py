"""Public keys as tokens tell them, and as `cryptography` encodes them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lnh.migration import spki
from lnh_common.pkcs11.algorithms import CURVES

INFO = PublicFormat.SubjectPublicKeyInfo


def in_octet_string(point: bytes) -> bytes:
    assert len(point) < 256
    return (b"\x04" if len(point) < 128 else b"\x04\x81") + bytes([len(point)]) + point


@pytest.mark.parametrize("name", ["P-256", "P-384", "P-521"])
@pytest.mark.parametrize("form", [PublicFormat.UncompressedPoint, PublicFormat.CompressedPoint])
@pytest.mark.parametrize("is_packed", [True, False])
def test_points_of_x962_are_read_packed_and_bare(name: str, form: PublicFormat, is_packed: bool) -> None:
    curves: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
    key = ec.generate_private_key(curves[name]()).public_key()
    point = key.public_bytes(Encoding.X962, form)
    made = spki.of_curve(CURVES[name], in_octet_string(point) if is_packed else point)
    if form is PublicFormat.UncompressedPoint:
        assert made == key.public_bytes(Encoding.DER, INFO)
    assert point in made


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Ed25519", ed25519.Ed25519PrivateKey), ("Ed448", ed448.Ed448PrivateKey), ("X25519", x25519.X25519PrivateKey)],
)
@pytest.mark.parametrize("is_packed", [True, False])
def test_points_of_other_curves_are_read_packed_and_bare(name: str, kind: type, is_packed: bool) -> None:
    key = kind.generate().public_key()  # type: ignore[attr-defined]  # all of them have it
    point = key.public_bytes_raw()
    made = spki.of_curve(CURVES[name], in_octet_string(point) if is_packed else point)
    assert made == key.public_bytes(Encoding.DER, INFO)


def test_a_bare_point_that_looks_like_a_packed_one_is_bare() -> None:
    point = b"\x04\x3f" + bytes(63)  # 63 bytes follow, as an OCTET STRING would say
    assert point in spki.of_curve(CURVES["P-256"], point)


@pytest.mark.parametrize("zeros", [0, 1])
def test_rsa_is_encoded_with_and_without_zeros_in_front(zeros: int) -> None:
    key = rsa.generate_private_key(65537, 2048).public_key()
    modulus = bytes(zeros) + key.public_numbers().n.to_bytes(256, "big")
    assert spki.of_rsa(modulus, b"\1\0\1") == key.public_bytes(Encoding.DER, INFO)
