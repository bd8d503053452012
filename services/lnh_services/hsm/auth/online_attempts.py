"""Limits how often a password may be guessed, where all members see it. Pure: the time is passed in, the caller stores.

`lockout.py` says what counts and why. Here are the two places that all members see:

- by pair, of a client and whom it says it is: ten failures lock the pair for a quarter of an hour;
- by role holder, over all clients: from the twentieth failure on the next attempt waits, twice as long each time, up to
  an hour. A failure is forgiven an hour after the last.

An attempt goes through `check` (is it worth an Argon2id?), Argon2id, `reserve` (its guess is written down as failed),
the comparison, and `end` (the failure stays, or is taken back). However many come at once, through however many
members, no more guesses are compared than these rules allow.

A client that succeeded within the last thirty days is counted by its own pair alone, so that others' guessing does not
keep it out; clients that are not registered are many under one name, and are never trusted so.

Where the limit is reached only because of guesses that began just now, the next is Busy: it waits, by trying again, for
theirs to end. An attempt that is locked or delayed is refused at once and told for how long: an answer held back for an
hour helps nobody.

**Names that nobody has** are counted as all others are, or it would show. Their records have a bound and an end. Each
name at which a client failed and never got in takes a place; a client has `NAMES_TRIED` of them, and so have all
together that are not registered. Without a free place there are no attempts at another name. The counting of a name
that has a place never changes, so the bound gives nobody a guess. When nothing known of a name counts any more its
place is free, and the locks of a name that was nobody's are erased (`worker/sweeping.py`).

**Locks that stay** are a policy (`lock_after`). What counts for them are attempts that ended wrong, through any client,
since the last right one (`AttemptsRecord.failed`): no fault and no number of right logins at once locks anybody out. A
holder that is locked so hears what a wrong password hears, also for the right one, so that nobody learns from it which
names there are, or that a guess was right (`worker/passwords.py`).

All records of one holder are in one scope of their tables, so that a superior that resets its password finds them.
Version 0.1 reads and writes the locks and knows of no open guesses. So they are among the failures that it reads, and
those that its right login forgave count here until they expire, or a right login through a member of now.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final, NamedTuple

from msgspec.structs import replace

from lnh_common import limits
from lnh_common.errors import Busy, PasswordLocked
from lnh_common.messages.session import Credential, Role
from lnh_common.messages.store import Item, Put, Scan
from lnh_common.wire import codec
from lnh_services.hsm.auth.lockout import NAME_BYTES, Attempt, Tally
from lnh_services.hsm.records import TABLES, AttemptsRecord, HolderLockRecord, LockRecord, Open, Record, Records

UNREGISTERED: Final = bytes(16)
HOLDER: Final = b"holder"  # the id of the records that count over all clients
CLEARED: Final = (TABLES[LockRecord], TABLES[AttemptsRecord])  # tables of what a reset forgives
CLEARED_AT_ONCE: Final = 1024  # pairs of one holder, in one commit
COME_AGAIN: Final = 1  # seconds; guesses end within a moment of their beginning
_OPEN_OVER_ALL: Final = limits.FAILURES_BEFORE_DELAY
# A scope has a part of the hash only, so that made-up names cannot fill the store; the key keeps anybody from
# finding a name that shares another's.
_SCOPE_BYTES: Final = 3


def scope(records: Records, role: Role, name: str, keyring: bytes) -> bytes:
    """Return the scope that keeps the locks of a role's holder, whether the holder exists or not."""
    covered = codec.encode(["lock", role.value, name, keyring])
    return hmac.digest(records.naming_key, covered, "sha256")[:_SCOPE_BYTES]


def attempt(records: Records, signed: bytes, given: Credential) -> bytes:
    """Name an attempt: the same when the same message comes again, and another one for any other message.

    Args:
        signed: all that the message sealed, a secret of the client's among it (`OpenedCredential`).
        given: which of its credentials is tried.
    """
    covered = codec.encode(["attempt", signed, given.role.value, given.name, given.keyring, given.password])
    return hmac.digest(records.naming_key, covered, "sha256")[:NAME_BYTES]


