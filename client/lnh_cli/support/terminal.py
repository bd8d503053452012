"""Shows and asks for the CLI: tables, JSON, refusals, passwords and confirmations.

On a terminal tables are drawn; in a pipe they are aligned text; with `--json` it is JSON. Errors are two lines on
stderr. Secrets are read without echo, or from a file, and never shown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import typer

from lnh_common.text import json_text, shown

DONE: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3

_UNBROKEN: Final = ("handle", "id", "label", "name", "member", "address")

_BLACK: Final = 16  # of the 256 colours, which no theme changes
_WHITE: Final = 231
_TOLD_APART: Final = frozenset({"behind", "skipped"})


def plain(value: Any) -> Any:
    """Turn a value into one that JSON has: bytes in hex, messages as objects, enums by name."""
    import enum

    import msgspec

    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, msgspec.Struct):
        # How far the member that listed it is behind, and what it left out, is told apart (`command.Output`).
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__ if name not in _TOLD_APART}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def fields(message: Any) -> dict[str, Any]:
    """Return a message's fields, plain, in its order."""
    found = plain(message)
    assert isinstance(found, dict), "a message has fields"
    return found


def moment(seconds: int) -> str:
    """Spell a time in UTC seconds, as people and programs read it (RFC 3339)."""
    import datetime as dt

    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def show_json(value: Any) -> None:
    """Show a value as JSON: indented on a terminal, in one line in a pipe."""
    typer.echo(json_text(plain(value), indent=2 if sys.stdout.isatty() else None))


def echo(text: str = "", *, styled: str = "", nl: bool = True) -> None:
    """Print one line on stdout, in which text from outside is escaped; `styled`, before it, is our own."""
    typer.echo(styled + shown(text), nl=nl)


def show_drawing(lines: Iterable[str]) -> None:
    """Print lines that are dark where they have ink: black on white on a terminal, whatever its colours are."""
    for line in lines:
        typer.echo(typer.style(shown(line), fg=_BLACK, bg=_WHITE))


def show_rows(rows: Iterable[Mapping[str, Any]], *, columns: Sequence[str]) -> None:
    """Show a list, one item a line, with these columns."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    titles = [column.replace("_", " ") for column in columns]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        # On a terminal a column with nothing in it is left out, and identifiers are not broken.
        filled = [place for place in range(len(columns)) if not cells or any(line[place] for line in cells)]
        table = Table(box=None, header_style="bold", pad_edge=False)
        for place in filled:
            table.add_column(titles[place], overflow="fold", no_wrap=columns[place] in _UNBROKEN)
        for line in cells:
            table.add_row(*(Text(line[place]) for place in filled))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    for line in [titles, *cells]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def show_record(record: Mapping[str, Any]) -> None:
    """Show one item, a line for each of its properties, named as in the options that set them."""
    width = max((len(name) for name in record), default=0)
    for name, value in record.items():
        title = typer.style(shown(name).ljust(width), bold=True)
        typer.echo(f"{title}  {_cell(value)}")


def say(text: str, *, as_json: bool = False, **fields: Any) -> None:
    """Say that something was done: a sentence, or with `as_json` its fields."""
    if as_json:
        show_json({"done": True, **fields})
    else:
        echo(text)


def note(text: str) -> None:
    """Print a remark of one line that is no result, on stderr."""
    typer.echo(shown(text), err=True)


def refuse(what: str, advice: str, status: int = REFUSED) -> NoReturn:
    """End with two lines that say what was refused and what to do about it."""
    note(f"refused: {what}")
    note(f"try: {advice}")
    raise typer.Exit(status)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed; `--yes` answers. Where nobody can be asked the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        refuse(f"there is no terminal to ask on: {question}", "--yes answers yes", USAGE)
    if not typer.confirm(shown(question), err=True):
        refuse("not confirmed", "repeat and answer y, or with --yes")


def confirm_fingerprint(label: str, fingerprint: str) -> bool:
    """Ask, as ssh does, whether this is the cluster's fingerprint; False where nobody can be asked."""
    if not sys.stdin.isatty():
        note(f"cluster {label} has fingerprint {fingerprint}")
        return False
    note(f"The identity of cluster {label!r} is not known here. Its fingerprint is")
    note(f"  {fingerprint}")
    return typer.confirm("Is that what `lnh cluster show` prints on the member's console?", err=True)


def read_secret(role: str, file: Path | None = None, *, what: str = "", new: bool = False) -> str:
    """Read a password: from `file`, from the file that `LNH_<ROLE>_PASSWORD_FILE` names, or from a prompt.

    Args:
        role: ADMIN, PO, SO, KRSO, KRCO, or what else a secret is for.
        what: to ask for; "" makes it from the role.
        new: asks twice.
    """
    path = secret_file(role, file)
    what = what or f"{role.upper()} password"
    if path is not None:
        try:
            return secret_in(path)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            refuse(f"{what}: {path} cannot be read: {reason}", "name a readable file", USAGE)
    if not sys.stdin.isatty():
        refuse(
            f"no {what}", f"answer on a terminal, or name a file by its option (--help) or in {_variable(role)}", USAGE
        )
    return str(typer.prompt(shown(what), hide_input=True, confirmation_prompt=new, err=True))


def has_secret(role: str, file: Path | None) -> bool:
    """Tell whether `read_secret` would not have to ask."""
    return secret_file(role, file) is not None


def secret_file(role: str, file: Path | None) -> Path | None:
    """Return the file that `read_secret` reads; None where it asks."""
    named = os.environ.get(_variable(role))
    return file or (Path(named) if named else None)


def secret_in(path: Path) -> str:
    """Read a password from its file; raises OSError, UnicodeDecodeError."""
    return path.read_text("utf-8-sig").removesuffix("\n").removesuffix("\r")


def _variable(role: str) -> str:
    return f"LNH_{role.upper()}_PASSWORD_FILE"


def _cell(value: Any) -> str:
    value = plain(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{shown(name)}={_cell(item)}" for name, item in value.items())
    return shown(str(value))
