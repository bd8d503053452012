"""The Argon2id process: who waits for whom, and who is told to come again."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import msgspec
import pytest

from lnh_common.errors import Busy
from lnh_common.messages.hsm import Derive, Derived
from lnh_services.hsm import argon2
from lnh_services.hsm.argon2 import Derivations

CLIENT = Derive(password=b"password", salt=bytes(16), memory=8, passes=1, lanes=1)
STRANGER = msgspec.structs.replace(CLIENT, stranger=True)
NO_CALL = cast("Any", None)


class Held:
    """Derivations that end when they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._go = threading.Event()
        self.derivations = Derivations(queue=4)
        monkeypatch.setattr(argon2, "derive", self._derive)

    def _derive(self, _: Derive) -> bytes:
        assert self._go.wait(10), "never let go"
        return bytes(32)

    def ask(self, request: Derive) -> asyncio.Task[Derived]:
        return asyncio.ensure_future(self.derivations.on_derive(NO_CALL, request))

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
