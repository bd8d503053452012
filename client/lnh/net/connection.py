"""A client's connection to its cluster: sockets, and the threads that use them.

A `Channel` is one DEALER socket and the requests on it. One thread uses it at a time and does its own waiting, so a
call costs no hand-over to an I/O thread. A `Connection` lends its channels, newest first, to any number of threads
(`pool.py`, which says what becomes of a channel whose user is interrupted). `requests.py` decides about retries and
deadlines, `failover.py` about the members that requests go to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, TypeVar

import zmq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typing_extensions import Self

from lnh.net.failover import Endpoint, Endpoints, State, Told, Verdict
from lnh.net.link import RECEIVE_SECONDS, Line, is_welcome
from lnh.net.mutex import Mutex
from lnh.net.pool import Pool
from lnh.net.requests import Credentials, Request, Requests
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
    MalformedMessage,
    Unreachable,
)
from lnh_common.messages import session as messages
from lnh_common.messages.base import Behind, Empty, Message, Operation, Skipped
from lnh_common.messages.session import ENDPOINTS, HELLO, LOGIN, Login, Welcome
from lnh_common.wire import bundles, codec
from lnh_common.wire.bundles import Bundle, Entry
from lnh_common.wire.channel import SECRET_BYTES, SessionKeys, Statement, fingerprint

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

CHANNELS: Final = 64  # of one connection: so many threads can wait for answers at once
_QUIET: Final = 0.05  # seconds without a request after which it is looked at whether the member is still there
_LEARN: Final = 30.0  # seconds between two questions who the members are, while the registered one answers, and ...
_LEARN_AWAY: Final = 3.0  # ... while another is in use
_LEARN_WITHIN: Final = 0.5
_SEEK: Final = 0.2  # seconds between two looks whether to go back to the registered member
_TRIAL: Final = 2.0  # seconds that the registered member has to answer when it is tried
_STATEMENT_FRESH: Final = 30.0  # seconds; a credential is sealed to a key that was current just now

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


class Routes:
    """The endpoints of a connection, for its channels in any thread; and the keys that a socket needs.

    `turn` and `is_away` may be read without the lock: the first says that another endpoint is in use by now, the second
    that it is not the registered member.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        keys: curve.KeyPair,
        owner: OwnProcess,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.keys: Final = keys
        self.context: Final = context
        self._owner: Final = owner
        self.turn = 0
        self.is_away = False
        self._endpoints: Final = endpoints
        self._mutex: Final = Mutex()

    @contextmanager
    def locked(self) -> Iterator[Endpoints]:
        """Give the endpoints to one thread at a time, for no longer than it takes to ask them something."""
        self._owner.check()
        with self._mutex.hold():
            try:
                yield self._endpoints
            finally:
                self.turn, self.is_away = self._endpoints.turn, self._endpoints.is_away


