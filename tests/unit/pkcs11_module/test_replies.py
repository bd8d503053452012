"""What a gateway that lies can do to an application: nothing, but refuse."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from ctypes import byref, c_ulong
from pathlib import Path
from typing import Final

import pytest

from lnh_pkcs11.module import build
from models.pkcs11_application import Application, attributes, room
from models.pkcs11_gateway import Answer, Gateway, Request, array, attribute, blob, body, number, numbers
from waits import wait_until

OK, DEVICE_ERROR, BUFFER_TOO_SMALL = 0x00, 0x30, 0x150
LABEL, WRAP_TEMPLATE, ALLOWED_MECHANISMS = 0x03, 0x40000211, 0x40000600
UNAVAILABLE = 2**64 - 1
HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[2]
HARNESS: Final = ROOT / "tests" / "models" / "pkcs11_replies.c"
BUILT: Final = ROOT / "build" / "pkcs11"
INPUTS: Final = int(os.environ.get("LNH_SOAK_INPUTS", "50000"))

Serve = Callable[[Answer], Gateway]
Frame = Callable[[int, bytes], bytes]


def signs(application: Application) -> tuple[int, int]:
    """Ask for a signature of at most 64 bytes; the CKR, and the length that is told."""
    length = c_ulong(64)
    memory = room(64 + 8)
    ckr = application.call("Sign", 1, b"data", 4, memory, byref(length))
    assert bytes(memory)[64:] == b"\xaa" * 8
    return ckr, length.value


def frame(code: int, data: bytes, options: int = 0, length: int | None = None) -> bytes:
    return struct.pack(">III", code, options, len(data) if length is None else length) + data


FRAMES: dict[str, Frame] = {
    "the code of another request": lambda code, data: frame(code + 1, data),
    "options": lambda code, data: frame(code, b"abcd" + data, options=4, length=len(data)),
    "a length of 4 GiB": lambda code, data: frame(code, data, length=0xFFFFFFFF),
    "a length that is not sent": lambda code, data: frame(code, data, length=len(data) + 1),
    "half a header": lambda code, data: frame(code, data)[:7],
    "nothing": lambda *_: b"",
}


@pytest.mark.parametrize("lie", FRAMES)
def test_a_frame_that_lies_is_an_error_and_ends_its_socket(
    application: Application, serve: Serve, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    monkeypatch.setenv("LNH_PKCS11_TIMEOUT", "1")  # for what is announced and does not come
    gateway = serve(lambda request: body(request.id, "ay", array(b"signature")))
    honest, gateway.frame = gateway.frame, FRAMES[lie]
    assert signs(application)[0] == DEVICE_ERROR
    gateway.frame = honest
    wait_until(lambda: signs(application) == (OK, 9), "an answer within the deadline")


GOOD: Final = array(b"signature")
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "half an id": b"\x00\x00",
    "another call's id": body(42, "ay", GOOD),
    "another signature": body(43, "au", numbers([1])),
    "a longer signature": body(43, "ayu", GOOD + number(1)),
    "a shorter signature": body(43, "", b""),
    "a signature that is longer than the body": struct.pack(">II", 43, 2**32 - 1) + b"ay",
    "no field": body(43, "ay"),
    "a field that ends early": body(43, "ay", array(b"signature", 10)),
    "a field of 4 GiB": body(43, "ay", array(b"signature", 2**32 - 1)),
    "bytes behind the last field": body(43, "ay", GOOD + b"!"),
    "no bytes for a buffer that has room": body(43, "ay", array(None, 9)),
    "an error of another signature": body(0, "y", b"\x01"),
    "an error that is none": body(0, "u", number(0)),
    "an error that ends early": body(0, "u", b"\x00"),
    "an error with more": body(0, "u", number(5) + b"\x00"),
}


@pytest.mark.parametrize("lie", BODIES)
def test_a_body_that_lies_is_an_error_and_the_next_is_read(application: Application, serve: Serve, lie: str) -> None:
    gateway = serve(lambda _: BODIES[lie])
    assert signs(application)[0] == DEVICE_ERROR
    gateway.answer = lambda request: body(request.id, "ay", GOOD)
    assert signs(application) == (OK, 9)


def test_more_than_there_is_room_for_is_never_written(application: Application, serve: Serve) -> None:
    serve(lambda request: body(request.id, "ay", array(bytes(65))))
    assert signs(application) == (BUFFER_TOO_SMALL, 65)


@pytest.mark.parametrize("name", ["GetSlotList", "FindObjects"])
def test_a_list_longer_than_its_room_is_never_written(application: Application, serve: Serve, name: str) -> None:
    serve(lambda request: body(request.id, "au", numbers([1] * 5)))
    memory, count = (c_ulong * 5)(*[7] * 5), c_ulong(4)
    if name == "GetSlotList":
        ckr = application.call(name, 1, memory, byref(count))
    else:
        ckr = application.call(name, 1, memory, 4, byref(count))
    assert (ckr, list(memory)) == (BUFFER_TOO_SMALL, [7] * 5)


def nested(depth: int) -> bytes:
    """The value of an attribute: templates within templates, and a label in the innermost."""
    one = struct.pack(">I", 1)
    within = one + struct.pack(">IBI", WRAP_TEMPLATE, 1, 24)
    return within * (depth - 1) + one + attribute(LABEL, blob(b"it"), 2)


ATTRIBUTES: dict[str, bytes] = {
    "another attribute": attribute(0x102, blob(b"it"), 2),
    "a length that is not the value's": attribute(WRAP_TEMPLATE, nested(1), 48),
    "half an attribute's length": attribute(WRAP_TEMPLATE, nested(1), 25),
    "a count of 4 billion": attribute(WRAP_TEMPLATE, struct.pack(">I", 2**32 - 2), 24),
    "a depth of 100": attribute(WRAP_TEMPLATE, nested(100), 24),
    "a depth of 100000": attribute(WRAP_TEMPLATE, nested(100_000), 24),
    "mechanisms within": attribute(
        WRAP_TEMPLATE, struct.pack(">I", 1) + attribute(ALLOWED_MECHANISMS, struct.pack(">I", 2**29), 8), 24
    ),
    "a template where bytes were asked for": attribute(WRAP_TEMPLATE, nested(2), 24),
}


@pytest.mark.parametrize("lie", ATTRIBUTES)
def test_attributes_that_lie_are_an_error(application: Application, serve: Serve, lie: str) -> None:
    serve(lambda request: body(request.id, "aAu", struct.pack(">I", 1) + ATTRIBUTES[lie] + number(0)))
    memory = room(64)
    within = attributes((LABEL, memory, 64))
    asked = attributes((WRAP_TEMPLATE, within, 24))
    assert application.call("GetAttributeValue", 1, 2, asked, 1) == DEVICE_ERROR
    assert bytes(memory) == b"\xaa" * 64


def test_a_list_of_attributes_is_as_long_as_was_asked_for(application: Application, serve: Serve) -> None:
    label = attribute(LABEL, blob(b"it"), 2)

    def answers(count: int) -> Answer:
        return lambda request: body(request.id, "aAu", struct.pack(">I", count) + label * count + number(0))

    gateway = serve(answers(1))
    asked = attributes((LABEL, room(2), 2))
    assert application.call("GetAttributeValue", 1, 2, asked, 1) == OK
    for count in (0, 2, 3):
        gateway.answer = answers(count)
        assert application.call("GetAttributeValue", 1, 2, asked, 1) == DEVICE_ERROR


def test_random_bytes_from_the_socket_are_an_error(application: Application, serve: Serve) -> None:
    draw = random.Random(random.randrange(2**32))

    def answers(request: Request) -> bytes:
        return body(request.id, "ay", draw.randbytes(draw.randrange(40))) if draw.randrange(2) else draw.randbytes(50)

    serve(answers)
    for _ in range(300):
        ckr, length = signs(application)
        assert ckr in {OK, DEVICE_ERROR, BUFFER_TOO_SMALL} or ckr > 0
        assert ckr != OK or length <= 64


# --- with sanitizers ---


def sanitized(name: str, sources: Sequence[Path], cc: Sequence[str], *flags: str) -> Path:
    """Build the module's reader of replies as a program, with sanitizers, each byte too many an end of it."""
    target = BUILT / f"{name}-{os.getpid()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [*cc, *build.STANDARD, "-O1", *build.SANITIZERS, *flags, f"-I{build.HERE}", "-o", target, HARNESS, *sources],
        check=True,
    )
    return target


