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

import hashlib
import itertools
import json
import math
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lnh_common import limits
from lnh_common.errors import AuditFailed
from lnh_common.events import Log
from lnh_common.files import kind_of, open_regular
from lnh_common.messages.console import AuditReport
from lnh_common.messages.hsm import AuditEntry
from lnh_common.wire import codec
from lnh_services.durable import sync_directory
from lnh_services.hsm.audit.refusals import Refusals

FORMAT: Final = "lnh-audit-1"
HEAD_FORMAT: Final = "lnh-audit-head-1"
NO_HASH: Final = bytes(32)
_SEGMENT_DIGITS: Final = 6


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields that both kinds of line have."""

    def spelling(self) -> bytes:
        """Spell the line as it stands in the file, with its end."""
        return json.dumps(msgspec.structs.asdict(self), separators=(",", ":")).encode() + b"\n"


class RecordLine(_Line, frozen=True, forbid_unknown_fields=True):
    """An audited act. `time` is UTC milliseconds, hashes are hexadecimal."""

    index: int
    time: int
    member: str
    identity: str
    role: str
    operation: str
    target: str
    outcome: str
    detail: dict[str, Any]
    previous: str
    hash: str = ""

    def digest(self) -> bytes:
        """Hash everything the line says, and the hash of the line before."""
        fields = [
            FORMAT, "record", self.index, self.time, self.member, self.identity, self.role, self.operation,
            self.target, self.outcome, self.detail, bytes.fromhex(self.previous),
        ]  # fmt: skip
        return hashlib.sha256(codec.encode(fields)).digest()


class HeadLine(_Line, frozen=True, forbid_unknown_fields=True):
    """The signature of `signer` (a raw Ed25519 key) over the chain up to the line before."""

    index: int
    time: int
    signer: str
    signature: str
    previous: str
    hash: str = ""

    def digest(self) -> bytes:
        """Hash everything the line says, and the hash of the line before."""
        signer, signature, previous = map(bytes.fromhex, (self.signer, self.signature, self.previous))
        return hashlib.sha256(
            codec.encode([FORMAT, "head", self.index, self.time, signer, signature, previous])
        ).digest()

    def signed(self) -> bytes:
        """Return the bytes that the signature covers."""
        return codec.encode([HEAD_FORMAT, self.index, self.time, bytes.fromhex(self.previous)])


Line = RecordLine | HeadLine
AnyLine = TypeVar("AnyLine", RecordLine, HeadLine)


@dataclass(frozen=True)
class Position:
    """The end of the chain: its last line's index and hash."""

    index: int = 0
    hash: bytes = NO_HASH


class ChainBroken(Exception):
    """A line does not continue the chain; the message says why."""


def parse_line(spelling: bytes, after: Position | None) -> Line:
    """Parse a line that is spelt as this module spells, hashes to what it says and continues `after`.

    Args:
        after: None for the first line that is looked at, which is then believed.

    Raises ChainBroken.
    """
    try:
        value = json.loads(spelling)
        kind: type[Line] = HeadLine if "signature" in value else RecordLine
        line = msgspec.convert(value, kind)
        digest = line.digest()
    except (ValueError, TypeError, RecursionError, msgspec.ValidationError):
        raise ChainBroken("not a line of an audit trail") from None
    if line.spelling() != spelling:
        raise ChainBroken("spelt in another way than it was written")
    if digest.hex() != line.hash:
        raise ChainBroken("its hash is not that of what it says")
    if after is not None and line.index != after.index + 1:
        raise ChainBroken(f"index {line.index} where {after.index + 1} belongs")
    if after is not None and line.previous != after.hash.hex():
        raise ChainBroken("it does not name the line before by its hash")
    return line


def segments(path: Path) -> list[Path]:
    """List the files of the trail whose newest is `path`, oldest first; those that are there."""
    return [each for each in _named_as_segments(path) if stat.S_ISREG(each.lstat().st_mode)]


def _named_as_segments(path: Path) -> list[Path]:
    pattern = f"{path.stem}-{'[0-9]' * _SEGMENT_DIGITS}{path.suffix}"
    return [*sorted(path.parent.glob(pattern)), *([path] if os.path.lexists(path) else [])]


def _problem_of_others(path: Path) -> str:
    """Name a path that has a segment's name and is no file; "" if there is none."""
    others = [(each.name, kind) for each in _named_as_segments(path) if (kind := kind_of(each.lstat().st_mode))]
    return "; ".join(f"{name} is {kind}, not a segment of the trail" for name, kind in others)


