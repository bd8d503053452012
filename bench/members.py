"""Three members: what they cost, how long a fault stops a client that writes, and how long joining takes.

`python -m bench.members` measures these rows alone. A pause is what a client sees that makes one key after another,
on its own monotonic clock; beside it stands the lease L, which bounds it (docs/adr/0013).
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

from typing_extensions import Self

import lnh
from bench import filling
from bench.loads import flowing, pairs_row, using
from bench.rows import Row, at_most, in_turn, row, run, within
from lnh import admin
from lnh.console import Console
from lnh.keyrings import KeyringSession
from lnh_cli.demo import local
from lnh_cli.demo.local import Member, Place, Steps
from lnh_cli.demo.processes import standing_still
from lnh_cli.nouns.cluster import wait_until_in_step
from lnh_common import limits
from lnh_common.messages import objects
from lnh_common.pkcs11.mechanisms import Mechanism

L: Final = limits.LEASE_MS / 1000
OBJECTS: Final = int(os.environ.get("LNH_BENCH_OBJECTS", "100000"))  # in the cluster that a member joins
_ROUNDS: Final = 3  # of each fault that leaves the cluster whole
_AWAY: Final = 2 * L  # how long a primary is away
_TRY: Final = 0.5  # seconds for one write when members are read-only, and ...
_PAUSE: Final = 0.005  # ... between two of them
_JOIN_LIMIT: Final = 180.0  # seconds, of a full cluster
_PATIENCE: Final = 120.0


def wait(condition: Callable[[], object], what: str) -> None:
    """Raises TimeoutError when it does not come."""
    end = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {_PATIENCE:g} s")
        time.sleep(0.01)  # between looks


class Writer:
    """A thread that makes one key after another through one member, and knows when each began and was committed."""

    def __init__(self, session: KeyringSession, timeout: float = _TRY) -> None:
        self.writes: list[tuple[float, float]] = []
        self.refused = 0
        self.broken: Exception | None = None
        self._session = session
        self._timeout = timeout
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._write()
        except Exception as error:  # raised where it is waited for
            self.broken = error

    def _write(self) -> None:
        began = time.monotonic()
        try:
            self._session.generate_key(lnh.KeyType.AES, 256, timeout=self._timeout)
        except (lnh.MemberReadOnly, lnh.OutcomeUnknown, lnh.Unreachable, lnh.DeadlineExceeded):
            self.refused += 1
            time.sleep(_PAUSE)
        else:
            self.writes.append((began, time.monotonic()))

    def check(self) -> int:
        """How many writes were refused, or not answered in time; raises what ended the thread."""
        if self.broken is not None:
            raise self.broken
        return self.refused

    def begun_after(self, moment: float) -> list[float]:
        """When writes were committed that began after this moment; raises what ended the thread."""
        self.check()
        return [committed for began, committed in list(self.writes) if began >= moment]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class Running:
    """A cluster of three members, and a KRCO's session through each."""

    def __init__(self, place: Place, steps: Steps, sessions: dict[Member, KeyringSession]) -> None:
        self.place = place
        self.steps = steps
        self.sessions = sessions

    @contextmanager
    def administration(self, through: Member) -> Iterator[admin.Administration]:
        """A session of the admin and the PO."""
        password, po = (self.place.secret(name).read_text().strip() for name in ("admin", "po"))
        with (
            lnh.connect("demo", directory=through.client) as cluster,
            admin.login(cluster.connection, "admin", password, po_password=po) as session,
        ):
            yield session

    def whole(self) -> None:
        """Wait until every member is read-write."""
        self.steps.wait_for(self.place.first, {member.name: "read-write" for member in self.place.members})

    @contextmanager
    def writing(self, *members: Member, timeout: float = _TRY) -> Iterator[list[Writer]]:
        """A writer through each of these members; all have written something."""
        with ExitStack() as stack:
            writers = [stack.enter_context(Writer(self.sessions[member], timeout)) for member in members]
            began = time.monotonic()
            wait(lambda: all(len(writer.begun_after(began)) >= 20 for writer in writers), "writes")
            yield writers


@contextmanager
def running(workers: int = 2) -> Iterator[Running]:
    """Three members with so many workers each."""
    place = Place(Path(tempfile.mkdtemp(prefix="lnh-", dir="/tmp")))
    with ExitStack() as stack:
        try:
            place.create()
            steps = Steps(place, quiet=True)
            steps.environment["LNH_WORKERS"] = str(workers)
            local.set_up(steps)
            local.make_keyring(steps)
            steps.run("lnh", "cluster", "policy", "objects_per_keyring=1000000")
            local.join_all(steps)
            password = place.secret("krco").read_text().strip()
            sessions = {}
            for member in place.members:
                cluster = stack.enter_context(lnh.connect("demo", directory=member.client, failover=False))
                sessions[member] = cluster.keyring("payments").login(lnh.Role.KRCO, password)
                sessions[member].abandon()  # members are lost on the way
            yield Running(place, steps, sessions)
        finally:
            local.stop(place)
            shutil.rmtree(place.root, ignore_errors=True)


