"""Keeps strangers from locking out who holds a password: it refuses before the HSM counts a failure. Pure.

To the cluster this service is one client, and by ten wrong passwords within a quarter of an hour of each other a client
has a role locked for itself. So the service asks the HSM only while a holder has few failures here:

- An address that guessed wrong a few times at one holder is refused for as long as a lock would last.
- Once a holder's failures, of all addresses, come near the HSM's limit, only addresses that logged in as that holder
  lately are let through. They alone can use up what is left, and they have had the password.

An attempt is counted before it is made, and taken back where it was right or was never compared. As at the HSM, a
right one forgives the holder's others, and all are forgotten together once there was none for a lock's time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lnh_common import limits
from lnh_common.errors import (
    DeadlineExceeded,
    LnhError,
    OutcomeUnknown,
    PasswordIncorrect,
    PasswordInvalid,
    PasswordLocked,
    PasswordMustChange,
)
from lnh_rest.admission import client_of
from lnh_rest.problems import Refused

_WAS_RIGHT = (PasswordMustChange, PasswordInvalid)
_MAY_BE_WRONG = (PasswordIncorrect, DeadlineExceeded, OutcomeUnknown)


@dataclass
class _Holder:
    """The attempts at one holder's password.

    Args:
        failures: of each address.
        total: that the HSM counts.
        last: when the last one began.
        known: addresses that logged in, and when.
    """

    failures: dict[str, int] = field(default_factory=dict)
    total: int = 0
    last: float = -math.inf
    known: OrderedDict[str, float] = field(default_factory=OrderedDict)


class Guesses:
    """The wrong passwords that were tried through this service."""

    def __init__(self) -> None:
        self._holders: OrderedDict[str, _Holder] = OrderedDict()

    @contextmanager
    def attempt(self, now: float, address: str, holders: Iterable[str]) -> Iterator[None]:
        """Count an attempt at the passwords of these holders, and judge it by how the block ends.

        Raises Refused (429) where it is not to be made.
        """
        client, names = client_of(address), list(holders)
        for name in names:
            self._check(now, client, name)
        for name in names:
            self._begin(now, client, name)
        try:
            yield
        except _MAY_BE_WRONG:
            raise
        except LnhError as error:
            for name in names:
                self._end(now, client, name, right=isinstance(error, _WAS_RIGHT))
            raise
        for name in names:
            self._end(now, client, name, right=True)

    def _check(self, now: float, client: str, name: str) -> None:
        holder = self._of(name)
        if now - holder.last >= limits.LOCK_SECONDS:
            holder.failures, holder.total = {}, 0
        is_known = now - holder.known.get(client, -math.inf) < limits.REST_KNOWN_SECONDS
        if holder.failures.get(client, 0) >= limits.REST_FAILURES_OF_ONE:
            raise _refusal("too many wrong passwords from this address", holder.last - now)
        if holder.total >= limits.REST_FAILURES and not is_known:
            raise _refusal(
                "too many wrong passwords; from where one logged in lately, one still may", holder.last - now
            )

    def _begin(self, now: float, client: str, name: str) -> None:
        holder = self._of(name)
        holder.failures[client] = holder.failures.get(client, 0) + 1
        holder.total += 1
        holder.last = now

    def _end(self, now: float, client: str, name: str, *, right: bool) -> None:
        holder = self._of(name)
        failures = holder.failures.pop(client, 0) - 1
        if not right:
            if failures > 0:  # of addresses without any nothing is kept: there is no end of them
                holder.failures[client] = failures
            holder.total = max(0, holder.total - 1)
            return
        holder.total = 0
        holder.known.pop(client, None)
        holder.known[client] = now
        while len(holder.known) > limits.REST_KNOWN:
            holder.known.popitem(last=False)

    def _of(self, name: str) -> _Holder:
        """Return what is known of a holder; those that were asked for longest ago are forgotten."""
        found = self._holders.pop(name, None) or _Holder()
        self._holders[name] = found
        while len(self._holders) > limits.REST_HOLDERS:
            self._holders.popitem(last=False)
        return found


def _refusal(said: str, since: float) -> Refused:
    wait = max(1, math.ceil(since + limits.LOCK_SECONDS))
    error = PasswordLocked(said, {"advice": f"try again in {wait} s; until then a right password is refused, too"})
    return Refused(error, 429, {"Retry-After": str(wait)})
