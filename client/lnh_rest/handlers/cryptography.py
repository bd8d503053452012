"""Uses of keys, and random bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec

from lnh.aio.objects.uses import DecryptingKey, EncryptingKey, SigningKey, VerifyingKey
from lnh.objects import encoding, streaming
from lnh_common.errors import LnhError, MechanismParameterInvalid
from lnh_common.messages.base import Message
from lnh_common.messages.objects import StreamedUse
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
from lnh_common.pkcs11.parameters import AeadParameters, IvParameters
from lnh_rest import attributes, streams
from lnh_rest.base import Stream
from lnh_rest.handlers.making import chosen, usable
from lnh_rest.key_shapes import (
    DecryptedMany,
    DecryptMany,
    Digested,
    DigestQuery,
    EncryptedMany,
    EncryptMany,
    Outcome,
    SignedMany,
    SignMany,
    StreamQuery,
)
from lnh_rest.problems import Refused, problem
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


async def sign(call: Call) -> Signed:
    """Sign data with a private key, or make its tag with a secret key."""
    asked = call.given(Sign)
    key = await usable(call, SigningKey, Use.SIGN)
    how = chosen(key, Use.SIGN, asked.mechanism, asked.parameters)
    return Signed(signature=await key.sign(asked.data, *how, der=asked.der))


async def verify(call: Call) -> Verified:
    """Verify a signature with a public key, or a tag with a secret key."""
    asked = call.given(Verify)
    key = await usable(call, VerifyingKey, Use.VERIFY)
    how = chosen(key, Use.VERIFY, asked.mechanism, asked.parameters)
    return Verified(valid=await key.verify(asked.data, asked.signature, *how, der=asked.der))


async def encrypt(call: Call) -> Encrypted:
    """Encrypt data with a public or a secret key."""
    asked = call.given(Encrypt)
    key = await usable(call, EncryptingKey, Use.ENCRYPT)
    how = chosen(key, Use.ENCRYPT, asked.mechanism, asked.parameters)
    return Encrypted(ciphertext=bytes(await key.encrypt(asked.data, *how)))


async def decrypt(call: Call) -> Decrypted:
    """Decrypt data with a private or a secret key; one refusal answers every way that it can fail."""
    asked = call.given(Decrypt)
    key = await usable(call, DecryptingKey, Use.DECRYPT)
    how = chosen(key, Use.DECRYPT, asked.mechanism, asked.parameters)
    return Decrypted(data=await key.decrypt(asked.ciphertext, *how))


async def random(call: Call) -> RandomData:
    """Draw random bytes from the HSM."""
    return RandomData(data=await call.holder.random(call.given(RandomLength).length))


async def sign_many(call: Call) -> SignedMany:
    """Sign many messages with one key, each by itself, in order."""
    asked = call.given(SignMany)
    key = await usable(call, SigningKey, Use.SIGN)
    which, given = chosen(key, Use.SIGN, asked.mechanism, asked.parameters)
    found = await key.sign_many(asked.messages, which, given, return_errors=True)
    der = partial(encoding.ecdsa_to_der, which) if asked.der else bytes
    return SignedMany(results=_outcomes(call, found, der))


async def encrypt_many(call: Call) -> EncryptedMany:
    """Encrypt many messages with one key, each under an IV of its own that the HSM draws."""
    asked = call.given(EncryptMany)
    key = await usable(call, EncryptingKey, Use.ENCRYPT)
    found = await key.encrypt_many(
        asked.messages, *chosen(key, Use.ENCRYPT, asked.mechanism, asked.parameters), return_errors=True
    )
    return EncryptedMany(results=_outcomes(call, found))


async def decrypt_many(call: Call) -> DecryptedMany:
    """Decrypt many that encrypting made, each with its own IV in front, where there is one."""
    asked = call.given(DecryptMany)
    key = await usable(call, DecryptingKey, Use.DECRYPT)
    found = await key.decrypt_many(
        asked.ciphertexts, *chosen(key, Use.DECRYPT, asked.mechanism, asked.parameters), return_errors=True
    )
    return DecryptedMany(results=_outcomes(call, found))


async def digest(call: Call) -> Digested:
    """Hash data of any length in the HSM."""
    assert call.parts is not None, "the route's row says that it takes bytes"
    which = attributes.mechanism(call.given(DigestQuery).mechanism)
    streaming.check_parts(call.holder, which)
    fields = streaming.fields_of(StreamedUse.DIGEST, b"", b"", which, None)
    found = b""
    async for result in streams.feed(call.holder, call.parts, fields):
        found = result.data
    return Digested(digest=found)


async def encrypt_stream(call: Call) -> Stream:
    """Encrypt data of any length; the answer begins once all of it came."""
    assert call.parts is not None, "the route's row says that it takes bytes"
    key = await usable(call, EncryptingKey, Use.ENCRYPT)
    which, given = _streamed(call, key, Use.ENCRYPT)
    fields = streaming.fields_of(StreamedUse.ENCRYPT, key.handle, key.sealed, which, given)
    spool = await streams.spooled(streams.feed(call.holder, call.parts, fields), with_iv=True)
    return Stream(spool.parts(), spool.length)


async def decrypt_stream(call: Call) -> Stream:
    """Decrypt data of any length; the answer begins once all of it came and, where there is a tag, holds."""
    assert call.parts is not None, "the route's row says that it takes bytes"
    key = await usable(call, DecryptingKey, Use.DECRYPT)
    which, given = _streamed(call, key, Use.DECRYPT)
    rule = MECHANISM_RULES[which]
    parts = call.parts
    if rule.iv_bytes:
        iv, parts = await streams.split(parts, rule.iv_bytes)
        parameters = given if given is not None else rule.parameters()
        assert isinstance(parameters, IvParameters | AeadParameters), "it takes an IV"
        given = msgspec.structs.replace(parameters, iv=iv)
    fields = streaming.fields_of(StreamedUse.DECRYPT, key.handle, key.sealed, which, given)
    spool = await streams.spooled(streams.feed(call.holder, parts, fields))
    return Stream(spool.parts(), spool.length)


def _streamed(call: Call, key: Any, use: Use) -> tuple[Mechanism, Message | None]:
    """Choose mechanism and parameters of a long input; raises DataLength, MechanismParameterInvalid."""
    query = call.given(StreamQuery)
    which, _ = chosen(key, use, query.mechanism, {})
    streaming.check_parts(call.holder, which)
    if query.aad is None:
        return which, None
    if not issubclass(MECHANISM_RULES[which].parameters, AeadParameters):
        raise MechanismParameterInvalid(f"{which.name} takes no aad")
    return which, attributes.parameters(which, {"aad": query.aad})


def _outcomes(
    call: Call, found: Iterable[bytes | LnhError], shape: Callable[[bytes], bytes] = bytes
) -> tuple[Outcome, ...]:
    return tuple(
        Outcome(problem=problem(Refused(each), call.request))
        if isinstance(each, LnhError)
        else Outcome(result=shape(each))
        for each in found
    )
