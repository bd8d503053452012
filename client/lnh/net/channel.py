"""One socket of a connection and the requests on it. One thread at a time uses a channel.

That thread does its own waiting, so a call costs no hand-over to an I/O thread. `requests.py` decides about retries and
deadlines, `failover.py` about the members that requests go to; `link.py` is the socket.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import zmq

from lnh.net.failover import Endpoints, Verdict
from lnh.net.link import RECEIVE_SECONDS, Line, is_welcome
from lnh.net.mutex import Mutex
from lnh.net.request import Credentials, Request
from lnh.net.requests import Requests
from lnh_common.bus import curve
from lnh_common.bus.process import OwnProcess
from lnh_common.errors import (
    LnhError,
    MalformedMessage,
    Unreachable,
)
from lnh_common.messages.base import Message, Operation
from lnh_common.wire.bundles import Bundle, Entry
from lnh_common.wire.channel import SessionKeys

_QUIET: Final = 0.05  # seconds without a request after which it is looked at whether the member is still there
_SEEK: Final = 0.2  # seconds between two looks whether to go back to the registered member
_TRIAL: Final = 2.0  # seconds that the registered member has to answer when it is tried

_monotonic = time.monotonic


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

    # --- for a caller that waits by itself, and takes a step of 0 seconds when there is something to do

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines whose sockets and monitors tell that there is something to do."""
        return tuple(line for line in (self._line, self._before, self._trial) if line is not None)

    @property
    def due_in(self) -> float:
        """Return the seconds until there is something to do, though no line tells it, while requests are under way."""
        if self._unsent:  # its line tells when the member takes more
            return RECEIVE_SECONDS
        return min(max(self.requests.earliest - _monotonic(), 0.0), RECEIVE_SECONDS)

    def heed(self) -> bool:
        """Take in what the lines tell; tell whether answers are left, which they tell but once."""
        left = [line.heed() for line in self.lines if line is not self._trial]
        if self._trial is not None:
            self._trial.heed()  # what is left of it waits for the next step
        return self.requests.messages > 0 and any(left)

    def watch(self) -> None:
        """Take in what happened to the line in use, and see whether its member is gone: steps of 0 seconds do not."""
        self._in_a_call = True
        self._watch()
        self._in_a_call = False

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
            if not self._poll(max(int(min(timeout, RECEIVE_SECONDS) * 1000), 1) if timeout > 0 else 0):
                if timeout > 0:
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
        if not waiting or (is_only and self._line.takes_bundles is not None):
            return
        verdict = self._vigil.judge(now, patience, waiting=waiting)
        if verdict is Verdict.DOUBTED:
            self._line.probe(now)
        elif verdict is Verdict.GONE and not is_only:
            self._leave(now, problem or "it does not answer")
        else:
            self._line.doubt_bundles(now)

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
            line.down(now)
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
            found = self._line.take(flags)
        except MalformedMessage:
            return []  # whatever says this is no member; what it should have answered is asked again
        apart = self._line.takes_bundles is False
        if apart is not self.requests.apart:
            self.requests.set_apart(_monotonic(), apart=apart)
        return found

    def _send(self, now: float, due: list[Request]) -> bool:
        """Hand over the requests that are due, in bundles where the member takes them; tell whether all were taken."""
        if self._line.takes_bundles is False:
            return self._send_each(now, due)
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

    def _send_each(self, now: float, due: list[Request]) -> bool:
        for request in due:
            if not self._dealer.send(request.frames):
                self.requests.unsent(now)
                return False
            self.requests.sent(now, request)
        return True

    def close(self) -> None:
        """Close the sockets; a second call changes nothing."""
        self._in_a_call = True
        for line in (self._line, self._before, self._trial):
            if line is not None:
                line.close()


def _greet(line: Line, up: bool) -> None:
    if up:
        line.greet()
