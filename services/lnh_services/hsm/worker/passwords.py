"""Checks a password: its guess is written down as a failure before it is compared, and taken back when it is right.

`auth/online_attempts.py` says how many may fail, and which attempts wait for how long; the same message, or the same
guess, is counted once. A name that does not exist costs the same work and the same lock, and gets the same words, as a
wrong password. Two things differ: whether its records may be erased again, and whether the HSM minds their age.

A holder that stays locked (`lasting_locks.py`) hears what a wrong password hears, also for the right one.
"""

from __future__ import annotations

import hmac
from typing import Any, Final, NamedTuple

import msgspec

from lnh_common import limits
from lnh_common.errors import (
    Busy,
    LimitReached,
    MemberReadOnly,
    OutcomeUnknown,
    PasswordIncorrect,
    PasswordLocked,
    PasswordMustChange,
)
from lnh_common.messages import hsm, store
from lnh_common.messages.base import Empty
from lnh_common.messages.hsm import AttemptStep
from lnh_common.messages.session import Credential, Role
from lnh_services.hsm import answers
from lnh_services.hsm.auth import credentials, online_attempts
from lnh_services.hsm.auth.lockout import NAME_BYTES, Attempt
from lnh_services.hsm.auth.online_attempts import Locks
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.records import (
    TABLES,
    AttemptsRecord,
    CredentialRecord,
    HolderLockRecord,
    LockRecord,
    Open,
    Record,
    TriedRecord,
)
from lnh_services.hsm.worker import recording
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.lasting_locks import stays_locked
from lnh_services.hsm.worker.policies import effective_policy
from lnh_services.hsm.worker.request import Request

_WRONG: Final = "wrong name or password"
_WRONG_OR_LOCKED: Final = f"{_WRONG}, or locked until an admin unlocks it (policy lock_after)"
_TRIES: Final = 64


class Pair(NamedTuple):
    """A client and a role holder, whose attempts are counted by themselves.

    Args:
        exists: whether the holder exists, as far as is known yet.
    """

    client: bytes
    scope: bytes
    exists: bool = False


class Versions(NamedTuple):
    """The versions of the records that count."""

    pair: int
    of_pair: int
    holder: int
    of_holder: int


def derive(password: str) -> Steps[credentials.Material]:
    """Derive what to keep of a new password; raises Busy when too many wait for Argon2id."""
    derivation = credentials.derivation(password)
    derived = yield from ask(Peer.ARGON2, hsm.DERIVE, derivation)
    return credentials.material(derivation, derived.key)


def new_credential(
    worker: WorkerCore,
    kept: credentials.Material,
    role: Role,
    *,
    name: str = "",
    keyring: bytes = b"",
    keyring_key: bytes = b"",
    must_change: bool = False,
    born: int = 0,
) -> CredentialRecord:
    """Make a credential of this cluster, of now, under the SMK in use; as `credentials.new_record`."""
    identity = worker.secrets()
    return credentials.new_record(
        kept,
        role=role,
        smk=worker.sealing_smk(),
        cluster=identity.secrets.cluster,
        now=int(worker.utc()),
        name=name,
        keyring=keyring,
        keyring_key=keyring_key,
        must_change=must_change,
        born=born,
    )


def verify(
    worker: WorkerCore, request: Request[Any], given: Credential, *, may_be_first: bool = False
) -> Steps[tuple[CredentialRecord, int, bytes]]:
    """Check a credential.

    Args:
        may_be_first: accept one that is good for nothing but being changed.

    Returns its record, the record's version, and the Argon2id result that opens what is sealed to it. Raises
    PasswordIncorrect, PasswordLocked, PasswordMustChange, Busy.
    """
    records = yield from worker.started()
    assert request.credential is not None, "a password comes in a message of its own"
    name = online_attempts.attempt(records, request.credential.signed, given)
    pair = Pair(
        request.client.id if request.client else online_attempts.UNREGISTERED,
        online_attempts.scope(records, given.role, given.name, given.keyring),
    )
    try:
        yield from _check(worker, pair, name)
        where = credentials.credential_id(given.role, given.name, given.keyring)
        stored, version = yield from worker.versioned(CredentialRecord, where, cached=False)
        pair = pair._replace(exists=stored is not None)
        derived = yield from _derived(worker, request, given, where, stored, name)
        attempt = Attempt(name, online_attempts.guess(records, given, derived))
        counted_here = yield from _reserve(worker, pair, attempt)
    except PasswordLocked as error:
        yield from recording.refusal(request, error, given.name or given.role.value, given.role.value)
        raise
    identity = worker.secrets()
    is_locked = yield from stays_locked(worker, given.role, given.name, given.keyring)  # whatever was guessed
    is_right = stored is not None and credentials.is_correct(
        stored, derived, identity.smk_of(stored.generation), identity.secrets.cluster
    )
    if stored is None or is_locked or not is_right:
        policy = yield from effective_policy(worker, given.keyring)
        wrong = PasswordIncorrect(_WRONG_OR_LOCKED if policy.lock_after else _WRONG)
        # The trail says what the client must not learn.
        recorded = PasswordLocked(_WRONG_OR_LOCKED) if is_locked else wrong
        yield from recording.refusal(request, recorded, given.name or given.role.value, given.role.value)
        yield from _end(worker, pair, attempt, right=False, counted_here=counted_here)
        raise wrong
    yield from _end(worker, pair, attempt, right=True, counted_here=counted_here)
    if stored.must_change and not may_be_first:
        advice = {"advice": f"change the password first: lnh user password -u {given.name}"}
        raise PasswordMustChange(
            f"this {given.role.name} password is a first one, good only for being changed",
            advice if given.role is Role.USER else {},
        )
    return stored, version, derived


