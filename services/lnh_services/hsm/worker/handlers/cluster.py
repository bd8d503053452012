"""Serves the operations on appliance users, registered clients, the cluster's policy and its view."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lnh_common.errors import ArgumentInvalid, ClientUnknown, KeyringUnknown, LnhError, NameUnknown, NotPossible
from lnh_common.messages import backup, balancer, membership, store
from lnh_common.messages.admin import (
    AddUser,
    Assignment,
    ClientRef,
    Clients,
    ClientView,
    ClusterView,
    MemberView,
    PolicyChange,
    PolicyView,
    ServiceView,
    StatusView,
    UserRef,
    Users,
    UserView,
)
from lnh_common.messages.base import Empty, Operation, Skipped
from lnh_common.messages.overview import SEEN, Overview
from lnh_common.messages.session import Endpoints, EndpointView, Role
from lnh_common.versions import lacking_restores
from lnh_common.wire import channel
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.auth.permissions import BUILTIN_ROLES
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.objects import policy as rules
from lnh_services.hsm.objects.policy import Policy
from lnh_services.hsm.records import (
    TABLES,
    ClientRecord,
    CredentialRecord,
    KeyringRecord,
    UserRecord,
    record_id,
)
from lnh_services.hsm.worker import lease_settings
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.passwords import derive
from lnh_services.hsm.worker.policies import change_policy
from lnh_services.hsm.worker.request import Request

# --- appliance users


def add_user(worker: WorkerCore, request: Request[AddUser]) -> Steps[Empty]:
    """Add an appliance user, who can log in to any member."""
    message = request.message
    if message.role not in BUILTIN_ROLES:
        raise ArgumentInvalid(f"no role {message.role!r}; there are {', '.join(BUILTIN_ROLES)}")
    credentials.check_password(message.password)
    kept = yield from derive(message.password)
    identity = worker.secrets()
    born = int(worker.utc() * 1000)
    record = credentials.new_record(
        kept,
        role=Role.USER,
        smk=identity.smk,
        cluster=identity.secrets.cluster,
        now=int(worker.utc()),
        name=message.name,
        born=born,
    )
    records = yield from worker.started()
    yield from worker.commit(
        request,
        [
            records.put(
                UserRecord(name=message.name, role=message.role, born=born),
                record_id("user", message.name),
                0,
                unique=message.name,
            ),
            records.put(record, credentials.credential_id(Role.USER, message.name), 0),
        ],
    )
    return Empty()


def list_users(worker: WorkerCore, request: Request[Empty]) -> Steps[Users]:
    """List every appliance user, by name."""
    skipped: list[Skipped] = []
    found = yield from worker.scan_all(UserRecord, skipped)
    ordered = sorted(found, key=lambda user: user.name)
    return Users(users=tuple(UserView(name=user.name, role=user.role) for user in ordered), skipped=tuple(skipped))


def delete_user(worker: WorkerCore, request: Request[UserRef]) -> Steps[Empty]:
    """Delete a user; its sessions end. The last admin stays."""
    name = request.message.name
    if (yield from worker.acted_before(request)):
        return Empty()
    record, version = yield from worker.versioned(UserRecord, record_id("user", name), cached=False)
    if record is None:
        raise NameUnknown(f"no appliance user {name!r}")
    records = yield from worker.started()
    changes: list[store.Change] = []
    if record.role == "admin":
        others = [
            user for user in (yield from worker.scan_all(UserRecord)) if user.role == "admin" and user.name != name
        ]
        if not others:
            raise NotPossible(
                f"{name!r} is the last admin", {"advice": "add another one first: lnh user add NAME --role admin"}
            )
        # So that two admins deleting each other do not both succeed.
        _, other_version = yield from worker.versioned(UserRecord, record_id("user", others[0].name), cached=False)
        changes.append(
            store.Require(key=records.key_of(UserRecord, record_id("user", others[0].name)), version=other_version)
        )
    where = credentials.credential_id(Role.USER, name)
    changes.append(store.Delete(key=records.key_of(UserRecord, record_id("user", name)), expected=version))
    held, held_version = yield from worker.versioned(CredentialRecord, where, cached=False)
    if held is not None:
        changes.append(store.Delete(key=records.key_of(CredentialRecord, where), expected=held_version))
    yield from worker.commit(request, changes)
    return Empty()


# --- clients


def list_clients(worker: WorkerCore, request: Request[Empty]) -> Steps[Clients]:
    """List every registered client, by name."""
    skipped: list[Skipped] = []
    found = yield from worker.scan_all(ClientRecord, skipped)
    return Clients(
        skipped=tuple(skipped),
        clients=tuple(
            ClientView(
                name=client.name,
                id=client.id,
                registered_at=client.registered_at,
                revoked=client.revoked,
                monitor=client.monitor,
                keyrings=client.keyrings,
            )
            for client in sorted(found, key=lambda client: client.name)
        ),
    )


def _named_client(worker: WorkerCore, name: str) -> Steps[tuple[ClientRecord, int]]:
    found = yield from worker.named(ClientRecord, name)
    if found is None:
        raise ClientUnknown(f"no client {name!r} is registered here")
    return found


def revoke_client(worker: WorkerCore, request: Request[ClientRef]) -> Steps[Empty]:
    """Revoke a client; once this returned, no request of it is served."""
    client, version = yield from _named_client(worker, request.message.client)
    records = yield from worker.started()
    revoked = msgspec.structs.replace(client, revoked=True)
    yield from worker.commit(request, [records.put(revoked, client.id, version, unique=client.name)])
    return Empty()


def assign(worker: WorkerCore, request: Request[Assignment]) -> Steps[Empty]:
    """Let only chosen clients see a keyring, this one among them."""
    return (yield from _assign(worker, request, assigned=True))


def unassign(worker: WorkerCore, request: Request[Assignment]) -> Steps[Empty]:
    """Take a keyring from a client; with the last client gone, every client may see it again."""
    return (yield from _assign(worker, request, assigned=False))


def _assign(worker: WorkerCore, request: Request[Assignment], *, assigned: bool) -> Steps[Empty]:
    keyring = request.message.keyring
    if (yield from worker.acted_before(request)):
        return Empty()
    records = yield from worker.started()
    client, version = yield from _named_client(worker, request.message.client)
    record, keyring_version = yield from worker.versioned(KeyringRecord, keyring, cached=False)
    if record is None:
        raise KeyringUnknown(f"no keyring {keyring.hex()}")
    kept = tuple(each for each in client.keyrings if each != keyring)
    changed = msgspec.structs.replace(client, keyrings=(*kept, keyring) if assigned else kept)
    still = assigned
    guards: list[store.Change] = []
    if not assigned:
        others = yield from worker.scan_items(ClientRecord)
        still = any(keyring in each.keyrings for _, each in others if each.id != client.id and not each.revoked)
        if record.assigned and not still:
            guards = [(yield from _nobody_else(item for item, _ in others))]
    yield from worker.commit(
        request,
        [
            *guards,
            records.put(changed, client.id, version, unique=client.name),
            records.put(msgspec.structs.replace(record, assigned=still), keyring, keyring_version, unique=record.label),
        ],
    )
    return Empty()


def _nobody_else(clients: Iterable[store.Item]) -> Steps[store.Change]:
    """Make the change that has a commit refused where there are other clients than these.

    A keyring is shown to every client because none of these has it: a store that leaves one out would decide that.
    """
    view = yield from ask(Peer.MEMBERSHIP, membership.STATUS, Empty())
    old = lacking_restores(each.product for each in view.members)
    if old:
        raise NotPossible(f"a keyring is given to every client once no member runs version {', '.join(old)} any more")
    versions = store.versions_hash((item.key.id, item.version) for item in clients)
    return store.Unchanged(key=store.Key(table=TABLES[ClientRecord]), hash=versions)


# --- the cluster


def policy(worker: WorkerCore, request: Request[PolicyChange]) -> Steps[PolicyView]:
    """Show the cluster's policy, or change it as the PO."""
    changes = rules.with_numbers(request.message.changes)
    rules.check_names(changes, also=lease_settings.FIELDS)
    in_log = {name: value for name, value in changes.items() if name in lease_settings.FIELDS}
    rest = {name: value for name, value in changes.items() if name not in lease_settings.FIELDS}
    known = yield from lease_settings.current()
    if in_log and not (yield from worker.acted_before(request)):
        wanted = lease_settings.changed(known, in_log)
        rules.change_policy(Policy(), rest)  # all of it, or nothing
        if wanted != known:
            yield from worker.check_alive(request)  # as before any commit: the session may have ended meanwhile
            yield from ask(Peer.STORE, store.LEASE_SETTINGS, wanted)
            known = wanted
    asked = dataclasses.replace(request, message=PolicyChange(changes=rest))
    view = yield from change_policy(worker, asked, note=bool(in_log))
    return PolicyView(policy=view.policy | lease_settings.shown(known))


