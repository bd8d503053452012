"""Host names of peers, looked up beside the sockets: libzmq is told numbers only.

libzmq looks a name up in its I/O thread, whenever it connects anew, and everything else in that thread waits meanwhile:
with a name server that does not answer for ten seconds and more, also connections to peers that are fine, and to the
services of one's own member. Here each name is looked up in a thread of its own, and asking never waits for long.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Final

FRESH: Final = 0.5  # seconds after an answer in which a name is not looked up again
_FIRST: Final = 0.02  # seconds that the first to ask for a name waits: most are answered by then


@dataclass
class _Name:
    """The state of a host's name: its last address, if there ever was one."""

    address: str | None = None
    under_way: bool = False
    again: float = 0.0
    answered: threading.Event = field(default_factory=threading.Event)


class Names:
    """Looks up addresses of hosts and keeps the last ones found. Any thread may ask."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew in a forked child: it has no threads of its parent, and a lock may be held by one of them."""
        self._names: dict[str, _Name] = {}
        self._lock = threading.Lock()

    def address(self, host: str) -> str | None:
        """Return the numeric address of a host as last found, or None when it was never found.

        A host that is asked for again is looked up again.
        """
        if is_numeric(host):
            return host
        with self._lock:
            first = host not in self._names
            name = self._names.setdefault(host, _Name())
            if not name.under_way and time.monotonic() >= name.again:
                name.under_way = True
                threading.Thread(target=self._look_up, args=(host, name), name=f"names {host}", daemon=True).start()
        if first:
            name.answered.wait(_FIRST)
        return name.address

    def _look_up(self, host: str, name: _Name) -> None:
        found = _find(host)
        with self._lock:
            # A name that is not found now keeps its last address: the name server may be what is away.
            name.address = found or name.address
            name.again = time.monotonic() + FRESH
            name.under_way = False
        name.answered.set()


def _find(host: str) -> str | None:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    addresses = [str(address[0]) for *_, address in sorted(found, key=lambda each: each[0] is not socket.AF_INET)]
    return next(iter(addresses), None)


def is_numeric(host: str) -> bool:
    """Tell whether a host is an address already; one of version 6 may be in brackets."""
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def endpoint(host: str, port: int | str) -> str:
    """Make the ZeroMQ endpoint of a host's port."""
    host = host.removeprefix("[").removesuffix("]")
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


NAMES: Final = Names()
"""Those of this process."""
os.register_at_fork(after_in_child=NAMES.clear)
