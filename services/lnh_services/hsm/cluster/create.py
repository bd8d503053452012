"""Puts a cluster into an HSM's state, and takes it out again. Pure.

A cluster is born here (its secrets drawn in this HSM, and the commit its store begins with), or comes from another
member's HSM (`join_protocol.py`); either way its SMK lives in a V1 partition of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

import lnh_common
from lnh_common import versions
from lnh_common.errors import ArgumentInvalid
from lnh_common.messages.hsm import Departure, SmkGeneration
from lnh_common.messages.session import Role
from lnh_common.messages.store import Commit, Put
from lnh_services.hsm.appliance import preconditions
from lnh_services.hsm.appliance.state import Cluster, HsmState, Partition, Phase
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.auth.console_attempts import KeptPassword
from lnh_services.hsm.cluster.channel_seeds import following, rotated
from lnh_services.hsm.cluster.join_protocol import Bundle
from lnh_services.hsm.cluster.smk_backup import Contents
from lnh_services.hsm.crypto.key_hierarchy import KEY_BYTES
from lnh_services.hsm.records import CLUSTER_RECORD, ClusterRecord, PolicyRecord, Record, UserRecord, record_id

POLICY_RECORD: Final = record_id("policy", b"")
_ID: Final = 16
_SERIAL_DIGITS: Final = 16

Draw = Callable[[int], bytes]


def user_id(name: str) -> bytes:
    """Return the id of the record that keeps an appliance user."""
    return record_id("user", name)


def new_serial() -> str:
    """Draw a partition's serial number: 16 random decimal digits."""
    return f"{secrets.randbelow(10**_SERIAL_DIGITS):0{_SERIAL_DIGITS}}"


def begin(state: HsmState, label: str, po: KeptPassword, now: int) -> HsmState:
    """Add a new cluster that no store knows yet, and the V1 partition its SMK lives in.

    Raises NameTaken, LimitReached.
    """
    partition = Partition(label=label, version=1, serial=new_serial(), po=None, co=None)
    cluster = Cluster(
        id=secrets.token_bytes(_ID),
        label=label,
        member=secrets.token_bytes(_ID),
        partition=partition.serial,
        phase=Phase.CREATING,
        identity=secrets.token_bytes(KEY_BYTES),
        smk=(SmkGeneration(generation=1, key=secrets.token_bytes(KEY_BYTES)),),
        channel=rotated((), now, lambda: secrets.token_bytes(KEY_BYTES)),
        po=po,
    )
    return replace(preconditions.add_partition(state, partition), cluster=cluster, joining=None, expelled="")


def install(state: HsmState, bundle: Bundle) -> HsmState:
    """Add the cluster that the inviting HSM gave to a joining one, whose own users and roles are the cluster's now.

    Raises NameTaken, LimitReached.
    """
    begun = state.joining
    assert begun is not None, "an answer to a request of ours"
    partition = Partition(label=bundle.label, version=1, serial=new_serial(), po=None, co=None)
    cluster = Cluster(
        id=bundle.cluster,
        label=bundle.label,
        member=begun.member.id,
        partition=partition.serial,
        phase=Phase.JOINING,
        identity=bundle.identity,
        smk=bundle.smk,
        channel=bundle.channel,
        lookup=bundle.lookup,
    )
    return replace(
        preconditions.add_partition(state, partition),
        cluster=cluster,
        users=(),
        joining=replace(begun, members=bundle.members),
        expelled="",
    )


def restored(state: HsmState, contents: Contents, channel_epoch: int, now: int) -> HsmState:
    """Add the cluster of an SMK backup, whose records are in no store yet: an archive brings them.

    Args:
        channel_epoch: above all that the cluster's clients have seen.

    Raises NameTaken, LimitReached.
    """
    partition = Partition(label=contents.label, version=1, serial=new_serial(), po=None, co=None)
    cluster = Cluster(
        id=contents.cluster,
        label=contents.label,
        member=secrets.token_bytes(_ID),
        partition=partition.serial,
        phase=Phase.CREATED,
        identity=contents.identity,
        smk=contents.smk,
        channel=(following((), now, lambda: secrets.token_bytes(KEY_BYTES), channel_epoch),),
        lookup=contents.lookup,
    )
    return replace(preconditions.add_partition(state, partition), cluster=cluster, users=(), joining=None, expelled="")


