"""Tells a dashboard what happens in the cluster: the overview and the doctor's findings, as server-sent events.

Each dashboard is told by its own user's session, so nobody is told what he may not see, and who is no user any more is
told that the session ended. Events are of three kinds: `look`, `trouble` (problem details: no member answered this
time) and `ended`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from lnh.aio.admin import Administration
from lnh.diagnosis import COMPATIBLE, Scene, diagnose
from lnh_common import limits
from lnh_common.errors import Busy, KeyringUnknown, LnhError, MemberBehind
from lnh_common.messages.base import Message
from lnh_common.messages.overview import Overview
from lnh_rest import problems
from lnh_rest.base import Body, encode
from lnh_rest.problems import Refused
from lnh_rest.route import Call, Route, Who
from lnh_rest.sending import Streaming

PATH: Final = "/dashboard/events"
MEDIA_TYPE: Final = "text/event-stream"

_UNAUTHENTICATED: Final = 401
_KEYRINGS: Final = 256  # whose policies are looked at, where the cluster's lets a key have several uses, ...
_KEYRINGS_SECONDS: Final = 600.0  # ... so often


class Finding(Body):
    """Describe a fault: what it is, why it matters, and the command that mends it."""

    check: str
    severity: str
    where: str
    what: str
    why: str
    do: str


class Look(Body):
    """Tell what a member sees.

    Args:
        current: whether that member is in step with its cluster.
        whole_until: where it is not: UTC milliseconds until when it knows all; 0 where it cannot tell.
    """

    overview: Overview
    findings: tuple[Finding, ...]
    current: bool
    whole_until: int


class Ended(Body):
    """Tell that there will be no further event, and why."""

    detail: str


class Watches:
    """Counts the dashboards that watch, so that there are not too many."""

    def __init__(self) -> None:
        self._of: Counter[int] = Counter()

    def enter(self, session: int) -> None:
        """Count one more of a session; raises Busy where there are too many."""
        if self._of.total() >= limits.REST_WATCHES:
            advice = {"advice": "close a dashboard, or serve the cluster at another address too"}
            raise Busy(f"{limits.REST_WATCHES} dashboards watch through this service", advice)
        if self._of[session] >= limits.REST_WATCHES_OF_ONE:
            advice = {"advice": "close a tab of it, or wait some seconds"}
            raise Busy(f"{limits.REST_WATCHES_OF_ONE} dashboards of this session watch", advice)
        self._of[session] += 1

    def leave(self, session: int) -> None:
        """Count the end of one that entered."""
        self._of[session] -= 1
        if not self._of[session]:
            del self._of[session]

    def __len__(self) -> int:
        return self._of.total()


class Watching:
    """Serves the events.

    Args:
        clock: UTC seconds.

    Attributes:
        ending: whether the service ends, which ends every stream with its next event.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock: Final = clock
        self._watches: Final = Watches()
        self.ending = False

    @property
    def route(self) -> Route:
        """The row of the events."""
        return Route("GET", PATH, "Tell what happens, as server-sent events.", Who.USER, self.watch)

    async def watch(self, call: Call) -> StreamingResponse:
        """Begin to tell; what refuses the first look refuses the request."""
        login = call.login
        assert login is not None, "the route's row demands a session"
        user, name = call.user, id(login)
        self._watches.enter(name)
        try:
            first = await self._look(user, ())
        except BaseException:
            self._watches.leave(name)
            raise
        events = self._events(user, first, login.ends)
        return _Stream(events, lambda: self._watches.leave(name))

    async def _events(self, user: Administration, first: Look, ends: float) -> AsyncIterator[bytes]:
        yield event("look", first)
        compatible = _Compatible()
        while not self.ending:
            await asyncio.sleep(limits.REST_WATCH_SECONDS)
            if self._clock() >= ends:
                yield event("ended", Ended(detail="the session has ended"))
                return
            try:
                yield event("look", await self._look(user, await compatible.labels(user, first.overview)))
            except LnhError as error:
                refused = Refused(error)
                if refused.status == _UNAUTHENTICATED:
                    yield event("ended", Ended(detail=str(error)))
                    return
                yield event("trouble", problems.problem(refused, str(uuid.uuid4())))

    async def _look(self, user: Administration, compatible: tuple[str, ...]) -> Look:
        overview = await user.overview()
        return look(overview, self._clock(), compatible)


def look(overview: Overview, now: float, compatible: tuple[str, ...] = ()) -> Look:
    """Put what a member told beside what is wrong with it."""
    findings = diagnose(Scene(overview, now, compatible=compatible))
    behind = overview.behind
    return Look(
        overview=overview,
        findings=tuple(
            Finding(
                check=each.check,
                severity=each.severity.value,
                where=each.where,
                what=each.what,
                why=each.why,
                do=each.do,
            )
            for each in findings
        ),
        current=behind is None,
        whole_until=behind.whole_until if behind is not None else 0,
    )


def event(kind: str, told: Body | Message) -> bytes:
    """Spell an event; JSON of ours has no line feed."""
    data = encode(told)
    assert b"\n" not in data, "an event's data is one line"
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


class _Compatible:
    """The labels of keyrings whose keys are not kept to one use: mostly none, as the cluster's policy has it."""

    def __init__(self) -> None:
        self._labels: tuple[str, ...] = ()
        self._due = 0.0

    async def labels(self, user: Administration, overview: Overview) -> tuple[str, ...]:
        if overview.key_uses != COMPATIBLE or overview.keyrings > _KEYRINGS:
            return ()
        if time.monotonic() >= self._due:
            found = []
            async for each in user.keyrings():
                with suppress(KeyringUnknown, MemberBehind):  # it was deleted meanwhile
                    policy: Mapping[str, Any] = (await user.show_keyring(each.label)).policy
                    if policy.get("key_uses", COMPATIBLE) == COMPATIBLE:
                        found.append(each.label)
            self._labels = tuple(found)
            self._due = time.monotonic() + _KEYRINGS_SECONDS
        return self._labels


class _Stream(Streaming):
    """An answer that goes on until its reader, its session or the service ends, or its reader takes nothing.

    Args:
        leave: is called at its end, whatever ends it.
    """

    def __init__(self, events: AsyncIterator[bytes], leave: Callable[[], None]) -> None:
        super().__init__(events, media_type=MEDIA_TYPE, headers={"X-Accel-Buffering": "no"})
        self._leave: Final = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()
