"""A value that must not be seen: its `repr` is redacted and it refuses to be pickled."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Wraps secret bytes so that no log, exception or debugger line shows them by accident.

    Python cannot promise to erase memory (docs/threat-model.md says so); `wipe` drops the reference.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value: bytes | None = bytes(value)

    def reveal(self) -> bytes:
        """Return the bytes; raises ValueError after `wipe`."""
        if self._value is None:
            raise ValueError("this secret was wiped")
        return self._value

    def wipe(self) -> None:
        """Drop the reference to the bytes."""
        self._value = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.reveal(), other.reveal())

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.reveal())

    def __repr__(self) -> str:
        return "Secret(redacted)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")
