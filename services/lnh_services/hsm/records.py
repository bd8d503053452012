"""Security records: the cluster's knowledge of users, clients, keyrings, credentials and policies.

A record is stored in clear, so that other services can read what they need (the balancer the clients, the backup
service its schedule), and carries an HMAC under the record key over what it is, its id, its version and the cluster's
instance, so that none of them can make or change one. Only hsm processes write records. Secrets inside a record are
sealed on their own.

Each generation of the SMK has a record key. The seal of a record names its generation (`generation_of`), and the
generation that seals the cluster's own record seals whatever is written. Names are looked up, and attempts are named,
by a key that never changes: the record key of the first generation.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import replace as with_
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

import lnh_common
from lnh_common import versions
from lnh_common.errors import MemberBehind, SealBroken
from lnh_common.messages import backup
from lnh_common.messages.admin import Decision
from lnh_common.messages.backup import Run, Schedule
from lnh_common.messages.base import Message
from lnh_common.messages.session import Role
from lnh_common.messages.store import CLUSTER, Item, Key, Put, Require
from lnh_common.wire import codec

FORMAT: Final = "lnh-record-1"
_TAG_BYTES: Final = 16
_MAC_BYTES: Final = 32
_GENERATION_BYTES: Final = 4
FIRST_GENERATION: Final = 1

R = TypeVar("R", bound="Record")


class Record(Message):
    """The fields of one record; `table` names the table that keeps it."""


def record_id(*names: str | bytes) -> bytes:
    """Compute the 16-byte id of a record that is known by name: the same on every member."""
    return hashlib.sha256(codec.encode(list(names))).digest()[:16]


CLUSTER_RECORD: Final = CLUSTER.id


class ClusterRecord(Record, omit_defaults=True):
    """The one record of a cluster.

    A restore changes `instance`. A forced opening of an epoch writes the record anew.

    Args:
        product: the cluster's version, MAJOR.MINOR (`lnh_common.versions`); a member of an older one does not read it.
    """

    id: bytes
    label: str
    instance: bytes
    created_at: int
    product: str = versions.FIRST


class OpeningRecord(Record):
    """The last opening of an epoch by force: `id` is random. There is none before the first."""

    id: bytes


OPENING_RECORD: Final = record_id("opening")
GROUPING_RECORD: Final = b"groups"


def session_instance(cluster: ClusterRecord, opening: OpeningRecord | None) -> bytes:
    """Compute the 16 bytes that a session is opened under; the session is over when they change."""
    if opening is None:
        return cluster.instance
    return record_id("instance", cluster.instance, opening.id)


class UserRecord(Record):
    """`born`, in UTC milliseconds, tells it from an earlier user of the same name; so of a user's credential."""

    name: str
    role: str
    born: int = 0


class RoleRecord(Record):
    """A custom appliance role; `permissions` by name, and `born` as in a user."""

    name: str
    permissions: tuple[str, ...]
    born: int = 0


class ClientRecord(Record):
    """A registered client: `curve_key` opens the door, `sign_key` signs its logins."""

    id: bytes
    name: str
    curve_key: bytes
    sign_key: bytes
    monitor: str
    registered_at: int
    revoked: bool
    keyrings: tuple[bytes, ...] = ()


class KeyringRecord(Record):
    """`assigned`: only clients that list this keyring may see it; else every client may."""

    id: bytes
    label: str
    created_at: int
    assigned: bool = False


class RekeyRecord(Record):
    """The keyring's newest key, by the keyring's id; there is none while it has its first.

    Args:
        generation: of that key; the first is 1.
        before: the key of before, sealed under the newest; empty once nothing needs it.
        begun_at: UTC seconds.
    """

    generation: int
    before: bytes
    begun_at: int


class ResealRecord(Record):
    """How far a rekey is, by the keyring's id: up to the handle `after` nothing needs the key of before.

    Args:
        done: objects that were looked at.
    """

    generation: int
    after: bytes = b""
    done: int = 0


