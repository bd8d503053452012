"""What a command shows, compared with its JSON: whatever is in the table is in the JSON too, and is as full there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from lnh_cli.support import terminal

_ZEROS = ("", "no", "none", "never", "0", "not set")  # how a table says that there is nothing
_DRAWN = re.compile(r"[0-9a-f]{16,}|SHA256:\S+|\d{4}-\d\d-\d\dT[\d:]+Z|\d{8}T\d{6}Z|[\w+/]{20,}")  # ids, times, base64
_CONTAINED = 8  # characters from which on a word that is part of a value is no coincidence


@dataclass
class Shown:
    """What one run of a command gave to the terminal, before it was laid out.

    Attributes:
        tables: rows and columns.
        records: things with a line for each property.
        lines: sentences.
    """

    tables: list[tuple[list[dict[str, Any]], tuple[str, ...]]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def listen(self, patch: pytest.MonkeyPatch) -> None:
        """Have what the command line shows from now on noted here, and shown all the same."""
        rows, record, echo = terminal.show_rows, terminal.show_record, terminal.echo

        def show_rows(found: Any, *, columns: Any) -> None:
            found = list(found)
            self.tables.append(([terminal.fields(row) for row in found], tuple(columns)))
            rows(found, columns=columns)

        def show_record(found: Any) -> None:
            self.records.append(terminal.fields(found))
            record(found)

        def show_line(text: str = "", **how: Any) -> None:
            self.lines.append(text)
            echo(text, **how)

        patch.setattr(terminal, "show_rows", show_rows)
        patch.setattr(terminal, "show_record", show_record)
        patch.setattr(terminal, "echo", show_line)


@dataclass(frozen=True)
class Comparison:
    """One command's table and JSON.

    Args:
        names: words of sentences that are values, as those with a digit are.
        anew: whether each run makes, or measures, something else: only how values look is compared then.
        moves: names of what goes on by itself between two runs: it is only as full in both.
        computed: names of what is for people only: it is made of what is in the JSON.
    """

    shown: Shown
    told: Any
    names: frozenset[str] = frozenset()
    anew: bool = False
    moves: frozenset[str] = frozenset()
    computed: frozenset[str] = frozenset()

    def faults(self) -> Iterator[str]:
        """What is shown, and missing, empty or another in the JSON."""
        for rows, columns in self.shown.tables:
            yield from self._table(rows, columns)
        for record in self.shown.records:
            for name, value in record.items():
                yield from self._value(name, value, self.told)
        for line in self.shown.lines:
            yield from self._line(line)

    def _table(self, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> Iterator[str]:
        lists = [found for found in _lists(self.told) if len(found) >= len(rows) and _has_any(found, columns)]
        if rows and not lists:
            yield f"no list in the JSON is the table of {columns}"
        for row, told in zip(rows, lists[0] if lists else [], strict=False):
            for column in columns:
                yield from self._value(column, row.get(column), told)

    def _value(self, name: str, value: Any, told: Any) -> Iterator[str]:
        if name in self.computed or _is_nothing(value):
            return
        if isinstance(told, dict) and name in told:
            other = told[name]
            if name in self.moves and not _is_nothing(other):
                return
            if _is_nothing(other):
                yield f"{name} is {value!r} in the table and {other!r} in the JSON"
                return
            if not isinstance(other, dict | list) or isinstance(value, dict | list):
                if not self._is_same(value, other):
                    yield f"{name} is {value!r} in the table and {other!r} in the JSON"
                return
        if name in self.moves:
            return
        yield from (f"{name} is {each!r} in the table, and nowhere in the JSON" for each in self._missing(value, told))

    def _is_same(self, value: Any, other: Any) -> bool:
        if isinstance(value, dict) and isinstance(other, dict):
            return all(_is_nothing(each) or self._is_same(each, other.get(name)) for name, each in value.items())
        if isinstance(value, list) and isinstance(other, list):
            return len(value) <= len(other) and all(map(self._is_same, value, other))
        if isinstance(value, list | dict):
            return False
        return self._look(terminal._cell(value)) in {self._look(each) for each in _spellings(other)}

    def _missing(self, value: Any, told: Any) -> Iterator[Any]:
        """Values that are nowhere in what is told."""
        if isinstance(value, dict):
            for each in value.values():
                yield from self._missing(each, told)
        elif isinstance(value, list):
            for each in value:
                yield from self._missing(each, told)
        elif self._look(terminal._cell(value)) not in {self._look(each) for each in _leaves(told)}:
            yield value

    def _line(self, line: str) -> Iterator[str]:
        there = {self._look(each).lower() for each in _leaves(self.told)}
        for word in re.split(r"[\s,;()'=]+", line):
            word = word.strip(".:")
            if word not in self.names and not any(map(str.isdigit, word)):
                continue
            look = self._look(word).lower()
            if look not in there and not any(len(look) >= _CONTAINED and look in each for each in there):
                yield f"{word!r} of the sentence {line!r} is nowhere in the JSON"

    def _look(self, text: str) -> str:
        """How a value looks, whatever it is; nothing stays nothing."""
        if not self.anew:
            return text
        text = _DRAWN.sub("9", text)
        return re.sub(r"[\d.]*[1-9][\d.]*", "9", text)


def _is_nothing(value: Any) -> bool:
    return value in (None, [], {}, 0) or terminal._cell(value) in _ZEROS


def _spellings(value: Any) -> Iterator[str]:
    """How a value of the JSON may look in a table."""
    cell = terminal._cell(value)
    yield cell
    yield cell.removesuffix("_KEY").lower()
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield f"{value / 1000:.1f} ms"
        yield f"{value} ms"
        if isinstance(value, int):
            yield from (terminal.moment(seconds) for seconds in (value, value // 1000) if 0 < seconds < 1 << 33)
    if isinstance(value, list):
        yield str(len(value))


def _leaves(told: Any) -> Iterator[str]:
    yield from _spellings(told)
    if isinstance(told, dict):
        for each in told.values():
            yield from _leaves(each)
    elif isinstance(told, list):
        for each in told:
            yield from _leaves(each)


def _lists(told: Any) -> Iterator[list[Any]]:
    if isinstance(told, list):
        yield told
    for each in told.values() if isinstance(told, dict) else told if isinstance(told, list) else ():
        yield from _lists(each)


def _has_any(found: Collection[Any], columns: Collection[str]) -> bool:
    return all(isinstance(each, dict) and each.keys() & set(columns) for each in found)
