"""Plans how each object of a source comes into a keyring. Pure.

What a source holds, what the keyring holds and what was done before come in; out comes one step an object. A key comes
wrapped, so that nobody between the two HSMs sees it. In which way, depends on what the source can wrap with:

- RSA_AES: any key, by the source, under a public key of the keyring.
- OAEP: a secret key, under a public key of the keyring, as far as it is short enough.
- CARRIER: any key, under an AES key that the source draws and sends under a public key of the keyring.

A key that does not come stays where it is and, if that is wanted, a new one takes its place. With policy `key_uses =
separated` a secret key has one use for life, and what a carrier carries has the natural use of its type; so some uses
stay behind, and a step says which.

A plan is made anew at each run. It knows what is there already by the journal, and else by what an object is: its
public key or its value, and of what shows neither its type, size, check value, label and ID.
"""

from __future__ import annotations

import enum
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lnh_common.pkcs11.algorithms import CURVES_BY_PARAMS, RSA_BITS, WRAPPING_RSA_BITS, Hash
from lnh_common.pkcs11.attributes import (
    ATTRIBUTES,
    NATURAL_USES,
    SECRET_USE_GROUPS,
    SENSITIVE_KEYS,
    USES,
    Attribute,
    Attributes,
    KeyType,
    ObjectClass,
)
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, USE_ATTRIBUTES, Mechanism
from lnh_common.wire import codec

_A = Attribute
_O = ObjectClass
RECEIVING_BITS: Final = WRAPPING_RSA_BITS
OAEP_BYTES: Final = RECEIVING_BITS // 8 - 2 * Hash.SHA1.size - 2  # that come under it at most (RFC 8017, 7.1.1)

# What an object keeps of its template, beside its uses.
_KEPT: Final = (
    _A.LABEL, _A.ID, _A.START_DATE, _A.END_DATE, _A.MODIFIABLE, _A.COPYABLE, _A.DESTROYABLE, _A.WRAP_WITH_TRUSTED,
    _A.APPLICATION, _A.OBJECT_ID,
)  # fmt: skip
_NAMES: Final = (_A.CLASS, _A.KEY_TYPE, _A.LABEL, _A.ID, _A.VALUE_LEN, _A.EC_PARAMS, _A.MODULUS, _A.CHECK_VALUE)
_DESCRIBES: Final = (_A.VALUE_LEN, _A.EC_PARAMS)  # what objects that are the same have in common, where both tell it
_WRAPPING: Final = frozenset({_A.WRAP, _A.UNWRAP})


class Route(enum.Enum):
    """How a key leaves a source that wraps it."""

    RSA_AES = "RSA_AES_KEY_WRAP"
    OAEP = "RSA_PKCS_OAEP"
    CARRIER = "AES_KEY_WRAP_PAD"


class Way(enum.Enum):
    """What becomes of an object."""

    THERE = "there already"
    WRAPPED = "wrapped"
    COPIED = "copied"
    IN_CLEAR = "in clear"
    NEW = "new key"
    STAYS = "stays"


_COMES: Final = frozenset({Way.WRAPPED, Way.COPIED, Way.IN_CLEAR})


@dataclass(frozen=True)
class Found:
    """An object of the source.

    Args:
        number: its place in the source's list.
        attributes: those that the product has and the source tells; CLASS is among them, unless there is a `problem`.
        public: SubjectPublicKeyInfo of a public or private key; empty where the source does not tell it.
        problem: why the product has nothing of this kind; empty otherwise.
        kind: its class and type, for people.
    """

    number: int
    attributes: Attributes
    public: bytes = b""
    problem: str = ""
    kind: str = ""

    @property
    def label(self) -> str:
        """The attribute LABEL; empty where there is none."""
        value = self.attributes.get(_A.LABEL, "")
        assert isinstance(value, str), "LABEL is text"
        return value

    @property
    def id(self) -> bytes:
        """The attribute ID; empty where there is none."""
        value = self.attributes.get(_A.ID, b"")
        assert isinstance(value, bytes), "ID is bytes"
        return value

    @property
    def object_class(self) -> ObjectClass:
        """The attribute CLASS."""
        return ObjectClass(self.attributes[_A.CLASS])  # type: ignore[arg-type]  # it is a number

    @property
    def key_type(self) -> KeyType | None:
        """The attribute KEY_TYPE; None of what is no key."""
        value = self.attributes.get(_A.KEY_TYPE)
        return None if value is None else KeyType(value)  # type: ignore[arg-type]  # it is a number

    @property
    def is_sensitive_key(self) -> bool:
        """Whether this is a secret or a private key."""
        return not self.problem and self.object_class in SENSITIVE_KEYS


