"""Serves cryptography with a key: the hot path.

A key is loaded once and each (use, mechanism, parameters) is prepared once, with every check that does not depend on
the day or the data; after that an operation is a dictionary look-up and a call.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from lnh_common.errors import LnhError, UnknownOperation
from lnh_common.messages import objects
from lnh_common.messages.base import OPERATIONS, Empty, Message
from lnh_common.messages.objects import TOGETHER, Decrypt, Outcomes, RandomBytes, Result, Results, UseMany, Uses, Verify
from lnh_common.messages.objects import Use as UseKey
from lnh_common.pkcs11.mechanisms import Use
from lnh_common.wire import codec
from lnh_services.hsm.effects import Steps, Turn
from lnh_services.hsm.objects.prepared_keys import CachedKey, Prepared, check_batch, check_today, each, prepare
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.handlers.session_objects import carried
from lnh_services.hsm.worker.policies import effective_policy
from lnh_services.hsm.worker.request import Request


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


def _compute(operate: Prepared, message: UseKey | Decrypt) -> Result:
    return Result(data=operate(message.data))


def _sign_many(operate: Prepared, message: UseMany) -> Results:
    """Sign up to 1024 items, each with its own signature or error."""
    check_batch(message)
    return Results(results=each(operate, message.items))


def _verify(operate: Prepared, message: Verify) -> Empty:
    """Verify a signature; raises SignatureInvalid."""
    operate(message.data, message.signature)
    return Empty()


def _encrypt(operate: Prepared, message: UseKey) -> Result:
    encrypted = operate(message.data)
    return Result(data=encrypted.data, iv=encrypted.iv)


Act = Callable[[Prepared, Any], Message]


@dataclass(frozen=True)
class Served:
    """The row of a use of a key: what it is for, and how it is carried out once the key's operation is prepared."""

    use: Use
    act: Act


ACTS: Final = {
    objects.SIGN.name: Served(Use.SIGN, _compute),
    objects.SIGN_MANY.name: Served(Use.SIGN, _sign_many),
    objects.VERIFY.name: Served(Use.VERIFY, _verify),
    objects.ENCRYPT.name: Served(Use.ENCRYPT, _encrypt),
    objects.DECRYPT.name: Served(Use.DECRYPT, _compute),
}


def use(worker: WorkerCore, request: Request[Any]) -> Steps[Message]:
    """Use a key, in any of `ACTS`."""
    served = ACTS[request.operation.name]
    key, operate = yield from _operation(worker, request, served.use)
    yield Turn.USE
    key.uses += len(request.message.items) if isinstance(request.message, UseMany) else 1
    return served.act(operate, request.message)


def uses(worker: WorkerCore, request: Request[Uses]) -> Steps[Outcomes]:
    """Carry out several of `TOGETHER`, each as if it had come alone.

    While one waits, the session or the lease may end.
    """
    outcomes: list[list[Any]] = []
    worker.operations += len(request.message.uses) - 1  # the message was counted as one
    for name, fields in request.message.uses:
        try:
            if not worker.is_leased():
                worker.drop_everything()
            yield from worker.check_alive(request)
            if name not in TOGETHER:
                raise UnknownOperation(f"operation {name!r} does not travel together with others")
            operation = OPERATIONS[name]
            message: Any = codec.convert(fields, operation.request)
            one = replace(request, operation=operation, message=message)
            outcomes.append([0, (yield from worker.permitted(one))])
        except LnhError as error:
            outcomes.append(worker.told(request.operation, error, request.lapses).to_wire())
    return Outcomes(outcomes=tuple(outcomes))


def random(worker: WorkerCore, request: Request[RandomBytes]) -> Steps[Result]:
    """Draw random bytes of the operating system's generator."""
    yield from ()
    return Result(data=os.urandom(request.message.length))
