"""Members and affinity groups: what an order about them does to the list, and why it is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, LimitReached, LnhError, NameTaken, NameUnknown, NotPossible
from lnh_common.messages.store import MemberInfo
from lnh_services.store.log import entries
from lnh_services.store.log.entries import ClusterId, Epoch, MemberId, Members, Milliseconds, Open
from lnh_services.store.log.window import Configuration
from lnh_services.store.replication import member_list
from lnh_services.store.replication.messages import CreateGroup, DeleteGroup, Listing, MoveMember, SetDoor, SetMember

A, B, C = (MemberId(letter * 16) for letter in (b"A", b"B", b"C"))
INFO = {id_: MemberInfo(id=id_, name=id_[:1].decode(), host="::1", port=4000, key=bytes(32)) for id_ in (A, B, C)}
BEGUN = entries.make_entry(
    entries.genesis(ClusterId(b"C" * 16)), Epoch(1, A), Milliseconds(1), Open((INFO[A], INFO[B]), (A, B))
)
START = Configuration().after(BEGUN)
_numbers = iter(range(1, 10**9))


def request() -> bytes:
    return next(_numbers).to_bytes(16, "big")


def after(configuration: Configuration, *orders: Listing) -> Configuration:
    """What stands once these were carried out."""
    for order in orders:
        content = member_list.change(configuration, order)
        if content is not None:
            configuration = configuration.after(
                entries.make_entry(BEGUN.position(), Epoch(1, A), Milliseconds(1), content)
            )
    return configuration


def create(*labels: str) -> list[Listing]:
    return [CreateGroup(label, request()) for label in labels]


def move(member: MemberId, group: str) -> MoveMember:
    return MoveMember(member, group, request())


def groups_of(configuration: Configuration) -> dict[str, str]:
    return {member.name: member.group for member in configuration.members}


def advice(refused: pytest.ExceptionInfo[LnhError]) -> str:
    return str(refused.value.detail.get("advice", ""))


def test_a_cluster_begins_with_the_group_local_and_everybody_in_it() -> None:
    assert START.groups == ("local",)
    assert groups_of(START) == {"A": "local", "B": "local"}


def test_a_member_is_moved_and_a_new_one_is_in_local_whatever_it_says() -> None:
    moved = after(START, *create("east"), move(B, "east"))
    joined = after(moved, SetMember(msgspec.structs.replace(INFO[C], group="east")))
    assert groups_of(joined) == {"A": "local", "B": "east", "C": "local"}
    assert joined.groups == ("east", "local")
    assert C in dict(joined.joining)


def test_local_is_deleted_like_any_other_group_and_made_again_for_a_new_member() -> None:
    gone = after(START, *create("east"), move(A, "east"), move(B, "east"), DeleteGroup("local", request()))
    assert gone.groups == ("east",)
    again = after(gone, SetMember(INFO[C]))
    assert (again.groups, groups_of(again)["C"]) == (("east", "local"), "local")


def test_another_name_or_address_leaves_group_and_door_as_they_are() -> None:
    moved = after(START, *create("east"), move(B, "east"), SetDoor(B, b"d" * 32))
    renamed = after(moved, SetMember(msgspec.structs.replace(INFO[B], name="beta", port=9)))
    (beta,) = (member for member in renamed.members if member.id == B)
    assert (beta.name, beta.port, beta.group, beta.door) == ("beta", 9, "east", b"d" * 32)
    assert member_list.change(renamed, SetMember(msgspec.structs.replace(INFO[B], name="beta", port=9))) is None


@pytest.mark.parametrize(
    ("order", "error", "says", "advises"),
    [
        (CreateGroup("local", b"r"), NameTaken, "there is a group 'local'", ""),
        (CreateGroup("", b"r"), ArgumentInvalid, "1 to 64 printable characters", ""),
        (CreateGroup(" east", b"r"), ArgumentInvalid, "no space at an end", ""),
        (CreateGroup("ea\nst", b"r"), ArgumentInvalid, "printable", ""),
        (CreateGroup("e" * 65, b"r"), ArgumentInvalid, "1 to 64", ""),
        (DeleteGroup("nowhere", b"r"), NameUnknown, "no group 'nowhere'; there are: east, local", ""),
        (DeleteGroup("local", b"r"), NotPossible, "'local' has members: A, B", "lnh member move"),
        (MoveMember(A, "nowhere", b"r"), NameUnknown, "no group 'nowhere'; there are: east, local", ""),
        (MoveMember(C, "east", b"r"), NameUnknown, "no member", ""),
        (SetDoor(C, b"d" * 32), NameUnknown, "no member", ""),
    ],
)
def test_a_refusal_names_the_condition_and_what_to_do(
    order: Listing, error: type[LnhError], says: str, advises: str
) -> None:
    configuration = after(START, *create("east"))
    with pytest.raises(error) as refused:
        member_list.change(configuration, order)
    assert says in str(refused.value)
    assert advises in advice(refused)


def test_the_last_group_stays() -> None:
    with pytest.raises(NotPossible, match="the last group") as refused:
        member_list.change(START, DeleteGroup("local", request()))
    assert "lnh group create" in advice(refused)


def test_there_are_64_groups_at_most_and_one_of_them_is_kept_for_local() -> None:
    full = after(START, *create(*(f"g{number}" for number in range(limits.GROUPS - 1))))
    assert len(full.groups) == limits.GROUPS
    with pytest.raises(LimitReached, match="64 groups; at most 64") as refused:
        member_list.change(full, CreateGroup("more", request()))
    assert "lnh group delete" in advice(refused)
    without = after(full, move(A, "g0"), move(B, "g0"), DeleteGroup("local", request()))
    with pytest.raises(LimitReached, match="kept for 'local'"):
        member_list.change(without, CreateGroup("more", request()))
    assert len(after(without, SetMember(INFO[C])).groups) == limits.GROUPS
    assert len(after(without, CreateGroup("local", request())).groups) == limits.GROUPS


def test_a_request_that_comes_again_changes_nothing_even_if_it_was_undone_meanwhile() -> None:
    there = move(B, "east")
    made = CreateGroup("east", request())
    moved = after(START, made, there)
    back = after(moved, move(B, "local"))
    assert after(back, there, made) == back
    deleted = DeleteGroup("east", request())
    gone = after(back, deleted)
    assert after(gone, deleted, made, there) == gone


def test_a_list_of_version_0_1_leaves_the_groups_as_they_were() -> None:
    configuration = after(START, *create("east"), move(B, "east"))
    entry = entries.make_entry(BEGUN.position(), Epoch(1, A), Milliseconds(1), Members(configuration.members))
    assert configuration.after(entry) == configuration


def test_what_has_no_group_and_no_door_is_encoded_as_by_version_0_1() -> None:
    entry = entries.make_entry(BEGUN.position(), Epoch(1, A), Milliseconds(1), Members((INFO[A],)))
    for word in (b"group", b"door", b"request"):
        assert word not in entry.payload


_LABELS = st.sampled_from(["local", "east", "west", ""])
_IDS = st.sampled_from([A, B, C])
_REQUESTS = st.integers(0, 6).map(lambda number: number.to_bytes(16, "big"))  # now and then one that was there
_ORDERS = st.one_of(
    st.builds(CreateGroup, _LABELS, _REQUESTS),
    st.builds(DeleteGroup, _LABELS, _REQUESTS),
    st.builds(MoveMember, _IDS, _LABELS, _REQUESTS),
    st.builds(SetDoor, _IDS, st.just(b"d" * 32)),
    st.builds(lambda id_: SetMember(INFO[id_]), _IDS),
)


@given(st.lists(_ORDERS, max_size=30))
def test_whatever_is_ordered_each_member_is_in_one_group_that_there_is(
    orders: list[Listing],
) -> None:
    configuration, acted = START, set()
    for order in orders:
        name = getattr(order, "request", b"")
        try:
            later = after(configuration, order)
        except LnhError:
            assert name not in acted, "what was done is not refused when it is asked again"
            continue
        if name in acted:
            assert (later.members, later.groups) == (configuration.members, configuration.groups)
        elif name:
            acted.add(name)
        configuration = later
        assert {member.group for member in configuration.members} <= set(configuration.groups)
        assert 1 <= len(configuration.groups) <= limits.GROUPS
        assert {member.id for member in configuration.members} >= {A, B}