@dataclass(frozen=True)
class Choices:
    """What the user wants.

    Args:
        new_keys: make new keys where keys stay behind.
        in_clear: read a key that is neither SENSITIVE nor unextractable in clear, where it cannot be wrapped.
        extractable: what was EXTRACTABLE stays so.
        separated: whether the keyring's policy has `key_uses = separated`.
        mechanisms: of AES keys that encrypt, where the source does not tell them; none for the keyring's default.
    """

    new_keys: bool = True
    in_clear: bool = False
    extractable: bool = False
    separated: bool = True
    mechanisms: tuple[Mechanism, ...] = ()


@dataclass(frozen=True)
class Receiver:
    """A key pair of the keyring's session under which keys of one kind come in.

    Args:
        route: how they come.
        object_class, key_type: of the keys.
        uses, mechanisms: those with which they come out; none for the natural ones.
    """

    route: Route
    object_class: ObjectClass
    key_type: KeyType
    uses: frozenset[Attribute] = frozenset()
    mechanisms: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """What is done with one object.

    Args:
        found: the object.
        way: what becomes of it.
        receiver: of what is wrapped: under what.
        template: what is said of the new object, beside CLASS and KEY_TYPE.
        handle: of what is there already.
        is_replaced: whether another key takes its place, or took it before.
        notes: what stays behind, and why.
    """

    found: Found
    way: Way
    receiver: Receiver | None = None
    template: Attributes = field(default_factory=dict)
    handle: bytes = b""
    is_replaced: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Held:
    """An object of the keyring: its handle and its attributes."""

    handle: bytes
    attributes: Attributes


def fingerprints(found: Sequence[Found]) -> list[bytes]:
    """Compute for each object of a source a name that it has at every run; equal objects are numbered."""
    seen: Counter[bytes] = Counter()
    names: list[bytes] = []
    for each in found:
        told = {name.value: value for name in (*_NAMES, _A.VALUE) if (value := each.attributes.get(name)) is not None}
        name = hashlib.sha256(codec.encode([told, each.public, each.kind])).digest()
        seen[name] += 1
        names.append(name if seen[name] == 1 else hashlib.sha256(name + seen[name].to_bytes(4, "big")).digest())
    return names


def plan(
    found: Sequence[Found],
    held: Iterable[Held],
    done: Mapping[bytes, bytes],
    routes: frozenset[Route],
    choices: Choices,
    refused: Mapping[int, str] | None = None,
) -> list[Step]:
    """Plan a step for each object of the source, in its order.

    Args:
        found: what the source holds.
        held: what the keyring holds.
        done: what was done before: handles by `fingerprints`.
        routes: how keys can leave the source.
        refused: why the source did not wrap an object after all, by its number.
    """
    names = fingerprints(found)
    found = _with_public_keys(found)
    planned = {each.number: _step(each, routes, choices, (refused or {}).get(each.number, "")) for each in found}
    came = {at: done[name] for at, name in enumerate(names) if name in done}
    there, free = _there(found, list(held), came, {number for number, step in planned.items() if step.way in _COMES})
    steps: list[Step] = []
    for each in found:
        if each.number in there:
            steps.append(_step_there(each, there[each.number]))
            continue
        step = planned[each.number]
        if step.way is Way.NEW:
            other = next((one for one in free if _took_its_place(each, one.attributes)), None)
            if other is not None:
                free.remove(other)
                step = _step_there(each, other)
        steps.append(step)
    return _with_new_pairs(steps)


def _step_there(found: Found, held: Held) -> Step:
    is_new = found.is_sensitive_key and held.attributes.get(_A.LOCAL) is True  # what comes in is never LOCAL
    notes = ("a key that was made there has its place",) if is_new else ()
    return Step(found, Way.THERE, handle=held.handle, is_replaced=is_new, notes=notes)


# --- what is there already


