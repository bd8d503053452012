"""Commands of this product, forked one by one from a process that has the command line in memory, as the demo's are.

A test's own process has threads and may not fork, and to import the command line takes a command longer than its work.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lnh_cli.demo.children import Child, Done
from lnh_cli.demo.local import Order, Steps

SECONDS = 150.0  # more than `Child` gives a command


class Forked:
    """A command that runs, as `Child` is one."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SECONDS)
        self._socket.connect(_server().address)
        self._socket.sendall(json.dumps([list(words), dict(environment)]).encode())
        self._socket.shutdown(socket.SHUT_WR)

    def wait(self) -> Done:
        with self._socket:
            return Done(*json.loads(_received(self._socket)))


class ForkedSteps(Steps):
    """Steps of a test."""

    def _start(self, order: Order) -> Forked:  # type: ignore[override]
        return Forked([str(word) for word in order.words], self._environment_of(order.through))


@dataclass(frozen=True)
class _Server:
    address: str
    process: subprocess.Popen[bytes]  # ends when its standard input does: with this process


@functools.cache
def _server() -> _Server:
    place = Path(tempfile.mkdtemp(prefix="lnh-"))
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(place / "commands"))
        listening.listen(64)
        process = subprocess.Popen(
            [sys.executable, __file__, str(listening.fileno()), str(place)],
            stdin=subprocess.PIPE, pass_fds=[listening.fileno()], start_new_session=True,
        )  # fmt: skip
    return _Server(str(place / "commands"), process)


def _received(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def _serve(listening: socket.socket, place: Path) -> None:
    Child(["lnh", "--version"], os.environ, forked=True).wait()  # which imports it all
    selector = selectors.DefaultSelector()
    for source in (listening, sys.stdin):
        selector.register(source, selectors.EVENT_READ)
    while True:
        ready = [key.fileobj for key, _ in selector.select()]
        if sys.stdin in ready:
            shutil.rmtree(place, ignore_errors=True)
            return
        connection, _ = listening.accept()
        with connection:
            if os.fork() == 0:
                _answer(connection)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _answer(connection: socket.socket) -> None:
    words, environment = json.loads(_received(connection))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nobody answers a question
    done = Child(words, environment, forked=True).wait()
    connection.sendall(json.dumps([done.code, done.out, done.err]).encode())
    os._exit(0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))
