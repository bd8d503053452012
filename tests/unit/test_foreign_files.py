"""What somebody else puts where this product keeps files: nothing waits for it, follows it, or fails as a whole."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lnh.backups import copy_in
from lnh.configuration import read_private as read_client_file
from lnh_common.bus.curve import KeyPair
from lnh_common.errors import AuditFailed, ConfigurationInvalid, LnhError, StorageFailed
from lnh_common.files import NotRegular, open_regular
from lnh_services import configuration, durable, member
from lnh_services.backup.files import Archives
from lnh_services.hsm.audit import trail as audit
from lnh_services.store import service as store_service
from lnh_services.store.disk import dropped
from lnh_services.store.disk.sqlite import Disk
from models.archives import written

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
Put = Callable[[Path], None]


def put_link_to(target: str) -> Put:
    def put(path: Path) -> None:
        path.symlink_to(target)

    return put


def put_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has few bytes
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


FOREIGN: dict[str, Put] = {
    "a FIFO": os.mkfifo,
    "a directory": os.mkdir,
    "a link to nothing": put_link_to("nowhere"),
    "a link to a device": put_link_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a socket": put_socket,
}


@pytest.fixture(params=FOREIGN, autouse=True)
def put(request: pytest.FixtureRequest) -> Put:
    return FOREIGN[str(request.param)]


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT])
def test_it_is_not_opened(put: Put, tmp_path: Path, flags: int) -> None:
    put(tmp_path / "x")
    with pytest.raises(NotRegular, match=r"it is a .*, not a regular file"):
        open_regular(tmp_path / "x", flags)


def test_archives_beside_it_are_listed_and_retired_and_it_is_named(put: Put, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"prod-{number}-auto.lnhb").write_bytes(written(b"x", id_=bytes([number]) * 16, index=number))
    put(tmp_path / "foreign-auto.lnhb")
    put(tmp_path / ".foreign.part")
    archives = Archives(tmp_path)
    archives.tidy()
    first, *others = archives.views()
    assert first.name == "foreign-auto.lnhb"
    assert first.problem.startswith("it is a ")
    assert [(view.name, view.problem) for view in others] == [(f"prod-{number}-auto.lnhb", "") for number in range(3)]
    assert archives.retire("prod-2-auto.lnhb", 2) == ["prod-0-auto.lnhb"]
    with pytest.raises(StorageFailed) as refused:
        archives.view("foreign-auto.lnhb")
    assert "move it out of" in refused.value.detail["advice"]


def test_it_is_in_the_way_of_an_upload_and_says_so(put: Put, tmp_path: Path) -> None:
    put(tmp_path / ".upload-a.lnhb.part")
    with pytest.raises(StorageFailed, match="not a regular file"):
        Archives(tmp_path).receive("a.lnhb", 0, 10, b"1234")


def test_divergent_entries_beside_it_are_listed(put: Put, tmp_path: Path) -> None:
    put(tmp_path / "divergent-1.00-3.cbor")
    (listed,) = dropped.find(tmp_path)
    assert listed.saved is None
    assert "not a regular file" in listed.problem


def test_a_trail_goes_on_and_verify_names_it(put: Put, tmp_path: Path) -> None:
    trail = audit.Trail(tmp_path / "audit.jsonl", "a")
    trail.open(0)
    trail.sign(KEY, 0)
    trail.close()
    put(tmp_path / "audit-000007.jsonl")
    trail = audit.Trail(tmp_path / "audit.jsonl", "a", segment_bytes=10)
    trail.open(0)
    report = audit.verify(tmp_path / "audit.jsonl", KEY.public_key().public_bytes_raw())
    assert report.records == 2
    assert "audit-000007.jsonl is a " in report.problem
    assert len(audit.page(tmp_path / "audit.jsonl", 0, 10)) == 2


def test_a_trail_in_whose_place_it_stands_refuses_acts(put: Put, tmp_path: Path) -> None:
    put(tmp_path / "audit.jsonl")
    trail = audit.Trail(tmp_path / "audit.jsonl", "a")
    trail.open(0)
    with pytest.raises(AuditFailed, match="not a regular file"):
        trail.append((), 0)


OPENERS: dict[str, tuple[type[Exception], Callable[[Path], object]]] = {
    "a sealed file": (StorageFailed, lambda path: durable.read_private(path, 100)),
    "member.toml": (ConfigurationInvalid, configuration.load),
    "a member's lock": (ConfigurationInvalid, member._lock),
    "a store's lock": (ConfigurationInvalid, store_service._lock),
    "a key file": (OSError, KeyPair.load),
    "a client's file": (LnhError, read_client_file),
}


@pytest.mark.parametrize("opener", OPENERS)
def test_a_file_in_whose_place_it_stands_is_refused_at_once(put: Put, tmp_path: Path, opener: str) -> None:
    error, opened = OPENERS[opener]
    put(tmp_path / "x")
    with pytest.raises((error, FileNotFoundError, IsADirectoryError)):
        opened(tmp_path / "x")


def test_a_file_is_replaced_though_it_stands_in_the_way(put: Put, tmp_path: Path) -> None:
    put(tmp_path / "file.new")
    if (tmp_path / "file.new").is_dir():
        with pytest.raises(StorageFailed):
            durable.replace_file(tmp_path / "file", b"data")
    else:
        durable.replace_file(tmp_path / "file", b"data")
        assert (tmp_path / "file").read_bytes() == b"data"


@pytest.mark.parametrize("name", ["store.db", "store.db-wal"])
def test_a_store_does_not_open_it_as_its_database(put: Put, tmp_path: Path, name: str) -> None:
    if name != "store.db":
        (tmp_path / "store.db").touch(0o600)
    put(tmp_path / name)
    with pytest.raises(StorageFailed):
        Disk(tmp_path).load()


def test_an_archive_is_not_taken_from_it(put: Put, tmp_path: Path) -> None:
    put(tmp_path / "a.lnhb")
    with pytest.raises((NotRegular, FileNotFoundError)):
        copy_in(tmp_path / "a.lnhb", tmp_path)
