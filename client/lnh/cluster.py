"""`lnh.connect`: a registered client's way into a cluster."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

from typing_extensions import Self

from lnh.arguments import checked, checks
from lnh.configuration import Configuration, Registration
from lnh.keyring_lists import keyring_labelled, keyring_listing
from lnh.net.connection import Connection, Link
from lnh.net.mutex import Mutex
from lnh.objects.listings import Listing
from lnh.registration import hello
from lnh.sessions import Session, login
from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.errors import ClusterRestored
from lnh_common.messages.admin import KEYRING_LIST, STATUS, Keyrings, ListKeyrings, StatusView
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.session import LoggedIn

if TYPE_CHECKING:
    from lnh.keyrings import Keyring

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


@checked
class Cluster:
    """A connection to a cluster; a context manager that closes it. Any thread may use it.

    Attributes:
        registration: what client.toml says about the cluster.
        connection: for operations that the SDK has no method for.
    """

    def __init__(self, connection: Connection, registration: Registration, *, timeout: float) -> None:
        self.connection: Final = connection
        self.registration: Final = registration
        self.timeout: Final = timeout
        self._session: Session | None = None
        self._session_mutex: Final = Mutex()

    def __repr__(self) -> str:
        return f"<Cluster {self.label!r} through {self.connection.link.address}>"

    @property
    def label(self) -> str:
        """The cluster's label, as it was registered."""
        return self.registration.label

    @property
    def id(self) -> bytes:
        """The cluster's id, 16 bytes."""
        return self.registration.cluster

    def keyrings(self, *, current: bool = False) -> Listing[Keyring]:
        """List the keyrings that this client may see, a page at a time as they are taken.

        Args:
            current: demand all there are, from a member that is in step; raises MemberBehind where there is none.
        """
        from lnh.keyrings import Keyring

        return keyring_listing(self._list, current=current).each(
            partial(Keyring, self.connection, timeout=self.timeout)
        )

    def keyring(self, label: str) -> Keyring:
        """Find the keyring with this label; raises KeyringUnknown when this client may see none.

        Raises MemberBehind when no member that is in step could be asked.
        """
        from lnh.keyrings import Keyring

        return Keyring(self.connection, keyring_labelled(self._list, label), timeout=self.timeout)

    def status(self, *, current: bool = False) -> StatusView:
        """Show members and services to a client that is registered with `--monitor`; raises PermissionDenied."""
        return self._ask(STATUS, Empty(), current=current)

    def client_session(self) -> Session:
        """Open the registered client's own session, without anybody's credential."""
        self.connection.owner.check()  # before any lock
        with self._session_mutex.hold():
            if self._session is None or self._session.ended:

                def log_in() -> tuple[bytes, LoggedIn]:
                    return login(self.connection, timeout=self.timeout)

                secret, logged_in = log_in()
                self._session = Session(self.connection, secret, logged_in, timeout=self.timeout, again=log_in)
            return self._session

    def close(self) -> None:
        """Close the connection. Sessions whose `with` is over are logged out; others live until they expire."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _list(self, message: ListKeyrings, *, current: bool = False) -> Keyrings:
        return self._ask(KEYRING_LIST, message, current=current)

    def _ask(self, operation: Operation[Q, R], message: Q, *, current: bool) -> R:
        """Ask an operation that changes nothing, under the client's own session or, if that was ended, a new one."""
        session = self.client_session()
        try:
            return session.ask(operation, message, current=current)
        except ClusterRestored:
            with self._session_mutex.hold():
                if self._session is session:
                    self._session = None
        return self.client_session().ask(operation, message, current=current)


@checks
def connect(
    which: int | str | None = None,
    *,
    directory: Path | str | None = None,
    timeout: float = limits.DEADLINE,
    failover: bool | None = None,
    current: bool = False,
) -> Cluster:
    """Connect to a cluster that this client is registered with.

    Nothing is sent yet: the first operation finds out whether the member is there.

    Args:
        which: its label or index in client.toml; None for the only one.
        directory: where client.toml is; None for `$LNH_CONFIG` or the platform's directory.
        timeout: seconds an operation may take unless it says otherwise.
        failover: whether another member is used when the registered one is gone, or behind; None takes the word of
            client.toml.
        current: whether every listing is demanded from a member that is in step, as `current=True` demands one.

    Raises NameUnknown, ConfigurationInvalid, FileModeUnsafe.
    """
    configuration = Configuration(None if directory is None else Path(directory))
    cluster = connect_to(configuration, configuration.registration(which), timeout=timeout, failover=failover)
    cluster.connection.current = current
    return cluster


def connect_to(
    configuration: Configuration,
    registration: Registration,
    *,
    timeout: float = limits.DEADLINE,
    failover: bool | None = None,
) -> Cluster:
    """Connect as `connect` does, with a registration at hand."""
    link = Link(registration.member, curve.to_z85(registration.member_key), registration.load_curve())
    failover = registration.failover if failover is None else failover
    return _open(configuration, registration, link, timeout, failover=failover)


def connect_through(
    configuration: Configuration, registration: Registration, member: str, *, timeout: float = limits.DEADLINE
) -> Cluster:
    """Connect through another member than the registered one, and no other; the member's door tells its key.

    Raises ClusterIdentityChanged when it is not a member of that cluster, Unreachable.
    """
    greeting = hello(member, timeout)
    greeting.check_pinned(registration)
    link = Link(member, curve.to_z85(greeting.statement.member_key), registration.load_curve())
    return _open(configuration, registration, link, timeout, failover=False)


def _open(
    configuration: Configuration, registration: Registration, link: Link, timeout: float, *, failover: bool
) -> Cluster:
    connection = Connection(
        link,
        registration.identity,
        registration.cluster,
        client=registration.client,
        client_key=registration.load_sign_key(),
        epoch=configuration.epoch(registration),
        on_epoch=lambda epoch: configuration.save_epoch(registration, epoch),
        alternates=registration.alternates,
        failover=failover,
        on_endpoints=lambda alternates: configuration.save_alternates(registration, alternates),
    )
    return Cluster(connection, registration, timeout=timeout)
