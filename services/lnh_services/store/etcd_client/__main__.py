"""Checks an etcd: `python -m lnh_services.store.etcd_client`, settings as JSON on stdin, findings as JSON on stdout.

What is no finding, as a file that cannot be read, is told as an error as it travels in a message.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from lnh_common.errors import LnhError
from lnh_common.etcd import settings
from lnh_services.store.etcd_client.check.judge import judge
from lnh_services.store.etcd_client.check.probe import look


def main() -> None:
    """Check, and tell."""
    given = msgspec.json.decode(sys.stdin.buffer.read())
    told: dict[str, object] = {}
    try:
        told["findings"] = judge(asyncio.run(look(settings(given, "settings"))))
    except LnhError as error:
        told["error"] = error.to_wire()
    sys.stdout.buffer.write(msgspec.json.encode(told))


if __name__ == "__main__":
    main()
