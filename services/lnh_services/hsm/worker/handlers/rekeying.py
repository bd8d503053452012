"""Serves the rekey of a keyring: a new keyring key, and everything of the keyring sealed anew under it.

    rekey     one commit: the new key is sealed to both roles, whose credentials get new ids, and the key of before is
              sealed under it. All sessions of the keyring end; who logs in from here on holds both keys.
    reseal    again and again: the next objects, in the order of their handles, are sealed under the new key. With the
              last of them the key of before goes.

So a keyring of any size is rekeyed in commits of a bounded size, and whatever stops it, between two commits it is
whole: each object is sealed under one of two keys, both of which every session opens, and all that is stored meanwhile
is sealed under the new one. How far it came is a record, so anybody who may goes on with it.

Objects behind that record need the new key alone, since nothing comes to be sealed under the one of before any more: a
commit that was begun under it either replaces an object that is to come yet, at the version that it was read at, or
finds another version of the keyring's own record, which `rekey` writes anew (`OpenSession.same_key`).

The key of before is sealed under the new one and never the other way round: who holds the one of before, as somebody
who broke an old credential may, gets nothing by it. That is why sessions end.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Final

from lnh_common import limits
from lnh_common.errors import AlreadyDone, Busy, NotPossible
from lnh_common.messages import store
from lnh_common.messages.admin import RekeyState
from lnh_common.messages.base import Empty
from lnh_common.messages.overview import UnfinishedRekey
from lnh_common.messages.session import Role
from lnh_common.messages.store import OBJECTS
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.records import CredentialRecord, KeyringRecord, RekeyRecord, ResealRecord
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.handlers.session import renamed
from lnh_services.hsm.worker.policies import check_exists
from lnh_services.hsm.worker.request import Request

_FIRST: Final = 1


def state(worker: WorkerCore, request: Request[Any]) -> Steps[RekeyState]:
    """Tell how far a keyring is with its newest key."""
    keyring = request.who.holder.keyring
    rekeyed, _ = yield from _known(worker, keyring)
    if rekeyed is None:
        rekeyed = RekeyRecord(generation=_FIRST, before=b"", begun_at=0)
    progress, _ = yield from worker.versioned(ResealRecord, keyring, cached=False)
    done = progress.done if progress is not None and progress.generation == rekeyed.generation else 0
    counted = yield from ask(Peer.STORE, store.COUNT, store.Count(table=OBJECTS, scope=keyring))
    return RekeyState(
        generation=rekeyed.generation,
        open=bool(rekeyed.before),
        done=done,
        objects=counted.count,
        begun_at=rekeyed.begun_at,
    )


def unfinished(worker: WorkerCore) -> Steps[tuple[UnfinishedRekey, ...]]:
    """List the keyrings that are not through with their newest key, those that went on longest first."""
    found = []
    for item, rekeyed in (yield from worker.scan_items(RekeyRecord, [])):
        if rekeyed.before:
            of_keyring = yield from worker.record(KeyringRecord, item.key.id)
            if of_keyring is not None:
                found.append(UnfinishedRekey(label=of_keyring.label, begun_at=rekeyed.begun_at))
    return tuple(sorted(found, key=lambda each: (each.begun_at, each.label)))


def _known(worker: WorkerCore, keyring: bytes) -> Steps[tuple[RekeyRecord | None, int]]:
    gone = partial(check_exists, worker, keyring)
    return (yield from worker.versioned(RekeyRecord, keyring, cached=False, explained=gone))


def _of_its_session(worker: WorkerCore, request: Request[Empty]) -> Steps[tuple[RekeyRecord | None, int]]:
    """Return what is known of the keyring's newest key, which is the session's; raises Busy if that is not certain.

    What a session was checked against may have changed while its request waited. Under the key of before, every object
    of then would pass for one that is sealed anew already.
    """
    yield from worker.check_alive(request)
    keys = request.keyring_keys
    rekeyed, version = yield from _known(worker, keys.keyring)
    if version != keys.rekeyed:
        raise _looked_at_before()
    return rekeyed, version


def _looked_at_before() -> Busy:
    return Busy("the keyring changed while its session was looked at")


def rekey(worker: WorkerCore, request: Request[Empty]) -> Steps[RekeyState]:
    """Give a keyring another key, as its KRSO; all its sessions end.

    Raises AlreadyDone while the last rekey is not through.
    """
    if (yield from worker.acted_before(request)):
        return (yield from state(worker, request))
    records = yield from worker.started()
    rekeyed, version = yield from _of_its_session(worker, request)
    session, now = request.who, int(worker.utc())
    keyring = session.holder.keyring
    if rekeyed is not None and rekeyed.before:
        raise AlreadyDone("this keyring has another key since, and not everything is sealed under it yet")
    of_keyring, keyring_version = yield from worker.versioned(KeyringRecord, keyring, cached=False)
    if of_keyring is None or keyring_version != session.keyring_version:
        raise _looked_at_before()
    newest = os.urandom(credentials.KEYRING_KEY_BYTES)
    changes: list[store.Change] = [records.put(of_keyring, keyring, keyring_version, unique=of_keyring.label)]
    for role in (Role.KRSO, Role.KRCO):
        where = credentials.credential_id(role, "", keyring)
        held, held_version = yield from worker.versioned(CredentialRecord, where, cached=False)
        if held is not None:
            changes.append(records.put(renamed(worker, held, newest, now), where, held_version))
    stage = RekeyRecord(
        generation=(rekeyed.generation if rekeyed else _FIRST) + 1,
        before=request.keyring_keys.seal_before(session.token.keyring_key, newest),
        begun_at=now,
    )
    yield from worker.commit(request, [*changes, records.put(stage, keyring, version)])
    return (yield from state(worker, request))


def reseal(worker: WorkerCore, request: Request[Empty]) -> Steps[RekeyState]:
    """Seal the next objects of a keyring under its newest key, as its KRSO; the last of them end the rekey.

    Raises NotPossible where no rekey is under way, VersionConflict where one of these objects changes at this moment.
    """
    if (yield from worker.acted_before(request)):
        return (yield from state(worker, request))
    keyring = request.who.holder.keyring
    records = yield from worker.started()
    rekeyed, version = yield from _of_its_session(worker, request)
    if rekeyed is None or not rekeyed.before:
        raise NotPossible("everything of this keyring is sealed under its newest key", {"advice": "lnh keyring rekey"})
    progress, progress_version = yield from worker.versioned(ResealRecord, keyring, cached=False)
    if progress is None or progress.generation != rekeyed.generation:
        progress = ResealRecord(generation=rekeyed.generation)
    scan = store.Scan(table=OBJECTS, scope=keyring, after=progress.after, limit=limits.OBJECTS_PER_RESEAL, body=True)
    page = yield from worker.resealed(request.keyring_keys, scan)
    done = ResealRecord(generation=rekeyed.generation, after=page.last, done=progress.done + len(page.found))
    changes: list[store.Change] = [records.put(done, keyring, progress_version)]
    changes += [put for _, put in page.found if put is not None]
    if page.more:
        changes.append(store.Require(key=records.key_of(RekeyRecord, keyring), version=version))
    else:
        ended = RekeyRecord(generation=rekeyed.generation, before=b"", begun_at=rekeyed.begun_at)
        changes.append(records.put(ended, keyring, version))
    yield from worker.commit(request, changes)
    return (yield from state(worker, request))
