"""The option groups: the place where a verb goes, and the role in which it acts.

`ConsoleOptions` is a member's local console, `ClusterOptions` any member through the network, `AdminOptions` that as an
appliance user (and the PO), `KeyringOptions` as a role of a keyring.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.command import Output
from lnh_cli.support.fields import field

if TYPE_CHECKING:
    from lnh.admin import Administration
    from lnh.cluster import Cluster
    from lnh.console import Console
    from lnh.keyrings import KeyringSession
    from lnh.net.connection import Connection
    from lnh.objects.session import ObjectSession
    from lnh_common.messages.session import Role

_Where = "Where"
_Whom = "As whom"


@dataclasses.dataclass(kw_only=True)
class ConsoleOptions(Output):
    """Options of verbs at the local console of a member; as its SO where that is needed."""

    member_dir: Annotated[
        Path, typer.Option(envvar="LNH_MEMBER_DIR", help="The member directory.", rich_help_panel=_Where)
    ]
    password_file: Annotated[
        Path | None,
        typer.Option(help="File with the password asked for first.", callback=files.readable, rich_help_panel=_Whom),
    ] = None

    @contextmanager
    def console(self, act: str = "", target: str = "") -> Iterator[Console]:
        """Open the console. Where an act and its target are named, raise what forbids it before a password is asked."""
        from lnh.console import Console
        from lnh_common.messages.base import OPERATIONS

        with Console(self.member_dir) as console:
            if act:
                console.check(OPERATIONS[act], target)
            yield console

    def so_password(self) -> str:
        """Read the SO's password."""
        return terminal.read_secret("SO", self.password_file)


@dataclasses.dataclass(kw_only=True)
class ClusterOptions(Output):
    """Options of verbs in a cluster: one this client is registered with, or any through a member's address."""

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
    current: Annotated[
        bool,
        typer.Option("--current", help="List only through a member that is in step.", rich_help_panel=_Where),
    ] = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Connect as the registered client, or as a guest through `--member`."""
        with self._connection() as connection:
            self._look_at(connection)
            yield connection

    def _look_at(self, connection: Connection) -> None:
        """Make the listings of a connection be current, or say that they are not."""
        connection.current = self.current
        connection.on_behind = self.note_behind
        connection.on_skipped = self.note_skipped

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        from lnh.cluster import connect_through
        from lnh.configuration import Configuration
        from lnh.registration import connect_as_guest, hello

        if self.member is None or self.cluster is not None:
            with self.registered() as cluster:
                yield cluster.connection
            return
        configuration = Configuration()
        answering = hello(self.member, self.timeout).statement.cluster
        for registration in configuration.registrations():
            if registration.cluster == answering:
                with connect_through(configuration, registration, self.member, timeout=self.timeout) as cluster:
                    yield cluster.connection
                return
        confirm = terminal.confirm_fingerprint
        with connect_as_guest(self.member, self.fingerprint, confirm, timeout=self.timeout) as connection:
            yield connection

    def registered(self) -> Cluster:
        """Connect to the cluster this client is registered with, through `--member` if that is given."""
        from lnh.cluster import connect_through, connect_to
        from lnh.configuration import Configuration

        configuration = Configuration()
        registration = configuration.registration(self.cluster)
        if self.member is not None:
            cluster = connect_through(configuration, registration, self.member, timeout=self.timeout)
        else:
            cluster = connect_to(configuration, registration, timeout=self.timeout)
        self._look_at(cluster.connection)
        return cluster


UserOption = Annotated[
    str,
    typer.Option(
        "--user", "-u", envvar="LNH_USER", help="The appliance user.", rich_help_panel=_Whom,
        callback=field("admin.UserRef", "name"),
    ),
]  # fmt: skip


@dataclasses.dataclass(kw_only=True)
class AdminOptions(ClusterOptions):
    """Options of verbs in a cluster as an appliance user."""

    user: UserOption = "admin"
    password_file: Annotated[
        Path | None, typer.Option(help="File with the user's password.", callback=files.readable, rich_help_panel=_Whom)
    ] = None

    def password(self) -> str:
        """Read the user's password."""
        return terminal.read_secret("ADMIN", self.password_file, what=f"password of user {self.user}")

    @contextmanager
    def administration(self) -> Iterator[Administration]:
        """Open a session of the user: the one `user login` keeps, or a new one."""
        with self.connection() as connection, self._session(connection, needs_po=False) as session:
            yield session

    @contextmanager
    def viewing(self, *, needs_sight: bool = False) -> Iterator[Administration]:
        """Open a session that looks and changes nothing.

        It is the registered client's own, unless a user has logged in or a password is at hand.

        Args:
            needs_sight: whether the client's own will not do without a monitor's sight.
        """
        from lnh import admin

        with self.connection() as connection:
            own = connection.client and not terminal.has_secret("ADMIN", self.password_file)
            if own and needs_sight:
                from lnh.configuration import Configuration

                own = bool(Configuration().registration_of(connection.cluster).user)
            if own and self._kept_name(connection) is None:
                with admin.login(connection, timeout=self.timeout) as session:
                    session.abandon()  # its secret ends with this process; a logout would be a write at every member
                    yield session
                return
            with self._session(connection, needs_po=False) as session:
                yield session

    @contextmanager
    def _session(self, connection: Connection, *, needs_po: bool) -> Iterator[Administration]:
        from lnh import admin
        from lnh_cli.support import saved

        name = self._kept_name(connection, needs_po=needs_po)
        if name is not None:
            with saved.kept(connection, name, admin.Administration, self.timeout) as kept:
                if kept is not None:
                    yield kept
                    return
        password = self.password()
        po_password = self.po_password() if needs_po else ""
        with admin.login(connection, self.user, password, po_password=po_password, timeout=self.timeout) as session:
            yield session

    def _kept_name(self, connection: Connection, *, needs_po: bool = False) -> str | None:
        """Return the name of a kept session that will do; one with the PO's credential does for everything."""
        from lnh_cli.support import saved

        names = [saved.user_name(self.user, po=with_po) for with_po in (True, False) if with_po or not needs_po]
        return next((name for name in names if saved.exists(connection, name)), None)

    def po_password(self) -> str:
        """Read the PO's password."""
        return terminal.read_secret("PO")


