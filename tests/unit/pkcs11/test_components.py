"""Keys go in and out as PKCS#11 has them, by their parts."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_pkcs11.numbers import CKR
from models.gateway import Answered, Keyrings, Program, logged_in
from models.worker import KRCO

A = Attribute
M = Mechanism
PRIVATE_EXPONENT, PRIME_1, PRIME_2 = 0x123, 0x124, 0x125


@pytest.fixture(scope="module")
def session() -> tuple[Program, int]:
    return logged_in(Keyrings(policy={"import": True}), password=KRCO)


def number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def signed(program: Program, session: int, mechanism: M, key: int, data: bytes) -> bytes:
    program.call("SignInit", session, mechanism, key)
    made: bytes = program.call("Sign", session, data, 5000)
    return made


def test_an_rsa_key_is_made_of_its_numbers_and_read_as_them(session: tuple[Program, int]) -> None:
    program, handle = session
    key = rsa.generate_private_key(65537, 2048)
    whole = key.private_numbers()
    public = {A.MODULUS: number(whole.public_numbers.n), A.PUBLIC_EXPONENT: b"\1\0\1"}
    private = public | {PRIVATE_EXPONENT: number(whole.d)}
    kind = {A.CLASS: ObjectClass.PRIVATE_KEY, A.KEY_TYPE: KeyType.RSA, A.SENSITIVE: 0, A.EXTRACTABLE: 1}
    for parts in ({}, {PRIME_1: number(whole.p), PRIME_2: number(whole.q)}):
        made = program.call("CreateObject", handle, kind | private | parts)
        signature = signed(program, handle, M.SHA256_RSA_PKCS, made, b"data")
        key.public_key().verify(signature, b"data", padding.PKCS1v15(), SHA256())
        assert program.call("GetAttributeValue", handle, made, [PRIVATE_EXPONENT]) == [
            {PRIVATE_EXPONENT: number(whole.d)},
            0,
        ]
    of_public = {A.CLASS: ObjectClass.PUBLIC_KEY, A.KEY_TYPE: KeyType.RSA} | public
    verifying = program.call("CreateObject", handle, of_public)
    program.call("VerifyInit", handle, M.SHA256_RSA_PKCS, verifying)
    program.call("Verify", handle, b"data", signature)
    assert program.call("GetAttributeValue", handle, verifying, [A.MODULUS_BITS]) == [{A.MODULUS_BITS: 2048}, CKR.OK]


@pytest.mark.parametrize(("curve", "kind"), [("P-256", ec.SECP256R1()), ("brainpoolP384r1", ec.BrainpoolP384R1())])
def test_a_key_of_a_curve_is_made_of_its_number(session: tuple[Program, int], curve: str, kind: Any) -> None:
    program, handle = session
    key = ec.generate_private_key(kind)
    value = key.private_numbers().private_value.to_bytes((kind.key_size + 7) // 8, "big")
    template = {A.KEY_TYPE: KeyType.EC, A.EC_PARAMS: CURVES[curve].oid}
    readable = {A.SENSITIVE: 0, A.EXTRACTABLE: 1, A.CLASS: ObjectClass.PRIVATE_KEY, A.VALUE: value}
    private = program.call("CreateObject", handle, template | readable)
    assert program.call("GetAttributeValue", handle, private, [A.VALUE]) == [{A.VALUE: value}, CKR.OK]
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    public = program.call("CreateObject", handle, template | {A.CLASS: ObjectClass.PUBLIC_KEY, A.EC_POINT: point})
    signature = signed(program, handle, M.ECDSA, private, bytes(32))
    program.call("VerifyInit", handle, M.ECDSA, public)
    program.call("Verify", handle, bytes(32), signature)


def test_edwards_secret_and_lattice_keys_are_made_of_their_bytes(session: tuple[Program, int]) -> None:
    program, handle = session
    key = ed25519.Ed25519PrivateKey.generate()
    template = {A.CLASS: ObjectClass.PRIVATE_KEY, A.KEY_TYPE: KeyType.EC_EDWARDS, A.EC_PARAMS: CURVES["Ed25519"].oid}
    private = program.call("CreateObject", handle, template | {A.VALUE: key.private_bytes_raw()})
    key.public_key().verify(signed(program, handle, M.EDDSA, private, b"data"), b"data")
    template = {A.CLASS: ObjectClass.SECRET_KEY, A.KEY_TYPE: KeyType.GENERIC_SECRET, A.VALUE: bytes(32)}
    secret = program.call("CreateObject", handle, template | {A.SENSITIVE: 0, A.EXTRACTABLE: 1, A.VALUE_LEN: 32})
    assert program.call("GetAttributeValue", handle, secret, [A.VALUE]) == [{A.VALUE: bytes(32)}, CKR.OK]
    lattice = mldsa.MLDSA44PrivateKey.generate()
    template = {A.CLASS: ObjectClass.PUBLIC_KEY, A.KEY_TYPE: KeyType.ML_DSA, A.PARAMETER_SET: 1}
    public = program.call("CreateObject", handle, template | {A.VALUE: lattice.public_key().public_bytes_raw()})
    program.call("VerifyInit", handle, M.ML_DSA, public)
    program.call("Verify", handle, b"data", lattice.sign(b"data"))


@pytest.mark.parametrize(
    ("template", "ckr"),
    [
        ({A.CLASS: ObjectClass.PUBLIC_KEY, A.KEY_TYPE: KeyType.RSA, A.MODULUS: b"\1"}, CKR.TEMPLATE_INCOMPLETE),
        ({A.CLASS: ObjectClass.PUBLIC_KEY}, CKR.TEMPLATE_INCOMPLETE),
        ({A.CLASS: 9}, CKR.ATTRIBUTE_VALUE_INVALID),
        (
            {A.CLASS: ObjectClass.PRIVATE_KEY, A.KEY_TYPE: KeyType.EC, A.EC_PARAMS: b"\6\1\1", A.VALUE: b"\1"},
            CKR.ATTRIBUTE_VALUE_INVALID,
        ),
        (
            {A.CLASS: ObjectClass.PUBLIC_KEY, A.KEY_TYPE: KeyType.ML_DSA, A.PARAMETER_SET: 7, A.VALUE: b"\1"},
            CKR.ATTRIBUTE_VALUE_INVALID,
        ),
        (
            {A.CLASS: ObjectClass.PUBLIC_KEY, A.KEY_TYPE: KeyType.ML_DSA, A.PARAMETER_SET: 1, A.VALUE: b"\1"},
            CKR.ATTRIBUTE_VALUE_INVALID,
        ),
        (
            {
                A.CLASS: ObjectClass.PRIVATE_KEY,
                A.KEY_TYPE: KeyType.EC,
                A.EC_PARAMS: CURVES["P-256"].oid,
                A.VALUE: b"\xff" * 32,
            },
            CKR.ATTRIBUTE_VALUE_INVALID,
        ),
    ],
)
def test_what_is_no_key_is_refused(session: tuple[Program, int], template: dict[int, Any], ckr: CKR) -> None:
    program, handle = session
    with pytest.raises(Answered) as caught:
        program.call("CreateObject", handle, template)
    assert caught.value.ckr is ckr
