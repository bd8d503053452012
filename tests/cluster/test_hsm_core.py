"""The hsm core, its Argon2id process, its workers and a store as real processes, asked over their real sockets."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typer.testing import CliRunner
from typing_extensions import Self

import tpm
from lnh_cli.main import tree
from lnh_common import limits
from lnh_common.bus.blocking import Caller
from lnh_common.bus.client import Client
from lnh_common.errors import ActivationFailed, Busy, DeadlineExceeded, LnhError, NoCluster, NotActivated, Unreachable
from lnh_common.messages import console
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.hsm import ATTACH, AUDIT, DERIVE, AttachWorker, Audit, AuditEntry, Derive
from lnh_services.configuration import ActivationSettings, Settings
from lnh_services.durable import replace_file
from lnh_services.hsm.audit.trail import verify
from lnh_services.initialise import initialise_member
from lnh_services.paths import MemberDirectory
from waits import wait_until

T = TypeVar("T")
R = TypeVar("R", bound=Message)

SO, PO, ADMIN, ACTIVATION = "security officer", "partition owner", "admin password", b"activation secret"
PATIENCE = 30.0


class Member:
    """A member directory and the processes started for it."""

    def __init__(self, directory: MemberDirectory) -> None:
        self.directory = directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, service: str) -> None:
        command = [sys.executable, "-m", f"lnh_services.{service}", "--member-dir", str(self.directory.root)]
        self.processes[service] = subprocess.Popen(command)

    def stop(self, service: str, number: signal.Signals = signal.SIGTERM) -> int:
        process = self.processes.pop(service)
        process.send_signal(number)
        return process.wait(PATIENCE)

    def stop_all(self) -> None:
        """End all that runs; what goes on is killed, and the test fails."""
        goes_on = []
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for service, process in self.processes.items():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                goes_on.append(service)
        self.processes.clear()
        assert not goes_on, f"{goes_on} did not end within {PATIENCE:g} s"

    def ask(self, operation: Operation[Any, R], message: Message | None = None, address: str = "") -> R:
        with Caller(address or self.directory.hsm_console, reach=PATIENCE) as caller:
            return caller.ask(operation, message or Empty(), timeout=PATIENCE)

    def attach(self) -> Any:
        return self.ask(ATTACH, AttachWorker(number=9, worker=bytes(16)), self.directory.hsm_core)

    def children(self) -> dict[str, int]:
        """The core's children by module, number by number."""
        core = self.processes["hsm"].pid
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if int(fields[1]) == core and b"-m" in words:
                found[b" ".join(words[words.index(b"-m") + 1 :]).decode().strip()] = int(entry.name)
        return found


@contextmanager
def member(root: Path, **settings: Any) -> Iterator[Member]:
    directory = MemberDirectory(root)
    initialise_member(directory, Settings(name="a", base_port=7100, workers=1, **settings))
    made = Member(directory)
    try:
        yield made
    finally:
        made.stop_all()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Member]:
    with member(tmp_path / "m") as made:
        yield made


def initialised(made: Member) -> None:
    made.ask(console.APPLIANCE_INIT, console.InitAppliance(admin="alice", password=ADMIN))
    made.ask(console.HSM_INIT, console.InitHsm(label="hsm-a", so_password=SO, activation=ACTIVATION))


def with_cluster(made: Member) -> console.CreatedCluster:
    initialised(made)
    made.ask(console.PACKAGE_INSTALL, console.InstallPackage(so_password=SO, name="cluster"))
    return made.ask(console.CLUSTER_CREATE, console.CreateCluster(so_password=SO, label="prod", po_password=PO))


