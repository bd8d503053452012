"""Keeps the HSM's own state in one sealed file: identity, partitions, local users, and the cluster's secrets.

    data/hsm.state = CBOR [[format, label, identity, salt, [memory, passes, lanes], split, tpm], sealed]

`sealed` is the state under AES-256-GCM with the key Argon2id makes of the activation secret; all that stands before it
is bound to it. Label and identity are in clear so that a member that is not activated can say which HSM it has, and its
audit trail can be verified. docs/formats/hsm-state.md is exact.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lnh_common import limits
from lnh_common.errors import ActivationFailed, LimitReached, MalformedMessage, SealBroken
from lnh_common.messages.base import Confidential
from lnh_common.messages.hsm import ChannelSeed, Derive, SmkGeneration
from lnh_common.messages.session import Id16, Key32
from lnh_common.messages.store import Item, MemberInfo
from lnh_common.wire import codec
from lnh_common.wire.shares import Split
from lnh_services import durable
from lnh_services.hsm.auth.console_attempts import KeptPassword, Verifier
from lnh_services.hsm.auth.credentials import Smk, find_smk, record_means
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.crypto.sealing import Kind, Place, seal, unseal
from lnh_services.hsm.crypto.tpm import TpmSealed
from lnh_services.hsm.records import Records

FORMAT: Final = "lnh-hsm-state-1"
APPLIANCE_FORMAT: Final = "lnh-appliance-1"
CLUSTER_PACKAGE: Final = "cluster"
SALT_BYTES: Final = 16
_LOW_MEMORY: Final = 8  # KiB; RFC 9106, 3.1


class User(Confidential):
    """An appliance user until there is a cluster to keep it; then it becomes two records."""

    name: str
    role: str
    password: KeptPassword


class Partition(Confidential):
    """One application partition.

    Args:
        serial: 16 decimal digits, random.
        po, co: its officers; the cluster's partition has none here, its PO is the cluster's.
        key: the key that seals its objects (`partitions.py`); the cluster's partition has none but the SMK.
    """

    label: str
    version: Annotated[int, msgspec.Meta(ge=0, le=1)]
    serial: str
    po: Verifier | None
    co: Verifier | None
    key: Key32 | None = None


class Phase(str, Enum):
    """The progress of `cluster create`; between the two, the cluster is here and may or may not be in the store."""

    CREATING = "creating"
    CREATED = "created"
    JOINING = "joining"  # its secrets are here; this member's store may not know the cluster yet
    SUSPENDED = "suspended"  # said to be expelled, without proof: it serves nobody and keeps what it has
    LEAVING = "leaving"  # nobody is served any more; what is left is erased


class InvitationStatus(str, Enum):
    """The state of an invitation: open, used by one HSM, or made worthless by a wrong proof."""

    OPEN = "open"
    USED = "used"
    BURNT = "burnt"


class Issued(Confidential):
    """An invitation that this HSM made.

    Args:
        expires: UTC seconds.
        used_by: SHA-256 of the request that used it, which alone is answered again.
    """

    nonce: Key32
    expires: int
    status: InvitationStatus = InvitationStatus.OPEN
    used_by: bytes = b""


class Joining(Confidential):
    """A join that was begun: the same words are said again until they are answered.

    Args:
        invitation: as it was handed over.
        nonce: drawn for it.
        request: as it was sent.
        members: the cluster's, once the answer came.
    """

    invitation: str
    member: MemberInfo
    nonce: Key32
    request: bytes
    members: tuple[MemberInfo, ...] = ()


class Cluster(Confidential, omit_defaults=True):
    """The cluster that this HSM serves, and all its secrets.

    Args:
        identity: seed of the cluster identity (Ed25519), in every member's HSM.
        partition: serial of the V1 partition that holds the SMK.
        smk: the generations that are held, oldest first.
        po: the PO's password, while the cluster is being created; it then lives in the cluster's records.
        lookup: the record key of the first generation, since the first rollover; empty before.
    """

    id: Id16
    label: str
    member: Id16
    partition: str
    phase: Phase
    identity: Key32
    smk: Annotated[tuple[SmkGeneration, ...], msgspec.Meta(min_length=1)]
    channel: Annotated[tuple[ChannelSeed, ...], msgspec.Meta(min_length=1)]
    po: KeptPassword | None = None
    lookup: Annotated[bytes, msgspec.Meta(max_length=32)] = b""

    def identity_public(self) -> bytes:
        """Compute the raw 32-byte key that clients pin."""
        return Ed25519PrivateKey.from_private_bytes(self.identity).public_key().public_bytes_raw()

    def newest_smk(self) -> Smk:
        """Return the newest generation of the SMK."""
        newest = self.smk[-1]
        return Smk(newest.generation, newest.key)

    def smk_of(self, generation: int) -> Smk:
        """Return a generation of the SMK; raises SealBroken for one that this HSM does not hold."""
        return find_smk(self.smk, generation)

    def records(self, instance: bytes = b"", version: int = 0) -> Records:
        """Make the means to read and write security records, under the newest generation.

        Without the instance it serves the cluster's own record alone.
        """
        means = record_means(self.smk, self.id, self.lookup)
        return replace(means, instance=instance, version=version)

    def records_of(self, item: Item) -> Records:
        """Make the means for the instance, and under the generation, of the stored cluster record.

        Raises SealBroken; MemberBehind for a generation that this HSM has not taken yet; UnsupportedVersion.
        """
        return self.records().of(item)


class HsmState(Confidential):
    """The whole state of an HSM.

    Args:
        identity: seed of this HSM's own identity (`Purpose.HSM_SIGN`, `Purpose.HSM_RECEIVE`).
        domain: the cloning domain.
        invitations: made by this HSM, oldest first.
        joining: the join that is under way.
        discarded: a cluster whose data, without any key by now, this member's store is still to erase.
        expelled: why this member is in no cluster any more; empty once it is in one again.
    """

    label: str
    identity: Key32
    so: Verifier
    domain: str
    packages: tuple[str, ...] = ()
    users: tuple[User, ...] = ()
    partitions: tuple[Partition, ...] = ()
    cluster: Cluster | None = None
    invitations: Annotated[tuple[Issued, ...], msgspec.Meta(max_length=limits.INVITATIONS_KEPT)] = ()
    joining: Joining | None = None
    discarded: bytes = b""
    expelled: str = ""

    def signing_key(self) -> Ed25519PrivateKey:
        """Derive the key that signs as this HSM: the heads of its audit trail."""
        return Ed25519PrivateKey.from_private_bytes(Purpose.HSM_SIGN.derive(self.identity))

    def identity_public(self) -> bytes:
        """Compute the raw 32-byte public key of `signing_key`."""
        return self.signing_key().public_key().public_bytes_raw()


class Cover(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The part of the file that stands in clear before the sealed state, and says how to open it.

    Args:
        split: what shares open the activation secret with; None where somebody knows the secret.
        tpm: the key that the secret gives, sealed to a TPM. What is None at the end is not in the file.
    """

    format: str
    label: str
    identity: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    salt: Annotated[bytes, msgspec.Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
    argon2: tuple[
        Annotated[int, msgspec.Meta(ge=_LOW_MEMORY, le=1 << 21)],
        Annotated[int, msgspec.Meta(ge=1, le=16)],
        Annotated[int, msgspec.Meta(ge=1, le=16)],
    ]
    split: Split | None = None
    tpm: TpmSealed | None = None

    def plain(self) -> list[object]:
        """Return the fields as the file has them."""
        fields: list[object] = msgspec.to_builtins(self, builtin_types=(bytes,))
        while fields[-1] is None:
            fields.pop()
        return fields

    def derivation(self, activation: bytes) -> Derive:
        """Make the Argon2id request that derives the sealing key from an activation secret."""
        memory, passes, lanes = self.argon2
        return Derive(password=activation, salt=self.salt, memory=memory, passes=passes, lanes=lanes)

    def place(self) -> Place:
        """Return the place that the seal is bound to: this cover."""
        return Place(Kind.STATE, extra=codec.encode(self.plain()))


class _File(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    cover: Cover
    sealed: bytes


@dataclass(frozen=True)
class SealedState:
    """The state file as it was read: the cover in clear, and the sealed state."""

    cover: Cover
    sealed: bytes = field(repr=False)

    def open(self, key: bytes) -> HsmState:
        """Open the state with the 32-byte key of `cover.derivation`.

        Raises ActivationFailed: a wrong secret and a changed file look the same.
        """
        try:
            plaintext = unseal(key, self.sealed, self.cover.place())
        except SealBroken:
            raise ActivationFailed(
                "the activation secret is not the one this HSM was sealed with, or data/hsm.state was changed"
            ) from None
        state = codec.decode_as(plaintext, HsmState)
        assert state.identity_public() == self.cover.identity, "the cover is made from what it covers"
        return state


class StateFile:
    """The file `data/hsm.state`.

    Args:
        argon2: memory in KiB, passes and lanes for a file made anew; an existing one names its own.
    """

    def __init__(self, path: Path, argon2: tuple[int, int, int] = limits.ACTIVATION_ARGON2) -> None:
        self._path: Final = path
        self._argon2: Final = argon2

    def read(self) -> SealedState | None:
        """Read the file; None when this HSM is not initialised.

        Raises SealBroken when it is no state file, FileModeUnsafe, StorageFailed.
        """
        data = durable.read_private(self._path, limits.BODY_BYTES)
        if data is None:
            return None
        try:
            file = codec.decode_as(data, _File)
        except MalformedMessage:
            raise SealBroken("data/hsm.state is damaged: it is not a state file of this product") from None
        if file.cover.format != FORMAT:
            raise SealBroken(f"data/hsm.state has format {file.cover.format!r}; this version reads {FORMAT!r}")
        return SealedState(file.cover, file.sealed)

    def cover(self, label: str, identity: bytes, split: Split | None = None) -> Cover:
        """Make the cover of a new state file, with a fresh salt."""
        return Cover(FORMAT, label, identity, os.urandom(SALT_BYTES), self._argon2, split)

    def write(self, state: HsmState, cover: Cover, key: bytes) -> None:
        """Replace the file, durably and at once; raises StorageFailed, LimitReached."""
        sealed = seal(key, codec.encode(state), cover.place())
        data = codec.encode([cover.plain(), sealed])
        if len(data) > limits.BODY_BYTES:
            raise LimitReached(f"the HSM's own state would have {len(data)} bytes; at most {limits.BODY_BYTES}")
        durable.replace_file(self._path, data)

    def erase(self) -> None:
        """Remove the file; raises StorageFailed."""
        durable.remove_file(self._path)


class Appliance(Confidential):
    """The appliance's knowledge without its HSM: `data/appliance.cbor`, mode 0600.

    Args:
        initialised: it has, or had handed to its HSM, a first admin.
        packages: installed, as the HSM last knew; a factory reset of the HSM keeps them.
        waiting: users that the HSM has not taken over yet.
    """

    format: str = APPLIANCE_FORMAT
    initialised: bool = False
    packages: tuple[str, ...] = ()
    waiting: tuple[User, ...] = ()


class ApplianceFile:
    """The file `data/appliance.cbor`."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path

    def read(self) -> Appliance:
        """Read the file; a missing one is a new appliance's. Raises SealBroken, FileModeUnsafe, StorageFailed."""
        data = durable.read_private(self._path, limits.BODY_BYTES)
        if data is None:
            return Appliance()
        try:
            appliance = codec.decode_as(data, Appliance)
        except MalformedMessage:
            raise SealBroken("data/appliance.cbor is damaged") from None
        if appliance.format != APPLIANCE_FORMAT:
            raise SealBroken(
                f"data/appliance.cbor has format {appliance.format!r}; this version reads {APPLIANCE_FORMAT!r}"
            )
        return appliance

    def write(self, appliance: Appliance) -> None:
        """Replace the file, durably and at once; raises StorageFailed."""
        durable.replace_file(self._path, codec.encode(appliance))

    def erase(self) -> None:
        """Remove the file; raises StorageFailed."""
        durable.remove_file(self._path)
