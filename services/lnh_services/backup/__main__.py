"""Runs the backup service of one member: `python -m lnh_services.backup --member-dir DIR`."""

from __future__ import annotations

import asyncio
import sys

from lnh_services import serving
from lnh_services.backup.service import Backup


async def _main(member: serving.Member, stop: asyncio.Event) -> None:
    await Backup(member).serve(stop)


if __name__ == "__main__":
    sys.exit(serving.run("backup", _main))