def guess(records: Records, given: Credential, derived: bytes) -> bytes:
    """Name a guess: the same for the same password of a holder, until its salt is another one.

    Args:
        derived: what Argon2id made of the password, so that nobody can search for it any cheaper.
    """
    covered = codec.encode(["guess", given.role.value, given.name, given.keyring, derived])
    return hmac.digest(records.naming_key, covered, "sha256")[:NAME_BYTES]


class Locks(NamedTuple):
    """The failed attempts that are known: of the pair, and of the holder over all clients.

    Args:
        registered: whether the client is one.
        of_pair, of_holder: their attempts one by one.
        exists: whether the name has a holder, as far as is known yet.
    """

    pair: LockRecord = LockRecord()
    holder: HolderLockRecord = HolderLockRecord()
    registered: bool = False
    of_pair: AttemptsRecord = AttemptsRecord()
    of_holder: AttemptsRecord = AttemptsRecord()
    exists: bool = False

    def has_place(self) -> bool:
        """Tell whether the client may try the name however many others it tried."""
        return self.of_pair.tried or self.pair.succeeded > 0

    def is_over(self, now: int) -> bool:
        """Tell whether nothing of it counts any more, as if no attempt had ever failed."""
        forgiven = self.holder.last + self.holder.failures * limits.FORGIVEN_AFTER
        return self.pair.until <= now and forgiven <= now

    def is_trusted(self, now: int) -> bool:
        """Tell whether the client succeeded lately, so that others' failures are no concern of it."""
        return self.registered and self.pair.succeeded > 0 and now - self.pair.succeeded < limits.SUCCEEDED_LATELY

    def tally(self, now: int) -> Tally:
        """Return the tally that counts against the pair."""
        tally = Tally.of(self.pair.failures, self.of_pair.open, self.of_pair.names)
        return (tally if now < self.pair.until else tally._replace(wrong=0)).expired(now)

    def over_all(self, now: int) -> Tally:
        """Return the tally that counts against the holder over all clients; the oldest failures are forgiven first."""
        gone = max(0, now - self.holder.last) // limits.FORGIVEN_AFTER
        tally = Tally.of(self.holder.failures, self.of_holder.open)
        left = max(0, tally.failures - gone)
        return Tally(max(0, left - len(tally.open)), tally.open[-left:] if left else ())

    def counting(self, tally: Tally, **lock: int) -> Locks:
        """Replace the tally of the pair, and other fields of its lock."""
        pair = replace(self.pair, failures=tally.failures, **lock)
        of_pair = AttemptsRecord(
            names=tally.names,
            open=tally.open,
            lasting=self.exists or self.of_pair.lasting,
            tried=not pair.succeeded,
        )
        return self._replace(pair=pair, of_pair=of_pair)

    def counting_over_all(self, tally: Tally, last: int) -> Locks:
        """Replace the tally of the holder, whose last attempt began then."""
        tally = tally.bounded(_OPEN_OVER_ALL)
        return self._replace(
            holder=replace(self.holder, failures=tally.failures, last=last),
            of_holder=replace(self.of_holder, open=tally.open, lasting=self.exists or self.of_holder.lasting),
        )

    def failed(self, more: int) -> Locks:
        """Add attempts that ended wrong to those that a lock which stays counts."""
        return self._failing(min(self.of_holder.failed + more, limits.FAILURES_BEFORE_LOCK_MAX))

    def _failing(self, failed: int) -> Locks:
        if failed == self.of_holder.failed:
            return self
        lasting = self.exists or self.of_holder.lasting
        return self._replace(of_holder=replace(self.of_holder, failed=failed, lasting=lasting))

    def succeeded(self) -> Locks:
        """Note that the holder logged in."""
        return self._failing(0)


def locked_until(locks: Locks, now: int) -> int:
    """Return the UTC second until which the pair is locked; 0 where it is not."""
    if locks.tally(now).failures < limits.FAILURES_BEFORE_LOCK or locks.pair.until <= now:
        return 0
    return min(locks.pair.until, now + limits.LOCK_SECONDS)


