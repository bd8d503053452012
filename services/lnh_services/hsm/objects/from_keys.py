"""Makes keys that come out of other keys: unwrapped, derived, agreed on. Pure.

What they may be `key_rules` decides; that the other key may be used so was checked before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lnh_common.errors import (
    AttributeInvalid,
    KeyFunctionNotPermitted,
    KeySizeRange,
    TemplateIncomplete,
    TemplateInconsistent,
)
from lnh_common.messages.session import Role
from lnh_common.pkcs11.algorithms import CHACHA20_BYTES
from lnh_common.pkcs11.attributes import SENSITIVE_KEYS, Attribute, Attributes, KeyType, ObjectClass
from lnh_services.hsm.crypto.mechanisms.base import LoadedKey
from lnh_services.hsm.crypto.mechanisms.keywrap import invalid
from lnh_services.hsm.objects import key_rules
from lnh_services.hsm.objects import policy as rules
from lnh_services.hsm.objects.create import check_secret_length, key_type_of, make_key, read_key
from lnh_services.hsm.objects.generate import Generated
from lnh_services.hsm.objects.policy import Policy
from lnh_services.hsm.objects.templates import IMPORTED, History

_A = Attribute
_O = ObjectClass
_SECRET: Final = _O.SECRET_KEY
_BLOCK: Final = 8  # bytes that AES key wrap takes at once
SHARED_SECRET_BYTES: Final = 32  # of ML-KEM (FIPS 203, table 3)


def value_of(key: LoadedKey) -> bytes:
    """Return the value of a secret or private key, as it is wrapped: its bytes, or PKCS#8 DER."""
    if key.object_class is _SECRET:
        return key.secret
    assert not isinstance(key.material, bytes), "a private key is no bytes"
    assert key.object_class is _O.PRIVATE_KEY, "public keys are exported, not wrapped"
    return key.material.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[union-attr]


def readable_value(attributes: Attributes, key: LoadedKey) -> bytes:
    """Return the value of a key that may be read in plaintext.

    Raises AttributeSensitive for any other, and KeyFunctionNotPermitted for a public key.
    """
    if attributes[_A.CLASS] == _O.PUBLIC_KEY:
        raise KeyFunctionNotPermitted("VALUE of a public key is no secret: it is in PUBLIC_KEY_INFO")
    rules.check_readable(attributes)
    return value_of(key)


def unwrapped(
    base: Attributes, template: Attributes, unwrap: Callable[[], bytes], policy: Policy, role: Role
) -> Generated:
    """Make the key that was wrapped (C_UnwrapKey, PKCS#11 v3.1, 5.18.4).

    Args:
        base: attributes of the unwrapping key.
        template: of the new key: its CLASS and KEY_TYPE are wanted where the base's UNWRAP_TEMPLATE does not fix them.
        unwrap: unwraps; called once all that can be refused beforehand was.
        policy, role: as of `create`.

    Raises WrappedKeyInvalid with one text for whatever is wrong with what was wrapped; else as `create` does.
    """
    wanted = key_rules.template_of(base, _A.UNWRAP_TEMPLATE) | template
    for name in (_A.CLASS, _A.KEY_TYPE):
        if name not in wanted:
            raise TemplateIncomplete(f"{name.name} is missing: the unwrapping key's UNWRAP_TEMPLATE does not fix it")
    object_class = ObjectClass(wanted[_A.CLASS])  # type: ignore[arg-type]  # its rule says that it is an int
    key_type = key_type_of(wanted)
    assert key_type is not None, "checked above"
    if object_class not in SENSITIVE_KEYS:
        raise TemplateInconsistent(f"CLASS {object_class.name}: secret and private keys are unwrapped")
    full = key_rules.template_for_unwrapped(base, template, object_class, key_type, policy)
    value = unwrap()
    if object_class is _O.PRIVATE_KEY:
        value = without_padding(value)
    try:
        material = read_key(object_class, key_type, value)
    except (AttributeInvalid, KeySizeRange):
        raise invalid() from None
    if material.key_type is not key_type:
        raise invalid()
    return make_key(full, material, policy, role, IMPORTED, "unwrapping")


