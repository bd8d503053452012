"""Keeps a member's archives on its disk: finds them, looks into them, reads, writes and removes them.

A new archive is written under a name that begins with a dot. It gets its own once all of it is on the disk, and that is
durable when `finish` returns; a file that a crash leaves is removed at the next start. Every function here blocks.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from lnh_common.errors import ArchiveInvalid, NameTaken, NameUnknown, StorageFailed
from lnh_common.events import Log
from lnh_common.files import NotRegular, kind_of, open_regular, sync_directory
from lnh_common.messages.backup import ARCHIVES_SHOWN, SUFFIX, ArchiveView, Piece, may_be_named
from lnh_common.wire import archives
from lnh_common.wire.archives import Header, Outline

_log: Final = Log("backup.files")

_OTHERS_SHOWN: Final = 64  # of what looks like an archive and is none
SCHEDULED: Final = "-auto"  # ends the name of what the schedule made
_PART: Final = ".part"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ADVICE: Final = {
    **dict.fromkeys(_FULL, "make room on the disk of {0}: lnh backup delete NAME, a smaller --keep, or a larger disk"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "let the member's user write to {0}"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "put {0} back: mount its disk, or mkdir -m 700"),
}


def refused(directory: Path, error: OSError, name: str = "") -> StorageFailed:
    """Make the error of a disk that refused, with what to do about it.

    Args:
        name: of the one file in the directory that it is about.
    """
    if isinstance(error, NotRegular):
        return StorageFailed(f"{directory / name}: {error.strerror}", {"advice": f"move it out of {directory}"})
    advice = _ADVICE.get(error.errno or 0)
    return StorageFailed(
        f"{directory}: {error.strerror}", {"advice": f"{advice.format(directory)}; then again"} if advice else {}
    )


def name_of(label: str, created_ms: int, *, scheduled: bool) -> str:
    """Make the name of an archive of this cluster and time, without its suffix."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", label).strip("-")[:40] or "cluster"
    moment = datetime.fromtimestamp(created_ms / 1000, timezone.utc)
    return f"{plain}-{moment:%Y%m%dT%H%M%S}Z{SCHEDULED if scheduled else ''}"


