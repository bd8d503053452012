"""A member's directory, its settings and its logs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from lnh_common.bus.curve import KeyPair
from lnh_common.errors import AlreadyDone, ConfigurationInvalid, FileModeUnsafe
from lnh_common.events import ROOT, Log
from lnh_common.secret import Secret
from lnh_services import configuration, logs
from lnh_services.configuration import LogFormat, LogSettings, Settings
from lnh_services.initialise import initialise_member
from lnh_services.paths import MemberDirectory

MINIMAL = 'name = "A"\nbase_port = 7100\n'


def load(directory: Path, text: str, **environment: str) -> Settings:
    path = directory / "member.toml"
    path.write_text(text)
    return configuration.load(path, environment)


def test_a_new_member_has_private_directories_keys_and_settings_that_load(tmp_path: Path) -> None:
    directory = MemberDirectory(tmp_path / "a")
    settings = Settings(name="A", base_port=7100, listen="0.0.0.0", advertise="a.example", workers=3)
    initialise_member(directory, settings)
    assert configuration.load(directory.settings, {}) == settings
    for path in directory.root.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert KeyPair.load(directory.client_keys).public.decode() == directory.client_public.read_text().strip()
    assert KeyPair.load(directory.client_keys) != KeyPair.load(directory.member_keys)


def test_a_member_is_initialised_once(tmp_path: Path) -> None:
    directory = MemberDirectory(tmp_path)
    initialise_member(directory, Settings(name="A", base_port=7100))
    before = directory.client_keys.read_bytes()
    with pytest.raises(AlreadyDone):
        initialise_member(directory, Settings(name="B", base_port=7200))
    assert directory.client_keys.read_bytes() == before


def test_an_initialisation_that_was_interrupted_can_be_repeated(tmp_path: Path) -> None:
    directory = MemberDirectory(tmp_path)
    initialise_member(directory, Settings(name="A", base_port=7100))
    before = directory.client_keys.read_bytes()
    directory.settings.unlink()
    initialise_member(directory, Settings(name="A", base_port=7100))
    assert directory.client_keys.read_bytes() == before


def test_a_path_too_long_for_a_socket_is_refused_with_the_limit(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="107"):
        MemberDirectory(tmp_path / ("x" * 100)).create()


def test_a_run_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    directory = MemberDirectory(tmp_path)
    directory.create()
    (tmp_path / "run").chmod(0o755)
    with pytest.raises(ConfigurationInvalid, match="0700"):
        directory.create()


def test_the_least_settings_have_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, MINIMAL)
    assert (settings.client_port, settings.door_port) == (7100, 7104)
    assert settings.worker_count >= 1
    assert settings.endpoint(settings.store_port) == "tcp://127.0.0.1:7102"


def test_an_environment_variable_rules_over_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, MINIMAL, LNH_BASE_PORT="9000", LNH_LOG_FORMAT="text", LNH_ACTIVATION_FILE="/x")
    assert (settings.base_port, settings.log.format, settings.activation.file) == (9000, LogFormat.TEXT, "/x")


@pytest.mark.parametrize(
    ("text", "environment", "named"),
    [
        (MINIMAL + "worker = 2\n", {}, "worker"),
        (MINIMAL + "[log]\nlevels = 'info'\n", {}, "levels"),
        ("name = 'A'\n", {}, "base_port"),
        ("name = 'A'\nbase_port = 80\n", {}, "base_port"),
        (MINIMAL + "workers = 'two'\n", {}, "workers"),
        ("name = \n", {}, "member.toml"),
        (MINIMAL, {"LNH_WORKERS": "two"}, "LNH_WORKERS"),
        (MINIMAL + "log = 3\n", {"LNH_LOG_LEVEL": "info"}, "log"),
        (MINIMAL + "[log]\nlevel = 'all'\n", {}, "log, level: .*: debug, info, warning, error$"),
        (MINIMAL + "[engine]\nkind = 'etcd'\n", {}, "member.toml: engine, kind: .*: embedded$"),
        (MINIMAL, {"LNH_ENGINE_KIND": "etcd"}, "LNH_ENGINE_KIND: .*: embedded$"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(
    tmp_path: Path, text: str, environment: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigurationInvalid, match=named):
        load(tmp_path, text, **environment)


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="--init"):
        configuration.load(tmp_path / "member.toml", {})


def test_every_setting_has_its_variable() -> None:
    assert set(configuration.variables()) == {
        *("LNH_NAME", "LNH_BASE_PORT", "LNH_LISTEN", "LNH_ADVERTISE", "LNH_WORKERS"),
        *("LNH_ACTIVATION_FILE", "LNH_ACTIVATION_TPM"),
        *("LNH_TIMEOUTS_LEASE", "LNH_TIMEOUTS_STOP", "LNH_TIMEOUTS_STATUS", "LNH_TIMEOUTS_SILENCE"),
        *("LNH_LOG_LEVEL", "LNH_LOG_FORMAT", "LNH_LOG_BYTES", "LNH_LOG_FILES"),
        *("LNH_METRICS_LISTEN", "LNH_METRICS_PORT"),
        "LNH_ENGINE_KIND",
    }


@pytest.fixture
def written(tmp_path: Path) -> Iterator[MemberDirectory]:
    directory = MemberDirectory(tmp_path)
    directory.create()
    yield directory
    for handler in logging.getLogger(ROOT).handlers[:]:
        logging.getLogger(ROOT).removeHandler(handler)
        handler.close()


def flush() -> None:
    for handler in logging.getLogger(ROOT).handlers:
        handler.flush()


def test_an_event_is_one_json_line_with_its_fields(written: MemberDirectory) -> None:
    logs.configure("store", written, LogSettings())
    Log("store.log").info("committed", index=7, key=b"\x01\x02", who="a\nb", secret=Secret(b"hidden"))
    flush()
    text = (written.log / "store.log").read_text()
    line = json.loads(text)
    assert text.count("\n") == 1
    assert (line["event"], line["index"], line["key"], line["part"]) == ("committed", 7, "0102", "store.log")
    assert "hidden" not in text


def test_a_bug_is_written_with_its_place_and_without_its_words(written: MemberDirectory) -> None:
    logs.configure("store", written, LogSettings(format=LogFormat.TEXT))
    try:
        int("swordfish")
    except ValueError as error:
        Log("store").bug("handler failed", error)
    flush()
    text = (written.log / "store.log").read_text()
    assert "ValueError" in text
    assert "test_member_directory.py" in text
    assert "swordfish" not in text


def test_logs_are_bounded(written: MemberDirectory) -> None:
    logs.configure("store", written, LogSettings(bytes=4096, files=2))
    for number in range(500):
        Log("store").info("filler", number=number, text="x" * 50)
    flush()
    files = list(written.log.glob("store.log*"))
    assert len(files) == 3
    assert all(file.stat().st_size <= 4096 for file in files)


def test_a_key_file_others_can_read_is_refused(tmp_path: Path) -> None:
    directory = MemberDirectory(tmp_path)
    initialise_member(directory, Settings(name="A", base_port=7100))
    directory.client_keys.chmod(0o644)
    with pytest.raises(FileModeUnsafe):
        KeyPair.load(directory.client_keys)
