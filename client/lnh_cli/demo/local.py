"""`lnh up`, `lnh down`, and the steps of `lnh demo`: a cluster on this machine, by the commands that a user would type.

Every step is a command of this product (or `openssl`), run as it is shown. Secrets are random and in files of mode 0600
under one directory; ports are free ones.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from lnh_cli.demo import processes
from lnh_cli.demo.children import Child
from lnh_cli.support import terminal, words
from lnh_cli.support.programs import program

_PORTS: Final = 5
_FIRST_PORT: Final = 7100
_LAST_PORT: Final = 9100
_DIRECTORY_BYTES: Final = 60  # a longer path leaves no room for the names of the member's sockets
_STOP_SECONDS: Final = 30.0
_COMES_SECONDS: Final = 60.0
_LOOK_EVERY: Final = 0.1
_SECRETS: Final = ("activation", "so", "domain", "admin", "po", "krso-first", "krso", "krco")
_NAMES: Final = ("a", "b", "c")
_PASSWORD_VARIABLES: Final = ("SO", "ADMIN", "PO", "KRSO", "KRCO")
_TABS: Final = "  "


class StepFailed(Exception):
    """A command of the demo ended in another way than it should."""


class Member:
    """One member of a place: its directory, and the process number of its supervisor in a file."""

    def __init__(self, root: Path, letter: str) -> None:
        self.name = f"member-{letter}"
        self.directory = root / letter
        self.pid_file = root / f"{letter}.pid"
        self.address = root / f"{letter}.address"
        self.client = root / f"client-{letter}"  # configuration and runtime directory of a client that goes through it

    def variables(self) -> dict[str, str]:
        """Return the environment of a client machine whose first point of contact this member is."""
        return {"LNH_CONFIG": str(self.client), "XDG_RUNTIME_DIR": str(self.client / "runtime")}

    def running(self) -> int | None:
        """Return the supervisor's process number, if it runs."""
        return _running(self.pid_file, os.fsencode(self.directory))

    def stop(self) -> None:
        """Tell the member to end, if it runs, and wait until it has; raises StepFailed when it goes on."""
        self.begin_to_stop()
        self.wait_for_end()

    def begin_to_stop(self) -> None:
        """Tell the member to end, if it runs."""
        pid = self.running()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)

    def wait_for_end(self) -> None:
        """Wait until the member runs no more, and none of its processes is left; raises StepFailed when it goes on."""
        ends = time.monotonic() + _STOP_SECONDS
        while (pid := self.running()) is not None:
            if time.monotonic() > ends:
                raise StepFailed(f"{self.name} (process {pid}) did not stop within {_STOP_SECONDS:.0f} s")
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.05)  # between looks at a process that may be none of our children
        try:
            processes.wait_for_end(self.directory, _STOP_SECONDS)
        except TimeoutError as error:
            raise StepFailed(f"{self.name} did not stop within {_STOP_SECONDS:.0f} s: {error}") from None
        self.pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """Kill every process of the member at once, as a power cut would, and wait until none is left.

        Raises StepFailed when one goes on.
        """
        try:
            processes.kill(self.directory)
        except TimeoutError as error:
            raise StepFailed(f"{self.name} was killed: {error}") from None
        self.wait_for_end()


