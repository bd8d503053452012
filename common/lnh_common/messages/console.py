"""Messages of the local console: to the hsm core on its own ipc socket, by the directory's owner only."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec

from lnh_common import limits
from lnh_common.messages import objects
from lnh_common.messages.admin import Name, NewName
from lnh_common.messages.backup import ArchiveName, JobRef, JobView
from lnh_common.messages.base import Confidential, Effect, Empty, Message, Operation, operation
from lnh_common.messages.session import Id16, Password
from lnh_common.messages.smk import BackupText, ShareNumber, Shares

M = TypeVar("M", bound=Message)
Pcr = Annotated[int, msgspec.Meta(ge=0, lt=limits.TPM_PCRS)]


class InitAppliance(Confidential):
    """Initialise the appliance with its first admin."""

    admin: NewName
    password: Password


class ApplianceView(Message):
    """Describe the appliance: its users, as far as they are known now, and the packages installed on it."""

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
    """Describe the HSM.

    Args:
        state: uninitialised, sealed (not activated) or activated.
        identity: fingerprint of the HSM.
        advice: what an operator should change about the member's settings.
        damaged: what the store served wrongly; empty for a member that is well.
        shares_needed: to activate it; 0 where the activation secret does.
        tpm: whether a TPM activates it, too, and at the member's start.
        tpm_pcrs: registers of the TPM that must be as they were for that.
    """

    state: str
    label: str
    identity: str
    locked_memory: bool
    workers: int
    partitions: int
    cluster: str
    advice: tuple[str, ...]
    damaged: str = ""
    shares_needed: int = 0
    tpm: bool = False
    tpm_pcrs: tuple[int, ...] = ()


class Initialised(Confidential):
    """Answer that the HSM is initialised; `domain` shows the cloning domain this once, if the HSM drew it."""

    identity: str
    domain: str


class Activate(Confidential):
    """Open the HSM's state with the activation secret, or close it; with neither secret nor shares the TPM does.

    Args:
        shares: in place of the secret, as they are printed.
    """

    activation: Annotated[bytes, msgspec.Meta(max_length=4096)] = b""
    shares: Shares = ()


class AsSo(Confidential):
    """An act of the HSM's security officer, authorised by the SO's password."""

    so_password: Password


class ChangeSoPassword(AsSo):
    """Change the SO's own password."""

    new: Password


class Officer(str, enum.Enum):
    """An officer of one of the appliance's own partitions."""

    PO = "po"
    CO = "co"


class ChangeOfficerPassword(Confidential):
    """Change the password of a partition's officer, authorised by the old one."""

    label: Name
    officer: Officer
    password: Password
    new: Password


class DrawShares(AsSo):
    """Draw a new activation secret and split it; nothing is sealed under it before `SetActivation`."""

    threshold: ShareNumber
    count: ShareNumber


class DrawnShares(Confidential):
    """Answer with the shares that were drawn last, as they are printed; none is shown again."""

    shares: tuple[str, ...]


class SetActivation(AsSo):
    """Seal the HSM's state under another activation secret, as the SO.

    Args:
        activation: the new secret, 8 bytes or more; empty where shares open it.
        shares: enough of those that were drawn last, to show that they were kept.
        tpm: whether the key that the secret gives is sealed to the TPM of this machine, too.
        pcrs: registers of the TPM, of SHA-256, that must then be as they are now.
    """

    activation: Annotated[bytes, msgspec.Meta(max_length=4096)] = b""
    shares: Shares = ()
    tpm: bool = False
    pcrs: Annotated[tuple[Pcr, ...], msgspec.Meta(max_length=limits.TPM_PCRS)] = ()


class InstallPackage(AsSo):
    """Install a package by its name, as the SO."""

    name: Name


class CreatePartition(AsSo):
    """Create a partition of version 0 or 1, and set both its passwords at once."""

    label: NewName
    version: Annotated[int, msgspec.Meta(ge=0, le=1)]
    po_password: Password
    co_password: Password


class PartitionRef(AsSo):
    """Name the partition that an act of the SO is about."""

    label: Name


