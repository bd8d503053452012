"""Plays a scenario of a few replicas, one command a line, and tells what each of them does: a transcript to read.

A transcript (`transcripts/*.txt`) has a command after `> `, and below it what is expected to happen. Time passes with
`wait` alone, messages travel with `deliver`, `settle` and `wait`, and every disk and cache does at once what it is
asked, unless it is held. So what happens follows from the file alone.

    > cluster a b c          a founds a cluster; b and c join it, and are in sync
    > write b x              a client of b writes x
    > promote a b            an administrator asks a to make b primary; likewise remove a c, take-over b without a
    > deliver                what is on the wire arrives, and not what that leads to
    > settle                 ... and what that leads to, until nothing is on the wire
    > wait 0.5               seconds; what is only a sign of life is not told
    > cut a b, heal a b      nothing goes between the two, either way
    > lose b a               what is on the wire from b to a is lost
    > hold disk b, release disk b
    > kill b, start b
    > keep 4                 a log of so many entries is kept
    > state

`cd tests && ../.venv/bin/python -m simulation.transcript` writes the expected lines of all transcripts anew; look at the difference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from lnh_common import limits
from lnh_common.errors import LnhError
from lnh_common.messages.store import Commit, Key, MemberInfo, Put
from lnh_services.store.log.entries import ClusterId, Entry, MemberId, Members, Milliseconds, Open, SetChange, Write
from lnh_services.store.machine.apply import Applied
from lnh_services.store.replication import messages as say
from lnh_services.store.replication.messages import Effect, Instant, Message, RequestId, Seconds
from lnh_services.store.replication.primary import LOOKS_MS
from lnh_services.store.replication.replica import Replica
from simulation.disk import Disk, Snapshot

CLUSTER: Final = ClusterId(b"C" * 16)
TRANSCRIPTS: Final = Path(__file__).parent / "transcripts"
FORMING: Final = 20.0  # virtual seconds in which a cluster that nothing disturbs forms, by far
_SIGNS_OF_LIFE: Final = (say.Ping, say.Pong)


@dataclass
class Machine:
    """One member: its replica while it runs, its disk, and the step that a held disk has not done."""

    name: str
    replica: Replica
    disk: Disk = field(default_factory=Disk)
    lives: int = 1
    runs: bool = True
    held: bool = False
    on_disk: say.Persist | say.Install | say.Erase | None = None
    told: tuple[Any, ...] = ()  # what was said of it last

    @property
    def id(self) -> MemberId:
        return MemberId(self.name.encode() * 16)

    @property
    def info(self) -> MemberInfo:
        return MemberInfo(id=self.id, name=self.name, host=self.name, port=4000, key=bytes(32))


class Play:
    """The machines, the wire between them, and the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.machines: dict[str, Machine] = {}
        self.wire: deque[tuple[str, str, Message | int]] = deque()
        self.cuts: set[tuple[str, str]] = set()
        self.snapshots: dict[int, tuple[say.SendSnapshot, Snapshot]] = {}
        self.requests: dict[RequestId, str] = {}
        self.lines: list[str] = []
        self._acknowledged: dict[tuple[str, str], say.Appended] = {}
        self._sequence = 0
        self._patches: Final = ExitStack()

    def close(self) -> None:
        self._patches.close()

    def do(self, command: str) -> list[str]:
        """Carry out one line; returns what happened."""
        self.lines = []
        words = command.split()
        act: Callable[..., None] = getattr(self, f"do_{words[0].replace('-', '_')}")
        act(*words[1:])
        return self.lines

    # --- commands

    def do_cluster(self, first: str, *others: str) -> None:
        self._start(first)
        self._run(
            first, lambda replica, at: replica.create(at, self._request("the cluster"), CLUSTER, self._info(first))
        )
        for other in others:
            self._start(other)
            members = tuple(self._info(name) for name in self.machines)
            request = self._request(f"the beginning of {other}")
            self._run(
                other,
                lambda replica, at, m=members, r=request, o=other: replica.adopt(at, r, CLUSTER, self._info(o), m),
            )
            self._order(first, say.SetMember(self._info(other)), f"{other} joins")
        until = self.now + FORMING
        while not self._is_formed() and self.now < until:
            self.do_wait("0.05")
        assert self._is_formed(), "no cluster formed"
        self.do_wait("0.5")
        self.lines = []
        self.do_state()

    def do_write(self, at: str, item: str) -> None:
        self._sequence += 1
        put = Put(key=Key(table="t", scope=b"s", id=item.encode()), expected=0, head=b"")
        commit = Commit(
            client=b"c" * 16, session=b"s" * 16, sequence=self._sequence, issued_at=self._at().utc, changes=(put,)
        )
        self._order(at, commit, f"write {item}")

    def do_promote(self, at: str, member: str) -> None:
        self._order(at, say.Promote(self.machines[member].id), f"promote {member}")

    def do_remove(self, at: str, member: str) -> None:
        self._order(at, say.RemoveMember(self.machines[member].id), f"remove {member}")

    def do_take_over(self, at: str, without: str, *lost: str) -> None:
        assert without == "without"
        ids = frozenset(self.machines[name].id for name in lost)
        request = self._request("take-over")
        self._run(at, lambda replica, now: replica.take_over(now, request, ids, force=False))

    def do_deliver(self) -> None:
        for _ in range(len(self.wire)):
            self._deliver_one()

    def do_settle(self) -> None:
        while self.wire:
            self._deliver_one()

    def do_wait(self, seconds: str) -> None:
        end = self.now + float(seconds)
        while self.now < end - 1e-9:
            self.now = round(self.now + LOOKS_MS / 1000, 6)
            for machine in self.machines.values():
                self._tell_changes(machine)  # a lease that has ended by now
            for name in self.machines:
                self._run(name, lambda replica, at: replica.tick(at))
            self.do_settle()

    def do_cut(self, one: str, other: str) -> None:
        self.cuts |= {(one, other), (other, one)}

    def do_heal(self, one: str, other: str) -> None:
        self.cuts -= {(one, other), (other, one)}

    def do_lose(self, sender: str, to: str) -> None:
        for item in [item for item in self.wire if item[:2] == (sender, to)]:
            self.wire.remove(item)
            self._say(f"lost: {sender} -> {to}: {_shown(item[2])}")

    def do_hold(self, what: str, name: str) -> None:
        assert what == "disk"
        self.machines[name].held = True

    def do_release(self, what: str, name: str) -> None:
        assert what == "disk"
        self.machines[name].held = False
        self._disk_works(name)

    def do_kill(self, name: str) -> None:
        machine = self.machines[name]
        machine.runs, machine.on_disk = False, None
        self.wire = deque(item for item in self.wire if name not in item[:2])

    def do_start(self, name: str) -> None:
        machine = self.machines[name]
        machine.lives += 1
        machine.replica, machine.runs = Replica(f"{name}{machine.lives}".encode().ljust(8)), True
        found = machine.disk.seen.load()
        assert found is not None, "what was killed had a cluster"
        self._run(name, lambda replica, at: replica.recover(at, found))

    def do_keep(self, entries: str) -> None:
        self._patches.enter_context(patch.object(limits, "LOG_ENTRIES", int(entries)))

    def do_state(self) -> None:
        for name, machine in self.machines.items():
            if not machine.runs:
                self._say(f"{name}: does not run")
                continue
            replica = machine.replica
            log = f"log {replica.history.first_index}-{replica.history.last.index}, committed {replica.committed}"
            self._say(f"{name}: {self._standing(machine)}; {log}")

    # --- events

    def _start(self, name: str) -> None:
        self.machines[name] = Machine(name, Replica(f"{name}1".encode().ljust(8)))

    def _info(self, name: str) -> MemberInfo:
        return self.machines[name].info

    def _at(self) -> Instant:
        return Instant(Seconds(1000 + self.now), Milliseconds(1_000_000 + round(1000 * self.now)))

    def _request(self, what: str) -> RequestId:
        number = RequestId(len(self.requests) + 1)
        self.requests[number] = what
        return number

    def _order(self, at: str, order: say.Order, what: str) -> None:
        number = self._request(what)
        self._run(at, lambda replica, now: [*replica.submit(now, number, order), *replica.flush(now)])

    def _run(self, name: str, event: Callable[..., list[Effect]]) -> None:
        machine = self.machines[name]
        if not machine.runs:
            return
        for effect in event(machine.replica, self._at()):
            self._effect(machine, effect)
        self._tell_changes(machine)

    def _effect(self, machine: Machine, effect: Effect) -> None:
        name = machine.name
        match effect:
            case say.Send():
                self._put_on_the_wire(name, self._name(effect.to), effect.message)
            case say.Persist() | say.Install() | say.Erase():
                assert machine.on_disk is None, "two steps with the disk at once"
                machine.on_disk = effect
                if told := _step(effect):
                    self._say(f"{name}: to disk: {told}")
                if not machine.held:
                    self._disk_works(name)
            case say.Invalidate():
                if effect.keys:
                    self._say(f"{name}: its caches drop {', '.join(sorted(key.id.decode() for key in effect.keys))}")
                self._run(name, lambda replica, at: replica.invalidated(at, effect.number))
            case say.Reply():
                outcome = effect.answer if isinstance(effect.answer, LnhError) else f"entry {effect.answer}"
                kind = f"{type(outcome).__name__}: " if isinstance(outcome, LnhError) else ""
                self._say(f"{name}: answers {self.requests[effect.request]}: {kind}{outcome}")
            case say.SendSnapshot():
                number = len(self.snapshots) + 1
                self.snapshots[number] = (effect, machine.disk.seen.snapshot())
                self._put_on_the_wire(name, self._name(effect.to), number)
            case say.Say():
                self._say(f"{name}: logs {effect.event}")
            case say.Serve():
                raise AssertionError("nobody reads here")

    def _disk_works(self, name: str) -> None:
        machine = self.machines[name]
        step, machine.on_disk = machine.on_disk, None
        if step is None:
            return
        snapshots = {number: snapshot for number, (_, snapshot) in self.snapshots.items()}
        answers = machine.disk.carry_out(step, snapshots, _unwatched)
        self._run(name, lambda replica, at: replica.persisted(at, step.number, answers))

    def _put_on_the_wire(self, sender: str, to: str, message: Message | int) -> None:
        if (sender, to) in self.cuts:
            return
        self.wire.append((sender, to, message))

    def _deliver_one(self) -> None:
        sender, to, message = self.wire.popleft()
        machine = self.machines[to]
        if not machine.runs or (sender, to) in self.cuts:
            return
        if told := self._told(sender, to, message):
            self._say(f"{sender} -> {to}: {told}")
        if isinstance(message, int):
            effect, snapshot = self.snapshots[message]
            sent_by = self.machines[sender].id
            self._run(to, lambda replica, at: replica.offered(at, sent_by, message, effect.epoch, snapshot.base))
        else:
            self._run(to, lambda replica, at: replica.receive(at, self.machines[sender].id, message))

    # --- telling

    def _say(self, line: str) -> None:
        self.lines.append(line)

    def _name(self, member: MemberId) -> str:
        return member[:1].decode()

    def _told(self, sender: str, to: str, message: Message | int) -> str:
        """A message in words; nothing for one that says nothing new."""
        if isinstance(message, int):
            return f"snapshot at entry {self.snapshots[message][1].base.position.index}"
        if isinstance(message, say.Appended):
            before, self._acknowledged[sender, to] = self._acknowledged.get((sender, to)), message
            return "" if message == before else _shown(message)
        if isinstance(message, _SIGNS_OF_LIFE) or (isinstance(message, say.Append) and not message.entries):
            return ""
        return _shown(message)

    def _is_formed(self) -> bool:
        ids = {machine.id for machine in self.machines.values()}
        return all(
            set(machine.replica.configuration.in_sync) == ids and machine.replica.is_current(self._at())
            for machine in self.machines.values()
        )

    def _standing(self, machine: Machine) -> str:
        replica = machine.replica
        epoch = f"{replica.promised.term}.{self._name(replica.promised.candidate)}"
        current = "read-write" if replica.is_current(self._at()) else "read-only"
        in_sync = "".join(self._name(member) for member in replica.configuration.in_sync)
        return f"{replica.phase.value} in epoch {epoch}, {current}, set {in_sync}"

    def _tell_changes(self, machine: Machine) -> None:
        if not machine.runs:
            return
        replica = machine.replica
        committed = replica.committed
        before, machine.told = machine.told, (self._standing(machine), committed)
        if not before:
            return
        if before[1] != committed:
            self._say(f"{machine.name}: committed {committed}")
        if before[0] != machine.told[0]:
            self._say(f"{machine.name}: is now {machine.told[0]}")


