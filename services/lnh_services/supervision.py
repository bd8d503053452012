"""The processes of one member: each is started, watched, asked for its status, restarted, and stopped in order.

One that dies is started again; one whose process lives and answers nothing is ended first (`silence.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from lnh_common import limits
from lnh_common.bus.client import Client
from lnh_common.bus.server import Call, Server
from lnh_common.errors import DeadlineExceeded, LnhError, Unreachable
from lnh_common.events import Log
from lnh_common.messages import backup, balancer, console, membership, store
from lnh_common.messages import member as messages
from lnh_common.messages.base import Empty, Operation
from lnh_common.messages.session import PROBE
from lnh_services.paths import MemberDirectory
from lnh_services.restart import Restarts
from lnh_services.serving import SUPERVISOR_VARIABLE, Member
from lnh_services.silence import Silence

_PROBE_EVERY: Final = 2.0  # seconds between looks at a service that answers
_PROBES: Final = 5  # of which one asks for its status, and the others whether its loop turns
_LINE: Final = 500  # characters of a line of a service's standard error that are kept

_log: Final = Log("member")


class State(str, enum.Enum):
    """The state of one service's process."""

    STARTING = "starting"  # its process lives; its status has not answered yet
    RUNNING = "running"
    SILENT = "silent"  # its process lives; its status answered once and does not now
    WAITING = "waiting"  # for its next start
    STOPPED = "stopped"


@dataclass(frozen=True)
class Kind:
    """One service: its module under lnh_services, and the question that asks whether it serves."""

    name: str
    status: Operation[Empty, Any]
    address: Callable[[MemberDirectory], str]


# In the order they start; they stop in STOP_ORDER: what takes requests first, what keeps them last.
SERVICES: Final = (
    Kind("store", store.STATUS, lambda directory: directory.store_for_services),
    Kind("hsm", console.HSM_SHOW, lambda directory: directory.hsm_for_services),
    Kind("membership", membership.STATUS, lambda directory: directory.membership_for_services),
    Kind("balancer", balancer.STATUS, lambda directory: directory.balancer_status),
    Kind("backup", backup.STATUS, lambda directory: directory.backup_for_services),
)
STOP_ORDER: Final = ("balancer", "hsm", "membership", "backup", "store")


class Child:
    """Runs one service's process, over and over."""

    def __init__(self, kind: Kind, member: Member) -> None:
        self.kind: Final = kind
        self._member: Final = member
        self._restarts: Final = Restarts()
        self._loop: Final = asyncio.get_running_loop()
        self._stopping: Final = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._state = State.WAITING
        self._since = self._loop.time()
        self._exit: int | None = None

    @property
    def state(self) -> State:
        """The state of the process."""
        return self._state

    def view(self) -> messages.ServiceState:
        """Describe the process as `member.status` tells it."""
        return messages.ServiceState(
            name=self.kind.name,
            state=self._state.value,
            pid=self._process.pid if self._process is not None else 0,
            restarts=self._restarts.count,
            since=round(self._loop.time() - self._since, 3),
            exit=self._exit,
        )

    async def keep(self) -> None:
        """Keep the service running until `stop`."""
        while not self._stopping.is_set():
            begun = self._loop.time()
            await self._live()
            if self._stopping.is_set():
                break
            delay = self._restarts.died(self._loop.time() - begun)
            self._enter(State.WAITING)
            _log.warning("service died", service=self.kind.name, exit=self._exit, restart_in=delay)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
        self._enter(State.STOPPED)

    async def _live(self) -> None:
        """Run the process once, from its start to its end."""
        self._enter(State.STARTING)
        module = f"lnh_services.{self.kind.name}"
        command = [sys.executable, "-m", module, "--member-dir", str(self._member.directory.root)]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # a terminal's Ctrl-C is for the supervisor, which stops them in order
                env={**os.environ, SUPERVISOR_VARIABLE: str(os.getpid())},
            )
        except OSError as error:
            _log.failure("service not started", service=self.kind.name, problem=error.strerror)
            return
        self._process = process
        if self._stopping.is_set():
            self.signal(signal.SIGTERM)
        _log.info("service started", service=self.kind.name, pid=process.pid)
        watching = asyncio.create_task(self._watch())
        try:
            assert process.stderr is not None, "it was asked for as a pipe"
            await self._relay(process.stderr)
            self._exit = await process.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            self._process = None

    async def _watch(self) -> None:
        """Ask the process for its status for as long as it lives; end it if it answers nothing at all for too long.

        A status may wait for another service, so a missing one says nothing about this process. A question that nobody
        serves tells whether its loop turns: whatever reads the socket refuses it, at a tenth of what a status costs.
        """
        timeout = self._member.settings.timeouts.status / 1000
        client = Client(self.kind.address(self._member.directory), name="member.probe")
        silence = Silence(
            self._loop.time(), starting=limits.SERVICE_STARTING, patience=self.patience(), longest=3 * timeout
        )
        try:
            for number in itertools.count():
                is_probe = self._state is State.RUNNING and number % _PROBES > 0
                if await _serves(client, PROBE if is_probe else self.kind.status, timeout):
                    silence.answered(self._loop.time())
                    self._enter(State.RUNNING)
                    await asyncio.sleep(_PROBE_EVERY)
                    continue
                if self._state is State.RUNNING:
                    self._enter(State.SILENT)
                if await _serves(client, PROBE, timeout):
                    silence.answered(self._loop.time())
                elif silence.unanswered(self._loop.time()):
                    _log.failure("service killed: no answer", service=self.kind.name, seconds=round(silence.seconds, 1))
                    self.signal(signal.SIGKILL)
                    return
        finally:
            await client.close()

    def patience(self) -> float:
        """Count the seconds without an answer after which the process is ended."""
        settings = self._member.settings
        by_hand = self.kind.name == "hsm" and not settings.activation.file
        return settings.timeouts.silence / 1000 * (limits.SEALING_PATIENCE if by_hand else 1)

    async def _relay(self, stream: asyncio.StreamReader) -> None:
        """Write the process's standard error (it should be empty) to the supervisor's bounded log."""
        rest = b""
        while chunk := await stream.read(4096):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-_LINE:]
            for line in lines:
                _log.warning("stderr", service=self.kind.name, line=line[:_LINE].decode("utf-8", "replace"))

    def stop(self) -> None:
        """Ask the process to end, and start it no more."""
        self._stopping.set()
        self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Send the process a signal, if it lives."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _enter(self, state: State) -> None:
        if state is self._state:
            return
        self._state = state
        self._since = self._loop.time()
        _log.debug("service state", service=self.kind.name, state=state.value)


