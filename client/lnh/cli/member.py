"""`lnh member`: the members of a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from lnh.cli import terminal
from lnh.cli.command import noun, verb
from lnh.cli.options import AdminOptions

app = noun("member", "The members of a cluster.")


@verb(app, "list", AdminOptions)
def list_(options: AdminOptions) -> None:
    """List the members."""
    with options.viewing() as session:
        members = session.show().members
    options.rows(map(terminal.fields, members), "name", "address", "primary", "state", "group", "product")


@verb(app, "show", AdminOptions)
def show(options: AdminOptions, name: Annotated[str, typer.Argument(help="The member.")]) -> None:
    """Show one member."""
    from lnh_common.errors import NameUnknown

    with options.viewing() as session:
        members = session.show().members
    for view in members:
        if view.name == name:
            options.record(terminal.fields(view))
            return
    raise NameUnknown(f"no member {name!r}; there are: {', '.join(view.name for view in members)}")
