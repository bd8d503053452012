"""Looks at an etcd by its own API, and at each endpoint by plain TLS and HTTP, which say what is wrong on the way.

Nothing is changed: the writes that are tried have a comparison that does not hold. etcd finds whether they are
permitted, and not too large, all the same, and its nodes agree on them by the same way as on any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import http.client
import secrets
import socket
import ssl
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lnh_common import limits
from lnh_common.errors import ConfigurationInvalid
from lnh_common.etcd import EtcdSettings, parts
from lnh_services.store.etcd.requests import Compare, Differed, Put, Range, Transaction
from lnh_services.store.etcd_client.check.seen import Disk, Endpoint, Seen, Way, Whole
from lnh_services.store.etcd_client.client import Client
from lnh_services.store.etcd_client.failures import AUTH_IS_OFF, UNREACHABLE

_SECONDS: Final = 3.0  # that anything at an endpoint may take
_WRITES: Final = 20  # whose time is taken
_METRICS_BYTES: Final = 4 * limits.MIB
_OUTSIDE: Final = "lnh-engine-check-outside-of-any-prefix/"
_KEY: Final = b"check"
_VERIFY: Final = {  # X509_V_ERR_..., of OpenSSL
    10: Way.EXPIRED,
    62: Way.OTHER_NAME,
    64: Way.OTHER_NAME,
}
# What a node says by a TLS alert of the certificate that it was shown, or was not.
_ALERTS: Final = ("ALERT_BAD_CERTIFICATE", "CERTIFICATE_REQUIRED", "UNKNOWN_CA", "ALERT_CERTIFICATE", "ACCESS_DENIED")


async def look(settings: EtcdSettings) -> Seen:
    """Look at the etcd that the settings name; raises ConfigurationInvalid and FileModeUnsafe for their own files."""
    own_end = _own_end(settings)
    if settings.ca:
        _context(settings, with_certificate=True)
    async with Client(settings) as client:
        endpoints = await asyncio.gather(*(_endpoint(settings, each) for each in settings.endpoints))
        reached = any(each.way is Way.OPEN for each in endpoints)
        whole = await _whole(client, settings) if reached else None
    return Seen(settings, time.time(), own_end, tuple(endpoints), whole)


async def _endpoint(settings: EtcdSettings, url: str) -> Endpoint:
    found = await asyncio.to_thread(_by_http, settings, url)
    if found.way is not Way.OPEN:
        return found
    async with Client(msgspec.structs.replace(settings, endpoints=(url,))) as client:
        return msgspec.structs.replace(found, status=await client.status(_SECONDS))


async def _whole(client: Client, settings: EtcdSettings) -> Whole:
    never = Compare(_KEY, secrets.token_bytes(16))
    small = Transaction((never,), (Put(_KEY, b""),))
    login = await client.log_in(_SECONDS) if settings.user else None
    async with Client(msgspec.structs.replace(settings, user="", password_file="")) as nobody:
        refused = await nobody.log_in(_SECONDS)
    by_role = None if refused is None or refused.text == UNREACHABLE.text else refused.text != AUTH_IS_OFF
    async with Client(msgspec.structs.replace(settings, prefix=_OUTSIDE)) as other:
        outside = await other.ask(Range(b"a", b"b"), _SECONDS)
    nodes = await client.nodes(_SECONDS)
    read = await client.ask(Range(_KEY, _KEY + b"\0"), _SECONDS)
    write = await client.ask(small, _SECONDS)
    large = await client.ask(Transaction((never,), (Put(_KEY, bytes(limits.ETCD_REQUEST_BYTES)),)), _SECONDS)
    commits = await _timed(client, small) if isinstance(write, Differed) else ()
    return Whole(login, by_role, nodes, read, write, outside, large, commits)


async def _timed(client: Client, small: Transaction) -> tuple[float, ...]:
    """Return the seconds that writes take, up to one that fails."""
    taken = []
    for _ in range(_WRITES):
        begin = time.perf_counter()
        if not isinstance(await client.ask(small, _SECONDS), Differed):
            break
        taken.append(time.perf_counter() - begin)
    return tuple(taken)


def _by_http(settings: EtcdSettings, url: str) -> Endpoint:
    scheme, host, port = parts(url)
    connection: http.client.HTTPConnection
    if scheme == "https":
        context = _context(settings, with_certificate=True)
        connection = http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    try:
        with contextlib.closing(connection):
            connection.connect()
            ends = _end_of_peer(connection.sock)
            begin = time.time()
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            middle = (begin + time.time()) / 2
            said = answer.read(_METRICS_BYTES).decode("utf-8", "replace")
            date = answer.headers.get("Date")
    except (OSError, http.client.HTTPException) as error:
        way, text = _what_failed(error)
        return Endpoint(url, way, text)
    return Endpoint(
        url,
        Way.OPEN,
        ends=ends,
        anybody=_lets_in_anybody(settings, host, port) if scheme == "https" else None,
        ahead=_ahead(date, middle),
        disk=_disk(said) if answer.status == http.client.OK else None,
    )


def _context(settings: EtcdSettings, *, with_certificate: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca)
    except OSError as error:
        raise ConfigurationInvalid(f"{settings.ca}: no certificates in it, PEM ({error.strerror or error})") from None
    if with_certificate and settings.certificate:
        try:
            context.load_cert_chain(settings.certificate, settings.key, password=_no_password)
        except (OSError, ValueError) as error:
            said = f"{settings.certificate} and {settings.key}: no certificate and its key, PEM"
            raise ConfigurationInvalid(f"{said} ({error})") from None
    return context


def _no_password() -> str:
    """Say that there is none: OpenSSL would ask the terminal for that of a key that is encrypted."""
    raise ValueError("the key is encrypted")


def _own_end(settings: EtcdSettings) -> float | None:
    if not settings.certificate:
        return None
    try:
        certificate = x509.load_pem_x509_certificate(Path(settings.certificate).read_bytes())
    except OSError as error:
        raise ConfigurationInvalid(f"{settings.certificate}: {error.strerror}") from None
    except ValueError:
        raise ConfigurationInvalid(f"{settings.certificate}: no certificate, PEM") from None
    return certificate.not_valid_after_utc.timestamp()


def _end_of_peer(connection: socket.socket) -> float | None:
    found = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    ends = (found or {}).get("notAfter")
    return float(ssl.cert_time_to_seconds(ends)) if isinstance(ends, str) else None


def _lets_in_anybody(settings: EtcdSettings, host: str, port: int) -> bool | None:
    """Try without a certificate. A node refuses with its first answer, since TLS 1.3 has no earlier moment."""
    context = _context(settings, with_certificate=False)
    connection = http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=context)
    try:
        with contextlib.closing(connection):
            connection.request("GET", "/version")
            connection.getresponse().read(limits.KIB)
    except TimeoutError:
        return None
    except (OSError, http.client.HTTPException):
        return False
    return True


def _what_failed(error: Exception) -> tuple[Way, str]:
    """Tell what is wrong on the way; the rows are in the order in which the errors derive from one another."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, Way.NOT_TRUSTED), str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if any(each in reason for each in _ALERTS):
            return Way.OURS_REFUSED, reason
        return (Way.NOT_TLS, "") if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST") else (Way.OTHER, reason)
    if isinstance(error, socket.gaierror):
        return Way.UNRESOLVED, str(error.strerror)
    if isinstance(error, ConnectionRefusedError):
        return Way.CLOSED, ""
    if isinstance(error, TimeoutError):
        return Way.SILENT, ""
    return Way.OTHER, str(error)


