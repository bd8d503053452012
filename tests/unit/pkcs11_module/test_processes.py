"""The module and its gateway over time: absent, restarted, stopped; forks, threads, and an application's mischief."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from ctypes import byref, c_ulong, c_void_p
from pathlib import Path
from typing import Any

import pytest

from models.pkcs11_application import Application, InitializeArguments, room
from models.pkcs11_gateway import Answer, Gateway, Request, Silence, array, body, numbers, refused, serving
from waits import wait_until

OK = 0x00
FUNCTION_FAILED = 0x06
ARGUMENTS_BAD = 0x07
DEVICE_ERROR = 0x30
SESSION_HANDLE_INVALID = 0xB3
TOKEN_NOT_PRESENT = 0xE0
NOT_INITIALIZED = 0x190
ALREADY_INITIALIZED = 0x191
SLOT_LIST, CLOSE_SESSION, SIGN = 4, 11, 43

Serve = Callable[[Answer], Gateway]


def slots(request: Request) -> bytes:
    """Answer with the slots 7 and 8, whatever is asked."""
    if request.id == SLOT_LIST:
        return body(request.id, "au", numbers([7, 8]))
    return body(request.id, "")


def slot_list(application: Application) -> tuple[int, int]:
    """Ask for the slots; the CKR, and what the count says then."""
    count = c_ulong(16)
    ckr = application.call("GetSlotList", 1, (c_ulong * 16)(), byref(count))
    return ckr, count.value


def sockets() -> dict[int, str]:
    """The Unix sockets of this process: descriptor and inode."""
    found = {}
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(each.readlink())
            if target.startswith("socket:"):
                found[int(each.name)] = target
    return found


def opened(before: dict[int, str]) -> list[int]:
    """The descriptors of sockets that the module opened since; the gateway's own ends are accepted ones."""
    ours = []
    for fd in sockets().keys() - before.keys():
        with socket.socket(fileno=os.dup(fd)) as each:
            if each.family == socket.AF_UNIX and not each.getsockname() and each.getpeername():
                ours.append(fd)
    return ours


def in_child(work: Callable[[], int], fork: Callable[[], int] = os.fork) -> int:
    """Run in a forked child; what it returned, under 99."""
    child = fork()
    if child == 0:
        code = 99
        try:
            signal.alarm(60)  # ends one that hangs
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --- C_Initialize and C_Finalize ---


def arguments(*, callbacks: int = 0, flags: int = 0, reserved: int | None = None) -> Any:
    """CK_C_INITIALIZE_ARGS with the first of its callbacks, which nobody calls."""
    given = InitializeArguments(flags=flags, reserved=reserved)
    for name in ("create", "destroy", "lock", "unlock")[:callbacks]:
        setattr(given, name, 1)
    return given


@pytest.mark.parametrize(("callbacks", "flags"), [(0, 0), (0, 1), (0, 2), (0, 3), (4, 0), (4, 2)])
def test_it_is_initialised_with_mutex_callbacks_or_none(
    application: Application, address: Path, callbacks: int, flags: int
) -> None:
    with serving(address, slots):
        assert application.call("Initialize", byref(arguments(callbacks=callbacks, flags=flags))) == OK
        assert slot_list(application) == (OK, 2)
        assert application.call("Finalize", None) == OK


@pytest.mark.parametrize(
    "given",
    [arguments(callbacks=1), arguments(callbacks=3), arguments(reserved=8)],
    ids=["one callback", "three", "reserved"],
)
def test_arguments_that_contradict_the_standard_are_refused(
    application: Application, address: Path, given: Any
) -> None:
    with serving(address, slots):
        assert application.call("Initialize", byref(given)) == ARGUMENTS_BAD
        assert slot_list(application) == (NOT_INITIALIZED, 0)


def test_it_is_initialised_once_and_finalised_once(application: Application, serve: Serve) -> None:
    serve(slots)
    assert application.call("Initialize", None) == ALREADY_INITIALIZED
    assert application.call("Finalize", c_void_p(8)) == ARGUMENTS_BAD
    assert application.call("Finalize", None) == OK
    assert application.call("Finalize", None) == NOT_INITIALIZED
    assert slot_list(application) == (NOT_INITIALIZED, 0)


def test_each_time_it_is_initialised_it_is_a_process_with_a_token_of_its_own(
    application: Application, serve: Serve
) -> None:
    gateway = serve(slots)
    before = sockets()
    for _ in range(3):
        assert application.call("Finalize", None) == OK
        wait_until(lambda: gateway.connected == 0, "the gateway sees the end of the process")
        assert application.call("Initialize", None) == OK
    assert len(set(gateway.processes)) == len(gateway.processes) == 4
    assert len(opened(before)) <= 1


# --- an absent gateway ---


