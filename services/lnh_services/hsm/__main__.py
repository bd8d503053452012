"""Runs the hsm of one member: `python -m lnh_services.hsm --member-dir DIR`."""

from __future__ import annotations

import asyncio
import sys

from lnh_common.errors import SealBroken, StorageFailed
from lnh_common.events import Log
from lnh_services import serving
from lnh_services.hsm.core.service import Core
from lnh_services.hsm.crypto.process_hardening import harden

_log = Log("hsm")


def main() -> int:
    """Harden this process before anything is opened, then serve."""
    hardening = harden()

    async def serve(member: serving.Member, stop: asyncio.Event) -> None:
        for problem in hardening.problems:
            _log.warning("not hardened", problem=problem)
        try:
            core = Core(member, hardening)
        except (SealBroken, StorageFailed) as error:
            _log.failure("the state of this HSM cannot be used", problem=str(error), advice=error.advice)
            raise
        await core.serve(stop)

    return serving.run("hsm", serve)


if __name__ == "__main__":
    sys.exit(main())
