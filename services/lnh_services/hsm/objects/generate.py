"""Makes keys: from templates and a policy to values and complete attributes; nothing is half made.

Everything that can be refused is refused before a key is drawn.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, mlkem, rsa, x448, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lnh_common.errors import (
    AttributeInvalid,
    KeySizeRange,
    MechanismInvalid,
    TemplateIncomplete,
    TemplateInconsistent,
)
from lnh_common.messages.session import Role
from lnh_common.pkcs11.algorithms import (
    AES_BLOCK,
    AES_BYTES,
    CHACHA20_BYTES,
    CURVES_BY_PARAMS,
    GENERIC_SECRET_BYTES,
    ML_DSA_SETS,
    ML_KEM_SETS,
    RSA_BITS,
    Curve,
)
from lnh_common.pkcs11.attributes import Attribute, Attributes, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
from lnh_common.wire import codec
from lnh_services.hsm.crypto.mechanisms.base import PrivateKey, PublicKey
from lnh_services.hsm.objects.policy import NAMES, KeyUses, Policy, check_mechanism, check_new, check_new_pair
from lnh_services.hsm.objects.templates import (
    History,
    check_template,
    complete,
    mirror_templates,
    mirror_uses,
    share_id,
)

_A = Attribute
_EXPONENTS: Final = (65537, 3)  # that the library makes RSA keys with; the first is the default
_CHECK_BYTES: Final = 3
_UNIQUE_ID_BYTES: Final = 16


class Generated(NamedTuple):
    """A new object: its complete attributes, and its value as `loading.load` takes it."""

    attributes: Attributes
    value: bytes

    def __repr__(self) -> str:
        return f"Generated({self.attributes!r}, redacted)"


def generate_key(mechanism: Mechanism, template: Attributes, policy: Policy, role: Role = Role.KRCO) -> Generated:
    """Make a secret key (C_GenerateKey, PKCS#11 v3.1, 5.18.1).

    Args:
        mechanism: one that generates.
        template: as `attributes.parse_template` gives it.
        policy: in force in the keyring.
        role: of the session; only the KRSO may say TRUSTED.

    Raises MechanismInvalid, TemplateInconsistent, TemplateIncomplete, AttributeInvalid, AttributeReadOnly,
    KeySizeRange, PermissionDenied, PolicyForbids, each naming what it is about.
    """
    key_type = _made_by(mechanism, Use.GENERATE)
    check_mechanism(Use.GENERATE, mechanism, policy)
    check_template(template, ObjectClass.SECRET_KEY, key_type, role, mechanism.name)
    length = _SECRET[key_type](template)
    attributes = complete(
        template,
        ObjectClass.SECRET_KEY,
        key_type,
        History.generated(mechanism),
        os.urandom(_UNIQUE_ID_BYTES).hex(),
        policy.key_uses,
    )
    attributes[_A.VALUE_LEN] = length
    check_new(attributes, policy, role)
    value = os.urandom(length)
    attributes[_A.CHECK_VALUE] = check_value(key_type, value)
    return Generated(attributes, value)


@dataclass(frozen=True)
class PlannedPair:
    """A key pair that may be made: all that can be refused has been checked.

    Args:
        is_slow: whether making it takes long enough for others to notice.
    """

    make: Callable[[], tuple[Generated, Generated]]
    is_slow: bool


def generate_key_pair(
    mechanism: Mechanism,
    public_template: Attributes,
    private_template: Attributes,
    policy: Policy,
    role: Role = Role.KRCO,
) -> tuple[Generated, Generated]:
    """Make a key pair, (public, private), as `plan_key_pair` plans it."""
    return plan_key_pair(mechanism, public_template, private_template, policy, role).make()


def plan_key_pair(
    mechanism: Mechanism,
    public_template: Attributes,
    private_template: Attributes,
    policy: Policy,
    role: Role = Role.KRCO,
) -> PlannedPair:
    """Plan a key pair, (public, private) (C_GenerateKeyPair, PKCS#11 v3.1, 5.18.2); raises as `generate_key`.

    The public template says what to generate (MODULUS_BITS, EC_PARAMS, PARAMETER_SET). Where only one template names
    uses or an ID, the other half gets what goes with it. The plan of templates that differ in names alone is kept:
    planning is most of the time of a pair on a curve.
    """
    named = share_id(_names(public_template), _names(private_template))
    kinds = _Kind.of(public_template), _Kind.of(private_template)
    is_usual = all(len(kind.packed) <= _KIND_BYTES for kind in kinds)
    kept = (_planned if is_usual else _planned.__wrapped__)(mechanism, *kinds, policy, role)
    halves = [
        half | names | {_A.UNIQUE_ID: os.urandom(_UNIQUE_ID_BYTES).hex()}
        for half, names in zip((kept.public, kept.private), named, strict=True)
    ]
    return PlannedPair(partial(_make_pair, kept.row, kept.plan, *halves), kept.row.is_slow)


_PLANS_KEPT: Final = 64
_KIND_BYTES: Final = 1024  # of a template without names; what comes of a larger one is not kept


@dataclass(frozen=True)
class _Kind:
    """A template without names; `packed` says whether two are equal."""

    packed: bytes
    template: Attributes = field(compare=False)

    @classmethod
    def of(cls, template: Attributes) -> _Kind:
        rest = {name: value for name, value in template.items() if name not in NAMES}
        return cls(codec.encode({name.value: value for name, value in rest.items()}), rest)


def _names(template: Attributes) -> Attributes:
    return {name: value for name, value in template.items() if name in NAMES}


class _Planned(NamedTuple):
    row: _PairRow
    plan: _Plan
    public: Attributes
    private: Attributes


@lru_cache(_PLANS_KEPT)
def _planned(mechanism: Mechanism, public_kind: _Kind, private_kind: _Kind, policy: Policy, role: Role) -> _Planned:
    """Make a plan without names."""
    key_type = _made_by(mechanism, Use.GENERATE_PAIR)
    check_mechanism(Use.GENERATE_PAIR, mechanism, policy)
    row = _PAIRS[key_type]
    public_template, private_template = public_kind.template, private_kind.template
    check_template(public_template, ObjectClass.PUBLIC_KEY, key_type, role, mechanism.name)
    check_template(private_template, ObjectClass.PRIVATE_KEY, key_type, role, mechanism.name)
    plan = row.plan(public_template)
    public_template, private_template = mirror_uses(public_template, private_template)
    if policy.key_uses is KeyUses.SEPARATED:
        public_template, private_template = mirror_templates(public_template, private_template)
    history = History.generated(mechanism)
    public = complete(public_template, ObjectClass.PUBLIC_KEY, key_type, history, "", policy.key_uses)
    private = complete(private_template, ObjectClass.PRIVATE_KEY, key_type, history, "", policy.key_uses)
    _check_same_parameters(private_template, plan.private)
    public |= plan.public
    private |= plan.private
    check_new_pair(public, private, policy, role)
    return _Planned(row, plan, public, private)


def _make_pair(row: _PairRow, plan: _Plan, public: Attributes, private: Attributes) -> tuple[Generated, Generated]:
    key = plan.generate()
    info = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for attributes in (public, private):
        attributes[_A.PUBLIC_KEY_INFO] = info
    row.describe(key.public_key(), public, private)
    value = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return Generated(public, info), Generated(private, value)


def check_value(key_type: KeyType, value: bytes) -> bytes:
    """Compute CHECK_VALUE (PKCS#11 v3.1, 4.10.2): three bytes.

    They are the first of a block of zeros encrypted, or of the value's SHA-1.
    """
    if key_type is KeyType.AES:
        context = Cipher(algorithms.AES(value), modes.ECB()).encryptor()  # noqa: S305  # the standard's definition
        return (context.update(bytes(AES_BLOCK)) + context.finalize())[:_CHECK_BYTES]
    return hashlib.sha1(value, usedforsecurity=False).digest()[:_CHECK_BYTES]


@dataclass(frozen=True)
class _Plan:
    """The plan of a key: the attributes that describe it beforehand, and the act that generates it."""

    public: Attributes
    private: Attributes
    generate: Callable[[], PrivateKey]


@dataclass(frozen=True)
class _PairRow:
    """The row of a kind of key pair: the demands of the public template, and how the result is described."""

    plan: Callable[[Attributes], _Plan]
    describe: Callable[[PublicKey, Attributes, Attributes], None]
    is_slow: bool = False


def _aes_length(template: Attributes) -> int:
    length = _number(template, _A.VALUE_LEN)
    if length not in AES_BYTES:
        raise KeySizeRange(f"VALUE_LEN {length}; AES has {_listed(AES_BYTES)} bytes")
    return length


def _chacha20_length(template: Attributes) -> int:
    length = template.get(_A.VALUE_LEN, CHACHA20_BYTES)
    if length != CHACHA20_BYTES:
        raise KeySizeRange(f"VALUE_LEN {length!r}; CHACHA20 has {CHACHA20_BYTES} bytes")
    return CHACHA20_BYTES


def _generic_length(template: Attributes) -> int:
    length = _number(template, _A.VALUE_LEN)
    least, most = GENERIC_SECRET_BYTES
    if not least <= length <= most:
        raise KeySizeRange(f"VALUE_LEN {length}; GENERIC_SECRET has {least} to {most} bytes")
    return length


def _listed(sizes: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, sizes[:-1]))} or {sizes[-1]}"


def _number(template: Attributes, name: Attribute) -> int:
    if name not in template:
        raise TemplateIncomplete(f"{name.name} is missing")
    value = template[name]
    assert isinstance(value, int), f"{name.name} is an int; its rule says so"
    return value


def _plan_rsa(template: Attributes) -> _Plan:
    bits = _number(template, _A.MODULUS_BITS)
    if bits not in RSA_BITS:
        raise KeySizeRange(f"MODULUS_BITS {bits}; RSA has {_listed(RSA_BITS)} bits")
    exponent = template.get(_A.PUBLIC_EXPONENT, _EXPONENTS[0].to_bytes(3, "big"))
    assert isinstance(exponent, bytes), "PUBLIC_EXPONENT is bytes; its rule says so"
    public_exponent = int.from_bytes(exponent, "big")
    if public_exponent not in _EXPONENTS:
        raise AttributeInvalid(f"PUBLIC_EXPONENT {public_exponent}; there are {_listed(_EXPONENTS)}")
    # The modulus is not known yet; one of its length stands for it in what is checked beforehand.
    size = (1 << (bits - 1)).to_bytes(bits // 8, "big")
    common: Attributes = {_A.PUBLIC_EXPONENT: exponent, _A.MODULUS: size}
    return _Plan(common | {_A.MODULUS_BITS: bits}, common, lambda: rsa.generate_private_key(public_exponent, bits))


def _describe_rsa(key: PublicKey, public: Attributes, private: Attributes) -> None:
    assert isinstance(key, rsa.RSAPublicKey), "the row generates RSA"
    modulus = key.public_numbers().n.to_bytes(key.key_size // 8, "big")
    public[_A.MODULUS] = private[_A.MODULUS] = modulus


_EC_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
    "secp256k1": ec.SECP256K1(),
    "brainpoolP256r1": ec.BrainpoolP256R1(),
    "brainpoolP384r1": ec.BrainpoolP384R1(),
    "brainpoolP512r1": ec.BrainpoolP512R1(),
}
_CURVE_GENERATORS: Final[dict[str, Callable[[], PrivateKey]]] = {
    **{name: partial(ec.generate_private_key, curve) for name, curve in _EC_CURVES.items()},
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "X25519": x25519.X25519PrivateKey.generate,
    "X448": x448.X448PrivateKey.generate,
}


def _plan_curve(key_type: KeyType) -> Callable[[Attributes], _Plan]:
    def plan(template: Attributes) -> _Plan:
        curve = _curve(template, key_type)
        common: Attributes = {_A.EC_PARAMS: curve.oid}
        return _Plan(common, dict(common), _CURVE_GENERATORS[curve.name])

    return plan


def _curve(template: Attributes, key_type: KeyType) -> Curve:
    if _A.EC_PARAMS not in template:
        raise TemplateIncomplete("EC_PARAMS is missing")
    params = template[_A.EC_PARAMS]
    assert isinstance(params, bytes), "EC_PARAMS is bytes; its rule says so"
    curve = CURVES_BY_PARAMS.get(params)
    if curve is None or curve.key_type is not key_type:
        raise AttributeInvalid(f"EC_PARAMS names no curve of {key_type.name} that is supported")
    return curve


def _describe_point(key: PublicKey, public: Attributes, private: Attributes) -> None:
    """Add EC_POINT: a DER OCTET STRING of the uncompressed point (PKCS#11 v3.1, 6.3.3)."""
    assert isinstance(key, ec.EllipticCurvePublicKey), "the row generates EC"
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    length = bytes([len(point)]) if len(point) < 0x80 else bytes([0x81, len(point)])
    public[_A.EC_POINT] = b"\x04" + length + point


def _describe_raw_point(key: PublicKey, public: Attributes, private: Attributes) -> None:
    """Add EC_POINT: the public key's bytes (PKCS#11 v3.1, 6.3.5 and 6.3.7)."""
    public[_A.EC_POINT] = key.public_bytes(Encoding.Raw, PublicFormat.Raw)


_LATTICE_GENERATORS: Final[dict[str, Callable[[], PrivateKey]]] = {
    "ML-DSA-44": mldsa.MLDSA44PrivateKey.generate,
    "ML-DSA-65": mldsa.MLDSA65PrivateKey.generate,
    "ML-DSA-87": mldsa.MLDSA87PrivateKey.generate,
    "ML-KEM-768": mlkem.MLKEM768PrivateKey.generate,
    "ML-KEM-1024": mlkem.MLKEM1024PrivateKey.generate,
}


def _plan_lattice(sets: dict[int, str]) -> Callable[[Attributes], _Plan]:
    def plan(template: Attributes) -> _Plan:
        number = _number(template, _A.PARAMETER_SET)
        if number not in sets:
            known = ", ".join(f"{known} ({name})" for known, name in sets.items())
            raise AttributeInvalid(f"PARAMETER_SET {number} is not supported; there are {known}")
        common: Attributes = {_A.PARAMETER_SET: number}
        return _Plan(common, dict(common), _LATTICE_GENERATORS[sets[number]])

    return plan


def _describe_lattice(key: PublicKey, public: Attributes, private: Attributes) -> None:
    """Add VALUE of the public key: its bytes (PKCS#11 v3.2)."""
    public[_A.VALUE] = key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _check_same_parameters(template: Attributes, planned: Attributes) -> None:
    for name, value in planned.items():
        if name in template and template[name] != value:
            raise TemplateInconsistent(f"{name.name}: the private template contradicts the public one")


_K = KeyType
_SECRET: Final[dict[KeyType, Callable[[Attributes], int]]] = {
    _K.AES: _aes_length,
    _K.CHACHA20: _chacha20_length,
    _K.GENERIC_SECRET: _generic_length,
}
_PAIRS: Final[dict[KeyType, _PairRow]] = {
    _K.RSA: _PairRow(_plan_rsa, _describe_rsa, is_slow=True),
    _K.EC: _PairRow(_plan_curve(_K.EC), _describe_point),
    _K.EC_EDWARDS: _PairRow(_plan_curve(_K.EC_EDWARDS), _describe_raw_point),
    _K.EC_MONTGOMERY: _PairRow(_plan_curve(_K.EC_MONTGOMERY), _describe_raw_point),
    _K.ML_DSA: _PairRow(_plan_lattice(ML_DSA_SETS), _describe_lattice),
    _K.ML_KEM: _PairRow(_plan_lattice(ML_KEM_SETS), _describe_lattice),
}
_GENERATED: Final[dict[Use, Collection[KeyType]]] = {Use.GENERATE: _SECRET, Use.GENERATE_PAIR: _PAIRS}


def generated(mechanism: Mechanism) -> frozenset[Use]:
    """Return the uses of a mechanism that generate, and that there is a function for."""
    rule = MECHANISM_RULES[mechanism]
    return frozenset(use for use in rule.uses if rule.key_types <= set(_GENERATED.get(use, ())))


def _made_by(mechanism: Mechanism, use: Use) -> KeyType:
    """Return the type of key that a mechanism generates; raises MechanismInvalid for one that does not."""
    if use not in generated(mechanism):
        raise MechanismInvalid(f"{mechanism.name} does not {use.value}")
    (key_type,) = MECHANISM_RULES[mechanism].key_types
    return key_type
