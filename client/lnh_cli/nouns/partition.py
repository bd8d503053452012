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
_COLUMNS = ("label", "version", "serial", "objects", "limit", "accessible")


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


@verb(app, "delete", ConsoleOptions)
def delete(options: ConsoleOptions, label: Label, yes: Yes = False) -> None:
    """Delete a partition and its objects, as the SO."""
    with options.console("partition.delete", label) as console:
        terminal.confirm(f"Delete partition {label!r} and every object in it?", yes=yes)
        console.delete_partition(label, options.so_password())
    options.say(f"deleted partition {label}", label=label)
