"""Serves the operations on the SMK: what there is of it, and its backup, which the core makes."""

from __future__ import annotations

from lnh_common.messages import smk
from lnh_common.messages.base import Empty
from lnh_common.wire.shares import check_numbers
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.cluster.smk_backup import check_value
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.request import Request


def show(worker: WorkerCore, request: Request[Empty]) -> Steps[smk.SmkView]:
    """Show the generations that this member's HSM holds."""
    yield from ()
    held = worker.secrets().secrets
    return smk.SmkView(
        cluster=held.cluster,
        label=held.label,
        generations=tuple(
            smk.SmkGenerationView(generation=each.generation, check=check_value(each.key).hex()) for each in held.smk
        ),
    )


def backup(worker: WorkerCore, request: Request[smk.BackupSmk]) -> Steps[smk.SmkBackupMade]:
    """Make a backup under a passphrase, or shares, and the cloning domain; raises PasswordInvalid, ArgumentInvalid."""
    asked = request.message
    if asked.threshold or asked.count:
        check_numbers(asked.threshold, asked.count)
    else:
        credentials.check_password(asked.passphrase)
    order = smk.MakeSmkBackup(
        id=request.new_id(), passphrase=asked.passphrase, threshold=asked.threshold, count=asked.count
    )
    return (yield from ask(Peer.CORE, smk.MAKE_SMK_BACKUP, order))
