"""Runs a command beside a neighbour that takes the processor or the disk: `beside.py LOAD COMMAND...`.

LOAD is quiet (no neighbour), busy (two loops), fsync (large files are written and synced, one after another), or all: each
in turn. Ends with 1 when the command failed beside one of them, and says beside which.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

LOADS: Final[dict[str, tuple[str, ...]]] = {"quiet": (), "busy": ("spin", "spin"), "fsync": ("sync",)}
ALL: Final = "all"
_FILE: Final = 128 << 20  # bytes
_CHUNK: Final = bytes(4 << 20)


def main(load: str, *command: str) -> int:
    """Run the command beside the load; returns the exit code."""
    loads = tuple(LOADS) if load == ALL else (load,)
    if not command or not set(loads) <= set(LOADS):
        print(f"usage: beside.py {'|'.join((*LOADS, ALL))} COMMAND...", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the neighbours end, whoever ends this
    failed = []
    for each in loads:
        began = time.monotonic()
        with beside(each):
            code = subprocess.run(command, check=False).returncode
        print(f"beside {each}: {'failed' if code else 'passed'} in {time.monotonic() - began:.0f} s", flush=True)
        failed += [each] if code else []
    return int(bool(failed))


@contextlib.contextmanager
def beside(load: str) -> Iterator[list[int]]:
    """Have a load's neighbours run meanwhile; yields their process ids."""
    with contextlib.ExitStack() as ends:
        running = []
        for work in LOADS[load]:
            neighbour = subprocess.Popen([sys.executable, __file__, _NEIGHBOUR, work], stdin=subprocess.PIPE)
            ends.callback(neighbour.wait)
            ends.callback(neighbour.kill)
            running.append(neighbour.pid)
        yield running


def _spin() -> None:
    while True:
        pass


def _sync() -> None:
    with tempfile.TemporaryFile() as file:
        while True:
            file.seek(0)
            for _ in range(_FILE // len(_CHUNK)):
                file.write(_CHUNK)
            file.flush()
            os.fsync(file.fileno())
            file.truncate(0)


_NEIGHBOUR: Final = "neighbour"
_WORKS: Final[dict[str, Callable[[], None]]] = {"spin": _spin, "sync": _sync}


def _be(work: str) -> None:
    """Work until whoever started this has ended, however it did: its end of standard input is closed then."""

    def ends() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=ends, daemon=True).start()
    _WORKS[work]()


if __name__ == "__main__":
    if sys.argv[1:2] == [_NEIGHBOUR]:
        _be(sys.argv[2])
    sys.exit(main(*(sys.argv[1:] or [""])))
