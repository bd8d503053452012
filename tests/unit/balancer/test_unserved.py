"""A member whose workers serve nobody: what its HSM says of it, and what of that its balancer tells whom."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from lnh_common.errors import (
    DeadlineExceeded,
    LnhError,
    MemberExpelled,
    NoCluster,
    NotActivated,
    UnknownOperation,
    Unreachable,
)
from lnh_common.messages import hsm
from lnh_common.messages.base import Empty
from lnh_services.balancer import unserved
from lnh_services.balancer.backends import PATIENCE, Backend
from lnh_services.balancer.clients import Question
from lnh_services.balancer.routing import Router
from lnh_services.hsm.appliance import preconditions
from lnh_services.hsm.appliance.state import Appliance, HsmState, Phase
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.auth.console_attempts import KeptPassword, Verifier
from lnh_services.hsm.cluster import create
from lnh_services.hsm.crypto.argon2 import derive

NOW = 1_700_000_000


def in_cluster() -> HsmState:
    asked = credentials.derivation("partition owner", argon2=(64, 1, 1))
    kept = KeptPassword.of(credentials.material(asked, derive(asked)))
    state = HsmState(label="a", identity=os.urandom(32), so=Verifier(password=kept), domain="domain")
    return in_phase(create.begin(state, "prod", kept, NOW), Phase.CREATED)


def in_phase(state: HsmState, phase: Phase) -> HsmState:
    assert state.cluster is not None
    return replace(state, cluster=replace(state.cluster, phase=phase))


def expelled(state: HsmState) -> HsmState:
    return create.departing(state, Phase.SUSPENDED, hsm.Departure.EXPELLED, "entry 7")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda state: in_phase(state, Phase.CREATING), NoCluster, "begun here and not finished"),
        (lambda state: in_phase(state, Phase.JOINING), NoCluster, "it joins one"),
        (lambda state: in_phase(state, Phase.LEAVING), NoCluster, "it leaves"),
        (lambda state: create.left(in_phase(state, Phase.LEAVING)), NoCluster, "it is in none"),
        (expelled, MemberExpelled, "was removed"),
        (lambda state: create.left(expelled(state)), MemberExpelled, "was removed"),
    ],
)
def test_an_hsm_says_why_its_workers_serve_nobody(
    change: Callable[[HsmState], HsmState], error: type[LnhError], words: str
) -> None:
    state = in_cluster()
    assert preconditions.serving(preconditions.Situation(Appliance(), True, state)) is None
    refusal = preconditions.serving(preconditions.Situation(Appliance(), True, change(state)))
    assert type(refusal) is error
    assert words in str(refusal)


def test_a_sealed_hsm_and_one_without_a_state_say_so() -> None:
    assert type(preconditions.serving(preconditions.Situation(Appliance(), True, None))) is NotActivated
    refusal = preconditions.serving(preconditions.Situation(Appliance(), False, None))
    assert type(refusal) is NoCluster
    assert "not initialised" in str(refusal)


@pytest.mark.parametrize(
    ("answer", "told", "words"),
    [
        (NotActivated("sealed"), NotActivated, "sealed"),
        (NoCluster("left"), NoCluster, "left"),
        (MemberExpelled("removed"), MemberExpelled, "removed"),
        (Unreachable("is being activated"), Unreachable, "is being activated"),
        (DeadlineExceeded("nobody answers"), Unreachable, "no worker of this member is running"),
        (UnknownOperation("an older one"), Unreachable, "no worker of this member is running"),
        (Empty(), Unreachable, "is starting"),
    ],
)
def test_the_hsm_is_asked_while_requests_wait_and_its_word_is_told(
    answer: LnhError | Empty, told: type[LnhError], words: str
) -> None:
    heard: list[LnhError] = []
    waits = False
    steps = unserved.follow(lambda: waits, heard.append)
    assert [next(steps), *(steps.send(None) for _ in range(3))] == [0.0] * 4, "nobody waits, so nobody is asked"
    waits = True
    asked = steps.send(None)
    assert isinstance(asked, Question)
    assert asked.operation is hsm.SERVES
    assert (steps.throw(answer) if isinstance(answer, LnhError) else steps.send(answer)) == unserved.ASK_EVERY
    assert [type(each) for each in heard] == [told]
    assert words in str(heard[0])
    assert isinstance(steps.send(None), Question), "it is asked again: it may be another thing by now"


def ask(router: Router, now: float, client: bytes = b"c") -> object:
    request = router.admit(now, client, [b"header", b"", b"body"], "object.show", now + 10.0)
    assert request.backend is None
    return request


def test_a_lasting_word_ends_what_came_before_its_question_and_nothing_later() -> None:
    router = Router([Backend("0")])
    before, at_once = ask(router, 1.0), ask(router, 2.0)
    why = NotActivated("sealed")
    router.unserved(2.0, why)
    assert router.expire(2.1) == [(before, why)]
    assert list(router.waiting) == [at_once]
    assert router.requests == 1
    assert router.up(2.2, 0) == [at_once], "it was activated meanwhile"


def test_what_waits_in_vain_for_a_member_that_starts_hears_that_it_does() -> None:
    router = Router([Backend("0")])
    request = ask(router, 1.0)
    router.no_worker = "this member is starting"
    assert router.expire(1.0 + PATIENCE - 0.1) == []
    ((given_up, error),) = router.expire(1.0 + PATIENCE)
    assert (given_up, type(error), str(error)) == (request, Unreachable, "this member is starting")
