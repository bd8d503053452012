"""Help pages: what a command is for, and its arguments, options and commands, panel by panel.

They are written by typer's plain formatter: the one that draws boxes takes longer to import than most commands do all
that they do.
"""

from __future__ import annotations

import os
from typing import Any, Final

import typer

_ARGUMENTS: Final = "Arguments"
_OPTIONS: Final = "Options"
_COMMANDS: Final = "Commands"
_WIDEST: Final = 26  # of what stands to the left of a text

Panels = dict[str, list[tuple[str, str]]]


def write_options(command: Any, ctx: Any, formatter: Any) -> None:
    """Write the arguments and options of a command that are not hidden."""
    panels: Panels = {_ARGUMENTS: [], _OPTIONS: []}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            usual = _ARGUMENTS if parameter.param_type_name == "argument" else _OPTIONS
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(record)
    _write(formatter, panels)


def write_commands(group: Any, ctx: Any, formatter: Any) -> None:
    """Write the commands of a group, each with the first line of its own page."""
    panels: Panels = {}
    for name in group.list_commands(ctx):
        command = group.commands[name]
        if not command.hidden:
            panels.setdefault(command.rich_help_panel or _COMMANDS, []).append((name, _first_line(command.help)))
    _write(formatter, panels)


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]


def _write(formatter: Any, panels: Panels) -> None:
    for title, records in panels.items():
        if records:
            with formatter.section(_styled(title, bold=True)):
                formatter.write_dl([(_styled(name, fg="cyan"), text) for name, text in records], col_max=_WIDEST)


def _styled(text: str, **style: Any) -> str:
    """Style a text for a terminal; what writes it leaves the style out elsewhere."""
    return text if os.environ.get("NO_COLOR") else typer.style(text, **style)
