"""A test that fails says how it is replayed and leaves its members' logs; neighbours of `make test-often` come and go."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import beside
import failed
from processes import is_alive
from waits import wait_until

ROOT = Path(__file__).parents[2]
# As of ours; what is compiled of pytest's plugins is kept.
INI = "[pytest]\naddopts = -p no:schemathesis -p no:anyio\n"
TESTS = """
import random
import failed
import pytest

def member(root):
    (root / "a" / "log").mkdir(parents=True)
    (root / "a" / "log" / "store.log").write_text("what it said")

def test_fails(short_path):
    member(short_path)
    raise AssertionError(f"drew {random.randrange(10**6)}")

@pytest.fixture
def broken():
    with failed.directory() as root:
        member(root)
        raise KeyError

def test_has_no_fixture(broken):
    pass

def test_passes(short_path):
    member(short_path)
"""
_NOT_INHERITED = ("PYTEST", "LNH", "PYTHONDONTWRITEBYTECODE")


def run(place: Path, *words: str) -> str:
    """What pytest says that runs tests of elsewhere as ours are run."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", *words]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    environment = {**inherited, "PYTHONPATH": os.pathsep.join((str(ROOT / "tests"), str(ROOT)))}
    done = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_a_failure_is_replayed_by_what_it_prints_and_leaves_its_members_logs(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(INI)
    name = f"test_elsewhere_{os.getpid()}.py"
    (tmp_path / name).write_text(TESTS)
    try:
        said = run(tmp_path, "-n", "1", name)
        (drew,) = set(re.findall(r"drew (\d+)", said))
        logs = [Path(path) for path in re.findall(r"logs: (\S+)", said)]
        assert [path.read_text() for each in logs for path in each.rglob("store.log")] == ["what it said"] * 2
        assert all("/proc/loadavg" in path.read_text() for each in logs for path in each.rglob("processes.txt"))
        (replay,) = (line for line in said.splitlines() if "--randomly-seed=" in line and "::test_fails" in line)
        again = run(tmp_path, *shlex.split(replay)[1:])
        assert set(re.findall(r"drew (\d+)", again)) == {drew}
        assert "1 failed" in again
    finally:
        for test in ("test_fails", "test_has_no_fixture"):
            failed.forget(f"{name}::{test}")
    assert not any(path.exists() for path in logs)


def test_a_module_that_cannot_be_imported_is_told_beside_the_failures_of_others(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "test_no_module.py").write_text("import no_such_module_anywhere\n")
    name = f"test_elsewhere_{os.getpid()}.py"
    (tmp_path / name).write_text("def test_fails():\n    raise AssertionError\n")
    said = run(tmp_path, "-n", "0", "--continue-on-collection-errors", "test_no_module.py", name)
    assert "No module named 'no_such_module_anywhere'" in said
    assert "INTERNALERROR" not in said
    assert "1 failed, 1 error" in said
    assert f"{name}::test_fails" in said.partition("to replay")[2]


@pytest.mark.parametrize(("load", "neighbours"), [("quiet", 0), ("busy", 2), ("fsync", 1)])
def test_neighbours_work_meanwhile_and_end_whatever_happens(load: str, neighbours: int) -> None:
    with pytest.raises(KeyError), beside.beside(load) as pids:  # noqa: PT012
        assert len(pids) == neighbours
        wait_until(lambda: all(_worked(pid) > 0 for pid in pids), "work of every neighbour")
        raise KeyError
    assert not any(is_alive(pid) for pid in pids)


def _worked(pid: int) -> int:
    """Bytes that a process had written, and ticks of the processor that it spent by itself, beyond those of its start."""
    written = re.search(r"write_bytes: (\d+)", Path(f"/proc/{pid}/io").read_text())
    assert written is not None
    user = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
    return int(written.group(1)) + max(user - 20, 0)


def test_neighbours_end_with_who_started_them_even_when_that_is_killed() -> None:
    script, command = str(ROOT / "tests" / "beside.py"), [sys.executable, "-c", "input()"]
    with subprocess.Popen([sys.executable, script, "busy", *command], stdin=subprocess.PIPE) as running:
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        wait_until(lambda: len(children.read_text().split()) == 3, "the command and its neighbours")
        pids = [int(pid) for pid in children.read_text().split()]
        os.kill(running.pid, signal.SIGKILL)
        running.communicate(b"\n")
        wait_until(lambda: not any(is_alive(pid) for pid in pids), "the end of the neighbours")


def test_a_command_that_fails_beside_one_load_fails_and_says_beside_which(tmp_path: Path) -> None:
    script, flag = str(ROOT / "tests" / "beside.py"), tmp_path / "second"
    code = f"import pathlib, sys; flag = pathlib.Path({str(flag)!r}); seen = flag.exists(); flag.touch(); sys.exit(not seen)"
    done = subprocess.run(
        [sys.executable, script, "all", sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert [line.split(" in ")[0] for line in done.stdout.splitlines()] == [
        "beside quiet: failed", "beside busy: passed", "beside fsync: passed",
    ]  # fmt: skip
    refused = subprocess.run([sys.executable, script, "loud", "true"], capture_output=True, check=False)
    assert refused.returncode == 2
