"""Decides what may be wrapped, and what comes out of unwrapping, deriving and agreement. Pure.

The theory, with `key_uses = separated`. A key is talked out by having some bytes twice, in two objects with different
uses (Clulow 2003; Delaune, Kremer, Steel 2008; Bortolozzo et al., CCS 2010): what one wraps the other decrypts; what is
derived with one the other signs. So all objects that have the same bytes must have the same use:

1. A copy has the uses of its original, or fewer.
2. What a key unwraps has the use that its UNWRAP_TEMPLATE names, or else the natural one of its type; what is derived
   from a secret key goes by DERIVE_TEMPLATE in the same way. These templates never change, and no caller adds a use.
3. A key is wrapped only by one that would give it back with the use, the family of mechanisms and the templates that it
   has. The key's WRAP_TEMPLATE says which; of a key, and of a pair, both templates name the same (`uses_named`).
4. Two pairs agree on one secret, and each has templates of its own. So no template has a say in the use of what is
   agreed (ECDH and ML-KEM): it is `AGREED_USES`.
5. A value that came in from outside (LOCAL false), or was not always SENSITIVE, may be known, so it wraps nothing.
6. An RSA key wraps by one mechanism: the AES key within RSA_AES_KEY_WRAP would come out under RSA_PKCS_OAEP.

`key_uses = compatible` drops 2 to 4 and 6, and keeps 1 and 5. In both, what comes out is SENSITIVE, it is EXTRACTABLE
only if what it comes out of is, and a symmetric key wraps nothing stronger than itself.
"""

from __future__ import annotations

from typing import Final

from lnh_common.errors import (
    KeyFunctionNotPermitted,
    KeySizeRange,
    KeyUnextractable,
    PolicyForbids,
    TemplateInconsistent,
)
from lnh_common.pkcs11.algorithms import CURVES_BY_PARAMS
from lnh_common.pkcs11.attributes import (
    ATTRIBUTES,
    NATURAL_USES,
    SECRET_USE_GROUPS,
    SENSITIVE_KEYS,
    USES,
    Attribute,
    Attributes,
    AttributeValue,
    KeyType,
    Kind,
    ObjectClass,
    from_wire,
)
from lnh_services.hsm.objects.policy import (
    WRAPPING,
    KeyUses,
    Policy,
    families_of,
    uses_named,
    uses_of,
    wrapping_mechanisms,
)
from lnh_services.hsm.objects.templates import default_templates, natural_mechanisms

_A = Attribute
_O = ObjectClass
_K = KeyType
_TEMPLATES: Final = frozenset(name for name, rule in ATTRIBUTES.items() if rule.kind is Kind.TEMPLATE)

# What a secret is for that two sides agree on. A generic one is for deriving: a key derivation always follows.
AGREED_USES: Final[dict[KeyType, frozenset[Attribute]]] = {
    _K.GENERIC_SECRET: frozenset({_A.DERIVE}),
    _K.AES: frozenset({_A.ENCRYPT, _A.DECRYPT}),
    _K.CHACHA20: frozenset({_A.ENCRYPT, _A.DECRYPT}),
}


def template_of(base: Attributes, name: Attribute) -> Attributes:
    """Return a key's template for what comes out of it."""
    value = base.get(name, {})
    assert isinstance(value, dict), f"{name.name} is a template; its rule says so"
    return from_wire(value)


def fixed_uses(
    template: Attributes, given: Attributes, object_class: ObjectClass, key_type: KeyType
) -> frozenset[Attribute]:
    """Return the uses of what comes out by this template: those that it names, or else the natural ones.

    A private key may be for any use but UNWRAP that the caller names: SIGN, DECRYPT, DERIVE and DECAPSULATE combine.
    """
    if named := uses_of(template):
        return named
    chosen = uses_of(given) - {_A.UNWRAP}
    if object_class is _O.PRIVATE_KEY and chosen:
        return chosen
    return NATURAL_USES.get((object_class, key_type), frozenset())


