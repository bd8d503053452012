"""Runs the hsm of one member: `python -m lnh_services.hsm --member-dir DIR`."""

from __future__ import annotations

import asyncio
import sys

from lnh_services import serving
from lnh_services.hsm.core import Core
from lnh_services.hsm.hardening import harden


def main() -> int:
    """Harden this process before anything is opened, then serve."""
    hardening = harden()

    async def serve(member: serving.Member, stop: asyncio.Event) -> None:
        await Core(member, hardening).serve(stop)

    return serving.run("hsm", serve)


if __name__ == "__main__":
    sys.exit(main())