class PartitionView(Message):
    """Describe one partition; `accessible` is false once the cluster package has disabled it."""

    label: str
    version: int
    serial: str
    objects: int
    limit: int = limits.OBJECTS_PER_PARTITION
    accessible: bool = True


class AsCo(Confidential):
    """An act of the CO of one of the appliance's own partitions, authorised by the CO's password."""

    partition: Name
    co_password: Password


class InPartition(AsCo, Generic[M]):
    """Carry out an operation on a partition's objects; `request` is what would be asked of a keyring."""

    request: M


class SendKey(AsCo):
    """Wrap a key of a partition by RSA_AES_KEY_WRAP, for an HSM elsewhere.

    That the public key is one to be trusted, the SO says by its password, as the KRSO says it of a keyring's.

    Args:
        handle: of a key that is EXTRACTABLE.
        receiver: SubjectPublicKeyInfo of an RSA key of the HSM that unwraps it.
        template: of the public key: its WRAP_TEMPLATE, where that is not the default.
    """

    so_password: Password
    handle: Id16
    receiver: Annotated[bytes, msgspec.Meta(max_length=limits.OBJECT_BYTES)]
    template: objects.WireTemplate = {}


class Partitions(Message):
    """Answer with every partition of the appliance."""

    partitions: tuple[PartitionView, ...]


class CreateCluster(AsSo):
    """Create a cluster; `label` also names the cluster's V1 partition, whose PO is the cluster's."""

    label: NewName
    po_password: Password


class CreatedCluster(Message):
    """Answer with the id of the new cluster, and with the fingerprint that clients compare."""

    cluster: str
    fingerprint: str


class JoinCluster(AsSo):
    """Join a cluster; `invitation` is the text that `lnh member invite` wrote, which is good for one HSM."""

    invitation: Annotated[str, msgspec.Meta(max_length=8192)]


class JoinedCluster(Message):
    """Answer with the cluster that was joined.

    Args:
        member: this member's id in it.
        warning: what speaks against this member; empty when nothing does.
    """

    label: str
    cluster: str
    fingerprint: str
    member: str
    warning: str = ""


class JoinProgress(Message):
    """Describe how far this member is in its cluster.

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
    """Give an admin a new password, as the SO."""

    admin: Name
    password: Password


class ConsoleCluster(Message):
    """Describe the cluster to a new client; `created` is false when there is none.

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
    """Answer with how much of the audit trail holds.

    Args:
        records: how many records hold.
        signed: how many of them a head covers that this HSM signed.
        anchored: how many of them the head in the cluster's replicated log covers.
        head: the hash of the last line that holds.
        problem: the first line that does not hold, and why; no line after it counts. Empty when the chain holds.
        signatures: how many lines are heads. Each has an index of its own, which no record has.
    """

    records: int
    signed: int
    head: str
    anchored: int = 0
    problem: str = ""
    signatures: int = 0


class AuditPage(Message):
    """Ask for up to `limit` records of the audit trail with an index above `after`."""

    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class AuditRecords(Message):
    """Answer with records of the audit trail, oldest first."""

    records: tuple[dict[str, Any], ...]


class RestoreCluster(AsSo):
    """Put the cluster whose secrets this HSM holds into its empty store, from an archive in its directory."""

    name: ArchiveName


class RestoreSmk(AsSo):
    """Put the SMK of a backup, and its cluster's identity, into this HSM.

    Args:
        backup: as its file has it.
        passphrase: that it was made with; the cloning domain is this HSM's.
        shares: instead, as they are printed.
    """

    backup: BackupText
    passphrase: Password = ""
    shares: Shares = ()


class RestoredSmk(Message):
    """Answer with the cluster whose SMK this HSM holds now, and with the newest generation of it."""

    label: str
    cluster: str
    fingerprint: str
    generation: int


class Check(Message):
    """Ask whether an act of the console may be done as things are, before anybody is asked for a password.

    Args:
        operation: the act.
        target: what the act is about, such as the label of a partition, or an invitation; "" for an act about nothing
            that has a name.
    """

    operation: Annotated[str, msgspec.Meta(max_length=limits.OPERATION_CHARACTERS)]
    target: Annotated[str, msgspec.Meta(max_length=8192)] = ""


