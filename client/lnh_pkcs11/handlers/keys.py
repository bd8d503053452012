"""Keys: generating, wrapping, unwrapping, deriving, encapsulating (PKCS#11 v3.2, 5.18)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from lnh_common.pkcs11.attributes import Attribute, Attributes, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
from lnh_pkcs11 import operations, parameters, values
from lnh_pkcs11.application import Application, Session
from lnh_pkcs11.fields import Attribute as Given
from lnh_pkcs11.fields import Given as Chosen
from lnh_pkcs11.fields import Short
from lnh_pkcs11.handlers.fitting import fit, is_short
from lnh_pkcs11.handlers.objects import made_in
from lnh_pkcs11.numbers import CKR
from lnh_pkcs11.refusals import Refused

if TYPE_CHECKING:
    from lnh.aio import Key, PrivateKey, PublicKey, SecretKey

_CIPHERTEXTS: Final = {2: 1088, 3: 1568}  # of ML-KEM, by parameter set (FIPS 203, table 3)
_FIXED: Final = frozenset({KeyType.CHACHA20})


def _mechanism(given: Chosen | None, use: Use) -> Mechanism:
    if given is None:
        raise Refused(CKR.ARGUMENTS_BAD, "no mechanism")
    mechanism = parameters.mechanism_of(given)
    if use not in MECHANISM_RULES[mechanism].uses:
        raise Refused(CKR.MECHANISM_INVALID, f"{mechanism.name} is not to {use.value}")
    return mechanism


def _taken(template: Attributes, object_class: ObjectClass, key_type: KeyType | None) -> Attributes:
    """Take CLASS and KEY_TYPE out of a template; raises Refused where they say something else."""
    rest = dict(template)
    if rest.pop(Attribute.CLASS, object_class.value) != object_class.value:
        raise Refused(CKR.TEMPLATE_INCONSISTENT, f"CLASS is {object_class.name}")
    if key_type is not None and rest.pop(Attribute.KEY_TYPE, key_type.value) != key_type.value:
        raise Refused(CKR.TEMPLATE_INCONSISTENT, f"KEY_TYPE is {key_type.name}")
    return rest


def _key_type(mechanism: Mechanism) -> KeyType:
    (key_type,) = MECHANISM_RULES[mechanism].key_types
    return key_type


async def generate_key(app: Application, handle: int, given: Chosen | None, attributes: list[Given]) -> tuple[int]:
    """Generate a secret key."""
    session = app.session(handle)
    mechanism = _mechanism(given, Use.GENERATE)
    key_type = _key_type(mechanism)
    template = made_in(app, session, _taken(values.template(attributes), ObjectClass.SECRET_KEY, key_type))
    if Attribute.VALUE_LEN not in template and key_type not in _FIXED:
        raise Refused(CKR.TEMPLATE_INCOMPLETE, "VALUE_LEN is missing")
    made = await app.login(session).generate_key(key_type, mechanism=mechanism, template=template)
    return (app.handle(session, made),)


async def generate_key_pair(
    app: Application, handle: int, given: Chosen | None, of_public: list[Given], of_private: list[Given]
) -> tuple[int, int]:
    """Generate a key pair."""
    session = app.session(handle)
    mechanism = _mechanism(given, Use.GENERATE_PAIR)
    key_type = _key_type(mechanism)
    public = made_in(app, session, _taken(values.template(of_public), ObjectClass.PUBLIC_KEY, key_type))
    private = made_in(app, session, _taken(values.template(of_private), ObjectClass.PRIVATE_KEY, key_type))
    _check_complete(key_type, public)
    pair = await app.login(session).generate_keypair(key_type, mechanism=mechanism, public=public, private=private)
    return app.handle(session, pair[0]), app.handle(session, pair[1])


def _check_complete(key_type: KeyType, public: Attributes) -> None:
    needs = {
        KeyType.RSA: Attribute.MODULUS_BITS,
        KeyType.ML_DSA: Attribute.PARAMETER_SET,
        KeyType.ML_KEM: Attribute.PARAMETER_SET,
    }.get(key_type, Attribute.EC_PARAMS)
    if needs not in public:
        raise Refused(CKR.TEMPLATE_INCOMPLETE, f"{needs.name} is missing")


def _key(app: Application, session: Session, number: int, mechanism: Mechanism, use: Use) -> Any:
    key = app.key(session, number)
    operations.check_use(mechanism, key, use)
    return key


async def wrap_key(
    app: Application, handle: int, given: Chosen | None, wrapping: int, number: int, room: int | None
) -> tuple[bytes | Short]:
    """Wrap a key."""
    session = app.session(handle)
    mechanism = _mechanism(given, Use.WRAP)
    assert given is not None, "it was looked at"
    by: SecretKey = _key(app, session, wrapping, mechanism, Use.WRAP)
    key = cast("Key", app.key(session, number))
    if key.attributes.get(Attribute.CLASS) not in {ObjectClass.SECRET_KEY.value, ObjectClass.PRIVATE_KEY.value}:
        raise Refused(CKR.KEY_NOT_WRAPPABLE, "secret and private keys are wrapped")
    return (fit(await by.wrap(key, mechanism, parameters.read(given)), room),)


async def unwrap_key(
    app: Application, handle: int, given: Chosen | None, number: int, wrapped: bytes | None, attributes: list[Given]
) -> tuple[int]:
    """Unwrap a key."""
    session = app.session(handle)
    mechanism = _mechanism(given, Use.UNWRAP)
    assert given is not None, "it was looked at"
    by: PrivateKey = _key(app, session, number, mechanism, Use.UNWRAP)
    template = made_in(app, session, values.template(attributes))
    object_class, key_type = template.pop(Attribute.CLASS, None), template.pop(Attribute.KEY_TYPE, None)
    if not isinstance(object_class, int) or not isinstance(key_type, int):
        raise Refused(CKR.TEMPLATE_INCOMPLETE, "CLASS and KEY_TYPE are wanted")
    made = await by.unwrap(
        wrapped or b"",
        ObjectClass(object_class),
        _known_type(key_type),
        mechanism,
        parameters.read(given),
        template=template,
    )
    return (app.handle(session, made),)


def _known_type(number: int) -> KeyType:
    if number not in KeyType._value2member_map_:
        raise Refused(CKR.ATTRIBUTE_VALUE_INVALID, f"KEY_TYPE {number:#x}")
    return KeyType(number)


def _secret(app: Application, session: Session, attributes: list[Given]) -> tuple[KeyType, int | None, Attributes]:
    """Read the template of a secret key that comes of another: its type, its bits and the rest."""
    template = made_in(app, session, _taken(values.template(attributes), ObjectClass.SECRET_KEY, None))
    key_type = template.pop(Attribute.KEY_TYPE, KeyType.GENERIC_SECRET.value)
    length = template.pop(Attribute.VALUE_LEN, None)
    assert isinstance(key_type, int), "its rule says so"
    return _known_type(key_type), length * 8 if isinstance(length, int) else None, template


async def derive_key(
    app: Application, handle: int, given: Chosen | None, number: int, attributes: list[Given]
) -> tuple[int]:
    """Derive a secret key."""
    session = app.session(handle)
    mechanism = _mechanism(given, Use.DERIVE)
    assert given is not None, "it was looked at"
    base: SecretKey = _key(app, session, number, mechanism, Use.DERIVE)
    key_type, bits, template = _secret(app, session, attributes)
    made = await base.derive(key_type, bits, mechanism, parameters.read(given), template=template)
    return (app.handle(session, made),)


async def derive_key_2(
    app: Application, handle: int, given: Chosen | None, number: int, attributes: list[Given]
) -> tuple[int, Chosen, int]:
    """Derive a secret key, as p11-kit asks for it since its version 2: an error is a field of the reply."""
    (made,) = await derive_key(app, handle, given, number, attributes)
    return int(CKR.OK), Chosen(0), made


async def encapsulate_key(
    app: Application, handle: int, given: Chosen | None, number: int, attributes: list[Given], room: int | None
) -> tuple[bytes | Short, int]:
    """Draw a secret key, and the ciphertext that carries it."""
    session = app.session(handle)
    mechanism = _mechanism(given, Use.ENCAPSULATE)
    key: PublicKey = _key(app, session, number, mechanism, Use.ENCAPSULATE)
    parameter_set = key.attributes[Attribute.PARAMETER_SET]
    assert isinstance(parameter_set, int), "its rule says so"
    length = _CIPHERTEXTS[parameter_set]
    if is_short(length, room):
        return Short(length), 0
    key_type, bits, template = _secret(app, session, attributes)
    _check_agreed(bits)
    made, ciphertext = await key.encapsulate(key_type, template=template)
    return ciphertext, app.handle(session, made)


async def decapsulate_key(
    app: Application, handle: int, given: Chosen | None, number: int, attributes: list[Given], ciphertext: bytes | None
) -> tuple[int]:
    """Make the secret key that a ciphertext carries."""
    session = app.session(handle)
    mechanism = _mechanism(given, Use.DECAPSULATE)
    key: PrivateKey = _key(app, session, number, mechanism, Use.DECAPSULATE)
    key_type, bits, template = _secret(app, session, attributes)
    _check_agreed(bits)
    return (app.handle(session, await key.decapsulate(ciphertext or b"", key_type, template=template)),)


def _check_agreed(bits: int | None) -> None:
    if bits not in {None, 256}:
        raise Refused(CKR.KEY_SIZE_RANGE, "a key that is agreed on has 32 bytes")
