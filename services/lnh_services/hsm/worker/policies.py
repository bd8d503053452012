"""Reads the policies in force: the cluster's, made stricter by the keyring's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from lnh_common.errors import ArgumentInvalid, KeyringUnknown
from lnh_common.messages import store
from lnh_common.messages.admin import PolicyChange, PolicyView
from lnh_common.versions import POLICY_FIELDS_SINCE, latest
from lnh_services.hsm.effects import Steps
from lnh_services.hsm.objects import policy as rules
from lnh_services.hsm.objects.policy import Policy
from lnh_services.hsm.records import KeyringRecord, PolicyRecord, record_id
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.request import Request


def policy_id(keyring: bytes = b"") -> bytes:
    """Return the id of the record that keeps the cluster's (empty) or a keyring's policy."""
    return record_id("policy", keyring)


def check_exists(worker: WorkerCore, keyring: bytes) -> Steps[None]:
    """Raise KeyringUnknown for a keyring that is not there: with it its policy went, which nobody must miss."""
    record, _ = yield from worker.versioned(KeyringRecord, keyring, cached=False)
    if record is None:
        raise KeyringUnknown(f"no keyring {keyring.hex()}")


def effective_policy(worker: WorkerCore, keyring: bytes = b"") -> Steps[Policy]:
    """Return the policy that holds for a keyring, or for the cluster alone."""
    known = worker.caches.policies.get(keyring)
    if known is not None:
        return known
    disturbed = worker.disturbed
    cluster = yield from worker.record(PolicyRecord, policy_id())
    policy = rules.change_policy(Policy(), cluster.fields if cluster else {})
    if keyring:
        own, _ = yield from worker.versioned(
            PolicyRecord, policy_id(keyring), explained=partial(check_exists, worker, keyring)
        )
        if own is not None:
            policy = rules.effective(policy, own.fields)
    if worker.may_cache_since(disturbed):
        worker.caches.policies.put(keyring, policy)
    return policy


def _check_known_everywhere(worker: WorkerCore, changes: Mapping[str, Any]) -> Steps[None]:
    """Raise NotPossible for a field that a member of the cluster's version could not read."""
    new = sorted(POLICY_FIELDS_SINCE.keys() & changes.keys())
    if new:
        since = latest(POLICY_FIELDS_SINCE[name] for name in new)
        yield from worker.check_version(since, f"{', '.join(new)} can be set")


def change_policy(
    worker: WorkerCore,
    request: Request[PolicyChange],
    keyring: bytes = b"",
    *,
    note: bool = False,
    guards: Iterable[store.Change] = (),
) -> Steps[PolicyView]:
    """Show a policy, or change some of its fields; raises PolicyForbids naming a field that would loosen it.

    Args:
        note: write the record in any case, so that it is known that this request has acted.
        guards: of the change, what must hold beside it.
    """
    where = policy_id(keyring)
    stored, version = yield from worker.versioned(PolicyRecord, where, cached=False)
    fields = dict(stored.fields if stored else {})
    changes = rules.with_numbers(request.message.changes)
    if (changes or note) and not (yield from worker.acted_before(request)):
        yield from _check_known_everywhere(worker, changes)
        fields.update(changes)
        if keyring:
            if names := sorted(rules.OF_THE_CLUSTER & changes.keys()):
                raise ArgumentInvalid(f"{', '.join(names)}: the cluster's policy has it, and no keyring's")
            rules.merge((yield from effective_policy(worker)), fields)
        else:
            rules.change_policy(Policy(), fields)
        records = yield from worker.started()
        put = records.put(PolicyRecord(keyring=keyring, fields=fields), where, version)
        yield from worker.commit(request, [*guards, put])
    policy = yield from effective_policy(worker, keyring)
    shown = rules.policy_view(policy)
    left_out = rules.OF_THE_CLUSTER if keyring else frozenset()
    return PolicyView(policy={name: value for name, value in shown.items() if name not in left_out})
