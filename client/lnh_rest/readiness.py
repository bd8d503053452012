"""Finds out whether a member answers this service, and how seldom that has to be asked."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from lnh.aio import Cluster
from lnh_common import limits
from lnh_common.errors import LnhError, Unreachable
from lnh_common.messages.admin import KEYRING_LIST, ListKeyrings

_ADVICE: Final = {"advice": "see whether its member runs, and whether its registration was revoked: lnh client list"}
_NOBODYS: Final = "\N{ZERO WIDTH SPACE}"  # no keyring has such a label, so that the answer is short


class Readiness:
    """Whether a member answers; anybody may ask, so what was found out is good for a moment."""

    def __init__(self) -> None:
        self._until = 0.0
        self._problem: LnhError | None = None
        self._asking: Final = asyncio.Lock()

    async def check(self, cluster: Cluster) -> None:
        """Raise what stands in the way of a member's answer; raises Unreachable where none comes in time."""
        async with self._asking:
            if time.monotonic() >= self._until:
                self._problem = await _problem(cluster)
                self._until = time.monotonic() + limits.REST_READY_SECONDS
        if self._problem is not None:
            raise type(self._problem)(str(self._problem), self._problem.detail)


async def _problem(cluster: Cluster) -> LnhError | None:
    try:
        await asyncio.wait_for(_ask(cluster), limits.REST_READY_SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        return Unreachable(f"no member answered within {limits.REST_READY_SECONDS:g} s", _ADVICE)
    except LnhError as error:
        return error
    return None


async def _ask(cluster: Cluster) -> None:
    session = await cluster.client_session()
    await session.ask(KEYRING_LIST, ListKeyrings(label=_NOBODYS))