class CredentialRecord(Record):
    """One credential.

    Args:
        id: 16 random bytes, new at each change: earlier sessions die with the old one.
        argon2: memory in KiB, passes, lanes.
        verifier: the 32-byte verifier, sealed under the SMK.
        public: 1216 bytes of the key pair that `keyring_key` is sealed to.
        must_change: good for nothing but being changed.
        keyring_key: the keyring's key, sealed (HPKE) to `public` and then under the SMK; empty where none is.
        generation: of the SMK that sealed.
    """

    role: Role
    name: str
    keyring: bytes
    id: bytes
    argon2: tuple[int, int, int]
    salt: bytes
    verifier: bytes
    public: bytes
    must_change: bool
    keyring_key: bytes
    generation: int
    changed_at: int
    born: int = 0


class PolicyRecord(Record):
    """The policy of the cluster, or of one keyring; `fields` are those of `policy.Policy` that are not the default."""

    keyring: bytes
    fields: dict[str, Any]


class LockRecord(Record):
    """Failed logins of one (client, role holder) pair, those that have not ended among them.

    Times are UTC seconds: until when they count, and of the last success. `running` of them, the last of which began at
    `begun`, are under way at members of version 0.1; others are known one by one (`AttemptsRecord`).
    """

    failures: int = 0
    until: int = 0
    succeeded: int = 0
    running: int = 0
    begun: int = 0


