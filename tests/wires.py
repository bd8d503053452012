"""Members of one machine whose ways to each other a test cuts and heals; those of clients are left alone.

While a test has `Wires`, every member is listed under ports of a proxy (`lnh_cli/demo/wires.py`).
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from typing_extensions import Self

from lnh_cli.demo.local import Member
from lnh_cli.demo.wires import Proxies, port_of
from members import Members


class Wires:
    """A context manager: within it the members are listed under the proxies, after it as they were before."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._proxies = Proxies(members.all)
        self._kept: dict[Path, bytes] = {}  # what clients knew of the members' addresses

    def cut_way(self, source: Member, target: Member) -> None:
        """Nothing goes from one member to the other any more; the other way stays as it is."""
        self._loop.call_soon_threadsafe(self._proxies.cut_way, source.name, target.name)

    def cut(self, one: Member, other: Member) -> None:
        self.cut_way(one, other)
        self.cut_way(other, one)

    def isolate(self, member: Member) -> None:
        """Cut a member off from every other one, but not from clients."""
        self._loop.call_soon_threadsafe(self._proxies.isolate, member.name)

    def heal(self) -> None:
        """Open every way that was cut."""
        self._loop.call_soon_threadsafe(self._proxies.heal)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxies.listen(), self._loop).result(10)
        for client in (member.client for member in self._members.all):
            self._kept[client / "client.toml"] = (client / "client.toml").read_bytes()
        self._list(self._proxies.bases)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.heal()
            self._list({member.name: port_of(member) for member in self._members.all})
            for path, kept in self._kept.items():
                path.write_bytes(kept)
        finally:
            asyncio.run_coroutine_threadsafe(self._proxies.end(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _list(self, ports: dict[str, int]) -> None:
        """Have the cluster list the members under these ports."""
        self._members.all_read_write()
        for name, port in ports.items():
            self._members.steps.run("lnh", "member", "set", name, "--address", f"127.0.0.1:{port}", "--timeout", "60")
        self._members.all_read_write()
