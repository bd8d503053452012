"""client.toml: what is written is read again, and what is unsafe or unknown is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lnh.configuration import Configuration, Registration, default_directory
from lnh.net.failover import Endpoint
from lnh_common.bus import curve
from lnh_common.errors import ConfigurationInvalid, FileModeUnsafe, LimitReached, NameTaken, NameUnknown


def registered(configuration: Configuration, index: int, label: str) -> Registration:
    """A registration with keys, entered."""
    configuration.prepare()
    registration = Registration(
        index=index,
        cluster=os.urandom(16),
        label=label,
        member="127.0.0.1:4400",
        member_key=os.urandom(32),
        identity=os.urandom(32),
        name="web-1",
        client=os.urandom(16),
        client_key=configuration.directory / f"{index:02}.curve",
        sign_key=configuration.directory / f"{index:02}.sign",
        alternates=(
            Endpoint("127.0.0.1:4500", os.urandom(32), "local"),
            Endpoint("hsm2.example:4400", os.urandom(32), "east"),
        ),
        user="watcher",
    )
    curve.KeyPair.generate().save(registration.client_key)
    configuration.write_sign_key(registration.sign_key, Ed25519PrivateKey.generate())
    configuration.save(registration)
    return registration


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return Configuration(tmp_path / "lnh")


def test_a_registration_is_read_as_it_was_written(configuration: Configuration) -> None:
    written = registered(configuration, 0, "prod")
    assert configuration.registrations() == [written]
    assert configuration.registration() == written
    assert configuration.registration("prod") == configuration.registration(0) == configuration.registration("00")
    written.load_curve()
    written.load_sign_key()


def test_files_have_mode_0600_and_the_directory_0700(configuration: Configuration) -> None:
    registered(configuration, 0, "prod")
    assert configuration.directory.stat().st_mode & 0o777 == 0o700
    for name in ("client.toml", "00.curve", "00.sign"):
        assert (configuration.directory / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_others_may_read_is_refused(configuration: Configuration, mode: int) -> None:
    registration = registered(configuration, 0, "prod")
    registration.client_key.chmod(mode)
    with pytest.raises(FileModeUnsafe, match="curve"):
        registration.load_curve()
    registration.sign_key.chmod(mode)
    with pytest.raises(FileModeUnsafe, match="sign"):
        registration.load_sign_key()
    configuration.path.chmod(mode)
    with pytest.raises(FileModeUnsafe, match=r"client\.toml"):
        configuration.registrations()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("user = ", "usr = "), "usr"),
        (('name = "web-1"', "name = 5"), "name"),
        (('member = "127.0.0.1:4400"', 'member = "nowhere"'), "member"),
        (("[cluster.00]", "[cluster.7]"), "cluster"),
        (("cluster.00", "cluster.11"), "11"),
        (("[cluster.00]", "[other]"), "other"),
        (("[cluster.00]", "[cluster"), "TOML"),
    ],
)
def test_a_setting_that_is_unknown_or_wrong_is_an_error_that_names_it(
    configuration: Configuration, change: tuple[str, str], named: str
) -> None:
    registered(configuration, 0, "prod")
    text = configuration.path.read_text()
    assert change[0] in text
    configuration.path.write_text(text.replace(*change))
    with pytest.raises(ConfigurationInvalid, match=named):
        configuration.registrations()


def test_ten_clusters_fit_and_an_eleventh_does_not(configuration: Configuration) -> None:
    for index in range(10):
        assert configuration.free_index() == index
        registered(configuration, index, f"c{index}")
    assert len(configuration.registrations()) == 10
    with pytest.raises(LimitReached):
        configuration.free_index()
    with pytest.raises(NameUnknown, match="several"):
        configuration.registration()


def test_a_taken_index_is_refused_and_nothing_changes(configuration: Configuration) -> None:
    first = registered(configuration, 0, "prod")
    with pytest.raises(NameTaken):
        configuration.save(replace(first, label="other"))
    second = registered(configuration, 1, "test")
    with pytest.raises(NameTaken):
        configuration.save(replace(second, index=0), instead_of=second)
    assert configuration.registrations() == [first, second]


def test_a_registration_moves_to_another_index_and_its_keys_stay(configuration: Configuration) -> None:
    first = registered(configuration, 0, "prod")
    moved = replace(first, index=7)
    configuration.save(moved, instead_of=first)
    assert configuration.registrations() == [moved]
    assert moved.client_key.exists()
    assert moved.sign_key.exists()


def test_one_that_takes_anothers_place_takes_its_key_files_away(configuration: Configuration) -> None:
    first, other = registered(configuration, 0, "prod"), registered(configuration, 1, "prod")
    configuration.save(replace(other, index=0), instead_of=first)
    assert not first.client_key.exists()
    assert not first.sign_key.exists()
    assert other.client_key.exists()


def test_clusters_of_one_label_are_told_apart_by_index(configuration: Configuration) -> None:
    first, second = registered(configuration, 0, "prod"), registered(configuration, 3, "prod")
    assert configuration.registration(3) == configuration.registration("03") == second
    assert configuration.registration("00") == first
    with pytest.raises(NameUnknown, match="several clusters have label 'prod': 00 prod, 03 prod") as caught:
        configuration.registration("prod")
    assert "--cluster 00" in caught.value.detail["advice"]
    with pytest.raises(NameUnknown, match="several clusters: 00 prod, 03 prod") as caught:
        configuration.registration()
    assert "--cluster 00" in caught.value.detail["advice"]


def test_removing_a_registration_deletes_its_keys_and_leaves_the_others(configuration: Configuration) -> None:
    first, second = registered(configuration, 0, "a"), registered(configuration, 1, "b")
    configuration.save_epoch(first, 3)
    configuration.remove(first)
    assert configuration.registrations() == [second]
    assert sorted(path.name for path in configuration.directory.iterdir()) == [
        ".lock",
        "01.curve",
        "01.sign",
        "client.toml",
    ]


def test_the_highest_epoch_seen_is_remembered(configuration: Configuration) -> None:
    one = registered(configuration, 0, "a")
    assert configuration.epoch(one) == 0
    for epoch in (2, 5, 3):
        configuration.save_epoch(one, epoch)
    assert configuration.epoch(one) == 5


def test_without_a_file_there_is_no_registration_and_the_error_says_what_to_run(configuration: Configuration) -> None:
    assert configuration.registrations() == []
    with pytest.raises(NameUnknown) as caught:
        configuration.registration("prod")
    assert "LNHClientRegistration" in caught.value.detail["advice"]


def test_the_environment_says_where_the_directory_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LNH_CONFIG", str(tmp_path))
    assert default_directory() == tmp_path
    monkeypatch.setenv("LNH_CONFIG", str(tmp_path / "client.toml"))
    assert default_directory() == tmp_path
    monkeypatch.delenv("LNH_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "lnh"


def test_alternates_are_entered_for_their_cluster_alone_and_with_mode_0600(configuration: Configuration) -> None:
    one, other = registered(configuration, 0, "prod"), registered(configuration, 1, "test")
    alternates = (Endpoint("10.0.0.3:4400", os.urandom(32), "west"),)
    configuration.save_alternates(one, alternates)
    assert configuration.registrations() == [replace(one, alternates=alternates), other]
    assert configuration.path.stat().st_mode & 0o777 == 0o600
    written = configuration.path.stat().st_mtime_ns
    configuration.save_alternates(one, alternates)
    assert configuration.path.stat().st_mtime_ns == written, "what is there already is not written again"
    configuration.remove(one)
    configuration.save_alternates(one, alternates)
    assert configuration.registrations() == [other]


def test_alternates_are_not_entered_where_nothing_can_be_written(
    configuration: Configuration,
) -> None:
    one = registered(configuration, 0, "prod")
    (configuration.directory / ".lock").unlink(missing_ok=True)
    (configuration.directory / ".lock").mkdir()  # no mode keeps root from writing, but this does
    configuration.save_alternates(one, ())
    assert configuration.registrations() == [one]


def test_failover_can_be_turned_off_and_addresses_without_keys_are_passed_over(configuration: Configuration) -> None:
    registered(configuration, 0, "prod")
    text = configuration.path.read_text()
    text = text[: text.index("[[cluster.00.alternates]]")]
    text = text.replace("failover = true", 'failover = false\nalternates = ["127.0.0.1:4500"]')
    configuration.path.write_text(text)
    read = configuration.registration()
    assert read.failover is False
    assert read.alternates == ()
    configuration.path.write_text(text.replace("failover = false\n", ""))
    assert configuration.registration().failover is True
