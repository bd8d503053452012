"""Which endpoint is used when: whatever happens to them, one is, and the best that can be had."""

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
    Endpoint,
    Endpoints,
    State,
    Told,
    Verdict,
    Vigil,
)

A, B, C, D = (Endpoint(f"{name}.example:4400", name.encode() * 32, "local") for name in "abcd")
FAR = Endpoint("far.example:4400", b"f" * 32, "far")
ALL = (A, B, C)
SOON = 0.001


def told(*endpoints: Endpoint, **states: State) -> list[Told]:
    return [Told(endpoint, states.get(endpoint.address[0], State.READ_WRITE)) for endpoint in endpoints]


@dataclass
class Member:
    """What stands behind an endpoint: it is there, or gone in one of the ways a member can be gone."""

    there: bool = True
    refuses: bool = True  # else it is silent, and found out after the bounds


@dataclass
class Client:
    """Acts on `Endpoints` as a channel does, in virtual time, and notes when it was served."""

    endpoints: Endpoints
    members: dict[Endpoint, Member]
    now: float = 0.0
    served: list[tuple[float, Endpoint]] = field(default_factory=list)
    tries: list[tuple[float, Endpoint]] = field(default_factory=list)

    def act(self) -> None:
        endpoint = self.endpoints.current
        turn = self.endpoints.turn
        if self.members[endpoint].there:
            self.served.append((self.now, endpoint))
            self.now += 0.01
        else:
            self.tries.append((self.now, endpoint))
            refuses = self.members[endpoint].refuses
            self.now += 0.1 if refuses else (DOUBT_AFTER + PROVE_WITHIN) * self.endpoints.patience(self.now)
            if self.endpoints.turn == turn:
                self.endpoints.lost(self.now, endpoint)
        sought = self.endpoints.seek(self.now)
        if sought is not None and self.members[sought].there:
            self.endpoints.found(self.now, sought)

    def act_until(self, end: float) -> None:
        while self.now < end:
            self.act()


def test_the_registered_member_is_used_while_it_answers() -> None:
    client = Client(Endpoints(A, (B, C)), {endpoint: Member() for endpoint in ALL})
    client.act_until(50)
    assert {endpoint for _, endpoint in client.served} == {A}
    assert client.endpoints.turn == 0


@pytest.mark.parametrize("refuses", [True, False])
def test_another_is_used_within_a_second_when_it_does_not_answer(refuses: bool) -> None:
    client = Client(Endpoints(A, (B, C)), {endpoint: Member() for endpoint in ALL})
    client.act_until(20)
    client.members[A] = Member(there=False, refuses=refuses)
    moment = client.now
    client.act_until(21.5)
    first = next(at for at, endpoint in client.served if at >= moment)
    assert first - moment < 1
    assert client.endpoints.current != A


def test_it_is_gone_back_to_when_it_is_read_write_and_answers_and_not_before() -> None:
    endpoints = Endpoints(A, (B,))
    endpoints.lost(20.0, A)
    assert endpoints.current == B
    for moment in (21.0, 25.0, 60.0):
        assert endpoints.seek(moment) is None, "nobody has said that it is back"
    endpoints.learned(61.0, told(A, B, a=State.READ_ONLY))
    assert endpoints.seek(62.0) is None
    endpoints.learned(63.0, told(A, B))
    assert endpoints.seek(64.0) == A
    assert endpoints.current == B
    assert endpoints.seek(64.1) is None, "somebody tries it already"
    endpoints.found(64.2, A)
    assert endpoints.current == A
    assert endpoints.turn == 2


def test_a_vain_trial_is_repeated_later_and_later() -> None:
    endpoints = Endpoints(A, (B,))
    endpoints.lost(0.0, A)
    endpoints.learned(0.5, told(A, B))
    tries = [moment for moment in range(1, 300) if endpoints.seek(float(moment)) is not None]
    waits = [later - earlier for earlier, later in pairwise(tries)]
    first, longest = RETURN
    assert tries[0] >= first
    assert waits == sorted(waits)
    assert max(waits) == longest
    assert len(tries) < 20


def test_read_write_members_go_before_read_only_ones_and_the_own_group_before_others() -> None:
    endpoints = Endpoints(A)
    endpoints.learned(0.0, told(A, FAR, B))
    endpoints.lost(20.0, A)
    assert endpoints.current == B, "its own group's"
    endpoints = Endpoints(A)
    endpoints.learned(0.0, told(A, FAR, B, b=State.READ_ONLY))
    endpoints.lost(20.0, A)
    assert endpoints.current == FAR, "read-write"


def test_clients_of_one_dead_member_spread_over_the_others() -> None:
    chosen = []
    for number in range(60):
        endpoints = Endpoints(A, (B, C, D), client=bytes([number]) * 16)
        endpoints.lost(0.0, A)
        chosen.append(endpoints.current)
    assert all(chosen.count(endpoint) >= 8 for endpoint in (B, C, D))


def test_one_that_was_lost_is_the_last_choice_until_it_was_well_for_a_while() -> None:
    endpoints = Endpoints(A, (B, C))
    endpoints.lost(20.0, A)
    second = endpoints.current
    endpoints.lost(40.0, second)
    assert endpoints.current not in (A, second)
    third = endpoints.current
    endpoints.learned(70.0, told(*ALL))
    endpoints.lost(70.0, third)
    assert endpoints.current == A


