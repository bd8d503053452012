"""The plugin's socket: what a client that is generated from the interface sees, who gets in, and what is left behind."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from kms_service import OPTIONS, stub
from lnh_common import limits
from lnh_common.errors import (
    ConfigurationInvalid,
    EncryptedDataInvalid,
    FileModeUnsafe,
    LnhError,
    MemberBehind,
    NotPossible,
    ObjectUnknown,
    Unreachable,
)
from lnh_common.events import ROOT
from lnh_kms import api_pb2 as api
from lnh_kms import serving
from lnh_kms.plugin import OK, Plugin, Sealed, Status
from lowered import lower
from models.kms import Hsm, run

DEK = bytes(range(32))
Code = grpc.StatusCode
SECONDS = 20.0


class Scripted:
    """A plugin that does as it is told, and counts.

    Attributes:
        raises: what each call raises, if anything.
        goes: unset while calls stand still.
    """

    def __init__(self) -> None:
        self.raises: Exception | None = None
        self.goes = asyncio.Event()
        self.goes.set()
        self.under_way = self.most = self.ended = self.cancelled = 0
        self.seconds: list[float] = []
        self.is_closed = False

    async def status(self, seconds: float) -> Status:
        self.seconds.append(seconds)
        return Status(OK, "lnh-00")

    async def encrypt(self, plaintext: bytes, seconds: float) -> Sealed:
        return Sealed(await self._done(plaintext, seconds), "lnh-00")

    async def decrypt(self, ciphertext: bytes, key_id: str, annotations: object, seconds: float) -> bytes:
        return await self._done(ciphertext, seconds)

    async def _done(self, data: bytes, seconds: float) -> bytes:
        self.seconds.append(seconds)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.goes.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        if self.raises is not None:
            raise self.raises
        self.ended += 1
        return data[::-1]

    async def close(self) -> None:
        self.is_closed = True


@dataclass
class Served:
    """A plugin at a socket, with a generated client."""

    path: Path
    client: Any
    stop: asyncio.Event
    task: asyncio.Task[None]

    def decrypt(self, data: bytes = DEK, timeout: float = SECONDS, **fields: Any) -> Any:
        return self.client.Decrypt(api.DecryptRequest(ciphertext=data, **fields), timeout=timeout)


@asynccontextmanager
async def served(place: Path, plugin: Any, timeout: float = SECONDS) -> AsyncIterator[Served]:
    stop, ready = asyncio.Event(), asyncio.Event()
    path = place / "kms.sock"
    task = asyncio.create_task(serving.serve(cast("Plugin", plugin), path, timeout, ready.set, stop))
    begun = asyncio.create_task(ready.wait())
    await asyncio.wait({task, begun}, return_when=asyncio.FIRST_COMPLETED)
    begun.cancel()
    if task.done():
        await task
    async with grpc.aio.insecure_channel(f"unix:{path}", OPTIONS) as channel:
        try:
            yield Served(path, stub(channel), stop, task)
        finally:
            stop.set()
            await task


async def ended(call: Any, *codes: Code) -> str:
    """What the status of a call says, which is one of these."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() in codes, caught.value
    return str(caught.value.details())


def test_an_api_servers_client_encrypts_and_decrypts(short_path: Path) -> None:
    async def test() -> None:
        hsm = Hsm()
        handle = await hsm.generate()
        async with served(short_path, hsm.plugin()) as at:
            status = await at.client.Status(api.StatusRequest())
            assert (status.version, status.healthz, status.key_id) == ("v2", OK, f"lnh-{handle.hex()}")
            made = await at.client.Encrypt(api.EncryptRequest(plaintext=DEK, uid="of mine"))
            assert (made.key_id, dict(made.annotations)) == (status.key_id, {})
            opened = await at.decrypt(made.ciphertext, key_id=made.key_id, uid="of mine")
            assert opened.plaintext == DEK
            assert await serving.ask_status(at.path, SECONDS) == (OK, status.key_id)
        assert hsm.closed
        assert not at.path.exists()

    run(test())