def template_for_unwrapped(
    base: Attributes, given: Attributes, object_class: ObjectClass, key_type: KeyType, policy: Policy
) -> Attributes:
    """Make the template of a key that is unwrapped; raises TemplateInconsistent naming the attribute."""
    template = template_of(base, _A.UNWRAP_TEMPLATE)
    uses = fixed_uses(template, given, object_class, key_type)
    return _merged(base, template, given, object_class, key_type, uses, policy, _A.UNWRAP_TEMPLATE)


def template_for_derived(base: Attributes, given: Attributes, key_type: KeyType, policy: Policy) -> Attributes:
    """Make the template of a secret key that is derived; raises TemplateInconsistent naming the attribute."""
    template = template_of(base, _A.DERIVE_TEMPLATE)
    if base[_A.CLASS] == _O.PRIVATE_KEY:
        return template_for_agreed(base, given, key_type, policy, template)
    uses = fixed_uses(template, given, _O.SECRET_KEY, key_type)
    return _merged(base, template, given, _O.SECRET_KEY, key_type, uses, policy, _A.DERIVE_TEMPLATE)


def template_for_agreed(
    base: Attributes, given: Attributes, key_type: KeyType, policy: Policy, template: Attributes | None = None
) -> Attributes:
    """Make the template of a secret that two sides agree on; raises TemplateInconsistent naming the attribute."""
    uses = AGREED_USES.get(key_type, frozenset())
    named = template or {}
    if policy.key_uses is KeyUses.SEPARATED:
        if more := uses_of(named) - uses:
            raise TemplateInconsistent(
                f"DERIVE_TEMPLATE: {_listed(more)}; what is agreed on is for {_listed(uses)}, on both sides"
            )
        natural = natural_mechanisms(_O.SECRET_KEY, key_type, uses, KeyUses.SEPARATED)
        if set(_fixed_mechanisms(named, _O.SECRET_KEY, key_type, uses)) - set(natural):
            raise TemplateInconsistent("DERIVE_TEMPLATE: ALLOWED_MECHANISMS; what is agreed on has the natural ones")
    return _merged(base, named, given, _O.SECRET_KEY, key_type, uses, policy, _A.DERIVE_TEMPLATE)


def _merged(
    base: Attributes,
    template: Attributes,
    given: Attributes,
    object_class: ObjectClass,
    key_type: KeyType,
    uses: frozenset[Attribute],
    policy: Policy,
    name: Attribute,
) -> Attributes:
    for each, value in template.items():
        if given.get(each, value) != value:
            raise TemplateInconsistent(f"{each.name}: the key's {name.name} says otherwise")
    merged = template | given
    if policy.key_uses is KeyUses.SEPARATED:
        merged |= _separated(template, given, object_class, key_type, uses, name)
    if merged.setdefault(_A.SENSITIVE, True) is not True:
        raise TemplateInconsistent("SENSITIVE: what comes out of a key is always SENSITIVE")
    if merged.get(_A.EXTRACTABLE) is True and base.get(_A.EXTRACTABLE) is not True:
        raise TemplateInconsistent("EXTRACTABLE: what comes out of a key is EXTRACTABLE only if the key is")
    return merged


def _separated(
    template: Attributes,
    given: Attributes,
    object_class: ObjectClass,
    key_type: KeyType,
    uses: frozenset[Attribute],
    name: Attribute,
) -> Attributes:
    """Fix use, mechanisms and templates, of which the caller may leave some out and add none."""
    _check_one_use(object_class, uses, name)
    if more := uses_of(given) - uses:
        raise TemplateInconsistent(f"{_listed(more)}: {name.name} does not name it; it is for {_listed(uses)}")
    for each in _TEMPLATES & set(given):
        if given[each] != default_templates(object_class, key_type).get(each):
            raise TemplateInconsistent(f"{each.name}: a key that comes out of another has the default one")
    fixed: Attributes = {
        use: use in uses and given.get(use, True) is True
        for use in USES
        if ATTRIBUTES[use].applies(object_class, key_type)
    }
    mechanisms = _fixed_mechanisms(template, object_class, key_type, uses)
    if object_class is _O.SECRET_KEY and len(families_of({_A.ALLOWED_MECHANISMS: mechanisms})) > 1:
        raise TemplateInconsistent(f"ALLOWED_MECHANISMS: {name.name} names more than one family")
    narrower = given.get(_A.ALLOWED_MECHANISMS, mechanisms)
    assert isinstance(narrower, list), "ALLOWED_MECHANISMS is a list; its rule says so"
    if set(narrower) - set(mechanisms):
        raise TemplateInconsistent(f"ALLOWED_MECHANISMS: {name.name} does not name them")
    left = natural_mechanisms(object_class, key_type, uses_of(fixed), KeyUses.COMPATIBLE)
    fixed[_A.ALLOWED_MECHANISMS] = sorted(set(narrower) & set(left))
    return fixed


