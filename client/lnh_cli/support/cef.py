"""Renders records of an audit trail in the Common Event Format (CEF 0), one line a record, for a SIEM.

Hash and previous hash come along, so an event can be found in the trail; what proves the trail is the trail itself.
"""

from __future__ import annotations

import json
from typing import Final

from lnh_common import VERSION
from lnh_common.wire.audit import RecordLine

_DONE: Final = frozenset({"ok", "begun"})
_LOW, _HIGH = 3, 7  # severities, of ten


def cef(record: RecordLine) -> str:
    """Render one record, without a line's end."""
    done = record.outcome in _DONE
    head = ("CEF:0", "lnh", "hsm", VERSION, record.operation, record.operation, str(_LOW if done else _HIGH))
    fields = {
        "rt": record.time,
        "externalId": record.index,
        "dvchost": record.member,
        "suser": record.identity,
        "spriv": record.role,
        "act": record.operation,
        "cs1Label": "target",
        "cs1": record.target,
        "outcome": "success" if done else "failure",
        "reason": record.outcome,
        "cs2Label": "hash",
        "cs2": record.hash,
        "cs3Label": "previous",
        "cs3": record.previous,
        "msg": json.dumps(record.detail, separators=(",", ":")),
    }
    said = " ".join(f"{name}={_value(str(value))}" for name, value in fields.items() if value != "")
    return "|".join((head[0], *map(_header, head[1:]), said))


def _header(text: str) -> str:
    return _plain(text.replace("\\", "\\\\").replace("|", "\\|"))


def _value(text: str) -> str:
    return _plain(text.replace("\\", "\\\\").replace("=", "\\=").replace("\n", "\\n").replace("\r", "\\r"))


def _plain(text: str) -> str:
    """Escape what a line must not hold, as Python spells it."""
    return "".join(each if each.isprintable() else each.encode("unicode-escape").decode() for each in text)
