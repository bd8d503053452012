"""Messages about backup: of clients, of the hsm to the backup service, and of that about itself.

Each act exists twice. Under `backup.` it comes sealed from a client and ends at an hsm worker, which checks that the
session may. Under `archive.` the worker passes it on to its member's backup service, on a socket of the hsm's alone.
"""

from __future__ import annotations

import enum
import re
from typing import Annotated, Final

import msgspec

from lnh_common import limits
from lnh_common.messages.base import Confidential, Effect, Empty, Listing, Message, Seal, operation
from lnh_common.messages.session import Id16

SUFFIX: Final = ".lnhb"  # of an archive's name
PIECE_BYTES: Final = 512 * limits.KIB  # of an archive that is downloaded, in one answer
ARCHIVES_SHOWN: Final = 512

_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}" + re.escape(SUFFIX) + r"\Z"
ArchiveName = Annotated[str, msgspec.Meta(pattern=_NAME)]


def may_be_named(name: str) -> bool:
    """Tell whether a member keeps an archive under this name."""
    return re.fullmatch(_NAME, name) is not None


class ArchiveRef(Message):
    """Name the archive that an operation is about."""

    name: ArchiveName


class ArchiveView(Message):
    """Describe one archive of a member, as far as the archive says so itself.

    Args:
        size: of the file, in bytes.
        created_at: UTC seconds.
        cluster: id of the cluster that it holds.
        index: the archive holds the state after this entry of the log.
        member, product: name and version of the member that made it.
        generation: of the SMK, without which nothing in the archive opens.
        items: number of items of each table.
        hash: SHA-256 of the file up to its manifest.
        problem: why the archive cannot be read; the fields before are empty then.
    """

    name: str
    size: int
    created_at: int = 0
    id: bytes = b""
    cluster: bytes = b""
    label: str = ""
    index: int = 0
    member: str = ""
    product: str = ""
    generation: int = 0
    items: dict[str, int] = {}
    hash: bytes = b""
    problem: str = ""


class ArchiveList(Message):
    """Answer with the newest archives of the member that was asked."""

    member: str
    archives: tuple[ArchiveView, ...]


class Changed(Message):
    """Name a credential that differs between the archive and the cluster as it is now.

    Args:
        role, name, keyring: whose credential it is; `keyring` is a label.
        how: changed (the archive has an older password), added (it is not in the archive) or deleted (only there).
    """

    role: str
    name: str
    keyring: str
    how: str


CHANGES_SHOWN: Final = 1000


class JobView(Message):
    """Describe a job of the backup service, which does one at a time.

    Args:
        id: empty while there never was a job.
        kind: make, verify, check (what a restore would change) or restore.
        state: running, done or failed.
        step: what the job is at.
        archive: the archive that it is about.
        done, total: bytes of a running job, or another measure of its progress.
        error: of a failed job, as on the wire.
        changed: of a restore and its check, the first credentials that differ.
        changes: how many credentials differ.
    """

    id: bytes
    kind: str = ""
    state: str = ""
    step: str = ""
    archive: str = ""
    done: int = 0
    total: int = 0
    error: tuple[int, str, dict[str, object]] | None = None
    changed: tuple[Changed, ...] = ()
    changes: int = 0


class JobRef(Message):
    """Name the job that is asked about; empty is the last one."""

    id: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class PieceOf(Message):
    """Ask for some bytes of an archive."""

    name: ArchiveName
    offset: Annotated[int, msgspec.Meta(ge=0)]
    length: Annotated[int, msgspec.Meta(ge=1, le=PIECE_BYTES)] = PIECE_BYTES


class Piece(Message):
    """Answer with bytes of an archive; they are fewer than asked for only at the file's end, at `size` bytes."""

    data: bytes
    size: int


# Where the schedule and its last run are kept, each in the field of its name, for the backup services to read.
TABLE: Final = "backup"
SCHEDULE_ID: Final = b"schedule"
RUN_ID: Final = b"run"

DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
KEEP_MOST: Final = 1000


class Every(str, enum.Enum):
    """The unit of a schedule: every so many hours, once a day, or once a week."""

    HOURS = "hours"
    DAY = "day"
    WEEK = "week"


