"""The Argon2id process: one derivation at a time, so that guessing passwords cannot starve signing.

It keeps nothing, and knows neither users nor keys: a password and a salt come in, 32 bytes go out
(RFC 9106). What waits is bounded, else Busy; what nobody waits for any more is dropped. Machines that are not
registered have one derivation between them, so that they cannot keep the clients out.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from lnh_common import limits
from lnh_common.bus.server import Call, Server
from lnh_common.errors import ArgumentInvalid, Busy
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
    """Serves `argon2.derive`: at most `queue` requests wait for the one that is served."""

    def __init__(self, queue: int = limits.ARGON2_QUEUE) -> None:
        self._queue: Final = queue
        self._waiting = 0
        self._strangers = 0  # of whom one is served at a time, and none waits
        self._turn: Final = asyncio.Lock()

    async def on_derive(self, call: Call, request: Derive) -> Derived:
        if self._waiting >= self._queue:
            raise Busy(f"{self._queue} logins wait for their turn, which is the limit")
        if request.stranger and self._strangers:
            raise Busy("the password of another machine that is not registered is being checked; one at a time")
        self._strangers += request.stranger
        try:
            return await self._in_turn(request)
        finally:
            self._strangers -= request.stranger

    async def _in_turn(self, request: Derive) -> Derived:
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        # The turn ends with the derivation, also when its asker's deadline ends first: a thread is not cancelled, and
        # two at once would be more than the one this process is for.
        work = asyncio.ensure_future(asyncio.to_thread(derive, request))
        work.add_done_callback(self._end_turn)
        return Derived(key=await asyncio.shield(work))

    def _end_turn(self, work: asyncio.Future[bytes]) -> None:
        self._turn.release()
        if not work.cancelled():
            work.exception()  # read here too: its asker may have gone


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
