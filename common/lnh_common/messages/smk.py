"""Messages about the SMK: what the cluster has of it, and its backup."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from lnh_common import limits
from lnh_common.messages.base import Confidential, Empty, Message, Seal, operation
from lnh_common.messages.session import Id16, Password

BackupText = Annotated[str, msgspec.Meta(max_length=limits.SMK_BACKUP_BYTES)]


class SmkGenerationView(Message):
    """Describe one generation of the SMK.

    Args:
        check: hexadecimal; the same wherever the key is the same, in an HSM or in a backup.
    """

    generation: int
    check: str


class SmkView(Message):
    """Answer with the generations that the HSM of the member holds, oldest first; the newest seals what is new."""

    cluster: Id16
    label: str
    generations: tuple[SmkGenerationView, ...]


class BackupSmk(Confidential):
    """Ask for a backup of the SMK that opens with this passphrase and the HSM's cloning domain."""

    passphrase: Password


class SmkBackupMade(Confidential):
    """Answer with a backup of the SMK, as its file has it."""

    text: BackupText


class MakeSmkBackup(Confidential):
    """Have the core make a backup; while it is made, the same id asks for the same one."""

    id: Id16
    passphrase: Password


SMK_SHOW: Final = operation("smk.show", Empty, SmkView, Seal.SESSION)
SMK_BACKUP: Final = operation("smk.backup", BackupSmk, SmkBackupMade, Seal.SESSION)
MAKE_SMK_BACKUP: Final = operation("core.smk.backup", MakeSmkBackup, SmkBackupMade)
