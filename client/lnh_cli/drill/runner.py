"""Carries out the scenarios of a drill: real members, real commands, and a client that works meanwhile.

What is done is in `scenarios`, what is shown in `report`. Whatever happens, all that was started is ended.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from lnh_cli.demo import local, processes
from lnh_cli.demo.children import Child, Done
from lnh_cli.demo.local import Member, Place, StepFailed, Steps
from lnh_cli.drill import steps as acts
from lnh_cli.drill.background import Background, Wires
from lnh_cli.drill.report import Event, What
from lnh_cli.drill.steps import ADVICE, Scenario, Step, fill

MAKES_EVERY: Final = 0.1  # seconds
_MADE_FIRST: Final = 5  # keys, before anything is done
_GENTLY: Final = 1.0  # on a cluster that serves
_KEYRING: Final = "payments"
_HSM_STATE: Final = Path("data", "hsm")
_SECRET_BYTES: Final = 18
_LABEL_BYTES: Final = 4
_LOOK_EVERY: Final = 0.25  # seconds: each look is a login, and the processor is for the members

Say = Callable[[str], None]


@dataclass(frozen=True)
class Facts:
    """What templates may say of a member."""

    member: Member

    @property
    def directory(self) -> Path:
        """The member directory."""
        return self.member.directory

    @property
    def address(self) -> str:
        """The address it was given at first."""
        return self.member.address.read_text().strip()

    @property
    def port(self) -> str:
        """Its base port."""
        return self.address.rpartition(":")[2]


class World(dict[str, Any]):
    """What templates are filled with: what is known, and what is found out when it is asked for."""

    def __init__(self, known: Mapping[str, Any], lookups: Mapping[str, Callable[[], Any]]) -> None:
        super().__init__(known)
        self._lookups = lookups

    def __missing__(self, name: str) -> Any:
        return self._lookups[name]()


class Rehearsal(ABC):
    """Carries out scenarios one after the other, and keeps what happened.

    Args:
        directory: for files of its own.
        say: is told each step that is done.
    """

    def __init__(self, directory: Path, say: Say) -> None:
        self.events: list[Event] = []
        self.directory = directory
        self._say = say
        self._zero = time.monotonic()
        self._client: Background | None = None
        self._scenario = ""
        self._performers: dict[type, Callable[[Any, float], None]] = {
            acts.Run: self._run,
            acts.Probe: self._probe,
            acts.See: self._see,
            acts.Flow: self._flow,
            acts.Hold: self._hold,
            acts.Resume: self._resume,
            acts.Account: self._account,
        }

    # What differs from place to place

    where = ""  # the cluster, in a few words

    @abstractmethod
    def set_up(self) -> None:
        """Make ready what is rehearsed on; raises StepFailed."""

    @abstractmethod
    def world(self) -> Mapping[str, Any]:
        """Return what templates are filled with."""

    @abstractmethod
    def environment(self, through: str) -> dict[str, str]:
        """Return the environment of a command on the client machine of a member."""

    @abstractmethod
    def members(self) -> Mapping[str, str]:
        """Return the addresses of the members that are there, by name."""

    @abstractmethod
    def client_words(self) -> tuple[str, str, float]:
        """Return the keyring and cluster of the client, and the seconds between two keys that it makes."""

    # The course of it

    def rehearse(self, scenario: Scenario) -> bool:
        """Carry out one scenario; returns whether it went through."""
        self._scenario = scenario.name
        self._say(f"{scenario.title}:")
        self._tell(What.SCENARIO, self._now(), words=scenario.title, section=scenario.section)
        try:
            passed = self._begin_client(scenario) and all(self._step(scenario, step) for step in scenario.steps)
            if passed:
                self._tell(What.END, self._now())
            return passed
        finally:
            self._end_client()

    def end(self) -> None:
        """End what was started, at once; raises TimeoutError when something goes on."""
        if self._client is not None:
            self._client.kill()
        processes.kill_children()

    def _step(self, scenario: Scenario, step: Step) -> bool:
        """Do one step; returns whether it went well."""
        began = self._now()
        section = step.section or scenario.section
        command = ""
        try:
            command = self._shown(step)
            self._performers[type(step.act)](step.act, step.within)
        except (StepFailed, TimeoutError, OSError) as error:
            took = self._now() - began
            self._tell(
                What.FAILED, began, took=took, words=step.words, command=command, section=section,
                problem=str(error), advice=ADVICE[type(step.act)],
            )  # fmt: skip
            self._say(f"  {took:6.1f} s  FAILED: {step.words}")
            return False
        took = self._now() - began
        self._tell(What.STEP, began, took=took, words=step.words, command=command, section=section)
        self._say(f"  {took:6.1f} s  {step.words}")
        return True

    def _begin_client(self, scenario: Scenario) -> bool:
        """Start the client, and wait until it works."""
        keyring, cluster, every = self.client_words()
        label = f"drill-{secrets.token_hex(_LABEL_BYTES)}"
        self._client = Background(
            [keyring, cluster, label, str(every)], self.environment(scenario.client),
            self.directory, scenario.name, self._zero,
        )  # fmt: skip
        step = Step("A client signs and makes keys in the background", acts.Flow(makes=True, count=_MADE_FIRST))
        return self._step(scenario, step)

    def _end_client(self) -> None:
        if self._client is not None:
            self._client.stop()
            self.events += self._client.events
            self._client = None

    def _now(self) -> float:
        return time.monotonic() - self._zero

    def _tell(self, what: What, at: float, **more: Any) -> None:
        self.events.append(Event(at, what, self._scenario, **more))

    # Commands

    def words(self, act: acts.Run | acts.Probe) -> list[str]:
        """Make the words of a command."""
        world = self.world()
        if isinstance(act, acts.Probe):
            return shlex.split(act.command.format_map(world))
        values = {
            name: value.format_map(world) if isinstance(value, str) else [each.format_map(world) for each in value]
            for name, value in act.values.items()
        }
        return [*fill(act.command, values), *(word.format_map(world) for word in act.more)]

    def _shown(self, step: Step) -> str:
        if isinstance(step.act, acts.Run | acts.Probe):
            return self.short(shlex.join(self.words(step.act)))
        if isinstance(step.act, acts.Start):
            return f"{self.short(shlex.join(fill(step.act.command, self._place_of(step.act))))} &"
        return ""

    def _place_of(self, act: acts.Start) -> dict[str, str]:
        return {"DIR": f"{{{act.member}.directory}}".format_map(self.world())}

    def short(self, command: str) -> str:
        """Shorten a command that is shown."""
        return command

    def command(self, words: Sequence[str], through: str) -> Done:
        """Run a command to its end."""
        return Child(words, self.environment(through), forked=True).wait()

    def _run(self, act: acts.Run, within: float) -> None:
        _check(self.command(self.words(act), act.through), 0, "")

    def _probe(self, act: acts.Probe, within: float) -> None:
        _check(self.command(self.words(act), act.through), act.fails_with, act.says)

    def _see(self, act: acts.See, within: float) -> None:
        ends = time.monotonic() + within
        while True:
            done = self.command(["lnh", "member", "list", "--json"], act.through)
            found = {view["name"]: view["state"] for view in json.loads(done.out)} if done.code == 0 else {}
            if act.states.items() <= found.items():
                return
            if time.monotonic() > ends:
                raise StepFailed(f"the members are {found}, not {dict(act.states)}: {done.err.strip()}")
            time.sleep(_LOOK_EVERY)

    # The client in the background

    @property
    def client(self) -> Background:
        """The client, which works as long as a scenario goes on."""
        assert self._client is not None, "a scenario goes on"
        return self._client

    def _flow(self, act: acts.Flow, within: float) -> None:
        what, since = (What.MADE, "key") if act.makes else (What.SIGNED, "signature"), self._now()
        self.client.wait_for(
            lambda event: event.what is what[0] and event.at - event.took >= since, what[1], within, act.count
        )

    def _hold(self, _: acts.Hold, within: float) -> None:
        self._ask("hold", What.HELD, within)

    def _resume(self, _: acts.Resume, within: float) -> None:
        self._ask("resume", What.RESUMED, within)

    def _account(self, act: acts.Account, within: float) -> None:
        problems = []
        for name, address in self.members().items():
            if act.members and name not in act.members:
                continue
            ends = self._now() + within
            while (event := self._ask(f"account {address} {name}", What.ACCOUNTED, within)).problem:
                if self._now() > ends:  # one that was made anew takes a moment to serve
                    problems.append(f"{name}: {event.problem}")
                    break
                time.sleep(_LOOK_EVERY)
            if event.lost:
                problems.append(f"{name} does not have {len(event.lost)} acknowledged keys: {', '.join(event.lost)}")
        if problems:
            raise StepFailed("\n".join(problems))

    def _ask(self, line: str, answer: What, within: float) -> Event:
        since = self._now()
        self.client.tell(line)
        return self.client.wait_for(
            lambda event: event.what is answer and event.at >= since, f"answer to {line!r}", within
        )


class ThrowAway(Rehearsal):
    """On a cluster of its own: three members, on loopback, under one directory.

    Args:
        root: a new directory, with a short path.
        say: is told what is done.
    """

    def __init__(self, root: Path, say: Say) -> None:
        super().__init__(root, say)
        self.where = "a cluster of three members that was made for it"
        self.place = Place(root)
        self._by_letter = {member.directory.name: member for member in self.place.members}
        self._steps = Steps(self.place, quiet=True, forks=True)
        self._steps.environment["LNH_WORKERS"] = "1"  # three members share this machine's cores
        self._wires: Wires | None = None
        self._performers |= {
            acts.Start: self._start,
            acts.Kill: self._kill,
            acts.Destroy: self._destroy,
            acts.PutBack: self._put_back,
            acts.LoseSecret: self._lose_secret,
            acts.Wire: self._wire,
            acts.Cut: self._cut,
            acts.Heal: self._heal,
        }

    def set_up(self) -> None:
        """Start the cluster; raises StepFailed."""
        self.place.create()
        local.set_up(self._steps)
        local.make_keyring(self._steps)
        self._steps.run("lnh", "cluster", "policy", "objects_per_keyring=1000000")
        local.join_all(self._steps)
        self._steps.run("lnh", "user", "logout")  # from here on every command logs in for itself

    def end(self) -> None:
        """End every process of it; raises StepFailed when one goes on."""
        super().end()
        if self._wires is not None:
            self._wires.kill()
        for member in self.place.members:
            member.kill()

    def rehearse(self, scenario: Scenario) -> bool:
        """Carry out one scenario; returns whether it went through."""
        self._kept(scenario.name).mkdir(mode=0o700)
        return super().rehearse(scenario)

    def _kept(self, scenario: str) -> Path:
        return self.place.root / f"kept-{scenario}"

    def world(self) -> Mapping[str, Any]:
        """Return what templates are filled with."""
        kept = self._kept(self._scenario)
        known = {
            **{letter: Facts(member) for letter, member in self._by_letter.items()},
            "secrets": self.place.root / "secrets",
            "kept": kept,
        }
        return World(
            known,
            {
                "archive": lambda: _archive(kept),
                "cluster": lambda: self._identity()["cluster"],
                "fingerprint": lambda: self._identity()["fingerprint"],
            },
        )

    def _identity(self) -> dict[str, str]:
        """Ask a member that runs whose cluster it is in."""
        member = next(each for each in self.place.members if each.running() is not None)
        done = self.command(["lnh", "cluster", "show", "--member-dir", str(member.directory), "--json"], "")
        _check(done, 0, "")
        return dict(json.loads(done.out))

    def environment(self, through: str) -> dict[str, str]:
        """Return the environment of a command on the client machine of a member."""
        member = self._by_letter[through] if through else self.place.first
        return {**self._steps.environment, **member.variables()}

    def members(self) -> Mapping[str, str]:
        """Return the addresses of the members that are there, by name."""
        return {member.name: Facts(member).address for member in self.place.members if member.running() is not None}

    def client_words(self) -> tuple[str, str, float]:
        """Return the keyring and cluster of the client, and the seconds between two keys that it makes."""
        return _KEYRING, "", MAKES_EVERY

    def short(self, command: str) -> str:
        """Shorten a command that is shown."""
        return command.replace(str(self.place.root), "$D")

    def _start(self, act: acts.Start, within: float) -> None:
        self._steps.start(self._by_letter[act.member])

    def _kill(self, act: acts.Kill, within: float) -> None:
        for letter in act.members:
            self._by_letter[letter].kill()

    def _destroy(self, act: acts.Destroy, within: float) -> None:
        for letter in act.members:
            self._by_letter[letter].kill()
        if act.keeps:
            shutil.copytree(self._by_letter[act.keeps].directory / _HSM_STATE, self._kept(self._scenario) / "hsm")
        for letter in act.members:
            shutil.rmtree(self._by_letter[letter].directory)

    def _put_back(self, act: acts.PutBack, within: float) -> None:
        there = self._by_letter[act.member].directory / _HSM_STATE
        shutil.copytree(self._kept(self._scenario) / "hsm", there, dirs_exist_ok=True)

    def _lose_secret(self, act: acts.LoseSecret, within: float) -> None:
        self.place.secret(act.name).write_text(f"{secrets.token_urlsafe(_SECRET_BYTES)}\n")

    def _wire(self, act: acts.Wire, within: float) -> None:
        if act.proxied:
            self._wires = Wires(self.place.root)
            self._list(self._wires.bases, within)
            return
        self._list({member.name: int(Facts(member).port) for member in self.place.members}, within)
        self._joined().kill()
        self._wires = None

    def _list(self, ports: Mapping[str, int], within: float) -> None:
        """Have the cluster list the members under these ports."""
        for name, port in ports.items():
            words = ["lnh", "member", "set", name, "--address", f"127.0.0.1:{port}", "--timeout", "60"]
            _check(self.command(words, ""), 0, "")
        for letter in self._by_letter:
            self._see(acts.See(dict.fromkeys(ports, "read-write"), letter), within)

    def _joined(self) -> Wires:
        assert self._wires is not None, "the members were wired before"
        return self._wires

    def _cut(self, act: acts.Cut, within: float) -> None:
        self._joined().tell(f"isolate {self._by_letter[act.member].name}")

    def _heal(self, _: acts.Heal, within: float) -> None:
        self._joined().tell("heal")


class OnCluster(Rehearsal):
    """On a cluster that serves, which this machine is registered with.

    Args:
        cluster: its index or label.
        keyring: the one in which the client works; it destroys what it made.
        root: a directory for files of the drill.
        say: is told what is done.

    Attributes:
        primary: the primary's name at first; "" where the member that answers does not know one.

    Raises StepFailed when the cluster does not say who its members are.
    """

    def __init__(self, cluster: str, keyring: str, root: Path, say: Say) -> None:
        super().__init__(root, say)
        self.where = f"cluster {cluster}"
        self._cluster = cluster
        self._keyring = keyring
        views = self._look()
        self._addresses = {view["name"]: view["address"] for view in views}
        self.primary = _primary(views)

    def _look(self) -> list[dict[str, Any]]:
        done = self.command(["lnh", "member", "list", "--json"], "")
        _check(done, 0, "")
        return list(json.loads(done.out))

    def set_up(self) -> None:
        """Do nothing: the cluster is there."""

    def end(self) -> None:
        """End the client; raises StepFailed when another member is primary than before."""
        super().end()
        if (now := _primary(self._look())) != self.primary:
            was = self.primary
            raise StepFailed(f"the primary is {now or 'not known'}, and was {was}: lnh member promote {was}")

    def members(self) -> Mapping[str, str]:
        """Return the addresses of the members, by name."""
        return self._addresses

    def world(self) -> Mapping[str, Any]:
        """Return what templates are filled with."""
        return World({}, {"archive": self._newest})

    def _newest(self) -> SimpleNamespace:
        done = self.command(["lnh", "backup", "list", "--json"], "")
        _check(done, 0, "")
        return SimpleNamespace(name=max(json.loads(done.out), key=lambda each: each["created_at"])["name"])

    def environment(self, through: str) -> dict[str, str]:
        """Return the environment of every command: this machine's."""
        return {**os.environ, "LNH_CLUSTER": self._cluster}

    def client_words(self) -> tuple[str, str, float]:
        """Return the keyring and cluster of the client, and the seconds between two keys that it makes."""
        return self._keyring, self._cluster, _GENTLY

    def _end_client(self) -> None:
        """Have the client destroy what it made, too."""
        if self._client is not None:
            try:
                problem = self._ask("clean", What.CLEANED, acts.SECONDS).problem
            except StepFailed as error:
                problem = str(error)
            if problem:
                self._say(f"  what the client made is still there, with a label drill-...: {problem}")
        super()._end_client()


def _primary(views: Sequence[Mapping[str, Any]]) -> str:
    return next((view["name"] for view in views if view["role"] == "primary"), "")


def _archive(directory: Path) -> Path:
    found = list(directory.glob("*.lnhb"))
    if len(found) != 1:
        raise StepFailed(f"{len(found)} archives in {directory}, not one")
    return found[0]


def _check(done: Done, code: int, says: str) -> None:
    said = (done.err + done.out).strip()
    if done.code != code:
        raise StepFailed(f"ended with {done.code}, not {code}: {said}")
    if says not in said:
        raise StepFailed(f"said nothing of {says!r}: {said}")
