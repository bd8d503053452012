"""Names the paths in a member directory: its files and sockets, and nothing else.

    member.toml          settings                      data/<service>/   what survives
    keys/                CURVE key files, mode 0600    backup/           archives
    run/<service>/       ipc sockets, mode 0700        log/              bounded logs

Each edge between two services has its own socket, in the directory of the service that binds it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from lnh_common.errors import ConfigurationInvalid

SUN_PATH_BYTES: Final = 107  # unix(7): 108 with the terminating zero
SERVICES: Final = ("hsm", "store", "membership", "balancer", "backup")

_DIRECTORIES: Final = (
    *(f"run/{service}" for service in SERVICES),
    *(f"data/{service}" for service in SERVICES),
    "backup",
    "log",
    "keys",
)


class MemberDirectory:
    """Names every path under one member directory; `root` is made absolute."""

    def __init__(self, root: Path | str) -> None:
        self.root: Final = Path(root).expanduser().absolute()

    def create(self) -> None:
        """Make every directory with mode 0700 (existing ones keep their content); safe to repeat.

        Raises ConfigurationInvalid when the path is too long for a socket, or an existing directory is open to others.
        """
        self.worker_address(999)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _DIRECTORIES:
            at = self.root
            for part in name.split("/"):
                at = at / part
                at.mkdir(mode=0o700, exist_ok=True)
        mode = (self.root / "run").stat().st_mode & 0o777
        if mode & 0o077:
            raise ConfigurationInvalid(f"{self.root / 'run'} has mode {mode:04o}; it holds sockets and has 0700")

    @property
    def settings(self) -> Path:
        """The settings file."""
        return self.root / "member.toml"

    @property
    def log(self) -> Path:
        """The directory of logs and of the audit trail."""
        return self.root / "log"

    @property
    def backup(self) -> Path:
        """The directory of archives."""
        return self.root / "backup"

    @property
    def lock(self) -> Path:
        """The file that the running supervisor locks."""
        return self.root / "run" / "member.lock"

    def has_beside(self, name: str) -> bool:
        """Tell whether a file (absolute, or relative to this directory) is on the HSM state's disk; "" is no file."""
        try:
            return bool(name) and (self.root / name).stat().st_dev == self.data("hsm").stat().st_dev
        except OSError:
            return False

    def data(self, service: str) -> Path:
        """Return the directory in which one service keeps what survives."""
        return self.root / "data" / service

    @property
    def client_keys(self) -> Path:
        """The CURVE key file of the client port; its public half alone is in `client_public`."""
        return self.root / "keys" / "client.curve"

    @property
    def client_public(self) -> Path:
        """The client port's CURVE public key, 40 characters of Z85, for users that must not read the secret."""
        return self.root / "keys" / "client.curve.pub"

    @property
    def member_keys(self) -> Path:
        """The CURVE key file of the three member ports."""
        return self.root / "keys" / "member.curve"

    @property
    def member_public(self) -> Path:
        """The CURVE public key of the three member ports."""
        return self.root / "keys" / "member.curve.pub"

    @property
    def supervisor_address(self) -> str:
        """The supervisor's socket, which tells how the services' processes are."""
        return self.address("run/member.ipc")

    @property
    def store_for_hsm(self) -> str:
        """The store's socket for the hsm, which may ask everything there."""
        return self.address("run/store/hsm.ipc")

    @property
    def store_for_services(self) -> str:
        """The store's socket for status, and for what membership and backup ask."""
        return self.address("run/store/services.ipc")

    @property
    def membership_for_services(self) -> str:
        """Membership's socket for the view, which every service may ask."""
        return self.address("run/membership/services.ipc")

    @property
    def membership_for_hsm(self) -> str:
        """Membership's socket for orders, which it takes from the hsm alone."""
        return self.address("run/membership/hsm.ipc")

    @property
    def backup_for_services(self) -> str:
        """The backup service's socket for its status."""
        return self.address("run/backup/services.ipc")

    @property
    def backup_for_hsm(self) -> str:
        """The backup service's socket for orders, which it takes from the hsm alone."""
        return self.address("run/backup/hsm.ipc")

    @property
    def balancer_status(self) -> str:
        """The balancer's socket for its status."""
        return self.address("run/balancer/status.ipc")

    @property
    def hsm_console(self) -> str:
        """The hsm core's socket for the local console."""
        return self.address("run/hsm/console.ipc")

    @property
    def hsm_for_services(self) -> str:
        """The hsm core's socket for what other services ask: its status, and the backup service's keys and seals."""
        return self.address("run/hsm/services.ipc")

    @property
    def hsm_core(self) -> str:
        """The hsm core's socket for its workers: secrets and audit."""
        return self.address("run/hsm/core.ipc")

    @property
    def argon2(self) -> str:
        """The Argon2id process's socket."""
        return self.address("run/hsm/argon2.ipc")

    def worker_address(self, number: int) -> str:
        """Return hsm worker `number`'s socket (from 0): the balancer's way in (docs/formats/balancer-worker.md)."""
        return self.address(f"run/hsm/worker-{number}.ipc")

    def address(self, name: str) -> str:
        """Make the ipc endpoint of a socket under the root; raises ConfigurationInvalid when its path is too long."""
        path = self.root / name
        size = len(os.fsencode(path))
        if size > SUN_PATH_BYTES:
            raise ConfigurationInvalid(
                f"{path} has {size} bytes; a socket's path has at most {SUN_PATH_BYTES}: "
                "choose a shorter member directory"
            )
        return f"ipc://{path}"
