"""`lnh smk`: the SMK, under which all of a cluster is sealed, and its backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support import shares as shares_
from lnh_cli.support.command import noun, verb
from lnh_cli.support.options import AdminOptions, ConsoleOptions, PoOptions

app = noun("smk", "The SMK, under which all of a cluster is sealed, and its backup.")

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
    """Show the generations of the SMK; one with the same check value is the same key, wherever it is."""
    if backup is not None:
        options.record(_cover(files.read_text(backup)))
        return
    with options.viewing(needs_sight=True) as session:
        view = session.smk()
    options.record({**terminal.fields(view), "cluster": view.cluster.hex()})


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
) -> None:
    """Back up the SMK and the cluster's identity, under a passphrase or shares, and the cloning domain of the HSMs."""
    files.check_new(output)
    shares_.check_together(shares, shares_to)
    if shares is None:
        with options.administration() as session:
            text = session.backup_smk(_passphrase(passphrase_file, new=True))
        _say(options, output, text, {})
        return
    threshold, count = shares_.numbers(shares)
    places = shares_.places(shares_to, output.name, count)
    with options.administration() as session:
        text, made = session.split_smk(threshold, count)
    shares_.write(places, made)
    _say(options, output, text, {"shares": [str(place) for place in places] or made})
    if not places and not options.json:
        shares_.show(made)


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
