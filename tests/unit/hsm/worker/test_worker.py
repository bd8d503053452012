"""The pure hsm worker, asked over the real channel: what it serves, and what it refuses."""

from __future__ import annotations

import os

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lnh_common import errors, limits
from lnh_common.messages import admin, objects, store
from lnh_common.messages.base import Empty
from lnh_common.messages.session import Credential, Role
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.pkcs11.parameters import GcmParameters
from lnh_common.wire import codec, frames
from lnh_common.wire.channel import SessionKeys
from lnh_services.hsm.records import PolicyRecord
from lnh_services.hsm.worker.policies import policy_id
from lowered import lower
from models.worker import ADMIN_PASSWORD, KRCO, KRSO, Client, World, generate_ec, make_keyring, sign

A = Attribute


def test_a_signature_verifies_with_an_independent_library(client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    signature = sign(client, keyring, pair.private.handle)
    public = load_der_public_key(pair.public.attributes[A.PUBLIC_KEY_INFO])
    assert isinstance(public, ec.EllipticCurvePublicKey)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    public.verify(encode_dss_signature(r, s), b"data", ec.ECDSA(hashes.SHA256()))
    verify = objects.Verify(
        handle=pair.public.handle, mechanism=Mechanism.ECDSA_SHA256, data=b"data", signature=signature
    )
    client.ask(objects.VERIFY, verify, keyring)
    with pytest.raises(errors.SignatureInvalid):
        client.ask(
            objects.VERIFY,
            objects.Verify(
                handle=pair.public.handle, mechanism=Mechanism.ECDSA_SHA256, data=b"other", signature=signature
            ),
            keyring,
        )


def test_another_worker_serves_the_same_session(world: World, client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    client.worker = world.worker()
    sign(client, keyring, pair.private.handle)


def test_encrypting_and_decrypting_with_an_iv_the_hsm_drew(client: Client, keyring: bytes) -> None:
    key = client.ask(
        objects.GENERATE,
        objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template={A.VALUE_LEN.value: 32}),
        keyring,
    )
    parameters = codec.encode(GcmParameters(aad=b"about"))
    use = objects.Use(handle=key.handle, mechanism=Mechanism.AES_GCM, data=b"secret", parameters=parameters)
    encrypted = client.ask(objects.ENCRYPT, use, keyring)
    with_iv = codec.encode(GcmParameters(iv=encrypted.iv, aad=b"about"))
    box = objects.Decrypt(handle=key.handle, mechanism=Mechanism.AES_GCM, data=encrypted.data, parameters=with_iv)
    assert client.ask(objects.DECRYPT, box, keyring).data == b"secret"
    wrong = codec.encode(GcmParameters(iv=encrypted.iv, aad=b"other"))
    with pytest.raises(errors.EncryptedDataInvalid):
        client.ask(
            objects.DECRYPT,
            objects.Decrypt(handle=key.handle, mechanism=Mechanism.AES_GCM, data=encrypted.data, parameters=wrong),
            keyring,
        )


def test_a_batch_answers_each_item_with_its_own_result_or_error(client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    many = objects.UseMany(handle=pair.private.handle, mechanism=Mechanism.ECDSA, items=(bytes(32), b"", bytes(32)))
    results = client.ask(objects.SIGN_MANY, many, keyring).results
    assert [type(result) for result in results] == [bytes, list, bytes]
    assert results[1][0] == errors.DataLength.code


def test_a_request_that_comes_twice_makes_one_key_and_answers_the_same(
    world: World, client: Client, keyring: bytes
) -> None:
    message = objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template={A.VALUE_LEN.value: 32})
    sent, keys = client.sealed(objects.GENERATE, message, keyring)
    first = client.open(objects.GENERATE, sent, keys, world.serve(client.worker, sent))
    second = client.open(objects.GENERATE, sent, keys, world.serve(world.worker(), sent))
    assert first == second
    assert client.ask(objects.FIND, objects.Find(), keyring).objects == (first,)


def test_the_audit_trail_names_the_object_that_was_made(world: World, client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    assert pair.private.handle.hex() in world.audit[-1].target or pair.public.handle.hex() in world.audit[-1].target
    made = client.ask(
        objects.GENERATE,
        objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template={A.VALUE_LEN.value: 32}),
        keyring,
    )
    assert world.audit[-1].target == f"{keyring.hex()}/{made.handle.hex()}"


def test_objects_are_found_in_the_order_in_which_they_were_asked_for(
    world: World, client: Client, keyring: bytes
) -> None:
    message = objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template={A.VALUE_LEN.value: 32})
    made = []
    for _ in range(20):
        made.append(client.ask(objects.GENERATE, message, keyring).handle)
        world.now += 0.002
    assert [each.handle for each in client.ask(objects.FIND, objects.Find(), keyring).objects] == made


