"""The birth of a cluster: its secrets, drawn in this HSM, and the commit that its store begins with. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from lnh_common.errors import ArgumentInvalid
from lnh_common.messages.hsm import SmkGeneration
from lnh_common.messages.session import Role
from lnh_common.messages.store import Commit, Put
from lnh_services.hsm import credentials, rules
from lnh_services.hsm.channel_epochs import rotated
from lnh_services.hsm.keys import KEY_BYTES
from lnh_services.hsm.records import ClusterRecord, PolicyRecord, Record, UserRecord, record_id
from lnh_services.hsm.state import Cluster, HsmState, Partition, Phase
from lnh_services.hsm.verifiers import KeptPassword

CLUSTER_RECORD: Final = record_id("cluster")
POLICY_RECORD: Final = record_id("policy", b"")
_ID: Final = 16
_SERIAL_DIGITS: Final = 16

Draw = Callable[[int], bytes]


def user_id(name: str) -> bytes:
    """Where an appliance user's record is kept."""
    return record_id("user", name)


def new_serial() -> str:
    """A partition's serial number: 16 random decimal digits."""
    return f"{secrets.randbelow(10**_SERIAL_DIGITS):0{_SERIAL_DIGITS}}"


def begin(state: HsmState, label: str, po: KeptPassword, now: int) -> HsmState:
    """The state with a new cluster that no store knows yet, and the V1 partition its SMK lives in.

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
    return replace(rules.add_partition(state, partition), cluster=cluster)


def check_same(cluster: Cluster, label: str) -> None:
    """Raises ArgumentInvalid when a cluster that was begun is to be finished under another name."""
    if cluster.label != label:
        raise ArgumentInvalid(f"the cluster {cluster.label} was begun and is to be finished first, under that label")


def first_commit(state: HsmState, now: int) -> Commit:
    """All a new cluster's records: itself, its PO, its policy, and the appliance's users.

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

    def put(record: Record, where: bytes, unique: str = "") -> Put:
        return records.put(record, where, 0, unique=unique)

    def credential(password: KeptPassword, role: Role, name: str = "") -> Put:
        record = credentials.new_record(
            password.material(), role=role, smk=smk, cluster=cluster.id, now=seconds, name=name
        )
        return put(record, credentials.credential_id(role, name))

    changes = [
        put(ClusterRecord(id=cluster.id, label=cluster.label, instance=instance, created_at=seconds), CLUSTER_RECORD),
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
    """The state once the store holds the cluster: users and the PO live there from now on."""
    assert state.cluster is not None, "a cluster that is being created"
    return replace(state, users=(), cluster=replace(state.cluster, phase=Phase.CREATED, po=None))
