"""Registers this machine with a cluster, through a member's door.

The door answers `hello` to anybody. Its CURVE key pair is published, so what comes through it proves nothing; the
statement in the answer is signed by the cluster's identity, whose fingerprint an administrator checks once, here. After
that the identity is pinned.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lnh.arguments import checks
from lnh.configuration import Configuration, Registration
from lnh.net.connection import Connection, Link
from lnh.net.unserved import UNSERVED, unserved
from lnh.sessions import Session, login
from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.bus.blocking import Caller
from lnh_common.errors import (
    ArgumentInvalid,
    Busy,
    ClientRevoked,
    ClientUnknown,
    ClusterIdentityChanged,
    FingerprintMismatch,
    LnhError,
    NameTaken,
    NoCluster,
    Unreachable,
)
from lnh_common.messages.base import Empty
from lnh_common.messages.session import HELLO, REGISTER, Credential, Register, Role, Welcome
from lnh_common.wire.channel import Statement, fingerprint

DOOR_OFFSET: Final = 4  # the door's port: the member's client port and this

SETTLING: Final = 3.0  # seconds: a cluster just created, or a member just started, is not served at once
PAUSE: Final = 0.05
_NUMBERED: Final = 100  # names that are tried for a client that is registered anew

_COMPARE: Final = "if it is what `lnh cluster show` prints on the member's console, give it with --fingerprint"

Confirm = Callable[[str, str], bool]


@dataclass(frozen=True)
class Greeting:
    """A member's answer at its door: the signed statement and the identity that signed it."""

    address: str
    statement: Statement
    identity: bytes

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the identity, as `lnh cluster show` prints it."""
        return fingerprint(self.identity)

    def check(self, wanted: str | None, confirm: Confirm | None, cluster: bytes = b"") -> None:
        """Compare the fingerprint and cluster id with those that are known, or ask.

        Args:
            wanted: the fingerprint, as `lnh cluster show` prints it.
            confirm: called with label and fingerprint when no fingerprint is wanted.
            cluster: the id, or empty to take any.

        Raises FingerprintMismatch.
        """
        if cluster and cluster != self.statement.cluster:
            raise FingerprintMismatch(f"cluster {self.statement.cluster.hex()} answers; wanted was {cluster.hex()}")
        if wanted:
            if wanted.rstrip("=") != self.fingerprint:
                raise FingerprintMismatch(f"the fingerprint is {self.fingerprint}; wanted was {wanted}")
        elif confirm is None or not confirm(self.statement.label, self.fingerprint):
            raise FingerprintMismatch(f"the fingerprint {self.fingerprint} was not confirmed", {"advice": _COMPARE})

    def check_pinned(self, registration: Registration) -> None:
        """Raise ClusterIdentityChanged unless this is a member of the cluster that was registered."""
        if self.statement.cluster != registration.cluster or self.identity != registration.identity:
            raise ClusterIdentityChanged(
                f"cluster {self.statement.cluster.hex()} with identity {self.fingerprint} answers at {self.address}; "
                f"registered was {registration.cluster.hex()} with {fingerprint(registration.identity)}"
            )


def parse_address(address: str) -> tuple[str, int]:
    """Split host:port of a member's client port; raises ArgumentInvalid."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):([0-9]{1,5})", address)
    if match is None or not 0 < int(match[2]) <= 65535 - DOOR_OFFSET:
        raise ArgumentInvalid(f"{address!r} is not host:port")
    return match[1], int(match[2])


def hello(address: str, timeout: float = limits.DEADLINE) -> Greeting:
    """Ask at the door of the member that has this client port.

    Raises Unreachable, ChannelInvalid when the identity it names did not sign, and NotActivated, NoCluster or
    MemberExpelled of a member that serves nobody.
    """
    host, port = parse_address(address)
    door = f"tcp://{host}:{port + DOOR_OFFSET}"
    name = f"{address} (its door is port {port + DOOR_OFFSET})"
    with Caller(door, server_key=curve.DOOR.public, reach=timeout, name=name) as caller:
        try:
            welcome = _ask(caller, timeout)
        except UNSERVED as error:
            raise unserved(error, {address: error}, is_sealed=False) from None
    statement = Statement.verify(welcome.statement, welcome.signature, welcome.identity)
    return Greeting(address, statement, welcome.identity)


