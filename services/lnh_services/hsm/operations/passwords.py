"""Checking a password: an attempt is reserved before Argon2id runs, and refunded on success.

How many may fail, and what waits for how long, is in `guesses.py`; a request that comes again is the same attempt. A
name that does not exist costs the same work, the same lock and gets the same words as a wrong password.
"""

from __future__ import annotations

import hmac
from typing import Any, Final, NamedTuple

import msgspec

from lnh_common.errors import (
    Busy,
    MemberReadOnly,
    OutcomeUnknown,
    PasswordIncorrect,
    PasswordLocked,
    PasswordMustChange,
)
from lnh_common.messages import hsm, store
from lnh_common.messages.base import Empty
from lnh_common.messages.session import Credential, Role
from lnh_services.hsm import answers, credentials, guesses
from lnh_services.hsm.guesses import Counted, Locks, Outcome
from lnh_services.hsm.records import AttemptsRecord, CredentialRecord, HolderLockRecord, LockRecord
from lnh_services.hsm.steps import Peer, Steps, ask
from lnh_services.hsm.worker_core import Request, WorkerCore

_WRONG: Final = "wrong name or password"
_RESERVE_TRIES: Final = 64


class _Versions(NamedTuple):
    """Of the records that count."""

    pair: int
    holder: int
    attempts: int


class _Reserved(NamedTuple):
    """How an attempt is counted.

    Args:
        named: the attempt.
        counted: where all members see it; None where this member, which is read-only, counts by itself.
        before: it comes again: whoever counted it sees to how it ends.
    """

    named: bytes
    counted: Counted | None = None
    before: bool = False


def derive(password: str) -> Steps[credentials.Material]:
    """What to keep of a new password; raises Busy when too many wait for Argon2id."""
    derivation = credentials.derivation(password)
    derived = yield from ask(Peer.ARGON2, hsm.DERIVE, derivation)
    return credentials.material(derivation, derived.key)


def verify(
    worker: WorkerCore, request: Request[Any], given: Credential, *, may_be_first: bool = False
) -> Steps[tuple[CredentialRecord, int, bytes]]:
    """Check a credential.

    Args:
        may_be_first: accept one that is good for nothing but being changed.

    Returns its record, the record's version, and the Argon2id result that opens what is sealed to it.
    Raises PasswordIncorrect, PasswordLocked, PasswordMustChange, Busy.
    """
    reserved = yield from _reserve(worker, request, given)
    where = credentials.credential_id(given.role, given.name, given.keyring)
    stored, version = yield from worker.versioned(CredentialRecord, where, cached=False)
    if stored is None:
        salt = hmac.digest(worker.secrets().record_key, b"no such holder" + where, "sha256")[:16]
        derivation = credentials.derivation(given.password, salt)
    else:
        derivation = credentials.derivation(given.password, stored.salt, stored.argon2)
    if request.client is None and request.session is None:
        derivation = msgspec.structs.replace(derivation, stranger=True)
    try:
        derived = yield from ask(Peer.ARGON2, hsm.DERIVE, derivation)
    except Busy:
        yield from _end(worker, request, given, reserved, Outcome.NOT_MADE)
        raise
    identity = worker.secrets()
    if stored is None or not credentials.is_correct(
        stored, derived.key, identity.smk_of(stored.generation), identity.secrets.cluster
    ):
        wrong = PasswordIncorrect(_WRONG)
        yield from worker.refusal(request, wrong, given.name or given.role.value, given.role.value)
        yield from _end(worker, request, given, reserved, Outcome.WRONG)
        raise wrong
    yield from _end(worker, request, given, reserved, Outcome.RIGHT)
    if stored.must_change and not may_be_first:
        raise PasswordMustChange(f"this {given.role.name} password is a first one, good only for being changed")
    return stored, version, derived.key


def _locks(worker: WorkerCore, client: bytes, scope: bytes) -> Steps[tuple[Locks, _Versions]]:
    """What has failed, and the versions of the records that say so."""
    pair, version = yield from worker.versioned(LockRecord, client, cached=False, scope=scope)
    holder, over_all = yield from worker.versioned(HolderLockRecord, guesses.HOLDER, cached=False, scope=scope)
    attempts, named = yield from worker.versioned(AttemptsRecord, client, cached=False, scope=scope)
    locks = Locks(
        pair or LockRecord(),
        holder or HolderLockRecord(),
        client != guesses.UNREGISTERED,
        attempts.names if attempts is not None else (),
    )
    return locks, _Versions(version, over_all, named)


