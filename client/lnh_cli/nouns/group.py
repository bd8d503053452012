"""`lnh group`: affinity groups, over whose members a client's operations are balanced."""

from __future__ import annotations

from typing import Annotated

import typer

from lnh_cli.support import terminal
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.fields import field
from lnh_cli.support.options import AdminOptions

app = noun("group", "Affinity groups: a client's operations go to the group of the member it talks to.")

Label = Annotated[str, typer.Argument(help="The group's label.", callback=field("admin.GroupRef", "label"))]


@verb(app, "create", AdminOptions)
def create(
    options: AdminOptions,
    label: Annotated[str, typer.Argument(help="The group's label.", callback=field("admin.NewGroup", "label"))],
) -> None:
    """Create a group, without members; `lnh member move` brings them."""
    with options.administration() as session:
        session.create_group(label)
    options.say(f"created group {label}", label=label)


@verb(app, "list", AdminOptions)
def list_(options: AdminOptions) -> None:
    """List the groups and their members."""
    with options.viewing(needs_sight=True) as session:
        groups = [terminal.fields(view) for view in session.groups()]
    if not options.json:
        groups = [{**each, "members": ", ".join(each["members"])} for each in groups]
    options.rows(groups, "label", "members")


@verb(app, "delete", AdminOptions)
def delete(options: AdminOptions, label: Label, yes: Yes = False) -> None:
    """Delete a group that has no members."""
    terminal.confirm(f"Delete group {label!r}?", yes=yes)
    with options.administration() as session:
        session.delete_group(label)
    options.say(f"deleted group {label}", label=label)
