"""The whole product as its user has it: services killed or data changed under a running load."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from bench import member
from bench.member import Running
from cryptography.hazmat.primitives.asymmetric import ec

import failed
import lnh
from commands import ForkedSteps
from lnh_cli.demo.local import stop
from lnh_cli.demo.processes import held, kill, standing_still
from lnh_common import limits
from members import is_read_write
from waits import wait_until


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with member.running(ForkedSteps) as one, failed.watched(one.place.root):
        yield one


@pytest.fixture
def session(running: Running) -> Iterator[lnh.KeyringSession]:
    with member.session(running.place) as one:
        yield one


def children(running: Running) -> dict[int, str]:
    """Command lines of the member's processes."""
    found = {}
    for pid in running.processes():
        with suppress(FileNotFoundError, ProcessLookupError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found[pid] = b" ".join(words).decode()
    return found


@contextmanager
def down(running: Running) -> Iterator[None]:
    """Every process of the member is stopped meanwhile."""
    stop(running.place)
    try:
        yield
    finally:
        ForkedSteps(running.place, quiet=True).start()


@pytest.mark.parametrize(
    "victim",
    ["hsm.worker", "lnh_services.store", "lnh_services.balancer", "lnh_services.membership", "hsm.crypto.argon2"],
)
def test_a_service_killed_under_load_costs_at_most_retries(
    running: Running, session: lnh.KeyringSession, victim: str
) -> None:
    public, private = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label=victim)
    errors: list[Exception] = []
    signatures: list[tuple[bytes, bytes]] = []
    made: list[bytes] = []
    over = threading.Event()

    def sign() -> None:
        try:
            while not over.is_set():
                data = os.urandom(32)
                signatures.append((data, private.sign(data, lnh.Mechanism.ECDSA)))
        except Exception as error:
            errors.append(error)

    def stream() -> None:
        drawn: deque[bytes] = deque()

        def messages() -> Iterator[bytes]:
            while not over.is_set():
                drawn.append(os.urandom(32))
                yield drawn[-1]

        try:
            for signature in private.sign_each(messages(), lnh.Mechanism.ECDSA):
                signatures.append((drawn.popleft(), signature))  # noqa: PERF401  # one by one: others count them
        except Exception as error:
            errors.append(error)

    def make() -> None:
        try:
            while not over.is_set():
                made.append(session.generate_key(lnh.KeyType.AES, 256, label=victim).handle)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for work in (sign, stream, make)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(signatures) > 50 and len(made) > 5, "load runs")
        killed = next(pid for pid, words in children(running).items() if victim in words)
        os.kill(killed, signal.SIGKILL)
        wait_until(
            lambda: any(victim in words for pid, words in children(running).items() if pid != killed), "restarted"
        )
        seen = len(signatures), len(made)

        def goes_on() -> bool:
            return bool(errors) or (len(signatures) > seen[0] + 50 and len(made) > seen[1] + 5)

        wait_until(goes_on, "the load goes on")
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert errors == []
    key = public.as_cryptography()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    for data, signature in signatures[-20:]:
        public.verify(data, signature, lnh.Mechanism.ECDSA)
    stored = {found.handle for found in session.find(label=victim, key_type=lnh.KeyType.AES)}
    assert stored == set(made), "a key was lost, or made twice"


def test_many_in_flight_keep_their_order_and_an_error_comes_in_its_turn(session: lnh.KeyringSession) -> None:
    public, private = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="stream")
    digests = [bytes([number]) * 32 for number in range(100)]
    for digest, signature in zip(digests, private.sign_each(digests, lnh.Mechanism.ECDSA), strict=True):
        assert public.verify(digest, signature, lnh.Mechanism.ECDSA)
    wrong = private.sign_each([*digests[:50], b"no digest", *digests[50:]], lnh.Mechanism.ECDSA)
    for _ in range(50):
        next(wrong)
    with pytest.raises(lnh.errors.DataLength):
        next(wrong)


def test_a_session_goes_on_after_every_process_was_restarted(running: Running) -> None:
    with member.session(running.place) as session:
        _, private = session.generate_keypair(lnh.KeyType.EC_EDWARDS, curve="Ed25519", label="kept")
        before = private.sign(b"data")
        with down(running):
            pass
        assert private.sign(b"data", timeout=60) == before


def test_a_row_changed_on_disk_is_refused_and_the_rest_still_served(
    running: Running, session: lnh.KeyringSession
) -> None:
    _, changed = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="changed")
    _, other = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="other")
    database = running.place.first.directory / "data" / "store" / "store.db"
    with down(running):
        with sqlite3.connect(database) as rows:
            (body,) = rows.execute("SELECT body FROM items WHERE id = ?", (changed.handle,)).fetchone()
            body = body[:-1] + bytes([body[-1] ^ 1])
            rows.execute("UPDATE items SET body = ? WHERE id = ?", (body, changed.handle))
        rows.close()
    with pytest.raises(lnh.errors.SealBroken):
        changed.sign(b"data", timeout=60)  # its worker is there some time after the services are
    other.sign(b"data")


def test_a_key_put_back_as_it_was_before_it_changed_is_refused(running: Running, session: lnh.KeyringSession) -> None:
    _, key = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="older")
    _, other = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="untouched")
    database = running.place.first.directory / "data" / "store" / "store.db"
    with sqlite3.connect(database) as rows:
        older = rows.execute("SELECT version, head, body FROM items WHERE id = ?", (key.handle,)).fetchone()
    rows.close()
    key.set_attributes(label="newer")
    key.sign(b"data")
    supervisor = running.place.first.running()
    assert supervisor is not None
    with held(supervisor):  # so that no store runs while its file is changed
        kill(running.place.first.directory, "lnh_services.store")
        lapsed = time.monotonic() + limits.WORKER_LEASE_MS / 1000
        wait_until(lambda: time.monotonic() > lapsed, "no worker vouches for what it had read")
        with sqlite3.connect(database) as rows:
            rows.execute("UPDATE items SET version = ?, head = ?, body = ? WHERE id = ?", (*older, key.handle))
        rows.close()
    wait_until(partial(is_read_write, running.place.first), "the member in step, which knows what there is")
    other.sign(b"data")
    with pytest.raises(lnh.errors.StateRolledBack):
        key.sign(b"data")
    other.sign(b"data")


def test_a_deadline_holds_while_nothing_answers(running: Running, session: lnh.KeyringSession) -> None:
    _, private = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="late")
    with standing_still(running.place.first.directory, part="hsm.worker"):
        began = time.monotonic()
        with pytest.raises(lnh.LnhError):
            private.sign(b"data", timeout=1.0)
        assert time.monotonic() - began < limits.DEADLINE  # which is what holds where no time is given
    private.sign(b"data")


def test_keys_of_the_wrong_kind_and_data_too_long_are_refused(session: lnh.KeyringSession) -> None:
    aes = session.generate_key(lnh.KeyType.AES, 256, label="wrong")
    with pytest.raises((lnh.errors.KeyTypeInconsistent, lnh.errors.KeyFunctionNotPermitted)):
        aes.sign(b"data", lnh.Mechanism.SHA256_HMAC)
    with pytest.raises(lnh.errors.DataLength):
        aes.encrypt(bytes(2 << 20))
    with pytest.raises(lnh.errors.ObjectUnknown):
        session.get_object(os.urandom(16))
