"""`lnh backup`: the whole cluster in one encrypted file, on the member that is asked."""

from __future__ import annotations

import dataclasses
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.options import AdminOptions, PoOptions
from lnh_cli.support.progress import progress

if TYPE_CHECKING:
    from lnh.backups import Backups
    from lnh_common.messages.backup import ArchiveView, JobView, Schedule

app = noun("backup", "The whole cluster in one encrypted file, on the member that is asked.")

_TIMES = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
KEEP = 7
_COLUMNS = ("name", "made", "label", "index", "size", "member", "problem")


def _name(text: str) -> str:
    """A name that an archive may have; others no member needs to be asked about."""
    from lnh_common.messages.backup import may_be_named

    if not may_be_named(text):
        terminal.refuse(f"no archive is called {text!r}", "a name of: lnh backup list", terminal.USAGE)
    return text


Name = Annotated[str, typer.Argument(help="Of the archive: lnh backup list.", callback=_name)]


def wait(backups: Backups, job: JobView, what: str) -> JobView:
    """Wait for a job, with a bar; raises what it failed with."""
    with progress(what) as advance:
        return backups.wait(job, lambda now: advance(now.done, now.total))


def check_place(directory: Path) -> None:
    """Refuse a directory that nothing can be copied to, before anything is done."""
    if not directory.is_dir():
        terminal.refuse(f"{directory} is no directory", f"mkdir {directory}, or name one that is there", terminal.USAGE)
    if not os.access(directory, os.W_OK | os.X_OK):
        terminal.refuse(f"{directory} may not be written to", "name another directory", terminal.USAGE)


def fetch(backups: Backups, name: str, directory: Path) -> Path:
    """Download an archive, with a bar."""
    with progress(f"download {name}") as advance:
        return backups.download(name, directory, advance)


def row(view: ArchiveView) -> dict[str, Any]:
    """An archive as it is shown."""
    record = terminal.fields(view)
    record["made"] = terminal.moment(view.created_at) if view.created_at else ""
    return record


@verb(app, "now", AdminOptions)
def now(
    options: AdminOptions,
    to: Annotated[Path | None, typer.Option(help="Copy it to this directory here, too.", file_okay=False)] = None,
) -> None:
    """Make an archive of the cluster as it is; writes go on meanwhile."""
    if to is not None:
        check_place(to)
    with options.administration() as session:
        backups = session.backups
        job = wait(backups, backups.now(), "backup")
        copy = fetch(backups, job.archive, to) if to is not None else None
        record = row(backups.show(job.archive))
    if options.json:
        terminal.show_json(record | {"copy": str(copy or "")})
        return
    options.say(f"made {job.archive} ({record['size']} bytes, the state after entry {record['index']})")
    if copy is not None:
        options.say(f"copied to {copy}")


@verb(app, "list", AdminOptions)
def list_(options: AdminOptions) -> None:
    """List the archives of the member that answers."""
    with options.administration() as session:
        found = session.backups.list()
    options.rows(map(row, found.archives), *_COLUMNS)


@verb(app, "show", AdminOptions)
def show(options: AdminOptions, name: Name) -> None:
    """Show what an archive says of itself: whose it is, of when, and how much is in it."""
    with options.administration() as session:
        record = row(session.backups.show(name))
    if not options.json:
        record.pop("created_at")
    options.record(record)


@verb(app, "verify", AdminOptions)
def verify(options: AdminOptions, name: Name) -> None:
    """Read every byte of an archive and check it, restoring nothing."""
    with options.administration() as session:
        job = wait(session.backups, session.backups.verify(name), f"verify {name}")
    options.say(f"{name} is whole and genuine ({job.total} bytes of content)", name=name, size=job.total)


@verb(app, "download", AdminOptions)
def download(
    options: AdminOptions,
    name: Name,
    to: Annotated[Path, typer.Option(help="The directory here.", file_okay=False)] = Path(),
) -> None:
    """Copy an archive to this machine; interrupted, it goes on where it was when it is run again."""
    check_place(to)
    with options.administration() as session:
        path = fetch(session.backups, name, to)
    options.say(f"downloaded {path}", name=name, path=str(path))


@verb(app, "delete", AdminOptions)
def delete(options: AdminOptions, name: Name, yes: Yes = False) -> None:
    """Remove an archive from the member's disk."""
    terminal.confirm(f"Delete the archive {name}?", yes=yes)
    with options.administration() as session:
        session.backups.delete(name)
    options.say(f"deleted {name}", name=name)


@verb(app, "schedule", AdminOptions)
def schedule(
    options: AdminOptions,
    every: Annotated[int | None, typer.Option(min=1, max=8784, help="Hours between two.")] = None,
    begins: Annotated[
        datetime | None, typer.Option("--from", formats=_TIMES, help="Count those hours from this time (UTC).")
    ] = None,
    daily: Annotated[str | None, typer.Option(metavar="HH:MM", help="Every day at this time.")] = None,
    weekly: Annotated[str | None, typer.Option(metavar="'DAY HH:MM'", help="Every week, as 'Sunday 02:30'.")] = None,
    zone: Annotated[str | None, typer.Option(help="The time zone of --daily or --weekly; else UTC.")] = None,
    keep: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Of those it made, the newest so many stay; else 7.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="The member that makes them; else the primary does.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Make none by itself any more.")] = False,
) -> None:
    """Show when backups are made by themselves, or change it; the primary makes them if the chosen member is away."""
    ways = [way for way in (every, daily, weekly, off or None) if way is not None]
    if len(ways) > 1:
        terminal.refuse("more than one schedule", "one of --every, --daily, --weekly, --off", terminal.USAGE)
    _check_fit({"--keep": keep, "--on": on}, every or daily or weekly, "--every, --daily or --weekly")
    _check_fit({"--from": begins}, every, "--every")
    _check_fit({"--zone": zone}, daily or weekly, "--daily or --weekly")
    wanted = _wanted(every, begins, daily, weekly, zone or "UTC", keep or KEEP)
    with options.administration() as session:
        if wanted is not None and on is not None:
            from msgspec.structs import replace

            wanted = replace(wanted, member=session.member(on).id)
        view = session.backups.schedule(wanted, off=off)
        chosen = view.schedule.member if view.schedule is not None else b""
        member = next((each.name for each in session.members() if each.id == chosen), chosen.hex())
    if options.json:
        options.show_json(terminal.fields(view) | {"member": member})
        return
    record: dict[str, Any] = {"schedule": view.words}
    if view.schedule is not None:
        record["next"] = terminal.moment(view.next)
        record["member"] = member or "the primary"
        record["overdue"] = view.overdue
    if view.run is not None:
        run = view.run
        record["last"] = terminal.moment(run.ended or run.started)
        record["by"] = run.name
        record["result"] = run.problem or run.archive or "under way"
    options.record(record)


