"""Uses of keys, and random bytes."""

from __future__ import annotations

from typing import Any, TypeVar

from lnh.aio import StoredObject
from lnh.aio.objects.uses import DecryptingKey, EncryptingKey, SigningKey, VerifyingKey
from lnh_common.errors import KeyFunctionNotPermitted
from lnh_common.messages.base import Message
from lnh_common.pkcs11.mechanisms import Mechanism, Use
from lnh_rest import attributes
from lnh_rest.route import Call
from lnh_rest.shapes import (
    Decrypt,
    Decrypted,
    Encrypt,
    Encrypted,
    RandomData,
    RandomLength,
    Sign,
    Signed,
    Verified,
    Verify,
)

K = TypeVar("K", bound=StoredObject)


async def sign(call: Call) -> Signed:
    """Sign data with a private key, or make its tag with a secret key."""
    asked = call.given(Sign)
    key = await _key(call, SigningKey, Use.SIGN)
    how = _how(key, Use.SIGN, asked.mechanism, asked.parameters)
    return Signed(signature=await key.sign(asked.data, *how, der=asked.der))


async def verify(call: Call) -> Verified:
    """Verify a signature with a public key, or a tag with a secret key."""
    asked = call.given(Verify)
    key = await _key(call, VerifyingKey, Use.VERIFY)
    how = _how(key, Use.VERIFY, asked.mechanism, asked.parameters)
    return Verified(valid=await key.verify(asked.data, asked.signature, *how, der=asked.der))


async def encrypt(call: Call) -> Encrypted:
    """Encrypt data with a public or a secret key."""
    asked = call.given(Encrypt)
    key = await _key(call, EncryptingKey, Use.ENCRYPT)
    how = _how(key, Use.ENCRYPT, asked.mechanism, asked.parameters)
    return Encrypted(ciphertext=bytes(await key.encrypt(asked.data, *how)))


async def decrypt(call: Call) -> Decrypted:
    """Decrypt data with a private or a secret key; one refusal answers every way that it can fail."""
    asked = call.given(Decrypt)
    key = await _key(call, DecryptingKey, Use.DECRYPT)
    how = _how(key, Use.DECRYPT, asked.mechanism, asked.parameters)
    return Decrypted(data=await key.decrypt(asked.ciphertext, *how))


async def random(call: Call) -> RandomData:
    """Draw random bytes from the HSM."""
    return RandomData(data=await call.holder.random(call.given(RandomLength).length))


async def _key(call: Call, kind: type[K], use: Use) -> K:
    found = await call.holder.get_object(call.handle)
    if not isinstance(found, kind):
        said = f"a {type(found).__name__} does not {use.value}"
        raise KeyFunctionNotPermitted(said, {"advice": "name the handle of the other half, or of another key"})
    return found


def _how(key: Any, use: Use, name: str | None, given: dict[str, Any]) -> tuple[Mechanism, Message | None]:
    which = key.default_mechanism(use) if name is None else attributes.mechanism(name)
    return which, attributes.parameters(which, given)
