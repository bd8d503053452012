"""Uses an unsealed key: makes every check that stays the same once, and then calls one function an item. Pure.

The results of the checks are kept with the key, so that its next use repeats nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, DataLength, LnhError
from lnh_common.messages import objects as wire
from lnh_common.messages.base import Empty, Message
from lnh_common.messages.objects import Decrypt, Result, Results, UseMany, Verify, VerifyMany
from lnh_common.messages.objects import Use as UseKey
from lnh_common.pkcs11.attributes import Attribute, Attributes
from lnh_common.pkcs11.mechanisms import Mechanism, Use, mechanism
from lnh_services.hsm.crypto.mechanisms import (
    Encrypted,
    IvSource,
    LoadedKey,
    decapsulator,
    decrypter,
    deriver,
    encapsulator,
    encrypter,
    load_object,
    signer,
    unwrapper,
    verifier,
    wrapper,
)
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
        prepared: for each (act, mechanism, parameters), the operation; parameters may hold an IV, so few are kept.
        uses: operations since they were last written to the audit trail.
    """

    version: int
    attributes: Attributes
    loaded: Any = field(repr=False)
    dates: tuple[str, str] = ("", "")
    permitted: set[tuple[Use, int]] = field(default_factory=set)
    prepared: Lru[tuple[Act | Use, int, bytes], Prepared] = field(default_factory=lambda: Lru(_PREPARED), repr=False)
    uses: int = 0

    @classmethod
    def loaded_from(cls, version: int, attributes: Attributes, value: bytes) -> CachedKey:
        """Load an object; raises what loading a value that is none of its kind raises."""
        dates = (str(attributes.get(Attribute.START_DATE, "")), str(attributes.get(Attribute.END_DATE, "")))
        return cls(version, attributes, load_object(attributes, value), dates)


@dataclass(frozen=True, eq=False)
class Act:
    """The row of an operation that uses a key: what for, and how it is carried out once that is prepared.

    Args:
        carry_out: of (what was prepared, the message).
        is_many: it has many items; to decrypt, each begins with its IV.
    """

    use: Use
    carry_out: Callable[[Prepared, Any], Message]
    is_many: bool = False


def prepare(key: CachedKey, act: Act | Use, number: int, parameters: bytes, policy: Policy, ivs: IvSource) -> Prepared:
    """Prepare the operation of a mechanism with this number on a key, and keep it with the key.

    Args:
        act: what the key is used for; the mere use where a handler carries it out, because it makes a key.

    Raises what `policy.check_permitted` and the mechanism raise. Dates are for each use: `check_today`.
    """
    chosen = mechanism(number)
    use, is_many = (act.use, act.is_many) if isinstance(act, Act) else (act, False)
    if (use, number) not in key.permitted:
        rules.check_permitted(key.attributes, use, chosen, policy)
        key.permitted.add((use, number))
    operate: Prepared
    if use is Use.ENCRYPT:
        caller_ivs = policy.allows_caller_ivs
        operate = encrypter(chosen, key.loaded, ivs, parameters, caller_ivs=caller_ivs, is_many=is_many)
    elif use is Use.DECRYPT:
        operate = decrypter(chosen, key.loaded, parameters, is_joined=is_many)
    else:
        operate = _PREPARE[use](chosen, key.loaded, parameters)
    key.prepared.put((act, number, parameters), operate)
    return operate


_PREPARE: Final[dict[Use, Callable[[Mechanism, LoadedKey, bytes], Prepared]]] = {
    Use.SIGN: signer,
    Use.VERIFY: verifier,
    Use.WRAP: wrapper,
    Use.UNWRAP: unwrapper,
    Use.DERIVE: deriver,
    Use.ENCAPSULATE: encapsulator,
    Use.DECAPSULATE: decapsulator,
}


