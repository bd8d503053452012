"""A member for the benchmark: set up by the product's own commands, ended whatever happens."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lnh
from lnh_cli.demo import processes
from lnh_cli.demo.local import Place, Steps, make_keyring, set_up, stop


def megabytes(pids: Iterable[int]) -> float:
    """The memory of these processes together, with what they share counted once.

    That is their proportional set sizes. Those of a hardened process are for root's eyes; for anybody else it counts as
    its anonymous memory, and of such processes the largest share of files is added once: they map the same ones.
    """
    total = files = 0
    for pid in pids:
        try:
            total += _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss")
        except PermissionError:
            status = Path(f"/proc/{pid}/status")
            total += _kilobytes(status, "RssAnon") + _kilobytes(status, "RssShmem")
            files = max(files, _kilobytes(status, "RssFile"))
    return (total + files) / 1024


def _kilobytes(path: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name}:"))


@dataclass
class Running:
    """A running member; `processes` are the supervisor and all it started."""

    place: Place

    def processes(self) -> list[int]:
        return processes.of_member(self.place.first.directory)

    def megabytes(self) -> float:
        """The memory of all processes."""
        return megabytes(self.processes())

    def cpu_by_service(self) -> dict[str, float]:
        """Seconds of processor time so far, by the module a process runs; the bench itself is `client`."""
        spent: dict[str, float] = {"client": time.process_time()}
        for pid in self.processes():
            command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            name = next((word.removeprefix("lnh_services.") for word in command if word.startswith("lnh_")), "member")
            threads = Path(f"/proc/{pid}/task").iterdir()
            ran = sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
            spent[name] = spent.get(name, 0.0) + ran / 1e9
        return spent

    def cpu_seconds(self) -> float:
        """The member's processor time so far."""
        return sum(seconds for name, seconds in self.cpu_by_service().items() if name != "client")

    def idle(self, seconds: float) -> float:
        """Share of one core used while nothing is asked."""
        before, began = self.cpu_seconds(), time.monotonic()
        time.sleep(seconds)  # what is measured is doing nothing
        return (self.cpu_seconds() - before) / (time.monotonic() - began)


@contextmanager
def running(kind: type[Steps] = Steps) -> Iterator[Running]:
    """One member with two workers, a cluster, a registered client and a keyring `payments`.

    Args:
        kind: of the steps that set it up.
    """
    place = Place(Path(tempfile.mkdtemp(prefix="lnh-", dir="/tmp")))
    try:
        place.create()
        steps = kind(place, quiet=True)
        steps.environment["LNH_WORKERS"] = "2"
        set_up(steps)
        make_keyring(steps)
        steps.run("lnh", "cluster", "policy", "objects_per_keyring=1000000", "weak_mechanisms=AES_ECB")
        yield Running(place)
    finally:
        stop(place)
        shutil.rmtree(place.root, ignore_errors=True)


@contextmanager
def session(place: Place) -> Iterator[lnh.KeyringSession]:
    """The KRCO's session of the keyring."""
    password = place.secret("krco").read_text().strip()
    with (
        lnh.connect("demo", directory=place.first.client) as cluster,
        cluster.keyring("payments").login(lnh.Role.KRCO, password) as logged_in,
    ):
        yield logged_in
