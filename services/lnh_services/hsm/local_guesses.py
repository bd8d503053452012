"""Attempts at passwords on a member that is read-only: it cannot count them where all members see them.

So it has a budget of its own, fixed and kept on disk, whatever else is known: a holder's password may fail as often
here as one client may fail before it is locked, over all clients, until the member is read-write again. Then what
failed is told to the cluster, and the budget is whole again. An attempt is written down before it is made, by its name:
one that comes again is counted once, here and where it is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from lnh_common import codec, limits
from lnh_common.errors import LimitReached, MalformedMessage, PasswordLocked, SealBroken
from lnh_common.messages.hsm import Guess, Guessed
from lnh_services import durable
from lnh_services.hsm.guesses import Outcome

_FILE_BYTES: Final = 4 * limits.MIB
_PAIRS: Final = 16_384


class _Kept(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Failures of one pair; attempts have names since version 0.2."""

    holder: bytes
    client: bytes
    failures: int = 0
    attempts: tuple[bytes, ...] = ()


class LocalGuesses:
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

    def note(self, guess: Guess) -> None:
        """An attempt is about to be made, or has ended.

        Raises PasswordLocked when the holder's budget is spent; LimitReached, StorageFailed.
        """
        kept = self._of(guess.holder, guess.client)
        counted = guess.attempt in kept.attempts
        if guess.ended:
            if counted and guess.ended != Outcome.WRONG.value:
                self._set(_without(kept, 1, (guess.attempt,)))
        elif not counted:
            spent = sum(each.failures for each in self._kept.values() if each.holder == guess.holder)
            if spent >= limits.FAILURES_BEFORE_LOCK:
                raise PasswordLocked(
                    f"{spent} failed logins while this member is read-only; more when it is connected to its primary"
                )
            if not kept.failures and len(self._kept) >= _PAIRS:
                raise LimitReached(f"failed logins of {_PAIRS} clients and roles on a read-only member")
            attempts = (*kept.attempts, guess.attempt)
            self._set(msgspec.structs.replace(kept, failures=kept.failures + 1, attempts=attempts))

    def told(self, told: Guessed) -> None:
        """The cluster knows of these."""
        self._set(_without(self._of(told.holder, told.client), told.failures, told.attempts))

    def all(self) -> tuple[Guessed, ...]:
        """What the cluster does not know of yet."""
        return tuple(
            Guessed(holder=each.holder, client=each.client, failures=each.failures, attempts=each.attempts)
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


def _without(kept: _Kept, failures: int, attempts: tuple[bytes, ...]) -> _Kept:
    left = tuple(each for each in kept.attempts if each not in attempts)
    return msgspec.structs.replace(kept, failures=kept.failures - failures, attempts=left)