def test_without_a_gateway_it_is_not_initialised_and_no_count_is_left(application: Application, address: Path) -> None:
    assert not address.exists()
    assert application.call("Initialize", None) == FUNCTION_FAILED
    assert slot_list(application) == (NOT_INITIALIZED, 0)
    with serving(address, slots):
        assert application.call("Initialize", None) == OK


def test_an_address_longer_than_a_socket_has_is_refused(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LNH_PKCS11_ADDRESS", "/" + "a" * 108)
    assert application.call("Initialize", None) == FUNCTION_FAILED


def test_the_address_is_the_users_own_where_none_is_given(
    application: Application, address: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LNH_PKCS11_ADDRESS")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(address.parent))
    (address.parent / "lnh").mkdir()
    with serving(address.parent / "lnh" / "pkcs11.sock", slots):
        assert application.call("Initialize", None) == OK


def test_a_gateway_that_went_away_is_an_error_until_it_is_back(application: Application, serve: Serve) -> None:
    gateway = serve(slots)
    gateway.stop()
    assert slot_list(application) == (DEVICE_ERROR, 0)
    for _ in range(3):
        assert slot_list(application) == (FUNCTION_FAILED, 0), "it uses no token"
        assert application.call("CloseSession", 1) == TOKEN_NOT_PRESENT
        assert application.call("GetMechanismList", 7, None, byref(c_ulong())) == TOKEN_NOT_PRESENT
    gateway.start()
    assert slot_list(application) == (OK, 2)


def test_it_says_why_where_it_is_asked_to(
    application: Application, address: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert application.call("Initialize", None) == FUNCTION_FAILED
    assert capfd.readouterr().err == "", "nobody asked"
    monkeypatch.setenv("LNH_PKCS11_DEBUG", "1")
    begins = f"lnh-pkcs11[{os.getpid()}]: "
    assert application.call("Initialize", None) == FUNCTION_FAILED
    assert capfd.readouterr().err == (
        f"{begins}no gateway at {address}: No such file or directory; is `lnh pkcs11 serve` running?\n"
    )
    with serving(address, lambda _: refused(0xA0)) as gateway:
        assert application.call("Initialize", None) == OK
        assert application.call("Login", 1, 1, b"the PIN itself", 14) == 0xA0
        assert capfd.readouterr().err == f"{begins}C_Login: CKR 0xa0\n"
        gateway.stop()
        assert application.call("CloseSession", 1) == DEVICE_ERROR
        said = capfd.readouterr().err.splitlines()
        assert [line.removeprefix(begins).partition(";")[0] for line in said] == [
            "the gateway closed the socket, or spoke otherwise", "C_CloseSession: CKR 0x30",
        ]  # fmt: skip


# --- a gateway that restarts ---


class Sessions:
    """A gateway's sessions: those of another start are unknown."""

    def __init__(self, known: int) -> None:
        self.known = known

    def __call__(self, request: Request) -> bytes:
        if request.id == CLOSE_SESSION and int.from_bytes(request.fields, "big") != self.known:
            return refused(SESSION_HANDLE_INVALID)
        return slots(request)


def test_a_restart_is_told_once_and_old_handles_are_unknown_then(application: Application, serve: Serve) -> None:
    gateway = serve(Sessions(1))
    assert application.call("CloseSession", 1) == OK
    token = gateway.processes[0]
    gateway.stop()
    gateway.answer = Sessions(2)
    gateway.start()
    assert application.call("CloseSession", 1) == DEVICE_ERROR
    assert application.call("CloseSession", 1) == SESSION_HANDLE_INVALID
    assert slot_list(application) == (OK, 2)
    assert application.call("CloseSession", 2) == OK
    assert set(gateway.processes) == {token}


def test_a_request_that_was_sent_whole_is_not_sent_again(application: Application, serve: Serve) -> None:
    def dies(request: Request) -> bytes:
        raise Silence

    gateway = serve(dies)
    assert application.call("CloseSession", 1) == DEVICE_ERROR
    assert len(gateway.requests) == 1
    gateway.answer = slots
    assert slot_list(application) == (OK, 2)
    assert [each.id for each in gateway.requests] == [CLOSE_SESSION, SLOT_LIST]


def test_a_socket_closed_while_another_is_left_is_not_noticed(application: Application, serve: Serve) -> None:
    together = threading.Barrier(2, timeout=30)

    def waits(request: Request) -> bytes:
        together.wait()
        return slots(request)

    gateway = serve(waits)
    threads = [threading.Thread(target=slot_list, args=(application,)) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert gateway.connected == 2
    gateway.answer = slots
    for _ in range(4):
        gateway.hang_up(keep=1)
        assert slot_list(application) == (OK, 2)
        assert application.call("CloseSession", 1) == OK


@contextlib.contextmanager
def caught(number: int) -> Iterator[list[int]]:
    """Record the signals of a number."""
    seen: list[int] = []
    before = signal.signal(number, lambda *_: seen.append(number))
    try:
        yield seen
    finally:
        signal.signal(number, before)


def test_an_application_is_never_sent_sigpipe(application: Application, serve: Serve) -> None:
    gateway = serve(slots)
    big = bytes(4 << 20)  # more than a socket takes, so that the gateway goes in the midst of it
    with caught(signal.SIGPIPE) as seen:
        for data in (b"", big):
            gateway.stop()
            length = c_ulong(64)
            assert application.call("Sign", 1, data, len(data), room(64), byref(length)) == DEVICE_ERROR
            gateway.start()
            assert slot_list(application) == (OK, 2)

        def dies(request: Request) -> bytes:
            raise Silence

        gateway.answer = dies
        length = c_ulong(64)
        assert application.call("Sign", 1, big, len(big), room(64), byref(length)) == DEVICE_ERROR
    assert seen == []


def test_a_long_request_and_a_long_reply_come_whole(application: Application, serve: Serve) -> None:
    data = bytes(range(256)) * 8192

    def echoes(request: Request) -> bytes:
        return body(request.id, "ay", request.fields[8:-4])

    serve(echoes)
    result, length = room(len(data)), c_ulong(len(data))
    assert application.call("Sign", 1, data, len(data), result, byref(length)) == OK
    assert bytes(result) == data
    assert length.value == len(data)


# --- a gateway that does not answer ---


def test_a_gateway_that_answers_nothing_is_an_error_at_the_deadline(
    application: Application, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    awake = threading.Event()

    def sleeps(request: Request) -> bytes:
        awake.wait(60)
        return slots(request)

    monkeypatch.setenv("LNH_PKCS11_TIMEOUT", "1")
    gateway = serve(sleeps)
    started = time.monotonic()
    assert application.call("CloseSession", 1) == DEVICE_ERROR
    assert 0.9 < time.monotonic() - started < 20
    gateway.answer = slots
    awake.set()  # the late answer is nobody's: its socket is closed
    wait_until(lambda: slot_list(application) == (OK, 2), "an answer within the deadline")  # a second, on any machine
    first, *others = (each.id for each in gateway.requests)
    assert (first, set(others)) == (CLOSE_SESSION, {SLOT_LIST})


def test_a_gateway_that_does_not_greet_is_an_error_at_the_deadline(
    application: Application, address: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LNH_PKCS11_TIMEOUT", "1")
    with serving(address, slots) as gateway:
        gateway.greet = False
        assert application.call("Initialize", None) == FUNCTION_FAILED
        gateway.greet = True
        wait_until(lambda: application.call("Initialize", None) == OK, "a greeting within the deadline")


# --- forks ---


def child_that_initialises(application: Application) -> int:
    """Be a forked child: have nothing, initialise, and have a gateway; 0, or which step was otherwise."""
    steps = (
        slot_list(application) == (NOT_INITIALIZED, 0),
        application.call("Finalize", None) == NOT_INITIALIZED,
        application.call("CloseSession", 1) == NOT_INITIALIZED,
        application.call("Initialize", None) == OK,
        slot_list(application) == (OK, 2),
        application.call("Initialize", None) == ALREADY_INITIALIZED,
        application.call("Finalize", None) == OK,
    )
    return 0 if all(steps) else 1 + steps.index(False)


def test_a_forked_child_has_nothing_until_it_initialises(application: Application, serve: Serve) -> None:
    gateway = serve(slots)
    assert slot_list(application) == (OK, 2)
    assert in_child(lambda: child_that_initialises(application)) == 0
    assert slot_list(application) == (OK, 2)
    parent, other = gateway.processes
    assert parent != other
    assert [each.process for each in gateway.requests] == [parent, other, parent]


def test_a_child_that_no_fork_handler_ran_in_has_nothing_either(application: Application, address: Path) -> None:
    def raw_fork() -> int:
        child: int = ctypes.PyDLL(None)._Fork()
        return child

    def parent() -> int:  # of one thread, as Python itself is not told of this fork
        if application.call("Initialize", None) != OK or slot_list(application) != (OK, 2):
            return 20
        code = in_child(lambda: child_that_initialises(application), raw_fork)
        return code or (0 if slot_list(application) == (OK, 2) else 21)

    with serving(address, slots) as gateway:
        assert in_child(parent) == 0
    first, other = gateway.processes
    assert [each.process for each in gateway.requests] == [first, other, first]


def test_a_forked_child_keeps_no_socket_of_its_parent(application: Application, serve: Serve) -> None:
    before = sockets()
    serve(slots)
    mine = opened(before)
    assert len(mine) == 1
    assert in_child(lambda: len(opened(before))) == 0
    assert opened(before) == mine
    assert slot_list(application) == (OK, 2)


def test_a_fork_in_the_midst_of_a_call_harms_neither(application: Application, serve: Serve) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def waits(request: Request) -> bytes:
        if request.id == CLOSE_SESSION:
            arrived.set()
            go_on.wait(30)
        return slots(request)

    serve(waits)
    outcome: list[int] = []
    caller = threading.Thread(target=lambda: outcome.append(application.call("CloseSession", 1)))
    caller.start()
    assert arrived.wait(30)
    assert in_child(lambda: int(slot_list(application) != (NOT_INITIALIZED, 0))) == 0
    assert slot_list(application) == (OK, 2)
    go_on.set()
    caller.join()
    assert outcome == [OK]


def test_its_sockets_are_closed_by_exec(application: Application, serve: Serve) -> None:
    before = sockets()
    serve(slots)
    mine = opened(before)
    assert mine
    assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in mine)


# --- what an application does ---


def test_a_file_that_took_the_number_of_its_socket_is_not_written_to(
    application: Application, serve: Serve, tmp_path: Path
) -> None:
    before = sockets()
    serve(slots)
    (mine,) = opened(before)
    file = tmp_path / "application"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    os.dup2(descriptor, mine)  # closes what it was
    ckr, _ = slot_list(application)
    assert ckr in {OK, DEVICE_ERROR}
    assert slot_list(application) == (OK, 2)
    assert application.call("Finalize", None) == OK
    assert file.read_bytes() == b""
    assert stat.S_ISREG(os.fstat(mine).st_mode)
    os.close(mine)
    os.close(descriptor)


def test_it_takes_no_number_of_standard_input_or_output(application: Application, address: Path) -> None:
    def child() -> int:
        before = sockets()
        os.close(0)
        if application.call("Initialize", None) != OK or slot_list(application) != (OK, 2):
            return 1
        with contextlib.suppress(OSError):
            os.fstat(0)
            return 2
        return 0 if len(opened(before)) == 1 else 3

    with serving(address, slots):
        assert in_child(child) == 0


# --- threads ---


def test_each_call_in_flight_has_a_socket_and_all_are_one_process(application: Application, serve: Serve) -> None:
    count = 16
    together = threading.Barrier(count, timeout=60)

    def meets(request: Request) -> bytes:
        together.wait()
        return body(request.id, "ay", array(request.fields[:8]))

    gateway = serve(meets)
    outcomes: list[tuple[int, bool]] = []

    def signs(session: int) -> None:
        for _ in range(10):
            result, length = room(8), c_ulong(8)
            ckr = application.call("Sign", session, b"data", 4, result, byref(length))
            outcomes.append((ckr, bytes(result) == session.to_bytes(8, "big") and length.value == 8))

    threads = [threading.Thread(target=signs, args=(number,)) for number in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert outcomes == [(OK, True)] * (count * 10)
    assert gateway.connected == count
    assert len(set(gateway.processes)) == 1


def test_calls_in_flight_end_when_the_module_is_finalised(application: Application, serve: Serve) -> None:
    arrived, go_on = threading.Semaphore(0), threading.Event()

    def waits(request: Request) -> bytes:
        arrived.release()
        go_on.wait(60)
        return slots(request)

    gateway = serve(waits)
    outcomes: list[int] = []
    threads = [threading.Thread(target=lambda: outcomes.append(application.call("CloseSession", 1))) for _ in range(4)]
    for each in threads:
        each.start()
    for _ in threads:
        assert arrived.acquire(timeout=30)
    assert application.call("Finalize", None) == OK
    for each in threads:
        each.join()
    go_on.set()
    assert outcomes == [NOT_INITIALIZED] * 4
    gateway.answer = slots
    assert application.call("Initialize", None) == OK
    assert slot_list(application) == (OK, 2)


def test_threads_see_a_restart_and_go_on(application: Application, serve: Serve) -> None:
    gateway = serve(slots)
    stop = threading.Event()
    outcomes: list[int] = []

    def asks() -> None:
        while not stop.is_set():
            outcomes.append(slot_list(application)[0])

    threads = [threading.Thread(target=asks) for _ in range(8)]
    for each in threads:
        each.start()
    for _ in range(3):
        target = len(outcomes) + 200
        wait_until(lambda target=target: len(outcomes) > target, "threads ask")  # type: ignore[misc]
        gateway.stop()
        gateway.start()
    target = len(outcomes) + 200
    wait_until(lambda: len(outcomes) > target, "threads ask")
    stop.set()
    for each in threads:
        each.join()
    assert set(outcomes) <= {OK, DEVICE_ERROR, FUNCTION_FAILED}
    assert len(set(outcomes)) > 1, "it is told"
    assert slot_list(application) == (OK, 2)