def shown(name: str) -> str:
    """Decode the name of a file to text, whatever bytes it is made of."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


class _Entry(NamedTuple):
    """A path that is named like an archive; `problem` says why it is none, without a look into it."""

    changed_at: int
    name: str
    problem: str


def _is_called_archive(name: str) -> bool:
    return name.endswith(SUFFIX) and not name.startswith(".")


def _entry(there: os.DirEntry[str]) -> _Entry:
    try:
        status = there.stat(follow_symlinks=False)
    except OSError as error:
        return _Entry(0, there.name, error.strerror or "it cannot be looked at")
    kind = kind_of(status.st_mode)
    problem = f"it is {kind}, no archive" if kind else "" if may_be_named(there.name) else "no archive has such a name"
    return _Entry(status.st_mtime_ns, there.name, problem)


def is_scheduled(name: str) -> bool:
    """Tell whether an archive of this name was made by the schedule."""
    return re.search(rf"{SCHEDULED}(-\d+)?{re.escape(SUFFIX)}$", name) is not None


class Archives:
    """One directory of archives."""

    def __init__(self, directory: Path) -> None:
        self.directory: Final = directory
        self._known: dict[str, tuple[tuple[int, int, int], ArchiveView]] = {}  # and what its file was like

    def names(self) -> list[str]:
        """List the names of all archives, the newest last (their names tell when they were made).

        Raises StorageFailed.
        """
        return [entry.name for entry in self._entries() if not entry.problem]

    def tidy(self, idle: float = 0.0) -> None:
        """Remove files left half written, by a crash or an upload that stopped, for so many seconds at least.

        Raises StorageFailed.
        """
        try:
            parts = list(self.directory.glob(f".*{_PART}"))
        except OSError as error:
            raise refused(self.directory, error) from error
        for path in parts:
            try:
                if not idle or time.time() - path.lstat().st_mtime > idle:
                    path.unlink(missing_ok=True)
            except OSError as error:
                _log.warning("not removed", file=shown(path.name), problem=error.strerror)

    def views(self) -> tuple[ArchiveView, ...]:
        """View the newest archives, oldest first, behind files that look like archives and are none.

        Raises StorageFailed.
        """
        entries = self._entries()
        others = [entry for entry in entries if entry.problem][-_OTHERS_SHOWN:]
        newest = [entry for entry in entries if not entry.problem][len(others) - ARCHIVES_SHOWN :]
        return (
            *(ArchiveView(name=shown(entry.name), size=0, problem=entry.problem) for entry in others),
            *(view for entry in newest if (view := self._view_or_problem(entry.name)) is not None),
        )

    def _view_or_problem(self, name: str) -> ArchiveView | None:
        """View an archive, or say in its view why it cannot be read; None for one that is gone."""
        try:
            return self.view(name)
        except NameUnknown:
            return None
        except StorageFailed as error:
            return ArchiveView(name=name, size=0, problem=str(error))

    def _entries(self) -> list[_Entry]:
        """List the paths that are named like archives, by the time of their last change. Raises StorageFailed."""
        try:
            there = [entry for entry in os.scandir(self.directory) if _is_called_archive(entry.name)]
        except OSError as error:
            raise refused(self.directory, error) from error
        return sorted(map(_entry, there), key=lambda entry: (entry.changed_at, entry.name))

    def view(self, name: str) -> ArchiveView:
        """View what an archive says of itself. Raises NameUnknown, StorageFailed."""
        with self.open(name) as file:
            status = os.fstat(file.fileno())
            like = (status.st_ino, status.st_size, status.st_mtime_ns)
            known = self._known.get(name)
            if known is None or known[0] != like:
                if len(self._known) > 2 * ARCHIVES_SHOWN:
                    self._known.clear()
                known = self._known[name] = (like, _looked(name, file, status.st_size))
            return known[1]

    def open(self, name: str) -> BinaryIO:
        """Open an archive's file. Raises NameUnknown, StorageFailed."""
        try:
            descriptor = open_regular(self.directory / name)
        except FileNotFoundError:
            raise NameUnknown(f"no archive {name} on this member") from None
        except OSError as error:
            raise refused(self.directory, error, name) from error
        return os.fdopen(descriptor, "rb")

    def piece(self, name: str, offset: int, length: int) -> Piece:
        """Read some bytes of an archive. Raises NameUnknown, StorageFailed."""
        with self.open(name) as file:
            try:
                return Piece(data=os.pread(file.fileno(), length, offset), size=os.fstat(file.fileno()).st_size)
            except OSError as error:
                raise refused(self.directory, error) from error

    def receive(self, name: str, offset: int, size: int, data: bytes) -> int:
        """Write some bytes of an archive that is brought here; returns how many bytes of it are here now.

        Raises NameTaken, ArchiveInvalid when all came and they are no whole archive, StorageFailed.
        """
        part = self.directory / f".upload-{name}{_PART}"
        if os.path.lexists(self.directory / name):
            raise NameTaken(f"this member has an archive {name}")
        try:
            with os.fdopen(open_regular(part, os.O_RDWR | os.O_CREAT), "r+b") as file:
                have = file.seek(0, os.SEEK_END)
                if have > size:
                    have = file.truncate(0)
                if data and offset == have:
                    file.seek(have)
                    file.write(data)
                    have += len(data)
                if have < size:
                    return have
                file.flush()
                archives.check_copy(file)
                os.fsync(file.fileno())
            part.rename(self.directory / name)
            sync_directory(self.directory)
        except ArchiveInvalid:
            part.unlink(missing_ok=True)
            raise
        except OSError as error:
            if error.errno in _FULL:  # nothing else would fit either, as long as this is here
                part.unlink(missing_ok=True)
            raise refused(self.directory, error, part.name) from error
        return have

    def remove(self, name: str) -> None:
        """Remove an archive. Raises NameUnknown, StorageFailed."""
        try:
            (self.directory / name).unlink()
            sync_directory(self.directory)
        except FileNotFoundError:
            raise NameUnknown(f"no archive {name} on this member") from None
        except OSError as error:
            raise refused(self.directory, error) from error

    def retire(self, newest: str, keep: int) -> list[str]:
        """Remove all but the newest `keep` archives that the schedule made of a cluster; returns their names.

        Newer is an archive that is later in the log of the same instance, because a clock may have been wrong. An
        archive of another instance is older than `newest`.

        Args:
            newest: the archive just made, which stays.

        Raises NameUnknown, ArchiveInvalid, StorageFailed.
        """
        last = self._header(newest)
        found: list[tuple[bool, int, int, str]] = []
        for name in self.names():
            with suppress(NameUnknown, ArchiveInvalid, StorageFailed):  # removed meanwhile, none, or not to be read
                header = self._header(name) if is_scheduled(name) else None
                if header is not None and header.cluster == last.cluster:
                    same = header.instance == last.instance
                    found.append((same, header.index if same else 0, header.created_at, name))
        others = [name for *_, name in sorted(found) if name != newest]
        retired = others[: max(0, len(others) + 1 - keep)]
        return [name for name in retired if self._is_removed(name)]

    def _is_removed(self, name: str) -> bool:
        """Remove an archive, and tell whether that went well; trouble with one archive does not keep another."""
        try:
            self.remove(name)
        except NameUnknown:
            return False
        except StorageFailed as error:
            _log.warning("not removed", file=name, problem=str(error))
            return False
        return True

    def _header(self, name: str) -> Header:
        with self.open(name) as file:
            try:
                return archives.outline(file).header
            except OSError as error:
                raise refused(self.directory, error) from error


