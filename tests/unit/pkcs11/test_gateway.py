"""The gateway as applications see it: each test is a program's calls, over a pure worker of the HSM."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lnh_common import limits
from lnh_common.errors import ERRORS
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
from lnh_pkcs11.calls import CALLS
from lnh_pkcs11.handlers.table import HANDLERS, REFUSED
from lnh_pkcs11.numbers import CKR, State, TokenFlag
from lnh_pkcs11.refusals import ckr_of
from lnh_pkcs11.server import NotSpoken, Peer, Server
from lnh_pkcs11.ways import Way
from lowered import lower
from models.gateway import SLOT, Answered, Keyrings, Length, Program, answered, done, logged_in, packed
from models.worker import KRCO, KRSO

A = Attribute
M = Mechanism
P256 = {A.EC_PARAMS: CURVES["P-256"].oid}
WAYS = list(Way)


def refused(ckr: CKR, program: Program, name: str, *values: Any) -> None:
    with pytest.raises(Answered) as caught:
        program.call(name, *values)
    assert caught.value.ckr is ckr, f"{caught.value.ckr.name}, not {ckr.name}"


@pytest.fixture
def keyrings() -> Keyrings:
    return Keyrings()


def pair(program: Program, session: int, **more: Any) -> tuple[int, int]:
    label = {A.LABEL: b"ca", A.ID: b"\1", **more.get("both", {})}
    public, private = program.call("GenerateKeyPair", session, M.EC_KEY_PAIR_GEN, P256 | label, label)
    return public, private


def secret(program: Program, session: int, mechanism: M = M.AES_KEY_GEN, **template: Any) -> int:
    made = {Attribute[name]: value for name, value in template.items()}
    handle: int = program.call("GenerateKey", session, mechanism, {A.VALUE_LEN: 32, **made})
    return handle


# --- tables


def test_every_call_is_done_or_refused_by_name() -> None:
    passed = {call.name for call in CALLS if call.id}
    assert passed == set(HANDLERS) | set(REFUSED)
    assert not set(HANDLERS) & set(REFUSED)


def test_every_error_has_a_return_value() -> None:
    for kind in ERRORS.values():
        assert ckr_of(kind("")) is not CKR.OK


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_the_return_value_of_its_row(keyrings: Keyrings, name: str) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    empty = {"u": session, "y": 0, "ay": b"", "fy": 1, "z": b"", "s": b" " * 32, "aA": {}, "M": M.AES_GCM, "P": 0}
    from lnh_pkcs11.calls import CALLS_BY_NAME
    from lnh_pkcs11.fields import split

    letters = split(CALLS_BY_NAME[name].fields(own=True)[0])
    refused(REFUSED[name][0], program, name, *(empty[each] for each in letters))


# --- ways in


@pytest.mark.parametrize(("first", "answer"), [(0, b"\0"), (1, b"\1"), (2, b"\2"), (3, b"\2"), (0x4B, b"\2")])
def test_a_client_of_p11_kit_is_answered_the_lesser_version(keyrings: Keyrings, first: int, answer: bytes) -> None:
    peer = Peer(Server(keyrings), b"p")
    assert peer.receive(bytes([first])) == (answer, [])


def test_the_module_may_be_newer(keyrings: Keyrings) -> None:
    peer = Peer(Server(keyrings), b"p")
    assert peer.receive(b"\x4c") == (b"", [])
    assert peer.receive(b"\x09" + bytes(15)) == (b"", [])
    assert peer.receive(bytes(1)) == (b"\x4c\x01", [])


@pytest.mark.parametrize("first", [b"\x4d", b"\xff", b"\x4c\x00" + bytes(16), b"SSH-2.0"])
def test_who_speaks_otherwise_is_put_out(keyrings: Keyrings, first: bytes) -> None:
    with pytest.raises(NotSpoken):
        Peer(Server(keyrings), b"p").receive(first)


def test_frames_come_in_any_pieces(keyrings: Keyrings) -> None:
    whole = b"\0" + b"".join(
        struct.pack(">III", code, 3, 8) + b"opt" + struct.pack(">II", 3, 0) for code in (0x10, 0x11)
    )
    peer = Peer(Server(keyrings), b"p")
    found = [request for at in range(len(whole)) for request in peer.receive(whole[at : at + 1])[1]]
    assert [request.code for request in found] == [0x10, 0x11]
    assert Peer(Server(keyrings), b"p").receive(whole)[1] == found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0" * 7,
        struct.pack(">II", 9999, 0),
        struct.pack(">II", 0, 0),
        struct.pack(">II", 5, 1) + b"y" + bytes(8),
        struct.pack(">II", 5, 1) + b"u" + bytes(7),
        struct.pack(">II", 5, 1) + b"u" + bytes(9),
        struct.pack(">II", 26, 3) + b"uaA" + bytes(8) + b"\xff" * 4,
    ],
)
def test_a_body_that_does_not_read_is_refused_and_the_socket_goes_on(keyrings: Keyrings, way: Way, body: bytes) -> None:
    program = Program(Server(keyrings), way)
    answer = program.exchange(body)
    assert answer[:9] == struct.pack(">II", 0, 1) + b"u"
    assert CKR(int.from_bytes(answer[9:], "big")) in {CKR.ARGUMENTS_BAD, CKR.FUNCTION_NOT_SUPPORTED}
    assert program.call("GetSlotList", 1, 10) == [SLOT]


def test_a_request_that_is_too_long_is_passed_over_and_refused(keyrings: Keyrings) -> None:
    program = Program(Server(keyrings))
    long = limits.PKCS11_FRAME_BYTES + 1
    assert program.peer.receive(struct.pack(">III", 5, 0, long)) == (b"", [])
    for _ in range(long // 65536):
        assert program.peer.receive(bytes(65536)) == (b"", [])
        assert len(program.peer._buffer) == 0, "nothing of it is kept"
    ((request),) = program.peer.receive(bytes(long % 65536))[1]
    assert answered(program.peer, request)[-8:] == int(CKR.DEVICE_MEMORY).to_bytes(8, "big")
    assert program.call("GetSlotList", 1, 10) == [SLOT]


@pytest.mark.parametrize("way", WAYS)
def test_slots_and_mechanisms_are_counted_and_given(keyrings: Keyrings, way: Way) -> None:
    program = Program(Server(keyrings), way)
    assert program.call("GetSlotList", 1, None) == Length(1)
    assert program.call("GetSlotList", 1, 1) == [SLOT]
    count = program.call("GetMechanismList", SLOT, None)
    assert isinstance(program.call("GetMechanismList", SLOT, count - 1), Length)
    found = program.call("GetMechanismList", SLOT, count)
    assert len(found) == count
    assert set(found) <= {each.value for each in MECHANISM_RULES}
    assert (M.EDDSA in found) == way.own
    assert (M.AES_GCM in found) == (way is not Way.P11_KIT_0)
    for each in found:
        assert len(program.call("GetMechanismInfo", SLOT, each)) == 3
    refused(CKR.MECHANISM_INVALID, program, "GetMechanismInfo", SLOT, 0x9999)
    refused(CKR.SLOT_ID_INVALID, program, "GetTokenInfo", 99)


def test_a_token_is_a_keyring(keyrings: Keyrings) -> None:
    program = Program(Server(keyrings))
    label, manufacturer, model, serial, flags, *_ = program.call("GetTokenInfo", SLOT)
    assert (label, len(manufacturer), model) == ("payments".ljust(32), 32, "keyring".ljust(16))
    assert serial == keyrings.id.hex()[:16]
    assert not flags & TokenFlag.WRITE_PROTECTED
    keyrings.behind = True
    assert program.call("GetTokenInfo", SLOT)[4] & TokenFlag.WRITE_PROTECTED


# --- sessions and logins


def test_a_login_is_the_applications(keyrings: Keyrings) -> None:
    server = Server(keyrings)
    process = bytes(16)
    one, other, stranger = Program(server, process=process), Program(server, process=process), Program(server)
    session = one.call("OpenSession", SLOT, 4)
    assert other.call("GetSessionInfo", session)[1] == State.RO_PUBLIC
    other.call("Login", session, 1, KRCO.encode())
    assert one.call("GetSessionInfo", session)[1] == State.RO_USER
    refused(CKR.USER_ALREADY_LOGGED_IN, one, "Login", session, 1, KRCO.encode())
    refused(CKR.USER_ANOTHER_ALREADY_LOGGED_IN, one, "Login", session, 0, KRSO.encode())
    refused(CKR.SESSION_HANDLE_INVALID, stranger, "GetSessionInfo", session)
    assert one.peer.close() == []
    (login,) = other.peer.close()
    opened: object = keyrings.opened[0]
    assert login.session is opened


def test_a_login_ends_with_the_last_session(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    second = program.call("OpenSession", SLOT, 4)
    program.call("CloseSession", session)
    assert program.call("GetSessionInfo", second)[1] == State.RO_USER
    program.call("CloseSession", second)
    assert keyrings.opened[0].ended
    third = program.call("OpenSession", SLOT, 6)
    assert program.call("GetSessionInfo", third)[1] == State.RW_PUBLIC


def test_what_may_not_log_in_is_told_why(keyrings: Keyrings) -> None:
    program = Program(Server(keyrings))
    session = program.call("OpenSession", SLOT, 6)
    refused(CKR.PIN_INCORRECT, program, "Login", session, 1, b"wrong password")
    refused(CKR.PIN_INCORRECT, program, "Login", session, 1, b"\xff\xfe")
    refused(CKR.ARGUMENTS_BAD, program, "Login", session, 1, None)
    refused(CKR.OPERATION_NOT_INITIALIZED, program, "Login", session, 2, KRCO.encode())
    refused(CKR.USER_TYPE_INVALID, program, "Login", session, 9, KRCO.encode())
    refused(CKR.SESSION_HANDLE_INVALID, program, "Login", session + 1, 1, KRCO.encode())
    refused(CKR.USER_TYPE_INVALID, program, "LoginUser", session, 1, KRCO.encode(), b"krso")
    program.call("LoginUser", session, 1, KRCO.encode(), b"KRCO")
    program.call("Logout", session)
    refused(CKR.USER_NOT_LOGGED_IN, program, "Logout", session)


def test_the_officers_sessions_are_read_write(keyrings: Keyrings) -> None:
    program = Program(Server(keyrings))
    refused(CKR.SESSION_PARALLEL_NOT_SUPPORTED, program, "OpenSession", SLOT, 2)
    read_only = program.call("OpenSession", SLOT, 4)
    session = program.call("OpenSession", SLOT, 6)
    refused(CKR.SESSION_READ_ONLY_EXISTS, program, "Login", session, 0, KRSO.encode())
    program.call("CloseSession", read_only)
    program.call("Login", session, 0, KRSO.encode())
    assert program.call("GetSessionInfo", session)[1] == State.RW_SO
    refused(CKR.SESSION_READ_WRITE_SO_EXISTS, program, "OpenSession", SLOT, 4)


def test_the_officer_sets_the_users_pin_and_both_change_theirs(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRSO, user=0)
    program.call("InitPIN", session, b"a new user's pin")
    program.call("SetPIN", session, KRSO.encode(), b"a new officer's")
    assert program.call("GetSessionInfo", session)[1] == State.RW_SO
    program.call("Logout", session)
    refused(CKR.USER_NOT_LOGGED_IN, program, "InitPIN", session, b"another pin")
    program.call("SetPIN", session, b"a new user's pin", b"a second user's pin")
    refused(CKR.PIN_LEN_RANGE, program, "SetPIN", session, b"a second user's pin", b"short")
    program.call("Login", session, 1, b"a second user's pin")


# --- objects


def test_a_pair_is_made_found_and_read(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    public, private = pair(program, session, both={A.TOKEN: 1})
    keyrings.opened[0].asked.clear()
    program.call("FindObjectsInit", session, {A.LABEL: b"ca", A.CLASS: ObjectClass.PRIVATE_KEY, A.ID: b"\1"})
    refused(CKR.OPERATION_ACTIVE, program, "FindObjectsInit", session, {})
    assert program.call("FindObjects", session, 10) == [private]
    assert program.call("FindObjects", session, 10) == []
    program.call("FindObjectsFinal", session)
    assert keyrings.opened[0].asked == ["object.find"]
    wanted = [A.CLASS, A.KEY_TYPE, A.LABEL, A.SIGN, 0x202, A.EC_PARAMS]
    found, problem = program.call("GetAttributeValue", session, private, wanted)
    assert problem == CKR.OK
    assert list(found.values()) == [ObjectClass.PRIVATE_KEY, KeyType.EC, b"ca", 1, 0, P256[A.EC_PARAMS]]
    assert keyrings.opened[0].asked == ["object.find"], "what was just read is not read again"
    keyrings.time = 10.0
    found, _ = program.call("GetAttributeValue", session, public, [A.EC_POINT, A.PUBLIC_KEY_INFO])
    load_der_public_key(found[A.PUBLIC_KEY_INFO])
    assert keyrings.opened[0].asked == ["object.find", "object.show"]


def test_attributes_that_are_not_given_say_why(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    key = secret(program, session)
    get = ("GetAttributeValue", session, key)
    assert program.call(*get, [A.VALUE, A.LABEL]) == [{A.VALUE: None, A.LABEL: b""}, CKR.ATTRIBUTE_SENSITIVE]
    assert program.call(*get, [A.MODULUS]) == [{A.MODULUS: None}, CKR.ATTRIBUTE_TYPE_INVALID]
    assert program.call(*get, [(A.KEY_TYPE, 4)]) == [{A.KEY_TYPE: None}, CKR.BUFFER_TOO_SMALL]
    assert program.call(*get, [(A.KEY_TYPE, 0)]) == [{A.KEY_TYPE: KeyType.AES}, CKR.OK]


@pytest.mark.parametrize("way", WAYS)
def test_templates_within_attributes_go_to_who_can_take_them(keyrings: Keyrings, way: Way) -> None:
    program, session = logged_in(keyrings, way, password=KRCO)
    app = program.peer.app
    assert app is not None
    made = done(keyrings.opened[0].generate_key(KeyType.AES, unwrap=True, unwrap_template={A.SIGN.value: False}))
    key = app.handle(app.session(session), made)
    found, problem = program.call("GetAttributeValue", session, key, [(A.UNWRAP_TEMPLATE, 0), (A.CLASS, 8)])
    assert found[A.CLASS] == ObjectClass.SECRET_KEY
    if way.nests:
        assert (found[A.UNWRAP_TEMPLATE][A.SIGN], problem) == (0, CKR.OK)
    else:
        assert (found[A.UNWRAP_TEMPLATE], problem) == (None, CKR.ATTRIBUTE_TYPE_INVALID)


def test_sessions_and_handles_have_a_limit(keyrings: Keyrings, monkeypatch: pytest.MonkeyPatch) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    lower(monkeypatch, PKCS11_SESSIONS=1)
    refused(CKR.SESSION_COUNT, program, "OpenSession", SLOT, 4)
    lower(monkeypatch, PKCS11_HANDLES=1)
    secret(program, session)
    refused(CKR.DEVICE_MEMORY, program, "GenerateKey", session, M.AES_KEY_GEN, {A.VALUE_LEN: 32})


def test_objects_are_of_the_session_unless_the_template_says_otherwise(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    second = program.call("OpenSession", SLOT, 4)
    key = secret(program, second)
    assert program.call("GetAttributeValue", session, key, [A.TOKEN]) == [{A.TOKEN: 0}, CKR.OK]
    refused(CKR.SESSION_READ_ONLY, program, "GenerateKey", second, M.AES_KEY_GEN, {A.VALUE_LEN: 32, A.TOKEN: 1})
    program.call("CloseSession", second)
    refused(CKR.OBJECT_HANDLE_INVALID, program, "GetAttributeValue", session, key, [A.TOKEN])


def test_an_object_is_made_of_what_is_given_changed_copied_and_destroyed(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    data = {A.CLASS: ObjectClass.DATA, A.TOKEN: 1, A.LABEL: b"note", A.VALUE: b"text"}
    made = program.call("CreateObject", session, data)
    program.call("SetAttributeValue", session, made, {A.LABEL: b"second"})
    assert program.call("GetAttributeValue", session, made, [A.LABEL])[0] == {A.LABEL: b"second"}
    copied = program.call("CopyObject", session, made, {A.LABEL: b"third"})
    assert program.call("GetAttributeValue", session, copied, [A.VALUE])[0] == {A.VALUE: b"text"}
    assert program.call("GetObjectSize", session, made) > 10
    program.call("DestroyObject", session, made)
    refused(CKR.OBJECT_HANDLE_INVALID, program, "DestroyObject", session, made)
    refused(CKR.TEMPLATE_INCOMPLETE, program, "CreateObject", session, {A.LABEL: b"x"})
    refused(CKR.ATTRIBUTE_TYPE_INVALID, program, "CreateObject", session, data | {0x7777: b""})
    secret_key = {A.CLASS: ObjectClass.SECRET_KEY, A.KEY_TYPE: KeyType.AES, A.VALUE: bytes(32)}
    refused(CKR.ACTION_PROHIBITED, program, "CreateObject", session, secret_key)


@pytest.mark.parametrize(
    "template",
    [
        {A.CLASS: 9},
        {A.KEY_TYPE: 1},
        {A.LABEL: b"\xff"},
        {A.LABEL: b"x" * 300},
        {0x7777: b""},
        {0x080: 1},
        {0x080: 0, A.CLASS: 3},
        {A.START_DATE: b"never"},
        {A.ID: bytes(300)},
    ],
)
def test_what_no_object_has_finds_nothing(keyrings: Keyrings, template: dict[int, Any]) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    pair(program, session)
    program.call("FindObjectsInit", session, template)
    assert program.call("FindObjects", session, 10) == []
    program.call("FindObjectsFinal", session)
    program.call("FindObjectsInit", session, {A.TOKEN: 0})
    assert len(program.call("FindObjects", session, 10)) == 2
    program.call("FindObjectsFinal", session)
    refused(CKR.OPERATION_NOT_INITIALIZED, program, "FindObjects", session, 10)


def test_nothing_is_found_and_nothing_made_without_a_login(keyrings: Keyrings) -> None:
    program = Program(Server(keyrings))
    session = program.call("OpenSession", SLOT, 6)
    program.call("FindObjectsInit", session, {})
    assert program.call("FindObjects", session, 10) == []
    refused(CKR.USER_NOT_LOGGED_IN, program, "GenerateKey", session, M.AES_KEY_GEN, {A.VALUE_LEN: 32})


def test_handles_stay_from_one_login_to_the_next(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    _, private = pair(program, session, both={A.TOKEN: 1})
    program.call("Logout", session)
    refused(CKR.USER_NOT_LOGGED_IN, program, "SignInit", session, M.ECDSA, private)
    program.call("Login", session, 1, KRCO.encode())
    program.call("SignInit", session, M.ECDSA, private)
    assert len(program.call("Sign", session, bytes(32), 64)) == 64


def test_sessions_close_when_the_credential_was_changed(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    _, private = pair(program, session, both={A.TOKEN: 1})
    other = Program(program.peer._server)
    changing = other.call("OpenSession", SLOT, 6)
    other.call("SetPIN", changing, KRCO.encode(), b"another password")
    program.call("SignInit", session, M.ECDSA, private)
    refused(CKR.SESSION_HANDLE_INVALID, program, "Sign", session, bytes(32), 64)
    refused(CKR.SESSION_HANDLE_INVALID, program, "GetSessionInfo", session)
    session = program.call("OpenSession", SLOT, 6)
    assert program.call("GetSessionInfo", session)[1] == State.RW_PUBLIC
    program.call("Login", session, 1, b"another password")
    program.call("SignInit", session, M.ECDSA, private)
    assert len(program.call("Sign", session, bytes(32), 64)) == 64


# --- signatures and ciphertexts


@pytest.mark.parametrize("way", WAYS)
def test_a_signature_is_one_message(keyrings: Keyrings, way: Way) -> None:
    program, session = logged_in(keyrings, way, password=KRCO)
    app = program.peer.app
    assert app is not None
    made = done(keyrings.opened[0].generate_keypair(KeyType.EC, curve="P-256"))  # p11-kit 0.24 has no word for curves
    public, private = (app.handle(app.session(session), each) for each in made)
    keyrings.opened[0].asked.clear()
    program.call("SignInit", session, M.ECDSA, private)
    assert keyrings.opened[0].asked == []
    assert program.call("Sign", session, bytes(32), None) == Length(64)
    assert program.call("Sign", session, bytes(32), 63) == Length(64)
    signature = program.call("Sign", session, bytes(32), 64)
    assert keyrings.opened[0].asked == ["key.sign"]
    refused(CKR.OPERATION_NOT_INITIALIZED, program, "Sign", session, bytes(32), 64)
    program.call("VerifyInit", session, M.ECDSA, public)
    program.call("Verify", session, bytes(32), signature)
    program.call("VerifyInit", session, M.ECDSA, public)
    refused(CKR.SIGNATURE_INVALID, program, "Verify", session, b"\1" * 32, signature)
    program.call("VerifyInit", session, M.ECDSA, public)
    refused(CKR.SIGNATURE_LEN_RANGE, program, "Verify", session, bytes(32), signature[1:])


def test_parts_are_hashed_as_they_come(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    public, private = pair(program, session)
    program.call("SignInit", session, M.ECDSA_SHA256, private)
    for _ in range(3):
        program.call("SignUpdate", session, bytes(limits.PKCS11_GATHERED_BYTES))
    refused(CKR.OPERATION_ACTIVE, program, "SignInit", session, M.ECDSA_SHA256, private)
    signature = program.call("SignFinal", session, 64)
    program.call("VerifyInit", session, M.ECDSA, public)
    program.call("Verify", session, hashlib.sha256(bytes(3 * limits.PKCS11_GATHERED_BYTES)).digest(), signature)
    program.call("VerifySignatureInit", session, M.ECDSA_SHA256, public, signature)
    for _ in range(3):
        program.call("VerifySignatureUpdate", session, bytes(limits.PKCS11_GATHERED_BYTES))
    program.call("VerifySignatureFinal", session)


def test_what_is_not_hashed_is_gathered_up_to_the_limit(keyrings: Keyrings, monkeypatch: pytest.MonkeyPatch) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    key = secret(program, session, M.GENERIC_SECRET_KEY_GEN)
    program.call("SignInit", session, M.SHA256_HMAC, key)
    program.call("SignUpdate", session, b"some ")
    program.call("SignUpdate", session, b"parts")
    tag = program.call("SignFinal", session, 32)
    program.call("VerifyInit", session, M.SHA256_HMAC, key)
    program.call("Verify", session, b"some parts", tag)
    many = 3 * limits.PKCS11_GATHERED_BYTES  # more than a request takes: the HSM gets it in parts
    program.call("SignInit", session, M.SHA256_HMAC, key)
    for _ in range(3):
        program.call("SignUpdate", session, bytes(limits.PKCS11_GATHERED_BYTES))
    tag = program.call("SignFinal", session, 32)
    program.call("VerifyInit", session, M.SHA256_HMAC, key)
    program.call("Verify", session, bytes(many), tag)
    lower(monkeypatch, PKCS11_TAGGED_BYTES=many)
    program.call("SignInit", session, M.SHA256_HMAC, key)
    for _ in range(3):
        program.call("SignUpdate", session, bytes(limits.PKCS11_GATHERED_BYTES))
    refused(CKR.DATA_LEN_RANGE, program, "SignUpdate", session, bytes(100))
    refused(CKR.OPERATION_NOT_INITIALIZED, program, "SignFinal", session, 32)


def test_an_init_without_a_mechanism_cancels(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    _, private = pair(program, session)
    program.call("SignInit", session, M.ECDSA, private)
    refused(CKR.OPERATION_ACTIVE, program, "SignInit", session, M.ECDSA, private)
    program.call("SignInit", session, None, 0)
    refused(CKR.OPERATION_NOT_INITIALIZED, program, "Sign", session, bytes(32), 64)
    program.call("SignInit", session, M.ECDSA, private)
    program.call("SessionCancel", session, 0x800)
    program.call("SignInit", session, M.ECDSA, private)


def test_a_key_is_used_as_it_may_be(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    public, private = pair(program, session)
    refused(CKR.KEY_FUNCTION_NOT_PERMITTED, program, "SignInit", session, M.ECDSA, public)
    refused(CKR.KEY_TYPE_INCONSISTENT, program, "SignInit", session, M.EDDSA, private)
    refused(CKR.MECHANISM_INVALID, program, "SignInit", session, M.AES_GCM, private)
    refused(CKR.MECHANISM_INVALID, program, "SignInit", session, 0x9999, private)
    refused(CKR.KEY_HANDLE_INVALID, program, "SignInit", session, M.ECDSA, 99)


def test_the_hsm_draws_ivs_which_stand_before_the_ciphertext(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    key = secret(program, session)
    program.call("EncryptInit", session, M.AES_GCM, key)
    assert program.call("Encrypt", session, b"text", None) == Length(12 + 4 + 16)
    whole = program.call("Encrypt", session, b"text", 32)
    program.call("DecryptInit", session, M.AES_GCM, key)
    assert program.call("DecryptUpdate", session, whole[:10], 100) == b""
    assert program.call("DecryptUpdate", session, whole[10:], 100) == b""
    assert program.call("DecryptFinal", session, None) == Length(4)
    assert program.call("DecryptFinal", session, 3) == Length(4)
    keyrings.opened[0].asked.clear()
    assert program.call("DecryptFinal", session, 4) == b"text"
    assert keyrings.opened[0].asked == [], "what was decrypted is kept until it fits"
    parameters = packed(whole[:12], 96, b"", 128)
    program.call("DecryptInit", session, (M.AES_GCM, parameters), key)
    assert program.call("Decrypt", session, whole[12:], 100) == b"text"
    program.call("DecryptInit", session, (M.AES_GCM, parameters), key)
    refused(CKR.ENCRYPTED_DATA_INVALID, program, "Decrypt", session, whole[11:-1], 100)
    refused(CKR.OPERATION_NOT_INITIALIZED, program, "Decrypt", session, whole[12:], 100)


def test_a_callers_iv_is_for_policy_to_allow() -> None:
    keyrings = Keyrings(policy={"caller_ivs": True})
    program, session = logged_in(keyrings, password=KRCO)
    key = secret(program, session)
    parameters = packed(bytes(12), 96, b"header", 128)
    program.call("EncryptInit", session, (M.AES_GCM, parameters), key)
    ciphertext = program.call("Encrypt", session, b"text", 20)
    program.call("DecryptInit", session, (M.AES_GCM, parameters), key)
    assert program.call("Decrypt", session, ciphertext, 4) == b"text"


def test_messages_bring_iv_and_tag_back(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    key = secret(program, session)
    program.call("MessageEncryptInit", session, M.AES_GCM, key)
    given = (0, packed(bytes(12), 0, 3, bytes(16)))
    sealed = []
    for text in (b"one", b"two"):
        ciphertext, came = program.call("EncryptMessage", session, given, b"header", text, 100)
        assert len(ciphertext) == 3
        sealed.append((ciphertext, came))
    program.call("MessageEncryptFinal", session)
    assert sealed[0][1]["pIv"] != sealed[1][1]["pIv"]
    program.call("MessageDecryptInit", session, M.AES_GCM, key)
    for text, (ciphertext, came) in zip((b"one", b"two"), sealed, strict=True):
        with_ = (0, packed(came["pIv"], 0, 0, came["pTag"]))
        assert program.call("DecryptMessage", session, with_, b"header", ciphertext, 100) == text
        refused(CKR.ENCRYPTED_DATA_INVALID, program, "DecryptMessage", session, with_, b"", ciphertext, 100)


def test_a_message_goes_in_parts(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    key = secret(program, session)
    program.call("MessageEncryptInit", session, M.AES_GCM, key)
    given = (0, packed(bytes(12), 0, 3, bytes(16)))
    refused(CKR.OPERATION_NOT_INITIALIZED, program, "EncryptMessageNext", session, given, b"a", 100, 1)
    program.call("EncryptMessageBegin", session, given, b"header")
    refused(CKR.OPERATION_ACTIVE, program, "EncryptMessage", session, given, b"", b"", 100)
    assert program.call("EncryptMessageNext", session, given, b"some ", 100, 0)[0] == b""
    assert program.call("EncryptMessageNext", session, given, b"parts", 9, 1)[0] == Length(10)
    ciphertext, came = program.call("EncryptMessageNext", session, given, b"parts", 10, 1)
    program.call("MessageDecryptInit", session, M.AES_GCM, key)
    with_ = (0, packed(came["pIv"], 0, 0, came["pTag"]))
    program.call("DecryptMessageBegin", session, with_, b"header")
    assert program.call("DecryptMessageNext", session, with_, ciphertext[:3], 100, 0) == b""
    assert program.call("DecryptMessageNext", session, with_, ciphertext[3:], 100, 1) == b"some parts"


@pytest.mark.parametrize("way", WAYS[1:3])
def test_messages_do_not_come_through_p11_kit(keyrings: Keyrings, way: Way) -> None:
    program = Program(Server(keyrings), way)
    assert way in {Way.P11_KIT_1, Way.P11_KIT_2}
    refused(CKR.FUNCTION_NOT_SUPPORTED, program, "EncryptMessage", 1, bytes(48), b"", b"text", 100)


def test_an_empty_result_is_given_to_who_asks_for_its_length(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    key = secret(program, session)
    program.call("EncryptInit", session, M.AES_GCM, key)
    whole = program.call("Encrypt", session, b"", 100)
    for _ in range(2):
        program.call("DecryptInit", session, M.AES_GCM, key)
        assert program.call("Decrypt", session, whole, None) == b""
    assert program.call("Decrypt", session, whole, 0) == b""


def test_hashes_need_no_login_and_no_message(keyrings: Keyrings) -> None:
    program = Program(Server(keyrings))
    session = program.call("OpenSession", SLOT, 4)
    hashes = [each for each, row in MECHANISM_RULES.items() if Use.DIGEST in row.uses]
    assert len(hashes) == 8
    for mechanism in hashes:
        name = mechanism.name.lower()  # sha256, sha3_256
        size = hashlib.new(name).digest_size
        program.call("DigestInit", session, mechanism)
        assert program.call("Digest", session, b"abc", None) == Length(size)
        assert program.call("Digest", session, b"abc", size) == hashlib.new(name, b"abc").digest()
        program.call("DigestInit", session, mechanism)
        program.call("DigestUpdate", session, b"ab")
        program.call("DigestUpdate", session, b"c")
        assert program.call("DigestFinal", session, size) == hashlib.new(name, b"abc").digest()
    program.call("DigestInit", session, M.SHA256)
    refused(CKR.KEY_INDIGESTIBLE, program, "DigestKey", session, 1)


# --- keys of keys


def test_a_key_is_wrapped_and_unwrapped(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    by = secret(program, session, WRAP=1, UNWRAP=1, TOKEN=1)
    key = secret(program, session, EXTRACTABLE=1)
    kept = secret(program, session)
    wrapped = program.call("WrapKey", session, M.AES_KEY_WRAP_PAD, by, key, 100)
    assert program.call("WrapKey", session, M.AES_KEY_WRAP_PAD, by, key, 39) == Length(40)
    refused(CKR.KEY_UNEXTRACTABLE, program, "WrapKey", session, M.AES_KEY_WRAP_PAD, by, kept, 100)
    template = {A.CLASS: ObjectClass.SECRET_KEY, A.KEY_TYPE: KeyType.AES}
    back = program.call("UnwrapKey", session, M.AES_KEY_WRAP_PAD, by, wrapped, template)
    program.call("EncryptInit", session, M.AES_GCM, key)
    whole = program.call("Encrypt", session, b"text", 100)
    program.call("DecryptInit", session, M.AES_GCM, back)
    assert program.call("Decrypt", session, whole, 100) == b"text"
    broken = bytes(len(wrapped))
    refused(CKR.WRAPPED_KEY_INVALID, program, "UnwrapKey", session, M.AES_KEY_WRAP_PAD, by, broken, template)


def test_keys_are_derived(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    base = secret(program, session, M.GENERIC_SECRET_KEY_GEN, DERIVE=1)
    hkdf = b"\1\1" + packed(M.SHA256, 2, b"salt", 0, b"info")
    template = {A.KEY_TYPE: KeyType.AES, A.VALUE_LEN: 32}
    derived = program.call("DeriveKey", session, (M.HKDF_DERIVE, hkdf), base, template)
    counter = struct.pack("@BxxxxxxxL", 0, 32)
    length = struct.pack("@LBxxxxxxxL", 1, 0, 32)
    parts = ((1, counter), (4, b"label\0context"), (3, length))
    kdf = packed(M.SHA256_HMAC) + struct.pack(">I", 3) + b"".join(packed(*each) for each in parts) + packed(0)
    other = program.call("DeriveKey", session, (M.SP800_108_COUNTER_KDF, kdf), base, template)
    assert derived != other
    raw = packed(1, b"", bytes(65))
    _, private = pair(program, session)
    refused(CKR.KEY_FUNCTION_NOT_PERMITTED, program, "DeriveKey", session, (M.ECDH1_DERIVE, raw), private, template)


def test_a_key_is_agreed_on_by_encapsulation(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    public, private = program.call("GenerateKeyPair", session, M.ML_KEM_KEY_PAIR_GEN, {A.PARAMETER_SET: 2}, {})
    template = {A.KEY_TYPE: KeyType.AES}
    assert program.call("EncapsulateKey", session, M.ML_KEM, public, template, None) == [Length(1088), 0]
    ciphertext, one = program.call("EncapsulateKey", session, M.ML_KEM, public, template, 1088)
    other = program.call("DecapsulateKey", session, M.ML_KEM, private, template, ciphertext)
    program.call("EncryptInit", session, M.AES_GCM, one)
    whole = program.call("Encrypt", session, b"text", 100)
    program.call("DecryptInit", session, M.AES_GCM, other)
    assert program.call("Decrypt", session, whole, 100) == b"text"


def test_a_read_only_member_refuses_writes_alone(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    _, private = pair(program, session, both={A.TOKEN: 1})
    keyrings.world.read_only = True
    refused(CKR.TOKEN_WRITE_PROTECTED, program, "SetAttributeValue", session, private, {A.LABEL: b"x"})
    program.call("SignInit", session, M.ECDSA, private)
    assert len(program.call("Sign", session, bytes(32), 64)) == 64


def test_random_bytes_are_drawn_and_no_seed_taken(keyrings: Keyrings) -> None:
    program, session = logged_in(keyrings, password=KRCO)
    assert len(program.call("GenerateRandom", session, 40)) == 40
    refused(CKR.RANDOM_SEED_NOT_SUPPORTED, program, "SeedRandom", session, b"seed")
    refused(CKR.NO_EVENT, program, "WaitForSlotEvent", 1)
    refused(CKR.FUNCTION_NOT_SUPPORTED, program, "WaitForSlotEvent", 0)
