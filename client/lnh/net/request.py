"""One request of a connection, from its fields to its outcome, and the credentials of who makes it. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lnh_common.errors import (
    LnhError,
)
from lnh_common.messages.base import Operation
from lnh_common.wire import bundles
from lnh_common.wire.channel import SessionKeys, Statement
from lnh_common.wire.frames import Frames, Header


class Unsealed(NamedTuple):
    """The parts that a use of a key is sealed from, when it is due."""

    operation: Operation[Any, Any]
    fields: dict[str, Any]
    issued_at: float
    deadline_ms: int
    route: bytes
    token: bytes
    keys: SessionKeys
    size: int

    @property
    def session(self) -> tuple[bytes, bytes, int]:
        """Return what uses must have in common to share a seal."""
        return self.route, self.token, id(self.keys)


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """The parts that seal an operation that uses a credential.

    Args:
        statement: of the channel key to seal to.
        secret: S, 32 fresh random bytes; the answer is sealed under it.
        client: the registered client's id, or empty.
        client_key: its Ed25519 key, or the new one's while it registers.
    """

    statement: Statement
    secret: bytes
    client: bytes
    client_key: Ed25519PrivateKey | None

    def __repr__(self) -> str:
        return "Credentials(redacted)"


class Asked(NamedTuple):
    """The parts that a request is sealed from, kept of one that may have to be made anew.

    Args:
        utc_ahead: seconds of UTC less those of the caller's clock.
    """

    operation: Operation[Any, Any]
    fields: dict[str, Any]
    utc_ahead: float
    route: bytes
    token: bytes
    seal: SessionKeys | Credentials | None


class Request:
    """One request on its way; `Requests` moves it, the connection reads it.

    Attributes:
        operation: its name.
        asked: what it is made of, where it may be refused for good without a fault of its own.
        header, frames: sent, every time, once the request is sealed; not of a use that a carrier carries.
        tag: names it, and its answer, in a bundle: the request id, 8 bytes.
        deadline: when it is given up, on the caller's clock; of a carrier, when the first of its uses is.
        tries: how often it was sent.
        last_sent: when it was last sent.
        undone: names the sealed answers that each say of one try that it did nothing.
        behind: the last answer of a member that was behind, or damaged.
        said: the last answer of each member that serves nobody, by its address.
        wants_current: a listing through a member that is behind is no answer.
        done: whether `fields` or `error` is there.
    """

    frames: Frames
    header: Header
    tag: bytes

    __slots__ = (
        "asked",
        "behind",
        "carrier",
        "deadline",
        "done",
        "due",
        "error",
        "fields",
        "frames",
        "header",
        "hint",
        "hints",
        "is_write",
        "keys",
        "last_sent",
        "left",
        "operation",
        "refused_since",
        "said",
        "seconds",
        "tag",
        "tries",
        "undone",
        "unsealed",
        "uses",
        "wants_current",
    )

    def __init__(
        self, operation: str, keys: SessionKeys | None, deadline: float, seconds: float, *, is_write: bool
    ) -> None:
        self.operation = operation
        self.asked: Asked | None = None
        self.unsealed: Unsealed | None = None
        self.uses: list[Request] = []  # of a carrier, and ...
        self.left = 0  # ... how many of them are under way
        self.carrier: Request | None = None
        self.keys = keys
        self.seconds = seconds
        self.deadline = deadline
        self.is_write = is_write
        self.tries = 0
        self.last_sent = 0.0
        self.undone: frozenset[bytes] = frozenset()
        self.hints = 0
        self.refused_since = 0.0
        self.due = 0.0
        self.hint: LnhError | None = None
        self.behind: LnhError | None = None
        self.said: dict[str, LnhError] = {}
        self.wants_current = False
        self.done = False
        self.fields: dict[str, Any] | None = None
        self.error: LnhError | None = None

    def __repr__(self) -> str:
        return f"Request({self.operation}, tries={self.tries}, done={self.done})"

    @property
    def open_tries(self) -> int:
        """Count the tries that are not known to have done nothing."""
        return self.tries - len(self.undone)

    def forget_tries(self) -> None:
        """Begin anew: what was heard of the tries so far says nothing of those to come."""
        self.tries = 0
        self.undone = frozenset()
        self.refused_since = 0.0
        self.behind = None
        self.said = {}

    def sealed(self, header: Header, token: bytes, body: bytes) -> None:
        """Take the frames that the request is sent in from now on."""
        self.header = header
        self.tag = header.request_id.to_bytes(bundles.TAG_BYTES, "big")
        self.frames = [header.pack(), token, body]

    def result(self) -> dict[str, Any]:
        """Return the answer's fields; raises the error that the request ended with."""
        assert self.done, "asked for the result of a request under way"
        if self.error is not None:
            raise self.error
        assert self.fields is not None, "an answered request has fields or an error"
        return self.fields
