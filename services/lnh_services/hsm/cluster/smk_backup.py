"""Seals the SMK of a cluster into a backup, and opens one. Pure.

    key    = Argon2id(CBOR [passphrase, cloning domain], salt)     or of the secret that shares open, in its place
    sealed = AES-256-GCM(key, contents), bound to the cover

Both secrets go into one Argon2id, so that a weak one is not guessed by itself. The cluster's identity goes along:
clients pin it. Channel seeds do not; of them the newest epoch's number is kept, since clients refuse a lower one.
docs/formats/smk-backup.md is exact, with a test vector.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from lnh_common.errors import MalformedMessage, PasswordIncorrect, SealBroken
from lnh_common.messages.base import Confidential
from lnh_common.messages.hsm import Derive, SmkGeneration
from lnh_common.messages.session import Id16, Key32
from lnh_common.wire import codec
from lnh_common.wire.shares import Split
from lnh_common.wire.smk_backups import CHECK_BYTES, FORMAT, Cover, Generation, SmkBackup
from lnh_services.hsm.appliance.state import Cluster
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.crypto.sealing import Kind, Place, seal, unseal


class Contents(Confidential, omit_defaults=True):
    """The sealed part of a backup.

    Args:
        identity: seed of the cluster identity (Ed25519).
        smk: oldest first.
        epoch: of the newest channel seed when the backup was made.
        lookup: the record key of the first generation, since the first rollover; it is left out before.
    """

    cluster: Id16
    label: str
    identity: Key32
    smk: Annotated[tuple[SmkGeneration, ...], msgspec.Meta(min_length=1)]
    epoch: Annotated[int, msgspec.Meta(ge=0)]
    lookup: Annotated[bytes, msgspec.Meta(max_length=32)] = b""

    @classmethod
    def of(cls, cluster: Cluster) -> Contents:
        """Take what a backup holds of a cluster."""
        return cls(
            cluster=cluster.id,
            label=cluster.label,
            identity=cluster.identity,
            smk=cluster.smk,
            epoch=cluster.channel[-1].epoch,
            lookup=cluster.lookup,
        )


_SECRET = {
    True: "the passphrase is another one, or this HSM's cloning domain is",
    False: "this HSM's cloning domain is",
}


def check_value(smk: bytes) -> bytes:
    """Compute the 8 bytes by which people compare two generations of an SMK."""
    return Purpose.CHECK.derive(smk)[:CHECK_BYTES]


def new_cover(
    contents: Contents,
    backup: bytes,
    salt: bytes,
    argon2: tuple[int, int, int],
    now: int,
    split: Split | None = None,
) -> Cover:
    """Make the cover of a new backup.

    Args:
        backup: its id, 16 random bytes.
        salt: 16 random bytes.
        now: UTC seconds.
        split: what shares open it with; None for one under a passphrase.
    """
    generations = tuple(Generation(each.generation, check_value(each.key)) for each in contents.smk)
    return Cover(FORMAT, backup, contents.cluster, contents.label, now, generations, salt, argon2, split)


def derivation(cover: Cover, secret: bytes, domain: str) -> Derive:
    """Make the Argon2id request that derives the sealing key; `secret` is the passphrase, or what shares open."""
    memory, passes, lanes = cover.argon2
    password = codec.encode([secret, domain.encode()])
    return Derive(password=password, salt=cover.salt, memory=memory, passes=passes, lanes=lanes)


def sealed(contents: Contents, cover: Cover, key: bytes) -> SmkBackup:
    """Seal a backup with the 32-byte key of `derivation`."""
    return SmkBackup(cover, seal(key, codec.encode(contents), _place(cover)))


def opened(backup: SmkBackup, key: bytes) -> Contents:
    """Open a backup with the 32-byte key of `derivation`.

    Raises PasswordIncorrect: a wrong passphrase, another cloning domain and a changed file look the same. Raises
    SealBroken for one that no HSM made so.
    """
    cover = backup.cover
    try:
        plaintext = unseal(key, backup.sealed, _place(cover))
    except SealBroken:
        raise PasswordIncorrect(
            f"the backup does not open: {_SECRET[cover.split is None]} another one, or it was changed",
            {"advice": "an HSM takes the domain of the cluster's HSMs at its start: lnh hsm init --domain-file FILE"},
        ) from None
    try:
        contents = codec.decode_as(plaintext, Contents)
    except MalformedMessage:
        raise SealBroken("the backup opens and is not of this version") from None
    within = tuple(Generation(each.generation, check_value(each.key)) for each in contents.smk)
    if (contents.cluster, contents.label, within) != (cover.cluster, cover.label, cover.generations):
        raise SealBroken("the backup holds something else than its cover says")
    return contents


def following_epoch(contents: Contents, cover: Cover, now: int) -> int:
    """Return a number that no channel epoch of the cluster has reached by `now` (UTC seconds).

    A clock that stands before the backup's counts as the backup's. An HSM draws at most one seed a second.
    """
    return contents.epoch + max(0, now - cover.made_at)


def _place(cover: Cover) -> Place:
    return Place(Kind.SMK_BACKUP, cluster=cover.cluster, handle=cover.id, extra=cover.encoded())
