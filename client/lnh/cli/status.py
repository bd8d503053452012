"""`lnh status`: the cluster and the member that answers, at a glance."""

from __future__ import annotations

import typer

from lnh.cli import terminal
from lnh.cli.command import verb
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
    options.rows(members, "name", "address", "primary", "state", "group", "product")
    typer.echo()
    options.rows(record["services"], "name", "state", "detail")
