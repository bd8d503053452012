"""Keeps the passwords of the local console (SO, PO and CO of own partitions), and limits guesses at them.

A guess is written down before it is compared and taken back when it is right, so that pulling the plug gives no free
guesses; the right password, however often interrupted, is one guess (`lockout.py`). Pure: the time is passed in; the
caller saves and derives.
"""

from __future__ import annotations

import hmac
from typing import Annotated

import msgspec

from lnh_common import limits
from lnh_common.errors import PasswordIncorrect, PasswordLocked
from lnh_common.messages.base import Confidential
from lnh_common.messages.hsm import Derive
from lnh_common.messages.session import Key32
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.auth.credentials import Material
from lnh_services.hsm.auth.lockout import NAME_BYTES, Attempt, Tally
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.records import Open


class KeptPassword(Confidential):
    """The part of one password that is kept; `argon2` is memory in KiB, passes, lanes."""

    argon2: tuple[int, int, int]
    salt: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    verifier: Key32
    public: bytes

    @classmethod
    def of(cls, material: Material) -> KeptPassword:
        """Make it of what Argon2id made of a new password."""
        return cls(argon2=material.argon2, salt=material.salt, verifier=material.verifier, public=material.public)

    def material(self) -> Material:
        """Return it as `credentials.new_record` takes it, to become a record of the cluster."""
        return Material(self.argon2, self.salt, self.verifier, self.public)

    def derivation(self, password: str) -> Derive:
        """Make the Argon2id request that tells whether `password` is this one."""
        return credentials.derivation(password, self.salt, self.argon2)

    def is_from(self, derived: bytes) -> bool:
        """Tell, in constant time, whether a 32-byte Argon2id result is that of the password."""
        return hmac.compare_digest(self.verifier, Purpose.VERIFY.derive(derived))


class Verifier(Confidential):
    """A role of the local console: its password, and how often it was guessed wrong since it was last right.

    Args:
        failures: how many count, open guesses among them.
        open: guesses that have not ended: what a crash has interrupted.
    """

    password: KeptPassword
    failures: int = 0
    locked_until: int = 0
    open: tuple[Open, ...] = ()

    def check(self, role: str, now: int) -> None:
        """Refuse, before its Argon2id, an attempt that would be refused whatever it guesses.

        Args:
            role: for the message.
            now: UTC seconds.

        Raises PasswordLocked.
        """
        if not self.open:
            self._check(role, now)

    def reserve(self, role: str, now: int, derived: bytes) -> Verifier:
        """Count this guess as failed; save the result before the guess is compared.

        Args:
            derived: the 32-byte Argon2id result.

        Raises PasswordLocked for `limits.LOCK_SECONDS` after `limits.FAILURES_BEFORE_LOCK` failures.
        """
        attempt = self._attempt(derived)
        if self._tally.is_open(attempt.guess):
            return self
        self._check(role, now)
        tally = (Tally() if self.locked_until else self._tally).begin(attempt, now)
        locked_until = now + limits.LOCK_SECONDS if tally.failures >= limits.FAILURES_BEFORE_LOCK else 0
        return self._counting(tally, locked_until)

    def settle(self, derived: bytes) -> Verifier:
        """Compare a guess that was reserved before; save the result before any answer leaves."""
        attempt = self._attempt(derived)
        if self.password.is_from(derived):
            return self._counting(Tally(), 0)
        return self._counting(self._tally.wrong_one(attempt), self.locked_until)

    def check_right(self, role: str, derived: bytes) -> None:
        """Raise PasswordIncorrect, with how many attempts are left, unless the guess is right."""
        if not self.password.is_from(derived):
            left = max(0, limits.FAILURES_BEFORE_LOCK - self.failures)
            raise PasswordIncorrect(f"wrong password of the {role}; {left} attempts left before it is locked")

    @property
    def _tally(self) -> Tally:
        return Tally.of(self.failures, self.open)

    def _attempt(self, derived: bytes) -> Attempt:
        guess = hmac.digest(self.password.verifier, b"guess" + derived, "sha256")[:NAME_BYTES]
        return Attempt(b"", guess)

    def _check(self, role: str, now: int) -> None:
        if now < self.locked_until:
            # A clock that went back must not lock for longer than a lock lasts.
            seconds = min(self.locked_until - now, limits.LOCK_SECONDS)
            raise PasswordLocked(
                f"{limits.FAILURES_BEFORE_LOCK} wrong passwords for the {role}; locked for {seconds} s",
                {"seconds": seconds},
            )

    def _counting(self, tally: Tally, locked_until: int) -> Verifier:
        return msgspec.structs.replace(self, failures=tally.failures, locked_until=locked_until, open=tally.open)
