"""Holds what an hsm worker knows, and for how long it may: secrets, lease, caches, and reads past them.

Everything a worker uses comes through here, so that one rule holds for all of it: an answer of the store goes into a
cache only under the lease, only if no invalidation about it came while it was read, and, under a read-write lease, only
if it was current (`may_cache`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lnh_common import limits
from lnh_common.errors import (
    Busy,
    ClusterRestored,
    MemberBehind,
    NoCluster,
    NotPossible,
    ObjectUnknown,
    SealBroken,
    StateRolledBack,
    UnsupportedVersion,
)
from lnh_common.messages import hsm, store
from lnh_common.messages.base import Skipped
from lnh_common.pkcs11.attributes import Attributes
from lnh_common.versions import is_since
from lnh_services.hsm import answers
from lnh_services.hsm.auth.credentials import Smk, find_smk, record_means
from lnh_services.hsm.cluster import smk_generations
from lnh_services.hsm.cluster.smk_generations import Shared
from lnh_services.hsm.effects import Peer, Steps, ask, tell
from lnh_services.hsm.objects.prepared_keys import CachedKey
from lnh_services.hsm.objects.stored import KeyringKeys
from lnh_services.hsm.records import CLUSTER_RECORD, NAMES, TABLES, ClusterRecord, Record, Records, RekeyRecord
from lnh_services.hsm.worker.caches import CachedPage, CachedRecord, Caches, touches_sessions
from lnh_services.hsm.worker.rollback_guard import Ahead, Items, Page, Read

T = TypeVar("T")
R = TypeVar("R", bound=Record)
Explained = Callable[[], Steps[None]]


@dataclass(frozen=True)
class Identity:
    """The member's identity, and the secrets that the core gave.

    Args:
        bare: the means to read the cluster's own record, under any generation of the SMK.
    """

    secrets: hsm.WorkerSecrets
    bare: Records

    @classmethod
    def of(cls, secrets: hsm.WorkerSecrets) -> Identity:
        """Make it of the core's secrets."""
        return cls(secrets, record_means(secrets.smk, secrets.cluster, secrets.lookup))

    def smk_of(self, generation: int) -> Smk:
        """Return a generation of the SMK; raises SealBroken for one that this HSM does not hold."""
        return find_smk(self.secrets.smk, generation)

    def seed(self, epoch: int) -> hsm.ChannelSeed | None:
        """Return the channel seed of an epoch that is still in use."""
        return next((seed for seed in self.secrets.channel if seed.epoch == epoch), None)


def _named(record: R, name: str) -> R:
    """Check that a record has this name, if one is asked for; raises SealBroken."""
    own = getattr(record, NAMES[type(record)]) if name else name
    if own != name:
        raise SealBroken(f"the store was asked for {TABLES[type(record)]} {name!r} and served {own!r}")
    return record


@dataclass(eq=False)
class _Reading:
    """An item that is being read, or with an empty id all of a table's scope; an invalidation makes it outdated."""

    key: store.Key
    outdated: bool = False

    def is_one_of(self, keys: tuple[store.Key, ...]) -> bool:
        if not self.key.id:
            return any((key.table, key.scope) == (self.key.table, self.key.scope) for key in keys)
        return self.key in keys or store.Key(table=self.key.table, scope=self.key.scope) in keys


