"""Uses an unsealed key: makes every check that stays the same once, and then calls one function an item. Pure.

The results of the checks are kept with the key, so that its next use repeats nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lnh_common import limits
from lnh_common.errors import DataLength, LnhError
from lnh_common.messages.objects import UseMany
from lnh_common.pkcs11.attributes import Attribute, Attributes
from lnh_common.pkcs11.mechanisms import Mechanism, Use, mechanism
from lnh_services.hsm.crypto.mechanisms import IvSource, LoadedKey, decrypter, encrypter, load_object, signer, verifier
from lnh_services.hsm.lru import Lru
from lnh_services.hsm.objects import policy as rules
from lnh_services.hsm.objects.policy import Policy

Prepared = Callable[..., Any]
_PREPARED = 32  # operations kept ready a key


@dataclass(eq=False)
class CachedKey:
    """An unsealed object, loaded once.

    Args:
        loaded: the key that the mechanism table made of the value; None for attributes alone.
        dates: START_DATE and END_DATE, checked at each use.
        permitted: (use, mechanism) that its attributes and the policy allow.
        prepared: for each (use, mechanism, parameters), the operation; parameters may hold an IV, so few are kept.
        uses: operations since they were last written to the audit trail.
    """

    version: int
    attributes: Attributes
    loaded: Any = field(repr=False)
    dates: tuple[str, str] = ("", "")
    permitted: set[tuple[Use, int]] = field(default_factory=set)
    prepared: Lru[tuple[Use, int, bytes], Prepared] = field(default_factory=lambda: Lru(_PREPARED), repr=False)
    uses: int = 0

    @classmethod
    def loaded_from(cls, version: int, attributes: Attributes, value: bytes) -> CachedKey:
        """Load an object; raises what loading a value that is none of its kind raises."""
        dates = (str(attributes.get(Attribute.START_DATE, "")), str(attributes.get(Attribute.END_DATE, "")))
        return cls(version, attributes, load_object(attributes, value), dates)


_PREPARE: Final[dict[Use, Callable[[Mechanism, LoadedKey, bytes], Prepared]]] = {
    Use.SIGN: signer,
    Use.VERIFY: verifier,
    Use.DECRYPT: decrypter,
}


def prepare(key: CachedKey, use: Use, number: int, parameters: bytes, policy: Policy, ivs: IvSource) -> Prepared:
    """Prepare the operation of a mechanism with this number on a key, and keep it with the key.

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
    """Raise KeyExpired unless the key may be used on the day of these UTC seconds."""
    if key.dates[0] or key.dates[1]:
        rules.check_dates(key.attributes, dt.datetime.fromtimestamp(utc, dt.timezone.utc).date())


def check_batch(message: UseMany) -> None:
    """Raise DataLength for more items or bytes than one request carries."""
    total = sum(map(len, message.items))
    if total > limits.REQUEST_BYTES:
        raise DataLength(f"{total} bytes in one request; at most {limits.REQUEST_BYTES}")


def each(operate: Prepared, items: Sequence[bytes]) -> tuple[bytes | list[Any], ...]:
    """Apply an operation to each item; returns each result, or its error as the wire has it.

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
