"""`lnh hsm`: a member's HSM, at its local console."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support import shares as shares_
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.fields import field
from lnh_cli.support.options import ConsoleOptions

app = noun("hsm", "A member's HSM, at its local console.")

ActivationFile = Annotated[Path | None, typer.Option(help="File with the activation secret.", callback=files.readable)]


def _activation(file: Path | None, *, new: bool = False) -> bytes:
    return terminal.read_secret("ACTIVATION", file, what="activation secret", new=new).encode()


def _opening(needed: int, file: Path | None, share_files: list[Path] | None) -> tuple[bytes, list[str]]:
    """Read what activates the HSM: the secret, or shares where it needs these."""
    return (b"", shares_.read(share_files, needed)) if needed else (_activation(file), [])


@verb(app, "init", ConsoleOptions)
def init(
    options: ConsoleOptions,
    label: Annotated[str, typer.Option(help="Of this HSM.", callback=field("console.InitHsm", "label"))],
    activation_file: ActivationFile = None,
    domain_file: Annotated[
        Path | None, typer.Option(help="File with the cloning domain; none draws one.", callback=files.readable)
    ] = None,
) -> None:
    """Initialise the HSM: label, SO password, activation secret and cloning domain."""
    with options.console("hsm.init") as console:
        so_password = terminal.read_secret("SO", options.password_file, what="new SO password", new=True)
        activation = _activation(activation_file, new=True)
        domain = terminal.read_secret("DOMAIN", domain_file, what="cloning domain") if domain_file else ""
        done = console.init_hsm(label, so_password, activation, domain)
    options.record({"label": label, "identity": done.identity, "domain": done.domain})
    if done.domain:
        terminal.note("The cloning domain is shown this once: keep it, a member that joins needs it.")


@verb(app, "show", ConsoleOptions)
def show(options: ConsoleOptions) -> None:
    """Show the HSM's state."""
    with options.console() as console:
        view = console.hsm()
    options.record(terminal.fields(view))


@verb(app, "activate", ConsoleOptions)
def activate(
    options: ConsoleOptions, activation_file: ActivationFile = None, share_file: shares_.ShareFiles = None
) -> None:
    """Open the HSM's sealed state with the activation secret, or with shares of it."""
    with options.console("hsm.activate") as console:
        console.activate(*_opening(console.hsm().shares_needed, activation_file, share_file))
    options.say("activated")


@verb(app, "deactivate", ConsoleOptions)
def deactivate(
    options: ConsoleOptions,
    activation_file: ActivationFile = None,
    share_file: shares_.ShareFiles = None,
    yes: Yes = False,
) -> None:
    """Wipe what is open: this member serves nobody until it is activated again."""
    with options.console("hsm.deactivate") as console:
        terminal.confirm("Stop serving until the HSM is activated again?", yes=yes)
        console.deactivate(*_opening(console.hsm().shares_needed, activation_file, share_file))
    options.say("deactivated")


@verb(app, "password", ConsoleOptions)
def password(
    options: ConsoleOptions,
    new_password_file: Annotated[
        Path | None, typer.Option(help="File with the new password.", callback=files.readable)
    ] = None,
) -> None:
    """Change the SO's own password."""
    with options.console("hsm.password") as console:
        old = options.so_password()
        new = terminal.read_secret("NEW", new_password_file, what="new SO password", new=True)
        console.change_so_password(old, new)
    options.say("the SO has a new password", role="so")


@verb(app, "set-activation", ConsoleOptions)
def set_activation(
    options: ConsoleOptions,
    new_activation_file: Annotated[
        Path | None, typer.Option(help="File with the new activation secret.", callback=files.readable)
    ] = None,
    shares: shares_.MofN = None,
    shares_to: shares_.SharesTo = None,
    yes: Yes = False,
) -> None:
    """Seal the HSM's state under another activation secret, or one that M of N shares open, as its SO."""
    shares_.check_together(shares, shares_to)
    if shares is None:
        with options.console("hsm.set-activation") as console:
            so_password = options.so_password()
            secret = terminal.read_secret("NEW", new_activation_file, what="new activation secret", new=True)
            console.set_activation(so_password, secret.encode())
        options.say("sealed under the new activation secret")
        return
    threshold, count = shares_.numbers(shares)
    if options.json and shares_to is None:
        terminal.refuse("--json with --shares prints no shares", "--shares-to DIRECTORY", terminal.USAGE)
    places = shares_.places(shares_to, "activation", count)
    with options.console("hsm.set-activation") as console:
        so_password = options.so_password()
        drawn = console.draw_shares(threshold, count, so_password)
        shares_.write(places, drawn)
        if not places:
            shares_.show(drawn)
            terminal.confirm("Is each of them written down? Only they activate this HSM then.", yes=yes)
        console.set_activation(so_password, shares=drawn[:threshold])
    options.say(
        f"sealed: any {threshold} of the {count} shares activate it",
        needed=threshold,
        shares=[str(place) for place in places],
    )


@verb(app, "factory-reset", ConsoleOptions)
def factory_reset(options: ConsoleOptions, yes: Yes = False) -> None:
    """Destroy everything in the HSM, as its SO."""
    with options.console("hsm.factory-reset") as console:
        terminal.confirm(f"Destroy every key in the HSM of {options.member_dir}?", yes=yes)
        console.factory_reset(options.so_password())
    options.say("reset to factory state")