def test_what_is_wrong_comes_as_a_status_with_an_advice(short_path: Path) -> None:
    async def test() -> None:
        hsm = Hsm()
        async with served(short_path, hsm.plugin()) as at:
            assert "lnh key generate" in (await at.client.Status(api.StatusRequest())).healthz
            said = await ended(at.client.Encrypt(api.EncryptRequest(plaintext=DEK)), Code.FAILED_PRECONDITION)
            assert "; try: lnh key generate -k payments kubernetes" in said
            await hsm.generate()
            hsm.now += limits.KMS_FRESH
            key_id = (await at.client.Status(api.StatusRequest())).key_id
            long = api.EncryptRequest(plaintext=bytes(limits.KMS_PLAINTEXT_BYTES + 1))
            assert "at most 996" in await ended(at.client.Encrypt(long), Code.INVALID_ARGUMENT)
            assert "label" in await ended(at.decrypt(key_id="lnh-of nobody"), Code.NOT_FOUND)
            assert EncryptedDataInvalid.advice in await ended(at.decrypt(key_id=key_id), Code.INVALID_ARGUMENT)
            annotated = at.decrypt(key_id=key_id, annotations={"a.example": b"1"})
            assert "annotations" in await ended(annotated, Code.INVALID_ARGUMENT)

    run(test())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ObjectUnknown("it"), Code.NOT_FOUND),
        (MemberBehind("it"), Code.UNAVAILABLE),
        (Unreachable("it"), Code.UNAVAILABLE),
        (NotPossible("it", {"advice": "do it\x1b[31m"}), Code.FAILED_PRECONDITION),
    ],
)
def test_an_error_of_the_cluster_ends_the_call_with_its_code(short_path: Path, error: LnhError, code: Code) -> None:
    async def test() -> None:
        plugin = Scripted()
        plugin.raises = error
        async with served(short_path, plugin) as at:
            said = await ended(at.decrypt(), code)
            assert said.startswith("it; try: ")
            assert said.isprintable()

    run(test())


def test_a_fault_tells_nothing_of_what_it_met(short_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        plugin = Scripted()
        plugin.raises = ValueError("the secret")
        async with served(short_path, plugin) as at:
            said = await ended(at.decrypt(uid="u-7"), Code.INTERNAL)
            assert "secret" not in said
            assert "u-7" in said

    with caplog.at_level(logging.DEBUG, ROOT):
        run(test())
    assert "fault" in caplog.messages
    assert "the secret" not in caplog.text + str([vars(each) for each in caplog.records])


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, ROOT):
        yield caplog


def test_the_log_has_each_call_and_nothing_that_came_with_it(short_path: Path, told: pytest.LogCaptureFixture) -> None:
    secret = b"of thirty-two bytes, as a DEK is"

    async def test() -> None:
        hsm = Hsm()
        await hsm.generate()
        async with served(short_path, hsm.plugin()) as at:
            made = await at.client.Encrypt(api.EncryptRequest(plaintext=secret, uid="\x1b[31mu" + "x" * 500))
            await at.decrypt(made.ciphertext, key_id=made.key_id, uid="u-2")
            await ended(at.decrypt(made.ciphertext, key_id="lnh-secret", uid="u-3"), Code.NOT_FOUND)

    run(test())
    fields = [(each.message, each.levelno, getattr(each, "fields", {})) for each in told.records]
    calls = [(event, level, every["call"]) for event, level, every in fields if "call" in every]
    assert calls == [
        ("served", logging.INFO, "Encrypt"),
        ("served", logging.DEBUG, "Decrypt"),
        ("refused", logging.WARNING, "Decrypt"),
    ]
    said = str(fields)
    assert "u-2" in said
    assert "u-3" in said
    assert "x" * 65 not in said
    for each in (secret.decode(), secret.hex(), "lnh-secret", "\x1b"):
        assert each not in said


def test_a_call_has_the_time_that_its_client_has_left(short_path: Path) -> None:
    async def test() -> None:
        plugin = Scripted()
        async with served(short_path, plugin, timeout=50.0) as at:
            plugin.seconds.clear()
            await at.decrypt(timeout=600)
            await at.decrypt(timeout=30)
            await at.client.Decrypt(api.DecryptRequest())
            long, short, none = plugin.seconds
            assert (long, none) == (50.0, 50.0)
            assert 0 < short < 30
            plugin.goes.clear()
            seconds = 0.05
            while not plugin.cancelled:  # the server hears of it a moment later, or had not begun in that time
                await ended(at.decrypt(timeout=seconds), Code.DEADLINE_EXCEEDED)
                seconds *= 2
            plugin.goes.set()
            assert (await at.decrypt()).plaintext == DEK[::-1]

    run(test())


def test_so_many_calls_are_under_way_and_the_others_wait_their_turn(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower(monkeypatch, KMS_REQUESTS=4, KMS_IN_FLIGHT=20)

    async def test() -> None:
        plugin = Scripted()
        async with served(short_path, plugin) as at:
            plugin.goes.clear()
            calls = [asyncio.ensure_future(at.decrypt(bytes([each]))) for each in range(19)]
            while plugin.under_way < 4:  # noqa: ASYNC110  # gRPC says nothing when a call begins
                await asyncio.sleep(0.001)
            assert (await at.client.Status(api.StatusRequest())).healthz == OK, "it waits for no turn"
            more = [asyncio.ensure_future(at.decrypt()) for _ in range(5)]
            refused, _ = await asyncio.wait(more, return_when=asyncio.FIRST_COMPLETED)
            await ended(refused.pop(), Code.RESOURCE_EXHAUSTED)
            plugin.goes.set()
            assert [each.plaintext for each in await asyncio.gather(*calls)] == [bytes([each]) for each in range(19)]
            assert plugin.most == 4
            await asyncio.gather(*more, return_exceptions=True)
            assert (await at.decrypt()).plaintext == DEK[::-1]

    run(test())


def test_calls_under_way_at_the_end_are_done_and_no_other_is_begun(short_path: Path) -> None:
    async def test() -> None:
        plugin = Scripted()
        async with served(short_path, plugin) as at:
            plugin.goes.clear()
            calls = [asyncio.ensure_future(at.decrypt()) for _ in range(8)]
            while plugin.under_way < 8:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.001)
            at.stop.set()
            while at.path.exists():  # noqa: ASYNC110  # it listens until it stops
                await asyncio.sleep(0.001)
            await ended(at.decrypt(), Code.UNAVAILABLE, Code.CANCELLED)
            plugin.goes.set()
            assert {each.plaintext for each in await asyncio.gather(*calls)} == {DEK[::-1]}
            await at.task
            assert (plugin.ended, plugin.is_closed) == (8, True)

    run(test())


