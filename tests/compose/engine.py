"""Container engines, as the tests use them: which one this machine has, and a project of compose.yaml run by it.

python tests/compose/engine.py          says which engine there is, or (exit code 1) why none can be used
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
BASE: Final = "python:3.11-slim"
IMAGE: Final = "lnh-test"
_QUICK: Final = 60
_BUILD: Final = 600
_PULL: Final = 120


@dataclass(frozen=True)
class Engine:
    """What runs containers here, and what reads compose.yaml for it."""

    name: str
    compose: tuple[str, ...]
    separator: str  # between the words of a container's name

    def answers(self, *words: str, seconds: float = _QUICK) -> bool:
        """Whether a command of it succeeds."""
        try:
            done = subprocess.run(words, capture_output=True, timeout=seconds, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    def has_base(self) -> bool:
        """Whether the image that the Dockerfile begins with is here, or can be had."""
        return self.answers(self.name, "image", "inspect", BASE) or self.answers(
            self.name, "pull", "-q", BASE, seconds=_PULL
        )

    def runs(self, memlock: str = "65536") -> bool:
        """Whether it runs a container, with the limits that compose.yaml asks for."""
        limits = [word for limit in ("nofile=4096", "nproc=4096", f"memlock={memlock}") for word in ("--ulimit", limit)]
        return self.answers(self.name, "run", "--rm", *limits, BASE, "true")


ENGINES: Final = (
    Engine("docker", ("docker", "compose"), "-"),
    Engine("podman", ("podman-compose",), "_"),
)


def find() -> tuple[Engine | None, str]:
    """The engine of this machine; or none, and why."""
    reasons = []
    for engine in ENGINES:
        if shutil.which(engine.name) is None:
            reasons.append(f"{engine.name} is not installed")
        elif not engine.answers(*engine.compose, "version"):
            reasons.append(f"{' '.join(engine.compose)} is not installed")
        elif not engine.has_base():
            reasons.append(f"{engine.name} has no image {BASE}, and cannot pull it")
        elif not engine.runs():
            reasons.append(f"{engine.name} runs no container here")
        else:
            return engine, ""
    return None, "; ".join(dict.fromkeys(reasons))


@dataclass
class Project:
    """compose.yaml under a project name of its own, with what is made from it."""

    engine: Engine
    name: str
    environment: dict[str, str] = field(default_factory=dict)

    def compose(self, *words: str, seconds: float = 180) -> str:
        return self._run(*self.engine.compose, "-p", self.name, *words, seconds=seconds)

    def command(self, *words: str, seconds: float = _QUICK, fails_with: int = 0, stdin: str = "") -> str:
        """A command of the engine."""
        return self._run(self.engine.name, *words, seconds=seconds, fails_with=fails_with, stdin=stdin)

    def container(self, service: str) -> str:
        return self.engine.separator.join((self.name, service, "1"))

    def run(self, service: str, *words: str, fails_with: int = 0, stdin: str = "", seconds: float = _QUICK) -> str:
        """Run something in a service's container; what it said on standard output, or on both when it was to fail."""
        return self.command(
            "exec", "-i", self.container(service), *words, fails_with=fails_with, stdin=stdin, seconds=seconds
        )

    def start(self, service: str, *words: str) -> subprocess.Popen[str]:
        """Start something in a service's container; it ends when its standard input does."""
        command = [self.engine.name, "exec", "-i", self.container(service), *words]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=self._variables(),
        )  # fmt: skip

    def inspect(self, service: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.command("inspect", self.container(service)))
        return found[0]

    @property
    def network(self) -> str:
        return f"{self.name}_cluster"

    def cut(self, service: str) -> None:
        """Take the network from a container."""
        self.command("network", "disconnect", self.network, self.container(service))

    def join(self, service: str) -> None:
        """Give it back; the address is another one then."""
        self.command("network", "connect", "--alias", service, self.network, self.container(service))

    def kill(self, service: str) -> None:
        """End every process of a container at once; the engine does not start it again."""
        self.command("stop", "--time", "0", self.container(service))

    def bring_back(self, service: str) -> None:
        self.command("start", self.container(service))

    def _variables(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def _run(self, *command: str, seconds: float, fails_with: int = 0, stdin: str = "") -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=self._variables(), input=stdin, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
        assert done.returncode == fails_with, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr if fails_with else done.stdout


@contextmanager
def project(engine: Engine) -> Iterator[Project]:
    """A project of its own, its image built; all that it made is gone afterwards, but for the image's layers."""
    made = Project(engine, f"lnhtest{os.getpid()}", {"LNH_IMAGE": IMAGE, "LNH_WORKERS": "1"})
    if not engine.runs(memlock="-1:-1"):
        made.environment["LNH_MEMLOCK"] = "65536"
    # The host's network, as a build on a machine with a registry mirror or a proxy of its own needs.
    made.command("build", "--network=host", "-q", "-t", IMAGE, ".", seconds=_BUILD)
    try:
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "5")


if __name__ == "__main__":
    found, why = find()
    print(found.name if found else f"no container engine to be had: {why}")
    sys.exit(0 if found else 1)
