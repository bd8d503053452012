"""Getting in: the door, and registering this machine with a cluster.

The door answers `hello` to anybody. Its CURVE key pair is published, so what comes through it proves
nothing; the statement in the answer is signed by the cluster's identity, whose fingerprint somebody
checks once, here. After that the identity is pinned.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lnh.configuration import Configuration, Registration
from lnh.connection import Connection, Link
from lnh.sessions import Session, login
from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.bus.sync import Caller
from lnh_common.channel import Statement, fingerprint
from lnh_common.errors import (
    ArgumentInvalid,
    Busy,
    ClusterIdentityChanged,
    FingerprintMismatch,
    LnhError,
    NameTaken,
    NoCluster,
    Unreachable,
)
from lnh_common.messages.base import Empty
from lnh_common.messages.session import HELLO, REGISTER, Credential, Register, Role, Welcome

DOOR_OFFSET: Final = 4  # the door's port: the member's client port and this

_SETTLING: Final = 3.0  # seconds: a cluster just created, or a member just started, is not served at once
_PAUSE: Final = 0.05

_COMPARE: Final = "if it is what `lnh cluster show` prints on the member's console, give it with --fingerprint"

Confirm = Callable[[str, str], bool]


@dataclass(frozen=True)
class Greeting:
    """What a member said at its door: the signed statement and the identity that signed it."""

    address: str
    statement: Statement
    identity: bytes

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity)

    def check(self, wanted: str | None, confirm: Confirm | None, cluster: bytes = b"") -> None:
        """Compare the fingerprint and cluster id with what is known, or ask.

        Args:
            wanted: the fingerprint, as `lnh cluster show` prints it.
            confirm: asked with label and fingerprint when none is wanted.
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
        """Raises ClusterIdentityChanged unless this is a member of the cluster that was registered."""
        if self.statement.cluster != registration.cluster or self.identity != registration.identity:
            raise ClusterIdentityChanged(
                f"cluster {self.statement.cluster.hex()} with identity {self.fingerprint} answers at {self.address}; "
                f"registered was {registration.cluster.hex()} with {fingerprint(registration.identity)}"
            )


