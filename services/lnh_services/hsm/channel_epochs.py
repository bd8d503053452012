"""When the channel's seed changes, and when an old one is erased. Pure: the time is passed in.

The newest seed is the one offered to clients. A new one is drawn a day after the last; the old one is
accepted an hour longer, by those who were told of it before, and is kept as long as a token sealed
under it may live.
"""

from __future__ import annotations

from collections.abc import Callable

from lnh_common import limits
from lnh_common.messages.hsm import ChannelSeed

Seeds = tuple[ChannelSeed, ...]
_LIFE = limits.CHANNEL_EPOCH + limits.CHANNEL_OVERLAP


def rotated(seeds: Seeds, now: int, draw: Callable[[], bytes]) -> Seeds:
    """The epochs to hold at `now` (UTC seconds): `seeds` itself when nothing is due.

    Args:
        seeds: oldest first; empty for a new cluster.
        draw: makes a seed of 32 random bytes.

    The newest is never erased, and epoch numbers only grow, whatever the clock did.
    """
    held = seeds
    if not held or not _is_fresh(held[-1], now):
        epoch = held[-1].epoch + 1 if held else 1
        held = (*held, ChannelSeed(epoch=epoch, seed=draw(), end=now + _LIFE))
    kept = tuple(seed for seed in held[:-1] if now < seed.end + limits.TOKEN_LIFETIME_MAX) + held[-1:]
    return seeds if kept == seeds else kept


def _is_fresh(newest: ChannelSeed, now: int) -> bool:
    # An end further away than a new seed's was made under a clock that went ahead.
    return now + limits.CHANNEL_OVERLAP < newest.end <= now + _LIFE + limits.CLOCK_TOLERANCE
