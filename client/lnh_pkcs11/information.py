"""What the gateway says of itself, of slots, tokens and mechanisms, as PKCS#11 has it. Pure."""

from __future__ import annotations

import re
from typing import Final

from lnh_common import VERSION, limits
from lnh_common.messages.admin import KeyringView
from lnh_common.pkcs11.algorithms import AES_BYTES, CHACHA20_BYTES, CURVES, GENERIC_SECRET_BYTES, RSA_BITS
from lnh_common.pkcs11.attributes import KeyType
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
from lnh_pkcs11.application import Token
from lnh_pkcs11.numbers import EFFECTIVELY_INFINITE, UNAVAILABLE, MechanismFlag, SlotFlag, TokenFlag
from lnh_pkcs11.ways import Way

MANUFACTURER: Final = "lnh"
DESCRIPTION: Final = "PKCS#11 gateway of lnh"
MODEL: Final = "keyring"
_F = MechanismFlag
_FLAGS: Final = {
    Use.GENERATE: _F.GENERATE,
    Use.GENERATE_PAIR: _F.GENERATE_KEY_PAIR,
    Use.SIGN: _F.SIGN,
    Use.VERIFY: _F.VERIFY,
    Use.ENCRYPT: _F.ENCRYPT,
    Use.DECRYPT: _F.DECRYPT,
    Use.WRAP: _F.WRAP,
    Use.UNWRAP: _F.UNWRAP,
    Use.DERIVE: _F.DERIVE,
    Use.ENCAPSULATE: _F.ENCAPSULATE,
    Use.DECAPSULATE: _F.DECAPSULATE,
    Use.DIGEST: _F.DIGEST,
}
_K = KeyType


def _bits(key_type: KeyType) -> tuple[int, int]:
    found = [curve.bits for curve in CURVES.values() if curve.key_type is key_type]
    return min(found), max(found)


# Least and most of a key, in the unit that PKCS#11 has for mechanisms of its type: bits, of AES and CHACHA20 bytes.
_SIZES: Final[dict[KeyType, tuple[int, int]]] = {
    _K.RSA: (RSA_BITS[0], RSA_BITS[-1]),
    _K.EC: _bits(_K.EC),
    _K.EC_EDWARDS: _bits(_K.EC_EDWARDS),
    _K.EC_MONTGOMERY: _bits(_K.EC_MONTGOMERY),
    _K.AES: (AES_BYTES[0], AES_BYTES[-1]),
    _K.CHACHA20: (CHACHA20_BYTES, CHACHA20_BYTES),
    _K.GENERIC_SECRET: (GENERIC_SECRET_BYTES[0] * 8, GENERIC_SECRET_BYTES[1] * 8),
}


def version() -> tuple[int, int]:
    """Return the product's version as CK_VERSION has one."""
    major, minor = re.findall(r"\d+", VERSION)[:2]
    return int(major), int(minor)


def padded(text: str, size: int) -> bytes:
    """Encode text, cut at a character where it is too long, and fill it up with spaces."""
    encoded = text.encode()[:size].decode(errors="ignore").encode()
    return encoded.ljust(size)


def slot(token: Token) -> tuple[bytes, bytes, int, tuple[int, int], tuple[int, int]]:
    """Return the fields of a CK_SLOT_INFO."""
    description = f"{token.cluster.label}: {token.keyring.label}"
    return padded(description, 64), padded(MANUFACTURER, 32), int(SlotFlag.TOKEN_PRESENT), version(), version()


def serial(keyring: bytes) -> str:
    """Return the serial number of a keyring's token: the first half of its id."""
    return keyring.hex()[:16]


def token(of: Token, sessions: int, read_write: int) -> tuple[object, ...]:
    """Return the fields of a CK_TOKEN_INFO.

    Args:
        sessions, read_write: the sessions that the application has there, and how many of them are read-write.
    """
    flags = TokenFlag.RNG | TokenFlag.LOGIN_REQUIRED | TokenFlag.TOKEN_INITIALIZED
    roles = of.keyring.view.roles
    if "krco" in roles or not roles:  # who is not told what credentials there are supposes that there are
        flags |= TokenFlag.USER_PIN_INITIALIZED
    if "krso-first" in roles:
        flags |= TokenFlag.SO_PIN_TO_BE_CHANGED
    if of.behind:
        flags |= TokenFlag.WRITE_PROTECTED
    least, most = limits.PASSWORD_CHARACTERS
    memory = (UNAVAILABLE,) * 4
    names = (padded(of.keyring.label, 32), padded(MANUFACTURER, 32), padded(MODEL, 16))
    counts = (EFFECTIVELY_INFINITE, sessions, EFFECTIVELY_INFINITE, read_write)
    identity = padded(serial(of.keyring.id), 16)
    return (*names, identity, int(flags), *counts, most, least, *memory, version(), version(), padded("", 16))


def mechanisms(way: Way, view: KeyringView) -> list[Mechanism]:
    """List the mechanisms of a token that come through this way in."""
    return [each for each in MECHANISM_RULES if way.passes(each) and uses(each, view)]


def uses(mechanism: Mechanism, view: KeyringView) -> frozenset[Use]:
    """Return the uses of a mechanism that the keyring's own policy leaves."""
    row = MECHANISM_RULES[mechanism]
    allowed = view.policy.get("allowed_mechanisms")
    if allowed and mechanism.value not in allowed and row.uses != {Use.DIGEST}:
        return frozenset()
    weak = view.policy.get("weak_mechanisms") or ()
    return row.uses if mechanism.value in weak else row.uses - row.weak


def mechanism(of: Mechanism, view: KeyringView, way: Way) -> tuple[int, int, int]:
    """Return the fields of a CK_MECHANISM_INFO."""
    row = MECHANISM_RULES[of]
    flags = MechanismFlag(0)
    for use in uses(of, view):
        flags |= _FLAGS[use]
    if of in (Mechanism.AES_GCM, Mechanism.CHACHA20_POLY1305) and way.own:
        flags |= _F.MESSAGE_ENCRYPT | _F.MESSAGE_DECRYPT
    if row.key_types & {_K.EC, _K.EC_EDWARDS, _K.EC_MONTGOMERY}:
        flags |= _F.EC_F_P | _F.EC_OID | _F.EC_UNCOMPRESS
    sizes = [_SIZES[each] for each in row.key_types if each in _SIZES]
    least, most = min((size[0] for size in sizes), default=0), max((size[1] for size in sizes), default=0)
    return least, most, int(flags)
