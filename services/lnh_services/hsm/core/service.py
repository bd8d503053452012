"""The hsm core: holds the HSM's state, gives its workers their secrets, and keeps the audit trail.

    run/hsm/console.ipc   the local console             run/hsm/core.ipc   its workers: secrets, audit
    run/hsm/services.ipc  status, for other services     run/hsm/argon2.ipc (the Argon2id process)

It is the only process that writes the HSM's own state and the trail; workers hold secrets in memory
and nothing else. What it decides is in `appliance/preconditions.py`, `cluster/channel_seeds.py` and `audit/trail.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeVar

from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.bus.client import Client
from lnh_common.bus.server import Call, Server
from lnh_common.errors import AuditFailed, ConfigurationInvalid, LnhError, NotActivated, Unreachable
from lnh_common.events import Log
from lnh_common.messages import audit, backup, smk
from lnh_common.messages import console as messages
from lnh_common.messages.base import Empty
from lnh_common.messages.hsm import (
    ADMIT,
    ATTACH,
    AUDIT,
    DAMAGED,
    DEPART,
    DERIVE,
    FAILED_ATTEMPTS,
    FAILED_ATTEMPTS_TOLD,
    INVITE,
    NOTE_ATTEMPT,
    SEEN,
    SERVES,
    Admit,
    Admitted,
    AllFailedAttempts,
    AttachWorker,
    Audit,
    Audited,
    Damage,
    Depart,
    Derive,
    FailedAttempts,
    Highest,
    Invited,
    LoginAttempt,
    Seen,
    WorkerSecrets,
)
from lnh_services import durable
from lnh_services.configuration import Settings
from lnh_services.hsm.appliance import preconditions
from lnh_services.hsm.appliance.desk import Desk
from lnh_services.hsm.appliance.partitions import PartitionFiles
from lnh_services.hsm.appliance.state import ApplianceFile, StateFile
from lnh_services.hsm.appliance.vault import Vault
from lnh_services.hsm.audit import trail
from lnh_services.hsm.audit.trail import Trail
from lnh_services.hsm.auth.offline_attempts import OfflineAttempts
from lnh_services.hsm.backup import restore
from lnh_services.hsm.backup.archiving import Archiving
from lnh_services.hsm.backup.rebuild import Refounding
from lnh_services.hsm.backup.restore import Restoring
from lnh_services.hsm.cluster import channel_keeper, smk_keeper
from lnh_services.hsm.cluster.channel_keeper import ChannelKeeper
from lnh_services.hsm.cluster.channel_seeds import offered
from lnh_services.hsm.cluster.custody import Custody
from lnh_services.hsm.cluster.join import Belonging
from lnh_services.hsm.cluster.smk_keeper import SmkKeeper
from lnh_services.hsm.core.cluster_contents import ClusterContents
from lnh_services.hsm.core.console import Console, Surroundings
from lnh_services.hsm.core.damage import DamageMark
from lnh_services.hsm.core.processes import Workers, argon2_process
from lnh_services.hsm.core.watching import watch
from lnh_services.hsm.crypto.process_hardening import Hardening
from lnh_services.hsm.crypto.tpm import Tpm
from lnh_services.hsm.worker.rollback_guard import HighestSeen
from lnh_services.paths import MemberDirectory
from lnh_services.serving import Member

T = TypeVar("T")

STATE_FILE: Final = "hsm.state"
APPLIANCE_FILE: Final = "appliance.cbor"
TRAIL_FILE: Final = "audit.jsonl"
OFFLINE_ATTEMPTS_FILE: Final = "guesses.cbor"

_DERIVE_SECONDS: Final = 60.0
_FINISH_SECONDS: Final = 5.0
_CONSOLE_REQUESTS: Final = 64
_SIGN_TICK: Final = 1.0
_TIDY_TICK: Final = 5.0
_CHANNEL_AGAIN: Final = 5.0  # seconds between looks while something is left to be done
_RESTORE_AGAIN: Final = 5.0  # ... which another core has meanwhile, for what it left itself
_SMK_AGAIN: Final = 1.0
_ACTIVATION_BYTES: Final = 4096
_OWNER_ONLY: Final = 0o077

_log: Final = Log("hsm.core")


class Core:
    """One member's hsm core; made and used within a running loop.

    Raises at construction what `Vault` and `Trail.open` raise.
    """

    def __init__(self, member: Member, hardening: Hardening) -> None:
        self._directory: Final = member.directory
        self._settings: Final = member.settings
        check_private(self._directory)
        data = self._directory.data("hsm")
        trail_path = self._directory.log / TRAIL_FILE
        self._vault: Final = Vault(
            StateFile(data / STATE_FILE), ApplianceFile(data / APPLIANCE_FILE), PartitionFiles(data)
        )
        self._trail: Final = Trail(trail_path, self._settings.name)
        self._argon2: Final = argon2_process(self._directory)
        self._workers: Final = Workers(self._directory, self._settings.worker_count)
        self._deriver: Final = Client(self._directory.argon2, name="hsm.argon2")
        self._store: Final = Client(self._directory.store_for_hsm, name="hsm.store")
        self._membership: Final = Client(self._directory.membership_for_hsm, name="hsm.membership")
        self._channel: Final = ChannelKeeper(self._vault, self._store)
        self._archiving: Final = Archiving(self._vault, self._store, self._settings.name)
        self._damage: Final = DamageMark()
        self._seen: Final = HighestSeen()
        here = Surroundings(
            name=self._settings.name,
            door=f"{self._settings.host}:{self._settings.client_port}",
            host=self._settings.host,
            port=self._settings.base_port,
            key=lambda: curve.to_raw(self._directory.member_public.read_bytes().strip()),
            hardening=hardening,
            trail_path=trail_path,
            advice=_advice(self._directory, self._settings),
            lease_ms=self._settings.timeouts.lease,
            damage=self._damage,
            seen=self._seen,
        )
        self._desk: Final = Desk(self._vault, self._trail, derive=self._derive, workers=self._workers)
        self._smks: Final = SmkKeeper(self._vault, self._store, self._desk, introduce=self._channel.keep)
        self._belonging: Final = Belonging(
            self._vault, self._desk, derive=self._derive, store=self._store, membership=self._membership,
            take_smks=self._smks.take,
        )  # fmt: skip
        self._custody: Final = Custody(self._vault, self._desk, self._belonging, derive=self._derive)
        self._restoring: Final = Restoring(self._archiving, self._store, self._desk)
        self._backup: Final = Client(self._directory.backup_for_hsm, name="hsm.backup")
        refounding = Refounding(
            self._vault, self._desk, self._archiving, self._restoring,
            store_=self._store, backup_=self._backup, here=here,
        )  # fmt: skip
        self._console: Final = Console(
            self._vault,
            self._trail,
            self._desk,
            self._belonging,
            derive=self._derive,
            contents=ClusterContents(self._store),
            others=refounding.performers() | self._custody.performers(),
            tpm=Tpm(self._settings.activation.tpm),
            surroundings=here,
        )
        self._offline_attempts: Final = OfflineAttempts(self._directory.data("hsm") / OFFLINE_ATTEMPTS_FILE)
        self._signed_at = 0.0
        cover = self._vault.cover
        self._activating = cover is not None and bool(cover.tpm or self._settings.activation.file)

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then end children, sign the trail and forget."""
        self._trail.open(_now_ms())
        servers = self._servers()
        self._argon2.start()
        for server in servers:
            server.start()
        tasks = [
            asyncio.create_task(self._every(_SIGN_TICK, self._sign_when_due)),
            asyncio.create_task(self._every(_TIDY_TICK, self._tidy)),
            asyncio.create_task(self._watch(channel_keeper.RESTS_ON, self._keep_channel, _CHANNEL_AGAIN)),
            asyncio.create_task(self._watch(smk_keeper.RESTS_ON, self._keep_smks, _SMK_AGAIN)),
            asyncio.create_task(self._watch(restore.RESTS_ON, self._finish_restore, _RESTORE_AGAIN)),
            asyncio.create_task(self._activate_at_start()),
        ]
        try:
            await stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._stop(servers)

    async def _stop(self, servers: list[Server]) -> None:
        await self._console.finish(_FINISH_SECONDS)
        await self._workers.stop()
        for server in servers:
            await server.close()
        await self._deriver.close()
        await self._store.close()
        await self._membership.close()
        await self._backup.close()
        await self._argon2.stop()
        try:
            self._trail.tell_refusals(_now_ms(), all_of_them=True)
            self._desk.sign()
        except AuditFailed as error:
            _log.failure("audit trail not signed", problem=str(error))
        self._trail.close()
        self._vault.deactivate()

    def _servers(self) -> list[Server]:
        console = Server(self._directory.hsm_console, name="hsm.console", in_flight=_CONSOLE_REQUESTS)
        self._console.serve(console)
        core = Server(self._directory.hsm_core, name="hsm.core")
        core.serve(ATTACH, self._on_attach)
        core.serve(AUDIT, self._on_audit)
        core.serve(SEEN, self._on_seen)
        core.on_cast(SEEN, self._on_told)
        core.on_cast(DAMAGED, self._on_damaged)
        core.serve(NOTE_ATTEMPT, self._on_attempt)
        core.serve(FAILED_ATTEMPTS, self._on_failed_attempts)
        core.serve(FAILED_ATTEMPTS_TOLD, self._on_failed_attempts_told)
        core.serve(INVITE, self._on_invite)
        core.serve(audit.READ_TRAIL, self._on_read_trail)
        core.serve(smk.MAKE_SMK_BACKUP, self._on_smk_backup)
        core.serve(smk.ROLL_SMK, self._on_roll_smk)
        core.serve(smk.RETIRE_SMKS, self._on_retire_smks)
        core.serve(backup.ALLOW, self._on_allow_restore)
        services = Server(self._directory.hsm_for_services, name="hsm.services")
        self._console.serve_one(services, messages.HSM_SHOW)
        self._archiving.serve(services)
        services.serve(backup.BEGIN_RESTORE, self._on_begin_restore)
        services.serve(backup.RESTORE_ROWS, self._on_restore_rows)
        services.serve(backup.FINISH_RESTORE, self._on_finish_restore)
        services.serve(backup.ABANDON_RESTORE, self._on_abandon_restore)
        services.serve(SERVES, self._on_serves)
        services.serve(ADMIT, self._on_admit)
        services.serve(DEPART, self._on_depart)
        return [console, core, services]

    # --- workers

    async def _on_attach(self, call: Call, request: AttachWorker) -> WorkerSecrets:
        if refusal := preconditions.serving(self._vault.situation):
            raise refusal
        cluster = self._vault.opened.cluster
        assert cluster is not None, "an HSM that serves has a cluster"
        return WorkerSecrets(
            cluster=cluster.id,
            label=cluster.label,
            member=cluster.member,
            member_name=self._settings.name,
            member_key=curve.to_raw(self._directory.client_public.read_bytes().strip()),
            identity=cluster.identity,
            channel=offered(cluster.channel, int(time.time())),
            smk=cluster.smk,
            lookup=cluster.lookup,
        )

    async def _on_serves(self, call: Call, request: Empty) -> Empty:
        refusal = preconditions.serving(self._vault.situation)
        if isinstance(refusal, NotActivated) and self._activating:
            raise Unreachable("this member is starting: its HSM is being activated")
        if refusal:
            raise refusal
        return Empty()

    async def _on_audit(self, call: Call, request: Audit) -> Audited:
        index = self._trail.append(request.entries, _now_ms())
        if self._trail.unsigned >= limits.AUDIT_SIGN_RECORDS:
            self._desk.sign()
        return Audited(index=index)

    async def _on_read_trail(self, call: Call, asked: audit.ReadTrail) -> audit.TrailLines:
        self._desk.sign()
        last = self._trail.position.index
        # In a thread, as the console does: the workers' questions do not wait for it.
        until, most = min(asked.until or last, last), limits.AUDIT_PAGE_BYTES
        found, index = await asyncio.to_thread(trail.lines, self._trail.path, asked.after, until, most)
        return audit.TrailLines(lines=found, index=index, last=last)

    async def _on_invite(self, call: Call, request: Empty) -> Invited:
        return await self._belonging.invite()

    async def _on_smk_backup(self, call: Call, asked: smk.MakeSmkBackup) -> smk.SmkBackupMade:
        return await self._custody.backup(asked)

    async def _on_roll_smk(self, call: Call, order: smk.OrderSmk) -> smk.SmkOrdered:
        return await self._smks.roll_over(order)

    async def _on_retire_smks(self, call: Call, order: smk.OrderSmk) -> smk.SmkOrdered:
        return await self._smks.retire(order)

    # --- a restore

    async def _on_allow_restore(self, call: Call, asked: backup.Allow) -> backup.Ticket:
        ticket = self._restoring.allow(asked.id, asked.name, check=asked.check, archive=asked.archive)
        return backup.Ticket(ticket=ticket)

    async def _on_begin_restore(self, call: Call, asked: backup.BeginRestore) -> backup.DataKey:
        return await self._restoring.begin(asked)

    async def _on_restore_rows(self, call: Call, asked: backup.RestoreRows) -> Empty:
        await self._restoring.rows(asked)
        return Empty()

    async def _on_finish_restore(self, call: Call, asked: backup.FinishRestore) -> backup.Restored:
        return await self._restoring.finish(asked)

    async def _on_abandon_restore(self, call: Call, asked: backup.Ticket) -> Empty:
        await self._restoring.abandon(asked.ticket)
        return Empty()

    # --- what membership brings

    async def _on_admit(self, call: Call, request: Admit) -> Admitted:
        return await self._belonging.admit(request)

    async def _on_depart(self, call: Call, request: Depart) -> Empty:
        await self._belonging.depart(request)
        return Empty()

    async def _on_seen(self, call: Call, request: Seen) -> Highest:
        return Highest(highest=tuple(self._seen.note(request.marks)))

    async def _on_told(self, call: Call, told: Seen) -> None:
        self._seen.note(told.marks)

    async def _on_damaged(self, call: Call, told: Damage) -> None:
        cluster = self._vault.state.cluster if self._vault.state else None
        if cluster is not None:
            self._damage.note(cluster.member, told.cause)

    async def _on_attempt(self, call: Call, attempt: LoginAttempt) -> Empty:
        self._offline_attempts.note(attempt, int(time.time()))
        return Empty()

    async def _on_failed_attempts(self, call: Call, request: Empty) -> AllFailedAttempts:
        return AllFailedAttempts(failed=self._offline_attempts.all())

    async def _on_failed_attempts_told(self, call: Call, told: FailedAttempts) -> Empty:
        self._offline_attempts.told(told)
        return Empty()

    async def _derive(self, request: Derive) -> bytes:
        return (await self._deriver.ask(DERIVE, request, timeout=_DERIVE_SECONDS)).key

    # --- what happens by itself

    async def _every(self, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._attempt(act)

    async def _watch(self, tables: Collection[str], act: Callable[[], Awaitable[bool]], again: float) -> None:
        await watch(self._store, tables, lambda: self._attempt(act), again)

    async def _attempt(self, act: Callable[[], Awaitable[T]]) -> T | None:
        """Do something, and return what it returned; None where it failed, which the log has."""
        try:
            return await act()
        except LnhError as error:
            _log.failure("not done", what=act.__name__.strip("_"), problem=str(error))
        except Exception as error:  # a bug must not end the audit's signing or the channel's rotation for good
            _log.bug("failed", error, what=act.__name__.strip("_"))
        return None

    async def _sign_when_due(self) -> None:
        self._trail.tell_refusals(_now_ms())
        if time.monotonic() - self._signed_at >= limits.AUDIT_SIGN_SECONDS:
            self._desk.sign()
            self._signed_at = time.monotonic()
            await self._console.anchor()

    async def _tidy(self) -> None:
        self._belonging.go_on()
        await self._belonging.tidy()

    async def _keep_channel(self) -> bool:
        return await self._channel.keep()

    async def _keep_smks(self) -> bool:
        return await self._smks.keep()

    async def _finish_restore(self) -> bool:
        return await self._restoring.tidy()

    async def _activate_at_start(self) -> None:
        """Activate by the TPM that the HSM is sealed to, or with the secret in the file that the settings name.

        A failure is logged, and the console can still activate.
        """
        if not self._activating:
            return
        cover, name = self._vault.cover, self._settings.activation.file
        by_tpm = cover is not None and cover.tpm is not None
        means = {"tpm": self._settings.activation.tpm} if by_tpm else {"file": name}
        try:
            activation = b"" if by_tpm else read_activation(self._directory, name)
            await self._console.perform(messages.HSM_ACTIVATE, messages.Activate(activation=activation))
            _log.info("activated at start", **means)
        except LnhError as error:
            _log.failure("not activated at start", problem=str(error), **means)
            return
        finally:
            self._activating = False
        with contextlib.suppress(LnhError):  # the store may not be there yet; there will be another round
            await self._channel.keep()


def read_activation(directory: MemberDirectory, name: str) -> bytes:
    """Read the activation secret in a file, without the line end an editor puts there.

    Args:
        name: absolute, or relative to the member directory.

    Raises FileModeUnsafe, StorageFailed, ConfigurationInvalid when there is none.
    """
    found = durable.read_private(directory.root / name, _ACTIVATION_BYTES, follow=True)
    if found is None:
        raise ConfigurationInvalid(f"the activation file {name} is missing")
    return found.rstrip(b"\r\n")


def check_private(directory: MemberDirectory) -> None:
    """Raise ConfigurationInvalid unless the directory of the hsm's sockets is its owner's alone."""
    status = (directory.root / "run" / "hsm").stat()
    if status.st_mode & _OWNER_ONLY or status.st_uid != os.geteuid():
        raise ConfigurationInvalid(f"{directory.root}/run/hsm must be this user's alone (mode 0700)")


def _advice(directory: MemberDirectory, settings: Settings) -> tuple[str, ...]:
    if directory.has_beside(settings.activation.file):
        return ("the activation file is on the disk it protects: who takes the disk can open the HSM",)
    return ()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