def delayed_until(locks: Locks, now: int) -> int:
    """Return the UTC second until which the holder's next attempt waits, over all clients; 0 where it does not."""
    until = min(locks.holder.last, now) + delay(locks.over_all(now).failures)
    return until if until > now else 0


def locks_in(records: Records, items: Iterable[Item]) -> dict[bytes, Locks]:
    """Read the locks of one holder, by client, and under `HOLDER` those over all, from items of its scope in `CLEARED`.

    Raises SealBroken.
    """
    found: dict[bytes, Locks] = {}
    for item in items:
        of_holder, is_lock = item.key.id == HOLDER, item.key.table == TABLES[LockRecord]
        locks = found.get(item.key.id, Locks())
        if is_lock and of_holder:
            locks = locks._replace(holder=records.read(HolderLockRecord, item))
        elif is_lock:
            locks = locks._replace(pair=records.read(LockRecord, item))
        elif of_holder:
            locks = locks._replace(of_holder=records.read(AttemptsRecord, item))
        else:
            locks = locks._replace(of_pair=records.read(AttemptsRecord, item))
        found[item.key.id] = locks
    return found


def check(locks: Locks, now: int, name: bytes) -> None:
    """Refuse an attempt that would be refused whatever it guesses, before anything is spent on it.

    Args:
        now: UTC seconds.
        name: of the attempt.

    Raises PasswordLocked, saying for how many seconds; Busy while others may still turn out right.
    """
    tally = locks.tally(now)
    if name in tally.names or tally.open:
        return  # it was answered before, or its guess may be one that is open
    _check_pair(locks, tally, now)
    if not locks.is_trusted(now) and not locks.over_all(now).open:
        _check_holder(locks, locks.over_all(now), now)


def too_many_names() -> PasswordLocked:
    """Make the error of a client that has no place for another name, whether the name has a holder or not."""
    return PasswordLocked(
        f"failed logins at {limits.NAMES_TRIED} names, which is all for one client, or for all machines together that "
        f"are not registered; another name for another {limits.FORGIVEN_AFTER} s, or until an earlier one is forgotten",
        {"seconds": limits.FORGIVEN_AFTER},
    )


def is_counted(locks: Locks, attempt: Attempt, now: int) -> bool:
    """Tell whether this attempt, or its guess, was counted before: it may be compared again, and counts no more."""
    tally = locks.tally(now)
    return tally.has_ended(attempt) or tally.is_open(attempt.guess)


def reserve(locks: Locks, attempt: Attempt, now: int) -> Locks:
    """Count an attempt as failed; store the result before its guess is compared.

    Raises PasswordLocked, saying for how many seconds; Busy while others may still turn out right.
    """
    if is_counted(locks, attempt, now):
        return locks
    tally, over_all = locks.tally(now), locks.over_all(now)
    _check_pair(locks, tally, now)
    counted = locks.counting(tally.begin(attempt, now), until=now + limits.LOCK_SECONDS)
    if locks.is_trusted(now) or over_all.is_open(attempt.guess):
        return counted
    _check_holder(locks, over_all, now)
    return counted.counting_over_all(over_all.begin(attempt, now), now)


def end(locks: Locks, attempt: Attempt, now: int, *, right: bool) -> Locks:
    """Return the locks after an attempt has ended; `locks` are as they are now.

    A right one forgives the pair's earlier failures; of the holder's over all clients it takes back its own guess.
    """
    tally, over_all = locks.tally(now), locks.over_all(now)
    if right:
        succeeded = now if locks.registered else 0
        left = locks.counting(tally.forgiven(attempt), succeeded=succeeded, running=0).succeeded()
        if not over_all.is_open(attempt.guess):
            return left
        return left.counting_over_all(over_all.right_one(attempt), locks.holder.last)
    if tally.has_ended(attempt):
        return locks
    left = locks.counting(tally.wrong_one(attempt)).failed(1)
    if locks.is_trusted(now):
        return left
    return left.counting_over_all(over_all.wrong_one(attempt._replace(name=b"")), locks.holder.last)


