"""Encrypts with AES: GCM, CBC (padded or not), CTR and ECB (SP 800-38A and D)."""

from __future__ import annotations

import os
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lnh_common.errors import DataLength
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import AES_BLOCK, GCM_IV_BYTES
from lnh_common.pkcs11.mechanisms import MechanismRule, Scheme
from lnh_common.pkcs11.parameters import AeadParameters, IvParameters
from lnh_services.hsm.crypto.mechanisms.base import Decrypter, Encrypted, Encrypter, IvSource, LoadedKey, undecryptable

_CTR_START: Final = bytes(AES_BLOCK - GCM_IV_BYTES)
_PADDING: Final = padding.PKCS7(algorithms.AES.block_size)
_AnyCipher: TypeAlias = Cipher[modes.CBC] | Cipher[modes.CTR] | Cipher[modes.ECB]


def draw_iv(scheme: Scheme, ivs: IvSource) -> bytes:
    """Draw the IV of a message under a scheme.

    A CBC IV must not be foreseen, so it is random and not of `ivs`. A first counter block of CTR is an IV of `ivs` and
    32 zero bits, so no two messages overlap.
    """
    if scheme in (Scheme.CBC, Scheme.CBC_PAD):
        return os.urandom(AES_BLOCK)
    return ivs.next() + _CTR_START if scheme is Scheme.CTR else ivs.next()


def encrypt_gcm(key: LoadedKey, parameters: Message, rule: MechanismRule, ivs: IvSource) -> Encrypter:
    """Encrypt with AES_GCM: ciphertext || tag of 16 bytes."""
    assert isinstance(parameters, AeadParameters), "the row names its parameters"
    aead, aad = key.once(AESGCM), parameters.aad or None
    if chosen := parameters.iv:
        return lambda data: Encrypted(aead.encrypt(chosen, data, aad), chosen)

    def encrypt(data: bytes) -> Encrypted:
        iv = ivs.next()
        return Encrypted(aead.encrypt(iv, data, aad), iv)

    return encrypt


def decrypt_gcm(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Decrypter:
    """Decrypt with AES_GCM."""
    assert isinstance(parameters, AeadParameters), "the row names its parameters"
    iv, aead, aad = parameters.iv, key.once(AESGCM), parameters.aad or None

    def decrypt(data: bytes) -> bytes:
        try:
            return aead.decrypt(iv, data, aad)
        except InvalidTag:
            raise undecryptable() from None

    return decrypt


def encrypt_cbc(key: LoadedKey, parameters: Message, rule: MechanismRule, ivs: IvSource) -> Encrypter:
    """Encrypt whole blocks with AES_CBC."""
    aes, chosen = key.once(algorithms.AES), _block_iv(parameters)

    def encrypt(data: bytes) -> Encrypted:
        _check_blocks(data)
        iv = chosen or draw_iv(Scheme.CBC, ivs)
        return Encrypted(_encrypt(Cipher(aes, modes.CBC(iv)), data), iv)

    return encrypt


def decrypt_cbc(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Decrypter:
    """Decrypt with AES_CBC."""
    return _decrypter(Cipher(key.once(algorithms.AES), modes.CBC(_block_iv(parameters))))


def encrypt_cbc_pad(key: LoadedKey, parameters: Message, rule: MechanismRule, ivs: IvSource) -> Encrypter:
    """Encrypt with AES_CBC_PAD: PKCS #7 padding."""
    blocks = encrypt_cbc(key, parameters, rule, ivs)

    def encrypt(data: bytes) -> Encrypted:
        padder = _PADDING.padder()
        return blocks(padder.update(data) + padder.finalize())

    return encrypt


def decrypt_cbc_pad(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Decrypter:
    """Decrypt with AES_CBC_PAD."""
    blocks = decrypt_cbc(key, parameters, rule)

    def decrypt(data: bytes) -> bytes:
        padded = blocks(data)
        unpadder = _PADDING.unpadder()
        try:
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError:
            raise undecryptable() from None

    return decrypt


def encrypt_ctr(key: LoadedKey, parameters: Message, rule: MechanismRule, ivs: IvSource) -> Encrypter:
    """Encrypt with AES_CTR."""
    aes, chosen = key.once(algorithms.AES), _block_iv(parameters)

    def encrypt(data: bytes) -> Encrypted:
        iv = chosen or draw_iv(Scheme.CTR, ivs)
        return Encrypted(_encrypt(Cipher(aes, modes.CTR(iv)), data), iv)

    return encrypt


def decrypt_ctr(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Decrypter:
    """Decrypt with AES_CTR; any data decrypts, for nothing authenticates it."""
    cipher = Cipher(key.once(algorithms.AES), modes.CTR(_block_iv(parameters)))

    def decrypt(data: bytes) -> bytes:
        context = cipher.decryptor()
        return context.update(data) + context.finalize()

    return decrypt


def encrypt_ecb(key: LoadedKey, parameters: Message, rule: MechanismRule, ivs: IvSource) -> Encrypter:
    """Encrypt whole blocks with AES_ECB; off unless a policy's weak_mechanisms allows it."""
    cipher = Cipher(key.once(algorithms.AES), modes.ECB())  # noqa: S305  # PKCS#11 applications may need it

    def encrypt(data: bytes) -> Encrypted:
        _check_blocks(data)
        return Encrypted(_encrypt(cipher, data), b"")

    return encrypt


def decrypt_ecb(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Decrypter:
    """Decrypt with AES_ECB."""
    return _decrypter(Cipher(key.once(algorithms.AES), modes.ECB()))  # noqa: S305


def _block_iv(parameters: Message) -> bytes:
    assert isinstance(parameters, IvParameters), "the row names its parameters"
    return parameters.iv


def _check_blocks(data: bytes) -> None:
    if len(data) % AES_BLOCK:
        raise DataLength(f"{len(data)} bytes; a multiple of {AES_BLOCK} wanted")


def _encrypt(cipher: _AnyCipher, data: bytes) -> bytes:
    context = cipher.encryptor()
    return context.update(data) + context.finalize()


def _decrypter(cipher: _AnyCipher) -> Decrypter:
    def decrypt(data: bytes) -> bytes:
        if len(data) % AES_BLOCK:
            raise undecryptable()
        context = cipher.decryptor()
        return context.update(data) + context.finalize()

    return decrypt
