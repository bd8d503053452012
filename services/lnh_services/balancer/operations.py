"""Lists the operations that the balancer passes on, and those among them that stay in this member. Tables only."""

from __future__ import annotations

from typing import Final

from lnh_common.messages import admin, audit, backup, objects, overview, session, smk
from lnh_common.messages.base import OPERATIONS, Seal

# The modules whose operations come from clients.
_CLIENT_MESSAGES: Final = (admin, audit, backup, objects, overview, session, smk)

ROUTED: Final = frozenset(
    row.name for row in OPERATIONS.values() if row.seal is not Seal.NONE or row.name == session.HELLO.name
)
CREDENTIAL: Final = frozenset(row.name for row in OPERATIONS.values() if row.seal is Seal.CREDENTIAL)

# What is about the member that is asked: its files, its services, its version, its view of the others, an invitation
# that it alone can honour, an order whose coordinator the administrator chose by talking to it, and `hello`, whose
# answer holds the key of the answering member's client port: a client that registers would take another's for this
# one's.
_OF_A_MEMBER: Final = frozenset({"audit", "backup", "group", "member", "status"})  # by noun
_OF_A_MEMBER_TOO: Final = frozenset(
    {
        session.HELLO.name,
        admin.CLUSTER_SHOW.name,
        admin.CLUSTER_VERSION.name,
        admin.CLUSTER_UPGRADE.name,
        admin.CLUSTER_LEAVE.name,
        admin.CLUSTER_DELETE.name,
        overview.OVERVIEW.name,
    }
)

# What one worker keeps from request to request: all of a connection goes to the same.
STICKS: Final = frozenset({objects.STREAM.name})

STAYS: Final = _OF_A_MEMBER_TOO | STICKS | {name for name in ROUTED if name.partition(".")[0] in _OF_A_MEMBER}
