"""`lnh bootstrap`: a cluster from members that run already, for containers; safe to run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lnh_cli.support import terminal
from lnh_cli.support.command import Output, noun, verb

app = noun("bootstrap", "A whole cluster from members that run already, as compose.yaml has it; safe to run again.")

Root = Annotated[Path, typer.Option(help="Where the members' directories, the client's and secrets/ are.")]


@verb(app, "secrets", Output)
def provide_secrets(
    options: Output,
    root: Root,
    given: Annotated[Path | None, typer.Option(help="Directory of secrets to use instead of random ones.")] = None,
) -> None:
    """Have every secret that `bootstrap cluster` needs: as given in a file of its name, else drawn once at random."""
    from lnh_cli import bootstrap

    said: list[str] = []
    bootstrap.provide_secrets(root / "secrets", given, said.append)
    if options.json or not said:
        options.say("every secret is there", secrets=said)
    for line in () if options.json else said:
        terminal.echo(line)


@verb(app, "cluster", Output)
def cluster(
    options: Output,
    label: Annotated[str, typer.Argument(help="Of the cluster.")],
    root: Root,
    member: Annotated[list[str], typer.Option(help="A member's directory under the root; repeat it.")],
    group: Annotated[
        list[str] | None, typer.Option(metavar="GROUP=MEMBER,...", help="Members' affinity group; repeat it.")
    ] = None,
    client: Annotated[str, typer.Option(help="Name of the client, and of its directory under the root.")] = "client",
    keyring: Annotated[str, typer.Option(help="Label of the keyring.")] = "payments",
    timeout: Annotated[float, typer.Option(min=1, max=3600, help="Seconds to wait for what is not up yet.")] = 180.0,
) -> None:
    """Initialise, create, join and register, whatever of it is not done; a finished cluster is left as it is."""
    from lnh_cli.bootstrap import Bootstrap, Plan

    groups = dict(_group(text, member) for text in group or [])
    plan = Plan(root.absolute(), member, label, groups, client, keyring, timeout)
    changed = Bootstrap(plan, lambda text: None if options.json else terminal.echo(text)).run()
    if options.json:
        options.say("", changed=changed)


def _group(text: str, members: list[str]) -> tuple[str, list[str]]:
    """GROUP=MEMBER,..."""
    label, _, names = text.partition("=")
    inside = names.split(",")
    if not label or not set(inside) <= set(members):
        terminal.refuse(f"{text!r} is not GROUP=MEMBER,... of these members", "--group east=a,b", terminal.USAGE)
    return label, inside
