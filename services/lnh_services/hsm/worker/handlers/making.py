"""Serves what makes an object of something else: a value that comes in.

Each operation has two rows: one stores the object, the other gives it to the session that asked. Which it is, its
effect says: to give an object to a session changes nothing.
"""

from __future__ import annotations

from typing import Any

from lnh_common.messages.base import Effect
from lnh_common.messages.objects import CreateObject, ObjectView
from lnh_common.pkcs11.attributes import SENSITIVE_KEYS, Attribute, Attributes
from lnh_services.hsm.effects import Steps, work
from lnh_services.hsm.objects import create as creation
from lnh_services.hsm.objects.generate import Generated
from lnh_services.hsm.objects.stored import stored_template
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.handlers.objects import store_all
from lnh_services.hsm.worker.handlers.session_objects import sealed, session_template
from lnh_services.hsm.worker.policies import effective_policy
from lnh_services.hsm.worker.request import Request


def _template(request: Request[Any], template: dict[int, Any]) -> Attributes:
    """Check a template for an object that the request stores, or gives to its session."""
    stores = request.operation.effect is Effect.WRITE
    return stored_template(template) if stores else session_template(template)


def _keep(worker: WorkerCore, request: Request[Any], made: Generated) -> Steps[ObjectView]:
    """Store a new object, or give it to the session of the request."""
    if request.operation.effect is Effect.WRITE:
        return (yield from store_all(worker, request, [made]))[0]
    yield from worker.check_alive(request)
    return sealed(request, 0, made)


def create(worker: WorkerCore, request: Request[CreateObject]) -> Steps[ObjectView]:
    """Make an object of a value that comes in in plaintext."""
    message = request.message
    template = _template(request, message.template)
    policy = yield from effective_policy(worker, request.keyring_keys.keyring)
    yield from worker.check_alive(request)

    def make() -> Generated:
        return creation.create(template, message.value, policy, request.role)

    if template.get(Attribute.CLASS) not in SENSITIVE_KEYS:
        return (yield from _keep(worker, request, make()))
    # To test whether the parts of an RSA key belong together takes as long as to make one.
    same = (request.who.token.session, request.envelope.connection, request.header.request_id)
    made = yield from work(same, make)
    return (yield from _keep(worker, request, made))
