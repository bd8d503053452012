"""Makes the guards of a commit that are about more than one item, and checks that every member can read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lnh_common.errors import NotPossible
from lnh_common.messages import membership, store
from lnh_common.messages.base import Empty
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.records import TABLES, Record


def unchanged(kind: type[Record], items: Iterable[store.Item]) -> store.Unchanged:
    """Make the change that has a commit refused where the table of a kind has other items than these."""
    versions = store.versions_hash((item.key.id, item.version) for item in items)
    return store.Unchanged(key=store.Key(table=TABLES[kind]), hash=versions)


def check_versions(lacking: Callable[[Iterable[str]], list[str]], what: str) -> Steps[None]:
    """Raise NotPossible while a member takes part whose version is one of those that `lacking` returns.

    Args:
        what: says what waits for that, as the beginning of a sentence.
    """
    view = yield from ask(Peer.MEMBERSHIP, membership.STATUS, Empty())
    old = lacking(each.product for each in view.members)
    if old:
        raise NotPossible(
            f"{what} once no member runs version {', '.join(old)} any more",
            {"advice": "upgrade the other members first: lnh member list shows their versions"},
        )
