"""Serves what makes an object of something else: a value that comes in, another object, another key.

Most operations have two rows: one stores the object, the other gives it to the session that asked. Which it is, its
effect says: to give an object to a session changes nothing, so a read-only member does it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from lnh_common.errors import ArgumentInvalid, LnhError, OutcomeUnknown
from lnh_common.messages import store
from lnh_common.messages.base import Effect
from lnh_common.messages.objects import (
    Copy,
    CreateObject,
    Decapsulate,
    Derive,
    Encapsulated,
    EncapsulatedInSession,
    ObjectView,
    Result,
    Results,
    Show,
    Unwrap,
    Value,
    Wrap,
    WrapMany,
)
from lnh_common.pkcs11.attributes import Attribute, Attributes, ObjectClass
from lnh_common.pkcs11.mechanisms import Use
from lnh_services.hsm.effects import Steps, work
from lnh_services.hsm.objects import create as creation
from lnh_services.hsm.objects import from_keys, key_rules
from lnh_services.hsm.objects.generate import Generated
from lnh_services.hsm.objects.policy import Policy
from lnh_services.hsm.objects.prepared_keys import CachedKey, Prepared, check_today, prepare
from lnh_services.hsm.objects.stored import stored_template
from lnh_services.hsm.worker import recording
from lnh_services.hsm.worker.core import REFUSALS, WorkerCore
from lnh_services.hsm.worker.handlers.objects import store_all, store_new, stored_view
from lnh_services.hsm.worker.handlers.session_objects import carried, opened, sealed, session_template
from lnh_services.hsm.worker.policies import effective_policy
from lnh_services.hsm.worker.request import Request

# To test whether the parts of an RSA key belong together takes as long as to make one; only its value says what it is.
_SLOW: Final = ObjectClass.PRIVATE_KEY


def _template(request: Request[Any], template: dict[int, Any]) -> Attributes:
    """Check a template for an object that the request stores, or gives to its session."""
    if request.operation.effect is not Effect.WRITE:
        return session_template(template)
    parsed = stored_template(template)
    # Said, as for a session: the template of what it comes out of may say otherwise.
    parsed.setdefault(Attribute.TOKEN, True)
    return parsed


def _make(
    worker: WorkerCore, request: Request[Any], make: Callable[[], Generated], *, is_slow: bool
) -> Steps[ObjectView]:
    """Make an object, if it takes long while others are served, and store it or give it to the session."""
    if is_slow:
        made = yield from work(
            (request.who.token.session, request.envelope.connection, request.header.request_id), make
        )
    else:
        made = make()
    if request.operation.effect is Effect.WRITE:
        return (yield from store_all(worker, request, [made]))[0]
    yield from worker.check_alive(request)
    return sealed(request, 0, made)


def _acted(worker: WorkerCore, request: Request[Any]) -> Steps[ObjectView | None]:
    """Return what a write that comes again made the first time: what it was made of may be gone by now."""
    if request.operation.effect is not Effect.WRITE or not (yield from worker.acted_before(request)):
        return None
    return (yield from stored_view(worker, request, request.new_handle(0)))


def create(worker: WorkerCore, request: Request[CreateObject]) -> Steps[ObjectView]:
    """Make an object of a value that comes in in plaintext."""
    message = request.message
    template = _template(request, message.template)
    policy = yield from effective_policy(worker, request.keyring_keys.keyring)
    yield from worker.check_alive(request)
    is_slow = template.get(Attribute.CLASS) == _SLOW
    return (
        yield from _make(
            worker, request, lambda: creation.create(template, message.value, policy, request.role), is_slow=is_slow
        )
    )


def copy(worker: WorkerCore, request: Request[Copy]) -> Steps[ObjectView]:
    """Copy an object into a stored one.

    A copy of a stored object that outlived what it was copied from would be a way around its destruction. One of a
    session lives as long as its session, which is looked at when the copy is stored.
    """
    message, keys = request.message, request.keyring_keys
    if (acted := (yield from _acted(worker, request))) is not None:
        return acted
    if message.sealed:
        attributes, value = opened(request, message.handle, message.sealed)
        kept = creation.copy(attributes, stored_template(message.template), request.role)
        return (yield from store_all(worker, request, [Generated(kept, value)]))[0]
    found = yield from worker.stored(keys, message.handle)
    attributes, value = found.known
    copied = creation.copy(attributes, stored_template(message.template), request.role)
    unchanged = store.Require(key=keys.key(message.handle), version=found.version)
    return (yield from store_all(worker, request, [Generated(copied, value)], unchanged))[0]


def value(worker: WorkerCore, request: Request[Show]) -> Steps[Value]:
    """Read the value of a key that is not SENSITIVE and is EXTRACTABLE; raises AttributeSensitive for any other.

    Raises KeyFunctionNotPermitted for a public key.
    """

    def read() -> Steps[CachedKey]:
        yield from worker.check_alive(request)
        return (yield from _key(worker, request, request.message.handle, request.message.sealed))

    key = yield from worker.together(read)
    return Value(value=from_keys.readable_value(key.attributes, key.loaded))


def _key(worker: WorkerCore, request: Request[Any], handle: bytes, sealed_: bytes) -> Steps[CachedKey]:
    if sealed_:
        return carried(worker, request, handle, sealed_)
    known = worker.caches.keys.get((request.header.route, handle))
    return known or (yield from worker.object(request, handle))


def _prepared(worker: WorkerCore, request: Request[Any], use: Use) -> Steps[tuple[CachedKey, Prepared, Policy]]:
    """Return the key that a request uses so, its operation, and the policy in force; counted as one use."""
    key, policy = yield from worker.together(lambda: _key_and_policy(worker, request))
    operate = _operation(worker, request, use, key, policy)
    key.uses += 1
    return key, operate, policy


def _key_and_policy(worker: WorkerCore, request: Request[Any]) -> Steps[tuple[CachedKey, Policy]]:
    key = yield from _key(worker, request, request.message.handle, request.message.sealed)
    policy = yield from effective_policy(worker, request.header.route)
    yield from worker.check_alive(request)
    return key, policy


def _operation(worker: WorkerCore, request: Request[Any], use: Use, key: CachedKey, policy: Policy) -> Prepared:
    message = request.message
    operate = key.prepared.get((use, message.mechanism, message.parameters))
    if operate is None:
        operate = prepare(key, use, message.mechanism, message.parameters, policy, worker.ivs)
    check_today(key, worker.utc())
    return operate


def wrap(worker: WorkerCore, request: Request[Wrap]) -> Steps[Result]:
    """Wrap a key with another."""
    return Result(data=(yield from _wrapped(worker, request, request.message.key, request.message.key_sealed)))


def _wrapped(worker: WorkerCore, request: Request[Any], handle: bytes, sealed_: bytes) -> Steps[bytes]:
    """Wrap one key with the request's."""

    def read() -> Steps[tuple[CachedKey, CachedKey, Policy]]:
        wrapped = yield from _key(worker, request, handle, sealed_)
        return (wrapped, *(yield from _key_and_policy(worker, request)))

    wrapped, wrapping, policy = yield from worker.together(read)
    operate = _operation(worker, request, Use.WRAP, wrapping, policy)
    wrapping.uses += 1
    key_rules.check_wrap(wrapping.attributes, wrapped.attributes, policy)
    data: bytes = operate(from_keys.value_of(wrapped.loaded))
    return data


