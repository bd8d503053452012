"""Many objects in a store, quickly: committed entries of realistic sizes, through the store's door for its hsm.

They go the way of every write from there on (log, fsync, the other members). What the hsm does for each before that,
most of the time of making a key, is left out, so nothing in them can be opened.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from lnh_common.bus.blocking import Caller
from lnh_common.messages import store
from lnh_common.messages.base import Empty
from lnh_common.messages.store import OBJECTS
from lnh_services.paths import MemberDirectory

_A_KEYRING: Final = 256
_A_COMMIT: Final = 16
_CALLERS: Final = 8  # at once: they share what the disk takes


def status(directory: Path) -> store.Status:
    """How a member's store stands."""
    with Caller(MemberDirectory(directory).store_for_hsm) as caller:
        return caller.ask(store.STATUS, Empty())


def fill(directory: Path, keyring: bytes, count: int, a_commit: int = _A_COMMIT) -> None:
    """Add so many objects to the primary's store, each with the sizes of an object that this keyring holds.

    Args:
        directory: of the primary.
        keyring: the id of a keyring that holds objects.
        a_commit: objects in one entry; few enough that there are more entries than a store keeps, and who joins needs a
            snapshot, as ever.
    """
    door = MemberDirectory(directory).store_for_hsm
    with Caller(door) as caller:
        models = caller.ask(store.SCAN, store.Scan(table=OBJECTS, scope=keyring, limit=_A_KEYRING, body=True)).items
    keyrings = [range(first, min(first + _A_KEYRING, count)) for first in range(0, count, _A_KEYRING)]

    def work(number: int) -> None:
        session, sequence = os.urandom(16), 0
        with Caller(door) as caller:
            for objects in keyrings[number::_CALLERS]:
                scope = os.urandom(len(keyring))
                for first in range(objects.start, objects.stop, a_commit):
                    numbers = range(first, min(first + a_commit, objects.stop))
                    sequence += 1
                    commit = store.Commit(
                        client=session, session=session, sequence=sequence, issued_at=int(time.time() * 1000),
                        changes=tuple(_like(models[one % len(models)], scope) for one in numbers),
                    )  # fmt: skip
                    caller.ask(store.COMMIT, commit, timeout=60.0)

    with ThreadPoolExecutor(_CALLERS) as pool:
        list(pool.map(work, range(_CALLERS)))


def _like(model: store.Item, scope: bytes) -> store.Put:
    """An object of this one's sizes; its bytes are random, as sealed ones look."""
    return store.Put(
        key=store.Key(table=OBJECTS, scope=scope, id=os.urandom(len(model.key.id))),
        expected=0,
        head=os.urandom(len(model.head)),
        body=os.urandom(len(model.body)),
        tags=tuple(os.urandom(len(tag)) for tag in model.tags),
    )
