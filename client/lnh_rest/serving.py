"""Runs the service: HTTPS by uvicorn, or plain HTTP on a loopback address where that is asked for.

uvicorn bounds neither how many connections there are nor how long one may take to send a request's headers, and answers
what is no HTTP in words of its own; `BoundedProtocol` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import ssl
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lnh.aio import connect
from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, ConfigurationInvalid, MalformedMessage
from lnh_common.events import Log, write_to_stderr
from lnh_common.files import open_regular
from lnh_rest import problems
from lnh_rest.admission import client_of
from lnh_rest.app import Service
from lnh_rest.base import encode
from lnh_rest.problems import Refused

_OWNERS_ONLY: Final = 0o077

_log: Final = Log("rest")


@dataclass(frozen=True)
class Address:
    """The place where the service listens.

    Args:
        certificate, key: PEM files; none for plain HTTP.
        authorities: PEM file of the CAs of which clients must have a certificate; none asks for no certificate.
    """

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None

    def check(self, *, plain: bool) -> None:
        """Raise ArgumentInvalid for plain HTTP that was not asked for, or could be listened to.

        Args:
            plain: whether it was asked for.
        """
        if self.certificate is not None and self.key is not None:
            if plain:
                raise ArgumentInvalid("HTTPS and plain HTTP at once", {"advice": "leave out one of the two"})
            return
        if self.certificate is not None or self.key is not None:
            raise ArgumentInvalid("a certificate needs its key", {"advice": "--certificate FILE --key FILE"})
        if not plain:
            advice = "--certificate FILE --key FILE; on this machine alone --plain-http serves without"
            raise ArgumentInvalid("HTTPS needs a certificate", {"advice": advice})
        if not is_loopback(self.host):
            raise ArgumentInvalid(
                f"plain HTTP at {self.host}: passwords could be read on the way",
                {"advice": "--host 127.0.0.1, or --certificate FILE --key FILE"},
            )

    def context(self) -> ssl.SSLContext | None:
        """Load certificate and key; None for plain HTTP.

        Raises ConfigurationInvalid; the key must be its owner's alone.
        """
        if self.certificate is None or self.key is None:
            return None
        _check_private(self.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_passphrase)
            if self.authorities is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self.authorities)
        except (OSError, ValueError) as error:  # of which SSLError is one
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "not PEM"
            named = f"{self.certificate}, {self.key}" + (f", {self.authorities}" if self.authorities else "")
            raise ConfigurationInvalid(
                f"{named}: {reason}", {"advice": "PEM files of a certificate and its key"}
            ) from None
        return context


def is_loopback(host: str) -> bool:
    """Tell whether an address is of this machine alone; a name is not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def run(which: str | None, address: Address, *, plain: bool) -> None:
    """Serve a cluster until the process is told to end by SIGTERM or SIGINT.

    Args:
        which: the cluster, as `lnh.connect` takes it.
        plain: whether plain HTTP was asked for.

    Raises ArgumentInvalid, ConfigurationInvalid, NameUnknown.
    """
    address.check(plain=plain)
    context = address.context()
    cluster = connect(which)
    write_to_stderr()
    _log.info("serving", cluster=cluster.label, host=address.host, port=address.port, https=context is not None)
    service = Service(cluster)
    config = uvicorn.Config(
        service,
        host=address.host,
        port=address.port,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        loop="asyncio",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=limits.REST_IDLE_SECONDS,
        timeout_graceful_shutdown=limits.REST_GRACE,
        h11_max_incomplete_event_size=limits.REST_HEADER_BYTES,
        ssl_context_factory=None if context is None else lambda *_: context,
    )
    _Server(config, service.end).run()


class _Server(uvicorn.Server):
    """A server that a signal ends in order, and its process with status 0: uvicorn raises the signal once more.

    Args:
        end: is called when a signal came, before requests under way are waited for.
    """

    def __init__(self, config: uvicorn.Config, end: Callable[[], None]) -> None:
        super().__init__(config)
        self._end: Final = end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        self._end()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Have signals end the server meanwhile."""
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


class BoundedProtocol(H11Protocol):
    """A connection that is one of so many, and whose requests' headers come in time."""

    _waits: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        own = client_of(self.client[0]) if self.client else ""
        of_one = sum(_client(each) == own for each in self.connections)
        if len(self.connections) > limits.REST_CONNECTIONS or of_one > limits.REST_CONNECTIONS_OF_ONE:
            transport.abort()
            return
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Read what came, and count the time of a request whose headers are not there."""
        super().data_received(data)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection at the service's end; a client that takes no part in that is cut off."""
        super().shutdown()
        if self.transport.is_closing():  # which over TLS waits for the client's own word
            self.loop.call_later(limits.REST_FAREWELL, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has headers that are too long, with problem details."""
        most = limits.REST_HEADER_BYTES
        advice = {"advice": f"send HTTP/1.1 with headers of at most {most} bytes"}
        refused = Refused(MalformedMessage("this is no HTTP request, or its headers are too long", advice))
        told = encode(problems.problem(refused, str(uuid.uuid4())))
        headers = [
            (b"content-type", problems.MEDIA_TYPE.encode()),
            (b"content-length", str(len(told)).encode()),
            (b"connection", b"close"),
        ]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (
                h11.Response(status_code=refused.status, headers=headers, reason=b"Bad Request"),
                h11.Data(data=told),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _expect_headers(self) -> None:
        """Have time running while a request's headers are not there; between requests uvicorn's own time runs."""
        is_served = self.cycle is not None and not self.cycle.response_complete
        is_between = self.cycle is not None and self.timeout_keep_alive_task is not None
        if is_served or is_between or self.transport.is_closing():
            self._stop_waiting()
        elif self._waits is None:
            self._waits = self.loop.call_later(limits.REST_HEADER_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None


def _client(connection: Any) -> str:
    client = getattr(connection, "client", None)
    return client_of(client[0]) if client else ""


def _no_passphrase() -> str:
    raise ValueError("the key is encrypted")


def _check_private(path: Path) -> None:
    """Raise ConfigurationInvalid for a key that others can read, or that cannot be read."""
    try:
        with os.fdopen(open_regular(path, follow=True), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
    except OSError as error:
        raise ConfigurationInvalid(f"{path} cannot be read: {error.strerror}") from None
    if mode & _OWNERS_ONLY:
        raise ConfigurationInvalid(f"{path} has mode {mode:04o}; others can read it", {"advice": f"chmod 600 {path}"})
