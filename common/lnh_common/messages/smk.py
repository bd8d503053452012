"""Messages about the SMK: what the cluster has of it, and its backup."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from lnh_common import limits
from lnh_common.messages.base import Confidential, Effect, Empty, Message, Seal, operation
from lnh_common.messages.session import Id16, Password

ShareNumber = Annotated[int, msgspec.Meta(ge=0, le=limits.SHARES)]
ShareText = Annotated[str, msgspec.Meta(max_length=limits.SHARE_CHARACTERS)]
Shares = Annotated[tuple[ShareText, ...], msgspec.Meta(max_length=limits.SHARES)]
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
    """Ask for a backup of the SMK that opens with the HSM's cloning domain, and a passphrase or shares.

    Args:
        passphrase: empty where shares open it.
        threshold, count: so many of so many shares; 0 for a passphrase.
    """

    passphrase: Password = ""
    threshold: ShareNumber = 0
    count: ShareNumber = 0


class SmkBackupMade(Confidential):
    """Answer with a backup of the SMK, as its file has it, and with the shares that open it, as they are printed."""

    text: BackupText
    shares: tuple[str, ...] = ()


class MakeSmkBackup(BackupSmk, kw_only=True):
    """Have the core make a backup; the same id asks for the same one, also a while after it was made."""

    id: Id16


SMK_SHOW: Final = operation("smk.show", Empty, SmkView, Seal.SESSION)
# They change nothing stored, and a backup takes its time: one that is asked for again is to be the same one.
SMK_BACKUP: Final = operation("smk.backup", BackupSmk, SmkBackupMade, Seal.SESSION, Effect.WRITE)
MAKE_SMK_BACKUP: Final = operation("core.smk.backup", MakeSmkBackup, SmkBackupMade, effect=Effect.WRITE)
