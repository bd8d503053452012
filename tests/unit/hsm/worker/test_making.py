"""Keys that come out of other keys, through a worker: wrapped, unwrapped, copied; test_deriving.py has the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from cryptography.hazmat.primitives.keywrap import (
    aes_key_unwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap,
    aes_key_wrap_with_padding,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from lnh_common import errors
from lnh_common.messages import hsm, objects, session, store
from lnh_common.messages.base import Message
from lnh_common.messages.objects import ObjectView
from lnh_common.messages.session import Role
from lnh_common.pkcs11.algorithms import CURVES, Hash
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.pkcs11.parameters import EcdhParameters, GcmParameters, OaepParameters
from lnh_services.hsm.effects import Ask, Work
from models.keyring import Keyring, check
from models.worker import Client, World

A = Attribute
M = Mechanism
PRIVATE: Final = ObjectClass.PRIVATE_KEY
PUBLIC: Final = ObjectClass.PUBLIC_KEY
KEK: Final[dict[str, Any]] = {"WRAP": True, "UNWRAP": True}
VALUE: Final = bytes(range(32))
IMPORTS: Final = {"import": True}


@pytest.fixture
def keyring() -> Keyring:
    return Keyring.made(policy=IMPORTS)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 3072)


def imported_kek(keyring: Keyring, **named: Any) -> ObjectView:
    """A key that wraps and whose bytes are known: the KRSO trusts it."""
    keyring.log_in(Role.KRSO)
    return keyring.create(VALUE, KEY_TYPE=KeyType.AES, TRUSTED=True, **KEK, **named)


# --- wrap and unwrap


def test_aes_key_wrap_is_that_of_rfc_3394_and_5649(keyring: Keyring) -> None:
    kek = imported_kek(keyring)
    inner = keyring.create(b"i" * 24, KEY_TYPE=KeyType.AES, EXTRACTABLE=True)
    assert aes_key_unwrap(VALUE, keyring.wrap(kek, inner, M.AES_KEY_WRAP)) == b"i" * 24
    assert aes_key_unwrap_with_padding(VALUE, keyring.wrap(kek, inner)) == b"i" * 24
    check(keyring.unwrap(kek, aes_key_wrap(VALUE, b"x" * 32), mechanism=M.AES_KEY_WRAP), b"x" * 32, keyring)
    check(keyring.unwrap(kek, aes_key_wrap_with_padding(VALUE, b"y" * 16)), b"y" * 16, keyring)


@pytest.mark.parametrize("mechanism", [M.RSA_PKCS_OAEP, M.RSA_AES_KEY_WRAP])
@pytest.mark.parametrize(
    "parameters", [None, OaepParameters(hash=Hash.SHA1), OaepParameters(hash=Hash.SHA512, label=b"label")]
)
def test_rsa_wraps_a_secret_for_whoever_has_the_private_key(
    keyring: Keyring, rsa_key: rsa.RSAPrivateKey, mechanism: Mechanism, parameters: OaepParameters | None
) -> None:
    keyring.log_in(Role.KRSO)
    allowed = {"ALLOWED_MECHANISMS": [mechanism.value]}
    spki = rsa_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    public = keyring.create(spki, ObjectClass.PUBLIC_KEY, WRAP=True, TRUSTED=True, **allowed)
    inner = keyring.create(VALUE, KEY_TYPE=KeyType.AES, EXTRACTABLE=True)
    wrapped = keyring.wrap(public, inner, mechanism, parameters)
    wanted = parameters or OaepParameters()
    hash_: hashes.HashAlgorithm = {Hash.SHA1: hashes.SHA1(), Hash.SHA512: hashes.SHA512()}.get(
        wanted.hash, hashes.SHA256()
    )
    pad = padding.OAEP(padding.MGF1(hash_), hash_, wanted.label or None)
    opened = rsa_key.decrypt(wrapped[:384], pad)
    if mechanism is M.RSA_AES_KEY_WRAP:
        assert len(opened) == 32
        opened = aes_key_unwrap_with_padding(opened, wrapped[384:])
    assert opened == VALUE
    pkcs8 = rsa_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    private = keyring.create(pkcs8, PRIVATE, UNWRAP=True, **allowed)
    check(keyring.unwrap(private, wrapped, mechanism=mechanism, parameters=parameters), VALUE, keyring)


def test_a_private_key_comes_back_as_the_same_key(keyring: Keyring) -> None:
    kek = keyring.secret(**KEK)
    pair = keyring.pair(KeyType.EC, {"EC_PARAMS": CURVES["P-256"].oid}, {"EXTRACTABLE": True})
    back = keyring.unwrap(kek, keyring.wrap(kek, pair.private), KeyType.EC, object_class=PRIVATE)
    for name in (A.PUBLIC_KEY_INFO, A.EC_PARAMS, A.KEY_TYPE, A.SIGN):
        assert back.attributes[name] == pair.private.attributes[name]
    public = load_der_public_key(bytes(pair.public.attributes[A.PUBLIC_KEY_INFO]))
    signature = keyring.sign(back, b"data", M.ECDSA_SHA256)
    verify = objects.Verify(handle=pair.public.handle, mechanism=M.ECDSA_SHA256, data=b"data", signature=signature)
    keyring.client.ask(objects.VERIFY, verify, keyring.id)
    assert isinstance(public, ec.EllipticCurvePublicKey)


def test_a_large_rsa_key_travels_under_rsa_and_aes(keyring: Keyring) -> None:
    wrapping = keyring.pair(KeyType.RSA, {"MODULUS_BITS": 3072, "WRAP": True})
    inner = keyring.pair(KeyType.RSA, {"MODULUS_BITS": 3072}, {"EXTRACTABLE": True})
    wrapped = keyring.wrap(wrapping.public, inner.private, M.RSA_AES_KEY_WRAP)
    back = keyring.unwrap(wrapping.private, wrapped, KeyType.RSA, M.RSA_AES_KEY_WRAP, PRIVATE)
    assert back.attributes[A.MODULUS] == inner.private.attributes[A.MODULUS]


def test_a_key_travels_between_two_keyrings(keyring: Keyring) -> None:
    other = Keyring.made(keyring.client, "other")
    target = other.pair(KeyType.RSA, {"MODULUS_BITS": 3072, "WRAP": True})
    keyring.log_in(Role.KRSO)
    spki = bytes(target.public.attributes[A.PUBLIC_KEY_INFO])
    sending = keyring.create(spki, ObjectClass.PUBLIC_KEY, WRAP=True, TRUSTED=True)
    inner = keyring.secret(EXTRACTABLE=True)
    wrapped = keyring.wrap(sending, inner, M.RSA_AES_KEY_WRAP)
    encrypted = keyring.encrypt(inner, b"data")
    other.log_in()
    back = other.unwrap(target.private, wrapped, mechanism=M.RSA_AES_KEY_WRAP)
    assert other.decrypt(back, encrypted.data, M.AES_GCM, GcmParameters(iv=encrypted.iv)) == b"data"


@pytest.mark.parametrize("spoiled", ["nothing", "a bit", "the length", "the type", "the key"])
def test_what_does_not_unwrap_says_one_thing(keyring: Keyring, spoiled: str) -> None:
    kek, other = keyring.secret(**KEK), keyring.secret(**KEK)
    wrapped = keyring.wrap(kek, keyring.secret(KeyType.GENERIC_SECRET, VALUE_LEN=20, EXTRACTABLE=True))
    given = {
        "nothing": (kek, b"", KeyType.GENERIC_SECRET),
        "a bit": (kek, bytes([wrapped[0] ^ 1]) + wrapped[1:], KeyType.GENERIC_SECRET),
        "the length": (kek, wrapped[:-8], KeyType.GENERIC_SECRET),
        "the type": (kek, wrapped, KeyType.AES),
        "the key": (other, wrapped, KeyType.GENERIC_SECRET),
    }[spoiled]
    with pytest.raises(errors.WrappedKeyInvalid) as refused:
        keyring.unwrap(*given)
    assert str(refused.value) == "the data is no key that was wrapped with this key"
    assert keyring.unwrap(kek, wrapped, KeyType.GENERIC_SECRET).attributes[A.VALUE_LEN] == 20


FROM_THE_KEY: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"CLASS": PRIVATE, "KEY_TYPE": KeyType.RSA}),
    ({"CLASS": PRIVATE, "KEY_TYPE": KeyType.RSA}, {}),
    ({"CLASS": PRIVATE}, {"KEY_TYPE": KeyType.RSA}),
    ({}, {"CLASS": PRIVATE, "KEY_TYPE": KeyType.EC}),
]


@pytest.mark.parametrize(("fixed", "given"), FROM_THE_KEY)
def test_what_may_be_an_rsa_key_is_unwrapped_while_others_are_served(
    keyring: Keyring,
    rsa_key: rsa.RSAPrivateKey,
    monkeypatch: pytest.MonkeyPatch,
    fixed: dict[str, Any],
    given: dict[str, Any],
) -> None:
    kek = imported_kek(keyring, **({"UNWRAP_TEMPLATE": fixed} if fixed else {}))
    pkcs8 = rsa_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    message = objects.Unwrap(
        handle=kek.handle,
        mechanism=M.AES_KEY_WRAP_PAD,
        template={Attribute[name].value: value for name, value in given.items()},
        data=aes_key_wrap_with_padding(VALUE, pkcs8),
    )
    worked: list[Work] = []

    def work(asked: Work) -> object:
        worked.append(asked)
        return asked.compute()

    monkeypatch.setattr(keyring.client.world, "work", work)
    if given.get("KEY_TYPE") is KeyType.EC:
        with pytest.raises(errors.WrappedKeyInvalid):
            keyring.client.ask(objects.UNWRAP, message, keyring.id)
    else:
        assert keyring.client.ask(objects.UNWRAP, message, keyring.id).attributes[A.KEY_TYPE] == KeyType.RSA
    assert len(worked) == 1


def test_what_comes_out_says_where_it_comes_from(keyring: Keyring) -> None:
    kek = keyring.secret(**KEK)
    back = keyring.unwrap(kek, keyring.wrap(kek, keyring.secret(EXTRACTABLE=True)))
    base = keyring.secret(KeyType.GENERIC_SECRET, DERIVE=True)
    derived = keyring.derive(base)
    for made, always in ((back, False), (derived, True)):
        assert made.attributes[A.SENSITIVE] is True
        assert made.attributes[A.EXTRACTABLE] is False
        assert made.attributes[A.LOCAL] is False
        assert made.attributes[A.ALWAYS_SENSITIVE] is always
        assert made.attributes[A.NEVER_EXTRACTABLE] is always
        assert A.KEY_GEN_MECHANISM not in made.attributes


def test_what_is_agreed_on_may_be_known_to_the_other_side_and_says_so(keyring: Keyring) -> None:
    pair = keyring.pair(KeyType.EC_MONTGOMERY, {"EC_PARAMS": CURVES["X25519"].oid})
    callers = x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()
    for stored in (True, False):
        parameters = EcdhParameters(public_key=callers)
        agreed = keyring.derive(pair.private, KeyType.GENERIC_SECRET, M.ECDH1_DERIVE, parameters, TOKEN=stored)
        for made in (agreed, keyring.derive(agreed, TOKEN=stored)):
            assert made.attributes[A.SENSITIVE] is True
            assert made.attributes[A.ALWAYS_SENSITIVE] is made.attributes[A.NEVER_EXTRACTABLE] is False


def test_a_template_says_of_what_comes_out_whether_it_is_stored(keyring: Keyring) -> None:
    for stored in (True, False):
        kek = keyring.secret(**KEK, UNWRAP_TEMPLATE={"TOKEN": stored})
        base = keyring.secret(KeyType.GENERIC_SECRET, DERIVE=True, DERIVE_TEMPLATE={"TOKEN": stored})
        wrapped = keyring.wrap(kek, keyring.secret(EXTRACTABLE=True))
        before = len(keyring.all())
        for made in (keyring.unwrap(kek, wrapped, TOKEN=stored), keyring.derive(base, TOKEN=stored)):
            assert made.attributes[A.TOKEN] is stored
        assert len(keyring.all()) == before + 2 * stored
        with pytest.raises(errors.TemplateInconsistent, match="TOKEN"):
            keyring.unwrap(kek, wrapped, TOKEN=not stored)
        with pytest.raises(errors.TemplateInconsistent, match="TOKEN"):
            keyring.derive(base, TOKEN=not stored)
    kek = keyring.secret(**KEK, UNWRAP_TEMPLATE={"TOKEN": False})
    with pytest.raises(errors.TemplateInconsistent, match="TOKEN"):
        keyring.unwrap(kek, keyring.wrap(kek, keyring.secret(EXTRACTABLE=True)))


USED: Final[dict[str, Callable[[Keyring, dict[str, ObjectView]], object]]] = {
    "wrap": lambda keyring, keys: keyring.wrap(keys["kek"], keys["inner"]),
    "wrap many": lambda keyring, keys: _wrapped_with_others(keyring, keys["kek"], keys["inner"]),
    "unwrap": lambda keyring, keys: keyring.unwrap(keys["kek"], aes_key_wrap_with_padding(VALUE, b"x" * 32)),
    "derive": lambda keyring, keys: keyring.derive(keys["base"], TOKEN=False),
    "value": lambda keyring, keys: keyring.value(keys["open"]),
    "encrypt": lambda keyring, keys: keyring.encrypt(keys["open"], b"data"),
    "a part": lambda keyring, keys: keyring.client.ask(
        objects.STREAM,
        objects.Part(
            stream=bytes(16),
            use=objects.StreamedUse.ENCRYPT,
            mechanism=M.AES_GCM,
            data=b"data",
            offset=0,
            handle=keys["open"].handle,
        ),
        keyring.id,
    ),
}


def _wrapped_with_others(keyring: Keyring, kek: ObjectView, key: ObjectView) -> None:
    message = objects.WrapMany(handle=kek.handle, mechanism=M.AES_KEY_WRAP_PAD, keys=(key.handle,))
    (result,) = keyring.client.ask(objects.WRAP_MANY, message, keyring.id).results
    if not isinstance(result, bytes):
        raise errors.LnhError.from_wire(result)


def _asked_for(message: Message) -> set[bytes]:
    """The ids of the items that a question to the store is for."""
    gets = message.gets if isinstance(message, store.Gets) else (message,)
    return {get.key.id for get in gets if isinstance(get, store.Get)}


@pytest.mark.parametrize(
    ("used", "read", "destroyed"),
    [
        ("wrap", "kek", "inner"),
        ("wrap", "inner", "inner"),
        ("wrap", "kek", "kek"),
        ("wrap many", "inner", "inner"),
        ("unwrap", "kek", "kek"),
        ("derive", "base", "base"),
        ("value", "open", "open"),
        ("encrypt", "open", "open"),
        ("a part", "open", "open"),
    ],
)
def test_what_is_destroyed_while_something_is_read_is_not_used_once_more(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch, used: str, read: str, destroyed: str
) -> None:
    keys: dict[str, ObjectView] = {
        "kek": imported_kek(keyring),
        "inner": keyring.secret(EXTRACTABLE=True),
        "base": keyring.secret(KeyType.GENERIC_SECRET, DERIVE=True),
        "open": keyring.create(VALUE, KEY_TYPE=KeyType.AES, SENSITIVE=False, EXTRACTABLE=True),
    }
    world = keyring.client.world
    other = Keyring(Client(world, world.worker()).register("other"), keyring.id)
    other.log_in()
    USED[used](keyring, keys)
    keyring.client.worker.drop_everything()
    answer = world.answer

    def destroying(asked: Ask) -> Message:
        answered = answer(asked)
        if keys[read].handle in _asked_for(asked.message):
            monkeypatch.setattr(world, "answer", answer)
            other.destroy(keys[destroyed])
        return answered

    monkeypatch.setattr(world, "answer", destroying)
    with pytest.raises(errors.ObjectUnknown):
        USED[used](keyring, keys)


@pytest.mark.parametrize("uses", ["separated", "compatible"])
def test_a_template_names_no_mechanism_that_there_is_not(uses: str) -> None:
    keyring = Keyring.made(policy=IMPORTS | {"key_uses": uses})
    strange = {"ALLOWED_MECHANISMS": [0x7777]}
    for name, use in (("UNWRAP_TEMPLATE", "UNWRAP"), ("WRAP_TEMPLATE", "WRAP"), ("DERIVE_TEMPLATE", "DERIVE")):
        named: dict[str, Any] = {use: True, name: strange}
        for stored in (True, False):
            with pytest.raises(errors.AttributeInvalid, match=f"{name}: ALLOWED_MECHANISMS: 0x7777"):
                keyring.secret(TOKEN=stored, **named)
            with pytest.raises(errors.AttributeInvalid, match=f"{name}: ALLOWED_MECHANISMS: 0x7777"):
                keyring.create(VALUE, KEY_TYPE=KeyType.AES, TOKEN=stored, **named)
    pair: dict[str, Any] = {"UNWRAP": True, "UNWRAP_TEMPLATE": strange}
    with pytest.raises(errors.AttributeInvalid, match="0x7777"):
        keyring.pair(KeyType.RSA, {"MODULUS_BITS": 3072, "WRAP": True}, pair)


REFUSED_WRAPS: list[tuple[str, dict[str, Any], dict[str, Any], type[errors.LnhError]]] = [
    ("EXTRACTABLE", {}, {}, errors.KeyUnextractable),
    ("WRAP_WITH_TRUSTED", {}, {"EXTRACTABLE": True, "WRAP_WITH_TRUSTED": True}, errors.KeyFunctionNotPermitted),
    ("128", {"VALUE_LEN": 16}, {"EXTRACTABLE": True}, errors.KeySizeRange),
    ("SENSITIVE", {}, {"EXTRACTABLE": True, "SENSITIVE": False}, errors.TemplateInconsistent),
    ("LABEL", {"WRAP_TEMPLATE": {"LABEL": "this"}}, {"EXTRACTABLE": True}, errors.TemplateInconsistent),
    ("WRAP is not", {"WRAP": False, "UNWRAP": True}, {"EXTRACTABLE": True}, errors.KeyFunctionNotPermitted),
]


@pytest.mark.parametrize(("naming", "wrapping", "key", "error"), REFUSED_WRAPS)
def test_what_may_not_be_wrapped_is_refused_by_name(
    keyring: Keyring, naming: str, wrapping: dict[str, Any], key: dict[str, Any], error: type[errors.LnhError]
) -> None:
    kek, inner = keyring.secret(**(KEK | wrapping)), keyring.secret(**key)
    with pytest.raises(error, match=naming):
        keyring.wrap(kek, inner)


def test_the_policy_keeps_wrapped_keys_inside() -> None:
    keyring = Keyring.made(policy={"export_wrapped": False})
    with pytest.raises(errors.PolicyForbids, match="export_wrapped"):
        keyring.wrap(keyring.secret(**KEK), keyring.secret(EXTRACTABLE=True))


def test_a_trusted_key_wraps_what_wants_a_trusted_one(keyring: Keyring) -> None:
    kek, inner = keyring.secret(**KEK), keyring.secret(EXTRACTABLE=True, WRAP_WITH_TRUSTED=True)
    keyring.log_in(Role.KRSO)
    keyring.set(kek, TRUSTED=True)
    assert keyring.wrap(kek, inner)
    with pytest.raises(errors.KeyFunctionNotPermitted, match="TRUSTED"):
        keyring.wrap(keyring.copy(kek), inner)


def test_small_rsa_keys_do_not_wrap(keyring: Keyring) -> None:
    with pytest.raises(errors.PolicyForbids, match="3072"):
        keyring.pair(KeyType.RSA, {"MODULUS_BITS": 2048, "WRAP": True})


# --- copy and read


def test_a_copy_is_the_same_key_with_another_name(keyring: Keyring) -> None:
    key = keyring.secret(LABEL="first", EXTRACTABLE=True)
    copy = keyring.copy(key, LABEL="second", EXTRACTABLE=False)
    assert copy.handle != key.handle
    changed = {A.LABEL: "second", A.EXTRACTABLE: False, A.UNIQUE_ID: copy.handle.hex()}
    assert copy.attributes == key.attributes | {name.value: value for name, value in changed.items()}
    encrypted = keyring.encrypt(key, b"data")
    keyring.destroy(key)
    assert keyring.decrypt(copy, encrypted.data, M.AES_GCM, GcmParameters(iv=encrypted.iv)) == b"data"


def test_a_copy_of_what_may_not_be_modified_has_only_another_name(keyring: Keyring) -> None:
    key = keyring.secret(MODIFIABLE=False, END_DATE="2001-01-01")
    assert keyring.copy(key, LABEL="second").attributes[A.MODIFIABLE] is False
    with pytest.raises(errors.ActionProhibited, match="END_DATE"):
        keyring.copy(key, END_DATE="")
    with pytest.raises(errors.ActionProhibited, match="COPYABLE"):
        keyring.copy(keyring.secret(COPYABLE=False))
    with pytest.raises(errors.ObjectUnknown):
        keyring.copy(keyring.secret(TOKEN=False))


def test_a_copy_of_a_trusted_key_sheds_nothing_later(keyring: Keyring) -> None:
    key = keyring.secret(**KEK, END_DATE="2001-01-01")
    keyring.log_in(Role.KRSO)
    keyring.set(key, TRUSTED=True)
    for role in (Role.KRCO, Role.KRSO):
        keyring.log_in(role)
        copied = keyring.copy(key, LABEL="second")
        assert (copied.attributes[A.TRUSTED], copied.attributes[A.MODIFIABLE]) == (False, False)
        for again in (copied, keyring.copy(copied)):
            for change in ({"END_DATE": ""}, {"MODIFIABLE": True}):
                with pytest.raises((errors.ActionProhibited, errors.AttributeReadOnly)):
                    keyring.set(again, **change)
        with pytest.raises(errors.AttributeReadOnly, match="MODIFIABLE"):
            keyring.copy(key, MODIFIABLE=True)


def test_a_value_is_read_only_of_a_key_that_says_so(keyring: Keyring) -> None:
    open_key = keyring.create(VALUE, KEY_TYPE=KeyType.AES, SENSITIVE=False, EXTRACTABLE=True)
    assert keyring.value(open_key) == VALUE
    pair = keyring.pair(KeyType.EC, {"EC_PARAMS": CURVES["P-256"].oid}, {"SENSITIVE": False, "EXTRACTABLE": True})
    key = load_der_private_key(keyring.value(pair.private), None)
    assert key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == bytes(
        pair.public.attributes[A.PUBLIC_KEY_INFO]
    )
    sensitive: tuple[dict[str, Any], ...] = ({}, {"EXTRACTABLE": True}, {"SENSITIVE": False})
    for named in sensitive:
        with pytest.raises(errors.AttributeSensitive):
            keyring.value(keyring.secret(**named))
    keyring.set(open_key, SENSITIVE=True)
    with pytest.raises(errors.AttributeSensitive):
        keyring.value(open_key)


def test_what_is_no_secret_has_no_value_to_be_read_and_says_so(keyring: Keyring) -> None:
    for made in (KeyType.EC, {"EC_PARAMS": CURVES["P-256"].oid}), (KeyType.ML_DSA, {"PARAMETER_SET": 1}):
        public = keyring.pair(*made).public
        for each in (public, keyring.create(bytes(public.attributes[A.PUBLIC_KEY_INFO]), PUBLIC, TOKEN=False)):
            with pytest.raises(errors.KeyFunctionNotPermitted, match="PUBLIC_KEY_INFO"):
                keyring.value(each)
    for stored in (True, False):
        with pytest.raises(errors.KeyTypeInconsistent, match="DATA"):
            keyring.value(keyring.create(b"data", ObjectClass.DATA, TOKEN=stored))


# --- where nothing is stored, and when a request comes again


def test_a_read_only_member_does_all_that_stores_nothing() -> None:
    world = World()
    keyring = Keyring.made(Client(world, world.worker()).register())
    kek, inner = keyring.secret(**KEK), keyring.secret(EXTRACTABLE=True)
    base = keyring.secret(KeyType.GENERIC_SECRET, DERIVE=True)
    kem = keyring.pair(KeyType.ML_KEM, {"PARAMETER_SET": 2})
    world.read_only = True
    world.attach(keyring.client.worker, read_write=False)
    wrapped = keyring.wrap(kek, inner)
    back = keyring.unwrap(kek, wrapped, TOKEN=False)
    derived = keyring.derive(base, TOKEN=False)
    mine, ciphertext = keyring.encapsulate(kem.public, KeyType.GENERIC_SECRET, TOKEN=False)
    theirs = keyring.decapsulate(kem.private, ciphertext, KeyType.GENERIC_SECRET, TOKEN=False)
    assert (
        keyring.derive(theirs, TOKEN=False).attributes[A.CHECK_VALUE]
        == (keyring.derive(mine, TOKEN=False).attributes[A.CHECK_VALUE])
    )
    assert keyring.encrypt(back, b"data").iv
    assert keyring.encrypt(derived, b"data").iv
    with pytest.raises(errors.MemberReadOnly):
        keyring.unwrap(kek, wrapped)
    with pytest.raises(errors.MemberReadOnly):
        keyring.derive(base)
    with pytest.raises(errors.MemberReadOnly):
        keyring.copy(inner)


def test_keys_of_a_session_wrap_each_other(keyring: Keyring) -> None:
    kek, inner = keyring.secret(**KEK, TOKEN=False), keyring.secret(EXTRACTABLE=True, TOKEN=False)
    back = keyring.unwrap(kek, keyring.wrap(kek, inner), TOKEN=False)
    assert back.attributes[A.CHECK_VALUE] == inner.attributes[A.CHECK_VALUE]
    assert keyring.all() == ()


def test_a_request_that_comes_again_makes_one_key_also_of_a_base_that_is_gone(keyring: Keyring) -> None:
    base = keyring.secret(KeyType.GENERIC_SECRET, DERIVE=True)
    asked = objects.Derive(
        handle=base.handle, mechanism=M.HKDF_DERIVE, template={A.KEY_TYPE.value: KeyType.AES, A.VALUE_LEN.value: 32}
    )
    client = keyring.client
    sent, keys = client.sealed(objects.DERIVE, asked, keyring.id)
    first = client.open(objects.DERIVE, sent, keys, client.world.serve(client.worker, sent))
    keyring.destroy(base)
    again = client.open(objects.DERIVE, sent, keys, client.world.serve(client.worker, sent))
    assert first == again
    assert [one.handle for one in keyring.all()] == [first.handle]


def test_many_keys_are_wrapped_in_one_request_each_with_its_record(keyring: Keyring) -> None:
    kek, closed = keyring.secret(**KEK), keyring.secret()
    inner = [keyring.secret(EXTRACTABLE=True), keyring.secret(EXTRACTABLE=True, TOKEN=False)]
    assert isinstance(inner[1], objects.SessionObject)
    asked = [inner[0], closed, inner[1]]
    message = objects.WrapMany(
        handle=kek.handle, mechanism=M.AES_KEY_WRAP_PAD, keys=(*(each.handle for each in asked), bytes(16)),
        keys_sealed=(b"", b"", inner[1].sealed, b""),
    )  # fmt: skip
    trail = keyring.client.world.audit
    trail.clear()
    results = keyring.client.ask(objects.WRAP_MANY, message, keyring.id).results
    assert [each if isinstance(each, bytes) else each[0] for each in results] == [
        keyring.wrap(kek, inner[0]), errors.KeyUnextractable.code, keyring.wrap(kek, inner[1]),
        errors.ObjectUnknown.code,
    ]  # fmt: skip
    told = [(each.outcome, each.target.split("/")[-1]) for each in trail if each.operation == objects.WRAP_MANY.name]
    handles = [each.hex() for each in message.keys]
    assert told[:4] == [("ok", handle) for handle in handles]
    assert told[4:] == [("KeyUnextractable", handles[1]), ("ObjectUnknown", handles[3])]


def test_many_keys_that_are_not_wrapped_have_their_record_too(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    kek, closed = keyring.secret(**KEK), keyring.secret()
    inner = [keyring.secret(EXTRACTABLE=True).handle for _ in range(2)]
    message = objects.WrapMany(handle=kek.handle, mechanism=M.AES_KEY_WRAP_PAD, keys=tuple(inner))
    world = keyring.client.world
    for wrong, error in (
        (msgspec.structs.replace(message, handle=closed.handle), errors.KeyFunctionNotPermitted),
        (msgspec.structs.replace(message, handle=bytes(16)), errors.ObjectUnknown),
        (msgspec.structs.replace(message, keys_sealed=(b"",)), errors.ArgumentInvalid),
    ):
        world.audit.clear()
        with pytest.raises(error):
            keyring.client.ask(objects.WRAP_MANY, wrong, keyring.id)
        assert [(each.operation, each.outcome) for each in world.audit] == [(objects.WRAP_MANY.name, error.__name__)]
    world.audit.clear()
    answer = world.answer

    def ending(asked: Ask) -> Message:
        answered = answer(asked)
        if isinstance(asked.message, hsm.Audit):
            monkeypatch.setattr(world, "answer", answer)
            Client(world, world.worker(), token=keyring.client.token, secret=keyring.client.secret).ask(
                session.LOGOUT, session.Logout()
            )
        return answered

    monkeypatch.setattr(world, "answer", ending)
    with pytest.raises(errors.LnhError):
        keyring.client.ask(objects.WRAP_MANY, message, keyring.id)
    told = [each.outcome for each in world.audit if each.operation == objects.WRAP_MANY.name]
    assert told[:2] == ["ok", "ok"]
    assert len(told) == 4
    assert "ok" not in told[2:]


def test_the_trail_names_what_was_wrapped_and_what_was_made(keyring: Keyring) -> None:
    kek, inner = keyring.secret(**KEK), keyring.secret(EXTRACTABLE=True)
    wrapped = keyring.wrap(kek, inner)
    trail = keyring.client.world.audit
    assert trail[-1].operation == objects.WRAP.name
    assert kek.handle.hex() in trail[-1].target
    assert inner.handle.hex() in trail[-1].target
    back = keyring.unwrap(kek, wrapped, TOKEN=False)
    assert trail[-1].operation == objects.UNWRAP_IN_SESSION.name
    assert back.handle.hex() in trail[-1].target


def test_an_encapsulation_that_comes_again_says_which_key_is_of_no_use(keyring: Keyring) -> None:
    pair = keyring.pair(KeyType.ML_KEM, {"PARAMETER_SET": 2})
    client, template = keyring.client, {A.KEY_TYPE.value: KeyType.AES.value}
    asked = objects.Derive(handle=pair.public.handle, mechanism=M.ML_KEM, template=template)
    sent, keys = client.sealed(objects.ENCAPSULATE, asked, keyring.id)
    first = client.open(objects.ENCAPSULATE, sent, keys, client.world.serve(client.worker, sent))
    with pytest.raises(errors.OutcomeUnknown, match=first.key.handle.hex()):
        client.open(objects.ENCAPSULATE, sent, keys, client.world.serve(client.worker, sent))