def _derived(
    worker: WorkerCore,
    request: Request[Any],
    given: Credential,
    where: bytes,
    stored: CredentialRecord | None,
    name: bytes,
) -> Steps[bytes]:
    """Derive the Argon2id result of the password, also for a holder that does not exist.

    Raises Busy when too many wait.
    """
    if stored is None:
        salt = hmac.digest(worker.secrets().bare.naming_key, b"no such holder" + where, "sha256")[:16]
        derivation = credentials.derivation(given.password, salt)
    else:
        derivation = credentials.derivation(given.password, stored.salt, stored.argon2)
    stranger = request.client is None and request.session is None
    derivation = msgspec.structs.replace(derivation, stranger=stranger, attempt=name)
    return (yield from ask(Peer.ARGON2, hsm.DERIVE, derivation)).key


def read_locks(worker: WorkerCore, pair: Pair) -> Steps[tuple[Locks, Versions]]:
    """Read the failures that count, and the versions of the records that say so."""
    client, scope, exists = pair
    of_pair, attempts = yield from worker.versioned(AttemptsRecord, client, cached=False, scope=scope, lasts=_lasts)
    lock, version = yield from worker.versioned(
        LockRecord, client, cached=False, scope=scope, lasts=lambda _: of_pair is not None and of_pair.lasting
    )
    of_holder, others = yield from worker.versioned(
        AttemptsRecord, online_attempts.HOLDER, cached=False, scope=scope, lasts=_lasts
    )
    holder, over_all = yield from worker.versioned(
        HolderLockRecord,
        online_attempts.HOLDER,
        cached=False,
        scope=scope,
        lasts=lambda _: of_holder is not None and of_holder.lasting,
    )
    locks = Locks(
        lock or LockRecord(),
        holder or HolderLockRecord(),
        client != online_attempts.UNREGISTERED,
        of_pair or AttemptsRecord(),
        of_holder or AttemptsRecord(),
        exists,
    )
    return locks, Versions(version, attempts, over_all, others)


def _lasts(attempts: AttemptsRecord) -> bool:
    return attempts.lasting


def _keep(
    worker: WorkerCore, pair: Pair, before: Locks, after: Locks, versions: Versions, *, names: int | None = None
) -> Steps[bool]:
    """Store the changes, or nothing: False when another worker was first. A lock and its attempts go together.

    Args:
        names: for how many the client has a place; None is any number.

    Raises PasswordLocked where it has none for this one.
    """
    records = yield from worker.started()
    changes: list[store.Change] = []

    def put(record: Record, record_id: bytes, version: int) -> None:
        changes.append(records.put(record, record_id, version, scope=pair.scope))

    if (before.pair, before.of_pair) != (after.pair, after.of_pair):
        put(after.pair, pair.client, versions.pair)
        put(after.of_pair, pair.client, versions.of_pair)
    if (before.holder, before.of_holder) != (after.holder, after.of_holder):
        put(after.holder, online_attempts.HOLDER, versions.holder)
        put(after.of_holder, online_attempts.HOLDER, versions.of_holder)
    if after.of_pair.tried and not before.of_pair.tried:
        changes.append(records.put(TriedRecord(), pair.scope, 0, scope=pair.client, limit=names))
    elif before.of_pair.tried and not after.of_pair.tried:
        changes.append(store.Delete(key=records.key_of(TriedRecord, pair.scope, pair.client)))
    try:
        return not changes or (yield from worker.own_commit(*changes, lasting=pair.exists))
    except LimitReached:
        raise online_attempts.too_many_names() from None


