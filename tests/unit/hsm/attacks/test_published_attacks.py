"""The published attacks on PKCS#11, and their variants, each tried through a worker.

Clulow, "On the Security of PKCS #11" (CHES 2003); Delaune, Kremer, Steel, "Formal Analysis of PKCS#11" (CSF 2008);
Bortolozzo, Centenaro, Focardi, Steel, "Attacking and Fixing PKCS#11 Security Tokens" (CCS 2010).

An attacker calls whatever a KRCO may, and wants the bytes of `target`, which is SENSITIVE and EXTRACTABLE. With
`key_uses = compatible`, where the standard's plain rules are wanted, the attacks that these rules allow are carried out
to the end: so each test can see what it looks for.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import (
    aes_key_unwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap,
    aes_key_wrap_with_padding,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lnh_common import errors
from lnh_common.errors import LnhError
from lnh_common.messages.objects import ObjectView
from lnh_common.messages.session import Role
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.pkcs11.parameters import EcdhParameters, HkdfParameters, IvParameters
from models.keyring import Keyring

A = Attribute
M = Mechanism
KEK: Final[dict[str, Any]] = {"WRAP": True, "UNWRAP": True}
KNOWN: Final = b"known to the attacker, 32 bytes!"


@pytest.fixture
def separated() -> Keyring:
    return Keyring.made(policy={"import": True})


@pytest.fixture
def compatible() -> Keyring:
    return Keyring.made(policy={"import": True, "key_uses": "compatible"})


def target_of(keyring: Keyring, **named: Any) -> ObjectView:
    """Make the key that the attacker is after."""
    target = keyring.secret(EXTRACTABLE=True, **named)
    with pytest.raises(errors.AttributeSensitive):
        keyring.value(target)
    return target


def is_value(keyring: Keyring, target: ObjectView, value: bytes) -> bool:
    """Tell whether these are the bytes of an AES key, by its CHECK_VALUE and by what it encrypts."""
    cipher = Cipher(algorithms.AES(value), modes.ECB()).encryptor()  # the standard's definition
    return bool(cipher.update(bytes(16))[:3] == target.attributes[A.CHECK_VALUE])


class Block:
    """The AES of a key that decrypts with CBC, block by block: an IV of zeros leaves the block cipher."""

    def __init__(self, keyring: Keyring, key: ObjectView) -> None:
        self.keyring, self.key = keyring, key

    def decrypt(self, block: bytes) -> bytes:
        return self.keyring.decrypt(self.key, block, M.AES_CBC, IvParameters(iv=bytes(16)))


def unwrap_by_hand(block: Block, wrapped: bytes) -> bytes:
    """Undo AES_KEY_WRAP (RFC 3394, 2.2.2) by a key that merely decrypts."""
    n = len(wrapped) // 8 - 1
    a, r = wrapped[:8], [wrapped[8 * i : 8 * i + 8] for i in range(1, n + 1)]
    for j in reversed(range(6)):
        for i in reversed(range(1, n + 1)):
            t = (int.from_bytes(a, "big") ^ (n * j + i)).to_bytes(8, "big")
            b = block.decrypt(t + r[i - 1])
            a, r[i - 1] = b[:8], b[8:]
    assert a == b"\xa6" * 8
    return b"".join(r)


# --- Clulow 2003


def test_clulow_wrap_and_decrypt_with_one_key(separated: Keyring, compatible: Keyring) -> None:
    """Clulow 2003, 3.3: a key that wraps and decrypts."""
    both: dict[str, Any] = {"WRAP": True, "DECRYPT": True}
    with pytest.raises(errors.TemplateInconsistent, match="one of"):
        separated.secret(**both)
    key = compatible.secret(**both)
    target = target_of(compatible)
    value = unwrap_by_hand(Block(compatible, key), compatible.wrap(key, target, M.AES_KEY_WRAP))
    assert is_value(compatible, target, value)


def test_clulow_a_wrapping_key_that_the_attacker_brings(separated: Keyring, compatible: Keyring) -> None:
    """Clulow 2003, 3.2: the attacker's own key wraps. It is not LOCAL, so it wraps under neither policy."""
    for keyring in (separated, compatible):
        target = target_of(keyring)
        own = keyring.create(KNOWN, KEY_TYPE=KeyType.AES, **KEK)
        with pytest.raises(errors.KeyFunctionNotPermitted, match="not generated here"):
            keyring.wrap(own, target)
        trojan = rsa.generate_private_key(65537, 3072)
        spki = trojan.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        public = keyring.create(spki, ObjectClass.PUBLIC_KEY, WRAP=True)
        for mechanism in (M.RSA_PKCS_OAEP, M.RSA_AES_KEY_WRAP):
            with pytest.raises((errors.KeyFunctionNotPermitted, errors.MechanismInvalid)):
                keyring.wrap(public, target, mechanism)


