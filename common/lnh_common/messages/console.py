"""The local console: what the hsm core is asked on its own ipc socket, by the directory's owner only."""

from __future__ import annotations

from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec

from lnh_common import limits
from lnh_common.messages import objects
from lnh_common.messages.admin import Name, NewName
from lnh_common.messages.backup import ArchiveName, JobRef, JobView
from lnh_common.messages.base import Confidential, Effect, Empty, Message, Operation, operation
from lnh_common.messages.session import Password

M = TypeVar("M", bound=Message)


class InitAppliance(Confidential):
    """The appliance's first admin."""

    admin: NewName
    password: Password


class ApplianceView(Message):
    name: str
    initialised: bool
    users: tuple[str, ...]
    packages: tuple[str, ...]


class InitHsm(Confidential):
    """Initialise the HSM.

    Args:
        label: of this HSM.
        so_password: of its security officer.
        activation: the secret that seals its state on disk.
        domain: the cloning domain; empty draws one of 128 bit.
    """

    label: NewName
    so_password: Password
    activation: Annotated[bytes, msgspec.Meta(min_length=8, max_length=4096)]
    domain: Annotated[str, msgspec.Meta(max_length=255)] = ""


class HsmView(Message):
    """`state` is uninitialised, sealed (not activated) or activated; `damaged` is what its store served wrongly."""

    state: str
    label: str
    identity: str
    locked_memory: bool
    workers: int
    partitions: int
    cluster: str
    advice: tuple[str, ...]
    damaged: str = ""


class Initialised(Confidential):
    """`domain` is shown this once when the HSM drew it."""

    identity: str
    domain: str


class Activate(Confidential):
    activation: Annotated[bytes, msgspec.Meta(max_length=4096)]


class AsSo(Confidential):
    so_password: Password


class InstallPackage(AsSo):
    name: Name


class CreatePartition(AsSo):
    """`version` 0 or 1; both passwords are set at once."""

    label: NewName
    version: Annotated[int, msgspec.Meta(ge=0, le=1)]
    po_password: Password
    co_password: Password


class PartitionRef(AsSo):
    label: Name


class PartitionView(Message):
    label: str
    version: int
    serial: str
    objects: int
    limit: int = limits.OBJECTS_PER_PARTITION
    accessible: bool = True


class AsCo(Confidential):
    """As the CO of one of the appliance's own partitions."""

    partition: Name
    co_password: Password


class InPartition(AsCo, Generic[M]):
    """What one would ask of a keyring, asked of a partition."""

    request: M


class Partitions(Message):
    partitions: tuple[PartitionView, ...]


class CreateCluster(AsSo):
    """`label` also names the cluster's V1 partition, whose PO is the cluster's."""

    label: NewName
    po_password: Password


class CreatedCluster(Message):
    cluster: str
    fingerprint: str


class JoinCluster(AsSo):
    """`invitation` is the text that `lnh member invite` wrote; it is no secret of the SO's but good for one try."""

    invitation: Annotated[str, msgspec.Meta(max_length=8192)]


class JoinedCluster(Message):
    """`warning` is empty when nothing speaks against this member; `member` is its id in the cluster."""

    label: str
    cluster: str
    fingerprint: str
    member: str
    warning: str = ""


class JoinProgress(Message):
    """How far this member is in its cluster.

    Args:
        state: of its store: read-write once it takes part; none, read-only, joining, expelled or failed.
        index: of the last entry of the log that it holds.
        waiting_for: names of members that have not taken note of this one; it takes part when all have.
    """

    state: str
    index: int
    waiting_for: tuple[str, ...] = ()
    problem: str = ""


class ResetAdmin(AsSo):
    admin: Name
    password: Password


class ConsoleCluster(Message):
    """What a new client needs to know; `created` is false when there is no cluster.

    Args:
        member: this member's id in it.
        phase: creating, created, joining, leaving; empty without a cluster.
        expelled: why this member is in no cluster any more.
    """

    created: bool
    label: str = ""
    cluster: str = ""
    fingerprint: str = ""
    door: str = ""
    member: str = ""
    phase: str = ""
    expelled: str = ""


