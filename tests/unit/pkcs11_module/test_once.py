"""An operation that is begun as it was before is begun by the call that uses it: one message, and nothing to be seen."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from ctypes import byref, c_ulong
from dataclasses import dataclass, field
from typing import Any

import pytest

from lnh_pkcs11 import fields
from lnh_pkcs11.calls import CALLS_BY_ID
from lnh_pkcs11.fields import Given
from lnh_pkcs11.ways import Way
from models.pkcs11_application import Application, Mechanism, names_in, room
from models.pkcs11_gateway import Answer, Gateway, Request, array, body, number, refused
from sizes import sized

OK, FUNCTION_FAILED, BUFFER_TOO_SMALL = 0x00, 0x06, 0x150
KEY_HANDLE_INVALID, OBJECT_HANDLE_INVALID = 0x60, 0x82
OPERATION_ACTIVE, OPERATION_NOT_INITIALIZED, SIGNATURE_INVALID = 0x90, 0x91, 0xC0
ECDSA = 0x1041
RESULT = b"a signature"

Serve = Callable[[Answer], Gateway]


@dataclass
class Operations:
    """A gateway's sessions, as to which operations are active in them; keys are known until they are destroyed."""

    keys: set[int] = field(default_factory=lambda: {1, 2, 3})
    active: dict[tuple[int, str], int] = field(default_factory=dict)

    def does(self, name: str, values: list[Any]) -> tuple[int, bytes]:
        """Do a call; its CKR, and the bytes that it gives: none where there is no room."""
        session, *rest = values
        if name == "DestroyObject":
            known = rest[0] in self.keys
            self.keys.discard(rest[0])
            return (OK if known else OBJECT_HANDLE_INVALID), b""
        if name == "GetSessionInfo":
            return OK, b""
        kind = next(each for each in ("Sign", "Verify", "Encrypt", "Decrypt") if name.startswith(each))
        what = name.removeprefix(kind)
        if what == "Once":
            ckr, _ = self.does(f"{kind}Init", [session, *rest[:2]])
            return (ckr, b"") if ckr else self.does(kind, [session, *rest[2:]])
        if what == "Init":
            given, key = rest
            if given is None:
                self.active.pop((session, kind), None)
                return OK, b""
            if key not in self.keys:
                return KEY_HANDLE_INVALID, b""
            if (session, kind) in self.active:
                return OPERATION_ACTIVE, b""
            self.active[session, kind] = key
            return OK, b""
        if (session, kind) not in self.active:
            return OPERATION_NOT_INITIALIZED, b""
        if what == "Update":
            return OK, b""
        if kind != "Verify" and (rest[-1] is None or rest[-1] < len(RESULT)):
            return (OK if rest[-1] is None else BUFFER_TOO_SMALL), b""
        del self.active[session, kind]
        if kind == "Verify":
            return (OK if rest[-1] == RESULT else SIGNATURE_INVALID), b""
        return OK, RESULT

    def __call__(self, request: Request) -> bytes:
        call = CALLS_BY_ID[request.id]
        letters, reply = call.fields(own=True)
        ckr, result = self.does(call.name, fields.read(letters, request.fields, Way.MODULE))
        if ckr not in {OK, BUFFER_TOO_SMALL}:
            return refused(ckr)
        given = array(result) if result else array(None, len(RESULT))
        return body(request.id, reply, {"": b"", "ay": given, "uuuu": number(0) * 4}[reply])


def names(gateway: Gateway) -> list[str]:
    """The calls that came since they were looked at last."""
    came = [CALLS_BY_ID[request.id].name for request in gateway.requests]
    gateway.requests.clear()
    return came


def begin(application: Application, session: int, key: int = 1, name: str = "Sign") -> int:
    return application.call(f"{name}Init", session, byref(Mechanism(ECDSA, None, 0)), key)


def use(application: Application, session: int, name: str = "Sign", size: int | None = 64) -> int:
    memory, length = None if size is None else room(size), c_ulong(size or 0)
    ckr = application.call(name, session, b"data", 4, memory, byref(length))
    if ckr in {OK, BUFFER_TOO_SMALL}:
        assert length.value == len(RESULT)
    if ckr == OK and memory is not None:
        assert bytes(memory).startswith(RESULT)
    return ckr


