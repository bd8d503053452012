"""What the module sends of each call and gives the application of its reply; the gateway's own reader reads it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ctypes import Array, addressof, byref, c_char_p, c_ulong, c_void_p, cast, create_string_buffer, sizeof
from typing import Any

import pytest

from lnh_common import limits
from lnh_pkcs11 import fields
from lnh_pkcs11.calls import CALLS, CALLS_BY_ID, CALLS_BY_NAME, NO_FUNCTIONS
from lnh_pkcs11.fields import Given, Room
from lnh_pkcs11.layouts import LAYOUTS, MESSAGE_LAYOUTS, RAW, Layout
from lnh_pkcs11.ways import Way
from models.pkcs11_application import UNAVAILABLE, Application, Mechanism, attributes, names_in, room
from models.pkcs11_gateway import Answer, Gateway, Request, array, attribute, blob, body, number, numbers, text

OK = 0x00
ARGUMENTS_BAD = 0x07
ATTRIBUTE_SENSITIVE = 0x11
ATTRIBUTE_VALUE_INVALID = 0x13
DEVICE_ERROR = 0x30
FUNCTION_NOT_PARALLEL = 0x51
FUNCTION_NOT_SUPPORTED = 0x54
MECHANISM_INVALID = 0x70
MECHANISM_PARAM_INVALID = 0x71
BUFFER_TOO_SMALL = 0x150
NOT_INITIALIZED = 0x190
CLASS, TOKEN, LABEL, VALUE, KEY_TYPE, START_DATE = 0x00, 0x01, 0x03, 0x11, 0x100, 0x110
WRAP_TEMPLATE, ALLOWED_MECHANISMS = 0x40000211, 0x40000600

Serve = Callable[[Answer], Gateway]


def given(request: Request) -> list[Any]:
    """Read the fields of a request as the gateway does."""
    call = CALLS_BY_ID[request.id]
    letters, _ = call.fields(own=True)
    assert request.signature == letters
    return fields.read(letters, request.fields, Way.MODULE)


def memory(text: bytes) -> Array[Any]:
    return create_string_buffer(text, len(text))


# --- every call ---

S = 0x1122334455667788  # a session whose bytes all differ
AES, ECDSA = 0x1080, 0x1041
DATA, MORE = b"the data", b"and more"


def mechanism(kind: int = ECDSA) -> Any:
    return byref(Mechanism(kind, None, 0))


def template() -> tuple[Any, int]:
    return attributes((LABEL, memory(b"key"), 3)), 1


def data(content: bytes = DATA) -> tuple[Any, int]:
    return memory(content), len(content)


def out() -> tuple[Any, Any]:
    return room(64), byref(c_ulong(64))


TEMPLATE = [(LABEL, b"key")]
M = Given(ECDSA)
K, K2, FLAGS = 0x0102030405060708, 0x1112131415161718, 0x7F

BEGINS = names_in("Encrypt Decrypt Sign SignRecover Verify VerifyRecover")
TURNS = names_in(
    "Encrypt EncryptUpdate Decrypt DecryptUpdate Digest Sign SignRecover VerifyRecover DigestEncryptUpdate "
    "DecryptDigestUpdate SignEncryptUpdate DecryptVerifyUpdate"
)
DRAWS = names_in("GetOperationState EncryptFinal DecryptFinal DigestFinal SignFinal")
FEEDS = names_in(
    "DigestUpdate SignUpdate VerifyUpdate VerifyFinal SeedRandom InitPIN VerifySignature VerifySignatureUpdate "
    "SignMessageBegin VerifyMessageBegin"
)
PLAIN = names_in(
    "CloseSession CloseAllSessions Logout FindObjectsFinal MessageEncryptFinal MessageDecryptFinal MessageSignFinal "
    "MessageVerifyFinal VerifySignatureFinal"
)


def calls() -> dict[str, tuple[tuple[Any, ...], list[Any]]]:
    """Give for each call what the application gives, and what the gateway reads of it."""
    return {
        **{f"{name}Init": ((S, mechanism(), K), [S, M, K]) for name in BEGINS},
        **{f"Message{name}Init": ((S, mechanism(), K), [S, M, K]) for name in ("Encrypt", "Decrypt", "Sign", "Verify")},
        **{name: ((S, *data(), *out()), [S, DATA, 64]) for name in TURNS},
        **{name: ((S, *out()), [S, 64]) for name in DRAWS},
        **{name: ((S, *data()), [S, DATA]) for name in FEEDS},
        **{name: ((S,), [S]) for name in PLAIN},
        "GetInfo": ((room(88),), []),
        "GetSlotList": ((1, (c_ulong * 4)(), byref(c_ulong(4))), [1, 4]),
        "GetSlotInfo": ((K, room(112)), [K]),
        "GetTokenInfo": ((K, room(208)), [K]),
        "GetMechanismList": ((K, (c_ulong * 4)(), byref(c_ulong(4))), [K, 4]),
        "GetMechanismInfo": ((K, AES, room(24)), [K, AES]),
        "InitToken": ((K, *data(), memory(b"label".ljust(32))), [K, DATA, b"label".ljust(32)]),
        "SetPIN": ((S, *data(), *data(MORE)), [S, DATA, MORE]),
        "OpenSession": ((K, FLAGS, None, None, byref(c_ulong())), [K, FLAGS]),
        "GetSessionInfo": ((S, room(32)), [S]),
        "SetOperationState": ((S, *data(), K, K2), [S, DATA, K, K2]),
        "Login": ((S, 1, *data()), [S, 1, DATA]),
        "LoginUser": ((S, 1, *data(), *data(MORE)), [S, 1, DATA, MORE]),
        "SessionCancel": ((S, FLAGS), [S, FLAGS]),
        "CreateObject": ((S, *template(), byref(c_ulong())), [S, TEMPLATE]),
        "CopyObject": ((S, K, *template(), byref(c_ulong())), [S, K, TEMPLATE]),
        "DestroyObject": ((S, K), [S, K]),
        "GetObjectSize": ((S, K, byref(c_ulong())), [S, K]),
        "GetAttributeValue": ((S, K, attributes((LABEL, room(9), 9)), 1), [S, K, (Room(LABEL, 9),)]),
        "SetAttributeValue": ((S, K, *template()), [S, K, TEMPLATE]),
        "FindObjectsInit": ((S, *template()), [S, TEMPLATE]),
        "FindObjects": ((S, (c_ulong * 4)(), 4, byref(c_ulong())), [S, 4]),
        "DigestInit": ((S, mechanism()), [S, M]),
        "DigestKey": ((S, K), [S, K]),
        "Verify": ((S, *data(), *data(MORE)), [S, DATA, MORE]),
        "GenerateKey": ((S, mechanism(), *template(), byref(c_ulong())), [S, M, TEMPLATE]),
        "GenerateKeyPair": (
            (S, mechanism(), *template(), None, 0, byref(c_ulong()), byref(c_ulong())),
            [S, M, TEMPLATE, []],
        ),
        "WrapKey": ((S, mechanism(), K, K2, *out()), [S, M, K, K2, 64]),
        "UnwrapKey": ((S, mechanism(), K, *data(), *template(), byref(c_ulong())), [S, M, K, DATA, TEMPLATE]),
        "DeriveKey": ((S, mechanism(), K, *template(), byref(c_ulong())), [S, M, K, TEMPLATE]),
        "GenerateRandom": ((S, room(3), 3), [S, 3]),
        "WaitForSlotEvent": ((1, byref(c_ulong()), None), [1]),
        "EncryptMessage": ((S, None, 0, *data(), *data(MORE), *out()), [S, Given(0), DATA, MORE, 64]),
        "EncryptMessageBegin": ((S, None, 0, *data()), [S, Given(0), DATA]),
        "EncryptMessageNext": ((S, None, 0, *data(), *out(), FLAGS), [S, Given(0), DATA, 64, FLAGS]),
        "DecryptMessage": ((S, None, 0, *data(), *data(MORE), *out()), [S, Given(0), DATA, MORE, 64]),
        "DecryptMessageBegin": ((S, None, 0, *data()), [S, Given(0), DATA]),
        "DecryptMessageNext": ((S, None, 0, *data(), *out(), FLAGS), [S, Given(0), DATA, 64, FLAGS]),
        "SignMessage": ((S, None, 0, *data(), *out()), [S, None, DATA, 64]),
        "SignMessageNext": ((S, None, 0, *data(), *out()), [S, None, DATA, 1, 64]),
        "VerifyMessage": ((S, None, 0, *data(), *data(MORE)), [S, None, DATA, MORE]),
        "VerifyMessageNext": ((S, None, 0, *data(), *data(MORE)), [S, None, DATA, MORE]),
        "EncapsulateKey": ((S, mechanism(), K, *template(), *out(), byref(c_ulong())), [S, M, K, TEMPLATE, 64]),
        "DecapsulateKey": ((S, mechanism(), K, *template(), *data(), byref(c_ulong())), [S, M, K, TEMPLATE, DATA]),
        "VerifySignatureInit": ((S, mechanism(), K, *data()), [S, M, K, DATA]),
        "GetSessionValidationFlags": ((S, 1, byref(c_ulong())), [S, 1]),
        "WrapKeyAuthenticated": ((S, mechanism(), K, K2, *data(), *out()), [S, M, K, K2, DATA, 64]),
        "UnwrapKeyAuthenticated": (
            (S, mechanism(), K, *data(), *template(), *data(MORE), byref(c_ulong())),
            [S, M, K, DATA, TEMPLATE, MORE],
        ),
    }


SENT = [call.name for call in CALLS if call.id and call.name not in {*NO_FUNCTIONS, "Initialize", "Finalize"}]
ANSWERED = [call.name for call in CALLS if not call.id and call.answer != "CKR_OK"]


TEXTS = {"GetInfo": [32, 32], "GetSlotInfo": [64, 32], "GetTokenInfo": [32, 32, 16, 16, 16]}


def some(request: Request) -> bytes:
    """Answer with some value for each field of the call's reply."""
    call = CALLS_BY_ID[request.id]
    letters = call.fields(own=True)[1]
    texts = iter(TEXTS.get(call.name, ()))
    values = {
        "u": lambda: number(0) if call.name == "GetAttributeValue" else number(9),
        "v": lambda: bytes([3, 2]),
        "s": lambda: text("text", next(texts)),
        "ay": lambda: array(b"abc"),
        "au": lambda: numbers([5, 6, 7]),
        "aA": lambda: struct.pack(">I", 1) + attribute(LABEL, blob(b"it"), 2),
        "P": lambda: bytes([0]),
    }
    return body(request.id, letters, b"".join(values[each]() for each in fields.split(letters)))


