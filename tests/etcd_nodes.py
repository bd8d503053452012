"""Real etcd on loopback for tests: nodes with certificates made here, which a test kills, stops and cuts off.

Debian's `etcd-server` is what is started. Where it is missing a test is skipped, and fails where `LNH_TEST_ETCD` is set,
as `.ci/run` does.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import http.client
import ipaddress
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lnh_common.etcd import EtcdSettings
from processes import free_base_port
from waits import wait_until

PREFIX = "lnh/test/"
USER, OTHER, ROOT = "lnh", "other", "root"
PASSWORD = "password of etcd's users"
_GATEWAY = "gateway"
_MEMORY = "/dev/shm"


MISSING = "" if shutil.which("etcd") else "no etcd on this machine (Debian: etcd-server)"


def needed() -> None:
    """Skip a test that needs etcd where there is none; where there must be one, fail it."""
    if MISSING and os.environ.get("LNH_TEST_ETCD"):
        pytest.fail(MISSING)
    if MISSING:
        pytest.skip(MISSING)


class Authority:
    """A CA of a test, and the files of what it certifies."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"tests, {name}")])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        made = self._begin(self._subject, self._key, days=365).add_extension(basic, critical=True)
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        for each in ("server", USER, OTHER):
            self.certify(each)
        self.certify(_GATEWAY, common_name="")  # etcd's gateway takes no other

    def _begin(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: float) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.timezone.utc)
        begin = now - dt.timedelta(days=2)
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(begin)
            .not_valid_after(now + dt.timedelta(days=days))
        )  # fmt: skip

    def certify(self, name: str, *, common_name: str | None = None, days: float = 365, at: str = "127.0.0.1") -> None:
        """Make NAME.pem and NAME.key, of a server and client at this address."""
        key = ec.generate_private_key(ec.SECP256R1())
        named = name if common_name is None else common_name
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, named)] if named else [])
        made = (
            self._begin(subject, key, days)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(at))]), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
        )
        self.pem(name).write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        self.key(name).touch(0o600)
        self.key(name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def pem(self, name: str) -> Path:
        return self.directory / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.directory / f"{name}.key"


class Way:
    """A way to a node that a test cuts: what goes in either direction is swallowed, and nobody is told."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.there, self.back = True, True
        self.swallowed = 0  # bytes of answers
        self.passed_there = 0  # bytes of requests
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._pass, "127.0.0.1", 0)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        self._open.add(writer)
        try:
            onward, outward = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(outward)
            self._open.add(outward)
            await asyncio.gather(self._pump(reader, outward, "there"), self._pump(onward, writer, "back"))
        except OSError:
            pass  # the node is down, or one end closed it
        finally:
            for end in ends:
                self._open.discard(end)
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        while data := await reader.read(65536):
            if getattr(self, way):
                self.passed_there += len(data) if way == "there" else 0
                writer.write(data)
                await writer.drain()
            elif way == "back":
                self.swallowed += len(data)
        writer.close()

    def cut(self, *, there: bool = False, back: bool = False) -> None:
        """Let pass only what goes there, or back."""
        self.there, self.back = there, back
        self.swallowed = 0

    def heal(self) -> None:
        """Let all pass again; connections that lost something end."""
        if not (self.there and self.back):
            asyncio.run_coroutine_threadsafe(self._reset(), self._loop).result(10)
        self.there, self.back = True, True

    async def _reset(self) -> None:
        for each in list(self._open):
            each.transport.abort()

    def lead_to(self, target: int) -> None:
        """Lead to another port; connections end."""
        self._target = target
        asyncio.run_coroutine_threadsafe(self._reset(), self._loop).result(10)

    def end(self) -> None:
        """End the proxy."""

        async def close() -> None:
            self._server.close()
            await self._reset()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait(others, timeout=5) if others else None

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@dataclass
class Node:
    """One etcd, which is started again with the same data after it was killed."""

    directory: Path
    data: Path
    name: str
    client_port: int
    words: list[str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["etcd", "--name", self.name, "--data-dir", str(self.data / self.name), *self.words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
                env={name: value for name, value in os.environ.items() if not name.startswith("ETCD_")},
            )  # fmt: skip

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """It is dead meanwhile, and started again afterwards."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Its process is stopped meanwhile."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()


@dataclass
class Etcd:
    """An etcd of some nodes, with a way to each."""

    directory: Path
    authority: Authority
    nodes: list[Node] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    by_role: bool = False

    def settings(self, *which: int, **more: Any) -> EtcdSettings:
        """How a client reaches it: all of its nodes, or some, as the user that the certificate names."""
        ports = [self.ways[number].port for number in (which or range(len(self.ways)))]
        made: dict[str, Any] = {
            "endpoints": tuple(f"https://127.0.0.1:{port}" for port in ports),
            "prefix": PREFIX,
            "ca": str(self.authority.file),
            "certificate": str(self.authority.pem(USER)),
            "key": str(self.authority.key(USER)),
        }
        return EtcdSettings(**(made | more)).checked()

    def ask(self, number: int, path: str, **request: Any) -> dict[str, Any]:
        """Ask a node by its JSON gateway what the client has no method for, as root."""
        token = ""
        if self.by_role:  # a node that was started again knows no token of before
            token = self._post(number, "/v3/auth/authenticate", {"name": ROOT, "password": PASSWORD}, "")["token"]
        return self._post(number, path, request, token)

    def _post(self, number: int, path: str, request: dict[str, Any], token: str) -> dict[str, Any]:
        context = ssl.create_default_context(cafile=str(self.authority.file))
        context.load_cert_chain(self.authority.pem(_GATEWAY), self.authority.key(_GATEWAY))
        port = self.nodes[number].client_port
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
        with contextlib.closing(connection):
            headers = {"Authorization": token} if token else {}
            connection.request("POST", path, json.dumps(request), headers)
            answer = connection.getresponse()
            said = answer.read()
        if answer.status != http.client.OK:
            raise OSError(f"{path}: {said.decode()}")
        told: dict[str, Any] = json.loads(said)
        return told

    def leader(self) -> int:
        """The number of the node that leads, once there is one."""

        def found() -> list[int] | None:
            for number, node in enumerate(self.nodes):
                with contextlib.suppress(OSError):
                    status = self.ask(number, "/v3/maintenance/status")
                    if status.get("leader", "0") == status["header"]["member_id"] and node.process is not None:
                        return [number]
            return None

        return wait_until(found, "a leader")[0]

    def whole(self) -> None:
        """Wait until every way is open and every node follows a leader."""
        for way in self.ways:
            way.heal()

        def following() -> bool:
            try:
                told = [self.ask(number, "/v3/maintenance/status") for number in range(len(self.nodes))]
            except OSError:
                return False
            return len({each.get("leader", "0") for each in told}) == 1 and told[0].get("leader", "0") != "0"

        wait_until(following, "a whole etcd", every=0.05)

    def let_in_by_role(self) -> None:
        """Turn authentication on, with a user of the cluster whose role ends at its prefix, and another one."""
        end = PREFIX[:-1] + chr(ord(PREFIX[-1]) + 1)
        self.ask(0, "/v3/auth/user/add", name=ROOT, password=PASSWORD)
        self.ask(0, "/v3/auth/role/add", name=ROOT)
        self.ask(0, "/v3/auth/user/grant", user=ROOT, role=ROOT)
        self.ask(0, "/v3/auth/role/add", name=USER)
        keys = {"key": _text(PREFIX), "range_end": _text(end), "permType": "READWRITE"}
        self.ask(0, "/v3/auth/role/grant", name=USER, perm=keys)
        for name, roles in ((USER, [USER]), (OTHER, [])):
            self.ask(0, "/v3/auth/user/add", name=name, password=PASSWORD)
            for role in roles:
                self.ask(0, "/v3/auth/user/grant", user=name, role=role)
        self.ask(0, "/v3/auth/enable")
        self.by_role = True

    def let_in_anew(self) -> None:
        """Turn authentication off and on, by which every login of before is forgotten."""
        self.ask(0, "/v3/auth/disable")
        self.by_role = False
        self.ask(0, "/v3/auth/enable")
        self.by_role = True

    def end(self) -> None:
        for way in self.ways:
            way.end()
        for node in self.nodes:
            node.end()


def _text(key: str) -> str:
    return base64.b64encode(key.encode()).decode()


@contextlib.contextmanager
def running(authority: Authority, name: str, count: int, *words: str, knows_clients: bool = True) -> Iterator[Etcd]:
    """Start an etcd, and end it.

    Args:
        name: of it, in the authority's directory.
        words: further ones of its command line.
        knows_clients: whether it demands a certificate of its clients.
    """
    directory = authority.directory / name
    directory.mkdir()
    # In memory, which processes that are killed do not lose: whether a disk keeps what it synced is not tested here.
    data = Path(tempfile.mkdtemp(prefix="lnh-etcd-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
    etcd = Etcd(directory, authority)
    bases = [free_base_port() for _ in range(count)]
    cluster = ",".join(f"n{number}=http://127.0.0.1:{base + 1}" for number, base in enumerate(bases))
    for number, base in enumerate(bases):
        client, peer = f"https://127.0.0.1:{base}", f"http://127.0.0.1:{base + 1}"
        own = [
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", cluster, "--initial-cluster-token", name,
            "--heartbeat-interval", "50", "--election-timeout", "500", "--logger", "zap", "--bcrypt-cost", "4",
            "--cert-file", str(authority.pem("server")), "--key-file", str(authority.key("server")),
        ]  # fmt: skip
        own += ["--client-cert-auth", "--trusted-ca-file", str(authority.file)] if knows_clients else []
        etcd.nodes.append(Node(directory, data, f"n{number}", base, [*own, *words]))
    try:
        for node in etcd.nodes:
            node.start()
            etcd.ways.append(Way(node.client_port))
        etcd.whole()
        yield etcd
    finally:
        etcd.end()
        shutil.rmtree(data)
