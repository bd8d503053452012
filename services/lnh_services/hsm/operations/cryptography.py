"""Cryptography with a key: the hot path.

A key is loaded once and each (use, mechanism, parameters) is prepared once, with every check that
does not depend on the day or the data; after that an operation is a dictionary look-up and a call.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from typing import Any, Final

from lnh_common import limits
from lnh_common.errors import DataLength, LnhError
from lnh_common.mechanisms import Mechanism, Use
from lnh_common.mechanisms import mechanism as find_mechanism
from lnh_common.messages.base import Empty
from lnh_common.messages.objects import RandomBytes, Result, Results, UseMany, Verify
from lnh_common.messages.objects import Use as UseKey
from lnh_services.hsm import policy as rules
from lnh_services.hsm.caches import CachedKey, Prepared
from lnh_services.hsm.mechanisms import LoadedKey, decrypter, encrypter, signer, verifier
from lnh_services.hsm.operations.policies import effective_policy
from lnh_services.hsm.operations.session_objects import carried
from lnh_services.hsm.steps import Steps
from lnh_services.hsm.worker_core import Request, WorkerCore


def _prepared(
    worker: WorkerCore, request: Request[Any], use: Use, key: CachedKey, number: int, parameters: bytes
) -> Steps[Prepared]:
    """Check all that stays the same, and prepare the operation on this key."""
    policy = yield from effective_policy(worker, request.header.route)
    yield from worker.check_alive(request)
    mechanism = find_mechanism(number)
    if (use, number) not in key.permitted:
        rules.check_permitted(key.attributes, use, mechanism, policy)
        key.permitted.add((use, number))
    operate: Prepared
    if use is Use.ENCRYPT:
        caller_ivs = policy.allows_caller_ivs
        operate = encrypter(mechanism, key.loaded, worker.ivs, parameters, caller_ivs=caller_ivs)
    else:
        operate = _PREPARE[use](mechanism, key.loaded, parameters)
    key.prepared.put((use, number, parameters), operate)
    return operate


_PREPARE: Final[dict[Use, Callable[[Mechanism, LoadedKey, bytes], Prepared]]] = {
    Use.SIGN: signer,
    Use.VERIFY: verifier,
    Use.DECRYPT: decrypter,
}


def _operation(
    worker: WorkerCore, request: Request[UseKey] | Request[Verify] | Request[UseMany], use: Use
) -> Steps[tuple[CachedKey, Prepared]]:
    message = request.message
    if message.sealed:
        key = carried(worker, request, message.handle, message.sealed)
    else:
        key = worker.caches.keys.get((request.header.route, message.handle)) or (
            yield from worker.object(request, message.handle)
        )
    operate = key.prepared.get((use, message.mechanism, message.parameters))
    if operate is None:
        operate = yield from _prepared(worker, request, use, key, message.mechanism, message.parameters)
    if key.dates[0] or key.dates[1]:
        rules.check_dates(key.attributes, dt.datetime.fromtimestamp(worker.utc(), dt.timezone.utc).date())
    return key, operate


def sign(worker: WorkerCore, request: Request[UseKey]) -> Steps[Result]:
    key, operate = yield from _operation(worker, request, Use.SIGN)
    key.uses += 1
    return Result(data=operate(request.message.data))


def sign_many(worker: WorkerCore, request: Request[UseMany]) -> Steps[Results]:
    """Up to 1024 items, each with its own signature or error."""
    total = sum(map(len, request.message.items))
    if total > limits.REQUEST_BYTES:
        raise DataLength(f"{total} bytes in one request; at most {limits.REQUEST_BYTES}")
    key, operate = yield from _operation(worker, request, Use.SIGN)
    results: list[bytes | list[Any]] = []
    for item in request.message.items:
        try:
            results.append(operate(item))
        except LnhError as error:
            results.append(error.to_wire())
    key.uses += len(results)
    return Results(results=tuple(results))


def verify(worker: WorkerCore, request: Request[Verify]) -> Steps[Empty]:
    """Raises SignatureInvalid."""
    key, operate = yield from _operation(worker, request, Use.VERIFY)
    key.uses += 1
    operate(request.message.data, request.message.signature)
    return Empty()


def encrypt(worker: WorkerCore, request: Request[UseKey]) -> Steps[Result]:
    key, operate = yield from _operation(worker, request, Use.ENCRYPT)
    key.uses += 1
    encrypted = operate(request.message.data)
    return Result(data=encrypted.data, iv=encrypted.iv)


def decrypt(worker: WorkerCore, request: Request[UseKey]) -> Steps[Result]:
    key, operate = yield from _operation(worker, request, Use.DECRYPT)
    key.uses += 1
    return Result(data=operate(request.message.data))


def random(worker: WorkerCore, request: Request[RandomBytes]) -> Steps[Result]:
    """Random bytes of the operating system's generator."""
    yield from ()
    return Result(data=os.urandom(request.message.length))