@pytest.mark.parametrize("name", SENT)
def test_each_call_sends_what_the_gateway_reads(application: Application, serve: Serve, name: str) -> None:
    gateway = serve(some)
    given_by_application, read_by_gateway = calls()[name]
    assert application.call(name, *given_by_application) == OK
    (request,) = gateway.requests
    assert request.id == CALLS_BY_NAME[name].id
    assert given(request) == read_by_gateway


def test_each_call_that_is_sent_has_a_row_here() -> None:
    assert set(SENT) == set(calls())


@pytest.mark.parametrize("name", SENT)
def test_no_call_is_made_before_the_module_is_initialised(application: Application, name: str) -> None:
    assert application.call(name, *calls()[name][0]) == NOT_INITIALIZED


@pytest.mark.parametrize("name", ANSWERED)
def test_what_is_not_passed_is_refused_by_the_module(application: Application, name: str) -> None:
    wanted = {"CKR_FUNCTION_NOT_PARALLEL": FUNCTION_NOT_PARALLEL, "CKR_FUNCTION_NOT_SUPPORTED": FUNCTION_NOT_SUPPORTED}
    assert application.call(name, S, None, None, None, 0) == wanted[CALLS_BY_NAME[name].answer]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("GetInfo", (None,)),
        ("GetSlotList", (1, None, None)),
        ("GetTokenInfo", (1, None)),
        ("OpenSession", (1, 4, None, None, None)),
        ("Sign", (S, DATA, 8, None, None)),
        ("Sign", (S, None, 8, *out())),
        ("Encrypt", (S, None, 1, *out())),
        ("FindObjects", (S, None, 1, byref(c_ulong()))),
        ("FindObjectsInit", (S, None, 1)),
        ("GenerateKey", (S, None, *template(), byref(c_ulong()))),
        ("GenerateKeyPair", (S, mechanism(), None, 0, None, 0, None, byref(c_ulong()))),
        ("GenerateRandom", (S, None, 3)),
        ("WaitForSlotEvent", (1, byref(c_ulong()), c_void_p(8))),
        ("InitToken", (1, None, 0, None)),
    ],
)
def test_a_pointer_that_must_be_there_is_asked_for(
    application: Application, serve: Serve, name: str, arguments: tuple[Any, ...]
) -> None:
    gateway = serve(some)
    assert application.call(name, *arguments) == ARGUMENTS_BAD
    assert gateway.requests == []


