"""The lines of an audit trail: what each says, how it is spelt, and what proves that none was edited.

A line names the hash of the line before, so lines are one chain. A head is an HSM's signature over the chain so far:
what stands before a verified head is what that HSM wrote, whole and in order. `Chain` checks lines one after the other,
and needs nothing else but the public half of the HSM's identity. docs/formats/audit.md is exact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lnh_common.wire import codec

FORMAT: Final = "lnh-audit-1"
HEAD_FORMAT: Final = "lnh-audit-head-1"
DROP_FORMAT: Final = "lnh-audit-drop-1"
NO_HASH: Final = bytes(32)


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


@dataclass(frozen=True)
class Position:
    """The end of the chain: its last line's index and hash."""

    index: int = 0
    hash: bytes = NO_HASH


DROP: Final = "audit.drop"  # the record by which the core says which lines it dropped
CORE: Final = "hsm"  # the identity of what the core itself notes


class DropDetail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The detail of that record: all lines up to `last`, whose hash is `hash`, were dropped, as `signer` signed.

    Its own signature, and not the next head, says so: whoever can write lines where the core goes on has them signed.
    """

    last: Annotated[int, msgspec.Meta(ge=1)]
    hash: str
    signer: str
    signature: str = ""

    def signed(self) -> bytes:
        """Return the bytes that the signature covers."""
        return codec.encode([DROP_FORMAT, self.last, bytes.fromhex(self.hash)])


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


class Chain:
    """Checks the lines of a trail in their order.

    Args:
        is_ours: tells whether a raw Ed25519 key is the HSM's whose trail it is.
        anchor: a head that is kept elsewhere, checked to be this HSM's; the trail must contain what it signed.
        whole: the first line is the first of the trail; otherwise it is believed to follow what is not here.
    """

    def __init__(self, is_ours: Callable[[bytes], bool], anchor: HeadLine | None = None, *, whole: bool = True) -> None:
        self._is_ours: Final = is_ours
        self._anchor: Final = anchor
        self.is_signed = False  # by this HSM
        self._before = Position()  # the line before the first that was taken
        self._drops: dict[Position, bool] = {}  # the last lines that were dropped, and whether this HSM says so
        self._met_anchor = anchor is None
        self.after: Position | None = Position() if whole else None
        self.first = 0
        self.records = 0
        self.signatures = 0
        self.signed = 0  # records that a head of this HSM covers
        self.anchored = 0  # records that the anchor covers

    @property
    def end(self) -> Position:
        """The last line that holds; before any, the beginning."""
        return self.after or Position()

    @property
    def lacks_beginning(self) -> bool:
        """Tell whether lines before the first are missing that no record of the trail says were dropped."""
        return self._before != Position() and self._before not in self._drops

    @property
    def lacks_anchor(self) -> bool:
        """Tell whether the line that the anchor signed is missing, and this HSM has not said that it dropped it."""
        return not self._met_anchor and not self._drops.get(self._before, False)

    def take(self, spelling: bytes) -> Line:
        """Check the next line, and return it; raises ChainBroken, and then it is not counted."""
        line = parse_line(spelling, self.after)
        if isinstance(line, HeadLine):
            self._check_head(line)
        if self._anchor is not None and line.index == self._anchor.index - 1 and line.hash != self._anchor.previous:
            raise ChainBroken("not the line that the cluster's log holds the signed hash of")
        if not self.first:
            self.first, self._before = line.index, Position(line.index - 1, bytes.fromhex(line.previous))
        self.after = Position(line.index, bytes.fromhex(line.hash))
        if isinstance(line, RecordLine):
            self.records += 1
            if (line.operation, line.identity) == (DROP, CORE):
                self._note_drop(line)
        else:
            self.signatures += 1
            if self._is_ours(bytes.fromhex(line.signer)):
                self.signed, self.is_signed = self.records, True
        if self._anchor is not None and line.index == self._anchor.index - 1:
            self.anchored, self._met_anchor = self.records, True
        return line

    def _note_drop(self, line: RecordLine) -> None:
        """Believe a record of dropped lines as far as a head of its signer would be believed at that place."""
        try:
            drop = msgspec.convert(line.detail, DropDetail)
            signer = bytes.fromhex(drop.signer)
            Ed25519PublicKey.from_public_bytes(signer).verify(bytes.fromhex(drop.signature), drop.signed())
            last = Position(drop.last, bytes.fromhex(drop.hash))
        except (InvalidSignature, ValueError, msgspec.ValidationError):
            return
        is_ours = self._is_ours(signer)
        if is_ours or not self.is_signed:
            self._drops[last] = is_ours or self._drops.get(last, False)

    def _check_head(self, line: HeadLine) -> None:
        """Raise ChainBroken unless its signer made it, and may have: an HSM's successor cannot be its predecessor."""
        try:
            signer = bytes.fromhex(line.signer)
            Ed25519PublicKey.from_public_bytes(signer).verify(bytes.fromhex(line.signature), line.signed())
        except (InvalidSignature, ValueError):
            raise ChainBroken("its signature is not its signer's") from None
        if self.is_signed and not self._is_ours(signer):
            raise ChainBroken("signed by another HSM after this one had signed")
