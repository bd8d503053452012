"""Moves snapshots from one store to another, in chunks that the receiver asks for.

    sender    Offer ............... Chunk 0..7 ......... Chunk 8 ... End
    receiver         Want 0 ................... Want 1 ...

`Want n` says that everything before chunk n is on the receiver's disk: the sender may be WINDOW chunks ahead of it, and
keeps those to send them again when the connection broke or something was lost. So a slow receiver slows the sender
down, and neither holds more than a window in memory. A member receives one snapshot at a time, and gets one from a
sender at a time.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from lnh_common.errors import LnhError, SealBroken
from lnh_common.events import Log
from lnh_services.store.disk.snapshots import Incoming, SnapshotGone
from lnh_services.store.disk.sqlite import Disk
from lnh_services.store.log.entries import ClusterId, Epoch, MemberId
from lnh_services.store.log.window import Base

R = TypeVar("R")

WINDOW: Final = 8  # chunks
AGAIN: Final = 1.0  # seconds without a word after which the last one is said again
PATIENCE: Final = 15.0  # ... and after which the transfer is given up

_log: Final = Log("store.transfer")


class _Said(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    session: bytes


class Offer(_Said, frozen=True, tag="offer"):
    """Offers a snapshot, for the epoch that it was asked for in."""

    epoch: Epoch


class Want(_Said, frozen=True, tag="want"):
    """Asks for more: everything before chunk `next` has arrived."""

    next: int


class Chunk(_Said, frozen=True, tag="chunk"):
    """Brings one chunk of a snapshot."""

    number: int
    data: bytes


class End(_Said, frozen=True, tag="end"):
    """Ends a snapshot of so many chunks; `hash` is the SHA-256 of all of them in a row."""

    chunks: int
    hash: bytes


class Stop(_Said, frozen=True, tag="stop"):
    """Ends a transfer: nothing more comes, or is wanted."""


Transfer = Offer | Want | Chunk | End | Stop

Say = Callable[[MemberId, Transfer], None]
Arrived = Callable[[MemberId, Epoch, Base, Incoming], None]
Damaged = Callable[[SealBroken], None]
Steps = Callable[[], Coroutine[Any, Any, None]]


@dataclass(eq=False)
class _Session:
    """One end of one transfer: its task, and the words of the other end that the task has not seen yet."""

    id: bytes
    other: MemberId
    epoch: Epoch
    words: deque[Transfer] = field(default_factory=deque)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def hear(self, word: Transfer) -> None:
        if len(self.words) < 4 * WINDOW:
            self.words.append(word)
            self.heard.set()

    async def next(self, seconds: float) -> Transfer | None:
        """Wait for the other end's next word; None when there was none for so long."""
        if not self.words:
            self.heard.clear()
            # Not asyncio.wait_for, which until Python 3.12 forgets that it was cancelled when a word comes meanwhile.
            timer = asyncio.get_running_loop().call_later(seconds, self.heard.set)
            try:
                await self.heard.wait()
            finally:
                timer.cancel()
        return self.words.popleft() if self.words else None


