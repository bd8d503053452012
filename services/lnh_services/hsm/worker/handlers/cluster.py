"""Serves the operations on registered clients, the cluster's policy and its view."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lnh_common.errors import ClientUnknown, KeyringUnknown, LnhError
from lnh_common.messages import backup, balancer, membership, store
from lnh_common.messages.admin import (
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
)
from lnh_common.messages.base import Empty, Operation, Skipped
from lnh_common.messages.overview import SEEN, Overview
from lnh_common.messages.session import Endpoints, EndpointView
from lnh_common.versions import UNCHANGED_SINCE
from lnh_common.wire import channel
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.objects import policy as rules
from lnh_services.hsm.objects.policy import Policy
from lnh_services.hsm.records import ClientRecord, KeyringRecord
from lnh_services.hsm.worker import lease_settings, second_person
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.guards import unchanged
from lnh_services.hsm.worker.handlers.rekeying import unfinished
from lnh_services.hsm.worker.policies import change_policy, effective_policy
from lnh_services.hsm.worker.request import Request

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
            guards = [(yield from _nobody_else(worker, (item for item, _ in others)))]
    yield from worker.commit(
        request,
        [
            *guards,
            records.put(changed, client.id, version, unique=client.name),
            records.put(msgspec.structs.replace(record, assigned=still), keyring, keyring_version, unique=record.label),
        ],
    )
    return Empty()


def _nobody_else(worker: WorkerCore, clients: Iterable[store.Item]) -> Steps[store.Change]:
    """Make the change that has a commit refused where there are other clients than these.

    A keyring is shown to every client because none of these has it: a store that leaves one out would decide that.
    """
    yield from worker.check_version(UNCHANGED_SINCE, "a keyring is given to every client")
    return unchanged(ClientRecord, clients)


# --- the cluster


def policy(worker: WorkerCore, request: Request[PolicyChange]) -> Steps[PolicyView]:
    """Show the cluster's policy, or change it as the PO."""
    changes = rules.with_numbers(request.message.changes)
    rules.check_names(changes, also=lease_settings.FIELDS)
    in_log = {name: value for name, value in changes.items() if name in lease_settings.FIELDS}
    rest = {name: value for name, value in changes.items() if name not in lease_settings.FIELDS}
    guards: list[store.Change] = []
    if "dual_control" in rest:
        second_person.checked_names(worker, rest["dual_control"])
        if rest["dual_control"] and not (yield from worker.acted_before(request)):
            guards = yield from second_person.approvers(worker)
    known = yield from lease_settings.current()
    if in_log and not (yield from worker.acted_before(request)):
        wanted = lease_settings.changed(known, in_log)
        rules.change_policy(Policy(), rest)  # all of it, or nothing
        if wanted != known:
            yield from worker.check_alive(request)  # as before any commit: the session may have ended meanwhile
            yield from ask(Peer.STORE, store.LEASE_SETTINGS, wanted)
            known = wanted
    asked = dataclasses.replace(request, message=PolicyChange(changes=rest))
    view = yield from change_policy(worker, asked, note=bool(in_log), guards=guards)
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
    policy = yield from effective_policy(worker)
    records = yield from worker.started()
    return Overview(
        label=worker.secrets().secrets.label,
        seen=seen,
        keyrings=counts[0],
        clients=counts[1],
        key_uses=policy.key_uses.value,
        product=records.product,
        rekeys=(yield from unfinished(worker)),
    )


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