def _member(state: membership.MemberState) -> MemberView:
    return MemberView(
        id=state.id,
        name=state.name,
        address=state.address,
        primary=state.role == "primary",
        state=state.state,
        group=state.group,
        product=state.product,
        role=state.role,
        last_heard=state.last_heard,
    )


def show(worker: WorkerCore, request: Request[Empty]) -> Steps[ClusterView]:
    """Show the cluster and its members."""
    secrets = worker.secrets().secrets
    identity = Ed25519PrivateKey.from_private_bytes(secrets.identity).public_key()
    view = yield from ask(Peer.MEMBERSHIP, membership.STATUS, Empty())
    counts = []
    for kind in (KeyringRecord, ClientRecord):
        records = yield from worker.started()
        counted = yield from ask(Peer.STORE, store.COUNT, store.Count(table=records.key_of(kind, b"").table))
        counts.append(counted.count)
    return ClusterView(
        id=secrets.cluster,
        label=secrets.label,
        fingerprint=channel.fingerprint(identity.public_bytes(Encoding.Raw, PublicFormat.Raw)),
        members=tuple(_member(each) for each in view.members),
        keyrings=counts[0],
        clients=counts[1],
    )


def look(worker: WorkerCore, request: Request[Empty]) -> Steps[Overview]:
    """Show the whole cluster, with what each member tells of itself now."""
    seen = yield from ask(Peer.MEMBERSHIP, SEEN, Empty())
    counts = []
    for kind in (KeyringRecord, ClientRecord):
        records = yield from worker.started()
        counted = yield from ask(Peer.STORE, store.COUNT, store.Count(table=records.key_of(kind, b"").table))
        counts.append(counted.count)
    return Overview(label=worker.secrets().secrets.label, seen=seen, keyrings=counts[0], clients=counts[1])


