"""Runs the store of one member: `python -m lnh_services.store --member-dir DIR`."""

from __future__ import annotations

import asyncio
import sys

from lnh_services import serving
from lnh_services.store.service import StoreService


async def _main(member: serving.Member, stop: asyncio.Event) -> None:
    await StoreService(member).serve(stop)


if __name__ == "__main__":
    sys.exit(serving.run("store", _main))