def test_objects_of_one_millisecond_are_found_in_the_order_they_were_asked_for(
    world: World, client: Client, keyring: bytes
) -> None:
    template = {A.VALUE_LEN.value: 32}
    one = objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=template)
    many = objects.GenerateKeys(mechanism=Mechanism.AES_KEY_GEN, template=template, total=60)
    made: list[bytes] = []
    for _ in range(20):
        made.append(client.ask(objects.GENERATE, one, keyring).handle)
        pair = generate_ec(client, keyring)
        made += [pair.public.handle, pair.private.handle]
    made += [each.handle for each in client.ask(objects.GENERATE_MANY, many, keyring).objects]
    assert len({handle[:6] for handle in made}) == 1, "all in one millisecond"
    for worker in (client.worker, world.worker()):
        client.worker = worker
        for size in (7, 50, limits.PAGE_ITEMS):
            pages: list[bytes] = []
            after, more = b"", True
            while more:
                found = client.ask(objects.FIND, objects.Find(after=after, limit=size), keyring)
                pages += [each.handle for each in found.objects]
                after, more = found.last, found.more
            assert pages == made, "on every member, and whatever the pages"


def test_objects_are_found_by_label_class_and_type(client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    wanted = {A.LABEL.value: "ca", A.CLASS.value: ObjectClass.PRIVATE_KEY.value}
    found = client.ask(objects.FIND, objects.Find(template=wanted), keyring)
    assert [each.handle for each in found.objects] == [pair.private.handle]
    wanted = {A.KEY_TYPE.value: KeyType.AES.value}
    assert client.ask(objects.FIND, objects.Find(template=wanted), keyring).objects == ()


def test_a_page_of_large_objects_ends_before_it_is_too_large_for_a_message(client: Client, keyring: bytes) -> None:
    large = {A.CLASS.value: ObjectClass.DATA.value, A.VALUE.value: bytes(limits.DATA_BYTES)}
    template = {A.VALUE_LEN.value: 32, A.WRAP.value: True, A.UNWRAP.value: True, A.UNWRAP_TEMPLATE.value: large}
    message = objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=template)
    made = {client.ask(objects.GENERATE, message, keyring).handle for _ in range(20)}
    pages, after, more = [], b"", True
    while more:
        found = client.ask(objects.FIND, objects.Find(after=after), keyring)
        pages.append([one.handle for one in found.objects])
        after, more = found.last, found.more
    assert all(len(page) * limits.DATA_BYTES <= limits.PAGE_BYTES for page in pages)
    assert sorted(made) == [handle for page in pages for handle in page]


def test_a_destroyed_key_is_unknown_to_every_worker_at_once(world: World, client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    other = world.worker()
    mine = client.worker
    for client.worker in (mine, other):
        sign(client, keyring, pair.private.handle)
    client.ask(objects.DESTROY, objects.Destroy(handle=pair.private.handle), keyring)
    for client.worker in (mine, other):
        with pytest.raises(errors.ObjectUnknown):
            sign(client, keyring, pair.private.handle)


def test_what_names_a_version_is_done_only_to_that_version(client: Client, keyring: bytes) -> None:
    handle = generate_ec(client, keyring).private.handle

    def change(version: int) -> objects.SetAttributes:
        return objects.SetAttributes(handle=handle, template={A.LABEL.value: f"at {version}"}, version=version)

    assert client.ask(objects.SET, change(1), keyring).version == 2
    for message in (change(1), change(3)):
        with pytest.raises(errors.VersionConflict):
            client.ask(objects.SET, message, keyring)
    with pytest.raises(errors.VersionConflict):
        client.ask(objects.DESTROY, objects.Destroy(handle=handle, version=1), keyring)
    shown = client.ask(objects.SHOW, objects.Show(handle=handle), keyring)
    assert (shown.version, shown.attributes[A.LABEL]) == (2, "at 1")
    client.ask(objects.DESTROY, objects.Destroy(handle=handle, version=2), keyring)
    with pytest.raises(errors.ObjectUnknown):
        client.ask(objects.SHOW, objects.Show(handle=handle), keyring)


def test_a_message_that_names_no_version_is_what_a_member_of_before_reads() -> None:
    for message in (objects.SetAttributes(handle=bytes(16), template={}), objects.Destroy(handle=bytes(16))):
        assert "version" not in codec.decode(codec.encode(message))


def test_only_registered_clients_use_keyrings(world: World, client: Client, keyring: bytes) -> None:
    stranger = Client(world, client.worker)
    with pytest.raises(errors.PermissionDenied):
        stranger.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))


