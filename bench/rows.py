"""The rows of the table, and build/bench.json.

The machine's speed wanders, so a figure and what it is compared with are measured window by window, in
turn, and the medians are set against each other.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

WINDOWS: Final = 5
_FILE: Final = Path("build/bench.json")


@dataclass
class Row:
    """One figure; `holds` is None where the reference could not be measured (`note` says why)."""

    name: str
    value: float
    unit: str
    reference: str
    reference_value: float | None
    ratio: float | None
    at_least: float
    holds: bool | None
    spread: str = ""
    note: str = ""


def in_turn(*measures: Callable[[], float]) -> list[list[float]]:
    """Windows of each measure, A B A B ..., after a warm-up of each."""
    for measure in measures:
        measure()
    rounds = [[measure() for measure in measures] for _ in range(WINDOWS)]
    return [list(values) for values in zip(*rounds, strict=True)]


def row(name: str, values: list[float], unit: str, reference: str, others: list[float], at_least: float) -> Row:
    """A rate that must be at least so many times its reference."""
    value, other = statistics.median(values), statistics.median(others)
    ratio = statistics.median(a / b for a, b in zip(values, others, strict=True))
    spread = f"{min(values):.0f}..{max(values):.0f}"
    holds = ratio >= at_least
    return Row(name, round(value, 1), unit, reference, round(other, 1), round(ratio, 3), at_least, holds, spread)


def at_most(name: str, value: float, unit: str, limit: float) -> Row:
    """An absolute figure that must stay under a limit; the ratio is the room it leaves."""
    return Row(name, round(value, 2), unit, "limit", limit, round(limit / value, 3), 1.0, value <= limit)


def within(name: str, seconds: list[float], lease: float, limit: float, said: str) -> Row:
    """A pause, the longest of several, beside the lease; the ratio is the room that its limit leaves."""
    worst = max(seconds)
    reference, spread = f"L; at most {said}, {limit:.2f} s", f"{min(seconds):.2f}..{worst:.2f}"
    return Row(name, round(worst, 2), "s", reference, lease, round(limit / worst, 3), 1.0, worst <= limit, spread)


def unmeasured(name: str, value: float, unit: str, reference: str, least: float, why: Exception) -> Row:
    return Row(name, round(value, 1), unit, reference, None, None, least, None, note=str(why))


def save(rows: list[Row], *, fresh: bool) -> None:
    """Write the rows; unless it is to be `fresh`, those of other figures stay that an earlier run left there."""
    kept = []
    if not fresh and _FILE.exists():
        names = {each.name for each in rows}
        kept = [each for each in json.loads(_FILE.read_text()) if each["name"] not in names]
    _FILE.parent.mkdir(exist_ok=True)
    _FILE.write_text(json.dumps(kept + [asdict(each) for each in rows], indent=2) + "\n")


def run(measure: Callable[[], Iterator[Row]]) -> int:
    """Measure, keeping each row as it comes, since minutes pass between two, and show them; the exit status.

    What `python -m bench.NAME` does.
    """
    rows: list[Row] = []
    for each in measure():
        rows.append(each)
        save(rows, fresh=False)
    show(rows)
    return 0


def show(rows: list[Row]) -> None:
    if "--json" in sys.argv:
        print(json.dumps([asdict(each) for each in rows]))
        return
    print(f"{os.cpu_count()} cores; medians of {WINDOWS} windows")
    for each in rows:
        verdict = {True: "holds", False: "MISSED", None: "not measured"}[each.holds]
        ratio = "-" if each.ratio is None else f"{each.ratio:.2f} x {each.reference} (at least {each.at_least:.2f})"
        print(f"{each.name:50} {each.value:>10.1f} {each.unit:11} {each.spread:>16}  {ratio}: {verdict} {each.note}")
