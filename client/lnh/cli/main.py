"""`lnh`: the tree of nouns and verbs, assembled."""

from __future__ import annotations

from typing import Annotated

import typer

from lnh.cli import (
    appliance,
    audit,
    backup,
    bench,
    bootstrap,
    client,
    cluster,
    cryptography,
    demo,
    doctor,
    group,
    hsm,
    key,
    keyring,
    local,
    member,
    package,
    partition,
    role,
    status,
    top,
    user,
)

app = typer.Typer(
    name="lnh",
    help="A software HSM cluster: its members, keyrings and keys.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_NOUNS = (
    appliance, hsm, partition, package, cluster, member, group, user, client, keyring, role, key, backup, audit,
    bootstrap,
)  # fmt: skip
for _noun in _NOUNS:
    app.add_typer(_noun.app)
for _verbs in (cryptography, status, top, doctor, bench, demo, local):
    _verbs.enter(app)


@app.command("version")
def version() -> None:
    """The version of this client."""
    from importlib.metadata import version

    typer.echo(version("lnh"))


def _show_version(value: bool) -> None:
    if value:
        version()
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """A software HSM cluster: its members, keyrings and keys."""


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
