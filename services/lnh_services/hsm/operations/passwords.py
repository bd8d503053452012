"""Checking a password: an attempt is reserved before Argon2id runs, and refunded on success.

So however many attempts come at once, through however many members, no more than the limit are made.
Ten failures lock that (client, role holder) pair for a quarter of an hour. A name that does not exist
costs the same work, the same lock and gets the same words as a wrong password.
"""

from __future__ import annotations

import hmac
from typing import Any, Final

from lnh_common import limits
from lnh_common.errors import Busy, PasswordIncorrect, PasswordLocked, PasswordMustChange
from lnh_common.messages import hsm
from lnh_common.messages.session import Credential
from lnh_services.hsm import credentials
from lnh_services.hsm.records import CredentialRecord, LockRecord, record_id
from lnh_services.hsm.steps import Peer, Steps, ask
from lnh_services.hsm.worker_core import Request, WorkerCore

_WRONG: Final = "wrong name or password"
_RESERVE_TRIES: Final = 16
# Locks are kept by a part of the hash, so that made-up names cannot fill the store.
_LOCK_BYTES: Final = 3


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
    client = request.client.id if request.client else b""
    lock = record_id("lock", client, given.role.value, given.name, given.keyring)[:_LOCK_BYTES]
    reserved = yield from _reserve(worker, request, given, lock)
    where = credentials.credential_id(given.role, given.name, given.keyring)
    stored, version = yield from worker.versioned(CredentialRecord, where, cached=False)
    if stored is None:
        salt = hmac.digest(worker.secrets().record_key, b"no such holder" + where, "sha256")[:16]
        derivation = credentials.derivation(given.password, salt)
    else:
        derivation = credentials.derivation(given.password, stored.salt, stored.argon2)
    derived = yield from ask(Peer.ARGON2, hsm.DERIVE, derivation)
    identity = worker.secrets()
    if stored is None or not credentials.is_correct(
        stored, derived.key, identity.smk_of(stored.generation), identity.secrets.cluster
    ):
        yield from worker.audit(request, PasswordIncorrect.__name__, given.name or given.role.value, given.role.value)
        raise PasswordIncorrect(_WRONG)
    yield from _refund(worker, lock, reserved)
    if stored.must_change and not may_be_first:
        raise PasswordMustChange(f"this {given.role.name} password is a first one, good only for being changed")
    return stored, version, derived.key


def _reserve(worker: WorkerCore, request: Request[Any], given: Credential, lock: bytes) -> Steps[int]:
    """Count an attempt as failed before it is made; how many had failed before it."""
    records = yield from worker.started()
    for _ in range(_RESERVE_TRIES):
        record, version = yield from worker.versioned(LockRecord, lock, cached=False)
        now = int(worker.utc())
        failures = record.failures if record else 0
        if record is not None and record.until <= now:
            failures = 0
        if failures >= limits.FAILURES_BEFORE_LOCK:
            yield from worker.audit(request, PasswordLocked.__name__, given.name or given.role.value, given.role.value)
            assert record is not None, "failures were read from it"
            raise PasswordLocked(
                f"{failures} failed logins; locked for another {record.until - now} s",
                {"seconds": record.until - now},
            )
        counted = LockRecord(failures=failures + 1, until=now + limits.LOCK_SECONDS)
        if (yield from worker.own_commit(records.put(counted, lock, version))):
            return failures
    raise Busy("many logins of this role at once")


def _refund(worker: WorkerCore, lock: bytes, failures: int) -> Steps[None]:
    """The attempt succeeded: no failure is left of this holder's."""
    records = yield from worker.started()
    for _ in range(_RESERVE_TRIES):
        record, version = yield from worker.versioned(LockRecord, lock, cached=False)
        # Attempts still running keep their reservation; what had failed before is forgiven.
        left = max(0, (record.failures if record else 0) - failures - 1)
        until = record.until if record else 0
        if (yield from worker.own_commit(records.put(LockRecord(failures=left, until=until), lock, version))):
            return
    raise Busy("many logins of this role at once")
