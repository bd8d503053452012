"""The pages lead where they say: links and files that they name are there, and no decision is lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
RECORDS: Final = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
PAGES: Final = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
OLD_DECISIONS: Final = range(1, 109)  # paragraphs of the page that the records replaced


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for file, anchor in re.findall(r"\]\(([^)#\s:]*)(?:#([^)\s]+))?\)", page.read_text()):
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not anchor or anchor in _anchors(target), f"{file}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_source_files_that_a_page_names_are_there(page: Path) -> None:
    tops = ("common", "client", "services", "tests", "bench")
    paths = [f"/{path.relative_to(ROOT).as_posix()}" for top in tops for path in (ROOT / top).rglob("*.py")]
    named = set(re.findall(r"`((?:[\w.-]+/)*\w+\.py)`", page.read_text()))
    assert not [name for name in named if not any(path.endswith(f"/{name}") for path in paths)]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_record_has_all_parts_and_a_line_in_the_index(record: Path) -> None:
    text = record.read_text()
    number, _, title = text.splitlines()[0].removeprefix("# ").partition(". ")
    assert number == record.name[:4]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Options", "Decision", "Consequences"]
    assert re.search(r"^Status: (accepted|superseded)", text, re.MULTILINE)
    assert f"| [{number}]({record.name}) | {title} |\n" in (ROOT / "docs" / "adr" / "README.md").read_text()


def test_every_old_decision_is_found_by_its_number() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text().partition("old numbers")[2]
    places = dict(re.findall(r"(?<=\| )(\d+) \| \[(\d{4})\]\(\2-", index))
    assert sorted(map(int, places)) == list(OLD_DECISIONS)
    for number, record in places.items():
        status = next(line for line in (ROOT / "docs" / "adr").glob(f"{record}-*.md")).read_text().split("\n## ")[0]
        named = set(re.findall(r"\d+", status.partition("From decision")[2].partition(".")[0]))
        assert number in named, f"{number} is said to be in {record}"
