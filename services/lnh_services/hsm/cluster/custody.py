"""Keeps the SMK beside the cluster: makes backups of it, and puts one into a new HSM. The acts of the core.

    backup    asked by a worker, for an admin and the PO
    restore   at the local console, as the SO, of an HSM that is in no cluster

A restore is one change of the HSM's state: it happened or it did not. The cluster's records come from an archive
afterwards (`backup/rebuild.py`).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec.structs import replace

from lnh_common import limits
from lnh_common.errors import NoCluster
from lnh_common.messages import console, hsm
from lnh_common.messages.base import Message
from lnh_common.messages.smk import MakeSmkBackup, SmkBackupMade
from lnh_common.wire import channel
from lnh_common.wire.shares import Share
from lnh_common.wire.smk_backups import SmkBackup
from lnh_services.hsm.appliance.desk import Desk
from lnh_services.hsm.appliance.state import Phase
from lnh_services.hsm.appliance.vault import Vault
from lnh_services.hsm.cluster import create, smk_backup
from lnh_services.hsm.cluster.join import Belonging
from lnh_services.hsm.cluster.smk_backup import Contents
from lnh_services.hsm.crypto import shares
from lnh_services.hsm.crypto.key_hierarchy import KEY_BYTES

KEPT_SECONDS: Final = 60.0  # its shares are in memory for so long
_RANDOM: Final = 16


class Custody:
    """Carries out backup and restore of the SMK for one core; made and used within a running loop.

    Args:
        derive: runs one Argon2id elsewhere.
        clock: UTC seconds.
    """

    def __init__(
        self,
        vault: Vault,
        desk: Desk,
        belonging: Belonging,
        *,
        derive: Callable[[hsm.Derive], Awaitable[bytes]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._vault: Final = vault
        self._desk: Final = desk
        self._belonging: Final = belonging
        self._derive: Final = derive
        self._clock: Final = clock
        self._making: tuple[bytes, asyncio.Task[SmkBackupMade]] | None = None

    def performers(self) -> dict[str, Callable[[Any], Awaitable[Message]]]:
        """Return the operations of the local console that are carried out here."""
        return {console.SMK_RESTORE.name: self._restore}

    async def backup(self, asked: MakeSmkBackup) -> SmkBackupMade:
        """Make a backup; the same order that comes again within `KEPT_SECONDS` gets the same one.

        Raises NotActivated, NoCluster.
        """
        if self._making is None or self._making[0] != asked.id:
            self._making = asked.id, asyncio.create_task(self._backup(asked))
            self._making[1].add_done_callback(self._made)
        return await asyncio.shield(self._making[1])

    def _made(self, making: asyncio.Task[SmkBackupMade]) -> None:
        if not making.cancelled():
            making.exception()  # read here too: its asker may have gone
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget, making)

    def _forget(self, making: asyncio.Task[SmkBackupMade]) -> None:
        if self._making is not None and self._making[1] is making:
            self._making = None

    async def _backup(self, asked: MakeSmkBackup) -> SmkBackupMade:
        state = self._vault.opened
        cluster = state.cluster
        if cluster is None or cluster.phase is not Phase.CREATED:
            raise NoCluster("this member has no cluster")
        contents = Contents.of(cluster)
        salt, now = secrets.token_bytes(_RANDOM), int(self._clock())
        secret, parts, handed = asked.passphrase.encode(), None, list[Share]()
        if asked.count:
            secret = secrets.token_bytes(KEY_BYTES)
            parts, handed = shares.split(secret, asked.threshold, asked.count, secrets.token_bytes)
        cover = smk_backup.new_cover(contents, asked.id, salt, limits.SMK_BACKUP_ARGON2, now, parts)
        key = await self._derive(smk_backup.derivation(cover, secret, state.domain))
        text = smk_backup.sealed(contents, cover, key).text()
        return SmkBackupMade(text=text, shares=tuple(share.text() for share in handed))

    async def _restore(self, request: console.RestoreSmk) -> console.RestoredSmk:
        await self._desk.authorise(request)
        backup = SmkBackup.parse(request.backup)
        secret, parts = request.passphrase.encode(), backup.cover.split
        if parts is not None:
            secret = shares.combined(parts, map(Share.parse, request.shares))
        key = await self._derive(smk_backup.derivation(backup.cover, secret, self._vault.opened.domain))
        contents = smk_backup.opened(backup, key)
        await self._belonging.check_store()
        now = int(self._clock())
        epoch = smk_backup.following_epoch(contents, backup.cover, now)
        cluster = self._vault.change(lambda state: create.restored(state, contents, epoch, now)).cluster
        assert cluster is not None, "it was restored"
        self._vault.change_appliance(lambda before: replace(before, initialised=True))
        self._desk.sign()
        self._desk.start_workers()
        return console.RestoredSmk(
            label=cluster.label,
            cluster=cluster.id.hex(),
            fingerprint=channel.fingerprint(cluster.identity_public()),
            generation=cluster.newest_smk().generation,
        )
