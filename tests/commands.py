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

from lnh_cli.demo import children
from lnh_cli.demo.children import Child, Done
from lnh_cli.demo.local import Member, Order, Steps
from lnh_common.messages import membership
from lnh_services import member
from lnh_services.paths import MemberDirectory
from processes import ask
from waits import wait_until

SECONDS = 150.0  # more than `Child` gives a command


class Forked:
    """A command that runs, as `Child` is one.

    Args:
        where: its working directory; else that of the tests.
        data: its standard input.
    """

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], where: Path | None = None, data: bytes = b""
    ) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SECONDS)
        self._socket.connect(_server().address)
        asked = [list(words), dict(environment), str(where or Path.cwd()), data.decode("latin-1")]
        self._socket.sendall(json.dumps(asked).encode())
        self._socket.shutdown(socket.SHUT_WR)

    def wait(self) -> Done:
        with self._socket:
            return Done(*json.loads(_received(self._socket)))


class ForkedSteps(Steps):
    """Steps of a test."""

    def wait_for(self, through: Member, states: dict[str, str]) -> None:
        """Wait as steps do. A command costs many times what asking the member's membership does, so that is asked first."""
        door = MemberDirectory(through.directory).membership_for_services

        def are_so() -> bool:
            seen = {each.name: each.state for each in ask(door, membership.STATUS).members}
            return states.items() <= seen.items()

        wait_until(are_so, f"members as {states}, seen by {through.name}", every=0.05)
        super().wait_for(through, states)

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
    children._mains()["lnh-member"] = lambda: sys.exit(member.main())  # what makes a member, or asks about one
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
    words, environment, where, data = json.loads(_received(connection))
    os.chdir(where)
    with tempfile.TemporaryFile() as given:  # nobody answers a question
        given.write(data.encode("latin-1"))
        given.seek(0)
        os.dup2(given.fileno(), 0)
    done = Child(words, environment, forked=True).wait()
    connection.sendall(json.dumps([done.code, done.out, done.err]).encode())
    os._exit(0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))
