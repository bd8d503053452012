"""What waits for a second person: no calls of one person alone carry it out, and no approval is used twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnh_common import limits
from lnh_common.errors import AlreadyDone, LimitReached, LnhError, NotPossible, PermissionDenied
from lnh_common.messages.admin import Decision, Permission
from lnh_services.hsm.auth import approvals
from lnh_services.hsm.auth.approvals import KEPT, Ask, Asked, GoOn, Use, Wait
from lnh_services.hsm.auth.permissions import User
from lnh_services.hsm.records import ApprovalRecord

START: Final = 1_700_000_000
PERSONS: Final = ("alice", "bob", "carol")
MEMBERS: Final = (-limits.CLOCK_TOLERANCE, 0, limits.CLOCK_TOLERANCE)  # how far their clocks are off


def asked(who: str = "alice", what: int = 0) -> Asked:
    return Asked("keyring.delete", b"", {"keyring": bytes([what])}, frozenset({who}))


def opened(who: str = "alice", request: bytes = b"r", now: int = START) -> ApprovalRecord:
    step = approvals.next_step({}, asked(who), request, "", now)
    assert isinstance(step, Ask)
    return step.record


@dataclass
class Request:
    """One request with its name, which may come again for as long as a member takes it."""

    name: bytes
    asked: Asked
    made: int


@dataclass
class Begun:
    """A request that a worker has read for, and not committed for yet."""

    request: Request
    read: dict[bytes, int]
    step: GoOn | Wait | Use | Ask


@dataclass
class Cluster:
    """The table of approvals as the store keeps it, with versions, and the requests that workers carry out."""

    now: int = START
    table: dict[bytes, tuple[int, ApprovalRecord]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    begun: list[Begun] = field(default_factory=list)
    acted: dict[bytes, Asked] = field(default_factory=dict)  # by request
    approved_by: dict[bytes, set[str]] = field(default_factory=dict)  # by approval, of anybody ever
    uses: dict[bytes, set[bytes]] = field(default_factory=dict)  # requests, by approval
    asking: set[bytes] = field(default_factory=set)

    def ask(self, who: int, what: int, member: int) -> None:
        name = bytes([*divmod(len(self.requests), 256)])
        self.requests.append(Request(name, asked(PERSONS[who % 3], what % 2), self.now))
        self.begin(len(self.requests) - 1, member)

    def begin(self, which: int, member: int) -> None:
        """A worker takes a request, for the first time or again, and reads."""
        if not self.requests:
            return
        request, clock = self.requests[which % len(self.requests)], self.now + MEMBERS[member % 3]
        if abs(clock - request.made) > limits.ISSUED_AT_TOLERANCE:
            return
        kept = {id_: record for id_, (_, record) in self.table.items()}
        try:
            step = approvals.next_step(kept, request.asked, request.name, "", clock)
        except LimitReached:
            return
        self.begun.append(Begun(request, {id_: version for id_, (version, _) in self.table.items()}, step))

    def finish(self, which: int, _: int) -> None:
        """A worker commits what it decided, against what it read; or it died and never does."""
        if not self.begun:
            return
        begun = self.begun.pop(which % len(self.begun))
        request, step = begun.request, begun.step
        if isinstance(step, GoOn):
            self.act(request)
        elif isinstance(step, Use) and self.version(step.id) == begun.read[step.id]:
            self.table[step.id] = (begun.read[step.id] + 1, step.record)
            self.uses.setdefault(step.id, set()).add(request.name)
            assert self.approved_by[step.id] - request.asked.users, "another person approved it"
            assert request.asked.is_of(step.record), "and it was this that was approved"
            self.act(request)
        elif isinstance(step, Ask) and begun.read == {id_: version for id_, (version, _) in self.table.items()}:
            for gone in step.over:
                del self.table[gone]
            self.table[b"approval of " + request.name] = (1, step.record)
            self.asking.add(request.name)

    def act(self, request: Request) -> None:
        assert request.name not in self.asking, "its client was told that nothing was done"
        self.acted[request.name] = request.asked

    def version(self, id_: bytes) -> int:
        return self.table[id_][0] if id_ in self.table else 0

    def decide(self, who: int, which: int, member: int, *, decision: Decision) -> None:
        if not self.table:
            return
        id_ = sorted(self.table)[which % len(self.table)]
        version, record = self.table[id_]
        person = PERSONS[who % 3]
        try:
            record = approvals.decided(record, decision, frozenset({person}), self.now + MEMBERS[member % 3])
        except LnhError:
            return
        self.table[id_] = (version + 1, record)
        if decision is Decision.APPROVED:
            self.approved_by.setdefault(id_, set()).add(person)

    def wait(self, seconds: int) -> None:
        self.now += seconds

    def check(self) -> None:
        for id_, users in self.uses.items():
            assert len(users) == 1, f"{id_!r} was used by {users}"
        assert len(self.acted) == len(self.uses), "each request that acted used an approval of its own"


SMALL: Final = st.integers(0, 5)
STEPS: Final = st.one_of(
    st.tuples(st.just("ask"), SMALL, SMALL, SMALL),
    st.tuples(st.just("begin"), st.integers(0, 40), SMALL),
    st.tuples(st.just("finish"), SMALL, st.just(0)),
    st.tuples(st.just("approve"), SMALL, SMALL, SMALL),
    st.tuples(st.just("deny"), SMALL, SMALL, SMALL),
    st.tuples(st.just("wait"), st.sampled_from([1, 60, 299, 600, KEPT, limits.APPROVAL_SECONDS])),
)


def carried_out(steps: list[tuple[str, int, int, int]]) -> Cluster:
    cluster = Cluster()
    for name, *arguments in steps:
        if name in ("approve", "deny"):
            decision = Decision.APPROVED if name == "approve" else Decision.DENIED
            cluster.decide(*arguments, decision=decision)
        else:
            getattr(cluster, name)(*arguments)
        cluster.check()
    return cluster


@given(st.lists(STEPS, max_size=60))
def test_each_approval_of_another_lets_one_request_through_whatever_comes_again(
    steps: list[tuple[str, int, int, int]],
) -> None:
    carried_out(steps)


@given(st.lists(STEPS, max_size=60), st.integers(0, 2))
def test_nothing_that_one_person_does_carries_it_out(steps: list[tuple[str, int, int, int]], who: int) -> None:
    alone = [(name, who, *rest[1:]) if name in ("ask", "approve", "deny") else (name, *rest) for name, *rest in steps]
    assert not carried_out(alone).acted  # type: ignore[arg-type]


def test_the_model_carries_things_out() -> None:
    steps = [("ask", 0, 0, 1), ("finish", 0, 0), ("approve", 1, 0, 1), ("ask", 0, 0, 1), ("finish", 0, 0)]
    assert carried_out(steps).acted  # type: ignore[arg-type]


def test_who_asked_does_not_approve_and_may_take_it_back() -> None:
    record = opened()
    with pytest.raises(PermissionDenied, match="nobody approves what he asked for himself"):
        approvals.decided(record, Decision.APPROVED, frozenset({"alice"}), START)
    both = approvals.decided(record, Decision.APPROVED, frozenset({"alice", "bob"}), START)
    assert both.deciders == ("bob",)
    taken_back = approvals.decided(record, Decision.DENIED, frozenset({"alice"}), START)
    step = approvals.next_step({b"a": taken_back}, asked(), b"later", "", START)
    assert isinstance(step, Wait)
    assert step.record.decision is Decision.DENIED


def test_the_last_decision_before_the_use_counts() -> None:
    record = approvals.decided(opened(), Decision.APPROVED, frozenset({"bob"}), START)
    denied = approvals.decided(record, Decision.DENIED, frozenset({"carol"}), START)
    assert isinstance(approvals.next_step({b"a": denied}, asked(), b"later", "", START), Wait)
    again = approvals.decided(denied, Decision.APPROVED, frozenset({"bob"}), START)
    used = approvals.next_step({b"a": again}, asked(), b"later", "", START)
    assert isinstance(used, Use)
    with pytest.raises(AlreadyDone):
        approvals.decided(used.record, Decision.DENIED, frozenset({"carol"}), START)


def test_an_approval_ends() -> None:
    record = opened()
    last = START + limits.APPROVAL_SECONDS - 1
    approved = approvals.decided(record, Decision.APPROVED, frozenset({"bob"}), last)
    assert isinstance(approvals.next_step({b"a": approved}, asked(), b"later", "", last), Use)
    assert isinstance(approvals.next_step({b"a": approved}, asked(), b"later", "", last + 1), Ask)
    with pytest.raises(NotPossible, match="expired"):
        approvals.decided(record, Decision.APPROVED, frozenset({"bob"}), last + 1)
    later = last + KEPT + 2
    step = approvals.next_step({b"a": approved}, asked(), b"later", "", later)
    assert isinstance(step, Ask)
    assert step.over == (b"a",)


@pytest.mark.parametrize("other", [asked("bob"), asked(what=1), Asked("keyring.delete", b"k", {"keyring": b"\0"}, frozenset({"alice"})),
                                   Asked("member.remove", b"", {"keyring": b"\0"}, frozenset({"alice"})),
                                   Asked("keyring.delete", b"", {"keyring": b"\0", "force": True}, frozenset({"alice"})),
                                   Asked("keyring.delete", b"", {"keyring": b"\0"}, frozenset({"alice", "bob"}))])  # fmt: skip
def test_an_approval_is_for_the_same_alone(other: Asked) -> None:
    record = approvals.decided(opened(), Decision.APPROVED, frozenset({"carol"}), START)
    assert isinstance(approvals.next_step({b"a": record}, asked(), b"later", "", START), Use)
    assert isinstance(approvals.next_step({b"a": record}, other, b"later", "", START), Ask)


def test_arguments_that_python_calls_equal_are_not_the_same() -> None:
    one = Asked("cluster.policy", b"", {"changes": {"import": True}}, frozenset({"alice"}))
    other = Asked("cluster.policy", b"", {"changes": {"import": 1}}, frozenset({"alice"}))
    step = approvals.next_step({}, one, b"r", "", START)
    assert isinstance(step, Ask)
    assert one.is_of(step.record)
    assert not other.is_of(step.record)


def test_how_many_wait_has_a_bound_of_one_user_and_of_all() -> None:
    mine = {bytes([number]): opened(request=bytes([number])) for number in range(limits.APPROVALS_OF_ONE)}
    with pytest.raises(LimitReached, match="of one user"):
        approvals.next_step(mine, asked(what=9), b"later", "", START)
    assert isinstance(approvals.next_step(mine, asked("bob"), b"later", "", START), Ask)
    all_ = {number.to_bytes(2, "big"): opened(f"user{number}") for number in range(limits.APPROVALS)}
    with pytest.raises(LimitReached, match="of a cluster"):
        approvals.next_step(all_, asked(what=9), b"later", "", START)
    long = Asked("cluster.policy", b"", {"changes": {"x": bytes(limits.APPROVAL_BYTES)}}, frozenset({"alice"}))
    with pytest.raises(LimitReached, match="bytes"):
        approvals.next_step({}, long, b"later", "", START)


def test_two_persons_are_two_users_of_whom_one_may_and_the_other_approves() -> None:
    may, approves = frozenset({Permission.MEMBERS}), frozenset({Permission.APPROVE})
    both = may | approves
    for users, expected in (
        ((User("a", both),), False),
        ((User("a", both), User("a", both)), False),
        ((User("a", may), User("b", may)), False),
        ((User("a", approves), User("b", approves)), False),
        ((User("a", both), User("b", frozenset())), False),
        ((User("a", may), User("b", approves)), True),
        ((User("a", approves), User("b", may)), True),
    ):
        assert approvals.is_by_two(users, Permission.MEMBERS) is expected, users
