"""Shows and changes the part of the cluster's policy that its stores keep: leases, and what a primary alone may do.

It is in the log and not in the policy's record, because the replica acts on it (docs/adr/0013). An administrator that
shows or changes the policy sees no difference.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from lnh_common import shapes
from lnh_common.errors import ArgumentInvalid
from lnh_common.messages import store
from lnh_common.messages.base import Empty
from lnh_services.hsm.effects import Peer, Steps, ask

_ALONE: Final = "read-write"  # a primary that hears nobody stays so for ever


class ShownLeaseSettings(msgspec.Struct, forbid_unknown_fields=True):
    """The lease settings, as the policy shows them.

    Args:
        lease_ms: how long a member may go on without its primary, in milliseconds.
        primary_alone: the state of a primary of several members that hears none: read-write, or so for this many
            seconds.
    """

    lease_ms: Annotated[int, msgspec.Meta(ge=100, le=60_000)]
    primary_alone: Annotated[int, msgspec.Meta(ge=1, le=86_400)] | Literal["read-write"]


FIELDS: Final = ShownLeaseSettings.__struct_fields__


def shown(settings: store.SetLeaseSettings) -> dict[str, Any]:
    """Return these fields of the policy."""
    alone = settings.alone_ms // 1000
    return {"lease_ms": settings.lease_ms, "primary_alone": alone or _ALONE}


def current() -> Steps[store.SetLeaseSettings]:
    """Return the settings in force."""
    status = yield from ask(Peer.STORE, store.STATUS, Empty())
    return status.lease_settings


def changed(settings: store.SetLeaseSettings, changes: dict[str, Any]) -> store.SetLeaseSettings:
    """Change some fields; raises ArgumentInvalid naming the field."""
    try:
        wanted = msgspec.convert(shown(settings) | changes, ShownLeaseSettings)
    except msgspec.ValidationError as error:
        raise ArgumentInvalid(f"policy: {shapes.problem(error)}") from None
    alone = 0 if wanted.primary_alone == _ALONE else 1000 * int(wanted.primary_alone)
    return store.SetLeaseSettings(lease_ms=wanted.lease_ms, alone_ms=alone)
