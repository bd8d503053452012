"""What several files of tests share, where one process has them all (`distribution.GROUPS`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import failed
from processes import Processes
from rest_service import Rest, Running, running
from sites import ADMIN, KRCO, PO, Site, build

REST_SECONDS = 3.0  # that headers and bodies have at the REST service here


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A member with a cluster, a registered client and a keyring, for files that leave it whole."""
    with failed.directory() as root, Processes() as processes:
        yield build(processes, root)


@pytest.fixture(scope="session")
def service(site: Site) -> Iterator[Running]:
    """A REST service of that cluster."""
    with (
        failed.directory() as place,
        running(
            site,
            place,
            REST_HEADER_SECONDS=REST_SECONDS,
            REST_BODY_SECONDS=REST_SECONDS,
            REST_IDLE_SECONDS=REST_SECONDS,
            REST_LOGIN_RATE=100,
            REST_RATE=10_000,
            REST_GRACE=600,
        ) as service,
    ):
        yield service
        # Who asks nothing more and keeps the connection does not keep the service from its end.
        idle = service.rest.connection()
        idle.request("GET", "/healthz")
        idle.getresponse().read()
    assert service.process.returncode == 0, service.log.read_text()


@pytest.fixture(scope="session")
def admin(service: Running) -> Rest:
    """Its client, logged in as an admin and the PO."""
    return service.rest.logged_in(**{"as": "user", "user": "admin", "password": ADMIN, "po_password": PO})


@pytest.fixture(scope="session")
def holder(service: Running) -> Rest:
    """Its client, logged in as a keyring's KRCO."""
    return service.rest.logged_in(**{"as": "keyring", "keyring": "payments", "role": "krco", "password": KRCO})
