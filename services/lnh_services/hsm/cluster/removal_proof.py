"""Builds and checks the proof (the dismissal) that an administrator removed a member. Pure.

A member wipes its SMK only when it holds one; without it, a peer could at most make it stop serving. Member ids are
used once, so a dismissal cannot be used twice.

    dismissal = HMAC-SHA-256(record key, CBOR ["lnh-dismissal-1", cluster, member])
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final

from lnh_common.messages.store import Key, Put
from lnh_common.wire import codec
from lnh_services.hsm.crypto.key_hierarchy import Purpose

TABLE: Final = "dismissal"
_FORMAT: Final = "lnh-dismissal-1"


def dismissal(smk: bytes, cluster: bytes, member: bytes) -> bytes:
    """Make the dismissal of `member`, under one generation of the SMK (32 bytes)."""
    return hmac.digest(Purpose.RECORD.derive(smk), codec.encode([_FORMAT, cluster, member]), "sha256")


def is_dismissed(smks: Iterable[bytes], cluster: bytes, member: bytes, proof: bytes) -> bool:
    """Tell whether `proof` dismisses the member, under any of these generations."""
    return any(hmac.compare_digest(dismissal(smk, cluster, member), proof) for smk in smks)


def key(member: bytes) -> Key:
    """Return the key of the item that keeps a dismissal for a member that could not be told.

    Any other member passes it on.
    """
    return Key(table=TABLE, id=member)


def put(member: bytes, proof: bytes) -> Put:
    """Make the change that keeps a dismissal."""
    return Put(key=key(member), expected=0, head=proof)
