"""Speaks to a member's local console: initialises the appliance and its HSM, makes partitions, creates a cluster.

It speaks to the hsm's own socket in the member directory, which only the directory's owner can open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from typing_extensions import Self

from lnh.arguments import check_message, checked
from lnh.partitions import PartitionSession
from lnh_common.bus.blocking import Caller
from lnh_common.errors import LnhError, PartitionUnknown, Unreachable
from lnh_common.messages import console as wire
from lnh_common.messages.backup import JobRef, JobView
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.console import (
    ApplianceView,
    AuditReport,
    ConsoleCluster,
    CreatedCluster,
    HsmView,
    Initialised,
    JoinedCluster,
    JoinProgress,
    Officer,
    PartitionView,
    RestoredSmk,
)
from lnh_common.pkcs11.attributes import Attribute

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

SOCKET: Final = Path("run") / "hsm" / "console.ipc"
_LOOK_EVERY: Final = 0.2  # seconds
_PATIENCE: Final = 60.0  # seconds: Argon2id with 256 MiB on a slow machine, and waiting for workers


@checked
class Console:
    """The console of the member in this directory; a context manager. One thread.

    Args:
        directory: the member directory.
        timeout: seconds an operation may take.

    Raises Unreachable when no member runs there.
    """

    def __init__(self, directory: Path | str, *, timeout: float = _PATIENCE) -> None:
        self.directory: Final = Path(directory)
        self._timeout: Final = timeout
        path = (self.directory / SOCKET).absolute()
        if not path.exists():
            raise Unreachable(f"no member runs in {self.directory} ({path} is not there)")
        self._caller: Final = Caller(f"ipc://{path}", name=f"the console of {self.directory}")

    def ask(self, operation: Operation[Q, R], message: Q, timeout: float | None = None) -> R:
        """Ask one operation of the console; raises what the hsm answers, and ArgumentInvalid."""
        check_message(message, operation.request)
        return self._caller.ask(operation, message, self._timeout if timeout is None else timeout)

    def check(self, operation: Operation[Any, Any], target: str = "") -> None:
        """Ask whether an act may be done as things are; raises the error that forbids it.

        Args:
            target: what the act is about, such as a partition's label.
        """
        self.ask(wire.CONSOLE_CHECK, wire.Check(operation=operation.name, target=target))

    def init_appliance(self, admin: str, password: str) -> None:
        """Make the first admin; raises AlreadyDone, PasswordInvalid."""
        self.ask(wire.APPLIANCE_INIT, wire.InitAppliance(admin=admin, password=password))

    def appliance(self) -> ApplianceView:
        """Show the appliance: its users and packages."""
        return self.ask(wire.APPLIANCE_SHOW, Empty())

    def reset_admin(self, admin: str, password: str, so_password: str) -> None:
        """Give an admin a new password, as the SO; raises PasswordIncorrect, NameUnknown."""
        self.ask(wire.APPLIANCE_RESET_ADMIN, wire.ResetAdmin(so_password=so_password, admin=admin, password=password))

    def reimage(self) -> None:
        """Destroy every role, partition and key of this appliance."""
        self.ask(wire.APPLIANCE_REIMAGE, Empty())

    def init_hsm(self, label: str, so_password: str, activation: bytes, domain: str = "") -> Initialised:
        """Initialise the HSM.

        Args:
            activation: the secret that seals its state on disk, 8 to 4096 bytes.
            domain: the cloning domain; empty draws one, which the answer shows this once.

        Raises AlreadyDone, PasswordInvalid.
        """
        message = wire.InitHsm(label=label, so_password=so_password, activation=activation, domain=domain)
        return self.ask(wire.HSM_INIT, message)

    def hsm(self) -> HsmView:
        """Show the HSM: its state, identity, and what an operator should change."""
        return self.ask(wire.HSM_SHOW, Empty())

    def activate(self, activation: bytes = b"", shares: Sequence[str] = ()) -> None:
        """Open the HSM's state, with the activation secret or shares of it; with neither the TPM does, if it may.

        Raises ActivationFailed, AlreadyDone, ArgumentInvalid (too few shares, or wrong ones), TpmFailed.
        """
        self.ask(wire.HSM_ACTIVATE, wire.Activate(activation=activation, shares=tuple(shares)))

    def deactivate(self, activation: bytes = b"", shares: Sequence[str] = ()) -> None:
        """Close the HSM's state and wipe it from memory; raises as `activate`."""
        self.ask(wire.HSM_DEACTIVATE, wire.Activate(activation=activation, shares=tuple(shares)))

    def draw_shares(self, threshold: int, count: int, so_password: str) -> list[str]:
        """Draw a new activation secret, split in shares; `set_activation` with enough of them seals under it.

        Raises PasswordIncorrect, ArgumentInvalid.
        """
        message = wire.DrawShares(so_password=so_password, threshold=threshold, count=count)
        return list(self.ask(wire.HSM_DRAW_SHARES, message).shares)

    def set_activation(
        self,
        so_password: str,
        activation: bytes = b"",
        shares: Sequence[str] = (),
        *,
        tpm: bool = False,
        pcrs: Sequence[int] = (),
    ) -> None:
        """Seal the HSM's state under another activation secret, which replaces the one before.

        Args:
            activation: the new secret, 8 to 4096 bytes; empty where shares open it.
            shares: enough of those that `draw_shares` returned last.
            tpm: whether the TPM of this machine is to activate the HSM, too, and at the member's start.
            pcrs: registers of the TPM, 0 to 23, that must then be as they are now.

        Raises PasswordIncorrect, PasswordInvalid, ArgumentInvalid, NotPossible (no shares were drawn), TpmFailed.
        """
        message = wire.SetActivation(
            so_password=so_password, activation=activation, shares=tuple(shares), tpm=tpm, pcrs=tuple(pcrs)
        )
        self.ask(wire.HSM_SET_ACTIVATION, message)

    def factory_reset(self, so_password: str) -> None:
        """Destroy everything in the HSM; raises PasswordIncorrect."""
        self.ask(wire.HSM_FACTORY_RESET, wire.AsSo(so_password=so_password))

    def change_so_password(self, old: str, new: str) -> None:
        """Change the SO's own password; raises PasswordIncorrect, PasswordLocked, PasswordInvalid."""
        self.ask(wire.HSM_PASSWORD, wire.ChangeSoPassword(so_password=old, new=new))

    def change_officer_password(self, label: str, officer: Officer, old: str, new: str) -> None:
        """Change the password of the PO or CO of an own partition.

        Raises PartitionUnknown, PasswordIncorrect, PasswordLocked, PasswordInvalid.
        """
        message = wire.ChangeOfficerPassword(label=label, officer=officer, password=old, new=new)
        self.ask(wire.PARTITION_PASSWORD, message)

    def install_package(self, name: str, so_password: str) -> None:
        """Install a package; `cluster` disables access to existing partitions until the appliance is re-imaged."""
        self.ask(wire.PACKAGE_INSTALL, wire.InstallPackage(so_password=so_password, name=name))

    def create_partition(
        self, label: str, version: int, so_password: str, po_password: str, co_password: str
    ) -> PartitionView:
        """Create an application partition; `version` 0 or 1. Raises NameTaken, LimitReached, PasswordIncorrect."""
        message = wire.CreatePartition(
            so_password=so_password, label=label, version=version, po_password=po_password, co_password=co_password
        )
        return self.ask(wire.PARTITION_CREATE, message)

    def partitions(self) -> list[PartitionView]:
        """List the appliance's partitions."""
        return list(self.ask(wire.PARTITION_LIST, Empty()).partitions)

    def partition(self, label: str) -> PartitionView:
        """Find the partition with this label; raises PartitionUnknown."""
        for view in self.partitions():
            if view.label == label:
                return view
        raise PartitionUnknown(f"no partition {label!r}")

    def delete_partition(self, label: str, so_password: str) -> None:
        """Delete a partition and its objects; raises PartitionUnknown, PasswordIncorrect."""
        self.ask(wire.PARTITION_DELETE, wire.PartitionRef(so_password=so_password, label=label))

    def partition_session(self, label: str, co_password: str) -> PartitionSession:
        """Make, find and use a partition's objects as its CO; the password is checked at each operation."""
        return PartitionSession(self, label, co_password)

    def send_key(
        self,
        label: str,
        co_password: str,
        so_password: str,
        handle: bytes,
        receiver: bytes,
        template: Mapping[int, Any] | None = None,
    ) -> bytes:
        """Wrap a key of a partition by RSA_AES_KEY_WRAP (PKCS#11 v3.1, 6.1.19), for an HSM elsewhere.

        Args:
            label: the partition.
            handle: of a key that is EXTRACTABLE.
            receiver: SubjectPublicKeyInfo of an RSA key of 3072 bits or more; the SO's password says that it is one to
                be trusted.
            template: the receiver's WRAP_TEMPLATE; None for the default.

        Raises PartitionUnknown, PartitionDisabled, PasswordIncorrect, PasswordLocked, ObjectUnknown, KeyUnextractable,
        AttributeInvalid, KeySizeRange, PolicyForbids, TemplateInconsistent.
        """
        given = {Attribute.WRAP_TEMPLATE.value: dict(template)} if template else {}
        message = wire.SendKey(
            partition=label,
            co_password=co_password,
            so_password=so_password,
            handle=handle,
            receiver=receiver,
            template=given,
        )
        return self.ask(wire.PARTITION_SEND, message).data

    def restore_cluster(self, name: str, so_password: str) -> JobView:
        """Begin to put the cluster into this member's empty store, from an archive in its directory.

        Raises NoCluster, AlreadyDone, NotPossible, PasswordIncorrect.
        """
        return self.ask(wire.CLUSTER_RESTORE, wire.RestoreCluster(so_password=so_password, name=name))

    def wait_restored(self, job: JobView, tell: Callable[[JobView], None] = lambda _: None) -> JobView:
        """Wait for a restore, telling how it stands; raises the error that it failed with."""
        while job.state == "running":
            tell(job)
            time.sleep(_LOOK_EVERY)
            job = self.ask(wire.RESTORE_JOB, JobRef(id=job.id))
        if job.error is not None:
            raise LnhError.from_wire(list(job.error))
        return job

    def create_cluster(self, label: str, so_password: str, po_password: str) -> CreatedCluster:
        """Create a cluster of this one member: its V1 partition, PO, SMK and identity.

        Raises NotInitialised naming the missing step, AlreadyDone, PasswordIncorrect.
        """
        message = wire.CreateCluster(so_password=so_password, label=label, po_password=po_password)
        return self.ask(wire.CLUSTER_CREATE, message)

    def join_cluster(self, invitation: str, so_password: str) -> JoinedCluster:
        """Join the cluster whose member made this invitation; run again, it goes on where it was interrupted.

        Raises NotPossible (V1 partitions of its own, another cluster's data), AlreadyDone, NotInitialised,
        DomainMismatch, InvitationExpired, InvitationUsed, InvitationBurnt, InvitationUnknown, UnsupportedVersion,
        NameTaken, MemberReadOnly, PasswordIncorrect, Unreachable.
        """
        return self.ask(wire.CLUSTER_JOIN, wire.JoinCluster(so_password=so_password, invitation=invitation))

    def restore_smk(self, backup: str, passphrase: str, so_password: str, shares: Sequence[str] = ()) -> RestoredSmk:
        """Put the SMK and the cluster's identity of a backup into this HSM, which is in no cluster.

        Its cluster's records come from an archive then (`restore_cluster`).

        Args:
            backup: the text of its file.
            passphrase: of the backup; empty where shares open it.
            shares: as they were printed.

        Raises PasswordIncorrect (the SO's, the passphrase, or another cloning domain), AlreadyDone, NotInitialised,
        NotPossible (V1 partitions of its own, a store that is not empty), ArgumentInvalid (no backup of the SMK).
        """
        message = wire.RestoreSmk(so_password=so_password, backup=backup, passphrase=passphrase, shares=tuple(shares))
        return self.ask(wire.SMK_RESTORE, message)

    def progress(self) -> JoinProgress:
        """Show how far this member is in the cluster that it joined."""
        return self.ask(wire.CLUSTER_PROGRESS, Empty())

    def discard_cluster(self, so_password: str) -> None:
        """Erase what is left of a cluster this member was expelled from; raises AlreadyDone, PasswordIncorrect."""
        self.ask(wire.CLUSTER_DISCARD, wire.AsSo(so_password=so_password))

    def cluster(self) -> ConsoleCluster:
        """Show what a new client needs to know of the cluster."""
        return self.ask(wire.CONSOLE_CLUSTER, Empty())

    def verify_audit(self) -> AuditReport:
        """Check the audit trail's chain and signatures."""
        return self.ask(wire.AUDIT_VERIFY, Empty())

    def audit(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the audit trail's records behind this index, a page at a time as they are taken."""
        while True:
            page = self.ask(wire.AUDIT_SHOW, wire.AuditPage(after=after))
            yield from page.records
            if not page.records:
                return
            after = page.records[-1]["index"]

    def close(self) -> None:
        """Close the connection to the hsm."""
        self._caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
