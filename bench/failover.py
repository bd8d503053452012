"""Members lost under load: what a client with 64 signatures in flight sees when its member is killed, or stands still.

`python -m bench.failover` measures these rows alone. The client fails over as any application's does; a pause is the
longest time between two signatures around the loss, on the client's own monotonic clock. An error ends the run's claim.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Any, Final

from typing_extensions import Self

import lnh
from bench.loads import using
from bench.members import Running, running, wait
from bench.rows import Row, run
from lnh.keyrings import KeyringSession
from lnh_cli.demo.local import Member
from lnh_cli.demo.processes import standing_still
from lnh_common.messages import objects
from lnh_common.pkcs11.mechanisms import Mechanism

IN_FLIGHT: Final = 64
LIMIT: Final = 1.0  # seconds
_GOES_ON: Final = 1000  # signatures after which the load flows


class Signer:
    """A thread that keeps 64 signatures in flight, and knows when each was there."""

    def __init__(self, session: KeyringSession, key: lnh.Key) -> None:
        self.signed: list[float] = []
        self.worst = 0.0
        self.error: Exception | None = None
        self._session = session
        self._call = next(iter(using(objects.SIGN, key, Mechanism.ECDSA, bytes(32))))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        calls = itertools.takewhile(lambda _: not self._over.is_set(), itertools.repeat(self._call))
        try:
            for _ in self._session.call_each(calls, IN_FLIGHT):  # type: ignore[arg-type]  # as in `loads.flowing`
                self.signed.append(time.monotonic())
        except Exception as error:  # it is what is measured
            self.error = error

    def flows(self) -> None:
        """Wait until it goes on from here, or has failed."""
        enough = len(self.signed) + _GOES_ON
        wait(lambda: len(self.signed) > enough or self.error, "signatures")

    def pause(self, since: float) -> float:
        gaps = [later - earlier for earlier, later in pairwise(self.signed) if later >= since]
        return max(gaps, default=float("inf"))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def lost(cluster: Running, member: Member, fault: Callable[[Member], AbstractContextManager[Any]]) -> Signer:
    """A client of this member signs; the member is lost and comes back. The pause around the loss is its `worst`."""
    cluster.whole()
    password = cluster.place.secret("krco").read_text().strip()
    with lnh.connect("demo", directory=member.client) as connected:
        session = connected.keyring("payments").login(lnh.Role.KRCO, password)
        session.abandon()
        _, key = session.generate_keypair(lnh.KeyType.EC, curve="P-256")
        with Signer(session, key) as signer:
            signer.flows()
            moment = time.monotonic()
            with fault(member):
                signer.flows()
            signer.worst = signer.pause(moment)
    return signer


def measure() -> Iterator[Row]:
    """One row a fault, over every member in turn, the primary too."""
    with running() as cluster:

        @contextmanager
        def killed(member: Member) -> Iterator[None]:
            cluster.steps.kill(member)
            try:
                yield
            finally:
                cluster.steps.start(member)

        def stopped(member: Member) -> AbstractContextManager[Any]:
            return standing_still(member.directory)

        for name, fault in (("killed", killed), ("stopped still", stopped)):
            signers = [lost(cluster, member, fault) for member in cluster.place.members]
            errors = [signer.error for signer in signers if signer.error is not None]
            pauses = [signer.worst for signer in signers]
            worst = max(pauses)
            yield Row(
                f"a member {name}, 64 in flight: errors 0, pause",
                round(worst, 2),
                "s",
                "limit",
                LIMIT,
                round(LIMIT / worst, 3),
                1.0,
                worst <= LIMIT and not errors,
                f"{min(pauses):.2f}..{worst:.2f}",
                "; ".join(map(str, errors)),
            )


if __name__ == "__main__":
    sys.exit(run(measure))
