"""Serves the operations on keyrings and their roles."""

from __future__ import annotations

from typing import Any

from lnh_common import limits
from lnh_common.errors import AlreadyDone, KeyringUnknown, LimitReached
from lnh_common.messages import store
from lnh_common.messages.admin import (
    CreateKeyrings,
    InitRole,
    KeyringRef,
    Keyrings,
    KeyringView,
    ListKeyrings,
    Permission,
    PolicyChange,
    PolicyView,
    RoleLocks,
    SetRole,
)
from lnh_common.messages.base import Empty, Skipped
from lnh_common.messages.session import Role
from lnh_common.messages.store import OBJECTS
from lnh_services.hsm.auth import credentials, permissions
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.records import (
    ClientRecord,
    CredentialRecord,
    KeyringRecord,
    PolicyRecord,
    Record,
    RekeyRecord,
    ResealRecord,
)
from lnh_services.hsm.worker.caches import CachedPage
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.passwords import derive, forgive, new_credential
from lnh_services.hsm.worker.policies import change_policy, policy_id
from lnh_services.hsm.worker.request import Request
from lnh_services.hsm.worker.role_locks import locks_of


def create(worker: WorkerCore, request: Request[CreateKeyrings]) -> Steps[Keyrings]:
    """Make up to 100 keyrings in one step: all of them, or none."""
    message = request.message
    if message.total > limits.KEYRINGS_PER_CREATE:
        raise LimitReached(f"{message.total} keyrings in one call; at most {limits.KEYRINGS_PER_CREATE}")
    labels = [message.label]
    if message.total > 1:
        labels = [f"{message.label}{message.index + number}" for number in range(message.total)]
    longest = max(labels, key=lambda label: len(label.encode()))
    if len(longest.encode()) > limits.LABEL_BYTES:
        raise LimitReached(f"a label of {len(longest.encode())} bytes; at most {limits.LABEL_BYTES}")
    records = yield from worker.started()
    now = int(worker.utc())
    made = [
        KeyringRecord(id=request.new_id(number), label=label, created_at=now) for number, label in enumerate(labels)
    ]
    puts = [records.put(each, each.id, 0, unique=each.label, limit=limits.KEYRINGS_PER_CLUSTER) for each in made]
    try:
        yield from worker.commit(request, puts)
    except LimitReached as error:
        raise LimitReached(
            f"{len(made)} more keyrings: a cluster holds at most {limits.KEYRINGS_PER_CLUSTER}",
            error.detail | {"advice": "make fewer, or delete what is not needed: lnh keyring delete LABEL"},
        ) from None
    return Keyrings(keyrings=tuple(KeyringView(id=each.id, label=each.label) for each in made))


def _is_visible(worker: WorkerCore, request: Request[Any], record: KeyringRecord, client: ClientRecord | None) -> bool:
    holder = request.who.holder
    if holder.role is not None:
        return record.id == holder.keyring
    if client is not None:
        return not record.assigned or record.id in client.keyrings
    return Permission.VIEW in holder.permissions


def _client(worker: WorkerCore, request: Request[Any]) -> Steps[ClientRecord | None]:
    """Return the client whose sight limits the session's; None for an appliance user, who sees all names."""
    session = request.who
    if not session.token.client or session.token.grants:
        return None
    return (yield from worker.record(ClientRecord, session.token.client))


def list_(worker: WorkerCore, request: Request[ListKeyrings]) -> Steps[Keyrings]:
    """List the keyrings that the session may see."""
    message = request.message
    client = yield from _client(worker, request)
    skipped: list[Skipped] = []
    if message.label:  # nothing is left out: it is this one, or an error
        asked = yield from worker.page(KeyringRecord, name=message.label, after=message.after)
        page = CachedPage(tuple(record for _, record in asked.found), asked.more, asked.last)
    else:
        page = yield from worker.cached_page(KeyringRecord, message.after, skipped)
    return Keyrings(
        keyrings=tuple(
            KeyringView(id=each.id, label=each.label)
            for each in page.records
            if _is_visible(worker, request, each, client)
        ),
        more=page.more,
        last=page.last,
        skipped=tuple(skipped),
    )


def show(worker: WorkerCore, request: Request[KeyringRef]) -> Steps[KeyringView]:
    """Show a keyring without its objects; only a session that may see the clients is shown those it is assigned to."""
    client = yield from _client(worker, request)
    record = yield from worker.record(KeyringRecord, request.message.keyring)
    if record is None or not _is_visible(worker, request, record, client):
        raise KeyringUnknown(f"no keyring {request.message.keyring.hex()}")
    roles: list[str] = []
    for role in (Role.KRSO, Role.KRCO):
        held = yield from worker.record(CredentialRecord, credentials.credential_id(role, "", record.id))
        if held is not None:
            roles.append(f"{role.value} (first)" if held.must_change else role.value)
    counted = yield from ask(Peer.STORE, store.COUNT, store.Count(table=OBJECTS, scope=record.id))
    policy = yield from worker.record(PolicyRecord, policy_id(record.id))
    assigned: list[str] = []
    if record.assigned and Permission.CLIENTS in request.who.holder.permissions:
        clients = yield from worker.scan_all(ClientRecord)
        assigned = sorted(each.name for each in clients if record.id in each.keyrings and not each.revoked)
    return KeyringView(
        id=record.id,
        label=record.label,
        roles=tuple(roles),
        objects=counted.count,
        policy=policy.fields if policy else {},
        clients=tuple(assigned),
    )


