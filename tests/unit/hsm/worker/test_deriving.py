"""Keys that are derived, agreed on, encapsulated and decapsulated, through a worker."""

from __future__ import annotations

from typing import Final

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lnh_common import errors
from lnh_common.messages import objects
from lnh_common.pkcs11.algorithms import CURVES, Hash
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.pkcs11.parameters import CounterParameters, EcdhParameters, HkdfParameters, Kdf
from models.keyring import Keyring, check

A = Attribute
M = Mechanism
IMPORTS: Final = {"import": True}


@pytest.fixture
def keyring() -> Keyring:
    return Keyring.made(policy=IMPORTS)


# --- derive


def x963(shared: bytes, info: bytes, length: int = 32) -> bytes:
    return X963KDF(hashes.SHA256(), length, info).derive(shared)


@pytest.mark.parametrize("curve", ["P-256", "P-521", "secp256k1", "X25519", "X448"])
@pytest.mark.parametrize("kdf", list(Kdf))
def test_both_sides_of_an_agreement_have_the_same_key(keyring: Keyring, curve: str, kdf: Kdf) -> None:
    key_type = CURVES[curve].key_type
    pairs = [keyring.pair(key_type, {"EC_PARAMS": CURVES[curve].oid}, {"DERIVE": True}) for _ in range(2)]
    points = [bytes(pair.public.attributes[A.EC_POINT]) for pair in pairs]
    keys = [
        keyring.derive(
            pair.private, mechanism=M.ECDH1_DERIVE, parameters=EcdhParameters(public_key=point, kdf=kdf, info=b"info")
        )
        for pair, point in zip(pairs, reversed(points), strict=True)
    ]
    assert keys[0].attributes[A.CHECK_VALUE] == keys[1].attributes[A.CHECK_VALUE]


def test_an_agreement_is_that_of_another_implementation(keyring: Keyring) -> None:
    mine = keyring.pair(KeyType.EC_MONTGOMERY, {"EC_PARAMS": CURVES["X25519"].oid})
    theirs = x25519.X25519PrivateKey.generate()
    point = theirs.public_key().public_bytes_raw()
    shared = theirs.exchange(x25519.X25519PublicKey.from_public_bytes(bytes(mine.public.attributes[A.EC_POINT])))
    through_x963 = EcdhParameters(public_key=point, info=b"both")
    key = keyring.derive(mine.private, mechanism=M.ECDH1_DERIVE, parameters=through_x963)
    check(key, x963(shared, b"both"), keyring)
    through_hkdf = EcdhParameters(public_key=point, kdf=Kdf.HKDF, hash=Hash.SHA512, info=b"i", salt=b"s")
    key = keyring.derive(mine.private, mechanism=M.ECDH1_DERIVE, parameters=through_hkdf)
    check(key, HKDF(hashes.SHA512(), 32, b"s", b"i").derive(shared), keyring)


@pytest.mark.parametrize("curve", ["P-256", "X25519"])
@pytest.mark.parametrize("wrong", ["zeros", "short", "off the curve"])
def test_a_point_that_is_none_is_refused(keyring: Keyring, curve: str, wrong: str) -> None:
    if curve == "X25519" and wrong == "off the curve":
        wrong = "short"
    pair = keyring.pair(CURVES[curve].key_type, {"EC_PARAMS": CURVES[curve].oid}, {"DERIVE": True})
    size = 32 if curve == "X25519" else 65
    point = {"zeros": bytes(size), "short": b"\4" + bytes(size), "off the curve": b"\4" + b"\1" * (size - 1)}[wrong]
    with pytest.raises(errors.MechanismParameterInvalid, match="public_key"):
        keyring.derive(pair.private, mechanism=M.ECDH1_DERIVE, parameters=EcdhParameters(public_key=point))


def test_hkdf_is_that_of_rfc_5869(keyring: Keyring) -> None:
    # Test case 1 of its appendix A, of which the input is 22 bytes.
    base = keyring.create(b"\x0b" * 22, KEY_TYPE=KeyType.GENERIC_SECRET, DERIVE=True, DERIVE_TEMPLATE={"DERIVE": True})
    parameters = HkdfParameters(salt=bytes(range(13)), info=bytes(range(0xF0, 0xFA)))
    middle = keyring.derive(base, KeyType.GENERIC_SECRET, parameters=parameters, VALUE_LEN=42)
    okm = bytes.fromhex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
    check(
        keyring.derive(middle, parameters=HkdfParameters(expand_only=True, info=b"x")),
        HKDFExpand(hashes.SHA256(), 32, b"x").derive(okm),
        keyring,
    )


def test_what_a_derivation_does_not_take_is_refused_by_name(keyring: Keyring) -> None:
    base = keyring.secret(KeyType.GENERIC_SECRET, DERIVE=True)
    aes = keyring.secret(DERIVE=True)
    for key, mechanism, parameters, naming in (
        (base, M.HKDF_DERIVE, HkdfParameters(expand_only=True, salt=b"s"), "salt"),
        (aes, M.SP800_108_COUNTER_KDF, CounterParameters(hash=Hash.SHA256), "hash"),
        (base, M.HKDF_DERIVE, HkdfParameters(hash=Hash.SHA1), "hash"),
    ):
        with pytest.raises(errors.MechanismParameterInvalid, match=naming):
            keyring.derive(key, mechanism=mechanism, parameters=parameters)
    with pytest.raises(errors.KeySizeRange, match="16 to 512"):
        keyring.derive(base, KeyType.GENERIC_SECRET, VALUE_LEN=15)
    with pytest.raises(errors.TemplateIncomplete, match="KEY_TYPE"):
        keyring.client.ask(
            objects.DERIVE, objects.Derive(handle=base.handle, mechanism=M.HKDF_DERIVE, template={}), keyring.id
        )


# --- encapsulate and decapsulate


@pytest.mark.parametrize("key_type", [KeyType.AES, KeyType.CHACHA20, KeyType.GENERIC_SECRET])
@pytest.mark.parametrize("parameter_set", [2, 3])
def test_what_is_encapsulated_is_decapsulated(keyring: Keyring, key_type: KeyType, parameter_set: int) -> None:
    pair = keyring.pair(KeyType.ML_KEM, {"PARAMETER_SET": parameter_set})
    mine, ciphertext = keyring.encapsulate(pair.public, key_type)
    theirs = keyring.decapsulate(pair.private, ciphertext, key_type)
    assert mine.attributes[A.CHECK_VALUE] == theirs.attributes[A.CHECK_VALUE]
    of_session, _ = keyring.encapsulate(pair.public, key_type, TOKEN=False)
    stored = {one.handle for one in keyring.all() if one.attributes[A.CLASS] == ObjectClass.SECRET_KEY}
    assert stored == {mine.handle, theirs.handle}
    assert of_session.handle not in stored
    wrong = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    other = keyring.decapsulate(pair.private, wrong, key_type, TOKEN=False)
    assert other.attributes[A.CHECK_VALUE] != theirs.attributes[A.CHECK_VALUE]
    with pytest.raises(errors.EncryptedDataInvalid):
        keyring.decapsulate(pair.private, ciphertext[:-1], key_type)


def test_an_encapsulation_is_that_of_another_implementation(keyring: Keyring) -> None:
    theirs = MLKEM768PrivateKey.generate()
    spki = theirs.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    public = keyring.create(spki, ObjectClass.PUBLIC_KEY)
    key, ciphertext = keyring.encapsulate(public, KeyType.AES)
    check(key, theirs.decapsulate(ciphertext), keyring)
