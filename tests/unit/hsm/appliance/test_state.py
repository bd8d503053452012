"""The HSM's state file, its verifiers, and the channel's epochs."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnh_common import limits
from lnh_common.errors import ActivationFailed, FileModeUnsafe, PasswordIncorrect, PasswordLocked, SealBroken
from lnh_common.messages.hsm import ChannelSeed
from lnh_common.wire import codec
from lnh_services.hsm.appliance.state import Appliance, ApplianceFile, HsmState, Partition, StateFile, User
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.auth.console_attempts import KeptPassword, Verifier
from lnh_services.hsm.cluster import create
from lnh_services.hsm.cluster.channel_seeds import rotated
from lnh_services.hsm.crypto.argon2 import derive

QUICK = (64, 1, 1)
NOW = 1_700_000_000


def kept(password: str) -> KeptPassword:
    asked = credentials.derivation(password, argon2=QUICK)
    return KeptPassword.of(credentials.material(asked, derive(asked)))


def a_state() -> HsmState:
    so = Verifier(password=kept("security officer"))
    state = HsmState(
        label="hsm-a",
        identity=os.urandom(32),
        so=so,
        domain="domain",
        packages=("cluster",),
        users=(User(name="alice", role="admin", password=kept("admin password")),),
        partitions=(Partition(label="p", version=0, serial="1", po=so, co=so),),
    )
    return create.begin(state, "prod", kept("partition owner"), NOW)


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "hsm.state", QUICK)


def written(file: StateFile, activation: bytes = b"activation") -> HsmState:
    state = a_state()
    cover = file.cover(state.label, state.identity_public())
    file.write(state, cover, derive(cover.derivation(activation)))
    return state


def reopened(file: StateFile, activation: bytes = b"activation") -> HsmState:
    sealed = file.read()
    assert sealed is not None
    return sealed.open(derive(sealed.cover.derivation(activation)))


def test_what_is_written_is_read_with_the_activation_secret(file: StateFile) -> None:
    state = written(file)
    assert reopened(file) == state


def test_without_the_secret_only_label_and_identity_are_seen(file: StateFile, tmp_path: Path) -> None:
    state = written(file)
    sealed = file.read()
    assert sealed is not None
    assert (sealed.cover.label, sealed.cover.identity) == (state.label, state.identity_public())
    data = (tmp_path / "hsm.state").read_bytes()
    assert state.cluster is not None
    secrets = (state.identity, b"domain", b"alice", state.cluster.smk[0].key, state.cluster.identity, b"prod")
    assert not [secret for secret in secrets if secret in data]


def test_a_wrong_secret_is_told(file: StateFile) -> None:
    written(file)
    with pytest.raises(ActivationFailed, match="changed"):
        reopened(file, b"another")


def test_no_byte_of_the_file_can_be_changed(file: StateFile, tmp_path: Path) -> None:
    written(file)
    path = tmp_path / "hsm.state"
    whole = path.read_bytes()
    with path.open("r+b", buffering=0) as changed:  # in its place: to open a file takes longer than to read it
        for at, byte in enumerate(whole):
            os.pwrite(changed.fileno(), bytes([byte ^ 0x10]), at)
            with pytest.raises((SealBroken, ActivationFailed)):
                reopened(file)
            os.pwrite(changed.fileno(), bytes([byte]), at)
    reopened(file)


@pytest.mark.parametrize("content", [b"", b"\x00", b"not CBOR at all", codec.encode([["lnh-hsm-state-1"], b""])])
def test_what_is_no_state_file_is_called_damaged(file: StateFile, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "hsm.state").touch(0o600)
    (tmp_path / "hsm.state").write_bytes(content)
    with pytest.raises(SealBroken, match="damaged"):
        file.read()


def test_a_newer_format_is_named(file: StateFile, tmp_path: Path) -> None:
    written(file)
    cover, sealed = codec.decode((tmp_path / "hsm.state").read_bytes())
    (tmp_path / "hsm.state").write_bytes(codec.encode([["lnh-hsm-state-2", *cover[1:]], sealed]))
    with pytest.raises(SealBroken, match="lnh-hsm-state-2"):
        file.read()


def test_files_that_others_may_read_are_refused(file: StateFile, tmp_path: Path) -> None:
    written(file)
    assert (tmp_path / "hsm.state").stat().st_mode & 0o777 == 0o600
    (tmp_path / "hsm.state").chmod(0o640)
    with pytest.raises(FileModeUnsafe, match="0640"):
        file.read()


def test_the_appliances_file_is_read_back(tmp_path: Path) -> None:
    file = ApplianceFile(tmp_path / "appliance.cbor")
    assert file.read() == Appliance()
    appliance = Appliance(initialised=True, waiting=a_state().users, packages=("cluster",))
    file.write(appliance)
    assert file.read() == appliance
    (tmp_path / "appliance.cbor").write_bytes(b"\xa0\xa0")
    with pytest.raises(SealBroken):
        file.read()


def test_nothing_of_the_state_shows_itself() -> None:
    state = a_state()
    assert "redacted" in repr(state)
    assert repr(state.cluster) == "Cluster(redacted)"


# --- verifiers


def test_a_right_password_takes_back_the_reserved_attempt() -> None:
    verifier = Verifier(password=kept("security officer"))
    right, wrong = (derive(verifier.password.derivation(each)) for each in ("security officer", "something else"))
    reserved = verifier.reserve("SO", NOW, right)
    assert reserved.failures == 1
    assert reserved.settle(right) == verifier
    settled = verifier.reserve("SO", NOW, wrong).settle(wrong)
    with pytest.raises(PasswordIncorrect, match="9 attempts left"):
        settled.check_right("SO", wrong)


def test_a_right_password_interrupted_often_counts_once_and_goes_through_a_lock() -> None:
    verifier = Verifier(password=kept("security officer"))
    right, *wrong = (
        derive(verifier.password.derivation(each)) for each in ("security officer", *map("wrong {}".format, range(12)))
    )
    for _ in range(3 * limits.FAILURES_BEFORE_LOCK):
        verifier = verifier.reserve("SO", NOW, right)
    assert verifier.failures == 1
    for each in wrong[: limits.FAILURES_BEFORE_LOCK - 1]:
        verifier = verifier.reserve("SO", NOW, each)
        if each != wrong[0]:  # that one was interrupted, and counts
            verifier = verifier.settle(each)
    with pytest.raises(PasswordLocked):
        verifier.reserve("SO", NOW, wrong[-1])
    verifier.check("SO", NOW)
    assert verifier.reserve("SO", NOW, right).settle(right) == Verifier(password=verifier.password)


@given(st.lists(st.integers(min_value=0, max_value=2 * limits.LOCK_SECONDS), max_size=60))
def test_no_more_than_ten_guesses_in_any_lock_period(gaps: list[int]) -> None:
    verifier = Verifier(password=KeptPassword(argon2=QUICK, salt=bytes(16), verifier=bytes(32), public=b""))
    now, guesses = NOW, list[int]()
    for gap in gaps:
        now += gap
        try:
            verifier = verifier.reserve("SO", now, b"%032d" % len(guesses))
        except PasswordLocked:
            continue
        guesses.append(now)
    for first, eleventh in zip(guesses, guesses[limits.FAILURES_BEFORE_LOCK :], strict=False):
        assert eleventh - first >= limits.LOCK_SECONDS or guesses.index(first) % limits.FAILURES_BEFORE_LOCK


def test_a_clock_that_goes_back_does_not_make_a_lock_last() -> None:
    verifier = Verifier(
        password=KeptPassword(argon2=QUICK, salt=bytes(16), verifier=bytes(32), public=b""),
        failures=limits.FAILURES_BEFORE_LOCK,
        locked_until=NOW + limits.LOCK_SECONDS,
    )
    with pytest.raises(PasswordLocked, match="900 s"):
        verifier.reserve("SO", NOW - 10**9, bytes(32))


# --- channel epochs

DAY = limits.CHANNEL_EPOCH


def draw() -> bytes:
    return os.urandom(32)


def test_a_new_seed_comes_daily_and_overlaps_the_last() -> None:
    first = rotated((), NOW, draw)
    assert [(seed.epoch, seed.end) for seed in first] == [(1, NOW + DAY + limits.CHANNEL_OVERLAP)]
    assert rotated(first, NOW + DAY - 1, draw) is first
    second = rotated(first, NOW + DAY, draw)
    assert [seed.epoch for seed in second] == [1, 2]
    assert second[0] == first[0]


def test_an_old_seed_is_erased_when_its_last_token_has_expired() -> None:
    first = rotated((), NOW, draw)
    second = rotated(first, NOW + DAY, draw)
    over = first[0].end + limits.TOKEN_LIFETIME_MAX
    assert rotated(second, over - 1, draw)[0].epoch == 1
    assert rotated(second, over, draw)[0].epoch == 2


@given(st.lists(st.integers(min_value=-3 * DAY, max_value=3 * DAY), max_size=40))
def test_whatever_the_clock_does_there_is_a_fresh_newest_seed_and_epochs_only_grow(steps: list[int]) -> None:
    seeds: tuple[ChannelSeed, ...] = ()
    now, highest = NOW, 0
    for step in steps:
        now += step
        after = rotated(seeds, now, draw)
        epochs = [seed.epoch for seed in after]
        assert epochs == sorted(set(epochs))
        assert epochs[-1] >= highest
        assert (
            now + limits.CHANNEL_OVERLAP < after[-1].end <= now + DAY + limits.CHANNEL_OVERLAP + limits.CLOCK_TOLERANCE
        )
        known = {seed.epoch: seed for seed in seeds}
        assert all(known.get(seed.epoch, seed) == seed for seed in after)
        assert rotated(after, now, draw) is after
        seeds, highest = after, epochs[-1]


def test_the_state_of_a_cluster_begun_has_all_it_needs() -> None:
    state = a_state()
    cluster = state.cluster
    assert cluster is not None
    assert cluster.partition in {partition.serial for partition in state.partitions}
    assert len({cluster.id, cluster.member, cluster.identity, cluster.smk[0].key, cluster.channel[0].seed}) == 5
    assert create.finished(state).users == ()
    other = create.begin(msgspec.structs.replace(state, partitions=(), cluster=None), "prod", kept("x" * 8), NOW)
    assert other.cluster is not None
    assert other.cluster.smk != cluster.smk