def _ask(caller: Caller, timeout: float) -> Welcome:
    now = time.monotonic()
    end, settled = now + timeout, now + min(timeout, SETTLING)
    while True:
        now = time.monotonic()
        try:
            return caller.ask(HELLO, Empty(), max(end - now, 0.001))
        except (Busy, NoCluster, Unreachable) as error:  # a member's workers may be starting just now
            if now + PAUSE >= (settled if isinstance(error, NoCluster) else end):
                raise
            time.sleep(PAUSE)


def connect_as_guest(
    address: str, wanted: str | None = None, confirm: Confirm | None = None, *, timeout: float = limits.DEADLINE
) -> Connection:
    """Connect from a machine that is not registered, to register or to act as an appliance user.

    Raises FingerprintMismatch, Unreachable.
    """
    greeting = hello(address, timeout)
    greeting.check(wanted, confirm)
    link = Link(address, curve.to_z85(greeting.statement.member_key), curve.KeyPair.generate())
    return Connection(link, greeting.identity, greeting.statement.cluster)


@checks
def register(
    configuration: Configuration,
    address: str,
    name: str,
    administrator: str,
    password: Callable[[], str],
    *,
    wanted: str | None = None,
    confirm: Confirm | None = None,
    cluster: bytes = b"",
    index: int | None = None,
    monitor: str = "",
    timeout: float = limits.DEADLINE,
) -> Registration:
    """Register this machine with the cluster behind a member, or change the member of a registration.

    A cluster that is registered already keeps its client and its keys: its first point of contact changes, its index
    where another is given, and no password is asked for. A client that the cluster revoked, or does not know any more,
    is registered anew. The other members are entered as alternates.

    Args:
        address: host:port of the member.
        name: of this client, unique in the cluster; "" takes the host's, of a client registered anew with a number.
        administrator, password: an appliance user with the admin role; the password is asked for late.
        wanted, confirm: the identity's fingerprint, or a function that asks about it.
        cluster: its id, or empty to take any.
        index: 0 to 9; None takes the lowest that is free, or leaves it as it is.
        monitor: the appliance user whose sight this machine has.

    Raises FingerprintMismatch, ClusterIdentityChanged, NameTaken, PasswordIncorrect and what a call raises;
    ArgumentInvalid for a name or monitor that a registration cannot be changed to.
    """
    if index is not None and not 0 <= index < limits.CLUSTERS_PER_CLIENT:
        raise ArgumentInvalid(f"index {index}; from 0 to {limits.CLUSTERS_PER_CLIENT - 1}")
    greeting = hello(address, timeout)
    with configuration.locked():
        known = configuration.registrations()
        old = next((one for one in known if one.cluster == greeting.statement.cluster), None)
        if old is None:
            greeting.check(wanted, confirm, cluster)
        else:
            greeting.check_pinned(old)
            greeting.check(wanted or old.fingerprint, None, cluster)
        if index is None:
            index = configuration.free_index() if old is None else old.index
        elif any(one.index == index for one in known if one is not old):
            raise NameTaken(f"index {index:02} is taken", {"advice": "see LNHClientRegistration --list"})
        if old is not None:
            moved = replace(old, index=index, member=address, member_key=greeting.statement.member_key)
            try:
                moved = _with_alternates(moved, timeout)
            except (ClientRevoked, ClientUnknown):
                names = (name,) if name else _names(old.name)
            else:
                _check_unchanged(old, "name", "--name", name, old.name)
                _check_unchanged(old, "monitor", "--monitor", monitor, old.user)
                configuration.save(moved, instead_of=old)
                return moved
        else:
            names = (name or socket.gethostname(),)

        asked = Asked(administrator, password(), index, monitor or (old.user if old is not None else ""), timeout)
        registration = _register_first(configuration, greeting, names, asked)
        configuration.save(registration, instead_of=old)
    configuration.save_epoch(registration, greeting.statement.epoch)
    return registration


