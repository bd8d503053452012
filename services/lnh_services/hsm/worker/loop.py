"""The hsm worker process: sockets and time around the pure `WorkerCore`.

One thread, one loop: drain what is ready, let each request go as far as it can, send its questions, poll. The store's
words are read before the clients', so that an invalidation overtakes any use.

A request that another member forwarded is served under a read-write lease, which lasts from its beginning to its
answer, or not at all: then an empty entry says that nothing was done, and it is done elsewhere. A write that was made
meanwhile acts once all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import signal
import sys
import time
from typing import Any, Final

import zmq

from lnh_common import limits, timeline
from lnh_common.bus import quick
from lnh_common.bus.dealer import Dealer
from lnh_common.errors import (
    Busy,
    DeadlineExceeded,
    LnhError,
    MalformedMessage,
    MemberExpelled,
    NoCluster,
    NotActivated,
)
from lnh_common.events import Log
from lnh_common.messages import balancer, hsm, store
from lnh_common.messages.base import Message, Operation
from lnh_common.wire import bundles, codec
from lnh_common.wire import frames as wire
from lnh_common.wire.bundles import PING_TAG, Bundle, Entry, is_forwarded
from lnh_common.wire.frames import Header, Kind
from lnh_services.hsm.crypto.process_hardening import harden
from lnh_services.hsm.effects import Ask, Deadline, Peer, Steps, Turn, Work
from lnh_services.hsm.worker import sweeping, warming
from lnh_services.hsm.worker.background import SlowWork
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.handlers.session import check_token
from lnh_services.hsm.worker.handlers.table import SERVED
from lnh_services.hsm.worker.passwords import merge
from lnh_services.hsm.worker.tasks import Task, Waiting, WayBack
from lnh_services.hsm.worker.timeline import points
from lnh_services.paths import MemberDirectory
from lnh_services.serving import EXIT_OK, open_member, spare_collections

log = Log("hsm.worker")

_BURST: Final = 64  # messages taken from one socket before the others are looked at
_ATTACH_EVERY: Final = limits.WORKER_LEASE_MS / 2000  # seconds between two leases while requests come, ...
_ATTACH_IDLE: Final = 0.7 * limits.WORKER_LEASE_MS / 1000  # ... and while none does
_SECRETS_EVERY: Final = 5.0
_USES_EVERY: Final = 60.0
_MERGE_WITHIN: Final = 60.0
_STOP_WITHIN: Final = 2.0
_UNSENT_RETRY: Final = 0.05
_AUDITS: Final = 256  # requests whose acts are recorded together, at most
_COMMITS_BYTES: Final = 256 * limits.KIB  # of changes that are sent together; a commit that is larger goes alone
_STINT: Final = 0.05  # seconds that keys are used for, about, before a lease, and each step of a login, has its turn
_HOLD: Final = 0.004  # seconds an answer waits at most for others to travel with
# Seconds after which an unanswered ask is sent again: its peer was started anew. All of them may be.
_AGAIN_AFTER: Final[dict[Peer, float]] = {
    Peer.STORE: 1.0,
    Peer.CORE: 2.0,
    Peer.ARGON2: 8.0,
    Peer.MEMBERSHIP: 2.0,
    Peer.BALANCER: 2.0,
    Peer.BACKUP: 2.0,
}


def boot_time() -> float:
    """Return the seconds since boot, also those asleep; they never go back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Worker:
    """One hsm worker.

    Args:
        number: from 0; names its socket.
    """

    def __init__(self, directory: MemberDirectory, number: int) -> None:
        self.number = number
        self.core = WorkerCore(SERVED, check_token, time.time, boot_time)
        self.core.number = number
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
        self._front = self._context.socket(zmq.ROUTER)
        self._front.linger = 500
        self._front.router_mandatory = True
        self._front.sndhwm = self._front.rcvhwm = limits.HIGH_WATER_MARK
        self._front.maxmsgsize = 2 * limits.BODY_BYTES
        self._addresses = {
            Peer.STORE: directory.store_for_hsm,
            Peer.CORE: directory.hsm_core,
            Peer.ARGON2: directory.argon2,
            Peer.MEMBERSHIP: directory.membership_for_hsm,
            Peer.BALANCER: directory.balancer_status,
            Peer.BACKUP: directory.backup_for_hsm,
        }
        self._poller = zmq.Poller()
        self._poller.register(self._front, zmq.POLLIN)
        # The others are connected when they are first asked: each socket makes every poll slower.
        self._peers: dict[Peer, Dealer] = {}
        for peer in (Peer.STORE, Peer.CORE):
            self._connect(peer)
        self._address = directory.worker_address(number)
        self._waiting: dict[int, Waiting] = {}
        self._answers: dict[bytes, Bundle] = {}  # to be sent, by balancer
        self._audits: list[tuple[Task, hsm.AuditEntry]] = []  # to be sent, as one
        self._commits: list[tuple[Task, store.Commit]] = []  # likewise
        self._commits_bytes = 0
        self._slow: SlowWork[Task] = SlowWork()
        self._ids = itertools.count(1)
        self._left: list[tuple[bytes, Entry]] = []  # of what was received, when a stint was over
        self._stopping = False
        self._due = self._next_attach = self._next_secrets = 0.0
        self._seen = 0  # requests that were served when the lease was asked for last
        self._store = b""  # the incarnation of the store that answered last
        self._next_uses = boot_time() + _USES_EVERY
        self._chance: Final = random.SystemRandom()
        self._next_sweep = boot_time() + sweeping.EVERY * self._chance.random()

    def _connect(self, peer: Peer) -> Dealer:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 500
        socket.sndhwm = socket.rcvhwm = limits.HIGH_WATER_MARK
        socket.reconnect_ivl = 20
        socket.reconnect_ivl_max = 200
        # What it answered before it went still counts. Its monitor is looked at when it is asked something.
        dealer = Dealer(socket, self._addresses[peer], lambda _: self._drain_peer(peer, socket))
        self._peers[peer] = dealer
        self._poller.register(socket, zmq.POLLIN)
        return dealer

    # --- the loop

    def run(self) -> None:
        """Serve until told to stop; then finish what was begun, for a bounded time."""
        warming.warm(SERVED.values())
        while self.core.identity is None and not self._stopping:
            self._poll()  # without secrets it could only refuse, so nobody reaches it before
        self._front.bind(self._address)
        log.info("serving", number=self.number)
        spare_collections()
        while not self._stopping:
            self._poll()
        ends = boot_time() + _STOP_WITHIN
        self._poller.unregister(self._front)
        while (self._waiting or self._slow or self._left) and boot_time() < ends:
            self._poll()
        self.close()

    def stop(self) -> None:
        """Have `run` end."""
        self._stopping = True

    def close(self) -> None:
        """End at once; `run` does so in the end."""
        self.core.drop_everything()
        self._front.close()
        for dealer in self._peers.values():
            dealer.close()
        self._context.term()

    def _poll(self) -> None:
        now = boot_time()
        self._due = self._run_timers(now)
        self._flush()
        ready = dict(self._poller.poll(0 if self._left else max(1, int((self._due - now) * 1000) + 1)))
        if self._left:
            ready[self._front] = zmq.POLLIN
        if self._slow.descriptor in ready:
            self._drain_slow()
        while ready:
            for peer, dealer in list(self._peers.items()):
                if dealer.socket in ready:
                    self._drain_peer(peer, dealer.socket)
            self._flush()
            if self._front not in ready or not self._drain_front():
                return

    def _drain_peer(self, peer: Peer, socket: zmq.Socket[bytes]) -> None:
        while quick.is_ready(socket):
            self._answered(peer, quick.receive(socket))

    def _drain_front(self) -> bool:
        """Serve requests that are ready; tells whether there may be more and there is time for them."""
        for _ in range(_BURST):
            asked = self._left or self._receive()
            if not asked:
                return False
            is_all = len(asked) < bundles.ENTRIES
            self._serve(asked)
            self._flush()
            for peer, dealer in list(self._peers.items()):
                if self._waiting or peer is Peer.STORE:
                    self._drain_peer(peer, dealer.socket)
            if boot_time() >= self._due:
                return False  # there is always more under load, and the lease is to be renewed
            if is_all and not self._left:
                return False  # the next poll says whether there is more by now
        return not self._stopping

    def _receive(self) -> list[tuple[bytes, Entry]]:
        """Return the requests that are there, about a bundle of them: the more at a time, the quicker each."""
        asked: list[tuple[bytes, Entry]] = []
        while len(asked) < bundles.ENTRIES and quick.is_ready(self._front):
            balancer_id, *frames = quick.receive(self._front)
            try:
                asked += [(balancer_id, entry) for entry in bundles.unpack(frames)]
            except MalformedMessage as error:
                log.failure("the balancer broke the contract of frames", error=str(error))
        return asked

    # --- requests

    def _serve(self, asked: list[tuple[bytes, Entry]]) -> None:
        """Serve turn by turn the requests that need not wait; each of the others goes its own way once it waits.

        Requests that are left after a stint are `_left`, to be begun anew: what is stored may change meanwhile.
        """
        self._left = []
        begun: list[tuple[Task, bytes, Entry]] = []
        for balancer_id, entry in asked:
            task = self._accept(balancer_id, entry)
            if task is not None and self._go_on_until(Turn.USE, task):
                begun.append((task, balancer_id, entry))
        done: list[Task] = []
        began = held = boot_time()
        for number, (task, balancer_id, entry) in enumerate(begun, 1):
            if self._use(task, balancer_id, entry):
                done.append(task)
            now = boot_time()
            if now - held > _HOLD:
                self._answer(done)
                self._flush()
                done, held = [], boot_time()
            if now - began > _STINT:
                for left, *_ in begun[number:]:
                    left.steps.close()
                self._left = [(to, each) for _, to, each in begun[number:]]
                break
        self._answer(done)

    def _use(self, task: Task, balancer_id: bytes, entry: Entry) -> bool:
        """Have a request use its keys, one by one; tells whether its answer is to be sealed now.

        The lease may have ended while others were served: then it is begun anew.
        """
        while self.core.is_leased():
            turn = self._step(task, None)
            if turn is not Turn.USE:
                return turn is Turn.SEAL
        task.steps.close()
        again = self._accept(balancer_id, entry)
        if again is not None:
            self._advance(again, None)
        return False

    def _answer(self, done: list[Task]) -> None:
        for task in done:
            self._step(task, None)

    def _go_on_until(self, turn: Turn, task: Task) -> bool:
        """Begin a request; tells whether it came to this turn without having to wait, and not to another one."""
        came_to = self._step(task, None)
        if came_to is not None and came_to is not turn:
            self._advance(task, None)
        return came_to is turn

    def _accept(self, balancer_id: bytes, entry: Entry) -> Task | None:
        """Make the task of an entry, to be begun; None for an entry that is answered at once, or not at all."""
        way_back = (balancer_id, entry.tag)
        forwarded = is_forwarded(entry.tag)
        if forwarded and not self.core.is_read_write():
            self._refuse(way_back)
            return None
        frames = [entry.header, entry.token, entry.body]
        try:
            wire.check_frames(frames)
            header = Header.parse(entry.header)
            if header.kind is not Kind.REQUEST:
                raise MalformedMessage("not a request")
        except LnhError as error:
            # Who sent this is no balancer of ours, or a newer one; without a header there is nothing to answer.
            log.warning("message refused", error=str(error))
            return None
        if entry.tag == PING_TAG and header.operation == balancer.HSM_PING.name:
            load = balancer.WorkerLoad(served=self.core.operations, cached_keys=len(self.core.caches.keys))
            self._send(way_back, [header.answer(Kind.REPLY).pack(), b"", codec.encode(load)])
            return None
        lapses = self.core.lapses if forwarded else None
        deadline = Deadline(boot_time() + header.deadline_ms / 1000)
        steps = self.core.serve(header, entry.token, entry.body, deadline, forwarded=forwarded)
        return Task(steps, way_back, deadline, lapses, header)

    def _advance(self, task: Task, answer: Any) -> None:
        """Let a request go on with an answer, a result or an exception, until it asks again or is done."""
        while self._step(task, answer) is not None:
            answer = None

    def _step(self, task: Task, answer: Any) -> Turn | None:
        """Let a request go on as `_advance` does, but no further than its next turn, which is returned."""
        try:
            asked = task.steps.throw(answer) if isinstance(answer, Exception) else task.steps.send(answer)
        except StopIteration as done:
            if task.way_back is None:
                return None
            if task.lapses is None or self.core.was_read_write_since(task.lapses):
                self._send(task.way_back, done.value)
            else:
                self._refuse(task.way_back)
            return None
        except LnhError as error:  # only the worker's own tasks raise; a request answers
            log.warning("worker task failed", error=str(error))
            return None
        if isinstance(asked, Turn):
            return asked
        if task.unasked is not None and len(self._waiting) >= limits.REQUESTS_IN_FLIGHT:
            self._turn_away(task, task.unasked)
            return None
        task.unasked = None
        if isinstance(asked, Work):
            self._begin(task, asked)
        elif asked.waits:
            self._ask(task, asked)
        else:
            self._cast(asked.peer, asked.operation, asked.message)
            return self._step(task, None)
        return None

    def _turn_away(self, task: Task, header: Header) -> None:
        """Give up a request that would have to wait, where as many wait as may; nothing of it was done."""
        task.steps.close()
        assert task.way_back is not None, "only a request is turned away"
        if task.lapses is not None:
            self._refuse(task.way_back)
        else:
            self._send(task.way_back, wire.error_frames(header, Busy("this worker has all the work it takes")))

    def _begin(self, task: Task, asked: Work) -> None:
        """Begin slow work for a request, which goes on with the result."""
        try:
            self._slow.begin(asked.key, asked.compute, task)
        except Busy as error:
            self._advance(task, error)
            return
        # Only while there is some: what is looked at makes every poll slower.
        self._poller.register(self._slow.descriptor, zmq.POLLIN)

    def _drain_slow(self) -> None:
        for task, outcome in self._slow.take():
            self._advance(task, outcome)
        if not self._slow:
            self._poller.unregister(self._slow.descriptor)

    def _send(self, way_back: WayBack, frames: wire.Frames) -> None:
        balancer_id, tag = way_back
        header, token, body = frames
        if self._answers.setdefault(balancer_id, Bundle()).add(tag, header, token, body):
            self._flush()

    def _refuse(self, way_back: WayBack) -> None:
        """Decline another member's request."""
        _, *frames = bundles.refusal(way_back[1])
        self._send(way_back, frames)

    def _flush(self) -> None:
        if self._audits:
            self._send_audits()
        if self._commits:
            self._send_commits()
        for balancer_id, bundle in self._answers.items():
            try:
                quick.send(self._front, (balancer_id, bundle.take()))
            except zmq.ZMQError as error:
                # The balancer is gone, or takes nothing: the client tries again.
                log.warning("answers dropped", error=str(error))
        self._answers.clear()

    # --- asking

    def _ask(self, task: Task, asked: Ask) -> None:
        if isinstance(asked.message, hsm.Audit) and len(asked.message.entries) == 1:
            self._audits.append((task, asked.message.entries[0]))
            if len(self._audits) >= _AUDITS:
                self._send_audits()
        elif isinstance(asked.message, store.Commit):
            size = _size(asked.message)
            if self._commits_bytes + size > _COMMITS_BYTES or len(self._commits) >= limits.COMMITS_TOGETHER:
                self._send_commits()
            self._commits.append((task, asked.message))
            self._commits_bytes += size
        else:
            self._ask_for([task], asked)

    def _send_audits(self) -> None:
        """Record together the acts of several requests: each waits until all of it is recorded."""
        tasks = [task for task, _ in self._audits]
        entries = tuple(entry for _, entry in self._audits)
        self._audits = []
        self._ask_for(tasks, Ask(Peer.CORE, hsm.AUDIT, hsm.Audit(entries=entries)))

    def _send_commits(self) -> None:
        """Have the store commit the changes of several requests: each has its own outcome."""
        tasks = [task for task, _ in self._commits]
        commits = [commit for _, commit in self._commits]
        self._commits, self._commits_bytes = [], 0
        if len(commits) > 1:
            self._ask_for(tasks, Ask(Peer.STORE, store.COMMIT_EACH, store.Commits.of(commits)))
        elif commits:
            self._ask_for(tasks, Ask(Peer.STORE, store.COMMIT, commits[0]))

    def _ask_for(self, tasks: list[Task], asked: Ask) -> None:
        number = next(self._ids)
        latest = max(task.deadline.at for task in tasks)
        left = max(1, min(int((latest - boot_time()) * 1000), limits.MAX_DEADLINE_MS))
        header = wire.request(asked.operation.name, number, left)
        frames = [header.pack(), b"", codec.encode(asked.message)]
        try:
            wire.check_frames(frames)
        except MalformedMessage as error:
            for task in tasks:
                self._advance(task, error)
            return
        waiting = Waiting([*tasks], asked.peer, asked.operation, frames)
        self._waiting[number] = waiting
        self._transmit(waiting)

    def _transmit(self, waiting: Waiting) -> None:
        dealer = self._peers.get(waiting.peer) or self._connect(waiting.peer)
        dealer.watch()
        sent = dealer.send(waiting.frames)
        waiting.sent_at = boot_time() if sent else None
        waiting.tries += sent

    def _answered(self, peer: Peer, frames: list[bytes]) -> None:
        waiting = None
        try:
            header = Header.parse(frames[0])
            if header.kind is Kind.CAST:
                wire.check_frames(frames)
                self._told(peer, header, frames[2])
                return
            waiting = self._waiting.pop(header.request_id, None)
            if waiting is None:
                return  # the second answer to something asked twice, or one that came too late
            answers = waiting.answers(header, frames)
        except LnhError as error:
            log.failure("malformed answer", peer=peer.value, error=str(error))
            if waiting is None:
                return
            answers = [waiting.unread(error)] * len(waiting.tasks)
        for task, each in zip(waiting.tasks, answers, strict=True):
            if task is not None:
                self._advance(task, waiting.proven(each))

    def _told(self, peer: Peer, header: Header, body: bytes) -> None:
        if peer is Peer.STORE and header.operation == store.INVALIDATE.name:
            invalidation = codec.decode_as(body, store.Invalidate)
            self.core.invalidate(invalidation)
            if invalidation.everything:
                self._next_attach = 0.0  # the lease is over, and another may be had as soon as all have said so
            # If it gets lost, the store waits for the lease to end.
            said = store.Invalidated(sequence=invalidation.sequence, worker=self.core.worker)
            self._cast(Peer.STORE, store.INVALIDATED, said)

    def _cast(self, peer: Peer, operation: Operation[Any, Any], message: Message) -> None:
        header = wire.request(operation.name, next(self._ids), 0, kind=Kind.CAST)
        self._peers[peer].send([header.pack(), b"", codec.encode(message)])

    # --- time

    def _run_timers(self, now: float) -> float:
        """Do what is due; returns when to look again."""
        if now >= self._next_attach and self.core.identity is not None:
            idle, self._seen = self.core.operations == self._seen, self.core.operations
            self._next_attach = now + (_ATTACH_IDLE if idle else _ATTACH_EVERY)
            self._start(self._attach(now), limits.WORKER_LEASE_MS / 1000)
        if now >= self._next_secrets:
            self._next_secrets = now + (_SECRETS_EVERY if self.core.identity else _UNSENT_RETRY)
            self._start(self._fetch_secrets(), 2.0)
        if now >= self._next_uses:
            self._next_uses = now + _USES_EVERY
            self._start(self._report_uses(), _USES_EVERY)
        if self.number == 0 and now >= self._next_sweep:
            self._next_sweep = now + sweeping.EVERY * (0.5 + self._chance.random())  # no two members at the same time
            if self.core.is_read_write():
                self._start(sweeping.sweep(self.core), sweeping.EVERY)
        due = min(self._next_attach if self.core.identity else now + 1, self._next_secrets, self._next_uses)
        for number, waiting in list(self._waiting.items()):
            for place, task in enumerate(waiting.tasks):
                if task is not None and task.deadline.at <= now:
                    waiting.tasks[place] = None
                    self._advance(task, waiting.too_late(now))
            left = [task.deadline.at for task in waiting.tasks if task is not None]
            if not left:
                del self._waiting[number]
                continue
            again = _UNSENT_RETRY if waiting.sent_at is None else _AGAIN_AFTER[waiting.peer]
            if (waiting.sent_at or now - again) + again <= now:
                self._transmit(waiting)
            due = min(due, now + _UNSENT_RETRY, *left)
        for task in self._slow.waiting() if self._slow else ():
            if task.deadline.at <= now:
                self._slow.give_up(task)
                self._advance(task, DeadlineExceeded("the key was not made in time, and will not be"))
            else:
                due = min(due, task.deadline.at)
        return due

    def _start(self, steps: Steps[None], seconds: float) -> None:
        self._advance(Task(steps, None, Deadline(boot_time() + seconds)), None)

    def _attach(self, now: float) -> Steps[None]:
        attached = yield Ask(Peer.STORE, store.ATTACH, store.Attach(worker=self.core.worker))
        assert isinstance(attached, store.Attached), "the loop decodes an answer as the operation's reply type"
        self.core.take_lease(now, attached)
        if self.number == 0 and self.core.owes_attempts and attached.read_write:
            self.core.owes_attempts = False
            self._start(merge(self.core), _MERGE_WITHIN)
        with contextlib.suppress(LnhError):  # who needs it asks for it again, and hears what is wrong
            yield from self.core.started()  # what every session rests on, before the first comes
        before, self._store = self._store, attached.incarnation
        if before not in (b"", attached.incarnation):
            # It was started anew, and what the one before it was asked is lost. A fresh lease does not say so: a store
            # that is about to answer would be asked twice, and then its "read-only" proves nothing.
            for waiting in self._waiting.values():
                if waiting.peer is Peer.STORE:
                    self._transmit(waiting)

    def _fetch_secrets(self) -> Steps[None]:
        with contextlib.suppress(NotActivated, NoCluster, MemberExpelled):
            yield from self.core.renew_secrets()

    def _report_uses(self) -> Steps[None]:
        entries = self.core.take_uses()
        for start in range(0, len(entries), 1024):
            yield Ask(Peer.CORE, hsm.AUDIT, hsm.Audit(entries=tuple(entries[start : start + 1024])))


def _size(commit: store.Commit) -> int:
    """Estimate how many bytes a commit has, on the way to the store."""
    return sum(len(change.head) + len(change.body) for change in commit.changes if isinstance(change, store.Put))


def main() -> int:
    """Run one worker until it is told to stop; returns the exit code."""
    hardened = harden()
    parser = argparse.ArgumentParser(prog="python -m lnh_services.hsm.worker.loop", description="One hsm worker.")
    parser.add_argument("--member-dir", required=True, metavar="DIR", help="the member's directory")
    parser.add_argument("--number", required=True, type=int, help="of this worker, from 0")
    arguments = parser.parse_args()
    member = open_member(f"hsm-worker-{arguments.number}", MemberDirectory(arguments.member_dir))
    for problem in hardened.problems:
        log.warning("not hardened", problem=problem)
    timeline.begin(member.directory.root, f"worker-{arguments.number}", points(Worker))
    worker = Worker(member.directory, arguments.number)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    worker.run()
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