def _check_one_use(object_class: ObjectClass, uses: frozenset[Attribute], name: Attribute) -> None:
    """Raise TemplateInconsistent for a template of which the caller could choose one use or another."""
    mixed = bool(uses & WRAPPING and uses - WRAPPING)
    if mixed or (object_class is _O.SECRET_KEY and len(_groups(uses)) > 1):
        raise TemplateInconsistent(f"{name.name} names {_listed(uses)}; what comes out is for one")


def _fixed_mechanisms(
    template: Attributes, object_class: ObjectClass, key_type: KeyType, uses: frozenset[Attribute]
) -> list[int]:
    named = template.get(_A.ALLOWED_MECHANISMS)
    if named is None:
        return natural_mechanisms(object_class, key_type, uses, KeyUses.SEPARATED)
    assert isinstance(named, list), "ALLOWED_MECHANISMS is a list; its rule says so"
    return named


# --- wrapping


def check_wrap(wrapping: Attributes, key: Attributes, policy: Policy) -> None:
    """Check whether a key may be wrapped with another; that the other may WRAP at all was checked.

    Raises KeyUnextractable, KeyFunctionNotPermitted, KeySizeRange, PolicyForbids, TemplateInconsistent, each naming
    the attribute.
    """
    if not policy.export_wrapped:
        raise PolicyForbids("wrapped keys do not leave; the policy's export_wrapped is false")
    if key[_A.CLASS] not in SENSITIVE_KEYS:
        raise KeyFunctionNotPermitted("only secret and private keys are wrapped; public keys are exported")
    if key[_A.EXTRACTABLE] is not True:
        raise KeyUnextractable("EXTRACTABLE is false for the key to be wrapped")
    if key[_A.WRAP_WITH_TRUSTED] is True and wrapping[_A.TRUSTED] is not True:
        raise KeyFunctionNotPermitted("WRAP_WITH_TRUSTED is true for the key, and the wrapping key is not TRUSTED")
    if _may_be_known(wrapping):
        raise KeyFunctionNotPermitted("WRAP: the wrapping key was not always SENSITIVE, so its value may be known")
    template = template_of(wrapping, _A.WRAP_TEMPLATE)
    for name, value in template.items():
        if name in ATTRIBUTES and not _matches(key, name, value):
            raise TemplateInconsistent(f"{name.name}: the wrapping key's WRAP_TEMPLATE asks for another")
    if wrapping[_A.CLASS] == _O.SECRET_KEY and (has := strength(wrapping)) < (wanted := strength(key)):
        raise KeySizeRange(f"a key of {has} bits of strength does not wrap one of {wanted}")
    if policy.key_uses is KeyUses.SEPARATED and (problem := _comes_back_otherwise(wrapping, template, key)):
        raise TemplateInconsistent(f"{problem} (policy key_uses = separated)")


def _may_be_known(wrapping: Attributes) -> bool:
    """Tell whether somebody may have read the value of a secret key that the KRSO does not trust."""
    return wrapping.get(_A.ALWAYS_SENSITIVE) is False and wrapping[_A.TRUSTED] is not True


def _matches(key: Attributes, name: Attribute, value: AttributeValue) -> bool:
    """Tell whether a key is as a template says, with no other mechanisms; a flag that it has not counts as false."""
    if name is _A.ALLOWED_MECHANISMS:
        allowed = key[name]
        assert isinstance(allowed, list) and isinstance(value, list), "lists; their rule says so"  # noqa: PT018
        return set(allowed) <= set(value)
    return key.get(name, False if ATTRIBUTES[name].kind is Kind.BOOL else None) == value


