"""Draws a share as a QR code, for a terminal or as an SVG: it says the share's letters and digits, in one line.

The drawing is segno's, which comes with `lnh[qr]`. A reader that types what it sees answers the prompt for a share.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from lnh_common.errors import NotPossible

if TYPE_CHECKING:
    import segno

_BORDER: Final = 4  # modules, as ISO/IEC 18004 wants it
_SCALE: Final = 4  # of the SVG, user units a module
# Two rows of modules in one line of characters; what is dark is drawn, as ink on paper is.
_BLOCKS: Final = {(0, 0): " ", (0, 1): "▄", (1, 0): "▀", (1, 1): "█"}


def check_installed() -> None:
    """Raise NotPossible where codes cannot be drawn."""
    try:
        import segno  # noqa: F401  # whether it is there
    except ImportError:
        said = "segno is not installed, by which QR codes are drawn"
        raise NotPossible(said, {"advice": "pip install 'lnh[qr]', or leave --qr out"}) from None


def letters(share: str) -> str:
    """Return a share as its code has it: its letters and digits, without blanks and without the line for the reader."""
    return "".join("".join(row.split()) for row in share.splitlines() if not row.startswith("#"))


def code(share: str) -> segno.QRCode:
    """Encode a share so that a quarter of the code may be lost: 37 modules a side."""
    import segno

    return segno.make_qr(letters(share), error="q", mode="alphanumeric", boost_error=False)


def lines(share: str) -> list[str]:
    """Draw a share's code in characters: 23 lines of 45."""
    rows = [[int(dark > 0) for dark in row] for row in code(share).matrix_iter(border=_BORDER)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    return [
        "".join(_BLOCKS[upper, lower] for upper, lower in zip(above, below, strict=True))
        for above, below in zip(rows[::2], rows[1::2], strict=True)
    ]


def svg(share: str) -> str:
    """Draw a share's code as an SVG."""
    drawn = io.BytesIO()
    code(share).save(drawn, kind="svg", border=_BORDER, scale=_SCALE, light="#fff")
    return drawn.getvalue().decode()
