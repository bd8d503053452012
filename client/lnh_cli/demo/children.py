"""Runs commands of `lnh demo` and `lnh up` beside one another: real processes, with an environment and output each.

A command of this command line may be forked from a process that has all of it in memory, and then begins at once;
elsewhere importing takes longer than most commands do. Only a process of one thread may fork so.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from subprocess import DEVNULL, Popen
from typing import Final, NoReturn

from lnh_cli.support.programs import program

_SECONDS: Final = 120.0  # that a command may take
_LOOK_EVERY: Final = 0.005
_IMPORTED_LATE: Final = ("lnh.admin", "lnh.console", "lnh.keyrings", "lnh.registration", "rich.table")  # by verbs


@dataclass(frozen=True)
class Done:
    """The end of a command: its exit code, or minus the signal that killed it, as when its time was over."""

    code: int
    out: str
    err: str


class Child:
    """A command that runs.

    Args:
        words: the command; the first names the program.
        environment: all of it.
        forked: whether it may be a copy of this process.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], *, forked: bool) -> None:
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `wait`)
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        main = _mains().get(words[0]) if forked else None
        if main is None:
            command = [program(words[0]), *words[1:]]
            self._process: Popen[bytes] | _Fork = Popen(
                command, env=environment, stdin=DEVNULL, stdout=self._out, stderr=self._err
            )
            return
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        self._process = _Fork(pid)
        if pid == 0:
            os.dup2(self._out.fileno(), 1)
            os.dup2(self._err.fileno(), 2)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = list(words)
            _end_with(main)

    def wait(self) -> Done:
        """Wait for the command's end; returns how it ended, and what it said. Who is interrupted leaves no command."""
        ends = time.monotonic() + _SECONDS
        try:
            while (code := self._process.poll()) is None:
                if time.monotonic() > ends:
                    self._process.kill()
                    ends = math.inf
                time.sleep(_LOOK_EVERY)
        except BaseException:
            self._process.kill()
            raise
        said = []
        for file in (self._out, self._err):
            file.seek(0)
            said.append(file.read().decode("utf-8", "replace"))
            file.close()
        return Done(code, *said)


@dataclass(frozen=True)
class _Fork:
    """A copy of this process; `poll` is asked no more once it has said how it ended."""

    pid: int

    def poll(self) -> int | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@functools.cache
def _mains() -> dict[str, Callable[[], object]]:
    """Return the programs that may be forked; their late imports are made here, once for all."""
    import typer.main

    from lnh_cli import main
    from lnh_cli.nouns import client

    for module in _IMPORTED_LATE:
        import_module(module)
    typer.main.get_command(main.tree()).make_context("lnh", ["status"])  # loads what typer parses with
    return {"lnh": main.main, "LNHClientRegistration": client.registration}


def _end_with(main: Callable[[], object]) -> NoReturn:
    """Run a program as the interpreter would, and end this process, whatever else its copied memory holds."""
    code = 1
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
