"""The backup of the SMK: docs/formats/smk-backup.md by a second implementation, and what opens it."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lnh_common.errors import ArgumentInvalid, PasswordIncorrect, SealBroken
from lnh_common.messages.hsm import SmkGeneration
from lnh_common.wire.smk_backups import SmkBackup
from lnh_services.hsm.cluster import smk_backup
from lnh_services.hsm.cluster.smk_backup import Contents
from lnh_services.hsm.crypto import argon2
from lnh_services.hsm.crypto.sealing import seal

PAGE = (Path(__file__).parents[4] / "docs" / "formats" / "smk-backup.md").read_text()
ID, SALT, NONCE, CLUSTER, IDENTITY, FIRST, SECOND = (
    bytes([number]) * size for number, size in enumerate((16, 16, 12, 16, 32, 32, 32), 1)
)
PASSPHRASE, DOMAIN, MADE = "correct horse", "0123456789abcdef", 1_700_000_000
CONTENTS = Contents(
    cluster=CLUSTER,
    label="prod",
    identity=IDENTITY,
    smk=(SmkGeneration(generation=1, key=FIRST), SmkGeneration(generation=2, key=SECOND)),
    epoch=9,
)
COVER = smk_backup.new_cover(CONTENTS, ID, SALT, (64, 1, 1), MADE)
KEY = argon2.derive(smk_backup.derivation(COVER, PASSPHRASE.encode(), DOMAIN))
BACKUP = smk_backup.sealed(CONTENTS, COVER, KEY)


def on_the_page(name: str) -> bytes:
    found = re.search(rf"^    {name} +([0-9a-f]{{16,}})$", PAGE, re.MULTILINE)
    assert found, name
    return bytes.fromhex(found[1])


def check(smk: bytes) -> bytes:
    return HKDF(SHA512(), 32, None, b"lnh smk check").derive(smk)[:8]


def theirs() -> tuple[list[object], bytes, bytes]:
    """Cover, key and associated data by the page alone."""
    generations = [[1, check(FIRST)], [2, check(SECOND)]]
    cover: list[object] = ["lnh-smk-backup-1", ID, CLUSTER, "prod", MADE, generations, SALT, [64, 1, 1], None]
    password = cbor2.dumps([PASSPHRASE.encode(), DOMAIN.encode()])
    key = Argon2id(salt=SALT, length=32, iterations=1, lanes=1, memory_cost=64).derive(password)
    place = ["lnh-sealed-1", "AES-256-GCM", 0, "smk-backup", CLUSTER, b"", ID, 0, cbor2.dumps(cover)]
    return cover, key, cbor2.dumps(place)


def test_both_implementations_make_what_the_page_says() -> None:
    cover, key, associated = theirs()
    plain = cbor2.dumps(
        {
            "cluster": CLUSTER, "label": "prod", "identity": IDENTITY,
            "smk": [{"generation": 1, "key": FIRST}, {"generation": 2, "key": SECOND}], "epoch": 9,
        }
    )  # fmt: skip
    box = cbor2.dumps([NONCE, AESGCM(key).encrypt(NONCE, plain, associated)])
    packed = cbor2.dumps([cover, box])
    assert COVER.encoded() == cbor2.dumps(cover)
    assert key == KEY == on_the_page("key")
    assert check(FIRST) == smk_backup.check_value(FIRST) == on_the_page("check of generation 1")
    assert hashlib.sha256(cbor2.dumps(cover)).digest() == on_the_page("SHA-256 of the cover")
    assert hashlib.sha256(plain).digest() == on_the_page("SHA-256 of the contents")
    assert hashlib.sha256(packed).digest() == on_the_page("SHA-256 of the packed")
    text = "lnh-smk-backup-1\n" + base64.encodebytes(packed).decode()
    assert SmkBackup.parse(text).text() == text
    assert smk_backup.opened(SmkBackup.parse(text), KEY) == CONTENTS


def test_the_second_implementation_opens_ours() -> None:
    _, key, associated = theirs()
    first, *lines = BACKUP.text().splitlines()
    assert first == "lnh-smk-backup-1"
    assert all(len(line) <= 76 for line in lines)
    _, box = cbor2.loads(base64.b64decode("".join(lines)))
    nonce, ciphertext = cbor2.loads(box)
    assert cbor2.loads(AESGCM(key).decrypt(nonce, ciphertext, associated))["smk"][1] == {"generation": 2, "key": SECOND}


words = st.text(min_size=0, max_size=12)


@given(words, words)
def test_it_opens_with_its_passphrase_and_domain_together_alone(passphrase: str, domain: str) -> None:
    derive = smk_backup.derivation(COVER, passphrase.encode(), domain)
    right = smk_backup.derivation(COVER, PASSPHRASE.encode(), DOMAIN)
    assert (derive.password == right.password) == ((passphrase, domain) == (PASSPHRASE, DOMAIN))


@pytest.mark.parametrize(
    ("passphrase", "domain"), [("correct horsf", DOMAIN), (PASSPHRASE, "0123"), (PASSPHRASE + DOMAIN, "")]
)
def test_a_wrong_secret_is_told_as_one(passphrase: str, domain: str) -> None:
    key = argon2.derive(smk_backup.derivation(COVER, passphrase.encode(), domain))
    with pytest.raises(PasswordIncorrect, match=r"passphrase.*cloning domain"):
        smk_backup.opened(BACKUP, key)


@given(st.data())
def test_what_was_changed_opens_nothing(data: st.DataObject) -> None:
    packed = bytearray(base64.b64decode("".join(BACKUP.text().splitlines()[1:])))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    text = "lnh-smk-backup-1\n" + base64.b64encode(packed).decode()
    with pytest.raises((ArgumentInvalid, PasswordIncorrect)):
        smk_backup.opened(SmkBackup.parse(text), KEY)


@pytest.mark.parametrize(
    "other",
    [
        replace(CONTENTS, label="other"),
        replace(CONTENTS, cluster=bytes(16)),
        replace(CONTENTS, smk=CONTENTS.smk[:1]),
    ],
)
def test_contents_that_are_not_what_the_cover_says_are_refused(other: Contents) -> None:
    with pytest.raises(SealBroken, match="cover"):
        smk_backup.opened(smk_backup.sealed(other, COVER, KEY), KEY)


def test_contents_of_another_form_are_refused() -> None:
    with pytest.raises(SealBroken, match="not of this version"):
        smk_backup.opened(SmkBackup(COVER, seal(KEY, b"\xa0", smk_backup._place(COVER))), KEY)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a backup"),
        ("lnh-invitation-1\nAAAA", "not a backup"),
        ("lnh-smk-backup-1", "damaged"),
        ("lnh-smk-backup-1\n???", "damaged"),
        ("\n".join(BACKUP.text().splitlines()[:-1]), "damaged"),
    ],
)
def test_a_file_that_is_no_backup_is_told(text: str, told: str) -> None:
    with pytest.raises(ArgumentInvalid, match=told):
        SmkBackup.parse(text)


def test_a_later_format_is_named() -> None:
    later = SmkBackup(replace(COVER, format="lnh-smk-backup-2"), b"")
    with pytest.raises(ArgumentInvalid, match="lnh-smk-backup-2"):
        SmkBackup.parse(later.text())


@given(st.integers(-(10**6), 10**9))
def test_the_epoch_after_a_restore_is_above_all_that_was_offered(later: int) -> None:
    epoch = smk_backup.following_epoch(CONTENTS, COVER, MADE + later)
    assert epoch >= CONTENTS.epoch + max(0, later)
