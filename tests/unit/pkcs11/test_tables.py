"""The tables of calls and layouts, and what is generated from them for the module."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lnh_common.pkcs11.mechanisms import MECHANISM_RULES
from lnh_common.pkcs11.parameters import HashedParameters, NoParameters
from lnh_pkcs11 import calls, generate, layouts, parameters

FIELD = re.compile(r"ay|au|aA|fy|fu|fA|[uysvzMP]")
FRONT = """
#include <stddef.h>
#include <stdio.h>
typedef unsigned long CK_ULONG;
typedef unsigned char CK_BYTE, *CK_BYTE_PTR, CK_BBOOL;
#include "calls.h"
#include "layouts.h"
int main(void) {
#define CALL(name, id, request, reply, major, minor) printf("call %s %d %s %s\\n", #name, id, request, reply);
    LNH_CALLS(CALL)
    for (size_t i = 0; i < sizeof lnh_mechanisms / sizeof *lnh_mechanisms; i++)
        printf("mechanism %lx %zu %zu\\n", lnh_mechanisms[i].type, lnh_layouts[lnh_mechanisms[i].layout].size,
               lnh_layouts[lnh_mechanisms[i].layout].fields);
    for (size_t i = 0; i < sizeof lnh_fields / sizeof *lnh_fields; i++)
        printf("field %d %zu\\n", lnh_fields[i].kind, lnh_fields[i].offset);
    for (size_t i = 0; i < sizeof lnh_message_layouts / sizeof *lnh_message_layouts; i++)
        printf("message %zu\\n", lnh_layouts[lnh_message_layouts[i]].size);
    printf("values %zu\\n", sizeof lnh_values / sizeof *lnh_values);
    return 0;
}
"""


def test_ids_and_names_of_calls_are_unlike() -> None:
    assert len(calls.CALLS_BY_NAME) == len(calls.CALLS)
    assert len(calls.CALLS_BY_ID) == sum(1 for call in calls.CALLS if call.id)
    assert calls.CALLS_BY_NAME["WaitForSlotEvent"].id == 65
    assert calls.CALLS_BY_NAME["LoginUser"].id == 66
    assert calls.CALLS_BY_NAME["MessageVerifyFinal"].id == 87


@pytest.mark.parametrize("call", calls.CALLS, ids=lambda call: call.name)
def test_fields_of_calls_are_letters_that_the_table_explains(call: calls.Call) -> None:
    for own in (False, True):
        for letters in call.fields(own=own):
            assert "".join(FIELD.findall(letters)) == letters
    assert bool(call.answer) == (call.id == 0), "a call is passed, or answered without a message"


def test_every_mechanism_with_parameters_has_a_layout() -> None:
    with_parameters = {
        mechanism
        for mechanism, rule in MECHANISM_RULES.items()
        if rule.parameters not in {NoParameters, HashedParameters}
    }
    # EdDSA is the pure one alone, whose struct says so.
    assert with_parameters <= set(layouts.LAYOUTS)
    assert {each.name for each in set(layouts.LAYOUTS) - with_parameters} == {"EDDSA"}


@pytest.mark.parametrize("name", generate.HEADERS)
def test_what_the_module_is_built_with_is_current(name: str) -> None:
    written = (generate.HERE / name).read_text()
    assert written == generate.HEADERS[name](), "run `python -m lnh_pkcs11.generate`"


@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler")
def test_a_compiler_reads_the_tables_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "front.c").write_text(FRONT)
    strict = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{generate.HERE}")
    subprocess.run(["cc", *strict, "-o", tmp_path / "front", tmp_path / "front.c"], check=True)
    said = subprocess.run([tmp_path / "front"], check=True, capture_output=True, text=True).stdout.splitlines()
    rows = {kind: [line.split(" ")[1:] for line in said if line.startswith(f"{kind} ")] for kind in FRONT_KINDS}
    assert [tuple(row) for row in rows["call"]] == [
        (call.name, str(call.id), *call.fields(own=True))
        for call in calls.CALLS
        if call.id and call.name not in calls.P11_KIT_ONLY
    ]
    sizes: dict[int, list[int]] = {int(number, 16): [] for number, _, _ in rows["mechanism"]}
    for number, size, _ in rows["mechanism"]:
        sizes[int(number, 16)].append(int(size))
    assert {number: len(found) for number, found in sizes.items()} == {
        mechanism.value: len(mine) for mechanism, mine in layouts.LAYOUTS.items()
    }
    for found in (*sizes.values(), [int(size) for (size,) in rows["message"]]):
        assert len(set(found)) == len(found), "structs of one mechanism are told apart by their size"
    assert rows["values"] == [[str(len(layouts.VALUE_KINDS))]]


FRONT_KINDS = ("call", "mechanism", "field", "message", "values")


def test_every_layout_is_read_into_parameters() -> None:
    assert set(parameters._READERS) == set(layouts.LAYOUTS)
