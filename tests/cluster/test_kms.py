"""The KMS plugin as a process of its own: an API server's start, a rotation, a lost member, and its own end."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

import lnh
from kms_service import running
from lnh_kms import api_pb2 as api
from members import Members
from waits import wait_until

pytestmark = pytest.mark.several

TIMEOUT = 30.0  # seconds; an API server has 3, and these processes share a machine with many others
AT_ONCE = 16


def a_label() -> str:
    """A label that no key has: tests of this file share a keyring."""
    return f"kms-{os.urandom(4).hex()}"


def makes_key(label: str) -> tuple[str, ...]:
    return ("lnh", "key", "generate", "-k", "payments", label, "--type", "AES", "--bits", "256")


def status(client: Any) -> Any:
    return client.Status(api.StatusRequest(), timeout=TIMEOUT)


def encrypt(client: Any, plaintext: bytes) -> Any:
    return client.Encrypt(api.EncryptRequest(plaintext=plaintext, uid="encrypted"), timeout=TIMEOUT)


def decrypt(client: Any, sealed: Any) -> bytes:
    request = api.DecryptRequest(ciphertext=sealed.ciphertext, key_id=sealed.key_id, uid="decrypted")
    opened: bytes = client.Decrypt(request, timeout=TIMEOUT).plaintext
    return opened


def healthy(client: Any) -> str:
    """The id of the key that encrypts, once the plugin says that all is well."""
    found: list[Any] = []

    def is_well() -> bool:
        found.append(status(client))
        return bool(found[-1].healthz == "ok")

    wait_until(is_well, "the plugin's health")
    return str(found[-1].key_id)


def test_an_api_server_goes_on_over_rotations_and_lost_members(members: Members, short_path: Path) -> None:
    deks = [os.urandom(32) for _ in range(100)]
    label = a_label()
    makes = makes_key(label)
    with (
        running(members.all[1].client, members.place.secret("krco"), short_path, label) as plugin,
        plugin.client() as client,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        missing = status(client)
        assert (missing.version, missing.key_id) == ("v2", "")
        assert " ".join(makes) in missing.healthz
        members.steps.run(*makes)
        first = healthy(client)
        sealed = list(pool.map(partial(encrypt, client), deks))
        assert {each.key_id for each in sealed} == {first}
        assert len({each.ciphertext for each in sealed}) == len(deks)
        assert list(pool.map(partial(decrypt, client), sealed)) == deks

        members.steps.run(*makes)
        wait_until(lambda: status(client).key_id != first, "the newer key")
        second = healthy(client)
        assert encrypt(client, deks[0]).key_id == second
        assert list(pool.map(partial(decrypt, client), sealed)) == deks

        with members.brought_back(members.all[1]):
            over = threading.Event()

            def goes_on(dek: bytes) -> int:
                done = 0
                while not over.is_set():
                    made = encrypt(client, dek)
                    assert (made.key_id, decrypt(client, made)) == (second, dek)
                    done += 1
                return done

            load = [pool.submit(goes_on, each) for each in deks[: AT_ONCE // 2]]
            try:
                decrypt(client, sealed[0])
                members.all[1].kill()
                ends = time.monotonic() + 2
                while time.monotonic() < ends:  # a member's loss is noticed within half a second
                    assert decrypt(client, random.choice(sealed)) in deks
                assert status(client).healthz == "ok"
            finally:
                over.set()
            assert all(each.result() for each in load), "no call failed"


def test_a_plugin_that_is_killed_has_the_same_key_when_it_is_there_again(members: Members, short_path: Path) -> None:
    label = a_label()
    members.steps.run(*makes_key(label))
    given = (members.place.secret("krco"), short_path, label)
    password = members.place.secret("krco").read_text().strip()
    dek = os.urandom(32)
    with running(members.all[0].client, *given) as plugin, plugin.client() as client:
        key_id = healthy(client)
        sealed = encrypt(client, dek)
        with pytest.raises(AssertionError, match="another plugin serves"), running(members.all[0].client, *given):
            pass
        shown = members.steps.run("lnh", "kms", "status", "--socket", str(plugin.socket), "--json")
        assert json.loads(shown) == {"healthz": "ok", "key_id": key_id}
        plugin.process.kill()
        plugin.process.wait()
        assert plugin.socket.exists(), "nobody removed it"
    with running(members.all[2].client, *given) as again, again.client() as client:
        assert status(client).key_id == key_id
        assert decrypt(client, sealed) == dek
        with pytest.raises(grpc.RpcError) as caught:
            decrypt(client, api.EncryptResponse(ciphertext=sealed.ciphertext, key_id="lnh-" + "0" * 32))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        _end_every_session(members, password)
        assert decrypt(client, sealed) == dek, "it logged in anew"
        with ThreadPoolExecutor(AT_ONCE) as pool:
            calls = [pool.submit(decrypt, client, sealed) for _ in range(4 * AT_ONCE)]
            calls[0].result()
            assert again.end() == 0
            ended = [_outcome(each) for each in calls]
        assert set(ended) <= {dek, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert ended[0] == dek
        assert "gone" not in {each["event"] for each in again.events()}, "what was begun was done"
        assert not again.socket.exists()
        told = again.log.read_text()
        assert {each["event"] for each in again.events()} >= {"key", "health", "served", "refused"}
        for secret in (dek.hex(), sealed.ciphertext.hex(), password, "Traceback"):
            assert secret not in told


def _end_every_session(members: Members, password: str) -> None:
    with lnh.connect("demo", directory=members.all[0].client) as cluster:
        cluster.keyring("payments").login(lnh.Role.KRCO, password).logout(everywhere=True)


def _outcome(call: Any) -> Any:
    """What a call gave: the plaintext, or the code that says that the plugin had gone."""
    try:
        return call.result()
    except grpc.RpcError as error:
        return error.code()
