"""The option groups: where a verb goes, and as whom.

`ConsoleOptions` is a member's local console, `ClusterOptions` any member through the network,
`AdminOptions` that as an appliance user (and the PO), `KeyringOptions` as a role of a keyring.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnh.cli import terminal
from lnh.cli.command import Output

if TYPE_CHECKING:
    from lnh.admin import Administration
    from lnh.cluster import Cluster
    from lnh.connection import Connection
    from lnh.console import Console
    from lnh.keyrings import Keyring, KeyringSession
    from lnh_common.messages.session import Role

_Where = "Where"
_Whom = "As whom"


@dataclasses.dataclass(kw_only=True)
class ConsoleOptions(Output):
    """The local console of a member; as its SO where that is needed."""

    member_dir: Annotated[
        Path, typer.Option(envvar="LNH_MEMBER_DIR", help="The member directory.", rich_help_panel=_Where)
    ]
    password_file: Annotated[
        Path | None, typer.Option(help="File with the password asked for first.", rich_help_panel=_Whom)
    ] = None

    @contextmanager
    def console(self) -> Iterator[Console]:
        from lnh.console import Console

        with Console(self.member_dir) as console:
            yield console

    def so_password(self) -> str:
        return terminal.read_secret("SO", self.password_file)


@dataclasses.dataclass(kw_only=True)
class ClusterOptions(Output):
    """A cluster: one this client is registered with, or any through a member's address."""

    cluster: Annotated[
        str | None,
        typer.Option("--cluster", "-c", envvar="LNH_CLUSTER", help="Index or label.", rich_help_panel=_Where),
    ] = None
    member: Annotated[
        str | None, typer.Option(envvar="LNH_MEMBER", help="host:port of a member.", rich_help_panel=_Where)
    ] = None
    fingerprint: Annotated[
        str | None,
        typer.Option(help="The cluster's, where this machine is not registered.", rich_help_panel=_Where),
    ] = None
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds to wait.", rich_help_panel=_Where)] = 10.0

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection as the registered client, or as a guest through `--member`."""
        from lnh.cluster import connect_through
        from lnh.configuration import Configuration

        if self.member is not None:
            connection = connect_through(
                Configuration(),
                self.member,
                fingerprint=self.fingerprint,
                confirm=terminal.confirm_fingerprint,
                timeout=self.timeout,
            )
        else:
            connection = self.registered().connection
        with connection:
            yield connection

    def registered(self) -> Cluster:
        """The cluster this client is registered with."""
        from lnh.cluster import connect

        return connect(self.cluster, timeout=self.timeout)


UserOption = Annotated[
    str, typer.Option("--user", "-u", envvar="LNH_USER", help="The appliance user.", rich_help_panel=_Whom)
]


@dataclasses.dataclass(kw_only=True)
class AdminOptions(ClusterOptions):
    """As an appliance user."""

    user: UserOption = "admin"
    password_file: Annotated[
        Path | None, typer.Option(help="File with the user's password.", rich_help_panel=_Whom)
    ] = None

    def password(self) -> str:
        return terminal.read_secret("ADMIN", self.password_file, what=f"password of user {self.user}")

    @contextmanager
    def administration(self) -> Iterator[Administration]:
        """A session of the user: the one `user login` keeps, or a new one."""
        with self.connection() as connection, self._session(connection, needs_po=False) as session:
            yield session

    @contextmanager
    def _session(self, connection: Connection, *, needs_po: bool) -> Iterator[Administration]:
        from lnh import admin
        from lnh.cli import saved

        kept = saved.load(connection, saved.user_name(self.user, po=needs_po), admin.Administration, self.timeout)
        if kept is None and not needs_po:
            kept = saved.load(connection, saved.user_name(self.user, po=True), admin.Administration, self.timeout)
        if kept is not None:
            yield kept
            return
        password = self.password()
        po_password = self.po_password() if needs_po else ""
        with admin.login(
            connection, self.user, password, po_password=po_password, timeout=self.timeout
        ) as session:
            yield session

    def po_password(self) -> str:
        return terminal.read_secret("PO")


@dataclasses.dataclass(kw_only=True)
class PoOptions(AdminOptions):
    """As an appliance user and the cluster's PO together."""

    po_password_file: Annotated[
        Path | None, typer.Option(help="File with the PO's password.", rich_help_panel=_Whom)
    ] = None

    def po_password(self) -> str:
        return terminal.read_secret("PO", self.po_password_file)

    @contextmanager
    def administration(self) -> Iterator[Administration]:
        with self.connection() as connection, self._session(connection, needs_po=True) as session:
            yield session


@dataclasses.dataclass(kw_only=True)
class KeyringOptions(ClusterOptions):
    """As a role of a keyring."""

    keyring: Annotated[
        str, typer.Option("--keyring", "-k", envvar="LNH_KEYRING", help="The keyring.", rich_help_panel=_Where)
    ]
    role: Annotated[str, typer.Option("--role", help="krco or krso.", rich_help_panel=_Whom)] = "krco"
    password_file: Annotated[
        Path | None, typer.Option(help="File with the role's password.", rich_help_panel=_Whom)
    ] = None

    def keyring_role(self) -> Role:
        return parse_role(self.role)

    def password(self) -> str:
        return terminal.read_secret(self.role, self.password_file, what=f"{self.role} password of {self.keyring}")

    @contextmanager
    def opened(self) -> Iterator[tuple[Connection, Keyring]]:
        """The connection and the keyring, before any login of a role."""
        with self.connected() as cluster:
            yield cluster.connection, cluster.keyring(self.keyring)

    @contextmanager
    def connected(self) -> Iterator[Cluster]:
        """The cluster; `--member` picks another way into it."""
        from lnh.cluster import through

        cluster = self.registered()
        if self.member is not None:
            cluster.close()
            cluster = through(cluster.registration, self.member, timeout=self.timeout)
        with cluster:
            yield cluster

    @contextmanager
    def session(self) -> Iterator[KeyringSession]:
        """A session of the role: the one `role login` keeps, or a new one."""
        from lnh.cli import saved
        from lnh.keyrings import KeyringSession

        role = self.keyring_role()
        with self.connected() as cluster:
            name = saved.role_name(self.keyring, role)
            kept = saved.load(cluster.connection, name, KeyringSession, self.timeout)
            if kept is not None:
                yield kept
                return
            keyring = cluster.keyring(self.keyring)
            with keyring.login(role, self.password()) as session:
                yield session


def parse_role(text: str) -> Role:
    """krso or krco; a usage error otherwise."""
    from lnh_common.messages.session import Role

    try:
        role = Role(text.lower())
    except ValueError:
        role = Role.USER
    if not role.of_keyring:
        terminal.refuse(f"no role {text!r} of a keyring", "krso or krco", terminal.USAGE)
    return role