def sources() -> list[Path]:
    """The module, but for its sockets, which the harness stands in for."""
    return [build.HERE / name for name in build.SOURCES if name not in {"link.c", "interfaces.c"}]


def compiler() -> list[str]:
    cc = build.compiler()
    if cc is None:
        pytest.skip("there is no C compiler")
    return cc


def by_seed() -> list[str]:
    """Build the harness that makes its inputs itself, and return how it is run."""
    program = sanitized("replies", sources(), compiler())
    return [str(program), str(INPUTS), str(random.randrange(2**32))]


def by_coverage() -> list[str]:
    """Build the harness with libFuzzer, which looks for inputs that lead elsewhere, and return how it is run."""
    clang = shutil.which("clang")
    if clang is None:
        pytest.skip("there is no clang")
    program = sanitized("libfuzzer", sources(), [clang], "-fsanitize=fuzzer", "-DLIBFUZZER")
    seed = random.randrange(1, 2**32)
    return [str(program), f"-runs={INPUTS}", f"-seed={seed}", "-max_len=4096", f"-artifact_prefix={BUILT}/"]


@pytest.mark.parametrize("inputs", [by_seed, by_coverage])
def test_replies_that_lie_meet_no_fault_that_a_sanitizer_sees(inputs: Callable[[], list[str]]) -> None:
    command = inputs()
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        Path(command[0]).unlink()
    assert ended.returncode == 0, f"{' '.join(command)}\n{ended.stderr[-5000:]}"