class Knowledge:
    """One worker's secrets, lease and caches.

    Args:
        boot: seconds of a clock that never goes back.

    Attributes:
        worker: 16 random bytes that name this worker.
        number: of this worker in its member, from 0.
    """

    def __init__(self, boot: Callable[[], float]) -> None:
        self.boot = boot
        self.worker = os.urandom(16)
        self.number = 0
        self._sealing = 0  # the generation of the SMK that seals what is written, as last read; 0: not read yet
        self.caches = Caches()
        self.identity: Identity | None = None
        self.records: Records | None = None
        self.cluster: ClusterRecord | None = None
        self._records_outdated = False  # they may be: good for what asked for them, and for nobody after it
        self.lease_until = 0.0
        self.read_write = True  # the lease's mode
        self.read_only_since: float | None = None  # boot seconds
        self.owes_attempts = True  # failed logins from before this start, or from a time as read-only, may be untold
        self.lapses = 0  # how often the lease was not a read-write one, or an answer under it not current
        self._in_step_until: float | None = None  # boot seconds: the end of the last read-write lease there was
        self._began = boot()
        self._told_whole = 0  # UTC ms up to which the store, when it was asked last, had all that was acknowledged
        self.disturbed = 0  # how often answers of the store may have become outdated since they came
        self.invalidations = 0  # how often something that was known was not to be used any more
        self._readings: set[_Reading] = set()
        self._channel_keys: dict[int, Any] = {}
        self._uses: dict[tuple[bytes, bytes], int] = {}

    # --- what the loop tells it

    def take_secrets(self, secrets: hsm.WorkerSecrets) -> None:
        """Begin, or go on, with the core's secrets; secrets that changed end every session here."""
        before = self.identity
        self.identity = Identity.of(secrets)
        if before is not None and before.secrets != secrets:
            self._sealing = 0
            self.drop_everything()
            self._channel_keys.clear()

    def take_lease(self, sent_at: float, attached: store.Attached) -> None:
        """Take a lease that the store granted to a request sent at `sent_at` (boot seconds).

        The caches stay only where the lease goes on from the one before. The store's word for that is not enough: the
        answer that would have told of a fresh lease may have been lost, and this be the one to the next request.
        """
        self._note_step()
        if attached.fresh or not (self.is_leased() and self.read_write and attached.read_write):
            self.lapses += 1
        self.owes_attempts = self.owes_attempts or (attached.read_write and not self.read_write)
        if attached.fresh or not self.is_leased() or (attached.read_write and not self.read_write):
            self.drop_everything()  # what was cached while the member was read-only may be older than it is now
        self.lease_until = sent_at + attached.lease_ms / 1000
        self._told_whole = max(self._told_whole, attached.whole_until)
        self.read_write = attached.read_write
        if attached.read_write:
            self.read_only_since = None
        elif self.read_only_since is None:
            self.read_only_since = sent_at

    def is_leased(self) -> bool:
        """Tell whether the caches may be used."""
        return self.boot() < self.lease_until

    def is_read_write(self) -> bool:
        """Tell whether what is known and read now is current: the member's lease lasts at least as long as this one."""
        return self.read_write and self.boot() < self.lease_until

    def was_read_write_since(self, lapses: int) -> bool:
        """Tell whether the worker was read-write when `lapses` had this value, and all the time since."""
        return self.lapses == lapses and self.is_read_write()

    def behind_for(self) -> float:
        """Return the seconds since this worker was in step with the cluster, or began."""
        self._note_step()
        return self.boot() - (self._began if self._in_step_until is None else self._in_step_until)

    def whole_until(self, utc: float) -> int:
        """Return the last moment, in UTC ms, up to which all that the cluster acknowledged is known here; 0: unknown.

        Args:
            utc: now, in UTC seconds.
        """
        self._note_step()
        since = 0 if self._in_step_until is None else int((utc - self.boot() + self._in_step_until) * 1000)
        return max(since, self._told_whole)

    def _note_step(self) -> None:
        if self.read_write and self.lease_until > 0:
            self._in_step_until = min(self.boot(), self.lease_until)

    def note(self, current: bool, /) -> None:
        """Take in whether the store said that an answer is current: one that is not makes no refusal certain.

        The lease does not vouch for that alone. A member that promised another epoch is not in step from then on, and
        serves what it has applied; its workers' leases, which only say for how long nothing changes behind them, last.
        """
        if not current:
            self.lapses += 1

    def may_cache(self, found: Read[Any] | Page[Any]) -> bool:
        """Tell whether an answer of the store may go into a cache now, before anything else is waited for."""
        return self.is_leased() and not found.outdated and (found.current or not self.read_write)

    def may_cache_since(self, disturbed: int) -> bool:
        """Tell whether a result of several answers since `disturbed` had this value may go into a cache."""
        return self.is_leased() and self.disturbed == disturbed

    def invalidate(self, message: store.Invalidate) -> None:
        """Drop the keys that the store says changed."""
        self.invalidations += 1
        if message.everything:
            self._note_step()
            self.drop_everything()
            self.lease_until = 0.0
            self.lapses += 1
        else:
            self._keep_uses(self.caches.keys.items())
            self.caches.invalidate(message.keys)
            for reading in self._readings:
                reading.outdated = reading.outdated or reading.is_one_of(message.keys)
            if any(touches_sessions(key) for key in message.keys):
                self.disturbed += 1
            if any(key.table == "cluster" for key in message.keys):
                self.records = self.cluster = None

    def drop_everything(self) -> None:
        """Drop everything that is cached, and what is being read."""
        self.invalidations += 1
        self._keep_uses(self.caches.keys.items())
        self.caches.drop_everything()
        self.records = self.cluster = None
        self.disturbed += 1
        for reading in self._readings:
            reading.outdated = True

    def together(self, read: Callable[[], Steps[T]]) -> Steps[T]:
        """Return several things that are read, as they are at one time: anew while something is invalidated meanwhile.

        What waited for a second thing may hold a first one that was changed, destroyed or forbidden by then.
        """
        while True:
            before = self.invalidations
            found = yield from read()
            if self.invalidations == before:
                return found

    # --- records

    def secrets(self) -> Identity:
        """Return the member's identity and secrets; raises NoCluster before the core gave any."""
        if self.identity is None:
            raise NoCluster("this member serves no cluster")
        return self.identity

    def started(self) -> Steps[Records]:
        """Return the means to read records; asks for the cluster record once."""
        if self.records is None or self._records_outdated:
            try:
                found = yield from self._read_cluster(self.secrets())
            except MemberBehind:  # another generation of the SMK is in use, which the core may have by now
                yield from self.renew_secrets()
                found = yield from self._read_cluster(self.secrets())
            if found.value is None:
                raise NoCluster("the store holds no cluster yet")
            self._records_outdated = self.is_leased() and not self.may_cache(found)
            self.cluster, self.records = found.value
            self._sealing = self.records.generation
        return self.records

    def check_version(self, since: str, what: str) -> Steps[None]:
        """Raise NotPossible while the cluster's version is an older one: some member may not read such a thing.

        Args:
            what: says what waits for that, as the beginning of a sentence.
        """
        records = yield from self.started()
        if not is_since(records.product, since):
            raise NotPossible(
                f"{what} once the cluster's version is {since}; it is {records.product}",
                {"advice": "upgrade every member, then raise it: lnh cluster upgrade"},
            )

    def _read_cluster(self, identity: Identity) -> Steps[Read[tuple[ClusterRecord, Records]]]:
        bare = identity.bare
        key = bare.key_of(ClusterRecord, CLUSTER_RECORD)

        def read(item: store.Item) -> tuple[ClusterRecord, Records]:
            return bare.read(ClusterRecord, item), bare.of(item)

        return (yield from self.genuine(self._read(self._items(bare), key, read)))

    def renew_secrets(self) -> Steps[None]:
        """Ask the core for its secrets, which may be others by now. Raises NotActivated, NoCluster, MemberExpelled."""
        asked = hsm.AttachWorker(number=self.number, worker=self.worker)
        self.take_secrets((yield from ask(Peer.CORE, hsm.ATTACH, asked)))

    def shared_smk(self) -> Steps[tuple[Shared | None, int]]:
        """Read what the cluster's HSMs share of the generations of the SMK, and its version; None before a rollover."""
        secrets = self.secrets().secrets

        def read() -> Steps[tuple[Shared | None, int]]:
            item, current = yield from answers.get(smk_generations.KEY)
            self.note(current)
            public = Ed25519PrivateKey.from_private_bytes(secrets.identity).public_key()
            return (None, 0) if item is None else (smk_generations.read(item, secrets.cluster, public), item.version)

        return (yield from self.genuine(read()))

    def sealing_smk(self) -> Smk:
        """Return the generation that seals what is written, as last read.

        What is sealed under another one than is in use when it is committed is refused then.
        """
        identity = self.secrets()
        return identity.smk_of(self._sealing or identity.bare.generation)

    def genuine(
        self, reading: Steps[T], records: Records | None = None, explained: Explained | None = None
    ) -> Steps[T]:
        """Return what is read; an answer that is not genuine, or not current, marks this member as damaged.

        Args:
            records: the means that it is read with; they may be older than a restore, which makes every record anew.
            explained: raises what explains it, if something that happened meanwhile does.

        Raises SealBroken, StateRolledBack, UnsupportedVersion; ClusterRestored where that explains it, and what
        `explained` raises.
        """
        try:
            return (yield from reading)
        except (SealBroken, StateRolledBack, UnsupportedVersion) as error:
            if records is not None and (yield from self._was_replaced(records)):
                raise ClusterRestored("the cluster was restored, or opened by force, while this was read") from None
            if explained is not None:
                yield from explained()
            error.detail["damaged"] = True
            yield from tell(Peer.CORE, hsm.DAMAGED, hsm.Damage(cause=str(error)))
            raise

    def _page(
        self,
        records: Records,
        scan: store.Scan,
        read: Callable[[store.Item], T],
        skipped: list[Skipped] | None = None,
        explained: Explained | None = None,
    ) -> Steps[Page[T]]:
        before = len(skipped) if skipped is not None else 0
        page = yield from self.genuine(self._items(records).page(scan, read, skipped), records, explained)
        if skipped is not None and len(skipped) > before:
            if (yield from self._was_replaced(records)):
                raise ClusterRestored("the cluster was restored, or opened by force, while this was read")
            if explained is not None:
                yield from explained()
            yield from tell(Peer.CORE, hsm.DAMAGED, hsm.Damage(cause=skipped[before].why))
        return page

    def _check_same_key(self, keys: KeyringKeys) -> Steps[None]:
        """Raise Busy where the keyring was given another key, or is through with it, since these keys were looked up.

        The next try looks at the session first, and finds it ended, or with other keys.
        """
        _, rekeyed = yield from self.versioned(RekeyRecord, keys.keyring, cached=False)
        if rekeyed != keys.rekeyed:
            raise Busy("the keyring was given another key while this was read")

    def _was_replaced(self, records: Records) -> Steps[bool]:
        """Tell whether the cluster record is another one by now."""
        bare = replace(records, instance=b"", version=0)
        key = bare.key_of(ClusterRecord, CLUSTER_RECORD)
        try:
            found = yield from self._items(bare).get(key, lambda item: bare.read(ClusterRecord, item))
        except (SealBroken, StateRolledBack):
            return False
        now = found.value.instance if found.value is not None else b""
        return (found.version, now) != (records.version, records.instance)

    def _read(
        self,
        items: Items,
        key: store.Key,
        read: Callable[[store.Item], T],
        *,
        body: bool = True,
        lasts: Callable[[T], bool] | None = None,
        ahead: Ahead | None = None,
    ) -> Steps[Read[T]]:
        reading = _Reading(key)
        self._readings.add(reading)
        try:
            found = yield from items.get(key, read, body=body, lasts=lasts, ahead=ahead)
        finally:
            self._readings.discard(reading)
        found = replace(found, outdated=reading.outdated)
        if not self.may_cache(found):
            self.disturbed += 1
        return found

    def record(self, kind: type[R], record: bytes) -> Steps[R | None]:
        """Return the record with this id, or None."""
        found = yield from self.versioned(kind, record)
        return found[0]

    def versioned(
        self,
        kind: type[R],
        record: bytes,
        *,
        cached: bool = True,
        scope: bytes = b"",
        lasts: Callable[[R], bool] | None = None,
        explained: Explained | None = None,
    ) -> Steps[tuple[R | None, int]]:
        """Return the record with this id and its version, or (None, 0).

        Args:
            cached: False reads it from the store.
            lasts: whether the core is to keep its age; without it, it is.
            explained: as of `genuine`.
        """
        records = yield from self.started()
        assert not (scope and cached), "records of a scope are read from the store"
        key = records.key_of(kind, record, scope)
        known = self.caches.records.get((key.table, record)) if cached else None
        if known is None:
            reading = self._read(self._items(records), key, lambda item: records.read(kind, item), lasts=lasts)
            found = yield from self.genuine(reading, records, explained)
            known = CachedRecord(found.value, found.version)
            if cached and self.may_cache(found):
                self.caches.records.put((key.table, record), known)
        return cast("R | None", known.record), known.version

    def learn(
        self, wanted: Iterable[tuple[type[Record], bytes]], ahead: Ahead, explained: Explained | None = None
    ) -> Steps[None]:
        """Read together those of these records that are not cached, so that each later question for one finds it.

        Args:
            ahead: of what is asked for as well, if anything is.
            explained: as of `genuine`.

        Raises as `record`, for any of them.
        """
        records = yield from self.started()
        keys = [(kind, record, records.key_of(kind, record)) for kind, record in wanted]
        missing = [each for each in keys if self.caches.records.get((each[2].table, each[1])) is None]
        if not self.is_leased() or not missing:
            return
        ahead.invalidations = self.invalidations
        readings = [_Reading(key) for _, _, key in missing]
        self._readings.update(readings)
        asked = [(key, partial(records.read, kind)) for kind, _, key in missing]
        try:
            answers = yield from self.genuine(self._items(records).get_each(asked, ahead), records, explained)
        finally:
            self._readings.difference_update(readings)
        for (_, record, key), reading, answer in zip(missing, readings, answers, strict=True):
            found = replace(answer, outdated=reading.outdated)
            if self.may_cache(found):
                self.caches.records.put((key.table, record), CachedRecord(found.value, found.version))

    def page(
        self,
        kind: type[R],
        *,
        name: str = "",
        after: bytes = b"",
        limit: int = limits.PAGE_ITEMS,
        skipped: list[Skipped] | None = None,
    ) -> Steps[Page[R]]:
        """Return a page of a table's records (of those with this name), by id.

        Args:
            skipped: records that do not open are added to it; None has them raise.

        Raises SealBroken for a record of another name: the tag that the store finds it by is under no seal.
        """
        records = yield from self.started()
        tags = (records.tag(name),) if name else ()
        scan = store.Scan(table=TABLES[kind], tags=tags, after=after, limit=limit, body=True)
        return (yield from self._page(records, scan, lambda item: _named(records.read(kind, item), name), skipped))

    def cached_page(self, kind: type[Record], after: bytes, skipped: list[Skipped]) -> Steps[CachedPage]:
        """Return a page of a table's records, by id, as last read; `skipped` as in `page`."""
        where = (kind, after)
        known = self.caches.pages.get(where)
        if known is None:
            before = len(skipped)
            reading = _Reading(store.Key(table=TABLES[kind]))
            self._readings.add(reading)
            try:
                page = yield from self.page(kind, after=after, skipped=skipped)
            finally:
                self._readings.discard(reading)
            known = CachedPage(tuple(record for _, record in page.found), page.more, page.last)
            if len(skipped) == before and self.may_cache(replace(page, outdated=reading.outdated)):
                self.caches.pages.put(where, known)
        return known

    def named(self, kind: type[R], name: str) -> Steps[tuple[R, int] | None]:
        """Return the record of this name and its version, as the store has it now, or None.

        Raises SealBroken for two.
        """
        return (yield from self.genuine(self._named(kind, name)))

    def _named(self, kind: type[R], name: str) -> Steps[tuple[R, int] | None]:
        page = yield from self.page(kind, name=name, limit=2)
        if page.more or len(page.found) > 1:
            raise SealBroken(f"the store served two {TABLES[kind]} records named {name!r}, and a name is given once")
        return next(((record, item.version) for item, record in page.found), None)

    def scan_all(self, kind: type[R], skipped: list[Skipped] | None = None) -> Steps[list[R]]:
        """Return every record of a small table; `skipped` as in `page`."""
        return [record for _, record in (yield from self.scan_items(kind, skipped))]

    def scan_items(self, kind: type[R], skipped: list[Skipped] | None = None) -> Steps[list[tuple[store.Item, R]]]:
        """Return every record of a small table, with the item that it is kept in."""
        records = yield from self.started()
        found: list[tuple[store.Item, R]] = []
        after, more = b"", True
        while more:
            scan = store.Scan(table=TABLES[kind], after=after, limit=1024, body=True)
            page = yield from self._page(records, scan, lambda item: records.read(kind, item), skipped)
            found += page.found
            after, more = page.last, page.more
        return found

    def _items(self, records: Records) -> Items:
        return Items(records.cluster, records.instance, self.note)

    # --- objects

    def stored(
        self, keys: KeyringKeys, handle: bytes, ahead: Ahead | None = None
    ) -> Steps[Read[tuple[Attributes, bytes]]]:
        """Return an object's attributes and value; raises ObjectUnknown, SealBroken, StateRolledBack.

        Args:
            ahead: what the core was asked with the session's records.
        """
        return (yield from self._existing(keys, handle, keys.read, ahead=ahead))

    def described(self, keys: KeyringKeys, handle: bytes) -> Steps[Read[Attributes]]:
        """Return an object's attributes without its value; raises as `stored`."""
        return (yield from self._existing(keys, handle, keys.read_attributes, body=False))

    def _existing(
        self,
        keys: KeyringKeys,
        handle: bytes,
        read: Callable[[store.Item], T],
        *,
        body: bool = True,
        ahead: Ahead | None = None,
    ) -> Steps[Read[T]]:
        records = yield from self.started()
        if ahead is not None and not (self.is_leased() and self.invalidations == ahead.invalidations):
            ahead.items.clear()  # it may have been changed since it was read
        reading = self._read(self._items(records), keys.key(handle), read, body=body, ahead=ahead)
        found = yield from self.genuine(reading, records, partial(self._check_same_key, keys))
        if found.version == 0:
            raise ObjectUnknown(f"no object {handle.hex()} in this keyring")
        return found

    def objects(self, keys: KeyringKeys, scan: store.Scan, skipped: list[Skipped]) -> Steps[Page[Attributes]]:
        """Return a page of objects with their attributes; `skipped` as in `page`. Raises StateRolledBack."""
        records = yield from self.started()
        explained = partial(self._check_same_key, keys)
        return (yield from self._page(records, scan, keys.read_attributes, skipped, explained))

    def resealed(self, keys: KeyringKeys, scan: store.Scan) -> Steps[Page[store.Put | None]]:
        """Return a page of objects, each with the change that seals it under the newest key, where it is not.

        Raises SealBroken, StateRolledBack.
        """
        records = yield from self.started()
        return (yield from self._page(records, scan, keys.resealed, None, partial(self._check_same_key, keys)))

    # --- uses of keys

    def _keep_uses(self, keys: Iterable[tuple[tuple[bytes, bytes], CachedKey]]) -> None:
        for where, key in keys:
            if key.uses:
                self._uses[where] = self._uses.get(where, 0) + key.uses
                key.uses = 0