def test_an_assigned_keyring_is_hidden_from_other_clients(world: World, client: Client, keyring: bytes) -> None:
    other = Client(world, client.worker).register("other")
    administrator = client.as_administrator()
    administrator.ask(admin.CLIENT_ASSIGN, admin.Assignment(client="client", keyring=keyring))
    other.login()
    assert other.ask(admin.KEYRING_LIST, admin.ListKeyrings()).keyrings == ()
    with pytest.raises(errors.KeyringUnknown):
        other.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    client.login()
    assert [each.id for each in client.ask(admin.KEYRING_LIST, admin.ListKeyrings()).keyrings] == [keyring]
    administrator.ask(admin.CLIENT_UNASSIGN, admin.Assignment(client="client", keyring=keyring))
    other.login()
    assert len(other.ask(admin.KEYRING_LIST, admin.ListKeyrings()).keyrings) == 1


def test_a_role_of_one_keyring_cannot_touch_another(client: Client, keyring: bytes) -> None:
    other = make_keyring(client, "other")
    client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    with pytest.raises(errors.PermissionDenied):
        client.ask(objects.FIND, objects.Find(), other)


@pytest.mark.parametrize("route", [b"", bytes(16)])
def test_a_key_is_used_in_the_name_of_its_keyring_only(client: Client, keyring: bytes, route: bytes) -> None:
    pair = generate_ec(client, keyring)
    with pytest.raises(errors.PermissionDenied):
        sign(client, route, pair.private.handle)


def test_a_krco_may_not_do_what_is_the_krsos(world: World, client: Client, keyring: bytes) -> None:
    with pytest.raises(errors.PermissionDenied):
        client.ask(admin.ROLE_SET, admin.SetRole(password="something else"), keyring)
    assert world.audit[-1].outcome == "PermissionDenied"


def test_an_admin_without_the_po_creates_no_keyring(client: Client) -> None:
    client.login(Credential(role=Role.USER, name="admin", password=ADMIN_PASSWORD))
    with pytest.raises(errors.PermissionDenied):
        client.ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label="x"))