class Channel:
    """The requests of one user of a connection, and its socket to the endpoint in use. One thread at a time.

    When another endpoint comes into use, what was under way goes there as it is; an answer that still comes from the
    endpoint before counts, if it is the first. A request under way on an endpoint that is merely left, not lost, stays
    where it is.
    """

    def __init__(self, routes: Routes) -> None:
        self.requests: Final = Requests(endpoint=self._told_of_endpoint, members=self._told_of_members)
        self._routes: Final = routes
        self._in_a_call = False  # an exception that is not the product's leaves it so
        self._before: Line | None = None  # the line to the endpoint before, while answers may come from it ...
        self._before_newest = 0  # ... to requests up to this
        self._before_address = ""
        self._heard_at = ""  # the address of the endpoint that is listened to now
        self._trial: Line | None = None  # a line to the registered member, while it is tried
        self._trial_ends = self._seek_at = 0.0
        self._aside = False  # whether there is either
        self._unsent = False
        self._submitted = 0.0
        self._receive_ms = 0
        self._open(_monotonic())

    @property
    def is_at_rest(self) -> bool:
        """Tell whether no call is under way, and none was left in its midst."""
        return not self._in_a_call and not len(self.requests)

    def submit(
        self,
        operation: Operation[Any, Any],
        fields: dict[str, Any] | Message,
        timeout: float,
        *,
        route: bytes = b"",
        token: bytes = b"",
        seal: SessionKeys | Credentials | None = None,
        current: bool = False,
    ) -> Request:
        """Make a request, which the next `step` sends, with whatever else is due by then."""
        now = _monotonic()
        self._in_a_call = True
        try:
            request = self.requests.submit(
                now, time.time(), operation, fields, timeout, route=route, token=token, seal=seal, current=current
            )
        except LnhError:
            self._in_a_call = False  # it was refused, and nothing of it kept
            raise
        if now - self._submitted > _QUIET:
            if len(self.requests) == 1:
                self._vigil.asked(now)
            self._watch()
        self._submitted = now
        self._in_a_call = False
        return request

    def wait(self, request: Request) -> dict[str, Any]:
        """Wait for the answer's fields; raises the error that the request ended with."""
        while not request.done:
            self.step(RECEIVE_SECONDS)
        return request.result()

    def abandon(self, requests: Iterable[Request]) -> None:
        """Forget requests whose answers nobody waits for any more."""
        if not self._in_a_call:  # else the channel is given up whole
            for request in requests:
                self.requests.abandon(request)

    def step(self, timeout: float) -> list[Request]:
        """Send what is due, wait up to `timeout` seconds for a message, and take in all there are.

        Returns the requests that ended.
        """
        self._in_a_call = True
        ended = self._step(timeout)
        self._in_a_call = False
        return ended

    def _step(self, timeout: float) -> list[Request]:
        requests = self.requests
        now = _monotonic()
        if self._turn != self._routes.turn:
            self._follow(now)
        ended: list[Request] = []
        if now >= requests.earliest:
            ended, due = requests.turn(now)
            self._unsent = not self._send(now, due)
            if ended:
                return ended
        if self._routes.is_away:
            self._seek(now)
        wait = min(timeout, requests.earliest - now)
        if self._unsent:
            # Until the member is there and takes more, what is due stays due.
            if not self._poll(max(int(min(timeout, RECEIVE_SECONDS) * 1000), 1)):
                self._watch()
                return ended
            wait = 0.001
        milliseconds = max(int(min(wait, RECEIVE_SECONDS) * 1000), 1)
        if milliseconds != self._receive_ms:
            self._socket.rcvtimeo = self._receive_ms = milliseconds
        flags = zmq.NOBLOCK if timeout <= 0 else 0
        answers: list[Entry] = []
        late = 0
        if self._aside:
            answers = self._receive_aside(milliseconds if timeout > 0 else 0)
            late = len(answers)
            flags = zmq.NOBLOCK
        # All there are, then all are opened: either is quicker while the processor's caches are its own.
        try:
            while len(answers) < requests.messages:
                answers += self._receive(flags)
                flags = zmq.NOBLOCK
        except zmq.Again:
            if not answers:
                if timeout > 0:
                    self._watch()
                return ended
        now = _monotonic()
        if late:
            self._heard_at = self._before_address
            for answer in answers[:late]:
                ended += requests.receive(now, [answer.header, answer.token, answer.body])
            del answers[:late]
            self._heard_at = self._line.endpoint.address
            requests.behind.clear()  # it was not said by the endpoint in use
            requests.refused = None
        if answers:
            vigil = self._vigil
            vigil.heard, vigil.probed = now, 0.0
        for answer in answers:
            ended += requests.receive(now, [answer.header, answer.token, answer.body])
        if requests.refused is not None:
            self._refused(now)
        if requests.behind:
            ended += self._fell_behind(now)
        return ended

    # --- the endpoint

    def _told_of_endpoint(self) -> str:
        """Describe the endpoint in use and its connection, for an error."""
        return f"{self._line.endpoint.address}, {self._line.described()}"

    def _told_of_members(self) -> list[str]:
        """Return the addresses of the members that are known; the one that is listened to comes first."""
        with self._routes.locked() as endpoints:
            known = [endpoint.address for endpoint in endpoints.members]
        return [self._heard_at, *(each for each in known if each != self._heard_at)]

    def _open(self, now: float) -> None:
        """Open a line to the endpoint in use."""
        with self._routes.locked() as endpoints:
            endpoint, self._turn = endpoints.current, endpoints.turn
        self._line = Line(endpoint, self._routes.keys, self._routes.context, now, self._changed)
        self._heard_at = endpoint.address
        self._dealer, self._socket, self._vigil = self._line.dealer, self._line.socket, self._line.vigil
        self._receive_ms = int(RECEIVE_SECONDS * 1000)

    def _watch(self) -> None:
        """See whether the endpoint is gone; called only when nothing comes, so it costs nothing when all is well."""
        problem = self._line.watch()
        if problem:
            self.requests.unreachable(Unreachable(f"{self._line.endpoint.address}: {problem}"))
        now = _monotonic()
        waiting = len(self.requests) > 0
        with self._routes.locked() as endpoints:
            patience, is_only = endpoints.patience(now), endpoints.is_only
        if is_only or not waiting:
            return
        verdict = self._vigil.judge(now, patience, waiting=waiting)
        if verdict is Verdict.DOUBTED:
            self._line.probe(now)
        elif verdict is Verdict.GONE:
            self._leave(now, problem or "it does not answer")

    def _leave(self, now: float, why: str) -> None:
        """Leave an endpoint that is no good for the next one, if there is one."""
        endpoint = self._line.endpoint
        with self._routes.locked() as endpoints:
            if endpoints.turn == self._turn:
                endpoints.lost(now, endpoint)
        self.requests.unreachable(Unreachable(f"{endpoint.address}: {why}"))
        self._vigil.waits(now)
        self._follow(now)

    def _refused(self, now: float) -> None:
        """Take in that the member answered that it can serve nobody."""
        why, self.requests.refused = self.requests.refused, None
        with self._routes.locked() as endpoints:
            is_only = endpoints.is_only
        if not is_only:
            self._leave(now, str(why))

    def _fell_behind(self, now: float) -> list[Request]:
        """Ask another member, if there is one, because this one is not in step; returns the requests that this ends."""
        with self._routes.locked() as endpoints:
            is_only = endpoints.is_only
            if not is_only and endpoints.turn == self._turn:
                endpoints.behind(now, self._line.endpoint)
        if is_only:
            return self.requests.accept_behind()
        self.requests.behind.clear()
        self._follow(now)
        return []

    def _follow(self, now: float) -> None:
        """Go over to the endpoint in use, if it changed."""
        with self._routes.locked() as endpoints:
            self._turn = endpoints.turn
            same, lost = endpoints.current.key == self._line.endpoint.key, endpoints.is_lost(self._line.endpoint)
        if same:
            return
        if self._before is not None:
            self._before.close()
            lost = True  # what waited for it goes along
        self._before, before = None, self._line
        self._open(now)
        if before.dealer.connected and len(self.requests):
            self._before, self._before_newest = before, self.requests.newest
            self._before_address = before.endpoint.address
        else:
            before.close()
        if lost or self._before is None:
            self.requests.move(now)
        self._end_trial()

    def _seek(self, now: float) -> None:
        """Begin to go back to the registered member, when it is time."""
        if now < self._seek_at:
            return
        self._seek_at = now + _SEEK
        with self._routes.locked() as endpoints:
            endpoint = endpoints.seek(now)
        if endpoint is not None:
            self._end_trial()
            self._trial = Line(endpoint, self._routes.keys, self._routes.context, now, _greet)
            self._trial_ends = now + _TRIAL
            self._aside = True

    def _end_trial(self) -> None:
        if self._trial is not None:
            self._trial.close()
        self._trial = None
        self._aside = self._before is not None

    def _end_before(self) -> None:
        if self._before is not None:
            self._before.close()
        self._before = None
        self._aside = self._trial is not None

    def _changed(self, line: Line, up: bool) -> None:
        now = _monotonic()
        if up:
            line.vigil.up(now)
        else:
            line.vigil.down(now)
            self.requests.resend(now)

    # --- the sockets

    def _receive_aside(self, milliseconds: int) -> list[Entry]:
        """Wait for any of the sockets, see to a trial, and return what came from the endpoint before."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        for line in (self._before, self._trial):
            if line is not None:
                poller.register(line.socket, zmq.POLLIN)
                poller.register(line.dealer.monitor, zmq.POLLIN)
        poller.poll(milliseconds)
        answers: list[Entry] = []
        if self._before is not None:
            answers = self._before.receive()
            self._before.watch()
            if not self._before.dealer.connected or not self.requests.has_any_up_to(self._before_newest):
                self._end_before()
        if self._trial is not None:
            self._try(self._trial, _monotonic())
        return answers

    def _try(self, trial: Line, now: float) -> None:
        """See whether the registered member answers; then all channels go back to it."""
        problem = trial.watch()
        if trial.dealer.connected and any(is_welcome(answer) for answer in trial.receive()):
            with self._routes.locked() as endpoints:
                endpoints.found(now, trial.endpoint)
            self._end_trial()
        elif problem or now >= self._trial_ends:
            self._end_trial()

    def _poll(self, milliseconds: int) -> bool:
        """Wait until something can be received or sent, or happens to the connection; tell whether it is the first."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN | zmq.POLLOUT if self._dealer.connected else zmq.POLLIN)
        poller.register(self._dealer.monitor, zmq.POLLIN)
        if self._before is not None:
            poller.register(self._before.socket, zmq.POLLIN)
        ready = dict(poller.poll(milliseconds))
        return any(ready.get(line.socket, 0) & zmq.POLLIN for line in (self._line, self._before) if line is not None)

    def _receive(self, flags: int) -> list[Entry]:
        try:
            return bundles.unpack(self._socket.recv_multipart(flags))
        except MalformedMessage:
            return []  # whatever says this is no member; what it should have answered is asked again

    def _send(self, now: float, due: list[Request]) -> bool:
        """Hand over the requests that are due, in bundles; tell whether all were taken."""
        bundle, within = Bundle(), []
        for request in due:
            within.append(request)
            if not bundle.add(request.tag, *request.frames) and request is not due[-1]:
                continue
            if not self._dealer.send([bundle.take()]):
                self.requests.unsent(now)
                return False
            for each in within:
                self.requests.sent(now, each)
            within.clear()
        return True

    def close(self) -> None:
        """Close the sockets; a second call changes nothing."""
        self._in_a_call = True
        for line in (self._line, self._before, self._trial):
            if line is not None:
                line.close()