# --- what comes back ---


def test_infos_are_filled_in(application: Application, serve: Serve) -> None:
    serve(some)
    info = room(88)
    assert application.call("GetInfo", info) == OK
    layout = struct.unpack("=2s32s6xQ32s2s6x", bytes(info))
    assert layout == (b"\x03\x02", b"text".ljust(32), 9, b"text".ljust(32), b"\x03\x02")
    info = room(208)
    assert application.call("GetTokenInfo", K, info) == OK
    label, *_, flags, most = struct.unpack("=32s32s16s16s" + 2 * "Q", bytes(info)[:112])
    assert (label, flags, most) == (b"text".ljust(32), 9, 9)
    assert bytes(info)[184:] == b"\x03\x02\x03\x02" + b"text".ljust(16) + b"\xaa" * 4


def sized(request: Request) -> bytes:
    """Answer five bytes, or three numbers, as the gateway does: where there is room, and else their length."""
    call = CALLS_BY_ID[request.id]
    wanted = given(request)[-1]
    if call.reply == "au":
        return body(request.id, "au", numbers([5, 6, 7] if wanted is not None and wanted >= 3 else None, 3))
    return body(request.id, "ay", array(b"12345", 5) if wanted is not None and wanted >= 5 else array(None, 5))


@pytest.mark.parametrize("given_room", [None, 0, 1, 4, 5, 6, 64])
def test_bytes_are_given_where_there_is_room_and_else_their_length(
    application: Application, serve: Serve, given_room: int | None
) -> None:
    serve(sized)
    buffer = None if given_room is None else room(given_room)
    length = c_ulong(given_room or 0)
    ckr = application.call("Sign", S, DATA, 8, buffer, byref(length))
    assert length.value == 5
    if given_room is None:
        assert ckr == OK
    elif given_room < 5:
        assert ckr == BUFFER_TOO_SMALL
        assert bytes(buffer or b"") == b"\xaa" * given_room
    else:
        assert ckr == OK
        assert bytes(buffer or b"") == b"12345".ljust(given_room, b"\xaa")


