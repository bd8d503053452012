"""A running member with all that a client needs, and the command line as its user runs it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lnh
import lnh.net.connection
from commands import Forked
from lnh import admin
from lnh.console import Console
from processes import Processes, RunningMember

ADMIN, PO, SO, KRSO, KRCO = (f"password of {role}" for role in ("admin", "po", "so", "krso", "krco"))


@dataclass
class Site:
    """A running member with a cluster, a registered client and a keyring."""

    member: RunningMember
    address: str
    fingerprint: str
    configuration: lnh.Configuration

    @property
    def directory(self) -> Path:
        return self.configuration.directory

    def connect(self, **options: Any) -> lnh.Cluster:
        return lnh.connect("prod", directory=self.directory, **options)


def build(processes: Processes, root: Path) -> Site:
    member = RunningMember(processes, root / "A", workers=2)
    member.start()
    with Console(root / "A") as console:
        console.init_appliance("admin", ADMIN)
        console.init_hsm("A", SO, b"activation secret")
        console.install_package("cluster", SO)
        created = console.create_cluster("prod", SO, PO)
    address = f"127.0.0.1:{member.settings.base_port}"
    configuration = lnh.Configuration(root / "client")
    lnh.register(configuration, address, "web-1", "admin", lambda: ADMIN, wanted=created.fingerprint)
    site = Site(member, address, created.fingerprint, configuration)
    with site.connect() as cluster, admin.login(cluster.connection, "admin", ADMIN, po_password=PO) as session:
        session.create_keyrings("payments")
        session.init_krso("payments", "the first password")
    with site.connect() as cluster:
        keyring = cluster.keyring("payments")
        keyring.change_password(lnh.Role.KRSO, "the first password", KRSO)
        with keyring.login(lnh.Role.KRSO, KRSO) as session:
            session.set_krco(KRCO)
    return site


@dataclass
class Shell:
    """Runs the command line in a process of its own, as a user would."""

    site: Site
    place: Path

    def run(self, *arguments: str, status: int = 0, data: bytes = b"") -> str:
        done = Forked(("lnh", *arguments), self._environment(), self.place, data).wait()
        assert done.code == status, done.err
        assert "Traceback" not in done.err
        return done.out or done.err

    @contextmanager
    def begun(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs meanwhile; it is killed in the end, if it has not ended."""
        command = [sys.executable, "-m", "lnh_cli.main", *arguments]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=self.place, env=self._environment()
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _environment(self) -> dict[str, str]:
        own = {"LNH_CONFIG": str(self.site.directory), "XDG_RUNTIME_DIR": str(self.place)}
        files = {f"LNH_{name}_PASSWORD_FILE": str(self.place / name) for name in ("ADMIN", "PO", "KRSO", "KRCO")}
        return {**os.environ, **own, **files}

    def on_terminal(self, *arguments: str) -> str:
        """As `run`, with a wide terminal for its output."""
        ours, its = pty.openpty()
        try:
            with subprocess.Popen(
                [sys.executable, "-m", "lnh_cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=its,
                stderr=its,
                cwd=self.place,
                env={**os.environ, "LNH_CONFIG": str(self.site.directory), "XDG_RUNTIME_DIR": str(self.place)}
                | {"LNH_KRCO_PASSWORD_FILE": str(self.place / "KRCO"), "LNH_KEYRING": "payments"}
                | {"TERM": "xterm", "COLUMNS": "200"},
            ):
                os.close(its)
                its = -1
                said = b""
                with suppress(OSError):  # a terminal whose other end closed
                    while chunk := os.read(ours, 1 << 16):
                        said += chunk
        finally:
            os.close(ours)
            if its >= 0:
                os.close(its)
        return said.decode()
