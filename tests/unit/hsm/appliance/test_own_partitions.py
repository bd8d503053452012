"""Objects of the appliance's own partitions: what their CO may, and what is left of them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from lnh.partitions import NOT_SERVED
from lnh_common import errors, limits
from lnh_common.messages import console, objects
from lnh_common.messages.base import Message, Operation
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_services.hsm.appliance.partitions import Contents
from models.console import CO, PO, SO, OneAppliance

A = Attribute


@pytest.fixture
def appliance(appliance: OneAppliance) -> OneAppliance:
    async def go() -> None:
        await appliance.hsm_init()
        await appliance.partition()

    asyncio.run(go())
    return appliance


def ask(
    appliance: OneAppliance, operation: Operation[Any, Any], message: Message, password: str = CO, label: str = "own"
) -> Any:
    request = console.InPartition(partition=label, co_password=password, request=message)
    return asyncio.run(appliance.ask(console.IN_PARTITION[operation.name], request))


def make_pair(appliance: OneAppliance, **more: Any) -> objects.KeyPair:
    template = {A.EC_PARAMS.value: CURVES["P-256"].oid}
    private = {Attribute[name].value: value for name, value in more.items()}
    message = objects.GenerateKeyPair(
        mechanism=Mechanism.EC_KEY_PAIR_GEN, public_template=template, private_template=private
    )
    made = ask(appliance, objects.GENERATE_PAIR, message)
    assert isinstance(made, objects.KeyPair)
    return made


def make_aes(appliance: OneAppliance, **more: Any) -> objects.ObjectView:
    template = {A.VALUE_LEN.value: 32} | {Attribute[name].value: value for name, value in more.items()}
    made = ask(appliance, objects.GENERATE, objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=template))
    assert isinstance(made, objects.ObjectView)
    return made


def sign(appliance: OneAppliance, handle: bytes, password: str = CO) -> bytes:
    use = objects.Use(handle=handle, mechanism=Mechanism.ECDSA_SHA256, data=b"data")
    signature = ask(appliance, objects.SIGN, use, password).data
    assert isinstance(signature, bytes)
    return signature


def found(appliance: OneAppliance, **template: Any) -> list[bytes]:
    wanted = {Attribute[name].value: value for name, value in template.items()}
    return [view.handle for view in ask(appliance, objects.FIND, objects.Find(template=wanted)).objects]


def listed(appliance: OneAppliance) -> console.PartitionView:
    (view,) = asyncio.run(appliance.ask(console.PARTITION_LIST)).partitions
    assert isinstance(view, console.PartitionView)
    return view


def test_a_pair_signs_and_an_independent_library_verifies(appliance: OneAppliance) -> None:
    pair = make_pair(appliance)
    signature = sign(appliance, pair.private.handle)
    public = load_der_public_key(pair.public.attributes[A.PUBLIC_KEY_INFO])
    assert isinstance(public, ec.EllipticCurvePublicKey)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    public.verify(encode_dss_signature(r, s), b"data", ec.ECDSA(hashes.SHA256()))
    verify = objects.Verify(
        handle=pair.public.handle, mechanism=Mechanism.ECDSA_SHA256, data=b"data", signature=signature
    )
    ask(appliance, objects.VERIFY, verify)
    many = objects.UseMany(handle=pair.private.handle, mechanism=Mechanism.ECDSA, items=(bytes(32), b""))
    results = ask(appliance, objects.SIGN_MANY, many).results
    assert [type(one) for one in results] == [bytes, list]


def test_objects_are_there_after_a_restart_and_until_they_are_destroyed(appliance: OneAppliance) -> None:
    key = make_aes(appliance, LABEL="mine")
    use = objects.Use(handle=key.handle, mechanism=Mechanism.AES_GCM, data=b"secret")
    encrypted = ask(appliance, objects.ENCRYPT, use)
    appliance.restart()
    asyncio.run(appliance.activate())
    assert found(appliance, LABEL="mine") == [key.handle]
    assert found(appliance, LABEL="other") == []
    assert found(appliance, CLASS=ObjectClass.SECRET_KEY.value) == [key.handle]
    parameters = cbor2.dumps({"iv": encrypted.iv})
    use = objects.Use(handle=key.handle, mechanism=Mechanism.AES_GCM, data=encrypted.data, parameters=parameters)
    assert ask(appliance, objects.DECRYPT, use).data == b"secret"
    assert listed(appliance).objects == 1
    ask(appliance, objects.DESTROY, objects.Destroy(handle=key.handle))
    assert listed(appliance).objects == 0
    with pytest.raises(errors.ObjectUnknown, match="partition own"):
        ask(appliance, objects.SHOW, objects.Show(handle=key.handle))


def test_attributes_change_as_far_as_they_may(appliance: OneAppliance) -> None:
    key = make_aes(appliance)
    changed = ask(appliance, objects.SET, objects.SetAttributes(handle=key.handle, template={A.LABEL.value: "new"}))
    assert (changed.version, changed.attributes[A.LABEL]) == (2, "new")
    assert found(appliance, LABEL="new") == [key.handle]
    with pytest.raises(errors.AttributeReadOnly):
        ask(appliance, objects.SET, objects.SetAttributes(handle=key.handle, template={A.EXTRACTABLE.value: True}))
    assert ask(appliance, objects.SHOW, objects.Show(handle=key.handle)).version == 2
    for operation, message in (
        (objects.SET, objects.SetAttributes(handle=key.handle, template={A.LABEL.value: "x"}, version=1)),
        (objects.DESTROY, objects.Destroy(handle=key.handle, version=1)),
    ):
        with pytest.raises(errors.VersionConflict):
            ask(appliance, operation, message)
    ask(appliance, objects.DESTROY, objects.Destroy(handle=key.handle, version=2))


def test_the_rules_are_a_keyrings(appliance: OneAppliance) -> None:
    with pytest.raises(errors.TemplateInconsistent, match="secret key is for one"):
        make_aes(appliance, ENCRYPT=True, SIGN=True)
    with pytest.raises(errors.TemplateInconsistent, match="TOKEN is false"):
        make_aes(appliance, TOKEN=False)
    with pytest.raises(errors.PermissionDenied, match="TRUSTED"):
        make_aes(appliance, TRUSTED=True)
    with pytest.raises(errors.KeyExpired):
        sign(appliance, make_pair(appliance, END_DATE="2001-01-01").private.handle)
    kept = make_aes(appliance, DESTROYABLE=False)
    with pytest.raises(errors.ActionProhibited):
        ask(appliance, objects.DESTROY, objects.Destroy(handle=kept.handle))
    assert kept.handle in found(appliance)


def test_what_the_default_policy_forbids_no_policy_is_said_to_allow(appliance: OneAppliance) -> None:
    key = make_aes(appliance)
    with pytest.raises(errors.PolicyForbids, match="weak_mechanisms") as caught:
        ask(appliance, objects.ENCRYPT, objects.Use(handle=key.handle, mechanism=Mechanism.AES_ECB, data=bytes(16)))
    assert "default policy, which nobody can change" in caught.value.detail["advice"]


def test_keys_are_wrapped_unwrapped_copied_and_derived_as_in_a_keyring(appliance: OneAppliance) -> None:
    kw = Mechanism.AES_KEY_WRAP_PAD
    wrapping = make_aes(appliance, WRAP=True, UNWRAP=True)
    app = make_aes(appliance, EXTRACTABLE=True, LABEL="app")
    encrypted = ask(appliance, objects.ENCRYPT, objects.Use(handle=app.handle, mechanism=Mechanism.AES_GCM, data=b"d"))
    wrapped = ask(appliance, objects.WRAP, objects.Wrap(handle=wrapping.handle, mechanism=kw, key=app.handle)).data
    template = {A.CLASS.value: ObjectClass.SECRET_KEY.value, A.KEY_TYPE.value: KeyType.AES.value}
    unwraps = objects.Unwrap(handle=wrapping.handle, mechanism=kw, data=wrapped, template=template)
    back = ask(appliance, objects.UNWRAP, unwraps)
    copied = ask(appliance, objects.COPY, objects.Copy(handle=app.handle, template={A.LABEL.value: "copy"}))
    parameters = cbor2.dumps({"iv": encrypted.iv})
    for key in (back, copied):
        use = objects.Decrypt(
            handle=key.handle, mechanism=Mechanism.AES_GCM, data=encrypted.data, parameters=parameters
        )
        assert ask(appliance, objects.DECRYPT, use).data == b"d"
    assert back.attributes[A.EXTRACTABLE] is False
    assert copied.attributes[A.LABEL] == "copy"
    with pytest.raises(errors.KeyUnextractable):
        ask(appliance, objects.WRAP, objects.Wrap(handle=wrapping.handle, mechanism=kw, key=back.handle))
    base = ask(
        appliance,
        objects.GENERATE,
        objects.GenerateKey(
            mechanism=Mechanism.GENERIC_SECRET_KEY_GEN, template={A.VALUE_LEN.value: 32, A.DERIVE.value: True}
        ),
    )
    aes = {A.KEY_TYPE.value: KeyType.AES.value, A.VALUE_LEN.value: 32}
    derives = objects.Derive(handle=base.handle, mechanism=Mechanism.HKDF_DERIVE, template=aes)
    derived = [ask(appliance, objects.DERIVE, derives) for _ in range(2)]
    sealed = ask(
        appliance, objects.ENCRYPT, objects.Use(handle=derived[0].handle, mechanism=Mechanism.AES_GCM, data=b"d")
    )
    use = objects.Decrypt(
        handle=derived[1].handle,
        mechanism=Mechanism.AES_GCM,
        data=sealed.data,
        parameters=cbor2.dumps({"iv": sealed.iv}),
    )
    assert ask(appliance, objects.DECRYPT, use).data == b"d"
    records = asyncio.run(appliance.ask(console.AUDIT_SHOW, console.AuditPage())).records
    targets = {one["operation"]: one["target"] for one in records if one["outcome"] == "ok"}
    assert targets["partition.key.unwrap"] == f"own/{wrapping.handle.hex()}/{back.handle.hex()}"
    assert targets["partition.key.wrap"] == f"own/{wrapping.handle.hex()}/{app.handle.hex()}"


def test_a_secret_is_agreed_on_with_ml_kem(appliance: OneAppliance) -> None:
    kem = objects.GenerateKeyPair(mechanism=Mechanism.ML_KEM_KEY_PAIR_GEN, public_template={A.PARAMETER_SET.value: 2})
    pair = ask(appliance, objects.GENERATE_PAIR, kem)
    template = {A.KEY_TYPE.value: KeyType.AES.value}
    sent = ask(
        appliance,
        objects.ENCAPSULATE,
        objects.Derive(handle=pair.public.handle, mechanism=Mechanism.ML_KEM, template=template),
    )
    received = ask(
        appliance,
        objects.DECAPSULATE,
        objects.Decapsulate(
            handle=pair.private.handle, mechanism=Mechanism.ML_KEM, template=template, data=sent.ciphertext
        ),
    )
    use = objects.Use(handle=sent.key.handle, mechanism=Mechanism.AES_GCM, data=b"d")
    sealed = ask(appliance, objects.ENCRYPT, use)
    opens = objects.Decrypt(
        handle=received.handle,
        mechanism=Mechanism.AES_GCM,
        data=sealed.data,
        parameters=cbor2.dumps({"iv": sealed.iv}),
    )
    assert ask(appliance, objects.DECRYPT, opens).data == b"d"


def test_what_is_no_secret_comes_in_and_plaintext_keys_do_not(appliance: OneAppliance) -> None:
    data = {A.CLASS.value: ObjectClass.DATA.value, A.LABEL.value: "note"}
    made = ask(appliance, objects.CREATE, objects.CreateObject(template=data, value=b"a note"))
    assert ask(appliance, objects.SHOW, objects.Show(handle=made.handle)).attributes[A.VALUE] == b"a note"
    secret = {A.CLASS.value: ObjectClass.SECRET_KEY.value, A.KEY_TYPE.value: KeyType.AES.value}
    with pytest.raises(errors.PolicyForbids, match="import") as caught:
        ask(appliance, objects.CREATE, objects.CreateObject(template=secret, value=bytes(32)))
    assert "default policy, which nobody can change" in caught.value.detail["advice"]
    readable = make_aes(appliance, SENSITIVE=False, EXTRACTABLE=True)
    assert len(ask(appliance, objects.VALUE, objects.Show(handle=readable.handle)).value) == 32
    with pytest.raises(errors.AttributeSensitive):
        ask(appliance, objects.VALUE, objects.Show(handle=make_aes(appliance).handle))


def test_what_is_not_served_in_a_partition_says_why() -> None:
    of_objects = {each.name for each in vars(objects).values() if isinstance(each, Operation)}
    assert NOT_SERVED.keys() | console.IN_PARTITION.keys() == of_objects
    assert not NOT_SERVED.keys() & console.IN_PARTITION.keys()


def test_objects_of_a_partition_are_listed_in_the_order_in_which_they_were_made(appliance: OneAppliance) -> None:
    pairs = [make_pair(appliance) for _ in range(4)]
    assert all(pair.public.handle[:7] < pair.private.handle[:7] for pair in pairs)
    moments = [pair.public.handle[:6] for pair in pairs]
    assert moments == sorted(moments)
    assert found(appliance) == sorted(handle for pair in pairs for handle in (pair.public.handle, pair.private.handle))


def test_a_partition_holds_a_hundred_objects_and_no_half_of_a_pair_more(appliance: OneAppliance) -> None:
    for _ in range(limits.OBJECTS_PER_PARTITION - 1):
        make_aes(appliance)
    with pytest.raises(errors.LimitReached, match="99 objects; at most 100"):
        make_pair(appliance)
    last = make_aes(appliance)
    with pytest.raises(errors.LimitReached, match="100"):
        make_aes(appliance)
    with pytest.raises(errors.LimitReached, match="100"):
        ask(appliance, objects.COPY, objects.Copy(handle=last.handle))
    assert listed(appliance).objects == limits.OBJECTS_PER_PARTITION == len(found(appliance))
    ask(appliance, objects.DESTROY, objects.Destroy(handle=last.handle))
    make_aes(appliance)


def test_ten_wrong_passwords_lock_the_co_and_nobody_else(appliance: OneAppliance) -> None:
    pair = make_pair(appliance)
    asyncio.run(appliance.partition("other"))
    for _ in range(limits.FAILURES_BEFORE_LOCK):
        with pytest.raises(errors.PasswordIncorrect, match="CO of partition own"):
            sign(appliance, pair.private.handle, PO)
    with pytest.raises(errors.PasswordLocked):
        sign(appliance, pair.private.handle)
    appliance.restart()
    asyncio.run(appliance.activate())
    with pytest.raises(errors.PasswordLocked):
        sign(appliance, pair.private.handle)
    assert ask(appliance, objects.FIND, objects.Find(), label="other").objects == ()
    appliance.now += limits.LOCK_SECONDS
    sign(appliance, pair.private.handle)


def test_wrong_passwords_at_the_same_moment_all_count(appliance: OneAppliance) -> None:
    async def go() -> None:
        request = console.InPartition(partition="own", co_password=PO, request=objects.Find())
        find = console.IN_PARTITION[objects.FIND.name]
        answers = await asyncio.gather(*(appliance.ask(find, request) for _ in range(12)), return_exceptions=True)
        kinds = [type(one) for one in answers]
        assert kinds == [errors.PasswordIncorrect] * limits.FAILURES_BEFORE_LOCK + [errors.PasswordLocked] * 2

    asyncio.run(go())


def test_an_unknown_partition_is_named(appliance: OneAppliance) -> None:
    with pytest.raises(errors.PartitionUnknown, match="nowhere"):
        ask(appliance, objects.FIND, objects.Find(), label="nowhere")


def test_the_cluster_package_disables_the_objects_with_their_partition(appliance: OneAppliance) -> None:
    pair = make_pair(appliance)
    asyncio.run(appliance.install())
    with pytest.raises(errors.PartitionDisabled):
        sign(appliance, pair.private.handle)
    assert (listed(appliance).objects, listed(appliance).accessible) == (2, False)


def test_the_clusters_own_partition_holds_no_objects_of_a_co(appliance: OneAppliance) -> None:
    async def go() -> None:
        await appliance.appliance_init()
        await appliance.install()
        await appliance.cluster_create()
        request = console.InPartition(partition="prod", co_password=CO, request=objects.Find())
        with pytest.raises(errors.PartitionDisabled):
            await appliance.ask(console.IN_PARTITION[objects.FIND.name], request)

    asyncio.run(go())


@pytest.mark.parametrize("how", ["delete", "factory-reset", "reimage"])
def test_nothing_is_left_of_a_partition_that_goes(appliance: OneAppliance, how: str) -> None:
    make_pair(appliance)
    assert list(appliance.directory.glob("partition-*"))
    so = console.AsSo(so_password=SO)
    acts: dict[str, tuple[Operation[Any, Any], Message | None]] = {
        "delete": (console.PARTITION_DELETE, console.PartitionRef(so_password=SO, label="own")),
        "factory-reset": (console.HSM_FACTORY_RESET, so),
        "reimage": (console.APPLIANCE_REIMAGE, None),
    }
    asyncio.run(appliance.ask(*acts[how]))
    assert not list(appliance.directory.glob("partition-*"))


def test_a_slow_key_does_not_keep_others_from_being_answered(
    appliance: OneAppliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    perform = Contents.perform

    def slow(contents: Contents, operation: str, message: Message) -> Message:
        assert answered.wait(20), "nobody else was answered"
        return perform(contents, operation, message)

    monkeypatch.setattr(Contents, "perform", slow)

    async def go() -> None:
        request = console.InPartition(partition="own", co_password=CO, request=objects.Find())
        finding = asyncio.ensure_future(appliance.ask(console.IN_PARTITION[objects.FIND.name], request))
        await asyncio.sleep(0)
        await appliance.ask(console.HSM_SHOW)
        answered.set()
        assert (await finding).objects == ()

    asyncio.run(go())


def test_what_is_not_durable_is_not_done(appliance: OneAppliance, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = make_aes(appliance)
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise errors.StorageFailed("no space")

        patch.setattr("lnh_services.durable.replace_file", full)
        patch.setattr(appliance.vault, "change", lambda how: how(appliance.vault.opened))
        for step in (lambda: make_aes(appliance), lambda: destroy(appliance, kept.handle)):
            with pytest.raises(errors.StorageFailed):
                step()
    assert found(appliance) == [kept.handle]


def destroy(appliance: OneAppliance, handle: bytes) -> None:
    ask(appliance, objects.DESTROY, objects.Destroy(handle=handle))


def test_a_damaged_or_exchanged_file_is_a_broken_seal(appliance: OneAppliance) -> None:
    pair = make_pair(appliance)
    (path,) = appliance.directory.glob("partition-*")
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(errors.SealBroken, match="damaged"):
        sign(appliance, pair.private.handle)
    form, serial, stored = cbor2.loads(good)
    (first, second) = stored
    path.write_bytes(cbor2.dumps([form, serial, [[*first[:3], second[3]], [*second[:3], first[3]]]]))
    with pytest.raises(errors.SealBroken):
        sign(appliance, pair.private.handle)
    path.write_bytes(cbor2.dumps([form, "0" * 16, stored]))
    with pytest.raises(errors.SealBroken, match="partition 0"):
        sign(appliance, pair.private.handle)
    path.write_bytes(good)
    sign(appliance, pair.private.handle)


def test_every_use_is_in_the_trail_by_handle_and_no_password_or_label_is(appliance: OneAppliance) -> None:
    pair = make_pair(appliance, LABEL="a secret label")
    sign(appliance, pair.private.handle)
    with pytest.raises(errors.PasswordIncorrect):
        sign(appliance, pair.private.handle, "wrong password")
    records = asyncio.run(appliance.ask(console.AUDIT_SHOW, console.AuditPage())).records
    handle = f"own/{pair.private.handle.hex()}"
    acts = [(one["operation"], one["role"], one["target"], one["outcome"]) for one in records[-6:]]
    assert acts == [
        ("partition.object.generate-pair", "CO", "own", "begun"),
        ("partition.object.generate-pair", "CO", handle, "ok"),
        ("partition.key.sign", "CO", handle, "begun"),
        ("partition.key.sign", "CO", handle, "ok"),
        ("partition.key.sign", "CO", handle, "begun"),
        ("partition.key.sign", "CO", handle, "PasswordIncorrect"),
    ]
    text = appliance.trail_path.read_bytes()
    assert not [secret for secret in (CO, "wrong password", "a secret label") if secret.encode() in text]


def sent(
    appliance: OneAppliance, handle: bytes, receiver: rsa.RSAPrivateKey, so_password: str = SO, **template: Any
) -> bytes:
    message = console.SendKey(
        partition="own",
        co_password=CO,
        so_password=so_password,
        handle=handle,
        receiver=receiver.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        template={Attribute[name].value: value for name, value in template.items()},
    )
    data = asyncio.run(appliance.ask(console.PARTITION_SEND, message)).data
    assert isinstance(data, bytes)
    return data


def received(receiver: rsa.RSAPrivateKey, wrapped: bytes) -> bytes:
    """What RSA_AES_KEY_WRAP carries (PKCS#11 v3.1, 6.1.19)."""
    size = receiver.key_size // 8
    sha256 = hashes.SHA256()
    inner = receiver.decrypt(wrapped[:size], padding.OAEP(padding.MGF1(sha256), sha256, None))
    return aes_key_unwrap_with_padding(inner, wrapped[size:])


@pytest.fixture(scope="module")
def receiver() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 3072)