def test_a_member_that_is_behind_is_left_for_another_and_is_not_gone() -> None:
    endpoints = Endpoints(A, (B,))
    endpoints.behind(0.0, A)
    assert endpoints.current == B
    assert not endpoints.is_lost(A)
    endpoints.behind(0.01, B)
    assert endpoints.current == B, "the other rests"
    endpoints.behind(REST[0], B)
    assert endpoints.current == A
    endpoints.lost(REST[0] + SOON, A)
    assert endpoints.current == A, "the other rests"
    assert endpoints.is_lost(A)


def test_a_member_that_is_listed_no_longer_is_not_gone_back_to_and_comes_last() -> None:
    endpoints = Endpoints(A, (B, C))
    endpoints.lost(20.0, A)
    endpoints.learned(21.0, told(B, C))
    assert all(endpoints.seek(float(moment)) is None for moment in range(22, 200))
    for moment in range(200, 260, 20):
        endpoints.lost(float(moment), endpoints.current)
        assert endpoints.current in (B, C), "those that are listed"


def test_new_members_are_learned_and_forgotten_and_the_one_in_use_stays() -> None:
    endpoints = Endpoints(A, (B,))
    assert endpoints.learned(0.0, told(A, B, C))
    assert set(endpoints.alternates) == {B, C}
    assert not endpoints.learned(1.0, told(C, B, A)), "the same in another order"
    endpoints.lost(20.0, A)
    used = endpoints.current
    other = C if used == B else B
    endpoints.learned(21.0, told(A, other))
    assert endpoints.current == used
    endpoints.lost(40.0, used)
    assert endpoints.current == other
    assert not endpoints.learned(41.0, []), "a view of nobody says nothing"
    assert set(endpoints.alternates) >= {other}


def test_a_member_that_moved_is_used_at_its_new_address() -> None:
    endpoints = Endpoints(A, (B,))
    moved = Endpoint("b.elsewhere:4400", B.key, "far")
    assert endpoints.learned(0.0, told(A, moved))
    endpoints.lost(20.0, A)
    assert endpoints.current == moved


def test_with_one_way_there_is_nowhere_to_go() -> None:
    endpoints = Endpoints(A)
    assert endpoints.is_only
    for moment in range(10):
        endpoints.lost(float(moment), A)
    assert endpoints.current == A
    assert endpoints.turn == 0
    assert endpoints.seek(100.0) is None


@given(st.lists(st.sampled_from([0, 1, 2]), min_size=0, max_size=3), st.integers(0, 1 << 32))
def test_with_every_way_down_no_member_is_asked_often_and_the_first_back_is_found(back: list[int], seed: int) -> None:
    client = Client(Endpoints(A, (B, C)), {endpoint: Member(there=False) for endpoint in ALL})
    client.act_until(60)
    late = [endpoint for at, endpoint in client.tries if at > 30]
    assert all(sum(1 for each in late if each == endpoint) <= 30 / 0.1 for endpoint in ALL)
    assert client.endpoints.turn <= 60 / REST[0] + len(ALL), "members are not run round"
    returned = ALL[back[0]] if back else random.Random(seed).choice(ALL)
    client.members[returned].there = True
    client.act_until(65)
    assert any(endpoint == returned for _, endpoint in client.served)
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
    events: list[tuple[str, float, set[Endpoint], State]],
) -> None:
    endpoints = Endpoints(A, (B,))
    now, turn, current = 0.0, 0, A
    for event, seconds, listed, state in events:
        now += seconds
        match event:
            case "lost":
                endpoints.lost(now, endpoints.current)
            case "lost other":
                for endpoint in listed:
                    if endpoint != endpoints.current:
                        endpoints.lost(now, endpoint)
            case "seek":
                sought = endpoints.seek(now)
                assert sought is None or (sought == A and endpoints.current != A)
            case "found":
                endpoints.found(now, A)
            case "learned":
                endpoints.learned(now, [Told(endpoint, state) for endpoint in listed])
        assert endpoints.current.key in {A.key, *(endpoint.key for endpoint in endpoints.alternates)}
        assert A not in endpoints.alternates
        assert len({endpoint.key for endpoint in endpoints.alternates}) == len(endpoints.alternates)
        assert (endpoints.current.key == current.key) == (endpoints.turn == turn)
        if event in ("learned", "wait", "seek"):
            assert endpoints.turn == turn, "nobody is sent elsewhere while the endpoint in use is well"
        turn, current = endpoints.turn, endpoints.current
        assert 1 <= endpoints.patience(now) <= 4


def test_a_way_lost_again_soon_gets_more_time_and_a_steady_one_does_not() -> None:
    endpoints = Endpoints(A, (B,))
    patience = []
    now = 100.0
    for _ in range(4):
        endpoints.lost(now, A)
        endpoints.learned(now, told(A, B))
        now += 40
        assert endpoints.seek(now) == A
        endpoints.found(now, A)
        patience.append(endpoints.patience(now + SOON))
        now += 1
    assert patience == [2, 4, 4, 4]
    assert endpoints.patience(now + STEADY) == 1


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
    endpoints = Endpoints(A, (B,))
    endpoints.lost(20.0, A)
    endpoints.learned(25.0, told(A, B))
    sought = endpoints.seek(26.0)
    assert sought == A
    endpoints.learned(26.1, told(Endpoint(A.address, A.key, "east"), B))
    endpoints.found(26.2, sought)
    assert endpoints.current == Endpoint(A.address, A.key, "east")
