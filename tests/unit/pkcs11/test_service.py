"""The gateway's socket: who gets in, what waits, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from lnh_common.errors import NotPossible
from lnh_pkcs11 import keyrings as real
from lnh_pkcs11 import service
from lnh_pkcs11.application import Token
from lnh_pkcs11.service import Service, bound
from lowered import lower
from models.gateway import Keyrings

GREETING = b"\x4c\x01" + bytes(16)
GET_INFO = struct.pack(">II", 3, 0)
SLOTS = struct.pack(">II", 4, 3) + b"yfu" + b"\1" + struct.pack(">I", 1)


class Slow(Keyrings):
    """Keyrings that are listed when somebody says so."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.asked = asyncio.Semaphore(0)
        self.go = asyncio.Event()

    async def listed(self) -> list[Token]:
        self.asked.release()
        await self.go.wait()
        return await super().listed()

    async def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def serving(path: Path, group: int | None = None) -> AsyncIterator[Slow]:
    keyrings, stop, ready = Slow(), asyncio.Event(), asyncio.Event()
    gateway = Service(cast("real.Keyrings", keyrings), group=group)
    task = asyncio.create_task(gateway.serve(path, ready.set, stop))
    await asyncio.wait({task, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield keyrings
    finally:
        stop.set()
        await task


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


def frame(code: int, body: bytes) -> bytes:
    return struct.pack(">III", code, 0, len(body)) + body


async def reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    code, _, length = struct.unpack(">III", await reader.readexactly(12))
    return code, await reader.readexactly(length)


def test_replies_come_as_they_are_ready(short_path: Path) -> None:
    async def test() -> None:
        async with serving(short_path / "s") as keyrings:
            reader, writer = await asyncio.open_unix_connection(short_path / "s")
            writer.write(GREETING + frame(0x10, SLOTS) + frame(0x11, GET_INFO))
            assert await reader.readexactly(2) == b"\x4c\x01"
            assert (await reply(reader))[0] == 0x11
            keyrings.go.set()
            assert (await reply(reader))[0] == 0x10
            writer.close()

    run(test)


def test_so_many_requests_are_begun_at_once_and_the_others_wait(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower(monkeypatch, PKCS11_REQUESTS=4)

    async def test() -> None:
        async with serving(short_path / "s") as keyrings:
            reader, writer = await asyncio.open_unix_connection(short_path / "s")
            writer.write(GREETING + b"".join(frame(code, SLOTS) for code in range(0x10, 0x20)))
            await reader.readexactly(2)
            for _ in range(4):
                await keyrings.asked.acquire()
            for _ in range(20):
                await asyncio.sleep(0)
            assert keyrings.asked.locked(), "no fifth was begun"
            keyrings.go.set()
            assert {(await reply(reader))[0] for _ in range(16)} == set(range(0x10, 0x20))
            writer.close()

    run(test)


def test_who_is_another_user_is_not_let_in(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_CREDENTIALS", _Pretended())

    async def test() -> None:
        async with serving(short_path / "s"):
            reader, _ = await asyncio.open_unix_connection(short_path / "s")
            assert await reader.read() == b""
        async with serving(short_path / "s", group=os.getgid()):
            reader, writer = await asyncio.open_unix_connection(short_path / "s")
            writer.write(GREETING)
            assert await reader.readexactly(2) == b"\x4c\x01"
            writer.close()

    run(test)


class _Pretended:
    """The credentials of another user, whose group is ours."""

    size = struct.calcsize("3i")

    @staticmethod
    def unpack(_: bytes) -> tuple[int, int, int]:
        return 1, os.getuid() + 12345, os.getgid()


def test_the_socket_is_this_users_or_a_groups(short_path: Path) -> None:
    for name, group, mode in (("mine", None, 0o600), ("ours", os.getgid(), 0o660)):
        path = short_path / name / "s"
        listening, _ = bound(path, group)
        with listening:
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert stat.S_IMODE(path.parent.stat().st_mode) == (0o700 if group is None else 0o750)


def test_a_socket_that_nobody_serves_is_replaced_and_what_is_none_is_left(short_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(short_path / "s"))
    left.close()
    listening, inode = bound(short_path / "s", None)
    listening.listen()
    with pytest.raises(NotPossible, match="another gateway"):
        bound(short_path / "s", None)
    (short_path / "file").write_text("mine")
    with pytest.raises(NotPossible, match="no socket"):
        bound(short_path / "file", None)
    assert (short_path / "file").read_text() == "mine"
    service.unbind(short_path / "s", inode + 1)
    assert (short_path / "s").exists()
    service.unbind(short_path / "s", inode)
    assert not (short_path / "s").exists()
    listening.close()


def test_a_gateway_that_ends_waits_for_logouts_for_a_moment_only(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower(monkeypatch, PKCS11_END_SECONDS=0.05)
    ended: list[str] = []

    async def logs_out(name: str, answer: asyncio.Event) -> None:
        try:
            await answer.wait()
        finally:
            ended.append(f"{name} {'done' if answer.is_set() else 'given up'}")

    async def test() -> None:
        stop, ready, answer = asyncio.Event(), asyncio.Event(), asyncio.Event()
        gateway = Service(cast("real.Keyrings", Slow()))
        task = asyncio.create_task(gateway.serve(short_path / "s", ready.set, stop))
        await ready.wait()
        gateway.spawn(logs_out("one", answer))
        gateway.spawn(logs_out("another", asyncio.Event()))
        stop.set()
        answer.set()
        await task

    run(test)
    assert ended == ["one done", "another given up"]
    assert not (short_path / "s").exists()
