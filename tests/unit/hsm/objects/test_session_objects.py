"""Objects of a session (TOKEN false): made, used and lost as docs/formats/session-objects.md says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lnh_common import errors
from lnh_common.messages import admin, objects, session, store
from lnh_common.messages.base import Empty, Message
from lnh_common.messages.session import Credential, Role
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_services.hsm.effects import Ask
from lnh_services.hsm.objects.stored import KeyringKeys
from models.worker import KRCO, KRSO, Client, World, make_keyring

A = Attribute


def log_in(client: Client, keyring: bytes) -> None:
    client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))


def make_pair(client: Client, keyring: bytes, **private: Any) -> objects.SessionKeyPair:
    message = objects.GenerateKeyPair(
        mechanism=Mechanism.EC_KEY_PAIR_GEN,
        public_template={A.EC_PARAMS.value: CURVES["P-256"].oid},
        private_template={Attribute[name].value: value for name, value in private.items()},
    )
    return client.ask(objects.GENERATE_PAIR_IN_SESSION, message, keyring)


def make_aes(client: Client, keyring: bytes, **more: Any) -> objects.SessionObject:
    template = {A.VALUE_LEN.value: 32} | {Attribute[name].value: value for name, value in more.items()}
    message = objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=template)
    return client.ask(objects.GENERATE_IN_SESSION, message, keyring)


def sign(client: Client, keyring: bytes, key: objects.SessionObject, sealed: bytes | None = None) -> bytes:
    use = objects.Use(
        handle=key.handle,
        mechanism=Mechanism.ECDSA_SHA256,
        data=b"data",
        sealed=key.sealed if sealed is None else sealed,
    )
    return client.ask(objects.SIGN, use, keyring).data


def test_a_pair_of_a_session_signs_on_any_worker_and_nothing_is_stored(
    world: World, client: Client, keyring: bytes
) -> None:
    before = dict(world.store.storage.items)
    pair = make_pair(client, keyring)
    client.worker = world.worker()
    signature = sign(client, keyring, pair.private)
    assert dict(world.store.storage.items) == before
    public = load_der_public_key(pair.public.attributes[A.PUBLIC_KEY_INFO])
    assert isinstance(public, ec.EllipticCurvePublicKey)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    public.verify(encode_dss_signature(r, s), b"data", ec.ECDSA(SHA256()))
    verify = objects.Verify(
        handle=pair.public.handle,
        mechanism=Mechanism.ECDSA_SHA256,
        data=b"data",
        signature=signature,
        sealed=pair.public.sealed,
    )
    client.ask(objects.VERIFY, verify, keyring)
    many = objects.UseMany(
        handle=pair.private.handle, mechanism=Mechanism.ECDSA_SHA256, items=(b"a", b"b"), sealed=pair.private.sealed
    )
    assert len(client.ask(objects.SIGN_MANY, many, keyring).results) == 2


def test_a_key_of_a_session_encrypts_and_shows_its_attributes(client: Client, keyring: bytes) -> None:
    key = make_aes(client, keyring, LABEL="mine")
    use = objects.Use(handle=key.handle, mechanism=Mechanism.AES_GCM, data=b"secret", sealed=key.sealed)
    encrypted = client.ask(objects.ENCRYPT, use, keyring)
    assert encrypted.data != b"secret"
    shown = client.ask(objects.SHOW, objects.Show(handle=key.handle, sealed=key.sealed), keyring)
    assert (shown.attributes[A.LABEL], shown.attributes[A.TOKEN]) == ("mine", False)
    assert shown.attributes[A.UNIQUE_ID] == key.handle.hex()
    assert A.VALUE.value not in shown.attributes


def test_a_read_only_member_makes_and_uses_them(
    world: World, client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = world.answer

    def read_only(asked: Ask) -> Message:
        if isinstance(asked.message, store.Commit):
            raise errors.MemberReadOnly("cut off from the primary")
        return answer(asked)

    monkeypatch.setattr(world, "answer", read_only)
    with pytest.raises(errors.MemberReadOnly):
        client.ask(
            objects.GENERATE,
            objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template={A.VALUE_LEN.value: 32}),
            keyring,
        )
    sign(client, keyring, make_pair(client, keyring).private)


def test_a_renewed_session_keeps_its_objects(client: Client, keyring: bytes) -> None:
    pair = make_pair(client, keyring)
    client.token = client.ask(session.RENEW, Empty(), keyring).token
    sign(client, keyring, pair.private)


def test_another_session_of_the_same_role_does_not_open_it(client: Client, keyring: bytes) -> None:
    pair = make_pair(client, keyring)
    sign(client, keyring, pair.private)  # so that this worker holds it unsealed
    log_in(client, keyring)
    for sealed in (pair.private.sealed, b""):
        with pytest.raises(errors.ObjectUnknown):
            sign(client, keyring, pair.private, sealed)


def test_another_keyring_does_not_open_it(client: Client, keyring: bytes) -> None:
    pair = make_pair(client, keyring)
    other = make_keyring(client, "other")
    log_in(client, other)
    with pytest.raises(errors.ObjectUnknown):
        sign(client, other, pair.private)


def test_after_the_logout_it_is_gone_from_the_cache_and_refused(world: World, client: Client, keyring: bytes) -> None:
    pair = make_pair(client, keyring)
    sign(client, keyring, pair.private)
    assert len(client.worker.caches.keys) == 1
    client.worker.caches.sessions.clear()  # the worker may have forgotten the session and still hold its keys
    other = world.worker()
    mine, client.worker = client.worker, other
    client.ask(session.LOGOUT, session.Logout(), keyring)
    assert len(mine.caches.keys) == 0
    with pytest.raises(errors.TokenUnknown):
        sign(client, keyring, pair.private)


def test_a_changed_password_drops_the_objects_of_the_sessions_it_ends(client: Client, keyring: bytes) -> None:
    pair = make_pair(client, keyring)
    sign(client, keyring, pair.private)
    assert len(client.worker.caches.keys) == 1
    krso = Client(client.world, client.worker, client.key, client.id)
    krso.login(Credential(role=Role.KRSO, keyring=keyring, password=KRSO))
    krso.ask(admin.ROLE_SET, admin.SetRole(password="another password"), keyring)
    assert len(client.worker.caches.keys) == 0


def test_a_request_that_comes_twice_makes_two_keys_of_two_handles(world: World, client: Client, keyring: bytes) -> None:
    message = objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template={A.VALUE_LEN.value: 32})
    sent, keys = client.sealed(objects.GENERATE_IN_SESSION, message, keyring)
    first, second = (
        client.open(objects.GENERATE_IN_SESSION, sent, keys, world.serve(client.worker, sent)) for _ in range(2)
    )
    assert first.handle != second.handle
    use = objects.Use(handle=first.handle, mechanism=Mechanism.AES_GCM, data=b"x", sealed=second.sealed)
    with pytest.raises(errors.ObjectUnknown):
        client.ask(objects.ENCRYPT, use, keyring)


def test_making_one_is_in_the_audit_trail_with_its_handle(world: World, client: Client, keyring: bytes) -> None:
    key = make_aes(client, keyring)
    assert world.audit[-1].operation == objects.GENERATE_IN_SESSION.name
    assert key.handle.hex() in world.audit[-1].target


def test_the_same_rules_hold_as_for_stored_objects(client: Client, keyring: bytes) -> None:
    with pytest.raises(errors.TemplateInconsistent, match="secret key is for one"):
        make_aes(client, keyring, ENCRYPT=True, SIGN=True)
    key = make_aes(client, keyring)
    with pytest.raises(errors.MechanismInvalid, match="ALLOWED_MECHANISMS"):
        client.ask(
            objects.ENCRYPT,
            objects.Use(handle=key.handle, mechanism=Mechanism.AES_CTR, data=b"x", sealed=key.sealed),
            keyring,
        )
    pair = make_pair(client, keyring, END_DATE="2001-01-01")
    with pytest.raises(errors.KeyExpired):
        sign(client, keyring, pair.private)


def test_token_says_which_operation_makes_it(client: Client, keyring: bytes) -> None:
    with pytest.raises(errors.TemplateInconsistent, match="TOKEN is true"):
        make_aes(client, keyring, TOKEN=True)
    template = {A.VALUE_LEN.value: 32, A.TOKEN.value: False}
    with pytest.raises(errors.TemplateInconsistent, match="TOKEN is false"):
        client.ask(objects.GENERATE, objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=template), keyring)


def test_one_that_is_too_large_to_carry_is_refused(client: Client, keyring: bytes) -> None:
    large = {A.CLASS.value: ObjectClass.DATA.value, A.VALUE.value: bytes(20_000)}
    with pytest.raises(errors.LimitReached, match="sealed"):
        make_aes(client, keyring, WRAP=True, UNWRAP=True, UNWRAP_TEMPLATE=large)


def test_it_cannot_be_changed_destroyed_or_made_permanent_by_copying_bytes(
    world: World, client: Client, keyring: bytes
) -> None:
    pair = make_pair(client, keyring)
    with pytest.raises(errors.ObjectUnknown):
        client.ask(
            objects.SET, objects.SetAttributes(handle=pair.private.handle, template={A.LABEL.value: "x"}), keyring
        )
    with pytest.raises(errors.ObjectUnknown):
        client.ask(objects.DESTROY, objects.Destroy(handle=pair.private.handle), keyring)
    stored = client.ask(
        objects.GENERATE,
        objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template={A.VALUE_LEN.value: 32}),
        keyring,
    )
    items = world.store.storage.items
    at = ("object", keyring, stored.handle)
    items[at] = msgspec.structs.replace(items[at], head=pair.private.sealed, body=pair.private.sealed)
    with pytest.raises(errors.SealBroken):
        client.ask(objects.SHOW, objects.Show(handle=stored.handle), keyring)


def test_the_documented_vector_holds_for_both_implementations() -> None:
    def count(start: int, length: int = 16) -> bytes:
        return bytes(range(start, start + length))

    keyring_key, cluster, keyring, own, handle, nonce, value = (
        count(0, 32), count(0x20), count(0x30), count(0x40), count(0x50), count(0x60, 12), count(0x70),
    )  # fmt: skip
    key = HKDF(SHA512(), 32, None, b"lnh session object").derive(keyring_key)
    place = cbor2.dumps(["lnh-sealed-1", "AES-256-GCM", 0, "session-object", cluster, keyring, handle, 1, own])
    plaintext = cbor2.dumps([{0: 4, 1: False}, value])
    sealed = cbor2.dumps([nonce, AESGCM(key).encrypt(nonce, plaintext, place)])
    documented = (Path(__file__).parents[4] / "docs/formats/session-objects.md").read_text("utf-8")
    for part in (key, place, sealed):
        assert part.hex() in "".join(documented.split())
    keys = KeyringKeys.derive(keyring_key, cluster, keyring)
    opened = keys.open_for_session(own, handle, sealed)
    assert opened == ({A.CLASS: ObjectClass.SECRET_KEY.value, A.TOKEN: False}, value)
    nonce, ciphertext = cbor2.loads(keys.seal_for_session(own, handle, *opened))
    assert AESGCM(key).decrypt(nonce, ciphertext, place) == plaintext


def test_an_object_of_a_session_is_copied_into_a_stored_one(world: World, client: Client, keyring: bytes) -> None:
    pair = make_pair(client, keyring, SENSITIVE=True)
    copied = copy(client, keyring, pair.private, TOKEN=True, LABEL="kept")
    again = copy(client, keyring, pair.private, TOKEN=True, LABEL="kept")
    assert len({copied.handle, again.handle, pair.private.handle}) == 3
    unlike = {A.TOKEN.value, A.LABEL.value, A.UNIQUE_ID.value}
    assert {
        name for name in copied.attributes if copied.attributes[name] != pair.private.attributes.get(name)
    } == unlike
    log_in(client, keyring)  # another session: the object of the one before is none of its own
    found = client.ask(objects.FIND, objects.Find(template={A.LABEL.value: "kept"}), keyring)
    assert {view.handle for view in found.objects} == {copied.handle, again.handle}
    use = objects.Use(handle=copied.handle, mechanism=Mechanism.ECDSA_SHA256, data=b"data")
    signature = client.ask(objects.SIGN, use, keyring).data
    public = load_der_public_key(pair.public.attributes[A.PUBLIC_KEY_INFO])
    assert isinstance(public, ec.EllipticCurvePublicKey)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    public.verify(encode_dss_signature(r, s), b"data", ec.ECDSA(SHA256()))
    with pytest.raises(errors.ObjectUnknown, match="not made in this session"):
        copy(client, keyring, pair.private, TOKEN=True)


@pytest.mark.parametrize("named", [{}, {"TOKEN": False}, {"LABEL": "no word of TOKEN"}])
def test_a_copy_of_an_object_of_a_session_says_that_it_is_stored(
    client: Client, keyring: bytes, named: dict[str, Any]
) -> None:
    key = make_aes(client, keyring)
    with pytest.raises((errors.ActionProhibited, errors.TemplateInconsistent), match="TOKEN is false"):
        copy(client, keyring, key, **named)


def test_what_may_not_be_copied_or_changed_is_not_by_way_of_a_session(client: Client, keyring: bytes) -> None:
    with pytest.raises(errors.ActionProhibited, match="COPYABLE"):
        copy(client, keyring, make_aes(client, keyring, COPYABLE=False), TOKEN=True)
    with pytest.raises(errors.LnhError, match="EXTRACTABLE"):
        copy(client, keyring, make_aes(client, keyring, EXTRACTABLE=False), TOKEN=True, EXTRACTABLE=True)
    with pytest.raises(errors.ActionProhibited, match="MODIFIABLE"):
        copy(client, keyring, make_aes(client, keyring, MODIFIABLE=False), TOKEN=True, END_DATE="2030-01-01")


def test_an_object_of_a_session_that_is_over_is_not_copied(client: Client, keyring: bytes) -> None:
    key, token, secret = make_aes(client, keyring), client.token, client.secret
    other = Client(client.world, client.worker, client.key, client.id)
    log_in(other, keyring)
    client.ask(session.LOGOUT, session.Logout())
    client.token, client.secret = token, secret
    with pytest.raises((errors.SessionEnded, errors.TokenUnknown)):
        copy(client, keyring, key, TOKEN=True)


def copy(client: Client, keyring: bytes, key: objects.SessionObject, **named: Any) -> objects.ObjectView:
    template = {Attribute[name].value: value for name, value in named.items()}
    message = objects.Copy(handle=key.handle, sealed=key.sealed, template=template)
    return client.ask(objects.COPY, message, keyring)
