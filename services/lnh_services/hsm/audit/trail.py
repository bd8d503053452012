"""The audit trail: who did what, in lines that prove they were not edited.

    log/audit.jsonl, and before it log/audit-000001.jsonl ...: one JSON object a line, of two kinds

    record  index, time, member, identity, role, operation, target, outcome, detail, previous, hash
    head    index, time, signer, signature, previous, hash

`hash` covers all the line says and `previous`, the hash of the line before, so the lines are one chain
through all segments. A head is the HSM's signature over the chain so far: what stands before a
verified head is what this HSM wrote, whole and in order. Lines after the last head are chained only.
A line has exactly one spelling, so no byte of it can change unnoticed. docs/formats/audit.md is exact.
"""

from __future__ import annotations

import itertools
import math
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lnh_common import limits
from lnh_common.errors import AuditFailed
from lnh_common.events import Log
from lnh_common.files import kind_of, open_regular, sync_directory
from lnh_common.messages.console import AuditReport
from lnh_common.messages.hsm import AuditEntry
from lnh_common.wire.audit import (
    CORE,
    DROP,
    Chain,
    ChainBroken,
    DropDetail,
    HeadLine,
    Line,
    Position,
    RecordLine,
    parse_line,
)
from lnh_services.hsm.audit.refusals import Refusals

_SEGMENT_DIGITS: Final = 6


AnyLine = TypeVar("AnyLine", RecordLine, HeadLine)


def segments(path: Path) -> list[Path]:
    """List the files of the trail whose newest is `path`, oldest first; those that are there."""
    return [each for each, mode in _modes(path) if stat.S_ISREG(mode)]


def _named_as_segments(path: Path) -> list[Path]:
    pattern = f"{path.stem}-{'[0-9]' * _SEGMENT_DIGITS}{path.suffix}"
    return [*sorted(path.parent.glob(pattern)), *([path] if os.path.lexists(path) else [])]


def _modes(path: Path) -> list[tuple[Path, int]]:
    found: list[tuple[Path, int]] = []
    for each in _named_as_segments(path):
        with suppress(FileNotFoundError):  # it was renamed or dropped meanwhile
            found.append((each, each.lstat().st_mode))
    return found


def _opened(path: Path) -> list[tuple[str, BinaryIO]]:
    """Open all segments, oldest first, as they are at one moment: looked for anew when some were renamed meanwhile."""
    while True:
        with ExitStack() as closing:
            there = segments(path)
            with suppress(FileNotFoundError):
                files: list[tuple[str, BinaryIO]] = [
                    (each.name, closing.enter_context(os.fdopen(open_regular(each), "rb"))) for each in there
                ]
                if segments(path) == there:
                    closing.pop_all()
                    return files


def _problem_of_others(path: Path) -> str:
    """Name a path that has a segment's name and is no file; "" if there is none."""
    others = [(each.name, kind) for each, mode in _modes(path) if (kind := kind_of(mode))]
    return "; ".join(f"{name} is {kind}, not a segment of the trail" for name, kind in others)