def test_clulow_a_weaker_key_wraps_a_stronger_one(separated: Keyring, compatible: Keyring) -> None:
    """Clulow 2003, 3.1: a key of few bits guards one of many."""
    for keyring in (separated, compatible):
        weak, target = keyring.secret(VALUE_LEN=16, **KEK), target_of(keyring)
        with pytest.raises(errors.KeySizeRange, match="128"):
            keyring.wrap(weak, target)
        with pytest.raises(errors.PolicyForbids, match="3072"):
            keyring.pair(KeyType.RSA, {"MODULUS_BITS": 2048, "WRAP": True})


def test_clulow_key_separation_by_short_derivations(separated: Keyring, compatible: Keyring) -> None:
    """Clulow 2003, 2.4: parts of a key, each short enough to be guessed."""
    for keyring in (separated, compatible):
        base = keyring.secret(KeyType.GENERIC_SECRET, DERIVE=True, DERIVE_TEMPLATE={"SIGN": True})
        for length in (0, 1, 8, 15):
            with pytest.raises(errors.KeySizeRange):
                keyring.derive(base, KeyType.GENERIC_SECRET, VALUE_LEN=length)


def test_clulow_change_the_attributes_of_a_key(separated: Keyring, compatible: Keyring) -> None:
    """Clulow 2003, 2.2: what is set and unset again."""
    for keyring in (separated, compatible):
        target = target_of(keyring)
        for name, value in (("SENSITIVE", False), ("WRAP", True), ("UNWRAP", True), ("SIGN", True), ("LOCAL", True)):
            with pytest.raises(errors.AttributeReadOnly, match=name):
                keyring.set(target, **{name: value})
            with pytest.raises(errors.AttributeReadOnly, match=name):
                keyring.copy(target, **{name: value})
        keyring.set(target, EXTRACTABLE=False)
        with pytest.raises(errors.AttributeReadOnly, match="EXTRACTABLE"):
            keyring.copy(target, EXTRACTABLE=True)


# --- Delaune, Kremer, Steel 2008; Bortolozzo et al. 2010


def test_reimport_of_a_wrapping_key_as_a_decrypting_one(separated: Keyring, compatible: Keyring) -> None:
    """Delaune et al. 2008, figure 3: a wrapping key is wrapped, and unwrapped as one that decrypts (Bortolozzo: a1)."""
    template = {"KEY_TYPE": KeyType.AES, "ALLOWED_MECHANISMS": [M.AES_CBC]}
    for outer in (separated.secret(**KEK, UNWRAP_TEMPLATE=template), separated.secret(**KEK)):
        inner = separated.secret(**KEK, EXTRACTABLE=True)
        with pytest.raises(errors.TemplateInconsistent, match="WRAP"):
            separated.wrap(outer, inner)
    outer, inner = compatible.secret(**KEK), compatible.secret(**KEK, EXTRACTABLE=True)
    target = target_of(compatible)
    again = compatible.unwrap(outer, compatible.wrap(outer, inner), DECRYPT=True)
    value = unwrap_by_hand(Block(compatible, again), compatible.wrap(inner, target, M.AES_KEY_WRAP))
    assert is_value(compatible, target, value)


