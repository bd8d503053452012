"""Using an unsealed key: every check that stays the same, once, and then a callable for each item. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, Final

from lnh_common import limits
from lnh_common.errors import DataLength, LnhError
from lnh_common.mechanisms import Mechanism, Use, mechanism
from lnh_common.messages.objects import UseMany
from lnh_services.hsm import policy as rules
from lnh_services.hsm.caches import CachedKey, Prepared
from lnh_services.hsm.mechanisms import IvSource, LoadedKey, decrypter, encrypter, signer, verifier
from lnh_services.hsm.policy import Policy

_PREPARE: Final[dict[Use, Callable[[Mechanism, LoadedKey, bytes], Prepared]]] = {
    Use.SIGN: signer,
    Use.VERIFY: verifier,
    Use.DECRYPT: decrypter,
}


def prepare(key: CachedKey, use: Use, number: int, parameters: bytes, policy: Policy, ivs: IvSource) -> Prepared:
    """The operation of a mechanism with this number on a key, kept with the key.

    Raises what `policy.check_permitted` and the mechanism raise. Dates are for each use: `check_today`.
    """
    chosen = mechanism(number)
    if (use, number) not in key.permitted:
        rules.check_permitted(key.attributes, use, chosen, policy)
        key.permitted.add((use, number))
    operate: Prepared
    if use is Use.ENCRYPT:
        operate = encrypter(chosen, key.loaded, ivs, parameters, caller_ivs=policy.allows_caller_ivs)
    else:
        operate = _PREPARE[use](chosen, key.loaded, parameters)
    key.prepared.put((use, number, parameters), operate)
    return operate


def check_today(key: CachedKey, utc: float) -> None:
    """Raises KeyExpired unless the key may be used on the day of these UTC seconds."""
    if key.dates[0] or key.dates[1]:
        rules.check_dates(key.attributes, dt.datetime.fromtimestamp(utc, dt.timezone.utc).date())


def check_batch(message: UseMany) -> None:
    """Raises DataLength for more than one request carries."""
    total = sum(map(len, message.items))
    if total > limits.REQUEST_BYTES:
        raise DataLength(f"{total} bytes in one request; at most {limits.REQUEST_BYTES}")


def each(operate: Prepared, items: Sequence[bytes]) -> tuple[bytes | list[Any], ...]:
    """Each item's result, or its error as the wire has it.

    Raises DataLength, after the first result, when an answer cannot carry so many.
    """
    results: list[bytes | list[Any]] = []
    for item in items:
        try:
            result: bytes = operate(item)
        except LnhError as error:
            results.append(error.to_wire())
            continue
        if len(result) * len(items) > limits.REQUEST_BYTES:
            most = limits.REQUEST_BYTES // len(result)
            raise DataLength(f"{len(items)} results of {len(result)} bytes in one answer; at most {most}")
        results.append(result)
    return tuple(results)
