"""Mechanisms against published answers (NIST CAVP, SP 800-38B, RFC 3686, 4231, 8032 and 8439)."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lnh_common.errors import LnhError, SignatureInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.attributes import KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
from lnh_common.pkcs11.parameters import (
    AeadParameters,
    GcmParameters,
    IvParameters,
    MacParameters,
    PssParameters,
    pack_parameters,
)
from lnh_services.hsm.crypto.mechanisms import (
    IvSource,
    LoadedKey,
    decrypter,
    digester,
    encrypter,
    load,
    signer,
    verifier,
)
from models import known_answers as known

Row = dict[str, str]


def _(row: Row, name: str) -> bytes:
    return bytes.fromhex(row[name])


def public_key(key_type: KeyType, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> LoadedKey:
    return load(key_type, ObjectClass.PUBLIC_KEY, key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def changed(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("curve", "mechanism", "row"),
    [
        (ec.SECP256R1(), Mechanism.ECDSA_SHA256, known.ECDSA_P256),
        (ec.SECP384R1(), Mechanism.ECDSA_SHA384, known.ECDSA_P384),
        (ec.SECP521R1(), Mechanism.ECDSA_SHA512, known.ECDSA_P521),
    ],
)
def test_ecdsa_verifies_nists_signatures(curve: ec.EllipticCurve, mechanism: Mechanism, row: Row) -> None:
    point = ec.EllipticCurvePublicKey.from_encoded_point(curve, _(row, "point"))
    key = public_key(KeyType.EC, point)
    message, signature = _(row, "message"), _(row, "signature")
    verifier(mechanism, key)(message, signature)
    digest = hashlib.new(mechanism.name.rpartition("_")[2], message).digest()
    verifier(Mechanism.ECDSA, key)(digest, signature)
    for wrong in (changed(signature), bytes(len(signature)), signature[:-1], b""):
        with pytest.raises(SignatureInvalid):
            verifier(mechanism, key)(message, wrong)
    private = ec.derive_private_key(int(row["d"], 16), curve)
    assert private.public_key() == point


@pytest.mark.parametrize(
    ("row", "kind"), [(known.ED25519, ed25519.Ed25519PrivateKey), (known.ED448, ed448.Ed448PrivateKey)]
)
def test_eddsa_signs_as_rfc_8032(row: Row, kind: type[ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey]) -> None:
    private = kind.from_private_bytes(_(row, "secret"))
    value = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    key = load(KeyType.EC_EDWARDS, ObjectClass.PRIVATE_KEY, value)
    assert signer(Mechanism.EDDSA, key)(_(row, "message")) == _(row, "signature")
    assert private.public_key().public_bytes_raw() == _(row, "public")


@pytest.mark.parametrize(
    ("mechanism", "raw", "row", "parameters"),
    [
        (Mechanism.SHA256_RSA_PKCS, Mechanism.RSA_PKCS, known.RSA_PKCS1, None),
        (Mechanism.SHA256_RSA_PKCS_PSS, Mechanism.RSA_PKCS_PSS, known.RSA_PSS, PssParameters(salt_length=0)),
    ],
)
def test_rsa_verifies_nists_signatures(
    mechanism: Mechanism, raw: Mechanism, row: Row, parameters: Message | None
) -> None:
    key = public_key(KeyType.RSA, rsa.RSAPublicNumbers(int(row["e"], 16), int(row["n"], 16)).public_key())
    message, signature, packed = _(row, "message"), _(row, "signature"), pack_parameters(parameters)
    verifier(mechanism, key, packed)(message, signature)
    digest = hashlib.sha256(message).digest()
    prefix = bytes.fromhex("3031300d060960864801650304020105000420") if raw is Mechanism.RSA_PKCS else b""
    verifier(raw, key, packed)(prefix + digest, signature)
    with pytest.raises(SignatureInvalid):
        verifier(mechanism, key, packed)(message, changed(signature))


@pytest.mark.parametrize(
    ("mechanism", "truncated", "row"),
    [
        (Mechanism.SHA256_HMAC, Mechanism.SHA256_HMAC_GENERAL, known.HMAC_SHA256),
        (Mechanism.SHA384_HMAC, Mechanism.SHA384_HMAC_GENERAL, known.HMAC_SHA384),
        (Mechanism.SHA512_HMAC, Mechanism.SHA512_HMAC_GENERAL, known.HMAC_SHA512),
    ],
)
def test_hmac_is_rfc_4231s(mechanism: Mechanism, truncated: Mechanism, row: Row) -> None:
    key = load(KeyType.GENERIC_SECRET, ObjectClass.SECRET_KEY, _(row, "key"))
    message, tag = _(row, "message"), _(row, "tag")
    assert signer(mechanism, key)(message) == tag
    half = len(tag) // 2
    short = pack_parameters(MacParameters(length=half))
    assert signer(truncated, key, short)(message) == tag[:half]
    verifier(truncated, key, short)(message, tag[:half])
    for wrong in (changed(tag[:half]), tag[: half - 1], tag):
        with pytest.raises(SignatureInvalid):
            verifier(truncated, key, short)(message, wrong)


def test_cmac_is_sp_800_38bs() -> None:
    key = load(KeyType.AES, ObjectClass.SECRET_KEY, _(known.CMAC, "key"))
    assert signer(Mechanism.AES_CMAC, key)(_(known.CMAC, "message")) == _(known.CMAC, "tag")


@pytest.mark.parametrize(
    ("mechanism", "key_type", "row", "kind"),
    [
        (Mechanism.AES_GCM, KeyType.AES, known.GCM, GcmParameters),
        (Mechanism.AES_CTR, KeyType.AES, known.CTR, IvParameters),
        (Mechanism.AES_CBC, KeyType.AES, known.CBC, IvParameters),
        (Mechanism.CHACHA20_POLY1305, KeyType.CHACHA20, known.CHACHA20_POLY1305, AeadParameters),
    ],
)
def test_encryption_gives_the_published_ciphertext(
    mechanism: Mechanism, key_type: KeyType, row: Row, kind: type[Message]
) -> None:
    key = load(key_type, ObjectClass.SECRET_KEY, _(row, "key"))
    parameters = pack_parameters(kind(**{name: _(row, name) for name in ("iv", "aad") if name in row}))
    encrypted = encrypter(mechanism, key, IvSource(), parameters, caller_ivs=True)(_(row, "plaintext"))
    assert encrypted == (_(row, "ciphertext"), _(row, "iv"))
    assert decrypter(mechanism, key, parameters)(_(row, "ciphertext")) == _(row, "plaintext")


@pytest.mark.parametrize("mechanism", [name for name, rule in MECHANISM_RULES.items() if Use.DIGEST in rule.uses])
def test_digests_are_hashlibs(mechanism: Mechanism) -> None:
    assert digester(mechanism)(b"abc") == hashlib.new(mechanism.name.lower(), b"abc").digest()


def test_what_is_no_digest_is_refused() -> None:
    with pytest.raises(LnhError, match="AES_GCM does not digest"):
        digester(Mechanism.AES_GCM)