def _unwatched(_: Entry, __: Applied) -> None:
    """Nothing looks at what a disk applies."""


def _entry(entry: Entry) -> str:
    match entry.content():
        case Write() as write:
            keys = (change.key for change in write.commit.changes if isinstance(change, Put))
            return f"{entry.index} write {', '.join(key.id.decode() for key in keys)}"
        case Open() as opened:
            return f"{entry.index} open, set {_names(opened.in_sync)}"
        case SetChange() as change:
            return f"{entry.index} set {_names(change.in_sync)}"
        case Members() as members:
            return f"{entry.index} members {_names(MemberId(info.id) for info in members.members)}"
        case other:
            return f"{entry.index} {type(other).__name__}"


def _entries(entries: tuple[Entry, ...]) -> str:
    return "; ".join(_entry(entry) for entry in entries)


def _names(members: Any) -> str:
    return "".join(member[:1].decode() for member in members)


def _step(step: say.Persist | say.Install | say.Erase) -> str:
    if isinstance(step, say.Install):
        return f"the snapshot at entry {step.base.position.index}"
    if isinstance(step, say.Erase):
        return "nothing any more"
    parts = [f"promise {step.promised.term}.{_names([step.promised.candidate])}"] if step.promised is not None else []
    parts += [f"drop {_entries(step.dropped)}"] if step.dropped else []
    parts += [_entries(step.entries)] if step.entries else []
    parts += [f"keep {_entry(step.kept)}"] if step.kept is not None else []
    parts += ["that it was removed"] if step.expelled is not None else []
    return "; ".join(parts)


