"""What a scenario of the drill consists of: steps, each with one act, the time it has, and what to do when it fails.

A command of the runbook is written as it stands in docs/operations.md, with its placeholders; `fill` puts in what they
stand for. So a test can compare the table with the page, and what is rehearsed is what an operator reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from lnh_common.errors import ArgumentInvalid

SECONDS: Final = 120.0  # that a step may take; what it took is in the report

Values = Mapping[str, "str | Sequence[str]"]
_TOKEN: Final = re.compile(r"\[[^\[\]]+\]|[^\s\[\]]+")
_REPEATED: Final = "..."


@dataclass(frozen=True)
class Run:
    """Run a command of the runbook.

    Args:
        command: as it stands in the page.
        values: what stands for words of it; a template, filled with what the runner knows.
        more: options that answer what the command would ask.
        through: the member on whose client machine it runs; "" for the first's.
    """

    command: str
    values: Values = field(default_factory=dict)
    more: tuple[str, ...] = ()
    through: str = ""


@dataclass(frozen=True)
class Probe:
    """Look by a command whether something is so.

    Args:
        command: all of its words; a template.
        fails_with: the exit code that is right.
        says: what is in its output then.
        through: as of `Run`.
    """

    command: str
    fails_with: int = 0
    says: str = ""
    through: str = ""


@dataclass(frozen=True)
class Start:
    """Start a member, and wait until it is ready."""

    member: str
    command: str = "lnh-member --member-dir DIR"


@dataclass(frozen=True)
class Kill:
    """Kill every process of these members at once, as a power cut would."""

    members: tuple[str, ...]


@dataclass(frozen=True)
class Destroy:
    """Kill these members and remove their directories.

    Args:
        keeps: the member whose HSM's sealed state is copied away before.
    """

    members: tuple[str, ...]
    keeps: str = ""


@dataclass(frozen=True)
class PutBack:
    """Put the HSM's sealed state that `Destroy` kept into a new member directory."""

    member: str


@dataclass(frozen=True)
class LoseSecret:
    """Forget a password: its file holds another random one from here on."""

    name: str


@dataclass(frozen=True)
class Wire:
    """Have the members reach one another through proxies that can be cut, or directly again."""

    proxied: bool


@dataclass(frozen=True)
class Cut:
    """Cut a member off from every other one, silently; its clients still reach it."""

    member: str


@dataclass(frozen=True)
class Heal:
    """Open every way that was cut."""


@dataclass(frozen=True)
class See:
    """Wait until a member sees these members in these states.

    Args:
        states: by the members' names.
        through: the member that is asked.
    """

    states: Mapping[str, str]
    through: str = ""


@dataclass(frozen=True)
class Flow:
    """Wait until the client in the background gets on: with signatures, or keys, that it asked for after now.

    Args:
        makes: whether keys are meant.
        count: how many.
    """

    makes: bool = False
    count: int = 1


@dataclass(frozen=True)
class Hold:
    """Have the client in the background make no keys: what it makes from now on would be in no backup."""


@dataclass(frozen=True)
class Resume:
    """Have the client in the background make keys again."""


@dataclass(frozen=True)
class Account:
    """Find every key whose making was acknowledged, through each of these members; none for every member."""

    members: tuple[str, ...] = ()


Act = (
    Run
    | Probe
    | Start
    | Kill
    | Destroy
    | PutBack
    | LoseSecret
    | Wire
    | Cut
    | Heal
    | See
    | Flow
    | Hold
    | Resume
    | Account
)

_LOGS: Final = "look at the members' logs, DIR/log, and at lnh doctor --member-dir DIR"
ADVICE: Final[Mapping[type, str]] = {
    Run: "what the command's own `try:` line says; then this section again",
    Probe: "what the command's own `try:` line says; the cluster did not behave as the page says",
    Start: _LOGS,
    Kill: "end the processes that are named",
    Destroy: "end the processes that are named",
    PutBack: "look whether the disk is full, or not writable",
    LoseSecret: "look whether the disk is full, or not writable",
    Wire: _LOGS,
    Cut: _LOGS,
    Heal: _LOGS,
    See: f"lnh member list; {_LOGS}",
    Flow: f"what the client's errors below say; {_LOGS}",
    Hold: f"what the client's errors below say; {_LOGS}",
    Resume: f"what the client's errors below say; {_LOGS}",
    Account: "an acknowledged key that is not there must not be: keep the directory, and report it",
}
"""What to do when a step fails, by what it does."""


@dataclass(frozen=True)
class Step:
    """One step of a scenario.

    Args:
        words: what is done, or what must be so, in a sentence.
        act: what the runner does.
        section: of docs/operations.md, whose command this is; "" for the scenario's.
        within: seconds it may take.
    """

    words: str
    act: Act
    section: str = ""
    within: float = SECONDS

    @property
    def command(self) -> str:
        """Return the command of the runbook, as it stands there; "" for a step without one."""
        return self.act.command if isinstance(self.act, Run | Start) else ""


@dataclass(frozen=True)
class Scenario:
    """One rehearsal.

    Args:
        name: what `--only` takes.
        title: what happens, in a few words.
        section: the section of docs/operations.md that it rehearses.
        steps: what is done, one after the other; the first that fails ends the scenario.
        client: the member through which the client in the background is registered.
    """

    name: str
    title: str
    section: str
    steps: tuple[Step, ...]
    client: str = "a"


def outline(scenarios: Iterable[Scenario]) -> list[str]:
    """Say in lines what will be done: each step, and the command it runs."""
    lines = []
    for scenario in scenarios:
        lines.append(f"{scenario.name}: {scenario.title}")
        lines += [f"  {step.words}{f': {step.command}' if step.command else ''}" for step in scenario.steps]
    return lines


def fill(command: str, values: Values) -> list[str]:
    """Make the words of a command from the line of a page.

    A word of the line that `values` has is replaced. `[...]` is optional: it is there when a word of it has a value.
    With `...` as its last word it is repeated for each item of that value.

    Raises ArgumentInvalid for a value that stands for no word.
    """
    unused = set(values)

    def filled(word: str, number: int = 0) -> str:
        unused.discard(word)
        value = values.get(word, word)
        return value if isinstance(value, str) else value[number]

    words: list[str] = []
    for token in _TOKEN.findall(command):
        if not token.startswith("["):
            words.append(filled(token))
            continue
        optional = token[1:-1].split()
        counts = [1 if isinstance(value, str) else len(value) for word in optional if (value := values.get(word))]
        times = max(counts, default=0)
        if optional[-1] == _REPEATED:
            optional.pop()
        words += [filled(word, number) for number in range(times) for word in optional]
    if unused:
        raise ArgumentInvalid(f"{command!r} has no word {min(unused)!r}")
    return words
