"""The Argon2id process: makes one derivation at a time, so that guessing passwords cannot starve signing.

It keeps nothing, and knows neither users nor keys: a password and a salt come in, 32 bytes go out (RFC 9106).

The queue is bounded. A full one answers Busy, which says after how many seconds to come again; so does a queue in which
a turn would come too late for its asker. A derivation that nobody waits for any more is dropped.

A request that comes again, because its client heard nothing for a while, waits for its first copy: else a queue of
logins would grow by waiting. Only the same request does: if one client's wait told that another tries the same password
just now, it would be a guess for nothing. Machines that are not registered have one derivation between them, so that
they cannot keep the clients out.
"""

from __future__ import annotations

import asyncio
import math
import sys
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from lnh_common import limits
from lnh_common.bus.server import Call, Server
from lnh_common.errors import ArgumentInvalid, Busy
from lnh_common.messages.hsm import DERIVE, Derive, Derived
from lnh_services import serving
from lnh_services.hsm.crypto.key_hierarchy import KEY_BYTES
from lnh_services.hsm.crypto.process_hardening import harden

_LEAST_MEMORY_A_LANE: Final = 8  # KiB; RFC 9106, 3.1
_FIRST_GUESS: Final = 0.2  # seconds that a derivation takes, until one was done
_SHARE_OF_DEADLINE: Final = 0.8  # of what is left to a request: what comes after takes time, too


def derive(request: Derive) -> bytes:
    """Run one Argon2id (32 bytes); raises ArgumentInvalid for parameters that RFC 9106 does not allow."""
    if request.memory < _LEAST_MEMORY_A_LANE * request.lanes:
        raise ArgumentInvalid(f"Argon2id with {request.memory} KiB for {request.lanes} lanes")
    return Argon2id(
        salt=request.salt,
        length=KEY_BYTES,
        iterations=request.passes,
        lanes=request.lanes,
        memory_cost=request.memory,
    ).derive(request.password)


@dataclass(eq=False)
class _Job:
    """One derivation, for all requests that asked for it."""

    task: asyncio.Task[bytes]
    askers: int = 0
    begun: bool = False


class Derivations:
    """Serves `argon2.derive`: at most `queue` requests wait for the one that is served."""

    def __init__(self, queue: int = limits.ARGON2_QUEUE) -> None:
        self._queue: Final = queue
        self._jobs: Final[dict[tuple[object, ...], _Job]] = {}
        self._strangers = 0  # one is served at a time, and none waits
        self._turn: Final = asyncio.Lock()
        self._takes = _FIRST_GUESS  # seconds, of late

    async def on_derive(self, call: Call, request: Derive) -> Derived:
        """Derive, or wait for the same request's derivation; raises Busy."""
        left = call.remaining() * _SHARE_OF_DEADLINE
        key = msgspec.structs.astuple(request) if request.attempt else (object(),)
        job = self._jobs.get(key)
        if job is None:
            job = self._begin(key, request, left)
        job.askers += 1
        try:
            return Derived(key=await asyncio.wait_for(asyncio.shield(job.task), max(0.0, left)))
        except asyncio.TimeoutError:
            raise self._busy("a login waited for its turn as long as its client does") from None
        finally:
            job.askers -= 1
            if not job.askers and not job.begun:
                job.task.cancel()
                self._forget(key, job)

    def _begin(self, key: tuple[object, ...], request: Derive, left: float) -> _Job:
        """Enter a derivation into the queue; raises Busy."""
        waiting = max(0, len(self._jobs) - 1)  # one of them is served
        if len(self._jobs) > self._queue:
            raise self._busy(f"{self._queue} logins wait for their turn, which is the limit")
        if request.stranger and self._strangers:
            raise self._busy("the password of another machine that is not registered is being checked; one at a time")
        if len(self._jobs) * self._takes > left:
            raise self._busy(f"{waiting} logins wait for their turn, longer than this one may")
        job = self._jobs[key] = _Job(asyncio.ensure_future(self._in_turn(key, request)))
        self._strangers += request.stranger
        job.task.add_done_callback(lambda _: self._ended(key, job, request))
        return job

    async def _in_turn(self, key: tuple[object, ...], request: Derive) -> bytes:
        async with self._turn:
            # It is not cancelled any more: its thread would go on, and two at once are more than this process is for.
            self._jobs[key].begun = True
            began = asyncio.get_running_loop().time()
            derived = await asyncio.to_thread(derive, request)
            self._takes += (asyncio.get_running_loop().time() - began - self._takes) / 4
            return derived

    def _ended(self, key: tuple[object, ...], job: _Job, request: Derive) -> None:
        self._forget(key, job)
        self._strangers -= request.stranger
        if not job.task.cancelled():
            job.task.exception()  # read here too: its askers may have gone

    def _forget(self, key: tuple[object, ...], job: _Job) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]

    def _busy(self, why: str) -> Busy:
        return Busy(why, {"seconds": math.ceil(max(1, len(self._jobs)) * self._takes)})


async def _main(member: serving.Member, stop: asyncio.Event) -> None:
    server = Server(member.directory.argon2, name="argon2")
    server.serve(DERIVE, Derivations().on_derive)
    server.start()
    try:
        await stop.wait()
    finally:
        await server.close()


def main() -> int:
    """Run the process until it is told to stop; returns the exit code."""
    harden()
    return serving.run("hsm-argon2", _main)


if __name__ == "__main__":
    sys.exit(main())
