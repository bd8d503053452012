"""Shares of a secret: docs/formats/shares.md by a second implementation, what opens it, and what is mistyped."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from itertools import combinations
from math import comb
from pathlib import Path

import cbor2
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, SealBroken
from lnh_common.wire.shares import Share, Split
from lnh_services.hsm.crypto import shares

PAGE = (Path(__file__).parents[4] / "docs" / "formats" / "shares.md").read_text()
SET, SECRET, NONCE = bytes.fromhex("0a0b0c0d"), b"\x09" * 32, b"\x04" * 12
HANDED = [Share(SET, 2, 3, number, bytes([number]) * 32) for number in (1, 2, 3)]


def on_the_page(name: str) -> bytes:
    found = re.search(rf"^    {name}((?:\s+[0-9a-f]{{16,}})+)$", PAGE, re.MULTILINE)
    assert found, name
    return bytes.fromhex("".join(found[1].split()))


def key(numbers: list[int]) -> tuple[bytes, bytes]:
    """The key of a subset of HANDED, and the associated data of its copy."""
    info = cbor2.dumps(["lnh-shares-1", SET, 2, 3, numbers])
    place = ["lnh-sealed-1", "AES-256-GCM", 0, "shared-secret", b"", b"", b"", 0, info]
    together = b"".join(bytes([number]) * 32 for number in numbers)
    return HKDF(SHA512(), 32, None, info).derive(together), cbor2.dumps(place)


def copy(numbers: list[int]) -> bytes:
    with_key, associated = key(numbers)
    return cbor2.dumps([NONCE, AESGCM(with_key).encrypt(NONCE, SECRET, associated)])


def mark(number: int) -> bytes:
    return hashlib.sha256(cbor2.dumps(["lnh-shares-1", "mark", SET, number, bytes([number]) * 32])).digest()[:16]


def spelt(number: int) -> list[str]:
    data = bytes.fromhex("01") + SET + bytes([0x23, number, 0]) + bytes([number]) * 32
    lines = []
    for line in range(5):
        part = data[line * 8 : line * 8 + 8]
        text = base64.b32encode(part + hashlib.sha256(b"lnh-share-1" + bytes([line]) + part).digest()[:2]).decode()
        lines.append(" ".join(text[at : at + 4] for at in range(0, 16, 4)))
    return lines


PARTS = Split(SET, 2, 3, tuple(map(mark, (1, 2, 3))), tuple(copy(list(each)) for each in combinations((1, 2, 3), 2)))


def test_both_implementations_make_what_the_page_says() -> None:
    assert key([1, 3])[0] == shares._key([HANDED[0], HANDED[2]]) == on_the_page("key of 1 and 3")
    assert mark(2) == shares._mark(HANDED[1]) == on_the_page("mark of 2")
    assert copy([1, 3]) == PARTS.copies[1] == on_the_page("copy for 1 and 3")
    assert spelt(2) == HANDED[1].text().splitlines()[1:]
    assert "\n".join(f"    {line}" for line in HANDED[1].text().splitlines()) in PAGE
    for subset in combinations(HANDED, 2):
        assert shares.combined(PARTS, subset) == SECRET


numbers = st.integers(2, 8).flatmap(lambda count: st.tuples(st.integers(2, count), st.just(count)))


@given(numbers, st.data())
def test_any_that_are_enough_open_it_and_fewer_do_not(wanted: tuple[int, int], data: st.DataObject) -> None:
    threshold, count = wanted
    parts, handed = shares.split(SECRET, threshold, count, os.urandom)
    assert len(parts.copies) == comb(count, threshold) <= limits.SHARES_COPIES
    given = data.draw(st.permutations(handed))[: data.draw(st.integers(0, count))]
    if len(given) >= threshold:
        assert shares.combined(parts, given) == SECRET
    else:
        with pytest.raises(ArgumentInvalid, match=f"{len(given)} different shares; {threshold} open it"):
            shares.combined(parts, [*given, *given])


@pytest.mark.parametrize(("threshold", "count"), [(1, 3), (0, 0), (4, 3), (2, 9), (-1, 2)])
def test_other_numbers_are_refused(threshold: int, count: int) -> None:
    with pytest.raises(ArgumentInvalid, match="at least 2 open it, and there are at most 8"):
        shares.split(SECRET, threshold, count, os.urandom)


def test_no_copy_opens_with_fewer_shares_than_it_needs() -> None:
    """By the second implementation, which is not kept by any check of numbers."""
    for numbers in ([1], [2], [3], []):
        with_key, _ = key(numbers)
        for subset, sealed in zip(combinations((1, 2, 3), 2), PARTS.copies, strict=True):
            nonce, ciphertext = cbor2.loads(sealed)
            _, associated = key(list(subset))
            with pytest.raises(InvalidTag):
                AESGCM(with_key).decrypt(nonce, ciphertext, associated)


def test_a_wrong_share_is_named() -> None:
    other = replace(PARTS, set=bytes(4))
    with pytest.raises(ArgumentInvalid, match="share 1 is of set 0a0b0c0d"):
        shares.combined(other, HANDED)
    changed = Share(SET, 2, 3, 2, bytes(32))
    with pytest.raises(ArgumentInvalid, match="share 2 is not the one that was handed out"):
        shares.combined(PARTS, [HANDED[0], changed])
    with pytest.raises(ArgumentInvalid, match="share 3 is of set"):
        shares.combined(PARTS, [HANDED[0], Share(SET, 3, 3, 3, bytes([3]) * 32)])


def test_a_split_that_was_changed_is_broken() -> None:
    with pytest.raises(SealBroken):
        shares.combined(replace(PARTS, copies=PARTS.copies[::-1]), [HANDED[0], HANDED[1]])
    with pytest.raises(SealBroken, match="a copy of the secret is missing"):
        shares.combined(replace(PARTS, copies=PARTS.copies[:1]), HANDED)


@given(st.binary(min_size=32, max_size=32), st.booleans(), st.sampled_from(["", " ", "-"]))
def test_a_share_is_read_as_it_may_be_typed(secret: bytes, lower: bool, between: str) -> None:
    share = Share(SET, 3, 5, 4, secret)
    assert Share.parse(share.text()) == share
    typed = between.join("".join(share.text().splitlines()[1:]).split())
    typed = typed.lower() if lower else typed.replace("O", "0").replace("I", "1").replace("B", "8")
    assert Share.parse(typed) == share


@given(st.data())
def test_a_line_that_was_mistyped_is_named(data: st.DataObject) -> None:
    head, *lines = HANDED[0].text().splitlines()
    at = data.draw(st.integers(0, 4))
    place = data.draw(st.integers(0, 15))
    letters = lines[at].replace(" ", "")
    other = data.draw(st.sampled_from([each for each in "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" if each != letters[place]]))
    lines[at] = letters[:place] + other + letters[place + 1 :]
    with pytest.raises(ArgumentInvalid, match=f"line {at + 1} of the share"):
        Share.parse("\n".join([head, *lines]))


@given(st.permutations(range(5)).filter(lambda order: order != list(range(5))))
def test_lines_that_were_exchanged_are_noticed(order: list[int]) -> None:
    data = [bytes([number]) * 8 for number in range(5)]
    share = Share(data[0][1:5], 2, 3, 1, b"".join(data[1:]))
    lines = share.text().splitlines()[1:]
    with pytest.raises(ArgumentInvalid, match="of the share is not as it was written"):
        Share.parse("\n".join(lines[at] for at in order))


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "80 letters and digits; this has 0"), ("AAAA", "this has 4"), ("# only a remark", "this has 0")],
)
def test_what_is_no_share_is_told(text: str, told: str) -> None:
    with pytest.raises(ArgumentInvalid, match=told):
        Share.parse(text)


def test_a_later_format_and_impossible_numbers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentInvalid, match="says it is 4 of 3"):
        Share.parse(Share(SET, 2, 3, 4, bytes(32)).text())
    monkeypatch.setattr("lnh_common.wire.shares._FORMAT", 2)
    later = HANDED[0].text()
    monkeypatch.undo()
    with pytest.raises(ArgumentInvalid, match="format 2; this version reads 1"):
        Share.parse(later)
