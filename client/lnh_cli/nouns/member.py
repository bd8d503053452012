"""`lnh member`: the members of a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.fields import field
from lnh_cli.support.options import AdminOptions, PoOptions, TwoOptions

app = noun("member", "The members of a cluster.")

COLUMNS = ("name", "address", "role", "state", "group", "product", "last_heard")

Name = Annotated[str, typer.Argument(help="The member.", callback=field("store.MemberInfo", "name"))]


def row(view: Any) -> dict[str, Any]:
    """A member as it is listed."""
    found = view if isinstance(view, dict) else terminal.fields(view)
    heard = found["last_heard"]
    return {**found, "last_heard": terminal.moment(heard) if heard else "never"}


@verb(app, "invite", PoOptions)
def invite(
    options: PoOptions,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A new file for it; else it is printed.", callback=files.writable),
    ] = None,
) -> None:
    """Let one new member in: an invitation for `lnh cluster join`, good for 15 minutes and once."""
    descriptor = _new_file(output) if output is not None else None
    try:
        with options.administration() as session:
            made = session.invite()
    except BaseException:
        if output is not None and descriptor is not None:
            os.close(descriptor)
            output.unlink()
        raise
    shown = {"expires": terminal.moment(made.expires), "identity": made.identity}
    if descriptor is not None:
        with os.fdopen(descriptor, "w") as file:
            file.write(made.text)
        options.say(f"invitation in {output}, until {shown['expires']}", file=str(output), **shown)
    elif options.json:
        options.record({"invitation": made.text, **shown})
    else:
        for line in made.text.rstrip("\n").split("\n"):
            terminal.echo(line)
        terminal.note(f"Good once, until {shown['expires']}. Inviting HSM: {made.identity}")


def _new_file(path: Path) -> int:
    """A file of mode 0600 that was not there; the invitation is made only once there is a place for it."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


@verb(app, "list", AdminOptions)
def list_(options: AdminOptions) -> None:
    """List the members, as the one that answers sees them."""
    with options.viewing(needs_sight=True) as session:
        members = session.members()
    options.rows([terminal.fields(view) if options.json else row(view) for view in members], *COLUMNS)


@verb(app, "show", AdminOptions)
def show(options: AdminOptions, name: Name) -> None:
    """Show one member."""
    with options.viewing(needs_sight=True) as session:
        view = session.member(name)
    options.record(terminal.fields(view) if options.json else row(view))


@verb(app, "set", AdminOptions)
def set_(
    options: AdminOptions,
    name: Name,
    new_name: Annotated[
        str | None,
        typer.Option(
            "--name", help="Another name, unique in the cluster.", callback=field("admin.ChangeMember", "name")
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="host:port that others reach it at; port is its base port.")
    ] = None,
) -> None:
    """Give a member another name or address."""
    if new_name is None and address is None:
        terminal.refuse("nothing to change", "--name NEW or --address HOST:PORT", terminal.USAGE)
    host, port = _parts(address) if address is not None else (None, None)
    with options.administration() as session:
        session.set_member(name, new_name=new_name, host=host, port=port)
    options.say(f"changed {name}", name=new_name or name, before=name)


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        terminal.refuse(f"{address!r} is no address", "HOST:PORT", terminal.USAGE)
    return host.removeprefix("[").removesuffix("]"), int(port)


@verb(app, "move", AdminOptions)
def move(
    options: AdminOptions,
    name: Name,
    group: Annotated[
        str, typer.Argument(help="The affinity group it goes to.", callback=field("admin.MoveMember", "group"))
    ],
) -> None:
    """Move a member to another affinity group; clients that talk to it are served by that group from then on."""
    with options.administration() as session:
        session.move_member(name, group)
    options.say(f"{name} is in group {group} now", name=name, group=group)


@verb(app, "promote", AdminOptions)
def promote(options: AdminOptions, name: Name) -> None:
    """Make a member the primary; nothing is lost, and writes pause for a moment."""
    with options.administration() as session:
        remark = session.promote(name)
    options.say(remark or f"{name} is the primary now", name=name, remark=remark)


@verb(app, "remove", TwoOptions)
def remove(options: TwoOptions, name: Name, yes: Yes = False) -> None:
    """Remove a member that works; its HSM wipes what it holds of the cluster."""
    terminal.confirm(f"Remove member {name!r} from the cluster? Its HSM wipes the SMK.", yes=yes)
    with options.administration() as session:
        remark = session.remove_member(name)
    options.say(". ".join(filter(None, (f"removed {name}", remark))), name=name, remark=remark)


@verb(app, "delete", TwoOptions)
def delete(
    options: TwoOptions,
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="Although others that should agree are missing: their writes may be lost.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Remove a member that is lost for good; if it was the primary, another takes over."""
    with options.administration() as session:
        lost = session.member(name)
        terminal.confirm(_what_is_lost(row(lost), force=force), yes=yes)
        remark = session.delete_member(name, force=force)
    options.say(". ".join(filter(None, (f"deleted {name}", remark))), name=name, remark=remark)


def _what_is_lost(lost: dict[str, Any], *, force: bool) -> str:
    """The question before a member is given up."""
    words = f"Give up member {lost['name']!r}, last heard {lost['last_heard']}?"
    if lost["role"] == "primary":
        words += " It is the primary: what it may have acknowledged alone since then is not in the cluster any more."
    if force:
        words += " With --force, what other members that are missing now acknowledged may be lost too."
        words += " Every session ends."
    return words


@verb(app, "divergent", AdminOptions)
def divergent(
    options: AdminOptions,
    name: Name,
    seen: Annotated[bool, typer.Option("--seen", help="I have looked: the member is DIVERGED no longer.")] = False,
) -> None:
    """Show what a member had to drop when it came back to a cluster that had gone on without it."""
    with options.administration() as session:
        found = session.divergent(name, seen=seen)
    if options.json:
        options.record(terminal.fields(found))
        return
    files = [
        {**terminal.fields(file), "saved_at": terminal.moment(file.saved_at // 1000), "writes": len(file.writes)}
        for file in found.files
    ]
    options.rows(files, "name", "saved_at", "epoch", "first", "last", "entries", "writes", "problem")
    for database in found.aside:
        terminal.note(f"kept aside when a snapshot took its place: {database}")
    if found.diverged and not seen:
        terminal.note("Some of it had been applied there. Once you have looked: repeat with --seen")
