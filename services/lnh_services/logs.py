"""Writes a service's events: one bounded file a service in log/, one line an event.

JSON or text, by the member's settings. The fields are those given to `lnh_common.events.Log`; nothing here knows a
secret, and a `Secret` writes itself as redacted.
"""

from __future__ import annotations

import datetime as dt
import logging
import logging.handlers
import os
import sys
from typing import Final

from lnh_common.events import ROOT
from lnh_common.text import json_text, shown
from lnh_services.configuration import LogFormat, LogSettings
from lnh_services.paths import MemberDirectory

_STRING_LIMIT: Final = 2048  # characters of one field


def configure(service: str, directory: MemberDirectory, settings: LogSettings, *, stderr: bool = False) -> None:
    """Write this process's events to `log/<service>.log`, and to standard error too when asked (as text)."""
    root = logging.getLogger(ROOT)
    root.setLevel(settings.level.value.upper())
    root.propagate = False
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    file = logging.handlers.RotatingFileHandler(
        directory.log / f"{service}.log", maxBytes=settings.bytes, backupCount=settings.files, encoding="utf-8"
    )
    file.setFormatter(JsonLines(service) if settings.format is LogFormat.JSON else TextLines(service))
    root.addHandler(file)
    if stderr:
        screen = logging.StreamHandler(sys.stderr)
        screen.setFormatter(TextLines(service))
        root.addHandler(screen)
    logging.raiseExceptions = False  # a full disk must not stop a service


class JsonLines(logging.Formatter):
    """Formats an event as one line of JSON.

    `{"time": ..., "level": ..., "service": ..., "part": ..., "event": ..., field: value, ...}`
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Format one event as a line of JSON."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "service": self._service,
            "part": record.name.partition(".")[2],
            "pid": os.getpid(),
            "event": record.getMessage(),
            **{name: plain(value) for name, value in _fields(record).items()},
        }
        return json_text(line)


class TextLines(logging.Formatter):
    """Formats an event as `time level service event field=value ...`."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Format one event as a line of text."""
        fields = "".join(f" {name}={json_text(plain(value))}" for name, value in _fields(record).items())
        return f"{_time(record)} {record.levelname.lower():7} {self._service} {shown(record.getMessage())}{fields}"


def plain(value: object) -> object:
    """Turn a value into one that JSON has: bytes become hex, an unknown type its text, long text is cut."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (bytes, bytearray)):
        return bytes(value[:64]).hex()
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    return str(value)[:_STRING_LIMIT]


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = dict(getattr(record, "fields", {}))
    if record.exc_info and record.exc_info[0] is not None:
        fields["exception"] = record.exc_info[0].__name__
    return fields


def _time(record: logging.LogRecord) -> str:
    at = dt.datetime.fromtimestamp(record.created, dt.timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