def parse_address(address: str) -> tuple[str, int]:
    """host:port of a member's client port; raises ArgumentInvalid."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):([0-9]{1,5})", address)
    if match is None or not 0 < int(match[2]) <= 65535 - DOOR_OFFSET:
        raise ArgumentInvalid(f"{address!r} is not host:port")
    return match[1], int(match[2])


def hello(address: str, timeout: float = limits.DEADLINE) -> Greeting:
    """Ask at the door of the member whose client port this is.

    Raises Unreachable, or ChannelInvalid when the identity it names did not sign.
    """
    host, port = parse_address(address)
    door = f"tcp://{host}:{port + DOOR_OFFSET}"
    name = f"{address} (its door is port {port + DOOR_OFFSET})"
    with Caller(door, server_key=curve.DOOR.public, reach=timeout, name=name) as caller:
        welcome = _ask(caller, timeout)
    statement = Statement.verify(welcome.statement, welcome.signature, welcome.identity)
    return Greeting(address, statement, welcome.identity)


def _ask(caller: Caller, timeout: float) -> Welcome:
    now = time.monotonic()
    end, settled = now + timeout, now + min(timeout, _SETTLING)
    while True:
        now = time.monotonic()
        try:
            return caller.ask(HELLO, Empty(), max(end - now, 0.001))
        except (Busy, NoCluster, Unreachable) as error:  # a member's workers may be starting just now
            if now + _PAUSE >= (settled if isinstance(error, NoCluster) else end):
                raise
            time.sleep(_PAUSE)


def connect_as_guest(
    address: str, wanted: str | None = None, confirm: Confirm | None = None, *, timeout: float = limits.DEADLINE
) -> Connection:
    """A connection of somebody not registered, who may register or act as an appliance user.

    Raises FingerprintMismatch, Unreachable.
    """
    greeting = hello(address, timeout)
    greeting.check(wanted, confirm)
    link = Link(address, curve.to_z85(greeting.statement.member_key), curve.KeyPair.generate())
    return Connection(link, greeting.identity, greeting.statement.cluster)


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

    A cluster that is registered already keeps its client and its keys: only the first point of
    contact changes, and no password is asked for. The other members are entered as alternates.

    Args:
        address: host:port of the member.
        name: of this client, unique in the cluster.
        administrator, password: an appliance user with the admin role; the password is asked for late.
        wanted, confirm: the identity's fingerprint, or who is asked about it.
        cluster: its id, or empty to take any.
        index: 0 to 9; None takes the lowest that is free.
        monitor: the appliance user whose sight this machine has.

    Raises FingerprintMismatch, ClusterIdentityChanged, NameTaken, PasswordIncorrect and what a call raises.
    """
    if index is not None and not 0 <= index < limits.CLUSTERS_PER_CLIENT:
        raise ArgumentInvalid(f"index {index}; from 0 to {limits.CLUSTERS_PER_CLIENT - 1}")
    greeting = hello(address, timeout)
    statement = greeting.statement
    with configuration.locked():
        known = configuration.registrations()
        for one in known:
            if one.cluster == statement.cluster:
                return _change_member(configuration, one, greeting, timeout)
        greeting.check(wanted, confirm, cluster)
        if index is None:
            index = configuration.free_index()
        elif any(one.index == index for one in known):
            raise NameTaken(f"index {index:02} is taken")
        if any(one.label == statement.label for one in known):
            raise NameTaken(f"another cluster with label {statement.label!r} is registered already")

        keys, sign_key = curve.KeyPair.generate(), Ed25519PrivateKey.generate()
        message = Register(
            administrator=Credential(role=Role.USER, name=administrator, password=password()),
            name=name,
            curve_key=keys.raw_public,
            sign_key=sign_key.public_key().public_bytes_raw(),
            monitor=monitor,
        )
        link = Link(address, curve.to_z85(statement.member_key), keys)
        with Connection(link, greeting.identity, statement.cluster, client_key=sign_key) as connection:
            reply, _ = connection.call_with_credential(REGISTER, message, timeout)

        mark = os.urandom(4).hex()  # a leftover of an earlier attempt is never reused
        registration = Registration(
            index=index,
            cluster=statement.cluster,
            label=statement.label,
            member=address,
            member_key=statement.member_key,
            identity=greeting.identity,
            name=name,
            client=reply.client,
            client_key=_in(configuration, f"{index:02}-{mark}.curve"),
            sign_key=_in(configuration, f"{index:02}-{mark}.sign"),
            user=monitor,
        )
        keys.save(registration.client_key)
        configuration.write_sign_key(registration.sign_key, sign_key)
        registration = _with_alternates(registration, timeout)
        configuration.save(registration)
    configuration.save_epoch(registration, statement.epoch)
    return registration


def _with_alternates(registration: Registration, timeout: float) -> Registration:
    """With the other members as the cluster tells them now; as it is, if it tells none."""
    link = Link(registration.member, curve.to_z85(registration.member_key), registration.load_curve())
    connection = Connection(
        link,
        registration.identity,
        registration.cluster,
        client=registration.client,
        client_key=registration.load_sign_key(),
        alternates=registration.alternates,
    )
    with connection, contextlib.suppress(LnhError):
        secret, logged_in = login(connection, timeout=timeout)
        Session(connection, secret, logged_in, timeout=timeout).credentials()  # asks
        return replace(registration, alternates=connection.alternates)
    return registration


def _in(configuration: Configuration, name: str) -> Path:
    return configuration.directory / name


def _change_member(configuration: Configuration, one: Registration, greeting: Greeting, timeout: float) -> Registration:
    greeting.check_pinned(one)
    changed = replace(one, member=greeting.address, member_key=greeting.statement.member_key)
    changed = _with_alternates(changed, timeout)
    configuration.save(changed, replace=True)
    return changed
