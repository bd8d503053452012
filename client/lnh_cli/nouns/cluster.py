"""`lnh cluster`: the cluster as a whole."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lnh_cli.nouns.member import COLUMNS, row
from lnh_cli.support import files, settings, terminal
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.fields import field
from lnh_cli.support.options import AdminOptions, ConsoleOptions, PoOptions

if TYPE_CHECKING:
    from lnh.admin import VersionView
    from lnh.console import Console
    from lnh_common.messages.console import JoinProgress

_LOOK_EVERY: Final = 0.2  # seconds
_WIPED_WITHIN: Final = 20.0

app = noun("cluster", "The cluster as a whole.")


@verb(app, "create", ConsoleOptions)
def create(
    options: ConsoleOptions,
    label: Annotated[
        str,
        typer.Argument(help="Of the cluster and its V1 partition.", callback=field("console.CreateCluster", "label")),
    ],
    po_password_file: Annotated[
        Path | None, typer.Option(help="File with the new PO's password.", callback=files.readable)
    ] = None,
) -> None:
    """Create a cluster of this one member, as the SO, at its local console."""
    with options.console("cluster.create") as console:
        so_password = options.so_password()
        po_password = terminal.read_secret("PO", po_password_file, what="new PO password", new=True)
        done = console.create_cluster(label, so_password, po_password)
    options.record({"label": label, "cluster": done.cluster, "fingerprint": done.fingerprint})


@verb(app, "join", ConsoleOptions)
def join(
    options: ConsoleOptions,
    invitation: Annotated[
        Path,
        typer.Option(help="What `lnh member invite` wrote there; - reads standard input.", callback=files.readable),
    ],
    timeout: Annotated[float, typer.Option(min=0, max=3600, help="Seconds to wait until it takes part.")] = 60.0,
) -> None:
    """Join the cluster that an invitation is from, as the SO, at this member's local console.

    Its own users, roles and V1 partition become the cluster's. Interrupted, it goes on when it is run again.
    """
    text = files.read_text(invitation)
    with options.console("cluster.join", text) as console:
        joined = console.join_cluster(text, options.so_password())
        if joined.warning:
            terminal.note(f"warning: {joined.warning}")
        progress = wait_until_in_step(console, timeout)
    record = {**terminal.fields(joined), "state": progress.state}
    if progress.state != "read-write":
        if options.json:
            options.record(record)
        waits = f"; it waits for {', '.join(progress.waiting_for)} to take note of it" if progress.waiting_for else ""
        terminal.refuse(
            f"joined {joined.label}, but {progress.problem or progress.state} after {timeout:g} s{waits}",
            "it goes on by itself: lnh member list; a member that is lost for good: lnh member delete NAME",
        )
    options.record(record)


def wait_until_in_step(console: Console, timeout: float) -> JoinProgress:
    """What the member says once it takes part, or when the time is over; on the way there it is told on stderr."""
    end, told = time.monotonic() + timeout, ""
    while True:
        progress = console.progress()
        if progress.state in ("read-write", "expelled", "failed") or time.monotonic() >= end:
            return progress
        waits = f", waiting for {', '.join(progress.waiting_for)}" if progress.waiting_for else ""
        if (now := f"{progress.state}: entry {progress.index}{waits}") != told:
            terminal.note(now)
            told = now
        time.sleep(_LOOK_EVERY)


@dataclasses.dataclass(kw_only=True)
class LeaveOptions(PoOptions):
    """As an admin and the PO, for the member of this directory."""

    member_dir: Annotated[
        Path, typer.Option(envvar="LNH_MEMBER_DIR", help="The member directory.", rich_help_panel="Where")
    ]


@verb(app, "leave", LeaveOptions)
def leave(
    options: LeaveOptions,
    so_password_file: Annotated[
        Path | None,
        typer.Option(help="File with the SO's password, for a member that was expelled.", callback=files.readable),
    ] = None,
    yes: Yes = False,
) -> None:
    """Leave the cluster: this member's HSM wipes the SMK and all it holds of the cluster, and its store is erased.

    On a member that was expelled it erases what is left, as the SO.
    """
    from lnh.console import Console

    with Console(options.member_dir) as console:
        found = console.cluster()
        if found.expelled:
            terminal.confirm(f"Erase what is left here of the cluster? {found.expelled}", yes=yes)
            console.discard_cluster(terminal.read_secret("SO", so_password_file))
            options.say("erased what was left of the cluster")
            return
        remark = _order_end(options, console, f"Leave {found.label!r} and wipe its SMK here?", yes=yes, last=False)
    options.say(". ".join(filter(None, (f"left {found.label}", remark))), label=found.label, remark=remark)


@verb(app, "delete", LeaveOptions)
def delete(options: LeaveOptions, yes: Yes = False) -> None:
    """Destroy the cluster with its last member: every keyring and key in it."""
    from lnh.console import Console

    with Console(options.member_dir) as console:
        found = console.cluster()
        question = f"Destroy the cluster {found.label!r} with every keyring and key in it?"
        _order_end(options, console, question, yes=yes, last=True)
    options.say(f"destroyed {found.label}", label=found.label)


# What to do where there is no cluster to end, by how far one has come.
_NOTHING: Final = "nothing, or have the member join one: lnh cluster join --invitation FILE"
_UNFINISHED: Final = {
    "creating": "finish it first: lnh cluster create",
    "joining": "finish it first, by its invitation: lnh cluster join --invitation FILE",
    "leaving": "wait a moment: it is under way",
    "suspended": "erase what is left of it: lnh cluster leave",
}


def _order_end(options: LeaveOptions, console: Console, question: str, *, yes: bool, last: bool) -> str:
    """Have the cluster, or this member's part in it, ended, and wait until its HSM wiped it; what one should know."""
    from lnh_common.errors import NoCluster

    found = console.cluster()
    if not found.created:
        said = f"this member has no cluster to {'delete' if last else 'leave'}"
        said = f"{said} ({found.phase})" if found.phase else said
        raise NoCluster(said, {"advice": _UNFINISHED.get(found.phase, _NOTHING)})
    terminal.confirm(question, yes=yes)
    if options.cluster is None and options.member is None:
        options.member, options.fingerprint = found.door, found.fingerprint
    remark = ""
    with options.administration() as session:
        member = bytes.fromhex(found.member)
        if last:
            session.delete_cluster(member)
        else:
            remark = session.leave(member)
        session.abandon()
    end = time.monotonic() + _WIPED_WITHIN
    while (now := console.cluster()).created or now.phase:
        if time.monotonic() > end:
            terminal.refuse(f"done, but the HSM has not wiped it within {_WIPED_WITHIN:.0f} s", "look at its log")
        time.sleep(_LOOK_EVERY)
    return remark


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
    with options.viewing(needs_sight=True) as session:
        view = session.show()
    record = terminal.fields(view)
    if options.json:
        options.show_json(record)
        return
    members = record.pop("members")
    options.record(record)
    terminal.echo()
    options.rows(map(row, members), *COLUMNS)


