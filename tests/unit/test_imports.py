"""Who imports whom: what `rooms.py` says and nothing else, and no files in a circle."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lnh_services.paths import SERVICES
from rooms import ROOMS, SHARED, may_import, picture, room_of

ROOT = Path(__file__).parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT / top).with_suffix("").parts).removesuffix(".__init__"): path
    for top in ("common", "client", "services")
    for path in (ROOT / top).rglob("*.py")
}


def imported(module: str) -> Iterator[str]:
    """The modules of ours that one names, wherever it does: also late, and for its annotations alone."""
    path = MODULES[module]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in within]
        else:
            continue
        yield from (name for name in names if name in MODULES)


def reached(module: str) -> set[str]:
    """All that loading this module loads."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        for name in imported(todo.pop()):
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return seen


def allowed(module: str) -> set[str]:
    """The rooms that a module may import from."""
    room = room_of(module)
    if module.endswith(".__main__"):
        return may_import(room) | {"lnh_services"} | {other for other in ROOMS if other.startswith(f"{room}.")}
    return may_import(room)


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_imports_only_what_it_may(room: str) -> None:
    mine = [module for module in MODULES if room_of(module) == room]
    assert mine, "the room exists"
    crossed = [
        f"{module} imports {name}, which lies in {room_of(name)}"
        for module in mine
        for name in imported(module)
        if room_of(name) not in allowed(module)
    ]
    assert crossed == []


def test_rooms_import_from_rooms_further_down_alone() -> None:
    rows = list(ROOMS)
    for room, others in ROOMS.items():
        for other in others:
            assert rows.index(other) > rows.index(room), f"{room} imports {other}"
    assert set(SHARED) == {room for room in ROOMS if room.split(".")[0] == "lnh_common"}


_OVER_THE_SDK = {"lnh_cli", "lnh_kms", "lnh_pkcs11", "lnh_rest"}


def test_neither_side_nor_any_service_imports_another() -> None:
    def side(room: str) -> str:
        top, *rest = room.split(".")
        return rest[0] if top == "lnh_services" and rest else "lnh" if top in _OVER_THE_SDK else top

    assert {side(room) for room in ROOMS} == {"lnh_common", "lnh", "lnh_services", *SERVICES}
    for room in ROOMS:
        services = {"lnh_services"} if side(room) in SERVICES else set()
        assert {side(other) for other in may_import(room)} <= {side(room), "lnh_common"} | services, room
    sdk = [room for room in ROOMS if room.split(".")[0] == "lnh"]
    assert not [room for room in sdk for other in may_import(room) if other.split(".")[0] in _OVER_THE_SDK]


def test_no_files_import_one_another_in_a_circle() -> None:
    graph = {module: set(imported(module)) - {module} for module in MODULES}
    assert graph["lnh_services.hsm.__main__"], "imports are found"
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


def test_the_rooms_are_drawn_as_they_are() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert f"```text\n{picture()}```\n" in page, "put what `python tests/rooms.py` says into docs/architecture.md"


def test_the_files_that_the_page_names_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    paths = [
        path.relative_to(ROOT).as_posix()
        for top in ("common", "client", "services", "tests")
        for path in (ROOT / top).rglob("*")
    ]
    named = set(re.findall(r"`((?:\w+/)*\w+(?:\.py|/\w+/?))`", page))
    assert len(named) > 30, "paths are found"
    assert not [name for name in named if not any(f"/{path}".endswith(f"/{name.rstrip('/')}") for path in paths)]


def test_the_balancer_cannot_open_a_body() -> None:
    assert "lnh_common.wire.channel" not in reached("lnh_services.balancer.__main__")


@pytest.mark.parametrize("service", ["store", "membership", "backup"])
def test_only_the_hsm_loads_the_channel(service: str) -> None:
    assert "lnh_common.wire.channel" not in reached(f"lnh_services.{service}.__main__")