class Transfers:
    """All snapshots that this store sends and receives. Made and used within a running loop.

    Args:
        say: sends a word to a member; it may get lost.
        arrived: called with a snapshot that is whole and on disk; it is the callee's from then on.
        damaged: called when this store's disk turned out to be wrong.
    """

    def __init__(self, disk: Disk, say: Say, arrived: Arrived, damaged: Damaged) -> None:
        self._disk: Final = disk
        self._say: Final = say
        self._arrived: Final = arrived
        self._damaged: Final = damaged
        self._loop: Final = asyncio.get_running_loop()
        self._thread: Final = ThreadPoolExecutor(1, "store-snapshot")
        self._sending: dict[MemberId, _Session] = {}
        self._receiving: _Session | None = None
        self._tasks: Final[set[asyncio.Task[None]]] = set()  # also of sessions that were given up, until they end

    def send(self, to: MemberId, epoch: Epoch) -> None:
        """Send a member a snapshot of the applied state, unless one for this epoch is on its way."""
        running = self._sending.get(to)
        if running is not None:
            if running.epoch == epoch:
                return
            self._give_up(running)
        session = _Session(os.urandom(8), to, epoch)
        self._sending[to] = session
        self._start(session, lambda: self._send(session))

    def hear(self, cluster: ClusterId, sender: MemberId, word: Transfer) -> None:
        """Take in a member's word about a snapshot."""
        if isinstance(word, Offer):
            self._offered(cluster, sender, word)
            return
        for session in (self._sending.get(sender), self._receiving):
            if session is not None and session.id == word.session and session.other == sender:
                session.hear(word)
                return
        if not isinstance(word, Stop):
            self._say(sender, Stop(word.session))  # one end was started anew, or has what it wanted

    def _offered(self, cluster: ClusterId, sender: MemberId, offer: Offer) -> None:
        running = self._receiving
        if running is not None:
            if running.id == offer.session or running.epoch > offer.epoch:
                return
            self._give_up(running)
        session = _Session(offer.session, sender, offer.epoch)
        self._receiving = session
        self._start(session, lambda: self._receive(cluster, session))

    def stop(self) -> None:
        """Give up every transfer; received files are removed."""
        for session in (*self._sending.values(), self._receiving):
            if session is not None:
                self._give_up(session)

    async def close(self) -> None:
        """Give up every transfer, and wait until nothing uses the database any more."""
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=True)

    def _start(self, session: _Session, steps: Steps) -> None:
        session.task = task = self._loop.create_task(self._run(session, steps))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _give_up(self, session: _Session) -> None:
        self._forget(session)
        if session.task is not None:
            session.task.cancel()

    def _forget(self, session: _Session) -> None:
        if self._sending.get(session.other) is session:
            del self._sending[session.other]
        if self._receiving is session:
            self._receiving = None

    async def _run(self, session: _Session, steps: Steps) -> None:
        try:
            await steps()
        except (LnhError, SnapshotGone) as error:
            _log.warning("snapshot given up", peer=session.other.hex(), problem=str(error))
            self._say(session.other, Stop(session.id))
        except Exception as error:  # costs this transfer; the replica asks for another
            _log.bug("snapshot failed", error)
        finally:
            self._forget(session)

    async def _in_thread(self, work: Callable[[], R]) -> R:
        return await self._loop.run_in_executor(self._thread, work)

    # The sender

    async def _send(self, session: _Session) -> None:
        try:
            outgoing = self._disk.send()
        except SealBroken as error:
            self._damaged(error)
            raise
        try:
            ahead: deque[Chunk] = deque()  # sent, and not yet known to have arrived
            acknowledged = produced = 0
            end: End | None = None
            silent = 0.0
            self._say(session.other, Offer(session.id, session.epoch))
            while silent < PATIENCE:
                word = await session.next(AGAIN)
                if word is None:
                    silent += AGAIN
                    last = end if end is not None and not ahead else None
                    self._say(session.other, last or Offer(session.id, session.epoch))
                    continue
                if isinstance(word, Stop):
                    return
                if not isinstance(word, Want) or not acknowledged <= word.next <= produced:
                    continue
                silent = 0.0
                if word.next == acknowledged:
                    for chunk in ahead:  # it says so again: something was lost
                        self._say(session.other, chunk)
                acknowledged = word.next
                while ahead and ahead[0].number < acknowledged:
                    ahead.popleft()
                while end is None and len(ahead) < WINDOW:
                    data = await self._in_thread(outgoing.next)
                    if data is None:
                        end = End(session.id, produced, outgoing.hash)
                    else:
                        ahead.append(Chunk(session.id, produced, data))
                        produced += 1
                        self._say(session.other, ahead[-1])
                if end is not None:
                    self._say(session.other, end)
            _log.warning("snapshot given up", peer=session.other.hex(), problem="the receiver says nothing more")
        finally:
            self._disk.release(outgoing)

    # The receiver

    async def _receive(self, cluster: ClusterId, session: _Session) -> None:
        incoming = self._disk.receive(cluster)
        arrived = False
        try:
            chunks, silent = 0, 0.0
            self._say(session.other, Want(session.id, 0))
            while silent < PATIENCE:
                word = await session.next(AGAIN)
                if word is None:
                    silent += AGAIN
                    self._say(session.other, Want(session.id, chunks))
                elif isinstance(word, Stop):
                    return
                elif isinstance(word, Chunk) and word.number == chunks:
                    silent = 0.0
                    await self._take(incoming, word.data)
                    chunks += 1
                    self._say(session.other, Want(session.id, chunks))
                elif isinstance(word, End) and word.chunks == chunks:
                    base = await self._finish(incoming, word.hash)
                    arrived = True
                    self._say(session.other, Stop(session.id))
                    self._arrived(session.other, session.epoch, base, incoming)
                    return
            _log.warning("snapshot given up", peer=session.other.hex(), problem="the sender says nothing more")
        finally:
            if not arrived:
                await asyncio.shield(self._in_thread(incoming.discard))

    async def _take(self, incoming: Incoming, data: bytes) -> None:
        await asyncio.shield(self._in_thread(lambda: incoming.take(data)))

    async def _finish(self, incoming: Incoming, hash_: bytes) -> Base:
        return await asyncio.shield(self._in_thread(lambda: incoming.finish(hash_)))
