"""Which key encrypts, and which one a key id names, whatever is listed in whatever order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnh_common.errors import LnhError, MemberBehind, NotPossible, ObjectUnknown
from lnh_common.pkcs11.attributes import Attribute, Attributes
from lnh_kms.keys import Keys, key_id, parameters
from sizes import sized

USES: Attributes = {Attribute.ENCRYPT: True, Attribute.DECRYPT: True}


@dataclass(frozen=True)
class Key:
    """A key: its handle is this number."""

    number: int
    attributes: Attributes = field(default_factory=lambda: USES, compare=False)

    @property
    def handle(self) -> bytes:
        return self.number.to_bytes(16, "big")


def keys(*numbers: int, current: bool = True) -> Keys[Key]:
    made = Keys[Key]("kubernetes", "make one")
    made.take(map(Key, numbers), current=current)
    made.choose()
    return made


def test_the_newest_encrypts_and_all_decrypt() -> None:
    held = keys(2, 3, 1)
    assert held.encrypting().number == 3
    assert [held.decrypting(key_id(Key(each))).number for each in (1, 2, 3)] == [1, 2, 3]


def test_a_newer_key_encrypts_from_the_next_choice_on() -> None:
    held = keys(1)
    held.take([Key(1), Key(2)], current=True)
    assert held.encrypting().number == 1
    held.choose()
    assert held.encrypting().number == 2


def test_a_key_that_only_decrypts_is_never_chosen() -> None:
    held = keys(1)
    held.take([Key(1), Key(2, {**USES, Attribute.ENCRYPT: False})], current=True)
    held.choose()
    assert held.encrypting().number == 1
    assert held.decrypting(key_id(Key(2))).number == 2


def test_a_newest_key_that_was_destroyed_is_told_and_no_older_one_takes_its_place() -> None:
    held = keys(1, 2)
    held.take([Key(1)], current=True)
    held.choose()
    with pytest.raises(NotPossible, match=key_id(Key(2))) as caught:
        held.encrypting()
    assert caught.value.detail["advice"] == "make one"
    held.take([Key(1), Key(3)], current=True)
    held.choose()
    assert held.encrypting().number == 3


def test_without_a_key_the_command_that_makes_one_is_told() -> None:
    with pytest.raises(NotPossible) as caught:
        keys().encrypting()
    assert caught.value.detail["advice"] == "make one"


def test_a_member_that_is_behind_denies_no_key_for_certain() -> None:
    held = keys(current=False)
    with pytest.raises(MemberBehind):
        held.encrypting()
    with pytest.raises(MemberBehind):
        held.decrypting(key_id(Key(1)))
    with pytest.raises(ObjectUnknown):
        keys(2).decrypting(key_id(Key(1)))


def test_what_is_bound_to_another_session_keeps_its_ids() -> None:
    held = keys(1, 2)
    held.bind(lambda key: Key(key.number))
    assert held.chosen_id == key_id(Key(2))
    assert held.decrypting(key_id(Key(1))) == Key(1)


def test_a_key_id_is_short_and_binds_what_it_encrypted() -> None:
    name = key_id(Key(2**128 - 1))
    assert len(name) < 64
    assert name.encode() in parameters(name).aad
    assert parameters(name).aad != name.encode(), "what others bind to the id alone is nothing of ours"


_NUMBERS = st.sets(st.integers(1, 9), max_size=5)


@given(listings=st.lists(st.tuples(_NUMBERS, st.booleans(), st.booleans()), max_size=8))
@settings(max_examples=sized(200))
def test_the_id_never_goes_back_and_nothing_that_was_listed_is_lost(
    listings: list[tuple[set[int], bool, bool]],
) -> None:
    held = Keys[Key]("kubernetes", "make one")
    known: set[int] = set()
    chosen = 0
    for numbers, current, chooses in listings:
        held.take(map(Key, numbers), current=current)
        known = numbers if current else known | numbers
        if chooses:
            held.choose()
            chosen = max([chosen, *known])
        assert held.chosen_id == (key_id(Key(chosen)) if chosen else "")
        for each in range(1, 10):
            assert _found(held, each) == (each in known)
        try:
            assert held.encrypting().number == chosen
        except LnhError:
            assert chosen not in known


def _found(held: Keys[Key], number: int) -> bool:
    try:
        return held.decrypting(key_id(Key(number))).number == number
    except LnhError:
        return False
