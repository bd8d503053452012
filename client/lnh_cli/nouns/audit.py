"""`lnh audit`: a member's audit trail, at its local console."""

from __future__ import annotations

from typing import Annotated

import typer

from lnh_cli.support import terminal
from lnh_cli.support.command import noun, verb
from lnh_cli.support.options import ConsoleOptions

app = noun("audit", "A member's audit trail, at its local console.")


@verb(app, "show", ConsoleOptions)
def show(
    options: ConsoleOptions, after: Annotated[int, typer.Option(min=0, help="Only records behind this index.")] = 0
) -> None:
    """Show the records: who did what to what, and what came of it."""
    with options.console() as console:
        records = list(console.audit(after))
    if not options.json:
        records = [record | {"time": terminal.moment(record["time"] // 1000)} for record in records]
    options.rows(records, "index", "time", "identity", "role", "operation", "target", "outcome")


@verb(app, "verify", ConsoleOptions)
def verify(options: ConsoleOptions) -> None:
    """Check that the trail was not edited: its hash chain and signed heads."""
    with options.console() as console:
        report = console.verify_audit()
    shown = terminal.fields(report)
    if not options.json and not report.problem:
        shown["problem"] = "none: the chain holds"
        shown["indexes"] = (
            f"1 to {report.records + report.signatures}, none is missing; the {report.signatures} without a record are "
            "the signatures between them, which `lnh audit show` leaves out"
        )
    options.record(shown)
    if report.problem:
        terminal.refuse(report.problem, "keep the file as evidence, and compare it with a copy")
