"""Whoever kills a member, or has it stand still, does that to all its processes: those of other groups, too, and orphans."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lnh_cli.demo import local, processes
from lnh_cli.demo.local import StepFailed
from processes import is_alive
from waits import wait_until

# A supervisor with a service in a group of its own, which has a worker: each with a thread, and none ends when asked to.
PARTS = ("lnh_services.member", "lnh_services.hsm", "lnh_services.hsm.worker.loop")
TREE = f"""
import signal, subprocess, sys, threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)
threading.Thread(target=threading.Event().wait, daemon=True).start()
program, directory, _, part = sys.argv
parts = {PARTS}
if below := parts[parts.index(part) + 1 :]:
    subprocess.Popen([sys.executable, program, directory, "-m", below[0]], start_new_session=True)
threading.Event().wait()
"""


@pytest.fixture
def member(tmp_path: Path) -> Iterator[local.Member]:
    """One whose supervisor, service and worker run."""
    one, program = local.Member(tmp_path, "a"), tmp_path / "tree.py"
    program.write_text(TREE)
    command = [sys.executable, str(program), str(one.directory), "-m", PARTS[0]]
    with subprocess.Popen(command, start_new_session=True) as supervisor:
        one.pid_file.write_text(f"{supervisor.pid}\n")
        try:
            wait_until(lambda: len(processes.of_member(one.directory)) == len(PARTS), "three processes")
            yield one
        finally:
            processes.kill(one.directory)


def test_a_killed_member_has_no_process_left_when_the_call_returns(member: local.Member) -> None:
    every = processes.of_member(member.directory)
    assert every[0] == member.running(), "the supervisor is the first"
    member.kill()
    assert [pid for pid in every if is_alive(pid)] == []
    assert member.running() is None
    assert not member.pid_file.exists()


def test_orphans_of_a_member_are_killed_too(member: local.Member) -> None:
    supervisor, *others = processes.of_member(member.directory)
    processes._signal([supervisor], signal.SIGKILL)
    wait_until(lambda: processes.has_ended(supervisor), "its end")
    assert sorted(processes.of_member(member.directory)) == sorted(others)
    member.kill()
    assert [pid for pid in others if is_alive(pid)] == []


def test_a_member_some_process_of_which_goes_on_has_not_stopped(
    member: local.Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, *others = processes.of_member(member.directory)
    processes._signal([supervisor], signal.SIGKILL)
    monkeypatch.setattr(local, "_STOP_SECONDS", 0.2)
    with pytest.raises(StepFailed, match=f"did not stop within .*{others[0]}"):
        member.wait_for_end()


def test_a_part_is_killed_alone(member: local.Member) -> None:
    processes.kill(member.directory, "lnh_services.hsm")
    assert processes.of_member(member.directory) == [member.running()]


def test_all_stand_still_within_and_go_on_whatever_happens(member: local.Member) -> None:
    every = processes.of_member(member.directory)
    with pytest.raises(KeyError), processes.standing_still(member.directory) as still:  # noqa: PT012
        assert still == every
        assert all(processes.stands_still(pid) for pid in every)
        raise KeyError
    wait_until(lambda: not any(processes.stands_still(pid) for pid in every), "all going on")
    with processes.standing_still(member.directory, part="hsm.worker") as still:
        assert len(still) == 1
        assert [pid for pid in every if processes.stands_still(pid)] == still


def test_what_only_names_a_members_directory_is_none_of_it(member: local.Member) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "input()", "lnh-member", "--member-dir", str(member.directory), "--wait-ready"],
        stdin=subprocess.PIPE,
    ) as asker, subprocess.Popen(
        [sys.executable, "-c", "input()", "--member-dir", str(member.directory)], stdin=subprocess.PIPE
    ) as other:  # fmt: skip
        member.kill()
        assert (asker.poll(), other.poll()) == (None, None)
        asker.communicate(b"\n")
        other.communicate(b"\n")


STARTS_ONE = """
import subprocess, sys
from lnh_cli.demo import processes
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
processes.kill_children()
print(child.wait(0))
"""


def test_every_process_that_was_started_is_killed_whoever_knows_of_it() -> None:
    done = subprocess.run([sys.executable, "-c", STARTS_ONE], capture_output=True, text=True, check=False)
    assert done.stdout == f"{-signal.SIGKILL}\n", done.stderr
