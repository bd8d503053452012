"""Long inputs through the SDK and a pure worker: files, streams, and workers that are gone on the way."""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from lnh import errors
from lnh.objects.keys import SecretKey
from lnh_common import limits
from lnh_common.messages.base import Operation
from lnh_common.pkcs11.attributes import KeyType
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.pkcs11.parameters import GcmParameters
from models.object_session import WorkerSession

M = Mechanism
SIZE: Final = limits.REQUEST_BYTES + limits.PART_BYTES + 7
DATA: Final = os.urandom(SIZE)


class FailingSession(WorkerSession):
    """A session whose worker is replaced before some parts."""

    fails_before: frozenset[int] = frozenset()
    asked = 0

    def call_each(
        self, calls: Iterable[tuple[Operation[Any, Any], dict[str, Any]]], in_flight: int, timeout: float | None = None
    ) -> Iterator[dict[str, Any]]:
        for operation, fields in calls:
            self.asked += 1
            if self.asked in self.fails_before:
                self.client.worker = self.client.world.worker()
            yield self.call(operation, fields)


class DoubledSession(WorkerSession):
    """A session whose first part is sent to a second worker too; the first's answer counts, the second goes on."""

    doubled = 0  # inputs that it happens to

    def call_each(
        self, calls: Iterable[tuple[Operation[Any, Any], dict[str, Any]]], in_flight: int, timeout: float | None = None
    ) -> Iterator[dict[str, Any]]:
        for number, (operation, fields) in enumerate(calls):
            answer = self.call(operation, fields)
            if number == 0 and self.doubled:
                self.doubled -= 1
                self.client.worker = self.client.world.worker()
                self.call(operation, fields)
            yield answer


@pytest.fixture(scope="module")
def opened() -> FailingSession:
    opened = WorkerSession.open()
    return FailingSession(opened.client, opened.keyring)


@pytest.fixture
def session(opened: FailingSession) -> FailingSession:
    made = FailingSession(opened.client, opened.keyring)
    made.asked = 0
    return made


def aes(session: WorkerSession, **attributes: Any) -> SecretKey:
    key = session.generate_key(KeyType.AES, 256, **attributes)
    assert isinstance(key, SecretKey)
    return key


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("mechanism", [M.AES_GCM, M.AES_CTR, M.AES_CBC_PAD])
@pytest.mark.parametrize("data", [DATA, b"", DATA[: limits.PART_BYTES], DATA[: 2 * limits.PART_BYTES]])
def test_a_file_encrypts_and_decrypts_at_any_length(
    session: FailingSession, tmp_path: Path, mechanism: Mechanism, data: bytes
) -> None:
    key = aes(session, allowed_mechanisms=[mechanism])
    (tmp_path / "in").write_bytes(data)
    key.encrypt_file(tmp_path / "in", tmp_path / "box", mechanism)
    key.decrypt_file(tmp_path / "box", tmp_path / "out", mechanism)
    assert (tmp_path / "out").read_bytes() == data
    assert sorted(each.name for each in tmp_path.iterdir()) == ["box", "in", "out"]
    if len(data) <= limits.REQUEST_BYTES:
        assert key.decrypt((tmp_path / "box").read_bytes(), mechanism) == data


def test_a_file_and_one_message_are_the_same_ciphertext(session: FailingSession, tmp_path: Path) -> None:
    key, about = aes(session), GcmParameters(aad=b"about")
    (tmp_path / "box").write_bytes(key.encrypt(b"small", parameters=about))
    key.decrypt_file(tmp_path / "box", tmp_path / "out", parameters=about)
    assert (tmp_path / "out").read_bytes() == b"small"


