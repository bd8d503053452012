"""Runs the balancer of one member: `python -m lnh_services.balancer --member-dir DIR`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from types import FrameType
from typing import Final

import zmq

from lnh_common import timeline
from lnh_common.errors import ConfigurationInvalid
from lnh_services import serving
from lnh_services.balancer.service import Balancer
from lnh_services.balancer.timeline import POINTS
from lnh_services.serving import Member

_M_MMAP_THRESHOLD: Final = -3  # mallopt(3)
_LARGE: Final = 256 << 10  # bytes from which on memory that is freed goes back to the system at once


def main() -> int:
    """Run the balancer until it is told to stop; returns the exit code."""
    return serving.guarded("balancer", _serve)


def _serve(member: Member) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # more connections, where the system allows
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(AttributeError):  # else glibc keeps what large messages took, for the next ones
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    timeline.begin(member.directory.root, "balancer", POINTS)
    wake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def stop(_: int, __: FrameType | None) -> None:
        os.write(waker, b"\0")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        balancer = Balancer(member.directory, member.settings)
    except zmq.ZMQError as error:
        raise ConfigurationInvalid(f"ports from {member.settings.base_port} cannot be used: {error.strerror}") from None
    balancer.run(wake)


if __name__ == "__main__":
    sys.exit(main())
