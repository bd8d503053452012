"""The way to etcd, over several endpoints, and back: each request has exactly one outcome, by its deadline.

A connection to every endpoint is kept, so that the loss of a node costs no new one. A request goes to the endpoint that
answered last, and to no other before that fails. It is sent only over a connection that stands: what is not sent
certainly did nothing. What may change something is sent a second time only after a failure that certainly did nothing;
what reads is asked of another node when one is slow. Which failure is certain is `failures.py`'s to say.

Nothing is kept of what etcd says but its id: an etcd that was made anew under the same addresses is not believed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Generic, Protocol, TypeVar

import grpc
import grpc.aio
import msgspec
from typing_extensions import Self

from lnh_common import limits
from lnh_common.errors import ConfigurationInvalid, FileModeUnsafe
from lnh_common.etcd import EtcdSettings, parts
from lnh_common.files import open_regular
from lnh_common.secret import Secret
from lnh_services.store.etcd.requests import Compact, Differed, Done, Outcome, Range, Request, Transaction
from lnh_services.store.etcd_client import rpc_pb2 as rpc
from lnh_services.store.etcd_client.encoding import Asked, Keys, Reply, decode, encode
from lnh_services.store.etcd_client.failures import COMPACTED, UNREACHABLE, Failure, Next, failed


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name


R = TypeVar("R")


@dataclass(frozen=True)
class _Method(Generic[R]):
    """A method of etcd: its path, what it answers with, and whether it is of use on a node that sees no leader."""

    path: str
    reply: type[R]
    needs_leader: bool = True


_RANGE: Final = _Method("/etcdserverpb.KV/Range", rpc.RangeResponse)
_TXN: Final = _Method("/etcdserverpb.KV/Txn", rpc.TxnResponse)
_COMPACT: Final = _Method("/etcdserverpb.KV/Compact", rpc.CompactionResponse)
_STATUS: Final = _Method("/etcdserverpb.Maintenance/Status", rpc.StatusResponse, needs_leader=False)
_MEMBERS: Final = _Method("/etcdserverpb.Cluster/MemberList", rpc.MemberListResponse, needs_leader=False)
_LOGIN: Final = _Method("/etcdserverpb.Auth/Authenticate", rpc.AuthenticateResponse)

_SLICE: Final = 1.0  # seconds a node gets for a read, while there is time for another
_PAUSE: Final = 0.05  # seconds between two tries where every node fails at once
_LOGINS: Final = 2  # of one request

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),  # gRPC's own would send again what may have been done
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),  # an answer that is refused here would look as if nothing had been done
    ("grpc.max_send_message_length", -1),
    # A node that is cut off is found within 8 s while nothing fails, too; etcd takes a ping every 5 s, no more often.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Connecting is tried for so long, and again so soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
)


class Status(msgspec.Struct, frozen=True):
    """What a node says of itself.

    Args:
        etcd: the id of the etcd that it is a node of.
        leader: the id of the node that leads; 0: it sees none.
        alarms: as NOSPACE.
        size, used: bytes of its database, and of them in use.
        learner: whether it has no vote yet.
    """

    etcd: int
    version: str
    leader: int
    alarms: tuple[str, ...]
    size: int
    used: int
    learner: bool


class EtcdNode(msgspec.Struct, frozen=True):
    """A node of an etcd, with the URLs that it gives to clients."""

    name: str
    urls: tuple[str, ...]
    learner: bool


class Client:
    """Asks an etcd. Made in the loop that it is used in; ends with `close`, or as a context."""

    def __init__(self, settings: EtcdSettings) -> None:
        """Read the files that the settings name; raises ConfigurationInvalid and FileModeUnsafe."""
        self._keys = Keys(settings.prefix.encode())
        self._user = settings.user
        self._password = Secret(_read(settings.password_file, secret=True).strip()) if settings.user else Secret(b"")
        self._token = ""
        self._logging_in = asyncio.Lock()
        self._etcd = 0
        self._moved = asyncio.Event()  # a connection came, or went
        credentials = None
        if settings.ca:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=_read(settings.ca),
                private_key=_read(settings.key, secret=True) if settings.key else None,
                certificate_chain=_read(settings.certificate) if settings.certificate else None,
            )
        # The endpoint that is asked first is the first of them.
        self._endpoints = [_Endpoint(each, credentials, self._moved) for each in settings.endpoints]

    async def __aenter__(self) -> Self:
        """Return this client, which `close` ends at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the client."""
        await self.close()

    async def close(self) -> None:
        """End all connections; what is under way is given up."""
        await asyncio.gather(*(each.close() for each in self._endpoints))

    async def ask(self, request: Request, timeout: float = limits.ETCD_SECONDS) -> Outcome:
        """Carry out a request, and return its outcome within `timeout` seconds.

        A compaction up to a revision that is compacted already is done.
        """
        message = encode(self._keys, request)
        reply = await self._ask(request, message, timeout)
        if not isinstance(reply, Failure):
            return self._believed(decode(self._keys, reply), reply)
        if isinstance(request, Compact) and reply.text == COMPACTED:
            return Done(request.revision)
        return reply.outcome()

    async def status(self, timeout: float = limits.ETCD_SECONDS) -> Status | Failure:
        """Ask a node how it stands."""
        reply = await self._call(_STATUS, rpc.StatusRequest(), timeout)
        if isinstance(reply, Failure):
            return reply
        return Status(
            etcd=reply.header.cluster_id,
            version=reply.version,
            leader=reply.leader,
            alarms=tuple(reply.errors),
            size=reply.dbSize,
            used=reply.dbSizeInUse,
            learner=reply.isLearner,
        )

    async def nodes(self, timeout: float = limits.ETCD_SECONDS) -> tuple[EtcdNode, ...] | Failure:
        """Ask which nodes there are."""
        reply = await self._call(_MEMBERS, rpc.MemberListRequest(), timeout)
        if isinstance(reply, Failure):
            return reply
        return tuple(EtcdNode(each.name, tuple(each.clientURLs), each.isLearner) for each in reply.members)

    async def log_in(self, timeout: float = limits.ETCD_SECONDS) -> Failure | None:
        """Log in as the user of the settings, or without one ask for a login that fails; None: done."""
        return await self._log_in(asyncio.get_running_loop().time() + timeout)

    async def _ask(self, request: Request, message: Asked, timeout: float) -> Reply | Failure:
        match request:
            case Range():
                return await self._call(_RANGE, message, timeout)
            case Transaction():
                return await self._call(_TXN, message, timeout, changes=True)
            case Compact():
                return await self._call(_COMPACT, message, timeout, changes=True)

    def _believed(self, outcome: Done | Differed, reply: Reply) -> Outcome:
        """Return the outcome, or that nothing is known where the answer is of another etcd than the answers before."""
        self._etcd = self._etcd or reply.header.cluster_id
        if reply.header.cluster_id == self._etcd:
            return outcome
        text = f"another etcd answers: its id is {reply.header.cluster_id:x}, that of before was {self._etcd:x}"
        return Failure(text).outcome()

    async def _call(
        self, method: _Method[R], message: _Message, timeout: float, *, changes: bool = False
    ) -> R | Failure:
        """Call a method until it answers, or fails in a way that another try does not help, or must not be made."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        last = UNREACHABLE
        logins = 0
        for tries in itertools.count(1):
            if self._user and not self._token:
                refused = await self._log_in(until)
                if refused is not None:
                    return refused
            endpoint = await self._reach(until)
            if endpoint is None:
                return last
            left = until - loop.time()
            got = await endpoint.call(method, message, left if changes else min(left, _SLICE), self._token)
            if not isinstance(got, Failure):
                return got
            last = got
            if got.next is Next.LOGIN and logins < _LOGINS:
                logins += 1
                self._token = ""  # without one, too, another try is by what is true of users now
            elif got.next is Next.ELSEWHERE and (got.certain or not changes):
                self._put_last(endpoint)
                if tries % len(self._endpoints) == 0:
                    await asyncio.sleep(min(_PAUSE, max(0.0, until - loop.time())))
            else:
                if got.next is Next.ELSEWHERE:
                    self._put_last(endpoint)
                return got
        raise AssertionError("the count has no end")

    async def _reach(self, until: float) -> _Endpoint | None:
        """Return the endpoint to be asked next, with a connection that stands; None: none did in time."""
        loop = asyncio.get_running_loop()
        while (left := until - loop.time()) > 0:
            self._moved.clear()
            for endpoint in self._endpoints:
                if endpoint.is_connected:
                    return endpoint
            try:
                await asyncio.wait_for(self._moved.wait(), left)
            except asyncio.TimeoutError:
                return None
        return None

    def _put_last(self, endpoint: _Endpoint) -> None:
        """Ask all others before this one."""
        self._endpoints.remove(endpoint)
        self._endpoints.append(endpoint)

    async def _log_in(self, until: float) -> Failure | None:
        loop = asyncio.get_running_loop()
        async with self._logging_in:
            if self._token:
                return None
            last = UNREACHABLE
            request = rpc.AuthenticateRequest(name=self._user, password=self._password.reveal().decode())
            while (endpoint := await self._reach(until)) is not None:
                got = await endpoint.call(_LOGIN, request, min(until - loop.time(), _SLICE), "")
                if not isinstance(got, Failure):
                    self._token = got.token
                    return None
                last = msgspec.structs.replace(got, certain=True, why=got.why or UNREACHABLE.why)
                if got.next is not Next.ELSEWHERE or self._user == "":
                    return last
                self._put_last(endpoint)
            return last


