"""Lead from a word that is no command to the one that was meant.

Users of other tools try `create`, `list`, `show`, `get`, `delete` and `describe` first: each noun has them, or says by
`ELSEWHERE` what it has instead. For any other word the likest command is named, but never one that replaces or removes
something: a slip of the finger is no reason to propose that.
"""

from __future__ import annotations

import difflib
from typing import Any, ClassVar, Final

from typer.core import TyperGroup

from lnh.cli import terminal

TRIED_FIRST: Final = ("create", "list", "show", "get", "delete", "describe")

# Commands that replace or remove something: led to by a word that says so, never by likeness.
DESTRUCTIVE: Final = frozenset({
    "deactivate", "delete", "down", "factory-reset", "leave", "promote", "reimage", "remove", "reset", "reset-admin",
    "restore", "revoke", "unassign",
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
        "generate": "key generate", "import": "key --help", "export": "key export", "log": "audit show",
        "start": "up", "stop": "down", "register": "client register", "hash": "digest", "help": "--help",
    },
    "appliance": {"create": "appliance init", "list": "member list", "delete": "appliance reimage"},
    "audit": {"create": "audit show", "list": "audit show", "delete": "audit --help"},
    "backup": {"create": "backup now", "make": "backup now", "start": "backup now", "get": "backup download"},
    "bootstrap": {"create": "bootstrap cluster", "list": "status", "show": "status", "delete": "bootstrap --help"},
    "client": {"create": "client register", "add": "client register", "delete": "client revoke"},
    "cluster": {"list": "client register --list"},
    "group": {"show": "group list"},
    "hsm": {"create": "hsm init", "list": "member list", "delete": "hsm factory-reset"},
    "key": {"create": "key generate", "add": "key generate", "import": "key --help"},
    "member": {"create": "member invite", "add": "member invite", "join": "cluster join"},
    "package": {"create": "package install", "add": "package install", "show": "package list",
                "delete": "appliance reimage"},
    "role": {"create": "role init", "add": "role init", "show": "role list", "delete": "role --help"},
    "user": {"create": "user add", "show": "user list", "role": "user --help"},
}  # fmt: skip


def meant(noun: str, word: str, commands: list[str]) -> str:
    """What follows `lnh` in the command that was probably meant.

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


class Group(TyperGroup):
    """A noun, or the top of the tree: its commands by name, and a word that is none of them led to one that is."""

    panels: ClassVar[tuple[str, ...]] = ()  # what a help page shows one after the other

    def list_commands(self, ctx: Any) -> list[str]:
        def place(name: str) -> tuple[int, str]:
            panel = getattr(self.commands[name], "rich_help_panel", None)
            return (self.panels.index(panel) if panel in self.panels else 0), name

        return sorted(self.commands, key=place)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if word not in self.commands and not word.startswith("-") and not ctx.resilient_parsing:
            noun = "" if ctx.parent is None else str(ctx.info_name)
            advice = meant(noun, word, self.list_commands(ctx))
            terminal.refuse(f"{f'lnh {noun}'.strip()} has no command {word!r}", f"lnh {advice}", terminal.USAGE)
        return super().resolve_command(ctx, args)
