"""Attempts at passwords on a member that is read-only: it cannot count them where all members see them.

So it has a budget of its own, fixed and kept on disk, whatever else is known: a holder's password may fail as often
here as one client may fail before it is locked, over all clients, until the member is read-write again. Then what
failed is told to the cluster, and the budget is whole again. An attempt is written down before it is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lnh_common import codec, limits
from lnh_common.errors import LimitReached, MalformedMessage, PasswordLocked, SealBroken
from lnh_common.messages.hsm import Guess, Guessed
from lnh_services import durable
from lnh_services.hsm.guesses import Outcome

_FILE_BYTES: Final = 4 * limits.MIB
_PAIRS: Final = 16_384


class LocalGuesses:
    """The budget of one member, in a file.

    Raises SealBroken when the file is not one of its own.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._failures: Final[dict[tuple[bytes, bytes], int]] = {}
        data = durable.read_private(path, _FILE_BYTES)
        if data is not None:
            try:
                kept = codec.decode_as(data, list[tuple[bytes, bytes, int]], _FILE_BYTES)
            except MalformedMessage as error:
                raise SealBroken(
                    f"{path} is damaged: remove it, and look at the audit trail for failed logins"
                ) from error
            self._failures.update({(holder, client): failures for holder, client, failures in kept})

    def note(self, guess: Guess) -> None:
        """An attempt is about to be made, or has ended.

        Raises PasswordLocked when the holder's budget is spent; LimitReached, StorageFailed.
        """
        pair = guess.holder, guess.client
        failures = self._failures.get(pair, 0)
        if not guess.ended:
            spent = sum(count for (holder, _), count in self._failures.items() if holder == guess.holder)
            if spent >= limits.FAILURES_BEFORE_LOCK:
                raise PasswordLocked(
                    f"{spent} failed logins while this member is read-only; more when it is connected to its primary"
                )
            if pair not in self._failures and len(self._failures) >= _PAIRS:
                raise LimitReached(f"failed logins of {_PAIRS} clients and roles on a read-only member")
            self._set(pair, failures + 1)
        elif guess.ended != Outcome.WRONG.value:
            self._set(pair, failures - 1)

    def told(self, told: Guessed) -> None:
        """The cluster knows of these."""
        pair = told.holder, told.client
        self._set(pair, self._failures.get(pair, 0) - told.failures)

    def all(self) -> tuple[Guessed, ...]:
        """What the cluster does not know of yet."""
        return tuple(
            Guessed(holder=holder, client=client, failures=failures)
            for (holder, client), failures in self._failures.items()
        )

    def _set(self, pair: tuple[bytes, bytes], failures: int) -> None:
        before = self._failures.pop(pair, None)
        if failures > 0:
            self._failures[pair] = failures
        try:
            kept = [[*each, count] for each, count in self._failures.items()]
            durable.replace_file(self._path, codec.encode(kept))
        except BaseException:
            self._failures.pop(pair, None)
            if before is not None:
                self._failures[pair] = before
            raise
