"""The pure hsm worker: frames of a request in; what to ask, and the frames of the answer, out.

A request goes through one function, `WorkerCore.serve`, in this order, and nothing is done before
all of it has passed:

    header -> operation of the table -> token and seal opened -> session's records -> fields
           -> permission -> audit (of what changes something) -> handler -> audit (of a refusal) -> sealed answer

Before a seal is opened there is no key to answer under, so errors up to there are unsealed hints;
after it every error is sealed, also that a session is over: its client can believe it. A handler is a
generator (`steps.py`); while it waits others are served, and `forget` may take anything out of the
caches, so what waited asks again whether its session lives.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from lnh_common import channel, codec, limits, wire
from lnh_common.attributes import Attributes
from lnh_common.channel import Envelope, OpenedCredential, SessionKeys
from lnh_common.errors import (
    AuditFailed,
    ChannelInvalid,
    ClientRevoked,
    ClientUnknown,
    DeadlineExceeded,
    Internal,
    LnhError,
    MalformedMessage,
    NoCluster,
    ObjectUnknown,
    PermissionDenied,
    SealBroken,
    StateRolledBack,
    TokenExpired,
    TokenUnknown,
    UnknownOperation,
    VersionConflict,
)
from lnh_common.events import Log
from lnh_common.messages import hsm, store
from lnh_common.messages.base import OPERATIONS, Effect, Message, Operation, Seal
from lnh_common.messages.session import Role
from lnh_common.wire import Frames, Header, Kind
from lnh_services.hsm import permissions
from lnh_services.hsm.caches import CachedKey, CachedRecord, Caches, touches_sessions
from lnh_services.hsm.credentials import Smk
from lnh_services.hsm.freshness import Items, Read
from lnh_services.hsm.keys import Purpose
from lnh_services.hsm.mechanisms import IvSource
from lnh_services.hsm.objects import KeyringKeys
from lnh_services.hsm.records import TABLES, ClientRecord, ClusterRecord, Record, Records, record_id
from lnh_services.hsm.steps import Ask, Deadline, Peer, Steps, ask
from lnh_services.hsm.tokens import Session, Token, open_token, token_epoch

log = Log("hsm.worker")

T = TypeVar("T")
M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Record)

CLUSTER_RECORD: Final = record_id("cluster")
_BYTES: Final = (bytes,)


@dataclass(eq=False)
class Request(Generic[M]):
    """One opened request.

    Args:
        session: None where the operation opens one or uses a credential (`credential` then).
        client: the registered client's record, where there is one.
        drawn: where the ids come from that a read makes, which are new at each try.
    """

    header: Header
    operation: Operation[Any, Any]
    envelope: Envelope
    message: M
    session: Session | None = None
    credential: OpenedCredential | None = None
    client: ClientRecord | None = None
    drawn: bytes = b""

    @property
    def who(self) -> Session:
        assert self.session is not None, "an operation under Seal.SESSION has a session"
        return self.session

    @property
    def keyring_keys(self) -> KeyringKeys:
        keys = self.who.keyring_keys
        assert keys is not None, "a keyring role's session has the keyring's keys"
        return keys

    @property
    def role(self) -> Role:
        role = self.who.holder.role
        assert role is not None, "objects are made and changed by a keyring role"
        return role

    @property
    def client_id(self) -> bytes:
        """Whose duplicates this request's are kept with: 16 bytes."""
        if self.client is not None:
            return self.client.id
        return self.who.token.session if self.session else self.envelope.connection

    def new_id(self, number: int = 0) -> bytes:
        """The 16-byte id of the `number`th thing this request makes: the same when a write is repeated."""
        if self.operation.effect is Effect.READ:
            self.drawn = self.drawn or os.urandom(16)
            return record_id("made", self.drawn, codec.encode(number))
        return record_id(
            "made by", self.client_id, self.envelope.connection, codec.encode([self.envelope.sequence, number])
        )


Handler = Callable[["WorkerCore", Request[Any]], Steps[Message]]