def _shown(message: Message | int) -> str:
    match message:
        case say.Append() | say.Fetched():
            return f"{type(message).__name__} {_entries(message.entries)} (after {message.previous.index})"
        case say.Appended():
            return f"Appended {message.index}, matched {message.matched}"
        case say.Behind():
            return f"Behind, of {message.outline[0].index}{', diverged' if message.diverged else ''}"
        case say.Forward():
            order = message.what()
            return f"Forward of {type(order).__name__}"
        case say.Forwarded():
            return f"Forwarded {'an error' if message.error else f'entry {message.index}'}"
        case say.Prepare() | say.Kept():
            return f"{type(message).__name__} {message.epoch.term}.{_names([message.epoch.candidate])}"
        case say.Keep():
            return f"Keep {_entry(message.open)}"
        case say.Report():
            return f"Report of {message.last.index}, committed {message.committed.index}"
        case say.Go():
            return f"Go, log ends at {message.last.index}"
        case _:
            return type(message).__name__


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """The parts of a transcript: a comment or command, and the lines below it."""
    head, below = "", list[str]()
    for line in text.splitlines():
        if line.startswith(("> ", "#")):
            if head:
                yield head, below
            head, below = line, []
        elif line.strip():
            below.append(line)
    if head:
        yield head, below


def played(text: str) -> str:
    """The transcript, with what happens in place of what is expected."""
    play, lines = Play(), list[str]()
    try:
        for head, _ in blocks(text):
            # An empty line stands below the title, and below what happened.
            if lines and (len(lines) == 1 or not lines[-1].startswith(("> ", "#"))):
                lines.append("")
            lines.append(head)
            if head.startswith("> "):
                lines += play.do(head[2:])
    finally:
        play.close()
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for path in sorted(TRANSCRIPTS.glob("*.txt")):
        path.write_text(played(path.read_text()))
