"""Real processes for tests: started, waited for by condition, and always ended, also when the test fails."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from typing_extensions import Self

from lnh_common.bus.blocking import Caller
from lnh_common.errors import LnhError
from lnh_common.messages import member
from lnh_common.messages.base import Empty, Message, Operation
from lnh_services.configuration import PORTS, Settings, TimeoutSettings
from lnh_services.initialise import initialise_member
from lnh_services.paths import MemberDirectory
from waits import wait_until

R = TypeVar("R", bound=Message)

STARTUP = Path(__file__).with_name("startup")  # on the path of each Python that a test starts


def own_share(ports: range) -> range:
    """This process's part of ports that are drawn by `PORTS`: no other of the processes of one `pytest -n` gets those.

    What is bound only later, or is not bound while its member is stopped, would be drawn by another.
    """
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    each = len(ports) // count // PORTS * PORTS
    return ports[number * each : (number + 1) * each]


def free_base_port() -> int:
    """The first of five consecutive ports that nobody was given before, below those the system hands out."""
    for base in _bases:
        with contextlib.ExitStack() as bound:
            try:
                for port in range(base, base + PORTS):
                    one = bound.enter_context(socket.socket())
                    one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise AssertionError("no five free ports in a row")


def _drawn(ports: range) -> Iterator[int]:
    bases = list(ports[::PORTS])
    random.SystemRandom().shuffle(bases)
    return itertools.cycle(bases)


_bases = _drawn(own_share(range(12_000, 32_000)))


def ask(address: str, operation: Operation[Empty, R], timeout: float = 5.0) -> R:
    """Ask a service something that needs no argument."""
    with Caller(address) as caller:
        return caller.ask(operation, Empty(), timeout=timeout)


def is_alive(pid: int) -> bool:
    """Whether this process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


_TALKING = ("01", "02")  # established, and on the way there
_LISTENING = "0A"


def talk_to(port: int) -> int:
    """How many TCP connections of this machine there are to a port, those that are being tried too."""
    return sum(other == port and state in _TALKING for _, other, state in _connections())


def is_listened_to(port: int) -> bool:
    """Whether anybody listens at a TCP port of this machine."""
    return any(own == port and state == _LISTENING for own, _, state in _connections())


