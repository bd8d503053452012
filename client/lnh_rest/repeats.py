"""Remembers answers by Idempotency-Key, so that a request that is sent again is not done again. Pure.

Each session has a memory of its own, which forgets its oldest answers first. A request that failed with nothing done is
not remembered: sent again, it is tried again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, Busy
from lnh_rest.problems import Refused

_ADVICE: Final = {"advice": "use a new Idempotency-Key for each request that is not the same one again"}


@dataclass(frozen=True)
class Kept:
    """An answer as it was sent."""

    status: int
    media_type: str
    body: bytes


@dataclass
class _Repeat:
    request: bytes
    answer: Kept | None


class Repeats:
    """The requests of one session that came with an Idempotency-Key."""

    def __init__(self) -> None:
        self._kept: dict[str, _Repeat] = {}
        self._bytes = 0

    def begin(self, key: str, method: str, path: bytes, body: bytes) -> Kept | None:
        """Note a request that is to be done, or return the answer that it had.

        Raises ArgumentInvalid for what is no key, and Refused where it was used for another request (422), or the
        first try is under way (409).
        """
        check_key(key)
        request = _hash(method, path, body)
        known = self._kept.get(key)
        if known is None:
            self._make_room()
            self._kept[key] = _Repeat(request, None)
            return None
        if known.request != request:
            raise Refused(ArgumentInvalid("this Idempotency-Key was used for another request", _ADVICE), 422)
        if known.answer is None:
            error = Busy("the request with this Idempotency-Key is under way", {"advice": "wait for its answer"})
            raise Refused(error, 409)
        return known.answer

    def end(self, key: str, answer: Kept | None) -> None:
        """Keep the answer to a request; None where nothing was done, so that it may be tried again."""
        if answer is None:
            self._kept.pop(key, None)
            return
        self._kept[key].answer = answer
        self._bytes += len(answer.body)
        self._make_room()

    def _make_room(self) -> None:
        """Forget the oldest answers until there is room for another; what is under way stays.

        Raises Busy where all that is kept is under way.
        """
        done = [key for key, each in self._kept.items() if each.answer is not None]
        for key in done[:-1] if len(self._kept) < limits.REST_REPEATS else done:
            if len(self._kept) < limits.REST_REPEATS and self._bytes <= limits.REST_REPEAT_BYTES:
                return
            forgotten = self._kept.pop(key).answer
            assert forgotten is not None, "it was done"
            self._bytes -= len(forgotten.body)
        if len(self._kept) >= limits.REST_REPEATS:
            raise Busy(f"{limits.REST_REPEATS} requests with an Idempotency-Key are under way")


def check_key(key: str) -> None:
    """Raise ArgumentInvalid for what is no Idempotency-Key."""
    if not 1 <= len(key) <= limits.REST_REPEAT_CHARACTERS or not all("!" <= each <= "~" for each in key):
        most = limits.REST_REPEAT_CHARACTERS
        raise ArgumentInvalid(f"Idempotency-Key: 1 to {most} visible ASCII characters", {"advice": "a UUID will do"})


def _hash(method: str, path: bytes, body: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in (method.encode(), path, body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