_WITHOUT_ENDPOINT: Final = frozenset({"joining", "expelled"})  # states of members that serve no client


def endpoints(worker: WorkerCore, request: Request[Empty]) -> Steps[Endpoints]:
    """List the members' client ports: a client goes there when the member it came through does not answer."""
    own = worker.secrets().secrets
    view = yield from ask(Peer.MEMBERSHIP, membership.STATUS, Empty())
    found = []
    for member in view.members:
        key = own.member_key if member.id == own.member else member.door
        if key and member.state not in _WITHOUT_ENDPOINT:
            found.append(EndpointView(address=member.address, key=key, group=member.group, state=member.state))
    return Endpoints(endpoints=tuple(found))


_SERVICES: tuple[tuple[str, Peer, Operation[Any, Any]], ...] = (
    ("store", Peer.STORE, store.STATUS),
    ("membership", Peer.MEMBERSHIP, membership.STATUS),
    ("balancer", Peer.BALANCER, balancer.STATUS),
    ("backup", Peer.BACKUP, backup.STATUS),
)


def status(worker: WorkerCore, request: Request[Empty]) -> Steps[StatusView]:
    """Show the member as its services see themselves; one that does not answer says so and is listed all the same."""
    services = [ServiceView(name="hsm", state="running", detail=worker.status())]
    for name, peer, operation in _SERVICES:
        try:
            answer = yield from ask(peer, operation, Empty())
            detail = msgspec.to_builtins(answer, builtin_types=(bytes,))
            services.append(ServiceView(name=name, state="running", detail=detail))
        except LnhError as error:
            services.append(ServiceView(name=name, state="not answering", detail={"error": str(error)}))
    return StatusView(cluster=(yield from show(worker, request)), services=tuple(services))
