"""Whom a balancer may have work done by, and until when, as membership's view tells it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lnh_common.errors import DeadlineExceeded
from lnh_common.messages import admin, membership, objects, session
from lnh_common.messages.base import Operation
from lnh_services.balancer.clients import Question
from lnh_services.balancer.neighbours import (
    ASK_EVERY,
    ASK_EVERY_ALONE,
    ASK_EVERY_AT_LEAST,
    MARGIN,
    Neighbours,
)
from lnh_services.balancer.operations import ROUTED, STAYS

DOOR, OTHER, THIRD = (bytes([number]) * 32 for number in (1, 2, 3))


def member(number: int, door: bytes, group: str = "local", address: str = "10.0.0.1:7100") -> membership.MemberState:
    return membership.MemberState(
        id=bytes([number]) * 16, name=f"member-{number}", address=address, role="secondary", state="read-write", group=group,
        product="", door=door,
    )  # fmt: skip


def view(*members: membership.MemberState, lease_ms: int = 1500) -> membership.View:
    return membership.View(cluster=b"C" * 16, primary=b"", epoch=1, members=members, services=(), lease_ms=lease_ms)


def told(shown: membership.View, asked_at: float = 100.0) -> Neighbours:
    neighbours = Neighbours(DOOR)
    neighbours.take(asked_at, shown)
    return neighbours


def test_the_others_are_those_listed_with_a_key_and_near_in_the_same_group() -> None:
    neighbours = told(
        view(member(1, DOOR, "a"), member(2, OTHER, "a", "fd00::2:7200"), member(3, THIRD, "b"), member(4, b""))
    )
    assert neighbours.group == "a"
    assert {other.name: other.near for other in neighbours.others.values()} == {"member-2": True, "member-3": False}
    assert [other.endpoint for other in neighbours.others.values()] == ["tcp://[fd00::2]:7203", "tcp://10.0.0.1:7103"]


def test_work_is_done_elsewhere_until_the_lease_ends_as_counted_from_the_question() -> None:
    neighbours = told(view(member(1, DOOR), member(2, OTHER), lease_ms=1500))
    assert neighbours.alone(100.0) == ""
    assert neighbours.alone(101.5 - MARGIN - 0.01) == ""
    assert neighbours.alone(101.5 - MARGIN) == "membership has not said lately that its lease goes on"


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (
            view(msgspec.structs.replace(member(1, DOOR), state="read-only"), member(2, OTHER), lease_ms=0),
            "it is read-only",
        ),
        (view(msgspec.structs.replace(member(1, DOOR), state="damaged"), member(2, OTHER)), "it is damaged"),
        (view(member(1, DOOR), member(2, b""), lease_ms=1500), "there is no other member to work with"),
        (view(member(2, OTHER), lease_ms=1500), "it is not listed with its balancer's key"),
        (msgspec.structs.replace(view(member(1, b"")), cluster=b"", lease_ms=0), "there is no cluster"),
    ],
)
def test_it_says_why_a_member_works_alone(shown: membership.View, why: str) -> None:
    assert told(shown).alone(100.0) == why


def test_a_member_that_was_removed_has_nobody_to_talk_to() -> None:
    removed = msgspec.structs.replace(member(1, DOOR), state="expelled")
    neighbours = told(view(removed, member(2, OTHER), lease_ms=0))
    assert neighbours.others == {}
    assert neighbours.alone(100.0) == "it was removed from the cluster"


def test_before_the_first_answer_and_when_nobody_answers_it_works_alone() -> None:
    neighbours = Neighbours(DOOR)
    assert neighbours.alone(0.0)
    neighbours.take(100.0, view(member(1, DOOR), member(2, OTHER)))
    neighbours.take(101.0, msgspec.structs.replace(view(), cluster=b"", lease_ms=0))
    assert neighbours.others == {}
    assert neighbours.alone(101.0) == "there is no cluster"


def test_the_view_is_asked_for_often_while_there_are_others_and_errors_end_nothing() -> None:
    neighbours = Neighbours(DOOR)
    moments = iter((100.0, 200.0, 300.0))
    steps = neighbours.follow(lambda: next(moments))

    def asks(step: Any) -> bool:
        return isinstance(step, Question) and step.operation is membership.STATUS

    assert asks(next(steps))
    assert steps.send(view(member(1, DOOR), member(2, OTHER))) == ASK_EVERY
    assert asks(steps.send(None))
    assert steps.throw(DeadlineExceeded("no answer")) == ASK_EVERY
    assert neighbours.alone(100.1) == "", "what was heard holds until its lease ends"
    assert asks(steps.send(None))
    assert steps.send(view(member(1, DOOR))) == ASK_EVERY_ALONE
    assert neighbours.others == {}


@pytest.mark.parametrize(
    ("shown", "pause"),
    [
        (view(member(1, DOOR), member(2, OTHER), lease_ms=1500), ASK_EVERY),
        (view(member(1, DOOR), member(2, OTHER), lease_ms=600), 0.3),
        (view(member(1, DOOR), member(2, OTHER), lease_ms=10), ASK_EVERY_AT_LEAST),
        (view(member(1, DOOR), member(2, OTHER), lease_ms=0), ASK_EVERY),
        (view(member(1, DOOR), lease_ms=900), ASK_EVERY_ALONE),
        (view(member(2, OTHER)), ASK_EVERY),
        (msgspec.structs.replace(view(member(1, b"")), cluster=b"", lease_ms=0), ASK_EVERY),
    ],
    ids=["usual", "a short lease", "one about to end", "read-only", "one member", "not listed yet", "no cluster yet"],
)
def test_the_view_is_asked_for_again_before_what_it_vouched_for_ends(shown: membership.View, pause: float) -> None:
    steps = Neighbours(DOOR).follow(lambda: 100.0)
    next(steps)
    assert steps.send(shown) == pause


def test_what_is_about_a_member_is_told_apart_from_what_any_may_do() -> None:
    about_one: tuple[Operation[Any, Any], ...] = (
        admin.STATUS,
        admin.CLUSTER_SHOW,
        admin.CLUSTER_VERSION,
        admin.CLUSTER_UPGRADE,
        admin.CLUSTER_LEAVE,
        admin.CLUSTER_DELETE,
        admin.MEMBER_PROMOTE,
        session.HELLO,
    )
    by_any: tuple[Operation[Any, Any], ...] = (
        objects.SIGN, objects.GENERATE_PAIR, objects.DESTROY, objects.FIND, session.LOGIN, session.RENEW, session.LOGOUT,
        session.REGISTER, session.CHANGE_PASSWORD, admin.KEYRING_CREATE, admin.USER_ADD, admin.CLIENT_REVOKE,
    )  # fmt: skip
    assert {row.name for row in about_one} <= STAYS
    assert {name for name in ROUTED if name.startswith(("backup.", "member.", "audit.", "status."))} <= STAYS
    assert {row.name for row in by_any} <= ROUTED - STAYS
    assert session.HELLO.name in ROUTED & STAYS
