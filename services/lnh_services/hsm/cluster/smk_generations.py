"""Decides how the SMK is rolled over and retired, and what one HSM shares of it with the others. Pure, given the time.

What is shared is one item of the replicated state. It names the generations that are held, and has all of them for each
member, sealed to its HSM. The cluster identity signs it, which no rollover changes: so an HSM that was away for any
number of rollovers reads it, whatever generation it holds.

    ordered     a generation is drawn and shared; each HSM takes it, and says so in its `hsm` record
    in use      once every member that is in step has it: the cluster's own record is sealed under it. What was made
                under the generation before is refused from then on, since the version that it rests on is gone
    sealed anew record after record, with what is sealed in it; safe to stop anywhere and to begin again
    whole       nothing is sealed under an older generation, in this instance of the cluster
    retired     by an order of its own: the older generations are named no more, and each HSM drops them

Who is primary has its HSM do it (`smk_keeper.py`), and knows from what is stored how far it is. A restore brings back
what is sealed under older generations that are held, in another instance: then it is all sealed anew once more.

    item      table "smk", head = CBOR of `Shared`, body = Ed25519 signature by the cluster identity
    signed    CBOR ["lnh-smk-generations-1", version of the item, head]
    sealed    HPKE(receive, CBOR [[generation, key], ...])
              info = CBOR ["lnh-smk-generations-1", cluster, newest generation, member]
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec.structs import replace

from lnh_common import limits
from lnh_common.errors import LimitReached, MalformedMessage, NotPossible, SealBroken
from lnh_common.messages.hsm import SmkGeneration
from lnh_common.messages.session import Id16, Key32
from lnh_common.messages.store import Item, Key, Put
from lnh_common.wire import channel, codec
from lnh_common.wire.smk_backups import Generation
from lnh_services.hsm.appliance.state import Cluster
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.cluster.smk_backup import check_value
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.records import TABLES, CredentialRecord, HsmRecord, Records, generation_of, record_id

FORMAT: Final = "lnh-smk-generations-1"
TABLE: Final = "smk"
KEY: Final = Key(table=TABLE, id=record_id("smk generations"))
_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class SealedFor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The generations that are held, sealed to the HSM of one member."""

    member: Id16
    sealed: bytes