def _keep(
    worker: WorkerCore, client: bytes, scope: bytes, before: Locks, counted: Counted, versions: _Versions
) -> Steps[bool]:
    """Store all, or nothing: False when somebody else was first."""
    records = yield from worker.started()
    changes: list[store.Change] = [records.put(counted.pair, client, versions.pair, scope=scope)]
    if counted.holder is not None:
        changes.append(records.put(counted.holder, guesses.HOLDER, versions.holder, scope=scope))
    if counted.known != before.known:
        known = AttemptsRecord(names=counted.known)
        changes.append(records.put(known, client, versions.attempts, scope=scope))
    return (yield from worker.own_commit(*changes))


def _reserve(worker: WorkerCore, request: Request[Any], given: Credential) -> Steps[_Reserved]:
    """Count an attempt as failed before it is made."""
    records = yield from worker.started()
    scope = guesses.scope(records, given.role, given.name, given.keyring)
    assert request.credential is not None, "a password comes in a message of its own"
    named, client = guesses.attempt(records, request.credential.signed, given), _client(request)
    for _ in range(_RESERVE_TRIES):
        locks, versions = yield from _locks(worker, client, scope)
        if guesses.is_counted(locks, named):
            return _Reserved(named, before=True)
        try:
            counted = guesses.reserve(locks, int(worker.utc()), named)
        except PasswordLocked as error:
            yield from worker.refusal(request, error, given.name or given.role.value, given.role.value)
            raise
        try:
            if (yield from _keep(worker, client, scope, locks, counted, versions)):
                return _Reserved(named, counted)
        except MemberReadOnly:
            yield from ask(Peer.CORE, hsm.GUESS, hsm.Guess(holder=scope, client=client, attempt=named))
            return _Reserved(named)
        except OutcomeUnknown:
            continue  # look whether it was counted
    raise Busy("many logins of this role at once")


def _client(request: Request[Any]) -> bytes:
    return request.client.id if request.client else guesses.UNREGISTERED


def _end(
    worker: WorkerCore, request: Request[Any], given: Credential, reserved: _Reserved, outcome: Outcome
) -> Steps[None]:
    """The attempt has ended."""
    if reserved.before:
        return
    records = yield from worker.started()
    scope = guesses.scope(records, given.role, given.name, given.keyring)
    client, (named, counted, _) = _client(request), reserved
    if counted is None:
        ended = hsm.Guess(holder=scope, client=client, attempt=named, ended=outcome.value)
        yield from ask(Peer.CORE, hsm.GUESS, ended)
        return
    for _ in range(_RESERVE_TRIES):
        locks, versions = yield from _locks(worker, client, scope)
        left = guesses.end(locks, outcome, int(worker.utc()), named, over_all=counted.holder is not None)
        if (yield from _keep(worker, client, scope, locks, left, versions)):
            return
    if outcome is not Outcome.WRONG:  # which it becomes by itself, and must not be tried again
        raise Busy("many logins of this role at once")


def merge(worker: WorkerCore) -> Steps[None]:
    """Tell the cluster what failed while this member was read-only; raises MemberReadOnly when it is again."""
    for guessed in (yield from ask(Peer.CORE, hsm.GUESSED, Empty())).guessed:
        scope, client = guessed.holder, guessed.client
        for _ in range(_RESERVE_TRIES):
            locks, versions = yield from _locks(worker, client, scope)
            counted = guesses.merged(locks, guessed.failures, int(worker.utc()), guessed.attempts)
            if (yield from _keep(worker, client, scope, locks, counted, versions)):
                yield from ask(Peer.CORE, hsm.GUESSES_TOLD, guessed)
                break


def forgive(worker: WorkerCore, role: Role, name: str = "", keyring: bytes = b"") -> Steps[None]:
    """After a password was reset by a superior: no failure of before counts any more. Raises Busy."""
    records = yield from worker.started()
    scope = guesses.scope(records, role, name, keyring)
    for _ in range(_RESERVE_TRIES):
        locks = store.Scan(table=guesses.TABLE, scope=scope, limit=guesses.CLEARED_AT_ONCE, body=True)
        found = yield from worker.genuine(answers.scan(locks), records)
        changes = guesses.clear(records, found.items)
        if not changes or (yield from worker.own_commit(*changes)):
            return
    raise Busy("many logins of this role at once")
