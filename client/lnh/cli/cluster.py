"""`lnh cluster`: the cluster as a whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from lnh.cli import terminal
from lnh.cli.command import noun, verb
from lnh.cli.options import AdminOptions, ConsoleOptions, PoOptions

app = noun("cluster", "The cluster as a whole.")


@verb(app, "create", ConsoleOptions)
def create(
    options: ConsoleOptions,
    label: Annotated[str, typer.Argument(help="Of the cluster and its V1 partition.")],
    po_password_file: Annotated[Path | None, typer.Option(help="File with the new PO's password.")] = None,
) -> None:
    """Create a cluster of this one member, as the SO, at its local console."""
    with options.console() as console:
        so_password = options.so_password()
        po_password = terminal.read_secret("PO", po_password_file, what="new PO password", new=True)
        done = console.create_cluster(label, so_password, po_password)
    options.record({"label": label, "cluster": done.cluster, "fingerprint": done.fingerprint})


@dataclasses.dataclass(kw_only=True)
class ShowOptions(AdminOptions):
    """Through the network, or at a member's console."""

    member_dir: Annotated[
        Path | None, typer.Option(help="The member directory, to ask at the local console.", rich_help_panel="Where")
    ] = None


@verb(app, "show", ShowOptions)
def show(options: ShowOptions) -> None:
    """Show the cluster: its id, fingerprint and members."""
    if options.member_dir is not None:
        from lnh.console import Console

        with Console(options.member_dir) as console:
            options.record(terminal.fields(console.cluster()))
        return
    with options.viewing() as session:
        view = session.show()
    record = terminal.fields(view)
    if options.json:
        terminal.show_json(record)
        return
    members = record.pop("members")
    options.record(record)
    typer.echo()
    options.rows(members, "name", "address", "primary", "state", "group", "product")


@verb(app, "policy", PoOptions)
def policy(
    options: PoOptions,
    changes: Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="Settings to change.")] = None,
) -> None:
    """Show the cluster's policy, or change it as an admin and the PO."""
    parsed = parse_changes(changes or [])
    with options.administration() as session:
        options.record(session.policy(**parsed))


def parse_changes(changes: list[str]) -> dict[str, Any]:
    """NAME=VALUE settings; a value is JSON (numbers, true, lists, null), or else text."""
    import json

    parsed: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not name:
            terminal.refuse(f"{change!r} is not NAME=VALUE", "lnh cluster policy minimum_rsa_bits=3072", terminal.USAGE)
        try:
            parsed[name] = json.loads(text)
        except json.JSONDecodeError:
            parsed[name] = text
    return parsed
