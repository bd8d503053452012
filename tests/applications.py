"""What client machines do while members come and go: sign, create keys, and keep registers whose history is checked."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import lnh
from lnh import MemberReadOnly, OutcomeUnknown, Unreachable, VersionConflict
from lnh_cli.demo.local import Member
from lnh_common.messages import objects
from members import Load, Members
from models.linearizability import UNKNOWN, Operation, check
from models.registers import Read, Registers, Write
from waits import wait_until

WITHIN = 60.0
IN_FLIGHT = 64
THREADS = 2
DATA = bytes(32)
# Seconds between two acts, so that a small machine has room for faults: of an application, and of what keeps a history.
PAUSES, BETWEEN = (0.0, 0.0) if "LNH_SOAK" in os.environ else (0.1, 0.05)
MADE = "made"  # the label of the keys that are made meanwhile


class Application:
    """A thread with 64 signatures in flight, some with one each, and one that makes keys, all on one session.

    Attributes:
        made: handles of keys whose making was acknowledged.
        refused: of a key that was not, or may not have been made: when it began, when it ended, and why.
    """

    def __init__(self, session: lnh.KeyringSession, pauses: float = PAUSES) -> None:
        session.abandon()  # members are lost on the way
        self.pauses = pauses
        self.session = session
        self.connection = session.connection
        _, self.key = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="signs")
        _, self.in_session = session.generate_keypair(lnh.KeyType.EC, curve="P-256", token=False)
        self.signed: list[float] = []
        self.each = [0] * THREADS
        self.made: list[bytes] = []
        self.refused: list[tuple[float, float, Exception]] = []
        self.load = Load(self._stream, self._make, *(self._one(number) for number in range(THREADS)))

    def _stream(self) -> None:
        fields = {"handle": self.key.handle, "mechanism": lnh.Mechanism.ECDSA.value, "data": DATA}
        calls = itertools.takewhile(lambda _: not self.load.over.is_set(), itertools.repeat((objects.SIGN, fields)))
        for _ in self.session.call_each(calls, IN_FLIGHT):
            self.signed.append(time.monotonic())
            if self.pauses and len(self.signed) % IN_FLIGHT == 0:
                self.load.over.wait(self.pauses)

    def _one(self, number: int) -> Callable[[], None]:
        key = self.in_session if number % 2 else self.key
        assert isinstance(key, lnh.PrivateKey)

        def sign() -> None:
            key.sign(DATA, lnh.Mechanism.ECDSA)
            self.each[number] += 1
            self.load.over.wait(self.pauses)

        return sign

    def _make(self) -> None:
        began = time.monotonic()
        try:
            self.made.append(self.session.generate_key(lnh.KeyType.AES, 256, label=MADE).handle)
        except (MemberReadOnly, OutcomeUnknown) as error:
            self.refused.append((began, time.monotonic(), error))
        self.load.over.wait(self.pauses)

    @contextmanager
    def running(self) -> Iterator[None]:
        with self.load:
            self.flows("at first")
            yield
        self.raise_errors()

    def raise_errors(self) -> None:
        if self.load.errors:
            raise self.load.errors[0]

    def flows(self, when: str, *, makes: bool = True) -> None:
        """Wait until every thread got on from here; raises what one ended with."""
        signed, each, made = len(self.signed), list(self.each), len(self.made)

        def got_on() -> bool:
            return bool(self.load.errors) or (
                len(self.signed) > signed + 2 * IN_FLIGHT
                and all(now > before + 1 for now, before in zip(self.each, each, strict=True))
                and (not makes or len(self.made) > made + 1)
            )

        wait_until(got_on, f"everything flows {when}", WITHIN)
        self.raise_errors()

    def goes(self, *, home: bool) -> None:
        """Wait until it is at the member it is registered with, or at another."""

        def is_there() -> bool:
            return bool(self.load.errors) or (self.connection.endpoint.address == self.connection.link.address) == home

        wait_until(is_there, "the way home" if home else "another way", WITHIN)
        self.raise_errors()

    def pause(self, since: float) -> float:
        """The longest time without a signature that ended after this moment, in seconds."""
        return max(later - earlier for earlier, later in pairwise(self.signed) if later >= since)


@contextmanager
def application(members: Members, member: Member, pauses: float = PAUSES) -> Iterator[Application]:
    """One on the client machine that is registered through this member.

    Args:
        pauses: seconds between two acts of each of its threads; with 0 it is as fast as it can be.
    """
    with lnh.connect("demo", directory=member.client) as cluster:
        yield Application(
            cluster.keyring("payments").login(lnh.Role.KRCO, members.place.secret("krco").read_text().strip()), pauses
        )


class History:
    """Two objects' labels, written through every member by clients that fail over, and read through the primary alone.

    Nobody else commits anything while the primary keeps its place, so what it reads is the newest whatever happens.
    """

    def __init__(self, members: Members, primary: Member) -> None:
        self.operations: list[Operation] = []
        self._members = members
        self._primary = primary
        self._values = itertools.count()
        self._lock = threading.Lock()
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep it; then it is checked."""
        password = self._members.place.secret("krco").read_text().strip()
        with lnh.connect("demo", directory=self._primary.client, timeout=5.0, failover=False) as reading:
            reader = reading.keyring("payments").login(lnh.Role.KRCO, password)
            reader.abandon()
            registers = [reader.generate_key(lnh.KeyType.AES, 256, label="").handle for _ in range(2)]
            clusters = [lnh.connect("demo", directory=member.client, timeout=5.0) for member in self._members.all]
            try:
                writers = []
                for cluster in clusters:
                    writer = cluster.keyring("payments").login(lnh.Role.KRCO, password)
                    writer.abandon()
                    writers.append(self._writer(writer, registers))
                load = Load(*writers, self._reader(reader, registers))
                self._over = load.over
                with load:
                    wait_until(lambda: self._is_rich() or load.errors, "writes and reads", WITHIN)
                    yield
                    done = len(self.operations)
                    wait_until(lambda: len(self.operations) > done + 20 or load.errors, "an end", WITHIN)
            finally:
                for cluster in clusters:
                    cluster.close()
        assert load.errors == []
        assert self._is_rich()
        violation = check(self.operations, Registers())
        assert violation is None, str(violation)

    def _is_rich(self) -> bool:
        reads = sum(isinstance(each.action, Read) for each in list(self.operations))
        return reads > 10 and len(self.operations) - reads > 10

    def _writer(self, session: lnh.KeyringSession, registers: list[bytes]) -> Callable[[], None]:
        keys = itertools.cycle([session.get_object(handle) for handle in registers])

        def write() -> None:
            key = next(keys)
            with self._lock:
                value = f"{next(self._values)}"
            began = time.monotonic()
            try:
                key.set_attributes(label=value)
                end, done = time.monotonic(), True
            except OutcomeUnknown:
                end, done = UNKNOWN, True
            except (MemberReadOnly, Unreachable, VersionConflict):
                end, done = time.monotonic(), False
            self.operations.append(Operation(began, end, Write(key.handle, value), done, hint=began))
            self._over.wait(BETWEEN)

        return write

    def _reader(self, session: lnh.KeyringSession, registers: list[bytes]) -> Callable[[], None]:
        handles = itertools.cycle(registers)

        def read() -> None:
            handle = next(handles)
            began = time.monotonic()
            try:
                value = session.get_object(handle).label
            except (Unreachable, lnh.DeadlineExceeded, lnh.AnswerUnproven):
                return  # it is down, and the client does not look elsewhere
            self.operations.append(Operation(began, time.monotonic(), Read(handle), value, hint=time.monotonic()))
            self._over.wait(BETWEEN)

        return read
