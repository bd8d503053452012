"""Changes what a member has by itself, whatever its role: each change of the log tells disk, caches, reads, requests.

The theory is in `replica.py`. A role is given this, and beside it what it looks at alone: what is known, what is said,
which requests wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lnh_common.errors import LnhError, OutcomeUnknown
from lnh_common.messages.store import Key
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import Entry, Epoch, Milliseconds, Write
from lnh_services.store.machine.apply import cached, touched
from lnh_services.store.machine.restore_swap import EVERYTHING
from lnh_services.store.replication.caches import NO_ENTRY, NOTHING_BEFORE, Invalidations
from lnh_services.store.replication.durability import Durability
from lnh_services.store.replication.knowledge import Knowledge
from lnh_services.store.replication.messages import Instant
from lnh_services.store.replication.outbox import Origin, Outbox
from lnh_services.store.replication.reads import Reads
from lnh_services.store.replication.requests import Requests


class Local:
    """One member's own log, promise, disk and caches.

    Args:
        known: the log, what was promised, the members.
        disk: makes it durable.
        caches: what they are told to drop.
        reads: what waits for entries.
        requests: who waits for them.
        out: what is said.
    """

    def __init__(
        self,
        known: Knowledge,
        disk: Durability,
        caches: Invalidations,
        reads: Reads,
        requests: Requests,
        out: Outbox,
    ) -> None:
        self.known: Final = known
        self.disk: Final = disk
        self.requests: Final = requests
        self.out: Final = out
        self._caches: Final = caches
        self._reads: Final = reads

    # What stands

    @property
    def invalidated_index(self) -> int:
        """The index up to which all caches have dropped what the entries touch."""
        return self._caches.reach(self.known.history.last.index)

    @property
    def caches_known(self) -> bool:
        """Tell whether caches have dropped all that they may have held before this start, or of another log."""
        return not self._caches.is_from_the_start

    @property
    def vouched(self) -> int:
        """Return the index that this member can acknowledge: durable here, and its caches are invalidated up to it."""
        return min(self.disk.durable, self.invalidated_index)

    @property
    def settled(self) -> int:
        """Return the index up to which every entry is applied, and all caches have dropped what it touches."""
        return min(self.known.applied, self.invalidated_index)

    # The log

    def append(self, now: Instant, payload: log.Payload, origin: Origin | None = None) -> Entry:
        """Append an entry of this member's own epoch, and remember the request that waits for it."""
        known = self.known
        assert known.promised.candidate == known.member, "appending in another member's epoch"
        log_time = Milliseconds(max(known.history.last_time, now.utc))
        entry = log.make_entry(known.history.last, known.promised, log_time, payload)
        if origin is not None:
            self.requests.wait(origin, entry.index)
        self.extend((entry,))
        return entry

    def extend(self, entries: Sequence[Entry]) -> None:
        """Take entries that follow the log's end; every cache drops what they touch."""
        self.known.history.extend(entries)
        keys = frozenset[Key]().union(*(self.note_touches(entry) for entry in entries))
        if keys:
            self._invalidate(entries[0].index, keys - {EVERYTHING}, everything=EVERYTHING in keys)

    def note_touches(self, entry: Entry) -> frozenset[Key]:
        """Have reads of what an entry touches wait for it; returns what of that caches may hold."""
        content = entry.content()
        if not isinstance(content, Write):
            return frozenset()
        self._reads.touch(entry.index, touched(content.commit))
        return cached(content.commit)

    def truncate(self, last: int) -> None:
        """Drop what comes after index `last`: it is saved first, and every cache drops everything."""
        assert last >= self.known.committed, "dropping what is committed"
        dropped = self.known.history.truncate(last)
        if dropped:
            self.disk.drop(dropped)
            self.gone_after(last, OutcomeUnknown("the entry was dropped when another member took over"))
            self.invalidate_everything()
            self.out.say("entries dropped", after=last, count=len(dropped))

    def retract(self) -> None:
        """Take back what was appended and is not certain of its place: nobody but this member has heard of it."""
        ordered = self.known.ordered
        self.known.order(None)
        if self.known.history.truncate(ordered):
            self.gone_after(
                ordered, OutcomeUnknown("this member is not primary any more; the write may be ordered yet")
            )

    def gone_after(self, last: int, why: LnhError) -> None:
        """Take in that the log ends at index `last` now: nothing waits for what came after it."""
        self.disk.cut(last)
        self._reads.drop_after(last)
        self.requests.release(last, why)

    def promise(self, epoch: Epoch) -> None:
        """Promise an epoch, with the next step; nothing of a lower one is heeded from now on."""
        assert epoch > self.known.promised, "a promise that goes back"
        self.known.promised = epoch
        self.disk.want(promised=epoch)

    def keep(self, open_: Entry) -> None:
        """Keep an `open` beside the log: its member list counts at once."""
        if self.known.kept != open_:
            self.known.kept = open_
            self.disk.want(kept=open_)

    # The caches

    def invalidate_everything(self) -> int:
        """Have every cache drop everything, and acknowledge nothing before; returns its number."""
        return self._invalidate(NOTHING_BEFORE, frozenset(), everything=True)

    def clear_caches(self) -> int:
        """Have every cache drop everything; acknowledgements do not depend on it. Returns its number."""
        return self._invalidate(NO_ENTRY, frozenset(), everything=True)

    def _invalidate(self, first: int, keys: frozenset[Key], *, everything: bool = False) -> int:
        begun = self._caches.begin(first, keys, everything=everything)
        self.out.put(begun)
        return begun.number
