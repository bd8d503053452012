"""What an application finds when it loads the module."""

from __future__ import annotations

import ctypes
import subprocess
from ctypes import POINTER, byref, c_ubyte, c_ulong, c_void_p
from pathlib import Path
from typing import Any

import pytest

from lnh_pkcs11.calls import CALLS, NO_FUNCTIONS, Version
from models.pkcs11_application import V2_40, V3_0, V3_2, Application, Interface

VERSIONS = {(2, 40): V2_40, (3, 0): [*V2_40, *V3_0], (3, 1): [*V2_40, *V3_0], (3, 2): [*V2_40, *V3_0, *V3_2]}
ARGUMENTS_BAD = 0x07
BUFFER_TOO_SMALL = 0x150


def version_of(address: int) -> tuple[int, int]:
    major, minor = (c_ubyte * 2).from_address(address)
    return major, minor


def interface(application: Application, name: bytes | None, version: tuple[int, int] | None, flags: int = 0) -> Any:
    found = POINTER(Interface)()
    wanted = None if version is None else byref((c_ubyte * 2)(*version))
    ckr = application.library.C_GetInterface(name, wanted, byref(found), c_ulong(flags))
    return found.contents if ckr == 0 else ckr


def test_the_lists_have_the_functions_of_the_table_of_calls() -> None:
    since = {Version.V2_40: V2_40, Version.V3_0: V3_0, Version.V3_2: V3_2}
    for version, names in since.items():
        listed = {call.name for call in CALLS if call.since is version and call.name not in NO_FUNCTIONS}
        assert listed == set(names)


def test_the_list_of_functions_is_that_of_2_40(application: Application) -> None:
    address = c_void_p()
    assert application.library.C_GetFunctionList(byref(address)) == 0
    assert address.value is not None
    assert version_of(address.value) == (2, 40)
    assert len(application.list_of(address.value, V2_40)) == len(V2_40)
    assert application.library.C_GetFunctionList(None) == ARGUMENTS_BAD


def test_the_interfaces_are_2_40_3_0_3_1_and_3_2_each_whole(application: Application) -> None:
    count = c_ulong()
    listing = application.library.C_GetInterfaceList
    assert listing(None, byref(count)) == 0
    assert count.value == len(VERSIONS)
    small = c_ulong(3)
    assert listing((Interface * 3)(), byref(small)) == BUFFER_TOO_SMALL
    assert small.value == len(VERSIONS)
    found = (Interface * count.value)()
    assert listing(found, byref(count)) == 0
    assert listing(found, None) == ARGUMENTS_BAD
    assert [version_of(each.functions) for each in found] == list(VERSIONS)
    for each, names in zip(found, VERSIONS.values(), strict=True):
        assert each.name == b"PKCS 11"
        assert each.flags == 0
        assert len(application.list_of(each.functions, names)) == len(names)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_interface_is_found_by_its_version(application: Application, version: tuple[int, int]) -> None:
    found = interface(application, b"PKCS 11", version)
    assert version_of(found.functions) == version
    same = application.list_of(found.functions, VERSIONS[version])
    for name, function in same.items():
        wanted = application.functions[name]
        assert ctypes.cast(function, c_void_p).value == ctypes.cast(wanted, c_void_p).value


def test_without_a_version_the_interface_is_the_newest(application: Application) -> None:
    for name in (None, b"PKCS 11"):
        assert version_of(interface(application, name, None).functions) == (3, 2)


@pytest.mark.parametrize(
    ("name", "version", "flags"),
    [(b"Vendor", None, 0), (b"PKCS 11", (2, 20), 0), (b"PKCS 11", (3, 3), 0), (None, None, 1)],
    ids=["another name", "an older version", "a newer version", "fork safe"],
)
def test_an_interface_that_is_not_there_is_refused(
    application: Application, name: bytes | None, version: tuple[int, int] | None, flags: int
) -> None:
    assert interface(application, name, version, flags) == ARGUMENTS_BAD
    assert application.library.C_GetInterface(name, None, None, c_ulong(0)) == ARGUMENTS_BAD


def test_nothing_is_exported_but_the_ways_in(module_path: Path) -> None:
    listed = subprocess.run(["nm", "-D", "--defined-only", module_path], capture_output=True, text=True, check=True)
    names = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert {name for name in names if "asan" not in name} == {
        "C_GetFunctionList",
        "C_GetInterfaceList",
        "C_GetInterface",
    }