def wrap_many(worker: WorkerCore, request: Request[WrapMany]) -> Steps[Results]:
    """Wrap many keys with another, each with its own record, and its own result or error."""
    message = request.message
    try:
        carried_ = yield from _many_wrappable(worker, request)
    except LnhError as error:
        if not isinstance(error, REFUSALS):  # those are recorded of every operation
            yield from recording.refusal(request, error)
        raise
    names = [handle.hex() for handle in message.keys]
    yield from recording.items(request, ["ok"] * len(names), names)
    results: list[bytes | list[Any]] = []
    failed = [""] * len(names)
    try:
        for item, (handle, sealed_) in enumerate(zip(message.keys, carried_, strict=True)):
            yield from worker.check_alive(request)
            try:
                results.append((yield from _wrapped(worker, request, handle, sealed_)))
            except LnhError as error:
                if error.of_damage:
                    raise
                failed[item] = type(error).__name__
                results.append(worker.told(request.operation, error, request.lapses).to_wire())
    except LnhError as error:
        # None of them is answered, and of those that were not come to, the trail says "ok" until then.
        yield from recording.items(request, [type(error).__name__] * len(names), names)
        raise
    if any(failed):
        yield from recording.items(request, failed, names)
    return Results(results=tuple(results))


def _many_wrappable(worker: WorkerCore, request: Request[WrapMany]) -> Steps[tuple[bytes, ...]]:
    """Check what is refused for all keys at once; returns what the session carries of each."""
    message = request.message
    carried_ = message.keys_sealed or (b"",) * len(message.keys)
    if len(carried_) != len(message.keys):
        raise ArgumentInvalid(f"{len(carried_)} sealed objects for {len(message.keys)} keys")
    wrapping, policy = yield from worker.together(lambda: _key_and_policy(worker, request))
    _operation(worker, request, Use.WRAP, wrapping, policy)
    return carried_


