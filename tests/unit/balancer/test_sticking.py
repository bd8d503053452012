"""What one worker keeps from request to request comes to that worker again."""

from __future__ import annotations

import os

from lnh_common.messages import objects
from lnh_services.balancer.backends import Backend
from lnh_services.balancer.operations import STAYS, STICKS
from lnh_services.balancer.routing import Router


def router() -> Router:
    made = Router([Backend(f"worker {number}") for number in range(3)])
    for number in range(3):
        made.up(0.0, number)
    far = made.add(Backend("far", far=True))
    made.up(0.0, far)
    made.report(0.0, far, takes=True, round_trip=0.0, weight=8)
    made.set_forwards(0.0, forwards=True)
    return made


def ask(made: Router, client: bytes, operation: str) -> int | None:
    frames = [b"", b"", b""]
    return made.admit(0.0, client, frames, operation, 1e9, stays=operation in STAYS).backend


def test_all_parts_of_a_connection_go_to_one_worker_however_much_it_has_to_do() -> None:
    made = router()
    connections = [os.urandom(5) for _ in range(30)]
    first = {each: ask(made, each, objects.STREAM.name) for each in connections}
    assert set(first.values()) == {0, 1, 2}
    for each in connections:
        assert {ask(made, each, objects.STREAM.name) for _ in range(5)} == {first[each]}
        assert ask(made, each, objects.SIGN.name) in (0, 1, 2, 3)


def test_the_others_take_over_when_its_worker_is_gone() -> None:
    made = router()
    for _ in range(50):
        connection = os.urandom(5)
        chosen = ask(made, connection, objects.STREAM.name)
        if chosen == 0:
            break
    assert chosen == 0
    made.down(0.0, 0)
    assert ask(made, connection, objects.STREAM.name) in (1, 2)


def test_what_sticks_stays_in_its_member() -> None:
    assert STICKS <= STAYS
