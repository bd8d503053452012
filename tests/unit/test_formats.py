"""docs/formats.md and its vectors: a second implementation makes each, and the product makes or opens each."""

from __future__ import annotations

import hashlib

import cbor2
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lnh_common import errors
from lnh_common.messages.session import Role
from lnh_common.messages.store import Item
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.wire import channel, codec, frames
from lnh_common.wire.channel import Envelope, SessionKeys, Statement
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.auth.credentials import Material, Smk
from lnh_services.hsm.auth.tokens import Grant, Token, open_token, seal_token, token_epoch
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.crypto.sealing import Kind, Place, seal, unseal
from lnh_services.hsm.objects.stored import KeyringKeys
from lnh_services.hsm.records import CredentialRecord, LogoutRecord, Records, record_id
from models import formats

A = Attribute
GIVEN = formats.read(formats.PAGE.read_text())
HEADER = frames.request(formats.OPERATION, formats.REQUEST_ID, formats.DEADLINE_MS, route=GIVEN["KEYRING"])
KEYS = SessionKeys.derive(GIVEN["S"], GIVEN["token"])
SMK = Smk(formats.GENERATION, GIVEN["SMK"])


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_the_second_implementation_makes_what_the_page_says(name: str) -> None:
    assert formats.computed(GIVEN)[name].hex() == GIVEN[name].hex()


def test_the_page_is_written_anew_from_its_inputs() -> None:
    page = formats.PAGE.read_text()
    wrong = {name: value if name.isupper() else b"\0" for name, value in GIVEN.items()}
    again = formats.read(formats.rewritten(page, formats.computed(wrong)))
    random = {"credential message", "sealed keyring key"}
    assert {name: again[name] for name in again if name not in random} == {
        name: GIVEN[name] for name in GIVEN if name not in random
    }
    assert formats.rewritten(page, GIVEN) == page


SECRETS = {
    "channel seed": ("CHANNEL SEED", [Purpose.CHANNEL, Purpose.TOKEN]),
    "SMK": ("SMK", [Purpose.RECORD, Purpose.BACKUP, Purpose.KEYRING, Purpose.VERIFIER, Purpose.CHECK]),
    "keyring key": (
        "KEYRING KEY",
        [
            Purpose.ATTRIBUTES,
            Purpose.VALUE,
            Purpose.SESSION_OBJECT,
            Purpose.INDEX,
            Purpose.BEFORE,
        ],
    ),
    "credential": ("ARGON2ID", [Purpose.VERIFY, Purpose.CREDENTIAL]),
    "HSM identity": ("HSM IDENTITY", [Purpose.HSM_SIGN, Purpose.HSM_RECEIVE]),
}


def test_every_purpose_derives_the_key_of_the_page() -> None:
    seen = set()
    for secret, purposes in SECRETS.values():
        for purpose in purposes:
            seen.add(purpose)
            assert purpose.derive(GIVEN[secret]).hex() == GIVEN[purpose.value[0]].hex()
    assert seen == set(Purpose)


def test_the_channel_key_and_the_sessions_keys_are_the_pages() -> None:
    public = channel.channel_public_bytes(GIVEN["lnh channel key pair"])
    assert hashlib.sha256(public).digest() == GIVEN["SHA-256 of the channel key"]
    assert (KEYS.request, KEYS.reply) == (GIVEN["lnh channel request"], GIVEN["lnh channel reply"])


def test_the_header_is_packed_as_the_page_says() -> None:
    assert HEADER.pack() == GIVEN["header"]
    assert frames.Header.parse(GIVEN["header"]) == HEADER


def token() -> Token:
    grant = Grant(Role.KRCO, "", GIVEN["KEYRING"], GIVEN["CREDENTIAL"])
    return Token(
        GIVEN["S"], GIVEN["SESSION"], formats.LOGIN_AT, formats.EXPIRES, GIVEN["CLIENT"], (grant,),
        GIVEN["KEYRING KEY"], GIVEN["INSTANCE"],
    )  # fmt: skip


