"""Objects of the appliance's own partitions: what their CO may, and what is left of them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lnh_common import errors, limits
from lnh_common.messages import console, objects
from lnh_common.messages.base import Message, Operation
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_services.hsm.appliance.partitions import Contents
from models.console import CO, PO, SO, Desk

A = Attribute


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)

    async def go() -> None:
        await desk.hsm_init()
        await desk.partition()

    asyncio.run(go())
    return desk


def ask(desk: Desk, operation: Operation[Any, Any], message: Message, password: str = CO, label: str = "own") -> Any:
    request = console.InPartition(partition=label, co_password=password, request=message)
    return asyncio.run(desk.ask(console.IN_PARTITION[operation.name], request))


def make_pair(desk: Desk, **more: Any) -> objects.KeyPair:
    template = {A.EC_PARAMS.value: CURVES["P-256"].oid}
    private = {Attribute[name].value: value for name, value in more.items()}
    message = objects.GenerateKeyPair(
        mechanism=Mechanism.EC_KEY_PAIR_GEN, public_template=template, private_template=private
    )
    made = ask(desk, objects.GENERATE_PAIR, message)
    assert isinstance(made, objects.KeyPair)
    return made


def make_aes(desk: Desk, **more: Any) -> objects.ObjectView:
    template = {A.VALUE_LEN.value: 32} | {Attribute[name].value: value for name, value in more.items()}
    made = ask(desk, objects.GENERATE, objects.GenerateKey(mechanism=Mechanism.AES_KEY_GEN, template=template))
    assert isinstance(made, objects.ObjectView)
    return made


def sign(desk: Desk, handle: bytes, password: str = CO) -> bytes:
    use = objects.Use(handle=handle, mechanism=Mechanism.ECDSA_SHA256, data=b"data")
    signature = ask(desk, objects.SIGN, use, password).data
    assert isinstance(signature, bytes)
    return signature


def found(desk: Desk, **template: Any) -> list[bytes]:
    wanted = {Attribute[name].value: value for name, value in template.items()}
    return [view.handle for view in ask(desk, objects.FIND, objects.Find(template=wanted)).objects]


def listed(desk: Desk) -> console.PartitionView:
    (view,) = asyncio.run(desk.ask(console.PARTITION_LIST)).partitions
    assert isinstance(view, console.PartitionView)
    return view


def test_a_pair_signs_and_an_independent_library_verifies(desk: Desk) -> None:
    pair = make_pair(desk)
    signature = sign(desk, pair.private.handle)
    public = load_der_public_key(pair.public.attributes[A.PUBLIC_KEY_INFO])
    assert isinstance(public, ec.EllipticCurvePublicKey)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    public.verify(encode_dss_signature(r, s), b"data", ec.ECDSA(hashes.SHA256()))
    verify = objects.Verify(
        handle=pair.public.handle, mechanism=Mechanism.ECDSA_SHA256, data=b"data", signature=signature
    )
    ask(desk, objects.VERIFY, verify)
    many = objects.UseMany(handle=pair.private.handle, mechanism=Mechanism.ECDSA, items=(bytes(32), b""))
    results = ask(desk, objects.SIGN_MANY, many).results
    assert [type(one) for one in results] == [bytes, list]


def test_objects_are_there_after_a_restart_and_until_they_are_destroyed(desk: Desk) -> None:
    key = make_aes(desk, LABEL="mine")
    use = objects.Use(handle=key.handle, mechanism=Mechanism.AES_GCM, data=b"secret")
    encrypted = ask(desk, objects.ENCRYPT, use)
    desk.restart()
    asyncio.run(desk.activate())
    assert found(desk, LABEL="mine") == [key.handle]
    assert found(desk, LABEL="other") == []
    assert found(desk, CLASS=ObjectClass.SECRET_KEY.value) == [key.handle]
    parameters = cbor2.dumps({"iv": encrypted.iv})
    use = objects.Use(handle=key.handle, mechanism=Mechanism.AES_GCM, data=encrypted.data, parameters=parameters)
    assert ask(desk, objects.DECRYPT, use).data == b"secret"
    assert listed(desk).objects == 1
    ask(desk, objects.DESTROY, objects.ObjectRef(handle=key.handle))
    assert listed(desk).objects == 0
    with pytest.raises(errors.ObjectUnknown, match="partition own"):
        ask(desk, objects.SHOW, objects.Show(handle=key.handle))


def test_attributes_change_as_far_as_they_may(desk: Desk) -> None:
    key = make_aes(desk)
    changed = ask(desk, objects.SET, objects.SetAttributes(handle=key.handle, template={A.LABEL.value: "new"}))
    assert (changed.version, changed.attributes[A.LABEL]) == (2, "new")
    assert found(desk, LABEL="new") == [key.handle]
    with pytest.raises(errors.AttributeReadOnly):
        ask(desk, objects.SET, objects.SetAttributes(handle=key.handle, template={A.EXTRACTABLE.value: True}))
    assert ask(desk, objects.SHOW, objects.Show(handle=key.handle)).version == 2


def test_the_rules_are_a_keyrings(desk: Desk) -> None:
    with pytest.raises(errors.TemplateInconsistent, match="secret key is for one"):
        make_aes(desk, ENCRYPT=True, SIGN=True)
    with pytest.raises(errors.TemplateInconsistent, match="TOKEN is false"):
        make_aes(desk, TOKEN=False)
    with pytest.raises(errors.PermissionDenied, match="TRUSTED"):
        make_aes(desk, TRUSTED=True)
    with pytest.raises(errors.KeyExpired):
        sign(desk, make_pair(desk, END_DATE="2001-01-01").private.handle)
    kept = make_aes(desk, DESTROYABLE=False)
    with pytest.raises(errors.ActionProhibited):
        ask(desk, objects.DESTROY, objects.ObjectRef(handle=kept.handle))
    assert kept.handle in found(desk)


def test_what_the_default_policy_forbids_no_policy_is_said_to_allow(desk: Desk) -> None:
    key = make_aes(desk)
    with pytest.raises(errors.PolicyForbids, match="weak_mechanisms") as caught:
        ask(desk, objects.ENCRYPT, objects.Use(handle=key.handle, mechanism=Mechanism.AES_ECB, data=bytes(16)))
    assert "default policy, which nobody can change" in caught.value.detail["advice"]


def test_objects_of_a_partition_are_listed_in_the_order_in_which_they_were_made(desk: Desk) -> None:
    pairs = [make_pair(desk) for _ in range(4)]
    assert all(pair.public.handle[:7] < pair.private.handle[:7] for pair in pairs)
    moments = [pair.public.handle[:6] for pair in pairs]
    assert moments == sorted(moments)
    assert found(desk) == sorted(handle for pair in pairs for handle in (pair.public.handle, pair.private.handle))


def test_a_partition_holds_a_hundred_objects_and_no_half_of_a_pair_more(desk: Desk) -> None:
    for _ in range(limits.OBJECTS_PER_PARTITION - 1):
        make_aes(desk)
    with pytest.raises(errors.LimitReached, match="99 objects; at most 100"):
        make_pair(desk)
    last = make_aes(desk)
    with pytest.raises(errors.LimitReached, match="100"):
        make_aes(desk)
    assert listed(desk).objects == limits.OBJECTS_PER_PARTITION == len(found(desk))
    ask(desk, objects.DESTROY, objects.ObjectRef(handle=last.handle))
    make_aes(desk)


def test_ten_wrong_passwords_lock_the_co_and_nobody_else(desk: Desk) -> None:
    pair = make_pair(desk)
    asyncio.run(desk.partition("other"))
    for _ in range(limits.FAILURES_BEFORE_LOCK):
        with pytest.raises(errors.PasswordIncorrect, match="CO of partition own"):
            sign(desk, pair.private.handle, PO)
    with pytest.raises(errors.PasswordLocked):
        sign(desk, pair.private.handle)
    desk.restart()
    asyncio.run(desk.activate())
    with pytest.raises(errors.PasswordLocked):
        sign(desk, pair.private.handle)
    assert ask(desk, objects.FIND, objects.Find(), label="other").objects == ()
    desk.now += limits.LOCK_SECONDS
    sign(desk, pair.private.handle)


def test_wrong_passwords_at_the_same_moment_all_count(desk: Desk) -> None:
    async def go() -> None:
        request = console.InPartition(partition="own", co_password=PO, request=objects.Find())
        find = console.IN_PARTITION[objects.FIND.name]
        answers = await asyncio.gather(*(desk.ask(find, request) for _ in range(12)), return_exceptions=True)
        kinds = [type(one) for one in answers]
        assert kinds == [errors.PasswordIncorrect] * limits.FAILURES_BEFORE_LOCK + [errors.PasswordLocked] * 2

    asyncio.run(go())


def test_an_unknown_partition_is_named(desk: Desk) -> None:
    with pytest.raises(errors.PartitionUnknown, match="nowhere"):
        ask(desk, objects.FIND, objects.Find(), label="nowhere")


def test_the_cluster_package_disables_the_objects_with_their_partition(desk: Desk) -> None:
    pair = make_pair(desk)
    asyncio.run(desk.install())
    with pytest.raises(errors.PartitionDisabled):
        sign(desk, pair.private.handle)
    assert (listed(desk).objects, listed(desk).accessible) == (2, False)


def test_the_clusters_own_partition_holds_no_objects_of_a_co(desk: Desk) -> None:
    async def go() -> None:
        await desk.appliance_init()
        await desk.install()
        await desk.cluster_create()
        request = console.InPartition(partition="prod", co_password=CO, request=objects.Find())
        with pytest.raises(errors.PartitionDisabled):
            await desk.ask(console.IN_PARTITION[objects.FIND.name], request)

    asyncio.run(go())


@pytest.mark.parametrize("how", ["delete", "factory-reset", "reimage"])
def test_nothing_is_left_of_a_partition_that_goes(desk: Desk, how: str) -> None:
    make_pair(desk)
    assert list(desk.directory.glob("partition-*"))
    so = console.AsSo(so_password=SO)
    acts: dict[str, tuple[Operation[Any, Any], Message | None]] = {
        "delete": (console.PARTITION_DELETE, console.PartitionRef(so_password=SO, label="own")),
        "factory-reset": (console.HSM_FACTORY_RESET, so),
        "reimage": (console.APPLIANCE_REIMAGE, None),
    }
    asyncio.run(desk.ask(*acts[how]))
    assert not list(desk.directory.glob("partition-*"))


def test_a_slow_key_does_not_keep_others_from_being_answered(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    perform = Contents.perform

    def slow(contents: Contents, operation: str, message: Message) -> Message:
        assert answered.wait(20), "nobody else was answered"
        return perform(contents, operation, message)

    monkeypatch.setattr(Contents, "perform", slow)

    async def go() -> None:
        request = console.InPartition(partition="own", co_password=CO, request=objects.Find())
        finding = asyncio.ensure_future(desk.ask(console.IN_PARTITION[objects.FIND.name], request))
        await asyncio.sleep(0)
        await desk.ask(console.HSM_SHOW)
        answered.set()
        assert (await finding).objects == ()

    asyncio.run(go())


def test_what_is_not_durable_is_not_done(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = make_aes(desk)
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise errors.StorageFailed("no space")

        patch.setattr("lnh_services.durable.replace_file", full)
        patch.setattr(desk.vault, "change", lambda how: how(desk.vault.opened))
        for step in (lambda: make_aes(desk), lambda: destroy(desk, kept.handle)):
            with pytest.raises(errors.StorageFailed):
                step()
    assert found(desk) == [kept.handle]


def destroy(desk: Desk, handle: bytes) -> None:
    ask(desk, objects.DESTROY, objects.ObjectRef(handle=handle))


def test_a_damaged_or_exchanged_file_is_a_broken_seal(desk: Desk) -> None:
    pair = make_pair(desk)
    (path,) = desk.directory.glob("partition-*")
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(errors.SealBroken, match="damaged"):
        sign(desk, pair.private.handle)
    form, serial, stored = cbor2.loads(good)
    (first, second) = stored
    path.write_bytes(cbor2.dumps([form, serial, [[*first[:3], second[3]], [*second[:3], first[3]]]]))
    with pytest.raises(errors.SealBroken):
        sign(desk, pair.private.handle)
    path.write_bytes(cbor2.dumps([form, "0" * 16, stored]))
    with pytest.raises(errors.SealBroken, match="partition 0"):
        sign(desk, pair.private.handle)
    path.write_bytes(good)
    sign(desk, pair.private.handle)


def test_every_use_is_in_the_trail_by_handle_and_no_password_or_label_is(desk: Desk) -> None:
    pair = make_pair(desk, LABEL="a secret label")
    sign(desk, pair.private.handle)
    with pytest.raises(errors.PasswordIncorrect):
        sign(desk, pair.private.handle, "wrong password")
    records = asyncio.run(desk.ask(console.AUDIT_SHOW, console.AuditPage())).records
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
    text = desk.trail_path.read_bytes()
    assert not [secret for secret in (CO, "wrong password", "a secret label") if secret.encode() in text]


def test_a_file_opens_as_its_page_says(desk: Desk) -> None:
    key = make_aes(desk, LABEL="mine")
    partition = desk.vault.opened.partitions[0]
    assert partition.key is not None
    (path,) = desk.directory.glob("partition-*")
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