def signing_row(cluster: Running) -> Row:
    """P-256 signatures through a member beside two others, and while those stand still."""
    first, *others = cluster.place.members
    session = cluster.sessions[first]
    _, key = session.generate_keypair(lnh.KeyType.EC, curve="P-256")

    def signing() -> float:
        return flowing(session, using(objects.SIGN, key, Mechanism.ECDSA, bytes(32)))

    def alone() -> float:
        with standing_still(*(member.directory for member in others)):
            session.generate_key(lnh.KeyType.AES, 256)  # committed: the others are out of the set
            rate = signing()
        cluster.whole()
        return rate

    three, one = in_turn(signing, alone)
    return row("three members, P-256 sign, 64 in flight", three, "/s", "one member of them alone", one, 0.85)


def secondary_lost(cluster: Running) -> tuple[float, float]:
    """Seconds: the longest gap between two committed writes around the loss, and a usual gap."""
    first, lost = cluster.place.members[0], cluster.place.members[-1]
    with cluster.writing(first, timeout=limits.DEADLINE) as (writer,):
        moment = time.monotonic()
        cluster.steps.kill(lost)
        wait(lambda: time.monotonic() > moment + 2 * L and len(writer.begun_after(moment)) >= 20, "writes after a loss")
    committed = [ended for _, ended in writer.writes]
    gaps = [(later - earlier, earlier) for earlier, later in pairwise(committed)]
    usual = statistics.median(gap for gap, earlier in gaps if earlier < moment)
    longest = max(gap for gap, earlier in gaps if earlier + gap >= moment)
    cluster.steps.start(lost)
    cluster.whole()
    return longest, usual


def primary_back(cluster: Running) -> float:
    """Seconds from when the primary goes on until a write was committed through every member."""
    with cluster.writing(*cluster.place.members) as writers:
        with standing_still(cluster.place.first.directory):
            away = time.monotonic() + _AWAY
            refused = [writer.refused for writer in writers]
            wait(
                lambda: (
                    time.monotonic() > away
                    and all(writer.check() > before for writer, before in zip(writers, refused, strict=True))
                ),
                "members without a primary",
            )
            moment = time.monotonic()
        wait(lambda: all(writer.begun_after(moment) for writer in writers), "writes with the primary back")
    cluster.whole()
    return max(writer.begun_after(moment)[0] for writer in writers) - moment


def primary_removed(cluster: Running, lost: Member, through: Member, *others: Member) -> float:
    """Seconds from the command that gives the primary up until a write was committed through every other member."""
    with cluster.administration(through) as administration, cluster.writing(through, *others) as writers:
        cluster.steps.kill(lost)
        away = time.monotonic() + _AWAY
        wait(
            lambda: time.monotonic() > away and administration.member(through.name).state == "read-only",
            "a member without its primary",
        )
        moment = time.monotonic()
        administration.delete_member(lost.name)
        wait(lambda: all(writer.begun_after(moment) for writer in writers), "writes under another primary")
    return max(writer.begun_after(moment)[0] for writer in writers) - moment


def joining_row(cluster: Running, primary: Member) -> Row:
    """Seconds from the invitation's use to a new member's being read-write, in a cluster with many objects."""
    keyring = cluster.sessions[primary].route
    filling.fill(primary.directory, keyring, max(OBJECTS - filling.status(primary.directory).items, 0))
    held = filling.status(primary.directory)
    joiner = Member(cluster.place.root, "d")
    try:
        local.prepare(cluster.steps, joiner)
        with cluster.administration(primary) as administration:
            invitation = administration.invite().text
        with Console(joiner.directory) as console:
            began = time.monotonic()
            console.join_cluster(invitation, cluster.place.secret("so").read_text().strip())
            progress = wait_until_in_step(console, 10 * _JOIN_LIMIT)
            took = time.monotonic() - began
        if progress.state != "read-write":
            raise TimeoutError(f"the joining member is {progress.state}: {progress.problem}")
        print(f"joined a store of {held.bytes_on_disk / 1e6:.0f} MB, {held.items} items", file=sys.stderr)
        return at_most(f"a member joins, {held.items} objects", took, "s", _JOIN_LIMIT)
    finally:
        joiner.stop()


def measure() -> Iterator[Row]:
    """The rows of three members; at the end one of them is left, which another joins."""
    with running() as cluster:
        a, b, c = cluster.place.members
        yield signing_row(cluster)
        yield pairs_row(cluster.sessions[a], "three members, key pair made and durable", 10.0)
        losses = [secondary_lost(cluster) for _ in range(_ROUNDS)]
        usual = statistics.median(usual for _, usual in losses)
        pauses = [longest for longest, _ in losses]
        yield within("secondary lost, pause of writes", pauses, L, L + usual, "L and a write")
        backs = [primary_back(cluster) for _ in range(_ROUNDS)]
        yield within("primary away and back, to read-write everywhere", backs, L, L + 2, "L + 2 s")
        removals = [primary_removed(cluster, a, b, c), primary_removed(cluster, b, c)]
        yield within("primary removed, to read-write everywhere", removals, L, L + 2, "L + 2 s")
        yield joining_row(cluster, c)


if __name__ == "__main__":
    sys.exit(run(measure))
