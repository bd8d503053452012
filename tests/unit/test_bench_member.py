"""The benchmark measures a member's memory as whoever runs it, root or not."""

from __future__ import annotations

import mmap
import os
import signal
import sys

import pytest
from bench.member import megabytes

from lnh_services.hsm.crypto import process_hardening

_NOBODY = 65534
_HELD = 64  # MiB


def _holding(write: int, *, hardened: bool) -> int:
    """A process with 64 MiB of its own, hardened or not; it says by a byte when it has them."""
    pid = os.fork()
    if pid == 0:
        try:
            held = mmap.mmap(-1, _HELD << 20)
            held.write(b"\1" * (_HELD << 20))
            os.dup2(write, 1)  # which hardening leaves open
            if hardened:
                process_hardening.harden()
            os.write(1, b"1")
            signal.pause()
        finally:
            os._exit(1)
    return pid


def _measure_as_a_user(hardened: bool) -> float:
    """In a process that is not root's: start such a process, and measure it."""
    if os.getuid() == 0:
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    read, write = os.pipe()
    pid = _holding(write, hardened=hardened)
    os.close(write)  # so that the end of that process is the end of what can be read
    try:
        assert os.read(read, 1) == b"1", "the process holds its memory"
        if hardened:
            with pytest.raises(PermissionError), open(f"/proc/{pid}/smaps_rollup") as file:  # noqa: PTH123  # as is
                file.read()
        return megabytes([pid])
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("hardened", [True, False])
def test_memory_is_measured_by_an_ordinary_user(hardened: bool) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, f"{_measure_as_a_user(hardened):.1f}".encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    os.waitpid(pid, 0)
    assert float(said) >= _HELD, said