class Schedule(Message):
    """Say when backups are made by themselves; replicated.

    Args:
        hours: between two backups, where that is the unit.
        minute, weekday: of the day in `zone`, and from Monday = 0, where the unit is a day or week.
        zone: of the IANA database.
        keep: how many archives that the schedule made stay on each member.
        member: the member that makes them while it is reachable; otherwise, and where this is empty, the primary does.
        since: UTC seconds from when the schedule counts; nothing is due from before. That is when it was set, but hours
            may be counted from an earlier time.
    """

    every: Every
    hours: Annotated[int, msgspec.Meta(ge=1, le=24 * 366)] = 24
    minute: Annotated[int, msgspec.Meta(ge=0, lt=24 * 60)] = 0
    weekday: Annotated[int, msgspec.Meta(ge=0, le=6)] = 0
    zone: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "UTC"
    keep: Annotated[int, msgspec.Meta(ge=1, le=KEEP_MOST)] = 7
    member: Annotated[bytes, msgspec.Meta(max_length=16)] = b""
    since: Annotated[int, msgspec.Meta(ge=0)] = 0


class Run(Message):
    """Describe the last run of the schedule; replicated.

    Args:
        slot: the planned time that it was for (UTC seconds).
        member, name: id and name of the member that made it.
        started, ended: UTC seconds; `ended` is 0 while the run is under way.
        archive: the archive that it made.
        problem: why it failed.
        tries: how often it failed for this slot.
    """

    slot: int
    member: Annotated[bytes, msgspec.Meta(max_length=16)]
    name: Annotated[str, msgspec.Meta(max_length=64)]
    started: int
    ended: int = 0
    archive: Annotated[str, msgspec.Meta(max_length=128)] = ""
    problem: Annotated[str, msgspec.Meta(max_length=512)] = ""
    tries: int = 0


class SetSchedule(Message):
    """Set the schedule, or end it with `off`; without either the schedule is shown."""

    schedule: Schedule | None = None
    off: bool = False


class ScheduleView(Listing, kw_only=True):
    """Answer with the schedule, in words too, and with how it is kept.

    Args:
        next: UTC seconds of the next run; 0 without a schedule.
        run: the last one.
    """

    schedule: Schedule | None
    words: str
    next: int = 0
    run: Run | None = None
    overdue: bool = False

    def is_bare(self) -> bool:
        """Tell whether no schedule is set."""
        return self.schedule is None


class Planned(Message):
    """Answer with what a schedule means: in words, and when its next time is."""

    words: str
    next: int


class Noting(Message):
    """Write the present run of the schedule, in place of version `version` of the run that was known (0: none was)."""

    run: Run
    version: Annotated[int, msgspec.Meta(ge=0)]


class Restore(Message):
    """Put an archive's state in place of the cluster's; with `check` only look which credentials would differ then."""

    name: ArchiveName
    check: bool = False


class WritePiece(Message):
    """Bring some bytes of an archive to this member; the archive is there once all `size` bytes came and are whole."""

    name: ArchiveName
    offset: Annotated[int, msgspec.Meta(ge=0)]
    size: Annotated[int, msgspec.Meta(ge=1)]
    data: Annotated[bytes, msgspec.Meta(max_length=PIECE_BYTES)] = b""


class Written(Message):
    """Answer with how many bytes of the archive are there; the next piece begins behind them."""

    have: int


class Status(Message):
    """Describe how a member is backed up, and whether the cluster's schedule is kept.

    Args:
        schedule: none, or when backups are made.
        newest: the newest archive; empty while there is none.
        next: UTC seconds of the next run; 0 without a schedule.
        last, last_member, last_problem: the last scheduled run: when (UTC seconds), by which member, and why it failed.
        overdue: a run is late by more than the schedule's patience.
        running: what the backup service does now.
        problem: why the directory cannot be used.
    """

    schedule: str
    backups: int
    bytes_on_disk: int
    newest: str = ""
    problem: str = ""
    next: int = 0
    last: int = 0
    last_member: str = ""
    last_problem: str = ""
    overdue: bool = False
    running: str = ""


STATUS: Final = operation("backup.status", Empty, Status)

_S = Seal.SESSION
_W = Effect.WRITE
NOW: Final = operation("backup.now", Empty, JobView, _S, _W)
LIST: Final = operation("backup.list", Empty, ArchiveList, _S)
SHOW: Final = operation("backup.show", ArchiveRef, ArchiveView, _S)
VERIFY: Final = operation("backup.verify", ArchiveRef, JobView, _S, _W)
JOB: Final = operation("backup.job", JobRef, JobView, _S)
READ: Final = operation("backup.read", PieceOf, Piece, _S)
DELETE: Final = operation("backup.delete", ArchiveRef, Empty, _S, _W)
RESTORE: Final = operation("backup.restore", Restore, JobView, _S, _W, since="0.2")
WRITE: Final = operation("backup.write", WritePiece, Written, _S, _W)
SCHEDULE: Final = operation("backup.schedule", SetSchedule, ScheduleView, _S, _W)


class Order(Message):
    """Begin a job; the same `id` again is answered with the job that it began."""

    id: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    name: Annotated[str, msgspec.Meta(max_length=128)] = ""


