"""A file replaced by `durable.replace_file` is the old or the new one, at whatever call the power fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lnh_common.errors import StorageFailed
from lnh_services.durable import read_private, remove_file, replace_file

OLD = b"old" * 1000
NEW = b"new" * 2000


class PowerFailure(BaseException):
    """Not an OSError: nobody handles it."""


class Calls:
    """Counts system calls, and fails at one of them: before it acts, or half-way through a write."""

    def __init__(self, fail_at: int, failure: BaseException) -> None:
        self.count, self.fail_at, self.failure = 0, fail_at, failure

    def wrap(self, act: Callable[..., Any], *, writes: bool = False) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            if self.count == self.fail_at:
                if writes:
                    act(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise self.failure
            if writes:  # a short write is no failure
                return act(arguments[0], bytes(arguments[1])[:1000])
            return act(*arguments, **named)

        return call


def replaced(path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int, failure: BaseException) -> int:
    """Replace the file with a failure at that call; how many calls there were."""
    calls = Calls(fail_at, failure)
    with monkeypatch.context() as patch:
        for name in ("open", "fchmod", "fsync"):
            patch.setattr(os, name, calls.wrap(getattr(os, name)))
        patch.setattr(os, "write", calls.wrap(os.write, writes=True))
        patch.setattr(Path, "replace", calls.wrap(Path.replace))
        with suppress(PowerFailure, StorageFailed):
            replace_file(path, NEW)
    return calls.count


@pytest.mark.parametrize("failure", [PowerFailure(), OSError(28, "No space left on device")])
def test_a_replaced_file_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = tmp_path / "file"
    total = replaced(path, monkeypatch, 0, failure)
    assert read_private(path, 10_000) == NEW
    seen = set()
    for fail_at in range(1, total + 1):
        replace_file(path, OLD)
        replaced(path, monkeypatch, fail_at, failure)
        seen.add(read_private(path, 10_000))
        replace_file(path, NEW)
        assert read_private(path, 10_000) == NEW
    assert seen == {OLD, NEW}


def test_a_removed_file_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, OLD)
    (tmp_path / "file.new").write_bytes(b"half")
    remove_file(path)
    remove_file(path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_longer_than_its_limit_is_not_read(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", OLD)
    with pytest.raises(StorageFailed, match="more than 10 bytes"):
        read_private(tmp_path / "file", 10)


def test_there_is_none_where_none_is(tmp_path: Path) -> None:
    assert read_private(tmp_path / "file", 10) is None