def _check_fit(said: dict[str, Any], fits: object, what: str) -> None:
    """Refuse options that say nothing without others: a schedule is given whole."""
    for name, value in said.items():
        if value is not None and not fits:
            terminal.refuse(f"{name} without {what}", f"the whole schedule in one command: {what}", terminal.USAGE)


def _wanted(
    every: int | None, begins: datetime | None, daily: str | None, weekly: str | None, zone: str, keep: int
) -> Schedule | None:
    from lnh_common.messages.backup import DAYS, Every, Schedule

    if every is not None:
        since = int(begins.replace(tzinfo=timezone.utc).timestamp()) if begins is not None else 0
        return Schedule(every=Every.HOURS, hours=every, keep=keep, since=since)
    if daily is not None:
        return Schedule(every=Every.DAY, minute=_minute(daily), zone=zone, keep=keep)
    if weekly is None:
        return None
    day, _, at = weekly.partition(" ")
    found = [number for number, name in enumerate(DAYS) if len(day) > 2 and name.lower().startswith(day.lower())]
    if not found:
        terminal.refuse(f"{day!r} is no day of the week", "as --weekly 'Sunday 02:30'", terminal.USAGE)
    return Schedule(every=Every.WEEK, weekday=found[0], minute=_minute(at), zone=zone, keep=keep)


def _minute(text: str) -> int:
    hours, _, minutes = text.partition(":")
    if not (hours.isdecimal() and minutes.isdecimal() and int(hours) < 24 and int(minutes) < 60):
        terminal.refuse(f"{text!r} is no time of day", "HH:MM, as 02:30", terminal.USAGE)
    return 60 * int(hours) + int(minutes)


@dataclasses.dataclass(kw_only=True)
class RestoreOptions(PoOptions):
    """As an admin and the PO; or as the SO at the local console, where the store is lost."""

    member_dir: Annotated[
        Path | None,
        typer.Option(help="A member directory that lost all but its HSM's state.", rich_help_panel="Where"),
    ] = None
    so_password_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the SO's password, with --member-dir.", rich_help_panel="As whom", callback=files.readable
        ),
    ] = None


@verb(app, "restore", RestoreOptions)
def restore(
    options: RestoreOptions,
    archive: Annotated[str, typer.Argument(help="A name of `lnh backup list`, or a file here.")],
    yes: Yes = False,
) -> None:
    """Put the cluster back to what an archive holds, on every member; sessions end, passwords are those of then."""
    if options.member_dir is not None:
        _restore_at_console(options, options.member_dir, archive)
        return
    if not Path(archive).is_file():
        _name(archive)
    with options.administration() as session:
        backups, name = session.backups, archive
        if Path(archive).is_file():
            with progress(f"upload {archive}") as advance:
                name = backups.upload(Path(archive), advance)
        view = backups.show(name)
        checked = wait(backups, backups.check(name), "check")
        _tell_changes(checked)
        made = terminal.moment(view.created_at)
        terminal.confirm(f"Put the cluster {view.label!r} back to what it was at {made}, on every member?", yes=yes)
        with progress("restore") as advance:
            backups.wait_restored(backups.restore(name), lambda now: advance(now.done, now.total))
    changed = [terminal.fields(change) for change in checked.changed]
    options.say(f"restored {name}; log in again", name=name, changed=changed, changes=checked.changes)


def _tell_changes(job: JobView) -> None:
    how = {"changed": "is another one in it", "added": "is not in it", "deleted": "comes back"}
    for change in job.changed:
        whose = f"of user {change.name}" if change.name else f"of the {change.role}"
        where = f" of keyring {change.keyring}" if change.keyring else ""
        terminal.note(f"the password {whose}{where} {how[change.how]}")
    if job.changes > len(job.changed):
        terminal.note(f"and {job.changes - len(job.changed)} more")


def _restore_at_console(options: RestoreOptions, member_dir: Path, archive: str) -> None:
    from lnh.backups import copy_in
    from lnh.console import Console
    from lnh_common.messages.console import CLUSTER_RESTORE

    with Console(member_dir) as console:
        console.check(CLUSTER_RESTORE)
    name = copy_in(Path(archive), member_dir / "backup") if Path(archive).is_file() else _name(archive)
    with Console(member_dir) as console, progress("restore") as advance:
        job = console.restore_cluster(name, terminal.read_secret("SO", options.so_password_file))
        console.wait_restored(job, lambda now: advance(now.done, now.total))
    options.say(f"restored {name}: this member has the cluster again, and others may join", name=name)
