"""`lnh partition`: application partitions of a member's HSM, at its local console."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.fields import field
from lnh_cli.support.options import ConsoleOptions

app = noun("partition", "Application partitions of a member's HSM, at its local console.")

Label = Annotated[str, typer.Argument(help="The partition.", callback=field("console.PartitionRef", "label"))]
_OFFICERS = ("po", "co")
_COLUMNS = ("label", "version", "serial", "objects", "limit", "accessible")


def _officer(text: str) -> str:
    """Refuse what is no officer of a partition, before anything is asked for."""
    if text not in _OFFICERS:
        terminal.refuse(f"no role {text!r} of a partition", "po or co", terminal.USAGE)
    return text


@verb(app, "create", ConsoleOptions)
def create(
    options: ConsoleOptions,
    label: Annotated[str, typer.Argument(help="The partition.", callback=field("console.CreatePartition", "label"))],
    version: Annotated[int, typer.Option(min=0, max=1, help="V0 or V1.")] = 0,
    po_password_file: Annotated[
        Path | None, typer.Option(help="File with the PO's password.", callback=files.readable)
    ] = None,
    co_password_file: Annotated[
        Path | None, typer.Option(help="File with the CO's password.", callback=files.readable)
    ] = None,
) -> None:
    """Create a partition with its PO and CO, as the SO."""
    with options.console("partition.create", label) as console:
        so_password = options.so_password()
        po_password = terminal.read_secret("PO", po_password_file, what="new PO password", new=True)
        co_password = terminal.read_secret("CO", co_password_file, what="new CO password", new=True)
        view = console.create_partition(label, version, so_password, po_password, co_password)
    options.record(terminal.fields(view))


@verb(app, "list", ConsoleOptions)
def list_(options: ConsoleOptions) -> None:
    """List the partitions."""
    with options.console() as console:
        views = console.partitions()
    options.rows(map(terminal.fields, views), *_COLUMNS)


@verb(app, "show", ConsoleOptions)
def show(options: ConsoleOptions, label: Label) -> None:
    """Show one partition."""
    with options.console() as console:
        view = console.partition(label)
    options.record(terminal.fields(view))


@verb(app, "password", ConsoleOptions)
def password(
    options: ConsoleOptions,
    label: Label,
    officer: Annotated[str, typer.Option("--role", help="po or co.", callback=_officer)] = "co",
    new_password_file: Annotated[
        Path | None, typer.Option(help="File with the new password.", callback=files.readable)
    ] = None,
) -> None:
    """Change the own password of a partition's PO or CO."""
    from lnh_common.messages.console import Officer

    with options.console("partition.password", label) as console:
        who = f"{officer.upper()} of partition {label}"
        old = terminal.read_secret(officer, options.password_file, what=f"password of the {who}")
        new = terminal.read_secret("NEW", new_password_file, what=f"new password of the {who}", new=True)
        console.change_officer_password(label, Officer(officer), old, new)
    options.say(f"the {who} has a new password", label=label, role=officer)


@verb(app, "delete", ConsoleOptions)
def delete(options: ConsoleOptions, label: Label, yes: Yes = False) -> None:
    """Delete a partition and its objects, as the SO."""
    with options.console("partition.delete", label) as console:
        terminal.confirm(f"Delete partition {label!r} and every object in it?", yes=yes)
        console.delete_partition(label, options.so_password())
    options.say(f"deleted partition {label}", label=label)
