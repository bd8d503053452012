"""`lnh drill`: rehearses the runbook, docs/operations.md, and says what came of it."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.command import Noun, Output, Yes, verb

if TYPE_CHECKING:
    from lnh_cli.drill.report import Report
    from lnh_cli.drill.runner import Rehearsal
    from lnh_cli.drill.steps import Scenario


def enter(app: Noun) -> None:
    """Enter `lnh drill` into the command tree."""
    verb(app, "drill", Output)(drill)


def drill(
    options: Output,
    only: Annotated[list[str] | None, typer.Option("--only", help="A scenario; may be given again.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="A new file for the report.")] = None,
    on: Annotated[
        str | None, typer.Option(metavar="CLUSTER", help="On this cluster, by index or label: only what is safe there.")
    ] = None,
    keyring: Annotated[
        str | None, typer.Option("--keyring", "-k", help="With --on: where a client works; it destroys what it made.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Rehearse losses on a cluster that is made for it and thrown away, by the commands of docs/operations.md.

    With --on it is a cluster that serves: members are asked, a backup is made, another member is promoted and back.
    """
    from lnh_cli.demo.local import StepFailed
    from lnh_cli.drill.runner import OnCluster, ThrowAway
    from lnh_cli.drill.scenarios import SAFE, SCENARIOS, on_cluster

    _check(only or [], [each.name for each in SCENARIOS] if on is None else SAFE)
    if (on is None) != (keyring is None):
        terminal.refuse("--on and --keyring go together", "lnh drill --on CLUSTER --keyring KEYRING", terminal.USAGE)
    if report is not None:
        files.check_new(report)
    root = Path(tempfile.mkdtemp(prefix="lnh-", dir="/tmp"))  # sockets want a short path
    rehearsal: Rehearsal
    if on is None or keyring is None:
        chosen = _chosen(SCENARIOS, only)
        rehearsal = ThrowAway(root, terminal.note)
    else:
        try:
            rehearsal = OnCluster(on, keyring, root, terminal.note)
        except StepFailed as error:
            root.rmdir()
            terminal.refuse(
                str(error), "lnh user login, and lnh role login: commands of a drill cannot ask for a password"
            )
        if len(rehearsal.members()) == 1 or not rehearsal.primary:
            root.rmdir()
            terminal.refuse("this cluster has no other member, or no primary", "lnh member list")
        chosen = _chosen(on_cluster(rehearsal.members(), rehearsal.primary), only)
        _ask(chosen, on, yes=yes)
    made = _rehearse(rehearsal, chosen)
    _show(options, made, report)
    if not made.passed:
        terminal.refuse("the drill failed", f"what the report says; the logs are in {root}, which is yours to remove")
    shutil.rmtree(root, ignore_errors=True)


def _ask(scenarios: Sequence[Scenario], cluster: str, *, yes: bool) -> None:
    """Say what will be done, and ask."""
    from lnh_cli.drill.steps import outline

    for line in outline(scenarios):
        terminal.note(line)
    terminal.confirm(f"Do this on cluster {cluster!r}, while it serves?", yes=yes)


def _check(only: list[str], names: Sequence[str]) -> None:
    for name in only:
        if name not in names:
            terminal.refuse(f"no scenario {name!r}", f"one of {', '.join(names)}", terminal.USAGE)


def _chosen(scenarios: Sequence[Scenario], only: list[str] | None) -> list[Scenario]:
    """Return the scenarios that are named, in the order of the table; all without a name."""
    return [scenario for scenario in scenarios if not only or scenario.name in only]


def _rehearse(rehearsal: Rehearsal, scenarios: Sequence[Scenario]) -> Report:
    """Carry out the scenarios until one fails, and end all that was started."""
    from lnh_cli.demo.local import StepFailed
    from lnh_cli.drill.report import report as report_of

    moment = terminal.moment(int(time.time()))
    problem = ""
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.default_int_handler)  # whoever ends it, its members end with it
    try:
        terminal.note(f"a drill on {rehearsal.where}, with D={rehearsal.directory}")
        rehearsal.set_up()
        for number, scenario in enumerate(scenarios):
            if not rehearsal.rehearse(scenario):
                left = ", ".join(each.name for each in scenarios[number + 1 :])
                problem = f"a scenario failed; not rehearsed: {left}" if left else ""
                break
    except KeyboardInterrupt:
        problem = "interrupted"
    except StepFailed as error:
        problem = str(error)
    finally:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # what is being ended is ended
        try:
            rehearsal.end()
        except (StepFailed, TimeoutError) as error:
            problem = f"{problem}; {error}".removeprefix("; ")
    return report_of(rehearsal.events, where=rehearsal.where, moment=moment, problem=problem)


def _show(options: Output, made: Report, file: Path | None) -> None:
    from lnh_cli.drill.page import page
    from lnh_cli.drill.report import text

    if options.json:
        options.show_json(made)
    else:
        for line in text(made).splitlines():
            terminal.echo(line)
    if file is not None:
        files.write_new(file, page(made))
