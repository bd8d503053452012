"""Asks etcd on behalf of a role, and gives it the outcomes of what it asked itself. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lnh_services.store.etcd.requests import AskEtcd, EtcdId, Outcome, Request
from lnh_services.store.replication.messages import Instant
from lnh_services.store.replication.outbox import Outbox

Then = Callable[[Instant, Outcome], None]


class Asks:
    """The requests of one role whose outcomes have not come."""

    def __init__(self, out: Outbox) -> None:
        self._out: Final = out
        self._waiting: dict[EtcdId, Then] = {}

    def ask(self, request: Request, then: Then) -> None:
        """Have a request carried out; `then` is given its outcome, unless another role acts by then."""
        id_ = EtcdId(self._out.number())
        self._waiting[id_] = then
        self._out.put(AskEtcd(id_, request))

    def answered(self, now: Instant, id_: EtcdId, outcome: Outcome) -> None:
        """Give an outcome to who waits for it."""
        then = self._waiting.pop(id_, None)
        if then is not None:
            then(now, outcome)