_W = Effect.WRITE
APPLIANCE_INIT: Final = operation("appliance.init", InitAppliance, Empty, effect=_W)
APPLIANCE_SHOW: Final = operation("appliance.show", Empty, ApplianceView)
APPLIANCE_RESET_ADMIN: Final = operation("appliance.reset-admin", ResetAdmin, Empty, effect=_W)
APPLIANCE_REIMAGE: Final = operation("appliance.reimage", Empty, Empty, effect=_W)
HSM_INIT: Final = operation("hsm.init", InitHsm, Initialised, effect=_W)
HSM_SHOW: Final = operation("hsm.show", Empty, HsmView)
HSM_ACTIVATE: Final = operation("hsm.activate", Activate, Empty, effect=_W)
HSM_DEACTIVATE: Final = operation("hsm.deactivate", Activate, Empty, effect=_W)
HSM_DRAW_SHARES: Final = operation("hsm.draw-shares", DrawShares, DrawnShares, effect=_W)
HSM_SET_ACTIVATION: Final = operation("hsm.set-activation", SetActivation, Empty, effect=_W)
HSM_FACTORY_RESET: Final = operation("hsm.factory-reset", AsSo, Empty, effect=_W)
HSM_PASSWORD: Final = operation("hsm.password", ChangeSoPassword, Empty, effect=_W)
PACKAGE_INSTALL: Final = operation("package.install", InstallPackage, Empty, effect=_W)
PARTITION_CREATE: Final = operation("partition.create", CreatePartition, PartitionView, effect=_W)
PARTITION_LIST: Final = operation("partition.list", Empty, Partitions)
PARTITION_DELETE: Final = operation("partition.delete", PartitionRef, Empty, effect=_W)
PARTITION_PASSWORD: Final = operation("partition.password", ChangeOfficerPassword, Empty, effect=_W)
PARTITION_SEND: Final = operation("partition.send", SendKey, objects.Result)
CLUSTER_CREATE: Final = operation("cluster.create", CreateCluster, CreatedCluster, effect=_W)
CLUSTER_JOIN: Final = operation("cluster.join", JoinCluster, JoinedCluster, effect=_W)
CLUSTER_PROGRESS: Final = operation("cluster.progress", Empty, JoinProgress)
CLUSTER_DISCARD: Final = operation("cluster.discard", AsSo, Empty, effect=_W)
CLUSTER_RESTORE: Final = operation("cluster.restore", RestoreCluster, JobView, effect=_W)
SMK_RESTORE: Final = operation("smk.restore", RestoreSmk, RestoredSmk, effect=_W)
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
        (objects.CREATE, InPartition[objects.CreateObject]),
        (objects.COPY, InPartition[objects.Copy]),
        (objects.VALUE, InPartition[objects.Show]),
        (objects.WRAP, InPartition[objects.Wrap]),
        (objects.UNWRAP, InPartition[objects.Unwrap]),
        (objects.DERIVE, InPartition[objects.Derive]),
        (objects.ENCAPSULATE, InPartition[objects.Derive]),
        (objects.DECAPSULATE, InPartition[objects.Decapsulate]),
        (objects.FIND, InPartition[objects.Find]),
        (objects.SHOW, InPartition[objects.Show]),
        (objects.SET, InPartition[objects.SetAttributes]),
        (objects.DESTROY, InPartition[objects.Destroy]),
        (objects.SIGN, InPartition[objects.Use]),
        (objects.SIGN_MANY, InPartition[objects.UseMany]),
        (objects.VERIFY, InPartition[objects.Verify]),
        (objects.VERIFY_MANY, InPartition[objects.VerifyMany]),
        (objects.ENCRYPT_MANY, InPartition[objects.UseMany]),
        (objects.DECRYPT_MANY, InPartition[objects.UseMany]),
        (objects.ENCRYPT, InPartition[objects.Use]),
        (objects.DECRYPT, InPartition[objects.Decrypt]),
    )
}
