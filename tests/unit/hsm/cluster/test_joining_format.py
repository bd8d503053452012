"""docs/formats/joining.md, read and written by a second, plain implementation."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import re
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lnh_common.messages.hsm import ChannelSeed, SmkGeneration
from lnh_common.messages.store import MemberInfo
from lnh_services.hsm.cluster import join_protocol
from lnh_services.hsm.crypto import argon2

PAGE = (Path(__file__).parents[4] / "docs" / "formats" / "joining.md").read_text()
SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
DOMAIN = "0123456789abcdef0123456789abcdef"
INVITER, JOINER, NONCE, OWN_NONCE = (bytes([number]) * 32 for number in (1, 2, 9, 3))
MEMBER = MemberInfo(id=bytes(range(16)), name="member-b", host="host-b", port=7200, key=bytes(range(32)))
PRODUCT = "0.1.0"


def on_the_page(name: str) -> bytes:
    """A value of the page's test vector."""
    found = re.search(rf"^    {name}((?:\s+[0-9a-f]{{16,}})+)$", PAGE, re.MULTILINE)
    assert found, name
    return bytes.fromhex("".join(found[1].split()))


class Keys:
    """An HSM identity's keys, from its seed."""

    def __init__(self, seed: bytes) -> None:
        def derive(label: bytes, size: int) -> bytes:
            return HKDF(SHA512(), size, None, label).derive(seed)

        self.sign = Ed25519PrivateKey.from_private_bytes(derive(b"lnh hsm identity sign", 32))
        material = derive(b"lnh hsm identity receive", 96)
        ml_kem = MLKEM768PrivateKey.from_seed_bytes(material[:64])
        x25519 = X25519PrivateKey.from_private_bytes(material[64:])
        self.receive = hpke.MLKEM768X25519PrivateKey(ml_kem, x25519)
        self.public = [
            self.sign.public_key().public_bytes_raw(),
            ml_kem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw(),
        ]
        self.digest = hashlib.sha256(cbor2.dumps(self.public)).digest()


@functools.cache
def domain_key() -> bytes:
    return Argon2id(salt=NONCE[:16], length=32, iterations=3, lanes=4, memory_cost=262144).derive(DOMAIN.encode())


def proof(key: bytes) -> bytes:
    member = {"id": MEMBER.id, "name": "member-b", "host": "host-b", "port": 7200, "key": MEMBER.key}
    covered = ["lnh-join-1", "proof", Keys(INVITER).digest, Keys(JOINER).digest, NONCE, OWN_NONCE, member, PRODUCT]
    return hmac.digest(key, cbor2.dumps(covered), "sha256")


def reply_key(key: bytes) -> bytes:
    return HKDF(SHA512(), 32, OWN_NONCE, b"lnh join reply").derive(key)


def test_the_vector_of_the_page_is_what_both_make() -> None:
    occasion = join_protocol.Occasion(NONCE, join_protocol.Identity.of(INVITER))
    assert argon2.derive(occasion.domain_derivation(DOMAIN)) == domain_key() == on_the_page("domain key")
    assert occasion.inviter.digest() == Keys(INVITER).digest == on_the_page("inviting identity")
    assert Keys(JOINER).digest == on_the_page("joining identity")
    request = join_protocol.request(
        occasion, seed=JOINER, nonce=OWN_NONCE, member=MEMBER, product=PRODUCT, domain_key=domain_key()
    )
    assert join_protocol.open_request(occasion, request, INVITER).proof == proof(domain_key()) == on_the_page("proof")
    assert reply_key(domain_key()) == on_the_page("reply key")


def test_an_invitation_is_what_the_page_says() -> None:
    text = join_protocol.Invitation(
        "lnh-invitation-1",
        NONCE,
        bytes(16),
        "prod",
        1_700_000_900,
        "host-a",
        7101,
        bytes(32),
        join_protocol.Identity.of(INVITER),
    ).text()
    first, *lines = text.splitlines()
    assert first == "lnh-invitation-1"
    assert all(len(line) <= 76 for line in lines)
    assert cbor2.loads(base64.b64decode("".join(lines))) == [
        "lnh-invitation-1", NONCE, bytes(16), "prod", 1_700_000_900, "host-a", 7101, bytes(32), Keys(INVITER).public,
    ]  # fmt: skip


def test_a_request_and_its_reply_pass_between_the_two_implementations() -> None:
    key, inviter, joiner = domain_key(), Keys(INVITER), Keys(JOINER)
    request_info = cbor2.dumps(["lnh-join-1", "request", NONCE, inviter.digest])
    theirs = join_protocol.request(
        join_protocol.Occasion(NONCE, join_protocol.Identity.of(INVITER)), seed=JOINER, nonce=OWN_NONCE, member=MEMBER,
        product=PRODUCT, domain_key=key,
    )  # fmt: skip
    member = {"id": MEMBER.id, "name": "member-b", "host": "host-b", "port": 7200, "key": MEMBER.key}
    asking = [joiner.public, OWN_NONCE, member, PRODUCT, proof(key)]
    assert cbor2.loads(SUITE.decrypt(theirs, inviter.receive, request_info)) == asking

    ours = SUITE.encrypt(cbor2.dumps(asking), inviter.receive.public_key(), request_info)
    occasion = join_protocol.Occasion(NONCE, join_protocol.Identity.of(INVITER))
    asker = join_protocol.open_request(occasion, ours, INVITER)
    asker.check_proof(occasion, key)
    bundle = join_protocol.Bundle(
        cluster=bytes(16), label="prod", identity=bytes([4]) * 32,
        smk=(SmkGeneration(generation=1, key=bytes([5]) * 32),),
        channel=(ChannelSeed(epoch=3, seed=bytes([6]) * 32, end=1_700_090_000),), members=(MEMBER,),
    )  # fmt: skip
    reply = join_protocol.reply(ours, asker, bundle, seed=INVITER, domain_key=key)
    form, sealed, signature = cbor2.loads(reply)
    transcript = hashlib.sha256(ours).digest()
    Ed25519PublicKey.from_public_bytes(inviter.public[0]).verify(
        signature, cbor2.dumps([form, "reply", transcript, sealed])
    )
    inner: Any = SUITE.decrypt(sealed, joiner.receive, cbor2.dumps(["lnh-join-1", "reply", transcript]))
    cluster, box = cbor2.loads(inner)
    nonce, ciphertext = cbor2.loads(box)
    associated = cbor2.dumps(["lnh-sealed-1", "AES-256-GCM", 0, "joining", cluster, b"", b"", 0, transcript])
    assert cbor2.loads(AESGCM(reply_key(key)).decrypt(nonce, ciphertext, associated)) == {
        "cluster": bytes(16), "label": "prod", "identity": bytes([4]) * 32,
        "smk": [{"generation": 1, "key": bytes([5]) * 32}],
        "channel": [{"epoch": 3, "seed": bytes([6]) * 32, "end": 1_700_090_000}], "members": [member],
    }  # fmt: skip
