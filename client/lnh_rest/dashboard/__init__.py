"""The dashboard: one page that shows a cluster live, and administers it by the routes of the table.

`page` holds it: plain HTML, CSS and JavaScript modules, as they are served. `files.py` serves them under a policy that
runs nothing else; `watching.py` tells the page what happens, as server-sent events; `trail.py` reads the newest lines
of the audit trail and checks them. The page is a client of the service like any other: it may what its user may.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lnh_rest.dashboard import files, trail
from lnh_rest.dashboard.watching import Watching
from lnh_rest.route import Route


class Dashboard:
    """The dashboard of one service.

    Args:
        clock: UTC seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._watching = Watching(clock)

    def routes(self) -> list[Route]:
        """List its rows: the page's files, and what it asks beside the routes of the table."""
        return [*files.routes(), self._watching.route, *trail.routes()]

    def end(self) -> None:
        """End what is told to the pages that watch, each at its next event."""
        self._watching.ending = True
