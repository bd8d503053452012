"""What several files of tests share, where one process has them all (`distribution.GROUPS`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import failed
from processes import Processes
from sites import Site, build


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A member with a cluster, a registered client and a keyring, for files that leave it whole."""
    with failed.directory() as root, Processes() as processes:
        yield build(processes, root)
