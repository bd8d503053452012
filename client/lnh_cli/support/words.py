"""Leads from a word that is no command to the one that was meant, and from half a command line to a whole one.

Users of other tools try `create`, `list`, `show`, `get`, `delete` and `describe` first: each noun has them, or says by
`ELSEWHERE` what it has instead. For any other word the likest command is named, but never one that replaces or removes
something: a slip of the finger is no reason to propose that.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import typer
from typer.core import TyperCommand, TyperGroup

from lnh_cli.support import pages, terminal, values

TRIED_FIRST: Final = ("create", "list", "show", "get", "delete", "describe")

# Commands that replace or remove something: led to by a word that says so, never by likeness.
DESTRUCTIVE: Final = frozenset({
    "deactivate", "delete", "down", "factory-reset", "leave", "promote", "reimage", "remove", "reset", "reset-admin",
    "restore", "retire", "revoke", "rollover", "set-activation", "unassign", "upgrade",
})  # fmt: skip

# What a word is called here, in any noun that has the second.
_SAME: Final = {
    "get": "show", "describe": "show", "info": "show", "status": "show", "ls": "list", "add": "create", "new": "create",
    "make": "create", "rm": "delete", "remove": "delete", "del": "delete", "edit": "set", "update": "set",
    "passwd": "password",
}  # fmt: skip

# Of a noun, what it has instead of a word, as the words after `lnh`.
ELSEWHERE: Final[dict[str, dict[str, str]]] = {
    "": {
        "keys": "key list", "keyrings": "keyring list", "members": "member list", "users": "user list",
        "login": "role login, or user login", "logout": "role logout, or user logout", "list": "keyring list",
        "show": "status", "info": "status", "policy": "cluster policy, or keyring policy", "create": "cluster create",
        "generate": "key generate", "import": "key import", "export": "key export", "log": "audit show",
        "start": "up", "stop": "down", "register": "client register", "hash": "digest", "help": "--help",
    },
    "appliance": {"create": "appliance init", "list": "member list", "delete": "appliance reimage"},
    "audit": {"create": "audit show", "list": "audit show", "delete": "audit --help"},
    "backup": {"create": "backup now", "make": "backup now", "start": "backup now", "get": "backup download"},
    "bootstrap": {"create": "bootstrap cluster", "list": "status", "show": "status", "delete": "bootstrap --help"},
    "certificate": {"create": "certificate self-sign KEY, or certificate import FILE", "csr": "certificate request",
                    "sign": "certificate issue"},
    "client": {"create": "client register", "add": "client register", "delete": "client revoke"},
    "cluster": {"list": "client register --list"},
    "data": {"create": "data import", "add": "data import", "put": "data import"},
    "group": {"show": "group list"},
    "hsm": {"create": "hsm init", "list": "member list", "delete": "hsm factory-reset"},
    "key": {"create": "key generate", "add": "key generate"},
    "member": {"create": "member invite", "add": "member invite", "join": "cluster join"},
    "smk": {"list": "smk show", "create": "smk backup", "export": "smk backup", "import": "smk restore"},
    "package": {"create": "package install", "add": "package install", "show": "package list",
                "delete": "appliance reimage"},
    "role": {"create": "role init", "add": "role init", "show": "role list", "delete": "role --help"},
    "user": {"create": "user add", "show": "user list", "roles": "user role list"},
}  # fmt: skip


# Of a console script: how its pages are asked for, and how wide they are at most.
SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 120}

# Where what an option or argument takes is had from.
_HAD_FROM: Final = {
    "keyring": "lnh keyring list shows them",
    "key": "lnh key list shows them",
    "invitation": "lnh member invite makes one, at a member",
}
# What typer's decoder says, in our words.
_DECODER: Final = (
    (re.compile(r"Input should be a valid integer.*"), r"it takes a whole number"),
    (re.compile(r"Input should be a valid number.*"), r"it takes a number"),
    (re.compile(r"Input should be greater than or equal to (\S+)"), r"at least \1"),
    (re.compile(r"Input should be less than or equal to (\S+)"), r"at most \1"),
    (re.compile(r"Input should be (.*)"), r"it takes \1"),
)

# Of the click that typer brings: what is wrong with a command line, and what only shows a help page.
_WRONG: Final[type[Any]] = typer.BadParameter.__mro__[1]
_HELP: Final = getattr(sys.modules[_WRONG.__module__], "NoArgsIsHelpError", ())


@contextmanager
def in_two_lines() -> Iterator[None]:
    """End with two lines, as every refusal does, for a command line that is not whole or has unknown words."""
    try:
        yield
    except _WRONG as error:
        if isinstance(error, _HELP):
            raise
        terminal.refuse(_said(error), _completed(error), terminal.USAGE)


def _said(error: Any) -> str:
    """Word a wrong command line, in our words where typer's are its decoder's."""
    said = str(error.format_message())
    for theirs, ours in _DECODER:
        said = theirs.sub(ours, said)
    return said[:1].lower() + said[1:].rstrip(".")


def _completed(error: Any) -> str:
    """Complete a command with what it misses, and where that is found; else name its help page."""
    path = error.ctx.command_path if error.ctx is not None else "lnh"
    missing = error.param if type(error).__name__ == "MissingParameter" else None
    if missing is None:
        return f"{path} --help"
    name = str(missing.name)
    option = next((word for word in missing.opts if word.startswith("--")), "")
    whole = " ".join(filter(None, (path, option, name.upper())))
    return f"{whole}; {_HAD_FROM[name]}" if name in _HAD_FROM else whole


class Verb(TyperCommand):
    """A command that stands behind a noun, or at the top of the tree."""

    def get_params(self, ctx: Any) -> Any:
        """List what the command takes."""
        return values.taking_plain(super().get_params(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write what the command takes, panel by panel."""
        pages.write_options(self, ctx, formatter)


