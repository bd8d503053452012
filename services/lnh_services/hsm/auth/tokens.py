"""Session tokens: everything a member needs to serve a session, sealed, carried by the client.

Any member opens any token, so a session outlives members. The key comes from the channel seed; a token names the epoch
it was sealed in. The content of a token is checked against the records when a worker first sees it (`worker/core.py`)
and again when one of them changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from lnh_common.errors import MalformedMessage, SealBroken, TokenUnknown
from lnh_common.messages.session import Role
from lnh_common.messages.store import Change, Require
from lnh_common.wire import codec
from lnh_common.wire.channel import SessionKeys
from lnh_services.hsm.auth.permissions import Holder
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.crypto.sealing import Kind, Place, seal, unseal
from lnh_services.hsm.objects.stored import KeyringKeys
from lnh_services.hsm.records import KeyringRecord, Records


class Grant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One credential that the session was opened with: `credential` is the id it had."""

    role: Role
    name: str
    keyring: bytes
    credential: bytes


class Token(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The content of a token.

    Args:
        secret: S of the channel, 32 bytes.
        session: 16 random bytes, the same through renewals.
        login_at, expires: UTC seconds.
        client: the registered client's 16-byte id, or empty.
        keyring_key: 32 bytes, or empty where no keyring role logged in.
        instance: of the cluster, when it was issued (`records.session_instance`).
    """

    secret: bytes
    session: bytes
    login_at: int
    expires: int
    client: bytes
    grants: tuple[Grant, ...]
    keyring_key: bytes
    instance: bytes

    def __repr__(self) -> str:
        return "Token(redacted)"


def seal_token(token: Token, cluster: bytes, epoch: int, seed: bytes) -> bytes:
    """Seal a token into the opaque bytes that a client carries."""
    place = Place(Kind.TOKEN, cluster=cluster, version=epoch)
    return codec.encode(
        [
            epoch,
            seal(Purpose.TOKEN.derive(seed), codec.encode(msgspec.to_builtins(token, builtin_types=(bytes,))), place),
        ]
    )


def token_epoch(token: bytes) -> tuple[int, bytes]:
    """Read the channel epoch that a token was sealed in, and return it with the sealed part; raises TokenUnknown."""
    try:
        epoch, sealed = codec.decode_as(token, tuple[int, bytes])
    except MalformedMessage:
        raise TokenUnknown("not a session token") from None
    return epoch, sealed


def open_token(sealed: bytes, cluster: bytes, epoch: int, seed: bytes) -> Token:
    """Open a token; raises TokenUnknown unless a member of this cluster sealed it in this epoch."""
    place = Place(Kind.TOKEN, cluster=cluster, version=epoch)
    try:
        return codec.decode_as(unseal(Purpose.TOKEN.derive(seed), sealed, place), Token)
    except (SealBroken, MalformedMessage):
        raise TokenUnknown("a session token that no member of this cluster sealed") from None


@dataclass(eq=False)
class OpenSession:
    """An opened and checked token in a worker's cache.

    Args:
        sealed: the token as the client carries it.
        who: for the audit trail.
        depends: (table, id) of the records it was checked against; a change of one ends its life here.
        cluster_version: of the cluster record it was checked under.
        read_only_max: seconds for which a member that is read-only honours it, by policy.
        keyring_version: of its keyring's record; a rekey writes that anew. 0 without a keyring.
        alive: false once one of them changed: an operation that waited must look before it acts.
    """

    sealed: bytes
    token: Token
    keys: SessionKeys
    holder: Holder
    who: str
    keyring_keys: KeyringKeys | None = field(repr=False)
    depends: frozenset[tuple[str, bytes]]
    cluster_version: int
    read_only_max: int
    keyring_version: int = 0
    alive: bool = True

    def same_key(self, records: Records) -> list[Change]:
        """Make the changes that have a commit refused once the session's keyring was given another key, or deleted.

        Whatever is sealed under the session's keyring key for the first time goes with them: nothing that was begun
        before a rekey comes into the keyring after it.
        """
        keyring = self.holder.keyring
        return [Require(key=records.key_of(KeyringRecord, keyring), version=self.keyring_version)] if keyring else []
