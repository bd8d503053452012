"""A full cluster: 3500 keyrings of 256 objects, beside one keyring of 256 in a member of its own.

`python -m bench.scale` measures these rows. It takes some six minutes, more on a slow machine, and 6 GB below /tmp, so
`make bench` leaves them out; `LNH_SCALE_OBJECTS` takes fewer. The objects are put in as `filling.py` says, but for one
keyring's, which are real ones.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import lnh
from bench import filling, member
from bench.loads import flowing, using
from bench.rows import Row, at_most, in_turn, row, run
from lnh import admin
from lnh.console import Console
from lnh_cli.demo import local
from lnh_cli.demo.local import Member, Place
from lnh_cli.nouns.cluster import wait_until_in_step
from lnh_common import limits
from lnh_common.messages import objects
from lnh_common.pkcs11.mechanisms import Mechanism

KEYRING: Final = limits.OBJECTS_PER_KEYRING
OBJECTS: Final = int(os.environ.get("LNH_SCALE_OBJECTS", str(limits.KEYRINGS_PER_CLUSTER * KEYRING)))
FINDS: Final = 300  # a window
_A_COMMIT: Final = 64  # objects
_PATIENCE: Final = 1200.0


@contextmanager
def _administration(place: Place) -> Iterator[admin.Administration]:
    password, po = (place.secret(name).read_text().strip() for name in ("admin", "po"))
    with (
        lnh.connect("demo", directory=place.first.client) as cluster,
        admin.login(cluster.connection, "admin", password, po_password=po) as session,
    ):
        yield session


def _fill_one(session: lnh.KeyringSession) -> lnh.PrivateKey:
    """256 objects in the keyring, as many as it holds by default; a key pair of them."""
    made = 0
    pairs: list[tuple[lnh.PublicKey, lnh.PrivateKey]] = []
    while made < KEYRING:
        total = min((KEYRING - made) // 2, limits.OBJECTS_PER_GENERATE)
        pairs += session.generate_keypairs(total, lnh.KeyType.EC, curve="P-256", label="key", index=made)
        made += 2 * total
    return pairs[0][1]


def _found(session: lnh.KeyringSession) -> float:
    """Median microseconds of a search by label."""
    took = []
    for number in range(FINDS):
        began = time.perf_counter()
        found = list(session.find(label=f"key{number % 100}"))
        took.append(time.perf_counter() - began)
        assert len(found) == 2, "a key pair of this label"
    return statistics.median(took) * 1e6


def _timed(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def _joining(place: Place, steps: local.Steps) -> float:
    joiner = Member(place.root, "d")
    try:
        local.prepare(steps, joiner)
        with _administration(place) as session:
            invitation = session.invite().text
        with Console(joiner.directory) as console:
            began = time.monotonic()
            console.join_cluster(invitation, place.secret("so").read_text().strip())
            progress = wait_until_in_step(console, _PATIENCE)
            if progress.state != "read-write":
                raise TimeoutError(f"the joining member is {progress.state}: {progress.problem}")
            took = time.monotonic() - began
        with _administration(place) as session:
            session.remove_member(joiner.name)
        return took
    finally:
        joiner.stop()


def _signing(session: lnh.KeyringSession, key: lnh.PrivateKey) -> float:
    return flowing(session, using(objects.SIGN, key, Mechanism.ECDSA, bytes(32)))


def measure() -> Iterator[Row]:
    what, alone = f"{OBJECTS} objects", "1 keyring x 256"
    with member.running() as running:
        place = running.place
        steps = local.Steps(place, quiet=True)
        with member.running() as small, member.session(small.place) as few, member.session(place) as many:
            few_key, many_key = _fill_one(few), _fill_one(many)
            took = _timed(lambda: filling.fill(place.first.directory, many.route, OBJECTS - KEYRING, _A_COMMIT))
            held = filling.status(place.first.directory)
            print(f"{held.items} items, {held.bytes_on_disk / 1e6:.0f} MB, filled in {took:.0f} s", file=sys.stderr)
            full, one = in_turn(lambda: _signing(many, many_key), lambda: _signing(few, few_key))
            yield row(f"{what}: P-256 sign, 64 in flight", full, "/s", alone, one, 0.9)
            full, one = in_turn(lambda: _found(many), lambda: _found(few))
        # A time: at most 1.5 times the other is at least 1 / 1.5 of what it may be.
        slower = row("", one, "us", alone, full, 1 / 1.5)
        yield Row(
            f"{what}: find by label, p50", slower.reference_value or 0, "us", alone, slower.value, slower.ratio,
            round(1 / 1.5, 3), slower.holds, f"{min(full):.0f}..{max(full):.0f}",
        )  # fmt: skip
        yield at_most(f"{what}: memory (PSS)", running.megabytes(), "MB", 1536.0)
        place.first.stop()
        yield at_most(f"{what}: restart to serving", _timed(steps.start), "s", 5.0)
        with _administration(place) as session_of_admin:
            backups = session_of_admin.backups
            archive = backups.wait(backups.now())
            yield at_most(f"{what}: backup", _timed(lambda: backups.wait(backups.now())), "s", 60.0)
        yield at_most(f"{what}: a member joins", _joining(place, steps), "s", 180.0)
        with _administration(place) as session_of_admin:
            backups = session_of_admin.backups
            restoring = _timed(lambda: backups.wait_restored(backups.restore(archive.archive)))
            yield at_most(f"{what}: restore", restoring, "s", 180.0)


if __name__ == "__main__":
    sys.exit(run(measure))