class Open(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A guess that has not ended, and the UTC second at which it began first."""

    guess: bytes
    begun: int


class AttemptsRecord(Record):
    """The attempts of a pair, or of a holder over all clients, one by one (`auth/lockout.py`).

    It has the names of the last that ended wrong, and the guesses that have not ended, oldest first. They are not in
    the locks, which members of version 0.1 read.

    Args:
        lasting: the holder existed at an attempt, so neither this nor its lock is ever erased.
        tried: there is a `TriedRecord` of this pair.
        failed: of a holder over all clients, attempts that ended wrong since a right one, or since it was unlocked.
    """

    names: tuple[bytes, ...] = ()
    open: tuple[Open, ...] = ()
    lasting: bool = False
    tried: bool = False
    failed: int = 0


class TriedRecord(Record):
    """A name at which a client failed and never got in: in the client's scope, with the scope of its locks as id.

    The store counts them, and the sweep finds the locks by them.
    """


class HolderLockRecord(Record):
    """Failed logins of one role holder over all clients; `last` began at that UTC second, `running` are as above."""

    failures: int = 0
    last: int = 0
    running: int = 0


class LogoutRecord(Record):
    """A session that was ended; may be erased after `until`, when its last token has expired."""

    session: bytes
    until: int


class EndedRecord(Record):
    """A session without a login that was ended: in the client's scope, by the session's id, for the store to count."""

    until: int


class HsmRecord(Record, omit_defaults=True):
    """The public keys of a member's HSM: what is for it alone is sealed to `receive`.

    `smk` is the newest generation of the SMK that the HSM holds; 0, which is left out, before the first rollover.
    """

    member: bytes
    sign: bytes
    receive: bytes
    smk: int = 0


class SealedSeed(Message):
    """A channel seed, sealed (HPKE) to the HSM of one member."""

    member: bytes
    sealed: bytes


class ChannelRecord(Record):
    """The newest channel epoch, for every member's HSM; `end` in UTC seconds."""

    epoch: int
    end: int
    sealed: tuple[SealedSeed, ...]


class ScheduleRecord(Record):
    """The schedule of the cluster's backups, if there is one; the backup services read it."""

    schedule: Schedule | None


class RunRecord(Record):
    """The last scheduled backup."""

    run: Run


class GroupingRecord(Record):
    """The affinity groups of an archive, and the group of each member, until a restore has brought them back."""

    groups: tuple[str, ...]
    placed: tuple[tuple[bytes, str], ...]


class ApprovalRecord(Record):
    """A request that waits, or waited, for a second person (`auth/approvals.py`).

    Times are UTC seconds. Its id comes from the name of the request that asked, so none is ever made anew.

    Args:
        route: of the request.
        arguments: all that must be the same when it is carried out.
        about: the names that ids in it had, for people.
        requesters, deciders: appliance users.
        asked_by, used_by: names of requests: of the one that asked, and of the one that was carried out.
        decision: WAITING, APPROVED or DENIED; it is used once `used_by` is set.
    """

    operation: str
    route: bytes
    arguments: dict[str, Any]
    about: str
    requesters: tuple[str, ...]
    asked_by: bytes
    requested_at: int
    expires: int
    decision: Decision = Decision.WAITING
    deciders: tuple[str, ...] = ()
    decided_at: int = 0
    used_by: bytes = b""
    used_at: int = 0


TABLES: Final[dict[type[Record], str]] = {
    ClusterRecord: CLUSTER.table,
    OpeningRecord: "opening",
    UserRecord: "user",
    RoleRecord: "role",
    ClientRecord: "client",
    KeyringRecord: "keyring",
    RekeyRecord: "rekey",
    ResealRecord: "reseal",
    CredentialRecord: "credential",
    PolicyRecord: "policy",
    LockRecord: "lock",
    HolderLockRecord: "lock",
    AttemptsRecord: "attempt",
    TriedRecord: "tried",
    LogoutRecord: "logout",
    EndedRecord: "ended",
    HsmRecord: "hsm",
    ChannelRecord: "channel",
    ScheduleRecord: backup.TABLE,
    RunRecord: backup.TABLE,
    GroupingRecord: backup.TABLE,
    ApprovalRecord: "approval",
}


RECORD_TABLES: Final = frozenset(TABLES.values())
# What is erased once it counts nothing any more (`worker/sweeping.py`), and may be made anew.
SWEPT: Final = frozenset(TABLES[kind] for kind in (LockRecord, AttemptsRecord, TriedRecord, LogoutRecord, EndedRecord))

NAMES: Final[dict[type[Record], str]] = {UserRecord: "name", ClientRecord: "name", KeyringRecord: "label"}
"""The field that a record is looked up by, where its table is searched for names (`Records.tag`)."""


def generation_of(seal: bytes) -> int:
    """Return the generation of the SMK that a record's seal names; raises SealBroken for what is no seal.

    seal = HMAC (32 bytes)                                of the first generation
    seal = HMAC || generation (4 bytes, big-endian)       of a later one
    """
    if len(seal) == _MAC_BYTES:
        return FIRST_GENERATION
    generation = int.from_bytes(seal[_MAC_BYTES:], "big")
    if len(seal) != _MAC_BYTES + _GENERATION_BYTES or generation <= FIRST_GENERATION:
        raise SealBroken("a stored record carries no seal of an HSM")
    return generation


@dataclass(frozen=True)
class Records:
    """Makes and checks the records of one cluster instance.

    Args:
        key: the record key (`Purpose.RECORD` of the SMK) of the generation that seals what is written.
        cluster: 16-byte id.
        instance: the cluster record's; the record that names it is the one that does not carry it.
        version: of the cluster record that said so; 0 where it is not known.
        generation: of `key`.
        others: the record keys of the other generations that are held.
        lookup: the key that never changes, by which names are looked up; `key` where it is empty.
        first: the first generation of all; a seal of it names none.
        product: the cluster's version, as the cluster record says.
    """

    key: bytes = field(repr=False)
    cluster: bytes
    instance: bytes
    version: int = 0
    generation: int = FIRST_GENERATION
    others: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    lookup: bytes = field(default=b"", repr=False)
    first: int = FIRST_GENERATION
    product: str = versions.FIRST

    def at(self, generation: int) -> Records:
        """Return the means to write under another generation that is held.

        Raises MemberBehind for a newer one than this HSM holds, SealBroken for an older one, which was retired.
        """
        if generation == FIRST_GENERATION:
            generation = self.first
        if generation == self.generation:
            return self
        key = self.others.get(generation)
        if key is not None:
            others = {number: held for number, held in self.others.items() if number != generation}
            return with_(self, key=key, generation=generation, others={**others, self.generation: self.key})
        if generation > max((self.generation, *self.others)):
            raise MemberBehind(f"sealed under SMK generation {generation}, which this HSM has not taken yet")
        raise SealBroken(f"sealed under SMK generation {generation}, which this HSM does not hold any more")

    def of(self, item: Item) -> Records:
        """Return the means for the instance, and under the generation, of the stored cluster record.

        Raises SealBroken; MemberBehind for a generation that this HSM has not taken yet; UnsupportedVersion where the
        cluster's version is later than this member's.
        """
        means = self.at(generation_of(item.body))
        record = means.read(ClusterRecord, item)
        versions.check_takes_part(lnh_common.VERSION, record.product)
        return with_(means, instance=record.instance, version=item.version, product=record.product)

    def _mac(self, key: Key, version: int, head: bytes) -> bytes:
        instance = b"" if key.table == TABLES[ClusterRecord] else self.instance
        covered = codec.encode([FORMAT, self.cluster, instance, key.table, key.scope, key.id, version, head])
        mac = hmac.digest(self.key, covered, "sha256")
        if self.generation == self.first:
            return mac
        return mac + self.generation.to_bytes(_GENERATION_BYTES, "big")

    @property
    def naming_key(self) -> bytes:
        """Return the key of tags, scopes and names of attempts; a rollover leaves it as it is."""
        return self.lookup or self.key

    def tag(self, name: str) -> bytes:
        """Make the blind tag that makes a name unique in its table."""
        return hmac.digest(self.naming_key, codec.encode(["tag", name]), "sha256")[:_TAG_BYTES]

    def key_of(self, kind: type[Record], record: bytes, scope: bytes = b"") -> Key:
        """Return the key of the item that keeps a record."""
        return Key(table=TABLES[kind], scope=scope, id=record)

    def put(
        self,
        record: Record,
        record_id: bytes,
        expected: int,
        *,
        unique: str = "",
        limit: int | None = None,
        scope: bytes = b"",
    ) -> Put:
        """Make the change that stores `record` as version `expected + 1`.

        A credential is sealed as what is in it is. So one that was made before the generation changed is known by that.
        """
        key = self.key_of(type(record), record_id, scope)
        head = codec.encode(record)
        means = self.at(record.generation) if isinstance(record, CredentialRecord) else self
        tags = (self.tag(unique),) if unique else ()
        return Put(
            key=key, expected=expected, head=head, body=means._mac(key, expected + 1, head), tags=tags, unique=tags,
            limit=limit,
        )  # fmt: skip

    def made(self, put: Put) -> bool:
        """Tell whether this object could have made a change; an earlier instance's could not."""
        if put.key.table not in RECORD_TABLES:
            return True
        return hmac.compare_digest(self._mac(put.key, put.expected + 1, put.head), put.body)

    def made_of_old(self, put: Put) -> bool:
        """Tell whether a change was made for this instance, under any generation that is held."""
        try:
            return self.at(generation_of(put.body)).made(put)
        except (SealBroken, MemberBehind):
            return False

    def fence(self) -> Require:
        """Make the change that has a commit refused once the cluster was restored, or opened by force."""
        return Require(key=self.key_of(ClusterRecord, CLUSTER_RECORD), version=self.version)

    def remade(self, item: Item) -> Item:
        """Make a record of another instance one of this instance."""
        return replace(item, body=self._mac(item.key, item.version, item.head))

    def check(self, item: Item) -> None:
        """Raise SealBroken unless an hsm of this cluster and instance wrote it there.

        Raises MemberBehind for a seal of a generation that this HSM has not taken yet.
        """
        try:
            means = self.at(generation_of(item.body))
        except SealBroken as error:
            raise SealBroken(f"the stored {item.key.table} record {item.key.id.hex()}: {error}") from None
        if not hmac.compare_digest(means._mac(item.key, item.version, item.head), item.body):
            raise SealBroken(f"the stored {item.key.table} record {item.key.id.hex()} was changed outside the HSM")

    def read(self, kind: type[R], item: Item) -> R:
        """Decode the record of a stored item; raises SealBroken when no hsm of this cluster wrote it there."""
        self.check(item)
        return codec.decode_as(item.head, kind)
