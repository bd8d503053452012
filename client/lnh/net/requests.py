"""The requests of one connection: decides what is sent, awaited, repeated and given up. Pure: no socket, no clock.

A request is sealed once, and from then on its bytes never change: every repeat sends the same, so the worker that
serves it can tell that it is the same. From there it moves

    submitted -> sent -> answered
                  |  ^
         a hint, or silence: due again

- A sealed answer (REPLY) that opens is the truth and ends the request, but for Busy: that try did nothing, so it
  is tried again. A REPLY that does not open could have been made by anyone, so it is a hint.
- An unsealed answer (ERROR) is a hint too, and never the truth. Those of `RETRY_HINTS` say "try again". TokenUnknown
  and all others are tried again for `HINT_PATIENCE`; then a READ fails with TokenUnknown (which a new login cures, and
  proves nothing) or with AnswerUnproven, which tells what was heard. Only `hello` has no seal, and believes.
  A hint that a member serves nobody (`UNSERVED`) ends nothing before every member that is known has given one.
- Silence makes a request due again, after longer and longer waits: a message dies with the TCP
  connection it was on, and nobody tells.
- At its deadline, or at a hint that says trying again is no use, a READ fails with what was heard
  last. A WRITE that was sent may have been carried out whatever an unsealed word says: it fails with
  OutcomeUnknown. A WRITE that never left fails with Unreachable, and did nothing. One of which every try was answered
  with a sealed Busy or MemberBehind did nothing either, and fails with what was heard last.
- The deadline that is sent is a little sooner than ours (`limits.SOONER`): a worker that had no answer from its
  store, or a balancer that had none from its worker, says so before we give up, and that word is what we tell. Where
  even that did not come, the error says how often it was sent, where, and when anything was last heard from there.
- MemberReadOnly and DeadlineExceeded, even sealed, prove only that *this* try changed nothing; after an earlier try
  that no sealed Busy accounts for they leave the outcome open, as a sealed OutcomeUnknown does: the same request is
  sent again until the answer is known.
- Of a write that was sent more than once, a refusal that rests on what is stored, or that says that the session is
  over, is certain only where it says that it is final, of every try: else an earlier one may have acted
  (OutcomeUnknown).
- SmkRolled, sealed, says that no try of this request acted or ever will, since the SMK was rolled over meanwhile: what
  was asked is made a new request, with a name of its own, until the deadline.
- MemberBehind, the answer of a member that found its store damaged, and a listing that is not current where a current
  one is demanded, are sealed, and say that other members know better: `behind` collects the requests that were told so,
  and each is tried again. Where there is no other member it is the answer, unless the member has been behind for a
  moment only (`BEHIND_PATIENCE`).

Uses of keys (`TOGETHER`) are sealed when they are first due, and those due at the same time under one seal: a request
of its own, their *carrier*, which moves as above and gives each its outcome. A seal costs as much as a small signature.
They are at most one in `SPREAD` of all under way, so that other workers have something to do too.

`Requests` is shared by the thread-based and the asyncio connection. Times are seconds of a monotonic clock, given by
the caller; `issued_at` inside the seal is UTC.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeGuard

import msgspec

from lnh.net.request import Asked, Credentials, Request, Unsealed
from lnh.net.unserved import UNSERVED, unproven, unserved
from lnh_common import limits
from lnh_common.errors import (
    Busy,
    ChannelInvalid,
    ClockSkew,
    DeadlineExceeded,
    LnhError,
    MalformedMessage,
    MemberBehind,
    MemberReadOnly,
    OutcomeUnknown,
    SmkRolled,
    TokenExpired,
    TokenUnknown,
    Unreachable,
    UnsupportedVersion,
)
from lnh_common.messages.base import Behind, Effect, Message, Operation, Seal
from lnh_common.messages.objects import TOGETHER, USES, Outcomes
from lnh_common.wire import channel, codec
from lnh_common.wire import frames as wire
from lnh_common.wire.channel import Envelope, SessionKeys
from lnh_common.wire.frames import Header, Kind

SERVES_NOBODY: Final[tuple[type[LnhError], ...]] = (Unreachable, *UNSERVED)  # hints after which another member is asked
RETRY_HINTS: Final = (Busy, Unreachable, UnsupportedVersion, DeadlineExceeded)

_SESSION_OVER: Final = (TokenUnknown, TokenExpired)

BACK_OFF: Final = (0.02, 1.0)  # after a hint: the first wait and the longest, in seconds; jittered by half
HINT_PATIENCE: Final = 1.0  # seconds of unsealed refusals after which a request is given up
# Seconds a member is behind for before nobody waits for it to be in step again. One whose store was started anew, and
# had to wait for the leases of the one before, is in step after some three.
BEHIND_PATIENCE: Final = 4.0
SILENCE: Final = (2.0, 30.0)  # without a word: the first wait and the longest, in seconds
SPREAD: Final = 8  # messages that uses under way are in, or more: cluster and connection have several cores at work
_TOGETHER_BYTES: Final = 64 * limits.KIB  # of one carrier; a use that is larger goes alone
_BYTES: Final = (bytes,)
_ANSWER_NAME: Final = 32  # first bytes of a sealed answer, which no other has


class Requests:
    """The requests of one connection.

    Args:
        generator: jitter for repeats; a seeded one makes a test repeatable.
        endpoint: tells where requests are sent now and how that endpoint is, for an error to say.
        members: tells the addresses of all members that are known; the one that is listened to comes first.

    Attributes:
        earliest: no later than the next moment at which `turn` does something.
        refused: the last hint that the member asked serves nobody, for the owner to take.
        behind: the requests that were told that the member asked is behind, for the owner to take.
        apart: whether each use has a seal of its own, for a member of version 0.1, which knows no carriers.
    """

    def __init__(
        self,
        generator: random.Random | None = None,
        endpoint: Callable[[], str] = lambda: "the member",
        members: Callable[[], Sequence[str]] = lambda: ("the member",),
    ) -> None:
        self._endpoint: Final = endpoint
        self._members: Final = members
        self._heard: float | None = None  # when anything last came
        self.connection = os.urandom(16)
        self._generator = generator or random.Random()  # noqa: S311  (jitter is no secret)
        self._last_id = 0
        self._last_write = 0
        self._pending: dict[int, Request] = {}  # what is sealed
        self._unsealed: list[Request] = []
        self._under_way = 0
        self.earliest = float("inf")
        self.refused: LnhError | None = None
        self.behind: list[Request] = []
        self.apart = False

    def __len__(self) -> int:
        """Count the requests under way, sealed or not."""
        return self._under_way

    @property
    def messages(self) -> int:
        """Count the messages that they travel in: so many answers may come."""
        return len(self._pending)

    @property
    def newest(self) -> int:
        """Return the id of the request that was sealed last; ids grow."""
        return self._last_id

    def has_any_up_to(self, request_id: int) -> bool:
        """Tell whether a request with this id or a lower one is under way."""
        return next(iter(self._pending), request_id + 1) <= request_id

    def submit(
        self,
        now: float,
        issued_at: float,
        operation: Operation[Any, Any],
        fields: dict[str, Any] | Message,
        timeout: float,
        *,
        route: bytes = b"",
        token: bytes = b"",
        seal: SessionKeys | Credentials | None = None,
        current: bool = False,
    ) -> Request:
        """Make a request, which is due at once.

        Args:
            now, issued_at: monotonic and UTC time, in seconds.
            fields: of the operation's request.
            timeout: seconds until it is given up, at most 600.
            route: the 16-byte keyring id it is about, or empty.
            token: of the session whose keys are `seal`, or empty.
            seal: as the operation's row of the table demands.
            current: of a listing: through a member that is in step, or not at all.
        """
        deadline_ms = wire.deadline_ms(timeout)
        is_write = operation.effect is Effect.WRITE
        values: dict[str, Any] = (
            msgspec.to_builtins(fields, builtin_types=_BYTES) if isinstance(fields, Message) else fields
        )
        keys = seal if isinstance(seal, SessionKeys) else None
        request = Request(operation.name, keys, now + timeout, timeout, is_write=is_write)
        request.due = now
        request.wants_current = current
        if keys is not None and operation.name in TOGETHER:
            size = sum(len(value) for value in values.values() if type(value) is bytes)
            unsealed = Unsealed(operation, values, issued_at, deadline_ms, route, token, keys, size)
            if size > _TOGETHER_BYTES:
                self._seal_alone(request, unsealed)
            else:
                request.unsealed = unsealed
                self._unsealed.append(request)
        else:
            asked = Asked(operation, values, issued_at - now, route, token, seal)
            self._name(request, asked, issued_at, deadline_ms)
            if is_write or isinstance(seal, Credentials):
                request.asked = asked
        self.earliest = now
        self._under_way += 1
        return request

    # --- sealing

    def _name(self, request: Request, asked: Asked, issued_at: float, deadline_ms: int) -> None:
        """Seal a request under a new name: of a write, one that acts by itself."""
        sequence = self._last_write + 1 if request.is_write else 0
        envelope = Envelope(int(issued_at * 1000), deadline_ms, self.connection, sequence, asked.fields)
        self._seal(request, asked.operation, envelope, asked.route, asked.token, asked.seal)
        self._last_write = max(self._last_write, sequence)

    def _rename(self, now: float, request: Request, asked: Asked, said: SmkRolled) -> None:
        """Make a request anew of one that never acts, and send it a little later."""
        del self._pending[request.header.request_id]
        request.forget_tries()
        self._name(request, asked, now + asked.utc_ahead, wire.deadline_ms(request.deadline - now))
        self._disturbed(now, request, said)

    def _seal(
        self,
        request: Request,
        operation: Operation[Any, Any],
        envelope: Envelope,
        route: bytes,
        token: bytes,
        seal: SessionKeys | Credentials | None,
    ) -> None:
        """Make the bytes that are sent; raises MalformedMessage for more than a message carries."""
        header = wire.request(operation.name, self._last_id + 1, envelope.deadline_ms, route=route)
        if seal is None:
            assert operation.seal is Seal.NONE, f"{operation.name} is sealed"
            body = codec.encode(envelope.fields)
        elif isinstance(seal, SessionKeys):
            assert operation.seal is Seal.SESSION, f"{operation.name} is not sealed under a session"
            body = channel.seal_request(seal, header, envelope)
        else:
            assert operation.seal is Seal.CREDENTIAL, f"{operation.name} uses no credential"
            body = channel.seal_credential(header, envelope, seal.statement, seal.secret, seal.client, seal.client_key)
            request.keys = SessionKeys.derive(seal.secret, b"")
        if len(body) > limits.BODY_BYTES:
            raise MalformedMessage(f"{operation.name}: {len(body)} bytes; a message carries {limits.BODY_BYTES}")
        self._last_id += 1
        request.sealed(header, token, body)
        self._pending[self._last_id] = request

    def _seal_alone(self, request: Request, use: Unsealed) -> None:
        envelope = Envelope(int(use.issued_at * 1000), use.deadline_ms, self.connection, 0, use.fields)
        request.unsealed = None
        self._seal(request, use.operation, envelope, use.route, use.token, use.keys)

    def _seal_unsealed(self) -> None:
        """Seal the uses that are due, those of a session together."""
        most = 1 if self.apart else min(max(self._under_way // SPREAD, 1), limits.USES_TOGETHER)
        groups: dict[tuple[bytes, bytes, int], list[tuple[Request, Unsealed]]] = {}
        size = 0
        for request in self._unsealed:
            use = request.unsealed
            assert use is not None, "a use keeps what it is sealed from"
            group = groups.setdefault(use.session, [])
            size += use.size
            if len(group) == most or size > _TOGETHER_BYTES:
                self._seal_together(group)
                group.clear()
                size = use.size
            group.append((request, use))
        for group in groups.values():
            self._seal_together(group)
        self._unsealed.clear()

    def _seal_together(self, group: list[tuple[Request, Unsealed]]) -> None:
        if len(group) == 1:
            self._seal_alone(*group[0])
            return
        if not group:
            return
        requests, uses = zip(*group, strict=True)
        _, last = group[-1]
        carrier = Request(
            USES.name, last.keys, min(each.deadline for each in requests), last.deadline_ms / 1000, is_write=False
        )
        carrier.uses = list(requests)
        carrier.left = len(requests)
        carrier.due = requests[0].due
        for request in requests:
            request.carrier = carrier
        envelope = Envelope(
            int(last.issued_at * 1000), max(use.deadline_ms for use in uses), self.connection, 0,
            {"uses": [[use.operation.name, use.fields] for use in uses]},
        )  # fmt: skip
        self._seal(carrier, USES, envelope, last.route, last.token, last.keys)

    def set_apart(self, now: float, *, apart: bool) -> None:
        """Take in whether the member knows no carriers; then what is carried goes alone, and all is sent again."""
        self.apart = apart
        if not apart:
            return
        for carrier in [each for each in self._pending.values() if each.uses]:
            left = [use for use in carrier.uses if use.carrier is carrier]
            for use in left:
                assert use.unsealed is not None, "a use keeps what it is sealed from while it is carried"
                self._seal_alone(use, use.unsealed)
                self._uncarry(use)
        self.resend(now)

    # --- the way there and back

    def sent(self, now: float, request: Request) -> None:
        """Note that the request's frames have left; silence makes it due again."""
        first, longest = SILENCE
        request.due = now + min(first * (1 << min(request.tries, 10)), longest)
        request.tries += 1
        request.last_sent = now
        self.earliest = min(self.earliest, request.due, request.deadline)

    def unsent(self, now: float) -> None:
        """Note that some requests that are due could not leave, and stay due."""
        self.earliest = now

    def receive(self, now: float, frames: list[bytes]) -> list[Request]:
        """Take in one message; returns the requests that it ends.

        A message that does not parse, or answers nothing that is under way (a duplicate, an answer after the deadline),
        is dropped.
        """
        try:
            wire.check_frames(frames)
            header = Header.parse(frames[0])
        except LnhError:
            return []
        self._heard = now
        request = self._pending.get(header.request_id)
        if request is None or header.operation != request.header.operation:
            return []
        try:
            if header.kind is Kind.REPLY:
                return self._replied(now, request, frames[2])
            if header.kind is Kind.ERROR:
                return self._hinted(now, request, wire.parse_error(frames[2]))
        except MalformedMessage as error:
            self._disturbed(now, request, ChannelInvalid(f"an answer that does not parse: {error}"))
        return []

    def _replied(self, now: float, request: Request, body: bytes) -> list[Request]:
        if request.keys is None:
            fields = codec.decode_as(body, dict)
            return self._end(request, fields=fields)
        try:
            answer = channel.open_answer(request.keys, request.header, request.frames[2], body)
        except ChannelInvalid as error:
            self._disturbed(now, request, error)
            return []
        if isinstance(answer, SmkRolled) and request.asked is not None and now < request.deadline:
            self._rename(now, request, request.asked, answer)
            return []
        if _is_put_off(answer):
            # Two answers differ in their first bytes, which are drawn for each; one that comes twice counts once.
            request.undone |= {body[:_ANSWER_NAME]}
            return self._put_off(now, request, answer)
        if request.is_write and _leaves_open(answer, request.open_tries):
            self._disturbed(now, request, answer)
            return []
        if isinstance(answer, LnhError):
            if request.is_write and request.open_tries > 1 and _may_deny(answer):
                request.hint = answer
                answer = _outcome_unknown(now, request, self._story(now, request))
            return self._end(request, error=answer)
        if request.uses:
            return self._carried(now, request, codec.convert(answer, Outcomes).outcomes)
        if request.wants_current and answer.get("behind") is not None:
            return self._put_off(now, request, codec.convert(answer["behind"], Behind).refusal())
        return self._end(request, fields=answer)

    def _carried(self, now: float, carrier: Request, outcomes: Sequence[list[Any]]) -> list[Request]:
        """Give each use its outcome; a use that a member was too busy for goes on alone."""
        if len(outcomes) != len(carrier.uses):
            raise MalformedMessage(f"{len(outcomes)} outcomes of {len(carrier.uses)} uses")
        answers = [channel.outcome(each) for each in outcomes]
        ended: list[Request] = []
        for use, answer in zip(carrier.uses, answers, strict=True):
            if use.carrier is not carrier:
                continue  # given up meanwhile
            if _is_put_off(answer):
                assert use.unsealed is not None, "a use keeps what it is sealed from"
                self._seal_alone(use, use.unsealed)
                self._uncarry(use)
                ended += self._put_off(now, use, answer)
            elif isinstance(answer, LnhError):
                ended += self._end(use, error=answer)
            else:
                ended += self._end(use, fields=answer)
        return ended

    def _hinted(self, now: float, request: Request, hint: LnhError) -> list[Request]:
        if isinstance(hint, SERVES_NOBODY):
            self.refused = hint
        if isinstance(hint, RETRY_HINTS):
            self._disturbed(now, request, hint)
            return []
        others: Sequence[str] = ()
        if isinstance(hint, UNSERVED):
            who, *others = self._members()
            request.said[who] = hint
        is_last = request.said.keys() >= set(others)
        if request.keys is None and is_last:
            request.hint = hint
            return self._give_up(now, request)
        if request.keys is None:
            self._disturbed(now, request, hint)
            return []
        # A member may not have heard of a new channel epoch yet, or the word is forged; it does not stay so for long.
        request.refused_since = request.refused_since or now
        if type(hint) is not TokenUnknown:
            hint = unproven(hint, request.said)
        if is_last and now - request.refused_since > HINT_PATIENCE:
            request.hint = hint
            return self._give_up(now, request)
        self._disturbed(now, request, hint)
        return []

    def _put_off(self, now: float, request: Request, said: LnhError) -> list[Request]:
        """Ask again, since this try did nothing; where the member asked is behind, the owner finds another.

        A time after which to come again is kept; where the deadline is sooner, it is the answer.
        """
        if not isinstance(said, Busy):
            request.behind = said
            self.behind.append(request)
        self._disturbed(now, request, said)
        seconds = said.detail.get("seconds", 0)
        if not isinstance(seconds, int | float) or seconds <= 0:
            return []
        if now + seconds >= request.deadline and request.open_tries <= 0:
            return self._end(request, error=said)
        request.due = max(request.due, min(now + seconds * (1 + self._generator.random() / 2), request.deadline))
        return []

    def accept_behind(self) -> list[Request]:
        """Accept that no other member can be asked; returns the requests that this ends.

        The answer says nothing of an earlier try of a write.
        """
        told, self.behind = self.behind, []
        ended: list[Request] = []
        for request in told:
            assert request.behind is not None, "it was told so"
            behind_ms = request.behind.detail.get("behind_ms", 0)
            lasting = request.behind.of_damage or behind_ms > BEHIND_PATIENCE * 1000
            if not request.done and lasting and not (request.is_write and request.open_tries > 0):
                ended += self._end(request, error=request.behind)
        return ended

    def _disturbed(self, now: float, request: Request, hint: LnhError) -> None:
        """Send a request again, a little later, after a word that proves nothing."""
        request.hint = hint
        first, longest = BACK_OFF
        wait = min(first * (1 << min(request.hints, 10)), longest)
        request.hints += 1
        request.due = now + wait * (0.5 + self._generator.random())
        self.earliest = min(self.earliest, request.due)

    def turn(self, now: float) -> tuple[list[Request], list[Request]]:
        """Let time pass; returns the requests that ended at their deadline, and those to send now.

        Each of those is then to be reported as `sent`, or the rest as `unsent`. Nothing changes before `earliest`.
        """
        if self._unsealed:
            self._seal_unsealed()
        late: list[Request] = []
        due: list[Request] = []
        earliest = float("inf")
        for request in self._pending.values():
            if request.deadline <= now:
                late.append(request)
                continue
            earliest = min(earliest, request.deadline)
            if request.due <= now:
                due.append(request)
            else:
                earliest = min(earliest, request.due)
        self.earliest = earliest
        ended: list[Request] = []
        for request in late:
            ended += self._give_up(now, request) if not request.uses else self._expire(now, request)
        return ended, due

    def resend(self, now: float) -> None:
        """Make everything under way due again, because the endpoint that it went to is gone."""
        for request in self._pending.values():
            request.due = now
        self.earliest = now

    def move(self, now: float) -> None:
        """Make everything under way due on another endpoint; what was heard from the endpoint before counts no more."""
        who, *_ = self._members()
        for request in self._pending.values():
            request.hints = 0
            if who not in request.said:
                request.refused_since = 0.0
        self.resend(now)

    def unreachable(self, why: Unreachable) -> None:
        """Set the reason that requests without an answer end with; a write that was sent still has no known outcome."""
        for request in self._pending.values():
            request.hint = why

    def left_open(self, now: float, request: Request) -> OutcomeUnknown | None:
        """Make the error of a write whose caller stops waiting and that may have been done; None where none was."""
        if not request.is_write or (request.done and request.error is not None):
            return None
        if request.done:
            return OutcomeUnknown(f"{request.operation}: done, and given up before its answer was taken")
        return _outcome_unknown(now, request, self._story(now, request)) if request.open_tries > 0 else None

    def abandon(self, request: Request) -> None:
        """Drop a request that its caller no longer waits for."""
        if not request.done:
            self._end(request)

    def _expire(self, now: float, carrier: Request) -> list[Request]:
        """Give up the uses whose time is over; the others are waited for."""
        ended: list[Request] = []
        for use in carrier.uses:
            if use.carrier is carrier and use.deadline <= now:
                ended += self._give_up(now, use)
        if not carrier.done:
            carrier.deadline = min(use.deadline for use in carrier.uses if use.carrier is carrier)
            self.earliest = min(self.earliest, carrier.deadline, carrier.due)
        return ended

    def _give_up(self, now: float, request: Request) -> list[Request]:
        if request.uses:
            return [ended for use in request.uses if use.carrier is request for ended in self._give_up(now, use)]
        told = request.carrier or request
        if not told.tries:
            never = Unreachable(f"{request.operation}: never sent within {request.seconds:g} s to {self._endpoint()}")
            return self._end(request, error=told.hint or never)
        if request.is_write and request.open_tries > 0:
            return self._end(request, error=_outcome_unknown(now, request, self._story(now, request)))
        if told.hint is not None and told.said:
            told.hint = unserved(told.hint, told.said, is_sealed=told.keys is not None)
        error = told.behind or told.hint
        if error is None:
            waited = f"{request.operation}: no answer within {request.seconds:g} s; {self._story(now, told)}"
            error = DeadlineExceeded(waited, {"tries": told.tries})
        return self._end(request, error=error)

    def _story(self, now: float, request: Request) -> str:
        """Tell what is known of where a request was lost."""
        times = "once" if request.tries == 1 else f"{request.tries} times"
        sent = f"sent {times}, {now - request.last_sent:.1f} s ago the last time, to {self._endpoint()}"
        heard = "never" if self._heard is None else f"{now - self._heard:.1f} s ago"
        return f"{sent}; last heard from there: {heard}"

    def _end(
        self, request: Request, *, fields: dict[str, Any] | None = None, error: LnhError | None = None
    ) -> list[Request]:
        """End a request; a carrier ends once all its uses have."""
        if request.uses:
            assert error is not None, "a carrier has outcomes, or fails"
            # Each has an exception of its own: a traceback belongs to who raised it.
            left = [use for use in request.uses if use.carrier is request]
            return [ended for use in left for ended in self._end(use, error=LnhError.from_wire(error.to_wire()))]
        request.fields = fields
        request.error = error
        request.done = True
        self._under_way -= 1
        if request.carrier is not None:
            self._uncarry(request)
        elif request.unsealed is not None:
            self._unsealed.remove(request)
        else:
            self._pending.pop(request.header.request_id, None)
        return [request]

    def _uncarry(self, use: Request) -> None:
        carrier, use.carrier = use.carrier, None
        assert carrier is not None, "a use that is carried"
        carrier.left -= 1
        if not carrier.left:
            carrier.done = True
            del self._pending[carrier.header.request_id]


