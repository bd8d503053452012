"""`lnh top`: the whole cluster, live."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnh_cli.support import terminal
from lnh_cli.support.command import Noun, verb
from lnh_cli.support.options import AdminOptions

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from lnh.admin import Administration
    from lnh_common.messages.overview import Overview, Sight

COLUMNS = (
    "name", "group", "role", "state", "lease", "lag", "ops/s", "writes/s", "p50 ms", "p99 ms", "in flight", "waiting",
    "clients", "workers", "disk free", "version",
)  # fmt: skip
_LEAST = ("version", "disk free", "workers", "clients", "waiting", "lease", "writes/s", "role", "p50 ms", "in flight")


def enter(app: Noun) -> None:
    """Enter `lnh top` into the command tree."""
    verb(app, "top", AdminOptions)(top)


def top(
    options: AdminOptions,
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
) -> None:
    """Members, groups, leases, lag, operations a second, latency and queues of the whole cluster, live; Ctrl-C ends."""
    with options.viewing(needs_sight=True) as session:
        if options.json:
            options.show_json(record(session.overview()))
        elif once or not sys.stdout.isatty():
            shown = session.overview()
            terminal.show_rows(rows(shown), columns=COLUMNS)
            terminal.echo(summary(shown))
        else:
            _watch(session, interval)


def _watch(session: Administration, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    session.connection.on_behind = None  # each member's state is on the screen, where nothing else may write
    looks = look_again(session.overview, interval, lambda: console.width)
    try:
        with Live(next(looks), console=console, auto_refresh=False, screen=True) as live:
            for look in looks:
                live.update(look, refresh=True)
    except KeyboardInterrupt:
        return


def look_again(overview: Callable[[], Overview], interval: float, width: Callable[[], int]) -> Iterator[RenderableType]:
    """What to show, again and again; while nothing answers, the last with a word about it.

    Args:
        interval: seconds.
        width: of the terminal, in characters.

    Raises what the first look raises.
    """
    from rich.console import Group

    from lnh_common.errors import LnhError

    shown, last = None, ""
    while True:
        begun = time.monotonic()
        try:
            shown, last = overview(), ""
        except LnhError as error:
            if shown is None:
                raise
            last = f"no answer: {error}"
        yield Group(_text(summary(shown), "bold"), _table(shown, width()), _text(last, "red"))
        time.sleep(max(0.0, interval - (time.monotonic() - begun)))


def fitting(lines: list[dict[str, Any]], width: int) -> list[str]:
    """The columns that fit into so many characters: those that say least are left out first."""
    columns = list(COLUMNS)
    for least in _LEAST:
        widths = (max(len(column), *(len(str(line[column])) for line in lines)) for column in columns)
        if sum(widths) + 2 * len(columns) <= width:
            break
        columns.remove(least)
    return columns


def _table(shown: Overview, width: int) -> RenderableType:
    from rich.table import Table

    lines = rows(shown)
    columns = fitting(lines, width)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in lines:
        style = "" if row["state"] == "read-write" else "yellow" if row["state"] in ("read-only", "joining") else "red"
        table.add_row(*(_text(str(row[column])) for column in columns), style=style)
    return table


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    from lnh_common.text import shown

    return Text(shown(text), style=style)


def summary(shown: Overview) -> str:
    """One line about the whole."""
    seen = shown.seen
    available = sum(each.state == "read-write" for each in seen.members)
    rate = sum(
        each.figures.balancer.requests_per_second for each in seen.members if each.figures and each.figures.balancer
    )
    return (
        f"{shown.label}: {available} of {len(seen.members)} members read-write, groups {', '.join(seen.groups)}, "
        f"epoch {seen.epoch}, {shown.keyrings} keyrings, {shown.clients} clients, {rate:.0f} operations/s"
    )


def rows(shown: Overview) -> list[dict[str, Any]]:
    """A line for each member; what it did not tell is empty."""
    primary = next((each for each in shown.seen.members if each.id and each.id == shown.seen.primary), None)
    store = primary.figures.store if primary is not None and primary.figures is not None else None
    return [_row(each, store.committed_index if store is not None else None) for each in shown.seen.members]


def _row(each: Sight, committed: int | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    row |= {"name": each.name, "group": each.group, "role": each.role, "state": each.state, "version": each.product}
    figures = each.figures
    if figures is None:
        return row
    if figures.store is not None:
        row["lease"] = f"{figures.store.lease_ms} ms" if figures.store.lease_ms else "none"
        row["writes/s"] = f"{figures.store.commits_per_second:.1f}"
        if committed is not None:
            row["lag"] = max(0, committed - figures.store.applied_index)
    if figures.balancer is not None:
        door = figures.balancer
        row |= {
            "ops/s": f"{door.requests_per_second:.1f}", "p50 ms": f"{door.p50 / 1000:.2f}",
            "p99 ms": f"{door.p99 / 1000:.2f}", "in flight": door.in_flight, "waiting": door.waiting,
            "clients": door.connections, "workers": f"{door.workers_serving}/{door.workers}",
        }  # fmt: skip
    if figures.machine is not None and figures.machine.disk_total:
        row["disk free"] = f"{100 * figures.machine.disk_free // figures.machine.disk_total} %"
    return row


def record(shown: Overview) -> dict[str, Any]:
    """Everything, for programs."""
    return terminal.fields(shown)
