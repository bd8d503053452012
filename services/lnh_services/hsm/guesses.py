"""How often a password may be guessed, and when again. Pure: the time is passed in, the caller stores the records.

An attempt is written down as failed before Argon2id runs, and taken back when it succeeds; so however many come at
once, through however many members, no more are made than these rules allow. They are counted twice:

- by pair, of a client and whom it says it is: ten failures lock the pair for a quarter of an hour;
- by role holder, over all clients: from the twentieth failure on the next attempt waits, twice as long each time, up to
  an hour. A failure is forgiven an hour after the last.

A client that succeeded within the last thirty days is counted by its own pair alone, so that others' guessing does not
keep it out; those who are not registered are many under one name, and are never such a client.

Where the limit is reached only because of attempts that are under way, the next is Busy: it waits, by trying again, for
theirs to end. What is locked or delayed is refused at once and told for how long: an answer held back for an hour helps
nobody. An attempt of which nothing is heard for a minute has failed.

An attempt has a name (`attempt`), made of all that the client sent: a request that comes again, because no answer came
in time or its member was lost, is the same attempt, at the same password, and is counted once. It is checked again all
the same, also where nothing else would be: nobody learns anything from it that the first one did not tell.

All records of one holder are in one scope of the table, so that whoever resets its password finds them.
"""

from __future__ import annotations

import enum
import hmac
from typing import Final, NamedTuple

from msgspec.structs import replace

from lnh_common import codec, limits
from lnh_common.errors import Busy, PasswordLocked
from lnh_common.messages.session import Credential, Role
from lnh_common.messages.store import Item, Put
from lnh_services.hsm.records import TABLES, HolderLockRecord, LockRecord, Records

UNREGISTERED: Final = bytes(16)
HOLDER: Final = b"holder"  # the id of the one record that counts over all clients
TABLE: Final = TABLES[LockRecord]
_KNOWN: Final = limits.FAILURES_BEFORE_LOCK  # the last attempts of a pair that are known by name: all that may count
_ATTEMPT_BYTES: Final = 16
CLEARED_AT_ONCE: Final = 2048  # pairs of one holder, in one commit
# A scope has a part of the hash only, so that made-up names cannot fill the store; the key keeps anybody from
# finding a name that shares another's.
_SCOPE_BYTES: Final = 3


def scope(records: Records, role: Role, name: str, keyring: bytes) -> bytes:
    """Where the locks of a role's holder are kept, whether it exists or not."""
    covered = codec.encode(["lock", role.value, name, keyring])
    return hmac.digest(records.key, covered, "sha256")[:_SCOPE_BYTES]


def attempt(records: Records, signed: bytes, given: Credential) -> bytes:
    """The name of an attempt: the same when the same message comes again, and another one for whatever else is tried.

    Args:
        signed: all that the message sealed, a secret of the client's among it (`OpenedCredential`).
        given: which of its credentials is tried.
    """
    covered = codec.encode(["attempt", signed, given.role.value, given.name, given.keyring, given.password])
    return hmac.digest(records.key, covered, "sha256")[:_ATTEMPT_BYTES]


class Locks(NamedTuple):
    """What is known of failed attempts: of the pair, and of the holder over all clients.

    Args:
        registered: whether the client is one.
        known: the pair's attempts that were counted last, by name.
    """

    pair: LockRecord = LockRecord()
    holder: HolderLockRecord = HolderLockRecord()
    registered: bool = False
    known: tuple[bytes, ...] = ()

    def is_trusted(self, now: int) -> bool:
        """Whether the client succeeded lately, so that others' failures are no concern of it."""
        return self.registered and self.pair.succeeded > 0 and now - self.pair.succeeded < limits.SUCCEEDED_LATELY


class Outcome(enum.Enum):
    """How an attempt ended."""

    RIGHT = "right"
    WRONG = "wrong"
    NOT_MADE = "not made"


class Counted(NamedTuple):
    """The records to store; `holder` is None where it stays as it was."""

    pair: LockRecord
    holder: HolderLockRecord | None
    known: tuple[bytes, ...]


def is_counted(locks: Locks, named: bytes) -> bool:
    """Whether this attempt was counted before: it is to be made again, and neither reserved nor ended."""
    return named in locks.known


