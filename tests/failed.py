"""What is kept of a test that failed: its members' logs and how their processes stood, in build/failed/; how it is replayed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

BUILD: Final = Path(__file__).parents[1] / "build" / "failed"
_PRESSURE: Final = ("/proc/loadavg", "/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory")
_KEPT: Final = "members' logs"  # the name of the property of a report that says where
_DEPTH: Final = 3  # directories between one that is in use and a member's logs, at most
_NAME: Final = 150  # bytes of a test's directory

_in_use: list[Path] = []


@contextmanager
def directory() -> Iterator[Path]:
    """A new directory for members, whose path leaves room for a socket's name; it is removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="lnh-", dir="/tmp"))
    try:
        with watched(path):
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def watched(path: Path) -> Iterator[None]:
    """The logs of members below this directory are kept if a test fails meanwhile, or what is done within."""
    _in_use.append(path)
    try:
        yield
    except Exception:  # of a fixture, or within a test: when pytest reports it the directory is gone
        keep(os.environ.get("PYTEST_CURRENT_TEST", "no test").rpartition(" (")[0])
        raise
    finally:
        _in_use.remove(path)


def keep(test: str, *more: Path) -> Path | None:
    """Copy the logs of all members that run for this test.

    Args:
        test: its node's id.
        more: directories to look into, beside those that are in use.

    Returns:
        Where they are; None if there are none.
    """
    to = _place_of(test)
    for root in (*_in_use, *more):
        for depth in range(_DEPTH):
            for logs in root.glob("/".join(["*"] * depth + ["log"])):
                shutil.copytree(logs, to / root.name / logs.parent.relative_to(root), dirs_exist_ok=True)
        if (to / root.name).exists():
            (to / root.name / "processes.txt").write_text("\n".join(_standing(root)) + "\n")
    return to if to.exists() else None


def forget(test: str) -> None:
    """Remove what was kept when this test failed before."""
    shutil.rmtree(_place_of(test), ignore_errors=True)


def _place_of(test: str) -> Path:
    return BUILD / re.sub(r"[^\w.-]+", "_", test).strip("_")[-_NAME:]


def _standing(root: Path) -> Iterator[str]:
    """How the machine is, and the threads of every process that names this directory: state, what it waits for, CPU."""
    for name in _PRESSURE:
        with suppress(OSError):
            yield f"{name}: {Path(name).read_text().strip()}"
    for entry in sorted(Path("/proc").glob("[0-9]*"), key=lambda each: int(each.name)):
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            if str(root) in command:
                yield f"{entry.name} {command}"
                for thread in sorted((entry / "task").iterdir()):
                    fields = (thread / "stat").read_text().rpartition(")")[2].split()
                    waits = (thread / "wchan").read_text()
                    yield f"    {thread.name} {fields[0]} {waits} user {fields[11]} system {fields[12]} ticks"


def report(item: pytest.Item, made: pytest.TestReport) -> None:
    """Keep what a failed test leaves, and put into its report how it is replayed."""
    place = item.funcargs.get("tmp_path") if isinstance(item, pytest.Function) else None
    kept = keep(item.nodeid, *([place] if isinstance(place, Path) else []))
    made.user_properties.append((_KEPT, str(kept or "")))
    made.user_properties.append(("replay", _replay(item)))


def _replay(item: pytest.Item) -> str:
    words = [os.path.relpath(Path(sys.executable).parent / "pytest", item.config.invocation_params.dir), "-n", "0"]
    if (seed := item.config.getoption("randomly_seed", None)) is not None:
        words.append(f"--randomly-seed={seed}")
    if (count := item.config.getoption("count", 1)) > 1:
        words += ["--count", str(count)]
    return shlex.join([*words, item.nodeid])


def tell(terminal: pytest.TerminalReporter) -> None:
    """Say of each test that failed how it is replayed, and where its members' logs are."""
    reports = [each for kind in ("failed", "error") for each in terminal.getreports(kind)]
    # A module that cannot be imported is reported too, but is no test.
    failed = [each for each in reports if isinstance(each, pytest.TestReport) and each.user_properties]
    if failed:
        terminal.section("to replay (docs/contributing.md)")
    for each in failed:
        told = dict(each.user_properties)
        terminal.line(str(told.get("replay", "")))
        if kept := told.get(_KEPT):
            terminal.line(f"    logs: {kept}")
