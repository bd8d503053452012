"""`lnh status`: the cluster and the member that answers, at a glance."""

from __future__ import annotations

from typing import Any

import typer

from lnh.cli import terminal
from lnh.cli.command import verb
from lnh.cli.member import COLUMNS, row
from lnh.cli.options import AdminOptions


def enter(app: typer.Typer) -> None:
    verb(app, "status", AdminOptions)(status)


def status(options: AdminOptions) -> None:
    """Show the cluster, its members, and the services of the member that answers."""
    with options.viewing(needs_sight=True) as session:
        view = session.status()
    record = terminal.fields(view)
    if options.json:
        terminal.show_json(record)
        return
    cluster = record["cluster"]
    members = cluster.pop("members")
    options.record(cluster)
    typer.echo()
    options.rows(map(row, members), *COLUMNS)
    typer.echo()
    services = [{**service, "detail": _brief(service["detail"])} for service in record["services"]]
    options.rows(services, "name", "state", "detail")


def _brief(detail: dict[str, Any]) -> dict[str, Any]:
    """What fits on a line: numbers and words, no ids and nothing nested."""
    return {
        name: value
        for name, value in detail.items()
        if value != "" and not isinstance(value, dict | list) and not (isinstance(value, str) and len(value) > 24)
    }
