"""Stamps of requests: noted in a file by those who are asked to, read by another, and followed along the way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lnh_common import timeline
from lnh_common.timeline import Point, Recorder, Stamp
from lnh_services.balancer.timeline import POINTS
from lnh_services.hsm.worker import timeline as of_workers
from lnh_services.hsm.worker.loop import Worker


@pytest.fixture
def noting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(timeline.VARIABLE, "1")


@pytest.mark.usefixtures("noting")
def test_a_process_that_is_asked_to_notes_before_and_after_the_calls_of_its_points(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    where = SimpleNamespace(double=lambda number, by=2: number * by)
    timeline.begin(
        tmp_path, "worker-12", [Point("begins", where, "double", before=True), Point("ends", where, "double")]
    )
    assert where.double(4, by=3) == 12
    stamps = timeline.read(tmp_path)
    assert [(stamp.process, stamp.point) for stamp in stamps] == [("worker", "begins"), ("worker", "ends")]
    assert stamps[0].at <= stamps[1].at
    assert stamps[0].spent <= stamps[1].spent
    assert (tmp_path / "run" / "timeline" / "worker-12").stat().st_mode & 0o077 == 0


def test_a_process_that_is_not_asked_to_notes_nothing_and_its_functions_are_its_own(tmp_path: Path) -> None:
    where = SimpleNamespace(act=len)
    timeline.begin(tmp_path, "balancer", [Point("acted", where, "act")])
    assert where.act is len
    assert timeline.read(tmp_path) == []


def test_what_is_wrapped_is_as_before_once_that_is_undone() -> None:
    where = SimpleNamespace(act=len)
    noted: list[int] = []
    undo = timeline.wrap([Point("a", where, "act"), Point("b", where, "act", before=True)], noted.append)
    assert where.act("abc") == 3
    assert noted == [1, 0]
    undo()
    assert where.act is len


def test_the_newest_stamps_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "KEPT", 4)
    (tmp_path / "run").mkdir()
    recorder = Recorder(tmp_path / "run" / "timeline" / "balancer", ["a", "b"])
    for number in range(7):
        recorder.note(number % 2)
    assert [stamp.point for stamp in timeline.read(tmp_path)] == ["b", "a", "b", "a"]


def test_a_request_is_followed_along_its_way_and_no_further_than_it_was_seen() -> None:
    stamps = [Stamp(at, at, each[0], each[1]) for at, each in enumerate(["xa", "ya", "yb", "ya", "xb", "yb"])]
    assert timeline.follow(stamps, [("x", "a"), ("y", "b"), ("y", "a"), ("x", "b")]) == [
        stamps[n] for n in (0, 2, 3, 4)
    ]
    assert timeline.follow(stamps, [("x", "b"), ("y", "a")]) is None


@pytest.mark.parametrize("points", [POINTS, of_workers.points(Worker)], ids=["balancer", "worker"])
def test_the_points_of_a_member_are_functions_that_there_are(points: tuple[Point, ...]) -> None:
    timeline.wrap(points, lambda _: None)()
    assert len({point.name for point in points}) == len(points)
