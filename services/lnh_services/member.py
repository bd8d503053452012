"""The supervisor of one member (`lnh-member`): starts the five services, restarts one that dies, stops them in order.

    lnh-member --member-dir DIR --init --name A --base-port 7100     make the directory of a new member
    lnh-member --member-dir DIR                                      run it until SIGTERM or SIGINT
    lnh-member --member-dir DIR --create --name A --base-port 7100   make the directory if there is none yet, and run it
    lnh-member --member-dir DIR --wait-ready                         wait until it is ready
    lnh-member --member-dir DIR --health                             say now whether it is in order

Exit codes: 0 done, 1 failed or refused, 2 wrong usage or settings, 3 not ready in time, or not in order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final, TextIO, TypeVar

from lnh_common.bus.blocking import Caller
from lnh_common.errors import AlreadyDone, ArgumentInvalid, ConfigurationInvalid, LnhError
from lnh_common.events import Log
from lnh_common.files import NotRegular, open_regular
from lnh_common.messages import console, store
from lnh_common.messages import member as messages
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.text import shown
from lnh_services import configuration, serving
from lnh_services.configuration import ActivationSettings, LogFormat, LogSettings, Settings
from lnh_services.initialise import initialise_member
from lnh_services.paths import MemberDirectory
from lnh_services.serving import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from lnh_services.supervision import Supervisor

R = TypeVar("R", bound=Message)

EXIT_NOT_READY: Final = 3
_HEALTH_SECONDS: Final = 3.0  # for each answer


def main(arguments: list[str] | None = None) -> int:
    """Run the console script; returns the exit code."""
    options = _parser().parse_args(arguments)
    directory = MemberDirectory(options.member_dir)
    try:
        if options.init:
            return _init(directory, options)
        if options.wait_ready:
            return _wait_ready(directory, options.timeout)
        if options.health:
            return _health(directory)
        if options.create and not directory.settings.exists():
            _init(directory, options)
        return _run(directory)
    except ConfigurationInvalid as error:
        return _refused(error, EXIT_USAGE)
    except LnhError as error:
        return _refused(error, EXIT_FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lnh-member", description="Runs one member of an HSM cluster.")
    parser.add_argument("--member-dir", required=True, metavar="DIR", help="the member's directory")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--init", action="store_true", help="make the directory of a new member and exit")
    mode.add_argument("--create", action="store_true", help="make the directory if it is not there yet, and run it")
    mode.add_argument("--health", action="store_true", help="say whether the running member is in order and exit")
    mode.add_argument("--wait-ready", action="store_true", help="wait until the running member is ready and exit")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="of --wait-ready (30)")
    new = parser.add_argument_group("settings of a new member (--init, --create)")
    new.add_argument("--name", default=os.environ.get("LNH_NAME"), help="unique in the cluster")
    port = os.environ.get("LNH_BASE_PORT")
    new.add_argument("--base-port", type=int, default=port, help="the first of five consecutive ports")
    new.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS", help="bind to it (127.0.0.1)")
    new.add_argument("--advertise", default="", metavar="HOST", help="where others reach it (the listen address)")
    new.add_argument("--workers", type=int, default=0, help="hsm worker processes (one a core)")
    new.add_argument("--activation-file", default="", metavar="FILE", help="activate the HSM at start from this secret")
    new.add_argument("--log-format", choices=[each.value for each in LogFormat], default=LogFormat.JSON.value)
    return parser


def _refused(error: LnhError, code: int) -> int:
    print(f"refused: {shown(str(error))}\ntry: {error.advice}", file=sys.stderr)
    return code


def _init(directory: MemberDirectory, options: argparse.Namespace) -> int:
    if not options.name or options.base_port is None:
        raise ArgumentInvalid("a new member needs --name and --base-port")
    settings = Settings(
        name=options.name,
        base_port=options.base_port,
        listen=options.listen,
        advertise=options.advertise,
        workers=options.workers,
        activation=ActivationSettings(file=options.activation_file),
        log=LogSettings(format=LogFormat(options.log_format)),
    ).checked()
    initialise_member(directory, settings)
    root = shown(str(directory.root))
    print(f"member {settings.name} in {root}, ports {settings.client_port} to {settings.door_port}")
    if not options.create:
        print(f"next: lnh-member --member-dir {root}")
    return EXIT_OK


def _wait_ready(directory: MemberDirectory, timeout: float) -> int:
    """Wait until the five services answer, and an HSM that activates at start is activated."""
    end = time.monotonic() + timeout
    activates = bool(configuration.load(directory.settings).activation.file)
    problem = "the supervisor does not answer"
    with (
        Caller(directory.supervisor_address, reach=timeout) as supervisor,
        Caller(directory.hsm_for_services, reach=timeout) as hsm,
    ):
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(LnhError):
                status = supervisor.ask(messages.STATUS, Empty(), timeout=left)
                down = ", ".join(f"{one.name} is {one.state}" for one in status.services if one.state != "running")
                problem = down or "not every service answers"
                if status.ready:
                    problem = "the HSM does not answer"
                    view = hsm.ask(console.HSM_SHOW, Empty(), timeout=left)
                    if view.state != "sealed" or not (activates or view.tpm):
                        return EXIT_OK
                    problem = "the HSM is not activated; its log says why"
            time.sleep(min(0.05, max(0.0, left)))
    print(f"not ready: {shown(problem)}", file=sys.stderr)
    return EXIT_NOT_READY


def _health(directory: MemberDirectory) -> int:
    """Tell whether the five services answer, an HSM that activates at start is activated, and the store is in order.

    A member without a cluster, and one that is cut off or catches up, are in order: a restart would not mend them.
    """
    problem = _problem(directory, configuration.load(directory.settings))
    print(shown(problem) or "in order")
    return EXIT_NOT_READY if problem else EXIT_OK


def _problem(directory: MemberDirectory, settings: Settings) -> str:
    def ask(address: str, operation: Operation[Empty, R]) -> R:
        with Caller(address, reach=_HEALTH_SECONDS) as caller:
            return caller.ask(operation, Empty(), timeout=_HEALTH_SECONDS)

    try:
        services = ask(directory.supervisor_address, messages.STATUS).services
        if down := ", ".join(f"{one.name} is {one.state}" for one in services if one.state != "running"):
            return down
        hsm = ask(directory.hsm_for_services, console.HSM_SHOW)
        if hsm.state == "sealed" and (settings.activation.file or hsm.tpm):
            return "the HSM is not activated"
        status = ask(directory.store_for_services, store.STATUS)
    except LnhError as error:
        return str(error)
    return f"the store failed: {status.problem}" if status.state == "failed" else ""


def _run(directory: MemberDirectory) -> int:
    member = serving.open_member("member", directory, stderr=True)
    with _lock(directory.lock):
        asyncio.run(_supervise(member))
    return EXIT_OK


async def _supervise(member: serving.Member) -> None:
    log = Log("member")
    supervisor = Supervisor(member)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    log.info("started", member=member.settings.name, directory=str(member.directory.root), pid=os.getpid())
    await supervisor.run()
    log.info("stopped")


def _lock(path: Path) -> TextIO:
    """Hold the directory for this supervisor; the lock ends with the process. Raises AlreadyDone."""
    try:
        file = os.fdopen(open_regular(path, os.O_RDWR | os.O_CREAT), "r+")
    except NotRegular as error:
        raise ConfigurationInvalid(f"{path}: {error.strerror}; remove it") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            raise AlreadyDone(f"a supervisor (process {file.read(20).strip()}) runs {path.parent.parent}") from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


if __name__ == "__main__":
    sys.exit(main())
