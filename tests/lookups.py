"""A client that makes objects, looks them up through every member, and destroys them; what it is told must be one history.

What an application does on "there is none" cannot be undone: it makes another key, or gives up. So whoever says so,
for certain, is taken at its word, as for a value: it is a read of "absent". An answer that leaves it open is no read.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import lnh
from lnh import (
    AnswerUnproven,
    Busy,
    DeadlineExceeded,
    MemberBehind,
    MemberReadOnly,
    ObjectUnknown,
    OutcomeUnknown,
    Unreachable,
)
from lnh_cli.demo.local import Member
from members import Load, Members
from models.linearizability import UNKNOWN, Operation, check
from models.registers import Read, Registers, Write
from waits import wait_until

WITHIN = 60.0
KEPT = 6  # objects that there are at once; the oldest is destroyed for each that is made
LOOKED_AT = 2 * KEPT  # the last ones made, whatever became of them
NEWEST = 3
PAUSE = 0.1  # seconds between two acts of a thread
ABSENT, THERE = "", "there"
UNDONE = (MemberReadOnly, MemberBehind, Unreachable, Busy, DeadlineExceeded)  # what says that nothing was done
LEFT_OPEN = (Unreachable, DeadlineExceeded, AnswerUnproven, Busy)


@dataclass
class Made:
    """An object that was asked for; without a handle where nobody was told of one."""

    label: str
    handle: bytes = b""

    @property
    def register(self) -> bytes:
        return self.label.encode()


def get_object(session: lnh.KeyringSession, made: Made) -> bool | None:
    if not made.handle:
        return None
    session.get_object(made.handle)
    return None  # a member that is behind may still show what was destroyed


def get_key(session: lnh.KeyringSession, made: Made) -> bool | None:
    session.get_key(label=made.label)
    return None


def find(session: lnh.KeyringSession, made: Made) -> bool | None:
    listing = session.find(label=made.label)
    found = list(listing)
    return bool(found) if listing.current else None


def find_current(session: lnh.KeyringSession, made: Made) -> bool | None:
    return bool(list(session.find(label=made.label, current=True)))


LOOKS: tuple[Callable[[lnh.KeyringSession, Made], bool | None], ...] = (get_object, get_key, find, find_current)


class Lookups:
    """Its writer goes on at other members when one is lost; each member is looked through alone, and with failover.

    Attributes:
        asked: of each way to look, how often something was asked.
        answered: ... how often the answer was certain.
        doubted: ... how often it was that the member may be behind.
    """

    def __init__(self, members: Members, home: Member) -> None:
        self.operations: list[Operation] = []
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.doubted: Counter[str] = Counter()
        self._members = members
        self._home = home
        self._numbers = itertools.count()
        self._id = os.urandom(8)  # of every object: another client of the same keyring has its own
        self._alive: deque[tuple[Made, lnh.SecretKey]] = deque()
        self._all: list[Made] = []
        self._load = Load()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep at it; then what was told is checked, and what there is in the end."""
        password = self._members.place.secret("krco").read_text().strip()
        with ExitStack() as opened:
            writer = opened.enter_context(lnh.connect("demo", directory=self._home.client, timeout=5.0, failover=True))
            session = writer.keyring("payments").login(lnh.Role.KRCO, password)
            session.abandon()
            alone = {each.name: self._beside(session, opened, each, failover=False) for each in self._members.all}
            others = {
                _or_another(each): self._beside(session, opened, each, failover=True) for each in self._members.all
            }
            lookers = [self._looker(who, looking) for who, looking in {**alone, **others}.items()]
            self._load = Load(self._writer(session), *lookers)
            with self._load:
                self.goes_on("at first")
                yield
                self.goes_on("at the end")
            assert self._load.errors == [], self._load.errors
            self._members.all_read_write()
            for who, looking in alone.items():
                self._look_at_all(who, looking)
        violation = check(self.operations, Registers())
        assert violation is None, str(violation)

    @staticmethod
    def _beside(
        session: lnh.KeyringSession, opened: ExitStack, member: Member, *, failover: bool
    ) -> lnh.KeyringSession:
        """The same session over a connection of its own."""
        timeout = 5.0 if failover else 2.0
        cluster = opened.enter_context(lnh.connect("demo", directory=member.client, timeout=timeout, failover=failover))
        return lnh.KeyringSession(cluster.connection, *session.saved(), route=session.route, timeout=timeout)

    def goes_on(self, when: str, behind: tuple[Member, ...] = ()) -> None:
        """Wait until more was made, and then looked up in every way: all may answer but these members, which say so."""
        made = len(self._all) + NEWEST
        self._wait_until(lambda: len(self._all) >= made, f"objects to be made {when}")
        ways = [each.name for each in self._members.all] + [_or_another(each) for each in self._members.all]
        not_in_step = {each.name for each in behind}
        for way in ways:
            counts, what = (self.doubted, "doubts") if way in not_in_step else (self.answered, "answers")
            asked, told = self.asked[way] + len(LOOKS), counts[way]
            self._wait_until(
                lambda: self.asked[way] > asked and counts[way] > told,  # noqa: B023
                f"{what} of {way} {when}",
            )

    def _wait_until(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(lambda: condition() or self._load.errors, what, WITHIN)
        assert self._load.errors == [], self._load.errors

    def _told(self, began: float, action: Read | Write, result: object, who: str) -> None:
        now = time.monotonic()
        self.operations.append(Operation(began, now, action, result, who, hint=now))

    # What it does

    def _writer(self, session: lnh.KeyringSession) -> Callable[[], None]:
        def write() -> None:
            self._make(session)
            if len(self._alive) > KEPT:
                self._destroy(*self._alive.popleft())
            self._load.over.wait(PAUSE)

        return write

    def _make(self, session: lnh.KeyringSession) -> None:
        made = Made(f"looked-up-{self._id.hex()}-{next(self._numbers)}")
        action = Write(made.register, THERE)
        began = time.monotonic()
        try:
            key = session.generate_key(lnh.KeyType.AES, 256, label=made.label, id=self._id)
        except UNDONE:
            self._told(began, action, False, "make")
        except OutcomeUnknown:
            self.operations.append(Operation(began, UNKNOWN, action, hint=began))
        else:
            self._told(began, action, True, "make")
            made.handle = key.handle
            self._alive.append((made, key))
        self._all.append(made)

    def _destroy(self, made: Made, key: lnh.SecretKey) -> None:
        """Nobody else does: what is refused is there as before, and there is none only if it is destroyed."""
        action = Write(made.register, ABSENT)
        began = time.monotonic()
        try:
            key.destroy()
        except UNDONE:
            self._told(began, action, False, "destroy")
            self._alive.append((made, key))
        except OutcomeUnknown:
            self.operations.append(Operation(began, UNKNOWN, action, hint=began))
        except ObjectUnknown:
            self._told(began, Read(made.register), ABSENT, "destroy")
        else:
            self._told(began, action, True, "destroy")

    def _looker(self, who: str, session: lnh.KeyringSession) -> Callable[[], None]:
        looks = itertools.cycle(LOOKS)
        chance = random.Random(who)

        def look() -> None:
            last = self._all[-chance.choice((NEWEST, LOOKED_AT)) :]
            if last:
                self._look(who, session, next(looks), chance.choice(last))
            self._load.over.wait(PAUSE)

        return look

    def _look(
        self, who: str, session: lnh.KeyringSession, look: Callable[[lnh.KeyringSession, Made], bool | None], made: Made
    ) -> None:
        began = time.monotonic()
        self.asked[who] += 1
        try:
            found = look(session, made)
        except ObjectUnknown:
            found = False
        except MemberBehind:
            self.doubted[who] += 1
            return
        except LEFT_OPEN:
            return
        if found is not None:
            self.answered[who] += 1
            self._told(began, Read(made.register), THERE if found else ABSENT, f"{who}: {look.__name__}")

    def _look_at_all(self, who: str, session: lnh.KeyringSession) -> None:
        """What there is in the end, of all that was ever asked for."""
        began = time.monotonic()
        found = {one.label for one in session.find(id=self._id, current=True)}
        for made in self._all:
            self._told(began, Read(made.register), THERE if made.label in found else ABSENT, f"{who}: at the end")


def _or_another(member: Member) -> str:
    return f"{member.name} or another"
