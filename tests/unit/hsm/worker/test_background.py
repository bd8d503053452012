"""Slow work: what waits is bounded, what is given up is not begun, and others are served meanwhile."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lnh_common import errors
from lnh_common.messages import objects, session
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_services.hsm.effects import Work
from lnh_services.hsm.worker.background import SlowWork
from models.worker import Client, World

A = Attribute


def finished(slow: SlowWork[str]) -> list[tuple[str, Any]]:
    """What is taken once the bell rings."""
    assert select.select([slow.descriptor], [], [], 20)[0], "nothing was finished"
    return slow.take()


class Gate:
    """A computation that waits until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.opened.wait(20), "nobody opened the gate"
        return "done"


def test_who_waits_gets_the_result_or_the_exception() -> None:
    slow: SlowWork[str] = SlowWork()
    slow.begin(1, lambda: "a result", "one")
    assert finished(slow) == [("one", "a result")]

    def fails() -> None:
        raise ValueError("no")

    slow.begin(1, fails, "two")
    ((who, outcome),) = finished(slow)
    assert (who, type(outcome)) == ("two", ValueError)
    assert len(slow) == 0


def test_the_same_request_again_waits_for_its_first_copy() -> None:
    slow: SlowWork[str] = SlowWork()
    gate = Gate()
    slow.begin("same", gate, "first")
    assert gate.begun.wait(20)
    slow.begin("same", lambda: "another", "second")
    gate.opened.set()
    assert finished(slow) == [("first", "done"), ("second", "done")]


def test_more_than_the_limit_is_busy_and_what_is_given_up_is_not_begun() -> None:
    slow: SlowWork[str] = SlowWork(most=2)
    gate, begun = Gate(), threading.Event()
    slow.begin(1, gate, "one")
    slow.begin(2, begun.set, "two")
    with pytest.raises(errors.Busy, match="2 slow"):
        slow.begin(3, begun.set, "three")
    assert gate.begun.wait(20)
    slow.give_up("one")
    slow.give_up("two")
    assert slow.waiting() == []
    gate.opened.set()
    while slow:
        assert finished(slow) == []
    assert not begun.is_set()
    slow.begin(2, lambda: "later", "two")
    while not (taken := finished(slow)):
        pass  # the bell of one that was given up
    assert taken == [("two", "later")]


def rsa(bits: int = 2048) -> objects.GenerateKeyPair:
    template = {A.MODULUS_BITS.value: bits}
    return objects.GenerateKeyPair(mechanism=Mechanism.RSA_PKCS_KEY_PAIR_GEN, public_template=template)


def meanwhile(monkeypatch: pytest.MonkeyPatch, world: World, act: Callable[[], object]) -> list[Work]:
    """Have something happen while the next slow work is done; what was slow."""
    seen: list[Work] = []
    compute = world.work

    def work(asked: Work) -> object:
        seen.append(asked)
        if len(seen) == 1:
            act()
        return compute(asked)

    monkeypatch.setattr(world, "work", work)
    return seen


@pytest.mark.parametrize("operation", [objects.GENERATE_PAIR, objects.GENERATE_PAIR_IN_SESSION])
def test_a_worker_serves_others_while_an_rsa_key_is_made(
    world: World, client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch, operation: Any
) -> None:
    drawn: list[bytes] = []

    def draw() -> None:
        drawn.append(client.ask(objects.RANDOM, objects.RandomBytes(length=16), keyring).data)

    seen = meanwhile(monkeypatch, world, draw)
    made = client.ask(operation, rsa(), keyring)
    assert (len(seen), len(drawn)) == (1, 1)
    assert len(made.public.attributes[A.MODULUS]) == 256


@pytest.mark.parametrize("operation", [objects.GENERATE_PAIR, objects.GENERATE_PAIR_IN_SESSION])
def test_a_session_that_ended_meanwhile_gets_no_key(
    world: World, client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch, operation: Any
) -> None:
    meanwhile(monkeypatch, world, lambda: client.ask(session.LOGOUT, session.Logout(), keyring))
    with pytest.raises(errors.TokenUnknown):
        client.ask(operation, rsa(), keyring)
    assert world.store.storage.count("object", keyring) == 0


def test_what_can_be_refused_is_refused_before_anything_slow(
    world: World, client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = meanwhile(monkeypatch, world, lambda: None)
    with pytest.raises(errors.KeySizeRange, match="2048, 3072, 4096 or 8192"):
        client.ask(objects.GENERATE_PAIR, rsa(1024), keyring)
    assert seen == []


def test_the_two_copies_of_a_repeated_request_are_the_same_work(
    world: World, client: Client, keyring: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = meanwhile(monkeypatch, world, lambda: None)
    sent, keys = client.sealed(objects.GENERATE_PAIR, rsa(), keyring)
    answers = [client.open(objects.GENERATE_PAIR, sent, keys, world.serve(client.worker, sent)) for _ in range(2)]
    assert answers[0] == answers[1]
    assert seen[0].key == seen[1].key
    client.ask(objects.GENERATE_PAIR, rsa(), keyring)
    assert seen[2].key != seen[0].key
