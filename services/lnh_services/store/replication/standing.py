"""Says how a member stands, in words that any engine knows (`store/engine.py`). Pure."""

from __future__ import annotations

import enum

import msgspec

from lnh_services.store.log.entries import LeaseSettings, MemberId
from lnh_services.store.log.window import Removed


class Phase(enum.Enum):
    """The phase of a member: from holding no cluster to primary or expelled."""

    NONE = "none"  # no cluster
    MEMBER = "member"  # follows a primary, or looks for one
    OPENING = "opening"  # is about to be primary: what is asked meanwhile waits
    PRIMARY = "primary"
    EXPELLED = "expelled"


class Lag(msgspec.Struct, frozen=True):
    """How far another member is, as the primary knows.

    Args:
        index: it has acknowledged up to here.
        heard: boot seconds of its last word; 0 or less: none was heard.
    """

    member: MemberId
    index: int
    heard: float


class Standing(msgspec.Struct, frozen=True):
    """How a member stands at one moment.

    Args:
        is_joining: it does not take part yet.
        primary: as this member knows it; empty while it knows none.
        term: of the epoch.
        in_sync: the members that a commit waits for.
        promotable: members that may be made primary now without loss; None where this member does not decide that.
        take_over_of: members whose loss for good needs a take-over here: the primary; each other, while none is known.
        catching_up: listed members that are not counted on yet.
        last, committed, applied: indexes.
        groups: the affinity groups.
        removed: the last members that were removed for certain.
        lags: of the other members, where this one is primary.
        diverged: it dropped what it had applied, and no administrator has looked yet.
        expelled: how it was removed, if it was.
    """

    phase: Phase
    is_joining: bool
    primary: MemberId
    term: int
    in_sync: tuple[MemberId, ...]
    promotable: tuple[MemberId, ...] | None
    take_over_of: tuple[MemberId, ...]
    catching_up: tuple[MemberId, ...]
    last: int
    committed: int
    applied: int
    groups: tuple[str, ...]
    removed: tuple[Removed, ...]
    lags: tuple[Lag, ...]
    lease_settings: LeaseSettings
    diverged: bool
    expelled: Removed | None
