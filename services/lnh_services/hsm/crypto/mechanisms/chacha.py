"""Encrypts with ChaCha20-Poly1305 (RFC 8439)."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from lnh_common.messages.base import Message
from lnh_common.pkcs11.mechanisms import MechanismRule
from lnh_common.pkcs11.parameters import AeadParameters
from lnh_services.hsm.crypto.mechanisms.base import Decrypter, Encrypted, Encrypter, IvSource, LoadedKey, undecryptable


def encrypt(key: LoadedKey, parameters: Message, rule: MechanismRule, ivs: IvSource) -> Encrypter:
    """Encrypt with CHACHA20_POLY1305: ciphertext || tag of 16 bytes."""
    assert isinstance(parameters, AeadParameters), "the row names its parameters"
    aead, aad = key.once(ChaCha20Poly1305), parameters.aad or None
    chosen = parameters.iv

    def encrypt_data(data: bytes) -> Encrypted:
        iv = chosen or ivs.next()
        return Encrypted(aead.encrypt(iv, data, aad), iv)

    return encrypt_data


def decrypt(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Decrypter:
    """Decrypt with CHACHA20_POLY1305."""
    assert isinstance(parameters, AeadParameters), "the row names its parameters"
    aead, aad = key.once(ChaCha20Poly1305), parameters.aad or None
    iv = parameters.iv

    def decrypt_data(data: bytes) -> bytes:
        try:
            return aead.decrypt(iv, data, aad)
        except InvalidTag:
            raise undecryptable() from None

    return decrypt_data
