"""A fleet: many processes of one registration, each of which logs in once, all at the same moment."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

import lnh
from lnh_cli.demo.local import Member

_STARTS_WITHIN = 60.0


class Told(NamedTuple):
    """How one process fared: after how many seconds, `served` or the error's name, and its words and detail."""

    seconds: float
    outcome: str
    words: str = ""
    detail: dict[str, object] = {}


def _log_in(ways: Path, label: str, role: lnh.Role, password: str, timeout: float, pipe: Connection) -> None:
    with lnh.connect("demo", directory=ways, timeout=timeout) as cluster:
        keyring = cluster.keyring(label)
        pipe.send("ready")
        pipe.recv()
        began = time.monotonic()
        try:
            session = keyring.login(role, password)
        except lnh.LnhError as error:
            told = Told(time.monotonic() - began, type(error).__name__, str(error), error.detail)
        else:
            told = Told(time.monotonic() - began, "served")
            session.abandon()
    pipe.send(told)


class Fleet:
    """Processes that are connected, and log in when they are let go."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def go(self) -> None:
        for pipe in self._pipes:
            pipe.send("go")

    def told(self, within: float) -> list[Told]:
        """What became of each; raises AssertionError for one that says nothing."""
        told: list[Told] = []
        ends = time.monotonic() + within
        left = list(self._pipes)
        while left:
            ready = wait(left, max(0.0, ends - time.monotonic()))
            assert ready, f"{len(left)} of {len(self._pipes)} processes say nothing"
            for pipe in ready:
                assert isinstance(pipe, Connection)
                told.append(pipe.recv())
                left.remove(pipe)
        return told


@contextmanager
def fleet(member: Member, label: str, role: lnh.Role, password: str, *, count: int, timeout: float) -> Iterator[Fleet]:
    """So many processes, connected through this member and ready."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lnh", __name__])
    pipes: list[Connection] = []
    processes = []
    try:
        for _ in range(count):
            here, there = context.Pipe()
            given = (Path(member.client), label, role, password, timeout, there)
            process = context.Process(target=_log_in, args=given, daemon=True)
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        for pipe in pipes:
            assert pipe.poll(_STARTS_WITHIN), "a process of the fleet does not connect"
            assert pipe.recv() == "ready"
        yield Fleet(pipes)
    finally:
        for process in processes:
            process.kill()
            process.join()
        for pipe in pipes:
            pipe.close()
