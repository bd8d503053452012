"""docs/formats/hsm-state.md and audit.md, read by a second, plain implementation."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec.structs import replace

from lnh_common.wire.shares import Split
from lnh_services.hsm.appliance.state import HsmState, StateFile
from lnh_services.hsm.auth.console_attempts import KeptPassword, Verifier
from lnh_services.hsm.auth.credentials import derivation, material
from lnh_services.hsm.crypto import shares
from lnh_services.hsm.crypto.argon2 import derive
from lnh_services.hsm.crypto.tpm import TpmSealed
from models.console import OneAppliance

QUICK = (64, 1, 1)


def hkdf(secret: bytes, info: bytes) -> bytes:
    return HKDF(SHA512(), 32, None, info).derive(secret)


def test_a_state_file_opens_as_its_page_says(tmp_path: Path) -> None:
    asked = derivation("security officer", argon2=QUICK)
    so = Verifier(password=KeptPassword.of(material(asked, derive(asked))))
    state = HsmState(label="hsm-a", identity=bytes(range(32)), so=so, domain="domain")
    file = StateFile(tmp_path / "hsm.state", QUICK)
    cover = file.cover("hsm-a", state.identity_public())
    file.write(state, cover, derive(cover.derivation(b"activation")))

    cover_fields, sealed = cbor2.loads((tmp_path / "hsm.state").read_bytes())
    form, label, identity, salt, (memory, passes, lanes) = cover_fields
    assert (form, label) == ("lnh-hsm-state-1", "hsm-a")
    key = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(b"activation")
    nonce, ciphertext = cbor2.loads(sealed)
    place = ["lnh-sealed-1", "AES-256-GCM", 0, "state", b"", b"", b"", 0, cbor2.dumps(cover_fields)]
    opened = cbor2.loads(AESGCM(key).decrypt(nonce, ciphertext, cbor2.dumps(place)))
    signing = Ed25519PrivateKey.from_private_bytes(hkdf(opened["identity"], b"lnh hsm identity sign"))
    assert signing.public_key().public_bytes_raw() == identity
    kept = opened["so"]["password"]
    memory, passes, lanes = kept["argon2"]
    password = Argon2id(salt=kept["salt"], length=32, iterations=passes, lanes=lanes, memory_cost=memory)
    assert hkdf(password.derive(b"security officer"), b"lnh credential verify") == kept["verifier"]


def test_a_trail_verifies_as_its_page_says(tmp_path: Path) -> None:
    appliance = OneAppliance(tmp_path)
    asyncio.run(appliance.cluster())
    appliance.desk.sign()
    assert appliance.vault.cover is not None
    identity = Ed25519PublicKey.from_public_bytes(appliance.vault.cover.identity)

    previous, heads = bytes(32), 0
    for index, spelling in enumerate((tmp_path / "audit.jsonl").read_text().splitlines(), start=1):
        line = json.loads(spelling)
        assert (line["index"], line["previous"]) == (index, previous.hex())
        if "signature" in line:
            heads += 1
            signature = bytes.fromhex(line["signature"])
            identity.verify(signature, cbor2.dumps(["lnh-audit-head-1", index, line["time"], previous]))
            said = ["lnh-audit-1", "head", index, line["time"], bytes.fromhex(line["signer"]), signature, previous]
        else:
            names = ("time", "member", "identity", "role", "operation", "target", "outcome", "detail")
            said = ["lnh-audit-1", "record", index, *(line[name] for name in names), previous]
        previous = hashlib.sha256(cbor2.dumps(said)).digest()
        assert line["hash"] == previous.hex()
    assert heads == 2


SPLIT = shares.split(b"activation", 2, 3, bytes)[0]
OF_SHARES = [SPLIT.set, 2, 3, list(SPLIT.marks), list(SPLIT.copies)]
SEALED = TpmSealed(b"\0\x0b" + bytes(32), b"public", b"private", (4, 7))
OF_TPM = [SEALED.parent, b"public", b"private", [4, 7]]


@pytest.mark.parametrize(
    ("split", "sealed_to", "behind"),
    [(None, None, []), (SPLIT, None, [OF_SHARES]), (None, SEALED, [None, OF_TPM])],
    ids=["a secret", "shares", "a TPM"],
)
def test_the_cover_of_a_state_says_what_opens_it_as_its_page_has_it(
    tmp_path: Path, split: Split | None, sealed_to: TpmSealed | None, behind: list[object]
) -> None:
    asked = derivation("security officer", argon2=QUICK)
    so = Verifier(password=KeptPassword.of(material(asked, derive(asked))))
    state = HsmState(label="hsm-a", identity=bytes(range(32)), so=so, domain="domain")
    file = StateFile(tmp_path / "hsm.state", QUICK)
    cover = replace(file.cover("hsm-a", state.identity_public(), split), tpm=sealed_to)
    file.write(state, cover, derive(cover.derivation(b"activation")))

    cover_fields, sealed = cbor2.loads((tmp_path / "hsm.state").read_bytes())
    assert cover_fields[5:] == behind
    key = Argon2id(salt=cover_fields[3], length=32, iterations=1, lanes=1, memory_cost=64).derive(b"activation")
    nonce, ciphertext = cbor2.loads(sealed)
    place = ["lnh-sealed-1", "AES-256-GCM", 0, "state", b"", b"", b"", 0, cbor2.dumps(cover_fields)]
    assert cbor2.loads(AESGCM(key).decrypt(nonce, ciphertext, cbor2.dumps(place)))["label"] == "hsm-a"
    found = file.read()
    assert found is not None
    assert found.cover == cover