def without_padding(value: bytes) -> bytes:
    """Drop the zeros that some tokens put behind a PKCS#8 to fill a block of 8 bytes, even where the mechanism pads.

    DER says where it ends; what is no such thing is returned as it is, and refused by whoever reads it.
    """
    if len(value) < 2 or value[0] != 0x30:  # a SEQUENCE
        return value
    longer = value[1] & 0x7F if value[1] & 0x80 else 0
    length = int.from_bytes(value[2 : 2 + longer], "big") if longer else value[1]
    end = 2 + longer + length
    behind = value[end:]
    return value[:end] if len(behind) < _BLOCK and not any(behind) else value


def derived(
    base: Attributes, template: Attributes, derive: Callable[[int], bytes], policy: Policy, role: Role
) -> Generated:
    """Make a secret key out of another, or of an agreement on a curve (C_DeriveKey, PKCS#11 v3.1, 5.18.5).

    Args:
        base: attributes of the key that it is derived from.
        template: of the new key: KEY_TYPE, and VALUE_LEN where its type has several lengths.
        derive: gives so many bytes.
        policy, role: as of `create`.

    Raises as `create` does.
    """
    wanted = key_rules.template_of(base, _A.DERIVE_TEMPLATE) | template
    key_type, length = _secret_wanted(wanted, None)
    full = key_rules.template_for_derived(base, template, key_type, policy)
    return make_key(full, read_key(_SECRET, key_type, derive(length)), policy, role, _history_from(base), "deriving")


def _history_from(base: Attributes) -> History:
    """Return the history of what is derived: that of its base, unless another side has it too.

    The other side of an agreement on a curve is whoever the caller says, so it may be the caller.
    """
    if base[_A.CLASS] == _O.PRIVATE_KEY:
        return IMPORTED
    return History(
        local=False,
        mechanism=None,
        always_sensitive=base.get(_A.ALWAYS_SENSITIVE) is True,
        never_extractable=base.get(_A.NEVER_EXTRACTABLE) is True,
    )


def agreed(base: Attributes, template: Attributes, agree: Callable[[], bytes], policy: Policy, role: Role) -> Generated:
    """Make a secret key of what was encapsulated (C_EncapsulateKey and C_DecapsulateKey, PKCS#11 v3.2).

    Args:
        base: attributes of the public or private key.
        template: of the new key: KEY_TYPE.
        agree: gives the shared secret.
        policy, role: as of `create`.

    Raises as `create` does.
    """
    key_type, length = _secret_wanted(template, SHARED_SECRET_BYTES)
    if length != SHARED_SECRET_BYTES:
        raise KeySizeRange(f"VALUE_LEN {length}; a shared secret has {SHARED_SECRET_BYTES} bytes")
    full = key_rules.template_for_agreed(base, template, key_type, policy)
    return make_key(full, read_key(_SECRET, key_type, agree()), policy, role, IMPORTED, "agreeing")


def _secret_wanted(template: Attributes, default: int | None) -> tuple[KeyType, int]:
    """Return type and length of the secret key that a template asks for."""
    key_type = key_type_of(template)
    if key_type is None:
        raise TemplateIncomplete("KEY_TYPE is missing")
    if template.get(_A.CLASS, _SECRET) != _SECRET:
        raise TemplateInconsistent("CLASS: a secret key is made")
    fallback = CHACHA20_BYTES if key_type is KeyType.CHACHA20 else default
    length = template.get(_A.VALUE_LEN, fallback)
    if length is None:
        raise TemplateIncomplete("VALUE_LEN is missing")
    assert isinstance(length, int), "VALUE_LEN is an int; its rule says so"
    check_secret_length(key_type, length)
    return key_type, length
