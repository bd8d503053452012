"""The plugin's three calls over a pure worker of the HSM: keys, rotations, sessions, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from lnh_common import limits
from lnh_common.errors import (
    ERRORS,
    ArgumentInvalid,
    Busy,
    ClusterRestored,
    DataLength,
    DeadlineExceeded,
    EncryptedDataInvalid,
    KeyringUnknown,
    LnhError,
    NotPossible,
    ObjectUnknown,
    PasswordIncorrect,
    TokenExpired,
    TokenUnknown,
    Unreachable,
)
from lnh_common.messages.admin import CLUSTER_POLICY, PolicyChange
from lnh_common.pkcs11.attributes import KeyType
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_kms.keys import parameters
from lnh_kms.plugin import OK, Plugin, Sealed, Status
from lnh_kms.statuses import CODES, code_of, line_of
from models.kms import KEYRING, LABEL, Hsm, run

DEK = bytes(range(32))
SECONDS = 30.0


async def encrypted(plugin: Plugin, plaintext: bytes = DEK) -> Sealed:
    return await plugin.encrypt(plaintext, SECONDS)


async def decrypted(plugin: Plugin, sealed: Sealed, **annotations: bytes) -> bytes:
    return await plugin.decrypt(sealed.ciphertext, sealed.key_id, annotations, SECONDS)


async def refused(kind: type[LnhError], work: Awaitable[Any]) -> LnhError:
    with pytest.raises(LnhError) as caught:
        await work
    assert type(caught.value) is kind, repr(caught.value)
    assert "; try: " in line_of(caught.value)
    return caught.value


def test_what_is_encrypted_under_the_id_of_the_status_decrypts() -> None:
    async def test() -> None:
        hsm = Hsm()
        handle = await hsm.generate()
        plugin = hsm.plugin()
        assert await plugin.status(SECONDS) == Status(OK, f"lnh-{handle.hex()}")
        one, other = await encrypted(plugin), await encrypted(plugin)
        assert one.key_id == f"lnh-{handle.hex()}"
        assert one.ciphertext != other.ciphertext, "the same plaintext never gives the same answer"
        assert await decrypted(plugin, one) == await decrypted(plugin, other) == DEK
        await plugin.close()
        assert hsm.closed

    run(test())


def test_a_plugin_that_starts_anew_and_another_one_have_the_same_key() -> None:
    async def test() -> None:
        hsm = Hsm()
        await hsm.generate()
        first = hsm.plugin()
        sealed = await encrypted(first)
        another = hsm.plugin()
        assert await decrypted(another, sealed) == DEK
        assert (await another.status(SECONDS)).key_id == sealed.key_id == (await first.status(SECONDS)).key_id

    run(test())


def test_a_new_key_encrypts_from_the_status_on_that_tells_it_and_old_ones_decrypt() -> None:
    async def test() -> None:
        hsm = Hsm()
        await hsm.generate()
        plugin = hsm.plugin()
        before = await plugin.status(SECONDS)
        old = await encrypted(plugin)
        handle = await hsm.generate()
        hsm.now += limits.KMS_FRESH
        assert (await encrypted(plugin)).key_id == before.key_id, "an API server throws another id away"
        assert await plugin.status(SECONDS) == Status(OK, f"lnh-{handle.hex()}")
        new = await encrypted(plugin)
        assert new.key_id == f"lnh-{handle.hex()}" != old.key_id
        assert await decrypted(plugin, old) == await decrypted(plugin, new) == DEK

    run(test())


def test_what_is_encrypted_under_a_newer_key_decrypts_at_once_and_changes_no_id() -> None:
    async def test() -> None:
        hsm = Hsm()
        await hsm.generate()
        behind, ahead = hsm.plugin(), hsm.plugin()
        before = await behind.status(SECONDS)
        await hsm.generate()
        hsm.now += limits.KMS_FRESH
        await ahead.status(SECONDS)
        sealed = await encrypted(ahead)
        assert sealed.key_id != before.key_id
        assert await decrypted(behind, sealed) == DEK
        assert (await encrypted(behind)).key_id == before.key_id

    run(test())


def test_an_id_that_nobody_knows_lists_the_keys_once_in_a_moment() -> None:
    async def test() -> None:
        hsm = Hsm()
        await hsm.generate()
        plugin = hsm.plugin()
        sealed = await encrypted(plugin)
        hsm.now += limits.KMS_FRESH
        other = sealed._replace(key_id="lnh-" + "0" * 32)
        asked = [refused(ObjectUnknown, decrypted(plugin, other)) for _ in range(5)]
        before = hsm.finds
        await asyncio.gather(*asked)
        assert hsm.finds == before + 1

    run(test())


@pytest.mark.parametrize("at", [0, 5, 12, 20, -16, -1])
def test_a_ciphertext_of_which_a_bit_was_changed_is_refused(at: int) -> None:
    async def test() -> None:
        hsm = Hsm()
        await hsm.generate()
        plugin = hsm.plugin()
        sealed = await encrypted(plugin)
        changed = bytearray(sealed.ciphertext)
        changed[at] ^= 1
        await refused(EncryptedDataInvalid, decrypted(plugin, sealed._replace(ciphertext=bytes(changed))))

    run(test())


def test_what_this_plugin_never_answered_is_refused() -> None:
    async def test() -> None:
        hsm = Hsm()
        first = f"lnh-{(await hsm.generate()).hex()}"
        await hsm.generate()
        plugin = hsm.plugin()
        sealed = await encrypted(plugin)
        await refused(EncryptedDataInvalid, decrypted(plugin, sealed._replace(key_id=first)))
        await refused(EncryptedDataInvalid, decrypted(plugin, sealed._replace(ciphertext=b"")))
        await refused(EncryptedDataInvalid, decrypted(plugin, sealed._replace(ciphertext=sealed.ciphertext[:20])))
        await refused(ArgumentInvalid, decrypted(plugin, sealed._replace(ciphertext=bytes(1025))))
        await refused(ArgumentInvalid, decrypted(plugin, sealed._replace(key_id="x" * 1025)))
        await refused(ArgumentInvalid, decrypted(plugin, sealed, **{"example.com": b""}))
        for name in ("", sealed.key_id.upper(), sealed.key_id + " ", "lnh-", "\x1b[31m"):
            error = await refused(ObjectUnknown, decrypted(plugin, sealed._replace(key_id=name)))
            assert not name or name not in line_of(error), "what is stored is not believed, nor shown"

    run(test())


def test_what_others_encrypt_with_the_key_does_not_decrypt() -> None:
    async def test() -> None:
        hsm = Hsm()
        handle = await hsm.generate()
        plugin = hsm.plugin()
        sealed = await encrypted(plugin)
        key: Any = await hsm.session().get_object(handle)
        await refused(EncryptedDataInvalid, decrypted(plugin, sealed._replace(ciphertext=await key.encrypt(DEK))))
        own = await key.encrypt(DEK, Mechanism.AES_GCM, parameters(sealed.key_id))
        assert await decrypted(plugin, sealed._replace(ciphertext=own)) == DEK, "it is the plain form of the SDK"

    run(test())


def test_no_plaintext_is_taken_whose_ciphertext_an_api_server_would_not_store() -> None:
    async def test() -> None:
        hsm = Hsm()
        await hsm.generate()
        plugin = hsm.plugin()
        for size in (0, 1, limits.KMS_PLAINTEXT_BYTES):
            sealed = await encrypted(plugin, bytes(size))
            assert len(sealed.ciphertext) <= limits.KMS_CIPHERTEXT_BYTES
            assert await decrypted(plugin, sealed) == bytes(size)
        await refused(DataLength, encrypted(plugin, bytes(limits.KMS_PLAINTEXT_BYTES + 1)))

    run(test())


def test_the_status_says_what_is_missing_and_how_it_is_made() -> None:
    async def test() -> None:
        hsm = Hsm()
        plugin = hsm.plugin(label="of our own")
        found = await plugin.status(SECONDS)
        assert found.key_id == ""
        assert "no AES key with label 'of our own'" in found.healthz
        assert f"lnh key generate -k {KEYRING} 'of our own' --type AES --bits 256" in found.healthz
        await refused(NotPossible, encrypted(plugin))
        handle = await hsm.generate("of our own")
        hsm.now += limits.KMS_FRESH
        assert await plugin.status(SECONDS) == Status(OK, f"lnh-{handle.hex()}")

    run(test())


def test_keys_of_another_label_or_another_kind_are_none_of_the_plugins() -> None:
    async def test() -> None:
        hsm = Hsm()
        handle = await hsm.generate()
        other = await hsm.generate("other")
        await hsm.session().generate_key(KeyType.GENERIC_SECRET, label=LABEL)
        await hsm.session().generate_key(KeyType.AES, label=LABEL, wrap=True, unwrap=True, encrypt=False, decrypt=False)
        plugin = hsm.plugin()
        assert await plugin.status(SECONDS) == Status(OK, f"lnh-{handle.hex()}")
        sealed = await encrypted(plugin)
        await refused(ObjectUnknown, decrypted(plugin, sealed._replace(key_id=f"lnh-{other.hex()}")))

    run(test())


def test_a_key_that_was_destroyed_is_told_by_the_status() -> None:
    async def test() -> None:
        hsm = Hsm()
        await hsm.generate()
        newest = await hsm.generate()
        plugin = hsm.plugin()
        told = await plugin.status(SECONDS)
        await (await hsm.session().get_object(newest)).destroy()
        hsm.now += limits.KMS_FRESH
        found = await plugin.status(SECONDS)
        assert found.key_id == told.key_id, "no id that was replaced comes back"
        assert "was destroyed" in found.healthz

    run(test())


def test_what_a_policy_forbids_is_told_by_the_status() -> None:
    async def test() -> None:
        hsm = Hsm()
        await hsm.generate()
        plugin = hsm.plugin()
        assert (await plugin.status(SECONDS)).healthz == OK
        changes = {"allowed_mechanisms": [Mechanism.AES_CBC_PAD.value]}
        hsm.client.as_administrator().ask(CLUSTER_POLICY, PolicyChange(changes=changes))
        hsm.now += limits.KMS_FRESH
        assert "AES_GCM" in (await plugin.status(SECONDS)).healthz

    run(test())


@pytest.mark.parametrize("error", [TokenExpired, ClusterRestored])
def test_a_session_that_was_ended_is_opened_anew_for_all_that_used_it(error: type[LnhError]) -> None:
    async def test() -> None:
        hsm = Hsm()
        await hsm.generate()
        plugin = hsm.plugin()
        sealed = await encrypted(plugin)
        assert hsm.logins == 1
        hsm.fails = [error("over")] * 8
        opened = await asyncio.gather(*(decrypted(plugin, sealed) for _ in range(8)))
        assert opened == [DEK] * 8
        assert hsm.logins == 2
        hsm.fails = [error("over")]
        assert (await encrypted(plugin)).key_id == sealed.key_id

    run(test())


def test_a_wrong_password_is_told_and_not_tried_with_every_call() -> None:
    async def test() -> None:
        hsm = Hsm()
        await hsm.generate()
        right, hsm.password = hsm.password, "a wrong one"
        plugin = hsm.plugin()
        found = await plugin.status(SECONDS)
        assert found.key_id == ""
        assert PasswordIncorrect.advice in found.healthz
        assert hsm.password not in found.healthz
        for _ in range(5):
            hsm.now += 1
            await refused(PasswordIncorrect, encrypted(plugin))
        assert hsm.refused == 1
        hsm.password = right
        hsm.now += limits.KMS_LOGIN_AGAIN
        assert (await plugin.status(SECONDS)).healthz == OK

    run(test())


def test_a_keyring_that_is_not_there_is_told_and_found_later() -> None:
    async def test() -> None:
        hsm = Hsm()
        plugin = hsm.plugin(keyring="nowhere")
        assert "nowhere" in (await plugin.status(SECONDS)).healthz
        await refused(KeyringUnknown, encrypted(plugin))

    run(test())


@pytest.mark.parametrize("error", [Busy, Unreachable])
def test_what_fails_for_a_moment_is_that_calls_alone(error: type[LnhError]) -> None:
    async def test() -> None:
        hsm = Hsm()
        await hsm.generate()
        plugin = hsm.plugin()
        sealed = await encrypted(plugin)
        hsm.fails = [error("not now")]
        await refused(error, decrypted(plugin, sealed))
        assert await decrypted(plugin, sealed) == DEK
        assert hsm.logins == 1

    run(test())


def test_a_cluster_that_does_not_answer_is_told_in_time() -> None:
    async def test() -> None:
        hsm = Hsm()
        await hsm.generate()
        plugin = hsm.plugin()
        before = await plugin.status(SECONDS)
        hsm.now += limits.KMS_FRESH
        hsm.answers.clear()
        found = await plugin.status(0.05)
        assert found.key_id == before.key_id
        assert "did not answer within" in found.healthz
        other = hsm.plugin()
        await refused(DeadlineExceeded, other.encrypt(DEK, 0.05))
        hsm.answers.set()
        assert (await plugin.status(SECONDS)).healthz == OK

    run(test())


@pytest.mark.parametrize("kind", [*ERRORS.values()])
def test_every_error_has_a_status_code_and_is_told_in_a_line(kind: type[LnhError]) -> None:
    assert code_of(kind("it")) in set(grpc.StatusCode) - {grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN}
    assert line_of(kind("a\nb")) == f"a\\nb; try: {kind.advice}"
    assert line_of(kind("a", {"advice": "do"})) == "a; try: do"


def test_a_kind_without_a_row_has_the_code_of_its_base() -> None:
    assert ClusterRestored not in CODES
    assert code_of(ClusterRestored()) is CODES[TokenUnknown]
