"""What a route is, and what its handler is given."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from starlette.responses import Response

from lnh.aio import Cluster, KeyringSession, Session
from lnh.aio.admin import Administration
from lnh_common.errors import ArgumentInvalid, PermissionDenied
from lnh_common.messages.base import Message, Operation
from lnh_rest.base import Body, Octets, Stream, Text
from lnh_rest.counts import Counts
from lnh_rest.guesses import Guesses
from lnh_rest.logins import Login, Logins
from lnh_rest.readiness import Readiness
from lnh_rest.shapes import Nothing

T = TypeVar("T")

_HANDLE_BYTES: Final = 16


class Who(enum.Enum):
    """Whose session a route wants; which role of them may is the cluster's to say."""

    ANYBODY = "anybody"
    SESSION = "any session"
    USER = "an appliance user's session, or the PO's"
    HOLDER = "a session of a keyring's KRSO or KRCO"


@dataclass(frozen=True)
class Call:
    """A request whose form is right.

    Args:
        cluster: the service's own connection.
        logins: the sessions of the service.
        now: UTC seconds.
        path: the parts that the route's path names.
        query, body: of the route's types.
        login: of the bearer token; None where the route wants none.
        version: that `If-Match` demands; None where it demands none.
        parts, length: of a body that is bytes as they are; `length` None where it was not said beforehand.
        begin: the first byte that is asked for, of an answer that is bytes as they are.
        request: names the request, as its log does.
        address: whose request it is.
        guesses: the wrong passwords that were tried.
        counts: what was answered.
        readiness: whether a member answers.
    """

    cluster: Cluster
    logins: Logins[Session]
    now: float
    path: Mapping[str, str] = field(default_factory=dict)
    query: Any = None
    body: Any = None
    login: Login[Session] | None = None
    version: int | None = None
    parts: AsyncIterator[bytes] | None = None
    length: int | None = None
    begin: int = 0
    request: str = ""
    address: str = ""
    guesses: Guesses = field(default_factory=Guesses)
    counts: Counts = field(default_factory=Counts)
    readiness: Readiness = field(default_factory=Readiness)

    def given(self, kind: type[T]) -> T:
        """Return the body, or else the query, of this type."""
        found = self.body if isinstance(self.body, kind) else self.query
        assert isinstance(found, kind), "the route's row names its types"
        return found

    @property
    def session(self) -> Session:
        """The SDK's session of the bearer token."""
        assert self.login is not None, "the route's row demands a session"
        return self.login.session

    @property
    def user(self) -> Administration:
        """The session, as an appliance user's; raises PermissionDenied for another."""
        session = self.session
        if not isinstance(session, Administration):
            raise PermissionDenied("this is for an appliance user", {"advice": 'log in with {"as": "user", ...}'})
        return session

    @property
    def holder(self) -> KeyringSession:
        """The session, as one of a keyring's role; raises PermissionDenied for another."""
        session = self.session
        if not isinstance(session, KeyringSession):
            advice = {"advice": 'log in with {"as": "keyring", ...}'}
            raise PermissionDenied("this is for a keyring's KRSO or KRCO", advice)
        return session

    @property
    def handle(self) -> bytes:
        """The handle that the path names; raises ArgumentInvalid for what is none."""
        return self.id("handle")

    def id(self, name: str) -> bytes:
        """Read an id that the path names; raises ArgumentInvalid for what is none."""
        return id_of(self.path[name], name)


def id_of(text: str, name: str) -> bytes:
    """Read an id or a handle, as `name` in a refusal; raises ArgumentInvalid for what is none."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != _HANDLE_BYTES or found.hex() != text:
        raise ArgumentInvalid(f"{name}: 32 hexadecimal digits, in lower case")
    return found


Answer = Body | Message | Stream | Text | Response | None
Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True)
class Route:
    """One row of the table of routes.

    Args:
        about: what it does: a sentence, for the document.
        operations: those of the cluster that it asks; docs/permissions.md says who may.
        body, query, reply: their types; a body that is a union is one of its kinds.
        status: of success.
        creates: whether it takes an Idempotency-Key.
        looks: whether it asks an operation that may change something to change nothing.
        etag: whether the reply has a version.
        matches: whether it takes If-Match.
        must_match: whether it takes nothing else, so that nobody changes what they have not seen.
        is_login: whether it carries a password, which has a rate of its own.
        basic: whether it takes user and password (RFC 7617) in place of a bearer token.
        media_type: of an answer that is text, or bytes as they are.
        location: of what was made, with the names of the answer's fields in braces.
    """

    method: str
    path: str
    about: str
    who: Who
    handler: Handler
    operations: tuple[Operation[Any, Any], ...] = ()
    body: Any = None
    query: type[Body] = Nothing
    reply: Any = None
    status: int = 200
    creates: bool = False
    looks: bool = False
    etag: bool = False
    matches: bool = False
    must_match: bool = False
    is_login: bool = False
    basic: bool = False
    media_type: str = "application/octet-stream"
    location: str = ""

    @property
    def name(self) -> str:
        """The route's name in the OpenAPI document: that of its handler."""
        return self.handler.__name__.rstrip("_")

    @property
    def in_parts(self) -> bool:
        """Tell whether the answer is bytes as they are, and may begin with any of them."""
        return self.reply is Octets and self.etag

    @property
    def takes_octets(self) -> bool:
        """Tell whether the body is bytes as they are."""
        return self.body is Octets
