# Made of client/lnh/net/connection.py by `python tests/surface.py`: change that file, and run it.
"""A client's connection to its cluster, for any number of tasks of one event loop.

A `Connection` lends shares of its channel (`lnh.net.channel`: one socket and the requests on it) to the tasks that
call (`pool.py`, which says what becomes of a share whose user is cancelled). It has the cluster's statement, to
which credentials are sealed, and learns who the members are.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, TypeVar

import zmq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typing_extensions import Self

from lnh.aio.net.mutex import Mutex
from lnh.aio.net.pool import Pool, Share
from lnh.net.channel import Routes
from lnh.net.failover import Endpoint, Endpoints, State, Told
from lnh.net.request import Credentials
from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.bus.process import OwnProcess
from lnh_common.errors import (
    AnswerUnproven,
    ChannelInvalid,
    ClientRevoked,
    ClientUnknown,
    ClusterIdentityChanged,
    LnhError,
)
from lnh_common.messages import session as messages
from lnh_common.messages.base import Behind, Empty, Message, Operation, Skipped
from lnh_common.messages.session import ENDPOINTS, HELLO, LOGIN, Login, Welcome
from lnh_common.wire import codec
from lnh_common.wire.channel import SECRET_BYTES, SessionKeys, Statement, fingerprint

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

_LEARN: Final = 30.0  # seconds between two questions who the members are, while the registered one answers, and ...
_LEARN_AWAY: Final = 3.0  # ... while another is in use
_LEARN_WITHIN: Final = 0.5
_STATEMENT_FRESH: Final = 30.0  # seconds; a credential is sealed to a key that was current just now

_EPOCH_PATIENCE: Final = 5.0  # seconds in which a member hears of an epoch that was seen elsewhere
_EPOCH_PAUSE: Final = 0.1
_OLDER: Final = "older_epoch"

_NOT_A_CLIENT: Final = frozenset({ClientRevoked.code, ClientUnknown.code})

_monotonic = time.monotonic


@dataclass(frozen=True)
class Link:
    """The address of a member's client port, and the CURVE keys for it.

    Args:
        address: host:port.
        server_key: the member's Z85 public key.
        keys: ours.
    """

    address: str
    server_key: bytes
    keys: curve.KeyPair


class Connection:
    """One client's connection to a cluster; any task of the loop that first uses it may, at the same time as others.

    Args:
        link: the registered member, its first point of contact.
        identity: the pinned cluster identity, 32 bytes.
        cluster: the 16-byte cluster id.
        client, client_key: the registered client's id and Ed25519 key; neither for a guest.
        epoch: the highest channel epoch seen so far.
        on_epoch: is told when a higher one is seen.
        alternates: other members, for when the registered one does not answer.
        failover: whether others are used, those learned later too.
        on_endpoints: is told the alternates when they are others than before.

    Attributes:
        current: whether every listing is demanded from a member that is in step.
        on_behind: is told of each listing that is not current how far the member may be behind.
        on_skipped: is told what each listing left out, since it does not open at the member.
    """

    def __init__(
        self,
        link: Link,
        identity: bytes,
        cluster: bytes,
        *,
        client: bytes = b"",
        client_key: Ed25519PrivateKey | None = None,
        epoch: int = 0,
        on_epoch: Callable[[int], None] | None = None,
        alternates: Sequence[Endpoint] = (),
        failover: bool = True,
        on_endpoints: Callable[[tuple[Endpoint, ...]], None] | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.link: Final = link
        self.identity: Final = identity
        self.cluster: Final = cluster
        self.client: Final = client
        self.product = ""
        self.current = False
        self.on_behind: Callable[[Behind], None] | None = None
        self.on_skipped: Callable[[tuple[Skipped, ...]], None] | None = None
        self.failover: Final = failover
        self._client_key: Final = client_key
        first = Endpoint(link.address, curve.to_raw(link.server_key))
        endpoints = Endpoints(first, alternates if failover else (), client)
        self.owner: Final = OwnProcess("this connection")
        self._routes: Final = Routes(endpoints, link.keys, self.owner, context)
        self._pool: Final = Pool(self._routes, self.owner)
        self._on_endpoints: Final = on_endpoints
        self._learned_at = float("-inf") if failover and client else float("inf")
        self._epoch = epoch
        self._on_epoch: Final = on_epoch
        self._statement: Statement | None = None
        self._statement_until = 0.0
        self._statement_mutex: Final = Mutex()

    def __repr__(self) -> str:
        return f"Connection({self.link.address}, cluster={self.cluster.hex()})"

    async def call(
        self,
        operation: Operation[Any, Any],
        fields: dict[str, Any] | Message,
        timeout: float = limits.DEADLINE,
        *,
        route: bytes = b"",
        token: bytes = b"",
        seal: SessionKeys | Credentials | None = None,
        current: bool = False,
    ) -> dict[str, Any]:
        """Send one operation, and return the fields of its answer within `timeout` seconds.

        Args:
            current: of a listing: demand it from a member that is in step, or raise MemberBehind.

        Raises what the HSM answered; MemberBehind when no member that is in step could be asked; Unreachable, Busy or
        DeadlineExceeded when nothing was done; OutcomeUnknown for a write that may have been done; ConnectionClosed,
        also in a process or an event loop that did not make this connection.
        """
        loan = await self._pool.borrow(timeout)
        try:
            channel = loan.channel
            current = current or self.current
            answer = await channel.wait(
                channel.submit(operation, fields, timeout, route=route, token=token, seal=seal, current=current)
            )
        except AnswerUnproven as error:
            heard = error
        else:
            if self.on_behind is not None and answer.get("behind") is not None:
                self.on_behind(codec.convert(answer["behind"], Behind))
            if self.on_skipped is not None and answer.get("skipped"):
                self.on_skipped(tuple(codec.convert(each, Skipped) for each in answer["skipped"]))
            return answer
        finally:
            self._pool.give_back(loan)
        if operation is not LOGIN and self.client and heard.detail.get("heard") in _NOT_A_CLIENT:
            # The balancer says so, or an impostor in its place. The HSM answers a login under its seal.
            await self.call_with_credential(LOGIN, Login(), timeout)
        raise heard

    @asynccontextmanager
    async def channel(self, timeout: float = limits.DEADLINE) -> AsyncIterator[Share]:
        """Lend a share of the channel to the caller alone, to keep many requests in flight from one task."""
        loan = await self._pool.borrow(timeout)
        try:
            yield loan.channel
        finally:
            self._pool.give_back(loan)

    async def statement(self, timeout: float = limits.DEADLINE) -> Statement:
        """Return the channel key to seal credentials to, as the pinned identity signed it just now.

        A member that serves nobody, or offers an older key than was seen before, is left for another if there is one.
        Else it is waited for: it may not have heard yet of an epoch that began, as one does when a member is removed.

        Raises ClusterIdentityChanged, or ChannelInvalid when it is not signed or older than one seen before;
        NotActivated, NoCluster or MemberExpelled when every member serves nobody.
        """
        end = _monotonic() + timeout
        patience = _monotonic() + min(timeout, _EPOCH_PATIENCE)
        self.owner.check()
        async with self._statement_mutex.hold():
            if self._statement is not None and _monotonic() < self._statement_until:
                return self._statement
            while True:
                turn = self._routes.turn
                try:
                    welcome = codec.convert(await self.call(HELLO, Empty(), max(end - _monotonic(), 0.001)), Welcome)
                    statement = check_welcome(welcome, self.identity, self.cluster, self._epoch)
                    break
                except ChannelInvalid as error:
                    if self._routes.turn != turn or self._leave(turn):
                        continue
                    # Nothing was asked of it yet, and a member that lacks the newest epoch hears of it in a moment.
                    if _OLDER not in error.detail or _monotonic() + _EPOCH_PAUSE >= patience:
                        raise
                    await asyncio.sleep(_EPOCH_PAUSE)
            if statement.epoch > self._epoch:
                self._epoch = statement.epoch
                if self._on_epoch is not None:
                    self._on_epoch(statement.epoch)
            self._statement, self._statement_until = statement, _monotonic() + _STATEMENT_FRESH
            self.product = welcome.product
            return statement

    async def call_with_credential(
        self, operation: Operation[Q, R], message: Q, timeout: float = limits.DEADLINE, *, route: bytes = b""
    ) -> tuple[R, bytes]:
        """Send one operation that uses a credential; returns its reply, and the secret S that it established.

        Raises as `call` does.
        """
        secret = os.urandom(SECRET_BYTES)
        seal = Credentials(await self.statement(timeout), secret, self.client, self._client_key)
        fields = await self.call(operation, message, timeout, route=route, seal=seal)
        return codec.convert(fields, operation.reply), secret

    @property
    def alternates(self) -> tuple[Endpoint, ...]:
        """The other members, which are used when the registered one does not answer."""
        with self._routes.locked() as endpoints:
            return endpoints.alternates

    @property
    def endpoint(self) -> Endpoint:
        """The member in use."""
        with self._routes.locked() as endpoints:
            return endpoints.current

    async def learn(self, route: bytes, token: bytes, seal: SessionKeys) -> None:
        """Ask the cluster for its members, if it is time to, under any session of a registered client; never raises."""
        now = _monotonic()
        with self._routes.locked() as endpoints:
            if now - self._learned_at < (_LEARN_AWAY if endpoints.is_away else _LEARN):
                return
            self._learned_at = now  # so that no other task does it
        try:
            loan = await self._pool.borrow(0)
        except LnhError:
            return
        try:
            request = loan.channel.submit(ENDPOINTS, Empty(), _LEARN_WITHIN, route=route, token=token, seal=seal)
            answer = codec.convert(await loan.channel.wait(request), messages.Endpoints)
        except LnhError:
            return  # one that does not know the operation, or none at all: what was known stays
        finally:
            self._pool.give_back(loan)
        told = [Told(Endpoint(each.address, each.key, each.group), State.of(each.state)) for each in answer.endpoints]
        with self._routes.locked() as endpoints:
            changed = endpoints.learned(_monotonic(), told)
            alternates = endpoints.alternates
        if changed and self._on_endpoints is not None:
            self._on_endpoints(alternates)

    def _leave(self, turn: int) -> bool:
        """Use another endpoint than the one that was in use as of `turn`; tell whether there is one."""
        with self._routes.locked() as endpoints:
            if endpoints.turn == turn:
                endpoints.lost(_monotonic(), endpoints.current)
            return endpoints.turn != turn

    async def close(self) -> None:
        """Take no more calls, and close the channel once those under way have ended."""
        await self._pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def check_welcome(welcome: Welcome, identity: bytes, cluster: bytes, epoch: int = 0) -> Statement:
    """Check the answer to hello against the pinned identity and the highest channel epoch seen; returns its statement.

    Raises ClusterIdentityChanged, or ChannelInvalid for a signature that is not the identity's, or an older epoch.
    """
    if welcome.identity != identity:
        raise ClusterIdentityChanged(
            f"the cluster's identity is {fingerprint(welcome.identity)}; registered was {fingerprint(identity)}"
        )
    statement = Statement.verify(welcome.statement, welcome.signature, identity)
    if statement.cluster != cluster:
        raise ClusterIdentityChanged(f"cluster {statement.cluster.hex()} answers; registered was {cluster.hex()}")
    if statement.epoch < epoch:
        raise ChannelInvalid(
            f"channel epoch {statement.epoch}; this client has seen {epoch}", {_OLDER: statement.epoch}
        )
    return statement
