"""The pure hsm worker: frames of a request in; questions to others, and the frames of the answer, out.

A request goes through one function, `WorkerCore.serve`, in this order, and nothing is done before all of it has passed:

    header -> operation of the table -> token and seal opened -> session's records -> fields
           -> permission -> audit (of what changes something) -> handler -> audit (of a refusal) -> sealed answer

Nothing in the caches is asked for, so the use of a cached key goes from end to end without waiting. There is no other,
quicker way: a loop that serves many of these requests takes them from turn to turn together (`effects.Turn`).

Before a seal is opened there is no key to answer under, so errors up to there are unsealed hints. After it every error
is sealed, also that a session is over: its client can believe it. A handler is a generator (`effects.py`). While it
waits others are served, and `invalidate` may take anything out of the caches, so a handler that waited asks again
whether its session lives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import msgspec

from lnh_common import limits
from lnh_common.errors import (
    AuditFailed,
    Busy,
    ChannelInvalid,
    ClockSkew,
    ClusterRestored,
    DeadlineExceeded,
    Internal,
    LnhError,
    MalformedMessage,
    MemberBehind,
    MemberReadOnly,
    NameTaken,
    ObjectUnknown,
    OutcomeUnknown,
    PermissionDenied,
    SealBroken,
    SmkRolled,
    StateRolledBack,
    UnknownOperation,
    Unreachable,
    VersionConflict,
)
from lnh_common.events import Log
from lnh_common.messages import hsm, store
from lnh_common.messages.base import OPERATIONS, Effect, Message, Operation, Seal
from lnh_common.versions import FIRST
from lnh_common.wire import bundles, channel, codec, frames
from lnh_common.wire.channel import Envelope, OpenedCredential, SessionKeys
from lnh_common.wire.frames import Frames, Header, Kind
from lnh_services.hsm.auth import permissions
from lnh_services.hsm.auth.permissions import Rule
from lnh_services.hsm.auth.tokens import OpenSession, Token
from lnh_services.hsm.crypto.mechanisms import IvSource
from lnh_services.hsm.effects import Ask, Deadline, Peer, Steps, Turn, ask
from lnh_services.hsm.objects.prepared_keys import CachedKey
from lnh_services.hsm.records import (
    CLUSTER_RECORD,
    TABLES,
    ClusterRecord,
    Record,
    Records,
)
from lnh_services.hsm.worker import recording
from lnh_services.hsm.worker.certainty import NEVER
from lnh_services.hsm.worker.context import Identity
from lnh_services.hsm.worker.request import Request, objects_named
from lnh_services.hsm.worker.rollback_guard import Ahead
from lnh_services.hsm.worker.sessions import Sessions

log = Log("hsm.worker")

T = TypeVar("T")
M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Record)

_BYTES: Final = (bytes,)
_ROLLED: Final = "the SMK was rolled over while this was done, so it was not done"

Handler = Callable[["WorkerCore", Request[Any]], Steps[Message]]


def _unguarded(worker: WorkerCore, request: Request[Any]) -> Steps[bool]:
    yield from ()
    return False


def _nothing(worker: WorkerCore, request: Request[Any]) -> Steps[dict[str, Any]]:
    yield from ()
    return {}


@dataclass(frozen=True)
class Second:
    """How an operation waits for a second person; policy `dual_control` may name those that have this.

    Args:
        without: the fields of its message that are no part of what is approved: secrets, and keys made for this try.
        acts: tells of a message whether it changes anything; else it never waits.
        also: reads what is approved beside the message: what a name in it stands for now.
        guards: tells of a request whether it would lead around a second person, and waits also where it is not named.
    """

    without: frozenset[str] = frozenset()
    acts: Callable[[Any], bool] = lambda _: True
    also: Callable[[WorkerCore, Request[Any]], Steps[dict[str, Any]]] = _nothing
    guards: Callable[[WorkerCore, Request[Any]], Steps[bool]] = _unguarded


@dataclass(frozen=True)
class Served:
    """One row of the table of operations that a worker serves.

    Args:
        rule: who may; None for an operation without a session, which checks the credential that it carries, or nothing.
        commits: the one effect of the operation is a commit under its request's own name, so what refuses that commit
            refuses the request for good. What membership or the backup service is ordered to do is told apart by them.
        second: how it waits for a second person where the policy says so (`worker/second_person.py`); None never does.
    """

    operation: Operation[Any, Any]
    handler: Handler
    rule: Rule | None = None
    commits: bool = False
    second: Second | None = None


def serves(
    operation: Operation[Any, Any],
    handler: Handler,
    rule: Rule | None = None,
    *,
    commits: bool = False,
    second: Second | None = None,
) -> Served:
    """Make a row of the table; raises AssertionError unless exactly what has a session says who may."""
    assert (rule is not None) is (operation.seal is Seal.SESSION), f"{operation.name}: who may is asked of a session"
    return Served(operation, handler, rule, commits, second)


class WorkerCore(Sessions):
    """One worker: serves requests with what it knows.

    Args:
        served: the operations it serves, by name.
        check_token: checks all that an opened token rests on, and makes it a session.
        utc: UTC seconds.
        boot: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        served: Mapping[str, Served],
        check_token: Callable[[WorkerCore, bytes, Token, Ahead], Steps[OpenSession]],
        utc: Callable[[], float],
        boot: Callable[[], float],
    ) -> None:
        self.served = served
        super().__init__(check_token, utc, boot)
        self.ivs = IvSource()
        self.operations = 0
        self.refused = 0
        self._own_sequence = 0

    # --- serving

    def serve(
        self, header: Header, token: bytes, body: bytes, deadline: Deadline, *, forwarded: bool = False
    ) -> Steps[Frames]:
        """Serve one request; never raises for what a client sent.

        A request that another member forwarded is declined where this member is read-only or behind, because the member
        that forwarded it is neither.
        """
        now = self.boot()
        if now >= self.lease_until:
            self.drop_everything()
        lapses = self.lapses
        try:
            operation = self._operation(header)
            if operation.seal is Seal.NONE:
                self.operations += 1
                return (yield from self._serve_open(operation, header, body))
            if operation.seal is Seal.SESSION:
                session = self.caches.sessions.get(token)
                opened = self.open_token(token) if session is None else session.token
                keys = SessionKeys.derive(opened.secret, token) if session is None else session.keys
                envelope = channel.open_request(keys, header, body)
                credential = None
            else:
                session = None
                credential = self.open_credential(header, body)
                keys = SessionKeys.derive(credential.secret, b"")
                envelope = credential.envelope
        except LnhError as error:
            self.refused += 1
            if forwarded and isinstance(error, Unreachable):
                return [*bundles.refusal(b"")[1:]]
            return frames.error_frames(header, error)
        except Exception as error:  # the shell of every request: an answer is owed, and the bug is logged
            log.bug("request failed", error, operation=header.operation)
            return frames.error_frames(header, Internal("the member failed; its log says why"))
        deadline.at = now + envelope.deadline_ms / 1000
        value: dict[str, Any] | LnhError
        ahead = Ahead()
        try:
            if credential is None:
                if session is None:
                    ahead = Ahead(objects_named(header, envelope.fields))
                    session = yield from self.open_session(token, opened, ahead)
                self.check_times(session)
            value = yield from self._serve_opened(operation, header, envelope, session, credential, lapses, ahead)
        except LnhError as error:
            self.refused += 1
            value = self.told(operation, error, lapses)
        except Exception as error:  # as above
            log.bug("request failed", error, operation=header.operation)
            value = Internal("the member failed; its log says why")
        self.operations += 1
        if forwarded and isinstance(value, LnhError) and (value.of_damage or isinstance(value, _LEFT_TO_OTHERS)):
            return [*bundles.refusal(b"")[1:]]
        logged_in = session is not None and session.holder.logged_in and not isinstance(value, LnhError)
        vouched = bundles.VOUCHED if logged_in else b""
        yield Turn.SEAL
        return [header.answer(Kind.REPLY).pack(), vouched, channel.seal_reply(keys, header, body, value)]

    def _operation(self, header: Header) -> Operation[Any, Any]:
        operation = OPERATIONS.get(header.operation)
        if operation is None or operation.name not in self.served:
            raise UnknownOperation(f"operation {header.operation!r} is not served here")
        return operation

    def _serve_open(self, operation: Operation[Any, Any], header: Header, body: bytes) -> Steps[Frames]:
        message = codec.decode_as(body, operation.request)
        reply = yield from self.served[operation.name].handler(
            self, Request(header, operation, Envelope(0, header.deadline_ms, b"", 0, {}), message)
        )
        return frames.reply_frames(header, codec.encode(reply))

    def _serve_opened(
        self,
        operation: Operation[Any, Any],
        header: Header,
        envelope: Envelope,
        session: OpenSession | None,
        credential: OpenedCredential | None,
        lapses: int,
        ahead: Ahead,
    ) -> Steps[dict[str, Any]]:
        self.check_envelope(operation, envelope)
        message = codec.convert(envelope.fields, operation.request)
        request: Request[Any] = Request(
            header, operation, envelope, message, session, credential, lapses=lapses, ahead=ahead
        )
        try:
            if session is not None:
                return (yield from self.permitted(request))
            assert credential is not None, "Seal.CREDENTIAL opened a credential message"
            request.client = yield from self.signing_client(credential)
            reply = yield from self._handled(request)
            return cast("dict[str, Any]", msgspec.to_builtins(reply, builtin_types=_BYTES))
        except LnhError as error:
            # What denies it, or says that nothing was done, would be wrong: it was committed.
            denies = error.of_state or error.of_damage or isinstance(error, Busy | MemberReadOnly | DeadlineExceeded)
            if not (request.committed and denies):
                raise
            raise OutcomeUnknown(f"{operation.name}: it was made, and what goes with it was not: {error}") from None

    def permitted(self, request: Request[Any]) -> Steps[dict[str, Any]]:
        """Make the reply to a session's request, if its rule allows it; recorded where the rule says so."""
        name = request.operation.name
        rule, begun = self.served[name].rule, False
        assert rule is not None, "an operation of a session says who may"
        try:
            permissions.check(name, rule, request.header.route, request.who.holder)
            if request.operation.since != FIRST:
                yield from self.check_version(request.operation.since, f"{name} is served")
            if rule.audited and request.who.token.grants:  # a client without a login only ends its session: no act
                yield from recording.act(request, "ok")
                begun = True
            reply = yield from self._handled(request)
            if not request.committed:
                reply = self.listed(reply, request.message, request.lapses)
        except LnhError as error:
            if begun and not isinstance(error, AuditFailed):
                yield from recording.act(request, type(error).__name__)  # the trail says "ok" of it until then
            elif (rule.audited and not isinstance(error, AuditFailed)) or isinstance(error, REFUSALS):
                yield from recording.refusal(request, error)
            raise
        return cast("dict[str, Any]", msgspec.to_builtins(reply, builtin_types=_BYTES))

    def _handled(self, request: Request[Any]) -> Steps[Message]:
        """Make the handler's reply. Where it refuses a write for what is stored, no other try of it ever acts."""
        served = self.served[request.operation.name]
        try:
            return (yield from served.handler(self, request))
        except LnhError as error:
            known = request.session is not None or request.client is not None  # a stranger fills no log
            if not (error.of_state and served.commits and known) or request.committed:
                raise
            refusal = error
        if not self.was_read_write_since(request.lapses) or refusal.is_final:
            raise refusal
        if (yield from self._has_acted(request)):
            return (yield from served.handler(self, request))
        raise refusal.final()

    def _has_acted(self, request: Request[Any]) -> Steps[bool]:
        """Tell whether another try of this write has acted; if not, none ever will: that it was refused is in the log.

        The items that a handler reads may be what another try has made of them, or that one may be on its way yet.
        Raises the error that the other try was refused with, where it was another one than this makes.
        """
        records = yield from self.started()
        try:
            yield from ask(Peer.STORE, store.COMMIT, self._commit_of(request, (_never(records),)))
        except VersionConflict:
            return False
        except LnhError as error:
            raise (error.final() if error.of_state else error) from None
        return True

    def check_envelope(self, operation: Operation[Any, Any], envelope: Envelope) -> None:
        """Check the envelope of a request: its clock, and a write's connection and sequence.

        Raises ClockSkew, MalformedMessage.
        """
        age = self.utc() - envelope.issued_at / 1000
        if abs(age) > limits.ISSUED_AT_TOLERANCE:
            apart = f"{abs(age):.0f} s {'behind' if age > 0 else 'ahead of'} this member's"
            raise ClockSkew(
                f"the request is dated by a clock {apart}; at most {limits.ISSUED_AT_TOLERANCE} s are allowed"
            )
        if operation.effect is Effect.WRITE and (envelope.sequence < 1 or len(envelope.connection) != 16):
            raise MalformedMessage("a write names its connection (16 bytes) and sequence (from 1)")

    # --- objects

    def object(self, request: Request[Any], handle: bytes) -> Steps[CachedKey]:
        """Return an object of the request's keyring, unsealed; raises ObjectUnknown, SealBroken, TokenUnknown."""
        session = request.who
        where = (request.header.route, handle)
        known = self.caches.keys.get(where)
        if known is None:
            keys = request.keyring_keys
            found = yield from self.stored(keys, handle, request.ahead)
            while not session.alive:
                # What was read is older than what was invalidated: first the session again, then the object.
                yield from self.check_alive(request)
                session = request.who
                found = yield from self.stored(keys, handle)
            known = CachedKey.loaded_from(found.version, *found.known)
            if self.may_cache(found):
                self.caches.keys.put(where, known)
        return known

    # --- writing

    def commit(self, request: Request[Any], changes: Iterable[store.Change]) -> Steps[store.Committed]:
        """Commit a request's changes, exactly once however often it comes.

        Raises MemberBehind for items that were read under another lease: they are read again with the next try;
        SmkRolled where what this rests on was sealed anew, or is to be.
        """
        if self.is_read_write() and not self.was_read_write_since(request.lapses):
            raise self.behind().refusal()
        if request.session is not None:
            yield from self.check_alive(request)
        made = tuple(changes)
        records, is_old = yield from self._made_for(made)
        if request.session is not None and request.who.cluster_version != records.version:
            request.session = yield from self.open_session(request.who.sealed, self.open_token(request.who.sealed))
        # What was made under another generation of the SMK must not be stored: so its name is used up instead.
        # The cluster record itself is put in place of the version that was read, which is a fence.
        fence = (_never(records),) if is_old else () if any(map(_is_cluster, made)) else (records.fence(),)
        message = self._commit_of(request, (*made, *fence))
        try:
            committed = yield from ask(Peer.STORE, store.COMMIT, message)
        except VersionConflict as error:
            now, _ = yield from self._made_for(made)
            if is_old or (now.instance == records.instance and _rules(now) != _rules(records)):
                raise SmkRolled(_ROLLED) from error
            yield from self._check_rolling(error)
            if now.version != records.version:
                restored = ClusterRestored("the cluster was restored, or opened by force, while this was done")
                raise restored.final() from None
            raise error.final() from None
        except (NameTaken, ObjectUnknown) as error:  # so it was when it was applied, whatever was read before
            raise error.final().for_good() from None
        except LnhError as error:
            raise (error.final() if error.of_state else error) from None
        request.committed = True
        if not committed.duplicate:
            yield from self._written(message)
        return committed

    @staticmethod
    def _commit_of(request: Request[Any], changes: tuple[store.Change, ...]) -> store.Commit:
        return store.Commit(
            client=request.client_id,
            session=request.envelope.connection,
            sequence=request.envelope.sequence,
            issued_at=request.envelope.issued_at,
            changes=changes,
        )

    def _made_for(self, changes: Iterable[store.Change]) -> Steps[tuple[Records, bool]]:
        """Return the records' means of the instance that changes were made for, and that the cluster still is.

        Tells too whether some were made under another generation of the SMK than seals what is written now. Raises
        ClusterRestored.
        """
        records = yield from self.started()
        others = [change for change in changes if isinstance(change, store.Put) and not records.made(change)]
        if not all(records.made_of_old(change) for change in others):
            raise ClusterRestored("the cluster was restored while this was done")
        return records, bool(others)

    def _check_rolling(self, conflict: VersionConflict) -> Steps[None]:
        """Raise SmkRolled in place of a conflict that may be with a rollover of the SMK, which seals records anew."""
        records = yield from self.started()
        shared, _ = yield from self.shared_smk()
        if shared is not None and not shared.is_whole(records.instance):
            raise SmkRolled(_ROLLED) from conflict

    def _written(self, commit: store.Commit, *, lasting: bool = True) -> Steps[None]:
        if self.records is not None:
            yield from self._items(self.records).written(commit.changes, lasting=lasting)

    def acted_before(self, request: Request[Any]) -> Steps[bool]:
        """Tell whether this request, which comes again, has acted; raises its first error if it was refused."""
        envelope = request.envelope
        recall = store.Recall(client=request.client_id, session=envelope.connection, sequence=envelope.sequence)
        try:
            return (yield from ask(Peer.STORE, store.RECALL, recall)).known
        except LnhError as error:
            if isinstance(error, VersionConflict):
                yield from self._check_rolling(error)
            raise (error.final() if error.of_state else error) from None

    def own_commit(self, *changes: store.Change, lasting: bool = True) -> Steps[bool]:
        """Commit changes of the worker's own (lock counts); False when another worker was first.

        Args:
            lasting: whether the core is to keep of what age they are (`Items.written`).
        """
        records, is_old = yield from self._made_for(changes)
        if is_old:
            raise SmkRolled(_ROLLED)
        self._own_sequence += 1
        message = store.Commit(
            client=self.worker,
            session=self.worker,
            sequence=self._own_sequence,
            issued_at=int(self.utc() * 1000),
            # The cluster record itself is put in place of the version that was read, which is a fence.
            changes=changes if any(_is_cluster(change) for change in changes) else (*changes, records.fence()),
        )
        try:
            yield from ask(Peer.STORE, store.COMMIT, message)
        except (VersionConflict, ObjectUnknown):
            return False
        yield from self._written(message, lasting=lasting)
        return True

    # --- what others look at

    def take_uses(self) -> list[hsm.AuditEntry]:
        """Return the uses of keys since the last call, one entry a key."""
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
        """Return what `lnh status` shows of this worker."""
        return {
            "operations": self.operations,
            "refused": self.refused,
            "sessions": len(self.caches.sessions),
            "keys": len(self.caches.keys),
            "leased": self.is_leased(),
        }


# Refusals of this member alone: what another one forwarded is declined instead.
_LEFT_TO_OTHERS: Final = (MemberReadOnly, MemberBehind)

# Errors of a peer that tried what it may not: recorded whatever the operation.
REFUSALS: Final = (PermissionDenied, ChannelInvalid, SealBroken, StateRolledBack)


def _never(records: Records) -> store.Require:
    """Make the change that has any commit refused, so that its name is used up."""
    return store.Require(key=records.fence().key, version=NEVER)


def _rules(records: Records) -> tuple[int, str]:
    """Return what changes in the cluster record while what is made may be made again: the SMK in use, the version."""
    return records.generation, records.product


def _is_cluster(change: store.Change) -> bool:
    return isinstance(change, store.Put) and change.key.table == TABLES[ClusterRecord]


__all__ = ["CLUSTER_RECORD", "Ask", "Handler", "Identity", "Request", "Served", "WorkerCore"]
