"""`lnh doctor`: what is wrong with a cluster, why it matters and what to do, on one screen."""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnh_cli.support import terminal
from lnh_cli.support.command import Noun, verb
from lnh_cli.support.options import AdminOptions

if TYPE_CHECKING:
    from lnh.admin import Administration
    from lnh.diagnosis import Finding
    from lnh_common.messages.overview import Overview


def enter(app: Noun) -> None:
    """Enter `lnh doctor` into the command tree."""
    verb(app, "doctor", AdminOptions)(doctor)


def doctor(
    options: AdminOptions,
    member_dir: Annotated[
        Path | None,
        typer.Option(help="Look from a member's own machine: without a login, and whether or not it serves."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Advice makes it unhealthy too.")] = False,
) -> None:
    """Explain what is wrong with the cluster, as the member that answers sees it.

    Ends with 0 when it is healthy, with 1 when there is a problem (with --strict, or advice).
    """
    from lnh.diagnosis import Scene, Severity, diagnose

    if member_dir is not None:
        from lnh_cli.surroundings import look

        overview, supervisor = look(member_dir)
        scene = Scene(overview, time.time(), local=True, supervisor=supervisor)
    else:
        with options.viewing(needs_sight=True) as session:
            overview = session.overview()
            scene = Scene(overview, time.time(), compatible=_compatible(session, overview))
    findings = diagnose(scene)
    healthy = not any(strict or finding.severity is Severity.PROBLEM for finding in findings)
    seen_from = scene.asked.name if scene.asked is not None else ""
    if options.json:
        told = [_plain(finding) for finding in findings]
        whose = {"cluster": scene.overview.label, "members": [each.name for each in scene.members]}
        terminal.show_json({"healthy": healthy, **whose, "seen_from": seen_from, "findings": told})
    else:
        _tell(findings)
        words = [scene.overview.label, f"{len(scene.members)} members", f"seen from {seen_from}" if seen_from else ""]
        terminal.echo(f"{'healthy' if healthy else 'unhealthy'}: {', '.join(filter(None, words))}")
    if not healthy:
        raise typer.Exit(terminal.REFUSED)


def _compatible(session: Administration, overview: Overview) -> tuple[str, ...]:
    """Return the labels of the keyrings whose keys are not kept to one use.

    A keyring's policy is only ever stricter than the cluster's, so mostly there is none to look at.
    """
    from lnh.diagnosis import COMPATIBLE
    from lnh_common.errors import KeyringUnknown, MemberBehind

    found = []
    for each in session.keyrings() if overview.key_uses == COMPATIBLE else ():
        with suppress(KeyringUnknown, MemberBehind):  # it was deleted meanwhile
            if session.show_keyring(each.label).policy.get("key_uses", COMPATIBLE) == COMPATIBLE:
                found.append(each.label)
    return tuple(found)


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
        terminal.echo(f" {check.name}", styled=title)
        for spot in spots:
            terminal.echo(f"  {spot.what}")
        terminal.echo(f"  why: {check.why}")
        terminal.echo(f"  do:  {check.do.format(where=where)}")
