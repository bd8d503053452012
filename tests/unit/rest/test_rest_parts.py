"""Bodies of any length, HTTP Basic, figures for Prometheus, and NetHSM's names."""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lnh_common.errors import (
    ArgumentInvalid,
    DataLength,
    EncryptedDataInvalid,
    LnhError,
    MechanismInvalid,
    StorageFailed,
)
from lnh_common.messages.objects import Result
from lnh_common.messages.overview import Figures, HsmFigures, Overview, Seen, Sight
from lnh_common.pkcs11.attributes import Attribute, Attributes, KeyType
from lnh_common.pkcs11.mechanisms import Mechanism, Use
from lnh_rest import basics, nethsm_modes, streams
from lnh_rest.basics import Basics
from lnh_rest.counts import Counts, exposed
from lnh_rest.logins import Logins
from lnh_rest.shapes import KeyringLogin, KeyringRole, UserLogin
from lnh_rest.streams import Spool
from lowered import lower
from sizes import sized


async def of(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@given(st.lists(st.binary(max_size=40)), st.integers(1, 17))
@settings(max_examples=sized(100))
def test_pieces_are_of_one_size_and_together_what_came(parts: list[bytes], size: int) -> None:
    async def cut() -> list[bytes]:
        return [each async for each in streams.pieces(of(parts), size)]

    found = asyncio.run(cut())
    assert b"".join(found) == b"".join(parts)
    assert all(len(each) == size for each in found[:-1])
    assert all(found)


@given(st.lists(st.binary(max_size=20)), st.integers(0, 16))
@settings(max_examples=sized(100))
def test_what_is_in_front_is_split_off(parts: list[bytes], size: int) -> None:
    async def split() -> tuple[bytes, bytes]:
        head, rest = await streams.split(of(parts), size)
        return head, b"".join([each async for each in rest])

    whole = b"".join(parts)
    if len(whole) < size:
        with pytest.raises(EncryptedDataInvalid):
            asyncio.run(split())
    else:
        assert asyncio.run(split()) == (whole[:size], whole[size:])


def test_what_is_spooled_is_nowhere_in_the_file_and_comes_back_whole() -> None:
    spool = Spool()
    for part in (b"a secret, ", b"", b"and more of it"):
        spool.write(part)
    spool._file.flush()
    kept = Path(f"/proc/self/fd/{spool._file.fileno()}").read_bytes()
    assert b"secret" not in kept
    assert spool.length == 24

    async def read() -> bytes:
        return b"".join([each async for each in spool.parts()])

    assert asyncio.run(read()) == b"a secret, and more of it"
    assert spool._file.closed


def test_too_much_is_not_spooled_and_leaves_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, REST_STREAM_BYTES=10)
    made: list[Spool] = []

    def make() -> Spool:
        made.append(Spool())
        return made[-1]

    monkeypatch.setattr(streams, "Spool", make)

    async def results() -> AsyncIterator[Result]:
        for _ in range(3):
            yield Result(data=bytes(4))

    with pytest.raises(DataLength):
        asyncio.run(streams.spooled(results()))
    assert made[0]._file.closed


def said(text: str, encoding: str = "utf-8") -> str:
    return base64.b64encode(text.encode(encoding)).decode()


@pytest.mark.parametrize(
    ("header", "login"),
    [
        (said("admin:pass:word"), UserLogin(user="admin", password="pass:word")),
        (said("payments~krco:x"), KeyringLogin(keyring="payments", role=KeyringRole.KRCO, password="x")),
        (said("a~b~krso:x"), KeyringLogin(keyring="a~b", role=KeyringRole.KRSO, password="x")),
        (said("a~admin:x"), UserLogin(user="a~admin", password="x")),
        (said("é:ü"), UserLogin(user="é", password="ü")),
        (said("é:ü", "latin-1"), UserLogin(user="é", password="ü")),
        (said("nobody"), None),
        ("!", None),
        ("", None),
        (said("a:" + "x" * 300), None),
    ],
)
def test_basic_names_a_user_or_a_keyrings_role(header: str, login: UserLogin | KeyringLogin | None) -> None:
    assert basics.read(header) == login


