"""Serves the operations on objects: generate, find, show, change, destroy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from lnh_common import limits
from lnh_common.errors import LimitReached, MechanismInvalid
from lnh_common.messages import store
from lnh_common.messages.base import Empty, Message, Skipped
from lnh_common.messages.objects import (
    Destroy,
    Find,
    Found,
    GenerateKey,
    GenerateKeyPair,
    GenerateKeyPairs,
    GenerateKeys,
    KeyPair,
    KeyPairs,
    Objects,
    ObjectView,
    SetAttributes,
    Show,
)
from lnh_common.messages.store import OBJECTS
from lnh_common.pkcs11.attributes import Attribute, Attributes, parse_template
from lnh_common.pkcs11.mechanisms import mechanism
from lnh_services.hsm.effects import Steps
from lnh_services.hsm.objects import create as creation
from lnh_services.hsm.objects import generate as generation
from lnh_services.hsm.objects import policy as rules
from lnh_services.hsm.objects.policy import Policy
from lnh_services.hsm.objects.stored import SEARCHABLE, KeyringKeys, has, stored_template, view
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.handlers.session_objects import carried, make_pair
from lnh_services.hsm.worker.policies import effective_policy
from lnh_services.hsm.worker.request import Request
from lnh_services.hsm.worker.rollback_guard import Page, merged

_NEW: Final = 1


def _room(worker: WorkerCore, policy: Policy) -> Steps[str]:
    """Advise what to do about a full keyring with this policy."""
    cluster = yield from effective_policy(worker)
    most = policy.objects_per_keyring
    if most >= limits.OBJECTS_AT_MOST:
        return "delete what is not needed, or use another keyring: no policy allows more"
    if most < cluster.objects_per_keyring:
        who, command = "KRSO", "keyring policy -k KEYRING"
    else:
        who, command = "PO", "cluster policy"
    return f"delete what is not needed, or have the {who} raise it: lnh {command} objects_per_keyring=NUMBER"


def store_all(
    worker: WorkerCore,
    request: Request[Any],
    made: Sequence[tuple[Attributes, bytes]],
    *guards: store.Change,
) -> Steps[list[ObjectView]]:
    """Store new objects, all or none; a request that comes again answers with what the first one stored.

    Args:
        guards: what must hold besides.
    """
    views, _ = yield from store_new(worker, request, made, *guards)
    return views


def store_new(
    worker: WorkerCore,
    request: Request[Any],
    made: Sequence[tuple[Attributes, bytes]],
    *guards: store.Change,
) -> Steps[tuple[list[ObjectView], bool]]:
    """Store new objects as `store_all` does, and tell whether these are they, not those of a first try."""
    yield from worker.check_alive(request)
    keys, guards = request.keyring_keys, (*request.who.same_key((yield from worker.started())), *guards)
    request.lapses = worker.lapses  # to make a key takes long: what is committed rests on what is read from here on
    policy = yield from effective_policy(worker, keys.keyring)
    handles = [request.new_handle(number) for number in range(len(made))]
    for handle, (attributes, _) in zip(handles, made, strict=True):
        attributes[Attribute.UNIQUE_ID] = handle.hex()
    puts = [
        keys.put(handle, 0, attributes, value, policy.objects_per_keyring)
        for handle, (attributes, value) in zip(handles, made, strict=True)
    ]
    try:
        committed = yield from worker.commit(request, [*guards, *puts])
    except LimitReached as error:
        advice = yield from _room(worker, policy)
        raise LimitReached(
            f"{len(made)} more objects: a keyring holds at most {policy.objects_per_keyring}",
            error.detail | {"advice": advice},
        ) from None
    if not committed.duplicate:
        return [view(handle, _NEW, attributes) for handle, (attributes, _) in zip(handles, made, strict=True)], True
    views: list[ObjectView] = []
    for handle in handles:
        views.append((yield from stored_view(worker, request, handle)))  # noqa: PERF401  # a comprehension cannot yield
    return views, False


def stored_view(worker: WorkerCore, request: Request[Any], handle: bytes) -> Steps[ObjectView]:
    """Return a stored object as its session sees it; raises ObjectUnknown."""
    found = yield from worker.described(request.keyring_keys, handle)
    return view(handle, found.version, found.known)


def generate(worker: WorkerCore, request: Request[GenerateKey]) -> Steps[ObjectView]:
    """Make a secret key."""
    policy = yield from effective_policy(worker, request.keyring_keys.keyring)
    template = stored_template(request.message.template)
    made = generation.generate_key(mechanism(request.message.mechanism), template, policy, request.role)
    views = yield from store_all(worker, request, [made])
    return views[0]


def generate_pair(worker: WorkerCore, request: Request[GenerateKeyPair]) -> Steps[KeyPair]:
    """Make a key pair: both halves, or none."""
    planned = yield from _planned(worker, request)
    made = yield from make_pair(request, planned(0))
    public, private = yield from store_all(worker, request, list(made))
    return KeyPair(public=public, private=private)


def generate_many(worker: WorkerCore, request: Request[GenerateKeys]) -> Steps[Objects]:
    """Make many secret keys of one kind, all or none."""
    message = request.message
    _check_total(message)
    policy = yield from effective_policy(worker, request.keyring_keys.keyring)
    kind, template = mechanism(message.mechanism), stored_template(message.template)
    made = [
        generation.generate_key(kind, _labelled(template, message, number), policy, request.role)
        for number in range(message.total)
    ]
    return Objects(objects=tuple((yield from store_all(worker, request, made))))


def generate_pairs(worker: WorkerCore, request: Request[GenerateKeyPairs]) -> Steps[KeyPairs]:
    """Make many key pairs of one kind, all or none."""
    _check_total(request.message)
    planned = yield from _planned(worker, request)
    first = planned(0)
    if first.is_slow:
        raise MechanismInvalid(f"{mechanism(request.message.mechanism).name} pairs take long: they are made one by one")
    made: list[generation.Generated] = []
    for plan in (first, *(planned(number) for number in range(1, request.message.total))):
        made += plan.make()
    views = yield from store_all(worker, request, made)
    pairs = zip(views[::2], views[1::2], strict=True)
    return KeyPairs(pairs=tuple(KeyPair(public=public, private=private) for public, private in pairs))


def _planned(worker: WorkerCore, request: Request[Any]) -> Steps[Callable[[int], generation.PlannedPair]]:
    """Return a function that plans the `number`th pair of a request."""
    message = request.message
    policy = yield from effective_policy(worker, request.keyring_keys.keyring)
    public, private = stored_template(message.public_template), stored_template(message.private_template)

    def plan(number: int) -> generation.PlannedPair:
        return generation.plan_key_pair(
            mechanism(message.mechanism),
            _labelled(public, message, number),
            _labelled(private, message, number),
            policy,
            request.role,
        )

    return plan


def _check_total(message: GenerateKeys | GenerateKeyPairs) -> None:
    if message.total > limits.OBJECTS_PER_GENERATE:
        raise LimitReached(f"{message.total} keys in one call; at most {limits.OBJECTS_PER_GENERATE}")


def _labelled(template: Attributes, message: Message, number: int) -> Attributes:
    """Return the template of the `number`th object that a request makes."""
    label = template.get(Attribute.LABEL)
    if not label or not isinstance(message, GenerateKeys | GenerateKeyPairs):
        return dict(template)
    label = f"{label!s}{message.index + number}"
    if len(label.encode()) > limits.LABEL_BYTES:
        raise LimitReached(f"a label of {len(label.encode())} bytes; at most {limits.LABEL_BYTES}")
    return {**template, Attribute.LABEL: label}


def find(worker: WorkerCore, request: Request[Find]) -> Steps[Found]:
    """Return a page of the keyring's objects that have the template's attributes.

    The store narrows by blind tags; its answer is checked again, because it is not trusted.
    """
    keys = request.keyring_keys
    message = request.message
    template = parse_template(message.template)
    found: list[ObjectView] = []
    skipped: list[Skipped] = []
    after, more, size = message.after, True, 0
    while more and len(found) < message.limit:
        page = yield from _page(worker, keys, template, after, skipped)
        yield from worker.check_alive(request)
        for item, attributes in page.found:
            if len(found) == message.limit or (found and size + len(item.head) > limits.PAGE_BYTES):
                said = tuple(each for each in skipped if each.id <= after)  # the others come with the next page
                return Found(objects=tuple(found), more=True, last=after, skipped=said)
            after = item.key.id
            if has(attributes, template):
                size += len(item.head)
                found.append(view(item.key.id, item.version, attributes))
        after, more = page.last, page.more
    return Found(objects=tuple(found), more=more, last=after, skipped=tuple(skipped))


def _page(
    worker: WorkerCore, keys: KeyringKeys, template: Attributes, after: bytes, skipped: list[Skipped]
) -> Steps[Page[Attributes]]:
    """Return a page of the objects that carry the template's tags, of each key that objects are sealed under.

    What is sealed anew between two scans loses the tag of the older key and gets that of the newer, which is asked for
    afterwards: it is found twice, or once, and the later counts.
    """
    pages: list[Page[Attributes]] = []
    closed: list[Skipped] = []
    for each in keys.generations():
        tags = tuple(each.tag(name, template[name]) for name in SEARCHABLE if name in template)
        scan = store.Scan(table=OBJECTS, scope=keys.keyring, tags=tags, after=after, limit=limits.PAGE_ITEMS)
        pages.append((yield from worker.objects(keys, scan, closed)))
        if not tags:
            break  # all of them, whatever they are sealed under
    page = merged(pages)
    skipped += [each for each in closed if not page.more or each.id <= page.last]
    return page


def show(worker: WorkerCore, request: Request[Show]) -> Steps[ObjectView]:
    """Show one object's attributes."""
    message = request.message
    if message.sealed:
        known = carried(worker, request, message.handle, message.sealed)
        return view(message.handle, known.version, known.attributes)
    found = yield from stored_view(worker, request, request.message.handle)
    yield from worker.check_alive(request)
    return found


def set_attributes(worker: WorkerCore, request: Request[SetAttributes]) -> Steps[ObjectView]:
    """Change attributes, as far as each may change; every change makes a new version."""
    message = request.message
    keys = request.keyring_keys
    if (yield from worker.acted_before(request)):
        return (yield from stored_view(worker, request, message.handle))
    found = yield from worker.stored(keys, message.handle)
    rules.check_version(found.version, message.version)
    attributes, value = found.known
    changed = creation.change(attributes, parse_template(message.template), request.role)
    yield from worker.commit(request, [keys.put(message.handle, found.version, changed, value)])
    return view(message.handle, found.version + 1, changed)


def destroy(worker: WorkerCore, request: Request[Destroy]) -> Steps[Empty]:
    """Destroy an object: once this returned, no read-write member uses it."""
    handle = request.message.handle
    if (yield from worker.acted_before(request)):
        return Empty()
    found = yield from worker.described(request.keyring_keys, handle)
    rules.check_version(found.version, request.message.version)
    rules.check_destroy(found.known)
    yield from worker.commit(request, [store.Delete(key=request.keyring_keys.key(handle), expected=found.version)])
    return Empty()