@pytest.mark.parametrize("given_room", [None, 0, 2, 3, 9])
@pytest.mark.parametrize("name", ["GetSlotList", "GetMechanismList"])
def test_numbers_are_given_where_there_is_room_and_else_their_count(
    application: Application, serve: Serve, name: str, given_room: int | None
) -> None:
    serve(sized)
    buffer = None if given_room is None else (c_ulong * given_room)()
    count = c_ulong(given_room or 0)
    ckr = application.call(name, 1, buffer, byref(count))
    assert count.value == 3
    assert ckr == (BUFFER_TOO_SMALL if given_room is not None and given_room < 3 else OK)
    if buffer is not None and ckr == OK:
        assert list(buffer)[:3] == [5, 6, 7]


def test_an_empty_result_is_valid_in_a_buffer_of_no_length(application: Application, serve: Serve) -> None:
    gateway = serve(lambda request: body(request.id, "ay", array(b"")))
    length = c_ulong(0)
    assert application.call("Decrypt", S, DATA, 8, room(1), byref(length)) == OK
    assert length.value == 0
    assert given(gateway.requests[0])[-1] == 0
    length = c_ulong(0)
    assert application.call("Decrypt", S, DATA, 8, None, byref(length)) == OK
    assert given(gateway.requests[1])[-1] is None


def test_random_bytes_are_as_many_as_were_asked_for_or_none(application: Application, serve: Serve) -> None:
    gateway = serve(lambda request: body(request.id, "ay", array(b"abc")))
    got = room(3)
    assert application.call("GenerateRandom", S, got, 3) == OK
    assert bytes(got) == b"abc"
    assert application.call("GenerateRandom", S, room(4), 4) == DEVICE_ERROR
    assert application.call("GenerateRandom", S, room(2), 2) == BUFFER_TOO_SMALL
    gateway.answer = lambda request: body(request.id, "ay", array(None, 3))
    assert application.call("GenerateRandom", S, room(3), 3) == DEVICE_ERROR


