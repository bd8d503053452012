"""Reads the clocks for the replica, which reads none itself."""

from __future__ import annotations

import time
from pathlib import Path

from lnh_services.store.log.entries import Milliseconds
from lnh_services.store.replication.messages import Instant, Seconds


def now() -> Instant:
    """Read the seconds since the boot, those of sleep included, and UTC milliseconds."""
    return Instant(Seconds(time.clock_gettime(time.CLOCK_BOOTTIME)), Milliseconds(time.time_ns() // 1_000_000))


def boot_id() -> str:
    """Return the name of this boot of the machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
