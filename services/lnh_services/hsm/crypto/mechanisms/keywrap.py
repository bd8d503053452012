"""Wraps keys: AES key wrap (RFC 3394, RFC 5649; SP 800-38F), RSA-OAEP, and RSA around AES (PKCS#11 v3.1, 6.1.19)."""

from __future__ import annotations

import os
from typing import Final

from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap,
    aes_key_wrap_with_padding,
)

from lnh_common.errors import KeySizeRange, WrappedKeyInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.mechanisms import MechanismRule
from lnh_services.hsm.crypto.mechanisms.base import LoadedKey, Unwrapper, Wrapper
from lnh_services.hsm.crypto.mechanisms.rsa import oaep, private_of, public_of, size_of

_BLOCK: Final = 8
_LEAST: Final = 16  # bytes that RFC 3394 wraps
_EPHEMERAL_BYTES: Final = 32


def invalid() -> WrappedKeyInvalid:
    """Make the one error that answers every unwrapping that fails."""
    return WrappedKeyInvalid("the data is no key that was wrapped with this key")


def wrap_aes(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Wrapper:
    """Wrap with AES_KEY_WRAP: whole blocks of 8 bytes, 16 bytes at least."""
    secret = key.secret

    def wrap(value: bytes) -> bytes:
        if len(value) < _LEAST or len(value) % _BLOCK:
            advice = {"advice": "wrap it with AES_KEY_WRAP_PAD"}
            raise KeySizeRange(f"a key of {len(value)} bytes; AES_KEY_WRAP takes multiples of {_BLOCK}", advice)
        return aes_key_wrap(secret, value)

    return wrap


def unwrap_aes(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Unwrapper:
    """Unwrap with AES_KEY_WRAP."""
    secret = key.secret

    def unwrap(wrapped: bytes) -> bytes:
        try:
            return aes_key_unwrap(secret, wrapped)
        except (InvalidUnwrap, ValueError):
            raise invalid() from None

    return unwrap


def wrap_aes_pad(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Wrapper:
    """Wrap with AES_KEY_WRAP_PAD, a key of any length."""
    secret = key.secret
    return lambda value: aes_key_wrap_with_padding(secret, value)


def unwrap_aes_pad(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Unwrapper:
    """Unwrap with AES_KEY_WRAP_PAD."""
    return _unwrap_pad(key.secret)


def _unwrap_pad(secret: bytes) -> Unwrapper:
    def unwrap(wrapped: bytes) -> bytes:
        try:
            return aes_key_unwrap_with_padding(secret, wrapped)
        except (InvalidUnwrap, ValueError):
            raise invalid() from None

    return unwrap


def wrap_oaep(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Wrapper:
    """Wrap with RSA_PKCS_OAEP a key that is short enough."""
    public, (pad, overhead) = public_of(key), oaep(parameters)
    most = size_of(public) - overhead

    def wrap(value: bytes) -> bytes:
        if len(value) > most:
            advice = {"advice": "wrap it with RSA_AES_KEY_WRAP"}
            raise KeySizeRange(f"a key of {len(value)} bytes; RSA_PKCS_OAEP wraps {most} with this key", advice)
        return public.encrypt(value, pad)

    return wrap


def unwrap_oaep(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Unwrapper:
    """Unwrap with RSA_PKCS_OAEP."""
    private, (pad, _) = private_of(key), oaep(parameters)

    def unwrap(wrapped: bytes) -> bytes:
        try:
            return private.decrypt(wrapped, pad)
        except ValueError:
            raise invalid() from None

    return unwrap


def wrap_rsa_aes(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Wrapper:
    """Wrap with RSA_AES_KEY_WRAP: a fresh AES key of 256 bits under OAEP, and after it the key under that one."""
    public, (pad, _) = public_of(key), oaep(parameters)

    def wrap(value: bytes) -> bytes:
        ephemeral = os.urandom(_EPHEMERAL_BYTES)
        return public.encrypt(ephemeral, pad) + aes_key_wrap_with_padding(ephemeral, value)

    return wrap


def unwrap_rsa_aes(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Unwrapper:
    """Unwrap with RSA_AES_KEY_WRAP; the AES key within may have any AES length."""
    private, (pad, _) = private_of(key), oaep(parameters)
    size = size_of(private)

    def unwrap(wrapped: bytes) -> bytes:
        try:
            ephemeral = private.decrypt(wrapped[:size], pad)
        except ValueError:
            raise invalid() from None
        return _unwrap_pad(ephemeral)(wrapped[size:])

    return unwrap
