"""Feeds data of any length to hashes, tags and the modes of AES, part by part.

What a part gives is the library's own; nothing is computed twice, and only what must be is held back.
"""

from __future__ import annotations

from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hashes import Hash as Context
from cryptography.hazmat.primitives.hmac import HMAC

from lnh_common import limits
from lnh_common.errors import DataLength
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import AES_BLOCK
from lnh_common.pkcs11.mechanisms import MechanismRule
from lnh_common.pkcs11.parameters import AeadParameters, IvParameters, MacParameters
from lnh_services.hsm.crypto.mechanisms.base import HASHES, LoadedKey, Running, undecryptable

_TAG: Final = 16


class _Accumulating(Protocol):
    def update(self, data: bytes) -> None: ...

    def finalize(self) -> bytes: ...


class _Accumulator:
    """A hash or a tag: nothing until the end."""

    def __init__(self, context: _Accumulating, length: int | None = None) -> None:
        self._context = context
        self._length = length

    def update(self, data: bytes) -> bytes:
        self._context.update(data)
        return b""

    def finish(self) -> bytes:
        return self._context.finalize()[: self._length]


def digest(key: LoadedKey | None, parameters: Message, rule: MechanismRule) -> Running:
    """Hash with SHA-2 or SHA-3."""
    assert rule.hash is not None, "the row names its hash"
    return _Accumulator(Context(HASHES[rule.hash]))


def hmac(key: LoadedKey | None, parameters: Message, rule: MechanismRule) -> Running:
    """Make a tag with SHAxxx_HMAC, whole or of `length` bytes."""
    assert rule.hash is not None, "the row names its hash"
    assert key is not None, "a tag has a key"
    length = parameters.length if isinstance(parameters, MacParameters) else None
    return _Accumulator(HMAC(key.secret, HASHES[rule.hash]), length)


def cmac(key: LoadedKey | None, parameters: Message, rule: MechanismRule) -> Running:
    """Make a tag with AES_CMAC."""
    assert key is not None, "a tag has a key"
    return _Accumulator(CMAC(key.once(algorithms.AES)))


class _Blocks:
    """A mode without padding; `whole` says that it takes whole blocks only."""

    def __init__(self, context: CipherContext, *, encrypts: bool, whole: bool) -> None:
        self._context = context
        self._encrypts = encrypts
        self._whole = whole
        self._taken = 0

    def update(self, data: bytes) -> bytes:
        self._taken = _counted(self._taken, data)
        return self._context.update(data)

    def finish(self) -> bytes:
        if self._whole and self._taken % AES_BLOCK:
            if self._encrypts:
                raise DataLength(f"{self._taken} bytes; a multiple of {AES_BLOCK} wanted")
            raise undecryptable()
        return self._context.finalize()


class _Padded:
    """CBC with PKCS #7 padding."""

    def __init__(self, context: CipherContext, *, encrypts: bool) -> None:
        pkcs7 = padding.PKCS7(algorithms.AES.block_size)
        self._blocks = _Blocks(context, encrypts=encrypts, whole=True)
        self._encrypts = encrypts
        self._padding = pkcs7.padder() if encrypts else pkcs7.unpadder()

    def update(self, data: bytes) -> bytes:
        if self._encrypts:
            return self._blocks.update(self._padding.update(data))
        return self._padding.update(self._blocks.update(data))

    def finish(self) -> bytes:
        if self._encrypts:
            return self._blocks.update(self._padding.finalize()) + self._blocks.finish()
        last = self._blocks.finish()
        try:
            return self._padding.update(last) + self._padding.finalize()
        except ValueError:
            raise undecryptable() from None


class _SealsGcm:
    """GCM that encrypts: the tag is the last."""

    def __init__(self, key: algorithms.AES, iv: bytes, aad: bytes) -> None:
        self._context = Cipher(key, modes.GCM(iv)).encryptor()
        self._context.authenticate_additional_data(aad)
        self._taken = 0

    def update(self, data: bytes) -> bytes:
        self._taken = _counted(self._taken, data)
        return self._context.update(data)

    def finish(self) -> bytes:
        return self._context.finalize() + self._context.tag


class _OpensGcm:
    """GCM that decrypts: the last 16 bytes are held back, for they may be the tag."""

    def __init__(self, key: algorithms.AES, iv: bytes, aad: bytes) -> None:
        self._context = Cipher(key, modes.GCM(iv)).decryptor()
        self._context.authenticate_additional_data(aad)
        self._held = b""
        self._taken = 0

    def update(self, data: bytes) -> bytes:
        joined = self._held + data
        ready, self._held = joined[:-_TAG], joined[-_TAG:]
        self._taken = _counted(self._taken, ready)
        return self._context.update(ready)

    def finish(self) -> bytes:
        if len(self._held) < _TAG:
            raise undecryptable()
        try:
            return self._context.finalize_with_tag(self._held)
        except InvalidTag:
            raise undecryptable() from None


def _counted(taken: int, data: bytes) -> int:
    """Count what was taken; raises DataLength for more than a counter of 32 bits counts under one IV."""
    if taken + len(data) > limits.STREAMED_BYTES:
        raise DataLength(f"more than {limits.STREAMED_BYTES} bytes under one IV")
    return taken + len(data)


def _context(key: LoadedKey, mode: modes.CBC | modes.CTR | modes.ECB, encrypts: bool) -> CipherContext:
    cipher = Cipher(key.once(algorithms.AES), mode)
    return cipher.encryptor() if encrypts else cipher.decryptor()


def _iv(parameters: Message) -> bytes:
    assert isinstance(parameters, IvParameters), "the row names its parameters"
    return parameters.iv


def cbc(key: LoadedKey, parameters: Message, encrypts: bool) -> Running:
    """Encrypt or decrypt with AES_CBC."""
    return _Blocks(_context(key, modes.CBC(_iv(parameters)), encrypts), encrypts=encrypts, whole=True)


def cbc_pad(key: LoadedKey, parameters: Message, encrypts: bool) -> Running:
    """Encrypt or decrypt with AES_CBC_PAD."""
    return _Padded(_context(key, modes.CBC(_iv(parameters)), encrypts), encrypts=encrypts)


def ctr(key: LoadedKey, parameters: Message, encrypts: bool) -> Running:
    """Encrypt or decrypt with AES_CTR."""
    return _Blocks(_context(key, modes.CTR(_iv(parameters)), encrypts), encrypts=encrypts, whole=False)


def ecb(key: LoadedKey, parameters: Message, encrypts: bool) -> Running:
    """Encrypt or decrypt with AES_ECB; off unless a policy's weak_mechanisms allows it."""
    context = _context(key, modes.ECB(), encrypts)  # noqa: S305  # PKCS#11 applications may need it
    return _Blocks(context, encrypts=encrypts, whole=True)


def gcm(key: LoadedKey, parameters: Message, encrypts: bool) -> Running:
    """Encrypt or decrypt with AES_GCM; what is decrypted is not verified before the end."""
    assert isinstance(parameters, AeadParameters), "the row names its parameters"
    kind = _SealsGcm if encrypts else _OpensGcm
    return kind(key.once(algorithms.AES), parameters.iv, parameters.aad)