def locks(worker: WorkerCore, request: Request[KeyringRef]) -> Steps[RoleLocks]:
    """Say which of a keyring's roles are locked, for whom and until when."""
    keyring = request.message.keyring
    if (yield from worker.record(KeyringRecord, keyring)) is None:
        raise KeyringUnknown(f"no keyring {keyring.hex()}")
    found = []
    for role in (Role.KRSO, Role.KRCO):
        found += yield from locks_of(worker, role, keyring, request.who.holder.permissions)
    return RoleLocks(locks=tuple(found))


def delete(worker: WorkerCore, request: Request[KeyringRef]) -> Steps[Empty]:
    """Delete a keyring with its objects, roles and policy, in one step."""
    keyring = request.message.keyring
    if (yield from worker.acted_before(request)):
        return Empty()
    records = yield from worker.started()
    record, version = yield from worker.versioned(KeyringRecord, keyring, cached=False)
    if record is None:
        raise KeyringUnknown(f"no keyring {keyring.hex()}")
    changes: list[store.Change] = [
        store.Delete(key=records.key_of(KeyringRecord, keyring), expected=version),
        store.DeleteScope(key=store.Key(table=OBJECTS, scope=keyring)),
    ]
    for role in (Role.KRSO, Role.KRCO):
        where = credentials.credential_id(role, "", keyring)
        held, held_version = yield from worker.versioned(CredentialRecord, where, cached=False)
        if held is not None:
            changes.append(store.Delete(key=records.key_of(CredentialRecord, where), expected=held_version))
    policy, policy_version = yield from worker.versioned(PolicyRecord, policy_id(keyring), cached=False)
    if policy is not None:
        changes.append(store.Delete(key=records.key_of(PolicyRecord, policy_id(keyring)), expected=policy_version))
    kinds: tuple[type[Record], ...] = (RekeyRecord, ResealRecord)
    for kind in kinds:
        stage, stage_version = yield from worker.versioned(kind, keyring, cached=False)
        if stage is not None:
            changes.append(store.Delete(key=records.key_of(kind, keyring), expected=stage_version))
    yield from worker.commit(request, changes)
    return Empty()


def policy(worker: WorkerCore, request: Request[PolicyChange]) -> Steps[PolicyView]:
    """Show a keyring's policy to its roles, or change it as the KRSO: only ever stricter than the cluster's."""
    if request.message.changes:
        rule = worker.served[request.operation.name].rule
        assert rule is not None, "an operation of a session says who may"
        permissions.check_change(request.operation.name, rule, request.who.holder)
    return (yield from change_policy(worker, request, request.who.holder.keyring))


def init_role(worker: WorkerCore, request: Request[InitRole]) -> Steps[Empty]:
    """Set the first KRSO credential: a verifier only, good for nothing but being changed by its holder."""
    message = request.message
    credentials.check_password(message.password)
    record, version = yield from worker.versioned(KeyringRecord, message.keyring, cached=False)
    if record is None:
        raise KeyringUnknown(f"no keyring {message.keyring.hex()}")
    where = credentials.credential_id(Role.KRSO, "", message.keyring)
    held, held_version = yield from worker.versioned(CredentialRecord, where, cached=False)
    if held is not None and not held.must_change and not (yield from worker.acted_before(request)):
        raise AlreadyDone(
            f"keyring {record.label!r} has a KRSO; only the KRSO changes that password",
            {"advice": f"as the KRSO: lnh role password --role krso --keyring {record.label}"},
        )
    kept = yield from derive(message.password)
    first = new_credential(worker, kept, Role.KRSO, keyring=message.keyring, must_change=True)
    records = yield from worker.started()
    exists = store.Require(key=records.key_of(KeyringRecord, message.keyring), version=version)
    yield from worker.commit(request, [exists, records.put(first, where, held_version)])
    return Empty()


def set_role(worker: WorkerCore, request: Request[SetRole]) -> Steps[Empty]:
    """Set or reset the KRCO, as the KRSO: the keyring's key is sealed to the new credential."""
    session = request.who
    credentials.check_password(request.message.password)
    keyring = session.holder.keyring
    where = credentials.credential_id(Role.KRCO, "", keyring)
    _, version = yield from worker.versioned(CredentialRecord, where, cached=False)
    kept = yield from derive(request.message.password)
    record = new_credential(worker, kept, Role.KRCO, keyring=keyring, keyring_key=session.token.keyring_key)
    records = yield from worker.started()
    yield from worker.commit(request, [*session.same_key(records), records.put(record, where, version)])
    yield from forgive(worker, Role.KRCO, keyring=keyring)
    return Empty()