def _with_public_keys(found: Sequence[Found]) -> list[Found]:
    """Give a private key that does not tell its public key that of the one public key with its type, curve and ID."""
    publics = [each for each in found if each.public and each.object_class is _O.PUBLIC_KEY]
    made: list[Found] = []
    for each in found:
        if each.public or each.problem or each.object_class is not _O.PRIVATE_KEY or not each.id:
            made.append(each)
            continue
        halves = {
            other.public
            for other in publics
            if other.id == each.id
            and other.key_type is each.key_type
            and other.attributes.get(_A.EC_PARAMS) == each.attributes.get(_A.EC_PARAMS)
        }
        made.append(replace(each, public=halves.pop()) if len(halves) == 1 else each)
    return made


def _there(
    found: Sequence[Found], held: list[Held], done: Mapping[int, bytes], comes: set[int]
) -> tuple[dict[int, Held], list[Held]]:
    """Find what is in the keyring already, by the numbers of the source, and what else the keyring has.

    No object of the keyring counts twice.

    Args:
        done: handles of what came before, by its place in `found`.
        comes: numbers of what comes by itself: only that can have come, where nothing but its names tells what it is.
    """
    by_handle = {each.handle: each for each in held}
    there = {found[at].number: by_handle[handle] for at, handle in done.items() if handle in by_handle}
    counted = {each.handle for each in there.values()}
    free = [each for each in held if each.handle not in counted]
    in_order = sorted(found, key=lambda each: each.number not in comes)
    for must_be_certain in (True, False):
        for each in in_order:
            if each.number in there or each.problem:
                continue
            for other in free:
                is_certain = _is_certain(each, other.attributes)
                may_be = is_certain or (not must_be_certain and each.number in comes)
                if may_be and _is_the_same(each, other.attributes):
                    there[each.number] = other
                    free.remove(other)
                    break
    return there, free


def _is_certain(found: Found, held: Attributes) -> bool:
    """Tell whether more than names says if an object of the keyring is this one."""
    both_tell = _A.CHECK_VALUE in found.attributes and _A.CHECK_VALUE in held
    return not found.is_sensitive_key or bool(found.public) or both_tell


def _is_the_same(found: Found, held: Attributes) -> bool:
    """Tell whether an object of the keyring is this one of the source."""
    if (held.get(_A.CLASS), held.get(_A.KEY_TYPE)) != (found.object_class, found.key_type):
        return False
    if found.object_class in {_O.CERTIFICATE, _O.DATA}:
        also = _A.APPLICATION if found.object_class is _O.DATA else _A.ID
        return _agree(found, held, _A.VALUE, _A.LABEL, also)
    if found.public:
        return held.get(_A.PUBLIC_KEY_INFO) == found.public
    told = [name for name in (*_DESCRIBES, _A.CHECK_VALUE) if name in found.attributes and name in held]
    return (
        _is_named(found)
        and held.get(_A.LOCAL) is not True
        and all(found.attributes[name] == held[name] for name in told)
        and _agree(found, held, _A.LABEL, _A.ID)
    )


def _took_its_place(found: Found, held: Attributes) -> bool:
    """Tell whether an object of the keyring is a key made there with type, size and names of one that cannot come."""
    told = [name for name in _DESCRIBES if name in found.attributes and name in held]
    return (
        found.object_class in SENSITIVE_KEYS
        and _is_named(found)
        and held.get(_A.LOCAL) is True
        and (held.get(_A.CLASS), held.get(_A.KEY_TYPE)) == (found.object_class, found.key_type)
        and all(found.attributes[name] == held[name] for name in told)
        and _agree(found, held, _A.LABEL, _A.ID)
    )


def _is_named(found: Found) -> bool:
    return bool(found.label or found.id)


def _agree(found: Found, held: Attributes, *names: Attribute) -> bool:
    """Tell whether both have the same of these attributes; what is empty is as if it were not there."""
    return all((found.attributes.get(name) or None) == (held.get(name) or None) for name in names)


# --- what is done


