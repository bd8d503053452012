"""Which steps bring a source's objects into a keyring, and that no run makes anything twice, wherever one ended."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnh.migration.plan import Choices, Found, Held, Receiver, Route, Step, Way, fingerprints, parameters, plan
from lnh_common.pkcs11.attributes import Attribute, Attributes, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism

A = Attribute
P256 = bytes.fromhex("06082a8648ce3d030107")
NOTHING: Any = frozenset()
OF_TOKEN = frozenset({Route.OAEP, Route.CARRIER})
LEAVES: Attributes = {A.EXTRACTABLE: True, A.SENSITIVE: True}


def uses(*names: str) -> Attributes:
    return {Attribute[name]: True for name in names}


def secret(number: int = 0, key_type: KeyType = KeyType.AES, length: int = 32, **more: Any) -> Found:
    attributes: Attributes = {A.CLASS: ObjectClass.SECRET_KEY.value, A.KEY_TYPE: key_type.value, A.VALUE_LEN: length}
    natural = ("SIGN", "VERIFY") if key_type is KeyType.GENERIC_SECRET else ("ENCRYPT", "DECRYPT")
    return Found(number, attributes | LEAVES | {A.LABEL: "key"} | (named(more) or uses(*natural)))


def private(number: int = 0, **more: Any) -> Found:
    attributes: Attributes = {A.CLASS: ObjectClass.PRIVATE_KEY.value, A.KEY_TYPE: KeyType.EC.value, A.EC_PARAMS: P256}
    return Found(number, attributes | LEAVES | {A.LABEL: "pair", A.ID: b"\1"} | (named(more) or uses("SIGN")))


def public(number: int = 1, value: bytes = b"spki") -> Found:
    attributes: Attributes = {A.CLASS: ObjectClass.PUBLIC_KEY.value, A.KEY_TYPE: KeyType.EC.value, A.EC_PARAMS: P256}
    return Found(number, attributes | {A.LABEL: "pair", A.ID: b"\1"} | uses("VERIFY"), value)


def rsa(number: int = 0, bits: int = 3072, **more: Any) -> Found:
    attributes: Attributes = {A.CLASS: ObjectClass.PRIVATE_KEY.value, A.KEY_TYPE: KeyType.RSA.value}
    modulus = (1 << (bits - 1)).to_bytes(bits // 8, "big")
    return Found(number, attributes | {A.MODULUS: modulus} | LEAVES | named(more), b"of rsa")


def named(more: dict[str, Any]) -> Attributes:
    return {Attribute[name]: value for name, value in more.items()}


def step(found: Found, routes: frozenset[Route] = OF_TOKEN, **choices: Any) -> Step:
    (planned,) = plan([found], [], {}, routes, Choices(**choices))
    return planned


def test_each_key_comes_by_the_shortest_route_that_the_source_has() -> None:
    of = {
        Route.OAEP: step(secret()),
        Route.CARRIER: step(private()),
        Route.RSA_AES: step(private(), frozenset(Route)),
    }
    for route, planned in of.items():
        assert planned.way is Way.WRAPPED
        assert planned.receiver is not None
        assert planned.receiver.route is route
    long = step(secret(key_type=KeyType.GENERIC_SECRET, length=512))
    assert long.receiver == Receiver(Route.CARRIER, ObjectClass.SECRET_KEY, KeyType.GENERIC_SECRET)


@pytest.mark.parametrize(
    ("found", "routes", "why"),
    [
        (secret(EXTRACTABLE=False, ENCRYPT=True), OF_TOKEN, "EXTRACTABLE is false"),
        (secret(WRAP_WITH_TRUSTED=True, ENCRYPT=True), OF_TOKEN, "WRAP_WITH_TRUSTED is true"),
        (secret(), NOTHING, "the source wraps with nothing that fits"),
        (private(), frozenset({Route.OAEP}), "the source wraps with nothing that fits"),
    ],
)
def test_what_cannot_come_says_why_and_a_new_key_takes_its_place_if_that_is_wanted(
    found: Found, routes: frozenset[Route], why: str
) -> None:
    new, listed = step(found, routes), step(found, routes, new_keys=False)
    assert (new.way, listed.way) == (Way.NEW, Way.STAYS)
    for each in (new, listed):
        assert any(note.startswith(why) for note in each.notes)
    assert new.template[A.LABEL] == found.label


def test_a_secret_key_keeps_the_natural_one_of_its_uses_where_keys_have_one() -> None:
    many = secret(ENCRYPT=True, DECRYPT=True, SIGN=True, WRAP=True)
    planned = step(many)
    assert {use for use, has in planned.template.items() if has is True} == {A.ENCRYPT, A.DECRYPT}
    assert planned.notes == ("SIGN, WRAP stays behind: policy key_uses = separated",)
    planned = step(many, separated=False)
    assert {use for use, has in planned.template.items() if has is True} == {A.ENCRYPT, A.DECRYPT, A.SIGN, A.WRAP}
    assert planned.notes == ()


def test_a_use_that_is_not_the_natural_one_comes_under_a_receiver_that_names_it() -> None:
    mac = step(secret(SIGN=True, VERIFY=True))
    assert mac.receiver == Receiver(Route.OAEP, ObjectClass.SECRET_KEY, KeyType.AES, frozenset({A.SIGN, A.VERIFY}))
    assert step(secret(SIGN=True), frozenset({Route.CARRIER})).way is Way.NEW  # a carrier cannot name one


def test_the_mechanisms_that_the_user_names_are_of_aes_keys_that_encrypt() -> None:
    cbc: dict[str, Any] = {"mechanisms": (Mechanism.AES_CBC_PAD,)}
    receiver = step(secret(), **cbc).receiver
    assert receiver is not None
    assert list(receiver.mechanisms) == [Mechanism.AES_CBC_PAD]
    assert receiver.uses == {A.ENCRYPT, A.DECRYPT}
    assert step(secret(), separated=False, **cbc).template[A.ALLOWED_MECHANISMS] == [Mechanism.AES_CBC_PAD]
    other = step(secret(key_type=KeyType.GENERIC_SECRET), **cbc)
    assert other.receiver == Receiver(Route.OAEP, ObjectClass.SECRET_KEY, KeyType.GENERIC_SECRET)


def test_what_the_source_says_of_mechanisms_counts_more_than_the_user() -> None:
    own = secret(ENCRYPT=True, ALLOWED_MECHANISMS=[Mechanism.AES_CTR.value])
    receiver = step(own, mechanisms=(Mechanism.AES_CBC_PAD,)).receiver
    assert receiver is not None
    assert receiver.mechanisms == (Mechanism.AES_CTR,)


def test_rsa_of_few_bits_comes_without_the_uses_that_wrap() -> None:
    planned = step(rsa(bits=2048, DECRYPT=True, UNWRAP=True), separated=False)
    assert planned.template[A.UNWRAP] is False
    assert planned.notes == ("UNWRAP stays behind: RSA of fewer than 3072 bits wraps nothing",)
    assert step(rsa(bits=2048, UNWRAP=True)).way is Way.STAYS
    assert step(rsa(bits=3072, DECRYPT=True, UNWRAP=True), separated=False).template[A.UNWRAP] is True


def test_extractable_comes_along_where_it_is_wanted_and_can() -> None:
    assert A.EXTRACTABLE not in step(secret()).template
    assert step(secret(), extractable=True).template[A.EXTRACTABLE] is True
    assert step(secret(EXTRACTABLE=False, SIGN=True), extractable=True).template.get(A.EXTRACTABLE) is None
    carried = step(private(), extractable=True)
    assert A.EXTRACTABLE not in carried.template
    assert carried.notes[0].startswith("EXTRACTABLE stays behind")
    assert step(private(), extractable=True, separated=False).template[A.EXTRACTABLE] is True


def test_a_key_is_read_in_clear_only_if_that_is_said_and_nothing_else_will_do() -> None:
    plain = secret(SENSITIVE=False, ENCRYPT=True)
    assert step(plain, NOTHING, in_clear=True).way is Way.IN_CLEAR
    assert step(plain, NOTHING).way is Way.NEW
    assert step(plain, in_clear=True).way is Way.WRAPPED
    assert step(secret(), NOTHING, in_clear=True).way is Way.NEW
    assert step(secret(SENSITIVE=False, EXTRACTABLE=False, SIGN=True), NOTHING, in_clear=True).way is Way.NEW


def test_no_new_key_is_made_of_a_size_that_the_product_has_not() -> None:
    assert step(rsa(bits=1024, SIGN=True, EXTRACTABLE=False)).way is Way.STAYS
    assert parameters(rsa(bits=4096)) == {A.MODULUS_BITS: 4096}
    assert parameters(Found(0, {A.CLASS: ObjectClass.SECRET_KEY.value, A.KEY_TYPE: KeyType.AES.value})) is None


def test_names_dates_and_flags_come_along() -> None:
    kept: dict[str, Any] = {
        "LABEL": "a", "ID": b"b", "START_DATE": "2026-01-01", "END_DATE": "2027-01-01", "MODIFIABLE": False,
        "COPYABLE": False, "DESTROYABLE": False,
    }  # fmt: skip
    template = step(secret(ENCRYPT=True, **kept)).template
    assert {name: template[Attribute[name]] for name in kept} == kept
    assert A.SENSITIVE not in template


def test_an_object_of_another_kind_stays_and_says_so() -> None:
    planned = step(Found(0, {}, problem="the product has no keys of this type", kind="0x13 secret key"))
    assert (planned.way, planned.notes) == (Way.STAYS, ("the product has no keys of this type",))


def test_the_public_key_of_a_pair_that_a_new_one_replaces_stays() -> None:
    stuck = private(EXTRACTABLE=False, SIGN=True)
    assert [each.way for each in plan([stuck, public()], [], {}, OF_TOKEN, Choices())] == [Way.NEW, Way.STAYS]
    listed = plan([stuck, public()], [], {}, OF_TOKEN, Choices(new_keys=False))
    assert [each.way for each in listed] == [Way.STAYS, Way.COPIED]


def test_a_key_of_the_keyring_with_the_same_names_keeps_out_none_that_can_come() -> None:
    mine = Held(b"h", secret().attributes | {A.LOCAL: True})
    (planned,) = plan([secret()], [mine], {}, OF_TOKEN, Choices())
    assert planned.way is Way.WRAPPED
    (planned,) = plan([secret(EXTRACTABLE=False, ENCRYPT=True)], [mine], {}, OF_TOKEN, Choices())
    assert (planned.way, planned.handle) == (Way.THERE, b"h")


def test_what_the_source_refused_is_planned_anew() -> None:
    (planned,) = plan([private()], [], {}, OF_TOKEN, Choices(), {0: "the token does not wrap it"})
    assert planned.way is Way.NEW
    assert "the token does not wrap it" in planned.notes


# --- many objects, and runs that end anywhere

labels = st.sampled_from(["a", "b"])
ids = st.sampled_from([b"", b"\1", b"\2"])
flags = st.booleans()


@st.composite
def sources(draw: st.DrawFn) -> list[Found]:
    """Objects with few names, so that many share them; each key has a value of its own."""
    found: list[Found] = []
    for number in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["secret", "private", "public", "certificate", "data", "strange"]))
        names: Attributes = {A.LABEL: draw(labels)}
        if kind == "data":
            names |= {A.CLASS: ObjectClass.DATA.value, A.VALUE: draw(ids)}
        else:
            names[A.ID] = draw(ids)
        if kind == "certificate":
            names |= {A.CLASS: ObjectClass.CERTIFICATE.value, A.VALUE: b"certificate" + draw(ids)}
        leaves: Attributes = {A.EXTRACTABLE: draw(flags), A.SENSITIVE: True}
        if kind == "strange":
            found.append(Found(number, names, problem="nothing like it"))
        elif kind in {"certificate", "data"}:
            found.append(Found(number, names))
        elif kind == "secret":
            told = {A.CHECK_VALUE: bytes([number] * 3)} if draw(flags) else {}
            found.append(Found(number, secret().attributes | leaves | names | told))
        elif kind == "private":
            told_public = f"spki {number}".encode() if draw(flags) else b""
            found.append(Found(number, private().attributes | leaves | names, told_public))
        else:
            found.append(Found(number, public().attributes | names, f"spki {draw(st.integers(0, 8))}".encode()))
    return found


def carried_out(steps: list[Step], most: int, names: list[bytes]) -> tuple[list[Held], dict[bytes, bytes]]:
    """What a keyring has after so many steps, and the journal of it."""
    held: list[Held] = []
    done: dict[bytes, bytes] = {}
    for each in [each for each in steps if each.way not in {Way.THERE, Way.STAYS}][:most]:
        found, handle = each.found, os.urandom(16)
        is_key = found.is_sensitive_key
        kept = {name: value for name, value in found.attributes.items() if name is not A.CHECK_VALUE}
        facts: Attributes = {A.LOCAL: each.way is Way.NEW} if is_key else {}
        if found.key_type is KeyType.EC:
            its = found.public if each.way is not Way.NEW else os.urandom(8)
            facts[A.PUBLIC_KEY_INFO] = its or os.urandom(8)
        elif is_key:
            own = found.attributes.get(A.CHECK_VALUE, b"own") if each.way is not Way.NEW else b"new"
            facts[A.CHECK_VALUE] = own
        held.append(Held(handle, kept | facts))
        if each.way is Way.NEW and found.key_type is KeyType.EC:
            public_half = {A.CLASS: ObjectClass.PUBLIC_KEY.value, A.LOCAL: True}
            held.append(Held(os.urandom(16), kept | facts | public_half))
        done[names[found.number]] = handle
    return held, done


@given(sources(), st.integers(0, 8), st.booleans(), st.booleans(), st.booleans())
def test_no_run_makes_anything_twice_wherever_the_one_before_ended(
    found: list[Found], most: int, keeps_journal: bool, new_keys: bool, separated: bool
) -> None:
    choices = Choices(new_keys=new_keys, separated=separated)
    names = fingerprints(found)
    first = plan(found, [], {}, OF_TOKEN, choices)
    held, done = carried_out(first, most, names)
    second = plan(found, held, done if keeps_journal else {}, OF_TOKEN, choices)
    added, more_done = carried_out(second, len(found), names)
    third = plan(found, held + added, done | more_done if keeps_journal else {}, OF_TOKEN, choices)
    assert {each.way for each in third} <= {Way.THERE, Way.STAYS}
    wanted = sum(each.way not in {Way.THERE, Way.STAYS} for each in first)
    assert min(most, wanted) + sum(each.way not in {Way.THERE, Way.STAYS} for each in second) == wanted
    handles = [each.handle for each in third if each.way is Way.THERE]
    assert len(handles) == len(set(handles)) == wanted


@given(sources())
def test_fingerprints_are_the_same_in_any_order_and_of_no_two_objects(found: list[Found]) -> None:
    names = fingerprints(found)
    assert len(set(names)) == len(names)
    assert sorted(fingerprints(found[::-1])) == sorted(names)