def test_what_basic_opened_is_found_by_what_it_said_and_that_is_kept_nowhere() -> None:
    opened: Basics[object] = Basics()
    logins: Logins[object] = Logins(lambda _: False)
    _, login = logins.open(0.0, object(), "admin", "", 100.0)
    opened.put(opened.name("right"), login)
    assert opened.find(opened.name("right")) is login
    assert opened.find(opened.name("wrong")) is None
    assert Basics[object]().find(opened.name("right")) is None
    assert logins.is_open(0.0, login)
    assert not logins.is_open(100.0, login)
    logins.close(login)
    assert not logins.is_open(0.0, login)


def test_figures_of_each_member_say_who_told_them() -> None:
    counts = Counts(lambda: (3, 5))
    for seconds in (0.001, 0.2, 60.0):
        counts.add("GET /v1/keyrings", 200, seconds)
    counts.add("", 404, 0.001)
    told = Figures(told_at=0, hsm=HsmFigures(state="activated"))
    members = tuple(
        Sight(id=name.encode() * 16, name=name, address="", role="primary", state="read-write", group="local", product="0.2", figures=figures)
        for name, figures in (("A", told), ("B", told), ("C", None))
    )  # fmt: skip
    seen = Seen(
        cluster=bytes(16), member=b"A" * 16, primary=b"A" * 16, epoch=7, at=0, groups=("local",), members=members
    )
    text = exposed(counts, Overview(label="prod", seen=seen, keyrings=4))
    found = {family.name: family.samples for family in text_string_to_metric_families(text)}
    assert [each.labels["told_by"] for each in found["lnh_hsm_activated"]] == ["A", "B"]
    assert {(each.labels["told_by"], each.labels["member"]) for each in found["lnh_member"]} == {
        (by, of) for by in "AB" for of in "ABC"
    }
    assert [each.value for each in found["lnh_cluster_keyrings"]] == [4.0]
    assert {(each.labels["route"], each.value) for each in found["lnh_rest_answers"]} == {
        ("GET /v1/keyrings", 3),
        ("none", 1),
    }
    buckets = {each.labels["le"]: each.value for each in found["lnh_rest_seconds"] if each.name.endswith("_bucket")}
    assert (buckets["0.005"], buckets["0.25"], buckets["10.0"], buckets["+Inf"]) == (2.0, 3.0, 3.0, 4.0)


def test_nethsms_names_lead_to_mechanisms_and_back() -> None:
    for kind in nethsm_modes.KINDS:
        assert nethsm_modes.kind_called(kind.name) is kind
    ec = nethsm_modes.kind_called("EC_P256")
    (mode,) = nethsm_modes.modes_called(("ECDSA_Signature",), ec)
    assert (mode.mechanism, mode.der) == (Mechanism.ECDSA, True)
    key: Attributes = {
        Attribute.KEY_TYPE: KeyType.EC.value,
        Attribute.SIGN: True,
        Attribute.DECRYPT: False,
        Attribute.ALLOWED_MECHANISMS: [Mechanism.ECDSA.value],
    }
    assert nethsm_modes.allowed(key) == ["ECDSA_Signature"]
    assert nethsm_modes.allowed({**key, Attribute.ALLOWED_MECHANISMS: [Mechanism.ECDSA_SHA256.value]}) == []
    assert nethsm_modes.mode_called("ECDSA", Use.SIGN, KeyType.EC) is mode


REFUSED: dict[str, tuple[type[LnhError], Callable[[], object]]] = {
    "a type": (ArgumentInvalid, lambda: nethsm_modes.kind_called("EC_P224")),
    "a mechanism": (
        MechanismInvalid,
        lambda: nethsm_modes.modes_called(("RSA_Signature_PSS_MD5",), nethsm_modes.KINDS[0]),
    ),
    "another type's": (
        MechanismInvalid,
        lambda: nethsm_modes.modes_called(("ECDSA_Signature",), nethsm_modes.KINDS[0]),
    ),
    "a mode": (MechanismInvalid, lambda: nethsm_modes.mode_called("BIP340", Use.SIGN, KeyType.EC)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_of_nethsm_is_not_served_is_refused(what: str) -> None:
    error, act = REFUSED[what]
    with pytest.raises(error):
        act()


def test_a_full_disk_is_told_before_anything_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(Path("/dev/full").open, "r+b"))

    async def results() -> AsyncIterator[Result]:
        yield Result(data=b"plaintext")

    with pytest.raises(StorageFailed, match="No space left on device") as caught:
        asyncio.run(streams.spooled(results()))
    assert "TMPDIR" in caught.value.detail["advice"]