class Trail:
    """The writing end of the trail; there is one a member, in the hsm core.

    Args:
        path: of the newest segment; older ones lie beside it.
        member: this member's name, for the records.
        segment_bytes: a new segment is begun beyond this size.
        most_segments: so many are kept; beyond that the oldest is dropped, and a record says which lines it had.
    """

    def __init__(
        self,
        path: Path,
        member: str,
        segment_bytes: int = limits.AUDIT_SEGMENT_BYTES,
        most_segments: int = limits.AUDIT_SEGMENTS,
    ) -> None:
        self._path: Final = path
        self._member: Final = member
        self._segment_bytes: Final = segment_bytes
        self._most_segments: Final = most_segments
        self._may_be_many = True  # segments; looked at after each new one
        self._log: Final = Log("hsm.audit")
        self._position = Position()
        self._unsigned = 0
        self._size = 0
        self._descriptor = -1
        self._problem = ""
        self._notes: tuple[AuditEntry, ...] = ()  # to be said first, as soon as the disk takes it
        self._head: HeadLine | None = None
        self._refusals: Final = Refusals()

    @property
    def path(self) -> Path:
        """The newest segment."""
        return self._path

    @property
    def head(self) -> HeadLine | None:
        """The newest head in the newest segment."""
        return self._head

    @property
    def unsigned(self) -> int:
        """The number of records since the last head."""
        return self._unsigned

    @property
    def position(self) -> Position:
        """The end of the chain."""
        return self._position

    def open(self, now: int) -> None:
        """Go on at the trail's end, and record what a crash or an editor did to it.

        Args:
            now: UTC milliseconds.

        Raises AuditFailed when it cannot be read. A trail that cannot be written now is tried again with each `append`.
        """
        try:
            notes = self._resume()
        except OSError as error:
            raise AuditFailed(f"the audit trail could not be read: {error.strerror}") from error
        opened = AuditEntry(identity="hsm", role="", operation="audit.open", target="", outcome="ok", detail=notes)
        self._notes = (opened,)
        with suppress(AuditFailed):
            self.append((), now)

    def append(self, entries: Sequence[AuditEntry], now: int, *, durable: bool = False) -> int:
        """Write records; they are in the operating system's hands, and on the disk if `durable`.

        Refusals that repeat are counted, and written by `tell_refusals`.

        Returns the last line's index. Raises AuditFailed, and then none of them is in the trail.
        """
        sifted = self._refusals.sift(entries, now)
        try:
            self._append((*self._notes, *sifted), now, durable=durable)
        except AuditFailed:
            self._refusals.missed(sifted, now)
            raise
        self._notes = ()
        return self._position.index

    def _drop_oldest(self, key: Ed25519PrivateKey, now: int) -> None:
        """Drop segments beyond the bound, each once a record on the disk says so, which this key signs.

        What fails is tried again with the next head.
        """
        while self._may_be_many:
            try:
                there = segments(self._path)
                self._may_be_many = len(there) > self._most_segments
                if self._may_be_many:
                    self._append([_dropping(there[0], key)], now, durable=True)
                    there[0].unlink()
                    sync_directory(self._path.parent)
            except (AuditFailed, OSError) as error:
                self._log.warning("oldest segment not dropped", problem=str(error))
                return

    def tell_refusals(self, now: int, *, all_of_them: bool = False) -> None:
        """Write refusals that were counted for a minute, or all; raises AuditFailed, and then they stay counted."""
        self._append(self._refusals.due(now, all_of_them=all_of_them), now, durable=False)
        self._refusals.written(now, all_of_them=all_of_them)

    def _append(self, entries: Sequence[AuditEntry], now: int, *, durable: bool) -> None:
        if not entries:
            return
        position = self._position
        spelled = bytearray()
        for entry in entries:
            line = self._chain(self._record(entry, position, now))
            spelled += line.spelling()
            position = Position(line.index, bytes.fromhex(line.hash))
        self._write(bytes(spelled), durable=durable)
        self._position = position
        self._unsigned += len(entries)

    def sign(self, key: Ed25519PrivateKey, now: int) -> None:
        """Drop what is beyond the bound, write a head, and bring everything to the disk; raises AuditFailed."""
        self._drop_oldest(key, now)
        signed = self._position
        unsigned = HeadLine(
            index=signed.index + 1,
            time=now,
            signer=key.public_key().public_bytes_raw().hex(),
            signature="",
            previous=signed.hash.hex(),
        )
        line = self._chain(msgspec.structs.replace(unsigned, signature=key.sign(unsigned.signed()).hex()))
        self._write(line.spelling(), durable=True)
        self._position = Position(line.index, bytes.fromhex(line.hash))
        self._unsigned = 0
        self._head = line

    def close(self) -> None:
        """Close the newest segment."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _record(self, entry: AuditEntry, after: Position, now: int) -> RecordLine:
        return RecordLine(
            index=after.index + 1,
            time=now,
            member=self._member,
            identity=_text(entry.identity),
            role=_text(entry.role),
            operation=_text(entry.operation),
            target=_text(entry.target),
            outcome=_text(entry.outcome),
            detail=_plain(entry.detail),
            previous=after.hash.hex(),
        )

    @staticmethod
    def _chain(line: AnyLine) -> AnyLine:
        return msgspec.structs.replace(line, hash=line.digest().hex())

    def _write(self, data: bytes, *, durable: bool) -> None:
        if self._problem:
            raise AuditFailed(self._problem)
        try:
            if self._descriptor < 0:
                self._open_segment()
            if self._size and self._size + len(data) > self._segment_bytes:
                self._rotate()
            self._write_whole(data, durable=durable)
        except OSError as error:
            self._log.failure("audit trail not written", problem=error.strerror)
            raise AuditFailed(f"the audit trail could not be written: {error.strerror}") from error
        self._size += len(data)

    def _write_whole(self, data: bytes, *, durable: bool) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
            if durable:
                os.fsync(self._descriptor)
        except OSError:
            self._take_back()
            raise

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError as error:
            # Half a line may stand there: nothing may follow it before a restart has looked.
            self._problem = f"the audit trail ends in half a line that could not be cut: {error.strerror}"

    def _rotate(self) -> None:
        os.fsync(self._descriptor)
        older = _named_as_segments(self._path)
        number = 1 + max((int(path.stem[-_SEGMENT_DIGITS:]) for path in older if path != self._path), default=0)
        self._path.rename(self._path.with_name(f"{self._path.stem}-{number:0{_SEGMENT_DIGITS}}{self._path.suffix}"))
        self.close()
        self._open_segment()
        self._may_be_many = True

    def _open_segment(self) -> None:
        self._descriptor = open_regular(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._size = os.fstat(self._descriptor).st_size
        sync_directory(self._path.parent)

    def _resume(self) -> dict[str, Any]:
        """Read the newest segment, cut a torn line that a crash left, and return what was found."""
        there = segments(self._path)
        if not there:
            return {}
        newest = there[-1]
        cut = _cut_torn_line(newest)
        notes: dict[str, Any] = {"cut_bytes": cut} if cut else {}
        after: Position | None = None
        try:
            for spelling in _lines(newest):
                line = parse_line(spelling, after)
                after = Position(line.index, bytes.fromhex(line.hash))
                if isinstance(line, HeadLine):
                    self._unsigned, self._head = 0, line
                else:
                    self._unsigned += 1
        except ChainBroken as error:
            # It is evidence: leave it as it is, and go on behind it where `verify` will stop and say so.
            notes["broken_after"] = after.index if after else 0
            self._log.failure("audit trail broken", segment=newest.name, problem=str(error))
            self._position = after or Position()
            if newest == self._path:
                self._descriptor = open_regular(newest)
                self._rotate()
                self.close()
        if after is not None:
            self._position = after
        elif len(there) > 1 and not notes.get("broken_after"):
            self._position = _last_position(there[-2])
        if notes:
            self._log.warning("audit trail resumed", **notes)
        return notes


class Reading:
    """The trail as it is now, opened whole, so that later lines do not disturb the reader.

    Args:
        path: of the newest segment.
        last: index of the last line to look at; None for all.
    """

    def __init__(self, path: Path, last: int | None = None) -> None:
        self._path: Final = path
        self._last: Final = last
        self._others: Final = _problem_of_others(path)
        self._files: Final = _opened(path)

    def verify(self, public: bytes | None, anchor: HeadLine | None = None) -> AuditReport:
        """Check the whole trail, and close.

        Args:
            public: this HSM's identity (32 bytes), or None before it has one.
            anchor: a head that is kept elsewhere, checked to be this HSM's; the trail must contain what it signed.

        `signed` counts the records that a head of this HSM covers. `problem` names file, line and what is wrong with
        the first line that does not hold; lines after it prove nothing and are not counted.
        """
        chain = Chain(lambda signer: public is not None and signer == public, anchor, whole=False)
        name, number, problem = self._path.name, 0, ""
        for name, number, spelling in self._lines():
            if self._last is not None and chain.end.index >= self._last:
                continue
            try:
                chain.take(spelling)
            except ChainBroken as error:
                problem = f"{name} line {number}: {error}"
                break
        else:
            if anchor and chain.end.index < anchor.index - 1:
                problem = f"{name} ends at line {number}: the cluster's log holds a head of {anchor.index - 1} lines"
            elif anchor and chain.lacks_anchor:
                held = f"the cluster's log holds a head of {anchor.index - 1} lines"
                problem = f"{self._files[0][0]} line 1: index {chain.first} where 1 belongs: {held}"
        if chain.lacks_beginning:
            lost = f"index {chain.first} where 1 belongs, and no signed record says that the lines before were dropped"
            problem = "; ".join(filter(None, (f"{self._files[0][0]} line 1: {lost}", problem)))
        self._close()
        return AuditReport(
            records=chain.records,
            signatures=chain.signatures,
            signed=chain.signed,
            anchored=chain.anchored,
            head=chain.end.hash.hex(),
            problem=problem or self._others,
        )

    def _lines(self) -> Iterator[tuple[str, int, bytes]]:
        for name, file in self._files:
            for number, spelling in enumerate(file, start=1):
                yield name, number, spelling

    def _close(self) -> None:
        for _, file in self._files:
            file.close()


def verify(path: Path, public: bytes | None) -> AuditReport:
    """Check the trail whose newest segment is `path`, as `Reading.verify` does."""
    return Reading(path).verify(public)


def holds(path: Path, head: HeadLine) -> bool:
    """Tell whether this head stands in the trail; raises AuditFailed where a broken line does."""
    return next((line for _, line in _held_behind(path, head.index - 1)), None) == head


def page(path: Path, after: int, limit: int) -> tuple[dict[str, Any], ...]:
    """Return up to `limit` records with an index above `after`, oldest first; raises AuditFailed at a broken line."""
    held = (line for _, line in _held_behind(path, after))
    records = (msgspec.structs.asdict(line) for line in held if isinstance(line, RecordLine))
    return tuple(itertools.islice(records, limit))


def lines(path: Path, after: int, until: int, most: int) -> tuple[tuple[str, ...], int]:
    """Return lines as they are spelt, oldest first, and the index of the last of them.

    Args:
        after, until: a line's index is above the first, and the second at most.
        most: bytes; the line that reaches them is the last.

    Raises AuditFailed at a broken line.
    """
    found: list[str] = []
    size, index = 0, after
    for spelling, line in _held_behind(path, after):
        if line.index > until or size >= most:
            break
        found.append(spelling.decode().rstrip("\n"))
        size += len(spelling)
        index = line.index
    return tuple(found), index


def _held_behind(path: Path, after: int) -> Iterator[tuple[bytes, Line]]:
    """Yield the whole lines with an index above `after`, each as it is spelt; raises AuditFailed at a broken one."""
    with ExitStack() as closing:
        files = [closing.enter_context(file) for _, file in _opened(path)]
        firsts = [_index(file.readline()) for file in files]
        begin = max(
            (place for place, first in enumerate(firsts) if first is not None and first <= after + 1), default=0
        )
        for file in files[begin:]:
            file.seek(_offset_behind(file, after))
            for spelling in file:
                if not spelling.endswith(b"\n"):
                    break  # it is being written
                line = _held(spelling)
                if line.index > after:
                    yield spelling, line


def _offset_behind(file: BinaryIO, after: int) -> int:
    """Return the offset of the first line with an index above `after`; of the first line where one has no index."""
    low, high = 0, file.seek(0, os.SEEK_END)  # every line that begins before `low` has a lower index
    while low < high:
        middle = (low + high) // 2
        if middle:
            file.seek(middle - 1)
            file.readline()
        else:
            file.seek(0)
        spelling = file.readline()
        index = _index(spelling) if spelling else after + 1
        if index is None:
            return 0
        if index <= after:
            low = file.tell()
        else:
            high = middle
    return low


def _lines(path: Path) -> Iterator[bytes]:
    with os.fdopen(open_regular(path), "rb") as file:
        yield from file


def _index(spelling: bytes) -> int | None:
    try:
        return msgspec.json.decode(spelling, type=dict[str, Any]).get("index")
    except (msgspec.DecodeError, ValueError):
        return None


def _held(spelling: bytes) -> Line:
    try:
        return parse_line(spelling, None)
    except ChainBroken as error:
        raise AuditFailed(
            f"the audit trail is broken: {error}; `lnh audit verify` says where",
            {"advice": "keep the files log/audit*.jsonl of that member as they are, as evidence"},
        ) from None


def _dropping(segment: Path, key: Ed25519PrivateKey) -> AuditEntry:
    """Make the record that says that a segment is dropped."""
    last = _last_position(segment)
    signer = key.public_key().public_bytes_raw().hex()
    detail = DropDetail(last=last.index, hash=last.hash.hex(), signer=signer)
    detail = msgspec.structs.replace(detail, signature=key.sign(detail.signed()).hex())
    return AuditEntry(
        identity=CORE, role="", operation=DROP, target=segment.name, outcome="ok", detail=msgspec.structs.asdict(detail)
    )


def _last_position(path: Path) -> Position:
    last = next(iter(deque(_lines(path), maxlen=1)), b"")
    try:
        line = parse_line(last, None)
    except ChainBroken:
        return Position()
    return Position(line.index, bytes.fromhex(line.hash))


def _cut_torn_line(path: Path) -> int:
    """Cut a last line without an end, and return its length in bytes."""
    with os.fdopen(open_regular(path), "rb") as file:
        data = file.read()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.truncate(path, whole)
    return len(data) - whole


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


def _plain(value: Any) -> Any:
    """Turn a value into one that JSON and CBOR spell alike: maps in the order of their keys, bytes in hexadecimal."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in sorted((_text(str(k)), v) for k, v in value.items())}
        case list() | tuple():
            return [_plain(item) for item in value]
        case bytes():
            return value.hex()
        case str():
            return _text(value)
        case bool() | int() | None:
            return value
        case float() if math.isfinite(value):
            return value
        case _:
            return str(value)
