"""`lnh smk`: the SMK, under which all of a cluster is sealed, its generations, and its backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support import shares as shares_
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.options import AdminOptions, ConsoleOptions, PoOptions

app = noun("smk", "The SMK, under which all of a cluster is sealed, its generations, and its backup.")

_NAMED_AT_MOST = 8  # archives, in a question

BackupFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="What `lnh smk backup` wrote; - is stdin.", callback=files.readable)
]
PassphraseFile = Annotated[
    Path | None, typer.Option(help="File with the passphrase of the backup.", callback=files.readable)
]


def _passphrase(file: Path | None, *, new: bool = False) -> str:
    return terminal.read_secret("SMK", file, what="passphrase of the backup", new=new)


@verb(app, "show", AdminOptions)
def show(
    options: AdminOptions,
    backup: Annotated[
        Path | None,
        typer.Option(help="A backup here instead: what it says of itself, asking no member.", callback=files.readable),
    ] = None,
) -> None:
    """Show the generations of the SMK, each with a check value of its own, and how far a rollover is."""
    if backup is not None:
        options.record(_cover(files.read_text(backup)))
        return
    with options.viewing(needs_sight=True) as session:
        view = session.smk()
    options.record({**terminal.fields(view), "cluster": view.cluster.hex()})


@verb(app, "rollover", PoOptions)
def rollover(options: PoOptions, yes: Yes = False) -> None:
    """Go over to a new generation of the SMK, while clients work; archives of before open until it is retired."""
    terminal.confirm("Have all HSMs of the cluster go over to a new generation of the SMK?", yes=yes)
    with options.administration() as session:
        done = session.roll_over_smk()
    options.say(f"generation {done.newest} of the SMK is shared with every member", **terminal.fields(done))
    terminal.note(f"It goes on by itself: lnh smk show. Back up the SMK anew: no backup has generation {done.newest}")


@verb(app, "retire", PoOptions)
def retire(options: PoOptions, yes: Yes = False) -> None:
    """Have all HSMs drop every generation of the SMK but the newest: no archive that needs one opens any more."""
    with options.administration() as session:
        newest = max(each.generation for each in session.smk(current=True).generations)
        lost = [each.name for each in session.backups.list().archives if not each.problem and each.generation < newest]
        terminal.confirm(_question(newest, lost), yes=yes)
        done = session.retire_smk(newest)
    said = f"generation {newest} of the SMK is the only one; archives here that do not open any more: {len(lost)}"
    options.say(said, **terminal.fields(done), lost=lost)
    if not options.json:
        for name in lost:
            terminal.note(f"  {name}")


def _question(newest: int, lost: list[str]) -> str:
    named = ", ".join(lost[:_NAMED_AT_MOST]) or "none"
    more = f" and {len(lost) - _NAMED_AT_MOST} more" if len(lost) > _NAMED_AT_MOST else ""
    return (
        f"No archive or SMK backup made before everything was sealed under generation {newest} opens any more, "
        f"wherever it is; of those on the member that answers: {named}{more}. Drop the older generations?"
    )


def _cover(text: str) -> dict[str, Any]:
    from lnh_common.wire.smk_backups import SmkBackup

    cover = SmkBackup.parse(text).cover
    generations = [{"generation": each.generation, "check": each.check.hex()} for each in cover.generations]
    return {
        "cluster": cover.cluster.hex(),
        "label": cover.label,
        "generations": generations,
        "made": terminal.moment(cover.made_at),
        "shares_needed": cover.split.threshold if cover.split else 0,
        "shares_made": cover.split.count if cover.split else 0,
    }


@verb(app, "backup", PoOptions)
def backup(
    options: PoOptions,
    output: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for it, of mode 0600.")],
    passphrase_file: PassphraseFile = None,
    shares: shares_.MofN = None,
    shares_to: shares_.SharesTo = None,
    qr: shares_.WithQr = False,
) -> None:
    """Back up the SMK and the cluster's identity, under a passphrase or shares, and the cloning domain of the HSMs."""
    files.check_new(output)
    shares_.check_together(shares, shares_to, qr=qr, json=options.json)
    if shares is None:
        with options.administration() as session:
            text = session.backup_smk(_passphrase(passphrase_file, new=True))
        _say(options, output, text, {})
        return
    threshold, count = shares_.numbers(shares)
    places = shares_.places(shares_to, output.name, count, qr=qr)
    with options.administration() as session:
        text, made = session.split_smk(threshold, count)
    shares_.write(places, made, qr=qr)
    _say(options, output, text, {"shares": [str(place) for place in places] or made})
    if not places and not options.json:
        shares_.show(made, qr=qr)


def _say(options: PoOptions, output: Path, text: str, more: dict[str, Any]) -> None:
    record = _cover(text)
    files.write_new(output, text)
    options.say(f"backup of the SMK of {record['label']} in {output}", **record, file=str(output), **more)


@verb(app, "restore", ConsoleOptions)
def restore(
    options: ConsoleOptions,
    backup: BackupFile,
    passphrase_file: PassphraseFile = None,
    share_file: shares_.ShareFiles = None,
) -> None:
    """Put the SMK of a backup into a new HSM of the same cloning domain, as its SO; an archive brings the rest."""
    text = files.read_text(backup)
    needed = _cover(text)["shares_needed"]
    with options.console("smk.restore") as console:
        passphrase, shares = "", []
        if needed:
            shares = shares_.read(share_file, needed)
        else:
            passphrase = _passphrase(passphrase_file)
        done = console.restore_smk(text, passphrase, options.so_password(), shares)
    options.record(terminal.fields(done))
    terminal.note("This HSM holds the SMK. Now the cluster's archive: lnh backup restore FILE --member-dir DIR")
