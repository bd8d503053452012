"""The commands of the tree of the command line, each with the words that lead to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a noun that is not itself a noun, at any depth."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command
