"""Imports run one way: client and services import common; neither imports the other; services import no other service."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lnh_services.paths import SERVICES

ROOT = Path(__file__).parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT / top).with_suffix("").parts).removesuffix(".__init__"): path
    for top in ("common", "client", "services")
    for path in (ROOT / top).rglob("*.py")
}


def imported(module: str) -> Iterator[str]:
    """What a module imports, as far as it is ours."""
    path = MODULES[module]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name in MODULES)


def files_imported(module: str) -> set[str]:
    """The other files a module names, wherever it does: also late, and for its annotations alone."""
    named = set(imported(module))
    return {name for name in named if not any(other.startswith(f"{name}.") for other in named)} - {module}


def owner(module: str) -> str:
    """The part of the product a module belongs to: a top package, or one service."""
    top, *rest = module.split(".")
    return rest[0] if top == "lnh_services" and rest and rest[0] in SERVICES else top


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


MAY_IMPORT = {
    "lnh_common": {"lnh_common"},
    "lnh": {"lnh", "lnh_common"},
    "lnh_services": {"lnh_services", "lnh_common"},
    **{service: {service, "lnh_services", "lnh_common"} for service in SERVICES},
}


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_each_part_imports_only_what_it_may(part: str) -> None:
    mine = [module for module in MODULES if owner(module) == part]
    assert mine, "the part exists"
    crossed = [
        f"{module} imports {name}"
        for module in mine
        for name in imported(module)
        if owner(name) not in MAY_IMPORT[part]
    ]
    assert crossed == []


def test_no_files_import_one_another_in_a_circle() -> None:
    graph = {module: files_imported(module) for module in MODULES}
    assert graph["lnh_services.hsm.__main__"], "imports are found"
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


def test_the_balancer_cannot_open_a_body() -> None:
    assert "lnh_common.wire.channel" not in reached("lnh_services.balancer.__main__")


@pytest.mark.parametrize("service", ["store", "membership", "backup"])
def test_only_the_hsm_loads_the_channel(service: str) -> None:
    assert "lnh_common.wire.channel" not in reached(f"lnh_services.{service}.__main__")