def test_the_token_opens_and_ours_opens_as_the_page_says() -> None:
    epoch, sealed = token_epoch(GIVEN["token"])
    assert open_token(sealed, GIVEN["CLUSTER"], epoch, GIVEN["CHANNEL SEED"]) == token()
    ours = seal_token(token(), GIVEN["CLUSTER"], formats.EPOCH, GIVEN["CHANNEL SEED"])
    where = formats.place(0, "token", GIVEN["CLUSTER"], b"", b"", formats.EPOCH)
    key = GIVEN["lnh session token"]
    assert formats.unsealed(key, cbor2.loads(ours)[1], where) == formats.unsealed(key, sealed, where)


def test_a_request_opens_and_ours_opens_as_the_page_says() -> None:
    envelope = Envelope(formats.ISSUED_AT, formats.DEADLINE_MS, GIVEN["CONNECTION"], 0, formats.REQUEST_FIELDS)
    assert channel.open_request(KEYS, HEADER, GIVEN["request"]) == envelope
    ours = channel.seal_request(KEYS, HEADER, envelope)
    data = GIVEN["request associated data"]
    assert formats.opened_message(GIVEN["lnh channel request"], ours, data) == GIVEN["request plaintext"]


def test_an_answer_opens_and_ours_opens_as_the_page_says() -> None:
    assert channel.open_answer(KEYS, HEADER, GIVEN["request"], GIVEN["reply"]) == formats.REPLY_FIELDS
    error = channel.open_answer(KEYS, HEADER, GIVEN["request"], GIVEN["error"])
    assert isinstance(error, errors.ObjectUnknown)
    assert error.to_wire() == formats.ERROR
    for value, plaintext in ((formats.REPLY_FIELDS, [0, formats.REPLY_FIELDS]), (error, formats.ERROR)):
        ours = channel.seal_reply(KEYS, HEADER, GIVEN["request"], value)
        data = GIVEN["reply associated data"]
        assert cbor2.loads(formats.opened_message(GIVEN["lnh channel reply"], ours, data)) == plaintext


def statement() -> Statement:
    public = channel.channel_public_bytes(GIVEN["lnh channel key pair"])
    return Statement(
        channel.FORMAT, GIVEN["CLUSTER"], "prod", formats.EPOCH, public, formats.END, GIVEN["MEMBER"],
        GIVEN["MEMBER KEY"],
    )  # fmt: skip


def test_the_statement_is_signed_as_the_page_says() -> None:
    identity = Ed25519PrivateKey.from_private_bytes(GIVEN["CLUSTER IDENTITY"])
    encoded, signature = statement().sign(identity)
    assert hashlib.sha256(encoded).digest() == GIVEN["SHA-256 of the statement"]
    assert signature == GIVEN["statement signature"]
    assert Statement.verify(encoded, signature, identity.public_key().public_bytes_raw()) == statement()


def test_a_credential_message_opens_and_ours_opens_as_the_page_says() -> None:
    header = frames.request(formats.LOGIN, formats.LOGIN_ID, formats.DEADLINE_MS)
    private = channel.channel_private_key(GIVEN["lnh channel key pair"])
    opened = channel.open_credential(header, GIVEN["credential message"], GIVEN["CLUSTER"], private)
    client = Ed25519PrivateKey.from_private_bytes(GIVEN["CLIENT SIGNATURE KEY"])
    opened.check_signature(client.public_key().public_bytes_raw())
    assert (opened.secret, opened.nonce, opened.client) == (GIVEN["S"], GIVEN["SESSION"], GIVEN["CLIENT"])
    assert opened.envelope.fields == formats.LOGIN_FIELDS
    ours = channel.seal_credential(header, opened.envelope, statement(), GIVEN["S"], GIVEN["CLIENT"], client)
    plaintext, signature = cbor2.loads(formats.SUITE.decrypt(ours[8:], private, GIVEN["credential info"]))
    client.public_key().verify(signature, GIVEN["credential info"] + plaintext)
    secret, nonce, *rest = cbor2.loads(plaintext)
    held_secret, held_nonce, *held = cbor2.loads(GIVEN["credential plaintext"])
    assert (ours[:8], secret, rest) == (formats.EPOCH.to_bytes(8, "big"), held_secret, held)
    assert len(nonce) == len(held_nonce)


def test_a_sealed_thing_opens_and_ours_opens_as_the_page_says() -> None:
    where = Place(Kind.VERIFIER, formats.GENERATION, GIVEN["CLUSTER"], GIVEN["KEYRING"], GIVEN["CREDENTIAL"])
    assert where.associated() == GIVEN["verifier associated data"]
    key, verifier = GIVEN["lnh verifier"], GIVEN["lnh credential verify"]
    assert unseal(key, GIVEN["sealed verifier"], where) == verifier
    assert formats.unsealed(key, seal(key, verifier, where), GIVEN["verifier associated data"]) == verifier