def merged(locks: Locks, failures: int, now: int, names: tuple[bytes, ...] = (), open_: tuple[Open, ...] = ()) -> Locks:
    """Count the failures of a member that was read-only where all members see them.

    Args:
        names: the last of them that ended wrong: a failure that was counted elsewhere too is one.
        open_: those among them that have not ended.
    """
    tally, over_all = locks.tally(now), locks.over_all(now)
    new = tuple(name for name in names if name not in tally.names)
    begun = tuple(each for each in open_ if not tally.is_open(each.guess))
    wrong = max(0, failures - len(open_) - (len(names) - len(new)))
    last = (*tally.names, *new)[-limits.FAILURES_BEFORE_LOCK :]
    counted = locks.counting(Tally(tally.wrong + wrong, (*tally.open, *begun), last), until=now + limits.LOCK_SECONDS)
    more = tuple(each for each in begun if not over_all.is_open(each.guess))
    return counted.failed(wrong).counting_over_all(Tally(over_all.wrong + wrong, (*over_all.open, *more)), now)


def delay(failures: int) -> int:
    """Return the seconds between the last attempt and the next after so many failures over all clients."""
    beyond = failures - limits.FAILURES_BEFORE_DELAY
    return 0 if beyond < 0 else min(limits.DELAY_MAX, 1 << min(beyond, 32))


def of_scope(table: str, scope: bytes) -> Scan:
    """Make the scan of the first page of a holder's records in a table of `CLEARED`."""
    return Scan(table=table, scope=scope, limit=CLEARED_AT_ONCE, body=True)


def clear(records: Records, items: tuple[Item, ...]) -> list[Put]:
    """Make the changes that forget every failure of a holder, from items of its scope in `CLEARED`.

    There are none where there is nothing to forget. Raises SealBroken.
    """
    changes = []
    for item in items:
        old: Record
        record: Record
        if item.key.table == TABLES[AttemptsRecord]:
            attempts = old = records.read(AttemptsRecord, item)
            record = replace(attempts, open=(), failed=0)
        elif item.key.id == HOLDER:
            old, record = records.read(HolderLockRecord, item), HolderLockRecord()
        else:
            lock = old = records.read(LockRecord, item)
            record = LockRecord(succeeded=lock.succeeded) if lock.failures else lock
        if old != record:
            changes.append(records.put(record, item.key.id, item.version, scope=item.key.scope))
    return changes


def _check_pair(locks: Locks, tally: Tally, now: int) -> None:
    failures = tally.failures
    if failures < limits.FAILURES_BEFORE_LOCK:
        return
    if running := _running(tally, locks.pair.running, locks.pair.begun, now):
        raise Busy(f"{running} logins of this client to this role are under way", {"seconds": COME_AGAIN})
    raise _locked(f"{failures} failed logins; locked", locks.pair.until - now, limits.LOCK_SECONDS)


def _check_holder(locks: Locks, over_all: Tally, now: int) -> None:
    failures, last = over_all.failures, locks.holder.last
    wait = min(last, now) + delay(failures) - now
    if wait <= 0:
        return
    if running := _running(over_all, locks.holder.running, last, now):
        raise Busy(f"{running} logins to this role are under way", {"seconds": COME_AGAIN})
    raise _locked(f"{failures} failed logins of this role from all clients; delayed", wait, limits.DELAY_MAX)


def _running(tally: Tally, running: int, begun: int, now: int) -> int:
    """Count how many attempts may be under way, those of a member of version 0.1 among them."""
    here = sum(abs(now - each.begun) < limits.ATTEMPT_SECONDS for each in tally.open)
    return here + (running if abs(now - begun) < limits.ATTEMPT_SECONDS else 0)


def _locked(what: str, seconds: int, at_most: int) -> PasswordLocked:
    # A clock that went back must not lock for longer than a lock lasts.
    seconds = max(1, min(seconds, at_most))
    return PasswordLocked(f"{what} for another {seconds} s", {"seconds": seconds})
