"""Counts attempts at passwords on a member that is read-only, which cannot count them where all members see them.

So it has a budget of its own, fixed and kept on disk, whatever else is known: a holder's password may fail as often
here as one client may fail before it is locked, over all clients, until the member is read-write again. Then the
failures are told to the cluster, and the budget is whole again. Counting is as everywhere (`lockout.py`): a guess is
written down before it is compared, and an open guess, whichever client made it, is counted once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from lnh_common import limits
from lnh_common.errors import LimitReached, MalformedMessage, PasswordLocked, SealBroken
from lnh_common.messages.hsm import AttemptStep, FailedAttempts, LoginAttempt
from lnh_common.wire import codec
from lnh_services import durable
from lnh_services.hsm.auth.lockout import Attempt, Tally
from lnh_services.hsm.records import Open

_FILE_BYTES: Final = 4 * limits.MIB
_PAIRS: Final = 16_384


class _Kept(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The failures of one pair, the open guesses among them, and whether the holder exists.

    Attempts have names since version 0.2.
    """

    holder: bytes
    client: bytes
    failures: int = 0
    names: tuple[bytes, ...] = ()
    open: tuple[Open, ...] = ()
    exists: bool = False

    @property
    def tally(self) -> Tally:
        return Tally.of(self.failures, self.open, self.names)

    def counting(self, tally: Tally) -> _Kept:
        return msgspec.structs.replace(self, failures=tally.failures, names=tally.names, open=tally.open)


class OfflineAttempts:
    """The budget of one member, in a file.

    Raises SealBroken when the file is not one of its own.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._kept: Final[dict[tuple[bytes, bytes], _Kept]] = {}
        data = durable.read_private(path, _FILE_BYTES)
        if data is not None:
            try:
                kept = codec.decode_as(data, list[_Kept], _FILE_BYTES)
            except MalformedMessage as error:
                raise SealBroken(
                    f"{path} is damaged: remove it, and look at the audit trail for failed logins"
                ) from error
            self._kept.update({(each.holder, each.client): each for each in kept})

    def note(self, told: LoginAttempt, now: int) -> None:
        """Take in one step of an attempt.

        Args:
            now: UTC seconds.

        Raises PasswordLocked when the holder's budget is spent; LimitReached, StorageFailed.
        """
        attempt, kept = Attempt(told.attempt, told.guess), self._of(told.holder, told.client)
        kept = msgspec.structs.replace(kept, exists=kept.exists or told.exists)
        of_holder = [each for each in self._kept.values() if each.holder == told.holder]
        match told.step:
            case AttemptStep.CHECK:
                if not any(each.open for each in of_holder):
                    self._check(kept, of_holder, attempt)
            case AttemptStep.BEGIN:
                if not any(each.tally.is_open(attempt.guess) for each in of_holder):
                    self._check(kept, of_holder, attempt)
                    if not kept.tally.has_ended(attempt):
                        self._set(kept.counting(kept.tally.begin(attempt, now)))
            case AttemptStep.WRONG:
                self._set(kept.counting(kept.tally.wrong_one(attempt)))
            case AttemptStep.RIGHT:
                for each in of_holder:
                    if each.tally.is_open(attempt.guess):
                        self._set(each.counting(each.tally.right_one(attempt)))

    def _check(self, kept: _Kept, of_holder: list[_Kept], attempt: Attempt) -> None:
        """Raise PasswordLocked, LimitReached unless an attempt at this holder may be counted, or was."""
        spent = sum(each.failures for each in of_holder)
        if kept.tally.has_ended(attempt):
            return
        if spent >= limits.FAILURES_BEFORE_LOCK:
            raise PasswordLocked(
                f"{spent} failed logins while this member is read-only; more when it is connected to its primary"
            )
        if not kept.failures and len(self._kept) >= _PAIRS:
            raise LimitReached(f"failed logins of {_PAIRS} clients and roles on a read-only member")

    def told(self, told: FailedAttempts) -> None:
        """Drop the failures that the cluster knows of now; those that ended or began since are still to be told."""
        kept = self._of(told.holder, told.client)
        known = set(told.open)
        tally = Tally(
            max(0, kept.tally.wrong - (told.failures - len(told.open))),
            tuple(each for each in kept.open if (each.guess, each.begun) not in known),
            tuple(name for name in kept.names if name not in told.attempts),
        )
        self._set(kept.counting(tally))

    def all(self) -> tuple[FailedAttempts, ...]:
        """Return the failures that the cluster does not know of yet."""
        return tuple(
            FailedAttempts(
                holder=each.holder,
                client=each.client,
                failures=each.failures,
                attempts=each.names,
                open=tuple((one.guess, one.begun) for one in each.open),
                exists=each.exists,
            )
            for each in self._kept.values()
        )

    def _of(self, holder: bytes, client: bytes) -> _Kept:
        return self._kept.get((holder, client), _Kept(holder, client))

    def _set(self, kept: _Kept) -> None:
        pair = kept.holder, kept.client
        before = self._kept.pop(pair, None)
        if kept.failures > 0:
            self._kept[pair] = kept
        try:
            every = [msgspec.to_builtins(each, builtin_types=(bytes,)) for each in self._kept.values()]
            durable.replace_file(self._path, codec.encode(every))
        except BaseException:
            self._kept.pop(pair, None)
            if before is not None:
                self._kept[pair] = before
            raise
