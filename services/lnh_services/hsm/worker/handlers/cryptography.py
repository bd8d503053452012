"""Serves cryptography with a key: the hot path.

A key is loaded once and each (use, mechanism, parameters) is prepared once, with every check that does not depend on
the day or the data; after that an operation is a dictionary look-up and a call.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from lnh_common.errors import LnhError, StreamLost, UnknownOperation
from lnh_common.messages.base import OPERATIONS, Message
from lnh_common.messages.objects import TOGETHER, Outcomes, Part, RandomBytes, Result, Results, Uses
from lnh_common.wire import codec
from lnh_services.hsm.effects import Steps, Turn
from lnh_services.hsm.objects.policy import Policy
from lnh_services.hsm.objects.prepared_keys import ACTS, Act, CachedKey, Prepared, check_today, items_of, prepare
from lnh_services.hsm.objects.streams import Stream, begin
from lnh_services.hsm.worker import recording
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.handlers.session_objects import carried
from lnh_services.hsm.worker.policies import effective_policy
from lnh_services.hsm.worker.request import Request


def _key(worker: WorkerCore, request: Request[Any]) -> Steps[CachedKey]:
    message = request.message
    if message.sealed:
        return carried(worker, request, message.handle, message.sealed)
    return worker.caches.keys.get((request.header.route, message.handle)) or (
        yield from worker.object(request, message.handle)
    )


def _operation(worker: WorkerCore, request: Request[Any], act: Act) -> Steps[tuple[CachedKey, Prepared]]:
    message = request.message
    if message.sealed:
        key: CachedKey | None = carried(worker, request, message.handle, message.sealed)
    else:
        key = worker.caches.keys.get((request.header.route, message.handle))
    operate = None if key is None else key.prepared.get((act, message.mechanism, message.parameters))
    if key is None or operate is None:
        key, policy = yield from worker.together(lambda: _key_and_policy(worker, request))
        operate = prepare(key, act, message.mechanism, message.parameters, policy, worker.ivs)
    check_today(key, worker.utc())
    return key, operate


def _key_and_policy(worker: WorkerCore, request: Request[Any]) -> Steps[tuple[CachedKey, Policy]]:
    key = yield from _key(worker, request)
    policy = yield from effective_policy(worker, request.header.route)
    yield from worker.check_alive(request)
    return key, policy


def use(worker: WorkerCore, request: Request[Any]) -> Steps[Message]:
    """Use a key, in any of `ACTS`."""
    act = ACTS[request.operation.name]
    policy = yield from effective_policy(worker, request.header.route)
    if policy.per_use_audit:
        return (yield from _recorded_use(worker, request, act))
    key, operate = yield from _operation(worker, request, act)
    yield Turn.USE
    key.uses += items_of(request.message)
    return act.carry_out(operate, request.message)


def _recorded_use(worker: WorkerCore, request: Request[Any], act: Act) -> Steps[Message]:
    """Use a key under policy `per_use_audit`: each use has its record before it is made, and one more if it fails.

    The record is awaited first and the key looked up afterwards: what was destroyed meanwhile is not used.
    """
    yield from recording.items(request, ["ok"] * items_of(request.message))
    try:
        yield from worker.check_alive(request)
        _, operate = yield from _operation(worker, request, act)
        yield Turn.USE
        reply = act.carry_out(operate, request.message)
    except LnhError as error:
        yield from recording.items(request, [type(error).__name__])
        raise
    if isinstance(reply, Results):
        errors = ["" if isinstance(each, bytes) else type(LnhError.from_wire(each)).__name__ for each in reply.results]
        if any(errors):
            yield from recording.items(request, errors)
    return reply


def stream(worker: WorkerCore, request: Request[Part]) -> Steps[Result]:
    """Take one part of a long input. What came before it is with this worker, or StreamLost.

    A stream goes on only while its key is the one in the cache: what was changed, destroyed or forbidden meanwhile is
    not used. Under policy `per_use_audit` it has its record before it begins, and one more for each part that fails.
    """
    known = worker.caches.streams.get((request.who.token.session, request.message.stream))
    is_recorded = known is not None and known.is_recorded
    if known is None:
        policy = yield from effective_policy(worker, request.header.route)
        is_recorded = policy.per_use_audit and bool(request.message.handle)
        if is_recorded:
            yield from recording.items(request, ["ok"])
    try:
        return (yield from _taken(worker, request, known, is_recorded=is_recorded))
    except LnhError as error:
        if is_recorded:
            yield from recording.items(request, [type(error).__name__])
        raise


def _taken(worker: WorkerCore, request: Request[Part], known: Stream | None, *, is_recorded: bool) -> Steps[Result]:
    part = request.message
    where = (request.who.token.session, part.stream)
    if known is None:

        def read() -> Steps[tuple[CachedKey | None, Policy]]:
            if part.handle:
                return (yield from _key_and_policy(worker, request))
            yield from worker.check_alive(request)
            return None, (yield from effective_policy(worker, request.header.route))

        key, policy = yield from worker.together(read)
        known = begin(part, key, policy, worker.ivs)
        known.is_recorded = is_recorded
        if key is not None and not is_recorded:
            key.uses += 1
        if request.who.alive and worker.is_leased():
            worker.caches.streams.put(where, request.who.token.client or request.who.token.session, known)
    elif known.key is not None and (yield from _key(worker, request)) is not known.key:
        worker.caches.streams.drop(where)
        raise StreamLost("the key, or what may be done with it, changed meanwhile")
    if known.key is not None:
        check_today(known.key, worker.utc())
    return known.take(part)


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