FAULTS: Final = {
    "attributes.c": (
        "} else if (attribute->ulValueLen < length) {",
        "} else if (attribute->ulValueLen + 8 < length) {",
    ),
    "call.c": ("if (count > room) {", "if (count > room + 1) {"),
    "wire.c": ("count > reader->length - reader->at", "count > reader->length - reader->at + 1"),
}


@pytest.mark.parametrize("name", FAULTS if "LNH_SOAK_INPUTS" in os.environ else ["attributes.c"])
def test_a_fault_of_a_few_bytes_is_found_by_these_inputs(tmp_path: Path, name: str) -> None:
    right, wrong = FAULTS[name]
    text = (build.HERE / name).read_text()
    assert text.count(right) == 1
    (tmp_path / name).write_text(text.replace(right, wrong))
    with_fault = [tmp_path / name if each.name == name else each for each in sources()]
    program = sanitized(f"fault-{name}", with_fault, compiler())
    try:
        ended = subprocess.run([program, "20000", "1"], capture_output=True, text=True, check=False)
    finally:
        program.unlink()
    assert ended.returncode != 0
    assert "AddressSanitizer" in ended.stderr


@pytest.mark.skipif("LNH_TEST_PKCS11_MODULE" in os.environ, reason="these are those tests")
def test_all_of_these_tests_pass_with_sanitizers(sanitized_module: Path) -> None:
    library = subprocess.run(
        [*compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-k", "not sanitizer and not these_inputs", str(HERE)],
        env={
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "",  # what pytest rewrites is kept: it takes many times as long with sanitizers
            "LNH_TEST_PKCS11_MODULE": str(sanitized_module),
            "LD_PRELOAD": library,
            "ASAN_OPTIONS": "detect_leaks=0",  # Python's own are many; the harness looks for the module's
            "PYTHONMALLOC": "malloc",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