def _is_put_off(answer: dict[str, Any] | LnhError) -> TypeGuard[LnhError]:
    """Tell whether a sealed answer says that this try did nothing, and that it is to be tried again, or elsewhere."""
    return isinstance(answer, LnhError) and (answer.of_damage or isinstance(answer, Busy | MemberBehind))


def _leaves_open(answer: object, open_tries: int) -> TypeGuard[LnhError]:
    """Tell whether a sealed answer to a write leaves its outcome open, so that asking again may tell."""
    return isinstance(answer, OutcomeUnknown) or (
        isinstance(answer, MemberReadOnly | DeadlineExceeded | ClockSkew) and open_tries > 1
    )


def _may_deny(answer: LnhError) -> bool:
    """Tell whether a refusal may hold for one try of a write alone, because another try changed what is stored."""
    return (answer.of_state or isinstance(answer, _SESSION_OVER)) and not answer.is_final


def _outcome_unknown(now: float, request: Request, story: str) -> OutcomeUnknown:
    known = f"last heard of it: {request.hint}" if request.hint is not None else story
    waited = request.seconds - max(request.deadline - now, 0.0)
    said = f"{request.operation}: sent, but no proven answer within {waited:.3g} s; {known}"
    return OutcomeUnknown(said, {"tries": request.tries})
