"""Makes objects of values: keys that come in, certificates and data (C_CreateObject, PKCS#11 v3.1, 5.7.1).

Pure. What only the HSM says of an object it says here too: a key that came in is not LOCAL, counts neither as always
SENSITIVE nor as never EXTRACTABLE, and what describes it is computed from its value.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lnh_common import limits
from lnh_common.errors import (
    AttributeInvalid,
    KeySizeRange,
    LimitReached,
    PolicyForbids,
    TemplateIncomplete,
    TemplateInconsistent,
)
from lnh_common.messages.session import Role
from lnh_common.pkcs11.algorithms import AES_BYTES, CHACHA20_BYTES, GENERIC_SECRET_BYTES
from lnh_common.pkcs11.attributes import ATTRIBUTES, SENSITIVE_KEYS, Attribute, Attributes, KeyType, ObjectClass
from lnh_services.hsm.objects import policy as rules
from lnh_services.hsm.objects.describing import check_rsa_size, describe, read_private, read_public
from lnh_services.hsm.objects.generate import Generated, check_value
from lnh_services.hsm.objects.policy import Policy, check_new
from lnh_services.hsm.objects.templates import IMPORTED, History, check_template, complete, complete_other

_A = Attribute
_O = ObjectClass
_UNIQUE_ID_BYTES: Final = 16
_CHECK_BYTES: Final = 3
_SECRET_SIZES: Final[dict[KeyType, tuple[int, ...] | range]] = {
    KeyType.AES: AES_BYTES,
    KeyType.CHACHA20: (CHACHA20_BYTES,),
    KeyType.GENERIC_SECRET: range(GENERIC_SECRET_BYTES[0], GENERIC_SECRET_BYTES[1] + 1),
}
_MAKER: Final = "this value"


def create(template: Attributes, value: bytes, policy: Policy, role: Role = Role.KRCO) -> Generated:
    """Make an object of a value that comes in in plaintext.

    Args:
        template: as `attributes.parse_template` gives it; it names CLASS, and KEY_TYPE of a secret key.
        value: the bytes of a secret key, PKCS#8 DER of a private key, SubjectPublicKeyInfo DER of a public key, DER of
            an X.509 certificate, or data. Of a certificate or data it may be VALUE in the template instead.
        policy: in force in the keyring; secret and private keys come in only where its `import` is true.
        role: of the session; only the KRSO may say TRUSTED.

    Raises TemplateIncomplete, TemplateInconsistent, AttributeInvalid, AttributeReadOnly, KeySizeRange, LimitReached,
    PermissionDenied, PolicyForbids, each naming what it is about.
    """
    if _A.CLASS not in template:
        raise TemplateIncomplete("CLASS is missing")
    object_class = ObjectClass(template[_A.CLASS])  # type: ignore[arg-type]  # its rule says that it is an int
    if object_class in SENSITIVE_KEYS and not policy.import_keys:
        raise PolicyForbids("plaintext keys do not come in; the policy's import can allow it")
    if object_class in (_O.CERTIFICATE, _O.DATA):
        return _create_other(template, object_class, value, role)
    if not value:
        raise TemplateIncomplete("the value is missing")
    material = read_key(object_class, key_type_of(template), value)
    return make_key(template, material, policy, role, IMPORTED, _MAKER)


def key_type_of(template: Attributes) -> KeyType | None:
    """Return the KEY_TYPE that a template names."""
    value = template.get(_A.KEY_TYPE)
    assert value is None or isinstance(value, int), "KEY_TYPE is an int; its rule says so"
    return None if value is None else KeyType(value)


class Material(NamedTuple):
    """The value of a key, read and found to be one.

    Args:
        key_type: KEY_TYPE.
        facts: the attributes that describe it.
        value: as an object keeps it.
    """

    object_class: ObjectClass
    key_type: KeyType
    facts: Attributes
    value: bytes

    def __repr__(self) -> str:
        return f"Material({self.key_type.name} {self.object_class.name}, redacted)"


def read_key(object_class: ObjectClass, key_type: KeyType | None, value: bytes) -> Material:
    """Read the value of a key that was not drawn here.

    Args:
        object_class: of the key.
        key_type: of a secret key; the value of another says it itself.
        value: as of `create`.

    Raises TemplateIncomplete, TemplateInconsistent, AttributeInvalid, KeySizeRange.
    """
    if object_class is _O.SECRET_KEY:
        return _read_secret(key_type, value)
    if object_class is _O.PRIVATE_KEY:
        private, value = read_private(value)
        described = describe(private.public_key())
        facts = described.both
    else:
        public, value = read_public(value)
        described = describe(public)
        facts = described.both | described.public
        if isinstance(bits := described.public.get(_A.MODULUS_BITS), int):
            check_rsa_size(bits)
    return Material(object_class, described.key_type, facts, value)


def _read_secret(key_type: KeyType | None, value: bytes) -> Material:
    if key_type is None:
        raise TemplateIncomplete("KEY_TYPE is missing")
    check_secret_length(key_type, len(value))
    facts: Attributes = {_A.VALUE_LEN: len(value), _A.CHECK_VALUE: check_value(key_type, value)}
    return Material(_O.SECRET_KEY, key_type, facts, bytes(value))


def check_secret_length(key_type: KeyType, length: int) -> None:
    """Raise KeySizeRange for a secret key that cannot have so many bytes, TemplateInconsistent for no secret key."""
    sizes = _SECRET_SIZES.get(key_type)
    if sizes is None:
        raise TemplateInconsistent(f"KEY_TYPE {key_type.name} is of no secret key")
    if length not in sizes:
        wanted = f"{sizes[0]} to {sizes[-1]}" if isinstance(sizes, range) else " or ".join(map(str, sizes))
        raise KeySizeRange(f"a value of {length} bytes; {key_type.name} has {wanted}")


def make_key(
    template: Attributes, material: Material, policy: Policy, role: Role, history: History, maker: str
) -> Generated:
    """Make a key of what was read.

    Args:
        template: of the key; it may repeat what describes the value.
        policy, role: as of `create`.
        history: what the HSM alone says of where the key comes from.
        maker: what makes it, for messages.

    Raises as `create` does.
    """
    object_class, key_type, facts, value = material
    # Also where the HSM alone says it: PUBLIC_KEY_INFO goes along with keys.
    given = {name: said for name, said in template.items() if name not in facts or object_class is _O.SECRET_KEY}
    check_template(given, object_class, key_type, role, maker)
    _check_facts(template, facts)
    attributes = complete(given, object_class, key_type, history, _unique_id(), policy.key_uses) | facts
    check_new(attributes, policy, role)
    return Generated(attributes, value)


def _check_facts(template: Attributes, facts: Attributes) -> None:
    """Raise TemplateInconsistent where a template says something else of a value than is true of it."""
    for name, fact in facts.items():
        if template.get(name, fact) != fact:
            raise TemplateInconsistent(f"{name.name}: the value has another")


def _unique_id() -> str:
    return os.urandom(_UNIQUE_ID_BYTES).hex()


def _create_other(template: Attributes, object_class: ObjectClass, value: bytes, role: Role) -> Generated:
    """Make a certificate or a data object, whose VALUE is an attribute that everybody may read."""
    if value:
        if template.get(_A.VALUE, value) != value:
            raise TemplateInconsistent("VALUE: the template contradicts the value")
        template = template | {_A.VALUE: value}
    check_template(template, object_class, None, role, _MAKER)
    attributes = complete_other(template, object_class, _unique_id())
    if object_class is _O.CERTIFICATE:
        attributes |= certificate_facts(attributes, template)
    check_size(attributes)
    check_new(attributes, Policy(), role)
    return Generated(attributes, b"")


def change(attributes: Attributes, template: Attributes, role: Role) -> Attributes:
    """Change attributes as `policy.change` does; what the VALUE of a certificate says is said anew.

    Raises as that does, and as `create`.
    """
    return _restated(rules.change(attributes, template, role), template)


def copy(attributes: Attributes, template: Attributes, role: Role) -> Attributes:
    """Make the attributes of a copy as `policy.copy` does; what the VALUE of a certificate says is said anew."""
    copied = rules.copy(attributes, template, role, _unique_id())
    return _restated(copied, template)


def _restated(changed: Attributes, template: Attributes) -> Attributes:
    if _A.VALUE in template:
        check_size(changed)
    if changed[_A.CLASS] == _O.CERTIFICATE and not CERTIFICATE_FACTS.isdisjoint(template):
        changed = changed | certificate_facts(changed, template)
    return changed


def check_size(attributes: Attributes) -> None:
    """Raise LimitReached for a certificate or data beyond their limits."""
    value = attributes[_A.VALUE]
    assert isinstance(value, bytes), "VALUE is bytes; its rule says so"
    most = limits.CERTIFICATE_BYTES if attributes[_A.CLASS] == _O.CERTIFICATE else limits.DATA_BYTES
    if len(value) > most:
        raise LimitReached(f"VALUE of {len(value)} bytes; at most {most}")


# What of a certificate its VALUE says.
CERTIFICATE_FACTS: Final = frozenset({_A.VALUE, _A.SUBJECT, _A.ISSUER, _A.SERIAL_NUMBER})


def certificate_facts(attributes: Attributes, template: Attributes) -> Attributes:
    """Compute the attributes of a certificate that its VALUE determines.

    Args:
        attributes: with the VALUE.
        template: what the caller says; it may repeat the facts.

    Raises TemplateIncomplete without a VALUE, AttributeInvalid for one that is no certificate, TemplateInconsistent.
    """
    value = attributes.get(_A.VALUE)
    if not value:
        raise TemplateIncomplete("VALUE is missing")
    assert isinstance(value, bytes), "VALUE is bytes; its rule says so"
    try:
        certificate = x509.load_der_x509_certificate(value)
        subject, issuer = certificate.subject.public_bytes(), certificate.issuer.public_bytes()
        serial = _der_integer(certificate.serial_number)
        info = _public_key_info(certificate)
    except ValueError:
        raise AttributeInvalid("VALUE is no X.509 certificate in DER") from None
    facts: Attributes = {_A.SUBJECT: subject, _A.ISSUER: issuer, _A.SERIAL_NUMBER: serial}
    for name, fact in facts.items():
        assert isinstance(fact, bytes), "names and numbers are DER"
        least, most = ATTRIBUTES[name].size
        if not least <= len(fact) <= most:
            raise AttributeInvalid(f"{name.name}: {len(fact)} bytes; from {least} to {most}")
    _check_facts(template, facts)
    check = hashlib.sha1(value, usedforsecurity=False).digest()[:_CHECK_BYTES]
    return facts | {_A.CHECK_VALUE: check, _A.PUBLIC_KEY_INFO: info}


def _public_key_info(certificate: x509.Certificate) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate; empty for a kind of key that the library does not know."""
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except UnsupportedAlgorithm:
        return b""


def _der_integer(number: int) -> bytes:
    """Encode a serial number as SERIAL_NUMBER has it: a DER INTEGER (PKCS#11 v3.1, 4.6.3)."""
    body = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
    assert len(body) < 0x80, "RFC 5280 has 20 bytes, and the library's parser not many more"
    return bytes([0x02, len(body)]) + body
