"""Messages of the supervisor about the services it runs."""

from __future__ import annotations

from typing import Final

from lnh_common.messages.base import Empty, Message, operation


class ServiceState(Message):
    """One service's process.

    Args:
        state: starting, running (its process lives and its status answers), silent (it answered before and does not
            now), waiting (for its next start), stopped.
        pid: 0 when there is no process.
        restarts: since the supervisor started.
        since: seconds since it last changed state.
        exit: how the last process ended: an exit code, or minus the signal; None if none has.
    """

    name: str
    state: str
    pid: int
    restarts: int
    since: float
    exit: int | None = None


class Status(Message):
    """`ready` when every service is running."""

    ready: bool
    services: tuple[ServiceState, ...]


STATUS: Final = operation("member.status", Empty, Status)
