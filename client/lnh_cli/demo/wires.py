"""Ways of members of one machine to each other that can be cut and healed; those of clients are left alone.

The members are listed under ports of proxies, which pass on what other members send them. A cut is silent, as that of a
network: connections stay, nothing comes out of them, and nobody is told that one has ended.

As a program, `python -m lnh_cli.demo.wires ROOT`, it prints the ports as JSON and then obeys the lines of its standard
input, whose end is its own: `isolate MEMBER`, `heal`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from lnh_cli.demo import processes
from lnh_cli.demo.local import Member, Place, free_ports

_PORTS: Final = 4  # client, membership, store and balancer; nobody asks another member's door
_CHUNK: Final = 65_536


class Proxies:
    """A proxy for each member. All but its construction belongs to one event loop.

    Attributes:
        bases: the base port of each member's proxy, by the member's name.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self.bases: dict[str, int] = {}
        for member in members:
            self.bases[member.name] = free_ports(list(self.bases.values()))
        self._servers: list[asyncio.Server] = []
        self._open: dict[tuple[str, str], asyncio.Event] = {}
        self._processes: dict[str, list[int]] = {}

    def cut_way(self, source: str, target: str) -> None:
        """Let nothing go from one member to the other any more; the other way stays as it is."""
        self._way(source, target).clear()

    def isolate(self, name: str) -> None:
        """Cut a member off from every other one, but not from clients."""
        for member in self._members:
            if member.name != name:
                self.cut_way(name, member.name)
                self.cut_way(member.name, name)

    def heal(self) -> None:
        """Open every way that was cut."""
        for way in self._open.values():
            way.set()

    async def listen(self) -> None:
        """Begin to pass on."""
        for member in self._members:
            to, base = port_of(member), self.bases[member.name]
            for number in range(_PORTS):
                accept = self._accept(member, to + number)
                self._servers.append(await asyncio.start_server(accept, "127.0.0.1", base + number))

    async def end(self) -> None:
        """End every connection; the members are listed under their own ports by then."""
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _way(self, source: str, target: str) -> asyncio.Event:
        if (source, target) not in self._open:
            self._open[source, target] = asyncio.Event()
            self._open[source, target].set()
        return self._open[source, target]

    def _accept(
        self, target: Member, port: int
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = None
            with suppress(OSError, asyncio.CancelledError):
                source = await asyncio.to_thread(self._whose, writer.get_extra_info("socket"))
                there = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(
                    self._pass_on(reader, there[1], source, target.name),
                    self._pass_on(there[0], writer, target.name, source),
                )
            for end in (writer, there[1] if there is not None else None):
                if end is not None:
                    end.close()

        return connected

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str, target: str
    ) -> None:
        chunk = b"first"
        while chunk:
            try:
                chunk = await reader.read(_CHUNK)
            except ConnectionError:
                chunk = b""
            await self._way(source, target).wait()
            writer.write(chunk)
            await writer.drain()
        writer.close()

    def _whose(self, accepted: socket.socket) -> str:
        """Name the member whose process is at the other end; empty for a client, and for one that has gone."""
        here, there = accepted.getsockname()[1], accepted.getpeername()[1]
        wanted = f":{there:04X}", f":{here:04X}"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            if words[1].endswith(wanted[0]) and words[2].endswith(wanted[1]):
                return self._holder(f"socket:[{words[9]}]") if words[9] != "0" else ""
        return ""

    def _holder(self, descriptor: str) -> str:
        """Name the member of which a process has this open; its processes are looked for again when one has gone."""
        for member in self._members:
            known = self._processes.get(member.name, [])
            if not known or any(processes.has_ended(pid) for pid in known):
                known = self._processes[member.name] = processes.of_member(member.directory)
            if any(_holds(pid, descriptor) for pid in known):
                return member.name
        return ""


def port_of(member: Member) -> int:
    """Return the base port that a member listens on."""
    return int(member.address.read_text().strip().rpartition(":")[2])


def _holds(pid: int, descriptor: str) -> bool:
    """Tell whether a process has this open."""
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(entry.readlink()) == descriptor:
                    return True
    return False


async def _serve(proxies: Proxies) -> None:
    """Pass on until the standard input ends."""
    await proxies.listen()
    print(json.dumps(proxies.bases), flush=True)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    async for line in orders:
        word, *names = line.decode().split()
        if word == "isolate":
            proxies.isolate(*names)
        elif word == "heal":
            proxies.heal()
        print(word, flush=True)
    await proxies.end()


if __name__ == "__main__":
    asyncio.run(_serve(Proxies(Place(Path(sys.argv[1])).members)))
