"""Channels are lent to one user at a time, and closed with their connection, whoever has them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from lnh.net.pool import Pool
from lnh_common.bus.process import OwnProcess
from lnh_common.errors import Busy, ConnectionClosed

WITHIN = 20.0


@dataclass
class Lent:
    is_at_rest: bool = True
    closed: int = 0

    def close(self) -> None:
        self.closed += 1


@dataclass
class Made:
    most: int = 2
    all: list[Lent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pool = Pool(self._make, self.most, OwnProcess("this"))

    def _make(self) -> Lent:
        self.all.append(Lent())
        return self.all[-1]


def test_the_newest_is_lent_again_and_no_more_are_made_than_there_may_be() -> None:
    made = Made()
    one, two = made.pool.borrow(0), made.pool.borrow(0)
    assert one.channel is not two.channel
    with pytest.raises(Busy):
        made.pool.borrow(0.01)
    made.pool.give_back(one)
    made.pool.give_back(two)
    assert made.pool.borrow(0) is two
    assert len(made.all) == 2


def test_closing_closes_what_is_idle_at_once_and_what_is_lent_when_it_comes_back() -> None:
    made = Made(most=3)
    loans = [made.pool.borrow(0) for _ in range(3)]
    made.pool.give_back(loans.pop())
    made.pool.give_back(loans.pop())
    made.pool.close()
    assert [bool(each.closed) for each in made.all] == [False, True, True]
    with pytest.raises(ConnectionClosed):
        made.pool.borrow(0)
    made.pool.give_back(loans.pop())
    assert all(each.closed for each in made.all)
    made.pool.close()


def test_one_that_is_not_at_rest_is_closed_and_makes_room() -> None:
    made = Made(most=1)
    loan = made.pool.borrow(0)
    loan.channel.is_at_rest = False
    made.pool.give_back(loan)
    assert made.all[0].closed
    assert made.pool.borrow(0).channel is made.all[1]


@pytest.mark.parametrize("ends", ["given back", "lost", "closed"])
def test_whoever_waits_is_woken(ends: str) -> None:
    made = Made(most=1)
    loans = [made.pool.borrow(0)]
    outcomes: list[str] = []

    def wait() -> None:
        try:
            made.pool.give_back(made.pool.borrow(WITHIN))
            outcomes.append("lent")
        except ConnectionClosed:
            outcomes.append("closed")

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    if ends == "given back":
        made.pool.give_back(loans.pop())
    elif ends == "lost":
        loans.clear()
    else:
        made.pool.close()
    for thread in threads:
        thread.join(WITHIN)
    assert outcomes == ["closed" if ends == "closed" else "lent"] * 8
