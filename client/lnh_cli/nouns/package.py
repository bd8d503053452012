"""`lnh package`: what is installed on an appliance, at its local console."""

from __future__ import annotations

from typing import Annotated

import typer

from lnh_cli.support import terminal
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.fields import field
from lnh_cli.support.options import ConsoleOptions

app = noun("package", "Packages of an appliance, at its local console.")


@verb(app, "install", ConsoleOptions)
def install(
    options: ConsoleOptions,
    name: Annotated[
        str, typer.Argument(help="The package, such as cluster.", callback=field("console.InstallPackage", "name"))
    ],
    yes: Yes = False,
) -> None:
    """Install a package, as the SO.

    The package `cluster` disables access to existing partitions; only re-imaging the appliance reverses it.
    """
    with options.console("package.install", name) as console:
        if name == "cluster":
            terminal.confirm("Disable access to existing partitions until the appliance is re-imaged?", yes=yes)
        console.install_package(name, options.so_password())
    options.say(f"installed {name}", package=name)


@verb(app, "list", ConsoleOptions)
def list_(options: ConsoleOptions) -> None:
    """List the installed packages."""
    with options.console() as console:
        view = console.appliance()
    options.rows(({"package": package} for package in view.packages), "package")