class Script(Verb):
    """A command that is a console script by itself."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Parse the command line; a wrong one ends with two lines."""
        with in_two_lines():
            return super().make_context(*args, **extra)


def meant(noun: str, word: str, commands: list[str]) -> str:
    """Return what follows `lnh` in the command that was probably meant.

    Args:
        noun: "" for the top of the tree.
        word: what was typed in place of one of `commands`.
    """
    elsewhere = ELSEWHERE.get(noun, {})
    for tried in (word, _SAME.get(word, word)):
        if tried in elsewhere:
            return elsewhere[tried]
        if tried in commands:
            return f"{noun} {tried}".strip()
    harmless = [command for command in commands if command not in DESTRUCTIVE]
    near = difflib.get_close_matches(word, harmless, 1)
    return f"{noun} {near[0] if near else '--help'}".strip()


def _noun(ctx: Any) -> str:
    """Return the words between `lnh` and a command of this noun."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, str(ctx.info_name))
        ctx = ctx.parent
    return " ".join(words)


class Group(TyperGroup):
    """A noun, or the top of the tree: finds its commands by name, and leads from a word that is none to one that is."""

    panels: ClassVar[tuple[str, ...]] = ()  # what a help page shows one after the other

    def list_commands(self, ctx: Any) -> list[str]:
        """Sort the commands by panel, then by name."""

        def place(name: str) -> tuple[int, str]:
            panel = getattr(self.commands[name], "rich_help_panel", None)
            return (self.panels.index(panel) if panel in self.panels else 0), name

        return sorted(self.commands, key=place)

    def get_params(self, ctx: Any) -> Any:
        """List what the noun itself takes."""
        return values.taking_plain(super().get_params(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options and the commands, panel by panel."""
        pages.write_options(self, ctx, formatter)
        pages.write_commands(self, ctx, formatter)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Parse the command line; a wrong one ends with two lines."""
        with in_two_lines():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a wrong command line ends with two lines."""
        with in_two_lines():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command by its word; a word that is none ends with advice on the one that was probably meant."""
        word = args[0]
        if word not in self.commands and not word.startswith("-") and not ctx.resilient_parsing:
            noun = _noun(ctx)
            advice = meant(noun, word, self.list_commands(ctx))
            terminal.refuse(f"{f'lnh {noun}'.strip()} has no command {word!r}", f"lnh {advice}", terminal.USAGE)
        return super().resolve_command(ctx, args)
