"""Text from outside: what a name may not contain, and how any text is shown.

A name, a label or an error that another user wrote may hold characters that are no text: controls (ESC and its C1
kin drive a terminal, a line feed forges a row), marks that turn the direction of what follows, and characters of no
width, by which two names look the same. A name that has one is refused where it enters: `NAME` is in the types of the
messages that bring one. What may hold anything - the label of an object is a user's own data - is escaped wherever it
is shown, logged or exported: `shown` for a line of text, `json_text` for JSON. Letters that only look alike, and the
joiners that Persian and emoji need, are left as they are.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

# Controls (Cc); soft hyphen; marks and overrides of direction; no width; line and paragraph separators; halves of
# pairs; annotations; tags.
_UNSAFE: Final = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"
)
_FOUND: Final = re.compile(f"[{_UNSAFE}]")
_FOUND_IN_JSON: Final = re.compile(f"[{_UNSAFE}]".replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))  # a line feed is its own
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

NAME: Final = rf"\A[^{_UNSAFE}]*\Z"  # of `msgspec.Meta(pattern=...)`
NAME_WORDS: Final = "text without control characters, marks of direction and characters of no width"


def is_name(text: str) -> bool:
    """Tell whether a text may be a name: it holds no character that is no text."""
    return _FOUND.search(text) is None


def shown(text: str) -> str:
    r"""Escape a text to one line that does nothing to a terminal; controls become `\x1b`, `\n` and so on."""
    return _FOUND.sub(_spelt, text)


def json_text(value: Any, indent: int | None = None) -> str:
    """Encode a value as JSON that does nothing to a terminal, and reads back as the same value."""
    return _FOUND_IN_JSON.sub(_spelt_in_json, json.dumps(value, indent=indent, ensure_ascii=False))


def _spelt(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _spelt_in_json(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]
