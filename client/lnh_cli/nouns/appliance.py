"""`lnh appliance`: the appliance itself, at its local console."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.fields import field
from lnh_cli.support.options import ConsoleOptions

app = noun("appliance", "The appliance itself, at its local console.")

Admin = Annotated[
    str, typer.Option("--admin", help="Name of the admin.", callback=field("console.InitAppliance", "admin"))
]


@verb(app, "init", ConsoleOptions)
def init(options: ConsoleOptions, admin: Admin = "admin") -> None:
    """Make the appliance's first admin."""
    with options.console("appliance.init") as console:
        password = terminal.read_secret(
            "ADMIN", options.password_file, what=f"password of the new admin {admin}", new=True
        )
        console.init_appliance(admin, password)
    options.say(f"initialised; {admin} is its admin", admin=admin)


@verb(app, "show", ConsoleOptions)
def show(options: ConsoleOptions) -> None:
    """Show the appliance's name, users and packages."""
    with options.console() as console:
        view = console.appliance()
    options.record(terminal.fields(view))


@verb(app, "reset-admin", ConsoleOptions)
def reset_admin(
    options: ConsoleOptions,
    admin: Admin = "admin",
    new_password_file: Annotated[
        Path | None, typer.Option(help="File with the new password.", callback=files.readable)
    ] = None,
) -> None:
    """Give an admin a new password, as the SO."""
    with options.console("appliance.reset-admin") as console:
        so_password = options.so_password()
        password = terminal.read_secret("NEW", new_password_file, what=f"new password of {admin}", new=True)
        console.reset_admin(admin, password, so_password)
    options.say(f"{admin} has a new password", admin=admin)


@verb(app, "reimage", ConsoleOptions)
def reimage(options: ConsoleOptions, yes: Yes = False) -> None:
    """Destroy every role, partition and key of this appliance."""
    terminal.confirm(f"Destroy every role, partition and key in {options.member_dir}?", yes=yes)
    with options.console() as console:
        console.reimage()
    options.say("re-imaged")
