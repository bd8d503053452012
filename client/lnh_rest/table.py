"""The table of routes: one row a route says all that is to be said of it.

The service, the OpenAPI document and docs/rest.md are made of it. A route that is not here is not served.
"""

from __future__ import annotations

from typing import Final

from lnh_rest.routes import backups, cluster, keyrings, keys, nethsm, objects, people, sessions

ROUTES: Final = (
    *sessions.ROUTES,
    *cluster.ROUTES,
    *people.ROUTES,
    *keyrings.ROUTES,
    *objects.ROUTES,
    *keys.ROUTES,
    *backups.ROUTES,
)
NETHSM: Final = nethsm.ROUTES