class Rest:
    """The REST service of a place, with the dashboard: a client like any other, at a loopback address."""

    def __init__(self, root: Path) -> None:
        self.pid_file = root / "rest.pid"
        self.port = root / "rest.port"
        self.log = root / "rest.log"

    @property
    def url(self) -> str:
        """The address of the dashboard."""
        return f"http://127.0.0.1:{self.port.read_text().strip()}/"

    def running(self) -> int | None:
        """Return its process number, if it runs."""
        try:
            port = self.port.read_bytes().strip()
        except OSError:
            return None
        return _running(self.pid_file, port)

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it, where it was before if it was, and wait until it serves; raises StepFailed when it does not.

        Args:
            environment: in which a command finds the cluster.
        """
        if not self.port.exists():
            self.port.write_text(f"{free_ports()}\n")
        port = int(self.port.read_text())
        command = [program("lnh"), "rest", "serve", "--plain-http", "--port", str(port)]
        with os.fdopen(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
            running = subprocess.Popen(
                command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.pid_file.write_text(f"{running.pid}\n")
        ends = time.monotonic() + _COMES_SECONDS
        while not _listens(port):
            if running.poll() is not None or time.monotonic() > ends:
                raise StepFailed(f"the REST service does not serve: look at {self.log}")
            time.sleep(_LOOK_EVERY)  # the processor is for the service

    def stop(self) -> None:
        """Tell it to end, if it runs, and wait until it has; raises StepFailed when it goes on."""
        pid = self.running()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            ends = time.monotonic() + _STOP_SECONDS
            while self.running() is not None:
                if time.monotonic() > ends:
                    raise StepFailed(f"the REST service (process {pid}) did not stop within {_STOP_SECONDS:.0f} s")
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                time.sleep(0.05)  # between looks at a process that may be none of our children
        self.pid_file.unlink(missing_ok=True)


def _running(pid_file: Path, word: bytes) -> int | None:
    """Return the process number in a file, if that process runs; a number that another process has now does not count.

    Args:
        word: of its command line.
    """
    try:
        pid = int(pid_file.read_text())
        process = Path("/proc") / str(pid)
        words = (process / "cmdline").read_bytes().split(b"\0")
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return pid if word in words and state != "Z" else None


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(1)
        return tried.connect_ex(("127.0.0.1", port)) == 0


class Place:
    """One cluster's directory: its members, a client's configuration, secrets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rest = Rest(root)
        self.members = tuple(Member(root, letter) for letter in _NAMES)
        self.first = self.members[0]
        self.ready = root / "ready"  # there once the cluster is set up

    def secret(self, name: str) -> Path:
        """Return the path of a secret."""
        return self.root / "secrets" / name

    def create(self) -> None:
        """Make the directories, with a fresh random secret in each file."""
        for directory in (self.root, self.root / "secrets", *(member.client / "runtime" for member in self.members)):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _SECRETS:
            descriptor = os.open(self.secret(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(18) + "\n")

    def is_one(self) -> bool:
        """Tell whether this directory is gone, or one that `create` made: nothing else is ever removed."""
        return not self.root.exists() or (self.root / "secrets").is_dir()

    def variables(self) -> dict[str, str]:
        """Return the environment in which every command finds this cluster and its passwords."""
        return {
            **self.first.variables(),
            "LNH_MEMBER_DIR": str(self.first.directory),
            **{f"LNH_{name}_PASSWORD_FILE": str(self.secret(name.lower())) for name in _PASSWORD_VARIABLES},
        }


@dataclass(frozen=True)
class Order:
    """One command, and the member on whose client machine it runs; else the first's."""

    words: tuple[str | Path, ...]
    through: Member | None = None


class Steps:
    """Runs and shows one command after another, or several at once.

    Args:
        forks: whether commands may be copies of this process, which has no other thread then.
    """

    def __init__(self, place: Place, *, quiet: bool = False, forks: bool = False) -> None:
        self.place = place
        self.quiet = quiet
        self.environment = {**os.environ, **place.variables()}
        self._forks = forks

    def say(self, text: str) -> None:
        """Show a headline, unless this is quiet."""
        if not self.quiet:
            typer.secho(f"\n{text}", bold=True)

    def run(self, *command: str | Path, fails_with: int = 0, show: bool = True, through: Member | None = None) -> str:
        """Run a command of this installation, show it and what it says.

        Args:
            fails_with: the exit code it ends with; raises StepFailed for another.
            through: the member whose client machine runs it; else the first.
        """
        return self.together([Order(command, through)], fails_with=fails_with, show=show)[0]

    def together(self, orders: Sequence[Order], *, fails_with: int = 0, show: bool = True) -> list[str]:
        """Run several commands at once, show them and what they say in their order; raises StepFailed as `run` does."""
        running = [(order, self._start(order)) for order in orders]
        ended = [(order, child.wait()) for order, child in running]
        for order, done in ended:
            words = self._shown(order.words)
            said = (done.out + done.err).rstrip()
            if show and not self.quiet:
                where = f"LNH_CONFIG={self._short(str(order.through.client))} " if order.through is not None else ""
                typer.secho(f"{_TABS}$ {where}{words}", fg="cyan")
            if done.code != fails_with:
                raise StepFailed(f"{words}\nended with {done.code}:\n{said}")
            if said and show and not self.quiet:
                for line in said.splitlines():
                    terminal.echo(line, styled=_TABS)
        return [done.out for _, done in ended]

    def _start(self, order: Order) -> Child:
        return Child([str(word) for word in order.words], self._environment_of(order.through), forked=self._forks)

    def start(self, member: Member | None = None) -> int:
        """Start a member's supervisor, the first's unless one is named, and wait until it is ready.

        Returns its process number.
        """
        return self.start_all([member or self.place.first])[0]

    def start_all(self, members: Sequence[Member]) -> list[int]:
        """Start the supervisors of several at once, and wait until each is ready; returns their process numbers."""
        started = []
        for member in members:
            command = [program("lnh-member"), "--member-dir", str(member.directory)]
            if not self.quiet:
                typer.secho(f"{_TABS}$ lnh-member --member-dir {self._short(str(member.directory))} &", fg="cyan")
            running = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            member.pid_file.write_text(f"{running.pid}\n")
            started.append(running.pid)
        waits = [("lnh-member", "--member-dir", member.directory, "--wait-ready") for member in members]
        self.together([Order(words) for words in waits])
        return started

    def kill(self, member: Member) -> None:
        """Kill every process of a member at once, as a power cut would, and wait until none is left."""
        if not self.quiet:
            typer.secho(f'{_TABS}$ pkill -9 -f "member-dir {self._short(str(member.directory))}"', fg="cyan")
        member.kill()

    def _environment_of(self, member: Member | None) -> dict[str, str]:
        return {**self.environment, **(member.variables() if member is not None else {})}

    def wait_for(self, through: Member, states: dict[str, str]) -> None:
        """Wait until a member sees these members in these states, and show its view.

        Raises StepFailed when it does not.
        """
        command = ("lnh", "member", "list")
        ends = time.monotonic() + _COMES_SECONDS
        while True:
            listed = self._start(Order((*command, "--json"), through)).wait()
            found = {}
            if listed.code == 0:
                found = {view["name"]: view["state"] for view in json.loads(listed.out)}
            if states.items() <= found.items():
                break
            if time.monotonic() > ends:
                raise StepFailed(f"members are {found}, not {states}: {listed.err}")
            time.sleep(_LOOK_EVERY)  # the processor is for the members
        self.run(*command, through=through)

    def _short(self, word: str) -> str:
        return word.replace(str(self.place.root), "$D")

    def _shown(self, words: Iterable[str | Path]) -> str:
        return " ".join(self._short(word) if "/" in word else shlex.quote(word) for word in map(str, words))


def free_ports(but: Collection[int] = ()) -> int:
    """Find the first of five consecutive ports that are free on loopback, none of `but`; raises StepFailed without any.

    The search begins anywhere in the range, so that two searches at the same time seldom find the same.
    """
    bases = range(_FIRST_PORT, _LAST_PORT, _PORTS)
    begin = secrets.randbelow(len(bases))
    for base in itertools.chain(bases[begin:], bases[:begin]):
        if base in but:
            continue
        with contextlib.ExitStack() as held:
            try:
                for port in range(base, base + _PORTS):
                    one = held.enter_context(socket.socket())
                    one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise StepFailed(f"no five free ports from {_FIRST_PORT} to {_LAST_PORT}")


def set_up(steps: Steps) -> None:
    """Make a running one-member cluster with a registered client from an empty directory."""
    place = steps.place
    steps.say("Make a member's directory, and start its five services")
    _begin_members(steps, [place.first])
    steps.say("Initialise the appliance with its first admin, and the HSM with its security officer")
    steps.run("lnh", "appliance", "init", "--admin", "admin", "--password-file", place.secret("admin"))
    _begin_hsms(steps, [place.first])
    steps.say("Install the cluster package, and create the cluster: its V1 partition, PO, SMK and identity")
    steps.run("lnh", "package", "install", "cluster", "--yes")
    steps.run("lnh", "cluster", "create", "demo", "--po-password-file", place.secret("po"))
    steps.say("Register this client: the fingerprint is checked, an admin lets it in")
    register(steps, place.first)
    log_in(steps)


def log_in(steps: Steps) -> None:
    """Log in as the admin together with the PO, and keep the session: the commands that follow ask for no password."""
    steps.say("Log in, as the admin together with the PO; the session is kept for what follows")
    steps.run("lnh", "user", "login", "--po")


def _begin_members(steps: Steps, members: Sequence[Member]) -> None:
    """Make the members' directories, and start them."""
    taken: set[int] = set()
    for member in members:
        taken.add(port := free_ports(taken))
        member.address.write_text(f"127.0.0.1:{port}\n")
    make_directories(steps, *members)
    steps.start_all(members)


def make_directories(steps: Steps, *members: Member) -> None:
    """Make the directories of members that have an address."""
    orders = []
    for member in members:
        port = member.address.read_text().strip().rpartition(":")[2]
        words = ("--name", member.name, "--base-port", port, "--activation-file", steps.place.secret("activation"))
        orders.append(Order(("lnh-member", "--member-dir", member.directory, "--init", *words)))
    steps.together(orders)


def _begin_hsms(steps: Steps, members: Sequence[Member]) -> None:
    files = (
        "--activation-file", steps.place.secret("activation"), "--domain-file", steps.place.secret("domain"),
    )  # fmt: skip
    steps.together(
        [
            Order(("lnh", "hsm", "init", "--member-dir", member.directory, "--label", member.name, *files))
            for member in members
        ]
    )


def register(steps: Steps, *members: Member) -> None:
    """Register a client machine for each of these members, whose first point of contact it is."""
    orders = []
    for member in members:
        shown = steps.run("lnh", "cluster", "show", "--member-dir", member.directory, "--json", show=False)
        cluster = json.loads(shown)
        words = (
            "LNHClientRegistration", "--member", member.address.read_text().strip(), "--cluster-id", cluster["cluster"],
            "--fingerprint", cluster["fingerprint"], "--user", "admin", "--name", f"client-of-{member.name}",
            "--password-file", steps.place.secret("admin"),
        )  # fmt: skip
        orders.append(Order(words, member))
    steps.together(orders)


def prepare(steps: Steps, *members: Member) -> None:
    """Start new members of the same cloning domain, ready to join a cluster."""
    _begin_members(steps, members)
    _begin_hsms(steps, members)
    package = ("lnh", "package", "install", "cluster", "--yes", "--member-dir")
    steps.together([Order((*package, member.directory)) for member in members])


def join_all(steps: Steps) -> None:
    """Have the other members join, and register a client machine through each of them too."""
    place = steps.place
    others = place.members[1:]
    steps.say("Make two more members at once, of the same cloning domain")
    prepare(steps, *others)
    for number, member in enumerate(others, 1):
        steps.say(f"{member.name} joins: an invitation from the cluster, then the SMK from HSM to HSM")
        invitation = place.root / f"invitation-{number}"
        steps.run("lnh", "member", "invite", "--output", invitation)
        steps.run("lnh", "cluster", "join", "--member-dir", member.directory, "--invitation", invitation)
    steps.say("Register a client machine through each of them")
    register(steps, *others)
    steps.wait_for(place.first, {member.name: "read-write" for member in place.members})


def make_keyring(steps: Steps) -> None:
    """Create a keyring whose KRSO has its own password and has set the KRCO."""
    place = steps.place
    steps.say("Create a keyring; give its KRSO a first password, which is good only for being changed; set the KRCO")
    steps.run("lnh", "keyring", "create", "payments")
    steps.run("lnh", "role", "init", "--keyring", "payments", "--new-password-file", place.secret("krso-first"))
    steps.run(
        "lnh", "role", "password", "--keyring", "payments", "--role", "krso",
        "--password-file", place.secret("krso-first"), "--new-password-file", place.secret("krso"),
    )  # fmt: skip
    steps.run(
        "lnh", "role", "init", "--keyring", "payments", "--role", "krco", "--new-password-file", place.secret("krco")
    )


def stop(place: Place) -> None:
    """Stop every member of a place that runs, and its REST service; raises StepFailed when one does not end."""
    place.rest.stop()
    for member in place.members:
        member.begin_to_stop()
    for member in place.members:
        member.wait_for_end()


Directory = Annotated[Path, typer.Option("--dir", help="Where it lives.")]


def _place_of(directory: Path) -> Place:
    root = directory.absolute()
    pointer = root / "place"
    if pointer.exists():
        return Place(Path(pointer.read_text().strip()))
    return Place(root)


def up(directory: Directory = Path(".lnh-demo")) -> None:
    """Start three members with a registered client, a keyring and the dashboard, and leave them running."""
    place = _place_of(directory)
    try:
        if place.ready.exists():
            for member in place.members:
                if member.running() is None:
                    Steps(place, quiet=True).start(member)
        elif place.root.exists() and any(place.root.iterdir()):
            terminal.refuse(
                f"{directory} is not empty, and holds no finished cluster",
                f"lnh down --dir {directory} removes one that was not finished",
            )
        else:
            place = _begin(directory, place)
            steps = Steps(place, quiet=True, forks=True)
            steps.environment["LNH_WORKERS"] = steps.environment.get(
                "LNH_WORKERS", "1"
            )  # three members share the cores
            set_up(steps)
            make_keyring(steps)
            join_all(steps)
            place.ready.touch()
        if _can_serve() and place.rest.running() is None:
            place.rest.start({**os.environ, **place.variables()})
    except BaseException as error:  # an interrupted start leaves no process behind
        stop(place)
        if isinstance(error, StepFailed):
            terminal.refuse(
                str(error), f"look at the members' logs in {place.root}/*/log, then lnh down --dir {directory}"
            )
        raise
    typer.echo(f"A cluster runs in {place.root}. To use it:")
    if shutil.which("lnh") is None:
        typer.echo(f"{_TABS}export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
    for name, value in place.variables().items():
        typer.echo(f"{_TABS}export {name}={shlex.quote(value)}")
    typer.echo(f"{_TABS}lnh key generate --keyring payments first --type EC --curve P-256")
    typer.echo(f'{_TABS}lnh pkcs11 serve & eval "$(lnh pkcs11 env)"  # for applications that speak PKCS#11')
    if place.rest.running() is not None:
        typer.echo(f"The dashboard: {place.rest.url}  user admin, password in {place.secret('admin')}")
    else:
        typer.echo(
            "The dashboard needs more to be installed: pip install 'lnh[rest]', then lnh rest serve --plain-http"
        )
    typer.echo(f"To end it: lnh down --dir {directory}")


def _can_serve() -> bool:
    """Tell whether what the REST service needs beside the product is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("starlette", "uvicorn"))


def _begin(directory: Path, place: Place) -> Place:
    """Make the directories, in another place when the path is too long for the member's sockets."""
    if len(os.fsencode(place.root)) > _DIRECTORY_BYTES:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = Place(Path(tempfile.mkdtemp(prefix="lnh-", dir="/tmp")))  # as in the demo
        (directory / "place").write_text(f"{place.root}\n")
    place.create()
    return place


def down(directory: Directory = Path(".lnh-demo"), keep: bool = False) -> None:
    """End what `lnh up` started, and remove it (`--keep` leaves its data to start again)."""
    place = _place_of(directory)
    if not directory.exists():
        typer.echo(f"{directory} holds no cluster")
        return
    if not place.is_one():
        terminal.refuse(f"{directory} was not made by lnh up", "name the directory of one that was")
    try:
        stop(place)
    except StepFailed as error:
        terminal.refuse(str(error), "end it by hand")
    if not keep:
        shutil.rmtree(place.root, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
    typer.echo("stopped" if keep else "stopped and removed")


def enter(app: typer.Typer) -> None:
    """Put the verbs at the top of the tree."""
    app.command("up", cls=words.Verb)(up)
    app.command("down", cls=words.Verb)(down)
