"""A PKCS#11 token as what keys come from, through `python-pkcs11`.

What the token makes for this lives in its session, so an interruption leaves nothing there.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from lnh.migration import spki
from lnh.migration.plan import Found, Route
from lnh.migration.source import Wrapped, kind_of
from lnh.objects.keys import PublicKey
from lnh_common.errors import (
    AttributeSensitive,
    KeyTypeInconsistent,
    KeyUnextractable,
    NameUnknown,
    NotPossible,
    PasswordIncorrect,
)
from lnh_common.pkcs11.algorithms import CURVES_BY_PARAMS, Hash
from lnh_common.pkcs11.attributes import (
    ATTRIBUTES,
    CURVE_NAMES,
    Attribute,
    Attributes,
    AttributeValue,
    KeyType,
    Kind,
    ObjectClass,
)

if TYPE_CHECKING:
    import pkcs11

_A = Attribute
_O = ObjectClass
_CARRIER_BITS: Final = 256
_NOT_INSTALLED: Final = "pip install 'lnh[migrate]'"

# What differs from token to token, or from the library's reading of it, is read as it is.
_READ_HERE: Final = frozenset(
    name for name, rule in ATTRIBUTES.items() if rule.kind in {Kind.TEXT, Kind.DATE, Kind.MECHANISMS, Kind.BYTES}
)
# A template is not asked for: what it says of keys, the keyring's policy decides.
_ASKED: Final = tuple(
    name for name, rule in ATTRIBUTES.items() if rule.kind is not Kind.TEMPLATE and name is not _A.VALUE
)
_SHOWN: Final = frozenset({_O.CERTIFICATE, _O.DATA})  # whose VALUE is an attribute like others

# Types of keys that are for one hash, of what is a generic secret here (PKCS#11 v3.1, 6.20 to 6.23).
_GENERIC: Final = frozenset({0x28, 0x2B, 0x2C, 0x2D, 0x2E})
_X509: Final = 0
_CERTIFICATE_TYPE: Final = 0x80


@contextmanager
def opened(module: str, token: str, pin: str) -> Iterator[TokenSource]:
    """Log in to a token as its user, and log out again.

    Args:
        module: path of the token's PKCS#11 module, a shared library.
        token: its label.

    Raises NotPossible where python-pkcs11 or the module is missing, NameUnknown for a token that is not there or a
    label that several have, PasswordIncorrect.
    """
    found = find_token(module, token)
    from pkcs11.attributes import AttributeMapper
    from pkcs11.exceptions import PinIncorrect, PinInvalid, PinLenRange, PKCS11Error

    mapper = AttributeMapper()
    for name in map(int, (*_READ_HERE, _CERTIFICATE_TYPE)):
        pack, _ = mapper.attribute_types.get(name, (bytes, bytes))  # type: ignore[call-overload]  # it takes any number
        mapper.register_handler(name, pack, bytes)  # type: ignore[arg-type]
    try:
        # Not to write: what is made for this is of the session. Some tokens want a session that may, all the same.
        session = found.open(rw=True, user_pin=pin, attribute_mapper=mapper)
    except (PinIncorrect, PinInvalid, PinLenRange):
        raise PasswordIncorrect(
            f"token {token!r} refuses the PIN", {"advice": "check it; a token locks after some failures"}
        ) from None
    except PKCS11Error as error:
        raise NotPossible(f"token {token!r}: {_said(error)}", {"advice": "ask the token's own tool"}) from None
    with session:
        yield TokenSource(session)


def find_token(module: str, token: str) -> pkcs11.Token:
    """Find a token by its label, before a PIN is asked for; raises NotPossible, NameUnknown."""
    try:
        import pkcs11
        from pkcs11.exceptions import PKCS11Error
    except ImportError:
        said = "python-pkcs11 is not installed, by which keys come from tokens"
        raise NotPossible(said, {"advice": _NOT_INSTALLED}) from None
    try:
        tokens = list(pkcs11.lib(module).get_tokens())
    except PKCS11Error as error:
        advice = {"advice": "name the token's PKCS#11 module, such as /usr/lib/softhsm/libsofthsm2.so"}
        raise NotPossible(f"{module}: {_said(error)}", advice) from None
    found = [each for each in tokens if each.label == token]
    if len(found) == 1:
        return found[0]
    labels = ", ".join(repr(each.label) for each in tokens if each.label) or "none"
    what = f"{len(found)} tokens are called {token!r}" if found else f"no token {token!r}"
    raise NameUnknown(f"{what} in {module}; there are: {labels}", {"advice": "name one of them by --token"})


class TokenSource:
    """The objects of a token that a user is logged in to."""

    def __init__(self, session: pkcs11.Session) -> None:
        from pkcs11 import Mechanism, MechanismFlag
        from pkcs11.exceptions import PKCS11Error

        token = session.token
        self.name: Final = f"{token.manufacturer_id} {token.serial.hex()} {token.label}"
        self._session: Final = session
        self._objects: list[Any] = []
        self._receivers: dict[bytes, Any] = {}
        self._carrier: Any = None
        self._error: Final = PKCS11Error
        slot = token.slot
        able = {
            mechanism
            for mechanism in slot.get_mechanisms()
            if slot.get_mechanism_info(mechanism).flags & MechanismFlag.WRAP
        }
        can_carry = {Mechanism.RSA_PKCS_OAEP, Mechanism.AES_KEY_WRAP_PAD} <= able
        self.routes: frozenset[Route] = frozenset(
            route for route, can in ((Route.OAEP, Mechanism.RSA_PKCS_OAEP in able), (Route.CARRIER, can_carry)) if can
        )

    def objects(self) -> list[Found]:
        """List the token's objects; those of sessions are left out. Raises NotPossible for a token that fails."""
        from pkcs11 import Attribute as Theirs

        try:
            self._objects = list(self._session.get_objects({Theirs.TOKEN: True}))
        except self._error as error:
            raise NotPossible(f"the token lists no objects: {_said(error)}") from None
        return [self._found(number, each) for number, each in enumerate(self._objects)]

    def wrap(self, found: Found, receiver: PublicKey, route: Route) -> Wrapped:
        """Wrap a secret key under a public key of the keyring, by RSA-OAEP; raises KeyUnextractable."""
        assert route is Route.OAEP, "what the token can, it said"
        return self._by_oaep(receiver, self._objects[found.number])

    def carrier(self, receiver: PublicKey) -> Wrapped:
        """Draw the AES key that carries other keys, and wrap it under a public key of the keyring."""
        from pkcs11 import Attribute as Theirs
        from pkcs11 import KeyType as Types

        template = {
            Theirs.SENSITIVE: True, Theirs.EXTRACTABLE: True, Theirs.WRAP: True, Theirs.UNWRAP: False,
            Theirs.ENCRYPT: False, Theirs.DECRYPT: False, Theirs.SIGN: False, Theirs.VERIFY: False,
        }  # fmt: skip
        try:
            self._carrier = self._session.generate_key(Types.AES, _CARRIER_BITS, store=False, template=template)
        except self._error as error:
            raise KeyUnextractable(f"the token draws no AES key that wraps: {_said(error)}") from None
        return self._by_oaep(receiver, self._carrier)

    def wrap_by_carrier(self, found: Found) -> bytes:
        """Wrap a key by AES_KEY_WRAP_PAD under the carrier; raises KeyUnextractable."""
        from pkcs11 import Mechanism

        try:
            wrapped: bytes = self._carrier.wrap_key(self._objects[found.number], mechanism=Mechanism.AES_KEY_WRAP_PAD)
        except self._error as error:
            raise KeyUnextractable(f"the token does not wrap it: {_said(error)}") from None
        return wrapped

    def value(self, found: Found) -> bytes:
        """Read a secret key in clear; raises AttributeSensitive, KeyTypeInconsistent."""
        if found.object_class is not _O.SECRET_KEY:
            raise KeyTypeInconsistent("only secret keys are read in clear")
        value = self._read(self._objects[found.number], _A.VALUE)
        if not isinstance(value, bytes):
            raise AttributeSensitive("the token does not show the key's value")
        return value

    def _by_oaep(self, receiver: PublicKey, key: Any) -> Wrapped:
        """Wrap by the strongest hash that the token takes; SoftHSM takes SHA-1 alone."""
        from pkcs11 import MGF, Mechanism

        wrapping = self._receiver(receiver.to_der())
        refusal = ""
        for digest, mask, named in (
            (Mechanism.SHA256, MGF.SHA256, Hash.SHA256),
            (Mechanism.SHA_1, MGF.SHA1, Hash.SHA1),
        ):
            parameters = (digest, mask, None)
            try:
                data = wrapping.wrap_key(key, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=parameters)
            except self._error as error:
                refusal = _said(error)
            else:
                return Wrapped(data, named)
        raise KeyUnextractable(f"the token does not wrap it: {refusal}")

    def _receiver(self, receiver: bytes) -> Any:
        """Return the keyring's public key as an object of the token's session."""
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import load_der_public_key
        from pkcs11 import Attribute as Theirs
        from pkcs11 import KeyType as Types
        from pkcs11 import ObjectClass as Classes

        if receiver not in self._receivers:
            key = load_der_public_key(receiver)
            assert isinstance(key, RSAPublicKey), "keys come in under RSA"
            numbers = key.public_numbers()
            template = {
                Theirs.CLASS: Classes.PUBLIC_KEY, Theirs.KEY_TYPE: Types.RSA, Theirs.TOKEN: False, Theirs.WRAP: True,
                Theirs.ENCRYPT: False, Theirs.VERIFY: False,
                Theirs.MODULUS: numbers.n.to_bytes(key.key_size // 8, "big"),
                Theirs.PUBLIC_EXPONENT: numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8, "big"),
            }  # fmt: skip
            try:
                self._receivers[receiver] = self._session.create_object(template)
            except self._error as error:
                raise KeyUnextractable(f"the token takes no public key to wrap with: {_said(error)}") from None
        return self._receivers[receiver]

    # --- reading

    def _found(self, number: int, theirs: Any) -> Found:
        object_class, key_type = self._number(theirs, _A.CLASS), self._number(theirs, _A.KEY_TYPE)
        if key_type in _GENERIC:
            key_type = KeyType.GENERIC_SECRET.value
        kind = kind_of(object_class, key_type)
        attributes: Attributes = {}
        for name in (*_ASKED, *((_A.VALUE,) if object_class in _SHOWN else ())):
            value = self._read(theirs, name)
            if value is not None:
                attributes[name] = value
        if key_type is not None:
            attributes[_A.KEY_TYPE] = key_type
        problem = _problem(object_class, key_type, attributes)
        if object_class == _O.CERTIFICATE and self._number(theirs, _CERTIFICATE_TYPE) not in {_X509, None}:
            problem = "it is no X.509 certificate"
        public = b"" if problem else _public_key(attributes)
        return Found(number, attributes, public, problem, kind)

    def _number(self, theirs: Any, name: int) -> int | None:
        try:
            value = theirs[name]
        except (self._error, ValueError, NotImplementedError):
            return None
        return int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)

    def _read(self, theirs: Any, name: Attribute) -> AttributeValue | None:
        """Read an attribute; None of what the token does not have, does not tell, or leaves empty."""
        try:
            value = theirs[int(name)]
        except (self._error, ValueError, NotImplementedError):
            return None
        return _parsed(name, value)