def _check(worker: WorkerCore, pair: Pair, name: bytes) -> Steps[None]:
    """Refuse an attempt that would be refused anyway, before its Argon2id."""
    locks, _ = yield from read_locks(worker, pair)
    if not locks.has_place():
        tried = yield from ask(Peer.STORE, store.COUNT, store.Count(table=TABLES[TriedRecord], scope=pair.client))
        if tried.count >= limits.NAMES_TRIED:
            raise online_attempts.too_many_names()
    online_attempts.check(locks, int(worker.utc()), name)
    if not worker.is_read_write():
        yield from _tell(pair, Attempt(name, bytes(NAME_BYTES)), AttemptStep.CHECK)


def _reserve(worker: WorkerCore, pair: Pair, attempt: Attempt) -> Steps[bool]:
    """Count an attempt as failed before it is compared; tells whether this read-only member counts it itself."""
    for _ in range(_TRIES):
        locks, versions = yield from read_locks(worker, pair)
        counted = online_attempts.reserve(locks, attempt, int(worker.utc()))
        try:
            if (yield from _keep(worker, pair, locks, counted, versions, names=limits.NAMES_TRIED)):
                return False
        except MemberReadOnly:
            yield from _tell(pair, attempt, AttemptStep.BEGIN)
            return True
        except OutcomeUnknown:
            continue  # look whether it was counted
    raise Busy("many logins of this role at once", {"seconds": online_attempts.COME_AGAIN})


def _end(worker: WorkerCore, pair: Pair, attempt: Attempt, *, right: bool, counted_here: bool) -> Steps[None]:
    """End an attempt.

    An attempt whose end cannot be written down stays an open guess: it counts, and only as one.
    """
    if counted_here:
        yield from _tell(pair, attempt, AttemptStep.RIGHT if right else AttemptStep.WRONG)
        return
    for _ in range(_TRIES):
        locks, versions = yield from read_locks(worker, pair)
        left = online_attempts.end(locks, attempt, int(worker.utc()), right=right)
        try:
            if (yield from _keep(worker, pair, locks, left, versions)):
                return
        except MemberReadOnly:
            return
        except OutcomeUnknown:
            continue


def _tell(pair: Pair, attempt: Attempt, step: AttemptStep) -> Steps[None]:
    """Tell the core, which counts for a read-only member; raises PasswordLocked."""
    told = hsm.LoginAttempt(
        holder=pair.scope,
        client=pair.client,
        attempt=attempt.name,
        step=step,
        guess=attempt.guess,
        exists=pair.exists,
    )
    yield from ask(Peer.CORE, hsm.NOTE_ATTEMPT, told)


def merge(worker: WorkerCore) -> Steps[None]:
    """Tell the cluster the failures that this member counted while it was read-only.

    Raises MemberReadOnly when it is again.
    """
    for failed in (yield from ask(Peer.CORE, hsm.FAILED_ATTEMPTS, Empty())).failed:
        pair = Pair(failed.client, failed.holder, failed.exists)
        open_ = tuple(Open(*each) for each in failed.open)
        for _ in range(_TRIES):
            locks, versions = yield from read_locks(worker, pair)
            counted = online_attempts.merged(locks, failed.failures, int(worker.utc()), failed.attempts, open_)
            if (yield from _keep(worker, pair, locks, counted, versions)):
                yield from ask(Peer.CORE, hsm.FAILED_ATTEMPTS_TOLD, failed)
                break


def forgive(worker: WorkerCore, role: Role, name: str = "", keyring: bytes = b"") -> Steps[None]:
    """Forget every earlier failure, after a superior reset the password. Raises Busy."""
    records = yield from worker.started()
    scope = online_attempts.scope(records, role, name, keyring)
    for table in online_attempts.CLEARED:
        scan, tries = online_attempts.of_scope(table, scope), _TRIES
        while True:
            found = yield from worker.genuine(answers.scan(scan), records)
            changes = online_attempts.clear(records, found.items)
            if changes and not (yield from worker.own_commit(*changes, lasting=False)):
                tries -= 1
                if not tries:
                    raise Busy("many logins of this role at once", {"seconds": online_attempts.COME_AGAIN})
            elif not found.more:
                break
            else:
                scan = msgspec.structs.replace(scan, after=found.items[-1].key.id)
