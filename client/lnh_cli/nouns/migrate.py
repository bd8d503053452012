"""`lnh migrate`: brings what a PKCS#11 token, or a partition of an appliance, holds into a keyring."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.command import Noun, Yes, verb
from lnh_cli.support.options import KeyringOptions

if TYPE_CHECKING:
    from lnh.keyrings import KeyringSession
    from lnh.migration.carry import Outcome
    from lnh.migration.plan import Choices
    from lnh.migration.source import Source

_COLUMNS = ("label", "kind", "id", "outcome", "note")
_From = "From where"


def enter(app: Noun) -> None:
    """Enter `lnh migrate` into the command tree."""
    verb(app, "migrate", MigrateOptions)(migrate)


@dataclasses.dataclass(kw_only=True)
class MigrateOptions(KeyringOptions):
    """Options of `lnh migrate`: those of the keyring, and what keys come from."""

    module: Annotated[
        str | None, typer.Option(help="A token's PKCS#11 module: a shared library.", rich_help_panel=_From)
    ] = None
    token: Annotated[str | None, typer.Option(help="The token's label.", rich_help_panel=_From)] = None
    pin_file: Annotated[
        Path | None, typer.Option(help="File with the token's PIN.", callback=files.readable, rich_help_panel=_From)
    ] = None
    partition: Annotated[
        str | None, typer.Option(help="A partition at the local console of --member-dir.", rich_help_panel=_From)
    ] = None
    member_dir: Annotated[
        Path | None, typer.Option(envvar="LNH_MEMBER_DIR", help="The member directory.", rich_help_panel=_From)
    ] = None
    co_password_file: Annotated[
        Path | None,
        typer.Option(help="File with the partition's CO's.", callback=files.readable, rich_help_panel=_From),
    ] = None
    so_password_file: Annotated[
        Path | None, typer.Option(help="File with the HSM's SO's.", callback=files.readable, rich_help_panel=_From)
    ] = None

    @contextmanager
    def source(self) -> Iterator[Source]:
        """Open what keys come from; whatever is wrong with what was typed is told before a password is asked for."""
        if self.partition is not None and (self.module is not None or self.token is not None):
            terminal.refuse("both a token and a partition", "name one of them", terminal.USAGE)
        if self.partition is not None:
            with self._of_partition(self.partition) as source:
                yield source
            return
        if self.module is None or self.token is None:
            said = "nothing named that keys come from"
            terminal.refuse(said, "--module and --token, or --partition and --member-dir", terminal.USAGE)
        from lnh.migration import tokens

        tokens.find_token(self.module, self.token)
        pin = terminal.read_secret("PIN", self.pin_file, what=f"PIN of token {self.token}")
        with tokens.opened(self.module, self.token, pin) as source:
            yield source

    @contextmanager
    def _of_partition(self, partition: str) -> Iterator[Source]:
        if self.member_dir is None:
            terminal.refuse("a partition is used from its member's local console", "--member-dir DIR", terminal.USAGE)
        from lnh.console import Console
        from lnh.migration.partitions import PartitionSource
        from lnh_common.messages.console import PARTITION_SEND

        with Console(self.member_dir) as console:
            console.check(PARTITION_SEND, partition)
            what = f"CO password of partition {partition}"
            co_password = terminal.read_secret("CO", self.co_password_file, what=what)
            so_password = terminal.read_secret("SO", self.so_password_file)
            yield PartitionSource(console, partition, co_password, so_password)


def migrate(
    options: MigrateOptions,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and store nothing.")] = False,
    new_keys: Annotated[
        bool, typer.Option("--new-keys/--no-new-keys", help="Make new keys where keys cannot come.")
    ] = True,
    in_clear: Annotated[
        bool, typer.Option("--in-clear", help="Read secret keys that are not SENSITIVE, where they cannot be wrapped.")
    ] = False,
    extractable: Annotated[bool, typer.Option("--extractable", help="What was EXTRACTABLE stays so.")] = False,
    mechanisms: Annotated[
        list[str] | None,
        typer.Option("--mechanism", "-m", help="Mechanisms of AES keys that encrypt, such as AES_CBC_PAD."),
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="File of what was done; one is kept beside the registrations.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Bring keys, certificates and data of a PKCS#11 token or a partition into a keyring; run again, it goes on."""
    from lnh_common.pkcs11.mechanisms import Use

    named = tuple(files.mechanism(each, Use.ENCRYPT) for each in mechanisms or [])
    with options.source() as source, options.session() as session:
        from lnh.migration.plan import Choices

        # What a partition wraps, it wraps by the rules of `separated`.
        separated = options.partition is not None or session.policy()["key_uses"] == "separated"
        choices = Choices(new_keys, in_clear, extractable, separated, named)
        outcomes = _migrated(options, session, source, choices, journal, dry_run=dry_run, yes=yes)
        _show(options, source.name, outcomes)
    if any(each.failure is not None for each in outcomes):
        raise typer.Exit(terminal.REFUSED)


def _migrated(
    options: MigrateOptions,
    session: KeyringSession,
    source: Source,
    choices: Choices,
    journal: Path | None,
    *,
    dry_run: bool,
    yes: bool,
) -> Sequence[Outcome]:
    """Plan, ask, and carry out; what was done is told also where something ends it midway."""
    from lnh.configuration import Configuration
    from lnh.migration.carry import Migration, Outcome
    from lnh.migration.journal import Journal, default_name
    from lnh.migration.plan import Way
    from lnh_cli.support.progress import progress

    path = journal or Configuration().directory / "migrations" / default_name(source.name, session.route)
    migration = Migration(source, session, choices, Journal(path))
    planned = [Outcome(step, step.handle) for step in migration.steps]
    todo = [step for step in migration.steps if step.way not in {Way.THERE, Way.STAYS}]
    if dry_run or not todo:
        return planned
    if not yes and not options.json:
        terminal.show_rows([_row(each) for each in planned], columns=_COLUMNS)
    terminal.confirm(f"Bring {len(todo)} objects of {source.name} into keyring {options.keyring}?", yes=yes)
    outcomes: list[Outcome] = []
    try:
        with progress("migrate", in_bytes=False) as advance:
            for outcome in migration.carry_out():
                outcomes.append(outcome)
                advance(len(outcomes), len(planned))
    except BaseException:
        terminal.note(f"ended after {len(outcomes)} of {len(planned)} objects; the same command goes on from there")
        raise
    return outcomes


def _show(options: MigrateOptions, source: str, outcomes: Sequence[Outcome]) -> None:
    rows = [_row(each) for each in outcomes]
    counts = Counter(row["outcome"] for row in rows)
    if options.json:
        options.show_json({"source": source, "keyring": options.keyring, "counts": counts, "objects": rows})
        return
    terminal.show_rows(rows, columns=_COLUMNS)
    terminal.echo(f"{source}: {', '.join(f'{count} {name}' for name, count in sorted(counts.items())) or 'empty'}")


def _row(outcome: Outcome) -> dict[str, Any]:
    step = outcome.step
    failed = outcome.failure is not None
    return {
        "label": step.found.label,
        "kind": step.found.kind,
        "id": step.found.id,
        "outcome": "failed" if failed else step.way.value,
        "note": "; ".join((*((str(outcome.failure),) if failed else ()), *step.notes)),
        "handle": outcome.handle,
    }
