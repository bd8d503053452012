"""The SDK's request core against a network that loses, repeats, delays, reorders and forges."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnh.net.request import Request
from lnh.net.requests import BACK_OFF, HINT_PATIENCE, RETRY_HINTS, SILENCE, Requests
from lnh_common import limits
from lnh_common.errors import (
    AnswerUnproven,
    AttributeInvalid,
    Busy,
    ChannelInvalid,
    ClientRevoked,
    DeadlineExceeded,
    LnhError,
    MalformedMessage,
    MemberExpelled,
    MemberReadOnly,
    NoCluster,
    NotActivated,
    NotPossible,
    ObjectUnknown,
    OutcomeUnknown,
    SessionEnded,
    SmkRolled,
    TokenUnknown,
    Unreachable,
    VersionConflict,
)
from lnh_common.messages.objects import DESTROY, SHOW
from lnh_common.messages.session import HELLO
from lnh_common.wire import channel
from lnh_common.wire import frames as wire
from lnh_common.wire.channel import SessionKeys
from lnh_common.wire.frames import Kind
from models.answering_hsm import HANDLE, KEYS, TIMEOUT, Hsm, hint, reply, submit, use
from sizes import sized

FAULTS = st.sampled_from(
    [
        "deliver", "deliver", "deliver", "lose request", "lose reply", "duplicate", "delay", "busy", "sealed busy",
        "forge", "garbage",
    ]
)  # fmt: skip


@settings(max_examples=sized(150))
@given(
    seed=st.integers(0, 1 << 32),
    faults=st.lists(FAULTS, min_size=1, max_size=40),
    kinds=st.lists(st.sampled_from(["write", "read", "use", "use", "use"]), min_size=1, max_size=24),
)
def test_every_request_ends_and_a_write_acts_once_at_most_and_is_not_denied(
    seed: int, faults: list[str], kinds: list[str]
) -> None:
    generator = random.Random(seed)
    requests = Requests(generator)
    hsm = Hsm()
    now = 0.0
    asked = [
        use(requests, now, bytes([number]), timeout=generator.uniform(0.01, TIMEOUT))
        if kind == "use"
        else submit(requests, now, DESTROY if kind == "write" else SHOW)
        for number, kind in enumerate(kinds)
    ]
    assert len(requests) == len(asked)
    sent: dict[int, list[bytes]] = {}
    network: list[tuple[float, list[bytes]]] = []  # answers under way
    turn = 0
    ended: list[Request] = []
    while len(requests):
        late, due = requests.turn(now)
        ended += late
        for request in due:
            requests.sent(now, request)
            first = sent.setdefault(request.header.request_id, list(request.frames))
            assert request.frames == first, "a repeat sends the same bytes"
            fault = faults[turn % len(faults)]
            turn += 1
            soon = now + generator.uniform(0.001, 0.5)
            if fault == "lose request":
                continue
            if fault == "busy":
                hsm.busy = generator.randrange(3)
                network.append((soon, hint(request, Busy("later"))))
                continue
            if fault == "sealed busy":
                busy = reply(request, Busy("nothing was done"))
                network += [(soon, busy), (soon + 0.1, busy)]
                continue
            if fault == "garbage":
                network.append((soon, [os.urandom(20), b"", b""]))
            if fault == "forge":
                forged = channel.seal_reply(SessionKeys.derive(b"x" * 32, b"token"), request.header, b"", {})
                network.append((now, [request.header.answer(Kind.REPLY).pack(), b"", forged]))
            answer = hsm.serve(request.frames)
            if fault == "lose reply":
                continue
            network.append((now + 60 if fault == "delay" else soon, answer))
            if fault == "duplicate":
                network.append((soon + 0.1, answer))
        if not len(requests):
            break
        network.sort(key=lambda item: item[0])
        moments = [requests.earliest, *(moment for moment, _ in network[:1])]
        now = max(now, min(moments))
        while network and network[0][0] <= now:
            ended += requests.receive(now, network.pop(0)[1])
        assert now <= TIMEOUT + 1, "a request outlived its deadline"
    assert {id(request) for request in ended} == {id(request) for request in asked}
    assert len(ended) == len(asked), "each ends once"
    assert not requests.messages
    for number, (request, kind) in enumerate(zip(asked, kinds, strict=True)):
        assert request.done
        if request.error is None:
            answer_fields = {"data": bytes([number])} if kind == "use" else {"served": request.header.request_id}
            assert request.result() == answer_fields
        elif kind == "write" and not isinstance(request.error, OutcomeUnknown):
            assert isinstance(request.error, Busy), "an unproven word about a write is no outcome"
            sequence = channel.open_request(KEYS, request.header, request.frames[2]).sequence
            assert (requests.connection, sequence) not in hsm.acted, "it is told as undone, and was done"
    assert all(count == 1 for count in hsm.acted.values())
    assert len(hsm.acted) <= kinds.count("write")


@given(st.floats(0.01, 600.0))
def test_who_is_asked_gives_up_first_then_who_passed_it_on_then_who_asked(seconds: float) -> None:
    sent = wire.deadline_ms(seconds)
    assert sent / 1000 < wire.word_within(sent) < seconds or sent == 0
    assert seconds - sent / 1000 <= limits.SOONER_SECONDS + 0.001, "little of the time is lost"


def test_a_request_without_an_answer_tells_how_often_and_where_it_was_sent() -> None:
    requests = Requests(endpoint=lambda: "a:1, which is connected")
    other, lost, write = submit(requests, 0.0), submit(requests, 0.0), submit(requests, 0.0, DESTROY)
    for now in (0.0, SILENCE[0], 3 * SILENCE[0], TIMEOUT):
        ended, due = requests.turn(now)
        for request in due:
            requests.sent(now, request)
        if now == 0.0:
            requests.receive(1.0, reply(other, {}))
    assert ended == [lost, write]
    tries = lost.tries
    assert str(lost.error) == (
        f"{SHOW.name}: no answer within {TIMEOUT:g} s; sent {tries} times, {TIMEOUT - lost.last_sent:.1f} s ago the last "
        f"time, to a:1, which is connected; last heard from there: {TIMEOUT - 1:.1f} s ago"
    )
    assert lost.error is not None
    assert lost.error.detail == {"tries": tries}
    assert isinstance(write.error, OutcomeUnknown)
    assert f"sent {tries} times" in str(write.error)


@pytest.mark.parametrize("tries", [1, 2])
def test_a_try_that_was_given_up_says_nothing_of_an_earlier_one(tries: int) -> None:
    requests = Requests()
    write = submit(requests, 0.0, DESTROY)
    for _ in range(tries):
        requests.turn(write.due)
        requests.sent(write.due, write)
    requests.receive(9.5, reply(write, DeadlineExceeded("the store has not answered")))
    assert write.done == (tries == 1)
    requests.turn(TIMEOUT)
    assert isinstance(write.error, DeadlineExceeded if tries == 1 else OutcomeUnknown)
    assert "the store has not answered" in str(write.error)


def test_a_request_that_never_left_says_how_its_way_was() -> None:
    requests = Requests(endpoint=lambda: "a:1, which is not connected (nobody listens there)")
    request = submit(requests, 0.0)
    requests.turn(0.0)
    requests.turn(TIMEOUT)
    assert isinstance(request.error, Unreachable)
    assert str(request.error).endswith("to a:1, which is not connected (nobody listens there)")


def test_a_sealed_answer_ends_a_request_and_a_second_one_is_dropped() -> None:
    requests = Requests()
    request = submit(requests, 0.0)
    requests.sent(0.0, request)
    assert requests.receive(0.1, reply(request, {"a": 1})) == [request]
    assert request.result() == {"a": 1}
    assert requests.receive(0.2, reply(request, {"a": 2})) == []
    assert request.result() == {"a": 1}


def test_a_sealed_error_is_raised_as_it_was_sealed() -> None:
    requests = Requests()
    for error in (ObjectUnknown("gone"), MalformedMessage("bad field"), ChannelInvalid("not signed")):
        request = submit(requests, 0.0, DESTROY)
        requests.sent(0.0, request)
        requests.receive(0.1, reply(request, error))
        with pytest.raises(type(error), match=str(error)):
            request.result()


@pytest.mark.parametrize("operation", [SHOW, DESTROY])
def test_a_sealed_busy_says_that_nothing_was_done_yet_and_is_tried_again(operation: Any) -> None:
    requests = Requests()
    request = submit(requests, 0.0, operation)
    requests.sent(0.0, request)
    assert requests.receive(0.1, reply(request, Busy("others are under way"))) == []
    assert requests.turn(request.due) == ([], [request])
    requests.sent(request.due, request)
    assert requests.receive(0.5, reply(request, {"done": True})) == [request]


def test_a_write_of_which_every_try_was_told_busy_under_seal_did_nothing_and_says_so() -> None:
    requests = Requests()
    request = submit(requests, 0.0, DESTROY)
    for moment in (0.0, 1.0):
        requests.sent(moment, request)
        requests.receive(moment + 0.1, reply(request, Busy("others are under way")))
    requests.turn(TIMEOUT)
    with pytest.raises(Busy, match="others"):
        request.result()


@pytest.mark.parametrize("operation", [SHOW, DESTROY])
def test_a_time_after_which_to_come_again_is_kept_or_is_the_answer(
    operation: Any,
) -> None:
    requests = Requests()
    request = submit(requests, 0.0, operation)
    requests.sent(0.0, request)
    later = TIMEOUT / 2
    assert requests.receive(0.1, reply(request, Busy("a queue", {"seconds": later}))) == []
    assert requests.turn(later) == ([], [])
    assert 0.1 + later <= request.due <= TIMEOUT
    assert requests.turn(request.due) == ([], [request])
    requests.sent(request.due, request)
    assert requests.receive(request.due, reply(request, Busy("a queue", {"seconds": TIMEOUT}))) == [request]
    with pytest.raises(Busy, match="a queue") as busy:
        request.result()
    assert busy.value.detail["seconds"] == TIMEOUT


def test_a_busy_accounts_for_one_try_however_often_it_comes() -> None:
    requests = Requests()
    request = submit(requests, 0.0, DESTROY)
    for moment in (0.0, 1.0):
        requests.sent(moment, request)
    busy = reply(request, Busy("others are under way"))
    for moment in (1.1, 1.2):
        requests.receive(moment, busy)
    requests.turn(TIMEOUT)
    with pytest.raises(OutcomeUnknown):
        request.result()


def test_read_only_is_final_when_every_earlier_try_did_nothing() -> None:
    requests = Requests()
    request = submit(requests, 0.0, DESTROY)
    requests.sent(0.0, request)
    requests.receive(0.1, reply(request, Busy("not caught up yet")))
    requests.sent(0.2, request)
    assert requests.receive(0.3, reply(request, MemberReadOnly("cut off"))) == [request]
    with pytest.raises(MemberReadOnly):
        request.result()


@pytest.mark.parametrize("error", [Busy(), Unreachable(), TokenUnknown(), ClientRevoked()])
def test_a_hint_to_try_again_leads_to_the_same_bytes_after_a_jittered_wait(error: LnhError) -> None:
    requests = Requests(random.Random(1))
    request = submit(requests, 0.0)
    requests.sent(0.0, request)
    waits = []
    now = 0.1
    for _ in range(8 if isinstance(error, RETRY_HINTS) else 5):
        assert requests.receive(now, hint(request, error)) == []
        assert requests.turn(now) == ([], [])
        waits.append(request.due - now)
        now = request.due
        assert requests.turn(now) == ([], [request])
        requests.sent(now, request)
    first, longest = BACK_OFF
    assert first / 2 <= waits[0] <= first * 1.5
    assert max(waits) <= longest * 1.5
    assert waits[-1] > waits[0] * 2


def test_a_token_that_stays_unknown_is_given_up_before_the_deadline() -> None:
    requests = Requests()
    read, write = submit(requests, 0.0), submit(requests, 0.0, DESTROY)
    for request in (read, write):
        requests.sent(0.0, request)
        for moment in (0.1, 0.5, 1.0):
            assert requests.receive(moment, hint(request, TokenUnknown("logged out"))) == []
        assert requests.receive(1.2, hint(request, TokenUnknown("logged out"))) == [request]
    with pytest.raises(TokenUnknown):
        read.result()
    with pytest.raises(OutcomeUnknown, match="logged out"):
        write.result()


def test_a_read_that_nobody_answers_says_what_was_heard_last() -> None:
    requests = Requests()
    silent, busy = submit(requests, 0.0), submit(requests, 0.0)
    for request in (silent, busy):
        requests.sent(0.0, request)
    requests.receive(0.1, hint(busy, Busy("full")))
    ended, _ = requests.turn(TIMEOUT)
    assert set(ended) == {silent, busy}
    with pytest.raises(DeadlineExceeded):
        silent.result()
    with pytest.raises(Busy, match="full"):
        busy.result()


def test_a_write_that_never_left_did_nothing_and_says_so() -> None:
    requests = Requests()
    request = submit(requests, 0.0, DESTROY)
    requests.turn(TIMEOUT)
    with pytest.raises(Unreachable):
        request.result()


@pytest.mark.parametrize("error", [NotActivated("said so"), ClientRevoked("said so"), SessionEnded("said so")])
def test_an_unsealed_refusal_is_never_believed(error: LnhError) -> None:
    requests = Requests()
    read, write, late = submit(requests, 0.0), submit(requests, 0.0, DESTROY), submit(requests, 0.0)
    for request in (read, write, late):
        requests.sent(0.0, request)
        assert requests.receive(0.1, hint(request, error)) == []
    for request in (read, write):
        assert requests.receive(0.2 + HINT_PATIENCE, hint(request, error)) == [request]
    requests.turn(TIMEOUT)
    for request in (read, late):
        with pytest.raises(AnswerUnproven, match=f"heard {type(error).__name__}: said so"):
            request.result()
    with pytest.raises(OutcomeUnknown, match="said so"):
        write.result()


def test_a_forged_refusal_is_overcome_by_the_sealed_answer() -> None:
    requests = Requests()
    request = submit(requests, 0.0, DESTROY)
    requests.sent(0.0, request)
    requests.receive(0.1, hint(request, ClientRevoked("a lie")))
    assert requests.receive(0.3, reply(request, {"done": True})) == [request]
    assert request.result() == {"done": True}


def test_hello_has_no_seal_and_is_believed() -> None:
    requests = Requests()
    request = requests.submit(0.0, 1.7e9, HELLO, {}, TIMEOUT)
    requests.sent(0.0, request)
    assert requests.receive(0.1, hint(request, NotActivated("not yet"))) == [request]
    with pytest.raises(NotActivated):
        request.result()


ENDPOINTS = ("a:1", "b:1", "c:1")
WORDS = st.sampled_from([NotActivated("sealed"), NoCluster("left"), MemberExpelled("removed"), Unreachable("starts")])


@given(
    st.lists(st.tuples(st.sampled_from(ENDPOINTS), st.floats(0.001, 1.0), WORDS), max_size=60),
    st.sampled_from([SHOW, DESTROY, HELLO]),
)
def test_that_members_serve_nobody_ends_nothing_before_each_said_so(
    heard: list[tuple[str, float, LnhError]], operation: Any
) -> None:
    here, now = ENDPOINTS[0], 0.0
    requests = Requests(
        random.Random(1), members=lambda: [here, *(endpoint for endpoint in ENDPOINTS if endpoint != here)]
    )
    seal = None if operation is HELLO else KEYS
    fields = {} if operation is HELLO else {"handle": HANDLE}
    request = requests.submit(now, 1.7e9, operation, fields, TIMEOUT, token=b"token", seal=seal)
    said: dict[str, LnhError] = {}
    for endpoint, later, error in heard:
        now += later
        if now >= TIMEOUT or request.done:
            break
        if endpoint != here:
            here = endpoint
            requests.move(now)
        requests.sent(now, request)
        if not isinstance(error, Unreachable):
            said[endpoint] = error
        if requests.receive(now, hint(request, error)):
            assert said.keys() == set(ENDPOINTS), "one that said nothing may serve"
    if request.done:
        assert (
            set(ENDPOINTS) <= {endpoint for endpoint in ENDPOINTS if endpoint in str(request.error)}
            or operation is DESTROY
        )
    else:
        requests.turn(TIMEOUT)
    assert request.done
    if operation is DESTROY and heard:
        assert isinstance(request.error, OutcomeUnknown)
    elif operation is SHOW and said:
        assert isinstance(request.error, AnswerUnproven)
    elif said:
        assert type(request.error) in {type(each) for each in said.values()}


def test_a_write_tried_once_is_read_only_and_after_an_earlier_try_unknown() -> None:
    requests = Requests()
    once, twice = submit(requests, 0.0, DESTROY), submit(requests, 0.0, DESTROY)
    requests.sent(0.0, once)
    for _ in range(2):
        requests.sent(0.0, twice)
    for request in (once, twice):
        requests.receive(0.1, reply(request, MemberReadOnly("cut off")))
    with pytest.raises(MemberReadOnly):
        once.result()
    assert not twice.done  # an earlier try may have acted: it is asked again until that is known
    requests.turn(twice.deadline)
    with pytest.raises(OutcomeUnknown, match="cut off"):
        twice.result()


@pytest.mark.parametrize(
    "refusal", [ObjectUnknown("gone"), VersionConflict("changed"), NotPossible("is primary"), SessionEnded("over")]
)
def test_a_write_that_was_sent_twice_is_denied_only_by_what_holds_of_every_try(refusal: LnhError) -> None:
    requests = Requests()
    once, twice, final = (submit(requests, 0.0, DESTROY) for _ in range(3))
    for request in (once, twice, twice, final, final):
        requests.sent(0.0, request)
    requests.receive(0.1, reply(once, refusal))
    requests.receive(0.1, reply(twice, refusal))
    requests.receive(0.1, reply(final, LnhError.from_wire(refusal.to_wire()).final()))
    for request in (once, final):
        with pytest.raises(type(refusal)):
            request.result()
    with pytest.raises(OutcomeUnknown, match=str(refusal)):
        twice.result()


def test_what_a_write_itself_forbids_denies_it_however_often_it_was_sent() -> None:
    requests = Requests()
    request = submit(requests, 0.0, DESTROY)
    for _ in range(2):
        requests.sent(0.0, request)
    requests.receive(0.1, reply(request, AttributeInvalid("no such value")))
    with pytest.raises(AttributeInvalid):
        request.result()


def test_a_sealed_unknown_outcome_is_asked_again_until_it_is_known() -> None:
    requests = Requests()
    request = submit(requests, 0.0, DESTROY)
    requests.sent(0.0, request)
    requests.receive(0.1, reply(request, OutcomeUnknown("the primary changed while it was asked")))
    assert not request.done
    _, due = requests.turn(1.0)
    assert due == [request]
    requests.sent(1.0, request)
    requests.receive(1.1, reply(request, {}))
    assert request.result() == {}


def test_an_answer_to_another_operation_or_an_old_request_is_dropped() -> None:
    requests = Requests()
    request = submit(requests, 0.0)
    requests.sent(0.0, request)
    other = wire.request("object.destroy", request.header.request_id, 1000)
    assert requests.receive(0.1, wire.error_frames(other, NotActivated())) == []
    unknown = wire.request("object.show", 999, 1000)
    assert requests.receive(0.1, wire.error_frames(unknown, NotActivated())) == []
    assert not request.done


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_no_frames_of_any_kind_upset_the_core(frames: list[bytes]) -> None:
    requests = Requests()
    request = submit(requests, 0.0)
    requests.sent(0.0, request)
    assert requests.receive(0.1, frames) == []
    requests.receive(0.1, [request.header.answer(Kind.ERROR).pack(), b"", b"".join(frames)])
    requests.receive(0.1, [request.header.answer(Kind.REPLY).pack(), b"", b"".join(frames)])
    if not request.done:
        requests.receive(0.2, reply(request, {"ok": True}))
        assert request.result() == {"ok": True}


def test_writes_are_numbered_from_one_and_reads_carry_no_number() -> None:
    requests = Requests()
    sequences = []
    for operation in (DESTROY, SHOW, DESTROY):
        request = submit(requests, 0.0, operation)
        envelope = channel.open_request(KEYS, request.header, request.frames[2])
        assert envelope.connection == requests.connection
        sequences.append(envelope.sequence)
    assert sequences == [1, 0, 2]


def test_a_write_that_a_rollover_of_the_smk_refused_is_made_anew_under_another_name() -> None:
    requests = Requests()
    request = submit(requests, 0.0, DESTROY)
    first = list(request.frames)
    for moment in (0.0, 1.0):  # a try of it that is under way still is refused as this one is
        requests.sent(moment, request)
    assert requests.receive(1.1, reply(request, SmkRolled("not done"))) == []
    assert len(requests) == requests.messages == 1
    _, due = requests.turn(request.due)
    assert due == [request]
    envelope = channel.open_request(KEYS, request.header, request.frames[2])
    assert (envelope.sequence, envelope.fields) == (2, {"handle": HANDLE})
    assert envelope.issued_at > 1.7e12
    assert request.frames[0] != first[0]
    late = Request(request.operation, KEYS, TIMEOUT, TIMEOUT, is_write=True)
    late.sealed(wire.Header.parse(first[0]), first[1], first[2])
    requests.sent(request.due, request)
    assert requests.receive(1.2, reply(late, {"a": 1})) == [], "what answers the first of them ends nothing"
    assert requests.receive(1.3, reply(request, {"a": 2})) == [request]
    assert request.result() == {"a": 2}


def test_a_write_that_is_refused_by_a_rollover_to_its_end_did_nothing_and_says_so() -> None:
    requests = Requests()
    request = submit(requests, 0.0, DESTROY)
    now = 0.0
    while not request.done:
        requests.sent(now, request)
        requests.receive(now, reply(request, SmkRolled("not done")))
        now = min(request.due, TIMEOUT)
        requests.turn(now)
    with pytest.raises(SmkRolled, match="not done"):
        request.result()


def test_nothing_secret_is_in_a_repr() -> None:
    requests = Requests()
    request = submit(requests, 0.0)
    assert HANDLE.hex() not in repr(request)
    assert KEYS.request.hex() not in repr(KEYS)
