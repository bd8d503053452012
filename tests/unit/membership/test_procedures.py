"""Membership's procedures on hand-fed answers: the right questions in the right order, and refusals with a way out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lnh_common
from lnh_common import errors
from lnh_common.messages import hsm, store
from lnh_common.messages import membership as messages
from lnh_common.messages.base import Empty, Message
from lnh_common.messages.store import MemberInfo
from lnh_common.wire import codec
from lnh_services.membership import procedures
from lnh_services.membership.steps import Ask, Here, Pause, Steps, There

CLUSTER = b"c" * 16


def member(name: str, port: int) -> MemberInfo:
    return MemberInfo(id=name.encode() * 16, name=name, host="host", port=port, key=name.encode() * 32)


A, B, C = member("a", 7100), member("b", 7200), member("c", 7300)


class World:
    """Answers what a procedure asks; `silent` members answer nobody."""

    def __init__(self, *members: MemberInfo, primary: MemberInfo = A, this: MemberInfo = A) -> None:
        self.members = list(members)
        self.removed: tuple[store.RemovedMember, ...] = ()
        self.primary, self.this = primary, this
        self.silent: set[bytes] = set()
        self.in_sync = {each.id for each in members}
        self.promotes = True
        self.asked: list[str] = []
        self.told: list[Message] = []
        self.paused = 0.0
        self.answers: dict[str, Callable[[Any], Message]] = {}

    def status(self) -> store.Status:
        return store.Status(
            state="read-write", cluster=CLUSTER, member=self.this.id, primary=self.primary.id, epoch=3,
            in_sync=tuple(self.in_sync), last_index=7, committed_index=7, applied_index=7, items=0, bytes_on_disk=0,
            commits_per_second=0.0, members=tuple(self.members), removed=self.removed,
            promotable=tuple(self.in_sync) if self.primary is self.this else None,
            take_over_of=(self.primary.id,) if self.primary.id else tuple(each.id for each in self.members),
        )  # fmt: skip

    def run(self, steps: Steps[Any]) -> Any:
        answer: Message | errors.LnhError | None = None
        try:
            while True:
                step = steps.throw(answer) if isinstance(answer, errors.LnhError) else steps.send(answer)
                if isinstance(step, Pause):
                    self.paused += step.seconds
                    answer = None
                    continue
                self.asked.append(step.operation.name)
                try:
                    answer = self._answer(step)
                except errors.LnhError as error:
                    answer = error
        except StopIteration as done:
            return done.value

    def _answer(self, step: Ask) -> Message:
        if step.operation.name in self.answers:
            return self.answers[step.operation.name](step.message)
        match step.message:
            case Empty():
                return self.status()
            case messages.Hello():
                assert isinstance(step.whom, There)
                (asked,) = (each for each in self.members if procedures.membership_of(each) == step.whom)
                if asked.id in self.silent:
                    raise errors.Unreachable("nobody answers")
                return messages.Welcome(cluster=CLUSTER, member=asked.id, product=lnh_common.VERSION, listed=True)
            case store.SetMember(member=changed):
                self.members = [each for each in self.members if each.id != changed.id] + [changed]
                return store.Committed(index=8)
            case store.MemberRef(member=which) if step.operation is store.PROMOTE:
                if self.promotes:
                    self.primary = next(each for each in self.members if each.id == which)
                return Empty()
            case store.MemberRef(member=which):
                self.members = [each for each in self.members if each.id != which]
                self.removed += (store.RemovedMember(member=which, epoch=3, index=8),)
                return store.Committed(index=8)
            case hsm.Depart() | messages.Dismissed():
                self.told.append(step.message)
                if isinstance(step.message, messages.Dismissed) and step.message.member in self.silent:
                    raise errors.Unreachable("nobody answers")
                return Empty()
        raise AssertionError(f"nobody answers {step.operation.name}")


def remove(which: MemberInfo, *, lost: bool = False) -> messages.Remove:
    return messages.Remove(member=which.id, proof=b"proof", lost=lost)


def advice(error: pytest.ExceptionInfo[errors.LnhError]) -> str:
    return str(error.value.detail.get("advice", ""))


# --- doors


@pytest.mark.parametrize(
    ("listed", "state", "version", "told"),
    [
        (b"", "read-write", {"product": "0.2"}, [b"d" * 32]),
        (b"e" * 32, "read-write", {"product": "0.2", "is-new": 1}, [b"d" * 32]),
        (b"d" * 32, "read-write", {"product": "0.2"}, []),
        (b"", "read-only", {"product": "0.2"}, []),
        (b"", "read-write", {}, []),  # some member may not read such a list
        (b"", "read-write", None, []),
    ],
)
def test_a_member_says_what_its_door_is_when_the_list_says_otherwise(
    listed: bytes, state: str, version: dict[str, object] | None, told: list[bytes]
) -> None:
    world = World(msgspec.structs.replace(A, door=listed), B)
    doors: list[bytes] = []

    def answer(asked: store.SetDoor) -> Message:
        assert asked.member == A.id
        doors.append(asked.door)
        return store.Committed(index=8)

    def got(asked: store.Get) -> Message:
        assert asked.key == store.CLUSTER
        if version is None:
            return store.Got(item=None, index=8, current=True)
        item = store.Item(key=store.CLUSTER, version=1, head=codec.encode({"label": "it"} | version))
        return store.Got(item=item, index=8, current=True)

    world.answers["store.member.door"] = answer
    world.answers["store.get"] = got
    status = msgspec.structs.replace(world.status(), state=state)
    world.run(procedures.say_door(status, b"d" * 32))
    assert doors == told


# --- groups


def test_groups_are_changed_by_the_store() -> None:
    world = World(A, B)
    order = store.CreateGroup(group="east", request=b"r" * 16)
    asked: list[Message] = []

    def answer(message: Message) -> Message:
        asked.append(message)
        return store.Committed(index=8)

    world.answers["store.group.create"] = answer
    world.run(procedures.regroup(store.GROUP_CREATE, order))
    assert asked == [order]


# --- joining

ASKING = messages.AskToJoin(host="host", port=7101, key=A.key, invitation=bytes(32), request=b"request")


def welcome(**changed: Any) -> Callable[[Any], Message]:
    said = messages.Welcome(cluster=CLUSTER, member=A.id, product=lnh_common.VERSION, listed=False)
    return lambda _: msgspec.structs.replace(said, **changed)


def test_a_request_to_join_is_brought_to_the_member_of_the_invitation() -> None:
    world = World(A)
    world.answers["member.join"] = lambda asked: messages.Joined(reply=asked.request + b" answered")
    assert world.run(procedures.ask_to_join(ASKING)).reply == b"request answered"
    assert world.asked == ["member.hello", "member.join"]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (welcome(product="9.0.0"), errors.UnsupportedVersion),
        (welcome(cluster=b""), errors.NoCluster),
    ],
)
def test_what_stands_in_the_way_is_found_before_the_invitation_is_used(
    said: Callable[[Any], Message], error: type[errors.LnhError]
) -> None:
    world = World(A)
    world.answers["member.hello"] = said
    with pytest.raises(error):
        world.run(procedures.ask_to_join(ASKING))
    assert world.asked == ["member.hello"]


@pytest.mark.parametrize(
    ("own", "inviter", "fits"),
    [
        ("0.2.0", "0.1.0", True), ("0.1.0", "0.2.0", True), ("0.1.5", "0.1.0", True),
        ("0.3.0", "0.1.0", False), ("0.1.0", "0.3.0", False),
    ],
)  # fmt: skip
def test_a_member_joins_members_at_most_one_minor_version_away(
    own: str, inviter: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lnh_common, "VERSION", own)
    world = World(A)
    world.answers["member.hello"] = welcome(product=inviter)
    world.answers["member.join"] = lambda _: messages.Joined(reply=b"welcome")
    if fits:
        assert world.run(procedures.ask_to_join(ASKING)).reply == b"welcome"
    else:
        with pytest.raises(errors.UnsupportedVersion, match=f"{inviter} and version {own}"):
            world.run(procedures.ask_to_join(ASKING))
        assert world.asked == ["member.hello"], "nothing was used up"


def admitted(_: Any) -> Message:
    return hsm.Admitted(reply=b"sealed", member=B)


def test_the_answer_leaves_only_after_the_new_member_is_listed() -> None:
    world = World(A)
    world.answers["hsm.admit"] = admitted
    joined = world.run(procedures.admit(B.key, messages.RequestToJoin(invitation=bytes(32), request=b"")))
    assert (joined.reply, joined.warning) == (b"sealed", "")
    assert world.asked == ["hsm.admit", "store.member.set", "store.status"]
    assert world.members == [A, B]

    def refused(_: Any) -> Message:
        raise errors.MemberReadOnly("cut off")

    world.answers["store.member.set"] = refused
    with pytest.raises(errors.MemberReadOnly):
        world.run(procedures.admit(B.key, messages.RequestToJoin(invitation=bytes(32), request=b"")))


def test_a_request_under_another_key_than_the_members_is_refused() -> None:
    world = World(A)
    world.answers["hsm.admit"] = admitted
    with pytest.raises(errors.PermissionDenied):
        world.run(procedures.admit(C.key, messages.RequestToJoin(invitation=bytes(32), request=b"")))
    assert world.members == [A]


def test_a_fifth_member_works_with_a_warning() -> None:
    world = World(A, C, member("d", 7400), member("e", 7500))
    world.answers["hsm.admit"] = admitted
    joined = world.run(procedures.admit(B.key, messages.RequestToJoin(invitation=bytes(32), request=b"")))
    assert "5 members now; 4 is the recommended maximum" in joined.warning
    assert procedures.size_warning(4) == ""


# --- changing, promoting


def test_names_and_addresses_stay_unique() -> None:
    world = World(A, B)
    with pytest.raises(errors.NameTaken, match="member a"):
        world.run(procedures.set_member(msgspec.structs.replace(B, name="a")))
    with pytest.raises(errors.NameTaken, match="address host:7100"):
        world.run(procedures.set_member(msgspec.structs.replace(B, port=7100)))
    with pytest.raises(errors.NameUnknown):
        world.run(procedures.set_member(C))
    changed = msgspec.structs.replace(B, name="new", host="elsewhere")
    world.run(procedures.set_member(changed))
    assert world.members == [A, changed]


def test_promotion_returns_when_the_other_is_primary() -> None:
    world = World(A, B)
    world.run(procedures.promote(B.id))
    assert world.primary is B
    assert "is the primary" in world.run(procedures.promote(B.id)).remark, "asked again, it is no error"
    assert world.asked.count("store.promote") == 1


def test_a_member_that_is_not_in_step_is_not_promoted() -> None:
    world = World(A, B)
    world.in_sync = {A.id}
    with pytest.raises(errors.NotPossible, match="b is not in step") as refused:
        world.run(procedures.promote(B.id))
    assert "lnh member list" in advice(refused)
    assert "store.promote" not in world.asked


def test_a_promotion_that_does_not_end_says_how_to_go_on_after_ten_seconds() -> None:
    world = World(A, B)
    world.promotes = False
    with pytest.raises(errors.OutcomeUnknown) as unknown:
        world.run(procedures.promote(B.id))
    assert world.paused == pytest.approx(10, abs=0.2)
    assert "lnh member delete" in advice(unknown)


# --- removing


def test_a_removed_member_is_told_after_it_was_removed() -> None:
    world = World(A, B, C)
    assert world.run(procedures.remove(remove(B))).remark == ""
    assert world.members == [A, C]
    assert world.asked.index("store.member.remove") < world.asked.index("member.dismissed")
    (word,) = world.told
    assert isinstance(word, messages.Dismissed)
    assert (word.member, word.left, word.proof, word.cluster) == (B.id, False, b"proof", CLUSTER)


@pytest.mark.parametrize("left", [True, False])
def test_a_member_that_goes_by_its_own_order_has_its_own_hsm_told(left: bool) -> None:
    world = World(A, B, primary=B)
    if left:
        world.run(procedures.leave(messages.Leave(member=A.id, proof=b"proof")))
    else:
        world.run(procedures.remove(remove(A)))
    (word,) = world.told
    assert isinstance(word, hsm.Depart)
    assert word.departure is (hsm.Departure.LEFT if left else hsm.Departure.EXPELLED)
    assert word.proof == b"proof"


@pytest.mark.parametrize("procedure", [procedures.remove, procedures.remove_lost])
def test_an_order_sent_again_as_its_answer_was_lost_says_that_it_was_carried_out(
    procedure: Callable[[messages.Remove], Steps[messages.Done]],
) -> None:
    world = World(A, B, C)
    world.silent = {B.id} if procedure is procedures.remove_lost else set()
    world.run(procedure(remove(B)))
    asked = len(world.asked)
    assert "removed before" in world.run(procedure(remove(B))).remark
    assert world.asked[asked:] == ["store.status"]


def test_one_that_did_not_hear_is_removed_all_the_same_and_the_answer_says_so() -> None:
    world = World(A, B)
    world.answers["member.hello"] = welcome(member=B.id)
    world.silent = {B.id}
    assert "has not heard" in world.run(procedures.remove(remove(B))).remark


REFUSALS = [
    ("the primary", lambda: (World(A, B), procedures.remove(remove(A))), "is the primary", "lnh member promote"),
    ("primary leaves", lambda: (World(A, B), procedures.leave(messages.Leave(member=A.id, proof=b""))), "is the primary", "promote"),
    ("the last", lambda: (World(A), procedures.remove(remove(A))), "last member", "lnh cluster delete"),
    ("lost, but this one", lambda: (World(A, B, primary=B), procedures.remove_lost(remove(A, lost=True))), "not lost", "leave"),
    ("lost, but answers", lambda: (World(A, B), procedures.remove_lost(remove(B, lost=True))), "not lost", "lnh member remove b"),
    ("delete with others", lambda: (World(A, B), procedures.delete_cluster(messages.Leave(member=A.id, proof=b""))), "b", "remove each"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words", "way_out"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_a_refusal_says_which_condition_failed_and_what_to_do(make: Any, words: str, way_out: str) -> None:
    world, steps = make()
    with pytest.raises(errors.NotPossible, match=words) as refused:
        world.run(steps)
    assert way_out in advice(refused)
    assert set(world.asked) <= {"store.status", "member.hello"}


def test_one_that_does_not_answer_is_deleted_not_removed() -> None:
    world = World(A, B, C)
    world.silent = {B.id}
    with pytest.raises(errors.NotPossible, match="does not answer") as refused:
        world.run(procedures.remove(remove(B)))
    assert "lnh member delete b" in advice(refused)
    world.run(procedures.remove_lost(remove(B, lost=True)))
    assert world.members == [A, C]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("force", [False, True])
def test_a_lost_primarys_place_is_taken_over(force: bool, known: bool) -> None:
    """Also by a member that does not know who is primary: it was started since, or its first try was refused."""
    world = World(A, B, C, this=B, primary=A if known else msgspec.structs.replace(A, id=b""))
    world.silent = {A.id}
    orders: list[Message] = []

    def taken(order: Message) -> Message:
        orders.append(order)
        return store.Committed(index=9)

    world.answers["store.takeover"] = taken
    order = msgspec.structs.replace(remove(A, lost=True), force=force)
    assert "another member is primary" in world.run(procedures.remove_lost(order)).remark
    assert orders == [store.TakeOver(lost=(A.id,), force=force)]


def test_what_a_member_dropped_is_asked_of_itself() -> None:
    found = store.Divergent(diverged=True, files=(), aside=("old.db",))
    world = World(A, B)
    world.answers = {
        "store.divergent": lambda _: found,
        "member.divergent": lambda _: found,
        "store.divergent.acknowledge": lambda _: Empty(),
    }
    assert world.run(procedures.look_at_divergent(messages.LookAtDivergent(member=B.id, seen=True))) == found
    assert world.run(procedures.look_at_divergent(messages.LookAtDivergent(member=A.id))) == found
    world.run(procedures.look_at_divergent(messages.LookAtDivergent(member=A.id, seen=True)))
    assert [name for name in world.asked if "divergent" in name] == [
        "member.divergent", "store.divergent", "store.divergent", "store.divergent.acknowledge",
    ]  # fmt: skip


def test_one_that_leaves_and_is_cut_off_before_it_is_told_still_wipes() -> None:
    world = World(A, B, primary=B)

    def cut_off(order: store.MemberRef) -> Message:
        world.members = [B]
        raise errors.OutcomeUnknown("the connection broke")

    world.answers["store.member.remove"] = cut_off
    world.run(procedures.leave(messages.Leave(member=A.id, proof=b"proof")))
    world.run(procedures.leave(messages.Leave(member=A.id, proof=b"proof")))
    assert [type(word) for word in world.told] == [hsm.Depart, hsm.Depart]


def test_a_removal_whose_outcome_is_unknown_is_not_taken_for_done() -> None:
    world = World(A, B)

    def lost(order: store.MemberRef) -> Message:
        raise errors.OutcomeUnknown("the connection broke")

    world.answers["store.member.remove"] = lost
    with pytest.raises(errors.OutcomeUnknown):
        world.run(procedures.remove(remove(B)))
    assert world.told == []


class CutOff(Exception):
    """The process that ran the procedure died."""


ORDERS: dict[str, Callable[[], Steps[Any]]] = {
    "set": lambda: procedures.set_member(msgspec.structs.replace(B, name="new")),
    "promote": lambda: procedures.promote(B.id),
    "remove": lambda: procedures.remove(remove(C)),
    "leave": lambda: procedures.leave(messages.Leave(member=C.id, proof=b"proof")),
    "lost": lambda: procedures.remove_lost(remove(C, lost=True)),
}


@given(st.sampled_from(sorted(ORDERS)), st.lists(st.tuples(st.integers(1, 8), st.booleans()), max_size=4))
def test_an_order_cut_off_anywhere_and_given_again_ends_as_if_it_had_not_been(
    order: str, deaths: list[tuple[int, bool]]
) -> None:
    """Each death is at the `n`th question of that attempt: before it is asked, or once it is carried out."""

    def world() -> World:
        made = World(A, B, C)
        made.silent = {C.id} if order == "lost" else set()
        return made

    whole, broken = world(), world()
    whole.run(ORDERS[order]())
    for at, carried_out in deaths:
        with suppress(CutOff, errors.NameUnknown):
            broken.run(dying(broken, ORDERS[order](), at, carried_out=carried_out))
    with suppress(errors.NameUnknown):  # it is gone already: an attempt that was cut off had done it
        broken.run(ORDERS[order]())
    assert broken.members == whole.members
    assert broken.primary == whole.primary


def dying(world: World, steps: Steps[Any], at: int, *, carried_out: bool) -> Steps[Any]:
    """The procedure, until its process dies at its `at`th question."""
    answer: Message | errors.LnhError | None = None
    for number in count(1):
        try:
            step = steps.throw(answer) if isinstance(answer, errors.LnhError) else steps.send(answer)
        except StopIteration as done:
            return done.value
        if number == at:
            if carried_out and isinstance(step, Ask):
                with suppress(errors.LnhError):
                    world._answer(step)
            raise CutOff
        try:
            answer = yield step
        except errors.LnhError as error:
            answer = error
    raise AssertionError("a procedure ends")


def test_the_last_member_deletes_the_cluster() -> None:
    world = World(A)
    world.run(procedures.delete_cluster(messages.Leave(member=A.id, proof=b"proof")))
    (word,) = world.told
    assert isinstance(word, hsm.Depart)
    assert (word.cluster, word.departure, word.proof) == (CLUSTER, hsm.Departure.DELETED, b"proof")
    with pytest.raises(errors.NameUnknown):
        world.run(procedures.delete_cluster(messages.Leave(member=B.id, proof=b"")))


def test_orders_need_a_cluster() -> None:
    world = World(A)
    nothing = msgspec.structs.replace(world.status(), cluster=b"")
    world.answers["store.status"] = lambda _: nothing
    for steps in (procedures.promote(A.id), procedures.remove(remove(A)), procedures.set_member(A)):
        with pytest.raises(errors.NoCluster):
            world.run(steps)


def test_where_a_service_of_this_member_is_asked_and_where_another() -> None:
    assert procedures.membership_of(B) == There("host", 7201, B.key)
    first = procedures.admit(B.key, messages.RequestToJoin(invitation=bytes(32), request=b"")).send(None)
    assert isinstance(first, Ask)
    assert first.whom is Here.HSM