def test_an_operation_goes_on_after_a_buffer_that_was_too_small(application: Application, serve: Serve) -> None:
    gateway = serve(sized)
    length = c_ulong(4)
    assert application.call("Sign", S, DATA, 8, room(4), byref(length)) == BUFFER_TOO_SMALL
    buffer = room(length.value)
    assert application.call("Sign", S, DATA, 8, buffer, byref(length)) == OK
    assert bytes(buffer) == b"12345"
    assert gateway.connected == 1


@pytest.mark.parametrize(
    "name", names_in("EncryptInit DecryptInit DigestInit SignInit VerifyInit MessageEncryptInit MessageSignInit")
)
def test_an_init_without_a_mechanism_cancels(application: Application, serve: Serve, name: str) -> None:
    gateway = serve(some)
    assert application.call(name, S, None, 0) == OK
    assert given(gateway.requests[0])[:2] == [S, None]


def test_a_refusal_is_the_gateways_and_leaves_no_handle(application: Application, serve: Serve) -> None:
    serve(lambda _: body(0, "u", number(0xD0)))
    first, second = c_ulong(7), c_ulong(8)
    assert application.call("GenerateKey", S, mechanism(), *template(), byref(first)) == 0xD0
    assert first.value == 0
    first = c_ulong(7)
    assert application.call("GenerateKeyPair", S, mechanism(), None, 0, None, 0, byref(first), byref(second)) == 0xD0
    assert (first.value, second.value) == (0, 0)
    count = c_ulong(4)
    assert application.call("FindObjects", S, (c_ulong * 4)(), 4, byref(count)) == 0xD0
    assert count.value == 0


