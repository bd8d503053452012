"""Messages about a member's audit trail, as it is exported."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from lnh_common.messages.base import Message, Seal, operation

Index = Annotated[int, msgspec.Meta(ge=0)]


class ReadTrail(Message):
    """Ask for the lines of the member's audit trail with an index above `after`, as many as one answer holds.

    Args:
        until: none behind this index; 0 takes all there are.
    """

    after: Index = 0
    until: Index = 0


class TrailLines(Message):
    """Answer with lines as they stand in the trail, records and heads, oldest first.

    Args:
        lines: without their ends.
        index: of the last of them; that which was asked for where there is none.
        last: index of the trail's last line, which a head of this HSM signs.
    """

    lines: tuple[str, ...]
    index: int
    last: int


AUDIT_EXPORT: Final = operation("audit.export", ReadTrail, TrailLines, Seal.SESSION)
READ_TRAIL: Final = operation("core.audit.read", ReadTrail, TrailLines)
