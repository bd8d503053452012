"""What a TPM seals only it opens, and whatever stands in the way is told apart; against `swtpm`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import tpm
from lnh_common.errors import TpmFailed
from lnh_services.hsm.crypto import tpm_process
from lnh_services.hsm.crypto.tpm import CAUSES, Answered, Asked, Cause, Tpm, TpmSealed
from sizes import sized
from tpm import SoftwareTpm

KEY = bytes(range(32))
with_tpm = pytest.mark.skipif(bool(tpm.MISSING), reason=tpm.MISSING)


@pytest.fixture(scope="module")
def shared() -> Iterator[SoftwareTpm]:
    """One that no test changes."""
    with tpm.running() as found:
        yield found


@pytest.fixture
def own() -> Iterator[SoftwareTpm]:
    with tpm.running() as found:
        yield found


def sealed_by(found: SoftwareTpm, pcrs: tuple[int, ...] = ()) -> TpmSealed:
    answered = tpm_process.answer(Asked(tpm=found.tcti, key=KEY, pcrs=pcrs))
    assert answered.sealed is not None, answered.cause
    return answered.sealed


def opened_by(found: SoftwareTpm, sealed: TpmSealed) -> Answered:
    return tpm_process.answer(Asked(tpm=found.tcti, sealed=sealed))


@with_tpm
def test_what_was_sealed_opens_through_the_process_that_ends_with_each_act(shared: SoftwareTpm) -> None:
    here = Tpm(shared.tcti)
    sealed = asyncio.run(here.seal(KEY, (7,)))
    assert sealed.pcrs == (7,)
    assert asyncio.run(here.open(sealed)) == KEY
    assert KEY not in sealed.public + sealed.private


@with_tpm
def test_each_sealing_is_another_and_leaves_nothing_in_the_tpm(shared: SoftwareTpm) -> None:
    made = [sealed_by(shared) for _ in range(6)]  # a TPM has room for three objects, and as many sessions
    assert len({each.private for each in made}) == 6
    assert len({each.parent for each in made}) == 1
    assert all(opened_by(shared, each).key == KEY for each in made)


@with_tpm
def test_another_tpm_is_told_from_a_damaged_file(shared: SoftwareTpm, own: SoftwareTpm) -> None:
    sealed = sealed_by(own)
    assert opened_by(shared, sealed).cause is Cause.ANOTHER
    assert opened_by(own, replace(sealed, private=sealed.private[:-1] + bytes([sealed.private[-1] ^ 1]))).cause is (
        Cause.DAMAGED
    )
    assert opened_by(own, sealed).key == KEY
    own.clear()
    assert opened_by(own, sealed).cause is Cause.ANOTHER


@with_tpm
def test_pcrs_must_be_as_they_were(own: SoftwareTpm) -> None:
    bound, unbound, others = sealed_by(own, (7, 16)), sealed_by(own), sealed_by(own, (0,))
    assert opened_by(own, bound).key == KEY
    own.extend(16)
    assert opened_by(own, bound).cause is Cause.PCRS
    assert opened_by(own, replace(bound, pcrs=())).cause is not None, "what it is bound to is not ours to leave out"
    assert opened_by(own, unbound).key == opened_by(own, others).key == KEY
    assert opened_by(own, sealed_by(own, (16,))).key == KEY


@with_tpm
def test_a_tpm_in_lockout_opens_what_is_outside_its_count(own: SoftwareTpm) -> None:
    sealed = sealed_by(own)
    own.lock_out()
    assert opened_by(own, sealed).key == KEY
    assert opened_by(own, sealed_by(own)).key == KEY


@with_tpm
def test_an_owner_hierarchy_with_a_password_is_named(own: SoftwareTpm) -> None:
    sealed = sealed_by(own)
    own.set_owner_password(b"owned")
    assert opened_by(own, sealed).cause is Cause.OWNER
    own.set_owner_password(b"", b"owned")
    assert opened_by(own, sealed).key == KEY


@with_tpm
@settings(max_examples=sized(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    part=st.sampled_from(["public", "private"]),
    change=st.one_of(
        st.tuples(st.integers(0, 400), st.integers(1, 255)).map(lambda at: ("flip", *at)),
        st.integers(1, 80).map(lambda length: ("cut", length, 0)),
        st.integers(1, 80).map(lambda length: ("more", length, 0)),
    ),
)
def test_whatever_was_changed_is_damaged(shared: SoftwareTpm, part: str, change: tuple[str, int, int]) -> None:
    sealed = sealed_by(shared)
    data = bytearray(getattr(sealed, part))
    kind, at, by = change
    if kind == "flip":
        data[at % len(data)] ^= by
    elif kind == "cut":
        del data[-min(at, len(data) - 1) :]
    else:
        data += bytes(at)
    changed = TpmSealed(
        sealed.parent,
        bytes(data) if part == "public" else sealed.public,
        bytes(data) if part == "private" else sealed.private,
    )
    answered = opened_by(shared, changed)
    assert answered.key == b""
    assert answered.cause is Cause.DAMAGED


def cause_of(act: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(TpmFailed) as failed:
        act()
    return failed.value.detail["cause"], str(failed.value)


def test_no_tpm_and_no_permission_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Tpm(f"device:{tmp_path}/tpmrm0")
    cause, words = cause_of(lambda: asyncio.run(missing.seal(KEY)))
    assert cause == "missing"
    assert f"device:{tmp_path}/tpmrm0" in words
    device = tmp_path / "tpmrm0"
    device.touch()
    monkeypatch.setattr(os, "access", lambda path, _: path != device)  # the tests run as root, who may
    assert tpm_process.answer(Asked(tpm=f"device:{device}", key=KEY)).cause is Cause.PERMISSION


def test_without_the_library_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tpm2_pytss", None)
    assert tpm_process.answer(Asked(tpm="swtpm:port=1", key=KEY)).cause is Cause.LIBRARY


@with_tpm
def test_what_is_no_tpm_and_what_says_nothing_end_with_their_causes(tmp_path: Path) -> None:
    with tpm.two_ports() as (commands, control):
        way = f"swtpm:host=127.0.0.1,port={commands.getsockname()[1]}"
        assert tpm_process.answer(Asked(tpm=way, key=KEY)).cause is Cause.UNREACHABLE
        commands.listen()
        control.listen()
        assert cause_of(lambda: asyncio.run(Tpm(way, seconds=2).seal(KEY)))[0] == "silent"
    assert tpm_process.answer(Asked(tpm="no such way", key=KEY)).cause is Cause.UNREACHABLE
    file = tmp_path / "file"
    file.touch()
    assert tpm_process.answer(Asked(tpm=f"device:{file}", key=KEY)).cause in {Cause.UNREACHABLE, Cause.REFUSED}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (0x921, 0x921),  # TPM_RC_LOCKOUT, a warning: no place in it
        (0x99D, 0x09D),  # TPM_RC_POLICY_FAIL, of session 1
        (0x9A2, 0x0A2),  # TPM_RC_BAD_AUTH, of session 1
        (0x1DF, 0x09F),  # TPM_RC_INTEGRITY, of parameter 1
        (0xB0921, 0x921),  # of a resource manager in user space
        (0xA000A, None),  # TSS2_TCTI_RC_IO_ERROR: none of the TPM's
        (0x70001, None),
    ],
)
def test_an_answer_says_what_went_wrong_wherever_it_did(answer: int, code: int | None) -> None:
    assert tpm_process.base_code(answer) == code


def test_each_cause_says_what_to_do() -> None:
    assert set(CAUSES) == set(Cause)
    assert all("lnh hsm activate --by-secret" in advice for _, advice in CAUSES.values())


def test_no_question_or_answer_shows_the_key() -> None:
    sealed = TpmSealed(b"\0", b"p", b"q")
    for message in (Asked(tpm="device:/dev/tpmrm0", key=KEY, sealed=sealed), Answered(key=KEY)):
        assert "redacted" in repr(message)
        assert "\\x01" not in repr(message)