def test_two_templates_for_one_wrapped_key(separated: Keyring) -> None:
    """Bortolozzo 2010, 3.1 (a2): one wrapped key is unwrapped twice, for two uses."""
    outer = separated.secret(**KEK)
    wrapped = separated.wrap(outer, target_of(separated))
    others: tuple[dict[str, Any], ...] = ({"UNWRAP": True}, {"WRAP": True}, {"DERIVE": True}, {"SIGN": True})
    for uses in (*others, {"DECRYPT": True, "SIGN": True}):
        with pytest.raises(errors.TemplateInconsistent):
            separated.unwrap(outer, wrapped, **uses)
    for mechanism in (M.AES_CBC, M.AES_CBC_PAD, M.AES_CTR, M.AES_ECB, M.AES_CMAC, M.AES_KEY_WRAP):
        with pytest.raises(errors.TemplateInconsistent):
            separated.unwrap(outer, wrapped, ALLOWED_MECHANISMS=[mechanism])
    back = separated.unwrap(outer, wrapped)
    assert back.attributes[A.ALLOWED_MECHANISMS] == [M.AES_GCM]


def test_a_key_wraps_for_one_use_and_unwraps_for_another(separated: Keyring) -> None:
    """Bortolozzo 2010, the template variant: WRAP_TEMPLATE and UNWRAP_TEMPLATE that disagree."""
    with pytest.raises(errors.TemplateInconsistent, match="WRAP_TEMPLATE"):
        separated.secret(**KEK, WRAP_TEMPLATE={"WRAP": True}, UNWRAP_TEMPLATE={"DECRYPT": True})
    with pytest.raises(errors.TemplateInconsistent, match="WRAP_TEMPLATE"):
        separated.pair(
            KeyType.RSA,
            {"MODULUS_BITS": 3072, "WRAP": True, "WRAP_TEMPLATE": {"DERIVE": True}},
            {"UNWRAP": True, "UNWRAP_TEMPLATE": {"SIGN": True}},
        )
    outer = separated.secret(**KEK, UNWRAP_TEMPLATE={"DECRYPT": True, "SIGN": True, "KEY_TYPE": KeyType.AES})
    with pytest.raises(errors.TemplateInconsistent):
        separated.wrap(outer, target_of(separated))


def test_a_template_is_no_way_to_another_family(separated: Keyring) -> None:
    """The CTR and GCM variant: the key stream of one family is the other's."""
    outer = separated.secret(**KEK, UNWRAP_TEMPLATE={"ALLOWED_MECHANISMS": [M.AES_CTR]})
    with pytest.raises(errors.TemplateInconsistent, match="ALLOWED_MECHANISMS"):
        separated.wrap(outer, target_of(separated))
    counter = target_of(separated, ALLOWED_MECHANISMS=[M.AES_CTR])
    assert separated.unwrap(outer, separated.wrap(outer, counter)).attributes[A.ALLOWED_MECHANISMS] == [M.AES_CTR]
    blocks = separated.secret(**KEK, UNWRAP_TEMPLATE={"ALLOWED_MECHANISMS": [M.AES_CBC, M.AES_CBC_PAD]})
    padded = target_of(separated, ALLOWED_MECHANISMS=[M.AES_CBC_PAD])
    assert separated.wrap(blocks, padded), "of the family that the templates name, it may have fewer"
    both = separated.secret(**KEK, UNWRAP_TEMPLATE={"ALLOWED_MECHANISMS": [M.AES_CTR, M.AES_GCM]})
    with pytest.raises(errors.TemplateInconsistent):
        separated.wrap(both, counter)
    with pytest.raises(errors.TemplateInconsistent, match="family"):
        separated.secret(ENCRYPT=True, ALLOWED_MECHANISMS=[M.AES_CTR, M.AES_GCM])