def test_an_appliance_becomes_a_cluster_and_is_the_same_after_a_restart(alone: Member) -> None:
    alone.start("hsm")
    alone.start("store")
    with pytest.raises(NoCluster, match="not initialised"):
        alone.attach()
    initialised(alone)
    with pytest.raises(NoCluster, match="it is in none"):
        alone.attach()
    alone.ask(console.PACKAGE_INSTALL, console.InstallPackage(so_password=SO, name="cluster"))
    created = alone.ask(console.CLUSTER_CREATE, console.CreateCluster(so_password=SO, label="prod", po_password=PO))
    before = alone.attach()
    assert (before.cluster.hex(), before.label, before.member_name) == (created.cluster, "prod", "a")
    wait_until(lambda: alone.ask(console.HSM_SHOW).workers, "a worker")

    assert alone.stop("hsm") == 0
    alone.start("hsm")
    assert alone.ask(console.HSM_SHOW).state == "sealed"
    with pytest.raises(NotActivated):
        alone.attach()
    with pytest.raises(ActivationFailed):
        alone.ask(console.HSM_ACTIVATE, console.Activate(activation=b"another secret"))
    alone.ask(console.HSM_ACTIVATE, console.Activate(activation=ACTIVATION))
    assert alone.attach() == before
    assert alone.ask(console.CONSOLE_CLUSTER).fingerprint == created.fingerprint
    report = alone.ask(console.AUDIT_VERIFY)
    assert report.problem == ""
    assert report.signed >= report.records - 1

    alone.ask(console.HSM_DEACTIVATE, console.Activate(activation=ACTIVATION))
    assert [name for name in alone.children() if "worker" in name] == []
    with pytest.raises(NotActivated):
        alone.attach()


@pytest.mark.parametrize("writes", [2, 3, 4])
def test_killed_while_it_creates_a_cluster_it_finishes_the_same_one(alone: Member, writes: int) -> None:
    """Killed right after the SO was accepted, the cluster was begun here, and the store had it."""
    alone.start("hsm")
    alone.start("store")
    initialised(alone)
    alone.ask(console.PACKAGE_INSTALL, console.InstallPackage(so_password=SO, name="cluster"))
    create = console.CreateCluster(so_password=SO, label="prod", po_password=PO)

    def ask() -> None:
        with suppress(LnhError), Caller(alone.directory.hsm_console, reach=PATIENCE) as caller:
            caller.ask(console.CLUSTER_CREATE, create, timeout=5)  # what began goes on

    asking = threading.Thread(target=ask)
    with Replaced(alone.directory.data("hsm") / "hsm.state") as replaced:
        asking.start()
        replaced.wait(writes)
    alone.stop("hsm", signal.SIGKILL)
    asking.join(PATIENCE)
    alone.start("hsm")
    alone.ask(console.HSM_ACTIVATE, console.Activate(activation=ACTIVATION))
    begun = [view.serial for view in alone.ask(console.PARTITION_LIST).partitions]
    assert len(begun) == 1 if writes > 2 else len(begun) <= 1  # the next write may have come before the signal
    if not alone.ask(console.CONSOLE_CLUSTER).created:
        alone.ask(console.CLUSTER_CREATE, create)
    serials = [view.serial for view in alone.ask(console.PARTITION_LIST).partitions]
    assert len(serials) == 1
    assert begun in ([], serials)
    assert alone.ask(console.APPLIANCE_SHOW).users == ("alice",)
    assert alone.ask(console.AUDIT_VERIFY).problem == ""


class Replaced:
    """Sees each time that another file takes the place of this one, however soon after one another: inotify(7)."""

    _MOVED_TO = 0x80
    _EVENT = struct.Struct("=iIII")

    def __init__(self, path: Path) -> None:
        self._name = path.name.encode()
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_CLOEXEC)
        assert libc.inotify_add_watch(self._descriptor, os.fsencode(path.parent), self._MOVED_TO) >= 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def wait(self, count: int) -> None:
        """Until it was replaced so often."""
        seen = 0
        while seen < count:
            assert select.select([self._descriptor], [], [], PATIENCE)[0], f"{seen} of {count} writes"
            events = os.read(self._descriptor, 1 << 16)
            while events:
                _, _, _, length = self._EVENT.unpack_from(events)
                seen += events[self._EVENT.size :][:length].rstrip(b"\0") == self._name
                events = events[self._EVENT.size + length :]


