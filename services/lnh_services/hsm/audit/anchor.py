"""Keeps the newest signed head of a member's audit trail in the cluster's replicated log.

Lines that were anchored cannot be cut off the trail or replaced without every member's store being changed too. The
item is no security record: the head's own signature says whose it is. Pure.
"""

from __future__ import annotations

import secrets
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lnh_common.errors import MalformedMessage, SealBroken
from lnh_common.messages.store import Commit, Item, Key, Put
from lnh_common.wire import codec
from lnh_common.wire.audit import HeadLine

TABLE: Final = "audit"


def key_of(member: bytes) -> Key:
    """Return the key of the item that anchors a member's trail."""
    return Key(table=TABLE, id=member)


def commit(head: HeadLine, member: bytes, kept: Item | None, now: int) -> Commit:
    """Make the commit that anchors `head`.

    Args:
        kept: the item there is now.
        now: UTC milliseconds.
    """
    put = Put(key=key_of(member), expected=kept.version if kept else 0, head=codec.encode(head))
    return Commit(client=member, session=secrets.token_bytes(16), sequence=1, issued_at=now, changes=(put,))


def read(item: Item, public: bytes) -> HeadLine:
    """Read the anchored head; raises SealBroken unless the HSM with this identity (32 bytes) signed it."""
    try:
        head = codec.decode_as(item.head, HeadLine)
        if head.signer == public.hex():
            Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(head.signature), head.signed())
            return head
    except (MalformedMessage, InvalidSignature, ValueError):
        pass
    raise SealBroken("the anchored head of this member's audit trail is not signed by this HSM")
