"""Serves a plugin over gRPC at a Unix socket, which is its user's alone.

gRPC makes the socket: it takes none that is bound already, and does not ask the kernel who a client is. So the socket's
mode and its directory say who gets in.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

import grpc
import grpc.aio

from lnh.aio import connect
from lnh_common import limits
from lnh_common.errors import ConfigurationInvalid, DeadlineExceeded, FileModeUnsafe, Internal, LnhError, Unreachable
from lnh_common.events import Log
from lnh_common.text import shown
from lnh_common.unix_sockets import make_room
from lnh_kms import api_pb2 as api
from lnh_kms.plugin import Plugin, Sealed
from lnh_kms.statuses import code_of, line_of

T = TypeVar("T")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

SERVICE: Final = "v2.KeyManagementService"
VERSION: Final = "v2"
_SHARE: Final = 0.9  # of the time that a client has left, so that it hears why nothing came of its request
_OTHERS: Final = 0o022
_PATH_BYTES: Final = 107  # of a Unix socket (unix(7))
_UID_CHARACTERS: Final = 64  # that the log has of a request's
_log: Final = Log("kms")


class Service:
    """The three calls, as gRPC has them.

    Args:
        plugin: answers them.
        timeout: seconds that one may take, where the client leaves as many.
    """

    def __init__(self, plugin: Plugin, timeout: float) -> None:
        self._plugin: Final = plugin
        self._timeout: Final = timeout
        self._turns: Final = asyncio.Semaphore(limits.KMS_REQUESTS)

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return what gRPC serves."""
        calls: dict[str, tuple[Callable[..., Awaitable[Any]], Any, Any]] = {
            "Status": (self.status, api.StatusRequest, api.StatusResponse),
            "Encrypt": (self.encrypt, api.EncryptRequest, api.EncryptResponse),
            "Decrypt": (self.decrypt, api.DecryptRequest, api.DecryptResponse),
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    answer, request_deserializer=request.FromString, response_serializer=reply.SerializeToString
                )
                for name, (answer, request, reply) in calls.items()
            },
        )

    async def status(self, _: api.StatusRequest, context: Context) -> api.StatusResponse:
        """Tell whether the plugin can encrypt, and by which key; or what is wrong. It waits for no turn."""
        found = await self._told("Status", "", context, self._plugin.status(self._seconds(context)))
        return api.StatusResponse(version=VERSION, healthz=found.healthz, key_id=found.key_id)

    async def encrypt(self, request: api.EncryptRequest, context: Context) -> api.EncryptResponse:
        """Encrypt a DEK."""

        async def work() -> Sealed:
            async with self._turns:
                return await self._plugin.encrypt(request.plaintext, self._seconds(context))

        made = await self._told("Encrypt", request.uid, context, work())
        return api.EncryptResponse(ciphertext=made.ciphertext, key_id=made.key_id)

    async def decrypt(self, request: api.DecryptRequest, context: Context) -> api.DecryptResponse:
        """Decrypt a DEK."""

        async def work() -> bytes:
            async with self._turns:
                return await self._plugin.decrypt(
                    request.ciphertext, request.key_id, request.annotations, self._seconds(context)
                )

        return api.DecryptResponse(plaintext=await self._told("Decrypt", request.uid, context, work()))

    def _seconds(self, context: Context) -> float:
        left = context.time_remaining()
        return self._timeout if left is None else max(0.0, min(self._timeout, left * _SHARE))

    async def _told(self, call: str, uid: str, context: Context, work: Awaitable[T]) -> T:
        """Wait for an answer, and log how it went; what goes wrong ends the call with a status."""
        began = time.monotonic()
        told: dict[str, object] = {"call": call, "uid": shown(uid[:_UID_CHARACTERS])}
        try:
            answer = await work
        except LnhError as error:
            refusal = error
        except asyncio.CancelledError:  # the client hung up, or its time is over
            _log.info("gone", **told, ms=_since(began))
            raise
        except Exception as error:  # a bug: its words may hold a secret, so they go nowhere
            _log.bug("fault", error, **told)
            refusal = Internal(
                "the plugin met a fault of its own", {"advice": f"its log has it as request {told['uid']}"}
            )
        else:
            (_log.info if call == "Encrypt" else _log.debug)("served", **told, ms=_since(began))
            return answer
        code = code_of(refusal)
        _log.warning("refused", **told, ms=_since(began), code=code.name, error=type(refusal).__name__)
        await context.abort(code, line_of(refusal))
        raise AssertionError("abort raises")


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def check_place(path: Path) -> None:
    """Make the socket's directory where it is missing, and check that no other user can put another socket there.

    Raises FileModeUnsafe, ConfigurationInvalid for a path that is too long, and OSError.
    """
    if len(os.fsencode(path.absolute())) > _PATH_BYTES:
        raise ConfigurationInvalid(
            f"{path}: a Unix socket's path has at most {_PATH_BYTES} bytes", {"advice": "name a shorter one: --socket"}
        )
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True)
    found = path.parent.stat()
    if found.st_uid not in {0, os.geteuid()} or stat.S_IMODE(found.st_mode) & _OTHERS:
        raise FileModeUnsafe(
            f"{path.parent}: another user could put a socket of their own there",
            {"advice": f"a directory of this user's or root's that nobody else writes to: chmod 755 {path.parent}"},
        )


