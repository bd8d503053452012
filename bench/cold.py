"""The first signature of a session that no worker knows yet: its records and its key are asked for, and checked."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Final

import lnh
from bench import member, rows
from bench.rows import Row
from lnh_cli.demo import processes
from lnh_common.bus.blocking import Caller
from lnh_common.errors import LnhError
from lnh_common.messages import balancer
from lnh_common.messages.base import Empty
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_services.paths import MemberDirectory

_FRESH: Final = 12  # times that the workers are started anew
_WARM: Final = 200
_WITHIN: Final = 30.0
# Half of the 20.7 that it was on the same host, in the same hour, when each record was asked for by itself.
_WARM_ONES: Final = 10.4


def _begin_anew(running: member.Running) -> None:
    """New workers, and wait until all of them serve."""
    directory = MemberDirectory(running.place.first.directory)
    before = set(processes.of_member(directory.root, "hsm.worker"))
    processes.kill(directory.root, "hsm.worker")
    ends = time.monotonic() + _WITHIN
    with Caller(directory.balancer_status) as caller:
        while time.monotonic() < ends:
            if len(set(processes.of_member(directory.root, "hsm.worker")) - before) == len(before):
                try:
                    status = caller.ask(balancer.STATUS, Empty(), timeout=1.0)
                except LnhError:
                    continue
                if all(backend.state not in ("down", "silent") for backend in status.backends if not backend.group):
                    time.sleep(0.5)  # what is measured is a worker that has settled, with nothing else to do
                    return
            time.sleep(0.02)
    raise TimeoutError(f"the workers were not there again within {_WITHIN:g} s")


def _signature(key: lnh.PrivateKey) -> float:
    began = time.perf_counter()
    key.sign(bytes(32), Mechanism.ECDSA)
    return time.perf_counter() - began


def measure() -> Iterator[Row]:
    """One row: median of the first signatures, in units of the median warm one."""
    with member.running() as running:
        first, warm = [], []
        with member.session(running.place) as session:
            _, key = session.generate_keypair(lnh.KeyType.EC, curve="P-256")
            assert isinstance(key, lnh.PrivateKey)
            for _ in range(_FRESH):
                _begin_anew(running)
                first.append(_signature(key))
                warm.append(statistics.median(_signature(key) for _ in range(_WARM)))
    value = statistics.median(a / b for a, b in zip(first, warm, strict=True))
    made = rows.at_most("first signature of a session new to a worker", value, "warm ones", _WARM_ONES)
    made.note = f"{1e6 * statistics.median(first):.0f} us; a warm one {1e6 * statistics.median(warm):.0f} us"
    yield made


if __name__ == "__main__":
    raise SystemExit(rows.run(measure))
