"""`lnh keyring`: keyrings of a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from lnh.cli import terminal
from lnh.cli.cluster import parse_changes
from lnh.cli.command import Yes, noun, verb
from lnh.cli.options import AdminOptions, KeyringOptions, PoOptions

app = noun("keyring", "Keyrings of a cluster.")

Label = Annotated[str, typer.Argument(help="The keyring.")]


@verb(app, "create", PoOptions)
def create(
    options: PoOptions,
    label: Label,
    total: Annotated[int, typer.Option(help="How many, 1 to 100: label and running number.")] = 1,
    index: Annotated[int, typer.Option(min=0, help="The first running number.")] = 1,
) -> None:
    """Create keyrings, as an admin and the PO."""
    from lnh.admin import check_total

    check_total(label, total, index)
    with options.administration() as session:
        created = session.create_keyrings(label, total, index)
    options.rows(map(terminal.fields, created), "label", "id")


@verb(app, "list", AdminOptions)
def list_(options: AdminOptions) -> None:
    """List the keyrings this client may see."""
    with options.viewing() as session:
        views = list(session.keyrings())
    options.rows(map(terminal.fields, views), "label", "id")


@verb(app, "show", AdminOptions)
def show(options: AdminOptions, label: Label) -> None:
    """Show a keyring: roles, objects, policy and assigned clients."""
    with options.administration() as session:
        view = session.show_keyring(label)
    options.record(terminal.fields(view))


@verb(app, "delete", PoOptions)
def delete(options: PoOptions, label: Label, yes: Yes = False) -> None:
    """Delete a keyring and every object in it, as an admin and the PO."""
    terminal.confirm(f"Delete keyring {label!r} and every object in it?", yes=yes)
    with options.administration() as session:
        session.delete_keyring(label)
    options.say(f"deleted keyring {label}", label=label)


@verb(app, "policy", KeyringOptions)
def policy(
    options: KeyringOptions,
    changes: Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="Settings to change.")] = None,
) -> None:
    """Show a keyring's policy, or change it as its KRSO."""
    if changes:
        options.role = "krso"
    with options.session() as session:
        options.record(session.policy(**parse_changes(changes or [])))