def listen(server: grpc.aio.Server, path: Path) -> None:
    """Bind the socket, of mode 0600.

    Raises NotPossible where another plugin serves there, and what `check_place` does.
    """
    check_place(path)
    make_room(path, "plugin", "leave it, or serve elsewhere: --socket PATH")
    before = os.umask(0o177)
    try:
        server.add_insecure_port(_address(path))
    except RuntimeError as error:
        raise ConfigurationInvalid(f"{path} cannot be listened at: {error}", {"advice": "name another path"}) from None
    finally:
        os.umask(before)


def _address(path: Path) -> str:
    return f"unix:{quote(str(path.absolute()))}"


async def serve(plugin: Plugin, path: Path, timeout: float, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Serve until told to stop; requests under way then have some seconds to end.

    Args:
        timeout: seconds that a request may take.
        ready: called once clients can connect.

    Raises as `listen` does.
    """
    # Not by `max_concurrent_streams`: gRPC resets a stream that a client opens at the moment when another ends.
    options = (("grpc.max_receive_message_length", limits.KMS_MESSAGE_BYTES),)
    server = grpc.aio.server(maximum_concurrent_rpcs=limits.KMS_IN_FLIGHT, options=options)
    server.add_generic_rpc_handlers((Service(plugin, timeout).handlers(),))
    try:
        listen(server, path)
        await server.start()
        await plugin.status(timeout)  # logs in, and logs what is wrong
        ready()
        await stop.wait()
    finally:
        await server.stop(limits.KMS_GRACE)
        await plugin.close()


@dataclass(frozen=True)
class Settings:
    """What a plugin serves, and where.

    Args:
        cluster: as `lnh.connect` takes it.
        keyring: label of the keyring.
        label: of the keys in it.
        socket: path of the socket.
        timeout: seconds that a request may take.
    """

    cluster: str | None
    keyring: str
    label: str
    socket: Path
    timeout: float


async def run(settings: Settings, password: Callable[[], str], ready: Callable[[], None]) -> None:
    """Serve as `serve` does, until SIGINT or SIGTERM.

    Args:
        password: asks for the KRCO's.

    Raises ConfigurationInvalid, NameUnknown, and as `serve` does.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    cluster = connect(settings.cluster, timeout=settings.timeout)
    plugin = Plugin(cluster, settings.keyring, settings.label, password)
    await serve(plugin, settings.socket, settings.timeout, ready, stop)


async def ask_status(path: Path, timeout: float) -> tuple[str, str]:
    """Ask a plugin for its status as an API server does; returns what is wrong, or "ok", and its key id.

    Raises Unreachable, DeadlineExceeded.
    """
    async with grpc.aio.insecure_channel(_address(path)) as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/Status",
            request_serializer=api.StatusRequest.SerializeToString,
            response_deserializer=api.StatusResponse.FromString,
        )
        try:
            found: api.StatusResponse = await ask(api.StatusRequest(), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            kind: type[LnhError] = DeadlineExceeded if late else Unreachable
            raise kind(
                f"no plugin answers at {path}",
                {"advice": "start it: lnh kms serve; its socket is its own user's and root's alone"},
            ) from None
    return found.healthz, found.key_id
