"""Makes room for a Unix socket: one that nobody listens at any more is removed, and one that is served is not."""

from __future__ import annotations

import contextlib
import socket
import stat
from pathlib import Path
from typing import Final

from lnh_common.errors import NotPossible

_PATIENCE: Final = 1.0  # seconds


def make_room(path: Path, server: str, advice: str) -> None:
    """Remove the socket of a process that died, if there is one.

    Args:
        server: what may listen there, in the words of a refusal.
        advice: what to do where it does.

    Raises NotPossible where somebody listens there, or what is there is no socket.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise NotPossible(f"{path} is there, and is no socket", {"advice": "remove it, or name another path"})
        if _answers(path):
            raise NotPossible(f"another {server} serves {path}", {"advice": advice})
        path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PATIENCE)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # whoever listens there is busy, or lets this user not in
            return True
    return True