@pytest.mark.parametrize("name", ["DigestUpdate", "SignUpdate", "VerifyUpdate", "VerifySignatureUpdate"])
def test_a_part_longer_than_a_gateway_reads_goes_in_several(application: Application, serve: Serve, name: str) -> None:
    gateway = serve(some)
    part = bytes(range(251)) * (limits.PKCS11_FRAME_BYTES // 251 + 1000)
    assert len(part) > limits.PKCS11_FRAME_BYTES
    assert application.call(name, S, part, len(part)) == OK
    assert b"".join(given(each)[1] for each in gateway.requests) == part
    assert {given(each)[0] for each in gateway.requests} == {S}
    assert max(len(each.fields) for each in gateway.requests) < limits.PKCS11_FRAME_BYTES
    gateway.answer = lambda _: body(0, "u", number(0xD0))
    before = len(gateway.requests)
    assert application.call(name, S, part, len(part)) == 0xD0
    assert len(gateway.requests) == before + 1


# --- templates ---


def test_the_values_of_a_template_travel_by_their_kinds(application: Application, serve: Serve) -> None:
    gateway = serve(some)
    mechanisms = (c_ulong * 2)(0x1041, 0x1044)
    inner = attributes((TOKEN, memory(b"\x01"), 1), (LABEL, memory(b"inner"), 5))
    whole = attributes(
        (CLASS, (c_ulong * 1)(3), 8),
        (TOKEN, memory(b"\x01"), 1),
        (LABEL, memory(b"label"), 5),
        (VALUE, None, 0),
        (START_DATE, memory(b"20260101"), 8),
        (ALLOWED_MECHANISMS, mechanisms, 16),
        (WRAP_TEMPLATE, inner, sizeof(inner)),
        (0x80000001, memory(b"vendor"), 6),
        (LABEL, None, UNAVAILABLE),
    )
    assert application.call("CreateObject", S, whole, len(whole), byref(c_ulong())) == OK
    assert given(gateway.requests[0])[1] == [
        (CLASS, 3),
        (TOKEN, 1),
        (LABEL, b"label"),
        (VALUE, b""),
        (START_DATE, b"20260101"),
        (ALLOWED_MECHANISMS, [0x1041, 0x1044]),
        (WRAP_TEMPLATE, [(TOKEN, 1), (LABEL, b"inner")]),
        (0x80000001, b"vendor"),
        (LABEL, None),
    ]


def nested(depth: int, innermost: Any) -> Any:
    template = innermost
    for _ in range(depth):
        template = attributes((WRAP_TEMPLATE, template, sizeof(template)))
    return template


@pytest.mark.parametrize(
    "attribute",
    [
        (TOKEN, memory(b"\x01\x00"), 2),
        (TOKEN, None, 0),
        (CLASS, memory(b"1234"), 4),
        (LABEL, None, 3),
        (ALLOWED_MECHANISMS, memory(b"123456789"), 9),
        (WRAP_TEMPLATE, memory(b"1234567"), 7),
    ],
)
def test_a_value_that_does_not_fit_its_kind_is_refused(
    application: Application, serve: Serve, attribute: tuple[int, Any, int]
) -> None:
    gateway = serve(some)
    assert application.call("CreateObject", S, attributes(attribute), 1, byref(c_ulong())) == ATTRIBUTE_VALUE_INVALID
    assert gateway.requests == []


def test_templates_within_templates_end_at_the_gateways_depth(application: Application, serve: Serve) -> None:
    gateway = serve(some)
    for depth in range(8):
        deep = nested(depth, attributes((LABEL, memory(b"it"), 2)))
        ckr = application.call("CreateObject", S, deep, 1, byref(c_ulong()))
        assert ckr == (OK if depth < 4 else ATTRIBUTE_VALUE_INVALID)
        if ckr == OK:
            assert given(gateway.requests[-1])


def one_attribute(kind: int, value: bytes | None, length: int | None = None, ckr: int = OK) -> Answer:
    """Answer with one attribute."""
    fields_ = struct.pack(">I", 1) + attribute(kind, value, length) + number(ckr)
    return lambda request: body(request.id, "aAu", fields_)


VALUES = [
    (LABEL, blob(b"label"), b"label"),
    (LABEL, blob(b""), b""),
    (TOKEN, b"\x01", b"\x01"),
    (CLASS, number(3), struct.pack("=Q", 3)),
    (START_DATE, blob(b"20260101"), b"20260101"),
    (ALLOWED_MECHANISMS, struct.pack(">I", 2) + number(5) + number(6), struct.pack("=QQ", 5, 6)),
    (0x80000001, blob(b"vendor"), b"vendor"),
]


@pytest.mark.parametrize(("kind", "sent", "value"), VALUES)
def test_an_attribute_is_given_where_there_is_room_and_else_its_length(
    application: Application, serve: Serve, kind: int, sent: bytes, value: bytes
) -> None:
    gateway = serve(one_attribute(kind, sent, len(value)))
    asked = attributes((kind, None, 99))
    assert application.call("GetAttributeValue", S, K, asked, 1) == OK
    assert asked[0].length == len(value)
    assert given(gateway.requests[0])[-1][0][:2] == (kind, 0)
    memory = room(len(value) + 1)
    asked = attributes((kind, memory, len(value) + 1))
    assert application.call("GetAttributeValue", S, K, asked, 1) == OK
    assert asked[0].length == len(value)
    assert bytes(memory) == value + b"\xaa"
    if value:
        asked = attributes((kind, memory, len(value) - 1))
        assert application.call("GetAttributeValue", S, K, asked, 1) == BUFFER_TOO_SMALL
        assert asked[0].length == UNAVAILABLE


def test_an_attribute_that_may_not_be_seen_has_no_length(application: Application, serve: Serve) -> None:
    def answers(request: Request) -> bytes:
        told = attribute(LABEL, blob(b"it"), 2) + attribute(VALUE, None)
        return body(request.id, "aAu", struct.pack(">I", 2) + told + number(ATTRIBUTE_SENSITIVE))

    serve(answers)
    label = room(2)
    asked = attributes((LABEL, label, 2), (VALUE, room(9), 9))
    assert application.call("GetAttributeValue", S, K, asked, 2) == ATTRIBUTE_SENSITIVE
    assert (asked[0].length, asked[1].length) == (2, UNAVAILABLE)
    assert bytes(label) == b"it"


def test_a_template_within_an_attribute_is_asked_for_in_three_calls(application: Application, serve: Serve) -> None:
    inner = struct.pack(">I", 2) + attribute(TOKEN, b"\x01") + attribute(LABEL, blob(b"inner"), 5)
    gateway = serve(one_attribute(WRAP_TEMPLATE, inner, 48))
    asked = attributes((WRAP_TEMPLATE, None, 0))
    assert application.call("GetAttributeValue", S, K, asked, 1) == OK
    assert asked[0].length == 48
    within = attributes((0, None, 0), (0, None, 0))
    asked = attributes((WRAP_TEMPLATE, within, 48))
    assert application.call("GetAttributeValue", S, K, asked, 1) == OK
    assert [(each.type, each.length) for each in within] == [(TOKEN, 1), (LABEL, 5)]
    token, label = room(1), room(5)
    within[0].value, within[1].value = addressof(token), addressof(label)
    assert application.call("GetAttributeValue", S, K, asked, 1) == OK
    assert (bytes(token), bytes(label)) == (b"\x01", b"inner")
    assert given(gateway.requests[-1])[-1] == (Room(WRAP_TEMPLATE, 48, (Room(TOKEN, 1), Room(LABEL, 5))),)
    small = attributes((WRAP_TEMPLATE, attributes((0, None, 0)), 24))
    assert application.call("GetAttributeValue", S, K, small, 1) == BUFFER_TOO_SMALL
    assert small[0].length == UNAVAILABLE


# --- parameters of mechanisms ---


def struct_of(layout: Layout, keep: list[Any]) -> tuple[bytes, dict[str, Any]]:
    """Make a struct as C has it, each member another, and what the gateway reads of it."""
    values: dict[str, Any] = {}
    raw: dict[str, bytes] = {}
    lengths = {each.length: each for each in layout.fields if each.length}

    def pointer(data: bytes) -> bytes:
        held = create_string_buffer(data, max(len(data), 1))
        keep.append(held)
        return struct.pack("=Q", addressof(held))

    for at, each in enumerate(layout.fields, 1):
        if each.kind.name == "ULONG":
            values[each.name] = at * 0x0101010101010101
            raw[each.name] = struct.pack("=Q", values[each.name])
        elif each.kind.name == "BOOL":
            values[each.name] = True
            raw[each.name] = b"\x01"
        elif each.kind.name == "INLINE":
            values[each.name] = raw[each.name] = bytes(range(at, at + each.size))
        elif each.kind.name in {"STRUCT", "ARRAY"}:
            assert each.layout is not None
            inner, read = struct_of(each.layout, keep)
            count = 3 if each.kind.name == "ARRAY" else 1
            values[each.name] = [read] * count if each.kind.name == "ARRAY" else read
            raw[each.name] = pointer(inner * count)
            if each.length:
                raw[each.length] = struct.pack("=Q", count)
        else:
            length = each.size if each.kind.name == "FIXED" else 16 + at
            values[each.name] = bytes(range(at, at + length))
            raw[each.name] = pointer(values[each.name])
            if each.length:
                raw[each.length] = struct.pack("=Q", length * 8 if each.kind.name == "BITS" else length)
    packed = b""
    for kind, member in layout.members:
        name = member.partition("[")[0]
        value = raw.get(name, b"\x00" * 8)
        align = 1 if kind in {"CK_BBOOL", "CK_BYTE"} else 8
        packed += b"\x00" * (-len(packed) % align) + value
    widest = 1 if all(kind in {"CK_BBOOL", "CK_BYTE"} for kind, _ in layout.members) else 8
    assert set(lengths) <= {member for _, member in layout.members}
    return packed + b"\x00" * (-len(packed) % widest), values


LAID_OUT = [(each, number, layout) for each, layouts in LAYOUTS.items() for number, layout in enumerate(layouts, 1)]


@pytest.mark.parametrize(
    ("kind", "form", "layout"), LAID_OUT, ids=[f"{each.name} {form}" for each, form, _ in LAID_OUT]
)
def test_parameters_are_read_out_of_their_struct(
    application: Application, serve: Serve, kind: int, form: int, layout: Layout
) -> None:
    gateway = serve(some)
    keep: list[Any] = []
    packed, values = struct_of(layout, keep)
    for shift in (0, 1):  # a struct need not be aligned
        held = create_string_buffer(b"\x00" * shift + packed, shift + len(packed))
        of = Mechanism(kind, addressof(held) + shift, len(packed))
        assert application.call("SignInit", S, byref(of), K) == OK
        assert given(gateway.requests[-1]) == [S, Given(kind, values, form), K]


def test_parameters_of_another_size_go_as_they_are(application: Application, serve: Serve) -> None:
    gateway = serve(some)
    for length in (1, 12, 15, 17, 4000):
        held = create_string_buffer(b"x" * length, length)
        assert application.call("EncryptInit", S, byref(Mechanism(0x1082, addressof(held), length)), K) == OK
        assert given(gateway.requests[-1])[1] == Given(0x1082, {}, RAW)
        assert held.raw in gateway.requests[-1].fields


@pytest.mark.parametrize(
    ("kind", "parameter", "length", "ckr"),
    [
        (0x1087, None, 48, ARGUMENTS_BAD),
        (1 << 32, None, 0, MECHANISM_INVALID),
        (0xFFFFFFFF, None, 0, MECHANISM_INVALID),
        (0x1087, struct.pack("=6Q", 0, 12, 96, 0, 0, 128), 48, MECHANISM_PARAM_INVALID),
        (0x03AC, struct.pack("=5Q", 0x251, 3, 0, 0, 0), 40, MECHANISM_PARAM_INVALID),
        (0x03AC, struct.pack("=5Q", 0x251, 2**63, 8, 0, 0), 40, MECHANISM_PARAM_INVALID),
        (0x1087, struct.pack("=6Q", 8, 2**63, 96, 0, 0, 128), 48, MECHANISM_PARAM_INVALID),
    ],
)
def test_parameters_that_point_nowhere_are_refused(
    application: Application, serve: Serve, kind: int, parameter: bytes | None, length: int, ckr: int
) -> None:
    gateway = serve(some)
    of = Mechanism(kind, None if parameter is None else cast(c_char_p(parameter), c_void_p), length)
    assert application.call("EncryptInit", S, byref(of), K) == ckr
    assert gateway.requests == []


def test_pointers_that_are_null_without_a_length_travel_as_nothing(application: Application, serve: Serve) -> None:
    gateway = serve(some)
    packed = struct.pack("=6Q", 0, 0, 0, 0, 0, 128)
    of = Mechanism(0x1087, cast(c_char_p(packed), c_void_p), len(packed))
    assert application.call("EncryptInit", S, byref(of), K) == OK
    wanted = {"pIv": b"", "ulIvBits": 0, "pAAD": b"", "ulTagBits": 128}
    assert given(gateway.requests[0])[1] == Given(0x1087, wanted, 1)


@pytest.mark.parametrize("form", [1, 2])
def test_what_is_drawn_for_a_message_comes_back_in_its_parameters(
    application: Application, serve: Serve, form: int
) -> None:
    layout = MESSAGE_LAYOUTS[form - 1]
    keep: list[Any] = []
    packed, values = struct_of(layout, keep)
    drawn = {name: bytes(reversed(value)) if isinstance(value, bytes) else value for name, value in values.items()}

    def answers(request: Request) -> bytes:
        assert given(request)[1] == Given(0, values, form)
        told = fields.Writer(Way.MODULE)
        fields._write_message(told, Given(0, drawn, form))
        return body(request.id, "ayP", array(b"sealed") + b"".join(told.parts))

    serve(answers)
    held = create_string_buffer(packed, len(packed))
    assert application.call("EncryptMessage", S, held, len(packed), DATA, 8, DATA, 8, *out()) == OK
    pointed = [each.raw for each in keep]
    assert pointed == [drawn[each.name] for each in layout.fields if each.comes_back]


def test_what_comes_back_of_another_length_is_not_written(application: Application, serve: Serve) -> None:
    keep: list[Any] = []
    packed, values = struct_of(MESSAGE_LAYOUTS[0], keep)
    before = [each.raw for each in keep]
    longer = {name: value + b"!" if isinstance(value, bytes) else value for name, value in values.items()}

    def answers(request: Request) -> bytes:
        told = fields.Writer(Way.MODULE)
        fields._write_message(told, Given(0, longer, 1))
        return body(request.id, "P", b"".join(told.parts))

    serve(answers)
    held = create_string_buffer(packed, len(packed))
    assert application.call("EncryptMessageBegin", S, held, len(packed), DATA, 8) == OK
    assert [each.raw for each in keep] == before