@pytest.mark.parametrize("name", ["Sign", "Encrypt", "Decrypt"])
def test_the_second_signature_of_a_session_is_one_message(application: Application, serve: Serve, name: str) -> None:
    gateway = serve(Operations())
    for expected in ([f"{name}Init", name], [f"{name}Once"], [f"{name}Once"]):
        assert begin(application, 7, name=name) == OK
        assert use(application, 7, name) == OK
        assert names(gateway) == expected
    assert begin(application, 8, name=name) == OK
    assert use(application, 8, name) == OK
    assert names(gateway) == [f"{name}Init", name], "another session"
    assert begin(application, 7, 2, name=name) == OK
    assert use(application, 7, name) == OK
    assert names(gateway) == [f"{name}Init", name], "another key"


def test_what_goes_along_is_what_was_given(application: Application, serve: Serve) -> None:
    gateway = serve(Operations())
    for _ in range(2):
        assert begin(application, 0x0102030405060708) == OK
        assert use(application, 0x0102030405060708) == OK
    last = gateway.requests[-1]
    assert CALLS_BY_ID[last.id].name == "SignOnce"
    read = fields.read(last.signature, last.fields, Way.MODULE)
    assert read == [0x0102030405060708, Given(ECDSA), 1, b"data", 64]


def test_a_verification_is_one_message_too(application: Application, serve: Serve) -> None:
    gateway = serve(Operations())
    for expected in (["VerifyInit", "Verify"], ["VerifyOnce"]):
        assert begin(application, 7, name="Verify") == OK
        assert application.call("Verify", 7, b"data", 4, RESULT, len(RESULT)) == OK
        assert names(gateway) == expected
    assert begin(application, 7, name="Verify") == OK
    assert application.call("Verify", 7, b"data", 4, b"other bytes", 11) == SIGNATURE_INVALID
    assert names(gateway) == ["VerifyOnce"]


def deferred(application: Application, gateway: Gateway) -> None:
    """Have a session owe the gateway its beginning."""
    for _ in range(2):
        assert begin(application, 7) == OK
        assert use(application, 7) == OK
    names(gateway)
    assert begin(application, 7) == OK
    assert names(gateway) == []


def test_what_is_owed_is_sent_before_any_other_call_of_the_session(application: Application, serve: Serve) -> None:
    gateway = serve(Operations())
    deferred(application, gateway)
    assert application.call("GetSessionInfo", 8, room(32)) == OK
    assert names(gateway) == ["GetSessionInfo"], "another session"
    assert begin(application, 7) == OPERATION_ACTIVE
    assert names(gateway) == ["SignInit", "SignInit"]
    assert use(application, 7) == OK
    deferred(application, gateway)
    assert application.call("SignUpdate", 7, b"data", 4) == OK
    assert names(gateway) == ["SignInit", "SignUpdate"]
    length = c_ulong(64)
    assert application.call("SignFinal", 7, room(64), byref(length)) == OK
    deferred(application, gateway)
    assert application.call("SignInit", 7, None, 0) == OK
    assert use(application, 7) == OPERATION_NOT_INITIALIZED


def test_an_operation_goes_on_where_only_its_length_was_asked_for(application: Application, serve: Serve) -> None:
    gateway = serve(Operations())
    deferred(application, gateway)
    assert use(application, 7, size=None) == OK
    assert use(application, 7, size=3) == BUFFER_TOO_SMALL
    assert use(application, 7) == OK
    assert names(gateway) == ["SignOnce", "Sign", "Sign"]
    assert begin(application, 7) == OK
    assert use(application, 7) == OK
    assert names(gateway) == ["SignOnce"]


def test_a_key_that_is_destroyed_is_told_of_as_before(application: Application, serve: Serve) -> None:
    gateway = serve(Operations())
    for _ in range(2):
        assert begin(application, 7) == OK
        assert use(application, 7) == OK
    assert application.call("DestroyObject", 8, 1) == OK
    names(gateway)
    assert begin(application, 7) == KEY_HANDLE_INVALID
    assert names(gateway) == ["SignInit"]


def test_what_was_begun_goes_on_whatever_another_session_changes(application: Application, serve: Serve) -> None:
    gateway = serve(Operations())
    deferred(application, gateway)
    assert application.call("DestroyObject", 8, 1) == OK
    assert names(gateway) == ["SignInit", "DestroyObject"]
    assert application.call("GetSessionInfo", 7, room(32)) == OK
    assert use(application, 7) == OK


def test_what_another_process_destroyed_comes_to_light_with_the_signature(
    application: Application, serve: Serve
) -> None:
    operations = Operations()
    gateway = serve(operations)
    deferred(application, gateway)
    operations.keys.clear()
    assert use(application, 7) == KEY_HANDLE_INVALID
    assert begin(application, 7) == KEY_HANDLE_INVALID