def test_a_key_leaves_wrapped_for_an_hsm_elsewhere_as_co_and_so_allow(
    appliance: OneAppliance, receiver: rsa.RSAPrivateKey
) -> None:
    key = make_aes(appliance, EXTRACTABLE=True)
    value = received(receiver, sent(appliance, key.handle, receiver))
    use = objects.Use(handle=key.handle, mechanism=Mechanism.AES_GCM, data=b"secret")
    encrypted = ask(appliance, objects.ENCRYPT, use)
    assert AESGCM(value).decrypt(encrypted.iv, encrypted.data, None) == b"secret"
    pair = make_pair(appliance, EXTRACTABLE=True)
    private = load_der_private_key(received(receiver, sent(appliance, pair.private.handle, receiver)), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    info = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert info == pair.public.attributes[A.PUBLIC_KEY_INFO]
    assert listed(appliance).objects == 3  # the receiver's key was not kept


def test_a_key_that_is_for_another_use_leaves_only_for_that(
    appliance: OneAppliance, receiver: rsa.RSAPrivateKey
) -> None:
    key = make_aes(appliance, EXTRACTABLE=True, SIGN=True, VERIFY=True)
    with pytest.raises(errors.TemplateInconsistent, match="as which it would come back"):
        sent(appliance, key.handle, receiver)
    uses = {A.SENSITIVE.value: True, A.SIGN.value: True, A.VERIFY.value: True}
    assert len(received(receiver, sent(appliance, key.handle, receiver, WRAP_TEMPLATE=uses))) == 32


def test_no_key_leaves_that_may_not_or_for_a_weak_key_or_without_the_so(
    appliance: OneAppliance, receiver: rsa.RSAPrivateKey
) -> None:
    stays, leaves = make_aes(appliance), make_aes(appliance, EXTRACTABLE=True)
    with pytest.raises(errors.KeyUnextractable):
        sent(appliance, stays.handle, receiver)
    with pytest.raises(errors.PolicyForbids, match="at least 3072"):
        sent(appliance, leaves.handle, rsa.generate_private_key(65537, 2048))
    with pytest.raises(errors.PasswordIncorrect):
        sent(appliance, leaves.handle, receiver, so_password="wrong password")
    with pytest.raises(errors.ObjectUnknown):
        sent(appliance, bytes(16), receiver)
    records = asyncio.run(appliance.ask(console.AUDIT_SHOW, console.AuditPage())).records
    acts = [(one["role"], one["target"], one["outcome"]) for one in records if one["operation"] == "partition.send"]
    names = [f"own/{handle.hex()}" for handle in (stays.handle, leaves.handle, leaves.handle, bytes(16))]
    outcomes = ["KeyUnextractable", "PolicyForbids", "PasswordIncorrect", "ObjectUnknown"]
    assert acts == [
        ("SO", name, said) for name, outcome in zip(names, outcomes, strict=True) for said in ("begun", outcome)
    ]


def test_a_file_opens_as_its_page_says(appliance: OneAppliance) -> None:
    key = make_aes(appliance, LABEL="mine")
    partition = appliance.vault.opened.partitions[0]
    assert partition.key is not None
    (path,) = appliance.directory.glob("partition-*")
    assert path.stat().st_mode & 0o777 == 0o600
    form, serial, ((handle, version, head, body),) = cbor2.loads(path.read_bytes())
    assert (form, serial, handle, version) == ("lnh-partition-1", partition.serial, key.handle, 1)

    def opened(info: bytes, sealed: bytes, kind: str, *extra: bytes) -> bytes:
        nonce, ciphertext = cbor2.loads(sealed)
        place = ["lnh-sealed-1", "AES-256-GCM", 0, kind, b"", serial.encode(), handle, version, *extra]
        secret = HKDF(hashes.SHA512(), 32, None, info).derive(partition.key or b"")
        return AESGCM(secret).decrypt(nonce, ciphertext, cbor2.dumps(place))

    assert cbor2.loads(opened(b"lnh object attributes", head, "attributes"))[A.LABEL.value] == "mine"
    digest = hashes.Hash(hashes.SHA256())
    digest.update(head)
    assert len(opened(b"lnh object value", body, "value", digest.finalize())) == 32