class _Endpoint:
    """One endpoint, with the connection that is kept to it."""

    def __init__(self, url: str, credentials: grpc.ChannelCredentials | None, moved: asyncio.Event) -> None:
        _, host, port = parts(url)
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._channel = (
            grpc.aio.insecure_channel(target, options=_OPTIONS)
            if url.startswith("http:")
            else grpc.aio.secure_channel(target, credentials or grpc.ssl_channel_credentials(), options=_OPTIONS)
        )
        self._moved = moved
        self._follower = asyncio.get_running_loop().create_task(self._follow())
        self.is_connected = False

    async def call(self, method: _Method[R], message: _Message, seconds: float, token: str) -> R | Failure:
        """Send a request over the connection, and return what comes of it."""
        metadata = [("hasleader", "true")] if method.needs_leader else []
        if token:
            metadata.append(("token", token))
        call: grpc.aio.UnaryUnaryMultiCallable[_Message, R] = self._channel.unary_unary(
            method.path,
            request_serializer=lambda made: made.SerializeToString(),
            response_deserializer=method.reply.FromString,  # type: ignore[attr-defined]
        )
        try:
            answer: R = await call(message, timeout=seconds, metadata=tuple(metadata))
        except grpc.aio.AioRpcError as error:
            return failed(error.code(), error.details() or "")
        return answer

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()
        await self._follower

    async def _follow(self) -> None:
        """Keep connected, and know whether it is."""
        while True:
            state = self._channel.get_state(try_to_connect=True)
            self.is_connected = state is grpc.ChannelConnectivity.READY
            self._moved.set()
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                return
            await self._channel.wait_for_state_change(state)


def _read(path: str, *, secret: bool = False) -> bytes:
    """Read a file that the settings name."""
    try:
        with os.fdopen(open_regular(Path(path), follow=True), "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if secret and mode & 0o077:
                raise FileModeUnsafe(f"{path} has mode {mode:04o}; a file with a secret has 0600")
            return file.read()
    except OSError as error:
        raise ConfigurationInvalid(f"{path}: {error.strerror}") from None
