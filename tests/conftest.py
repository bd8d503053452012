"""Fixtures for all tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer

import distribution
from distribution import Distribution
from lnh.cli import local
from members import Members, Shared
from processes import Processes, own_share

settings.register_profile("default", deadline=None)
settings.load_profile("default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=distribution.rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Distribution:
    return Distribution(config, log)


@pytest.fixture(scope="session", autouse=True)
def own_ports() -> Iterator[None]:
    """Members that `local` sets up for one process of tests never get the ports of another's."""
    share = own_share(range(local._FIRST_PORT, local._LAST_PORT))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(local, "_FIRST_PORT", share.start)
        patched.setattr(local, "_LAST_PORT", share.stop)
        yield


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A new directory whose path leaves room for a socket's name (pytest's own may not)."""
    path = Path(tempfile.mkdtemp(prefix="lnh-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def processes(short_path: Path) -> Iterator[Processes]:
    """Starts real processes; none outlives its test."""
    running = Processes()
    yield running
    running.end()


@pytest.fixture(scope="session")
def shared() -> Iterator[Shared]:
    """What `members` draws from."""
    kept = Shared()
    yield kept
    kept.close()


@pytest.fixture(scope="module")
def members(shared: Shared) -> Members:
    """A cluster of three members; a test leaves it whole."""
    return shared.whole()