def test_the_wrapping_key_loses_its_template_on_the_way(separated: Keyring) -> None:
    """A key with a template of its own is wrapped, and would come back with the default one."""
    outer = separated.secret(**KEK, UNWRAP_TEMPLATE={"WRAP": True, "UNWRAP": True})
    special = separated.secret(**KEK, EXTRACTABLE=True, UNWRAP_TEMPLATE={"ALLOWED_MECHANISMS": [M.AES_CBC]})
    with pytest.raises(errors.TemplateInconsistent, match="TEMPLATE"):
        separated.wrap(outer, special)
    plain = separated.secret(**KEK, EXTRACTABLE=True)
    wrapped = separated.wrap(outer, plain)
    with pytest.raises(errors.TemplateInconsistent, match="UNWRAP_TEMPLATE"):
        separated.unwrap(outer, wrapped, UNWRAP_TEMPLATE={"ALLOWED_MECHANISMS": [M.AES_CBC]})
    back = separated.unwrap(outer, wrapped)
    with pytest.raises(errors.KeyFunctionNotPermitted, match="not generated here"):
        separated.wrap(back, target_of(separated))


# --- asymmetric variants


def test_a_pair_that_wraps_and_decrypts(separated: Keyring, compatible: Keyring) -> None:
    """Clulow 2003, the asymmetric variant: a target is wrapped under RSA and decrypted as data."""
    public = {"MODULUS_BITS": 3072, "WRAP": True}
    with pytest.raises(errors.TemplateInconsistent, match="excludes"):
        separated.pair(KeyType.RSA, public, {"DECRYPT": True})
    pair = compatible.pair(KeyType.RSA, public, {"DECRYPT": True})
    target = target_of(compatible)
    wrapped = compatible.wrap(pair.public, target, M.RSA_PKCS_OAEP)
    assert is_value(compatible, target, compatible.decrypt(pair.private, wrapped, M.RSA_PKCS_OAEP))


def test_the_public_key_of_a_decrypting_pair_comes_in_to_wrap(separated: Keyring, compatible: Keyring) -> None:
    """The import variant: the pair's own public key is created again with WRAP."""
    for keyring in (separated, compatible):
        pair = keyring.pair(KeyType.RSA, {"MODULUS_BITS": 3072})
        spki = bytes(pair.public.attributes[A.PUBLIC_KEY_INFO])
        again = keyring.create(spki, ObjectClass.PUBLIC_KEY, WRAP=True, ALLOWED_MECHANISMS=[M.RSA_PKCS_OAEP])
        with pytest.raises(errors.KeyFunctionNotPermitted, match="not generated here"):
            keyring.wrap(again, target_of(keyring), M.RSA_PKCS_OAEP)


def test_a_private_key_comes_back_for_another_use(separated: Keyring, compatible: Keyring) -> None:
    """An unwrapping private key is wrapped, and unwrapped as one that decrypts."""
    outer = separated.secret(**KEK)
    inner = separated.pair(KeyType.RSA, {"MODULUS_BITS": 3072, "WRAP": True}, {"UNWRAP": True, "EXTRACTABLE": True})
    with pytest.raises(errors.TemplateInconsistent, match="UNWRAP"):
        separated.wrap(outer, inner.private)
    outer = compatible.secret(**KEK)
    inner = compatible.pair(KeyType.RSA, {"MODULUS_BITS": 3072, "WRAP": True}, {"UNWRAP": True, "EXTRACTABLE": True})
    target = target_of(compatible)
    private = compatible.unwrap(
        outer, compatible.wrap(outer, inner.private), KeyType.RSA, object_class=ObjectClass.PRIVATE_KEY, DECRYPT=True
    )
    wrapped = compatible.wrap(inner.public, target, M.RSA_PKCS_OAEP)
    assert is_value(compatible, target, compatible.decrypt(private, wrapped, M.RSA_PKCS_OAEP))


