"""Many uses of a key in one request: each item has its own result or error, and no IV is used twice."""

from __future__ import annotations

from typing import Any

import pytest

from lnh_common import errors, limits
from lnh_common.messages import admin, objects
from lnh_common.messages.base import Operation
from lnh_common.messages.session import Credential, Role
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.pkcs11.parameters import GcmParameters, pack_parameters
from models.worker import KRCO, Client, generate_ec

M = Mechanism
AAD = pack_parameters(GcmParameters(aad=b"about"))


def made(client: Client, keyring: bytes) -> bytes:
    template = {Attribute.VALUE_LEN.value: 16}
    return client.ask(objects.GENERATE, objects.GenerateKey(mechanism=M.AES_KEY_GEN, template=template), keyring).handle


def ask(
    client: Client, keyring: bytes, operation: Operation[Any, objects.Results], handle: bytes, **fields: Any
) -> list[Any]:
    message = operation.request(handle=handle, **fields)
    return [
        result if isinstance(result, bytes) else result[0] for result in client.ask(operation, message, keyring).results
    ]


def test_what_is_encrypted_in_one_request_decrypts_in_one_and_one_by_one(client: Client, keyring: bytes) -> None:
    key = made(client, keyring)
    items = (b"", b"one", bytes(1000))
    boxes = ask(client, keyring, objects.ENCRYPT_MANY, key, mechanism=M.AES_GCM, items=items, parameters=AAD)
    assert len({box[:12] for box in boxes}) == len(items)
    wrong = (boxes[0][:-1], *boxes[1:], b"short")
    opened = ask(client, keyring, objects.DECRYPT_MANY, key, mechanism=M.AES_GCM, items=wrong, parameters=AAD)
    refused = errors.EncryptedDataInvalid.code
    assert opened == [refused, *items[1:], refused]
    parameters = pack_parameters(GcmParameters(iv=boxes[1][:12], aad=b"about"))
    alone = objects.Decrypt(handle=key, mechanism=M.AES_GCM, data=boxes[1][12:], parameters=parameters)
    assert client.ask(objects.DECRYPT, alone, keyring).data == b"one"


def test_items_of_very_different_length_are_answered_together(client: Client, keyring: bytes) -> None:
    key = made(client, keyring)
    items = (bytes(limits.REQUEST_BYTES // 2), *[b"x"] * 100)
    boxes = ask(client, keyring, objects.ENCRYPT_MANY, key, mechanism=M.AES_GCM, items=items)
    assert tuple(ask(client, keyring, objects.DECRYPT_MANY, key, mechanism=M.AES_GCM, items=tuple(boxes))) == items


def test_results_that_one_answer_does_not_carry_are_refused(client: Client, keyring: bytes) -> None:
    key = made(client, keyring)
    with pytest.raises(errors.DataLength, match="one answer"):
        ask(client, keyring, objects.ENCRYPT_MANY, key, mechanism=M.AES_GCM, items=(bytes(limits.REQUEST_BYTES),))
    with pytest.raises(errors.DataLength, match="one request"):
        ask(client, keyring, objects.DECRYPT_MANY, key, mechanism=M.AES_GCM, items=(bytes(1 << 20), b"x"))


@pytest.mark.parametrize("operation", [objects.ENCRYPT_MANY, objects.DECRYPT_MANY])
def test_one_iv_for_many_items_is_refused_whatever_the_policy(
    client: Client, keyring: bytes, operation: Operation[Any, objects.Results]
) -> None:
    client.as_administrator().ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"caller_ivs": True}))
    client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    key = made(client, keyring)
    chosen = pack_parameters(GcmParameters(iv=bytes(12)))
    with pytest.raises(errors.MechanismParameterInvalid, match="iv: each of many items"):
        ask(client, keyring, operation, key, mechanism=M.AES_GCM, items=(bytes(28), bytes(29)), parameters=chosen)


def test_each_signature_is_verified_for_itself(client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    items = (b"a", b"b", b"c")
    signed = ask(client, keyring, objects.SIGN_MANY, pair.private.handle, mechanism=M.ECDSA_SHA256, items=items)
    fields: dict[str, Any] = {"mechanism": M.ECDSA_SHA256, "items": items}
    swapped = (signed[0], signed[2], b"")
    found = ask(client, keyring, objects.VERIFY_MANY, pair.public.handle, signatures=swapped, **fields)
    wrong = errors.SignatureInvalid.code
    assert found == [b"", wrong, wrong]
    with pytest.raises(errors.ArgumentInvalid, match="2 signatures for 3 items"):
        ask(client, keyring, objects.VERIFY_MANY, pair.public.handle, signatures=tuple(signed[:2]), **fields)


def test_every_item_counts_as_a_use(client: Client, keyring: bytes) -> None:
    pair = generate_ec(client, keyring)
    signed = ask(client, keyring, objects.SIGN_MANY, pair.private.handle, mechanism=M.ECDSA_SHA256, items=(b"a", b"b"))
    fields: dict[str, Any] = {"mechanism": M.ECDSA_SHA256, "items": (b"a", b"b")}
    ask(client, keyring, objects.VERIFY_MANY, pair.public.handle, signatures=tuple(signed), **fields)
    keys = client.worker.caches.keys
    used = [keys.get((keyring, each.handle)) for each in (pair.private, pair.public)]
    assert [key.uses for key in used if key is not None] == [2, 2]