def _step(found: Found, routes: frozenset[Route], choices: Choices, refused: str) -> Step:
    if found.problem:
        return Step(found, Way.STAYS, notes=(found.problem,))
    uses, notes = _uses(found, choices)
    mechanisms = _mechanisms(found, choices)
    template = _template(found, uses)
    if not found.is_sensitive_key:
        if found.attributes.get(_A.TRUSTED) is True:
            notes = (*notes, "TRUSTED stays behind: the KRSO alone says so")
        return Step(found, Way.COPIED, template=template, notes=notes)
    if not uses:
        return Step(found, Way.STAYS, notes=(*notes, "it is for nothing that the product does with such a key"))
    named: Attributes = {_A.ALLOWED_MECHANISMS: list(mechanisms)} if mechanisms else {}
    receiver = None
    why = refused or _why_it_stays(found)
    if not why:
        receiver = _receiver(found, uses, mechanisms, routes, choices)
        why = "" if receiver else "the source wraps with nothing that fits"
    if choices.extractable and found.attributes.get(_A.EXTRACTABLE) is True:
        if receiver is not None and receiver.route is Route.CARRIER and choices.separated:
            said = "EXTRACTABLE stays behind: what comes by a key that came itself is not (key_uses = separated)"
            notes = (*notes, said)
        else:
            template[_A.EXTRACTABLE] = True
    if receiver is not None:
        template |= {} if receiver.mechanisms else named
        return Step(found, Way.WRAPPED, receiver, template, notes=notes)
    template |= named
    if choices.in_clear and _is_plain(found):
        return Step(found, Way.IN_CLEAR, template=template, notes=(*notes, why))
    if not choices.new_keys:
        return Step(found, Way.STAYS, notes=(*notes, why))
    if parameters(found) is None:
        return Step(found, Way.STAYS, notes=(*notes, why, "no new key: the product makes none like it"))
    return Step(found, Way.NEW, template=template, is_replaced=True, notes=(*notes, why))


def parameters(found: Found) -> Attributes | None:
    """Return the attributes that say what to generate for a key like this; None where the product makes none."""
    told = found.attributes
    if found.object_class is _O.SECRET_KEY:
        return {_A.VALUE_LEN: told[_A.VALUE_LEN]} if _A.VALUE_LEN in told else None
    if found.key_type is KeyType.RSA:
        bits = _rsa_bits(found)
        return {_A.MODULUS_BITS: bits} if bits in RSA_BITS else None
    if _A.PARAMETER_SET in told:
        return {_A.PARAMETER_SET: told[_A.PARAMETER_SET]}
    params = told.get(_A.EC_PARAMS)
    return {_A.EC_PARAMS: params} if isinstance(params, bytes) and params in CURVES_BY_PARAMS else None


def _rsa_bits(found: Found) -> int:
    """Return the length of an RSA key; 0 where the source does not tell its MODULUS."""
    modulus = found.attributes.get(_A.MODULUS, b"")
    assert isinstance(modulus, bytes), "MODULUS is bytes"
    return int.from_bytes(modulus, "big").bit_length()


def _why_it_stays(found: Found) -> str:
    if found.attributes.get(_A.EXTRACTABLE) is not True:
        return "EXTRACTABLE is false"
    if found.attributes.get(_A.WRAP_WITH_TRUSTED) is True:
        return "WRAP_WITH_TRUSTED is true: the source wraps it with nothing that its SO has not marked"
    return ""


def _is_plain(found: Found) -> bool:
    return found.attributes.get(_A.SENSITIVE) is False and found.attributes.get(_A.EXTRACTABLE) is True


def _template(found: Found, uses: frozenset[Attribute]) -> Attributes:
    """Say of the new object what the source says of its own; what is the default is not said."""
    object_class, key_type = found.object_class, found.key_type
    template: Attributes = {}
    for name in (*_KEPT, *(() if object_class in SENSITIVE_KEYS else (_A.PRIVATE,))):
        rule = ATTRIBUTES[name]
        value = found.attributes.get(name)
        default = rule.defaults.get(object_class)
        if rule.applies(object_class, key_type) and value is not None and value != default:
            template[name] = value
    if key_type is not None:
        template |= {use: use in uses for use in USES if ATTRIBUTES[use].applies(object_class, key_type)}
    return template


