"""A bounded exhaustive search for a path from a sensitive key to its bytes (`models/attacker.py`)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import KeyType
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_services.hsm.objects import describing, key_rules
from lnh_services.hsm.objects import policy as rules
from lnh_services.hsm.objects.policy import KeyUses, Policy
from models.attacker import Attacker, Menu

M = Mechanism
K = KeyType
ROUNDS: Final = 4

# Of AES: each use, and two at once; each family; what comes out again, by templates of each kind.
_CBC: Final = [M.AES_CBC.value]
_Said: TypeAlias = dict[str, Any]


def _all(*said: _Said) -> tuple[_Said, ...]:
    return said


_USES: Final[tuple[_Said, ...]] = (
    {"DECRYPT": True, "ENCRYPT": True, "ALLOWED_MECHANISMS": _CBC},
    {"SIGN": True},
    {"DERIVE": True},
)
_OUT: Final[tuple[dict[str, Any], ...]] = (
    {}, {"DECRYPT": True, "ALLOWED_MECHANISMS": _CBC}, {"SIGN": True}, {"DERIVE": True}, {"WRAP": True, "UNWRAP": True},
)  # fmt: skip
_KEKS: Final[tuple[_Said, ...]] = tuple(
    {"WRAP": True, "UNWRAP": True, "EXTRACTABLE": True, **said}
    for said in _all(
        {},
        *({"UNWRAP_TEMPLATE": out} for out in _OUT),
        *({"WRAP_TEMPLATE": one, "UNWRAP_TEMPLATE": other} for one, other in itertools.permutations(_OUT, 2)),
        {"SENSITIVE": False},
        {"DECRYPT": True},
    )
)
_OUTCOMES: Final = (
    *((K.AES, {**said, **more}) for said in _OUT for more in ({}, {"EXTRACTABLE": True})),
    *((K.GENERIC_SECRET, said) for said in ({}, {"SIGN": True}, {"DERIVE": True})),
)
_COPIES: Final[tuple[_Said, ...]] = (
    {},
    {"SENSITIVE": False},
    {"EXTRACTABLE": True},
    {"DECRYPT": True},
    {"UNWRAP": False},
)

SYMMETRIC: Final = Menu(
    secrets=(
        *((K.AES, said) for said in _KEKS),
        *((K.AES, {"EXTRACTABLE": True, **said}) for said in ({}, *_USES)),
        *((K.GENERIC_SECRET, {"EXTRACTABLE": True, **said}) for said in ({}, {"DERIVE": True})),
    ),
    brought=tuple((K.AES, said) for said in ({"WRAP": True, "UNWRAP": True}, {"DERIVE": True})),
    outcomes=_OUTCOMES,
    copies=_COPIES,
)
DERIVING: Final = Menu(
    secrets=(
        *(
            (key_type, {"EXTRACTABLE": True, "DERIVE": True, **said})
            for key_type in (K.GENERIC_SECRET, K.AES)
            for said in _all({}, *({"DERIVE_TEMPLATE": out} for out in _OUT), {"SIGN": True}, {"SENSITIVE": False})
        ),
        (K.AES, {"WRAP": True, "UNWRAP": True, "UNWRAP_TEMPLATE": {"DERIVE": True}}),
    ),
    outcomes=_OUTCOMES,
    copies=_COPIES,
)
_P256: Final = {"EC_PARAMS": CURVES["P-256"].oid}
AGREEING: Final = Menu(
    secrets=(),
    pairs=(
        *((K.EC, _P256, {"DERIVE": True, **said}) for said in ({}, *({"DERIVE_TEMPLATE": out} for out in _OUT))),
        (K.ML_KEM, {"PARAMETER_SET": 2}, {}),
    ),
    outcomes=(*_OUTCOMES, (K.GENERIC_SECRET, {"DERIVE": True, "DERIVE_TEMPLATE": {"SIGN": True}})),
)
_RSA: Final = {"MODULUS_BITS": 3072}
_BOTH: Final = [M.RSA_PKCS_OAEP, M.RSA_AES_KEY_WRAP]
ASYMMETRIC: Final = Menu(
    secrets=(
        (K.AES, {"EXTRACTABLE": True}),
        (K.AES, {"EXTRACTABLE": True, "DECRYPT": True, "ALLOWED_MECHANISMS": _CBC}),
        (K.AES, {"WRAP": True, "UNWRAP": True}),
    ),
    pairs=(
        (K.RSA, _RSA | {"WRAP": True}, {"UNWRAP": True, "EXTRACTABLE": True}),
        (
            K.RSA,
            _RSA | {"WRAP": True, "ALLOWED_MECHANISMS": [M.RSA_PKCS_OAEP]},
            {
                "UNWRAP": True,
                "EXTRACTABLE": True,
                "ALLOWED_MECHANISMS": [M.RSA_PKCS_OAEP],
                "UNWRAP_TEMPLATE": {"DECRYPT": True, "ALLOWED_MECHANISMS": _CBC},
            },
        ),
        (
            K.RSA,
            _RSA | {"WRAP": True, "ALLOWED_MECHANISMS": _BOTH},
            {
                "UNWRAP": True,
                "ALLOWED_MECHANISMS": _BOTH,
                "UNWRAP_TEMPLATE": {"DECRYPT": True, "ALLOWED_MECHANISMS": _CBC},
            },
        ),
        (K.RSA, _RSA, {"EXTRACTABLE": True}),
        (K.RSA, _RSA | {"WRAP": True}, {"DECRYPT": True}),
        (K.RSA, _RSA | {"WRAP": True}, {"UNWRAP": True, "SENSITIVE": False, "EXTRACTABLE": True}),
    ),
    outcomes=(*_OUTCOMES, *((K.RSA, said) for said in ({}, {"DECRYPT": True}, {"UNWRAP": True}))),
)
MENUS: Final = {"symmetric": SYMMETRIC, "deriving": DERIVING, "agreeing": AGREEING, "asymmetric": ASYMMETRIC}


_DRAWN: Final[list[RSAPrivateKey]] = []


@pytest.fixture(autouse=True)
def _rsa_keys_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each search begin with the RSA keys that the one before drew: to draw them is most of its time."""
    draw, number = rsa.generate_private_key, itertools.count()

    def next_one(exponent: int, bits: int) -> RSAPrivateKey:
        if (wanted := next(number)) == len(_DRAWN):
            _DRAWN.append(draw(exponent, bits))
        return _DRAWN[wanted]

    monkeypatch.setattr(rsa, "generate_private_key", next_one)


