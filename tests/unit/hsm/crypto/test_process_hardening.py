"""What an hsm process does to itself, looked at from the kernel's side."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lnh_services.hsm.crypto.process_hardening import PARENT_VARIABLE, child_environment, may_lock_future

REPORT = """
import json, os, resource, sys
from pathlib import Path
from lnh_services.hsm.crypto.process_hardening import harden
read, write = map(int, sys.argv[1:3])
done = harden()
status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
umask = os.umask(0o077)
inherited = []
for fd in (read, write):
    try:
        os.fstat(fd)
        inherited.append(fd)
    except OSError:
        pass
print(json.dumps({
    "undumpable": done.undumpable, "locked": done.locked_memory, "problems": done.problems, "umask": umask,
    "core": resource.getrlimit(resource.RLIMIT_CORE), "nnp": status["NoNewPrivs"].strip(),
    "vmlck": status["VmLck"].split()[0], "inherited": inherited,
    "variable": "HSM_CORE_PID" in os.environ,
}))
"""


def hardened(environment: dict[str, str] | None = None) -> dict[str, object]:
    read, write = os.pipe()
    try:
        command = [sys.executable, "-c", REPORT, str(read), str(write)]
        done = subprocess.run(
            command, capture_output=True, check=True, pass_fds=(read, write), timeout=30, env=environment
        )
    finally:
        os.close(read)
        os.close(write)
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


def test_a_hardened_process_cannot_be_dumped_gains_nothing_and_inherits_nothing() -> None:
    report = hardened()
    assert report["undumpable"] is True
    assert report["core"] == [0, 0]
    assert report["nnp"] == "1"
    assert report["umask"] == 0o077
    assert report["inherited"] == []


def test_memory_is_locked_or_it_is_said_why_not() -> None:
    report = hardened()
    assert (int(str(report["vmlck"])) > 0) is report["locked"]
    assert bool(report["problems"]) is not report["locked"]


def test_memory_is_locked_only_where_no_limit_can_refuse_an_allocation_later() -> None:
    assert may_lock_future(resource.RLIM_INFINITY, 0)
    assert may_lock_future(65536, 1 << 14)
    assert not may_lock_future(65536, ~(1 << 14) & (1 << 40) - 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root to become an ordinary user")
def test_an_ordinary_user_with_a_small_limit_can_allocate_as_before() -> None:
    script = """
import os, resource
from lnh_services.hsm.crypto.process_hardening import harden
os.setgroups([]); os.setgid(65534); os.setuid(65534)
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
done = harden()
kept = [bytearray(1 << 20) for _ in range(200)]
def deep(n): return n and deep(n - 1)
deep(900)
assert not done.locked_memory and done.undumpable, done
print(done.problems[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=30, text=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    assert "swap" in done.stdout


def test_a_crash_leaves_no_core_dump(tmp_path: Path) -> None:
    script = "import os; from lnh_services.hsm.crypto.process_hardening import harden; harden(); os.abort()"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, timeout=30, check=False)
    assert done.returncode == -signal.SIGABRT
    assert list(tmp_path.iterdir()) == []


def test_a_child_knows_its_parent_and_hides_it_from_its_own_children() -> None:
    assert hardened(child_environment())["variable"] is False


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    script = "from lnh_services.hsm.crypto.process_hardening import harden; harden(); print('alive')"
    environment = {**os.environ, PARENT_VARIABLE: "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_child_dies_with_its_parent() -> None:
    child = "import sys, time; from lnh_services.hsm.crypto.process_hardening import harden; harden(); print('up', flush=True); time.sleep(60)"
    parent = f"""
import os, subprocess, sys
from lnh_services.hsm.crypto.process_hardening import child_environment
child = subprocess.Popen([sys.executable, "-c", {child!r}], env=child_environment(), stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    descriptor = os.pidfd_open(pid)
    process.kill()
    process.communicate()
    readable, _, _ = select.select([descriptor], [], [], 10)
    os.close(descriptor)
    assert readable, "the child lives on"