def test_another_beginning_of_the_process_begins_with_nothing(application: Application, serve: Serve) -> None:
    gateway = serve(Operations())
    deferred(application, gateway)
    assert application.call("Finalize", None) == OK
    assert application.call("Initialize", None) == OK
    assert use(application, 7) == OPERATION_NOT_INITIALIZED
    assert begin(application, 7) == OK
    assert names(gateway) == ["Sign", "SignInit"]


STEPS = names_in(
    "SignInit Sign Sign:None Sign:3 SignUpdate SignFinal Cancel VerifyInit Verify VerifyWrong EncryptInit Encrypt "
    "GetSessionInfo DestroyObject"
)
USUAL = [["SignInit", "Sign"], ["VerifyInit", "Verify"], ["SignInit", "Sign:None", "Sign"]]


def drawn() -> list[tuple[int, int, str]]:
    """Draw what an application does in one session: mostly what most do, and anything else in between."""
    session, key = random.choice((7, 7, 8, 263)), random.choice((1, 1, 1, 2))  # 7 and 263 have one place in the module
    usual = random.random() < 0.8
    rare = [each for each in STEPS if each != "DestroyObject" or random.random() < 0.2]
    return [(session, key, what) for what in (random.choice(USUAL) if usual else [random.choice(rare)])]


def step(application: Application, session: int, key: int, what: str) -> int:
    """Take a step as an application."""
    if what == "Cancel":
        return application.call("SignInit", session, None, 0)
    if what.endswith("Init"):
        return begin(application, session, key, what.removesuffix("Init"))
    if what.startswith("Verify"):
        signature = RESULT if what == "Verify" else b"other bytes"
        return application.call("Verify", session, b"data", 4, signature, len(signature))
    if what == "SignUpdate":
        return application.call(what, session, b"data", 4)
    if what == "SignFinal":
        length = c_ulong(64)
        return application.call(what, session, room(64), byref(length))
    if what == "GetSessionInfo":
        return application.call(what, session, room(32))
    if what == "DestroyObject":
        return application.call(what, session, key)
    name, _, size = what.partition(":")
    return use(application, session, name, {"": 64, "None": None, "3": 3}[size])


def step_of_model(operations: Operations, session: int, key: int, what: str) -> int:
    """Take the same step where every call is a message."""
    given = Given(ECDSA)
    values: dict[str, tuple[str, list[Any]]] = {
        "Cancel": ("SignInit", [session, None, 0]),
        "SignInit": ("SignInit", [session, given, key]),
        "VerifyInit": ("VerifyInit", [session, given, key]),
        "EncryptInit": ("EncryptInit", [session, given, key]),
        "Sign": ("Sign", [session, b"data", 64]),
        "Sign:None": ("Sign", [session, b"data", None]),
        "Sign:3": ("Sign", [session, b"data", 3]),
        "Encrypt": ("Encrypt", [session, b"data", 64]),
        "Verify": ("Verify", [session, b"data", RESULT]),
        "VerifyWrong": ("Verify", [session, b"data", b"other bytes"]),
        "SignUpdate": ("SignUpdate", [session, b"data"]),
        "SignFinal": ("SignFinal", [session, 64]),
        "GetSessionInfo": ("GetSessionInfo", [session]),
        "DestroyObject": ("DestroyObject", [session, key]),
    }
    return operations.does(*values[what])[0]


def test_whatever_an_application_does_it_is_answered_as_if_each_call_were_a_message(
    application: Application, serve: Serve
) -> None:
    gateway = serve(Operations())
    joined: Counter[str] = Counter()
    for _ in range(sized(30)):
        real, model = Operations(), Operations()
        gateway.answer = real
        assert application.call("Finalize", None) == OK
        assert application.call("Initialize", None) == OK
        taken: list[tuple[int, int, str]] = []
        while len(taken) < 120:
            for one in drawn():
                taken.append(one)
                assert step(application, *one) == step_of_model(model, *one), taken
        joined.update(names(gateway))
    assert joined["SignOnce"] > 10
    assert joined["VerifyOnce"] > 10


def test_threads_each_in_a_session_of_their_own_sign_by_one_message(application: Application, serve: Serve) -> None:
    gateway = serve(Operations())
    outcomes: list[int] = []

    def signs(session: int) -> None:
        for _ in range(50):
            outcomes.append(begin(application, session))
            outcomes.append(use(application, session))

    threads = [threading.Thread(target=signs, args=(100 + number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert set(outcomes) == {OK}
    assert Counter(names(gateway)) == {"SignInit": 8, "Sign": 8, "SignOnce": 8 * 49}
