"""What is seen of an etcd: plain values, between the look at it and the judgement."""

from __future__ import annotations

import enum

import msgspec

from lnh_common.etcd import EtcdSettings
from lnh_services.store.etcd.requests import Outcome
from lnh_services.store.etcd_client.client import EtcdNode, Status
from lnh_services.store.etcd_client.failures import Failure


class Way(enum.Enum):
    """How far one comes at an endpoint."""

    OPEN = "open"
    UNRESOLVED = "its name is not resolved"
    CLOSED = "nobody listens there"
    SILENT = "it does not answer"
    NOT_TLS = "what listens there does not speak TLS"
    NOT_TRUSTED = "its certificate is of none of the CAs of --ca"
    OTHER_NAME = "its certificate is for another name"
    EXPIRED = "its certificate has expired"
    OURS_REFUSED = "it does not take the certificate of this client"
    OTHER = "the connection failed"


class Disk(msgspec.Struct, frozen=True):
    """What a node measured since it started, of its own disk.

    Args:
        quota: bytes that its database may have; 0: it does not say.
        fsync, commit: seconds within which 99 of 100 writes of its log, and of its database, were done; None: of none.
    """

    quota: int = 0
    fsync: float | None = None
    commit: float | None = None


class Endpoint(msgspec.Struct, frozen=True):
    """What is seen at one endpoint.

    Args:
        text: more about `way`.
        ends: when its certificate expires, in Unix seconds; None: it has none.
        anybody: whether it lets in who has no certificate; None: not tried.
        ahead: seconds, about, that its clock is ahead of this machine's; None: it does not say.
        status: how it stands, as it says itself; None: not asked.
    """

    url: str
    way: Way
    text: str = ""
    ends: float | None = None
    anybody: bool | None = None
    ahead: float | None = None
    disk: Disk | None = None
    status: Status | Failure | None = None


class Whole(msgspec.Struct, frozen=True):
    """What is seen of the etcd as a whole, through any endpoint.

    Args:
        login: a login as the settings have it, where they have a user.
        by_role: whether it asks who somebody is; None: not known.
        nodes: that it has.
        read, write: below the own prefix, which it must permit; `write` is one whose comparison fails.
        outside: a read outside of it, which it should not permit.
        large: a write, likewise, of the size of the largest entry.
        commits: seconds that such small writes took.
    """

    login: Failure | None
    by_role: bool | None
    nodes: tuple[EtcdNode, ...] | Failure
    read: Outcome
    write: Outcome
    outside: Outcome
    large: Outcome
    commits: tuple[float, ...]


class Seen(msgspec.Struct, frozen=True):
    """All that is judged.

    Args:
        now: in Unix seconds.
        own_end: when the client's own certificate expires; None: there is none.
        whole: None where no endpoint could be reached.
    """

    settings: EtcdSettings
    now: float
    own_end: float | None
    endpoints: tuple[Endpoint, ...]
    whole: Whole | None