def _ahead(date: str | None, middle: float) -> float | None:
    """Return how far a clock is ahead, of a date that was cut to whole seconds."""
    try:
        return None if date is None else email.utils.parsedate_to_datetime(date).timestamp() + 0.5 - middle
    except ValueError:
        return None


def _disk(said: str) -> Disk | None:
    try:
        families = {family.name: family for family in text_string_to_metric_families(said)}
    except ValueError:
        return None
    quota = [sample.value for sample in _samples(families.get("etcd_server_quota_backend_bytes"))]
    return Disk(
        quota=int(quota[0]) if quota else 0,
        fsync=_of_99(families.get("etcd_disk_wal_fsync_duration_seconds")),
        commit=_of_99(families.get("etcd_disk_backend_commit_duration_seconds")),
    )


def _samples(family: Metric | None) -> Iterable[Sample]:
    return family.samples if family is not None else ()


def _of_99(family: Metric | None) -> float | None:
    """Return the bound of a histogram's bucket below which 99 of 100 lie."""
    buckets = sorted(
        (float(sample.labels["le"]), sample.value) for sample in _samples(family) if sample.name.endswith("_bucket")
    )
    if not buckets or not buckets[-1][1]:
        return None
    return next(bound for bound, count in buckets if count >= 0.99 * buckets[-1][1])