@verb(app, "upgrade", PoOptions)
def upgrade(
    options: PoOptions,
    check: Annotated[bool, typer.Option(help="Show the cluster's version, and what a later one waits for.")] = False,
    yes: Yes = False,
) -> None:
    """Raise the cluster's version once every member has a later one; no member goes back to the version before then."""
    if check:
        with options.viewing(needs_sight=True) as session:
            view = session.version()
        options.record(_version(view))
        return
    with options.administration() as session:
        view = session.version(current=True)
        if view.product != view.newest and not view.waits_for:
            terminal.confirm(
                f"The cluster's version is {view.product}. Raise it to {view.newest}, so that no member goes back to "
                f"{view.product}?",
                yes=yes,
            )
        done = session.upgrade()
    options.say(f"the cluster's version is {done.product}", **_version(done))


def _version(view: VersionView) -> dict[str, Any]:
    return {"version": view.product, "newest": view.newest, "waits_for": list(view.waits_for)}


@verb(app, "password", PoOptions)
def password(
    options: PoOptions,
    new_password_file: Annotated[
        Path | None, typer.Option(help="File with the new password.", callback=files.readable)
    ] = None,
) -> None:
    """Change the PO's own password, which ends every session of the PO."""
    from lnh import admin
    from lnh_cli.support import saved

    with options.connection() as connection:
        old = options.po_password()
        new = terminal.read_secret("NEW", new_password_file, what="new PO password", new=True)
        admin.change_po_password(connection, old, new, timeout=options.timeout)
        saved.forget(connection, saved.user_name(options.user, po=True))
    options.say("the PO has a new password", role="po")


@verb(app, "policy", PoOptions)
def policy(
    options: PoOptions,
    changes: Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="Settings to change.")] = None,
) -> None:
    """Show the cluster's policy, or change it as an admin and the PO."""
    parsed = settings.parsed(changes or [])
    with options.administration() as session:
        options.record(session.policy(**parsed))
