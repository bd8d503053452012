"""Runs the membership service of one member: `python -m lnh_services.membership --member-dir DIR`."""

from __future__ import annotations

import asyncio
import sys

from lnh_services import serving
from lnh_services.membership.service import Membership


async def _main(member: serving.Member, stop: asyncio.Event) -> None:
    await Membership(member).serve(stop)


if __name__ == "__main__":
    sys.exit(serving.run("membership", _main))
