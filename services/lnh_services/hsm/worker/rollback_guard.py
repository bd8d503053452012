"""Refuses items older than this HSM has used: the core keeps the highest age seen of each item.

Every record and object is authentic by its seal, and an authentic older one is authentic too. So before a worker reads
one from the store (to fill a cache, or past one) it asks the core how old it must be at least. The answer is checked,
and if it is newer than the core knew, the core is told. Asked in this order nothing lies between what was read and its
use: an invalidation that comes meanwhile is about what is not read yet. Of the object that a request names the core is
asked together with the records of its session (`Ahead`), where these are to be read as well, and the store is: two
questions for all, one after the other. The core is also told what a worker wrote or deleted.

An *age* is `(born, version)`. Versions of an item only grow, but start again when it was deleted and made anew under
the same id. Users are, and their records say when they were born (UTC milliseconds). So are the lock counts of names
that do not exist (`sweeping.py`): nothing is kept of their age, for nothing depends on it, and made-up names push
nothing else out of the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from lnh_common import limits
from lnh_common.errors import MemberBehind, SealBroken, StateRolledBack
from lnh_common.messages.base import Skipped
from lnh_common.messages.hsm import SEEN, Mark, Seen
from lnh_common.messages.store import Change, Delete, Item, Key, Put, Scan
from lnh_common.wire import codec
from lnh_services.hsm import answers
from lnh_services.hsm.effects import Peer, Steps, ask, tell
from lnh_services.hsm.records import (
    SWEPT,
    TABLES,
    AttemptsRecord,
    CredentialRecord,
    LockRecord,
    LogoutRecord,
    OpeningRecord,
    PolicyRecord,
    RekeyRecord,
    RoleRecord,
    UserRecord,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Read(Generic[T]):
    """One item as it was read: None and version 0 where there is none.

    Args:
        current: as the store said (`store.Got`).
        outdated: an invalidation about it came while it was read; its asker may use it, and nobody after.
    """

    value: T | None
    version: int
    current: bool
    outdated: bool = False

    @property
    def known(self) -> T:
        """Return the value of an item that exists."""
        assert self.value is not None, "asked for what is not there"
        return self.value


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of items as they were read: whether there are more, and the id that they are behind.

    Args:
        current, outdated: as of `Read`.
    """

    found: list[tuple[Item, T]]
    more: bool
    last: bytes
    current: bool
    outdated: bool = False


def merged(pages: Sequence[Page[T]]) -> Page[T]:
    """Merge pages behind the same id into one, in the order of the ids; of an item on several the last page's counts.

    It goes as far as the shortest page that has more behind it.
    """
    end = min((page.last for page in pages if page.more), default=max(page.last for page in pages))
    found = {item.key.id: (item, value) for page in pages for item, value in page.found if item.key.id <= end}
    more, current = any(page.more for page in pages), all(page.current for page in pages)
    return Page([found[id_] for id_ in sorted(found)], more, end, current)


Age = tuple[int, int]

_ITEM_BYTES: Final = 16
AS_KNOWN: Final = -1  # born when it was born
# Without a record of these more is allowed, not less; so "there is none" is checked as version 0.
ABSENCE_ALLOWS: Final = frozenset(
    TABLES[kind] for kind in (LogoutRecord, LockRecord, AttemptsRecord, OpeningRecord, PolicyRecord, RekeyRecord)
)


@dataclass(eq=False)
class Ahead:
    """What a request reads after the records of its session, how old that must be at least, and what came with them.

    Args:
        keys: of the items, as the request names them.
        ages: by the items' names, once the core was asked; each is good for one reading, which takes it.
        items: as the store answered, unopened, and whether that was current; each is good for one reading. A single
            item is read so: several together may be too long for an answer.
        invalidations: how many there had been when the items were asked for; after another one they are good for none.
    """

    keys: tuple[Key, ...] = ()
    ages: dict[bytes, Age] = field(default_factory=dict)
    items: dict[bytes, tuple[Item | None, bool]] = field(default_factory=dict)
    invalidations: int = 0

    def read_with(self) -> tuple[Key, ...]:
        """Return the keys of the items that are read together with the records of the session."""
        return self.keys if len(self.keys) == 1 else ()


