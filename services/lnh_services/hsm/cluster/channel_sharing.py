"""Shares a channel seed with every member's HSM: in the replicated state, sealed to each of them. Pure.

The primary's HSM draws it: daily, and when a member was removed, which must not have the next one. The others hold what
they find there, so that all offer and accept the same.

    record "hsm"      of each member: its HSM's public keys
    record "channel"  [epoch, end, for each member HPKE(receive, seed)]
                      info = CBOR ["lnh-channel-seed-1", cluster, epoch, end, member]
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke

from lnh_common.errors import SealBroken
from lnh_common.messages.hsm import ChannelSeed
from lnh_common.wire import channel, codec
from lnh_services.hsm.cluster.channel_epochs import Seeds, following, is_due
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.records import ChannelRecord, HsmRecord, SealedSeed, record_id

CHANNEL_RECORD: Final = record_id("channel")
_FORMAT: Final = "lnh-channel-seed-1"
_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


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