def test_a_key_for_signing_does_not_encrypt(client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    use = objects.Use(handle=pair.private.handle, mechanism=Mechanism.AES_GCM, data=b"x")
    with pytest.raises(errors.LnhError) as caught:
        client.ask(objects.ENCRYPT, use, keyring)
    assert isinstance(caught.value, (errors.KeyTypeInconsistent, errors.KeyFunctionNotPermitted))


def test_a_token_of_another_cluster_is_unknown(client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    client.token = client.token[:-1] + bytes([client.token[-1] ^ 1])
    with pytest.raises(errors.TokenUnknown):
        sign(client, keyring, pair.private.handle)


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_a_request_changed_on_its_way_is_refused(world: World, client: Client, keyring: bytes, frame: int) -> None:
    pair = generate_ec(client, keyring)
    use = objects.Use(handle=pair.private.handle, mechanism=Mechanism.ECDSA_SHA256, data=b"data")
    sent, keys = client.sealed(objects.SIGN, use, keyring)
    if frame == 0:
        header = frames.Header.parse(sent[0])
        sent[0] = frames.request(objects.ENCRYPT.name, header.request_id, 1000, route=keyring).pack()
    else:
        sent[frame] = sent[frame][:-1] + bytes([sent[frame][-1] ^ 1])
    with pytest.raises((errors.ChannelInvalid, errors.TokenUnknown)):
        client.open(objects.SIGN, sent, keys, world.serve(client.worker, sent))


def test_an_answer_changed_on_its_way_is_refused(world: World, client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    use = objects.Use(handle=pair.private.handle, mechanism=Mechanism.ECDSA_SHA256, data=b"data")
    sent, keys = client.sealed(objects.SIGN, use, keyring)
    answer = world.serve(client.worker, sent)
    answer[2] = answer[2][:-1] + bytes([answer[2][-1] ^ 1])
    with pytest.raises(errors.ChannelInvalid):
        client.open(objects.SIGN, sent, keys, answer)


def test_the_answer_to_one_request_is_not_taken_for_another(world: World, client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    use = objects.Use(handle=pair.private.handle, mechanism=Mechanism.ECDSA_SHA256, data=b"data")
    first, keys = client.sealed(objects.SIGN, use, keyring)
    second, _ = client.sealed(objects.SIGN, use, keyring)
    answer = world.serve(client.worker, first)
    with pytest.raises(errors.ChannelInvalid):
        client.open(objects.SIGN, second, keys, answer)


@pytest.mark.parametrize(("later", "said"), [(1, "behind"), (-1, "ahead of")])
def test_a_request_of_another_time_is_refused_as_what_it_is(
    world: World, client: Client, keyring: bytes, later: int, said: str
) -> None:
    pair = generate_ec(client, keyring)
    use = objects.Use(handle=pair.private.handle, mechanism=Mechanism.ECDSA_SHA256, data=b"data")
    sent, keys = client.sealed(objects.SIGN, use, keyring)
    world.now += later * (limits.ISSUED_AT_TOLERANCE + 1)
    with pytest.raises(errors.ClockSkew, match=f"301 s {said} this member's"):
        client.open(objects.SIGN, sent, keys, world.serve(client.worker, sent))


def test_a_tampered_object_does_not_open(world: World, client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    other = generate_ec(client, keyring)
    items = world.store.storage.items
    at = ("object", keyring, pair.private.handle)
    items[at] = msgspec.structs.replace(items[at], body=items["object", keyring, other.private.handle].body)
    with pytest.raises(errors.SealBroken):
        sign(client, keyring, pair.private.handle)
    assert world.audit[-1].outcome == "SealBroken"


def test_a_tampered_record_is_refused(world: World, client: Client) -> None:
    items = world.store.storage.items
    at = next(at for at in items if at[0] == "user")
    items[at] = msgspec.structs.replace(items[at], head=codec.encode({"name": "admin", "role": "monitor"}))
    listed = client.as_administrator().ask(admin.USER_LIST, Empty())
    assert listed.users == ()
    (skipped,) = listed.skipped
    assert skipped.id == at[2]
    assert "was changed outside the HSM" in skipped.why
    assert world.damage


def test_what_leases_are_granted_for_is_a_part_of_the_policy(world: World, client: Client) -> None:
    po = client.as_administrator()
    before = po.ask(admin.CLUSTER_POLICY, admin.PolicyChange()).policy
    assert (before["lease_ms"], before["primary_alone"]) == (limits.LEASE_MS, "read-write")
    changes = {"primary_alone": 30, "minimum_rsa_bits": 3072}
    after = po.ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes=changes)).policy
    assert after == before | changes
    assert world.store.lease_settings == store.SetLeaseSettings(lease_ms=limits.LEASE_MS, alone_ms=30_000)
    for wrong in ({"lease_ms": 5}, {"primary_alone": "never"}, {"primary_alone": 5, "minimum_rsa_bits": 1}):
        with pytest.raises(errors.ArgumentInvalid):
            po.ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes=wrong))
    assert po.ask(admin.CLUSTER_POLICY, admin.PolicyChange()).policy == after
    asked = po.ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"primary_alone": "read-write"})).policy
    assert asked == after | {"primary_alone": "read-write"}


