"""Members of one machine whose ways to each other a test cuts and heals; those of clients are left alone.

While a test has `Wires`, every member is listed under ports of a proxy, which passes on what other members send it. A cut
is silent, as that of a network: connections stay, nothing comes out of them, and nobody is told that one has ended.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from typing_extensions import Self

from lnh_cli.demo import processes
from lnh_cli.demo.local import Member, free_ports
from members import Members
from processes import is_alive

PORTS = 4  # client, membership, store and balancer; nobody asks another member's door
CHUNK = 65_536
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wires:
    """A context manager: within it the members are listed under the proxies, after it as they were before."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._bases: dict[str, int] = {}
        for member in members.all:
            self._bases[member.name] = free_ports(list(self._bases.values()))
        self._servers: list[asyncio.Server] = []
        self._open: dict[tuple[str, str], asyncio.Event] = {}
        self._processes: dict[str, list[int]] = {}
        self._kept: dict[Path, bytes] = {}  # what clients knew of the members' addresses

    # What a test does

    def cut_way(self, source: Member, target: Member) -> None:
        """Nothing goes from one member to the other any more; the other way stays as it is."""
        self._loop.call_soon_threadsafe(self._way(source.name, target.name).clear)

    def cut(self, one: Member, other: Member) -> None:
        self.cut_way(one, other)
        self.cut_way(other, one)

    def isolate(self, member: Member) -> None:
        """Cut a member off from every other one, but not from clients."""
        for other in self._members.all:
            if other is not member:
                self.cut(member, other)

    def heal(self) -> None:
        """Open every way that was cut."""
        for way in list(self._open.values()):
            self._loop.call_soon_threadsafe(way.set)

    # The proxies

    def _way(self, source: str, target: str) -> asyncio.Event:
        if (source, target) not in self._open:
            self._open[source, target] = asyncio.Event()
            self._open[source, target].set()
        return self._open[source, target]

    async def _listen(self) -> None:
        for member in self._members.all:
            to, base = _port(member), self._bases[member.name]
            for number in range(PORTS):
                accept = self._accept(member, to + number)
                self._servers.append(await asyncio.start_server(accept, "127.0.0.1", base + number))

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
                chunk = await reader.read(CHUNK)
            except ConnectionError:
                chunk = b""
            await self._way(source, target).wait()
            writer.write(chunk)
            await writer.drain()
        writer.close()

    def _whose(self, accepted: socket.socket) -> str:
        """The member whose process is at the other end; empty for a client, and for one that has gone."""
        here, there = accepted.getsockname()[1], accepted.getpeername()[1]
        wanted = f":{there:04X}", f":{here:04X}"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            if words[1].endswith(wanted[0]) and words[2].endswith(wanted[1]):
                return self._holder(f"socket:[{words[9]}]") if words[9] != "0" else ""
        return ""

    def _holder(self, descriptor: str) -> str:
        """The member of which a process has this open; its processes are looked for again when one has gone."""
        for member in self._members.all:
            known = self._processes.get(member.name, [])
            if not known or not all(is_alive(pid) for pid in known):
                known = self._processes[member.name] = processes.of_member(member.directory)
            if any(_holds(pid, descriptor) for pid in known):
                return member.name
        return ""

    # Its beginning and end

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        for client in (member.client for member in self._members.all):
            self._kept[client / "client.toml"] = (client / "client.toml").read_bytes()
        self._list(self._bases)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.heal()
            self._list({member.name: _port(member) for member in self._members.all})
            for path, kept in self._kept.items():
                path.write_bytes(kept)
        finally:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _list(self, ports: dict[str, int]) -> None:
        """Have the cluster list the members under these ports."""
        self._members.all_read_write()
        for name, port in ports.items():
            self._members.steps.run("lnh", "member", "set", name, "--address", f"127.0.0.1:{port}", "--timeout", "60")
        self._members.all_read_write()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _port(member: Member) -> int:
    return int(member.address.read_text().strip().rpartition(":")[2])


def _holds(pid: int, descriptor: str) -> bool:
    """Whether a process has this open."""
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(entry.readlink()) == descriptor:
                    return True
    return False