def _uses(found: Found, choices: Choices) -> tuple[frozenset[Attribute], tuple[str, ...]]:
    """Choose the uses of a key, and say which stay behind."""
    if found.key_type is None:
        return frozenset(), ()
    has = frozenset(
        use
        for use in USES
        if found.attributes.get(use) is True
        and ATTRIBUTES[use].applies(found.object_class, found.key_type)
        and use in _served(found.key_type)
    )
    notes: list[str] = []
    kept = has
    if found.key_type is KeyType.RSA and _rsa_bits(found) < WRAPPING_RSA_BITS:
        kept -= _WRAPPING
        _note(notes, has - kept, f"RSA of fewer than {WRAPPING_RSA_BITS} bits wraps nothing")
    if choices.separated:
        before, kept = kept, _one_use(found, kept)
        _note(notes, before - kept, "policy key_uses = separated")
    return kept, tuple(notes)


def _note(notes: list[str], left: frozenset[Attribute], why: str) -> None:
    if left:
        notes.append(f"{', '.join(sorted(use.name for use in left))} stays behind: {why}")


def _one_use(found: Found, has: frozenset[Attribute]) -> frozenset[Attribute]:
    """Choose of these uses those that go together: the natural one if it is among them."""
    assert found.key_type is not None, "keys have uses"
    natural = NATURAL_USES[found.object_class, found.key_type]
    if found.object_class is not _O.SECRET_KEY:
        return has - _WRAPPING or has
    groups = {SECRET_USE_GROUPS[use] for use in has & natural} or {SECRET_USE_GROUPS[use] for use in has}
    group = min(groups, default="")
    return frozenset(use for use in has if SECRET_USE_GROUPS[use] == group)


def _served(key_type: KeyType) -> frozenset[Attribute]:
    """Return the uses that some mechanism has for keys of this type."""
    rules = (rule for rule in MECHANISM_RULES.values() if key_type in rule.key_types)
    return frozenset(USE_ATTRIBUTES[use] for rule in rules for use in rule.uses if use in USE_ATTRIBUTES)


def _mechanisms(found: Found, choices: Choices) -> tuple[int, ...]:
    """Return the mechanisms of a key: its own where the source tells them, or those that the user names for it."""
    own = found.attributes.get(_A.ALLOWED_MECHANISMS)
    if isinstance(own, list):
        return tuple(own)
    encrypts = any(found.attributes.get(use) is True for use in (_A.ENCRYPT, _A.DECRYPT))
    is_meant = found.key_type is KeyType.AES and encrypts
    return tuple(sorted(each.value for each in choices.mechanisms)) if is_meant else ()


def _receiver(
    found: Found,
    uses: frozenset[Attribute],
    mechanisms: tuple[int, ...],
    routes: frozenset[Route],
    choices: Choices,
) -> Receiver | None:
    """Choose under what a key comes; None where nothing fits.

    Only with `key_uses = separated` does a receiver name uses and mechanisms; else the key's own template does.
    """
    assert found.key_type is not None, "keys have a type"
    object_class, key_type = found.object_class, found.key_type
    is_secret = object_class is _O.SECRET_KEY
    length = found.attributes.get(_A.VALUE_LEN)
    fixed: tuple[int, ...] = ()
    if not choices.separated:
        is_natural = True
    elif is_secret:
        is_natural, fixed = uses <= NATURAL_USES[object_class, key_type] and not mechanisms, mechanisms
    else:
        is_natural = _A.UNWRAP not in uses
    fitting = {
        Route.RSA_AES: True,
        Route.OAEP: is_secret and isinstance(length, int) and length <= OAEP_BYTES,
        Route.CARRIER: is_natural,
    }
    for route in Route:
        if route in routes and fitting[route]:
            return Receiver(route, object_class, key_type, frozenset() if is_natural else uses, fixed)
    return None


def _with_new_pairs(steps: list[Step]) -> list[Step]:
    """Let the public key of a private key stay whose place a new pair takes, since the new pair has one of its own."""
    replaced = {name for step in steps if step.is_replaced for name in _names_of_pair(step.found)}
    return [
        Step(step.found, Way.STAYS, notes=("its private key stays; the new pair has a public key of its own",))
        if step.way is Way.COPIED
        and step.found.object_class is _O.PUBLIC_KEY
        and not replaced.isdisjoint(_names_of_pair(step.found))
        else step
        for step in steps
    ]


def _names_of_pair(found: Found) -> set[tuple[KeyType | None, bytes]]:
    """Return what the halves of a pair have in common, each of which is enough."""
    return {(found.key_type, name) for name in (found.public, found.id) if name}
