"""Knows which versions of the product run together: those at most one minor step apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lnh_common.errors import UnsupportedVersion

MINOR_STEPS: Final = 1
GROUPS_SINCE: Final = (0, 2)
RESTORES_SINCE: Final = (0, 2)
# Of other fields, every version that runs beside this one knows.
POLICY_FIELDS_SINCE: Final = {"session_lifetime": (0, 2), "dual_control": (0, 2), "lock_after": (0, 2)}
ROLES_SINCE: Final = (0, 2)
ROLLOVERS_SINCE: Final = (0, 2)
REKEYS_SINCE: Final = (0, 2)


def check_compatible(own: str, other: str) -> None:
    """Raise UnsupportedVersion unless members of these two versions (MAJOR.MINOR.PATCH) run together."""
    mine, theirs = _parts(own), _parts(other)
    if mine is None or theirs is None or mine[0] != theirs[0] or abs(mine[1] - theirs[1]) > MINOR_STEPS:
        raise UnsupportedVersion(
            f"version {other} and version {own} do not run together: at most {MINOR_STEPS} minor step apart"
        )


def lacking_groups(products: Iterable[str]) -> list[str]:
    """Return the versions that know neither affinity groups nor doors, and cannot read a member list that has some."""
    return _before(products, GROUPS_SINCE)


def lacking_restores(products: Iterable[str]) -> list[str]:
    """Return the versions whose members cannot read the entries of a restore."""
    return _before(products, RESTORES_SINCE)


def lacking_policy_fields(names: Iterable[str], products: Iterable[str]) -> list[str]:
    """Return the versions that do not know one of these fields of a policy, and cannot read a policy that sets it."""
    since = [POLICY_FIELDS_SINCE[name] for name in names if name in POLICY_FIELDS_SINCE]
    return _before(products, max(since)) if since else []


def lacking_roles(products: Iterable[str]) -> list[str]:
    """Return the versions whose members know no custom roles: a user who has one may do nothing there."""
    return _before(products, ROLES_SINCE)


def lacking_rollovers(products: Iterable[str]) -> list[str]:
    """Return the versions whose members know one generation of the SMK alone, and read no record under another."""
    return _before(products, ROLLOVERS_SINCE)


def lacking_rekeys(products: Iterable[str]) -> list[str]:
    """Return the versions whose members open nothing that a keyring's key of before seals."""
    return _before(products, REKEYS_SINCE)


def _before(products: Iterable[str], since: tuple[int, int]) -> list[str]:
    parts = {product: _parts(product) for product in products}
    return sorted(product for product, found in parts.items() if found is not None and found < since)


def _parts(version: str) -> tuple[int, int] | None:
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    if not (major.isascii() and major.isdecimal() and minor.isascii() and minor.isdecimal()):
        return None
    return int(major), int(minor)
