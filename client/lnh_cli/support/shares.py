"""Writes, shows and reads the shares of a secret that M of N holders open together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support import qr as codes

MofN = Annotated[str | None, typer.Option(metavar="M-of-N", help="Shares instead of a secret, as 2-of-3; at most 8.")]
SharesTo = Annotated[
    Path | None, typer.Option(help="A directory for the shares, a file each; else they are printed.", file_okay=False)
]

WithQr = Annotated[
    bool, typer.Option("--qr", help="With each share its QR code: below it, or as an SVG beside its file.")
]


def _readable(paths: list[Path] | None) -> list[Path] | None:
    for path in paths or []:
        files.readable(path)
    return paths


ShareFiles = Annotated[
    list[Path] | None, typer.Option(help="File with a share; once for each. Others are asked for.", callback=_readable)
]


def numbers(text: str) -> tuple[int, int]:
    """Parse M-of-N; anything else is a usage error, or ArgumentInvalid where the numbers are not allowed."""
    from lnh_common.wire.shares import check_numbers

    threshold, _, count = text.lower().partition("-of-")
    if not (threshold.isdecimal() and count.isdecimal() and len(threshold) == len(count) == 1):
        terminal.refuse(f"{text!r} is not M-of-N", "as --shares 2-of-3, or 3-of-5; N is at most 8", terminal.USAGE)
    check_numbers(int(threshold), int(count))
    return int(threshold), int(count)


def check_together(shares: str | None, directory: Path | None, *, qr: bool, json: bool) -> None:
    """Refuse a directory or codes for shares where there are none, and codes in JSON.

    Raises NotPossible where codes cannot be drawn.
    """
    for option, given in (("--shares-to", directory is not None), ("--qr", qr)):
        if given and shares is None:
            terminal.refuse(f"{option} without --shares", "--shares M-of-N too", terminal.USAGE)
    if qr and json and directory is None:
        terminal.refuse("--json with --qr draws no codes", "--shares-to DIRECTORY", terminal.USAGE)
    if qr:
        codes.check_installed()


def places(directory: Path | None, name: str, count: int, *, qr: bool) -> list[Path]:
    """Name a new file for each share, and refuse where none can be made; no files without a directory.

    The directory is made, of mode 0700, where it is not there.

    Args:
        qr: whether each gets its code in a file beside it.
    """
    if directory is not None:
        directory.mkdir(mode=0o700, exist_ok=True)
    found = [directory / f"{name}.share-{index}" for index in range(1, count + 1)] if directory is not None else []
    for place in (*found, *(map(_drawn, found) if qr else ())):
        files.check_new(place)
    return found


def _drawn(place: Path) -> Path:
    return place.with_name(f"{place.name}.svg")


def write(where: Sequence[Path], shares: Iterable[str], *, qr: bool) -> None:
    """Write each share to its file, if there are files, and its code beside it."""
    for place, share in zip(where, shares, strict=False):
        files.write_new(place, share)
        if qr:
            files.write_new(_drawn(place), codes.svg(share))


def show(shares: Iterable[str], *, qr: bool) -> None:
    """Print the shares, for paper, each with its code below it."""
    for share in shares:
        for line in share.splitlines():
            terminal.echo(line)
        if qr:
            terminal.show_drawing(codes.lines(share))


def read(given: list[Path] | None, needed: int) -> list[str]:
    """Read shares from files, and ask for those that lack; each is checked before the next one is asked for."""
    from lnh_common.wire.shares import Share

    found, named = [], given or []
    for number in range(1, max(needed, len(named)) + 1):
        file = named[number - 1] if number <= len(named) else None
        role, what = f"SHARE_{number}", f"share, {number} of {needed}"
        share = terminal.read_secret(role, file, what=what) if terminal.has_secret(role, file) else _typed(role, what)
        Share.parse(share)
        found.append(share)
    return found


def _typed(role: str, what: str) -> str:
    """Ask for a share: all of it in one line, as a reader of codes types it, or line by line, each checked at once."""
    from lnh_common.wire.shares import LINES, check_line, is_line

    first = terminal.read_secret(role, what=what)
    while first.lstrip().startswith("#"):  # the line for the reader, which came along with the others
        first = terminal.read_secret(role, what=f"{what}, its first line")
    if not is_line(first):
        return first
    check_line(0, first)
    lines = [first]
    for number in range(1, LINES):
        lines.append(terminal.read_secret(role, what=f"{what}, line {number + 1} of {LINES}"))
        check_line(number, lines[-1])
    return "\n".join(lines)
