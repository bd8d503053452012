"""Cryptography with a key: the hot path.

A key is loaded once and each (use, mechanism, parameters) is prepared once, with every check that
does not depend on the day or the data; after that an operation is a dictionary look-up and a call.
"""

from __future__ import annotations

import os

from lnh_common.mechanisms import Use
from lnh_common.messages.base import Empty
from lnh_common.messages.objects import RandomBytes, Result, Results, UseMany, Verify
from lnh_common.messages.objects import Use as UseKey
from lnh_services.hsm.caches import CachedKey, Prepared
from lnh_services.hsm.operations.policies import effective_policy
from lnh_services.hsm.operations.session_objects import carried
from lnh_services.hsm.steps import Steps
from lnh_services.hsm.uses import check_batch, check_today, each, prepare
from lnh_services.hsm.worker_core import Request, WorkerCore


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
        policy = yield from effective_policy(worker, request.header.route)
        yield from worker.check_alive(request)
        operate = prepare(key, use, message.mechanism, message.parameters, policy, worker.ivs)
    check_today(key, worker.utc())
    return key, operate


def sign(worker: WorkerCore, request: Request[UseKey]) -> Steps[Result]:
    key, operate = yield from _operation(worker, request, Use.SIGN)
    key.uses += 1
    return Result(data=operate(request.message.data))


def sign_many(worker: WorkerCore, request: Request[UseMany]) -> Steps[Results]:
    """Up to 1024 items, each with its own signature or error."""
    check_batch(request.message)
    key, operate = yield from _operation(worker, request, Use.SIGN)
    results = each(operate, request.message.items)
    key.uses += len(results)
    return Results(results=results)


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
