"""Sends answers that come piece by piece: who takes too long to take a piece is cut off."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Send

from lnh_common import limits


class Streaming(StreamingResponse):
    """An answer whose pieces are each taken in time. Who takes too long is treated as one that went away."""

    async def stream_response(self, send: Send) -> None:
        """Send the pieces."""

        async def within(message: Any) -> None:
            await asyncio.wait_for(send(message), limits.REST_PIECE_SECONDS)

        await super().stream_response(within)