def joined(state: HsmState) -> HsmState:
    """Note that this member's store has begun to follow the cluster."""
    assert state.cluster is not None, "a cluster that is being joined"
    return replace(state, joining=None, cluster=replace(state.cluster, phase=Phase.CREATED))


def refounded(state: HsmState) -> HsmState:
    """Give a member whose store is lost and begins anew a new id, since none is used twice."""
    assert state.cluster is not None, "a cluster to begin anew"
    return replace(state, cluster=replace(state.cluster, member=secrets.token_bytes(_ID)))


def departing(state: HsmState, phase: Phase, departure: Departure, reason: str) -> HsmState:
    """Note that this member serves nobody any more, and either keeps what it has or is about to wipe it."""
    assert state.cluster is not None, "a cluster to leave"
    expelled = (reason or "this member was removed") if departure is Departure.EXPELLED else ""
    return replace(state, expelled=expelled, cluster=replace(state.cluster, phase=phase))


def left(state: HsmState) -> HsmState:
    """Remove everything of the cluster: SMK, identity, seeds and partition."""
    cluster = state.cluster
    assert cluster is not None, "a cluster to leave"
    return replace(
        state,
        cluster=None,
        partitions=tuple(each for each in state.partitions if each.serial != cluster.partition),
        invitations=(),
        joining=None,
        discarded=cluster.id,
    )


def check_same(cluster: Cluster, label: str) -> None:
    """Raise ArgumentInvalid when a cluster that was begun is to be finished under another name."""
    if cluster.label != label:
        raise ArgumentInvalid(f"the cluster {cluster.label} was begun and is to be finished first, under that label")


def first_commit(state: HsmState, now: int) -> Commit:
    """Make the commit of all a new cluster's records: itself, its PO, its policy, and the appliance's users.

    Args:
        now: UTC milliseconds.
    """
    cluster = state.cluster
    assert cluster is not None, "a cluster was begun"
    assert cluster.po is not None, "its PO stays here until the store has it"
    instance = secrets.token_bytes(_ID)
    seconds = now // 1000
    smk = cluster.newest_smk()
    records = cluster.records(instance)

    own = ClusterRecord(
        id=cluster.id,
        label=cluster.label,
        instance=instance,
        created_at=seconds,
        product=versions.minor(lnh_common.VERSION),
    )

    def put(record: Record, where: bytes, unique: str = "") -> Put:
        return records.put(record, where, 0, unique=unique)

    def credential(password: KeptPassword, role: Role, name: str = "") -> Put:
        record = credentials.new_record(
            password.material(), role=role, smk=smk, cluster=cluster.id, now=seconds, name=name
        )
        return put(record, credentials.credential_id(role, name))

    changes = [
        put(own, CLUSTER_RECORD),
        put(PolicyRecord(keyring=b"", fields={}), POLICY_RECORD),
        credential(cluster.po, Role.PO),
    ]
    for user in state.users:
        changes.append(put(UserRecord(name=user.name, role=user.role), user_id(user.name)))
        changes.append(credential(user.password, Role.USER, user.name))
    return Commit(
        client=cluster.id,
        session=secrets.token_bytes(_ID),
        sequence=1,
        issued_at=now,
        changes=tuple(changes),
    )


def finished(state: HsmState) -> HsmState:
    """Note that the store holds the cluster: users and the PO live there from now on."""
    assert state.cluster is not None, "a cluster that is being created"
    return replace(state, users=(), cluster=replace(state.cluster, phase=Phase.CREATED, po=None))
