"""`lnh hsm`: a member's HSM, at its local console."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support import shares as shares_
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.fields import field
from lnh_cli.support.options import ConsoleOptions
from lnh_common.limits import TPM_PCRS

if TYPE_CHECKING:
    from lnh_common.messages.console import HsmView

app = noun("hsm", "A member's HSM, at its local console.")

ActivationFile = Annotated[Path | None, typer.Option(help="File with the activation secret.", callback=files.readable)]

BySecret = Annotated[bool, typer.Option("--by-secret", help="Ask for the secret although a TPM activates the HSM.")]


def _activation(file: Path | None, *, new: bool = False) -> bytes:
    return terminal.read_secret("ACTIVATION", file, what="activation secret", new=new).encode()


def _opening(
    hsm: HsmView, file: Path | None, share_files: list[Path] | None, *, by_secret: bool
) -> tuple[bytes, list[str]]:
    """Read what activates the HSM: the secret, or shares where it needs these; nothing where a TPM does."""
    if hsm.shares_needed:
        return b"", shares_.read(share_files, hsm.shares_needed)
    if hsm.tpm and file is None and not by_secret:
        return b"", []
    return _activation(file), []


def _pcrs(text: str | None) -> list[int]:
    """Parse the numbers of registers, as 0,7; anything else is a usage error."""
    words = text.split(",") if text is not None else []
    if not all(word.isascii() and word.isdecimal() and len(word) <= 2 and int(word) < TPM_PCRS for word in words):
        terminal.refuse(f"{text!r} names no PCRs", f"numbers of 0 to {TPM_PCRS - 1}, as --pcrs 0,7", terminal.USAGE)
    return [int(word) for word in words]


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
    options: ConsoleOptions,
    activation_file: ActivationFile = None,
    share_file: shares_.ShareFiles = None,
    by_secret: BySecret = False,
) -> None:
    """Open the HSM's sealed state with the activation secret, with shares of it, or by the TPM that it is sealed to."""
    with options.console("hsm.activate") as console:
        console.activate(*_opening(console.hsm(), activation_file, share_file, by_secret=by_secret))
    options.say("activated")


@verb(app, "deactivate", ConsoleOptions)
def deactivate(
    options: ConsoleOptions,
    activation_file: ActivationFile = None,
    share_file: shares_.ShareFiles = None,
    by_secret: BySecret = False,
    yes: Yes = False,
) -> None:
    """Wipe what is open: this member serves nobody until it is activated again."""
    with options.console("hsm.deactivate") as console:
        terminal.confirm("Stop serving until the HSM is activated again?", yes=yes)
        console.deactivate(*_opening(console.hsm(), activation_file, share_file, by_secret=by_secret))
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
    qr: shares_.WithQr = False,
    tpm: Annotated[
        bool, typer.Option("--tpm", help="Have the TPM of this machine activate it too, and at the member's start.")
    ] = False,
    pcrs: Annotated[
        str | None, typer.Option(metavar="N,N", help="PCRs of the TPM that must then be as they are now.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Seal the HSM's state under another secret, also for a TPM, or one that M of N shares open, as its SO."""
    shares_.check_together(shares, shares_to, qr=qr, json=options.json)
    if tpm and shares is not None:
        terminal.refuse("--tpm with --shares", "one or the other: a TPM holds what a secret gives", terminal.USAGE)
    registers = _pcrs(pcrs)
    if registers and not tpm:
        terminal.refuse("--pcrs without --tpm", "--tpm too", terminal.USAGE)
    if shares is None:
        with options.console("hsm.set-activation") as console:
            so_password = options.so_password()
            secret = terminal.read_secret("NEW", new_activation_file, what="new activation secret", new=True)
            console.set_activation(so_password, secret.encode(), tpm=tpm, pcrs=registers)
        means = ", and to the TPM of this machine" if tpm else ""
        options.say(f"sealed under the new activation secret{means}", tpm=tpm)
        if tpm:
            terminal.note("Keep the secret: without this machine's TPM only it opens the HSM.")
        return
    threshold, count = shares_.numbers(shares)
    if options.json and shares_to is None:
        terminal.refuse("--json with --shares prints no shares", "--shares-to DIRECTORY", terminal.USAGE)
    places = shares_.places(shares_to, "activation", count, qr=qr)
    with options.console("hsm.set-activation") as console:
        so_password = options.so_password()
        drawn = console.draw_shares(threshold, count, so_password)
        shares_.write(places, drawn, qr=qr)
        if not places:
            shares_.show(drawn, qr=qr)
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