class HighestSeen:
    """The core's table of ages: bounded; the one used longest ago is dropped first.

    Args:
        size: how many items it holds.
    """

    def __init__(self, size: int = limits.ITEMS_SEEN) -> None:
        self._size: Final = size
        self._ages: Final[dict[bytes, Age]] = {}

    def note(self, marks: Sequence[Mark]) -> list[Age]:
        """Take in ages that were used; returns for each item the highest age seen, this one included."""
        return [self._note(mark) for mark in marks]

    def _note(self, mark: Mark) -> Age:
        known = self._ages.pop(mark.item, (0, 0))
        born = known[0] if mark.born == AS_KNOWN else mark.born
        highest = max(known, (born, mark.version))
        if highest == (0, 0):
            return highest  # there never was one
        if len(self._ages) >= self._size:
            del self._ages[next(iter(self._ages))]
        self._ages[mark.item] = highest
        return highest

    def clear(self) -> None:
        """Begin anew: the store's present items are taken as they are."""
        self._ages.clear()

    def __len__(self) -> int:
        return len(self._ages)


class Items:
    """Names and checks the stored items of one instance of the cluster: a restore begins anew.

    Args:
        note: called with each answer of the store: whether it was current.
    """

    def __init__(self, cluster: bytes, instance: bytes, note: Callable[[bool], None]) -> None:
        self._where: Final = [cluster, instance]
        self._note: Final = note

    def name(self, key: Key) -> bytes:
        """Name an item by 16 bytes."""
        covered = codec.encode([*self._where, key.table, key.scope, key.id])
        return hashlib.sha256(covered).digest()[:_ITEM_BYTES]

    def highest(self, keys: Sequence[Key]) -> Steps[list[Age]]:
        """Ask how old these must be at least; call it before they are read."""
        if not keys:
            return []
        marks = tuple(Mark(item=self.name(key), born=0, version=0) for key in keys)
        return list((yield from ask(Peer.CORE, SEEN, Seen(marks=marks))).highest)

    def get(
        self,
        key: Key,
        read: Callable[[Item], T],
        *,
        body: bool = True,
        lasts: Callable[[T], bool] | None = None,
        ahead: Ahead | None = None,
    ) -> Steps[Read[T]]:
        """Return an item as `read` reads it, which raises if it is not authentic.

        Args:
            lasts: whether its age is to be kept; without it, it is.
            ahead: what the core was asked before this.

        Raises StateRolledBack, MemberBehind, and SealBroken for another item than this.
        """
        at_least = ahead.ages.pop(self.name(key), None) if ahead is not None else None
        answered = ahead.items.pop(self.name(key), None) if ahead is not None else None
        if at_least is None:
            (at_least,) = yield from self.highest([key])
            answered = None
        item, current = answered or (yield from answers.get(key, body=body))
        self._note(current)
        if item is None:
            if key.table in ABSENCE_ALLOWS:
                yield from self.used([(key, (0, 0), at_least)], current=current)
            return Read(None, 0, current)
        found = read(item)
        age = (_born(found), item.version)
        yield from self.used([(key, age, at_least)], current=current, told=lasts is None or lasts(found))
        return Read(found, item.version, current)

    def get_each(self, wanted: Sequence[tuple[Key, Callable[[Item], T]]], ahead: Ahead) -> Steps[list[Read[T]]]:
        """Return several items, each as `get` gets it, in two questions for all of them; raises as `get`.

        Args:
            ahead: of what the core is asked as well, and the store.
        """
        keys, more = [key for key, _ in wanted], ahead.read_with()
        ages = yield from self.highest([*keys, *ahead.keys])
        at_least = ages[: len(keys)]
        ahead.ages.update(zip(map(self.name, ahead.keys), ages[len(keys) :], strict=True))
        found, used = [], []
        everything_current = True
        answered = yield from answers.get_each([*keys, *more])  # the records first: an object is never read before them
        ahead.items.update(zip(map(self.name, more), answered[len(keys) :], strict=True))
        for (key, read), least, (item, current) in zip(wanted, at_least, answered[: len(keys)], strict=True):
            self._note(current)
            everything_current = everything_current and current
            if item is None:
                found.append(Read[T](None, 0, current))
                if key.table in ABSENCE_ALLOWS:
                    used.append((key, (0, 0), least))
                continue
            value = read(item)
            found.append(Read(value, item.version, current))
            used.append((key, (_born(value), item.version), least))
        yield from self.used(used, current=everything_current)
        return found

    def page(self, scan: Scan, read: Callable[[Item], T], skipped: list[Skipped] | None = None) -> Steps[Page[T]]:
        """Return a page of items as `read` reads them.

        Args:
            skipped: items that do not open are added to it; None has them raise.

        Raises StateRolledBack, MemberBehind, SealBroken.

        Which items are on it is known only when it is there. So an item older than the core knows may have changed just
        now: it is read again, and must then be as new as was said.
        """
        at_least: dict[bytes, Age] = {}
        while True:
            page = yield from answers.scan(scan)
            self._note(page.current)
            found, closed = [], []
            for item in page.items:
                try:
                    found.append((item, read(item)))
                except SealBroken as error:
                    if skipped is None:
                        raise
                    closed.append(Skipped(id=item.key.id, why=str(error)))
            ages = [(item.key, (_born(one), item.version)) for item, one in found]
            yield from self.used([(key, age, at_least.get(key.id, age)) for key, age in ages], current=page.current)
            known = yield from self.highest([key for key, _ in ages])
            pairs = list(zip(ages, known, strict=True))
            at_least = {key.id: highest for (key, age), highest in pairs if age < highest}
            if not at_least:
                yield from self.used([(key, age, highest) for (key, age), highest in pairs], current=page.current)
                if skipped is not None:
                    skipped += closed
                return Page(found, page.more, page.items[-1].key.id if page.items else scan.after, page.current)

    def used(self, found: Iterable[tuple[Key, Age, Age]], *, current: bool, told: bool = True) -> Steps[None]:
        """Check what was read: its key, its age, and how old it must be; the core is told of a newer age.

        Raises StateRolledBack; MemberBehind where an older item was not read as `current`: the newer may be to come
        yet.
        """
        newer = []
        for key, age, at_least in found:
            if age < at_least:
                if not current:
                    raise MemberBehind(
                        f"this member has not caught up with its cluster yet: {key.table} {key.id.hex()}"
                    )
                raise StateRolledBack(
                    f"the store served version {age[1]} of {key.table} {key.id.hex()}; "
                    f"this HSM has used or written version {at_least[1]}"
                )
            if told and age > at_least:
                newer.append(Mark(item=self.name(key), born=age[0], version=age[1]))
        if newer:
            yield from tell(Peer.CORE, SEEN, Seen(marks=tuple(newer)))

    def written(self, changes: Iterable[Change], *, lasting: bool = True) -> Steps[None]:
        """Tell the core of changes that were committed. A new item has no older one, so its age is not kept.

        Args:
            lasting: whether the age of what was put is to be kept. If not, the core is told as much all the same, of a
                version that says nothing: how long it takes must not tell which names there are.
        """
        marks = []
        for change in changes:
            match change:
                case Put() if change.expected or change.key.table in ABSENCE_ALLOWS:
                    version = change.expected + 1 if lasting else 0
                    marks.append(Mark(item=self.name(change.key), born=AS_KNOWN, version=version))
                case Delete(expected=int(version)) if change.key.table not in SWEPT:
                    marks.append(Mark(item=self.name(change.key), born=AS_KNOWN, version=version + 1))
        for start in range(0, len(marks), limits.MARKS_AT_ONCE):
            yield from tell(Peer.CORE, SEEN, Seen(marks=tuple(marks[start : start + limits.MARKS_AT_ONCE])))


def _born(found: object) -> int:
    return found.born if isinstance(found, UserRecord | RoleRecord | CredentialRecord) else 0
