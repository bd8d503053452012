"""An opened request, as the handlers get it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from lnh_common import limits
from lnh_common.messages import store
from lnh_common.messages.base import Effect, Message, Operation
from lnh_common.messages.session import Role
from lnh_common.wire import codec
from lnh_common.wire.channel import Envelope, OpenedCredential
from lnh_common.wire.frames import Header
from lnh_services.hsm.auth.tokens import OpenSession
from lnh_services.hsm.objects.stored import HANDLE_BYTES, KeyringKeys
from lnh_services.hsm.records import ClientRecord, record_id
from lnh_services.hsm.worker.rollback_guard import Ahead

M = TypeVar("M", bound=Message)

_SEQUENCES: Final = 0xFFFF  # of which so many bits are in a handle
_NUMBERS: Final = 0xFF
_NAME_AND_FIELDS: Final = 2  # of a use that travels with others


@dataclass(eq=False, slots=True)
class Request(Generic[M]):
    """One opened request.

    Args:
        session: None where the operation opens one or uses a credential (`credential` then).
        client: the registered client's record, where there is one.
        drawn: the source of the ids that a read makes, which are new at each try.
        committed: whether something of it was committed, so that no answer may say any more that it was not done.
        lapses: of the lease, when it was begun.
        ahead: what was asked of its object with the records of its session.
        approved: what a second person approved; empty where none was needed.
    """

    header: Header
    operation: Operation[Any, Any]
    envelope: Envelope
    message: M
    session: OpenSession | None = None
    credential: OpenedCredential | None = None
    client: ClientRecord | None = None
    drawn: bytes = b""
    committed: bool = False
    lapses: int = 0
    ahead: Ahead | None = None
    approved: dict[str, Any] = field(default_factory=dict)

    @property
    def who(self) -> OpenSession:
        """The session of the request, which its operation must demand."""
        assert self.session is not None, "an operation under Seal.SESSION has a session"
        return self.session

    @property
    def keyring_keys(self) -> KeyringKeys:
        """The keys of the session's keyring."""
        keys = self.who.keyring_keys
        assert keys is not None, "a keyring role's session has the keyring's keys"
        return keys

    @property
    def role(self) -> Role:
        """The keyring role of the session."""
        role = self.who.holder.role
        assert role is not None, "objects are made and changed by a keyring role"
        return role

    @property
    def client_id(self) -> bytes:
        """The 16-byte id under which this request's duplicates are kept."""
        if self.client is not None:
            return self.client.id
        return self.who.token.session if self.session else self.envelope.connection

    @property
    def name(self) -> bytes:
        """The 16 bytes that name a write: the same for every try of it, and for no other."""
        parts = (self.client_id, self.envelope.connection, self.envelope.sequence.to_bytes(8, "big"))
        named = b"".join(len(part).to_bytes(1, "big") + part for part in parts)
        return hashlib.sha256(named).digest()[:16]

    def new_id(self, number: int = 0) -> bytes:
        """Return the 16-byte id of the `number`th thing this request makes: the same when a write is repeated."""
        if self.operation.effect is Effect.READ:
            self.drawn = self.drawn or os.urandom(16)
            return record_id("made", self.drawn, codec.encode(number))
        return record_id(
            "made by", self.client_id, self.envelope.connection, codec.encode([self.envelope.sequence, number])
        )

    def new_handle(self, number: int = 0) -> bytes:
        """Return the handle of the `number`th object that this request makes.

        A stored object's is 48 bits of time, 16 of the request's number on its connection, 8 of the object's in the
        request, and 56 of `new_id`. Objects that are made at the same time are then side by side in the store's indexes
        (as with a UUIDv7, RFC 9562, sections 5.7 and 6.2), and a commit writes a few of their pages instead of some ten
        for each object; and objects are listed in the order in which one connection asked for them.
        """
        if self.operation.effect is Effect.READ:  # for a session alone
            return self.new_id(number)
        assert number <= _NUMBERS, "one request makes a hundred pairs at most"
        asked = self.envelope.issued_at.to_bytes(6, "big") + (self.envelope.sequence & _SEQUENCES).to_bytes(2, "big")
        return asked + number.to_bytes(1, "big") + self.new_id(number)[:7]


def objects_named(header: Header, fields: Mapping[str, Any]) -> tuple[store.Key, ...]:
    """Name the stored objects that a request is about, as far as fields say so that nobody has looked at yet."""
    carried = fields.get("uses")
    uses: list[Any] = [fields]
    if isinstance(carried, list):
        uses = [
            use[1] for use in carried[: limits.USES_TOGETHER] if isinstance(use, list) and len(use) == _NAME_AND_FIELDS
        ]
    handles = [use.get("handle") for use in uses if isinstance(use, dict) and not use.get("sealed")]
    fitting = dict.fromkeys(each for each in handles if isinstance(each, bytes) and len(each) == HANDLE_BYTES)
    return tuple(store.Key(table=store.OBJECTS, scope=header.route, id=handle) for handle in fitting)
