"""What membership tells with one member."""

from __future__ import annotations

import msgspec
import pytest

import lnh_common
from lnh_common.messages import store
from lnh_common.messages.membership import Health
from lnh_services.membership.view import Heard, This, told_state, view


def answer(state: str, cluster: bytes, primary: bytes) -> store.Status:
    return store.Status(
        state=state,
        cluster=cluster,
        member=b"m" * 16 if cluster else b"",
        primary=primary,
        epoch=3,
        in_sync=(),
        last_index=0,
        committed_index=0,
        applied_index=0,
        items=0,
        bytes_on_disk=0,
        commits_per_second=0.0,
    )


@pytest.mark.parametrize(
    ("told", "role", "state"),
    [
        (None, "none", "unreachable"),
        (answer("none", b"", b""), "none", "none"),
        (answer("read-write", b"c" * 16, b"m" * 16), "primary", "read-write"),
        (answer("read-only", b"c" * 16, b"p" * 16), "secondary", "read-only"),
    ],
)
def test_the_role_and_state_are_what_the_store_tells(told: store.Status | None, role: str, state: str) -> None:
    (member,) = view(This("A", "host:7100"), told, {}, {}, 100.0).members
    assert (member.name, member.address, member.role, member.state, member.group) == (
        *("A", "host:7100", role, state, "local"),
    )


A, B, C = (
    store.MemberInfo(id=name.encode() * 16, name=name, host="host", port=port, key=bytes(32))
    for name, port in (("a", 7100), ("b", 7200), ("c", 7300))
)


def several(state: str, in_sync: tuple[store.MemberInfo, ...], primary: store.MemberInfo = A) -> store.Status:
    """The status of member A's store among three."""
    return msgspec.structs.replace(
        answer(state, b"c" * 16, primary.id),
        member=A.id,
        members=(A, B, C),
        in_sync=tuple(each.id for each in in_sync),
        catching_up=tuple(each.id for each in (A, B, C) if in_sync and each not in in_sync),
    )


def heard(member: store.MemberInfo, state: str, at: float, *listed: store.MemberInfo) -> dict[bytes, Heard]:
    health = Health(
        cluster=b"c" * 16, member=member.id, product="0.1.1", state=state, primary=A.id, epoch=3, index=9,
        listed=tuple(each.id for each in listed),
    )  # fmt: skip
    return {member.id: Heard(health, at)}


def test_every_member_is_shown_with_what_was_last_heard_of_it() -> None:
    told = several("read-write", (A, B))
    known = {**heard(B, "read-write", 99.0, A, B, C), **heard(C, "read-write", 90.0, A, B, C)}
    shown = view(This("A", "host:1"), told, {}, known, 100.0)
    assert [(each.name, each.role, each.state, each.last_heard) for each in shown.members] == [
        ("a", "primary", "read-write", 100), ("b", "secondary", "read-write", 99), ("c", "secondary", "unreachable", 90),
    ]  # fmt: skip
    assert [each.product for each in shown.members] == [lnh_common.VERSION, "0.1.1", "0.1.1"]
    assert [each.address for each in shown.members] == ["host:7100", "host:7200", "host:7300"]
    assert shown.waiting_for == ()


def test_the_group_and_the_door_of_each_member_are_those_of_the_list() -> None:
    far = msgspec.structs.replace(B, group="far", door=b"d" * 32)
    told = msgspec.structs.replace(several("read-write", (A, B)), members=(A, far), groups=("far", "local"))
    shown = view(This("A", ""), told, {}, {}, 100.0)
    assert [(each.name, each.group, each.door) for each in shown.members] == [
        ("a", "local", b""),
        ("b", "far", b"d" * 32),
    ]
    assert shown.groups == ("far", "local")
    own = view(This("B", ""), msgspec.structs.replace(told, member=B.id), {}, {}, 100.0).members[1]
    assert (own.name, own.group, own.door) == ("b", "far", b"d" * 32)


def test_a_member_that_catches_up_is_joining_and_one_that_was_cut_off_read_only() -> None:
    known = heard(B, "read-only", 99.0)
    assert view(This("A", ""), several("read-write", (A, C)), {}, known, 100.0).members[1].state == "joining"
    assert view(This("A", ""), several("read-write", (A, B, C)), {}, known, 100.0).members[1].state == "read-only"


def test_a_member_that_dropped_what_it_had_applied_is_shown_so() -> None:
    (health,) = heard(B, "read-write", 99.0).values()
    known = {B.id: Heard(msgspec.structs.replace(health.health, diverged=True), 99.0)}
    told = msgspec.structs.replace(several("read-write", (A, B, C)), diverged=True)
    assert [each.state for each in view(This("A", ""), told, {}, known, 100.0).members] == [
        "diverged", "diverged", "unreachable",
    ]  # fmt: skip


def test_a_joining_member_says_whom_it_waits_for() -> None:
    told = several("read-only", (B, C), primary=B)
    known = {**heard(B, "read-write", 99.0, A, B, C), **heard(C, "read-write", 99.0, B, C)}
    assert view(This("A", ""), told, {}, known, 100.0).waiting_for == ("c",)
    assert view(This("A", ""), told, {}, heard(B, "read-write", 90.0, A, B, C), 100.0).waiting_for == ("b", "c")
    assert view(This("A", ""), several("read-write", (A, B, C)), {}, {}, 100.0).waiting_for == ()


@pytest.mark.parametrize(
    ("state", "damaged", "shown"),
    [
        ("read-write", True, "damaged"), ("read-only", True, "damaged"), ("expelled", True, "expelled"),
        ("read-write", False, "read-write"),
    ],
)  # fmt: skip
def test_a_member_whose_store_served_what_it_must_not_is_shown_as_damaged(
    state: str, damaged: bool, shown: str
) -> None:
    own = view(This("a", ""), several(state, (A, B, C)), {}, {}, 100.0, damaged=damaged).members[0]
    other = view(
        This("b", ""), several("read-write", (A, B, C)), {}, heard(B, told_state(state, damaged=damaged), 100.0), 100.0
    )
    assert (own.state, other.members[1].state) == (shown, shown)
