"""Fixtures for all tests."""

from __future__ import annotations

import compileall
import functools
import gc
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import typer.main
import typer.testing
from hypothesis import settings
from xdist.remote import Producer

import distribution
import failed
from distribution import Distribution
from lnh_cli.demo import local
from members import Members, Shared
from processes import STARTUP, Processes, own_share

settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile("default")

_ROOT = Path(__file__).parents[1]
_SOURCES = ("common", "client", "services", "bench")
_SHARING = pytest.StashKey[set[Path]]()  # files with tests for the members that tests share
_KEPT = pytest.StashKey[Shared]()


def pytest_configure(config: pytest.Config) -> None:
    """Whoever ends the tests by SIGTERM interrupts them: fixtures end what they started."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if config.getoption("numprocesses", None):  # of many tests: once, and not in every process that one starts
        for each in _SOURCES:
            compileall.compile_dir(_ROOT / each, quiet=2)
    sys.dont_write_bytecode = False  # to rewrite the assertions of all tests is half of what it takes to find them
    gc.disable()  # next to nothing of what is made meanwhile is garbage: looking for it is a third of the rest


def pytest_collection_finish() -> None:
    gc.enable()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=distribution.rank)
    config.stash[_SHARING] = {each.path for each in items if "shared" in getattr(each, "fixturenames", ())}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Distribution:
    return Distribution(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    failed.forget(item.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the three members that tests share after the last file that has tests for them: that they stand by costs processor."""
    kept = item.config.stash.get(_KEPT, None)
    if kept is not None and (nextitem is None or nextitem.path not in item.config.stash[_SHARING]):
        kept.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    made = yield
    if made.failed:
        failed.report(item, made)
        if isinstance(item, pytest.Function) and isinstance(kept := item.funcargs.get("shared"), Shared):
            kept.is_suspect = True
    return made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    failed.tell(terminalreporter)


@pytest.fixture(scope="session", autouse=True)
def own_ports() -> Iterator[None]:
    """Members that `local` sets up for one process of tests never get the ports of another's."""
    share = own_share(range(local._FIRST_PORT, local._LAST_PORT))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(local, "_FIRST_PORT", share.start)
        patched.setattr(local, "_LAST_PORT", share.stop)
        yield


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Of every process that is started: `tests/startup` says which, and why."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(STARTUP), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session", autouse=True)
def command_line_built_once() -> Iterator[None]:
    """A tree of commands that runs in a test's own process is built once, and not for each command."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(typer.testing, "_get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A new directory whose path leaves room for a socket's name (pytest's own may not)."""
    with failed.directory() as path:
        yield path


@pytest.fixture
def processes(short_path: Path) -> Iterator[Processes]:
    """Starts real processes; none outlives its test."""
    with Processes() as running:
        yield running


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    """What `members` draws from."""
    kept = request.config.stash[_KEPT] = Shared()
    try:
        yield kept
    finally:
        kept.close()


@pytest.fixture
def members(shared: Shared, request: pytest.FixtureRequest) -> Members:
    """A cluster of three members; a test leaves it whole, or the next one gets another."""
    return shared.whole(request.module.__name__)