def test_the_key_within_rsa_aes_key_wrap_is_unwrapped_by_itself(separated: Keyring, compatible: Keyring) -> None:
    """What RSA_AES_KEY_WRAP wraps begins with an AES key under OAEP, which RSA_PKCS_OAEP would unwrap as a key."""
    both = [M.RSA_PKCS_OAEP, M.RSA_AES_KEY_WRAP]
    with pytest.raises(errors.TemplateInconsistent, match="wraps by one mechanism"):
        separated.pair(
            KeyType.RSA,
            {"MODULUS_BITS": 3072, "WRAP": True, "ALLOWED_MECHANISMS": both},
            {"UNWRAP": True, "ALLOWED_MECHANISMS": both},
        )
    pair = separated.pair(KeyType.RSA, {"MODULUS_BITS": 3072, "WRAP": True})
    wrapped = separated.wrap(pair.public, target_of(separated), M.RSA_AES_KEY_WRAP)
    with pytest.raises(errors.MechanismInvalid):
        separated.unwrap(pair.private, wrapped[:384], mechanism=M.RSA_PKCS_OAEP)
    pair = compatible.pair(KeyType.RSA, {"MODULUS_BITS": 3072, "WRAP": True}, {"UNWRAP": True})
    target = target_of(compatible)
    wrapped = compatible.wrap(pair.public, target, M.RSA_AES_KEY_WRAP)
    within = compatible.unwrap(pair.private, wrapped[:384], mechanism=M.RSA_PKCS_OAEP, DECRYPT=True)
    block = Block(compatible, within)
    assert is_value(compatible, target, unwrap_padded_by_hand(block, wrapped[384:]))


def unwrap_padded_by_hand(block: Block, wrapped: bytes) -> bytes:
    """Undo AES_KEY_WRAP_PAD (RFC 5649, 4.2) of a key of whole blocks."""
    n = len(wrapped) // 8 - 1
    a, r = wrapped[:8], [wrapped[8 * i : 8 * i + 8] for i in range(1, n + 1)]
    for j in reversed(range(6)):
        for i in reversed(range(1, n + 1)):
            t = (int.from_bytes(a, "big") ^ (n * j + i)).to_bytes(8, "big")
            b = block.decrypt(t + r[i - 1])
            a, r[i - 1] = b[:8], b[8:]
    assert a[:4] == b"\xa6\x59\x59\xa6"
    return b"".join(r)[: int.from_bytes(a[4:], "big")]


# --- derive variants


def test_one_base_derives_one_key_for_two_uses(separated: Keyring, compatible: Keyring) -> None:
    """The derive variant: a key is derived once to derive, and once to sign; its tags are what it derives."""
    info = HkdfParameters(info=b"the same")
    base = separated.secret(KeyType.GENERIC_SECRET, DERIVE=True, DERIVE_TEMPLATE={"DERIVE": True})
    separated.derive(base, KeyType.GENERIC_SECRET, parameters=info)
    with pytest.raises(errors.TemplateInconsistent, match="SIGN"):
        separated.derive(base, KeyType.GENERIC_SECRET, parameters=info, SIGN=True)
    with pytest.raises(errors.TemplateInconsistent):
        separated.derive(separated.copy(base), KeyType.GENERIC_SECRET, parameters=info, SIGN=True, DERIVE=False)
    base = compatible.secret(KeyType.GENERIC_SECRET, DERIVE=True)
    middle = compatible.derive(base, KeyType.GENERIC_SECRET, parameters=info, DERIVE=True)
    signs = compatible.derive(base, KeyType.GENERIC_SECRET, parameters=info, SIGN=True)
    target = compatible.derive(middle, parameters=HkdfParameters(expand_only=True, info=b"target"))
    assert is_value(compatible, target, compatible.sign(signs, b"target\1", M.SHA256_HMAC))


