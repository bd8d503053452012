"""client.toml: the clusters this client is registered with, and their keys.

The file and the key files beside it have mode 0600, and looser ones are refused: a user that reads them is this client.
A setting that is not known is an error, so that a misspelt one is not ignored.

    [cluster.00]
    id = "5f0c..."                  # the cluster, 16 bytes in hex
    label = "prod"
    member = "hsm1.example:4400"    # the first point of contact
    member_key = "..."              # the member's CURVE key, 32 bytes in hex
    failover = true                 # whether the alternates are used when the member does not answer
    identity = "..."                # the pinned cluster identity, 32 bytes in hex
    name = "web-1"                  # of this client
    client = "..."                  # its id, 16 bytes in hex
    client_key = "00.curve"         # key files, from this directory
    sign_key = "00.sign"
    user = ""                       # the appliance user whose sight this machine has

    [[cluster.00.alternates]]       # each of the other members, as the cluster last told
    member = "hsm2.example:4400"
    key = "..."                     # its CURVE key
    group = "local"                 # its affinity group
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lnh.net.failover import Endpoint
from lnh_common import limits, shapes, toml
from lnh_common.bus import curve
from lnh_common.errors import (
    ConfigurationInvalid,
    FileModeUnsafe,
    LimitReached,
    LnhError,
    NameTaken,
    NameUnknown,
)
from lnh_common.files import open_regular, sync_directory
from lnh_common.wire.channel import fingerprint

FILE: Final = "client.toml"
_SIGN_MARK: Final = "lnh-ed25519-secret-1"

_Hex16 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
_Hex32 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Address = Annotated[str, msgspec.Meta(pattern=r"^\S+:[0-9]{1,5}$")]


class _Alternate(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A table of another member, as it is written."""

    member: _Address
    key: _Hex32
    group: str = ""


class _Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One `[cluster.NN]` as it is written."""

    id: _Hex16
    label: str
    member: _Address
    alternates: tuple[_Alternate | _Address, ...] = ()
    failover: bool = True
    member_key: _Hex32
    identity: _Hex32
    name: str
    client: _Hex16
    client_key: str
    sign_key: str
    user: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    cluster: dict[Annotated[str, msgspec.Meta(pattern="^[0-9]{2}$")], _Table] = {}


@dataclass(frozen=True)
class Registration:
    """One cluster that this client is registered with; `index` is 0 to 9."""

    index: int
    cluster: bytes
    label: str
    member: str
    member_key: bytes
    identity: bytes
    name: str
    client: bytes
    client_key: Path
    sign_key: Path
    user: str = ""
    alternates: tuple[Endpoint, ...] = ()
    failover: bool = True

    @property
    def number(self) -> str:
        """The index as client.toml has it: 00 to 09."""
        return f"{self.index:02}"

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the pinned identity, as `lnh cluster show` prints it."""
        return fingerprint(self.identity)

    def load_curve(self) -> curve.KeyPair:
        """Read the CURVE keys of this client; raises FileModeUnsafe or ConfigurationInvalid."""
        try:
            return curve.KeyPair.load(self.client_key)
        except OSError as error:
            raise _unreadable(self.client_key, error) from None

    def load_sign_key(self) -> Ed25519PrivateKey:
        """Read the Ed25519 key of this client; raises FileModeUnsafe or ConfigurationInvalid."""
        words = read_private(self.sign_key).decode("ascii", "replace").split()
        if len(words) != 2 or words[0] != _SIGN_MARK:
            raise ConfigurationInvalid(f"{self.sign_key} is not an Ed25519 key file")
        try:
            return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(words[1]))
        except ValueError:
            raise ConfigurationInvalid(f"{self.sign_key} is not an Ed25519 key file") from None


