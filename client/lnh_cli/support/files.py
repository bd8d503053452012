"""Moves data in and out of the CLI: files, stdin and stdout, hexadecimal; finds mechanisms by their names.

Ciphertext files are plain: `iv || ciphertext || tag`, as docs/formats/cli-files.md says, so that any program can read
them.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TextIO

import typer

from lnh_cli.support import terminal
from lnh_common.files import sync_directory

if TYPE_CHECKING:
    from lnh_common.pkcs11.mechanisms import Mechanism, Use


def readable(path: Path | None) -> Path | None:
    """Refuse a file that cannot be read, before anything is asked for; `-` is standard input."""
    if path is not None and str(path) != "-":
        try:
            problem = "" if os.access(path, os.R_OK) else "permission denied"
            if stat.S_ISDIR(path.stat().st_mode):
                problem = "it is a directory"
        except OSError as error:
            problem = str(error.strerror)
        if problem:
            terminal.refuse(f"{path} cannot be read: {problem}", "name a readable file", terminal.USAGE)
    return path


def writable(path: Path | None) -> Path | None:
    """Refuse a file that cannot be written, before anything is asked for; `-` is standard output."""
    if path is not None and str(path) != "-":
        try:
            place = path if path.exists() else path.parent
            problem = "" if os.access(place, os.W_OK) else "no directory that may be written to"
            if path.is_dir():
                problem = "it is a directory"
        except OSError as error:
            problem = str(error.strerror)
        if problem:
            terminal.refuse(f"{path} cannot be written: {problem}", "name a file that can be", terminal.USAGE)
    return path


Input = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="Data; stdin without one.", allow_dash=True, callback=readable),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write; stdout without one.", callback=writable)
]
Hex = Annotated[bool, typer.Option("--hex", help="Write hexadecimal.")]
_NAMED = 6  # mechanisms in one line of advice

MechanismOption = Annotated[str | None, typer.Option("--mechanism", "-m", help="PKCS#11's name, such as ECDSA_SHA256.")]


@contextmanager
def opened(path: Path | None) -> Iterator[BinaryIO]:
    """Open a file to read, or stdin."""
    if path is None or str(path) == "-":
        yield sys.stdin.buffer
    else:
        with path.open("rb") as file:
            yield file


def read_text(path: Path) -> str:
    """Read all of a text file, or of stdin for `-`; bytes that are no text are a usage error."""
    data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        terminal.refuse(f"{path} is no text", "name the file that the other command wrote", terminal.USAGE)


def read(path: Path | None, limit: int) -> bytes:
    """Read all of a file or of stdin; raises DataLength for more than `limit` bytes."""
    from lnh.objects import streams
    from lnh_common.errors import DataLength

    with opened(path) as file:
        data = streams.read(file, limit + 1)
    if len(data) > limit:
        raise DataLength(f"more than {limit} bytes in {path or 'stdin'}; that is what one message carries")
    return data


def write(path: Path | None, data: bytes, *, is_text: bool = False) -> None:
    """Write to a file, or stdout; bytes that are no text go to a terminal as hexadecimal."""
    if path is not None and str(path) != "-":
        path.write_bytes(data)
        return
    if sys.stdout.isatty() and not is_text:
        terminal.echo(data.hex())
        return
    from lnh.objects import streams

    streams.write(typer.get_binary_stream("stdout"), data)


def check_new(path: Path) -> None:
    """Refuse a place where a new file cannot be made, before anything is done for it."""
    if path.exists() or path.is_symlink():
        terminal.refuse(f"{path} is there already", "name a file that is not there yet", terminal.USAGE)
    if not path.parent.is_dir():
        terminal.refuse(f"{path}: there is no such directory", "make it, or name another place", terminal.USAGE)


def write_new(path: Path, text: str) -> None:
    """Write a new file of mode 0600, which is there whole and durably or not at all; raises OSError."""
    with new(path) as file:
        file.write(text)


@contextmanager
def new(path: Path) -> Iterator[TextIO]:
    """Open a new file of mode 0600, which is there once all of it was written, or not at all; raises OSError."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # what an interruption left
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)  # unlike a rename, it replaces nothing
    finally:
        part.unlink()
    sync_directory(path.parent)


def write_result(
    path: Path | None, data: bytes, *, as_json: bool, told: dict[str, Any], as_hex: bool = False, is_text: bool = False
) -> None:
    """Write a result as the options say: bytes, text or hexadecimal, or as JSON; with a file to write, JSON names that.

    Args:
        told: what JSON tells where no file is named.
    """
    to_file = path is not None and str(path) != "-"
    if to_file or not as_json:
        write(path, data.hex().encode() + b"\n" if as_hex else data, is_text=as_hex or is_text)
    if as_json:
        terminal.show_json({"done": True, "file": str(path)} if to_file else told)


def unhex(text: str) -> bytes:
    """Decode hexadecimal; anything else is a usage error."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        terminal.refuse(f"{text!r} is not hexadecimal", "two digits a byte", terminal.USAGE)


def is_handle(text: str) -> bool:
    """Tell whether a text is spelt as a handle: 32 hexadecimal digits."""
    return re.fullmatch("[0-9a-fA-F]{32}", text) is not None


def mechanism(name: str, use: Use | None = None) -> Mechanism:
    """Find the mechanism of this name; a usage error otherwise names the likest of those for this use."""
    from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism

    wanted = name.upper().replace("-", "_").removeprefix("CKM_")
    fitting = [known.name for known in Mechanism if use is None or use in MECHANISM_RULES[known].uses]
    if wanted not in Mechanism.__members__:
        terminal.refuse(f"no mechanism {name!r}", _likest(wanted, fitting), terminal.USAGE)
    if wanted not in fitting:
        assert use is not None, "every mechanism fits where no use is named"
        terminal.refuse(f"{wanted} does not {use.name.lower()}", _likest(wanted, fitting), terminal.USAGE)
    return Mechanism[wanted]


def _likest(wanted: str, names: list[str]) -> str:
    """List the few names that are most like what was wanted; docs/mechanisms.md has all of them."""
    import difflib

    near = difflib.get_close_matches(wanted, names, _NAMED, cutoff=0.3) or names[:_NAMED]
    return f"{', '.join(near)}; docs/mechanisms.md has all"
