"""The paths of a NetHSM that keys are used by: a thin profile over a keyring (docs/nethsm.md).

A user is `KEYRING~krco`. A key is found by its id: its label, where that is an id and no other key has it, or else its
handle.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from lnh.aio.objects.keys import Key, PrivateKey, SecretKey, StoredObject
from lnh.objects import encoding
from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, KeyFunctionNotPermitted, LnhError, NameTaken, ObjectUnknown
from lnh_common.messages.base import Message
from lnh_common.pkcs11.attributes import Attribute, Attributes, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Use
from lnh_common.pkcs11.parameters import IvParameters
from lnh_common.text import json_text
from lnh_rest import nethsm_modes
from lnh_rest.base import Text, plain
from lnh_rest.nethsm_modes import Mode
from lnh_rest.nethsm_shapes import (
    NetHsmDecrypt,
    NetHsmEncrypt,
    NetHsmKeyMade,
    NetHsmNewKey,
    NetHsmRandom,
    NetHsmSign,
    NetHsmState,
)
from lnh_rest.problems import Refused
from lnh_rest.route import Call

_ID: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_HANDLE: Final = re.compile(r"[0-9a-f]{32}")
_USABLE: Final = (ObjectClass.PRIVATE_KEY, ObjectClass.SECRET_KEY)
_NOT_NOW: Final = 412


async def nethsm_info(_: Call) -> Text:
    """Say what this is."""
    return _json({"vendor": "lnh", "product": "software HSM cluster"})


async def nethsm_alive(call: Call) -> None:
    """Say that the service is there and no member answers it."""
    if await _state(call) is NetHsmState.OPERATIONAL:
        raise Refused(ArgumentInvalid("it is operational", {"advice": "ask /health/ready"}), _NOT_NOW)


async def nethsm_ready(call: Call) -> None:
    """Say that a member answers."""
    await call.readiness.check(call.cluster)


async def nethsm_state(call: Call) -> Text:
    """Say whether a member answers."""
    return _json({"state": (await _state(call)).value})


async def nethsm_random(call: Call) -> Text:
    """Draw random bytes from the HSM."""
    return _json({"random": await call.holder.random(call.given(NetHsmRandom).length)})


async def nethsm_list_keys(call: Call) -> Text:
    """List the ids of the keyring's keys."""
    return _json([{"id": each} for each in sorted((await _keys(call)).values())])


async def nethsm_show_key(call: Call) -> Text:
    """Show a key: what it is and may, and its public half."""
    key = await _key(call)
    kind = nethsm_modes.kind_of(key.attributes)
    if kind is None:
        raise KeyFunctionNotPermitted(
            f"NetHSM has no name for a key of type {key.key_type.name}", {"advice": "GET /v1/objects"}
        )
    shown: dict[str, Any] = {
        "mechanisms": nethsm_modes.allowed(key.attributes),
        "type": kind.name,
        "restrictions": {},
        "operations": 0,
    }
    if isinstance(key, PrivateKey):
        shown["public"] = _public(key)
    return _json(shown)


async def nethsm_public_key(call: Call) -> Text:
    """Show the public half of a key in PEM."""
    key = await _key(call)
    if not isinstance(key, PrivateKey):
        raise KeyFunctionNotPermitted("a secret key has no public half", {"advice": "name another key"})
    return Text(encoding.pem("PUBLIC KEY", _bytes(key, Attribute.PUBLIC_KEY_INFO)))


async def nethsm_generate_key(call: Call) -> NetHsmKeyMade:
    """Generate a key, or a key pair."""
    new = call.given(NetHsmNewKey)
    for name, given in (("restrictions", new.restrictions.tags), ("label", new.label)):
        if given:
            raise ArgumentInvalid(
                f"{name}: not kept here", {"advice": "leave it out; a keyring's holders use all its keys"}
            )
    kind = nethsm_modes.kind_called(new.type)
    modes = nethsm_modes.modes_called(new.mechanisms, kind)
    key_id = new.id or secrets.token_hex(10)
    found = call.holder.find({Attribute.LABEL: key_id}, current=True)
    if [each async for each in found if each.object_class in _USABLE] or _HANDLE.fullmatch(key_id):
        raise NameTaken(f"a key has the id {key_id}", {"advice": "take another id"})
    uses = {each.use for each in modes}
    named: Attributes = {
        Attribute.LABEL: key_id,
        Attribute.ALLOWED_MECHANISMS: sorted({each.mechanism.value for each in modes}),
    }
    if kind.key_type is KeyType.AES:
        await call.holder.generate_key(kind.key_type, new.length, template=named)
    else:
        signs, decrypts = Use.SIGN in uses, Use.DECRYPT in uses
        of_rsa = kind.key_type is KeyType.RSA
        await call.holder.generate_keypair(
            kind.key_type,
            new.length if of_rsa else None,
            curve=kind.curve,
            private={**named, Attribute.SIGN: signs, **({Attribute.DECRYPT: decrypts} if of_rsa else {})},
            public={**named, Attribute.VERIFY: signs, **({Attribute.ENCRYPT: decrypts} if of_rsa else {})},
            timeout=limits.REST_SLOW_SECONDS,
        )
    return NetHsmKeyMade(id=key_id)


