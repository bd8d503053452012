"""The policies in force: the cluster's, made stricter by the keyring's."""

from __future__ import annotations

from lnh_common.messages.admin import PolicyChange, PolicyView
from lnh_services.hsm.policy import Policy, merge, parse_policy
from lnh_services.hsm.records import PolicyRecord, record_id
from lnh_services.hsm.steps import Steps
from lnh_services.hsm.worker_core import Request, WorkerCore


def policy_id(keyring: bytes = b"") -> bytes:
    """Where the cluster's (empty) or a keyring's policy is kept."""
    return record_id("policy", keyring)


def effective_policy(worker: WorkerCore, keyring: bytes = b"") -> Steps[Policy]:
    """What holds for a keyring, or for the cluster alone."""
    cluster = yield from worker.record(PolicyRecord, policy_id())
    policy = parse_policy(cluster.fields if cluster else {})
    if keyring:
        own = yield from worker.record(PolicyRecord, policy_id(keyring))
        if own is not None:
            policy = merge(policy, own.fields)
    return policy


def change_policy(worker: WorkerCore, request: Request[PolicyChange], keyring: bytes = b"") -> Steps[PolicyView]:
    """Show a policy, or change some of its fields; raises PolicyForbids naming a field that would loosen it."""
    where = policy_id(keyring)
    stored, version = yield from worker.versioned(PolicyRecord, where, cached=False)
    fields = dict(stored.fields if stored else {})
    changes = request.message.changes
    if changes and not (yield from worker.acted_before(request)):
        fields.update(changes)
        parse_policy(fields)
        if keyring:
            cluster = yield from worker.record(PolicyRecord, policy_id())
            merge(parse_policy(cluster.fields if cluster else {}), fields)
        records = yield from worker.started()
        yield from worker.commit(request, [records.put(PolicyRecord(keyring=keyring, fields=fields), where, version)])
    policy = yield from effective_policy(worker, keyring)
    return PolicyView(policy=fields_of_policy(policy))
