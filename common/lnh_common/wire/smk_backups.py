"""Spells and parses a backup of the SMK, whose cover stands in clear. docs/formats/smk-backup.md is exact.

    the line lnh-smk-backup-1, then base64 lines of CBOR [cover, sealed]

Client and HSM read the cover alike: it says whose SMK it is, and what opens it. Only an HSM opens the rest.
"""

from __future__ import annotations

import base64
import textwrap
import time
from typing import Annotated, Final

import msgspec

from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, MalformedMessage
from lnh_common.messages.session import Id16
from lnh_common.wire import codec
from lnh_common.wire.shares import Split

FORMAT: Final = "lnh-smk-backup-1"
CHECK_BYTES: Final = 8
_LINE: Final = 76

Check = Annotated[bytes, msgspec.Meta(min_length=CHECK_BYTES, max_length=CHECK_BYTES)]


class Generation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A generation of the SMK, and the check value by which people compare it."""

    generation: Annotated[int, msgspec.Meta(ge=1)]
    check: Check


class Cover(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The part of a backup that stands in clear.

    Args:
        id: 16 random bytes.
        made_at: UTC seconds.
        generations: that are in it, oldest first.
        argon2: memory in KiB, passes, lanes.
        split: what shares open the backup with; None for one under a passphrase.
    """

    format: str
    id: Id16
    cluster: Id16
    label: str
    made_at: Annotated[int, msgspec.Meta(ge=0)]
    generations: Annotated[tuple[Generation, ...], msgspec.Meta(min_length=1)]
    salt: Id16
    argon2: tuple[
        Annotated[int, msgspec.Meta(ge=8, le=1 << 21)],
        Annotated[int, msgspec.Meta(ge=1, le=16)],
        Annotated[int, msgspec.Meta(ge=1, le=16)],
    ]
    split: Split | None

    def encoded(self) -> bytes:
        """Encode the cover, as the seal is bound to it."""
        return codec.encode(msgspec.to_builtins(self, builtin_types=(bytes,)))

    def made(self) -> str:
        """Tell the moment to people."""
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.made_at))


class SmkBackup(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A whole backup: its cover, and the rest that an HSM opens."""

    cover: Cover
    sealed: bytes

    def text(self) -> str:
        """Spell the backup as the file has it."""
        packed = codec.encode(msgspec.to_builtins(self, builtin_types=(bytes,)))
        encoded = base64.b64encode(packed).decode()
        return "\n".join([FORMAT, *textwrap.wrap(encoded, _LINE)]) + "\n"

    @classmethod
    def parse(cls, text: str) -> SmkBackup:
        """Parse a file; raises ArgumentInvalid for one that is no backup of the SMK of this version."""
        first, _, rest = text.strip().partition("\n")
        if first.strip() != FORMAT:
            raise ArgumentInvalid(f"not a backup of the SMK: it begins with the line {FORMAT}")
        try:
            packed = base64.b64decode("".join(rest.split()), validate=True)
            found = codec.convert(codec.decode(packed, limits.SMK_BACKUP_BYTES), cls)
        except (ValueError, MalformedMessage):  # what is no base64 is a ValueError, in one of its forms
            raise ArgumentInvalid("the backup of the SMK is damaged: a part of it is missing or changed") from None
        if found.cover.format != FORMAT:
            raise ArgumentInvalid(
                f"a backup of the SMK of format {found.cover.format!r}; this version reads {FORMAT!r}"
            )
        return found
