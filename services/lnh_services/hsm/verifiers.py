"""Passwords of the local console (SO, PO and CO of own partitions): what is kept of one, and how guesses are limited.

An attempt is written down before its Argon2id runs and taken back when it succeeds, so that pulling
the plug gives no free guesses. Pure: the time is passed in; the caller saves and derives.
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
from lnh_services.hsm import credentials
from lnh_services.hsm.credentials import Material
from lnh_services.hsm.keys import Purpose


class KeptPassword(Confidential):
    """What is kept of one password; `argon2` is memory in KiB, passes, lanes."""

    argon2: tuple[int, int, int]
    salt: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    verifier: Key32
    public: bytes

    @classmethod
    def of(cls, material: Material) -> KeptPassword:
        return cls(argon2=material.argon2, salt=material.salt, verifier=material.verifier, public=material.public)

    def material(self) -> Material:
        """As `credentials.new_record` takes it, to become a record of the cluster."""
        return Material(self.argon2, self.salt, self.verifier, self.public)

    def derivation(self, password: str) -> Derive:
        """The Argon2id that tells whether `password` is this one."""
        return credentials.derivation(password, self.salt, self.argon2)

    def is_from(self, derived: bytes) -> bool:
        """Whether a 32-byte Argon2id result is that of the password, in constant time."""
        return hmac.compare_digest(self.verifier, Purpose.VERIFY.derive(derived))


class Verifier(Confidential):
    """A role of the local console: its password, and how often it was guessed wrong since it was last right."""

    password: KeptPassword
    failures: int = 0
    locked_until: int = 0

    def reserve(self, role: str, now: int) -> Verifier:
        """The verifier with one more attempt counted as failed; save it before the attempt is made.

        Args:
            role: for the message.
            now: UTC seconds.

        Raises PasswordLocked for `limits.LOCK_SECONDS` after `limits.FAILURES_BEFORE_LOCK` failures.
        """
        if now < self.locked_until:
            # A clock that went back must not lock for longer than a lock lasts.
            seconds = min(self.locked_until - now, limits.LOCK_SECONDS)
            raise PasswordLocked(
                f"{limits.FAILURES_BEFORE_LOCK} wrong passwords for the {role}; locked for {seconds} s"
            )
        failures = (0 if self.locked_until else self.failures) + 1
        locked_until = now + limits.LOCK_SECONDS if failures >= limits.FAILURES_BEFORE_LOCK else 0
        return msgspec.structs.replace(self, failures=failures, locked_until=locked_until)

    def settle(self, role: str, derived: bytes) -> Verifier:
        """The verifier, reserved before, after a right attempt; raises PasswordIncorrect after a wrong one."""
        if not self.password.is_from(derived):
            left = limits.FAILURES_BEFORE_LOCK - self.failures
            raise PasswordIncorrect(f"wrong password of the {role}; {max(left, 0)} attempts left before it is locked")
        return msgspec.structs.replace(self, failures=0, locked_until=0)
