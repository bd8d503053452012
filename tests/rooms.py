"""The rooms of the code, and which others each may import. `python tests/rooms.py` draws them as docs/architecture.md shows them.

A room is a package with the files that lie in it; a package without a row of its own belongs to the room around it. A
module that is a room by itself has a row, too. What runs a service (`__main__`) may import all of that service.
"""

from __future__ import annotations

from typing import Final

# What every room of the client and of the services may import besides; of the shared rooms, those that say so.
SHARED: Final = (
    "lnh_common",
    "lnh_common.wire",
    "lnh_common.messages",
    "lnh_common.pkcs11",
    "lnh_common.bus",
    "lnh_common.metrics",
)

# From what uses others to what is used: a row imports from rows further down alone.
ROOMS: Final[dict[str, tuple[str, ...]]] = {
    "lnh_cli.drill": ("lnh_cli.demo", "lnh_cli.support", "lnh", "lnh.objects"),
    "lnh_cli.demo": ("lnh_cli.nouns", "lnh_cli", "lnh_cli.support"),
    "lnh_cli.nouns": (
        "lnh_cli",
        "lnh_cli.support",
        "lnh_kms",
        "lnh_rest",
        "lnh_pkcs11",
        "lnh.migration",
        "lnh",
        "lnh.objects",
        "lnh.net",
    ),
    "lnh_cli": ("lnh_cli.support", "lnh"),
    "lnh_cli.support": ("lnh", "lnh.objects", "lnh.net"),
    "lnh_kms": ("lnh.aio",),
    "lnh_rest": ("lnh", "lnh.aio", "lnh.objects"),
    "lnh_pkcs11": ("lnh.migration", "lnh", "lnh.aio", "lnh.objects"),
    "lnh.migration": ("lnh", "lnh.objects"),
    "lnh.aio": ("lnh", "lnh.objects", "lnh.net", "lnh.arguments"),
    "lnh": ("lnh.objects", "lnh.net", "lnh.arguments"),
    "lnh.objects": ("lnh.arguments",),
    "lnh.net": (),
    "lnh.arguments": (),
    "lnh_services.hsm.core": (
        "lnh_services.hsm.worker",
        "lnh_services.hsm.backup",
        "lnh_services.hsm.cluster",
        "lnh_services.hsm.audit",
        "lnh_services.hsm.appliance",
        "lnh_services.hsm.auth",
        "lnh_services.hsm.crypto",
        "lnh_services.hsm",
        "lnh_services",
    ),
    "lnh_services.hsm.worker": (
        "lnh_services.hsm.cluster",
        "lnh_services.hsm.audit",
        "lnh_services.hsm.auth",
        "lnh_services.hsm.objects",
        "lnh_services.hsm.crypto",
        "lnh_services.hsm",
        "lnh_services",
    ),
    "lnh_services.hsm.backup": (
        "lnh_services.hsm.cluster",
        "lnh_services.hsm.audit",
        "lnh_services.hsm.appliance",
        "lnh_services.hsm.crypto",
        "lnh_services.hsm",
        "lnh_services",
    ),
    "lnh_services.hsm.cluster": (
        "lnh_services.hsm.appliance",
        "lnh_services.hsm.auth",
        "lnh_services.hsm.crypto",
        "lnh_services.hsm",
    ),
    "lnh_services.hsm.appliance": (
        "lnh_services.hsm.audit",
        "lnh_services.hsm.auth",
        "lnh_services.hsm.objects",
        "lnh_services.hsm.crypto",
        "lnh_services.hsm",
        "lnh_services",
    ),
    "lnh_services.hsm.audit": ("lnh_services",),
    "lnh_services.hsm.auth": (
        "lnh_services.hsm.objects",
        "lnh_services.hsm.crypto",
        "lnh_services.hsm",
        "lnh_services",
    ),
    "lnh_services.hsm.objects": ("lnh_services.hsm.crypto", "lnh_services.hsm"),
    "lnh_services.hsm.crypto": ("lnh_services",),
    "lnh_services.hsm": (),
    "lnh_services.store": (
        "lnh_services.store.etcd_client",
        "lnh_services.store.net",
        "lnh_services.store.leases",
        "lnh_services.store.disk",
        "lnh_services.store.replication",
        "lnh_services.store.machine",
        "lnh_services.store.log",
        "lnh_services.store.etcd.requests",
        "lnh_services",
    ),
    "lnh_services.store.etcd": (
        "lnh_services.store.replication",
        "lnh_services.store.machine",
        "lnh_services.store.log",
        "lnh_services.store.etcd.requests",
    ),
    "lnh_services.store.etcd_client": ("lnh_services.store.etcd.requests",),
    "lnh_services.store.net": (
        "lnh_services.store.disk",
        "lnh_services.store.replication",
        "lnh_services.store.log",
    ),
    "lnh_services.store.leases": (
        "lnh_services.store.disk",
        "lnh_services.store.replication",
        "lnh_services.store.log",
    ),
    "lnh_services.store.disk": (
        "lnh_services.store.replication",
        "lnh_services.store.machine",
        "lnh_services.store.log",
        "lnh_services",
    ),
    "lnh_services.store.replication": (
        "lnh_services.store.machine",
        "lnh_services.store.log",
        "lnh_services.store.etcd.requests",
    ),
    "lnh_services.store.machine": ("lnh_services.store.log",),
    "lnh_services.store.log": (),
    "lnh_services.store.etcd.requests": (),
    "lnh_services.membership": ("lnh_services",),
    "lnh_services.balancer": ("lnh_services",),
    "lnh_services.backup": ("lnh_services",),
    "lnh_services": (),
    "lnh_common.metrics": ("lnh_common.messages", "lnh_common"),
    "lnh_common.bus": ("lnh_common.wire", "lnh_common.messages", "lnh_common"),
    "lnh_common.pkcs11": ("lnh_common.wire", "lnh_common.messages", "lnh_common"),
    "lnh_common.wire": ("lnh_common.messages", "lnh_common"),
    "lnh_common.messages": ("lnh_common",),
    "lnh_common": (),
}


def room_of(module: str) -> str:
    """The room that a module of the product lies in."""
    return max((room for room in ROOMS if module == room or module.startswith(f"{room}.")), key=len)


def may_import(room: str) -> set[str]:
    """All that the files of a room may import from."""
    shared = () if room in SHARED else SHARED
    return {room, *ROOMS[room], *shared}


def picture() -> str:
    """The table as docs/architecture.md shows it: each package's rooms, with those that each imports."""
    lines: list[str] = []
    package = ""
    for room, others in ROOMS.items():
        mine = ".".join(room.split(".")[: 2 if room.startswith("lnh_services.") else 1])
        if mine != package:
            lines += ["", mine]
            package = mine
        own = room.removeprefix(mine).lstrip(".") or "."
        shown = [other.removeprefix(f"{package}.") if other != package else "." for other in others]
        lines.append(f"    {own:<12}{'-> ' + ', '.join(shown) if shown else ''}".rstrip())
    return "\n".join(lines[1:]) + "\n"


if __name__ == "__main__":
    print(picture(), end="")
