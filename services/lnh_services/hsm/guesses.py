"""How often a password may be guessed, and when again. Pure: the time is passed in, the caller stores the records.

An attempt is written down as failed before Argon2id runs, and taken back when it succeeds; so however many come at
once, through however many members, no more are made than these rules allow. They are counted twice:

- by pair, of a client and whom it says it is: ten failures lock the pair for a quarter of an hour;
- by role holder, over all clients: from the twentieth failure on the next attempt waits, twice as long each time, up to
  an hour. A failure is forgiven an hour after the last.

A client that succeeded within the last thirty days is counted by its own pair alone, so that others' guessing does not
keep it out; those who are not registered are many under one name, and are never such a client. What waits is refused at
once and says for how long: an answer held back for an hour helps nobody.

All records of one holder are in one scope of the table, so that whoever resets its password finds them.
"""

from __future__ import annotations

import hmac
from typing import Final, NamedTuple

from lnh_common import codec, limits
from lnh_common.errors import PasswordLocked
from lnh_common.messages.session import Role
from lnh_common.messages.store import Item, Put
from lnh_services.hsm.records import TABLES, HolderLockRecord, LockRecord, Records

UNREGISTERED: Final = bytes(16)
HOLDER: Final = b"holder"  # the id of the one record that counts over all clients
TABLE: Final = TABLES[LockRecord]
CLEARED_AT_ONCE: Final = 2048  # pairs of one holder, in one commit
# A scope has a part of the hash only, so that made-up names cannot fill the store; the key keeps anybody from
# finding a name that shares another's.
_SCOPE_BYTES: Final = 3


def scope(records: Records, role: Role, name: str, keyring: bytes) -> bytes:
    """Where the locks of a role's holder are kept, whether it exists or not."""
    covered = codec.encode(["lock", role.value, name, keyring])
    return hmac.digest(records.key, covered, "sha256")[:_SCOPE_BYTES]


class Locks(NamedTuple):
    """What is known of failed attempts: of the pair, and of the holder over all clients.

    Args:
        registered: whether the client is one.
    """

    pair: LockRecord = LockRecord()
    holder: HolderLockRecord = HolderLockRecord()
    registered: bool = False

    def is_trusted(self, now: int) -> bool:
        """Whether the client succeeded lately, so that others' failures are no concern of it."""
        return self.registered and self.pair.succeeded > 0 and now - self.pair.succeeded < limits.SUCCEEDED_LATELY


class Reserved(NamedTuple):
    """The records with one more attempt counted as failed.

    Args:
        holder: None where it stays as it was.
        before: how many failures of the pair there were.
    """

    pair: LockRecord
    holder: HolderLockRecord | None
    before: int


def reserve(locks: Locks, now: int) -> Reserved:
    """Count an attempt as failed; store what this answers before the attempt is made.

    Args:
        now: UTC seconds.

    Raises PasswordLocked, saying for how many seconds.
    """
    pair, holder = locks.pair, locks.holder
    failures = pair.failures if now < pair.until else 0
    if failures >= limits.FAILURES_BEFORE_LOCK:
        raise _locked(f"{failures} failed logins; locked", pair.until - now, limits.LOCK_SECONDS)
    counted = LockRecord(failures=failures + 1, until=now + limits.LOCK_SECONDS, succeeded=pair.succeeded)
    if locks.is_trusted(now):
        return Reserved(counted, None, failures)
    over_all = _left(holder, now)
    wait = min(holder.last, now) + delay(over_all) - now
    if wait > 0:
        raise _locked(f"{over_all} failed logins of this role from all clients; delayed", wait, limits.DELAY_MAX)
    return Reserved(counted, HolderLockRecord(failures=over_all + 1, last=now), failures)


def refund(locks: Locks, before: int, now: int, *, counted: bool) -> Reserved:
    """The attempt succeeded.

    Args:
        locks: as they are now.
        before: the pair's failures when it was reserved: they are forgiven; attempts still running stay counted.
        counted: whether it was counted over all clients. Others' failures stay.
    """
    pair, holder = locks.pair, locks.holder
    left = LockRecord(failures=max(0, pair.failures - before - 1), until=pair.until, succeeded=now)
    if not counted:
        return Reserved(left, None, before)
    return Reserved(left, HolderLockRecord(failures=max(0, _left(holder, now) - 1), last=holder.last), before)


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


def _left(holder: HolderLockRecord, now: int) -> int:
    """Failures over all clients that are not forgiven yet."""
    return max(0, holder.failures - max(0, now - holder.last) // limits.FORGIVEN_AFTER)


def _locked(what: str, seconds: int, at_most: int) -> PasswordLocked:
    # A clock that went back must not lock for longer than a lock lasts.
    seconds = min(seconds, at_most)
    return PasswordLocked(f"{what} for another {seconds} s", {"seconds": seconds})
