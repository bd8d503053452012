"""The points of a request at which a worker notes the time, where it is asked to (`lnh_common/timeline.py`)."""

from __future__ import annotations

import zmq

from lnh_common.timeline import Point
from lnh_common.wire import channel


def points(worker: type) -> tuple[Point, ...]:
    """Return them.

    Args:
        worker: the class `Worker`, of the module that runs.
    """
    return (
        Point("woke", zmq.Poller, "poll"),
        Point("received", worker, "_receive"),
        Point("opened", channel, "open_request"),
        Point("checked", worker, "_use", before=True),
        Point("used", worker, "_use"),
        Point("sealed", channel, "seal_reply"),
        Point("sends", worker, "_flush", before=True),
    )