class Supervisor:
    """Runs all services of one member; made and run within a running loop."""

    def __init__(self, member: Member) -> None:
        self._member: Final = member
        self._children: Final = {kind.name: Child(kind, member) for kind in SERVICES}
        self._stopping: Final = asyncio.Event()
        self._hurry: Final = asyncio.Event()

    def stop(self) -> None:
        """End `run` in order; a second call ends it at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def run(self) -> None:
        """Keep all services running until `stop`, then stop them in order."""
        server = Server(self._member.directory.supervisor_address, name="member")
        server.serve(messages.STATUS, self._status)
        server.start()
        lives = {name: asyncio.create_task(child.keep()) for name, child in self._children.items()}
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            # A life ends before the stop only by a bug in here; then everything stops, and the bug is raised.
            await asyncio.wait([stopped, *lives.values()], return_when=asyncio.FIRST_COMPLETED)
            for name in STOP_ORDER:
                await self._end(self._children[name], lives[name])
            await asyncio.gather(*lives.values())
        finally:
            for child in self._children.values():
                child.signal(signal.SIGKILL)
            stopped.cancel()
            await asyncio.gather(stopped, return_exceptions=True)
            await server.close(grace=0.2)

    async def _end(self, child: Child, life: asyncio.Task[None]) -> None:
        """Stop one service: asked first, killed when its time is over or `stop` was called again."""
        child.stop()
        hurry = asyncio.create_task(self._hurry.wait())
        grace = self._member.settings.timeouts.stop / 1000
        await asyncio.wait([life, hurry], timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not life.done():
            _log.warning("service killed", service=child.kind.name, after=grace)
            child.signal(signal.SIGKILL)
            await asyncio.wait([life])

    async def _status(self, call: Call, request: Empty) -> messages.Status:
        children = self._children.values()
        return messages.Status(
            ready=all(child.state is State.RUNNING for child in children),
            services=tuple(child.view() for child in children),
        )


async def _serves(client: Client, status: Operation[Empty, Any], timeout: float) -> bool:
    """Tell whether the service answers; a refusal is an answer."""
    try:
        await client.ask(status, Empty(), timeout=timeout)
    except (Unreachable, DeadlineExceeded):
        # Unreachable may come at once, when the connection breaks; the pause keeps that from spinning.
        await asyncio.sleep(0.05)
        return False
    except LnhError:
        return True
    return True
