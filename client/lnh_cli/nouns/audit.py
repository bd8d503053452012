"""`lnh audit`: a member's audit trail, at its local console or as an export of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.command import Output, noun, verb
from lnh_cli.support.options import AdminOptions, ConsoleOptions

if TYPE_CHECKING:
    from collections.abc import Callable

app = noun("audit", "A member's audit trail.")

_JSON_LINES: Final = "jsonl"
_CEF: Final = "cef"
_IDENTITY: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}|[0-9a-f]{64}")


@verb(app, "show", ConsoleOptions)
def show(
    options: ConsoleOptions, after: Annotated[int, typer.Option(min=0, help="Only records behind this index.")] = 0
) -> None:
    """Show the records: who did what to what, and what came of it."""
    with options.console() as console:
        records = list(console.audit(after))
    if not options.json:
        records = [record | {"time": terminal.moment(record["time"] // 1000)} for record in records]
    options.rows(records, "index", "time", "identity", "role", "operation", "target", "outcome")


@verb(app, "verify", ConsoleOptions)
def verify(options: ConsoleOptions) -> None:
    """Check that the trail was not edited: its hash chain and signed heads."""
    with options.console() as console:
        report = console.verify_audit()
    shown = terminal.fields(report)
    if not options.json and not report.problem:
        shown["problem"] = "none: the chain holds"
        shown["indexes"] = (
            f"1 to {report.records + report.signatures}, none is missing; the {report.signatures} without a record are "
            "the signatures between them, which `lnh audit show` leaves out"
        )
    options.record(shown)
    if report.problem:
        terminal.refuse(report.problem, "keep the file as evidence, and compare it with a copy")


def _format(text: str) -> str:
    if text not in (_JSON_LINES, _CEF):
        terminal.refuse(f"no format {text!r}", f"{_JSON_LINES} or {_CEF}", terminal.USAGE)
    return text


@verb(app, "export", AdminOptions)
def export(
    options: AdminOptions,
    output: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for it, of mode 0600.")],
    form: Annotated[
        str,
        typer.Option("--format", help="jsonl: the lines as they stand, to be checked; or cef.", callback=_format),
    ] = _JSON_LINES,
    after: Annotated[int, typer.Option(min=0, help="Only what is behind this index.")] = 0,
) -> None:
    """Export the audit trail of the member that answers, records and signatures, up to now."""
    from lnh_cli.support.cef import cef
    from lnh_common.wire.audit import RecordLine, parse_line

    count = first = 0
    files.check_new(output)
    with options.administration() as session, files.new(output) as file:
        for line in session.export_audit(after):
            parsed = parse_line(f"{line}\n".encode(), None)  # it was checked when it came
            first = first or parsed.index
            if form == _JSON_LINES or isinstance(parsed, RecordLine):  # what only signs records is nothing to a SIEM
                file.write(f"{cef(parsed) if form == _CEF and isinstance(parsed, RecordLine) else line}\n")
                count += 1
    options.say(f"{count} lines in {output}", lines=count, file=str(output))
    if first > after + 1:
        terminal.note(f"it begins at index {first}: the member has dropped the lines from {after + 1} on")


def _identity(text: str) -> str:
    if not _IDENTITY.fullmatch(text):
        terminal.refuse(f"{text!r} is no identity of an HSM", "lnh hsm show shows it: SHA256:...", terminal.USAGE)
    return text


def _names(identity: str) -> Callable[[bytes], bool]:
    """Tell of a raw public key whether this is its fingerprint, or the key itself."""
    from lnh_common.wire.channel import fingerprint

    return lambda key: identity in (fingerprint(key), key.hex())


@verb(app, "check", Output)
def check(
    options: Output,
    file: Annotated[Path, typer.Argument(help="An export, or a member's log/audit.jsonl; - is stdin.")],
    identity: Annotated[
        str,
        typer.Option(help="Of the HSM: SHA256:... as `lnh hsm show` says, or its key.", callback=_identity),
    ],
) -> None:
    """Check an exported trail offline: its hash chain, and the heads that the HSM signed."""
    from lnh_common.wire.audit import Chain, ChainBroken

    problem = ""
    chain = Chain(_names(identity), whole=False)
    with files.opened(file) as lines:
        for number, spelling in enumerate(lines, start=1):
            try:
                chain.take(spelling)
            except ChainBroken as error:
                problem = f"{file} line {number}: {error}"
                break
    if not problem and not chain.is_signed:
        problem = f"no line in {file} is signed by {identity}"
    unsigned = chain.records - chain.signed
    options.record(
        {
            "first": chain.first,
            "last": chain.end.index,
            "records": chain.records,
            "signed": chain.signed,
            "signatures": chain.signatures,
            "head": chain.end.hash.hex(),
            "problem": problem or "none",
        }
    )
    if problem:
        terminal.refuse(problem, "keep the file as evidence, and compare it with the member's own trail")
    if chain.first > 1:
        terminal.note(f"it begins at index {chain.first}: of what was before, it proves nothing but the hash")
    if unsigned:
        terminal.note(f"the last {unsigned} records stand behind the last signature: they are chained, not signed")
