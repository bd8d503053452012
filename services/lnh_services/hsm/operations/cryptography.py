"""Cryptography with a key: the hot path.

A key is loaded once and each (use, mechanism, parameters) is prepared once, with every check that
does not depend on the day or the data; after that an operation is a dictionary look-up and a call.
"""

from __future__ import annotations

import datetime as dt
import os
from typing import Any

from lnh_common.attributes import Attribute
from lnh_common.errors import DataLength, LnhError, MechanismInvalid
from lnh_common import limits
from lnh_common.mechanisms import Mechanism, Use, USE_ATTRIBUTES, parse_parameters
from lnh_common.messages.base import Empty
from lnh_common.messages.objects import RandomBytes, Result, Results
from lnh_common.messages.objects import Use as UseKey
from lnh_common.messages.objects import UseMany, Verify
from lnh_services.hsm import policy as rules
from lnh_services.hsm.caches import CachedKey, Prepared
from lnh_services.hsm.mechanisms import PREPARE
from lnh_services.hsm.operations.policies import effective_policy
from lnh_services.hsm.steps import Steps
from lnh_services.hsm.worker_core import Request, WorkerCore


def _prepared(
    worker: WorkerCore, request: Request[Any], use: Use, key: CachedKey, mechanism: int, parameters: bytes
) -> Steps[Prepared]:
    """Check all that stays the same, and prepare the operation on this key."""
    policy = yield from effective_policy(worker, request.header.route)
    try:
        known = Mechanism(mechanism)
    except ValueError:
        raise MechanismInvalid(f"mechanism 0x{mechanism:x} is not known") from None
    rules.check_use(key.attributes, use, known, policy)
    worker.check_alive(request.who)
    operate: Prepared = PREPARE[use](known, key.loaded, parse_parameters(known, parameters), policy)
    key.prepared[(USE_ATTRIBUTES[use], mechanism, parameters)] = operate
    return operate


def _operation(worker: WorkerCore, request: Request[UseKey | UseMany], use: Use) -> Steps[tuple[CachedKey, Prepared]]:
    message = request.message
    key = worker.caches.keys.get((request.header.route, message.handle))
    if key is None:
        key = yield from worker.object(request, message.handle)
    operate = key.prepared.get((USE_ATTRIBUTES[use], message.mechanism, message.parameters))
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


__all__ = ["Attribute", "decrypt", "encrypt", "random", "sign", "sign_many", "verify"]
