"""Decides when the channel's seed changes, and shares each seed with every member's HSM. Pure, given the time.

The newest seed is the one offered to clients. A new one is drawn a day after the last; the old one is accepted an hour
longer, for clients that were told of it before, and is kept as long as a token sealed under it may live.

The primary's HSM draws it: daily, and when a member was removed, which must not have the next one. It lies in the
replicated state, sealed to each HSM; the others hold what they find there, so that all offer and accept the same.

    record "hsm"      of each member: its HSM's public keys
    record "channel"  [epoch, end, for each member HPKE(receive, seed)]
                      info = CBOR ["lnh-channel-seed-1", cluster, epoch, end, member]
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke

from lnh_common import limits
from lnh_common.errors import SealBroken
from lnh_common.messages.hsm import ChannelSeed
from lnh_common.wire import channel, codec
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.records import ChannelRecord, HsmRecord, SealedSeed, record_id

Seeds = tuple[ChannelSeed, ...]
_LIFE = limits.CHANNEL_EPOCH + limits.CHANNEL_OVERLAP
CHANNEL_RECORD: Final = record_id("channel")
_FORMAT: Final = "lnh-channel-seed-1"
_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


# --- when it changes


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


# --- how it is shared


def share(seed: ChannelSeed, cluster: bytes, recipients: Sequence[HsmRecord]) -> ChannelRecord:
    """Make the record that gives `seed` to these HSMs."""
    return ChannelRecord(
        epoch=seed.epoch,
        end=seed.end,
        sealed=tuple(
            SealedSeed(
                member=each.member,
                sealed=_SUITE.encrypt(
                    seed.seed,
                    channel.channel_public_key(each.receive),
                    _info(cluster, seed.epoch, seed.end, each.member),
                ),
            )
            for each in recipients
        ),
    )


def take(record: ChannelRecord, cluster: bytes, member: bytes, identity: bytes) -> ChannelSeed | None:
    """Open the seed of a record; None when it is not for this member.

    Args:
        identity: seed of this HSM's identity (32 bytes).

    Raises SealBroken.
    """
    mine = next((each for each in record.sealed if each.member == member), None)
    if mine is None:
        return None
    private = channel.channel_private_key(Purpose.HSM_RECEIVE.derive(identity))
    try:
        seed = _SUITE.decrypt(mine.sealed, private, _info(cluster, record.epoch, record.end, member))
    except (InvalidTag, ValueError):
        raise SealBroken(f"the seed of channel epoch {record.epoch} does not open with this HSM's key") from None
    return ChannelSeed(epoch=record.epoch, seed=seed, end=record.end)


def due(
    held: Seeds,
    record: ChannelRecord | None,
    cluster: bytes,
    known: Sequence[HsmRecord],
    listed: Collection[bytes],
    now: int,
    draw: Callable[[], bytes],
) -> ChannelRecord | None:
    """Make the record that the primary's HSM is to share now; None when every HSM has what it should.

    Args:
        record: the record that is shared.
        known: HSMs that have introduced themselves; of them those of `listed` members get the seed.
        draw: makes a seed of 32 random bytes.
    """
    recipients = [each for each in known if each.member in listed]
    had = {each.member for each in record.sealed} if record else set()
    if is_due(held, now) or had - set(listed):
        return share(following(held, now, draw, record.epoch if record else 0), cluster, recipients)
    if record is not None and record.epoch > held[-1].epoch:
        return share(following(held, now, draw, record.epoch), cluster, recipients)  # a seed this HSM was not given
    if record is None or record.epoch < held[-1].epoch or had != {each.member for each in recipients}:
        return share(held[-1], cluster, recipients)
    return None


def _info(cluster: bytes, epoch: int, end: int, member: bytes) -> bytes:
    return codec.encode([_FORMAT, cluster, epoch, end, member])