class Trail:
    """The writing end of the trail; there is one a member, in the hsm core.

    Args:
        path: of the newest segment; older ones lie beside it.
        member: this member's name, for the records.
        segment_bytes: a new segment is begun beyond this size.
    """

    def __init__(self, path: Path, member: str, segment_bytes: int = limits.AUDIT_SEGMENT_BYTES) -> None:
        self._path: Final = path
        self._member: Final = member
        self._segment_bytes: Final = segment_bytes
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
        """Write a head and bring everything to the disk; raises AuditFailed."""
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
        self._files: Final = [(each.name, os.fdopen(open_regular(each), "rb")) for each in segments(path)]

    def verify(self, public: bytes | None, anchor: HeadLine | None = None) -> AuditReport:
        """Check the whole trail, and close.

        Args:
            public: this HSM's identity (32 bytes), or None before it has one.
            anchor: a head that is kept elsewhere, checked to be this HSM's; the trail must contain what it signed.

        `signed` counts the records that a head of this HSM covers. `problem` names file, line and what is wrong with
        the first line that does not hold; lines after it prove nothing and are not counted.
        """
        after = Position()
        records = signatures = signed = anchored = 0
        ours = False
        name, number, problem = self._path.name, 0, ""
        for name, number, spelling in self._lines():
            if self._last is not None and after.index >= self._last:
                continue
            try:
                line = parse_line(spelling, after)
                if isinstance(line, HeadLine):
                    _check_head(line, public, ours=ours)
                if anchor:
                    _check_anchored(line, anchor)
            except ChainBroken as error:
                problem = f"{name} line {number}: {error}"
                break
            after = Position(line.index, bytes.fromhex(line.hash))
            if isinstance(line, RecordLine):
                records += 1
            else:
                signatures += 1
                if public is not None and line.signer == public.hex():
                    signed, ours = records, True
            if anchor and line.index == anchor.index - 1:
                anchored = records
        else:
            if anchor and after.index < anchor.index - 1:
                problem = f"{name} ends at line {number}: the cluster's log holds a head of {anchor.index - 1} lines"
        self._close()
        return AuditReport(
            records=records,
            signatures=signatures,
            signed=signed,
            anchored=anchored,
            head=after.hash.hex(),
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


def page(path: Path, after: int, limit: int) -> tuple[dict[str, Any], ...]:
    """Return up to `limit` records with an index above `after`, oldest first; raises AuditFailed at a broken line."""
    there = segments(path)
    firsts = [next((_index(line) for line in _lines(segment)), None) for segment in there]
    begin = 0
    for position, first in enumerate(firsts):
        if first is not None and first <= after + 1:
            begin = position
    lines = itertools.chain.from_iterable(_lines(segment) for segment in there[begin:])
    found = (record for record in map(_shown, lines) if record and record["index"] > after)
    return tuple(itertools.islice(found, limit))


def _check_head(line: HeadLine, public: bytes | None, *, ours: bool) -> None:
    """Raise ChainBroken unless its signer made it, and may have: an HSM's successor cannot be its predecessor."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(line.signer)).verify(
            bytes.fromhex(line.signature), line.signed()
        )
    except (InvalidSignature, ValueError):
        raise ChainBroken("its signature is not its signer's") from None
    if ours and public is not None and line.signer != public.hex():
        raise ChainBroken("signed by another HSM after this one had signed")


def _check_anchored(line: Line, anchor: HeadLine) -> None:
    """Raise ChainBroken for a line that stands where the anchored head's last line stood, and is another."""
    if line.index == anchor.index - 1 and line.hash != anchor.previous:
        raise ChainBroken("not the line that the cluster's log holds the signed hash of")


def _lines(path: Path) -> Iterator[bytes]:
    with os.fdopen(open_regular(path), "rb") as file:
        yield from file


def _index(spelling: bytes) -> int | None:
    try:
        return msgspec.json.decode(spelling, type=dict[str, Any]).get("index")
    except (msgspec.DecodeError, ValueError):
        return None


def _shown(spelling: bytes) -> dict[str, Any] | None:
    try:
        line = parse_line(spelling, None)
    except ChainBroken as error:
        raise AuditFailed(f"the audit trail is broken: {error}; `lnh audit verify` says where") from None
    return msgspec.structs.asdict(line) if isinstance(line, RecordLine) else None


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