MAKE_ARCHIVE: Final = operation("archive.make", Order, JobView, effect=_W)
LIST_ARCHIVES: Final = operation("archive.list", Empty, ArchiveList)
SHOW_ARCHIVE: Final = operation("archive.show", ArchiveRef, ArchiveView)
VERIFY_ARCHIVE: Final = operation("archive.verify", Order, JobView, effect=_W)
ARCHIVE_JOB: Final = operation("archive.job", JobRef, JobView)
READ_ARCHIVE: Final = operation("archive.read", PieceOf, Piece)
DELETE_ARCHIVE: Final = operation("archive.delete", Order, Empty, effect=_W)


WRITE_ARCHIVE: Final = operation("archive.write", WritePiece, Written, effect=_W)
CHECK_SCHEDULE: Final = operation("archive.schedule", Schedule, Planned)


class NewKey(Message):
    """Ask the core for a data key for an archive that is about to be written."""

    id: Id16


class ArchiveKey(Confidential):
    """Answer with the data key, and with what the archive of this id begins with."""

    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    wrapped: bytes
    cluster: Id16
    label: str
    instance: Id16
    generation: int
    member: str


class Sealing(Message):
    """Ask the core to seal an archive's header and manifest, as they stand in the file."""

    header: Annotated[bytes, msgspec.Meta(max_length=16 * limits.KIB)]
    manifest: Annotated[bytes, msgspec.Meta(max_length=64 * limits.KIB)]


class Sealed(Message):
    """Answer with the HSM's seal of a manifest."""

    seal: bytes


class Opening(Message):
    """Ask the core for the data key of an archive that is to be read.

    Raises ArchiveInvalid for another cluster's archive.
    """

    header: Annotated[bytes, msgspec.Meta(max_length=16 * limits.KIB)]
    manifest: Annotated[bytes, msgspec.Meta(max_length=64 * limits.KIB)]
    seal: Annotated[bytes, msgspec.Meta(max_length=256)]


class DataKey(Confidential):
    """Answer with the data key of an archive, 32 bytes."""

    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class Allow(Message):
    """Tell the core that a worker has checked that this session may restore.

    Args:
        id: names the order.
        archive: the id of the only archive that may be restored; empty for any of the name.
    """

    id: Id16
    name: str
    check: bool
    archive: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class Ticket(Confidential):
    """Name a restore to the core: a ticket is good for one archive, once."""

    ticket: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


NO_TICKET: Final = bytes(32)  # of no restore: whatever was begun is given up, as who began it was ended


class RestoreOrder(Confidential):
    """Tell the backup service to begin a restore, with the ticket for it."""

    id: Id16
    name: ArchiveName
    check: bool
    ticket: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class BeginRestore(Confidential):
    """Tell the core which archive is restored, as its file says; answered with its data key."""

    ticket: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    opening: Opening


Row = tuple[str, bytes, bytes, int, bytes, bytes, bytes]  # table, scope, id, version, packed tags, head, body


class RestoreRows(Confidential):
    """Bring the next rows of the archive to the core; `number` is from 0, and the last message may be sent again."""

    ticket: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    number: Annotated[int, msgspec.Meta(ge=0)]
    rows: tuple[Row, ...]


class FinishRestore(Confidential):
    """Tell the core that all rows came; with the affinity groups of the archive, and the group of each member then."""

    ticket: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    groups: Annotated[tuple[str, ...], msgspec.Meta(max_length=limits.GROUPS)] = ()
    placed: tuple[tuple[bytes, str], ...] = ()


class Restored(Message):
    """Answer with the credentials that differ from before: the first CHANGES_SHOWN, and how many there are."""

    changed: tuple[Changed, ...]
    changes: int


ALLOW: Final = operation("core.restore.allow", Allow, Ticket, effect=_W)
RESTORE_ARCHIVE: Final = operation("archive.restore", RestoreOrder, JobView, effect=_W)
BEGIN_RESTORE: Final = operation("hsm.restore.begin", BeginRestore, DataKey, effect=_W)
RESTORE_ROWS: Final = operation("hsm.restore.rows", RestoreRows, Empty, effect=_W)
FINISH_RESTORE: Final = operation("hsm.restore.finish", FinishRestore, Restored, effect=_W)
ABANDON_RESTORE: Final = operation("hsm.restore.abandon", Ticket, Empty, effect=_W)
NOTE_RUN: Final = operation("hsm.archive.run", Noting, Empty, effect=_W)
NEW_KEY: Final = operation("hsm.archive.key", NewKey, ArchiveKey)
SEAL: Final = operation("hsm.archive.seal", Sealing, Sealed)
OPEN: Final = operation("hsm.archive.open", Opening, DataKey)