def test_what_does_not_verify_leaves_no_file(session: FailingSession, tmp_path: Path, source: Path) -> None:
    key = aes(session)
    key.encrypt_file(source, tmp_path / "box")
    box = bytearray((tmp_path / "box").read_bytes())
    box[20] ^= 1
    (tmp_path / "box").write_bytes(box)
    (tmp_path / "out").write_bytes(b"what was there")
    with pytest.raises(errors.EncryptedDataInvalid):
        key.decrypt_file(tmp_path / "box", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"what was there"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["box", "out", "source"]


def test_tags_and_hashes_of_files_streams_and_long_bytes_are_those_of_the_whole(
    session: FailingSession, source: Path
) -> None:
    key = session.generate_key(KeyType.GENERIC_SECRET, 256)
    told: list[tuple[int, int]] = []
    tag = key.sign_file(source, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (SIZE, SIZE)
    assert key.sign(DATA) == key.sign(io.BytesIO(DATA)) == tag
    assert key.verify_file(source, tag)
    assert key.verify(DATA, tag)
    assert not key.verify(DATA[:-1], tag)
    found = session.client.worker.caches.keys.get((session.keyring, key.handle))
    assert found is not None
    assert tag == hmac.digest(found.loaded.secret, DATA, "sha256")
    assert session.digest(DATA, M.SHA3_256) == hashlib.sha3_256(DATA).digest()
    assert session.digest(source.open("rb")) == hashlib.sha256(DATA).digest()


def test_what_is_in_place_of_another_file_is_on_the_disk(
    session: FailingSession, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int]] = []
    sync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append(("sync", os.fstat(descriptor).st_ino))
        sync(descriptor)

    def replaced(path: Path, target: Path) -> Path:
        done.append(("replace", path.stat().st_ino))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    aes(session).encrypt_file(source, tmp_path / "box")
    file, place = (tmp_path / "box").stat().st_ino, tmp_path.stat().st_ino
    assert done == [("sync", file), ("replace", file), ("sync", place)]


def test_a_key_of_the_session_takes_parts_too(session: FailingSession, source: Path, tmp_path: Path) -> None:
    key = aes(session, token=False)
    key.encrypt_file(source, tmp_path / "box")
    key.decrypt_file(tmp_path / "box", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_file_is_fed_anew_when_its_worker_is_gone(session: FailingSession, source: Path, tmp_path: Path) -> None:
    key = aes(session)
    session.fails_before = frozenset({3, 8})  # in the first and in the second try; part 3 is not the first of any
    key.encrypt_file(source, tmp_path / "box")
    assert session.asked > 8
    session.fails_before = frozenset({session.asked + 4})
    key.decrypt_file(tmp_path / "box", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize("mechanism", [M.AES_GCM, M.AES_CTR, M.AES_CBC_PAD])
def test_a_file_that_two_workers_began_is_fed_anew_and_decrypts(
    opened: FailingSession, source: Path, tmp_path: Path, mechanism: Mechanism
) -> None:
    session = DoubledSession(opened.client, opened.keyring)
    key = aes(session, allowed_mechanisms=[mechanism])
    session.doubled = 2
    key.encrypt_file(source, tmp_path / "box", mechanism)
    assert session.doubled == 0
    key.decrypt_file(tmp_path / "box", tmp_path / "out", mechanism)
    assert (tmp_path / "out").read_bytes() == DATA
    session.doubled = 1
    key.decrypt_file(tmp_path / "box", tmp_path / "again", mechanism)
    assert (tmp_path / "again").read_bytes() == DATA
    session.doubled = 3
    with pytest.raises(errors.StreamLost, match="another IV"):
        key.encrypt_file(source, tmp_path / "box", mechanism)


def test_what_can_be_read_once_only_is_said_to_be_lost(session: FailingSession, tmp_path: Path) -> None:
    key = session.generate_key(KeyType.GENERIC_SECRET, 256)

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    whole = key.sign(DATA)
    assert key.sign(Pipe(DATA)) == whole
    session.fails_before = frozenset({session.asked + 3})
    with pytest.raises(errors.StreamLost):
        key.sign(Pipe(DATA))


def test_a_worker_that_is_always_gone_ends_it(session: FailingSession, source: Path, tmp_path: Path) -> None:
    key = aes(session)
    session.fails_before = frozenset(range(1000))
    with pytest.raises(errors.StreamLost):
        key.encrypt_file(source, tmp_path / "box")
    assert [each.name for each in tmp_path.iterdir()] == ["source"]


def test_what_takes_its_data_at_once_says_so(session: FailingSession, source: Path, tmp_path: Path) -> None:
    key = session.generate_key(KeyType.CHACHA20)
    with pytest.raises(errors.DataLength, match="CHACHA20_POLY1305 takes its data at once"):
        key.encrypt_file(source, tmp_path / "box")
    _, edwards = session.generate_keypair(KeyType.EC_EDWARDS)
    with pytest.raises(errors.DataLength):
        edwards.sign_file(source)


class Zeros(io.RawIOBase):
    """An input that is read from nowhere."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self.left)
        buffer[:count] = bytes(count)
        self.left -= count
        return count


def test_an_input_of_many_parts_takes_no_more_memory_than_a_few_of_them(
    session: FailingSession, tmp_path: Path
) -> None:
    """In the client and the worker together, which are one process here."""
    key, large = aes(session), tmp_path / "large"
    large.touch()
    os.truncate(large, 48 << 20)
    mac = session.generate_key(KeyType.GENERIC_SECRET, 256)
    tracemalloc.start()
    try:
        tag = mac.sign(io.BufferedReader(Zeros(48 << 20)))
        key.encrypt_file(large, tmp_path / "box")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20
    assert mac.verify_file(large, tag)
