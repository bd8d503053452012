"""Writes the table of routes into docs/rest.md: `python -m lnh_rest.document`; a test holds that it is current."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, get_args

from lnh_rest import problems
from lnh_rest.base import Octets, Text
from lnh_rest.problems import OWN_STATUSES, STATUSES
from lnh_rest.route import Route, Who
from lnh_rest.shapes import Nothing
from lnh_rest.table import ROUTES

PAGE: Final = Path(__file__).parents[2] / "docs" / "rest.md"
MARKS: Final = ("<!-- the table of routes -->\n", "<!-- the end of the table -->\n")
_WORDS: Final[dict[Any, str]] = {None: "", Octets: "bytes", Text: "text"}
_WHO: Final = {Who.ANYBODY: "", Who.SESSION: "session", Who.USER: "user", Who.HOLDER: "keyring"}


def render() -> str:
    """Render the tables."""
    head = ("route", "does", "session", "body", "answer", "operations")
    statuses = sorted({*STATUSES.values(), *OWN_STATUSES})
    lines = [*_table(head, map(_row, ROUTES)), "", *_table(("status", "errors"), map(_status, statuses))]
    return "\n".join(lines) + "\n"


def rewritten(page: str) -> str:
    """Put the tables into the page, between its marks."""
    before, begin, rest = page.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    assert begin, "the page has the mark where the tables begin"
    assert end, "the page has the mark where they end"
    return f"{before}{begin}{render()}{end}{after}"


def _row(route: Route) -> tuple[str, ...]:
    takes = [each for each, has in (("Idempotency-Key", route.creates), ("If-Match", route.matches)) if has]
    given = [_name(route.body), _name(None if route.query is Nothing else route.query), *takes]
    answer = [str(route.status), _name(route.reply), "ETag" if route.etag else ""]
    return (
        f"`{route.method} {route.path}`",
        route.about,
        _WHO[route.who],
        ", ".join(filter(None, given)),
        " ".join(filter(None, answer)),
        ", ".join(f"`{each.name}`" for each in route.operations),
    )


def _status(status: int) -> tuple[str, str]:
    kinds = [f"`{each.__name__}`" for each in problems.kinds() if problems.status_of_kind(each) == status]
    own = [OWN_STATUSES[status]] if status in OWN_STATUSES else []
    return str(status), "; ".join([*own, ", ".join(kinds)] if kinds else own)


def _name(kind: Any) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    return " or ".join(f"{each.__name__}" for each in get_args(kind) or (kind,))


def _table(head: tuple[str, ...], rows: Iterable[Iterable[str]]) -> list[str]:
    return [_line(head), _line("---" for _ in head), *map(_line, rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
