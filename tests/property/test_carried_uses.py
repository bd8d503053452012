"""Uses of keys that go together under one seal: what shares one, and what becomes of each."""

from __future__ import annotations

from typing import Any

import pytest

from lnh.net.requests import BACK_OFF, SPREAD, Requests
from lnh_common.errors import (
    DataLength,
    DeadlineExceeded,
    SessionEnded,
)
from lnh_common.wire.channel import SessionKeys
from models.answering_hsm import KEYS, Hsm, deliver, reply, use


def test_uses_that_are_due_together_share_a_seal_and_leave_some_for_other_workers() -> None:
    for under_way, messages in ((1, 1), (SPREAD, SPREAD), (4 * SPREAD, SPREAD), (64 * SPREAD, 4 * SPREAD)):
        requests, hsm = Requests(), Hsm()
        asked = [use(requests, 0.0, number.to_bytes(2, "big")) for number in range(under_way)]
        assert deliver(requests, 0.0, hsm) == asked
        assert hsm.messages == messages
        assert [request.result()["data"] for request in asked] == [
            number.to_bytes(2, "big") for number in range(under_way)
        ]


def test_only_uses_under_one_session_share_a_seal_and_large_ones_go_alone() -> None:
    requests, hsm = Requests(), Hsm()
    others = SessionKeys.derive(b"o" * 32, b"token")
    for _ in range(2 * SPREAD):
        use(requests, 0.0, b"a", keys=others)
    large = use(requests, 0.0, bytes(65 * 1024))
    asked = [use(requests, 0.0, bytes(20 * 1024)) for _ in range(8)]
    _, due = requests.turn(0.0)
    assert all({id(each.keys) for each in carrier.uses} == {id(carrier.keys)} for carrier in due if carrier.uses)
    assert large in due
    assert max(len(request.frames[2]) for request in due if request.uses) < 100 * 1024
    for request in due:
        requests.sent(0.0, request)
        if request.keys is KEYS:
            requests.receive(0.0, hsm.serve(request.frames))
    assert large.result()
    assert all(request.done for request in asked)
    assert len(requests) == 2 * SPREAD


def test_each_use_has_its_own_outcome_and_one_told_busy_is_asked_again_alone() -> None:
    requests, hsm = Requests(), Hsm(busy=1)
    asked = [use(requests, 0.0, data) for data in [b"busy", b"", *([b"good"] * (4 * SPREAD - 2))]]
    ended = deliver(requests, 0.0, hsm)
    assert ended == asked[1:]
    with pytest.raises(DataLength):
        asked[1].result()
    assert len(requests) == 1
    before = hsm.messages
    assert deliver(requests, BACK_OFF[0] * 2, hsm) == [asked[0]]
    assert asked[0].result() == {"data": b"busy"}
    assert hsm.messages == before + 1


def test_a_sealed_error_is_every_carried_uses_and_each_has_its_own_exception() -> None:
    requests = Requests()
    asked = [use(requests, 0.0, b"a") for _ in range(2 * SPREAD)]
    _, due = requests.turn(0.0)
    for carrier in due:
        requests.sent(0.0, carrier)
        requests.receive(0.1, reply(carrier, SessionEnded("logged out")))
    errors = [request.error for request in asked]
    assert all(isinstance(error, SessionEnded) for error in errors)
    assert len({id(error) for error in errors}) == len(asked)
    assert not len(requests)


def test_uses_end_at_their_own_deadlines_and_may_be_abandoned() -> None:
    requests, hsm = Requests(), Hsm()
    soon, later, gone, unsealed = (use(requests, 0.0, b"a", timeout=timeout) for timeout in (1.0, 5.0, 5.0, 5.0))
    requests.abandon(unsealed)
    padding = [use(requests, 0.0, b"b") for _ in range(4 * SPREAD - 3)]
    _, due = requests.turn(0.0)
    carrier = due[0]
    assert carrier.uses[:3] == [soon, later, gone]
    for request in due:
        requests.sent(0.0, request)
    requests.abandon(gone)
    for request in due[1:]:
        requests.receive(0.1, hsm.serve(request.frames))
    ended, _ = requests.turn(1.0)
    assert ended == [soon]
    assert isinstance(soon.error, DeadlineExceeded)
    ended = requests.receive(1.1, hsm.serve(carrier.frames))
    assert later in ended
    assert gone not in ended
    assert soon not in ended
    assert all(request.done for request in padding)
    assert (len(requests), requests.messages) == (0, 0)


def test_outcomes_that_do_not_fit_the_uses_are_no_answer() -> None:
    requests = Requests()
    asked = [use(requests, 0.0, b"a") for _ in range(2 * SPREAD)]
    _, (carrier, *_) = requests.turn(0.0)
    requests.sent(0.0, carrier)
    wrongs: list[dict[str, Any]] = [
        {"outcomes": []},
        {"outcomes": [[0, {}]]},
        {"outcomes": [[0, 1], [0, 1]]},
        {"data": b"a"},
    ]
    for wrong in wrongs:
        assert requests.receive(0.1, reply(carrier, wrong)) == []
    assert not any(request.done for request in asked)
    assert requests.receive(0.2, Hsm().serve(carrier.frames)) == carrier.uses
