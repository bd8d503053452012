"""What an application has at the gateway: its sessions, logins and handles. Pure.

An application is the sockets of one process. A login is the application's at one token, and all its sessions there have
it (PKCS#11 v3.1, 5.6.8). Handles of objects stand for the 16 bytes of the product's for as long as the application is.
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from lnh.aio.objects.keys import of_view
from lnh_common import limits
from lnh_common.errors import ObjectUnknown
from lnh_common.messages.objects import ObjectView, SessionObject
from lnh_common.messages.session import Role
from lnh_common.pkcs11.attributes import to_wire
from lnh_pkcs11.numbers import CKR, State
from lnh_pkcs11.refusals import Refused
from lnh_pkcs11.ways import Way

if TYPE_CHECKING:
    from lnh.aio import Cluster, Keyring, KeyringSession, Listing, StoredObject
    from lnh_pkcs11.operations import Operation


class Token(Protocol):
    """A keyring, as a slot with a token.

    Attributes:
        slot: its number, for the life of the gateway.
        cluster: the connection to its cluster.
        keyring: as it was listed last.
        behind: whether the member that listed it may be behind, and so is read-only.
    """

    slot: int
    cluster: Cluster
    keyring: Keyring
    behind: bool


class Tokens(Protocol):
    """All the keyrings there are to be seen."""

    async def listed(self) -> list[Token]:
        """List them, as they were a moment ago."""

    async def token(self, slot: int) -> Token:
        """Find that of a slot; raises Refused."""

    def now(self) -> float:
        """Return seconds that only grow."""


class Kind(enum.Enum):
    """The kind of an operation, of which a session has one at a time."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    DIGEST = "digest"
    SIGN = "sign"
    VERIFY = "verify"
    MESSAGE_ENCRYPT = "message encrypt"
    MESSAGE_DECRYPT = "message decrypt"


@dataclass
class Login:
    """A login of an application at a token."""

    role: Role
    session: KeyringSession


@dataclass
class Entry:
    """What a handle stands for.

    Args:
        found: the object as it was read last.
        read: when that was.
        owner: of an object that lives in a session, that session's handle; else 0.
    """

    slot: int
    found: StoredObject
    read: float
    owner: int = 0


@dataclass
class Session:
    """One session.

    Attributes:
        operations: those that were begun.
        finding: of a search, what is left of it.
    """

    handle: int
    slot: int
    read_write: bool
    operations: dict[Kind, Operation] = field(default_factory=dict)
    finding: Listing[StoredObject] | None = None
    is_finding: bool = False

    def begin(self, kind: Kind, operation: Operation) -> None:
        """Begin an operation; raises Refused while another of its kind is active."""
        active = self.operations.get(kind)
        if active is not None and not active.is_spent:
            raise Refused(CKR.OPERATION_ACTIVE, kind.value)
        self.operations[kind] = operation

    def active(self, kind: Kind) -> Operation:
        """Return the operation that is active; raises Refused."""
        operation = self.operations.get(kind)
        if operation is None:
            raise Refused(CKR.OPERATION_NOT_INITIALIZED, kind.value)
        if operation.is_busy:
            raise Refused(CKR.OPERATION_ACTIVE, "another thread's call is under way")
        return operation

    def end(self, kind: Kind) -> None:
        """End an operation, whether there is one or not."""
        self.operations.pop(kind, None)


_STATES: Final = {
    (None, False): State.RO_PUBLIC,
    (None, True): State.RW_PUBLIC,
    (Role.KRCO, False): State.RO_USER,
    (Role.KRCO, True): State.RW_USER,
    (Role.KRSO, True): State.RW_SO,
}