def _parsed(name: Attribute, value: Any) -> AttributeValue | None:
    kind = ATTRIBUTES[name].kind
    if not isinstance(value, bytes):
        return bool(value) if kind is Kind.BOOL else int(value)
    if not value:
        return None
    if kind is Kind.TEXT:
        return value.decode("utf-8", "replace")
    if kind is Kind.DATE:
        try:
            return dt.datetime.strptime(value.decode("ascii"), "%Y%m%d").date().isoformat()  # noqa: DTZ007  # a day
        except ValueError:
            return None
    if kind is Kind.MECHANISMS:
        return None  # the keyring's own rules say which mechanisms a key serves
    if name is _A.EC_PARAMS:
        return CURVE_NAMES.get(value, value)
    return value.lstrip(b"\0") if name in {_A.MODULUS, _A.PUBLIC_EXPONENT} else value


def _problem(object_class: int | None, key_type: int | None, attributes: Attributes) -> str:
    """Say why the product has nothing of this kind; empty where it has."""
    if object_class not in ObjectClass._value2member_map_:
        return "the product has no objects of this class"
    if object_class in _SHOWN:
        return "" if _A.VALUE in attributes or object_class == _O.DATA else "the token does not tell its VALUE"
    if key_type not in KeyType._value2member_map_:
        return "the product has no keys of this type"
    params = attributes.get(_A.EC_PARAMS)
    if params is not None and params not in CURVES_BY_PARAMS:
        return "the product has no such curve"
    return ""


def _public_key(attributes: Attributes) -> bytes:
    """Return the SubjectPublicKeyInfo of a public or private key; empty where the token does not tell enough."""
    if attributes[_A.CLASS] not in {_O.PUBLIC_KEY, _O.PRIVATE_KEY}:
        return b""
    info, modulus, exponent = (attributes.get(name) for name in (_A.PUBLIC_KEY_INFO, _A.MODULUS, _A.PUBLIC_EXPONENT))
    if isinstance(info, bytes):
        return info
    if isinstance(modulus, bytes) and isinstance(exponent, bytes):
        return spki.of_rsa(modulus, exponent)
    params, point = attributes.get(_A.EC_PARAMS), attributes.get(_A.EC_POINT)
    if isinstance(params, bytes) and isinstance(point, bytes):
        return spki.of_curve(CURVES_BY_PARAMS[params], point)
    return b""


def _said(error: Exception) -> str:
    """Say what the token said: its error's name, and its text where there is one."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
