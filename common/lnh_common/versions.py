"""Knows which versions of the product run together, and what may be written while an older one takes part.

Members whose versions are at most one minor step apart run together. A cluster has a version of its own, MAJOR.MINOR:
nothing is written, and no order given, that a member of that version could not read. An administrator raises it once
every member has the new version (`lnh cluster upgrade`); until then any member may go back to the version before, and
from then on none may (docs/adr/0049-the-clusters-version.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lnh_common.errors import UnsupportedVersion

MINOR_STEPS: Final = 1
FIRST: Final = "0.1"  # of a cluster whose record names none
# What a cluster has since this version of its own, beside operations (`messages.base.Operation.since`).
DOORS_SINCE: Final = "0.2"  # the keys of balancers in the list of members
UNCHANGED_SINCE: Final = "0.2"  # the guard of a commit that a table has certain items and no others
# Every version that runs beside this one knows the other fields.
POLICY_FIELDS_SINCE: Final = {"session_lifetime": "0.2", "dual_control": "0.2", "lock_after": "0.2"}


def check_compatible(own: str, other: str) -> None:
    """Raise UnsupportedVersion unless members of these two versions (MAJOR.MINOR.PATCH) run together."""
    mine, theirs = _parts(own), _parts(other)
    if mine is None or theirs is None or mine[0] != theirs[0] or abs(mine[1] - theirs[1]) > MINOR_STEPS:
        raise UnsupportedVersion(
            f"version {other} and version {own} do not run together: at most {MINOR_STEPS} minor step apart"
        )


def minor(product: str) -> str:
    """Return MAJOR.MINOR of a version."""
    major, _, rest = product.partition(".")
    return f"{major}.{rest.partition('.')[0]}"


def is_since(product: str, since: str) -> bool:
    """Tell whether a version is `since` or a later one; one that does not parse is not."""
    found, wanted = _parts(product), _parts(since)
    return found is not None and wanted is not None and found >= wanted


def latest(products: Iterable[str]) -> str:
    """Return the latest of some versions, MAJOR.MINOR; `FIRST` without any."""
    return max(products, key=lambda each: _parts(each) or (0, 0), default=FIRST)


def check_takes_part(product: str, cluster: str) -> None:
    """Raise UnsupportedVersion where a member of a version reads not all that a cluster of a version writes."""
    if not is_since(product, cluster):
        raise UnsupportedVersion(
            f"the cluster's version is {cluster}, and this member runs {product or 'one that it did not tell'}",
            {"advice": f"install version {cluster} on it: since lnh cluster upgrade no older one takes part"},
        )


def _parts(version: str) -> tuple[int, int] | None:
    major, _, rest = version.partition(".")
    minor_ = rest.partition(".")[0]
    if not (major.isascii() and major.isdecimal() and minor_.isascii() and minor_.isdecimal()):
        return None
    return int(major), int(minor_)
