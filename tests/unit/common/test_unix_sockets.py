"""A socket whose server died makes room, and one that somebody serves does not, however busy he is."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lnh_common.errors import NotPossible
from lnh_common.unix_sockets import make_room


def test_where_nothing_is_there_is_room(short_path: Path) -> None:
    make_room(short_path / "s", "server", "go")
    make_room(short_path / "no such directory" / "s", "server", "go")


def test_the_socket_of_a_server_that_died_is_removed(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(short_path / "s"))
        dead.listen()
    assert (short_path / "s").exists()
    make_room(short_path / "s", "server", "go")
    assert not (short_path / "s").exists()


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_server_that_lives_keeps_its_socket_also_when_it_takes_nobody(short_path: Path, waiting: int) -> None:
    path = str(short_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(path)
        server.listen(0)
        for _ in range(waiting):  # of whom it takes none
            first.connect(path)
        with pytest.raises(NotPossible, match="another server serves") as caught:
            make_room(short_path / "s", "server", "go")
        assert caught.value.detail["advice"] == "go"
    assert (short_path / "s").exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_stays(short_path: Path, kind: str) -> None:
    path = short_path / "s"
    if kind == "file":
        path.write_text("mine")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")
    with pytest.raises(NotPossible, match="is no socket"):
        make_room(path, "server", "go")
    assert path.is_symlink() or path.exists()
