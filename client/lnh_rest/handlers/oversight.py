"""What administrators look after: policies, approvals, the SMK, and the audit trail."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from lnh.objects.encoding import named_policy
from lnh_common.errors import ArgumentInvalid, AuditFailed
from lnh_common.messages.admin import (
    CLUSTER_POLICY,
    KEYRING_POLICY,
    KEYRING_REKEY,
    KEYRING_RESEAL,
    ApprovalView,
    PolicyChange,
    PolicyView,
    RekeyState,
    RoleLocks,
)
from lnh_common.messages.audit import AUDIT_EXPORT, ReadTrail, TrailLines
from lnh_common.messages.base import Empty
from lnh_common.messages.session import Role
from lnh_common.messages.smk import SmkOrdered, SmkView
from lnh_common.wire.audit import Chain, ChainBroken
from lnh_common.wire.channel import fingerprint
from lnh_rest.admin_shapes import (
    ApprovalPage,
    Changes,
    LockedRole,
    NewPassword,
    SmkBackedUp,
    SmkBackup,
    SmkNewest,
    TrailQuery,
    TrailState,
)
from lnh_rest.base import Stream
from lnh_rest.handlers.cluster import as_of
from lnh_rest.paging import page
from lnh_rest.route import Call
from lnh_rest.shapes import PageQuery


async def show_cluster_policy(call: Call) -> PolicyView:
    """Show the cluster's policy."""
    return _named(await call.user.ask(CLUSTER_POLICY, PolicyChange()))


async def change_cluster_policy(call: Call) -> PolicyView:
    """Change fields of the cluster's policy; for an admin and the PO in one session."""
    return _named(await call.user.ask(CLUSTER_POLICY, PolicyChange(changes=call.given(Changes).changes)))


async def show_policy(call: Call) -> PolicyView:
    """Show the policy of the session's keyring."""
    return _named(await call.holder.ask(KEYRING_POLICY, PolicyChange()))


async def change_policy(call: Call) -> PolicyView:
    """Change fields of the keyring's policy, as its KRSO; only to what is stricter."""
    return _named(await call.holder.ask(KEYRING_POLICY, PolicyChange(changes=call.given(Changes).changes)))


def _named(view: PolicyView) -> PolicyView:
    """Name the mechanisms of a policy."""
    return msgspec.structs.replace(view, policy=named_policy(view.policy))


async def init_krso(call: Call) -> None:
    """Set a keyring's first KRSO credential, good for nothing but being changed."""
    await call.user.init_krso(call.path["keyring"], call.given(NewPassword).password)


async def show_role_locks(call: Call) -> RoleLocks:
    """Say which roles of a keyring are locked, for whom and until when."""
    found = await call.user.role_locks(call.path["keyring"])
    return RoleLocks(locks=tuple(found), behind=found.behind, skipped=found.skipped)


async def unlock_keyring_role(call: Call) -> None:
    """Forget the failed logins of a keyring's KRSO or KRCO, which unlocks it."""
    await call.user.unlock_role(call.path["keyring"], Role(call.given(LockedRole).role.value))


async def set_krco(call: Call) -> None:
    """Set or reset the KRCO credential of the session's keyring, as its KRSO."""
    await call.holder.set_krco(call.given(NewPassword).password)


async def show_rekey(call: Call) -> RekeyState:
    """Tell how far the keyring is with its newest key."""
    return await call.holder.rekey_state()


async def begin_rekey(call: Call) -> RekeyState:
    """Give the keyring another key, as its KRSO, which ends all its sessions, this one too."""
    return await call.holder.ask(KEYRING_REKEY, Empty())


async def continue_rekey(call: Call) -> RekeyState:
    """Seal some more objects under the newest key, as the KRSO."""
    return await call.holder.ask(KEYRING_RESEAL, Empty())


async def list_approvals(call: Call) -> ApprovalPage:
    """List what waits for a second person, and what did until lately."""
    query = call.given(PageQuery)
    listed = await call.user.approvals()
    found, following, total = page(listed, lambda each: each.id.hex(), query.cursor, query.limit)
    return ApprovalPage(items=tuple(found), total=total, next=following, **as_of(listed))


async def approve(call: Call) -> ApprovalView:
    """Approve what another user asked for, who then asks the same again."""
    return await call.user.approve(call.id("approval"))


async def deny(call: Call) -> ApprovalView:
    """Deny what was asked for, also one's own."""
    return await call.user.deny(call.id("approval"))


async def show_smk(call: Call) -> SmkView:
    """Show the generations of the SMK that the answering member's HSM holds."""
    return await call.user.smk()


async def back_up_smk(call: Call) -> SmkBackedUp:
    """Make a backup of the SMK and the cluster's identity; for an admin and the PO in one session."""
    asked = call.given(SmkBackup)
    if asked.passphrase and not (asked.threshold or asked.count):
        return SmkBackedUp(text=await call.user.backup_smk(asked.passphrase), shares=())
    if asked.passphrase:
        raise ArgumentInvalid("a passphrase opens the backup, or shares do", {"advice": "leave out one of the two"})
    text, shares = await call.user.split_smk(asked.threshold, asked.count)
    return SmkBackedUp(text=text, shares=tuple(shares))


async def roll_over_smk(call: Call) -> SmkOrdered:
    """Have the cluster's HSMs go over to a new generation of the SMK; for an admin and the PO in one session."""
    return await call.user.roll_over_smk()


async def retire_smk(call: Call) -> SmkOrdered:
    """Have the HSMs drop every generation of the SMK but the newest; for an admin and the PO in one session."""
    return await call.user.retire_smk(call.given(SmkNewest).newest)


async def read_audit(call: Call) -> TrailLines:
    """Read lines of the audit trail of the member that answers, as many as one answer holds."""
    query = call.given(TrailQuery)
    return await call.user.ask(AUDIT_EXPORT, ReadTrail(after=query.after, until=query.until))


async def export_audit(call: Call) -> Stream:
    """Export the audit trail, a line of JSON each; where a line does not follow the one before, it is cut off."""
    lines = call.user.export_audit(call.given(TrailQuery).after)
    # What is refused is refused before the answer begins.
    first = await anext(lines, None)

    async def parts() -> AsyncIterator[bytes]:
        if first is not None:
            yield f"{first}\n".encode()
        async for line in lines:
            yield f"{line}\n".encode()

    return Stream(parts(), name="audit.jsonl")


async def verify_audit(call: Call) -> TrailState:
    """Read the trail, and check its chain of hashes and the signatures of its heads."""
    query = call.given(TrailQuery)
    signers: list[bytes] = []

    def is_known(key: bytes) -> bool:
        signers.append(key)
        return True

    chain = Chain(is_known, whole=False)
    problem = ""
    try:
        async for line in call.user.export_audit(query.after):
            chain.take(f"{line}\n".encode())
    except (AuditFailed, ChainBroken) as error:
        problem = f"behind index {chain.end.index}: {error}"
    if not problem and chain.records and not chain.is_signed:
        problem = "no HSM has signed these lines yet"
    return TrailState(
        holds=not problem,
        problem=problem,
        identity=fingerprint(signers[-1]) if signers else "",
        first=chain.first,
        last=chain.end.index,
        records=chain.records,
        signed=chain.signed,
        head=chain.end.hash.hex(),
    )
