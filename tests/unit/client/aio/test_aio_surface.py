"""The blocking SDK and `lnh.aio` have one surface: names, parameters, annotations, results; and the twins are current."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, Final

import pytest

import lnh
import lnh.aio
import surface
from lnh.objects.listings import Listed
from surface import BY_HAND, LEFT_OUT, MODULES, ROOT, source_of, twin_of

PACKAGE: Final = ROOT / "client" / "lnh"
SURFACE: Final = (*MODULES, "lnh.objects.listings", "lnh.registration")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def defined(module: str) -> Iterator[tuple[str, Any]]:
    """The public functions and classes of a module, and the public methods of these, by their names within."""
    for name, found in vars(importlib.import_module(module)).items():
        if name.startswith("_") or getattr(found, "__module__", "") != module:
            continue
        yield name, found
        if isinstance(found, type):
            for each, method in vars(found).items():
                if (not each.startswith("_") or each in {"__init__", "__getitem__"}) and callable(getattr(found, each)):
                    yield f"{name}.{each}", method
                elif isinstance(method, property):
                    yield f"{name}.{each}", method.fget


OURS: Final = {module: dict(defined(module)) for module in SURFACE}
TWINS: Final = {module: dict(defined(twin_of(module))) for module in SURFACE}
CALLS: Final = [
    pytest.param(module, name, id=f"{module}.{name}")
    for module in SURFACE
    for name in OURS[module]
    if name in TWINS[module] and isinstance(TWINS[module][name], FunctionType)
]


def signature(function: Callable[..., Any]) -> tuple[list[tuple[Any, ...]], str]:
    found = inspect.signature(function)
    parameters = [
        (each.name, each.kind, getattr(each.default, "__name__", each.default), str(each.annotation))
        for each in found.parameters.values()
    ]
    return parameters, str(found.return_annotation)


def as_twin(annotation: str) -> str:
    return annotation.replace("Iterator[", "AsyncIterator[").replace("Channel]", "Share]")


def is_left_out(module: str, name: str) -> bool:
    return not LEFT_OUT.keys().isdisjoint({f"{module}.{name}", f"{module}.{name.partition('.')[0]}"})


def test_the_twins_are_made_of_what_is_there_now() -> None:
    assert surface.stale() == [], "run `python tests/surface.py`"


def test_there_is_no_other_file_among_the_twins() -> None:
    there = {path for path in (PACKAGE / "aio").rglob("*.py") if path.name != "__init__.py"}
    assert there == {source_of(twin_of(module)) for module in (*MODULES, *BY_HAND)}


def test_every_module_of_the_blocking_sdk_has_a_twin_or_a_reason_why_not() -> None:
    there = {module_of(path) for path in PACKAGE.rglob("*.py") if PACKAGE / "aio" not in path.parents}
    packages = {"lnh.net", "lnh.objects"}  # which are what their modules are

    def is_told(module: str) -> bool:
        package = module.rpartition(".")[0]
        return module in LEFT_OUT or (package != "lnh" and package in LEFT_OUT)

    left = there - packages - {*MODULES, *BY_HAND}
    assert {module for module in left if not is_told(module)} == set(), "a module of `MODULES`, or a row of LEFT_OUT"
    known = {f"{module}.{name}" for module in SURFACE for name in OURS[module]}
    assert set(LEFT_OUT) <= there | known, "nothing is left out that is not there"


@pytest.mark.parametrize("module", SURFACE)
def test_a_twin_has_every_name_but_those_left_out_and_no_other(module: str) -> None:
    left_out = {name for name in OURS[module] if is_left_out(module, name)}
    shared = {name for name in OURS[module] if getattr(importlib.import_module(twin_of(module)), name, None)}
    shared -= set(TWINS[module])
    within = {name for name in OURS[module] if name.partition(".")[0] in shared}
    assert set(OURS[module]) - left_out - within == set(TWINS[module])


@pytest.mark.parametrize(("module", "name"), CALLS)
def test_a_call_has_the_parameters_and_the_result_of_its_twin(module: str, name: str) -> None:
    parameters, result = signature(OURS[module][name])
    twins_parameters, twins_result = signature(TWINS[module][name])
    if name != "Listing.__init__":  # whose argument is iterated
        assert twins_parameters == parameters
    assert twins_result == as_twin(result)


def test_what_waits_is_awaited_or_iterated_and_nothing_else_is() -> None:
    """The rules were right, by what they made: who waits has `await` for what waits in turn."""
    plain = {name for module in SURFACE for name, found in TWINS[module].items() if _is_plain(found)}
    assert plain >= {
        "StoredObject.__getitem__",
        "PublicKey.to_pem",
        "ObjectSession.find",
        "Cluster.keyrings",
        "connect",
    }
    awaited = {name for module in SURFACE for name, found in TWINS[module].items() if not _is_plain(found)}
    assert awaited >= {"SigningKey.sign", "Cluster.keyring", "Keyring.login", "Session.logout", "Connection.close"}


def _is_plain(found: object) -> bool:
    return isinstance(found, FunctionType) and not (
        inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found)
    )


def test_everything_that_the_package_names_is_of_lnh_or_has_a_twin() -> None:
    homes = {name: getattr(lnh, name).__module__ for name, home in lnh._HOMES.items() if home.startswith("lnh.")}
    twins = {name for name, home in homes.items() if name in TWINS.get(home, ())}
    assert set(lnh.aio.__all__) == twins
    others = {name: home for name, home in homes.items() if name not in twins and home != Listed.__module__}
    assert [name for name, home in others.items() if home not in LEFT_OUT and not is_left_out(home, name)] == []


def test_the_blocking_sdk_imports_nothing_of_asyncio() -> None:
    imports = "import lnh, lnh.cluster, lnh.admin, sys; print([name for name in sys.modules if 'asyncio' in name or '.aio' in name])"
    said = subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
