"""Three whole members for tests, and loads for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from typing_extensions import Self

import failed
import lnh
from commands import ForkedSteps
from lnh_cli.demo import local
from lnh_cli.demo.local import Member, Place, StepFailed
from lnh_cli.demo.processes import standing_still
from lnh_common import limits
from lnh_common.messages import store
from lnh_services.paths import MemberDirectory
from processes import ask
from waits import wait_until

PAUSE = 0.01  # seconds between two acts of a thread of a load: the processor is for the members, and for other tests
JOIN_SECONDS = 60.0  # an act has 10 s, and a write whose outcome is not known is asked for again


def is_read_write(member: Member) -> bool:
    """As its own store says."""
    return ask(MemberDirectory(member.directory).store_for_services, store.STATUS).state == "read-write"


@contextmanager
def stopped(member: Member) -> Iterator[None]:
    """Every process of a member stands still; its connections stay."""
    with standing_still(member.directory) as still:
        assert still, "only a member that runs is stopped"
        yield


class Members:
    """A cluster of three members on this machine, and a KRCO's session through each."""

    def __init__(self, place: Place, steps: ForkedSteps) -> None:
        self.place = place
        self.steps = steps
        self.all = place.members

    def is_as_new(self) -> bool:
        """Whether all are there and in step, as far as a cluster tells that was just made."""
        try:
            self.all_read_write()
            local.log_in(self.steps)  # a test may have ended every session
            views = json.loads(self.steps.run("lnh", "member", "list", "--json"))
            groups = json.loads(self.steps.run("lnh", "group", "list", "--json"))
        except (StepFailed, AssertionError):
            return False
        return len(views) == len(self.all) and [each["label"] for each in groups] == ["local"]

    def renew(self) -> None:
        """The first is primary again, and the keyring another one: what one test filled is no burden to the next."""
        first = self.all[0]
        if self.primary() is not first:
            self.steps.run("lnh", "member", "promote", first.name, "--timeout", "60")
            self.all_read_write()
        self.steps.run("lnh", "keyring", "delete", "payments", "--yes")
        local.make_keyring(self.steps)

    @contextmanager
    def sessions(self, *without: Member) -> Iterator[list[lnh.KeyringSession]]:
        password = self.place.secret("krco").read_text().strip()
        with ExitStack() as opened:
            sessions = []
            for member in self.all:
                if member in without:
                    continue
                cluster = opened.enter_context(lnh.connect("demo", directory=member.client, failover=False))
                keyring = cluster.keyring("payments")
                sessions.append(opened.enter_context(keyring.login(lnh.Role.KRCO, password)))
            yield sessions

    @contextmanager
    def brought_back(self, *members: Member) -> Iterator[None]:
        """For these members' being killed or stopped: at the end, also of a test that fails, they run and all are in step."""
        try:
            yield
        finally:
            gone = [member for member in members if member.running() is None]
            self.steps.start_all(gone)
            self.all_read_write()

    def all_read_write(self) -> None:
        """As the first sees it, and as each one's own store does: what members hear of one another is seconds old."""
        self.steps.wait_for(self.all[0], {member.name: "read-write" for member in self.all})
        for member in self.all:
            wait_until(partial(is_read_write, member), f"{member.name} as read-write")

    @contextmanager
    def longer_lease(self, milliseconds: int = 4000) -> Iterator[None]:
        """For what must never find a member read-only: it rightly is when it gets no processor for a whole lease."""
        policy = ("lnh", "cluster", "policy")
        self.steps.run(*policy, f"lease_ms={milliseconds}", "--timeout", "60")
        try:
            yield
        finally:
            self.steps.run(*policy, f"lease_ms={limits.LEASE_MS}", "--timeout", "60")

    def primary(self) -> Member:
        shown = json.loads(self.steps.run("lnh", "member", "list", "--json"))
        (name,) = [view["name"] for view in shown if view["role"] == "primary"]
        return next(member for member in self.all if member.name == name)


class Shared:
    """One cluster for all the tests of a process that leave it whole; another one after a test that did not.

    Attributes:
        is_suspect: whether a test failed since it was looked at.
    """

    def __init__(self) -> None:
        self.is_suspect = False
        self._cluster = ExitStack()
        self._members: Members | None = None
        self._module = ""

    def whole(self, module: str) -> Members:
        """Three members in step, a keyring, and a client registered through each; looked at anew for each module."""
        if self._members is None or self.is_suspect or self._module != module:
            self._members = self._looked_at()
            self._module, self.is_suspect = module, False
        return self._members

    def _looked_at(self) -> Members:
        if self._members is not None and self._members.is_as_new():
            self._members.renew()
            return self._members
        self.close()
        return self._cluster.enter_context(three_members())

    def close(self) -> None:
        self._members = None
        self._cluster.close()


@contextmanager
def three_members() -> Iterator[Members]:
    """A running cluster with a keyring, and a client registered through each member."""
    with failed.directory() as root, ExitStack() as ends:
        place = Place(root)
        ends.callback(end_all, place)
        place.create()
        steps = ForkedSteps(place, quiet=True)
        steps.environment["LNH_WORKERS"] = "1"
        local.set_up(steps)
        local.make_keyring(steps)
        steps.run("lnh", "cluster", "policy", "objects_per_keyring=1000000")
        local.join_all(steps)
        yield Members(place, steps)


def end_all(place: Place) -> None:
    """Stop the members of a place; one that goes on is killed, and the test fails."""
    try:
        local.stop(place)
    finally:
        for member in place.members:
            member.kill()


def private_key(session: lnh.KeyringSession, label: str) -> lnh.PrivateKey:
    key = session.get_key(label=label, object_class=lnh.ObjectClass.PRIVATE_KEY)
    assert isinstance(key, lnh.PrivateKey)
    return key


class Load:
    """Threads that act until told to stop; what one raises is kept."""

    def __init__(self, *acts: Callable[[], None]) -> None:
        self.over = threading.Event()
        self.errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._run, args=(act,)) for act in acts]

    def _run(self, act: Callable[[], None]) -> None:
        try:
            while not self.over.wait(PAUSE):
                act()
        except Exception as error:  # looked at by the test
            self.errors.append(error)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        assert self.has_ended(), f"a thread still acts {JOIN_SECONDS:g} s after it was told to stop"

    def has_ended(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)