def reserve(locks: Locks, now: int, named: bytes) -> Counted:
    """Count an attempt as failed; store what this answers before the attempt is made.

    Args:
        now: UTC seconds.
        named: the attempt.

    Raises PasswordLocked, saying for how many seconds; Busy while attempts under way may still turn out right.
    """
    pair, holder = locks.pair, locks.holder
    failures = pair.failures if now < pair.until else 0
    running = _running(pair.running, pair.begun, now)
    if failures >= limits.FAILURES_BEFORE_LOCK:
        if running:
            raise Busy(f"{running} logins of this client to this role are under way")
        raise _locked(f"{failures} failed logins; locked", pair.until - now, limits.LOCK_SECONDS)
    counted = LockRecord(
        failures=failures + 1,
        until=now + limits.LOCK_SECONDS,
        succeeded=pair.succeeded,
        running=running + 1,
        begun=now,
    )
    known = _with(locks.known, (named,))
    if locks.is_trusted(now):
        return Counted(counted, None, known)
    over_all = _left(holder, now)
    running = _running(holder.running, holder.last, now)
    wait = min(holder.last, now) + delay(over_all) - now
    if wait > 0:
        if running:
            raise Busy(f"{running} logins to this role are under way")
        raise _locked(f"{over_all} failed logins of this role from all clients; delayed", wait, limits.DELAY_MAX)
    return Counted(counted, HolderLockRecord(failures=over_all + 1, last=now, running=running + 1), known)


def end(locks: Locks, outcome: Outcome, now: int, named: bytes, *, over_all: bool) -> Counted:
    """An attempt that was reserved has ended.

    Args:
        locks: as they are now.
        named: the attempt.
        over_all: whether it was counted over all clients too.

    A right one forgives the pair's failures, but those of others stay; attempts under way stay counted.
    """
    pair, holder = locks.pair, locks.holder
    running = max(0, pair.running - 1)
    failures = {
        Outcome.RIGHT: running,
        Outcome.WRONG: pair.failures,
        Outcome.NOT_MADE: max(0, pair.failures - 1),
    }[outcome]
    succeeded = now if outcome is Outcome.RIGHT else pair.succeeded
    known = locks.known if outcome is Outcome.WRONG else tuple(each for each in locks.known if each != named)
    left = replace(pair, failures=failures, succeeded=succeeded, running=running)
    if not over_all:
        return Counted(left, None, known)
    taken_back = 0 if outcome is Outcome.WRONG else 1
    return Counted(
        left,
        HolderLockRecord(
            failures=max(0, _left(holder, now) - taken_back), last=holder.last, running=max(0, holder.running - 1)
        ),
        known,
    )


def merged(locks: Locks, failures: int, now: int, attempts: tuple[bytes, ...] = ()) -> Counted:
    """Failures on a member that was read-only are counted where all members see them.

    Args:
        attempts: the last of them by name: what was counted elsewhere too is one failure.
    """
    pair, holder = locks.pair, locks.holder
    before = pair.failures if now < pair.until else 0
    failures = max(0, failures - sum(is_counted(locks, each) for each in attempts))
    counted = replace(pair, failures=before + failures, until=now + limits.LOCK_SECONDS)
    over_all = replace(holder, failures=_left(holder, now) + failures, last=now)
    return Counted(counted, over_all, _with(locks.known, attempts))


def delay(failures: int) -> int:
    """Seconds between the last attempt and the next after so many failures over all clients."""
    beyond = failures - limits.FAILURES_BEFORE_DELAY
    return 0 if beyond < 0 else min(limits.DELAY_MAX, 1 << min(beyond, 32))


def clear(records: Records, items: tuple[Item, ...]) -> list[Put]:
    """The changes that forget every failure of a holder, from the items of its scope: none where there is nothing to
    forget. Raises SealBroken.
    """
    changes = []
    for item in items:
        record: LockRecord | HolderLockRecord
        old: LockRecord | HolderLockRecord
        if item.key.id == HOLDER:
            old, record = records.read(HolderLockRecord, item), HolderLockRecord()
        else:
            old = records.read(LockRecord, item)
            record = LockRecord(succeeded=old.succeeded)
        if old.failures:
            changes.append(records.put(record, item.key.id, item.version, scope=item.key.scope))
    return changes


def _with(known: tuple[bytes, ...], more: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return (*(each for each in known if each not in more), *more)[-_KNOWN:]


def _running(running: int, begun: int, now: int) -> int:
    """How many attempts are under way; one of which nothing was heard for long has failed."""
    return running if abs(now - begun) < limits.ATTEMPT_SECONDS else 0


def _left(holder: HolderLockRecord, now: int) -> int:
    """Failures over all clients that are not forgiven yet."""
    return max(0, holder.failures - max(0, now - holder.last) // limits.FORGIVEN_AFTER)


def _locked(what: str, seconds: int, at_most: int) -> PasswordLocked:
    # A clock that went back must not lock for longer than a lock lasts.
    seconds = min(seconds, at_most)
    return PasswordLocked(f"{what} for another {seconds} s", {"seconds": seconds})
