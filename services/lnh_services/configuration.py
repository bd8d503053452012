"""The settings of a member: member.toml, then `LNH_...` environment variables; an unknown setting is an error."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

import msgspec
import tomli_w

from lnh_common import limits, shapes, toml
from lnh_common.errors import ConfigurationInvalid
from lnh_common.files import NotRegular, open_regular
from lnh_common.text import NAME

PORTS: Final = 5  # consecutive ports of one member, from its base port


class LogFormat(str, enum.Enum):
    """The form of a log line."""

    JSON = "json"
    TEXT = "text"


class LogLevel(str, enum.Enum):
    """The least severe events that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class EngineKind(str, enum.Enum):
    """What orders the store's entries (`store/engine.py`)."""

    EMBEDDED = "embedded"


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The store's engine; all members of a cluster have the same."""

    kind: EngineKind = EngineKind.EMBEDDED


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`bytes` of one file and how many rotated `files` are kept beside it, for each service."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.JSON
    bytes: Annotated[int, msgspec.Meta(ge=4096)] = 8 * limits.MIB
    files: Annotated[int, msgspec.Meta(ge=0, le=100)] = 3


class TimeoutSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Milliseconds.

    Args:
        lease: that a cluster created here begins with; a replicated policy from then on.
        stop: how long each service gets to stop in order.
        status: how long a service's own status may take before it counts as not answering.
        silence: after how long without any answer a service's process is ended and started again.
    """

    lease: Annotated[int, msgspec.Meta(ge=500, le=60_000)] = limits.LEASE_MS
    stop: Annotated[int, msgspec.Meta(ge=100, le=600_000)] = 10_000
    status: Annotated[int, msgspec.Meta(ge=10, le=60_000)] = 1_000
    silence: Annotated[int, msgspec.Meta(ge=1_000, le=3_600_000)] = limits.SERVICE_SILENCE_MS


class ActivationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The means by which the HSM activates at start, where it does.

    Args:
        file: holds the activation secret; empty: by hand, or by the TPM that the HSM is sealed to.
        tpm: how that TPM is reached, as tpm2-tss has it (TCTI).
    """

    file: str = ""
    tpm: Annotated[str, msgspec.Meta(min_length=1)] = "device:/dev/tpmrm0"


class MetricsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The port where Prometheus finds this member's metrics, in clear and without a login; `port` 0: nowhere."""

    listen: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One member's settings.

    Args:
        name: of the member, unique in its cluster.
        base_port: clients; +1 membership, +2 store, +3 peers' balancers, +4 the door.
        listen: the address the ports are bound to.
        advertise: the host name or address others reach this member at; empty: `listen`.
        workers: hsm worker processes; 0: one a core.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.NAME_CHARACTERS, pattern=NAME)]
    base_port: Annotated[int, msgspec.Meta(ge=1024, le=65536 - PORTS)]
    listen: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"
    advertise: str = ""
    workers: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    activation: ActivationSettings = ActivationSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    engine: EngineSettings = EngineSettings()

    @property
    def client_port(self) -> int:
        """The port for clients."""
        return self.base_port

    @property
    def membership_port(self) -> int:
        """The port for other members' membership."""
        return self.base_port + 1

    @property
    def store_port(self) -> int:
        """The port for other members' stores."""
        return self.base_port + 2

    @property
    def peer_port(self) -> int:
        """The port for other members' balancers."""
        return self.base_port + 3

    @property
    def door_port(self) -> int:
        """The port that answers `hello` under a published key."""
        return self.base_port + 4

    @property
    def host(self) -> str:
        """The host that other members and clients reach this member at."""
        return self.advertise or self.listen

    @property
    def worker_count(self) -> int:
        """The number of hsm workers: at least 1."""
        return self.workers or max(1, len(os.sched_getaffinity(0)))

    def checked(self) -> Settings:
        """Check settings that were made in code; raises ConfigurationInvalid as if they had been read."""
        try:
            return msgspec.convert(msgspec.to_builtins(self), Settings)
        except msgspec.ValidationError as error:
            raise ConfigurationInvalid(str(shapes.problem(error, Settings))) from None

    def endpoint(self, port: int) -> str:
        """Make the ZeroMQ endpoint to bind for one of the ports."""
        return f"tcp://[{self.listen}]:{port}" if ":" in self.listen else f"tcp://{self.listen}:{port}"


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read member.toml and the environment; raises ConfigurationInvalid naming file or variable, and setting."""
    try:
        with os.fdopen(open_regular(path, follow=True), "rb") as file:
            found = toml.parse(file.read(), path)
    except FileNotFoundError:
        raise ConfigurationInvalid(
            f"{path} is missing: make it with lnh-member --member-dir {path.parent} --init"
        ) from None
    except NotRegular as error:
        raise ConfigurationInvalid(f"{path}: {error.strerror}") from None
    _lay_over(found, environment)
    try:
        return msgspec.convert(found, Settings)
    except msgspec.ValidationError as error:
        raise ConfigurationInvalid(f"{path}: {shapes.problem(error, Settings)}") from None


def dump(settings: Settings) -> str:
    """Write a member.toml with these settings."""
    return tomli_w.dumps(msgspec.to_builtins(settings))


def variables() -> dict[str, tuple[tuple[str, ...], Any]]:
    """List every environment variable with the setting that it sets and its type."""
    table: dict[str, tuple[tuple[str, ...], Any]] = {}
    for name, kind in get_type_hints(Settings, include_extras=True).items():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            for inner, inner_kind in get_type_hints(kind, include_extras=True).items():
                table[f"LNH_{name}_{inner}".upper()] = ((name, inner), inner_kind)
        else:
            table[f"LNH_{name}".upper()] = ((name,), kind)
    return table


def _lay_over(found: dict[str, Any], environment: Mapping[str, str]) -> None:
    for variable, (setting, kind) in variables().items():
        text = environment.get(variable)
        if text is None:
            continue
        try:
            value = msgspec.to_builtins(msgspec.convert(text, kind, strict=False))
        except msgspec.ValidationError as error:
            raise ConfigurationInvalid(f"environment variable {variable}: {shapes.problem(error, kind)}") from None
        at = found
        for part in setting[:-1]:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise ConfigurationInvalid(f"setting {part} is a table")
        at[setting[-1]] = value
