"""docs/pkcs11.md says what each way in carries, and what is refused: its tables are those of the code."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest

from lnh_common.pkcs11.mechanisms import MECHANISM_RULES
from lnh_pkcs11.handlers.table import REFUSED
from lnh_pkcs11.ways import PASSED, Way

PAGE = Path(__file__).parents[3] / "docs" / "pkcs11.md"


def carried() -> str:
    """The table of mechanisms, by the least way in that passes each."""
    seen: set[str] = set()
    lines = ["| way in | mechanisms |", "| --- | --- |"]
    for way in (Way.P11_KIT_0, Way.P11_KIT_1, Way.P11_KIT_2, Way.MODULE):
        passed = [each.name for each in MECHANISM_RULES if way.own or each in PASSED[way]]
        more = [name for name in passed if name not in seen]
        seen.update(more)
        before = "those, and " if way is not Way.P11_KIT_0 else ""
        lines.append(f"| {way.value} | {before}{', '.join(more)} |" if more else f"| {way.value} | the same |")
    return "\n".join(lines) + "\n"


def refused() -> str:
    """The table of calls that are refused."""
    lines = ["| call | CKR_ | because |", "| --- | --- | --- |"]
    for (ckr, why), names in groupby(REFUSED, key=lambda name: REFUSED[name]):
        lines.append(f"| {', '.join(f'C_{name}' for name in names if name != 'InitToken2')} | {ckr.name} | {why} |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("table", [carried, refused])
def test_the_page_has_the_tables_of_the_code(table: object) -> None:
    assert callable(table)
    assert table() in PAGE.read_text(), f"put this into {PAGE.name}:\n{table()}"
