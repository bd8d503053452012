"""Signs and encrypts with RSA: PKCS #1 v1.5, PSS and OAEP (RFC 8017)."""

from __future__ import annotations

from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, utils
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from lnh_common.errors import DataLength, MechanismParameterInvalid, SignatureInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import Hash
from lnh_common.pkcs11.mechanisms import MechanismRule
from lnh_common.pkcs11.parameters import HashedParameters, OaepParameters
from lnh_common.pkcs11.parameters import PssParameters as Pss
from lnh_services.hsm.crypto.mechanisms.base import (
    HASHES,
    Decrypter,
    Encrypted,
    Encrypter,
    IvSource,
    LoadedKey,
    Signer,
    Verifier,
    check_length,
    undecryptable,
)

_PKCS1: Final = padding.PKCS1v15()
_PKCS1_OVERHEAD: Final = 11  # RFC 8017, 7.2.1 and 9.2: at least eight bytes of padding and three of framing
_Algorithm: TypeAlias = hashes.HashAlgorithm | utils.Prehashed


def private_of(key: LoadedKey) -> RSAPrivateKey:
    """Return an RSA private key's material."""
    assert isinstance(key.material, RSAPrivateKey), "the table pairs key types and mechanisms"
    return key.material


def public_of(key: LoadedKey) -> RSAPublicKey:
    """Return an RSA public key's material."""
    assert isinstance(key.material, RSAPublicKey), "the table pairs key types and mechanisms"
    return key.material


def size_of(key: RSAPrivateKey | RSAPublicKey) -> int:
    """Count the bytes of the modulus."""
    return (key.key_size + 7) // 8


