"""`lnh doctor`: what is wrong with a cluster, why it matters and what to do, on one screen."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from lnh.cli import terminal
from lnh.cli.command import verb
from lnh.cli.options import AdminOptions

if TYPE_CHECKING:
    from lnh.diagnosis import Finding


def enter(app: typer.Typer) -> None:
    verb(app, "doctor", AdminOptions)(doctor)


def doctor(
    options: AdminOptions,
    strict: Annotated[bool, typer.Option("--strict", help="Advice makes it unhealthy too.")] = False,
) -> None:
    """Explain what is wrong with the cluster, as the member that answers sees it.

    Ends with 0 when it is healthy, with 1 when there is a problem (with --strict, or advice).
    """
    from lnh.diagnosis import Scene, Severity, diagnose

    with options.viewing(needs_sight=True) as session:
        overview = session.overview()
        scene = Scene(overview, time.time())
    findings = diagnose(scene)
    healthy = not any(strict or finding.severity is Severity.PROBLEM for finding in findings)
    if options.json:
        terminal.show_json(
            {"healthy": healthy, "cluster": overview.label, "findings": [_plain(finding) for finding in findings]}
        )
    else:
        _tell(findings)
        members = len(scene.members)
        typer.echo(f"{'healthy' if healthy else 'unhealthy'}: {overview.label}, {members} members")
    if not healthy:
        raise typer.Exit(terminal.REFUSED)


def _plain(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.check, "severity": finding.severity.value, "where": finding.where, "what": finding.what,
        "why": finding.why, "do": finding.do,
    }  # fmt: skip


def _tell(findings: list[Finding]) -> None:
    """What one check found at several places is told together."""
    from lnh.diagnosis import BY_NAME, Severity

    for name, found in groupby(findings, key=lambda finding: finding.check):
        check, spots = BY_NAME[name], list(found)
        colour = "red" if check.severity is Severity.PROBLEM else "yellow"
        where = ", ".join(spot.where for spot in spots if spot.where)
        title = typer.style(check.severity.value.upper(), fg=colour, bold=True)
        typer.echo(f"{title} {check.name}")
        for spot in spots:
            typer.echo(f"  {spot.what}")
        typer.echo(f"  why: {check.why}")
        typer.echo(f"  do:  {check.do.format(where=where)}")