class AuditReport(Message):
    """`problem` is empty when the chain holds; else it names the first line that does not, and nothing after counts.

    Args:
        records: that hold.
        signed: of them, covered by a head this HSM signed.
        anchored: of them, covered by the head in the cluster's replicated log.
        head: the hash of the last line that holds.
        signatures: lines that are heads. Each has an index of its own, which no record has.
    """

    records: int
    signed: int
    head: str
    anchored: int = 0
    problem: str = ""
    signatures: int = 0


class AuditPage(Message):
    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class AuditRecords(Message):
    records: tuple[dict[str, Any], ...]


class RestoreCluster(AsSo):
    """Put the cluster whose secrets this HSM holds into its empty store, from an archive in its directory."""

    name: ArchiveName


class Check(Message):
    """Ask whether an act of the console may be done as things are, before anybody is asked for a password.

    Args:
        operation: the act.
        target: what it is about, such as the label of a partition; "" where it is about nothing that has a name.
    """

    operation: Annotated[str, msgspec.Meta(max_length=limits.OPERATION_CHARACTERS)]
    target: Annotated[str, msgspec.Meta(max_length=limits.LABEL_BYTES)] = ""


_W = Effect.WRITE
APPLIANCE_INIT: Final = operation("appliance.init", InitAppliance, Empty, effect=_W)
APPLIANCE_SHOW: Final = operation("appliance.show", Empty, ApplianceView)
APPLIANCE_RESET_ADMIN: Final = operation("appliance.reset-admin", ResetAdmin, Empty, effect=_W)
APPLIANCE_REIMAGE: Final = operation("appliance.reimage", Empty, Empty, effect=_W)
HSM_INIT: Final = operation("hsm.init", InitHsm, Initialised, effect=_W)
HSM_SHOW: Final = operation("hsm.show", Empty, HsmView)
HSM_ACTIVATE: Final = operation("hsm.activate", Activate, Empty, effect=_W)
HSM_DEACTIVATE: Final = operation("hsm.deactivate", Activate, Empty, effect=_W)
HSM_FACTORY_RESET: Final = operation("hsm.factory-reset", AsSo, Empty, effect=_W)
PACKAGE_INSTALL: Final = operation("package.install", InstallPackage, Empty, effect=_W)
PARTITION_CREATE: Final = operation("partition.create", CreatePartition, PartitionView, effect=_W)
PARTITION_LIST: Final = operation("partition.list", Empty, Partitions)
PARTITION_DELETE: Final = operation("partition.delete", PartitionRef, Empty, effect=_W)
CLUSTER_CREATE: Final = operation("cluster.create", CreateCluster, CreatedCluster, effect=_W)
CLUSTER_JOIN: Final = operation("cluster.join", JoinCluster, JoinedCluster, effect=_W)
CLUSTER_PROGRESS: Final = operation("cluster.progress", Empty, JoinProgress)
CLUSTER_DISCARD: Final = operation("cluster.discard", AsSo, Empty, effect=_W)
CLUSTER_RESTORE: Final = operation("cluster.restore", RestoreCluster, JobView, effect=_W)
RESTORE_JOB: Final = operation("cluster.restore.job", JobRef, JobView)
CONSOLE_CHECK: Final = operation("console.check", Check, Empty)
CONSOLE_CLUSTER: Final = operation("console.cluster", Empty, ConsoleCluster)
AUDIT_VERIFY: Final = operation("audit.verify", Empty, AuditReport)
AUDIT_SHOW: Final = operation("audit.show", AuditPage, AuditRecords)

# What the CO of a partition does with its objects, by the name of what a keyring's role does with its own.
IN_PARTITION: Final[dict[str, Operation[Any, Any]]] = {
    row.name: operation(f"partition.{row.name}", request, row.reply, effect=row.effect)
    for row, request in (
        (objects.GENERATE, InPartition[objects.GenerateKey]),
        (objects.GENERATE_PAIR, InPartition[objects.GenerateKeyPair]),
        (objects.FIND, InPartition[objects.Find]),
        (objects.SHOW, InPartition[objects.Show]),
        (objects.SET, InPartition[objects.SetAttributes]),
        (objects.DESTROY, InPartition[objects.ObjectRef]),
        (objects.SIGN, InPartition[objects.Use]),
        (objects.SIGN_MANY, InPartition[objects.UseMany]),
        (objects.VERIFY, InPartition[objects.Verify]),
        (objects.ENCRYPT, InPartition[objects.Use]),
        (objects.DECRYPT, InPartition[objects.Decrypt]),
    )
}