def _connections() -> Iterator[tuple[int, int, str]]:
    """Own port, other port and state of each."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, own, other, state, *_ = line.split()
        yield int(own.partition(":")[2], 16), int(other.partition(":")[2], 16), state


class Processes:
    """Ends all it started, and asserts that nothing that names one of its directories outlives it."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._marks: list[str] = []

    def start(self, *arguments: str, under: Sequence[str] = (), **environment: str) -> subprocess.Popen[bytes]:
        """Start `UNDER... python ARGUMENTS...`."""
        process = subprocess.Popen(
            [*under, sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
        self._started.append(process)
        return process

    def watch(self, directory: Path) -> None:
        """Nothing whose command line names this directory may be left at the end."""
        self._marks.append(str(directory))

    def left(self) -> list[int]:
        """Running processes that name a watched directory."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
                    if any(mark in command for mark in self._marks) and is_alive(int(entry.name)):
                        found.append(int(entry.name))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        killed = False
        for pid in self.left():  # what a test left standing still would not hear that it is to end
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        for process in self._started:
            if process.poll() is None:
                process.terminate()
        for process in self._started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed = True
        end = time.monotonic() + (10 if killed else 0)  # the kernel ends the children of one that was, a moment later
        while (left := self.left()) and time.monotonic() < end:
            time.sleep(0.05)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, f"processes {left} outlived their test"


def begin_with(program: str, directory: Path) -> None:
    """Have each Python with this directory on its PYTHONPATH run a program first, after what `STARTUP` has them do."""
    (directory / "sitecustomize.py").write_text((STARTUP / "sitecustomize.py").read_text() + program)


class WrongClock:
    """A clock that one service of a member goes by, and nobody else: its Python is told another time of day.

    Args:
        directory: to be on the service's PYTHONPATH; Python imports `sitecustomize` from there before anything else.
        module: that the service runs.
    """

    _PROGRAM = """
import pathlib, sys, time
if {module!r} in sys.orig_argv:
    ahead = lambda: int(pathlib.Path({file!r}).read_text())
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() + ahead()
    time.time_ns = lambda: nanoseconds() + ahead() * 10**9
"""

    def __init__(self, directory: Path, module: str) -> None:
        self.directory = directory
        self._file = directory / "ahead"
        directory.mkdir()
        self.set(0)
        begin_with(self._PROGRAM.format(module=module, file=str(self._file)), directory)

    def set(self, ahead: int) -> None:
        """How many seconds it is ahead; negative, behind."""
        new = self._file.with_suffix(".new")
        new.write_text(str(ahead))
        new.replace(self._file)


class SmallDisk:
    """A small file system over a directory, in a mount namespace of its own: only what starts `under` it sees it."""

    def __init__(self, where: Path, megabytes: int) -> None:
        self.namespace = (
            ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
        )
        self._mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "none", str(where)]
        self.holder = subprocess.Popen(
            [*self.namespace, "sh", "-c", f"{' '.join(self._mount)} && echo ready && exec sleep 600"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.holder.stdout is not None
        self.works = self.holder.stdout.readline() == b"ready\n"
        self.where, self.megabytes = where, megabytes
        self.path = Path(f"/proc/{self.holder.pid}/root") / where.relative_to("/")

    def enter(self) -> list[str]:
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self.holder.pid), "--mount", *user]

    def fill(self) -> None:
        descriptor = os.open(self.path / "filler", os.O_CREAT | os.O_WRONLY)
        try:
            size = os.statvfs(descriptor)
            assert size.f_blocks * size.f_frsize <= self.megabytes << 20, "this is the small disk, and no other"
            with contextlib.suppress(OSError):  # that it is full is what is wanted
                while os.write(descriptor, b"f" * 4096):
                    pass
        finally:
            os.close(descriptor)

    def free(self) -> None:
        (self.path / "filler").unlink()

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        self.fill()
        try:
            yield
        finally:
            self.free()

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """For root, too."""
        self._remount("ro")
        try:
            yield
        finally:
            self._remount("rw")

    def _remount(self, how: str) -> None:
        subprocess.run([*self.enter(), "mount", "-o", f"remount,{how}", str(self.where)], check=True)

    @contextlib.contextmanager
    def lost(self) -> Iterator[None]:
        """It is not mounted, and where it was there is nothing; at the end another one, empty, takes its place."""
        command = [*self.enter(), "umount", str(self.where)]
        wait_until(lambda: subprocess.run(command, check=False).returncode == 0, "a moment when nobody reads there")
        shutil.rmtree(self.where)  # what was put there from outside, too
        try:
            yield
        finally:
            self.where.mkdir(mode=0o700)
            subprocess.run([*self.enter(), *self._mount], check=True)

    def end(self) -> None:
        self.holder.kill()
        self.holder.wait()


class RunningMember:
    """A member directory and, once started, its supervisor."""

    def __init__(self, processes: Processes, root: Path, name: str = "A", **settings: int) -> None:
        self.processes = processes
        self.directory = MemberDirectory(root)
        self.settings = Settings(
            name=name,
            base_port=free_base_port(),
            workers=settings.pop("workers", 1),
            timeouts=TimeoutSettings(**settings),
        )
        initialise_member(self.directory, self.settings)
        processes.watch(root)

    def start(self, under: Sequence[str] = (), **environment: str) -> subprocess.Popen[bytes]:
        """Start the supervisor and wait until every service is running."""
        arguments = ("-m", "lnh_services.member", "--member-dir", str(self.directory.root))
        process = self.processes.start(*arguments, under=under, **environment)
        wait_until(self.is_ready, "a ready member")
        return process

    def is_ready(self) -> bool:
        with contextlib.suppress(LnhError):
            return ask(self.directory.supervisor_address, member.STATUS, timeout=1).ready
        return False

    def service(self, name: str) -> member.ServiceState:
        """One service as the supervisor tells it."""
        status = ask(self.directory.supervisor_address, member.STATUS)
        return next(one for one in status.services if one.name == name)