def test_without_its_store_no_cluster_is_begun(alone: Member) -> None:
    alone.start("hsm")
    initialised(alone)
    alone.ask(console.PACKAGE_INSTALL, console.InstallPackage(so_password=SO, name="cluster"))
    with pytest.raises(Unreachable):
        alone.ask(console.CLUSTER_CREATE, console.CreateCluster(so_password=SO, label="prod", po_password=PO))
    assert alone.ask(console.PARTITION_LIST).partitions == ()


def test_it_activates_from_a_file_that_only_its_owner_may_read(tmp_path: Path) -> None:
    with member(tmp_path / "m", activation=ActivationSettings(file="activation")) as made:
        made.start("hsm")
        initialised(made)
        made.stop("hsm")
        replace_file(made.directory.root / "activation", ACTIVATION + b"\n")
        made.start("hsm")
        wait_until(lambda: made.ask(console.HSM_SHOW).state == "activated", "activation from the file")
        assert "disk it protects" in " ".join(made.ask(console.HSM_SHOW).advice)
        made.stop("hsm")
        (made.directory.root / "activation").chmod(0o644)
        made.start("hsm")
        log = made.directory.log / "hsm.log"
        wait_until(lambda: "not activated at start" in log.read_text(), "a line in the log")
        assert made.ask(console.HSM_SHOW).state == "sealed"