def test_keyrings_are_made_many_at_a_time_all_or_none(client: Client) -> None:
    administrator = client.as_administrator()
    made = administrator.ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label="k", total=3, index=5))
    assert [each.label for each in made.keyrings] == ["k5", "k6", "k7"]
    with pytest.raises(errors.NameTaken):
        administrator.ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label="k", total=3, index=7))
    assert len(administrator.ask(admin.KEYRING_LIST, admin.ListKeyrings()).keyrings) == 3
    with pytest.raises(errors.LimitReached):
        administrator.ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label="z", total=101))


def test_a_deleted_keyring_takes_its_objects_and_sessions_with_it(world: World, client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    client.as_administrator().ask(admin.KEYRING_DELETE, admin.KeyringRef(keyring=keyring))
    with pytest.raises((errors.TokenUnknown, errors.KeyringUnknown)):
        sign(client, keyring, pair.private.handle)
    assert world.store.storage.count("object", keyring) == 0


def test_the_last_admin_is_not_deleted(client: Client) -> None:
    administrator = client.as_administrator()
    with pytest.raises(errors.NotPossible):
        administrator.ask(admin.USER_DELETE, admin.UserRef(name="admin"))
    administrator.ask(admin.USER_ADD, admin.AddUser(name="second", role="admin", password="another password"))
    administrator.ask(admin.USER_DELETE, admin.UserRef(name="admin"))


def test_many_keys_are_made_in_one_step_all_or_none(world: World, client: Client, keyring: bytes) -> None:
    aes = {Attribute.VALUE_LEN.value: 32, Attribute.LABEL.value: "data"}
    many = objects.GenerateKeys(mechanism=Mechanism.AES_KEY_GEN, template=aes, total=100, index=7)
    made = client.ask(objects.GENERATE_MANY, many, keyring).objects
    assert [one.attributes[Attribute.LABEL] for one in made] == [f"data{number}" for number in range(7, 107)]
    assert len({one.handle for one in made}) == 100
    ec = {Attribute.EC_PARAMS.value: CURVES["P-256"].oid}
    pairs = objects.GenerateKeyPairs(mechanism=Mechanism.EC_KEY_PAIR_GEN, public_template=ec, total=50)
    made_pairs = client.ask(objects.GENERATE_PAIRS, pairs, keyring).pairs
    sign(client, keyring, made_pairs[49].private.handle)
    with pytest.raises(errors.LimitReached, match="at most 256"):
        client.ask(objects.GENERATE_MANY, many, keyring)
    with pytest.raises(errors.LimitReached, match="101 keys in one call; at most 100"):
        client.ask(objects.GENERATE_MANY, msgspec.structs.replace(many, total=101), keyring)
    assert world.store.storage.count(store.OBJECTS, keyring) == 200


def test_many_keys_made_again_are_the_same_ones(world: World, client: Client, keyring: bytes) -> None:
    many = objects.GenerateKeys(
        mechanism=Mechanism.GENERIC_SECRET_KEY_GEN, template={Attribute.VALUE_LEN.value: 32}, total=3
    )
    sent, keys = client.sealed(objects.GENERATE_MANY, many, keyring)
    first, second = (
        client.open(objects.GENERATE_MANY, sent, keys, world.serve(client.worker, sent)).objects for _ in range(2)
    )
    assert [one.handle for one in first] == [one.handle for one in second]


def test_slow_pairs_are_made_one_by_one_and_labels_stay_within_their_bound(client: Client, keyring: bytes) -> None:
    rsa = objects.GenerateKeyPairs(
        mechanism=Mechanism.RSA_PKCS_KEY_PAIR_GEN, public_template={Attribute.MODULUS_BITS.value: 2048}, total=2
    )
    with pytest.raises(errors.MechanismInvalid, match="one by one"):
        client.ask(objects.GENERATE_PAIRS, rsa, keyring)
    long = {Attribute.VALUE_LEN.value: 32, Attribute.LABEL.value: "l" * limits.LABEL_BYTES}
    with pytest.raises(errors.LimitReached, match="a label of 257 bytes"):
        client.ask(
            objects.GENERATE_MANY,
            objects.GenerateKeys(mechanism=Mechanism.AES_KEY_GEN, template=long, total=2),
            keyring,
        )


def test_a_keyring_policy_only_gets_stricter(client: Client, keyring: bytes) -> None:
    client.login(Credential(role=Role.KRSO, keyring=keyring, password=KRSO))
    policy = client.ask(admin.KEYRING_POLICY, admin.PolicyChange(changes={"objects_per_keyring": 1}), keyring).policy
    assert policy["objects_per_keyring"] == 1
    with pytest.raises(errors.PolicyForbids):
        client.ask(admin.KEYRING_POLICY, admin.PolicyChange(changes={"objects_per_keyring": 100_000}), keyring)
    template = {A.VALUE_LEN.value: 32}
    make = objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=template)
    client.ask(objects.GENERATE, make, keyring)
    with pytest.raises(errors.LimitReached) as caught:
        client.ask(objects.GENERATE, make, keyring)
    assert "KRSO raise it: lnh keyring policy" in caught.value.detail["advice"]


