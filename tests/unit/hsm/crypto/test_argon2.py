"""The Argon2id process: who waits for whom, and who is told to come again."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, NamedTuple, cast

import msgspec
import pytest

from lnh_common.errors import Busy
from lnh_common.messages.hsm import Derive, Derived
from lnh_services.hsm.crypto import argon2
from lnh_services.hsm.crypto.argon2 import Derivations

CLIENT = Derive(password=b"password", salt=bytes(16), memory=8, passes=1, lanes=1)
STRANGER = msgspec.structs.replace(CLIENT, stranger=True)


class _Call(NamedTuple):
    """All that is asked of one."""

    seconds: float = 60.0

    def remaining(self) -> float:
        return self.seconds


class Held:
    """Derivations that end when they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._go = threading.Event()
        self.derived = 0
        self.derivations = Derivations(queue=4)
        monkeypatch.setattr(argon2, "derive", self._derive)

    def _derive(self, _: Derive) -> bytes:
        self.derived += 1
        assert self._go.wait(10), "never let go"
        return bytes(32)

    def ask(self, request: Derive, seconds: float = 60.0) -> asyncio.Task[Derived]:
        return asyncio.ensure_future(self.derivations.on_derive(cast("Any", _Call(seconds)), request))

    def let_go(self) -> None:
        self._go.set()


def test_strangers_have_one_derivation_between_them_and_keep_no_client_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        held = Held(monkeypatch)
        first = held.ask(STRANGER)
        clients = [held.ask(CLIENT) for _ in range(3)]
        with pytest.raises(Busy, match="not registered"):
            await held.ask(STRANGER)
        held.let_go()
        assert len(await asyncio.gather(first, *clients)) == 4
        await held.ask(STRANGER)  # the next one's turn

    asyncio.run(scene())


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        held = Held(monkeypatch)
        asked = [held.ask(CLIENT) for _ in range(5)]
        await asyncio.sleep(0)  # lets them queue
        with pytest.raises(Busy, match="4 logins wait"):
            await held.ask(CLIENT)
        held.let_go()
        await asyncio.gather(*asked)

    asyncio.run(scene())


def test_a_request_that_comes_again_waits_for_its_first_copy_and_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        held = Held(monkeypatch)
        first, other = (msgspec.structs.replace(CLIENT, attempt=name * 16) for name in (b"a", b"b"))
        asked = [held.ask(request) for request in (first, first, other, first, other)]
        await asyncio.sleep(0)
        asked[1].cancel()  # its client has given up; the others have not
        held.let_go()
        assert len(await asyncio.gather(*asked, return_exceptions=True)) == 5
        assert held.derived == 2

    asyncio.run(scene())


def test_whose_turn_would_come_too_late_is_told_at_once_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        held = Held(monkeypatch)
        asked = [held.ask(CLIENT) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="longer than this one may") as busy:
            await held.ask(CLIENT, seconds=0.5)
        assert busy.value.detail["seconds"] >= 1
        held.let_go()
        await asyncio.gather(*asked)

    asyncio.run(scene())


def test_who_waited_as_long_as_it_may_is_told_when_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene() -> None:
        held = Held(monkeypatch)
        first = held.ask(CLIENT)
        second = held.ask(CLIENT, seconds=0.4)
        with pytest.raises(Busy, match="waited") as busy:
            await second
        assert busy.value.detail["seconds"] >= 1
        held.let_go()
        await first
        assert held.derived == 1

    asyncio.run(scene())
