"""Finds the programs of this installation."""

from __future__ import annotations

import sys
from pathlib import Path


def program(name: str) -> str:
    """Return the path of a program of this installation."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name
