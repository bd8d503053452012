"""`lnh client`: registered client machines; and `LNHClientRegistration`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from lnh_cli.support import files, standard, terminal, words
from lnh_cli.support.command import Output, Yes, noun, verb, with_options
from lnh_cli.support.fields import field
from lnh_cli.support.options import AdminOptions, UserOption

app = noun("client", "Registered client machines.")

Name = Annotated[str, typer.Argument(help="The client.", callback=field("admin.ClientRef", "client"))]
KeyringArgument = Annotated[str, typer.Argument(help="The keyring.", callback=field("admin.ListKeyrings", "label"))]


def _own_name(text: str) -> str:
    """Check the name of a client; without one it is the host's."""
    return field("session.Register", "name")(text) if text else ""


@dataclasses.dataclass(kw_only=True)
class RegistrationOptions(Output):
    """Which cluster to register with, and who lets this machine in."""

    member: Annotated[str | None, typer.Option(help="host:port of the first point of contact.")] = None
    cluster_id: Annotated[str, typer.Option(help="Refuse any other cluster (32 hexadecimal digits).")] = ""
    fingerprint: Annotated[str | None, typer.Option(help="Of the cluster's identity, instead of asking.")] = None
    index: Annotated[int | None, typer.Option(min=0, max=9, help="00 to 09; the lowest that is free.")] = None
    name: Annotated[str, typer.Option(help="Of this client; else the host's name.", callback=_own_name)] = ""
    monitor: Annotated[
        str,
        typer.Option(
            help="The appliance user whose sight this machine has.", callback=field("session.Register", "monitor")
        ),
    ] = ""
    user: UserOption = "admin"
    password_file: Annotated[
        Path | None, typer.Option(help="File with the user's password.", callback=files.readable)
    ] = None
    list_: Annotated[bool, typer.Option("--list", help="List the registrations of this machine.")] = False
    remove: Annotated[str | None, typer.Option(metavar="NN", help="Remove a registration of this machine.")] = None
    yes: Yes = False
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds to wait.")] = 10.0


def register(options: RegistrationOptions) -> None:
    """Register this machine with a cluster, or change the member of a registration."""
    from lnh.configuration import Configuration

    configuration = Configuration()
    if options.list_:
        rows = [
            {
                "index": one.number,
                "label": one.label,
                "member": one.member,
                "failover": one.failover,
                "alternates": [endpoint.address for endpoint in one.alternates],
                "name": one.name,
                "cluster": one.cluster.hex(),
                "monitor": one.user,
            }
            for one in configuration.registrations()
        ]
        options.rows(rows, "index", "label", "member", "alternates", "failover", "name", "cluster")
    elif options.remove is not None:
        registration = configuration.registration(options.remove)
        terminal.confirm(f"Remove the registration with {registration.label!r} and its keys?", yes=options.yes)
        with configuration.locked():
            configuration.remove(registration)
        options.say(f"removed {registration.number} {registration.label}", index=registration.number)
    elif options.member is None:
        terminal.refuse("no member named", "--member host:port, --list or --remove NN", terminal.USAGE)
    else:
        _register(options, options.member)


def _register(options: RegistrationOptions, member: str) -> None:
    from lnh.configuration import Configuration
    from lnh.registration import register

    try:
        cluster = bytes.fromhex(options.cluster_id)
    except ValueError:
        terminal.refuse(f"{options.cluster_id!r} is no cluster id", "32 hexadecimal digits", terminal.USAGE)
    done = register(
        Configuration(),
        member,
        options.name,
        options.user,
        lambda: terminal.read_secret("ADMIN", options.password_file, what=f"password of user {options.user}"),
        wanted=options.fingerprint,
        confirm=terminal.confirm_fingerprint,
        cluster=cluster,
        index=options.index,
        monitor=options.monitor,
        timeout=options.timeout,
    )
    options.say(
        f"registered as {done.name} with {done.label}, index {done.number}, through {done.member}",
        index=done.number,
        label=done.label,
        member=done.member,
        name=done.name,
        cluster=done.cluster,
    )


verb(app, "register", RegistrationOptions)(register)


@verb(app, "list", AdminOptions)
def list_(options: AdminOptions) -> None:
    """List the registered clients of the cluster."""
    with options.administration() as session:
        clients = session.clients()
    rows = [_row(view) for view in map(terminal.fields, clients)]
    options.rows(rows, "name", "id", "registered_at", "revoked", "monitor")


@verb(app, "show", AdminOptions)
def show(options: AdminOptions, name: Name) -> None:
    """Show one client."""
    with options.administration() as session:
        view = session.client(name)
    options.record(_row(terminal.fields(view)))


@verb(app, "revoke", AdminOptions)
def revoke(options: AdminOptions, name: Name, yes: Yes = False) -> None:
    """End a client's registration, now and for good."""
    terminal.confirm(f"Revoke client {name!r}? It cannot be undone.", yes=yes)
    with options.administration() as session:
        session.revoke_client(name)
    options.say(f"revoked {name}", name=name)


@verb(app, "assign", AdminOptions)
def assign(options: AdminOptions, name: Name, keyring: KeyringArgument) -> None:
    """Let only assigned clients see a keyring, this one among them."""
    with options.administration() as session:
        session.assign(name, keyring)
    options.say(f"assigned {keyring} to {name}", client=name, keyring=keyring)


@verb(app, "unassign", AdminOptions)
def unassign(options: AdminOptions, name: Name, keyring: KeyringArgument) -> None:
    """Take an assignment back."""
    with options.administration() as session:
        session.unassign(name, keyring)
    options.say(f"unassigned {keyring} from {name}", client=name, keyring=keyring)


def _row(view: dict[str, object]) -> dict[str, object]:
    registered_at = view["registered_at"]
    assert isinstance(registered_at, int), "a time in seconds"
    return {**view, "registered_at": terminal.moment(registered_at)}


def registration() -> None:
    """The console script `LNHClientRegistration`: `lnh client register` by itself."""
    standard.secure()
    script = typer.Typer(
        name="LNHClientRegistration",
        rich_markup_mode=None,
        pretty_exceptions_show_locals=False,
        context_settings=words.SETTINGS,
    )
    script.command(cls=words.Script, help=register.__doc__)(with_options(register, RegistrationOptions))
    with standard.refusing():
        script()
