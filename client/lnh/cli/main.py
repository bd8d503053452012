"""`lnh`: the tree of nouns and verbs, assembled; of it, only the branch that a command line names.

All of the tree takes longer to import and to build than most commands take.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, Final

import typer

from lnh.cli import terminal

# A module each, which has its noun in `app`; in the order that `lnh --help` shows.
_NOUNS: Final = (
    "appliance", "hsm", "partition", "package", "cluster", "member", "group", "user", "client", "keyring", "role",
    "key", "backup", "audit", "bootstrap",
)  # fmt: skip
# The modules that enter verbs of their own, which stand at the top of the tree.
_VERBS: Final = {
    "cryptography": ("sign", "verify", "encrypt", "decrypt", "random", "digest"),
    "status": ("status",),
    "top": ("top",),
    "doctor": ("doctor",),
    "bench": ("bench",),
    "demo": ("demo",),
    "local": ("up", "down"),
}
_MODULES: Final = {name: name for name in _NOUNS} | {verb: name for name, verbs in _VERBS.items() for verb in verbs}


def tree(word: str = "") -> typer.Typer:
    """The tree; of a branch that the first word of a command names, that branch alone."""
    app = typer.Typer(
        name="lnh",
        help="A software HSM cluster: its members, keyrings and keys.",
        no_args_is_help=True,
        pretty_exceptions_show_locals=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name in _needed(word):
        module = import_module(f"lnh.cli.{name}")
        if name in _VERBS:
            module.enter(app)
        else:
            app.add_typer(module.app)
    app.command("version")(_version)
    return app


def _needed(word: str) -> Iterable[str]:
    return (_MODULES[word],) if word in _MODULES else (*_NOUNS, *_VERBS)


def _version() -> None:
    """The version of this client."""
    from importlib.metadata import version

    terminal.echo(version("lnh"))


def _show_version(value: bool) -> None:
    if value:
        _version()
        raise typer.Exit


def _options(
    _: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """A software HSM cluster: its members, keyrings and keys."""


def main() -> None:
    """The console script."""
    tree(sys.argv[1] if len(sys.argv) > 1 else "")()


if __name__ == "__main__":
    main()