def check_today(key: CachedKey, utc: float) -> None:
    """Raise KeyExpired unless the key may be used on the day of these UTC seconds."""
    if key.dates[0] or key.dates[1]:
        rules.check_dates(key.attributes, dt.datetime.fromtimestamp(utc, dt.timezone.utc).date())


def items_of(message: Message) -> int:
    """Count the uses of a key that a message asks for."""
    return len(message.items) if isinstance(message, UseMany | VerifyMany) else 1


def _compute(operate: Prepared, message: UseKey | Decrypt) -> Result:
    return Result(data=operate(message.data))


def _verify(operate: Prepared, message: Verify) -> Empty:
    operate(message.data, message.signature)
    return Empty()


def _encrypt(operate: Prepared, message: UseKey) -> Result:
    encrypted: Encrypted = operate(message.data)
    return Result(data=encrypted.data, iv=encrypted.iv)


def _sign_many(operate: Prepared, message: UseMany) -> Results:
    _check_batch(message)
    return _each(operate, message.items, are_alike=True)


def _verify_many(operate: Prepared, message: VerifyMany) -> Results:
    _check_batch(message)
    if len(message.signatures) != len(message.items):
        raise ArgumentInvalid(f"{len(message.signatures)} signatures for {len(message.items)} items")

    def verify(item: tuple[bytes, bytes]) -> bytes:
        operate(*item)
        return b""

    return _each(verify, list(zip(message.items, message.signatures, strict=True)))


def _encrypt_many(operate: Prepared, message: UseMany) -> Results:
    _check_batch(message)

    def encrypt(item: bytes) -> bytes:
        encrypted: Encrypted = operate(item)
        return encrypted.iv + encrypted.data

    return _each(encrypt, message.items)


def _decrypt_many(operate: Prepared, message: UseMany) -> Results:
    _check_batch(message)
    return _each(operate, message.items)


def _check_batch(message: UseMany | VerifyMany) -> None:
    """Raise DataLength for more bytes than one request carries."""
    total = sum(map(len, message.items))
    if total > limits.REQUEST_BYTES:
        raise DataLength(f"{total} bytes in one request; at most {limits.REQUEST_BYTES}")


def _each(operate: Callable[[Any], bytes], items: Sequence[Any], *, are_alike: bool = False) -> Results:
    """Apply an operation to each item; the results are what it made, or its error as the wire has it.

    Args:
        are_alike: all results have the length of the first, so whether an answer carries them is known early.

    Raises DataLength for more than an answer carries.
    """
    results: list[bytes | list[Any]] = []
    total = 0
    for item in items:
        try:
            result = operate(item)
        except LnhError as error:
            results.append(error.to_wire())
            continue
        total += len(result)
        if are_alike and len(result) * len(items) > limits.REQUEST_BYTES:
            most = limits.REQUEST_BYTES // len(result)
            raise DataLength(f"{len(items)} results of {len(result)} bytes in one answer; at most {most}")
        if total > limits.REQUEST_BYTES:
            raise DataLength(f"more than {limits.REQUEST_BYTES} bytes of results in one answer; send fewer items")
        results.append(result)
    return Results(results=tuple(results))


# What is done with a key, by the name of its operation; a keyring and a partition serve the same.
ACTS: Final = {
    wire.SIGN.name: Act(Use.SIGN, _compute),
    wire.SIGN_MANY.name: Act(Use.SIGN, _sign_many, is_many=True),
    wire.VERIFY.name: Act(Use.VERIFY, _verify),
    wire.VERIFY_MANY.name: Act(Use.VERIFY, _verify_many, is_many=True),
    wire.ENCRYPT.name: Act(Use.ENCRYPT, _encrypt),
    wire.ENCRYPT_MANY.name: Act(Use.ENCRYPT, _encrypt_many, is_many=True),
    wire.DECRYPT.name: Act(Use.DECRYPT, _compute),
    wire.DECRYPT_MANY.name: Act(Use.DECRYPT, _decrypt_many, is_many=True),
}
