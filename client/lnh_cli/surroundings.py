"""Looks at a member from its own machine: through its sockets, without a login, whether or not it serves anybody.

Only the owner of the member directory can open them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, TypeVar

from lnh_common.bus.blocking import Caller
from lnh_common.errors import LnhError, Unreachable
from lnh_common.messages import member
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.overview import SEEN, Overview, Seen

R = TypeVar("R", bound=Message)

SUPERVISOR: Final = Path("run") / "member.ipc"
MEMBERSHIP: Final = Path("run") / "membership" / "services.ipc"
_SECONDS: Final = 5.0


def look(directory: Path) -> tuple[Overview, member.Status | None]:
    """Ask the member in this directory for its view, and its supervisor for the services (None: there is none).

    A member whose membership does not answer sees nothing. Raises Unreachable where no member ever ran.
    """
    if not (directory / "run").is_dir():
        raise Unreachable(f"{directory} is no member directory", {"advice": "--member-dir DIR of a member"})
    nothing = Seen(cluster=b"", member=b"", primary=b"", epoch=0, at=time.time_ns() // 1_000_000, groups=(), members=())
    seen = _asked(directory / MEMBERSHIP, SEEN) or nothing
    return Overview(label="", seen=seen), _asked(directory / SUPERVISOR, member.STATUS)


def _asked(socket: Path, operation: Operation[Empty, R]) -> R | None:
    if not socket.exists():
        return None
    try:
        with Caller(f"ipc://{socket.absolute()}", name=str(socket), reach=1.0) as caller:
            return caller.ask(operation, Empty(), timeout=_SECONDS)
    except LnhError:
        return None
