"""Keeps what a migration has done, a line an object, so that a run after an interruption or a change of names goes on.

A line is JSON: `{"source": FINGERPRINT, "handle": HANDLE}`, both in hexadecimal. It says nothing of a key's value.
Without the file a run finds what is there by what it is (`plan`); with it also what was renamed since.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Final

from lnh_common.errors import ConfigurationInvalid
from lnh_common.files import open_regular


def default_name(source: str, keyring: bytes) -> str:
    """Name the file of a source and a keyring."""
    return f"{hashlib.sha256(source.encode()).hexdigest()[:16]}-{keyring.hex()}.jsonl"


class Journal:
    """The file of one source and one keyring; a missing one is empty."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    def read(self) -> dict[bytes, bytes]:
        """Read what was done: handles by fingerprints. A last line that an interruption cut short does not count.

        Raises ConfigurationInvalid for a file that is no journal, OSError.
        """
        try:
            with os.fdopen(open_regular(self.path), encoding="utf-8") as file:
                lines = file.read().split("\n")
        except FileNotFoundError:
            return {}
        except UnicodeDecodeError:
            raise self._wrong() from None
        done: dict[bytes, bytes] = {}
        for line in lines[:-1]:
            try:
                said = json.loads(line)
                done[bytes.fromhex(said["source"])] = bytes.fromhex(said["handle"])
            except (ValueError, KeyError, TypeError):
                raise self._wrong() from None
        return done

    def add(self, source: bytes, handle: bytes) -> None:
        """Add a line durably; raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = json.dumps({"source": source.hex(), "handle": handle.hex()}) + "\n"
        descriptor = open_regular(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        with os.fdopen(descriptor, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size:  # what an interruption cut short is no line
                file.seek(0)
                whole = file.read().rfind(b"\n") + 1
                if whole != size:
                    file.truncate(whole)
            file.seek(0, os.SEEK_END)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def _wrong(self) -> ConfigurationInvalid:
        advice = {
            "advice": "name another file by --journal, or move this one away: what is there is found all the same"
        }
        return ConfigurationInvalid(f"{self.path} is no journal of a migration", advice)
