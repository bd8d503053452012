"""A registered client's signatures while somebody tries to take the service away (`attackers.py`).

    python -m bench.attacks [WAY ...]

For each way: the client signs one at a time beside an idle-priority process that only uses the processor, then while
attackers of that priority are at work, then again. Nothing but time may be lost, and of that little.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import lnh
from bench import member, rows
from bench.rows import Row, at_most
from lnh_common.errors import LnhError
from lnh_common.pkcs11.mechanisms import Mechanism

SECONDS: Final = 20.0
BESIDE_SECONDS: Final = 6.0
AFTER: Final = 1.0  # seconds after an attack's end from which on all is as before ...
AFTER_SECONDS: Final = 3.0  # ... which is looked at for so long
AT_MOST: Final = 5.0  # times the p99 beside a process that only uses the processor
AS_BEFORE: Final = 2.0  # ... and what it may be after an attack's end
MEGABYTES: Final = 200.0  # that no process of the member grows by

ATTACKS: Final = {
    "a": "failed handshakes",
    "b": "bundles of empty entries",
    "c": "messages of 1200 frames",
    "d": "hellos",
    "e": "answers not read",
    "f": "refusals without a login",
}
_LOOK_EVERY: Final = 0.25  # seconds between two looks at the member's memory
_DATA: Final = bytes(32)


@dataclass
class Seen:
    """What the client saw: when each signature was asked for and how long it took, and errors."""

    took: list[tuple[float, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    grown: float = 0.0
    which: str = ""

    def p99(self, begin: float = 0.0, end: float = float("inf")) -> float:
        """Milliseconds."""
        taken = sorted(took for at, took in self.took if begin <= at < end)
        return 1e3 * taken[len(taken) * 99 // 100] if taken else float("inf")


class Client:
    """A client that signs, and looks at the member's memory meanwhile."""

    def __init__(self, running: member.Running, key: lnh.PrivateKey) -> None:
        self._running = running
        self._key = key

    def attacked(self, way: str, seconds: float) -> Seen:
        """Sign while somebody is at work, and for some seconds after."""
        place = self._running.place
        attacker = subprocess.Popen(
            [
                sys.executable, "-m", "bench.attackers", way,
                "--seconds", str(seconds), "--client", str(place.first.client),
                "--password-file", str(place.secret("krco")),
            ]
        )  # fmt: skip
        seen = Seen()
        try:
            self._sign(seen, lambda: attacker.poll() is None)
            self.ended = time.monotonic()
            ends = self.ended + AFTER + AFTER_SECONDS
            self._sign(seen, lambda: time.monotonic() < ends)
        finally:
            attacker.kill()
            attacker.wait()
        return seen

    def _sign(self, seen: Seen, goes_on: Callable[[], bool]) -> None:
        before = self._memory()
        look_at = 0.0
        while goes_on():
            began = time.monotonic()
            try:
                self._key.sign(_DATA, Mechanism.ECDSA)
            except LnhError as error:
                seen.errors.append(f"{type(error).__name__}: {error}")
            seen.took.append((began, time.monotonic() - began))
            if began >= look_at:
                look_at = began + _LOOK_EVERY
                for pid, megabytes in self._memory().items():
                    grown = megabytes - before.get(pid, megabytes)
                    if grown > seen.grown:
                        seen.grown, seen.which = grown, self._name(pid)

    def _memory(self) -> dict[int, float]:
        """Megabytes that each process of the member has, which any user may look at."""
        found = {}
        for pid in self._running.processes():
            with suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{pid}/status").read_text()
                found[pid] = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        return found

    @staticmethod
    def _name(pid: int) -> str:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        return next((word for word in words if word.startswith("lnh_")), "lnh-member")


def measure(ways: list[str] | None = None) -> Iterator[Row]:
    with member.running() as running, member.session(running.place) as session:
        _, key = session.generate_keypair(lnh.KeyType.EC, curve="P-256")
        assert isinstance(key, lnh.PrivateKey)
        client = Client(running, key)
        for way in ways or ATTACKS:
            beside = client.attacked("nothing", BESIDE_SECONDS).p99()
            seen = client.attacked(way, SECONDS)
            during = seen.p99(end=client.ended)
            after = seen.p99(client.ended + AFTER)
            holds = during <= AT_MOST * beside and not seen.errors and after <= AS_BEFORE * beside
            ratio = during / beside
            said = f" ({seen.errors[0]})" if seen.errors else ""
            note = f"{len(seen.errors)} errors{said}; p99 {after:.1f} ms from {AFTER:g} s after its end on"
            yield Row(
                f"P-256 sign, p99, beside {ATTACKS[way]}", round(during, 2), "ms",
                f"that beside an idle-priority process, at most {AT_MOST:g}", round(beside, 2), round(ratio, 2), 0.0,
                holds, note=note,
            )  # fmt: skip
            grown = at_most(f"memory gained under {ATTACKS[way]}", max(seen.grown, 0.1), "MB", MEGABYTES)
            grown.note = seen.which
            yield grown


def main() -> int:
    return rows.run(lambda: measure(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