class Connection:
    """One client's connection to a cluster; any thread may use it, at the same time as others.

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
        self._pool: Final = Pool(lambda: Channel(self._routes), CHANNELS, self.owner)
        self._on_endpoints: Final = on_endpoints
        self._learned_at = float("-inf") if failover and client else float("inf")
        self._epoch = epoch
        self._on_epoch: Final = on_epoch
        self._statement: Statement | None = None
        self._statement_until = 0.0
        self._statement_mutex: Final = Mutex()

    def __repr__(self) -> str:
        return f"Connection({self.link.address}, cluster={self.cluster.hex()})"

    def call(
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
        also in a process that did not make this connection.
        """
        loan = self._pool.borrow(timeout)
        try:
            channel = loan.channel
            current = current or self.current
            answer = channel.wait(
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
            self.call_with_credential(LOGIN, Login(), timeout)
        raise heard

    @contextmanager
    def channel(self, timeout: float = limits.DEADLINE) -> Iterator[Channel]:
        """Lend a channel to the caller alone, to keep many requests in flight from one thread."""
        loan = self._pool.borrow(timeout)
        try:
            yield loan.channel
        finally:
            self._pool.give_back(loan)

    def statement(self, timeout: float = limits.DEADLINE) -> Statement:
        """Return the channel key to seal credentials to, as the pinned identity signed it just now.

        A member that serves nobody, or offers an older key than was seen before, is left for another if there is one.

        Raises ClusterIdentityChanged, or ChannelInvalid when it is not signed or older than one seen before;
        NotActivated, NoCluster or MemberExpelled when every member serves nobody.
        """
        end = _monotonic() + timeout
        self.owner.check()
        with self._statement_mutex.hold():
            if self._statement is not None and _monotonic() < self._statement_until:
                return self._statement
            while True:
                turn = self._routes.turn
                try:
                    welcome = codec.convert(self.call(HELLO, Empty(), max(end - _monotonic(), 0.001)), Welcome)
                    statement = check_welcome(welcome, self.identity, self.cluster, self._epoch)
                    break
                except ChannelInvalid:
                    if self._routes.turn == turn and not self._leave(turn):
                        raise
            if statement.epoch > self._epoch:
                self._epoch = statement.epoch
                if self._on_epoch is not None:
                    self._on_epoch(statement.epoch)
            self._statement, self._statement_until = statement, _monotonic() + _STATEMENT_FRESH
            self.product = welcome.product
            return statement

    def call_with_credential(
        self, operation: Operation[Q, R], message: Q, timeout: float = limits.DEADLINE, *, route: bytes = b""
    ) -> tuple[R, bytes]:
        """Send one operation that uses a credential; returns its reply, and the secret S that it established.

        Raises as `call` does.
        """
        secret = os.urandom(SECRET_BYTES)
        seal = Credentials(self.statement(timeout), secret, self.client, self._client_key)
        fields = self.call(operation, message, timeout, route=route, seal=seal)
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

    def learn(self, route: bytes, token: bytes, seal: SessionKeys) -> None:
        """Ask the cluster for its members, if it is time to, under any session of a registered client; never raises."""
        now = _monotonic()
        with self._routes.locked() as endpoints:
            if now - self._learned_at < (_LEARN_AWAY if endpoints.is_away else _LEARN):
                return
            self._learned_at = now  # so that no other thread does it
        try:
            loan = self._pool.borrow(0)
        except LnhError:
            return
        try:
            request = loan.channel.submit(ENDPOINTS, Empty(), _LEARN_WITHIN, route=route, token=token, seal=seal)
            answer = codec.convert(loan.channel.wait(request), messages.Endpoints)
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

    def close(self) -> None:
        """Close every channel that is not in use now, and each of the others when it is given back."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _greet(line: Line, up: bool) -> None:
    if up:
        line.greet()


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
        raise ChannelInvalid(f"channel epoch {statement.epoch}; this client has seen {epoch}")
    return statement
