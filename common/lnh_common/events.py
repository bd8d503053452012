"""Log lines as events with fields: `log.info("bound", address=...)`.

The fields ride on the standard library's records (`record.fields`); who writes them down, and how, is
decided where the process starts. Values are made of what an operator may see: never a secret.
"""

from __future__ import annotations

import functools
import logging
import sys
import traceback
from typing import Final

from lnh_common.text import json_text

ROOT: Final = "lnh"


class Log:
    """The events of one part of a service."""

    def __init__(self, name: str) -> None:
        self._logger: Final = logging.getLogger(f"{ROOT}.{name}")

    def debug(self, event: str, **fields: object) -> None:
        """Write an event that only a developer wants to see."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Write an event of ordinary operation."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Write an event that an operator should look at."""
        self._write(logging.WARNING, event, fields)

    def failure(self, event: str, **fields: object) -> None:
        """Write an event of something that failed."""
        self._write(logging.ERROR, event, fields)

    def bug(self, event: str, error: BaseException, **fields: object) -> None:
        """Write an exception that nobody expected: its type and where it came from.

        Its words are left out, because they may hold a value.
        """
        where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
        self._write(logging.ERROR, event, {**fields, "exception": type(error).__name__, "where": where})

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields})


class _Lines(logging.Formatter):
    """Formats an event as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Format an event."""
        fields = getattr(record, "fields", {})
        when = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        line = {"time": when, "level": record.levelname.lower(), "event": record.getMessage(), **fields}
        return json_text(line)


@functools.cache
def write_to_stderr(level: int = logging.INFO) -> None:
    """Write the events of this process, from a level on, to standard error: a line of JSON each."""
    logger = logging.getLogger(ROOT)
    screen = logging.StreamHandler(sys.stderr)
    screen.setFormatter(_Lines())
    logger.addHandler(screen)
    logger.setLevel(level)
    logger.propagate = False
