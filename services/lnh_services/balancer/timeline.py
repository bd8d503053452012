"""The points of a request at which the balancer notes the time, where it is asked to (`lnh_common/timeline.py`)."""

from __future__ import annotations

from typing import Final

import zmq

from lnh_common.timeline import Point
from lnh_services.balancer.front import Front
from lnh_services.balancer.service import Balancer

POINTS: Final = (
    Point("woke", zmq.Poller, "poll"),
    Point("received", Front, "_open", before=True),
    Point("routed", Balancer, "_dispatch", before=True),
    Point("sends to the worker", Balancer, "_flush", before=True),
    Point("answer received", Balancer, "_answered", before=True),
    Point("sends to the client", Front, "_send", before=True),
)