class Shared(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All that the cluster's HSMs share of the SMK.

    Args:
        generations: that are held, oldest first; an older one is retired.
        order: that this was made for; the same one that comes again has been carried out.
        whole: the instance of the cluster in which nothing is sealed under an older one than the newest; or empty.
        ordered_at: when the newest was drawn, in UTC seconds.
    """

    cluster: Id16
    generations: Annotated[tuple[Generation, ...], msgspec.Meta(min_length=1)]
    sealed: tuple[SealedFor, ...]
    order: Id16
    whole: Annotated[bytes, msgspec.Meta(max_length=16)]
    ordered_at: int

    @property
    def newest(self) -> int:
        """Return the number of the newest generation."""
        return self.generations[-1].generation

    @property
    def oldest(self) -> int:
        """Return the number of the oldest generation that is not retired."""
        return self.generations[0].generation

    def is_whole(self, instance: bytes) -> bool:
        """Tell whether everything is sealed under the newest generation, in this instance of the cluster."""
        return self.whole == instance


# --- the item


def put(shared: Shared, version: int, identity: bytes) -> Put:
    """Make the change that stores it as version `version + 1`; `identity` is the seed of the cluster identity."""
    head = codec.encode(msgspec.to_builtins(shared, builtin_types=(bytes,)))
    body = Ed25519PrivateKey.from_private_bytes(identity).sign(_signed(version + 1, head))
    return Put(key=KEY, expected=version, head=head, body=body)


def read(item: Item, cluster: bytes, public: Ed25519PublicKey) -> Shared:
    """Read what is shared; raises SealBroken unless the cluster identity signed it."""
    try:
        public.verify(item.body, _signed(item.version, item.head))
        shared = codec.decode_as(item.head, Shared)
    except (InvalidSignature, MalformedMessage):
        shared = None
    if shared is None or shared.cluster != cluster:
        raise SealBroken("what is stored of the SMK's generations is not signed by the cluster identity")
    return shared


def _signed(version: int, head: bytes) -> bytes:
    return codec.encode([FORMAT, version, head])


def _info(cluster: bytes, newest: int, member: bytes) -> bytes:
    return codec.encode([FORMAT, cluster, newest, member])


def share(
    cluster: bytes, held: Sequence[SmkGeneration], recipients: Sequence[HsmRecord], order: bytes, now: int
) -> Shared:
    """Make what gives these generations to these HSMs; nothing is known to be whole.

    Args:
        held: oldest first.
        now: UTC seconds.
    """
    plain = codec.encode([[each.generation, each.key] for each in held])
    newest = held[-1].generation
    return Shared(
        cluster=cluster,
        generations=tuple(Generation(each.generation, check_value(each.key)) for each in held),
        sealed=tuple(
            SealedFor(
                each.member,
                _SUITE.encrypt(plain, channel.channel_public_key(each.receive), _info(cluster, newest, each.member)),
            )
            for each in recipients
        ),
        order=order,
        whole=b"",
        ordered_at=now,
    )


class _Opened(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    generation: int
    key: Key32


def take(shared: Shared, cluster: Cluster, identity: bytes) -> Cluster:
    """Return the cluster with the generations that are shared: `cluster` itself where it has them, and no other.

    An HSM that cannot take the newest, because nothing is sealed to it yet, keeps what it has.

    Args:
        identity: seed of this HSM's identity (32 bytes).

    Raises SealBroken.
    """
    held = {each.generation: each for each in cluster.smk}
    if any(each.generation not in held for each in shared.generations):
        held |= {each.generation: each for each in _opened(shared, cluster.member, identity)}
    if shared.newest not in held:
        return cluster
    for each in shared.generations:
        if each.generation in held and check_value(held[each.generation].key) != each.check:
            raise SealBroken(f"generation {each.generation} of the SMK is another key than the cluster identity signed")
    kept = tuple(held[number] for number in sorted(held) if number >= shared.oldest)
    if kept == cluster.smk:
        return cluster
    return replace(cluster, smk=kept, lookup=lookup_key(cluster))


def _opened(shared: Shared, member: bytes, identity: bytes) -> Sequence[SmkGeneration]:
    mine = next((each for each in shared.sealed if each.member == member), None)
    if mine is None:
        return ()
    private = channel.channel_private_key(Purpose.HSM_RECEIVE.derive(identity))
    try:
        plain = _SUITE.decrypt(mine.sealed, private, _info(shared.cluster, shared.newest, member))
        opened = codec.convert(codec.decode(plain), tuple[_Opened, ...])
    except (InvalidTag, ValueError, MalformedMessage):
        raise SealBroken("the generations of the SMK do not open with this HSM's key") from None
    return [SmkGeneration(generation=each.generation, key=each.key) for each in opened]


def lookup_key(cluster: Cluster) -> bytes:
    """Return the key by which names are looked up: the record key of the first generation, however many follow."""
    return cluster.lookup or Purpose.RECORD.derive(cluster.smk[0].key)


# --- the orders


def rolled_over(
    shared: Shared | None, cluster: Cluster, known: Sequence[HsmRecord], listed: Collection[bytes],
    instance: bytes, key: bytes, order: bytes, now: int,
) -> Shared:  # fmt: skip
    """Return what is shared once another generation was ordered.

    Args:
        known: the HSMs that have introduced themselves; of them those of `listed` members get it.
        instance: of the cluster.
        key: 32 random bytes.
        order: its id.

    Raises NotPossible while another rollover is under way, or a member's HSM is not known yet; LimitReached.
    """
    if shared is not None and not shared.is_whole(instance):
        raise NotPossible(
            f"generation {shared.newest} of the SMK is being rolled over to, and this is to be finished first",
            {"advice": "see how far it is: lnh smk show"},
        )
    if missing := set(listed) - {each.member for each in known}:
        raise NotPossible(
            f"the HSM of {len(missing)} member(s) is not known here yet: it has joined just now, or is not activated",
            {"advice": "activate it, or remove a member that does not come back: lnh member list"},
        )
    if len(cluster.smk) >= limits.SMK_GENERATIONS:
        raise LimitReached(
            f"the HSMs hold {len(cluster.smk)} generations of the SMK; at most {limits.SMK_GENERATIONS}",
            {"limit": limits.SMK_GENERATIONS, "advice": "retire the older ones: lnh smk retire"},
        )
    next_ = SmkGeneration(generation=cluster.smk[-1].generation + 1, key=key)
    recipients = [each for each in known if each.member in listed]
    return share(cluster.id, (*cluster.smk, next_), recipients, order, now)


def retired(
    shared: Shared | None, cluster: Cluster, confirmed: Mapping[bytes, int], listed: Collection[bytes],
    instance: bytes, order: bytes, newest: int,
) -> Shared:  # fmt: skip
    """Return what is shared once every generation but the newest was retired.

    Args:
        confirmed: the newest generation that the HSM of each member said it holds.
        listed: the members.
        newest: that whoever ordered it saw.

    Raises NotPossible while something may be sealed under an older one, or a member has not taken the newest.
    """
    if shared is None or len(shared.generations) == 1:
        raise NotPossible("there is one generation of the SMK", {"advice": "make another first: lnh smk rollover"})
    if shared.newest != newest:
        raise NotPossible(f"generation {shared.newest} of the SMK is the newest, not {newest}")
    if not shared.is_whole(instance):
        raise NotPossible(
            f"not everything is sealed under generation {shared.newest} yet", {"advice": "see how far: lnh smk show"}
        )
    if behind := [member for member in listed if confirmed.get(member, 0) < shared.newest]:
        raise NotPossible(
            f"{len(behind)} member(s) have not taken generation {shared.newest} yet",
            {"advice": "have them back first, or remove what does not come back: lnh smk show names them"},
        )
    assert cluster.smk[-1].generation == newest, "an HSM that was asked has taken what is shared"
    return replace(shared, generations=shared.generations[-1:], order=order, sealed=())


# --- what is due


class Step(enum.Enum):
    """The next step that the primary's HSM takes."""

    NOTHING = "nothing"
    SHARE = "share"  # with a member that has nothing sealed to it
    WAIT = "wait"  # for the members in step to take the newest
    USE = "use"  # it from now on
    SEAL = "seal"  # what there is anew


def due(
    shared: Shared | None, cluster: Cluster, known: Sequence[HsmRecord], listed: Collection[bytes],
    in_step: Collection[bytes], records: Records,
) -> Step:  # fmt: skip
    """Return what is to be done now.

    Args:
        known: the HSMs that have introduced themselves.
        listed, in_step: the members, and those of them that are in step with the cluster.
        records: of the instance there is, and the generation that is in use.
    """
    if shared is None:
        # After a restore from nothing there may be several generations, of which no HSM has been told.
        return Step.SHARE if len(cluster.smk) > 1 else Step.NOTHING
    if cluster.smk[-1].generation != shared.newest:
        return Step.WAIT
    lacking = {each.member for each in known if each.smk < shared.newest and each.member in listed}
    if lacking - {each.member for each in shared.sealed}:
        return Step.SHARE
    if records.generation < shared.newest:
        confirmed = {each.member for each in known if each.smk >= shared.newest}
        return Step.USE if set(in_step) <= confirmed else Step.WAIT
    return Step.NOTHING if shared.is_whole(records.instance) else Step.SEAL


def needed_by_an_archive(shared: Shared | None, cluster: Cluster, records: Records) -> int:
    """Return the generation that opens all that is stored now: the oldest that is held, unless everything is newer."""
    whole = shared is not None and shared.is_whole(records.instance)
    return records.generation if whole else cluster.smk[0].generation


# --- sealed anew


def resealed(item: Item, records: Records, cluster: Cluster) -> Put | None:
    """Make the change that seals a record under the generation in use, with what is sealed in it; None where it is.

    Raises SealBroken for a record that no HSM wrote there.
    """
    if item.key.table != TABLES[CredentialRecord]:
        if generation_of(item.body) == records.generation:
            return None
        records.check(item)
        head = item.head
    else:
        credential = records.read(CredentialRecord, item)
        if (generation_of(item.body), credential.generation) == (records.generation, records.generation):
            return None
        if credential.generation != records.generation:
            old, new = cluster.smk_of(credential.generation), cluster.smk_of(records.generation)
            credential = credentials.resealed(credential, old, new, cluster.id)
        head = codec.encode(credential)
    made = records.remade(replace(item, version=item.version + 1, head=head))
    return Put(key=item.key, expected=item.version, head=made.head, body=made.body, tags=item.tags)
