"""What the SDK is given wrongly is named before anything is sent; streams are read to their end; limits are counted."""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lnh
from lnh import admin, arguments, backups, console, partitions, registration
from lnh.objects import encoding, keys, session, streams
from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, AttributeInvalid, DataLength, LnhError, MechanismParameterInvalid
from lnh_common.messages.base import Operation
from lnh_common.messages.objects import Decrypt, ObjectView, UseMany
from lnh_common.messages.objects import Use as UseKey
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass, parse_template
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism

A = Attribute

CLASSES: tuple[type, ...] = (
    lnh.Cluster, lnh.Keyring, lnh.KeyringSession, lnh.Session, lnh.StoredObject, lnh.Key, lnh.PrivateKey, lnh.PublicKey,
    lnh.SecretKey, admin.Administration, backups.Backups, console.Console, session.ObjectSession,
    partitions.PartitionSession,
)  # fmt: skip
FUNCTIONS: tuple[Callable[..., Any], ...] = (
    lnh.connect, lnh.register, admin.connect, admin.login, admin.change_password, admin.change_po_password,
    registration.register,
)  # fmt: skip
# What takes anything: attributes by name, which their own table checks, and a low-level call's fields.
FREE = {("call", "fields"), ("call_each", "calls")}


class Wrong:
    """A value of no type that anything takes."""


def surface() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """Every parameter of every public method and function."""
    found: dict[str, Callable[..., Any]] = {}
    found |= {function.__qualname__: function for function in FUNCTIONS}
    for kind in CLASSES:
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_") or name == "__getitem__":
                found[f"{kind.__name__}.{name}"] = method
    for named, public in found.items():
        for parameter in inspect.signature(public).parameters.values():
            if parameter.name != "self" and parameter.kind is not parameter.VAR_KEYWORD:
                yield named, public, parameter.name


SURFACE = [each for each in surface() if (each[1].__name__, each[2]) not in FREE]


@pytest.mark.parametrize(("name", "method", "parameter"), SURFACE, ids=[f"{n}({p})" for n, _, p in SURFACE])
def test_a_value_of_a_wrong_type_is_named(name: str, method: Callable[..., Any], parameter: str) -> None:
    first = (object(),) if "." in name else ()
    with pytest.raises(ArgumentInvalid, match=rf"^{method.__name__}: {parameter} is Wrong; .+ wanted"):
        method(*first, **{parameter: Wrong()})


def test_the_surface_is_all_there_is() -> None:
    assert len(SURFACE) > 150


