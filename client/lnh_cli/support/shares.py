"""Writes, shows and reads the shares of a secret that M of N holders open together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from lnh_cli.support import files, terminal

MofN = Annotated[str | None, typer.Option(metavar="M-of-N", help="Shares instead of a secret, as 2-of-3; at most 8.")]
SharesTo = Annotated[
    Path | None, typer.Option(help="A directory for the shares, a file each; else they are printed.", file_okay=False)
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


def check_together(shares: str | None, directory: Path | None) -> None:
    """Refuse a directory for shares where there are none."""
    if directory is not None and shares is None:
        terminal.refuse("--shares-to without --shares", "--shares M-of-N too", terminal.USAGE)


def places(directory: Path | None, name: str, count: int) -> list[Path]:
    """Name a new file for each share, and refuse where none can be made; no files without a directory.

    The directory is made, of mode 0700, where it is not there.
    """
    if directory is not None:
        directory.mkdir(mode=0o700, exist_ok=True)
    found = [directory / f"{name}.share-{index}" for index in range(1, count + 1)] if directory is not None else []
    for place in found:
        files.check_new(place)
    return found


def write(where: Sequence[Path], shares: Iterable[str]) -> None:
    """Write each share to its file, if there are files."""
    for place, share in zip(where, shares, strict=False):
        files.write_new(place, share)


def show(shares: Iterable[str]) -> None:
    """Print the shares, for paper."""
    for share in shares:
        for line in share.splitlines():
            terminal.echo(line)


def read(given: list[Path] | None, needed: int) -> list[str]:
    """Read shares from files, and ask for those that lack; each is checked before the next one is asked for."""
    from lnh_common.wire.shares import Share

    found, named = [], given or []
    for number in range(1, max(needed, len(named)) + 1):
        file = named[number - 1] if number <= len(named) else None
        share = terminal.read_secret(f"SHARE_{number}", file, what=f"share, {number} of {needed}")
        Share.parse(share)
        found.append(share)
    return found
