"""Members on a network of their own: namespaces joined by a bridge, whose links a test cuts and heals.

Needs root and `ip` (iproute2). `missing()` says what is not there; a test that cannot have a network is skipped with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


def missing() -> str:
    """Why no network can be made here; empty if one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need `ip` (iproute2)"
    probe = f"lnhp{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return f"no network namespaces here: {made.stderr.strip()}" if made.returncode else ""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass
class Host:
    """One machine of the network: what runs in `namespace` has only this address."""

    namespace: str
    address: str

    def prefix(self) -> list[str]:
        """Words before a command that is to run on this host."""
        return ["ip", "netns", "exec", self.namespace]


@dataclass
class Network:
    """A bridge in the test's own namespace, which has the address ending in 254, and hosts on it."""

    subnet: str
    bridge: str
    hosts: list[Host] = field(default_factory=list)
    cuts: set[tuple[str, str]] = field(default_factory=set)

    def add(self) -> Host:
        number = len(self.hosts) + 1
        host = Host(f"{self.bridge}n{number}", f"{self.subnet}.{number}")
        outside = f"{self.bridge}v{number}"
        _ip("netns", "add", host.namespace)
        self.hosts.append(host)
        _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        _ip("link", "set", outside, "master", self.bridge, "up")
        _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            _ip("-n", host.namespace, "link", "set", link, "up")
        return host

    def cut_way(self, source: Host, target: Host) -> None:
        """Nothing goes from `source` to `target` any more; the other way stays open."""
        if (source.namespace, target.address) not in self.cuts:
            _ip("-n", source.namespace, "route", "add", "blackhole", f"{target.address}/32")
            self.cuts.add((source.namespace, target.address))

    def cut(self, one: Host, other: Host) -> None:
        self.cut_way(one, other)
        self.cut_way(other, one)

    def isolate(self, host: Host) -> None:
        """Cut a host off from every other one, but not from the test."""
        for other in self.hosts:
            if other is not host:
                self.cut(host, other)

    def heal(self) -> None:
        """Open every way that was cut."""
        for namespace, address in self.cuts:
            _ip("-n", namespace, "route", "del", "blackhole", f"{address}/32")
        self.cuts.clear()

    def remove(self) -> None:
        for number, host in enumerate(self.hosts, 1):
            subprocess.run(["ip", "link", "del", f"{self.bridge}v{number}"], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", host.namespace], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)


@contextmanager
def network() -> Iterator[Network]:
    """A network without hosts; it is gone afterwards, also when the test fails."""
    for number in range(1, 250):
        made = Network(f"10.77.{(os.getpid() + number) % 250}", f"lnh{os.getpid() % 100_000}x{number}")
        try:
            _ip("link", "add", made.bridge, "type", "bridge")
            _ip("addr", "add", f"{made.subnet}.254/24", "dev", made.bridge)
            _ip("link", "set", made.bridge, "up")
            break
        except subprocess.CalledProcessError:
            made.remove()
    else:
        raise AssertionError("no free subnet for a network of the test's own")
    try:
        yield made
    finally:
        made.remove()