async def nethsm_delete_key(call: Call) -> None:
    """Destroy a key, and its public half."""
    key = await _key(call)
    if isinstance(key, PrivateKey):
        half: Attributes = {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY.value,
            Attribute.PUBLIC_KEY_INFO: _bytes(key, Attribute.PUBLIC_KEY_INFO),
        }
        for public in [each async for each in call.holder.find(half, current=True)]:
            await public.destroy()
    await key.destroy()


async def nethsm_sign(call: Call) -> Text:
    """Sign with a private key."""
    asked = call.given(NetHsmSign)
    key = await _key(call)
    mode = _mode(key, asked.mode, Use.SIGN)
    assert isinstance(key, PrivateKey), "only private keys have these modes"
    return _json({"signature": await key.sign(asked.message, mode.mechanism, mode.parameters, der=mode.der)})


async def nethsm_decrypt(call: Call) -> Text:
    """Decrypt with a private or a secret key."""
    asked = call.given(NetHsmDecrypt)
    key = await _key(call)
    mode = _mode(key, asked.mode, Use.DECRYPT)
    assert isinstance(key, PrivateKey | SecretKey), "only these have these modes"
    if isinstance(mode.parameters, IvParameters) and not asked.iv:
        raise ArgumentInvalid("iv: missing", {"advice": "give the iv that encrypting answered"})
    given = _with_iv(mode, asked.iv)
    return _json({"decrypted": await key.decrypt(asked.encrypted, mode.mechanism, given)})


async def nethsm_encrypt(call: Call) -> Text:
    """Encrypt with a secret key; the HSM draws the IV unless the policy lets callers give one."""
    asked = call.given(NetHsmEncrypt)
    key = await _key(call)
    mode = _mode(key, asked.mode, Use.ENCRYPT)
    assert isinstance(key, SecretKey), "only secret keys have these modes"
    made = await key.encrypt(asked.message, mode.mechanism, _with_iv(mode, asked.iv))
    return _json({"encrypted": made.ciphertext, "iv": made.iv})


async def _state(call: Call) -> NetHsmState:
    try:
        await call.readiness.check(call.cluster)
    except LnhError:
        return NetHsmState.LOCKED
    return NetHsmState.OPERATIONAL


async def _keys(call: Call) -> dict[bytes, str]:
    """List the ids of the keyring's private and secret keys, by handle."""
    found = {
        each.handle: each.label
        for kind in _USABLE
        async for each in call.holder.find({Attribute.CLASS: kind.value}, current=True)
    }
    often = Counter(found.values())
    return {
        handle: label if often[label] == 1 and _ID.fullmatch(label) and not _HANDLE.fullmatch(label) else handle.hex()
        for handle, label in found.items()
    }


async def _key(call: Call) -> Key:
    """Find the key of the id that the path names; raises ObjectUnknown, or MemberBehind where that cannot be told."""
    key_id = call.path["key"]
    if _HANDLE.fullmatch(key_id):
        keys = _usable([await call.holder.get_object(bytes.fromhex(key_id))])
    elif _ID.fullmatch(key_id):
        listing = call.holder.find({Attribute.LABEL: key_id})
        keys = _usable([each async for each in listing])
        if len(keys) != 1 and not listing.current:  # a member that is behind may lack the key
            keys = _usable([each async for each in call.holder.find({Attribute.LABEL: key_id}, current=True)])
    else:
        keys = []
    if len(keys) != 1:
        raise ObjectUnknown("no key has this id", {"advice": "GET /api/v1/keys lists them"})
    return keys[0]


def _usable(found: Iterable[StoredObject]) -> list[Key]:
    return [each for each in found if isinstance(each, PrivateKey | SecretKey)]


def _mode(key: Key, name: str, use: Use) -> Mode:
    """Find the mode that a request names; raises MechanismInvalid, KeyFunctionNotPermitted."""
    mode = nethsm_modes.mode_called(name, use, key.key_type)
    having = nethsm_modes.allowed(key.attributes)
    if mode.allows not in having:
        raise KeyFunctionNotPermitted(
            f"the key has not the mechanism {mode.allows}", {"advice": f"it has {', '.join(having)}"}
        )
    return mode


def _with_iv(mode: Mode, iv: bytes | None) -> Message | None:
    if mode.parameters is None or iv is None:
        return mode.parameters
    if not isinstance(mode.parameters, IvParameters):
        raise ArgumentInvalid(f"iv: {mode.mode} takes none", {"advice": "leave it out"})
    return msgspec.structs.replace(mode.parameters, iv=iv)


def _public(key: PrivateKey) -> dict[str, bytes]:
    """Show a public half: two numbers of RSA, or a point."""
    if key.key_type is KeyType.RSA:
        names = {"modulus": Attribute.MODULUS, "publicExponent": Attribute.PUBLIC_EXPONENT}
        return {name: _bytes(key, attribute) for name, attribute in names.items()}
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

    public = load_der_public_key(_bytes(key, Attribute.PUBLIC_KEY_INFO))
    if isinstance(public, EllipticCurvePublicKey):
        return {"data": public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)}
    return {"data": public.public_bytes(Encoding.Raw, PublicFormat.Raw)}


def _bytes(key: Key, attribute: Attribute) -> bytes:
    value = key[attribute]
    assert isinstance(value, bytes), f"{attribute.name} is bytes"
    return value


def _json(value: Any) -> Text:
    return Text(json_text(plain(value, data=True)))