class Application:
    """One application.

    Attributes:
        way: the way in that it took.
        tokens: the keyrings there are.
        must_change: slots at which a login found that the KRSO's first credential must be changed.
    """

    def __init__(self, way: Way, tokens: Tokens) -> None:
        self.way: Final = way
        self.tokens: Final = tokens
        self.sessions: Final[dict[int, Session]] = {}
        self.logins: Final[dict[int, Login]] = {}
        self.must_change: Final[set[int]] = set()
        self._entries: Final[dict[int, Entry]] = {}
        self._numbers: Final[dict[tuple[int, bytes], int]] = {}
        # Handles of a gateway that was there before are none of this one's: numbers begin anywhere.
        self._next: int = int.from_bytes(os.urandom(3), "big") + 1

    def number(self) -> int:
        """Draw a handle."""
        self._next += 1
        return self._next

    # --- sessions

    def open(self, slot: int, *, read_write: bool) -> Session:
        """Open a session; raises Refused."""
        if len(self.sessions) >= limits.PKCS11_SESSIONS:
            raise Refused(CKR.SESSION_COUNT, f"{limits.PKCS11_SESSIONS} sessions")
        login = self.logins.get(slot)
        if login is not None and login.role is Role.KRSO and not read_write:
            raise Refused(CKR.SESSION_READ_WRITE_SO_EXISTS)
        session = Session(self.number(), slot, read_write)
        self.sessions[session.handle] = session
        return session

    def session(self, handle: int) -> Session:
        """Find a session; raises Refused."""
        try:
            return self.sessions[handle]
        except KeyError:
            raise Refused(CKR.SESSION_HANDLE_INVALID) from None

    def of_slot(self, slot: int) -> list[Session]:
        """List the sessions at a token."""
        return [session for session in self.sessions.values() if session.slot == slot]

    def close(self, session: Session) -> Login | None:
        """Close a session and the objects that live in it; returns the login that ends with the last one."""
        self.sessions.pop(session.handle, None)
        self._forget(lambda entry: entry.owner == session.handle)
        return self.logins.pop(session.slot, None) if not self.of_slot(session.slot) else None

    def close_all(self, slot: int) -> Login | None:
        """Close all sessions at a token; returns the login that ends."""
        login = self.logins.pop(slot, None)
        for session in self.of_slot(slot):
            self.close(session)
        return login

    def end(self) -> list[Login]:
        """Close everything; returns the logins that end."""
        ended = list(self.logins.values())
        self.sessions.clear()
        self.logins.clear()
        self._entries.clear()
        self._numbers.clear()
        return ended

    def state(self, session: Session) -> State:
        """Tell the state of a session."""
        login = self.logins.get(session.slot)
        return _STATES[login.role if login else None, session.read_write]

    def login(self, session: Session) -> KeyringSession:
        """Return the session of the login at the token; raises Refused."""
        login = self.logins.get(session.slot)
        if login is None:
            raise Refused(CKR.USER_NOT_LOGGED_IN)
        return login.session

    def log_in(self, session: Session, login: Login) -> None:
        """Take in a login."""
        self.logins[session.slot] = login
        self.must_change.discard(session.slot)

    def log_out(self, slot: int) -> Login | None:
        """End the login at a token, its operations and the objects that live in sessions."""
        login = self.logins.pop(slot, None)
        for session in self.of_slot(slot):
            session.operations.clear()
            session.finding, session.is_finding = None, False
        self._forget(lambda entry: entry.slot == slot and bool(entry.owner))
        return login

    # --- objects

    def handle(self, session: Session, found: StoredObject) -> int:
        """Return the handle of an object that was found, made or read."""
        at = self.tokens.now()
        number = self._numbers.get((session.slot, found.handle))
        if number is not None:
            entry = self._entries[number]
            entry.found, entry.read = found, at
            return number
        if len(self._entries) >= limits.PKCS11_HANDLES:
            raise Refused(CKR.DEVICE_MEMORY, f"{limits.PKCS11_HANDLES} handles")
        number = self.number()
        self._entries[number] = Entry(session.slot, found, at, session.handle if found.sealed else 0)
        self._numbers[session.slot, found.handle] = number
        return number

    def entry(self, session: Session, number: int, ckr: CKR = CKR.OBJECT_HANDLE_INVALID) -> Entry:
        """Return what a handle stands for, as an object of the login that is; raises Refused.

        Args:
            ckr: for a handle that stands for nothing at this token.
        """
        entry = self._entries.get(number)
        if entry is None or entry.slot != session.slot:
            raise Refused(ckr)
        login = self.login(session)
        if entry.found.session is not login:
            found = entry.found
            attributes: dict[int, Any] = dict(to_wire(found.attributes))
            view = (
                SessionObject(handle=found.handle, version=found.version, attributes=attributes, sealed=found.sealed)
                if found.sealed
                else ObjectView(handle=found.handle, version=found.version, attributes=attributes)
            )
            entry.found = of_view(login, view)
        return entry

    def key(self, session: Session, number: int) -> StoredObject:
        """Return the key of a handle; raises Refused."""
        return self.entry(session, number, CKR.KEY_HANDLE_INVALID).found

    def drop(self, number: int) -> None:
        """Forget the object of a handle, which was destroyed."""
        entry = self._entries.pop(number, None)
        if entry is not None:
            self._numbers.pop((entry.slot, entry.found.handle), None)

    def _forget(self, which: Callable[[Entry], bool]) -> None:
        for number, entry in [each for each in self._entries.items() if which(each[1])]:
            if entry.found.sealed:
                with contextlib.suppress(ObjectUnknown):  # a session that logged in anew has forgotten it
                    entry.found.session.forget(entry.found.handle)
            self.drop(number)