def unwrap(worker: WorkerCore, request: Request[Unwrap]) -> Steps[ObjectView]:
    """Make the key that was wrapped."""
    message = request.message
    template = _template(request, message.template)
    if (acted := (yield from _acted(worker, request))) is not None:
        return acted
    base, operate, policy = yield from _prepared(worker, request, Use.UNWRAP)

    def make() -> Generated:
        return from_keys.unwrapped(base.attributes, template, lambda: operate(message.data), policy, request.role)

    wanted = key_rules.template_of(base.attributes, Attribute.UNWRAP_TEMPLATE) | template
    return (yield from _make(worker, request, make, is_slow=wanted.get(Attribute.CLASS) == _SLOW))


def derive(worker: WorkerCore, request: Request[Derive]) -> Steps[ObjectView]:
    """Make a secret key out of another, or of an agreement on a curve."""
    template = _template(request, request.message.template)
    if (acted := (yield from _acted(worker, request))) is not None:
        return acted
    base, operate, policy = yield from _prepared(worker, request, Use.DERIVE)
    made = from_keys.derived(base.attributes, template, operate, policy, request.role)
    return (yield from _make(worker, request, lambda: made, is_slow=False))


def encapsulate(worker: WorkerCore, request: Request[Derive]) -> Steps[Encapsulated]:
    """Draw a secret key that is stored, and the ciphertext that carries it to the holder of the private key.

    A request that comes again cannot be answered: the ciphertext is kept nowhere, so it went with the first answer.
    """
    template = stored_template(request.message.template)
    if (acted := (yield from _acted(worker, request))) is not None:
        raise _lost(acted)
    made, ciphertext = yield from _encapsulated(worker, request, template)
    views, is_new = yield from store_new(worker, request, [made])
    if not is_new:
        raise _lost(views[0])
    return Encapsulated(key=views[0], ciphertext=ciphertext)


def encapsulate_in_session(worker: WorkerCore, request: Request[Derive]) -> Steps[EncapsulatedInSession]:
    """Draw a secret key of this session, and the ciphertext that carries it to the holder of the private key."""
    template = session_template(request.message.template)
    made, ciphertext = yield from _encapsulated(worker, request, template)
    return EncapsulatedInSession(key=sealed(request, 0, made), ciphertext=ciphertext)


def _encapsulated(worker: WorkerCore, request: Request[Derive], template: Attributes) -> Steps[tuple[Generated, bytes]]:
    base, operate, policy = yield from _prepared(worker, request, Use.ENCAPSULATE)
    secret, ciphertext = operate()
    return from_keys.agreed(base.attributes, template, lambda: secret, policy, request.role), ciphertext


def _lost(made: ObjectView) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"key {made.handle.hex()} was made, and its ciphertext was lost with the first answer",
        {"advice": "destroy that key, and encapsulate again"},
    )


def decapsulate(worker: WorkerCore, request: Request[Decapsulate]) -> Steps[ObjectView]:
    """Make the secret key that a ciphertext carries."""
    message = request.message
    template = _template(request, message.template)
    if (acted := (yield from _acted(worker, request))) is not None:
        return acted
    base, operate, policy = yield from _prepared(worker, request, Use.DECAPSULATE)
    made = from_keys.agreed(base.attributes, template, lambda: operate(message.data), policy, request.role)
    return (yield from _make(worker, request, lambda: made, is_slow=False))
