"""The members: their names and groups, which of them is the primary, who comes and who goes."""

from __future__ import annotations

from lnh_common.errors import ArgumentInvalid
from lnh_common.messages.admin import InvitationView, Remark, VersionView
from lnh_common.messages.overview import Overview
from lnh_common.messages.store import Divergent
from lnh_rest.admin_shapes import Look, MemberChange, MemberGroup, Removal
from lnh_rest.route import Call


async def show_overview(call: Call) -> Overview:
    """Show the whole cluster, with what each member tells of itself now."""
    return await call.user.overview()


async def show_version(call: Call) -> VersionView:
    """Show the cluster's version, and which members stand in the way of a later one."""
    return await call.user.version()


async def upgrade(call: Call) -> VersionView:
    """Raise the cluster's version to that of its members; for an admin and the PO in one session."""
    return await call.user.upgrade()


async def invite_member(call: Call) -> InvitationView:
    """Make an invitation for one new member, good once and for 15 minutes; for an admin and the PO in one session."""
    return await call.user.invite()


async def change_member(call: Call) -> None:
    """Give a member another name or address."""
    new = call.given(MemberChange)
    if new == MemberChange():
        raise ArgumentInvalid("nothing to change", {"advice": "give name, host or port"})
    await call.user.set_member(call.path["member"], new_name=new.name, host=new.host, port=new.port)


async def move_member(call: Call) -> None:
    """Move a member to another affinity group."""
    await call.user.move_member(call.path["member"], call.given(MemberGroup).group)


async def promote_member(call: Call) -> Remark:
    """Make a member the primary, losing nothing."""
    return Remark(remark=await call.user.promote(call.path["member"]))


async def remove_member(call: Call) -> Remark:
    """Remove a member that works; its HSM wipes the cluster's secrets."""
    return Remark(remark=await call.user.remove_member(call.path["member"]))


async def delete_member(call: Call) -> Remark:
    """Remove a member that is lost for good."""
    return Remark(remark=await call.user.delete_member(call.path["member"], force=call.given(Removal).force))


async def leave(call: Call) -> Remark:
    """Have a member leave the cluster; for an admin and the PO in one session."""
    member = await call.user.member(call.path["member"])
    return Remark(remark=await call.user.leave(member.id))


async def divergent_entries(call: Call) -> Divergent:
    """Show the entries that a member had to drop when it came back, and note that somebody looked, where asked to."""
    return await call.user.divergent(call.path["member"], seen=call.given(Look).seen)
