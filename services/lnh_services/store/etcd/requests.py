"""Defines what is asked of etcd and what comes of it: the plain types between the roles and the client. Pure.

The roles put `AskEtcd` among their effects; the client carries it out and reports exactly one outcome under the same
id, within its deadline. It keeps no order among requests, and repeats none that may have been carried out: it says
`Unknown` wherever it cannot tell. The request may then have been carried out, may be yet, or never. Keys are relative
to the prefix that the client is configured with. Nobody needs a watch.
"""

from __future__ import annotations

import enum
from typing import NewType

import msgspec

EtcdId = NewType("EtcdId", int)


class Compare(msgspec.Struct, frozen=True):
    """Asks that a key has exactly this value; None: that there is no such key."""

    key: bytes
    value: bytes | None


class Put(msgspec.Struct, frozen=True):
    """Sets the value of a key."""

    key: bytes
    value: bytes


class Range(msgspec.Struct, frozen=True):
    """Names the keys from `first` up to, and without, `end`.

    As a request it is a linearizable read of them, in the order of keys, at one revision: of the first `limit` (0: of
    all).
    """

    first: bytes
    end: bytes
    limit: int = 0


class Transaction(msgspec.Struct, frozen=True):
    """Changes keys, all at one revision, if all comparisons hold; if not, reads `otherwise` at the same revision.

    Args:
        compares: all must hold.
        puts: values to set.
        deletes: keys to delete.
        otherwise: what `Differed` brings.
    """

    compares: tuple[Compare, ...]
    puts: tuple[Put, ...] = ()
    deletes: tuple[Range, ...] = ()
    otherwise: Range | None = None


class Compact(msgspec.Struct, frozen=True):
    """Has etcd forget what was before a revision."""

    revision: int


Request = Transaction | Range | Compact


class AskEtcd(msgspec.Struct, frozen=True):
    """Ask etcd; then `etcd_answered(id, outcome)`, once."""

    id: EtcdId
    request: Request


class Done(msgspec.Struct, frozen=True):
    """The request was carried out, at this revision; `found` are a range's keys and values."""

    revision: int
    found: tuple[tuple[bytes, bytes], ...] = ()


class Differed(msgspec.Struct, frozen=True):
    """A comparison did not hold, so nothing was changed; `found` is what `otherwise` named."""

    revision: int
    found: tuple[tuple[bytes, bytes], ...] = ()


class Why(enum.Enum):
    """Why a request has no other outcome."""

    # The alarm of that name is raised: nothing is put before an operator lowers it. Never for certain: the transaction
    # by which the quota is exceeded is carried out, and answered with this error too (etcd's quotaApplierV3).
    NO_SPACE = "no space"
    TOO_LARGE = "too large"  # for etcd's --max-request-bytes
    FORBIDDEN = "forbidden"  # to the role that the client logs in with
    UNREACHABLE = "unreachable"  # no node took it in time


class Refused(msgspec.Struct, frozen=True):
    """etcd did not carry the request out, and never will."""

    why: Why
    text: str


class Unknown(msgspec.Struct, frozen=True):
    """It is not known whether the request was, or will be, carried out; `why` and `text` say what is known."""

    why: Why | None = None
    text: str = ""


Outcome = Done | Differed | Refused | Unknown