def test_the_pages_credential_gives_the_keyring_key_and_ours_opens_as_it_says() -> None:
    record = CredentialRecord(
        role=Role.KRCO, name="", keyring=GIVEN["KEYRING"], id=GIVEN["CREDENTIAL"], argon2=(8, 1, 1), salt=bytes(16),
        verifier=GIVEN["sealed verifier"], public=channel.channel_public_bytes(GIVEN["lnh credential key pair"]),
        must_change=False, keyring_key=GIVEN["sealed keyring key"], generation=formats.GENERATION, changed_at=0,
    )  # fmt: skip
    assert credentials.is_correct(record, GIVEN["ARGON2ID"], SMK, GIVEN["CLUSTER"])
    assert credentials.keyring_key(record, GIVEN["ARGON2ID"], SMK, GIVEN["CLUSTER"]) == GIVEN["KEYRING KEY"]
    ours = credentials.new_record(
        Material(record.argon2, record.salt, GIVEN["lnh credential verify"], record.public), role=Role.KRCO, smk=SMK,
        cluster=GIVEN["CLUSTER"], now=0, keyring=GIVEN["KEYRING"], keyring_key=GIVEN["KEYRING KEY"],
    )  # fmt: skip
    where = formats.place(formats.GENERATION, "keyring-key", GIVEN["CLUSTER"], GIVEN["KEYRING"], ours.id, 0)
    inner = formats.unsealed(GIVEN["lnh keyring"], ours.keyring_key, where)
    info = cbor2.dumps(["lnh-keyring-key-1", GIVEN["CLUSTER"], GIVEN["KEYRING"], ours.id])
    assert formats.opens(formats.key_pair(GIVEN["lnh credential key pair"])[0], inner, info, GIVEN["KEYRING KEY"])


def test_a_record_is_written_and_read_as_the_page_says() -> None:
    records = Records(GIVEN["lnh record"], GIVEN["CLUSTER"], GIVEN["INSTANCE"])
    record = LogoutRecord(**formats.RECORD)
    put = records.put(record, GIVEN["SESSION"], formats.VERSION - 1, unique="payments")
    assert (put.head, put.body, put.tags) == (GIVEN["record"], GIVEN["record MAC"], (GIVEN["name tag"],))
    item = Item(key=put.key, version=formats.VERSION, head=GIVEN["record"], body=GIVEN["record MAC"])
    assert records.read(LogoutRecord, item) == record
    with pytest.raises(errors.SealBroken):
        records.read(LogoutRecord, msgspec.structs.replace(item, version=formats.VERSION + 1))
    assert record_id("user", "admin") == GIVEN["id of user admin"]


def test_an_object_opens_and_ours_opens_as_the_page_says() -> None:
    keys = KeyringKeys.derive(GIVEN["KEYRING KEY"], GIVEN["CLUSTER"], GIVEN["KEYRING"])
    attributes = {A.CLASS: ObjectClass.SECRET_KEY, A.KEY_TYPE: KeyType.AES, A.LABEL: "payments", A.ID: b"\x01"}
    handle, version = GIVEN["HANDLE"], formats.VERSION
    item = Item(key=keys.key(handle), version=version, head=GIVEN["object head"], body=GIVEN["object body"])
    assert keys.read_attributes(item) == attributes
    assert keys.read_value(item) == GIVEN["VALUE"]
    put = keys.put(handle, version - 1, attributes, GIVEN["VALUE"])
    assert put.tags == tuple(GIVEN[f"tag {name}"] for name in ("LABEL", "ID", "CLASS", "KEY_TYPE"))
    place = GIVEN["CLUSTER"], GIVEN["KEYRING"], handle, version
    head = formats.unsealed(GIVEN["lnh object attributes"], put.head, formats.place(0, "attributes", *place))
    assert cbor2.loads(head) == formats.ATTRIBUTES
    bound = formats.place(0, "value", *place, hashlib.sha256(put.head).digest())
    assert formats.unsealed(GIVEN["lnh object value"], put.body, bound) == GIVEN["VALUE"]
    assert codec.decode(head) == formats.ATTRIBUTES
