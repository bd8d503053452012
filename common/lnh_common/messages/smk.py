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


class SmkMemberView(Message):
    """Describe what a member's HSM holds of the SMK: the newest generation that it said it has."""

    member: str
    newest: int


class SmkView(Message):
    """Answer with the generations that the HSM of the member holds, oldest first, and how far a rollover is.

    Args:
        in_use: the generation that seals what is written.
        progress: what a rollover does now, or that none is under way.
        records: that there are; counted while a rollover is under way, else 0.
        left: of them, those that are sealed under an older generation than the newest.
        members: what each HSM holds; empty before the first rollover.
    """

    cluster: Id16
    label: str
    generations: tuple[SmkGenerationView, ...]
    in_use: int
    progress: str
    records: int = 0
    left: int = 0
    members: tuple[SmkMemberView, ...] = ()


class RetireSmk(Message):
    """Order that every generation before `newest` be dropped; refused where another is the newest by now."""

    newest: Annotated[int, msgspec.Meta(ge=1)]


class SmkOrdered(Message):
    """Answer with the newest generation, and with those that are held once all members have heard of it."""

    newest: int
    generations: tuple[int, ...]


class OrderSmk(Message):
    """Have the core carry out an order about the SMK's generations; the same id asks for the same one.

    Args:
        newest: the generation that is to be the newest when it is carried out; 0 for any.
    """

    id: Id16
    newest: int = 0


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
SMK_ROLLOVER: Final = operation("smk.rollover", Empty, SmkOrdered, Seal.SESSION, Effect.WRITE, since="0.2")
SMK_RETIRE: Final = operation("smk.retire", RetireSmk, SmkOrdered, Seal.SESSION, Effect.WRITE, since="0.2")
ROLL_SMK: Final = operation("core.smk.rollover", OrderSmk, SmkOrdered, effect=Effect.WRITE)
RETIRE_SMKS: Final = operation("core.smk.retire", OrderSmk, SmkOrdered, effect=Effect.WRITE)
GENERATION: Final = "smk.generation"  # what the trail calls the steps that follow an order
