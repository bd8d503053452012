"""Makes the guards of a commit that are about more than one item."""

from __future__ import annotations

from collections.abc import Iterable

from lnh_common.messages import store
from lnh_services.hsm.records import TABLES, Record


def unchanged(kind: type[Record], items: Iterable[store.Item]) -> store.Unchanged:
    """Make the change that has a commit refused where the table of a kind has other items than these."""
    versions = store.versions_hash((item.key.id, item.version) for item in items)
    return store.Unchanged(key=store.Key(table=TABLES[kind]), hash=versions)
