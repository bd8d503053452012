"""The supervisor with real services."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import failed
from lnh.console import Console
from lnh_common.messages import backup, balancer, membership
from lnh_services import configuration
from lnh_services import member as supervisor
from lnh_services.serving import EXIT_FAILED
from lnh_services.supervision import SERVICES
from processes import Processes, RunningMember, ask, begin_with, is_alive
from waits import wait_until


class Supervised:
    """One member for all tests that leave its directory as it was; it is started again where one ended it."""

    def __init__(self, processes: Processes, root: Path) -> None:
        self.processes = processes
        self.member = RunningMember(processes, root / "a", workers=1)
        self._supervisor: subprocess.Popen[bytes] | None = None

    def supervisor(self) -> subprocess.Popen[bytes]:
        """Its supervisor, with all services running."""
        if self._supervisor is None or self._supervisor.poll() is not None:
            self._supervisor = self.member.start()
        wait_until(self.member.is_ready, "a ready member")
        return self._supervisor


@pytest.fixture(scope="module")
def supervised() -> Iterator[Supervised]:
    with failed.directory() as root, Processes() as processes:
        yield Supervised(processes, root)


@pytest.fixture
def running(supervised: Supervised) -> RunningMember:
    supervised.supervisor()
    return supervised.member


@pytest.fixture
def fresh(processes: Processes, short_path: Path) -> RunningMember:
    return RunningMember(processes, short_path / "a", workers=1)


def test_a_started_member_is_ready_and_every_service_answers(running: RunningMember) -> None:
    view = ask(running.directory.membership_for_services, membership.STATUS)
    assert [(one.name, one.role, one.group) for one in view.members] == [("A", "none", "local")]
    assert ask(running.directory.backup_for_services, backup.STATUS).schedule == "none"
    assert ask(running.directory.balancer_status, balancer.STATUS).state == "serving"
    assert supervisor.main(["--member-dir", str(running.directory.root), "--wait-ready", "--timeout", "60"]) == 0


def test_a_member_is_ready_when_its_hsm_is_activated_that_activates_at_start(
    fresh: RunningMember, short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = short_path / "activation"
    secret.write_text("another secret than the HSM's\n")
    secret.chmod(0o600)
    settings = msgspec.structs.replace(fresh.settings, activation=configuration.ActivationSettings(file=str(secret)))
    fresh.directory.settings.write_text(configuration.dump(settings))
    fresh.start()
    with Console(fresh.directory.root) as console:
        console.init_hsm("A", "password of so", b"activation secret")
        console.deactivate(b"activation secret")
        asked = ["--member-dir", str(fresh.directory.root), "--wait-ready", "--timeout"]

        def says_why() -> bool:
            assert supervisor.main([*asked, "1"]) == supervisor.EXIT_NOT_READY
            said = capsys.readouterr().err
            assert re.fullmatch(r"not ready: .+\n", said), said
            return "the HSM is not activated" in said

        wait_until(says_why, "the reason: all services answer by then")
        console.activate(b"activation secret")
        assert supervisor.main([*asked, "60"]) == 0


@pytest.mark.parametrize("name", ["store", "balancer", "hsm"])
def test_a_service_that_is_killed_is_started_again(running: RunningMember, name: str) -> None:
    before = running.service(name)
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: running.service(name).pid not in (0, before.pid), "a new process")
    wait_until(running.is_ready, "a ready member")
    after = running.service(name)
    assert (after.restarts, after.exit) == (before.restarts + 1, -signal.SIGKILL)


_HANGS = """
import signal, sys, time
if any(word.startswith("lnh_services.") and word != "lnh_services.member" for word in sys.orig_argv):
    def hang(*_):
        while True:
            time.sleep(1)
    signal.signal(signal.SIGUSR2, hang)
