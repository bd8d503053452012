"""Connections of both SDKs and their endpoints, against members of one thread each: what goes to whom, which answer counts."""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final, TypeAlias

import pytest

import lnh.aio.net.connection
import lnh.net.connection
import lnh.net.requests
from lnh.net import failover
from lnh.net.failover import Endpoint
from lnh_common.errors import (
    AnswerUnproven,
    ChannelInvalid,
    LnhError,
    MemberBehind,
    MemberExpelled,
    MemberReadOnly,
    NoCluster,
    NotActivated,
    OutcomeUnknown,
    SealBroken,
    Unreachable,
)
from lnh_common.messages.objects import DESTROY, FIND, SHOW, SIGN
from lnh_common.wire.frames import Header
from models import in_loop, loopback
from models.loopback import KEYS, WITHIN, Answer, Member
from waits import wait_until

Connected: TypeAlias = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that is alive is not taken for dead where this machine stands still for a moment."""
    monkeypatch.setattr(failover, "CONNECT_WITHIN", WITHIN / 2)
    monkeypatch.setattr(failover, "PROVE_WITHIN", WITHIN / 2)
    for module in (lnh.net.connection, lnh.aio.net.connection):
        monkeypatch.setattr(module, "_LEARN_WITHIN", WITHIN)


SDKS: Final[dict[str, Connected]] = {"blocking": loopback.connected, "aio": in_loop.connected}


@pytest.fixture(params=SDKS)
def connected(request: pytest.FixtureRequest) -> Connected:
    """Opens connections of one of the SDKs."""
    return SDKS[request.param]


def in_both_at_once(test: Callable[..., None]) -> Callable[..., None]:
    """Have both SDKs go through a test that mostly waits at the same time, each with members of its own."""

    def alone(connected: Connected, given: dict[str, object]) -> None:
        with ExitStack() as running:
            test(running, connected, **given)

    @functools.wraps(test)
    def together(**given: object) -> None:
        with ThreadPoolExecutor(len(SDKS)) as threads:
            under_way = {name: threads.submit(alone, connected, given) for name, connected in SDKS.items()}
        for name, each in under_way.items():
            print(f"{name}: {each.exception()!r}")
        for each in under_way.values():
            each.result()

    takes = inspect.signature(test)
    own = [each for each in takes.parameters.values() if each.name not in ("running", "connected")]
    together.__signature__ = takes.replace(parameters=own)  # type: ignore[attr-defined]  # which pytest goes by
    return together


def step_until(one: Any, condition: Callable[[], object]) -> None:
    """Have a channel do its work until it is so."""
    end = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < end
        one.step(0.1)


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


SIGNED = {"handle": b"h" * 16, "mechanism": 4164, "data": b"data"}


def by(name: str) -> Callable[[Header], Answer]:
    return lambda _: {"by": name}


def show(connection: Any, timeout: float = WITHIN) -> object:
    return connection.call(SHOW, {"handle": b"h" * 16}, timeout, token=b"token", seal=KEYS)["by"]


def test_a_request_under_way_goes_to_another_member_when_its_own_dies(running: ExitStack, connected: Connected) -> None:
    a = running.enter_context(Member(serve=lambda _: None))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    answers: list[object] = []
    with connection.channel() as one:
        under_way = [one.submit(SHOW, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS) for _ in range(64)]
        frames = [list(request.frames) for request in under_way]
        step_until(one, lambda: sum(a.asked.values()) == 64)
        a.end()
        answers += [one.wait(request)["by"] for request in under_way]
        assert [list(request.frames) for request in under_way] == frames
    assert answers == ["b"] * 64
    assert set(b.asked.values()) == {1}
    assert connection.endpoint == b.endpoint


def test_a_silent_member_is_left_and_its_late_answer_counts_if_it_is_the_first(
    running: ExitStack, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = running.enter_context(Member(serve=by("a")))
    b = running.enter_context(Member(serve=by("b"), kept=True))
    connection = running.enter_context(connected(a, b))
    assert show(connection) == "a"
    a.deaf = True
    with connection.channel() as one:
        request = one.submit(SHOW, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS)
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(failover, "PROVE_WITHIN", 0.3)
            step_until(one, lambda: b.asked)
        assert not request.done
        a.deaf = False
        assert one.wait(request)["by"] == "a"
        b.kept = False
        later = one.submit(SHOW, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS)
        assert one.wait(later)["by"] == "b"
        assert request.result()["by"] == "a", "the second answer is dropped"
    assert a.probes


def test_a_slow_operation_is_asked_once(
    running: ExitStack, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lnh.net.requests, "SILENCE", (WITHIN, WITHIN))
    monkeypatch.setattr(failover, "DOUBT_AFTER", 0.02)
    a = running.enter_context(Member(serve=by("a"), kept=True))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    with connection.channel() as one:
        request = one.submit(SHOW, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS)
        step_until(one, lambda: a.probes >= 3)
        a.kept = False
        assert one.wait(request)["by"] == "a"
    assert a.asked == {request.header.request_id: 1}
    assert not b.asked


UNSERVED = [NoCluster("left"), NotActivated("no secret"), MemberExpelled("removed")]


@pytest.mark.parametrize("refusal", [*UNSERVED, Unreachable("stopping")])
def test_a_member_that_serves_nobody_is_left(running: ExitStack, connected: Connected, refusal: LnhError) -> None:
    a = running.enter_context(Member(serve=lambda _: refusal))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    assert show(connection) == "b"


def test_a_statement_is_had_from_another_member_when_one_serves_nobody(
    running: ExitStack, connected: Connected
) -> None:
    a = running.enter_context(Member(serve=lambda _: NoCluster("not yet")))
    b = running.enter_context(Member(epoch=3))
    connection = running.enter_context(connected(a, b))
    assert connection.statement(WITHIN).epoch == 3


def of(*refusals: LnhError, running: ExitStack) -> list[Member]:
    return [running.enter_context(Member(serve=lambda _, each=each: each)) for each in refusals]  # type: ignore[misc]


@pytest.mark.parametrize("count", [1, 2, 3])
@in_both_at_once
def test_where_every_member_serves_nobody_its_client_hears_soon_what_each_is(
    running: ExitStack, connected: Connected, count: int
) -> None:
    members = of(*UNSERVED[:count], running=running)
    connection = running.enter_context(connected(*members))
    began = time.monotonic()
    with pytest.raises(AnswerUnproven) as caught:
        show(connection)
    with pytest.raises(tuple(type(each) for each in UNSERVED[:count])) as asked_for_statement:
        connection.statement(WITHIN)
    assert time.monotonic() - began < WITHIN / 2
    for member, refusal in zip(members, UNSERVED, strict=False):
        assert f"heard {type(refusal).__name__}: {refusal} ({member.endpoint.address})" in str(caught.value)
        assert f"{member.endpoint.address}: {refusal}" in str(asked_for_statement.value)
    advice = str(caught.value.detail["advice"])
    assert advice.startswith("if that is true, use another member")
    assert ("lnh hsm activate" in advice) is (count > 1)
    assert ("lnh cluster join" in advice) is (count > 2)


def test_members_that_are_the_same_are_told_of_together(running: ExitStack, connected: Connected) -> None:
    a, b = of(NotActivated("sealed"), NotActivated("sealed"), running=running)
    connection = running.enter_context(connected(a, b))
    with pytest.raises(NotActivated) as caught:
        connection.statement(WITHIN)
    assert str(caught.value) == f"{a.endpoint.address}, {b.endpoint.address}: sealed"
    assert caught.value.detail["advice"] == NotActivated.advice


@pytest.mark.parametrize("ask", [show, lambda connection: connection.statement(WITHIN).epoch])
@in_both_at_once
def test_a_member_that_comes_back_is_waited_for_though_the_others_serve_nobody(
    running: ExitStack, connected: Connected, ask: Callable[[Any], object]
) -> None:
    a, b = of(NotActivated("sealed"), NoCluster("left"), running=running)
    c = running.enter_context(Member(serve=by("c")))
    c.end()
    connection = running.enter_context(connected(a, b, c))
    back = threading.Timer(2.5, lambda: running.enter_context(Member(serve=by("c"), keys=c.keys, port=c.port)))
    back.start()
    try:
        assert ask(connection) in {"c", 1}
    finally:
        back.join()


@in_both_at_once
def test_at_the_deadline_it_is_told_what_each_member_was(running: ExitStack, connected: Connected) -> None:
    (a,) = of(NotActivated("sealed"), running=running)
    b = running.enter_context(Member())
    b.end()
    connection = running.enter_context(connected(a, b))
    with pytest.raises(AnswerUnproven, match=f"sealed .{a.endpoint.address}."):
        show(connection, 2.0)
    with pytest.raises(NotActivated, match=f"{a.endpoint.address}: sealed"):
        connection.statement(2.0)


@in_both_at_once
def test_a_write_that_nobody_serves_has_no_known_outcome_since_anybody_could_say_so(
    running: ExitStack, connected: Connected
) -> None:
    connection = running.enter_context(connected(*of(*UNSERVED, running=running)))
    with pytest.raises(OutcomeUnknown, match="no secret"):
        connection.call(DESTROY, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS)


def test_an_older_channel_epoch_is_refused_and_a_newer_one_had_elsewhere(
    running: ExitStack, connected: Connected
) -> None:
    a, b = running.enter_context(Member(epoch=1)), running.enter_context(Member(epoch=2))
    connection = running.enter_context(connected(a, b, epoch=2))
    assert connection.statement(WITHIN).epoch == 2
    assert connection.endpoint == b.endpoint
    both = running.enter_context(connected(a, b, epoch=3))
    with pytest.raises(ChannelInvalid, match="seen 3"):
        both.statement(0.5)


@pytest.mark.parametrize("failover", [False, True])
def test_a_member_that_has_not_heard_of_the_newest_epoch_is_asked_again(
    running: ExitStack, connected: Connected, failover: bool
) -> None:
    a = running.enter_context(Member(epoch=1))
    asked: list[Header] = []

    def hears(header: Header) -> Answer:
        asked.append(header)
        a.epoch = min(len(asked), 3)
        return {}

    a.serve = hears
    connection = running.enter_context(connected(a, epoch=3, failover=failover))
    assert connection.statement(WITHIN).epoch == 3
    assert len(asked) == 3


def test_a_read_only_member_is_alive_and_stays(running: ExitStack, connected: Connected) -> None:
    a = running.enter_context(Member(serve=lambda _: MemberReadOnly("cut off")))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    with pytest.raises(MemberReadOnly):
        connection.call(DESTROY, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS)
    assert connection.endpoint == a.endpoint
    assert not b.asked


def behind(milliseconds: int) -> LnhError:
    """What a member says that has been behind for so long."""
    return MemberBehind("not in step: no such object", {"whole_until": 1_000, "behind_ms": milliseconds})


def test_what_a_member_that_is_behind_cannot_tell_is_asked_of_another(running: ExitStack, connected: Connected) -> None:
    a = running.enter_context(Member(serve=lambda _: behind(60_000)))
    b = running.enter_context(Member(serve=lambda _: behind(60_000)))
    c = running.enter_context(Member(serve=by("c")))
    connection = running.enter_context(connected(a, b, c))
    assert [show(connection) for _ in range(3)] == ["c"] * 3
    assert connection.endpoint == c.endpoint
    assert sum(a.asked.values()) == 1


@in_both_at_once
def test_where_every_member_is_behind_it_is_said_at_the_deadline(running: ExitStack, connected: Connected) -> None:
    a = running.enter_context(Member(serve=lambda _: behind(60_000)))
    b = running.enter_context(Member(serve=lambda _: behind(60_000)))
    connection = running.enter_context(connected(a, b))
    with pytest.raises(MemberBehind, match="not in step"):
        show(connection, 1.0)
    assert a.asked
    assert b.asked


@in_both_at_once
def test_where_the_others_are_gone_the_one_that_is_behind_is_what_is_told_of(
    running: ExitStack, connected: Connected
) -> None:
    a = running.enter_context(Member(serve=lambda _: behind(60_000)))
    b = running.enter_context(Member())
    b.end()
    connection = running.enter_context(connected(a, b))
    with pytest.raises(MemberBehind):
        show(connection, 2.0)


def test_without_failover_a_member_that_is_behind_is_believed_to_be_at_once(
    running: ExitStack, connected: Connected
) -> None:
    a = running.enter_context(Member(serve=lambda _: behind(60_000)))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b, failover=False))
    with pytest.raises(MemberBehind):
        show(connection)
    assert set(a.asked.values()) == {1}
    assert not b.asked


def test_a_member_that_was_behind_for_a_moment_only_is_asked_again(running: ExitStack, connected: Connected) -> None:
    answers: list[Answer] = [behind(10), behind(500), {"by": "a"}]
    a = running.enter_context(Member(serve=lambda _: answers.pop(0)))
    connection = running.enter_context(connected(a, failover=False))
    assert show(connection) == "a"


def test_what_is_under_way_at_a_member_that_is_behind_stays_there(running: ExitStack, connected: Connected) -> None:
    def serve(header: Header) -> Answer:
        return None if header.operation == FIND.name else behind(60_000)

    a = running.enter_context(Member(serve=serve))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    with connection.channel() as one:
        slow = one.submit(FIND, {}, WITHIN, token=b"token", seal=KEYS)
        step_until(one, lambda: a.asked)
        quick = one.submit(SHOW, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS)
        assert one.wait(quick)["by"] == "b"
        assert b.asked == {quick.header.request_id: 1}
        assert not slow.done


@pytest.mark.parametrize("current", [False, True])
def test_a_listing_comes_from_a_member_behind_unless_a_current_one_is_demanded(
    running: ExitStack, connected: Connected, current: bool
) -> None:
    listed: Answer = {"objects": [], "more": False, "behind": {"whole_until": 1_000, "behind_ms": 60_000}}
    a = running.enter_context(Member(serve=lambda _: listed))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    found = connection.call(FIND, {}, WITHIN, token=b"token", seal=KEYS, current=current)
    assert found == ({"by": "b"} if current else listed)
    alone = running.enter_context(connected(a, b, failover=False))
    if current:
        with pytest.raises(MemberBehind, match=r"1970-01-01 00:00:01 UTC.* may not be all"):
            alone.call(FIND, {}, WITHIN, token=b"token", seal=KEYS, current=True)


@in_both_at_once
def test_a_write_that_may_have_been_made_is_not_called_undone_by_a_member_behind(
    running: ExitStack, connected: Connected
) -> None:
    a = running.enter_context(Member(serve=lambda _: None))
    connection = running.enter_context(connected(a))
    with connection.channel() as one:
        request = one.submit(DESTROY, {"handle": b"h" * 16}, 6.0, token=b"token", seal=KEYS)
        step_until(one, lambda: a.asked)
        a.serve = lambda _: behind(60_000)
        step_until(one, lambda: request.done)
    with pytest.raises(OutcomeUnknown):
        request.result()


@in_both_at_once
def test_a_write_that_may_have_been_made_is_not_called_undone_by_a_read_only_member(
    running: ExitStack, connected: Connected
) -> None:
    a = running.enter_context(Member(serve=lambda _: None))
    b = running.enter_context(Member(serve=lambda _: MemberReadOnly("cut off")))
    connection = running.enter_context(connected(a, b))
    with connection.channel() as one:
        request = one.submit(DESTROY, {"handle": b"h" * 16}, 6.0, token=b"token", seal=KEYS)
        step_until(one, lambda: a.asked)
        a.end()
        step_until(one, lambda: request.done)
    assert b.asked[request.header.request_id] > 1
    with pytest.raises(OutcomeUnknown):
        request.result()


@in_both_at_once
def test_without_failover_a_client_stays_and_says_that_it_cannot_reach_its_member(
    running: ExitStack, connected: Connected
) -> None:
    a = running.enter_context(Member(serve=by("a")))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b, failover=False))
    assert show(connection) == "a"
    assert connection.alternates == ()
    a.end()
    with pytest.raises(Unreachable):
        show(connection, 3.0)
    assert not b.asked


@in_both_at_once
def test_with_every_member_gone_requests_wait_and_the_first_to_come_back_answers(
    running: ExitStack, connected: Connected
) -> None:
    a = running.enter_context(Member(serve=by("a")))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    assert show(connection) == "a"
    a.end()
    b.end()
    with pytest.raises(Unreachable):
        show(connection, 3.0)
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(show(connection)))
    thread.start()
    running.enter_context(Member(serve=by("b again"), keys=b.keys, port=b.port))
    thread.join(WITHIN)
    assert answers == ["b again"]


def test_many_threads_go_over_together_and_all_go_back(running: ExitStack, connected: Connected) -> None:
    a = running.enter_context(Member(serve=by("a")))
    b = running.enter_context(Member(serve=by("b")))
    a.endpoints = b.endpoints = (a.told("read-write"), b.told("read-write"))
    connection = running.enter_context(connected(a))
    connection.learn(b"", b"token", KEYS)
    assert connection.alternates == (Endpoint(b.endpoint.address, b.endpoint.key, "local"),)
    over = threading.Event()
    heard: Counter[object] = Counter()
    errors: list[Exception] = []

    def ask() -> None:
        try:
            while not over.is_set():
                heard[show(connection)] += 1
                connection.learn(b"", b"token", KEYS)
        except Exception as error:
            errors.append(error)

    def hears(name: str) -> None:
        before = heard[name]
        wait_until(lambda: heard[name] >= before + 32 or errors, f"what {name} says", WITHIN)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    try:
        hears("a")
        a.end()
        hears("b")
        running.enter_context(Member(serve=by("a again"), keys=a.keys, port=a.port, endpoints=a.endpoints))
        hears("a again")
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert connection.endpoint.key == a.endpoint.key


def damaged(header: Header) -> Answer:
    """What a member says whose store served something that is not genuine."""
    return SealBroken("the stored policy record was changed", {"damaged": True})


def test_a_client_of_a_member_that_is_damaged_is_led_to_another(running: ExitStack, connected: Connected) -> None:
    a = running.enter_context(Member(serve=damaged))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    assert [show(connection) for _ in range(3)] == ["b"] * 3
    assert sum(a.asked.values()) == 1
    alone = running.enter_context(connected(a, b, failover=False))
    with pytest.raises(SealBroken):
        show(alone)


def test_what_a_client_brought_itself_is_asked_of_nobody_else(running: ExitStack, connected: Connected) -> None:
    a = running.enter_context(Member(serve=lambda _: SealBroken("this object of a session does not open")))
    b = running.enter_context(Member(serve=by("b")))
    with pytest.raises(SealBroken):
        show(running.enter_context(connected(a, b)))
    assert not b.asked


# --- members of the version before


@pytest.mark.parametrize("failover", [False, True])
def test_a_member_that_drops_bundles_is_spoken_to_in_three_frames(
    running: ExitStack, connected: Connected, failover: bool
) -> None:
    a = running.enter_context(Member(serve=by("a"), before=True))
    connection = running.enter_context(connected(a, failover=failover))
    assert connection.statement(WITHIN).epoch == 1
    assert [show(connection) for _ in range(3)] == ["a"] * 3
    assert connection.endpoint == a.endpoint
    assert a.probes == 1, "it is asked once how it is spoken to"


def test_uses_that_were_sent_together_go_alone_to_a_member_that_knows_no_carriers(
    running: ExitStack, connected: Connected
) -> None:
    a = running.enter_context(Member(serve=by("a"), before=True))
    connection = running.enter_context(connected(a))
    with connection.channel() as one:
        many = [one.submit(SIGN, SIGNED, WITHIN, token=b"token", seal=KEYS) for _ in range(40)]
        assert [one.wait(request)["by"] for request in many] == ["a"] * 40
        assert set(a.asked.values()) == {1}
        again = [one.submit(SIGN, SIGNED, WITHIN, token=b"token", seal=KEYS) for _ in range(40)]
        assert [one.wait(request)["by"] for request in again] == ["a"] * 40
    assert len(a.asked) == 80, "each in a message of its own"


def test_what_is_under_way_goes_over_between_members_of_both_versions(running: ExitStack, connected: Connected) -> None:
    a = running.enter_context(Member(serve=lambda _: None))
    b = running.enter_context(Member(serve=by("b"), before=True))
    connection = running.enter_context(connected(a, b))
    with connection.channel() as one:
        many = [one.submit(SIGN, SIGNED, WITHIN, token=b"token", seal=KEYS) for _ in range(40)]
        step_until(one, lambda: a.asked)
        a.end()
        assert [one.wait(request)["by"] for request in many] == ["b"] * 40
    assert connection.endpoint == b.endpoint


def test_a_member_is_spoken_to_in_bundles_once_it_is_upgraded(running: ExitStack, connected: Connected) -> None:
    before = running.enter_context(Member(serve=by("before"), before=True))
    connection = running.enter_context(connected(before))
    with connection.channel() as one:
        assert one.wait(one.submit(SHOW, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS))["by"] == "before"
        before.end()
        after = running.enter_context(Member(serve=by("after"), keys=before.keys, port=before.port))
        assert one.wait(one.submit(SHOW, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS))["by"] == "after"
    assert after.in_bundles