def test_what_is_no_request_of_the_interface_is_refused_and_the_next_is_served(short_path: Path) -> None:
    async def test() -> None:
        async with served(short_path, Scripted()) as at, grpc.aio.insecure_channel(f"unix:{at.path}") as channel:
            raw: Any = channel.unary_unary(f"/{serving.SERVICE}/Decrypt")
            for garbage in (b"\xff" * 10, b"\x0a\xff\xff\xff\xff\x0f", b"\x12\x02\xff\xfe"):
                with pytest.raises(grpc.aio.AioRpcError):
                    await raw(garbage)
            other: Any = channel.unary_unary("/v2.KeyManagementService/Version")
            await ended(other(b""), Code.UNIMPLEMENTED)
            big = api.DecryptRequest(ciphertext=bytes(limits.KMS_MESSAGE_BYTES + 1))
            await ended(at.client.Decrypt(big), Code.RESOURCE_EXHAUSTED)
            assert (await at.decrypt()).plaintext == DEK[::-1]

    run(test())


def test_the_socket_is_its_users_alone_and_so_is_a_directory_that_is_made(short_path: Path) -> None:
    async def test() -> None:
        place = short_path / "made"
        async with served(place, Scripted()) as at:
            assert stat.S_IMODE(at.path.stat().st_mode) == 0o600
            assert stat.S_IMODE(place.stat().st_mode) == 0o700
            assert os.umask(0o022) == 0o022, "it is as it was"

    before = os.umask(0o022)
    try:
        run(test())
    finally:
        os.umask(before)


def test_a_path_is_taken_as_it_is_written(short_path: Path) -> None:
    async def test() -> None:
        place = short_path / "a b%41?c#d\u00fc"
        place.mkdir(mode=0o700)
        stop, ready = asyncio.Event(), asyncio.Event()
        path = place / "%2e.sock"
        task = asyncio.create_task(serving.serve(cast("Plugin", Scripted()), path, SECONDS, ready.set, stop))
        await ready.wait()
        assert path.exists()
        assert await serving.ask_status(path, SECONDS) == (OK, "lnh-00")
        stop.set()
        await task

    run(test())


def test_a_dead_plugins_socket_is_replaced_and_a_live_ones_is_refused(short_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(short_path / "kms.sock"))
    dead.close()

    async def test() -> None:
        async with served(short_path, Scripted()) as at:
            other = Scripted()
            with pytest.raises(NotPossible, match="another plugin serves"):
                async with served(short_path, other):
                    pass
            assert other.is_closed
            assert (await at.decrypt()).plaintext == DEK[::-1]

    run(test())


def test_what_is_no_socket_is_left_alone(short_path: Path) -> None:
    (short_path / "kms.sock").write_text("mine")

    async def test() -> None:
        async with served(short_path, Scripted()):
            pass

    with pytest.raises(NotPossible, match="is no socket"):
        run(test())
    assert (short_path / "kms.sock").read_text() == "mine"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o722])
def test_a_directory_where_others_could_put_a_socket_is_refused(short_path: Path, mode: int) -> None:
    place = short_path / "open"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(FileModeUnsafe) as caught:
        serving.check_place(place / "kms.sock")
    assert f"chmod 755 {place}" in caught.value.detail["advice"]
    place.chmod(0o755)
    serving.check_place(place / "kms.sock")


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a directory away")
def test_a_directory_of_another_user_is_refused(short_path: Path) -> None:
    place = short_path / "theirs"
    place.mkdir(mode=0o755)
    os.chown(place, 65534, 65534)
    with pytest.raises(FileModeUnsafe):
        serving.check_place(place / "kms.sock")


def test_a_path_that_is_too_long_for_a_socket_is_told(short_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="at most 107 bytes"):
        serving.check_place(short_path / ("x" * 107))


def test_where_no_plugin_answers_the_status_says_so(short_path: Path) -> None:
    with pytest.raises(Unreachable, match="no plugin answers"):
        run(serving.ask_status(short_path / "none", 1.0))
