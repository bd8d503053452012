"""Splits a secret among holders, so that any M of N open it together and fewer learn nothing. Pure.

    share   32 random bytes, one a holder
    key     HKDF-SHA-512(the shares of one M-subset, by number)   for each subset
    copy    AES-256-GCM(key, secret)

There is no field arithmetic: the secret is sealed once for each subset, which for N up to 8 is at most 70 times.
Whoever lacks one share of a subset lacks 256 bits of its key. docs/formats/shares.md is exact, with a test vector.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from math import comb
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lnh_common.errors import ArgumentInvalid, SealBroken
from lnh_common.wire import codec
from lnh_common.wire.shares import MARK_BYTES, SET_BYTES, SHARE_BYTES, Share, Split, check_numbers
from lnh_services.hsm.crypto.key_hierarchy import KEY_BYTES
from lnh_services.hsm.crypto.sealing import Kind, Place, seal, unseal

FORMAT: Final = "lnh-shares-1"


def split(secret: bytes, threshold: int, count: int, draw: Callable[[int], bytes]) -> tuple[Split, list[Share]]:
    """Split a secret; raises ArgumentInvalid for numbers that are not allowed.

    Args:
        threshold, count: so many of so many shares open it.
        draw: makes so many random bytes.
    """
    check_numbers(threshold, count)
    name = draw(SET_BYTES)
    shares = [Share(name, threshold, count, index, draw(SHARE_BYTES)) for index in range(1, count + 1)]
    copies = tuple(seal(_key(subset), secret, _place(subset)) for subset in combinations(shares, threshold))
    return Split(name, threshold, count, tuple(map(_mark, shares)), copies), shares


def combined(parts: Split, given: Iterable[Share]) -> bytes:
    """Open a secret with shares of it; more than are needed do no harm.

    Raises ArgumentInvalid for shares of something else, changed ones, and too few. Raises SealBroken for a split that
    was changed.
    """
    known: dict[int, Share] = {}
    for share in given:
        if (share.set, share.threshold, share.count) != (parts.set, parts.threshold, parts.count):
            raise ArgumentInvalid(
                f"share {share.index} is of set {share.set.hex()}; those of {parts.set.hex()} open it"
            )
        if share.index > len(parts.marks) or not hmac.compare_digest(_mark(share), parts.marks[share.index - 1]):
            raise ArgumentInvalid(f"share {share.index} is not the one that was handed out")
        known[share.index] = share
    if len(known) < parts.threshold:
        raise ArgumentInvalid(f"{len(known)} different shares; {parts.threshold} open it")
    subset = [known[index] for index in sorted(known)][: parts.threshold]
    if len(parts.copies) != comb(parts.count, parts.threshold):
        raise SealBroken("what the shares open is damaged: a copy of the secret is missing")
    numbers = tuple(share.index for share in subset)
    number = list(combinations(range(1, parts.count + 1), parts.threshold)).index(numbers)
    return unseal(_key(subset), parts.copies[number], _place(subset))


def _key(subset: Sequence[Share]) -> bytes:
    return HKDF(hashes.SHA512(), KEY_BYTES, None, _info(subset)).derive(b"".join(share.secret for share in subset))


def _place(subset: Sequence[Share]) -> Place:
    return Place(Kind.SHARED_SECRET, extra=_info(subset))


def _info(subset: Sequence[Share]) -> bytes:
    return codec.encode([FORMAT, subset[0].set, subset[0].threshold, subset[0].count, [each.index for each in subset]])


def _mark(share: Share) -> bytes:
    covered = codec.encode([FORMAT, "mark", share.set, share.index, share.secret])
    return hashlib.sha256(covered).digest()[:MARK_BYTES]
