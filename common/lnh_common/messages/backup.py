"""What the backup service tells of itself."""

from __future__ import annotations

from typing import Final

from lnh_common.messages.base import Empty, Message, operation


class Status(Message):
    """`schedule` is none, or when backups are made; `newest` is empty while there is none."""

    schedule: str
    backups: int
    bytes_on_disk: int
    newest: str = ""
    problem: str = ""


STATUS: Final = operation("backup.status", Empty, Status)
