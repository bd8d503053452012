"""The Argon2id process: one derivation at a time, so that guessing passwords cannot starve signing.

It keeps nothing, and knows neither users nor keys: a password and a salt come in, 32 bytes go out
(RFC 9106). What waits is bounded, else Busy; what nobody waits for any more is dropped.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from lnh_common import limits
from lnh_common.bus.server import Call, Server
from lnh_common.errors import ArgumentInvalid, Busy, DeadlineExceeded
from lnh_common.messages.hsm import DERIVE, Derive, Derived
from lnh_services import serving
from lnh_services.hsm.hardening import harden
from lnh_services.hsm.keys import KEY_BYTES

_LEAST_MEMORY_A_LANE: Final = 8  # KiB; RFC 9106, 3.1


def derive(request: Derive) -> bytes:
    """The 32 bytes of one Argon2id; raises ArgumentInvalid for parameters RFC 9106 does not allow."""
    if request.memory < _LEAST_MEMORY_A_LANE * request.lanes:
        raise ArgumentInvalid(f"Argon2id with {request.memory} KiB for {request.lanes} lanes")
    return Argon2id(
        salt=request.salt,
        length=KEY_BYTES,
        iterations=request.passes,
        lanes=request.lanes,
        memory_cost=request.memory,
    ).derive(request.password)


class Derivations:
    """Serves `argon2.derive`: a queue of at most `queue` requests before one derivation."""

    def __init__(self, queue: int = limits.ARGON2_QUEUE) -> None:
        self._queue: Final = queue
        self._waiting = 0
        self._turn: Final = asyncio.Lock()

    async def on_derive(self, call: Call, request: Derive) -> Derived:
        if self._waiting >= self._queue:
            raise Busy(f"{self._queue} logins wait for their turn, which is the limit")
        self._waiting += 1
        try:
            # The turn is kept until the derivation ends, also when its asker's deadline ends first: a thread is not
            # cancelled, and two at once would be more than the one this process is for.
            return await asyncio.shield(asyncio.ensure_future(self._derive(call, request)))
        finally:
            self._waiting -= 1

    async def _derive(self, call: Call, request: Derive) -> Derived:
        async with self._turn:
            if call.remaining() <= 0:
                raise DeadlineExceeded("the deadline passed while others were served")
            return Derived(key=await asyncio.to_thread(derive, request))


async def _main(member: serving.Member, stop: asyncio.Event) -> None:
    server = Server(member.directory.argon2, name="argon2")
    server.serve(DERIVE, Derivations().on_derive)
    server.start()
    try:
        await stop.wait()
    finally:
        await server.close()


def main() -> int:
    harden()
    return serving.run("hsm-argon2", _main)


if __name__ == "__main__":
    sys.exit(main())
