"""Shows how far a long act is: a bar on a terminal's stderr, and nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lnh_common.text import shown

Advance = Callable[[int, int], None]


@contextmanager
def progress(what: str, *, in_bytes: bool = True) -> Iterator[Advance]:
    """Show a bar with the words `what`; yields a function that is told how much of how much is done.

    Args:
        in_bytes: whether bytes are counted, or else things.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    counted = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), counted, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(shown(what), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
