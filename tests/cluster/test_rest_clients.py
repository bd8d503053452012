"""Clients that others made: one generated from the OpenAPI document, and NetHSM's own."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import nethsm
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from lnh_rest import openapi
from rest_service import HOST, Rest, Running
from sites import KRCO

GENERATOR = "openapi_python_client"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The package that openapi-python-client makes of the document."""
    pytest.importorskip(GENERATOR, reason="it needs Python 3.11")
    place = tmp_path_factory.mktemp("generated")
    (place / "openapi.json").write_text(json.dumps(openapi.document()))
    (place / "settings.yaml").write_text("post_hooks: []\npackage_name_override: lnh_generated\n")
    words = (
        "generate",
        "--path",
        "openapi.json",
        "--config",
        "settings.yaml",
        "--output-path",
        "made",
        "--meta",
        "none",
    )
    told = subprocess.run(
        [sys.executable, "-m", GENERATOR, *words, "--fail-on-warning"],
        cwd=place, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    (place / "made").rename(place / "lnh_generated")
    sys.path.insert(0, str(place))
    return importlib.import_module("lnh_generated")


def test_a_client_generated_from_the_document_signs(generated: ModuleType, service: Running) -> None:
    def module(name: str) -> Any:
        return importlib.import_module(f"lnh_generated.{name}")

    models = module("models")
    stranger = generated.Client(
        base_url=service.rest.url, verify_ssl=service.rest.context, raise_on_unexpected_status=True
    )
    login = models.KeyringLogin.from_dict({"as": "keyring", "keyring": "payments", "role": "krco", "password": KRCO})
    opened = module("api.sessions.log_in").sync(client=stranger, body=login)
    client = generated.AuthenticatedClient(
        base_url=service.rest.url, verify_ssl=service.rest.context, token=opened.token, raise_on_unexpected_status=True
    )
    new = models.NewKeyPair.from_dict({"key_type": "EC", "curve": "P-256", "attributes": {"label": "generated"}})
    pair = module("api.key_pairs.generate_key_pair").sync(client=client, body=new)
    asked = models.Sign.from_dict({"data": base64.b64encode(b"what is signed").decode(), "der": True})
    signed = module("api.keys.sign").sync(pair.private.handle, client=client, body=asked)
    shown = module("api.objects.show_public").sync(pair.public.handle, client=client)
    key = load_pem_public_key(shown.text.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(base64.b64decode(signed.signature), b"what is signed", ec.ECDSA(hashes.SHA256()))
    listed = module("api.objects.list_objects").sync(client=client, label="generated")
    assert {each.handle for each in listed.items} == {pair.public.handle, pair.private.handle}
    for half in (pair.public, pair.private):
        done = module("api.objects.destroy_object").sync_detailed(half.handle, client=client, if_match='"1"')
        assert done.status_code == 204
    refused = module("api.objects.show_object").sync(pair.public.handle, client=client)
    assert refused.error == "ObjectUnknown"


@pytest.fixture
def nethsm_client(service: Running) -> Iterator[nethsm.NetHSM]:
    certificate = service.log.parent / "rest.pem"
    auth = nethsm.Authentication("payments~krco", KRCO)
    client = nethsm.NetHSM(f"{HOST}:{service.rest.port}", auth, ca_certs=str(certificate))
    yield client
    client.close()


def test_nethsms_own_client_generates_lists_signs_and_deletes(nethsm_client: nethsm.NetHSM) -> None:
    hsm = nethsm_client
    assert hsm.get_state() is nethsm.State.OPERATIONAL
    assert hsm.get_info().vendor == "lnh"
    assert len(hsm.get_random_data(32).decode()) == 32
    mechanism, kind = nethsm.KeyMechanism, nethsm.KeyType
    pss = [mechanism.RSA_SIGNATURE_PSS_SHA256, mechanism.RSA_SIGNATURE_PKCS1, mechanism.RSA_DECRYPTION_OAEP_SHA256]
    assert hsm.generate_key(kind.RSA, pss, 2048, key_id="nethsm-rsa") == "nethsm-rsa"
    assert hsm.generate_key(kind.EC_P256, [mechanism.ECDSA_SIGNATURE], 256, key_id="nethsm-ec") == "nethsm-ec"
    edwards = hsm.generate_key(kind.CURVE25519, [mechanism.EDDSA_SIGNATURE], 256)
    cbc = [mechanism.AES_ENCRYPTION_CBC, mechanism.AES_DECRYPTION_CBC]
    assert hsm.generate_key(kind.GENERIC, cbc, 256, key_id="nethsm-aes") == "nethsm-aes"
    ours = {"nethsm-rsa", "nethsm-ec", "nethsm-aes", edwards}
    assert ours <= set(hsm.list_keys())
    shown = hsm.get_key("nethsm-rsa")
    assert (shown.type, set(shown.mechanisms) >= set(pss)) == (kind.RSA, True)

    message = b"what is signed"
    digest = nethsm.Base64.encode(hashlib.sha256(message).digest())
    of_rsa = load_pem_public_key(hsm.get_key_public_key("nethsm-rsa").encode())
    assert isinstance(of_rsa, rsa.RSAPublicKey)
    assert shown.public_key is not None
    assert int.from_bytes(shown.public_key.modulus.decode(), "big") == of_rsa.public_numbers().n  # type: ignore[union-attr]  # of RSA
    signed = hsm.sign("nethsm-rsa", digest, nethsm.SignMode.PSS_SHA256).decode()
    of_rsa.verify(signed, message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(message).digest()
    signed = hsm.sign("nethsm-rsa", nethsm.Base64.encode(info), nethsm.SignMode.PKCS1).decode()
    of_rsa.verify(signed, message, padding.PKCS1v15(), hashes.SHA256())
    sealed = of_rsa.encrypt(message, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    assert hsm.decrypt("nethsm-rsa", nethsm.Base64.encode(sealed), nethsm.DecryptMode.OAEP_SHA256).decode() == message

    of_ec = load_pem_public_key(hsm.get_key_public_key("nethsm-ec").encode())
    assert isinstance(of_ec, ec.EllipticCurvePublicKey)
    signed = hsm.sign("nethsm-ec", digest, nethsm.SignMode.ECDSA).decode()
    of_ec.verify(signed, message, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        of_ec.verify(signed, b"other", ec.ECDSA(hashes.SHA256()))
    of_edwards = load_pem_public_key(hsm.get_key_public_key(edwards).encode())
    assert isinstance(of_edwards, ed25519.Ed25519PublicKey)
    of_edwards.verify(hsm.sign(edwards, nethsm.Base64.encode(message), nethsm.SignMode.EDDSA).decode(), message)

    block = nethsm.Base64.encode(b"sixteen bytes !!")
    encrypted = hsm.encrypt("nethsm-aes", block, nethsm.EncryptMode.AES_CBC)
    opened = hsm.decrypt("nethsm-aes", encrypted.encrypted, nethsm.DecryptMode.AES_CBC, encrypted.iv)
    assert opened.decode() == b"sixteen bytes !!"

    for key_id in ours:
        hsm.delete_key(key_id)
    assert not ours & set(hsm.list_keys())


def test_nethsms_own_client_is_refused_in_its_own_way(
    nethsm_client: nethsm.NetHSM, service: Running, holder: Rest
) -> None:
    hsm = nethsm_client
    mechanism, kind = nethsm.KeyMechanism, nethsm.KeyType
    hsm.generate_key(kind.EC_P256, [mechanism.ECDSA_SIGNATURE], 256, key_id="nethsm-refused")
    with pytest.raises(nethsm.NetHSMError, match="already exists"):
        hsm.generate_key(kind.EC_P256, [mechanism.ECDSA_SIGNATURE], 256, key_id="nethsm-refused")
    with pytest.raises(nethsm.NetHSMError, match="not found"):
        hsm.get_key("nethsm-nothing")
    with pytest.raises(nethsm.NetHSMError, match="invalid sign mode"):
        hsm.sign("nethsm-refused", nethsm.Base64.encode(b"x"), nethsm.SignMode.EDDSA)
    with pytest.raises(nethsm.NetHSMError, match="not served"):
        hsm.generate_key(kind.EC_P256K1, [mechanism.BIP340_SIGNATURE], 256)
    hsm.delete_key("nethsm-refused")
    stranger = Rest(service.rest.port, service.rest.context)
    for path, status in (
        ("keys", 401),
        ("users", 404),
        ("keys/%2e%2e", 401),
        ("health/ready", 200),
        ("health/alive", 412),
    ):
        reply = stranger.ask("GET", f"/api/v1/{path}")
        assert reply.status == status, (path, reply.body)
        if status >= 400:
            assert reply.headers["content-type"] == "application/json"
            assert set(reply.json) == {"message"}
    wrong = nethsm.NetHSM(
        hsm.host, nethsm.Authentication("payments~krco", "wrong"), ca_certs=str(service.log.parent / "rest.pem")
    )
    with pytest.raises(nethsm.NetHSMError, match="invalid username or password"):
        wrong.list_keys()
    wrong.close()
    made = holder.done("POST", "/v1/keys", {"key_type": "AES", "attributes": {"label": "no id of NetHSM's"}})["objects"]
    (handle,) = (each["handle"] for each in made)
    assert handle in hsm.list_keys()
    assert hsm.get_key(handle).type is kind.GENERIC
    hsm.delete_key(handle)
