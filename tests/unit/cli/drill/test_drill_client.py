"""The client of the drill, on sessions that fail as they are told: what it notes, and what it holds a member to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lnh.objects.keys import PrivateKey
from lnh_cli.drill import client as of_drill
from lnh_cli.drill.client import Client
from lnh_cli.drill.report import Event, What
from lnh_cli.support.options import KeyringOptions
from lnh_common.errors import LnhError, MemberReadOnly, SessionEnded, Unreachable
from waits import wait_until


class Key(PrivateKey):
    def __init__(self, sign: Callable[[], None]) -> None:
        self._signs = sign

    def sign(self, *_: object) -> bytes:  # type: ignore[override]
        self._signs()
        return b""


class Keyring:
    """What every session of a test sees; each act raises what is put into its list first."""

    def __init__(self) -> None:
        self.there: list[bytes] = []
        self.sign_fails: list[LnhError] = []
        self.make_fails: list[LnhError] = []
        self.login_fails: list[LnhError] = []
        self.abandoned = 0
        self._lock = threading.Lock()

    keyring, cluster = "payments", None

    @contextmanager
    def session(self) -> Iterator[Any]:
        self._fail(self.login_fails)
        yield self

    def _fail(self, fails: list[LnhError]) -> None:
        with self._lock:
            if fails:
                raise fails.pop(0)

    def generate_keypair(self, *_: object, **__: object) -> tuple[Any, Any]:
        return SimpleNamespace(handle=b"public"), SimpleNamespace(handle=b"private")

    def get_object(self, handle: bytes) -> PrivateKey:
        assert handle == b"private"
        return Key(lambda: self._fail(self.sign_fails))

    def generate_key(self, *_: object, **__: object) -> Any:
        self._fail(self.make_fails)
        with self._lock:
            self.there.append(b"key %d" % len(self.there))
            return SimpleNamespace(handle=self.there[-1])

    def find(self, **_: object) -> Iterator[Any]:
        return iter([SimpleNamespace(handle=handle) for handle in list(self.there)])

    def abandon(self) -> None:
        self.abandoned += 1


class Working:
    """A client at work, and what it told."""

    def __init__(self, keyring: Keyring) -> None:
        self.keyring = keyring
        self.told: list[Event] = []
        self.client = Client(cast("KeyringOptions", keyring), "drill-test", 0.001, self.told.append)

    def count(self, what: What) -> int:
        return sum(event.what is what for event in list(self.told))

    def gets_on(self, what: What, by: int = 3) -> None:
        wanted = self.count(what) + by
        wait_until(lambda: self.count(what) >= wanted, f"{by} more of {what}")

    def errors(self) -> list[str]:
        return [event.problem for event in list(self.told) if event.what is What.ERROR]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Working]:
    monkeypatch.setattr(of_drill, "_RETRIES_EVERY", 0.001)
    keyring = Keyring()
    monkeypatch.setattr(of_drill, "_options", lambda *_: keyring)
    working = Working(keyring)
    working.client.start()
    try:
        working.gets_on(What.MADE)
        working.gets_on(What.SIGNED)
        yield working
    finally:
        working.client.stop()


def accounted(work: Working) -> Event:
    work.client.obey("account 127.0.0.1:7100 member-b")
    return next(event for event in reversed(work.told) if event.what is What.ACCOUNTED)


def test_every_acknowledged_key_is_told_and_one_that_is_not_found_is_lost(work: Working) -> None:
    whole = accounted(work)
    assert (whole.member, whole.lost, whole.problem) == ("member-b", (), "")
    work.client.obey("hold")
    gone = work.keyring.there.pop(1)
    assert accounted(work).lost == (gone.hex(),)
    told = {event.handle for event in work.told if event.what is What.MADE}
    assert told == {handle.hex() for handle in [*work.keyring.there, gone]}


def test_a_member_that_cannot_be_asked_is_no_proof_that_keys_are_there(work: Working) -> None:
    work.keyring.login_fails.append(Unreachable("nobody answers"))
    found = accounted(work)
    assert (found.problem, found.lost) == ("Unreachable: nobody answers", ())


def test_no_key_is_made_while_that_is_held_and_signing_goes_on(work: Working) -> None:
    work.client.obey("hold")
    assert work.count(What.HELD) == 1
    made = work.count(What.MADE)
    work.gets_on(What.SIGNED)
    assert work.count(What.MADE) == made
    work.client.obey("resume")
    work.gets_on(What.MADE)


def test_a_refused_write_is_noted_and_its_session_goes_on(work: Working) -> None:
    logins = work.count(What.LOGIN)
    work.keyring.make_fails += [MemberReadOnly("no lease"), MemberReadOnly("no lease")]
    wait_until(lambda: not work.keyring.make_fails, "both refusals")
    work.gets_on(What.MADE)
    assert work.errors() == ["MemberReadOnly: no lease"] * 2
    assert (work.count(What.LOGIN), work.keyring.abandoned) == (logins, 0)


def test_a_session_that_ended_is_replaced_as_soon_as_somebody_lets_it_in(work: Working) -> None:
    logins = work.count(What.LOGIN)
    work.keyring.login_fails += [Unreachable("nobody"), Unreachable("nobody")]
    work.keyring.sign_fails.append(SessionEnded("restored"))
    wait_until(lambda: not (work.keyring.sign_fails or work.keyring.login_fails), "all that fails")
    work.gets_on(What.SIGNED)
    assert work.errors() == ["SessionEnded: restored", "Unreachable: nobody", "Unreachable: nobody"]
    assert (work.count(What.LOGIN), work.keyring.abandoned) == (logins + 1, 1)
