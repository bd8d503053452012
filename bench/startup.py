"""How long it takes to start: commands beside a bare interpreter, and a member from nothing to ready.

`python -m bench.startup` measures these rows.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from bench import member, rows
from bench.rows import Row, at_most
from lnh_cli.demo.local import Steps
from lnh_common import limits
from lnh_common.messages.hsm import Derive
from lnh_services.hsm.crypto.argon2 import derive

_COMMANDS: Final = 15  # times that each is started, in turn
_MEMBERS: Final = 5  # times that the member is
_BIN: Final = Path(sys.executable).parent
# What is started, and its bound in seconds on an idle machine; the bare interpreter is what all of them begin with.
_ROWS: Final = (
    (("lnh", "--help"), 0.25),
    (("lnh", "keyring", "list"), 0.40),
)
_READY: Final = 2.0


def _seconds(words: tuple[str, ...], environment: Mapping[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run([_BIN / words[0], *words[1:]], env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def _argon2() -> float:
    """Seconds of the Argon2id of an activation."""
    memory, passes, lanes = limits.ACTIVATION_ARGON2
    request = Derive(password=b"secret of activation", salt=bytes(16), memory=memory, passes=passes, lanes=lanes)
    began = time.perf_counter()
    derive(request)
    return time.perf_counter() - began


def _commands(environment: Mapping[str, str]) -> Iterator[Row]:
    bare: tuple[str, ...] = (Path(sys.executable).name, "-c", "pass")
    kinds = (bare, *(words for words, _ in _ROWS))
    taken: dict[tuple[str, ...], list[float]] = {words: [] for words in kinds}
    for words in kinds:
        _seconds(words, environment)
    for _ in range(_COMMANDS):
        for words in kinds:
            taken[words].append(_seconds(words, environment))
    for words, limit in _ROWS:
        made = at_most(f"`{' '.join(words)}`, p50", statistics.median(taken[words]), "s", limit)
        made.spread = f"{min(taken[words]):.2f}..{max(taken[words]):.2f}"
        made.note = f"python -c pass: {1000 * statistics.median(taken[bare]):.0f} ms"
        yield made


def measure() -> Iterator[Row]:
    """Two commands, and a member that activates from a file."""
    with member.running() as running:
        place = running.place
        # As the registered client itself: with a password at hand it would log in, and derive a key of that first. And
        # with what the interpreter keeps of a module, as an installed product has it, whatever this process may write.
        left_out = ("LNH_ADMIN_PASSWORD_FILE", "PYTHONDONTWRITEBYTECODE")
        whole = {**os.environ, **place.variables()}
        yield from _commands({name: value for name, value in whole.items() if name not in left_out})
        steps = Steps(place, quiet=True)
        steps.environment["LNH_WORKERS"] = "2"
        ready, alone = [], []
        for _ in range(_MEMBERS):
            place.first.stop()
            began = time.perf_counter()
            steps.start()
            ready.append(time.perf_counter() - began)
            alone.append(_argon2())
        spent = [whole - one for whole, one in zip(ready, alone, strict=True)]
        made = at_most("a member, cold start to ready, without its Argon2", statistics.median(spent), "s", _READY)
        made.spread = f"{min(spent):.2f}..{max(spent):.2f}"
        made.note = f"its Argon2 takes {statistics.median(alone):.2f} s"
        yield made


if __name__ == "__main__":
    raise SystemExit(rows.run(measure))
