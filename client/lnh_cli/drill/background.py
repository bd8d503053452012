"""The processes beside the members: the client in the background, and what can cut the members off from one another.

They are started, told what to do, listened to, and always ended.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from lnh_cli.demo.local import StepFailed
from lnh_cli.drill.report import Event

_LOOK_EVERY: Final = 0.02
_STOP_SECONDS: Final = 30.0  # for what is under way


class Wires:
    """The process of `lnh_cli.demo.wires`; raises StepFailed where it cannot start.

    Args:
        root: the cluster's directory.

    Attributes:
        bases: the base port of each member's proxy, by the member's name.
    """

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lnh_cli.demo.wires", str(root)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.bases: dict[str, int] = json.loads(self._answer())

    def tell(self, line: str) -> None:
        """Have it obey one line; raises StepFailed when it has ended."""
        assert self._process.stdin is not None, "it was started with a pipe"
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        self._answer()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> bytes:
        assert self._process.stdout is not None, "it was started with a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise StepFailed(f"what joins the members ended with {self._process.wait()}")
        return line


class Background:
    """One process of `lnh_cli.drill.client`, for one scenario.

    Args:
        words: of its command line.
        environment: all of it.
        directory: where its output is put.
        scenario: its name, which its events get.
        zero: when the drill began.
    """

    def __init__(
        self, words: list[str], environment: Mapping[str, str], directory: Path, scenario: str, zero: float
    ) -> None:
        self.events: list[Event] = []
        self._scenario = scenario
        self._zero = zero
        self._errors = directory / f"{scenario}.errors"
        output = directory / f"{scenario}.events"
        with output.open("wb") as out, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lnh_cli.drill.client", *words],
                env=dict(environment), stdin=subprocess.PIPE, stdout=out, stderr=errors, start_new_session=True,
            )  # fmt: skip
        self._output = output.open("rb")
        self._rest = b""

    def tell(self, line: str) -> None:
        """Tell it one line; raises StepFailed when it has ended."""
        assert self._process.stdin is not None, "it was started with a pipe"
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise StepFailed(self._last_words()) from None

    def look(self) -> None:
        """Take in what it has said since the last look."""
        lines = (self._rest + self._output.read()).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            event = msgspec.json.decode(line, type=Event)
            self.events.append(msgspec.structs.replace(event, at=event.at - self._zero, scenario=self._scenario))

    def wait_for(self, found: Callable[[Event], bool], what: str, within: float, count: int = 1) -> Event:
        """Wait for so many events, and return the last; raises StepFailed when they do not come in time."""
        ends, seen = time.monotonic() + within, 0
        while True:
            over = self._process.poll() is not None
            self.look()
            for event in self.events[seen:]:
                if found(event) and not (count := count - 1):
                    return event
            seen = len(self.events)
            if over:
                raise StepFailed(self._last_words())
            if time.monotonic() > ends:
                errors = [event.problem for event in self.events if event.problem]
                raise StepFailed(f"no {what} within {within:.0f} s; its last error: {errors[-1] if errors else 'none'}")
            time.sleep(_LOOK_EVERY)

    def stop(self) -> None:
        """End it, and take in its last events."""
        assert self._process.stdin is not None, "it was started with a pipe"
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self.look()
        self._output.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def _last_words(self) -> str:
        said = self._errors.read_text("utf-8", "replace").strip()
        return f"the client in the background ended with {self._process.wait()}: {said}"
