"""Which way is used when: whatever happens to them, one is, and the best that can be had."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnh.net.failover import (
    CONNECT_WITHIN,
    DOUBT_AFTER,
    PROVE_WITHIN,
    REST,
    RETURN,
    STEADY,
    State,
    Told,
    Verdict,
    Vigil,
    Way,
    Ways,
)

A, B, C, D = (Way(f"{name}.example:4400", name.encode() * 32, "local") for name in "abcd")
FAR = Way("far.example:4400", b"f" * 32, "far")
ALL = (A, B, C)
SOON = 0.001


def told(*ways: Way, **states: State) -> list[Told]:
    return [Told(way, states.get(way.address[0], State.READ_WRITE)) for way in ways]


@dataclass
class Member:
    """What stands behind a way: it is there, or gone in one of the ways a member can be gone."""

    there: bool = True
    refuses: bool = True  # else it is silent, and found out after the bounds


@dataclass
class Client:
    """Acts on `Ways` as a channel does, in virtual time, and notes when it was served."""

    ways: Ways
    members: dict[Way, Member]
    now: float = 0.0
    served: list[tuple[float, Way]] = field(default_factory=list)
    tries: list[tuple[float, Way]] = field(default_factory=list)

    def act(self) -> None:
        way = self.ways.current
        turn = self.ways.turn
        if self.members[way].there:
            self.served.append((self.now, way))
            self.now += 0.01
        else:
            self.tries.append((self.now, way))
            refuses = self.members[way].refuses
            self.now += 0.1 if refuses else (DOUBT_AFTER + PROVE_WITHIN) * self.ways.patience(self.now)
            if self.ways.turn == turn:
                self.ways.lost(self.now, way)
        sought = self.ways.seek(self.now)
        if sought is not None and self.members[sought].there:
            self.ways.found(self.now, sought)

    def act_until(self, end: float) -> None:
        while self.now < end:
            self.act()


def test_the_registered_member_is_used_while_it_answers() -> None:
    client = Client(Ways(A, (B, C)), {way: Member() for way in ALL})
    client.act_until(50)
    assert {way for _, way in client.served} == {A}
    assert client.ways.turn == 0


@pytest.mark.parametrize("refuses", [True, False])
def test_another_is_used_within_a_second_when_it_does_not_answer(refuses: bool) -> None:
    client = Client(Ways(A, (B, C)), {way: Member() for way in ALL})
    client.act_until(20)
    client.members[A] = Member(there=False, refuses=refuses)
    moment = client.now
    client.act_until(21.5)
    first = next(at for at, way in client.served if at >= moment)
    assert first - moment < 1
    assert client.ways.current != A


def test_it_is_gone_back_to_when_it_is_read_write_and_answers_and_not_before() -> None:
    ways = Ways(A, (B,))
    ways.lost(20.0, A)
    assert ways.current == B
    for moment in (21.0, 25.0, 60.0):
        assert ways.seek(moment) is None, "nobody has said that it is back"
    ways.learned(61.0, told(A, B, a=State.READ_ONLY))
    assert ways.seek(62.0) is None
    ways.learned(63.0, told(A, B))
    assert ways.seek(64.0) == A
    assert ways.current == B
    assert ways.seek(64.1) is None, "somebody tries it already"
    ways.found(64.2, A)
    assert ways.current == A
    assert ways.turn == 2


def test_a_vain_trial_is_repeated_later_and_later() -> None:
    ways = Ways(A, (B,))
    ways.lost(0.0, A)
    ways.learned(0.5, told(A, B))
    tries = [moment for moment in range(1, 300) if ways.seek(float(moment)) is not None]
    waits = [later - earlier for earlier, later in pairwise(tries)]
    first, longest = RETURN
    assert tries[0] >= first
    assert waits == sorted(waits)
    assert max(waits) == longest
    assert len(tries) < 20


def test_read_write_members_go_before_read_only_ones_and_the_own_group_before_others() -> None:
    ways = Ways(A)
    ways.learned(0.0, told(A, FAR, B))
    ways.lost(20.0, A)
    assert ways.current == B, "its own group's"
    ways = Ways(A)
    ways.learned(0.0, told(A, FAR, B, b=State.READ_ONLY))
    ways.lost(20.0, A)
    assert ways.current == FAR, "read-write"


def test_clients_of_one_dead_member_spread_over_the_others() -> None:
    chosen = []
    for number in range(60):
        ways = Ways(A, (B, C, D), client=bytes([number]) * 16)
        ways.lost(0.0, A)
        chosen.append(ways.current)
    assert all(chosen.count(way) >= 8 for way in (B, C, D))


def test_one_that_was_lost_is_the_last_choice_until_it_was_well_for_a_while() -> None:
    ways = Ways(A, (B, C))
    ways.lost(20.0, A)
    second = ways.current
    ways.lost(40.0, second)
    assert ways.current not in (A, second)
    third = ways.current
    ways.learned(70.0, told(*ALL))
    ways.lost(70.0, third)
    assert ways.current == A


def test_a_member_that_is_behind_is_left_for_another_and_is_not_gone() -> None:
    ways = Ways(A, (B,))
    ways.behind(0.0, A)
    assert ways.current == B
    assert not ways.is_lost(A)
    ways.behind(0.01, B)
    assert ways.current == B, "the other rests"
    ways.behind(REST[0], B)
    assert ways.current == A
    ways.lost(REST[0] + SOON, A)
    assert ways.current == A, "the other rests"
    assert ways.is_lost(A)


def test_a_member_that_is_listed_no_longer_is_not_gone_back_to_and_comes_last() -> None:
    ways = Ways(A, (B, C))
    ways.lost(20.0, A)
    ways.learned(21.0, told(B, C))
    assert all(ways.seek(float(moment)) is None for moment in range(22, 200))
    for moment in range(200, 260, 20):
        ways.lost(float(moment), ways.current)
        assert ways.current in (B, C), "those that are listed"


def test_new_members_are_learned_and_forgotten_and_the_one_in_use_stays() -> None:
    ways = Ways(A, (B,))
    assert ways.learned(0.0, told(A, B, C))
    assert set(ways.alternates) == {B, C}
    assert not ways.learned(1.0, told(C, B, A)), "the same in another order"
    ways.lost(20.0, A)
    used = ways.current
    other = C if used == B else B
    ways.learned(21.0, told(A, other))
    assert ways.current == used
    ways.lost(40.0, used)
    assert ways.current == other
    assert not ways.learned(41.0, []), "a view of nobody says nothing"
    assert set(ways.alternates) >= {other}


def test_a_member_that_moved_is_used_at_its_new_address() -> None:
    ways = Ways(A, (B,))
    moved = Way("b.elsewhere:4400", B.key, "far")
    assert ways.learned(0.0, told(A, moved))
    ways.lost(20.0, A)
    assert ways.current == moved


def test_with_one_way_there_is_nowhere_to_go() -> None:
    ways = Ways(A)
    assert ways.is_only
    for moment in range(10):
        ways.lost(float(moment), A)
    assert ways.current == A
    assert ways.turn == 0
    assert ways.seek(100.0) is None


@given(st.lists(st.sampled_from([0, 1, 2]), min_size=0, max_size=3), st.integers(0, 1 << 32))
def test_with_every_way_down_no_member_is_asked_often_and_the_first_back_is_found(back: list[int], seed: int) -> None:
    client = Client(Ways(A, (B, C)), {way: Member(there=False) for way in ALL})
    client.act_until(60)
    late = [way for at, way in client.tries if at > 30]
    assert all(sum(1 for each in late if each == way) <= 30 / 0.1 for way in ALL)
    assert client.ways.turn <= 60 / REST[0] + len(ALL), "members are not run round"
    returned = ALL[back[0]] if back else random.Random(seed).choice(ALL)
    client.members[returned].there = True
    client.act_until(65)
    assert any(way == returned for _, way in client.served)
    assert client.served[0][0] < 60 + len(ALL) * 1.5


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["lost", "lost other", "seek", "found", "learned", "wait"]),
            st.floats(0, 40),
            st.sets(st.sampled_from([A, B, C, D, FAR])),
            st.sampled_from(list(State)),
        ),
        max_size=40,
    )
)
def test_whatever_happens_one_known_way_is_in_use_and_every_change_is_counted(
    events: list[tuple[str, float, set[Way], State]],
) -> None:
    ways = Ways(A, (B,))
    now, turn, current = 0.0, 0, A
    for event, seconds, listed, state in events:
        now += seconds
        match event:
            case "lost":
                ways.lost(now, ways.current)
            case "lost other":
                for way in listed:
                    if way != ways.current:
                        ways.lost(now, way)
            case "seek":
                sought = ways.seek(now)
                assert sought is None or (sought == A and ways.current != A)
            case "found":
                ways.found(now, A)
            case "learned":
                ways.learned(now, [Told(way, state) for way in listed])
        assert ways.current.key in {A.key, *(way.key for way in ways.alternates)}
        assert A not in ways.alternates
        assert len({way.key for way in ways.alternates}) == len(ways.alternates)
        assert (ways.current.key == current.key) == (ways.turn == turn)
        if event in ("learned", "wait", "seek"):
            assert ways.turn == turn, "nobody is sent elsewhere while the way in use is well"
        turn, current = ways.turn, ways.current
        assert 1 <= ways.patience(now) <= 4


def test_a_way_lost_again_soon_gets_more_time_and_a_steady_one_does_not() -> None:
    ways = Ways(A, (B,))
    patience = []
    now = 100.0
    for _ in range(4):
        ways.lost(now, A)
        ways.learned(now, told(A, B))
        now += 40
        assert ways.seek(now) == A
        ways.found(now, A)
        patience.append(ways.patience(now + SOON))
        now += 1
    assert patience == [2, 4, 4, 4]
    assert ways.patience(now + STEADY) == 1


# --- one connection


def test_who_refuses_is_gone_and_who_is_slow_to_connect_is_gone_at_the_bound() -> None:
    vigil = Vigil(0.0)
    assert vigil.judge(CONNECT_WITHIN - SOON, 1, waiting=True) is Verdict.WELL
    assert vigil.judge(CONNECT_WITHIN + SOON, 1, waiting=True) is Verdict.GONE
    assert vigil.judge(CONNECT_WITHIN + SOON, 2, waiting=True) is Verdict.WELL
    vigil.refused = True
    assert vigil.judge(SOON, 4, waiting=True) is Verdict.GONE
    vigil.up(1.0)
    assert vigil.judge(1.0 + SOON, 1, waiting=True) is Verdict.WELL


def test_a_slow_operation_is_probed_for_and_never_gone_while_probes_are_answered() -> None:
    vigil = Vigil(0.0)
    vigil.up(0.0)
    probes = 0
    for tick in range(1, 600):  # a minute
        now = tick * 0.1
        if vigil.probed and now - vigil.probed >= 0.05:
            vigil.heard, vigil.probed = now, 0.0  # the balancer's answer
        verdict = vigil.judge(now, 1, waiting=True)
        assert verdict is not Verdict.GONE
        if verdict is Verdict.DOUBTED:
            vigil.probed = now
            probes += 1
    assert 60 < probes < 60 / DOUBT_AFTER


def test_who_is_silent_is_doubted_and_gone_when_the_probe_is_not_answered() -> None:
    vigil = Vigil(0.0)
    vigil.up(0.0)
    vigil.asked(10.0)
    assert vigil.judge(10.0 + DOUBT_AFTER - SOON, 1, waiting=True) is Verdict.WELL
    assert vigil.judge(10.0 + DOUBT_AFTER + SOON, 1, waiting=True) is Verdict.DOUBTED
    vigil.probed = 10.2
    assert vigil.judge(10.2 + PROVE_WITHIN - SOON, 1, waiting=True) is Verdict.WELL
    assert vigil.judge(10.2 + PROVE_WITHIN + SOON, 1, waiting=True) is Verdict.GONE
    assert vigil.judge(10.2 + PROVE_WITHIN + SOON, 2, waiting=True) is Verdict.WELL


def test_nobody_is_judged_by_a_silence_in_which_nothing_was_asked() -> None:
    vigil = Vigil(0.0)
    vigil.up(0.0)
    assert vigil.judge(1000.0, 1, waiting=False) is Verdict.WELL
    vigil.asked(1000.0)
    assert vigil.judge(1000.0 + SOON, 1, waiting=True) is Verdict.WELL


def test_the_registered_member_is_found_though_its_group_changed_meanwhile() -> None:
    ways = Ways(A, (B,))
    ways.lost(20.0, A)
    ways.learned(25.0, told(A, B))
    sought = ways.seek(26.0)
    assert sought == A
    ways.learned(26.1, told(Way(A.address, A.key, "east"), B))
    ways.found(26.2, sought)
    assert ways.current == Way(A.address, A.key, "east")
