"""What the acts of an appliance share: who may, the audit trail, and the workers.

The local console, joining and leaving, and restores are carried out by classes of their own. Each is given a desk: it
checks the passwords of the SO and of COs, enters acts into the trail, and starts and stops the workers.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from msgspec.structs import replace

from lnh_common.errors import LnhError, PartitionDisabled
from lnh_common.messages import console
from lnh_common.messages.console import Officer
from lnh_common.messages.hsm import AuditEntry, Derive
from lnh_services.hsm.appliance import preconditions
from lnh_services.hsm.appliance.state import HsmState, Partition, Phase
from lnh_services.hsm.appliance.vault import Vault
from lnh_services.hsm.audit.refusals import STRANGER
from lnh_services.hsm.audit.trail import Trail
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.auth.console_attempts import KeptPassword, Verifier

SO: Final = "SO"


class Workers(Protocol):
    """The hsm workers, as `processes.Workers` is."""

    @property
    def running(self) -> int:
        """The number of workers that run."""

    def start(self) -> None:
        """Start every worker."""

    async def stop(self) -> None:
        """Stop every worker, and wait for their end."""


class Desk:
    """Authorises, records, and keeps the workers; for one core.

    Args:
        derive: runs one Argon2id elsewhere.
        clock: UTC seconds.
    """

    def __init__(
        self,
        vault: Vault,
        trail: Trail,
        *,
        derive: Callable[[Derive], Awaitable[bytes]],
        workers: Workers,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._vault: Final = vault
        self._trail: Final = trail
        self._derive: Final = derive
        self._workers: Final = workers
        self._clock: Final = clock

    # --- the audit trail

    def record_act(self, operation: str, role: str, target: str, outcome: str) -> None:
        """Enter an act of the local console into the audit trail; raises AuditFailed."""
        self._enter(AuditEntry(identity="console", role=role, operation=operation, target=target, outcome=outcome))

    def record(self, operation: str, target: str, outcome: str) -> None:
        """Enter what another member's request, or this cluster, had this HSM do; raises AuditFailed."""
        self._enter(AuditEntry(identity="cluster", role="", operation=operation, target=target, outcome=outcome))

    def refuse(self, operation: str, target: str, error: LnhError) -> None:
        """Enter that a stranger may not become a member; refusals that repeat are counted."""
        outcome = type(error).__name__
        entry = AuditEntry(identity="", role="", operation=operation, target=target, outcome=outcome, peer=STRANGER)
        self._trail.append([entry], int(self._clock() * 1000))

    def sign(self) -> None:
        """Sign the trail since its last head, if the HSM is activated; raises AuditFailed."""
        if self._vault.state and self._trail.unsigned:
            self._trail.sign(self._vault.state.signing_key(), int(self._clock() * 1000))

    def _enter(self, entry: AuditEntry) -> None:
        self._trail.append([entry], int(self._clock() * 1000), durable=True)

    # --- passwords

    async def keep(self, password: str) -> KeptPassword:
        """Derive what to keep of a new password; raises PasswordInvalid."""
        credentials.check_password(password)
        asked = credentials.derivation(password)
        return KeptPassword.of(credentials.material(asked, await self._derive(asked)))

    async def authorise(self, request: console.AsSo) -> None:
        """Check the SO's password; raises PasswordIncorrect, PasswordLocked."""
        await self._attempt(SO, self._vault.opened.so, request.so_password, lambda state, so: replace(state, so=so))

    async def authorise_co(self, request: console.AsCo) -> Partition:
        """Check a CO's password, and return its partition.

        Raises PartitionUnknown, PasswordIncorrect, PasswordLocked.
        """
        return await self.authorise_officer(request.partition, Officer.CO, request.co_password)

    async def authorise_officer(self, label: str, officer: Officer, password: str) -> Partition:
        """Check the password of a partition's PO or CO, and return the partition; raises as `authorise_co`."""
        partition = preconditions.find_partition(self._vault.opened, label)
        verifier = partition.po if officer is Officer.PO else partition.co
        if verifier is None:
            raise PartitionDisabled(f"partition {label} is the cluster's")
        await self._attempt(
            f"{officer.name} of partition {label}",
            verifier,
            password,
            lambda state, kept: preconditions.with_officer(state, label, officer, kept),
        )
        return partition

    async def _attempt(
        self, role: str, verifier: Verifier, password: str, kept: Callable[[HsmState, Verifier], HsmState]
    ) -> None:
        """Carry out one attempt at a password, counted before it is compared.

        Args:
            kept: makes the state that holds the verifier it is given.
        """
        verifier.check(role, int(self._clock()))
        derived = await self._derive(verifier.password.derivation(password))
        reserved = verifier.reserve(role, int(self._clock()), derived)
        self._vault.change(lambda state: kept(state, reserved))
        settled = reserved.settle(derived)
        self._vault.change(lambda state: kept(state, settled))
        settled.check_right(role, derived)

    # --- the workers

    @property
    def workers_running(self) -> int:
        """The number of workers that run."""
        return self._workers.running

    def start_workers(self) -> None:
        """Start the workers if there is a cluster to serve."""
        state = self._vault.state
        if state and state.cluster and state.cluster.phase is Phase.CREATED:
            self._workers.start()

    async def stop_workers(self) -> None:
        """Stop the workers, and wait for their end."""
        await self._workers.stop()
