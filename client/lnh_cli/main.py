"""`lnh`: assembles the tree of nouns and verbs; of it, only the branch that a command line names.

All of the tree takes longer to import and to build than most commands take.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, Final

import typer

from lnh_cli.support import standard, terminal, words

# What `lnh --help` shows, panel by panel.
_KEYS: Final = "Use keys"
_KEYRINGS: Final = "Keyrings and roles"
_CLUSTER: Final = "Cluster"
_APPLIANCE: Final = "Appliance, at its local console"
_LOOK: Final = "Look and try"
_PANELS: Final = (_KEYS, _KEYRINGS, _CLUSTER, _APPLIANCE, _LOOK)

# A noun is a module of `nouns`, which has it in `app`; and its panel.
_NOUNS: Final = {
    "key": _KEYS,
    "certificate": _KEYS,
    "data": _KEYS,
    "keyring": _KEYRINGS,
    "role": _KEYRINGS,
    "backup": _CLUSTER,
    "bootstrap": _CLUSTER,
    "client": _CLUSTER,
    "cluster": _CLUSTER,
    "group": _CLUSTER,
    "member": _CLUSTER,
    "smk": _CLUSTER,
    "user": _CLUSTER,
    "appliance": _APPLIANCE,
    "audit": _APPLIANCE,
    "hsm": _APPLIANCE,
    "package": _APPLIANCE,
    "partition": _APPLIANCE,
}
# Further modules of a noun, which give its `app` their verbs when they are imported.
_MORE: Final = {"key": ("key_making",)}
# The modules that enter verbs of their own, which stand at the top of the tree, and the panel of these.
_VERBS: Final = {
    "cryptography": (("sign", "verify", "encrypt", "decrypt", "random", "digest"), _KEYS),
    "migrate": (("migrate",), _KEYS),
    "status": (("status",), _LOOK),
    "top": (("top",), _LOOK),
    "doctor": (("doctor",), _LOOK),
    "bench": (("bench",), _LOOK),
    "drill": (("drill",), _LOOK),
    "demo": (("demo",), _LOOK),
    "local": (("up", "down"), _LOOK),
}
_ROOMS: Final = {"demo": "demo", "local": "demo", "drill": "drill"}  # of the modules that are not in `nouns`
_MODULES: Final = {name: name for name in _NOUNS} | {
    verb: name for name, (verbs, _) in _VERBS.items() for verb in verbs
}


class _Top(words.Group):
    panels = _PANELS


def tree(word: str = "") -> typer.Typer:
    """Build the tree; when the first word of a command names a branch, that branch alone."""
    app = typer.Typer(
        name="lnh",
        help="A software HSM cluster: its members, keyrings and keys.",
        cls=_Top,
        no_args_is_help=True,
        pretty_exceptions_show_locals=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name in _needed(word):
        module = import_module(f"lnh_cli.{_ROOMS.get(name, 'nouns')}.{name}")
        if name in _VERBS:
            entered = typer.Typer()
            module.enter(entered)
            for command in entered.registered_commands:
                command.rich_help_panel = _VERBS[name][1]
                app.registered_commands.append(command)
        else:
            for more in _MORE.get(name, ()):
                import_module(f"lnh_cli.nouns.{more}")
            app.add_typer(module.app, rich_help_panel=_NOUNS[name])
    app.command("version", rich_help_panel=_LOOK)(_version)
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
    """Run the console script."""
    standard.secure()
    with standard.refusing():
        tree(sys.argv[1] if len(sys.argv) > 1 else "")()


if __name__ == "__main__":
    main()