@pytest.fixture(autouse=True)
def _each_rsa_key_tested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test the primes of the same bytes once: a search unwraps them again in every round, which was a third of its time."""
    monkeypatch.setattr(describing, "_loaded", functools.cache(describing._loaded))


def searched(menu: Menu, key_uses: KeyUses, rounds: int = ROUNDS) -> Attacker:
    """Search until something leaks, or all rounds are over."""
    attacker = Attacker(Policy(import_keys=True, key_uses=key_uses), menu)
    attacker.begin()
    for _ in range(rounds):
        attacker.round()
        if attacker.leaked:
            break
    return attacker


@pytest.mark.parametrize("name", MENUS)
def test_no_sequence_of_calls_leads_to_the_bytes_of_a_sensitive_key(name: str) -> None:
    attacker = searched(MENUS[name], KeyUses.SEPARATED)
    assert attacker.leaked == {}
    assert len(attacker.things) > len(MENUS[name].secrets), "something came out of something"


@pytest.mark.parametrize("name", MENUS)
def test_where_the_standards_plain_rules_hold_the_search_finds_the_known_attacks(name: str) -> None:
    assert searched(MENUS[name], KeyUses.COMPATIBLE, 2).leaked


def _nothing(*_: Any) -> str:
    return ""


# What the search finds when one rule of `key_rules` is missing, so that each of them is needed.
WITHOUT: Final[dict[str, tuple[str, object, str, Callable[..., Any]]]] = {
    "a caller adds no use": ("symmetric", key_rules, "_separated", lambda *_: {}),
    "what is wrapped comes back as it is": ("symmetric", key_rules, "_comes_back_otherwise", _nothing),
    "a derived key has one use": ("deriving", key_rules, "_separated", lambda *_: {}),
    "what may be known wraps nothing": ("symmetric", key_rules, "_may_be_known", lambda _: False),
    "a pair wraps by one mechanism": ("asymmetric", rules, "_mixed_wrapping", _nothing),
}


@pytest.mark.parametrize("rule", WITHOUT)
def test_without_any_one_rule_there_is_a_way(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, where, what, instead = WITHOUT[rule]
    monkeypatch.setattr(where, what, instead)
    assert searched(MENUS[name], KeyUses.SEPARATED).leaked