"""


def test_a_service_that_answers_nothing_is_started_again_though_its_process_lives(
    processes: Processes, short_path: Path
) -> None:
    running = RunningMember(processes, short_path / "a", workers=1, silence=3_000)
    begin_with(_HANGS, short_path)
    running.start(PYTHONPATH=str(short_path))
    before = {kind.name: running.service(kind.name).pid for kind in SERVICES}
    # The loop of one hangs, and its other threads run on; another is stopped. Membership's status waits for the store's.
    os.kill(before["store"], signal.SIGUSR2)
    os.kill(before["balancer"], signal.SIGSTOP)

    def are_new() -> bool:
        return all(running.service(name).pid not in (0, before[name]) for name in ("store", "balancer"))

    wait_until(are_new, "a new store and a new balancer")
    for name in ("store", "balancer"):
        assert running.service(name).exit == -signal.SIGKILL
        assert not is_alive(before[name])
    wait_until(running.is_ready, "a ready member")
    for name in ("hsm", "membership", "backup"):
        assert running.service(name).pid == before[name], "who waits for another is not ended for it"


def test_a_stop_is_ordered_and_leaves_nothing(supervised: Supervised) -> None:
    process, running = supervised.supervisor(), supervised.member
    process.terminate()
    assert process.wait(60) == 0
    wait_until(lambda: not supervised.processes.left(), "the end of every process")
    stopped = {
        name: line.split('"time": "')[1].split('"')[0]
        for name in ("balancer", "hsm", "store")
        for line in (running.directory.log / f"{name}.log").read_text().splitlines()
        if '"event": "stopped"' in line
    }
    assert stopped["balancer"] <= stopped["hsm"] <= stopped["store"]


def test_a_second_supervisor_on_one_directory_is_refused(supervised: Supervised) -> None:
    first, running = supervised.supervisor(), supervised.member
    second = subprocess.run(
        [sys.executable, "-m", "lnh_services.member", "--member-dir", str(running.directory.root)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == EXIT_FAILED
    assert str(first.pid) in second.stderr
    wait_until(running.is_ready, "the first goes on")


def test_services_do_not_outlive_a_killed_supervisor(supervised: Supervised) -> None:
    process = supervised.supervisor()
    assert len(supervised.processes.left()) > len(SERVICES), "the supervisor and its services run"
    process.kill()
    process.wait()
    wait_until(lambda: not supervised.processes.left(), "the end of every process")


def test_a_member_starts_again_after_its_supervisor_was_killed(supervised: Supervised) -> None:
    first = supervised.supervisor()
    first.kill()
    first.wait()
    assert supervised.supervisor() is not first


def test_a_service_that_cannot_start_is_retried_with_growing_pauses_while_others_run(
    fresh: RunningMember, processes: Processes
) -> None:
    fresh.directory.client_keys.chmod(0o644)  # the balancer refuses such a key file
    processes.start("-m", "lnh_services.member", "--member-dir", str(fresh.directory.root))
    wait_until((fresh.directory.root / "run" / "member.ipc").exists, "the supervisor")
    wait_until(lambda: fresh.service("balancer").restarts >= 2, "two restarts")
    assert fresh.service("balancer").exit == 2
    wait_until(lambda: fresh.service("store").state == "running", "the store")
    assert not fresh.is_ready()
    fresh.directory.client_keys.chmod(0o600)
    wait_until(fresh.is_ready, "a ready member")


def test_a_service_that_does_not_stop_is_killed(processes: Processes, short_path: Path) -> None:
    running = RunningMember(processes, short_path / "a", workers=1, stop=300)
    process = running.start()
    pid = running.service("backup").pid
    os.kill(pid, signal.SIGSTOP)
    process.terminate()
    assert process.wait(10) == 0
    assert not is_alive(pid)


def test_init_makes_a_member_once_and_says_what_next(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--member-dir", str(short_path / "b"), "--init", "--name", "B", "--base-port", "7200"]
    assert supervisor.main(arguments) == 0
    assert "lnh-member --member-dir" in capsys.readouterr().out
    assert supervisor.main(arguments) == EXIT_FAILED
    assert "exists" in capsys.readouterr().err
    assert supervisor.main([*arguments[:-1], "80"]) != 0


def test_a_member_that_is_not_running_is_not_ready(fresh: RunningMember, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--member-dir", str(fresh.directory.root), "--wait-ready", "--timeout", "0.2"]
    assert supervisor.main(arguments) == supervisor.EXIT_NOT_READY
    assert "does not answer" in capsys.readouterr().err
