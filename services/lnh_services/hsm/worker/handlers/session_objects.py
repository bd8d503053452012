"""Serves objects of a session (TOKEN false): made like any other, stored nowhere, carried sealed by the session's SDK.

An object that comes back is opened under the keyring's session key for exactly this session and handle, so it is of no
use to another session, another keyring, or after the logout, and cannot become a stored object. Handles are drawn anew
at each try: a request that is repeated makes another key, and two keys never share a handle.
"""

from __future__ import annotations

from typing import Any

from lnh_common import limits
from lnh_common.errors import LimitReached, ObjectUnknown, SealBroken, TemplateInconsistent
from lnh_common.messages.objects import GenerateKey, GenerateKeyPair, SessionKeyPair, SessionObject
from lnh_common.pkcs11.attributes import Attribute, Attributes, parse_template
from lnh_common.pkcs11.mechanisms import mechanism
from lnh_services.hsm.effects import Steps, work
from lnh_services.hsm.objects import generate as generation
from lnh_services.hsm.objects.generate import Generated
from lnh_services.hsm.objects.prepared_keys import CachedKey
from lnh_services.hsm.objects.stored import view
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.policies import effective_policy
from lnh_services.hsm.worker.request import Request

VERSION = 1  # it never changes


def generate(worker: WorkerCore, request: Request[GenerateKey]) -> Steps[SessionObject]:
    """Make a secret key of this session."""
    message = request.message
    policy = yield from effective_policy(worker, request.keyring_keys.keyring)
    yield from worker.check_alive(request)
    made = generation.generate_key(
        mechanism(message.mechanism), session_template(message.template), policy, request.role
    )
    return sealed(request, 0, made)


def generate_pair(worker: WorkerCore, request: Request[GenerateKeyPair]) -> Steps[SessionKeyPair]:
    """Make a key pair of this session."""
    message = request.message
    policy = yield from effective_policy(worker, request.keyring_keys.keyring)
    yield from worker.check_alive(request)
    planned = generation.plan_key_pair(
        mechanism(message.mechanism),
        session_template(message.public_template),
        session_template(message.private_template),
        policy,
        request.role,
    )
    public, private = yield from make_pair(request, planned)
    yield from worker.check_alive(request)
    return SessionKeyPair(public=sealed(request, 0, public), private=sealed(request, 1, private))


def carried(worker: WorkerCore, request: Request[Any], handle: bytes, sealed: bytes) -> CachedKey:
    """Open an object of its own that a session sends along.

    Raises ObjectUnknown for an object that was not made in this session.
    """
    session = request.who
    # A stored object's handle is shorter, so neither is ever taken for the other.
    where = (request.header.route, session.token.session + handle)
    known = worker.caches.keys.get(where)
    if known is None:
        known = CachedKey.loaded_from(VERSION, *opened(request, handle, sealed))
        if session.alive and worker.is_leased():
            worker.caches.keys.put(where, known)
    return known


def opened(request: Request[Any], handle: bytes, sealed: bytes) -> tuple[Attributes, bytes]:
    """Return the attributes and the value of an object of its own that a session sends along.

    Raises ObjectUnknown for an object that was not made in this session.
    """
    try:
        return request.keyring_keys.open_for_session(request.who.token.session, handle, sealed)
    except SealBroken:
        refusal = ObjectUnknown(f"object {handle.hex()} was not made in this session, or was changed")
        raise refusal.for_good() from None


def make_pair(request: Request[Any], planned: generation.PlannedPair) -> Steps[tuple[Generated, Generated]]:
    """Make a key pair; a slow one while others are served."""
    if not planned.is_slow:
        return planned.make()
    same = (request.who.token.session, request.envelope.connection, request.header.request_id)
    return (yield from work(same, planned.make))


def session_template(template: dict[int, Any]) -> Attributes:
    """Check a template for an object of a session; raises TemplateInconsistent for one that is stored."""
    parsed = parse_template(template)
    if parsed.setdefault(Attribute.TOKEN, False) is not False:
        raise TemplateInconsistent("TOKEN is true: an object of a session has it false")
    return parsed


def sealed(request: Request[Any], number: int, made: Generated) -> SessionObject:
    """Seal the `number`th object of a request for its session; raises LimitReached."""
    handle = request.new_handle(number)
    made.attributes[Attribute.UNIQUE_ID] = handle.hex()
    data = request.keyring_keys.seal_for_session(request.who.token.session, handle, made.attributes, made.value)
    if len(data) > limits.SESSION_OBJECT_BYTES:
        most = limits.SESSION_OBJECT_BYTES
        raise LimitReached(f"{len(data)} bytes sealed; a session carries {most} an object").for_good()
    shown = view(handle, VERSION, made.attributes)
    return SessionObject(handle=handle, version=shown.version, attributes=shown.attributes, sealed=data)
