"""Inputs at the edges of what mechanisms take: empty messages, digests beside the order, salts, labels, two hashes."""

from __future__ import annotations

import hashlib
from itertools import product

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lnh_common.errors import (
    DataLength,
    EncryptedDataInvalid,
    KeySizeRange,
    MechanismParameterInvalid,
    SignatureInvalid,
)
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import CURVES, Hash
from lnh_common.pkcs11.attributes import KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
from lnh_common.pkcs11.parameters import (
    IvParameters,
    MacParameters,
    OaepParameters,
    PssParameters,
    pack_parameters,
)
from lnh_services.hsm.crypto.mechanisms import (
    IvSource,
    LoadedKey,
    accumulator,
    cipher,
    decrypter,
    digester,
    encrypter,
    load,
    load_object,
    served,
    signer,
    verifier,
    wrapper,
)
from models.keys import KINDS, SECRETS, pair, secret

M = Mechanism
BARE = {
    Hash.SHA1: hashes.SHA1(),
    Hash.SHA256: hashes.SHA256(),
    Hash.SHA384: hashes.SHA384(),
    Hash.SHA512: hashes.SHA512(),
}
# These take a digest, or what is made of one, and no message.
OF_DIGESTS = (M.ECDSA, M.RSA_PKCS, M.RSA_PKCS_PSS)
RSA_BYTES = 256


def halves(kind: str) -> tuple[LoadedKey, LoadedKey]:
    """The key to sign or decrypt with, and the one to verify or encrypt with."""
    if kind in SECRETS:
        return (key := load_object(*secret(kind))), key
    public, private = pair(kind)
    return load_object(*private), load_object(*public)


def of_use(use: Use) -> list[tuple[Mechanism, str]]:
    """Each mechanism of this use with each kind of key that it takes."""
    return [
        (mechanism, kind)
        for mechanism, rule in MECHANISM_RULES.items()
        for kind, (key_type, _) in KINDS.items()
        if use in served(mechanism) and key_type in rule.key_types
    ]


def tagged(mechanism: Mechanism) -> Message | None:
    return MacParameters(length=32) if MECHANISM_RULES[mechanism].parameters is MacParameters else None


def bare_key(kind: str) -> object:
    return load_der_public_key(pair(kind)[0].value)


@pytest.mark.parametrize(("mechanism", "kind"), of_use(Use.SIGN))
def test_the_empty_message_is_signed_as_any_other_is(mechanism: Mechanism, kind: str) -> None:
    inner, outer = halves(kind)
    packed = pack_parameters(tagged(mechanism))
    sign, verify = signer(mechanism, inner, packed), verifier(mechanism, outer, packed)
    if mechanism in OF_DIGESTS:
        with pytest.raises(DataLength):
            sign(b"")
        return
    verify(b"", sign(b""))
    with pytest.raises(SignatureInvalid):
        verify(b"\0", sign(b""))
    with pytest.raises(SignatureInvalid):
        verify(b"", sign(b"\0"))


@pytest.mark.parametrize(("mechanism", "kind"), of_use(Use.ENCRYPT))
def test_the_empty_message_is_encrypted_as_any_other_is(mechanism: Mechanism, kind: str) -> None:
    inner, outer = halves(kind)
    sealed = encrypter(mechanism, outer, IvSource())(b"")
    rule = MECHANISM_RULES[mechanism]
    packed = pack_parameters(rule.parameters(iv=sealed.iv) if rule.iv_bytes else None)
    assert decrypter(mechanism, inner, packed)(sealed.data) == b""


@pytest.mark.parametrize("mechanism", [each for each, rule in MECHANISM_RULES.items() if Use.DIGEST in rule.uses])
def test_the_empty_message_is_hashed_as_any_other_is(mechanism: Mechanism) -> None:
    expected = hashlib.new(mechanism.name.lower(), b"").digest()
    assert digester(mechanism)(b"") == expected
    assert accumulator(mechanism, Use.DIGEST, None).finish() == expected


@pytest.mark.parametrize("mechanism", [M.AES_CMAC, M.SHA256_HMAC, M.SHA384_HMAC_GENERAL])
def test_a_tag_of_no_parts_is_the_empty_messages(mechanism: Mechanism) -> None:
    key = halves("AES-256" if mechanism is M.AES_CMAC else "GENERIC_SECRET")[0]
    packed = pack_parameters(tagged(mechanism))
    assert accumulator(mechanism, Use.SIGN, key, packed).finish() == signer(mechanism, key, packed)(b"")


@pytest.mark.parametrize("mechanism", [M.AES_GCM, M.AES_CBC, M.AES_CBC_PAD, M.AES_CTR, M.AES_ECB])
def test_a_ciphertext_of_no_parts_is_the_empty_messages(mechanism: Mechanism) -> None:
    key = halves("AES-256")[0]
    iv, running = cipher(mechanism, Use.ENCRYPT, key, IvSource())
    rule = MECHANISM_RULES[mechanism]
    packed = pack_parameters(rule.parameters(iv=iv) if rule.iv_bytes else None)
    sealed = running.finish()
    assert encrypter(mechanism, key, IvSource(), packed, caller_ivs=True)(b"").data == sealed
    assert decrypter(mechanism, key, packed)(sealed) == b""