def test_a_base_comes_back_as_one_that_signs(separated: Keyring) -> None:
    """The derive variant by way of wrapping."""
    outer = separated.secret(**KEK)
    base = separated.secret(KeyType.GENERIC_SECRET, DERIVE=True, EXTRACTABLE=True)
    with pytest.raises(errors.TemplateInconsistent, match="DERIVE"):
        separated.wrap(outer, base)
    for_bases = separated.secret(**KEK, UNWRAP_TEMPLATE={"DERIVE": True})
    wrapped = separated.wrap(for_bases, base)
    with pytest.raises(errors.TemplateInconsistent, match="SIGN"):
        separated.unwrap(for_bases, wrapped, KeyType.GENERIC_SECRET, SIGN=True)
    with pytest.raises(errors.TemplateInconsistent, match="DERIVE_TEMPLATE"):
        separated.unwrap(for_bases, wrapped, KeyType.GENERIC_SECRET, DERIVE_TEMPLATE={"SIGN": True})
    assert separated.unwrap(for_bases, wrapped, KeyType.GENERIC_SECRET).attributes[A.DERIVE] is True


def test_two_pairs_agree_on_one_key_for_two_uses(separated: Keyring, compatible: Keyring) -> None:
    """The agreement variant: each pair has a DERIVE_TEMPLATE of its own, and both agree on the same bytes."""

    def agree(keyring: Keyring, **of_second: Any) -> tuple[ObjectView, ObjectView]:
        params = {"EC_PARAMS": CURVES["P-256"].oid}
        first = keyring.pair(KeyType.EC, params, {"DERIVE": True, "DERIVE_TEMPLATE": {"DERIVE": True}})
        second = keyring.pair(KeyType.EC, params, {"DERIVE": True, "DERIVE_TEMPLATE": {"SIGN": True}})
        keys = [
            keyring.derive(
                one.private, KeyType.GENERIC_SECRET, M.ECDH1_DERIVE,
                EcdhParameters(public_key=bytes(other.public.attributes[A.EC_POINT])),
            )
            for one, other in ((first, second), (second, first))
        ]  # fmt: skip
        return keys[0], keys[1]

    with pytest.raises(errors.TemplateInconsistent, match="SIGN"):
        agree(separated)
    derives, signs = agree(compatible)
    target = compatible.derive(derives, parameters=HkdfParameters(expand_only=True, info=b"target"))
    assert is_value(compatible, target, compatible.sign(signs, b"target\1", M.SHA256_HMAC))


def test_what_is_encapsulated_is_of_one_use_on_both_sides(separated: Keyring, compatible: Keyring) -> None:
    """The agreement variant with ML-KEM."""
    pair = separated.pair(KeyType.ML_KEM, {"PARAMETER_SET": 2})
    _, ciphertext = separated.encapsulate(pair.public, KeyType.GENERIC_SECRET)
    for uses in ({"SIGN": True}, {"DERIVE_TEMPLATE": {"SIGN": True}}):
        with pytest.raises(errors.TemplateInconsistent):
            separated.encapsulate(pair.public, KeyType.GENERIC_SECRET, **uses)
        with pytest.raises(errors.TemplateInconsistent):
            separated.decapsulate(pair.private, ciphertext, KeyType.GENERIC_SECRET, **uses)
    pair = compatible.pair(KeyType.ML_KEM, {"PARAMETER_SET": 2})
    mine, ciphertext = compatible.encapsulate(pair.public, KeyType.GENERIC_SECRET, DERIVE=True)
    signs = compatible.decapsulate(pair.private, ciphertext, KeyType.GENERIC_SECRET, SIGN=True)
    target = compatible.derive(mine, parameters=HkdfParameters(expand_only=True, info=b"target"), TOKEN=False)
    assert is_value(compatible, target, compatible.sign(signs, b"target\1", M.SHA256_HMAC))


# --- what comes out, whatever is asked for


