"""Swaps a restored state in for everything in one entry: items belong to an era, and one era is seen. Pure.

A restore lays its items aside in an era of its own (`Stage`), entry by entry, while the cluster goes on; one entry then
makes that era the one that is seen (`Switch`), and the items seen before are removed a little at a time (`Sweep`). So
the step that matters costs the same however much there is, every member takes it at the same place of the log, and a
restore that is given up leaves nothing but what `Sweep` takes away.

The era is part of the name of an item's table where items are kept: `user` in the first era, `<era>/user` in a later.
"""

from __future__ import annotations

from typing import Final

import msgspec

from lnh_common.messages.store import Key
from lnh_services.store.log.entries import Milliseconds

FIRST: Final = ""
SEPARATOR: Final = "/"
TABLE: Final = "~eras"  # holds one row: which eras there are
ID: Final = b"eras"
ABANDONED_MS: Final = 30 * 60 * 1000  # of log time without another Stage: that restore does not go on
EVERYTHING: Final = Key(table="~everything")  # stands for all there is, where the keys are told that an entry changes


class Eras(msgspec.Struct, frozen=True, array_like=True):
    """The eras that there are.

    Args:
        seen: the one whose items are read and changed.
        staging: the one that a restore prepares; FIRST where there is none.
        staged_at: log time of the last Stage.
    """

    seen: str = FIRST
    staging: str = FIRST
    staged_at: Milliseconds = Milliseconds(0)


def named(restore: bytes) -> str:
    """Name the era of a restore (16 bytes)."""
    return restore.hex()


def place(era: str, table: str) -> str:
    """Name a table of this era as it is called where items are kept."""
    return f"{era}{SEPARATOR}{table}" if era else table


def is_of(era: str, placed: str) -> bool:
    """Tell whether a table of this name, where items are kept, is of this era."""
    if not era:
        return SEPARATOR not in placed and placed != TABLE
    return placed.startswith(era + SEPARATOR)


def may_name(table: str) -> bool:
    """Tell whether items that are asked for may be in a table of this name."""
    return SEPARATOR not in table and not table.startswith("~")