def _comes_back_otherwise(wrapping: Attributes, template: Attributes, key: Attributes) -> str:
    """Say in what a key would come back otherwise than it is; empty for one that comes back as it is."""
    object_class, key_type = ObjectClass(_number(key, _A.CLASS)), KeyType(_number(key, _A.KEY_TYPE))
    named = uses_named(wrapping, _A.WRAP_TEMPLATE)
    if _A.UNWRAP_TEMPLATE in wrapping and uses_named(wrapping, _A.UNWRAP_TEMPLATE) != named:
        return "WRAP_TEMPLATE and UNWRAP_TEMPLATE of the wrapping key name different uses"
    uses = fixed_uses(template, key, object_class, key_type)
    mechanisms = _fixed_mechanisms(template, object_class, key_type, uses)
    if object_class is _O.SECRET_KEY:
        same = _groups(uses) == _groups(uses_of(key))
        same_family = families_of({_A.ALLOWED_MECHANISMS: mechanisms}) == families_of(key)
    else:
        same = (_A.UNWRAP in uses) == (_A.UNWRAP in uses_of(key))
        same_family = _A.UNWRAP not in uses or set(wrapping_mechanisms(key)) <= set(mechanisms)
    if not same:
        return (
            f"{_listed(uses_of(key))}: the wrapping key's templates name {_listed(uses)}, as which it would come back"
        )
    if not same_family:
        return "ALLOWED_MECHANISMS: the wrapping key's templates name others, with which it would come back"
    for name, default in default_templates(object_class, key_type).items():
        if name in key and key[name] != default:
            return f"{name.name}: it is not the default, and would come back so"
    return ""


def _groups(uses: frozenset[Attribute]) -> frozenset[str]:
    return frozenset(SECRET_USE_GROUPS[use] for use in uses if use in SECRET_USE_GROUPS)


def _number(attributes: Attributes, name: Attribute) -> int:
    value = attributes[name]
    assert isinstance(value, int), f"{name.name} is a number; its rule says so"
    return value


def _listed(uses: frozenset[Attribute]) -> str:
    return ", ".join(sorted(use.name for use in uses)) or "no use"


# Bits of security: NIST SP 800-57 part 1, table 2, and of lattices the category's AES key.
_MOST: Final = 256
_RSA_STRENGTH: Final = ((15360, 256), (7680, 192), (3072, 128), (2048, 112))
_CURVE_STRENGTH: Final = {"P-521": 256, "brainpoolP512r1": 256, "Ed448": 224, "X448": 224}
_LATTICE_STRENGTH: Final = {
    (_K.ML_DSA, 1): 128,
    (_K.ML_DSA, 2): 192,
    (_K.ML_DSA, 3): 256,
    (_K.ML_KEM, 2): 192,
    (_K.ML_KEM, 3): 256,
}


def strength(key: Attributes) -> int:
    """Return the bits of security that a key gives; 256 at most, beyond which nobody asks for more."""
    key_type = KeyType(_number(key, _A.KEY_TYPE))
    if key[_A.CLASS] == _O.SECRET_KEY:
        return min(8 * _number(key, _A.VALUE_LEN), _MOST)
    if key_type is _K.RSA:
        modulus = key[_A.MODULUS]
        assert isinstance(modulus, bytes), "MODULUS is bytes; its rule says so"
        bits = int.from_bytes(modulus, "big").bit_length()
        return next((strong for least, strong in _RSA_STRENGTH if bits >= least), 0)
    if _A.PARAMETER_SET in key:
        return _LATTICE_STRENGTH[key_type, _number(key, _A.PARAMETER_SET)]
    params = key[_A.EC_PARAMS]
    assert isinstance(params, bytes), "EC_PARAMS is bytes; its rule says so"
    curve = CURVES_BY_PARAMS[params]
    return _CURVE_STRENGTH.get(curve.name, curve.bits // 2)