@dataclass(frozen=True)
class Identity:
    """What the member is, and the secrets the core gave."""

    secrets: hsm.WorkerSecrets
    smk: Smk
    record_key: bytes

    @classmethod
    def of(cls, secrets: hsm.WorkerSecrets) -> Identity:
        newest = secrets.smk[-1]
        return cls(secrets, Smk(newest.generation, newest.key), Purpose.RECORD.derive(newest.key))

    def smk_of(self, generation: int) -> Smk:
        """Raises SealBroken for a generation this HSM does not hold."""
        for held in self.secrets.smk:
            if held.generation == generation:
                return Smk(held.generation, held.key)
        raise SealBroken(f"sealed under SMK generation {generation}, which this HSM does not hold")

    def seed(self, epoch: int) -> hsm.ChannelSeed | None:
        """The channel seed of an epoch that is still in use."""
        return next((seed for seed in self.secrets.channel if seed.epoch == epoch), None)


@dataclass(eq=False)
class _Reading:
    """An item that is being read, and whether a `forget` about it came meanwhile."""

    key: store.Key
    outdated: bool = False

    def is_one_of(self, keys: tuple[store.Key, ...]) -> bool:
        return self.key in keys or store.Key(table=self.key.table, scope=self.key.scope) in keys


class WorkerCore:
    """One worker's state.

    Args:
        handlers: the operations it serves.
        check_token: checks all that an opened token rests on, and makes it a session.
        utc: UTC seconds.
        boot: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        handlers: dict[str, Handler],
        check_token: Callable[[WorkerCore, bytes, Token], Steps[Session]],
        utc: Callable[[], float],
        boot: Callable[[], float],
    ) -> None:
        self.handlers = handlers
        self.check_token = check_token
        self.utc = utc
        self.boot = boot
        self.worker = os.urandom(16)
        self.caches = Caches()
        self.ivs = IvSource()
        self.identity: Identity | None = None
        self.records: Records | None = None
        self.cluster: ClusterRecord | None = None
        self._records_outdated = False  # they may be: good for what asked for them, and for nobody after it
        self.lease_until = 0.0
        self.read_write = True  # the lease's mode
        self.owes_guesses = True  # failed logins of before this start, or of a time as read-only, may be to be told
        self.disturbed = 0  # how often answers of the store may have become outdated since they came
        self.operations = 0
        self.refused = 0
        self._readings: set[_Reading] = set()
        self._own_sequence = 0
        self._channel_keys: dict[int, Any] = {}
        self._uses: dict[tuple[bytes, bytes], int] = {}

    # --- what the loop tells it

    def take_secrets(self, secrets: hsm.WorkerSecrets) -> None:
        """Begin, or go on, with what the core gave; other secrets than before end every session here."""
        before = self.identity
        self.identity = Identity.of(secrets)
        if before is not None and before.secrets != secrets:
            self.forget_everything()
            self._channel_keys.clear()

    def take_lease(self, sent_at: float, attached: store.Attached) -> None:
        """The store granted a lease to a request sent at `sent_at` (boot seconds)."""
        self.owes_guesses = self.owes_guesses or (attached.read_write and not self.read_write)
        if attached.fresh or (attached.read_write and not self.read_write):
            self.forget_everything()  # what was cached while the member was read-only may be older than it is now
        self.lease_until = sent_at + attached.lease_ms / 1000
        self.read_write = attached.read_write

    def is_leased(self) -> bool:
        """Whether the caches may be used."""
        return self.boot() < self.lease_until

    def may_cache(self, found: Read[Any]) -> bool:
        """Whether an answer of the store may go into a cache now, before anything else is waited for."""
        return self.is_leased() and not found.outdated and (found.current or not self.read_write)

    def may_cache_since(self, disturbed: int) -> bool:
        """Whether what several answers since `disturbed` had this value came to may go into a cache."""
        return self.is_leased() and self.disturbed == disturbed

    def forget(self, message: store.Forget) -> None:
        """The store says that these changed."""
        if message.everything:
            self.forget_everything()
            self.lease_until = 0.0
        else:
            self._keep_uses(self.caches.keys.items())
            self.caches.forget(message.keys)
            for reading in self._readings:
                reading.outdated = reading.outdated or reading.is_one_of(message.keys)
            if any(touches_sessions(key) for key in message.keys):
                self.disturbed += 1
            if any(key.table == "cluster" for key in message.keys):
                self.records = self.cluster = None

    def forget_everything(self) -> None:
        self._keep_uses(self.caches.keys.items())
        self.caches.forget_everything()
        self.records = self.cluster = None
        self.disturbed += 1
        for reading in self._readings:
            reading.outdated = True

    # --- serving

    def serve(self, header: Header, token: bytes, body: bytes, deadline: Deadline) -> Steps[Frames]:
        """Serve one request; never raises for what a client sent."""
        self.operations += 1
        now = self.boot()
        if now >= self.lease_until:
            self.forget_everything()
        try:
            operation = self._operation(header)
            if operation.seal is Seal.NONE:
                return (yield from self._serve_open(operation, header, body))
            if operation.seal is Seal.SESSION:
                session = self.caches.sessions.get(token)
                opened = self._open_token(token) if session is None else session.token
                keys = SessionKeys.derive(opened.secret, token) if session is None else session.keys
                envelope = channel.open_request(keys, header, body)
                credential = None
            else:
                session = None
                credential = self._open_credential(header, body)
                keys = SessionKeys.derive(credential.secret, b"")
                envelope = credential.envelope
        except LnhError as error:
            self.refused += 1
            return wire.error_frames(header, error)
        except Exception as error:  # the shell of every request: an answer is owed, and the bug is logged
            log.bug("request failed", error, operation=header.operation)
            return wire.error_frames(header, Internal("the member failed; its log says why"))
        deadline.at = now + envelope.deadline_ms / 1000
        value: dict[str, Any] | LnhError
        try:
            if credential is None:
                if session is None:
                    session = yield from self._open_session(token, opened)
                self.check_time(session.token)
            value = yield from self._serve_opened(operation, header, envelope, session, credential)
        except LnhError as error:
            self.refused += 1
            value = error
        except Exception as error:  # as above
            log.bug("request failed", error, operation=header.operation)
            value = Internal("the member failed; its log says why")
        return [header.answer(Kind.REPLY).pack(), b"", channel.seal_reply(keys, header, body, value)]

    def _operation(self, header: Header) -> Operation[Any, Any]:
        operation = OPERATIONS.get(header.operation)
        if operation is None or operation.name not in self.handlers:
            raise UnknownOperation(f"operation {header.operation!r} is not served here")
        return operation

    def _serve_open(self, operation: Operation[Any, Any], header: Header, body: bytes) -> Steps[Frames]:
        message = codec.decode_as(body, operation.request)
        reply = yield from self.handlers[operation.name](
            self, Request(header, operation, Envelope(0, header.deadline_ms, b"", 0, {}), message)
        )
        return [header.answer(Kind.REPLY).pack(), b"", codec.encode(reply)]

    def _serve_opened(
        self,
        operation: Operation[Any, Any],
        header: Header,
        envelope: Envelope,
        session: Session | None,
        credential: OpenedCredential | None,
    ) -> Steps[dict[str, Any]]:
        self.check_envelope(operation, envelope)
        request: Request[Any] = Request(
            header, operation, envelope, codec.convert(envelope.fields, operation.request), session, credential
        )
        if session is None:
            assert credential is not None, "Seal.CREDENTIAL opened a credential message"
            request.client = yield from self._signing_client(credential)
            reply = yield from self.handlers[operation.name](self, request)
            return cast("dict[str, Any]", msgspec.to_builtins(reply, builtin_types=_BYTES))
        audited = permissions.RULES[operation.name].audited
        try:
            permissions.check(operation.name, header.route, session.holder)
            if audited:
                yield from self.audit(request, "ok")
            reply = yield from self.handlers[operation.name](self, request)
        except LnhError as error:
            if (audited and not isinstance(error, AuditFailed)) or isinstance(error, REFUSALS):
                yield from self.audit(request, type(error).__name__)
            raise
        return cast("dict[str, Any]", msgspec.to_builtins(reply, builtin_types=_BYTES))

    def check_envelope(self, operation: Operation[Any, Any], envelope: Envelope) -> None:
        age = self.utc() - envelope.issued_at / 1000
        if abs(age) > limits.ISSUED_AT_TOLERANCE:
            raise DeadlineExceeded(
                f"issued {age:.0f} s ago by this member's clock; at most {limits.ISSUED_AT_TOLERANCE}: set the clocks"
            )
        if operation.effect is Effect.WRITE and (envelope.sequence < 1 or len(envelope.connection) != 16):
            raise MalformedMessage("a write names its connection (16 bytes) and sequence (from 1)")

    # --- credentials and sessions

    def secrets(self) -> Identity:
        """Raises NoCluster before the core gave any."""
        if self.identity is None:
            raise NoCluster("this member serves no cluster")
        return self.identity

    def _open_credential(self, header: Header, body: bytes) -> OpenedCredential:
        identity = self.secrets()
        epoch = channel.credential_epoch(body)
        private = self._channel_keys.get(epoch)
        if private is None:
            seed = identity.seed(epoch)
            if seed is None:
                raise TokenUnknown(f"channel epoch {epoch} is over; say hello again")
            private = channel.channel_private_key(Purpose.CHANNEL.derive(seed.seed))
            self._channel_keys[epoch] = private
        return channel.open_credential(header, body, identity.secrets.cluster, private)

    def _signing_client(self, credential: OpenedCredential) -> Steps[ClientRecord | None]:
        """The registered client that made the message, or None for an unregistered one."""
        if not credential.client:
            return None
        record = yield from self.record(ClientRecord, credential.client)
        if record is None:
            raise ClientUnknown(f"no client {credential.client.hex()} is registered here")
        credential.check_signature(record.sign_key)
        if record.revoked:
            raise ClientRevoked(f"client {record.name!r} was revoked")
        return record

    def _open_token(self, token: bytes) -> Token:
        """Raises TokenUnknown."""
        epoch, sealed = token_epoch(token)
        identity = self.secrets()
        seed = identity.seed(epoch)
        if seed is None:
            raise TokenUnknown(f"a session token of channel epoch {epoch}, which is over")
        return open_token(sealed, identity.secrets.cluster, epoch, seed.seed)

    def _open_session(self, token: bytes, opened: Token) -> Steps[Session]:
        """The session of an opened token; raises TokenExpired, and what `check_token` raises."""
        self.check_time(opened)
        disturbed = self.disturbed
        session = yield from self.check_token(self, token, opened)
        if session.alive and self.may_cache_since(disturbed):
            self.caches.sessions.put(token, session)
        return session

    # --- records

    def started(self) -> Steps[Records]:
        """The means to read records; asks for the cluster record once."""
        if self.records is None or self._records_outdated:
            identity = self.secrets()
            bare = Records(identity.record_key, identity.secrets.cluster, b"")
            key = bare.key_of(ClusterRecord, CLUSTER_RECORD)
            found = yield from self._read(Items(bare.cluster, b""), key, lambda item: bare.read(ClusterRecord, item))
            if found.value is None:
                raise NoCluster("the store holds no cluster yet")
            self._records_outdated = self.is_leased() and not self.may_cache(found)
            self.cluster = found.value
            self.records = Records(identity.record_key, identity.secrets.cluster, self.cluster.instance)
        return self.records

    def _read(
        self, items: Items, key: store.Key, read: Callable[[store.Item], T], *, body: bool = True
    ) -> Steps[Read[T]]:
        reading = _Reading(key)
        self._readings.add(reading)
        try:
            found = yield from items.get(key, read, body=body)
        finally:
            self._readings.discard(reading)
        found = replace(found, outdated=reading.outdated)
        if not self.may_cache(found):
            self.disturbed += 1
        return found

    def record(self, kind: type[R], record: bytes) -> Steps[R | None]:
        """The record with this id, or None."""
        found = yield from self.versioned(kind, record)
        return found[0]

    def versioned(
        self, kind: type[R], record: bytes, *, cached: bool = True, scope: bytes = b""
    ) -> Steps[tuple[R | None, int]]:
        """The record with this id and its version, or (None, 0). `cached` False reads it from the store."""
        records = yield from self.started()
        assert not (scope and cached), "records of a scope are read from the store"
        key = records.key_of(kind, record, scope)
        known = self.caches.records.get((key.table, record)) if cached else None
        if known is None:
            found = yield from self._read(self._items(records), key, lambda item: records.read(kind, item))
            known = CachedRecord(found.value, found.version)
            if cached and self.may_cache(found):
                self.caches.records.put((key.table, record), known)
        return cast("R | None", known.record), known.version

    def page(
        self, kind: type[R], *, name: str = "", after: bytes = b"", limit: int = limits.PAGE_ITEMS
    ) -> Steps[tuple[list[tuple[R, int]], bool]]:
        """A page of a table's records (of those with this name) with their versions, by id; whether there are more."""
        records = yield from self.started()
        tags = (records.tag(name),) if name else ()
        scan = store.Scan(table=TABLES[kind], tags=tags, after=after, limit=limit, body=True)
        found, more = yield from self._items(records).page(scan, lambda item: records.read(kind, item))
        return [(record, item.version) for item, record in found], more

    def scan_all(self, kind: type[R]) -> Steps[list[R]]:
        """Every record of a small table."""
        records = yield from self.started()
        found: list[R] = []
        after, more = b"", True
        while more:
            scan = store.Scan(table=TABLES[kind], after=after, limit=1024, body=True)
            page, more = yield from self._items(records).page(scan, lambda item: records.read(kind, item))
            found += [record for _, record in page]
            after = page[-1][0].key.id if page else after
        return found

    @staticmethod
    def _items(records: Records) -> Items:
        return Items(records.cluster, records.instance)

    # --- objects

    def object(self, request: Request[Any], handle: bytes) -> Steps[CachedKey]:
        """An object of the request's keyring, unsealed; raises ObjectUnknown, SealBroken, TokenUnknown."""
        session = request.who
        where = (request.header.route, handle)
        known = self.caches.keys.get(where)
        if known is None:
            keys = request.keyring_keys
            found = yield from self.stored(keys, handle)
            while not session.alive:
                # What was read is older than what was forgotten: first the session again, then the object.
                yield from self.check_alive(request)
                session = request.who
                found = yield from self.stored(keys, handle)
            known = CachedKey.loaded_from(found.version, *found.known)
            if self.may_cache(found):
                self.caches.keys.put(where, known)
        return known

    def stored(self, keys: KeyringKeys, handle: bytes) -> Steps[Read[tuple[Attributes, bytes]]]:
        """An object's attributes and value; raises ObjectUnknown, SealBroken, StateRolledBack."""
        return (yield from self._existing(keys, handle, keys.read))

    def described(self, keys: KeyringKeys, handle: bytes) -> Steps[Read[Attributes]]:
        """An object's attributes without its value; raises as `stored`."""
        return (yield from self._existing(keys, handle, keys.read_attributes, body=False))

    def _existing(
        self, keys: KeyringKeys, handle: bytes, read: Callable[[store.Item], T], *, body: bool = True
    ) -> Steps[Read[T]]:
        records = yield from self.started()
        found = yield from self._read(self._items(records), keys.key(handle), read, body=body)
        if found.version == 0:
            raise ObjectUnknown(f"no object {handle.hex()} in this keyring")
        return found

    def objects(self, keys: KeyringKeys, scan: store.Scan) -> Steps[tuple[list[tuple[store.Item, Attributes]], bool]]:
        """A page of objects with their attributes, and whether there are more; raises SealBroken, StateRolledBack."""
        records = yield from self.started()
        return (yield from self._items(records).page(scan, keys.read_attributes))

    def check_time(self, token: Token) -> None:
        """Raises TokenExpired."""
        if self.utc() > token.expires + limits.CLOCK_TOLERANCE:
            raise TokenExpired("this session's token has expired")

    def check_alive(self, request: Request[Any]) -> Steps[None]:
        """Check the session anew when what it rests on may have changed while the request waited.

        Raises TokenUnknown (or what it was replaced by), TokenExpired or ClientRevoked when it is over.
        """
        session = request.who
        if not session.alive:
            request.session = yield from self._open_session(session.sealed, self._open_token(session.sealed))

    # --- writing

    def commit(self, request: Request[Any], changes: Iterable[store.Change]) -> Steps[store.Committed]:
        """Commit a request's changes, exactly once however often it comes."""
        if request.session is not None:
            yield from self.check_alive(request)
        message = store.Commit(
            client=request.client_id,
            session=request.envelope.connection,
            sequence=request.envelope.sequence,
            issued_at=request.envelope.issued_at,
            changes=tuple(changes),
        )
        committed = yield from ask(Peer.STORE, store.COMMIT, message)
        if not committed.duplicate:
            yield from self._written(message)
        return committed

    def _written(self, commit: store.Commit) -> Steps[None]:
        if self.records is not None:
            yield from self._items(self.records).written(commit.changes)

    def acted_before(self, request: Request[Any]) -> Steps[bool]:
        """Whether this request, which comes again, has acted; raises its first error if it was refused."""
        recalled = yield from ask(
            Peer.STORE,
            store.RECALL,
            store.Recall(
                client=request.client_id, session=request.envelope.connection, sequence=request.envelope.sequence
            ),
        )
        return recalled.known

    def own_commit(self, *changes: store.Change) -> Steps[bool]:
        """Commit changes of the worker's own (lock counts); False when somebody else was first."""
        self._own_sequence += 1
        message = store.Commit(
            client=self.worker,
            session=self.worker,
            sequence=self._own_sequence,
            issued_at=int(self.utc() * 1000),
            changes=changes,
        )
        try:
            yield from ask(Peer.STORE, store.COMMIT, message)
        except (VersionConflict, ObjectUnknown):
            return False
        yield from self._written(message)
        return True

    # --- audit

    def audit(self, request: Request[Any], outcome: str, who: str = "", role: str = "") -> Steps[None]:
        """Record an act, and wait until it is recorded; raises AuditFailed."""
        session = request.session
        entry = hsm.AuditEntry(
            identity=who or (session.who if session else "unknown"),
            role=role or (_role(session) if session else ""),
            operation=request.operation.name,
            target=_target(request),
            outcome=outcome,
            detail={"request": request.header.request_id, "session": session.token.session.hex() if session else ""},
        )
        yield from ask(Peer.CORE, hsm.AUDIT, hsm.Audit(entries=(entry,)))

    def take_uses(self) -> list[hsm.AuditEntry]:
        """Uses of keys since the last call, one entry a key."""
        self._keep_uses(self.caches.keys.items())
        entries = [
            hsm.AuditEntry(
                identity="",
                role="",
                operation="key.use",
                target=f"{keyring.hex()}/{handle.hex()}",
                outcome="ok",
                detail={"count": count},
            )
            for (keyring, handle), count in self._uses.items()
        ]
        self._uses.clear()
        return entries

    def status(self) -> dict[str, Any]:
        """What `lnh status` shows of this worker."""
        return {
            "operations": self.operations,
            "refused": self.refused,
            "sessions": len(self.caches.sessions),
            "keys": len(self.caches.keys),
            "leased": self.is_leased(),
        }

    def _keep_uses(self, keys: Iterable[tuple[tuple[bytes, bytes], CachedKey]]) -> None:
        for where, key in keys:
            if key.uses:
                self._uses[where] = self._uses.get(where, 0) + key.uses
                key.uses = 0


# Errors that say somebody tried what they may not: recorded whatever the operation.
REFUSALS: Final = (PermissionDenied, ChannelInvalid, SealBroken, StateRolledBack)


def _role(session: Session) -> str:
    return "+".join(grant.role.value for grant in session.token.grants) or "client"


def _target(request: Request[Any]) -> str:
    """What the request is about, in names and ids only."""
    parts = [request.header.route.hex()] if request.header.route else []
    for name in ("label", "name", "client", "handle", "keyring", "member"):
        value = getattr(request.message, name, None)
        if isinstance(value, (str, bytes)) and value:
            parts.append(value.hex() if isinstance(value, bytes) else value)
    if request.operation.name.startswith("object.generate"):
        parts.append(request.new_id().hex())
    return "/".join(parts)


__all__ = ["CLUSTER_RECORD", "Ask", "Handler", "Identity", "Request", "WorkerCore"]