def test_who_can_raise_a_limit_is_named_and_where_nobody_can_none(
    client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    aes = objects.GenerateKeys(mechanism=Mechanism.AES_KEY_GEN, template={A.VALUE_LEN.value: 32}, total=100)

    for _ in range(limits.OBJECTS_PER_KEYRING // 100):
        client.ask(objects.GENERATE_MANY, aes, keyring)

    def advice() -> str:
        with pytest.raises(errors.LimitReached, match=f"at most {limits.OBJECTS_PER_KEYRING}") as caught:
            client.ask(objects.GENERATE_MANY, aes, keyring)
        return str(caught.value.detail["advice"])

    assert "PO raise it: lnh cluster policy objects_per_keyring" in advice()
    lower(monkeypatch, OBJECTS_AT_MOST=limits.OBJECTS_PER_KEYRING)
    assert "no policy allows more" in advice()
    lower(monkeypatch, KEYRINGS_PER_CLUSTER=2)
    with pytest.raises(errors.LimitReached, match="2 more keyrings: a cluster holds at most 2") as caught:
        client.as_administrator().ask(admin.KEYRING_CREATE, admin.CreateKeyrings(label="k", total=2))
    assert "policy" not in caught.value.detail["advice"]


def test_uses_of_keys_are_counted(client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    for _ in range(3):
        sign(client, keyring, pair.private.handle)
    entries = client.worker.take_uses()
    assert [(entry.target, entry.detail) for entry in entries] == [
        (f"{keyring.hex()}/{pair.private.handle.hex()}", {"count": 3})
    ]
    assert client.worker.take_uses() == []


def test_random_bytes_come_in_the_length_asked_for(client: Client, keyring: bytes) -> None:
    assert len(client.ask(objects.RANDOM, objects.RandomBytes(length=40), keyring).data) == 40


def test_garbage_gets_an_answer_and_changes_nothing(world: World, client: Client) -> None:
    header = frames.request(objects.SIGN.name, 7, 1000, route=bytes(16))
    for token in (b"", os.urandom(300)):
        answer = world.serve(client.worker, [header.pack(), token, os.urandom(200)])
        assert frames.Header.parse(answer[0]).kind is frames.Kind.ERROR
    assert SessionKeys.derive(bytes(32), b"").token_hash


def test_a_policys_mechanisms_go_by_name_or_number_and_are_kept_by_number(world: World, client: Client) -> None:
    administrator = client.as_administrator()
    changes = {"allowed_mechanisms": ["ECDSA_SHA256", "ckm-aes-gcm", Mechanism.EDDSA.value]}
    shown = administrator.ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes=changes)).policy
    assert shown["allowed_mechanisms"] == sorted((Mechanism.ECDSA_SHA256, Mechanism.AES_GCM, Mechanism.EDDSA))
    key = store.Key(table="policy", id=policy_id())
    kept = world.store.storage.get(key)
    assert kept is not None
    assert set(codec.decode_as(kept.head, PolicyRecord).fields["allowed_mechanisms"]) == set(
        shown["allowed_mechanisms"]
    )
    with pytest.raises(errors.MechanismInvalid, match="ROT13"):
        administrator.ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"weak_mechanisms": ["ROT13"]}))


def test_a_field_that_no_policy_has_is_refused_with_all_there_are(client: Client) -> None:
    with pytest.raises(
        errors.ArgumentInvalid, match=r"no field lease; it has .*minimum_rsa_bits.*lease_ms.*primary_alone"
    ):
        client.as_administrator().ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"lease": 5}))
