"""Shows operators a store: its status, and the entries it had to drop."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lnh_common.errors import LnhError
from lnh_common.messages import store as messages
from lnh_services.store.disk import dropped as kept
from lnh_services.store.driver import Driver
from lnh_services.store.log.entries import Entry, Write
from lnh_services.store.log.window import Removed
from lnh_services.store.machine.apply import touched
from lnh_services.store.replication.standing import Phase, Standing

_FILES: Final = 64
_WRITES: Final = 256
_KEYS: Final = 16


def status(driver: Driver) -> messages.Status:
    """Make the status of the store as it is now."""
    ordering, standing = driver.ordering, driver.standing()
    trouble, sizes, lease_settings = driver.trouble, driver.sizes(), standing.lease_settings
    return messages.Status(
        state=_state(driver, standing),
        cluster=ordering.cluster,
        member=ordering.member,
        primary=standing.primary,
        epoch=standing.term,
        in_sync=standing.in_sync,
        last_index=standing.last,
        committed_index=standing.committed,
        applied_index=standing.applied,
        items=sizes.items,
        bytes_on_disk=sizes.bytes,
        commits_per_second=driver.commits_per_second,
        problem=str(trouble) if trouble else driver.listening_problem,
        members=ordering.members,
        groups=standing.groups,
        removed=tuple(
            messages.RemovedMember(member=each.member, epoch=each.epoch.term, index=each.index)
            for each in standing.removed
        ),
        lease_ms=int(driver.lease_left() * 1000),
        lags=tuple(
            messages.Lag(member=each.member, index=each.index, heard_ms=driver.heard_ms(each.heard))
            for each in standing.lags
        ),
        diverged=standing.diverged,
        expelled=_expelled(standing.expelled),
        hidden=sizes.hidden,
        lease_settings=messages.SetLeaseSettings(lease_ms=lease_settings.lease_ms, alone_ms=lease_settings.alone_ms),
        promotable=standing.promotable,
        take_over_of=standing.take_over_of,
        catching_up=standing.catching_up,
    )


def _state(driver: Driver, standing: Standing) -> str:
    if driver.trouble is not None:
        return "failed"
    if standing.phase is Phase.NONE:
        return "none"
    if standing.phase is Phase.EXPELLED:
        return "expelled"
    if driver.is_current():
        return "read-write"
    return "joining" if standing.is_joining else "read-only"


def _expelled(removed: Removed | None) -> str:
    if removed is None:
        return ""
    return f"entry {removed.index} of epoch {removed.epoch.term} removed this member from the cluster"


def divergent(directory: Path, *, diverged: bool) -> messages.Divergent:
    """Read the newest files of dropped entries from the disk."""
    files: list[messages.DivergentFile] = []
    room = _WRITES
    for listed in reversed(kept.find(directory)[-_FILES:]):
        file = _file(listed, room)
        room -= len(file.writes)
        files.append(file)
    aside = tuple(sorted(path.name for path in directory.glob("store-*.aside.db")))
    return messages.Divergent(diverged=diverged, files=tuple(files), aside=aside)


def _file(listed: kept.Listed, room: int) -> messages.DivergentFile:
    saved_at = listed.path.stat().st_mtime_ns // 1_000_000
    if listed.saved is None or not listed.saved.entries:
        return messages.DivergentFile(name=listed.path.name, saved_at=saved_at, problem=listed.problem or "no entries")
    entries = listed.saved.entries
    writes = [write for entry in entries if (write := _write(entry)) is not None]
    return messages.DivergentFile(
        name=listed.path.name,
        saved_at=saved_at,
        epoch=entries[-1].epoch.term,
        opener=entries[-1].epoch.candidate,
        first=entries[0].index,
        last=entries[-1].index,
        entries=len(entries),
        writes=tuple(writes[:room]),
    )


def _write(entry: Entry) -> messages.DivergentEntry | None:
    try:
        content = entry.content()
    except LnhError:
        return None
    if not isinstance(content, Write):
        return None
    keys = sorted(touched(content.commit), key=lambda key: (key.table, key.scope, key.id))[:_KEYS]
    return messages.DivergentEntry(
        index=entry.index, log_time=entry.log_time, client=content.commit.client, keys=tuple(keys)
    )
