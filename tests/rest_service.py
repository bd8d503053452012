"""A REST service as a process of its own, and a client of a few lines for it, which sends what it is told to."""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from typing_extensions import Self

from lnh_rest import problems
from processes import free_base_port
from sites import Site
from waits import wait_until

HOST: Final = "127.0.0.1"
JSON: Final = "application/json"


@dataclass
class Reply:
    """An answer of the service."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def refused(self, status: int, error: str) -> Any:
        """Its problem details; it is this refusal, and in the product's form."""
        assert self.status == status, self.body
        assert self.headers["content-type"] == problems.MEDIA_TYPE, self.headers
        told = self.json
        assert (told["status"], told["error"]) == (status, error), told
        assert told["ckr"].startswith("CKR_")
        assert told["advice"]
        return told


@dataclass
class Rest:
    """A client of a service."""

    port: int
    context: ssl.SSLContext | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http{'s' if self.context else ''}://{HOST}:{self.port}"

    def connection(self) -> http.client.HTTPConnection:
        if self.context is None:
            return http.client.HTTPConnection(HOST, self.port, timeout=60)
        return http.client.HTTPSConnection(HOST, self.port, timeout=60, context=self.context)

    def ask(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> Reply:
        """Ask once.

        Args:
            raw: the body as it is, in place of one that is made JSON.
            headers: with _ for -.
        """
        given = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            given.setdefault("Content-Type", JSON)
        connection = self.connection()
        try:
            connection.request(method, path, raw, given)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def done(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Ask what is not refused, and return the answer's fields."""
        reply = self.ask(method, path, body, raw=None, **headers)
        assert 200 <= reply.status < 300, reply.body
        return reply.json if reply.body else None

    def logged_in(self, **login: str) -> Self:
        """A client with the session of this login."""
        token = self.done("POST", "/v1/sessions", login)["token"]
        return type(self)(self.port, self.context, {"Authorization": f"Bearer {token}"})

    def said_to(self, *parts: bytes) -> bytes:
        """All that is answered to these bytes until the service closes."""
        with socket.create_connection((HOST, self.port), timeout=60) as plain:
            wrapped = self.context.wrap_socket(plain, server_hostname=HOST) if self.context else plain
            with suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):  # cut off in the midst of them
                for part in parts:
                    wrapped.sendall(part)
            found = b""
            while piece := wrapped.recv(1 << 16):
                found += piece
            return found


@dataclass
class Running:
    """A service that runs."""

    rest: Rest
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def running(site: Site, place: Path, *words: str, **limits: float) -> Iterator[Running]:
    """A service over HTTPS, as a client of a site.

    Args:
        words: further ones of its command line.
        limits: those that are others in it.
    """
    certificate, key = certificate_of(place)
    port = free_base_port()
    lowered = "".join(f"limits.{name} = {value}\n" for name, value in limits.items())
    program = f"from lnh_common import limits\n{lowered}from lnh_cli.main import main\nmain()"
    log = place / "rest.log"
    words = ("rest", "serve", "--port", str(port), "--certificate", str(certificate), "--key", str(key), *words)
    environment = {**os.environ, "LNH_CONFIG": str(site.directory)}
    with (
        log.open("wb") as told,
        subprocess.Popen(
            [sys.executable, "-c", program, *words], stdin=subprocess.DEVNULL, stderr=told, env=environment
        ) as process,
    ):
        rest = Rest(port, ssl.create_default_context(cafile=str(certificate)))

        def serves() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return rest.ask("GET", "/v1/health").status == 200
            except OSError:
                return False

        try:
            wait_until(serves, "the REST service", every=0.05)
            yield Running(rest, process, log)
        finally:
            process.terminate()
            try:
                process.wait(60)
            finally:
                process.kill()


def certificate_of(place: Path) -> tuple[Path, Path]:
    """A certificate for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rest")])
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (place / "rest.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (place / "rest.key").touch(mode=0o600)
    (place / "rest.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return place / "rest.pem", place / "rest.key"


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def basic(user: str, password: str) -> dict[str, str]:
    """The header of HTTP Basic."""
    return {"Authorization": f"Basic {base64_of(f'{user}:{password}'.encode())}"}