@dataclasses.dataclass(kw_only=True)
class TwoOptions(AdminOptions):
    """Options of verbs as an appliance user, and another one beside where nobody else could approve it any more."""

    with_user: Annotated[
        str | None,
        typer.Option(
            help="Another user who is here and approves it (policy dual_control).",
            rich_help_panel=_Whom,
            callback=field("admin.UserRef", "name"),
        ),
    ] = None
    with_password_file: Annotated[
        Path | None,
        typer.Option(help="File with that user's password.", callback=files.readable, rich_help_panel=_Whom),
    ] = None

    @contextmanager
    def administration(self) -> Iterator[Administration]:
        """Open a session of the user, or of both users: the latter is never one that was kept."""
        from lnh import admin

        if self.with_user is None:
            with super().administration() as session:
                yield session
            return
        with self.connection() as connection:
            own = self.password()
            other = terminal.read_secret("WITH", self.with_password_file, what=f"password of user {self.with_user}")
            with admin.login(
                connection, self.user, own, with_user=self.with_user, with_password=other, timeout=self.timeout
            ) as session:
                yield session


@dataclasses.dataclass(kw_only=True)
class PoOptions(AdminOptions):
    """Options of verbs in a cluster as an appliance user and the cluster's PO together."""

    po_password_file: Annotated[
        Path | None, typer.Option(help="File with the PO's password.", callback=files.readable, rich_help_panel=_Whom)
    ] = None

    def po_password(self) -> str:
        """Read the PO's password, from its own file where one is named."""
        return terminal.read_secret("PO", self.po_password_file)

    @contextmanager
    def administration(self) -> Iterator[Administration]:
        """Open a session of the user and the PO: the one `user login` keeps, or a new one."""
        with self.connection() as connection, self._session(connection, needs_po=True) as session:
            yield session


@dataclasses.dataclass(kw_only=True)
class KeyringOptions(ClusterOptions):
    """Options of verbs as a role of a keyring."""

    keyring: Annotated[
        str, typer.Option("--keyring", "-k", envvar="LNH_KEYRING", help="The keyring.", rich_help_panel=_Where)
    ]
    role: Annotated[str, typer.Option("--role", help="krco or krso.", rich_help_panel=_Whom)] = "krco"
    password_file: Annotated[
        Path | None, typer.Option(help="File with the role's password.", callback=files.readable, rich_help_panel=_Whom)
    ] = None

    def keyring_role(self) -> Role:
        """Parse the role; a wrong one ends the command."""
        return parse_role(self.role)

    def password(self) -> str:
        """Read the password of the keyring's role."""
        return terminal.read_secret(self.role, self.password_file, what=f"{self.role} password of {self.keyring}")

    @contextmanager
    def session(self) -> Iterator[KeyringSession]:
        """Open a session of the role: the one `role login` keeps, or a new one."""
        from lnh.keyrings import KeyringSession
        from lnh_cli.support import saved

        role = self.keyring_role()
        with self.registered() as cluster:
            name = saved.role_name(self.keyring, role)
            with saved.kept(cluster.connection, name, KeyringSession, self.timeout) as kept:
                if kept is not None:
                    yield kept
                    return
            keyring = cluster.keyring(self.keyring)
            with keyring.login(role, self.password()) as session:
                yield session


@dataclasses.dataclass(kw_only=True)
class ObjectOptions(KeyringOptions):
    """Options of verbs as a role of a keyring, or as the CO of a partition at a member's local console."""

    keyring: Annotated[
        str, typer.Option("--keyring", "-k", envvar="LNH_KEYRING", help="The keyring.", rich_help_panel=_Where)
    ] = ""
    partition: Annotated[
        str, typer.Option(help="A partition instead, at the local console of --member-dir.", rich_help_panel=_Where)
    ] = ""
    member_dir: Annotated[
        Path | None, typer.Option(envvar="LNH_MEMBER_DIR", help="The member directory.", rich_help_panel=_Where)
    ] = None

    @contextmanager
    def objects(self) -> Iterator[ObjectSession]:
        """Open a session with the objects of the keyring, or of the partition."""
        if not self.partition:
            if not self.keyring:
                terminal.refuse("no keyring named", "--keyring KEYRING, or --partition LABEL", terminal.USAGE)
            with self.session() as session:
                yield session
            return
        if self.member_dir is None:
            terminal.refuse("a partition is used from its member's local console", "--member-dir DIR", terminal.USAGE)
        from lnh.console import Console

        with Console(self.member_dir) as console:
            what = f"CO password of partition {self.partition}"
            yield console.partition_session(self.partition, terminal.read_secret("CO", self.password_file, what=what))


def parse_role(text: str) -> Role:
    """Parse the role of a keyring; a usage error otherwise."""
    from lnh_common.messages.session import Role

    try:
        role = Role(text.lower())
    except ValueError:
        role = Role.USER
    if not role.of_keyring:
        terminal.refuse(f"no role {text!r} of a keyring", "krso or krco", terminal.USAGE)
    return role