def sign_raw(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Signer:
    """Sign with RSA_PKCS: the caller made the DigestInfo; 1 byte to the modulus less 11."""
    private, none = private_of(key), utils.NoDigestInfo()
    most = size_of(private) - _PKCS1_OVERHEAD

    def sign(data: bytes) -> bytes:
        _check_raw(data, most)
        return private.sign(data, _PKCS1, none)

    return sign


def verify_raw(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Verifier:
    """Verify RSA_PKCS, as `sign_raw` signs."""
    public, none = public_of(key), utils.NoDigestInfo()
    most = size_of(public) - _PKCS1_OVERHEAD

    def verify(data: bytes, signature: bytes) -> None:
        _check_raw(data, most)
        try:
            # The library's stubs forget that verify takes what sign takes.
            public.verify(signature, data, _PKCS1, none)  # type: ignore[arg-type]
        except InvalidSignature:
            raise SignatureInvalid from None

    return verify


def _check_raw(data: bytes, most: int) -> None:
    if not 1 <= len(data) <= most:
        raise DataLength(f"{len(data)} bytes to sign; from 1 to {most} for this key")


def sign_hashed(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Signer:
    """Sign with SHAxxx_RSA_PKCS."""
    assert rule.hash is not None, "the row names its hash"
    return _signer(key, _PKCS1, rule.hash, _is_digest(parameters))


def verify_hashed(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Verifier:
    """Verify SHAxxx_RSA_PKCS."""
    assert rule.hash is not None, "the row names its hash"
    return _verifier(key, _PKCS1, rule.hash, _is_digest(parameters))


def sign_pss(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Signer:
    """Sign with RSA_PKCS_PSS (a digest) or SHAxxx_RSA_PKCS_PSS."""
    hash_, pad = _pss(size_of(private_of(key)), parameters, rule)
    return _signer(key, pad, hash_, _is_digest(parameters) or rule.hash is None)


def verify_pss(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Verifier:
    """Verify RSA_PKCS_PSS (of a digest) and SHAxxx_RSA_PKCS_PSS."""
    hash_, pad = _pss(size_of(public_of(key)), parameters, rule)
    return _verifier(key, pad, hash_, _is_digest(parameters) or rule.hash is None)


def _pss(modulus_bytes: int, parameters: Message, rule: MechanismRule) -> tuple[Hash, padding.PSS]:
    assert isinstance(parameters, Pss), "the row names its parameters"
    hash_ = parameters.hash or rule.hash or Hash.SHA256
    salt = hash_.size if parameters.salt_length is None else parameters.salt_length
    most = modulus_bytes - hash_.size - 2  # RFC 8017, 9.1.1, step 3
    if salt > most:
        raise MechanismParameterInvalid(f"salt_length {salt}; at most {most} for this key and {hash_.value}")
    return hash_, padding.PSS(padding.MGF1(HASHES[hash_]), salt)


def _is_digest(parameters: Message) -> bool:
    assert isinstance(parameters, HashedParameters), "the row names its parameters"
    return parameters.prehashed


def _signer(key: LoadedKey, pad: padding.AsymmetricPadding, hash_: Hash, prehashed: bool) -> Signer:
    private, algorithm = private_of(key), HASHES[hash_]
    if not prehashed:
        return lambda data: private.sign(data, pad, algorithm)
    digest, size = utils.Prehashed(algorithm), (hash_.size,)

    def sign(data: bytes) -> bytes:
        check_length(data, size, "a digest")
        return private.sign(data, pad, digest)

    return sign


def _verifier(key: LoadedKey, pad: padding.AsymmetricPadding, hash_: Hash, prehashed: bool) -> Verifier:
    public = public_of(key)
    algorithm: _Algorithm = utils.Prehashed(HASHES[hash_]) if prehashed else HASHES[hash_]
    size = (hash_.size,)

    def verify(data: bytes, signature: bytes) -> None:
        if prehashed:
            check_length(data, size, "a digest")
        try:
            public.verify(signature, data, pad, algorithm)
        except InvalidSignature:
            raise SignatureInvalid from None

    return verify


def encrypt_oaep(key: LoadedKey, parameters: Message, rule: MechanismRule, ivs: IvSource) -> Encrypter:
    """Encrypt with RSA_PKCS_OAEP."""
    pad, overhead = oaep(parameters)
    return _encrypter(public_of(key), pad, overhead)


def decrypt_oaep(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Decrypter:
    """Decrypt with RSA_PKCS_OAEP."""
    return _decrypter(private_of(key), oaep(parameters)[0])


def encrypt_pkcs1(key: LoadedKey, parameters: Message, rule: MechanismRule, ivs: IvSource) -> Encrypter:
    """Encrypt with RSA_PKCS; off unless a policy's weak_mechanisms allows it."""
    return _encrypter(public_of(key), _PKCS1, _PKCS1_OVERHEAD)


def decrypt_pkcs1(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Decrypter:
    """Decrypt with RSA_PKCS.

    A wrong padding decrypts to noise (OpenSSL's implicit rejection), which tells an attacker nothing.
    """
    return _decrypter(private_of(key), _PKCS1)


def oaep(parameters: Message) -> tuple[padding.OAEP, int]:
    """Return the padding of RSA_PKCS_OAEP, and the bytes it takes of the modulus."""
    assert isinstance(parameters, OaepParameters), "the row names its parameters"
    algorithm = HASHES[parameters.hash]
    mask = padding.MGF1(HASHES[parameters.mgf or parameters.hash])
    pad = padding.OAEP(mask, algorithm, parameters.label or None)
    return pad, 2 * parameters.hash.size + 2  # RFC 8017, 7.1.1


def _encrypter(public: RSAPublicKey, pad: padding.AsymmetricPadding, overhead: int) -> Encrypter:
    most = size_of(public) - overhead

    def encrypt(data: bytes) -> Encrypted:
        if len(data) > most:
            raise DataLength(f"{len(data)} bytes to encrypt; at most {most} for this key")
        return Encrypted(public.encrypt(data, pad), b"")

    return encrypt


def _decrypter(private: RSAPrivateKey, pad: padding.AsymmetricPadding) -> Decrypter:
    def decrypt(data: bytes) -> bytes:
        try:
            return private.decrypt(data, pad)
        except ValueError:
            raise undecryptable() from None

    return decrypt