@pytest.mark.parametrize("key_uses", ["separated", "compatible"])
@pytest.mark.parametrize("named", [{"SENSITIVE": False}, {"EXTRACTABLE": True}])
def test_what_comes_out_is_neither_readable_nor_more_extractable(key_uses: str, named: dict[str, Any]) -> None:
    keyring = Keyring.made(policy={"key_uses": key_uses})
    outer = keyring.secret(**KEK)
    wrapped = keyring.wrap(outer, target_of(keyring))
    base = keyring.secret(KeyType.GENERIC_SECRET, DERIVE=True)
    free = keyring.secret(KeyType.GENERIC_SECRET, DERIVE=True, DERIVE_TEMPLATE={})
    kem = keyring.pair(KeyType.ML_KEM, {"PARAMETER_SET": 2})
    _, ciphertext = keyring.encapsulate(kem.public, KeyType.AES)
    for make in (
        partial(keyring.unwrap, outer, wrapped),
        partial(keyring.derive, base),
        partial(keyring.derive, free),
        partial(keyring.encapsulate, kem.public, KeyType.AES),
        partial(keyring.decapsulate, kem.private, ciphertext, KeyType.AES),
    ):
        with pytest.raises(errors.TemplateInconsistent):
            make(**named)


def test_a_trusted_key_is_made_by_the_krso_alone(separated: Keyring) -> None:
    outer = separated.secret(**KEK)
    wrapped = separated.wrap(outer, target_of(separated))
    base = separated.secret(KeyType.GENERIC_SECRET, DERIVE=True)
    for make in (
        partial(separated.unwrap, outer, wrapped),
        partial(separated.derive, base),
        partial(separated.copy, outer),
        partial(separated.set, outer),
        partial(separated.secret, **KEK),
    ):
        with pytest.raises(errors.PermissionDenied, match="TRUSTED"):
            make(TRUSTED=True)
    separated.log_in(Role.KRSO)
    separated.set(outer, TRUSTED=True)
    with pytest.raises(errors.ActionProhibited, match="frozen"):
        separated.set(outer, LABEL="new")
    assert separated.copy(outer).attributes[A.TRUSTED] is False


@pytest.mark.parametrize("mechanism", [M.AES_CBC_PAD, M.AES_CBC, M.RSA_PKCS, M.AES_GCM, M.AES_ECB])
def test_no_mechanism_of_data_wraps_or_unwraps(compatible: Keyring, mechanism: Mechanism) -> None:
    """Bortolozzo 2010 and Bleichenbacher 1998: no unwrapping under CBC_PAD or RSA_PKCS, so no padding oracle."""
    outer = compatible.secret(**KEK, ENCRYPT=True, DECRYPT=True)
    with pytest.raises(errors.MechanismInvalid, match="does not"):
        compatible.wrap(outer, target_of(compatible), mechanism)
    with pytest.raises(errors.MechanismInvalid, match="does not"):
        compatible.unwrap(outer, bytes(48), mechanism=mechanism)


def test_the_attacks_unwrap_by_hand_as_the_library_does() -> None:
    class Plain(Block):
        def __init__(self, key: bytes) -> None:
            self.cipher = Cipher(algorithms.AES(key), modes.ECB())  # one block

        def decrypt(self, block: bytes) -> bytes:
            return self.cipher.decryptor().update(block)

    assert unwrap_by_hand(Plain(KNOWN), aes_key_wrap(KNOWN, KNOWN)) == aes_key_unwrap(KNOWN, aes_key_wrap(KNOWN, KNOWN))
    padded = aes_key_wrap_with_padding(KNOWN, KNOWN)
    assert unwrap_padded_by_hand(Plain(KNOWN), padded) == aes_key_unwrap_with_padding(KNOWN, padded)


def test_a_private_key_that_comes_in_is_known_and_wraps_nothing(separated: Keyring) -> None:
    trojan = rsa.generate_private_key(65537, 3072)
    pkcs8 = trojan.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    private = separated.create(pkcs8, ObjectClass.PRIVATE_KEY, UNWRAP=True)
    with pytest.raises(LnhError):
        separated.wrap(private, target_of(separated), M.RSA_AES_KEY_WRAP)