def view(name: str, about: Outline) -> ArchiveView:
    """Make the view of an archive from what it says of itself."""
    header, manifest = about.header, about.manifest
    return ArchiveView(
        name=name,
        size=about.size,
        created_at=header.created_at // 1000,
        id=header.id,
        cluster=header.cluster,
        label=header.label,
        index=header.index,
        member=header.member,
        product=header.product,
        generation=header.generation,
        items=manifest.items,
        hash=manifest.hash,
    )


def _looked(name: str, file: BinaryIO, size: int) -> ArchiveView:
    try:
        return view(name, archives.outline(file))
    except ArchiveInvalid as error:
        return ArchiveView(name=name, size=size, problem=str(error))
    except OSError as error:
        return ArchiveView(name=name, size=size, problem=error.strerror or "it cannot be read")


class NewArchive:
    """A file that becomes an archive when it is finished, and nothing before.

    It may be discarded while a thread still writes to it: the write ends with an error, and reaches no other file.

    Raises StorageFailed at construction and from every method but `discard`.
    """

    def __init__(self, directory: Path, stem: str) -> None:
        self._directory: Final = directory
        self._stem: Final = stem
        self._path: Final = directory / f".{stem}-{os.urandom(4).hex()}{_PART}"
        self._turn: Final = threading.Lock()
        try:
            self._descriptor = open_regular(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise refused(directory, error) from error

    def write(self, data: bytes) -> None:
        """Append bytes to the file."""
        with self._turn:
            self._check_open()
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except OSError as error:
                raise refused(self._directory, error) from error

    def finish(self) -> str:
        """Give the file its name, durably, and return the name."""
        with self._turn:
            self._check_open()
            try:
                os.fsync(self._descriptor)
                os.close(self._descriptor)
                self._descriptor = -1
                name = self._named()
                sync_directory(self._directory)
            except OSError as error:
                raise refused(self._directory, error) from error
            return name

    def _check_open(self) -> None:
        if self._descriptor < 0:
            raise StorageFailed(f"{self._directory}: this archive was given up")

    def _named(self) -> str:
        """Take the first name that is free; another archive of the same second may have it."""
        number = 1
        while True:
            name = f"{self._stem}{'' if number == 1 else f'-{number}'}{SUFFIX}"
            try:
                (self._directory / name).hardlink_to(self._path)
            except FileExistsError:
                number += 1
                continue
            self._path.unlink()
            return name

    def discard(self) -> None:
        """Remove the file, unless it is finished."""
        with self._turn, suppress(OSError):
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
            self._path.unlink(missing_ok=True)
