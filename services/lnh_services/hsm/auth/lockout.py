"""Counts what speaks against a password: guesses that were wrong, and guesses whose answer may be known. Pure.

One mechanism for every place that counts: a client's attempts at a role holder, the holder's over all clients
(`online_attempts.py`), a read-only member's own budget (`offline_attempts.py`), and the local console
(`console_attempts.py`).

**The dilemma.** A fault may end an attempt after its answer was seen and before the answer is written down. So an
attempt is written down first, and an attempt whose end was never written down has to count as a failure, or an attacker
that times faults guesses for nothing. But then faults alone lock out a fleet that never used a wrong password.

**The way out.** The limit is on how many *different* passwords are tried. To try one again tells no more than its first
try did. So an attempt is known by its guess, a keyed hash of what Argon2id made of the password, and a guess is written
down before it is compared:

    absent --begin--> open --wrong--> counted for as long as the rules say
                        |  '--right--> forgotten
                        '--expires, a lock's time after it began

- `begin` of a guess that is open changes nothing: it was counted when it began first. So attempts with the right
  password, interrupted a thousand times on any members, are one open guess, and the next of them goes through even
  where the limit is reached.
- A different guess is a slot of its own until it ends or expires, whatever crashes, repeats or members do in between.
  So between two right logins no more different guesses are compared than the limit says.
- A right guess forgives what began before it (`forgiven`), or itself alone where others' failures are no concern
  of it (`right`). Guesses that began later stay open.
- Each wrong attempt counts, also at one password again and again, as a user expects: an attempt that ended wrong is no
  longer open. It is known by its name (a hash of the client's message), so that the same message counts once.

**Why the hash gives nothing away.** It comes after Argon2id and under a key that only HSMs have, like the verifier of
the password itself: an attacker that has both still pays one Argon2id a guess. **Why Argon2id may run first.** Its
result is not compared before the guess is written down, so nothing can be learnt from an attempt that ends before that,
also by the store that keeps the records: what is to be stored first does not depend on the answer.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lnh_common import limits
from lnh_services.hsm.records import Open

NAME_BYTES: Final = 16
_NAMES: Final = limits.FAILURES_BEFORE_LOCK  # the last wrong attempts that are known by name: all that may count


class Attempt(NamedTuple):
    """One attempt at a password.

    Args:
        name: of the client's message, 16 bytes; empty where no message comes twice.
        guess: names what it tries, 16 bytes: the same for the same password until the password is changed.
    """

    name: bytes
    guess: bytes


class Tally(NamedTuple):
    """The attempts that count at one place.

    Args:
        wrong: number of attempts that ended wrong.
        open: guesses that have not ended, oldest first.
        names: of the last attempts that ended wrong, oldest first.
    """

    wrong: int = 0
    open: tuple[Open, ...] = ()
    names: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, failures: int, open_: tuple[Open, ...], names: tuple[bytes, ...] = ()) -> Tally:
        """Read a stored tally, whose failures include the open guesses.

        A version that does not know of open guesses may have forgiven them, and then they count all the same.
        """
        return cls(max(0, failures - len(open_)), open_, names)

    @property
    def failures(self) -> int:
        """The number of failures that count."""
        return self.wrong + len(self.open)

    def is_open(self, guess: bytes) -> bool:
        """Tell whether this guess was counted when it began before, and may go on."""
        return any(each.guess == guess for each in self.open)

    def has_ended(self, attempt: Attempt) -> bool:
        """Tell whether this very attempt ended wrong before."""
        return attempt.name in self.names

    def expired(self, now: int) -> Tally:
        """Drop the guesses that began a lock's time ago."""
        return self._replace(open=tuple(each for each in self.open if now - each.begun < limits.LOCK_SECONDS))

    def begin(self, attempt: Attempt, now: int) -> Tally:
        """Count a guess; an open one is counted already."""
        if self.is_open(attempt.guess):
            return self
        return self._replace(open=(*self.open, Open(attempt.guess, now)))

    def wrong_one(self, attempt: Attempt) -> Tally:
        """Note that the attempt ended wrong; told twice, it is one failure."""
        if self.has_ended(attempt):
            return self
        names = (*self.names, attempt.name)[-_NAMES:] if attempt.name else self.names
        return Tally(self.wrong + 1, self._without(attempt.guess), names)

    def right_one(self, attempt: Attempt) -> Tally:
        """Note that the guess is right: it is no failure, and says nothing of others."""
        return self._replace(open=self._without(attempt.guess))

    def forgiven(self, attempt: Attempt) -> Tally:
        """Note that the guess is right, and forgive every failure and all guesses that began before it."""
        places = [place for place, each in enumerate(self.open) if each.guess == attempt.guess]
        return Tally(0, self.open[places[0] + 1 :] if places else self.open, self.names)

    def bounded(self, most: int) -> Tally:
        """Keep the failures, with at most so many open guesses; no right login is expected of the oldest any more."""
        gone = max(0, len(self.open) - most)
        return self._replace(wrong=self.wrong + gone, open=self.open[gone:])

    def _without(self, guess: bytes) -> tuple[Open, ...]:
        return tuple(each for each in self.open if each.guess != guess)