class Nobody(session.ObjectSession):
    """A session in which nothing may be sent."""

    def call(
        self, operation: Operation[Any, Any], fields: Any, timeout: float | None = None, *, current: bool = False
    ) -> NoReturn:
        raise AssertionError(f"{operation.name} was sent")

    def call_each(self, calls: Any, in_flight: int, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        for operation, _ in calls:
            raise AssertionError(f"{operation.name} was sent")
        yield from ()


def key(key_type: KeyType, **attributes: object) -> Any:
    object_class = ObjectClass.SECRET_KEY if key_type in {KeyType.AES, KeyType.CHACHA20} else ObjectClass.PRIVATE_KEY
    values: dict[int, Any] = {A.CLASS.value: object_class.value, A.KEY_TYPE.value: key_type.value}
    values |= {Attribute[name.upper()].value: value for name, value in attributes.items()}
    return keys.CLASSES[object_class](Nobody(), ObjectView(handle=bytes(16), version=1, attributes=values))


def empty_pipe() -> Any:
    """One with nothing in it, that does not wait."""
    reading, _ = os.pipe()
    os.set_blocking(reading, False)
    return os.fdopen(reading, "rb", 0)


EC = {"ec_params": CURVES["P-256"].oid}
WRONG: dict[str, Callable[[], object]] = {
    "text to sign": lambda: key(KeyType.EC, **EC).sign("text"),
    "a text file": lambda: key(KeyType.EC, **EC).sign(io.StringIO("text")),
    "nothing there yet": lambda: key(KeyType.EC, **EC).sign(empty_pipe()),
    "None to encrypt": lambda: key(KeyType.AES).encrypt(None),
    "a number to encrypt": lambda: key(KeyType.AES).encrypt(5),
    "an attribute by name": lambda: key(KeyType.AES)["label"],
    "no number of seconds": lambda: key(KeyType.EC, **EC).sign(b"x", timeout=float("nan")),
    "for ever": lambda: key(KeyType.EC, **EC).sign(b"x", timeout=float("inf")),
    "no time": lambda: key(KeyType.EC, **EC).sign(b"x", timeout=0),
    "more time than there is": lambda: key(KeyType.EC, **EC).sign(b"x", timeout=601),
    "True seconds": lambda: key(KeyType.EC, **EC).sign(b"x", timeout=True),
    "a mechanism's number": lambda: key(KeyType.EC, **EC).sign(b"x", 0x1044),
    "bytes to sign many of": lambda: key(KeyType.EC, **EC).sign_many(b"abc"),
    "text among messages": lambda: key(KeyType.EC, **EC).sign_many([b"a", "b"]),
    "text among many messages": lambda: list(key(KeyType.EC, **EC).sign_each(["b"])),
    "bits as text": lambda: Nobody().generate_key(KeyType.AES, "256"),  # type: ignore[arg-type]
    "a key type by name": lambda: Nobody().generate_key("AES"),  # type: ignore[arg-type]
    "a short handle": lambda: Nobody().get_object(b"short"),
    "an attribute that is none": lambda: Nobody().generate_key(KeyType.AES, nonsense=1),
    "a label that is no text": lambda: Nobody().generate_key(KeyType.AES, label=5),
    "a template of text": lambda: next(Nobody().find({"label": "x"})),  # type: ignore[dict-item]
    "a curve beside bits": lambda: Nobody().generate_keypair(KeyType.RSA, 2048, curve="P-256"),
    "a parameter set for a curve": lambda: Nobody().generate_keypair(KeyType.EC, parameter_set="ML-DSA-44"),
    "a curve for a lattice": lambda: Nobody().generate_keypair(KeyType.ML_DSA, curve="P-256"),
    "two lengths": lambda: Nobody().generate_key(KeyType.AES, 256, value_len=16),
    "two curves": lambda: Nobody().generate_keypair(KeyType.EC, curve="P-256", ec_params=CURVES["P-384"].oid),
    "another mechanism's parameters": lambda: key(KeyType.EC, **EC).sign(b"x", parameters=lnh.PssParameters()),
    "a salt as text": lambda: key(KeyType.RSA).sign(b"x", parameters=lnh.PssParameters(salt_length="x")),  # type: ignore[arg-type]
    "associated data as text": lambda: key(KeyType.AES).encrypt(b"x", parameters=lnh.GcmParameters(aad="x")),  # type: ignore[arg-type]
    "too much associated data": lambda: key(KeyType.AES).encrypt(
        b"x", parameters=lnh.GcmParameters(aad=bytes(limits.AAD_BYTES + 1))
    ),
    "more than is encrypted": lambda: key(KeyType.AES).encrypt(bytes(limits.REQUEST_BYTES + 1)),
    "more than is decrypted": lambda: key(KeyType.AES).decrypt(bytes(limits.CIPHERTEXT_BYTES + 13)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_right_is_refused_before_anything_is_sent(wrong: str) -> None:
    with pytest.raises(LnhError):
        WRONG[wrong]()


def test_bytes_like_values_are_taken_wherever_bytes_are() -> None:
    fields = encoding.use_fields(bytes(16), Mechanism.EDDSA, memoryview(b"data"), None)
    assert fields["data"] == b"data"
    for data in (bytearray(b"x"), memoryview(b"x")):
        assert encoding.encrypt_fields(bytes(16), Mechanism.AES_GCM, data, None)["data"] == b"x"
        assert list(encoding.batches([data], 64)) == [[b"x"]]


# --- streams


class Dribbling(io.RawIOBase):
    """A raw stream that gives and takes a few bytes at a time."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.data = data
        self.sizes = sizes
        self.taken = b""

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def _next(self) -> int:
        self.sizes.append(size := self.sizes.pop(0))
        return size

    def readinto(self, buffer: Any) -> int:
        size = min(self._next(), len(buffer), len(self.data))
        buffer[:size], self.data = self.data[:size], self.data[size:]
        return size

    def write(self, data: Any) -> int:
        size = min(self._next(), len(data))
        self.taken += bytes(data[:size])
        return size


SIZES = st.lists(st.integers(1, 700), min_size=1, max_size=5)


@given(st.binary(max_size=3000), SIZES, st.integers(1, 4000))
def test_a_stream_is_read_and_written_to_its_end(data: bytes, sizes: list[int], most: int) -> None:
    assert streams.read(Dribbling(data, list(sizes)), most) == data[:most]  # type: ignore[arg-type]
    assert b"".join(streams.chunks(Dribbling(data, list(sizes)))) == data  # type: ignore[arg-type]
    written = Dribbling(b"", list(sizes))
    streams.write(written, data)  # type: ignore[arg-type]
    assert written.taken == data


@pytest.mark.parametrize("size", [1, 1000, limits.REQUEST_BYTES, limits.REQUEST_BYTES + 1, 3 * limits.REQUEST_BYTES])
def test_what_is_signed_of_a_stream_is_all_of_it(size: int) -> None:
    data = os.urandom(size)
    whole = encoding.use_fields(bytes(16), Mechanism.ECDSA_SHA256, data, None)
    assert encoding.use_fields(bytes(16), Mechanism.ECDSA_SHA256, Dribbling(data, [997, 70_001]), None) == whole  # type: ignore[arg-type]


def test_a_digest_that_is_longer_than_a_message_is_none() -> None:
    with pytest.raises(DataLength):
        encoding.use_fields(
            bytes(16), Mechanism.ECDSA_SHA256, bytes(limits.REQUEST_BYTES + 1), lnh.HashedParameters(prehashed=True)
        )


# --- limits and encodings


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=1500), st.integers(1, 8192))
def test_a_batch_and_its_answer_both_fit_a_message(sizes: list[int], answer: int) -> None:
    found = list(encoding.batches((bytes(size) for size in sizes), answer))
    assert [len(each) for batch in found for each in batch] == sizes
    for batch in found:
        assert sum(len(each) + 5 for each in batch) <= limits.REQUEST_BYTES + 5
        assert len(batch) == 1 or len(batch) * (answer + 5) <= limits.REQUEST_BYTES
        assert len(batch) <= limits.BATCH_ITEMS


def test_a_message_takes_what_comes_of_the_most_that_is_encrypted() -> None:
    most = limits.CIPHERTEXT_BYTES + limits.PARAMETERS_BYTES + limits.SESSION_OBJECT_BYTES
    assert most + 512 <= limits.BODY_BYTES, "beside the envelope's own fields"
    decrypt = Decrypt(handle=bytes(16), mechanism=1, data=bytes(limits.CIPHERTEXT_BYTES))
    arguments.check_message(decrypt, type(decrypt))
    with pytest.raises(ArgumentInvalid, match="data"):
        arguments.check_message(UseKey(handle=bytes(16), mechanism=1, data=bytes(limits.REQUEST_BYTES + 1)), UseKey)
    with pytest.raises(ArgumentInvalid):
        arguments.check_message(UseMany(handle=b"short", mechanism=1, items=(b"x",)), UseMany)


@pytest.mark.parametrize(
    ("attribute", "encodings"),
    [
        (A.PUBLIC_EXPONENT, [b"\x01\x00\x01", b"\x00\x01\x00\x01", bytes(20) + b"\x01\x00\x01"]),
        *[(A.EC_PARAMS, [curve.oid, *curve.aliases]) for curve in CURVES.values() if curve.aliases],
    ],
)
def test_every_encoding_of_a_value_is_one_value(attribute: Attribute, encodings: list[bytes]) -> None:
    parsed = [parse_template({attribute.value: each}) for each in encodings]
    assert parsed == [{attribute: encodings[0]}] * len(encodings)
    assert [encoding.template({attribute: each}, {}) for each in encodings] == [
        {attribute.value: encodings[0]} for _ in encodings
    ]


def test_an_exponent_of_zeros_is_no_value() -> None:
    with pytest.raises(AttributeInvalid, match="PUBLIC_EXPONENT"):
        parse_template({A.PUBLIC_EXPONENT.value: bytes(3)})


def test_parameters_are_those_of_the_mechanism_or_refused_by_name() -> None:
    assert encoding.packed(Mechanism.SHA256_RSA_PKCS_PSS, lnh.HashedParameters(prehashed=True))
    assert encoding.packed(Mechanism.AES_GCM, lnh.AeadParameters(aad=b"about"))
    for mechanism in Mechanism:
        kind = MECHANISM_RULES[mechanism].parameters
        for given_parameters in (lnh.PssParameters(), lnh.GcmParameters(), lnh.IvParameters(), lnh.OaepParameters()):
            if issubclass(kind, type(given_parameters)):
                assert encoding.packed(mechanism, given_parameters) == b""
            else:
                with pytest.raises(MechanismParameterInvalid, match=type(given_parameters).__name__):
                    encoding.packed(mechanism, given_parameters)


def test_the_surface_has_no_check_that_its_own_annotations_do_not_say() -> None:
    def function(one: int, two: bytes | None, timeout: float | None = None) -> None: ...

    check = arguments.checks(function)
    check(1, b"", timeout=None)
    wrongs: list[tuple[Any, Any, Any]] = [(True, b"", 1.0), (1, "", 1.0), (1, b"", -1.0)]
    for one, two, timeout in wrongs:
        with pytest.raises(ArgumentInvalid):
            check(one, two, timeout=timeout)