class Configuration:
    """The directory with client.toml, its key files, and the epochs seen.

    Args:
        directory: None for `$LNH_CONFIG` or the platform's.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory: Final = directory or default_directory()

    @property
    def path(self) -> Path:
        """The path of client.toml."""
        return self.directory / FILE

    def registrations(self) -> list[Registration]:
        """Read every registration, in the order of their indexes; none when there is no file.

        Raises FileModeUnsafe, or ConfigurationInvalid naming file and setting.
        """
        try:
            text = read_private(self.path)
        except FileNotFoundError:
            return []
        try:
            file = msgspec.convert(toml.parse(text, self.path), _File)
        except msgspec.ValidationError as error:
            raise ConfigurationInvalid(f"{self.path}: {shapes.problem(error)}") from None
        for number in file.cluster:
            if int(number) >= limits.CLUSTERS_PER_CLIENT:
                raise ConfigurationInvalid(f"{self.path}: [cluster.{number}]; indexes are 00 to 09")
        return [self._registration(number, table) for number, table in sorted(file.cluster.items())]

    def registration(self, which: int | str | None = None) -> Registration:
        """Find the registration with this index or label; None is the only one there is.

        Raises NameUnknown, also for a label that several clusters have.
        """
        known = self.registrations()
        if not known:
            raise NameUnknown(
                f"this client is registered with no cluster ({self.path})", {"advice": "run LNHClientRegistration"}
            )
        names = ", ".join(f"{one.number} {one.label}" for one in known)
        if which is None:
            found, several = known, "this client is registered with several clusters"
        else:
            found = [one for one in known if which in (one.index, one.number)]
            found = found or [one for one in known if which == one.label]
            several = f"several clusters have label {which!r}"
        if not found:
            raise NameUnknown(
                f"this client has no registration {which!r}; there are: {names}",
                {"advice": "one of these, or register: LNHClientRegistration --member host:port"},
            )
        if len(found) > 1:
            first = found[0].number
            raise NameUnknown(
                f"{several}: {names}", {"advice": f"say which: --cluster {first}, or lnh.connect({first!r})"}
            )
        return found[0]

    def registration_of(self, cluster: bytes) -> Registration:
        """Find the registration with the cluster of this id; raises NameUnknown."""
        for one in self.registrations():
            if one.cluster == cluster:
                return one
        raise NameUnknown(f"this client is not registered with cluster {cluster.hex()}")

    def free_index(self) -> int:
        """Find the lowest index that is not taken; raises LimitReached."""
        taken = {one.index for one in self.registrations()}
        for index in range(limits.CLUSTERS_PER_CLIENT):
            if index not in taken:
                return index
        raise LimitReached(f"a client is registered with up to {limits.CLUSTERS_PER_CLIENT} clusters")

    def prepare(self) -> None:
        """Make the directory, of mode 0700, if it is not there."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the registrations meanwhile."""
        self.prepare()
        with (self.directory / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def write_sign_key(self, path: Path, key: Ed25519PrivateKey) -> None:
        """Write a new Ed25519 key file."""
        write_private(path, f"{_SIGN_MARK} {key.private_bytes_raw().hex()}\n".encode())

    def save(self, registration: Registration, *, instead_of: Registration | None = None) -> None:
        """Enter a registration under its index, in place of `instead_of`, whose own key files go; raises NameTaken."""
        others = [one for one in self.registrations() if instead_of is None or one.index != instead_of.index]
        if any(one.index == registration.index for one in others):
            raise NameTaken(f"index {registration.number} is taken")
        self._write([*others, registration])
        if instead_of is not None:
            for path in {instead_of.client_key, instead_of.sign_key} - {registration.client_key, registration.sign_key}:
                path.unlink(missing_ok=True)

    def save_alternates(self, registration: Registration, alternates: tuple[Endpoint, ...]) -> None:
        """Enter the alternates of a registration, if it is still there and the directory can be written."""
        with contextlib.suppress(OSError, LnhError), self.locked():
            known = self.registrations()
            for one in known:
                if one.cluster == registration.cluster and one.alternates != alternates:
                    others = [other for other in known if other is not one]
                    self._write([*others, replace(one, alternates=alternates)])

    def remove(self, registration: Registration) -> None:
        """Forget a registration and delete its key files."""
        self._write([one for one in self.registrations() if one.index != registration.index])
        for path in (registration.client_key, registration.sign_key, self._epoch_path(registration)):
            path.unlink(missing_ok=True)

    def epoch(self, registration: Registration) -> int:
        """Read the highest channel epoch seen of this cluster; 0 for none."""
        try:
            return int(read_private(self._epoch_path(registration)))
        except FileNotFoundError:
            return 0
        except ValueError:
            raise ConfigurationInvalid(f"{self._epoch_path(registration)} holds no number") from None

    def save_epoch(self, registration: Registration, epoch: int) -> None:
        """Remember an epoch, unless a higher one is remembered already.

        Where this directory cannot be written, only this process remembers it.
        """
        with contextlib.suppress(OSError), self.locked():
            if epoch > self.epoch(registration):
                write_private(self._epoch_path(registration), f"{epoch}\n".encode())

    def _epoch_path(self, registration: Registration) -> Path:
        return self.directory / f"{registration.cluster.hex()}.epoch"

    def _registration(self, number: str, table: _Table) -> Registration:
        return Registration(
            index=int(number),
            cluster=bytes.fromhex(table.id),
            label=table.label,
            member=table.member,
            member_key=bytes.fromhex(table.member_key),
            identity=bytes.fromhex(table.identity),
            name=table.name,
            client=bytes.fromhex(table.client),
            client_key=self.directory / table.client_key,
            sign_key=self.directory / table.sign_key,
            user=table.user,
            # An address alone, as version 0.1 wrote one, is no endpoint: its key is not known.
            alternates=tuple(
                Endpoint(each.member, bytes.fromhex(each.key), each.group)
                for each in table.alternates
                if isinstance(each, _Alternate)
            ),
            failover=table.failover,
        )

    def _write(self, registrations: list[Registration]) -> None:
        import tomli_w

        clusters: dict[str, Any] = {}
        for one in sorted(registrations, key=lambda one: one.index):
            clusters[one.number] = {
                "id": one.cluster.hex(),
                "label": one.label,
                "member": one.member,
                "member_key": one.member_key.hex(),
                "failover": one.failover,
                "alternates": [
                    {"member": each.address, "key": each.key.hex(), "group": each.group} for each in one.alternates
                ],
                "identity": one.identity.hex(),
                "name": one.name,
                "client": one.client.hex(),
                "client_key": os.path.relpath(one.client_key, self.directory),
                "sign_key": os.path.relpath(one.sign_key, self.directory),
                "user": one.user,
            }
        write_private(self.path, tomli_w.dumps({"cluster": clusters}).encode())


def default_directory() -> Path:
    """Return `$LNH_CONFIG`, or the platform's place for configuration."""
    given = os.environ.get("LNH_CONFIG")
    if given:
        path = Path(given)
        return path.parent if path.suffix == ".toml" else path
    if sys.platform == "darwin":
        return _home() / "Library" / "Application Support" / "lnh"
    return Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config") / "lnh"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise ConfigurationInvalid(
            "this user has no home directory", {"advice": "name the directory of client.toml in LNH_CONFIG"}
        ) from None


def read_private(path: Path) -> bytes:
    """Read a file that only its owner can read; raises FileModeUnsafe for any other."""
    try:
        descriptor = open_regular(path, follow=True)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from None
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise FileModeUnsafe(f"{path} has mode {mode:04o}; it must be 0600")
        return file.read(1 << 20)


def write_private(path: Path, contents: bytes) -> None:
    """Write or replace a file of mode 0600, whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _unreadable(path: Path, error: OSError) -> ConfigurationInvalid:
    return ConfigurationInvalid(f"{path} cannot be read: {error.strerror}")