def test_no_empty_ciphertext_passes_for_one_with_a_tag_or_a_padding() -> None:
    key = halves("AES-256")[0]
    with pytest.raises(EncryptedDataInvalid):
        decrypter(M.AES_CBC_PAD, key, pack_parameters(IvParameters(iv=bytes(16))))(b"")
    with pytest.raises(EncryptedDataInvalid):
        decrypter(M.RSA_PKCS_OAEP, halves("RSA")[0])(b"")


def test_no_key_of_no_bytes_is_wrapped() -> None:
    with pytest.raises(KeySizeRange):
        wrapper(M.AES_KEY_WRAP, halves("AES-256")[0])(b"")


@pytest.mark.parametrize("kind", [name for name, curve in CURVES.items() if curve.key_type is KeyType.EC])
@pytest.mark.parametrize("hash_", [Hash.SHA256, Hash.SHA384, Hash.SHA512])
def test_a_digest_shorter_or_longer_than_the_order_signs_as_the_standard_says(kind: str, hash_: Hash) -> None:
    inner, outer = halves(kind)
    public = bare_key(kind)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    message = b"a digest of 32 to 64 bytes beside an order of 32 to 66"
    digest = hashlib.new(hash_.name.lower(), message).digest()
    hashed = Mechanism[f"ECDSA_{hash_.name}"]
    for signature in (signer(M.ECDSA, inner)(digest), signer(hashed, inner)(message)):
        size = len(signature) // 2
        der = utils.encode_dss_signature(
            int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        )
        public.verify(der, message, ec.ECDSA(BARE[hash_]))
        verifier(M.ECDSA, outer)(digest, signature)
        verifier(hashed, outer)(message, signature)
    if len(digest) > CURVES[kind].size:
        # Only the leftmost bits of the order's length count (FIPS 186-5, 6.4.1).
        verifier(M.ECDSA, outer)(digest[:-1] + bytes([digest[-1] ^ 1]), signature)


@pytest.mark.parametrize("hash_", [Hash.SHA256, Hash.SHA384, Hash.SHA512])
@pytest.mark.parametrize("which", ["none", "the hash's", "the most"])
def test_pss_takes_every_salt_from_none_to_the_most(hash_: Hash, which: str) -> None:
    most = RSA_BYTES - hash_.size - 2
    salt = {"none": 0, "the hash's": hash_.size, "the most": most}[which]
    inner, outer = halves("RSA")
    public = bare_key("RSA")
    assert isinstance(public, rsa.RSAPublicKey)
    mechanism, packed = Mechanism[f"{hash_.name}_RSA_PKCS_PSS"], pack_parameters(PssParameters(salt_length=salt))
    signature = signer(mechanism, inner, packed)(b"message")
    public.verify(signature, b"message", padding.PSS(padding.MGF1(BARE[hash_]), salt), BARE[hash_])
    with pytest.raises(InvalidSignature):
        public.verify(
            signature, b"message", padding.PSS(padding.MGF1(BARE[hash_]), salt + 1 if salt < most else 0), BARE[hash_]
        )
    verifier(mechanism, outer, packed)(b"message", signature)
    raw = pack_parameters(PssParameters(hash=hash_, salt_length=salt))
    digest = hashlib.new(hash_.name.lower(), b"message").digest()
    verifier(M.RSA_PKCS_PSS, outer, raw)(digest, signature)
    verifier(mechanism, outer, packed)(b"message", signer(M.RSA_PKCS_PSS, inner, raw)(digest))
    with pytest.raises(MechanismParameterInvalid, match=str(most)):
        signer(mechanism, inner, pack_parameters(PssParameters(salt_length=most + 1)))


@pytest.mark.parametrize(("hash_", "mask"), list(product((Hash.SHA1, Hash.SHA256, Hash.SHA512), repeat=2)))
def test_oaep_takes_a_label_and_two_hashes(hash_: Hash, mask: Hash) -> None:
    inner, outer = halves("RSA")
    public = bare_key("RSA")
    assert isinstance(public, rsa.RSAPublicKey)
    pad = padding.OAEP(padding.MGF1(BARE[mask]), BARE[hash_], b"label")
    packed = pack_parameters(OaepParameters(hash=hash_, label=b"label", mgf=mask))
    assert decrypter(M.RSA_PKCS_OAEP, inner, packed)(public.encrypt(b"message", pad)) == b"message"
    sealed = encrypter(M.RSA_PKCS_OAEP, outer, IvSource(), packed)(b"message").data
    assert decrypter(M.RSA_PKCS_OAEP, inner, packed)(sealed) == b"message"
    others = [OaepParameters(hash=hash_, label=b"Label", mgf=mask), OaepParameters(hash=hash_, mgf=mask)]
    others += [OaepParameters(hash=hash_, label=b"label")] if mask is not hash_ else []
    for other in others:
        with pytest.raises(EncryptedDataInvalid):
            decrypter(M.RSA_PKCS_OAEP, inner, pack_parameters(other))(sealed)


def test_oaeps_mask_is_of_a_hash_that_oaep_has() -> None:
    key = load(KeyType.RSA, ObjectClass.PUBLIC_KEY, pair("RSA")[0].value)
    with pytest.raises(MechanismParameterInvalid, match="mgf"):
        encrypter(M.RSA_PKCS_OAEP, key, IvSource(), pack_parameters(OaepParameters(mgf=Hash.SHA3_256)))
