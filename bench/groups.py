"""Members that share a client's work: what a second one brings, what losing it costs, and another group's distance.

`python -m bench.groups` measures these rows alone. Each member has one worker, so that two members use the two cores
of the machine that the figures are set for; RSA-4096, so that workers, and neither balancers nor the client, are what
is waited for. The third member is in a group of its own, behind a link that takes time (`Delay`).
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from typing_extensions import Self

import lnh
from bench.loads import flowing, using
from bench.members import Running, running, wait
from bench.rows import Row, at_most, in_turn, row, run
from lnh.objects import encoding
from lnh_cli.demo import processes
from lnh_cli.demo.local import Member, free_ports
from lnh_cli.demo.processes import standing_still
from lnh_common.bus.blocking import Caller
from lnh_common.messages import balancer, objects
from lnh_common.messages.base import Empty
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_services.paths import MemberDirectory

IN_FLIGHT: Final = 16
ONE_WAY: Final = 0.010  # seconds that a link between groups adds, each way
FAR: Final = "far"
_PORTS: Final = 4  # client, membership, store and balancer; nobody asks another member's door
_CHUNK: Final = 65_536
_BEFORE: Final = 3.0  # seconds of signing before a member is lost, and ...
_AFTER: Final = 4.0  # ... after
_SHOCK: Final = 1.0  # ... of which this much is what the loss itself may cost
_SINGLES: Final = 200


class Delay:
    """A way to a member that takes longer: every byte to and from its ports waits, in order."""

    def __init__(self, base: int, seconds: float) -> None:
        self.base = free_ports()
        self._to = base
        self._seconds = seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    async def _listen(self) -> None:
        for number in range(_PORTS):
            await asyncio.start_server(self._accept(self._to + number), "127.0.0.1", self.base + number)

    def _accept(self, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                there = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                writer.close()
                return
            with suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(self._pass_on(reader, there[1]), self._pass_on(there[0], writer))

        return connected

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            self._loop.call_later(self._seconds, writer.write, chunk)
        self._loop.call_later(self._seconds, writer.close)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @staticmethod
    async def _end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _backends(member: Member) -> dict[str, balancer.BackendView]:
    """The backends of a member's balancer, by name."""
    with Caller(MemberDirectory(member.directory).balancer_status) as caller:
        return {backend.name: backend for backend in caller.ask(balancer.STATUS, Empty()).backends}


def _sees(member: Member, name: str, state: str) -> None:
    def so() -> bool:
        backend = _backends(member).get(name)
        return backend is not None and backend.state == state

    wait(so, f"{name} as {state}")


def sharing_row(cluster: Running, key: lnh.Key) -> Row:
    """Signatures through a member with one worker and another one beside it, and while that stands still."""
    first, second, _ = cluster.place.members
    session = cluster.sessions[first]

    def signing() -> float:
        return flowing(session, using(objects.SIGN, key, Mechanism.SHA256_RSA_PKCS, bytes(32)), IN_FLIGHT)

    def alone() -> float:
        with standing_still(second.directory):
            _sees(first, second.name, "down")
            rate = signing()
        _sees(first, second.name, "serving")
        cluster.whole()
        return rate

    two, one = in_turn(signing, alone)
    return row("two members of one worker, RSA-4096 sign", two, "/s", "one member of one worker", one, 1.6)


def losing_row(cluster: Running, key: lnh.Key) -> Row:
    """Signatures in the second after a member died, beside those that the others make without it."""
    first, second, _ = cluster.place.members
    session = cluster.sessions[first]
    began = time.monotonic()
    lost = threading.Timer(_BEFORE, cluster.steps.kill, (second,))
    lost.start()
    fields = encoding.use_fields(key.handle, Mechanism.SHA256_RSA_PKCS, bytes(32), None)
    calls = iter(lambda: (objects.SIGN, fields) if time.monotonic() < began + _BEFORE + _AFTER else None, None)
    moments = [time.monotonic() for _ in session.call_each(calls, IN_FLIGHT)]
    lost.join()
    died = began + _BEFORE
    shock = sum(died <= each < died + _SHOCK for each in moments) / _SHOCK
    after = sum(died + _SHOCK <= each < died + _AFTER for each in moments) / (_AFTER - _SHOCK)
    before = sum(each < died for each in moments) / _BEFORE
    print(
        f"a member lost: {before:.0f}/s before, {shock:.0f}/s within {_SHOCK:g} s, {after:.0f}/s then", file=sys.stderr
    )
    cluster.steps.start(second)
    cluster.whole()
    _sees(first, second.name, "serving")
    name = "a member is lost, RSA-4096 sign, the first second"
    return row(name, [shock], "/s", "without it, after that second", [after], 0.8)


def _singles(session: lnh.KeyringSession, key: lnh.PrivateKey) -> float:
    """Median milliseconds of a signature, one at a time."""
    taken = []
    for _ in range(_SINGLES):
        began = time.perf_counter()
        key.sign(bytes(32), Mechanism.ECDSA)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


@contextmanager
def _without_hsm(member: Member) -> Iterator[None]:
    """A member whose HSM's processes are dead, and are not started again."""
    supervisor = member.running()
    assert supervisor is not None, "it runs"
    with processes.held(supervisor):
        processes.kill(member.directory, "lnh_services.hsm")
        yield


def distance_rows(cluster: Running, key: lnh.PrivateKey) -> Iterator[Row]:
    """A signature by the own group, and by another one that is further away, when the own has nobody."""
    first, second, _ = cluster.place.members
    session = cluster.sessions[first]
    near = _singles(session, key)
    yield at_most("P-256 sign by the own group, p50", near, "ms", 1000 * ONE_WAY)
    with standing_still(second.directory), _without_hsm(first):
        wait(lambda: _backends(first)["worker-0"].state == "down", "a member without an HSM")
        far = _singles(session, key)
    wait(lambda: _backends(first)["worker-0"].state == "serving", "the HSM back")
    cluster.whole()
    limit = near + 2000 * ONE_WAY + 5
    yield at_most(f"P-256 sign by a group {1000 * ONE_WAY:g} ms away, p50", far, "ms", limit)


def measure() -> Iterator[Row]:
    with running(workers=1) as cluster:
        first, second, third = cluster.place.members
        with (
            cluster.administration(first) as administration,
            Delay(int(third.address.read_text().strip().rpartition(":")[2]), ONE_WAY) as delay,
        ):
            administration.create_group(FAR)
            administration.move_member(third.name, FAR)
            administration.set_member(third.name, port=delay.base)
            cluster.whole()
            for other in (second, third):
                _sees(first, other.name, "serving")
            _, rsa = cluster.sessions[first].generate_keypair(lnh.KeyType.RSA, 4096)
            _, p256 = cluster.sessions[first].generate_keypair(lnh.KeyType.EC, curve="P-256")
            assert isinstance(p256, lnh.PrivateKey)
            yield sharing_row(cluster, rsa)
            yield losing_row(cluster, rsa)
            yield from distance_rows(cluster, p256)


if __name__ == "__main__":
    sys.exit(run(measure))
