"""The settings by which an etcd is reached: the table `[engine]` of a settings file.

Paths in a file are relative to it.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec

from lnh_common import limits, shapes, toml
from lnh_common.errors import ConfigurationInvalid
from lnh_common.files import NotRegular, open_regular

KIND: Final = "etcd"
_TABLE: Final = "engine"
_FILES: Final = ("ca", "certificate", "key", "password_file")
_PREFIX: Final = r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*/$"
_PREFIX_FORM: Final = "words of letters, digits, '.', '_' and '-', each with a '/' after it, as lnh/prod/"


class EtcdSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One etcd, and this cluster's place in it.

    Args:
        endpoints: a URL of each node, `https://host:port`; `http` at a loopback address alone.
        prefix: of all keys of this cluster, as `lnh/prod/`.
        ca: file with the CAs, PEM, of one of which the nodes' certificates are.
        certificate, key: files with the certificate of this client, PEM, and its key (mode 0600).
        user, password_file: etcd's user, where it is not the certificate's CN.
    """

    endpoints: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=limits.ETCD_ENDPOINTS)]
    prefix: Annotated[str, msgspec.Meta(max_length=128, pattern=_PREFIX)]
    ca: str = ""
    certificate: str = ""
    key: str = ""
    user: str = ""
    password_file: str = ""

    def checked(self) -> EtcdSettings:
        """Return these settings; raises ConfigurationInvalid for what no type says."""
        for endpoint in self.endpoints:
            scheme, host, _ = parts(endpoint)
            if scheme == "http" and not _is_loopback(host):
                raise ConfigurationInvalid(f"endpoints: {endpoint} is in clear: https, or http at a loopback address")
            if scheme == "https" and not self.ca:
                raise ConfigurationInvalid("ca: needed for https: the file with the CA of etcd's certificates")
        if bool(self.certificate) != bool(self.key):
            raise ConfigurationInvalid("certificate and key: both, or neither")
        if bool(self.user) != bool(self.password_file):
            raise ConfigurationInvalid("user and password_file: both, or neither")
        return self


def parts(endpoint: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an endpoint; raises ConfigurationInvalid for what is none."""
    try:
        split = urlsplit(endpoint)
        port = split.port
    except ValueError:
        split, port = urlsplit(""), None
    if split.scheme not in ("http", "https") or not split.hostname or port is None:
        raise ConfigurationInvalid(f"endpoints: {endpoint!r} is no https://host:port")
    if split.path or split.query or split.fragment or split.username or not re.fullmatch(r"[\w.:-]+", split.hostname):
        raise ConfigurationInvalid(f"endpoints: {endpoint!r} is more than https://host:port")
    return split.scheme, split.hostname, port


def settings(found: dict[str, Any], said: str) -> EtcdSettings:
    """Make settings of plain values; raises ConfigurationInvalid, which begins with `said`."""
    try:
        return msgspec.convert(found, EtcdSettings).checked()
    except msgspec.ValidationError as error:
        problem = shapes.problem(error, EtcdSettings)
        what = _PREFIX_FORM if problem.field == "prefix" and "prefix" in found else problem.what
        raise ConfigurationInvalid(f"{said}: {problem.field}: {what}" if problem.field else f"{said}: {what}") from None
    except ConfigurationInvalid as error:
        raise ConfigurationInvalid(f"{said}: {error}") from None


def read(path: Path) -> dict[str, Any]:
    """Read the table `[engine]` of a file, as plain values; raises ConfigurationInvalid for what is none of an etcd."""
    try:
        with os.fdopen(open_regular(path, follow=True), "rb") as file:
            table = toml.parse(file.read(), path).get(_TABLE)
    except FileNotFoundError:
        raise ConfigurationInvalid(f"{path} is missing") from None
    except NotRegular as error:
        raise ConfigurationInvalid(f"{path}: {error.strerror}") from None
    if not isinstance(table, dict):
        raise ConfigurationInvalid(f"{path}: it has no table [{_TABLE}]")
    kind = table.pop("kind", KIND)
    if kind != KIND:
        raise ConfigurationInvalid(f"{path}: engine, kind: {KIND!r}, not {kind!r}")
    for name in _FILES:
        if isinstance(table.get(name), str) and table[name]:
            table[name] = str(path.parent / table[name])
    return table


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
