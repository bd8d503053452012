"""Keyrings: their roles' logins, and the session in which objects are made, found and used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from lnh import forms
from lnh.connection import Connection
from lnh.keys import Key, PrivateKey, PublicKey, SecretKey, StoredObject, of_view
from lnh.sessions import Session, change_password, keyring_credential, login
from lnh_common import limits
from lnh_common.attributes import Attribute, AttributeValue, KeyType
from lnh_common.errors import ArgumentInvalid, KeySizeRange, LimitReached, ObjectUnknown, TemplateIncomplete
from lnh_common.mechanisms import CURVES, GENERATORS, MECHANISM_RULES, ML_DSA_SETS, ML_KEM_SETS, Mechanism, Use
from lnh_common.messages import objects as wire
from lnh_common.messages.admin import (
    KEYRING_POLICY,
    ROLE_SET,
    KeyringView,
    PolicyChange,
    SetRole,
)
from lnh_common.messages.session import Role

K = TypeVar("K", bound=StoredObject)

_DEFAULT_BITS: Final = {KeyType.AES: 256, KeyType.GENERIC_SECRET: 256, KeyType.CHACHA20: 256, KeyType.RSA: 3072}
_DEFAULT_CURVES: Final = {KeyType.EC: "P-256", KeyType.EC_EDWARDS: "Ed25519", KeyType.EC_MONTGOMERY: "X25519"}
_SETS: Final = {KeyType.ML_DSA: ML_DSA_SETS, KeyType.ML_KEM: ML_KEM_SETS}
_DEFAULT_SETS: Final = {KeyType.ML_DSA: "ML-DSA-65", KeyType.ML_KEM: "ML-KEM-768"}


class Keyring:
    """A keyring, as it was when it was looked up.

    Attributes:
        id: 16 bytes.
        label: its name in the cluster.
        view: everything else that may be seen without a login.
    """

    def __init__(self, connection: Connection, view: KeyringView, *, timeout: float = limits.DEADLINE) -> None:
        self.id: Final = view.id
        self.label: Final = view.label
        self.view: Final = view
        self._connection: Final = connection
        self._timeout: Final = timeout

    def __repr__(self) -> str:
        return f"<Keyring {self.label!r} {self.id.hex()}>"

    def login(self, role: Role, password: str) -> KeyringSession:
        """Log in as this keyring's KRSO or KRCO; the session is a context manager that logs out.

        Raises PasswordIncorrect, PasswordLocked, PasswordMustChange (a first KRSO credential is good for
        `change_password` only), KeyringUnknown and what a call raises.
        """
        _check_role(role)
        credential = keyring_credential(role, self.id, password)
        secret, logged_in = login(self._connection, credential, route=self.id, timeout=self._timeout)
        return KeyringSession(self._connection, secret, logged_in, route=self.id, timeout=self._timeout)

    def change_password(self, role: Role, old: str, new: str) -> None:
        """A holder changes its own password, which ends its other sessions.

        Raises PasswordIncorrect, PasswordInvalid and what a call raises.
        """
        _check_role(role)
        change_password(self._connection, keyring_credential(role, self.id, old), new, timeout=self._timeout)


class KeyringSession(Session):
    """A session of a keyring's KRSO or KRCO."""

    def generate_key(
        self,
        key_type: KeyType,
        bits: int | None = None,
        *,
        mechanism: Mechanism | None = None,
        template: Mapping[Attribute, AttributeValue] | None = None,
        timeout: float | None = None,
        **attributes: object,
    ) -> SecretKey:
        """Make a secret key: `session.generate_key(KeyType.AES, 256, label="backup")`.

        Args:
            bits: AES 128, 192 or 256 (the default); GENERIC_SECRET 128 to 4096; CHACHA20 256.
            mechanism: None takes the key type's.
            template, attributes: attributes by number, or by name in lower case.

        Raises TemplateInconsistent, AttributeInvalid, KeySizeRange, LimitReached, MemberReadOnly, OutcomeUnknown.
        """
        mechanism = _generator(key_type, Use.GENERATE, mechanism)
        bits = _DEFAULT_BITS[key_type] if bits is None else bits
        if bits % 8:
            raise KeySizeRange(f"a {key_type.name} key of {bits} bits; whole bytes are wanted")
        values: dict[int, Any] = {Attribute.VALUE_LEN.value: bits // 8} | forms.template(template, attributes)
        message = wire.GenerateKey(mechanism=mechanism.value, template=values)
        return _expect(of_view(self, self.ask(wire.GENERATE, message, timeout)), SecretKey)

    def generate_keypair(
        self,
        key_type: KeyType,
        bits: int | None = None,
        *,
        curve: str | None = None,
        parameter_set: str | None = None,
        mechanism: Mechanism | None = None,
        public: Mapping[Attribute, AttributeValue] | None = None,
        private: Mapping[Attribute, AttributeValue] | None = None,
        timeout: float | None = None,
        **attributes: object,
    ) -> tuple[PublicKey, PrivateKey]:
        """Make a key pair: `session.generate_keypair(KeyType.EC, curve="P-256", label="ca")`.

        Args:
            bits: RSA 2048, 3072 (the default), 4096 or 8192.
            curve: of EC, EC_EDWARDS and EC_MONTGOMERY: a name of `lnh_common.mechanisms.CURVES`.
            parameter_set: of ML_DSA and ML_KEM: `ML-DSA-65`, `ML-KEM-768` and so on.
            public, private: attributes of one half.
            attributes: by name in lower case; each goes to the half that has it, or to both.

        Raises as `generate_key` does.
        """
        mechanism = _generator(key_type, Use.GENERATE_PAIR, mechanism)
        of_public, of_private = forms.split_template(attributes, key_type)
        message = wire.GenerateKeyPair(
            mechanism=mechanism.value,
            public_template=_parameters(key_type, bits, curve, parameter_set) | forms.template(public, of_public),
            private_template=forms.template(private, of_private),
        )
        pair = self.ask(wire.GENERATE_PAIR, message, timeout)
        return _expect(of_view(self, pair.public), PublicKey), _expect(of_view(self, pair.private), PrivateKey)

    def find(
        self, template: Mapping[Attribute, AttributeValue] | None = None, **attributes: object
    ) -> Iterator[StoredObject]:
        """The objects with these attributes, in handle order, a page at a time as they are taken.

        `session.find(key_type=KeyType.AES)`; an `object_class` is the attribute CLASS.
        """
        values = forms.template(template, _named(attributes))
        after = b""
        while True:
            found = self.ask(wire.FIND, wire.Find(template=values, after=after))
            for view in found.objects:
                yield of_view(self, view)
            if not found.more or not found.objects:
                return
            after = found.objects[-1].handle

    def get_key(self, template: Mapping[Attribute, AttributeValue] | None = None, **attributes: object) -> Key:
        """The one key with these attributes: `session.get_key(label="ca", object_class=ObjectClass.PRIVATE_KEY)`.

        Without an `object_class`, and of a key pair, the private key.

        Raises ObjectUnknown when there is none, LimitReached when there are several.
        """
        found = [one for one in self.find(template, **attributes) if isinstance(one, Key)]
        if len(found) > 1 and "object_class" not in attributes:
            found = [one for one in found if not isinstance(one, PublicKey)] or found
        said = ", ".join(f"{name}={value!r}" for name, value in attributes.items())
        if not found:
            raise ObjectUnknown(f"no key with {said or 'this template'}")
        if len(found) > 1:
            raise LimitReached(f"{len(found)} keys with {said or 'this template'}; one is wanted")
        return found[0]

    def get_object(self, handle: bytes) -> StoredObject:
        """The object with this 16-byte handle; raises ObjectUnknown."""
        return of_view(self, self.ask(wire.SHOW, wire.ObjectRef(handle=handle)))

    def set_krco(self, password: str) -> None:
        """Set or reset this keyring's KRCO credential; for its KRSO. Raises PermissionDenied, PasswordInvalid."""
        self.ask(ROLE_SET, SetRole(password=password))

    def policy(self, **changes: object) -> dict[str, Any]:
        """The policy of this keyring, after these changes; for its KRSO. Raises PolicyForbids, ArgumentInvalid."""
        return self.ask(KEYRING_POLICY, PolicyChange(changes=changes)).policy


def _check_role(role: Role) -> None:
    if not role.of_keyring:
        raise ArgumentInvalid(f"{role.value} is no role of a keyring; those are krso and krco")


def _generator(key_type: KeyType, use: Use, mechanism: Mechanism | None) -> Mechanism:
    chosen = mechanism if mechanism is not None else GENERATORS[key_type]
    if use not in MECHANISM_RULES[chosen].uses:
        other = "generate_key" if use is Use.GENERATE_PAIR else "generate_keypair"
        raise ArgumentInvalid(f"{key_type.name}: {chosen.name} is for {other}()")
    return chosen


def _parameters(key_type: KeyType, bits: int | None, curve: str | None, parameter_set: str | None) -> dict[int, Any]:
    """What to generate, as attributes of the public half."""
    if key_type is KeyType.RSA:
        return {Attribute.MODULUS_BITS.value: _DEFAULT_BITS[key_type] if bits is None else bits}
    if bits is not None:
        raise ArgumentInvalid(f"bits are for RSA; a {key_type.name} key pair takes a curve or a parameter set")
    if key_type in _SETS:
        sets = {name: number for number, name in _SETS[key_type].items()}
        name = parameter_set or _DEFAULT_SETS[key_type]
        if name not in sets:
            raise TemplateIncomplete(f"PARAMETER_SET {name!r}; there are {', '.join(sets)}")
        return {Attribute.PARAMETER_SET.value: sets[name]}
    name = curve or _DEFAULT_CURVES[key_type]
    row = CURVES.get(name)
    if row is None or row.key_type is not key_type:
        fitting = ", ".join(row.name for row in CURVES.values() if row.key_type is key_type)
        raise TemplateIncomplete(f"curve {name!r}; for {key_type.name} there are {fitting}")
    return {Attribute.EC_PARAMS.value: row.oid}


def _named(attributes: Mapping[str, object]) -> dict[str, object]:
    named = dict(attributes)
    if "object_class" in named:
        named["class"] = named.pop("object_class")
    return named


def _expect(found: StoredObject, kind: type[K]) -> K:
    assert isinstance(found, kind), f"the HSM made a {type(found).__name__}, not a {kind.__name__}"
    return found
