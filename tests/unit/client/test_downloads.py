"""An archive fetched from a member: interrupted, gone on with, and changed while it is fetched."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from lnh.backups import Backups
from lnh.sessions import Session
from lnh_common.errors import ArchiveInvalid, NameTaken, Unreachable
from lnh_common.messages import backup
from lnh_common.messages.base import Message, Operation
from lnh_common.wire import archives
from lnh_services.backup.files import view
from models.archives import written

NAME = "prod.lnhb"
ONE, OTHER = written(b"one" * 300_000), written(b"other" * 300_000, id_=b"o" * 16)


class Member:
    """Holds one archive; `before` is called before each piece is read, with how many were."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offsets: list[int] = []
        self.before: Callable[[int], None] = lambda _: None

    def ask(self, operation: Operation[Any, Any], message: Message) -> Message:
        if isinstance(message, backup.ArchiveRef):
            return view(NAME, archives.outline(io.BytesIO(self.data)))
        assert isinstance(message, backup.PieceOf)
        self.before(len(self.offsets))
        self.offsets.append(message.offset)
        return backup.Piece(data=self.data[message.offset :][: message.length], size=len(self.data))

    @property
    def backups(self) -> Backups:
        return Backups(cast("Session", self))


def lose(pieces: int) -> None:
    if pieces == 1:
        raise Unreachable("the member was lost")


def test_an_interrupted_download_goes_on_where_it_was(tmp_path: Path) -> None:
    member = Member(ONE)
    member.before = lose
    with pytest.raises(Unreachable):
        member.backups.download(NAME, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f".{NAME}.part"]
    member.before = lambda _: None
    assert member.backups.download(NAME, tmp_path).read_bytes() == ONE
    assert member.offsets == list(range(0, len(ONE), backup.PIECE_BYTES)), "nothing came twice"
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert member.backups.download(NAME, tmp_path) == tmp_path / NAME, "it is there"


@pytest.mark.parametrize(
    "begun", [OTHER[: backup.PIECE_BYTES], OTHER, b"x" * len(ONE), ONE + b"x"], ids=["part", "all", "junk", "longer"]
)
def test_what_is_there_of_another_archive_is_fetched_anew(tmp_path: Path, begun: bytes) -> None:
    (tmp_path / f".{NAME}.part").write_bytes(begun)
    assert Member(ONE).backups.download(NAME, tmp_path).read_bytes() == ONE
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize(
    "changed",
    [OTHER, ONE[:-1], ONE[: backup.PIECE_BYTES], ONE[:600_000] + bytes([ONE[600_000] ^ 1]) + ONE[600_001:]],
    ids=["another", "shorter", "part", "one bit"],
)
def test_an_archive_that_changes_while_it_is_fetched_is_none(tmp_path: Path, changed: bytes) -> None:
    member = Member(ONE)

    def change(pieces: int) -> None:
        if pieces == 1:
            member.data = changed

    member.before = change
    with pytest.raises(ArchiveInvalid, match="what came is not the archive") as caught:
        member.backups.download(NAME, tmp_path)
    assert "run it again" in str(caught.value.detail["advice"])
    assert list(tmp_path.iterdir()) == []
    member.data = OTHER
    assert member.backups.download(NAME, tmp_path).read_bytes() == OTHER


def test_a_file_that_is_another_one_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(OTHER)
    with pytest.raises(NameTaken):
        Member(ONE).backups.download(NAME, tmp_path)
    assert (tmp_path / NAME).read_bytes() == OTHER