@pytest.mark.skipif(bool(tpm.MISSING), reason=tpm.MISSING)
def test_a_tpm_activates_it_at_its_start_and_without_it_the_secret_does(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("another secret\n")
    (tmp_path / "SO").write_text(SO)

    def lnh(*words: str, status: int = 0) -> str:
        environment = {"LNH_MEMBER_DIR": str(tmp_path / "m"), "LNH_SO_PASSWORD_FILE": str(tmp_path / "SO")}
        done = CliRunner().invoke(tree(), ["hsm", *words], env=environment)
        assert done.exit_code == status, done.output
        return done.output

    with tpm.running() as found, member(tmp_path / "m", activation=ActivationSettings(tpm=found.tcti)) as made:
        made.start("hsm")
        initialised(made)
        said = lnh("set-activation", "--tpm", "--pcrs", "0,23", "--new-activation-file", str(secret))
        assert "Keep the secret" in said
        made.stop("hsm")
        made.start("hsm")
        wait_until(lambda: made.ask(console.HSM_SHOW).state == "activated", "activation by the TPM")
        shown = json.loads(lnh("show", "--json"))
        assert (shown["tpm"], shown["tpm_pcrs"]) == (True, [0, 23])
        lnh("deactivate", "--yes")
        lnh("activate")
        made.stop("hsm")
        found.extend(23)
        made.start("hsm")
        log = made.directory.log / "hsm.log"
        wait_until(lambda: "not activated at start" in log.read_text(), "a line in the log")
        said = lnh("activate", status=1)
        assert "firmware or boot were changed" in said
        assert "set-activation --tpm --pcrs" in said
        found.clear()
        assert "not the one that sealed" in lnh("activate", status=1)
        lnh("activate", "--activation-file", str(secret))
        lnh("set-activation", "--new-activation-file", str(secret))
        assert json.loads(lnh("show", "--json"))["tpm"] is False
        assert "another secret" not in log.read_text()
        assert "another secret" not in (made.directory.log / "audit.jsonl").read_text()


def test_children_are_restarted_and_die_with_the_core(alone: Member) -> None:
    alone.start("hsm")
    alone.start("store")
    with_cluster(alone)
    first = wait_until(lambda: alone.children() if len(alone.children()) == 2 else None, "both children")
    for pid in first.values():
        os.kill(pid, signal.SIGKILL)
    second = wait_until(
        lambda: now if len(now := alone.children()) == 2 and not set(now.values()) & set(first.values()) else None,
        "both children anew",
    )
    with Caller(alone.directory.argon2) as caller:
        wait_until(lambda: _derived(caller), "Argon2id again")
    watched = [os.pidfd_open(pid) for pid in second.values()]
    alone.stop("hsm", signal.SIGKILL)
    for descriptor in watched:
        assert select.select([descriptor], [], [], PATIENCE)[0], "a child lives on"
        os.close(descriptor)


def _derive(memory: int = 64) -> Derive:
    return Derive(password=b"password", salt=bytes(16), memory=memory, passes=1, lanes=1)


def _derived(caller: Caller) -> bool:
    try:
        return len(caller.ask(DERIVE, _derive(), timeout=1).key) == 32
    except LnhError:
        return False


def test_a_worker_can_write_to_the_trail_and_cannot_forge_it(alone: Member) -> None:
    alone.start("hsm")
    initialised(alone)
    entry = AuditEntry(
        identity="app", role="krco", operation="key.generate", target="00ff", outcome="ok", detail={"n": 1}
    )
    address = alone.directory.hsm_core
    first = alone.ask(AUDIT, Audit(entries=(entry,)), address).index
    assert alone.ask(AUDIT, Audit(entries=(entry,) * limits.AUDIT_SIGN_RECORDS), address).index == first + 1000
    report = alone.ask(console.AUDIT_VERIFY)
    assert (report.problem, report.signed) == ("", report.records)
    alone.stop("hsm", signal.SIGKILL)
    path = alone.directory.log / "audit.jsonl"
    assert verify(path, None).problem == ""
    text = path.read_bytes()
    assert text.count(b'"app"') == 1001
    path.write_bytes(text.replace(b'"app"', b'"bad"', 1))
    alone.start("hsm")
    assert "line" in alone.ask(console.AUDIT_VERIFY).problem


def test_a_damaged_state_file_stops_it_with_a_reason(alone: Member) -> None:
    alone.start("hsm")
    initialised(alone)
    alone.stop("hsm")
    (alone.directory.data("hsm") / "hsm.state").write_bytes(b"scribble")
    alone.start("hsm")
    assert alone.processes.pop("hsm").wait(PATIENCE) == 1
    assert "hsm.state is damaged" in (alone.directory.log / "hsm.log").read_text()


def test_the_argon2_process_does_one_at_a_time_and_drops_what_is_late(alone: Member) -> None:
    alone.start("hsm")
    alone.ask(console.HSM_SHOW)
    with Caller(alone.directory.argon2) as caller:
        wait_until(lambda: _derived(caller), "the Argon2id process")
    slow, *late = flood(alone.directory.argon2, limits.ARGON2_QUEUE + 10)
    assert slow is None
    # Beyond the queue at once, and within it before its client gives up, if the processor lets it.
    assert late.count(Busy) >= 9  # the slow one is in the queue until it is begun
    assert set(late) <= {Busy, DeadlineExceeded}


def flood(address: str, count: int) -> list[type[LnhError] | None]:
    """Ask for a derivation that takes long, and for `count` at once that have less time; what became of each.

    The long one takes some seconds of a processor, so its asker waits for longer than others who want a processor, too.
    """

    async def one(client: Client, passes: int, timeout: float) -> type[LnhError] | None:
        ask = Derive(password=b"password", salt=bytes(16), memory=256 * limits.KIB, passes=passes, lanes=1)
        try:
            await client.ask(DERIVE, ask, timeout=timeout)
        except LnhError as error:
            return type(error)
        return None

    async def go() -> list[type[LnhError] | None]:
        client = Client(address)
        try:
            return await asyncio.gather(one(client, 16, 4 * PATIENCE), *(one(client, 1, 1.0) for _ in range(count)))
        finally:
            await client.close()

    return asyncio.run(go())