@dataclass(frozen=True)
class Asked:
    """The arguments of a registration, whatever the client's name; no `repr` shows the password."""

    administrator: str
    password: str = field(repr=False)
    index: int
    monitor: str
    timeout: float


def _register_first(
    configuration: Configuration, greeting: Greeting, names: tuple[str, ...], asked: Asked
) -> Registration:
    """Register under the first of these names that is free; raises NameTaken when none is."""
    for name in names[:-1]:
        with contextlib.suppress(NameTaken):
            return _register_as(configuration, greeting, name, asked)
    return _register_as(configuration, greeting, names[-1], asked)


def _register_as(configuration: Configuration, greeting: Greeting, name: str, asked: Asked) -> Registration:
    """Have the cluster make a client of this name, and keep its keys; `client.toml` stays as it is."""
    keys, sign_key = curve.KeyPair.generate(), Ed25519PrivateKey.generate()
    message = Register(
        administrator=Credential(role=Role.USER, name=asked.administrator, password=asked.password),
        name=name,
        curve_key=keys.raw_public,
        sign_key=sign_key.public_key().public_bytes_raw(),
        monitor=asked.monitor,
    )
    statement = greeting.statement
    link = Link(greeting.address, curve.to_z85(statement.member_key), keys)
    with Connection(link, greeting.identity, statement.cluster, client_key=sign_key) as connection:
        reply, _ = connection.call_with_credential(REGISTER, message, asked.timeout)

    mark = os.urandom(4).hex()  # a leftover of an earlier attempt is never reused
    registration = Registration(
        index=asked.index,
        cluster=statement.cluster,
        label=statement.label,
        member=greeting.address,
        member_key=statement.member_key,
        identity=greeting.identity,
        name=name,
        client=reply.client,
        client_key=_in(configuration, f"{asked.index:02}-{mark}.curve"),
        sign_key=_in(configuration, f"{asked.index:02}-{mark}.sign"),
        user=asked.monitor,
    )
    keys.save(registration.client_key)
    configuration.write_sign_key(registration.sign_key, sign_key)
    with contextlib.suppress(ClientRevoked, ClientUnknown):  # a member that has not heard of it yet
        registration = _with_alternates(registration, asked.timeout)
    return registration


def _names(revoked: str) -> tuple[str, ...]:
    """List the names for a client that is registered anew: a revoked name stays taken, so it gets a number."""
    numbered = (f"-{number}" for number in range(2, _NUMBERED))
    return tuple(revoked[: limits.NAME_CHARACTERS - len(number)] + number for number in numbered)


def _check_unchanged(old: Registration, what: str, option: str, given: str, known: str) -> None:
    if given and given != known:
        raise ArgumentInvalid(
            f"{option} {given}: this machine is registered with {old.label!r} under {what} {known or 'none'!r}, "
            "and a registration keeps it",
            {"advice": f"LNHClientRegistration --remove {old.number}, then register again with {option}"},
        )


def _with_alternates(registration: Registration, timeout: float) -> Registration:
    """Add the other members that the cluster tells of now; a registration whose cluster tells none stays as it is.

    Raises ClientRevoked or ClientUnknown when the cluster says that this client is one no more.
    """
    link = Link(registration.member, curve.to_z85(registration.member_key), registration.load_curve())
    connection = Connection(
        link,
        registration.identity,
        registration.cluster,
        client=registration.client,
        client_key=registration.load_sign_key(),
        alternates=registration.alternates,
    )
    with connection:
        try:
            secret, logged_in = login(connection, timeout=timeout)
            Session(connection, secret, logged_in, timeout=timeout).credentials()  # asks
        except (ClientRevoked, ClientUnknown):
            raise
        except LnhError:
            return registration
        return replace(registration, alternates=connection.alternates)


def _in(configuration: Configuration, name: str) -> Path:
    return configuration.directory / name
