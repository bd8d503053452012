"""An attacker who calls whatever a keyring's role may, exhaustively, and works out what the answers give away.

The calls are those of the product's own pure functions, as a worker's handlers make them. What an attacker has only ever
grows: nothing is gained by destroying, and a change of attributes is tried as a copy. So all sequences of at most N
rounds of calls are covered when in each round every call is tried on everything there is. Values are real: what is
unwrapped or derived twice is found to be the same bytes.

What the attacker works out with paper and pencil (`Attacker.reason`) is the published part:
- who decrypts single blocks with a key undoes AES key wrap under it (Clulow 2003);
- who decrypts with an RSA key opens what its public half wrapped under OAEP, and what lies under the AES key within;
- who makes tags with a key computes what is derived from it: HKDF's expansion and SP 800-108 are such tags;
- who knows a key does all of that by himself.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from lnh_common.errors import LnhError
from lnh_common.messages.session import Role
from lnh_common.pkcs11.attributes import Attribute, Attributes, KeyType, ObjectClass, parse_template
from lnh_common.pkcs11.mechanisms import GENERATORS, Mechanism, Use
from lnh_common.pkcs11.parameters import CounterParameters, EcdhParameters, HkdfParameters, pack_parameters
from lnh_services.hsm.crypto.mechanisms import IvSource
from lnh_services.hsm.objects import create as creation
from lnh_services.hsm.objects import from_keys, key_rules
from lnh_services.hsm.objects import policy as rules
from lnh_services.hsm.objects.generate import Generated, generate_key, generate_key_pair
from lnh_services.hsm.objects.policy import Policy
from lnh_services.hsm.objects.prepared_keys import CachedKey, prepare
from models.keyring import template as wire_template

A = Attribute
M = Mechanism
SECRET: Final = ObjectClass.SECRET_KEY
_WRAPS: Final = (M.AES_KEY_WRAP_PAD, M.RSA_PKCS_OAEP, M.RSA_AES_KEY_WRAP)
_BLOCKWISE: Final = (M.AES_CBC, M.AES_CBC_PAD, M.AES_ECB)
_TODAY: Final = dt.date(2026, 1, 1)


def named(**said: Any) -> Attributes:
    """Return a template of attributes by their names."""
    return parse_template(wire_template(said))


@dataclass(frozen=True)
class Thing:
    """An object, and how the attacker came by it."""

    key: CachedKey = field(compare=False)
    value: bytes = field(repr=False)
    kind: tuple[Any, ...]
    how: str = field(compare=False)


@dataclass(frozen=True)
class Blob:
    """A wrapped key: under which value, by which mechanism; `value` is for reasoning alone."""

    mechanism: Mechanism
    under: bytes
    value: bytes
    data: bytes = field(compare=False)
    how: str = field(compare=False)


@dataclass(frozen=True)
class Derived:
    """A derivation that was made: from a key of which type and value, to which value."""

    base_type: KeyType
    base: bytes
    value: bytes
    how: str = field(compare=False)


@dataclass
class Menu:
    """What the attacker writes into templates.

    Args:
        secrets: of secret keys that are generated: type and attributes.
        pairs: of pairs: type, and attributes of both halves.
        brought: of values that come in.
        outcomes: of what is unwrapped, derived and agreed on: type and attributes.
        copies: of copies.
    """

    secrets: tuple[tuple[KeyType, dict[str, Any]], ...]
    pairs: tuple[tuple[KeyType, dict[str, Any], dict[str, Any]], ...] = ()
    brought: tuple[tuple[KeyType, dict[str, Any]], ...] = ()
    outcomes: tuple[tuple[KeyType, dict[str, Any]], ...] = ()
    copies: tuple[dict[str, Any], ...] = ()


class Attacker:
    """All that an attacker has, and a way to have more.

    Attributes:
        known: values that the attacker may know by right: brought in, or readable by their own template.
        leaked: values that were worked out, and how.
        calls: that were tried.
    """

    KNOWN: Final = b"known to the attacker, 32 bytes!"

    def __init__(self, policy: Policy, menu: Menu) -> None:
        self.policy, self.menu = policy, menu
        self.things: dict[tuple[bytes, tuple[Any, ...]], Thing] = {}
        self.blobs: set[Blob] = set()
        self.derived: set[Derived] = set()
        self.known: set[bytes] = {self.KNOWN}
        self.leaked: dict[bytes, str] = {}
        self.halves: dict[bytes, bytes] = {}  # of a pair: the public value, and the private one
        self.calls = 0
        self._encapsulated: set[bytes] = set()  # by which public keys
        self._ivs = IvSource()

    # --- calls

    def begin(self) -> None:
        """Make all keys of the menu, and bring in the value that is known."""
        for key_type, said in self.menu.secrets:
            template = named(**({} if key_type is KeyType.CHACHA20 else {"VALUE_LEN": 32}) | said)
            for made in self._tried(lambda t=template, k=key_type: generate_key(GENERATORS[k], t, self.policy)):
                self._have(made, f"generate {key_type.name} {said}")
        for key_type, public, private in self.menu.pairs:
            templates = named(**public), named(**private)
            halves = self._tried(
                lambda k=key_type, t=templates: generate_key_pair(GENERATORS[k], t[0], t[1], self.policy)
            )
            for first, second in halves:
                self._have(first, f"generate {key_type.name} {public} {private}: public")
                self._have(second, f"generate {key_type.name} {public} {private}: private")
                self.halves[first.value] = second.value
                self._bring(first.value, ObjectClass.PUBLIC_KEY, None, {"WRAP": True})
        for key_type, said in self.menu.brought:
            self._bring(self.KNOWN, SECRET, key_type, said)

    def _bring(self, value: bytes, object_class: ObjectClass, key_type: KeyType | None, said: dict[str, Any]) -> None:
        of_type = {} if key_type is None else {"KEY_TYPE": key_type}
        template = named(CLASS=object_class, **of_type, **said)
        for made in self._tried(lambda: creation.create(template, value, self.policy, Role.KRCO)):
            self._have(made, f"create {object_class.name} {said}")

    def round(self) -> None:
        """Try every call on everything there is."""
        for thing in list(self.things.values()):
            for said in self.menu.copies:
                for attributes in self._tried(
                    lambda t=thing, s=said: creation.copy(t.key.attributes, named(**s), Role.KRCO)
                ):
                    self._have(Generated(attributes, thing.value), f"copy {said} of ({thing.how})")
            for _ in self._tried(lambda t=thing: rules.check_readable(t.key.attributes)):
                if thing.key.attributes[A.CLASS] != ObjectClass.PUBLIC_KEY:
                    self.known.add(thing.value)
        self._wrap_all()
        self._unwrap_all()
        self._derive_all()
        self._encapsulate_all()
        self.reason()

    def _wrap_all(self) -> None:
        things = list(self.things.values())
        targets = [one for one in things if one.key.attributes[A.CLASS] != ObjectClass.PUBLIC_KEY]
        for wrapping in things:
            if wrapping.key.attributes.get(A.WRAP) is not True:
                continue
            for target, mechanism in itertools.product(targets, _WRAPS):
                for data in self._tried(lambda w=wrapping, t=target, m=mechanism: self._wrap(w, t, m)):
                    under = self.halves.get(wrapping.value, wrapping.value)
                    how = f"wrap ({target.how}) with ({wrapping.how})"
                    self.blobs.add(Blob(mechanism, under, target.value, data, how))

    def _wrap(self, wrapping: Thing, target: Thing, mechanism: Mechanism) -> bytes:
        operate = prepare(wrapping.key, Use.WRAP, mechanism, b"", self.policy, self._ivs)
        key_rules.check_wrap(wrapping.key.attributes, target.key.attributes, self.policy)
        return bytes(operate(from_keys.value_of(target.key.loaded)))

    def _unwrap_all(self) -> None:
        things = [one for one in self.things.values() if one.key.attributes.get(A.UNWRAP) is True]
        for thing, blob in itertools.product(things, list(self.blobs)):
            if thing.value != blob.under:
                continue
            pieces = [(blob.mechanism, blob.data)]
            if blob.mechanism is M.RSA_AES_KEY_WRAP:
                pieces.append((M.RSA_PKCS_OAEP, blob.data[:384]))
            for (mechanism, data), (key_type, said) in itertools.product(pieces, self.menu.outcomes):
                is_pair = key_type not in key_rules.AGREED_USES
                object_class = ObjectClass.PRIVATE_KEY if is_pair else SECRET
                template = named(CLASS=object_class, KEY_TYPE=key_type, **said)
                for made in self._tried(lambda t=thing, m=mechanism, d=data, s=template: self._unwrap(t, m, d, s)):
                    self._have(made, f"unwrap as {key_type.name} {said} ({blob.how})")
                    if data is not blob.data:  # the AES key within, under which the rest is
                        self.blobs.add(Blob(M.AES_KEY_WRAP_PAD, made.value, blob.value, blob.data[384:], blob.how))

    def _unwrap(self, thing: Thing, mechanism: Mechanism, data: bytes, template: Attributes) -> Generated:
        operate = prepare(thing.key, Use.UNWRAP, mechanism, b"", self.policy, self._ivs)
        return from_keys.unwrapped(thing.key.attributes, template, lambda: operate(data), self.policy, Role.KRCO)

    def _derive_all(self) -> None:
        bases = [one for one in self.things.values() if one.key.attributes.get(A.DERIVE) is True]
        points = [one for one in self.things.values() if A.EC_POINT in one.key.attributes]
        for base in bases:
            for mechanism, parameters in self._derivations(base, points):
                for key_type, said in self.menu.outcomes:
                    if key_type not in key_rules.AGREED_USES:
                        continue
                    template = named(KEY_TYPE=key_type, VALUE_LEN=32, **said)
                    for made in self._tried(
                        lambda b=base, m=mechanism, p=parameters, t=template: self._derive(b, m, p, t)
                    ):
                        how = f"derive {key_type.name} {said} by {mechanism.name} from ({base.how})"
                        self._have(made, how)
                        self.derived.add(Derived(_type(base), base.value, made.value, how))

    @staticmethod
    def _derivations(base: Thing, points: Iterable[Thing]) -> Iterator[tuple[Mechanism, bytes]]:
        if base.key.attributes[A.CLASS] == SECRET:
            yield M.HKDF_DERIVE, pack_parameters(HkdfParameters(expand_only=True, info=b"info"))
            yield M.SP800_108_COUNTER_KDF, pack_parameters(CounterParameters(label=b"label"))
            return
        for point in points:
            public = point.key.attributes[A.EC_POINT]
            assert isinstance(public, bytes), "a point is bytes"
            yield M.ECDH1_DERIVE, pack_parameters(EcdhParameters(public_key=public))

    def _derive(self, base: Thing, mechanism: Mechanism, parameters: bytes, template: Attributes) -> Generated:
        operate = prepare(base.key, Use.DERIVE, mechanism, parameters, self.policy, self._ivs)
        return from_keys.derived(base.key.attributes, template, operate, self.policy, Role.KRCO)

    def _encapsulate_all(self) -> None:
        """Encapsulate once for each pair, and take the one secret out with every template, on both sides."""
        for public in [one for one in self.things.values() if one.key.attributes.get(A.ENCAPSULATE) is True]:
            private = next((one for one in self.things.values() if one.value == self.halves.get(public.value)), None)
            if private is None or public.value in self._encapsulated:
                continue
            secret, ciphertext = prepare(public.key, Use.ENCAPSULATE, M.ML_KEM, b"", self.policy, self._ivs)()
            self._encapsulated.add(public.value)
            opened = prepare(private.key, Use.DECAPSULATE, M.ML_KEM, b"", self.policy, self._ivs)(ciphertext)
            for side, value in ((public, secret), (private, opened)):
                for key_type, said in self.menu.outcomes:
                    if key_type not in key_rules.AGREED_USES:
                        continue
                    template = named(KEY_TYPE=key_type, **said)
                    for made in self._tried(
                        lambda s=side, v=value, t=template: from_keys.agreed(
                            s.key.attributes, t, lambda: v, self.policy, Role.KRCO
                        )
                    ):
                        self._have(made, f"agree on {key_type.name} {said} ({side.how})")

    # --- reasoning

    def reason(self) -> None:
        """Work out every value that what there is gives away."""
        while True:
            before = len(self.leaked) + len(self.known)
            self._reason_once()
            if len(self.leaked) + len(self.known) == before:
                return

    def _reason_once(self) -> None:
        openers = {one.value: one.how for one in self.things.values() if self._decrypts(one)}
        taggers = {(one.value, _type(one)): one.how for one in self.things.values() if self._tags(one)}
        for blob in self.blobs:
            if blob.under in self.known:
                self._leak(blob.value, blob.how)
            elif blob.under in self.leaked or blob.under in openers:
                self._leak(blob.value, f"{blob.how}; opened by {self.leaked.get(blob.under, openers.get(blob.under))}")
        for derived in self.derived:
            if derived.base in self.known:
                self.known.add(derived.value)
            elif derived.base in self.leaked:
                self._leak(derived.value, derived.how)
            elif how := taggers.get((derived.base, derived.base_type)):
                self._leak(derived.value, f"{derived.how}; tagged by {how}")

    def _leak(self, value: bytes, how: str) -> None:
        if value not in self.known:
            self.leaked.setdefault(value, how)

    def _decrypts(self, thing: Thing) -> bool:
        """Tell whether the object opens what is wrapped under its value."""
        mechanisms = (M.RSA_PKCS_OAEP,) if thing.key.attributes[A.KEY_TYPE] == KeyType.RSA else _BLOCKWISE
        return any(self._may(thing, Use.DECRYPT, mechanism) for mechanism in mechanisms)

    def _tags(self, thing: Thing) -> bool:
        """Tell whether the object computes by itself what is derived from a key of its type with its value.

        From a generic secret HMAC derives, in HKDF's expansion too; from an AES key CMAC, which is a matter of CBC.
        """
        if _type(thing) is KeyType.GENERIC_SECRET:
            return self._may(thing, Use.SIGN, M.SHA256_HMAC)
        if _type(thing) is not KeyType.AES:
            return False
        blocks = any(self._may(thing, Use.ENCRYPT, mechanism) for mechanism in _BLOCKWISE)
        return blocks or self._may(thing, Use.SIGN, M.AES_CMAC)

    def _may(self, thing: Thing, use: Use, mechanism: Mechanism) -> bool:
        try:
            rules.check_use(thing.key.attributes, use, mechanism, self.policy, _TODAY)
        except LnhError:
            return False
        return True

    # --- the parts of these

    def _tried(self, call: Any) -> Iterator[Any]:
        """Yield what a call answers; nothing where it is refused."""
        self.calls += 1
        try:
            answer = call()
        except LnhError:
            return
        yield answer

    def _have(self, made: Generated, how: str) -> None:
        kind = tuple(sorted((name, _frozen(value)) for name, value in made.attributes.items() if name in _DECIDING))
        place = (made.value, kind)
        if place not in self.things:
            key = CachedKey.loaded_from(1, made.attributes, made.value)
            self.things[place] = Thing(key, made.value, kind, how)


_DECIDING: Final = frozenset(Attribute) - {A.UNIQUE_ID, A.LABEL, A.ID, A.VALUE, A.PUBLIC_KEY_INFO, A.CHECK_VALUE}


def _type(thing: Thing) -> KeyType:
    return KeyType(thing.key.attributes[A.KEY_TYPE])  # type: ignore[arg-type]  # its rule says that it is an int


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(sorted((name, _frozen(each)) for name, each in value.items()))
    return tuple(value) if isinstance(value, list) else value
