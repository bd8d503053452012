"""What the service tells of itself and of the cluster: whether it serves, and in figures how."""

from __future__ import annotations

from lnh_common import VERSION
from lnh_rest import counts
from lnh_rest.base import Text
from lnh_rest.route import Call
from lnh_rest.shapes import Health


async def health(call: Call) -> Health:
    """Say that the service serves; it asks no member."""
    return Health(serving=True, product=VERSION)


async def healthz(call: Call) -> Health:
    """Say that the service serves, at the path where such a question is asked mostly."""
    return await health(call)


async def readyz(call: Call) -> Health:
    """Say whether a member answers this service, by its own registration."""
    await call.readiness.check(call.cluster)
    return await health(call)


async def metrics(call: Call) -> Text:
    """Tell Prometheus of the service and of every member."""
    return Text(counts.exposed(call.counts, await call.user.overview()))
