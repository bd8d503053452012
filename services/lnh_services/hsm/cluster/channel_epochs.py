"""Decides when the channel's seed changes, when it is offered, and when an old one is erased. Pure, given the time.

The newest seed is the one offered to clients. A new one is drawn a day after the last; the old one is accepted an hour
longer, for clients that were told of it before, and is kept as long as a token sealed under it may live.
"""

from __future__ import annotations

from collections.abc import Callable

from lnh_common import limits
from lnh_common.messages.hsm import ChannelSeed

Seeds = tuple[ChannelSeed, ...]
_LIFE = limits.CHANNEL_EPOCH + limits.CHANNEL_OVERLAP


def rotated(seeds: Seeds, now: int, draw: Callable[[], bytes]) -> Seeds:
    """Return the epochs to hold at `now` (UTC seconds): `seeds` itself when nothing is due.

    Args:
        seeds: oldest first; empty for a new cluster.
        draw: makes a seed of 32 random bytes.

    The newest is never erased, and epoch numbers only grow, whatever the clock did.
    """
    return with_seed(seeds, following(seeds, now, draw), now) if is_due(seeds, now) else pruned(seeds, now)


def is_due(seeds: Seeds, now: int) -> bool:
    """Tell whether a new seed is to be drawn."""
    return not seeds or not _is_fresh(seeds[-1], now)


def following(seeds: Seeds, now: int, draw: Callable[[], bytes], after: int = 0) -> ChannelSeed:
    """Draw a seed of an epoch above all that are held and above `after`."""
    highest = max(after, seeds[-1].epoch if seeds else 0)
    return ChannelSeed(epoch=highest + 1, seed=draw(), end=now + _LIFE)


def with_seed(seeds: Seeds, seed: ChannelSeed, now: int) -> Seeds:
    """Add an epoch, if it is newer than all; one of the newest's epoch takes its place."""
    if seeds and (seed.epoch < seeds[-1].epoch or seed == seeds[-1]):
        return pruned(seeds, now)
    return pruned((*(each for each in seeds if each.epoch < seed.epoch), seed), now)


def pruned(seeds: Seeds, now: int) -> Seeds:
    """Drop the epochs under which no token can be alive; returns `seeds` itself when there are none."""
    kept = tuple(seed for seed in seeds[:-1] if now < seed.end + limits.TOKEN_LIFETIME_MAX) + seeds[-1:]
    return seeds if kept == seeds else kept


def offered(seeds: Seeds, now: int) -> Seeds:
    """Order the epochs as workers get them, the one to offer to clients last.

    A new one is offered only once every member has it.
    """
    if len(seeds) > 1 and now < seeds[-1].end - _LIFE + limits.CHANNEL_SETTLE:
        return (*seeds[:-2], seeds[-1], seeds[-2])
    return seeds


def _is_fresh(newest: ChannelSeed, now: int) -> bool:
    # An end further away than a new seed's was made under a clock that went ahead.
    return now + limits.CHANNEL_OVERLAP < newest.end <= now + _LIFE + limits.CLOCK_TOLERANCE
