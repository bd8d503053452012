"""The cluster, its members and its keyrings."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from lnh.aio.keyring_lists import keyring_labelled, keyring_listing
from lnh.objects.encoding import named_policy
from lnh.objects.listings import AsOf
from lnh_common.messages import admin as wire
from lnh_common.messages.admin import ClusterView, KeyringView, MemberView, StatusView
from lnh_rest.paging import page
from lnh_rest.route import Call
from lnh_rest.shapes import (
    ClientPage,
    GroupPage,
    KeyringPage,
    KeyringsMade,
    MemberPage,
    NewGroup,
    NewKeyrings,
    PageQuery,
    RolePage,
    UserPage,
)


async def show_status(call: Call) -> StatusView:
    """Show the cluster, and the services of the member that answers."""
    return await call.user.status()


async def show_cluster(call: Call) -> ClusterView:
    """Show the cluster and its members."""
    return await call.user.show()


async def list_members(call: Call) -> MemberPage:
    """List the members, as the member that answers sees them."""
    query = call.given(PageQuery)
    listed = await call.user.members()
    found, following, total = page(listed, lambda each: each.name, query.cursor, query.limit)
    return MemberPage(items=tuple(found), total=total, next=following, **as_of(listed))


async def show_member(call: Call) -> MemberView:
    """Show a member by its name."""
    return await call.user.member(call.path["member"])


async def list_keyrings(call: Call) -> KeyringPage:
    """List the keyrings that the session may see."""
    query = call.given(PageQuery)
    listing = keyring_listing(partial(call.session.ask, wire.KEYRING_LIST), current=False)
    every = [each async for each in listing]
    found, following, total = page(every, lambda each: each.id.hex(), query.cursor, query.limit)
    return KeyringPage(items=tuple(found), total=total, next=following, **as_of(listing))


async def create_keyrings(call: Call) -> KeyringsMade:
    """Create keyrings, all or none; for an admin and the PO in one session."""
    new = call.given(NewKeyrings)
    return KeyringsMade(keyrings=tuple(await call.user.create_keyrings(new.label, new.total, new.index)))


async def show_keyring(call: Call) -> KeyringView:
    """Show a keyring: its roles, its policy, how many objects it holds, and the clients it is assigned to."""
    session = call.session
    named = await keyring_labelled(partial(session.ask, wire.KEYRING_LIST), call.path["keyring"])
    view = await session.ask(wire.KEYRING_SHOW, wire.KeyringRef(keyring=named.id))
    return msgspec.structs.replace(view, policy=named_policy(view.policy))


async def delete_keyring(call: Call) -> None:
    """Delete a keyring and every object in it; for an admin and the PO in one session."""
    await call.user.delete_keyring(call.path["keyring"])


async def list_groups(call: Call) -> GroupPage:
    """List the affinity groups with their members."""
    query = call.given(PageQuery)
    listed = await call.user.groups()
    found, following, total = page(listed, lambda each: each.label, query.cursor, query.limit)
    return GroupPage(items=tuple(found), total=total, next=following, **as_of(listed))


async def create_group(call: Call) -> None:
    """Create an affinity group."""
    await call.user.create_group(call.given(NewGroup).label)


async def delete_group(call: Call) -> None:
    """Delete an affinity group that has no members."""
    await call.user.delete_group(call.path["group"])


async def list_users(call: Call) -> UserPage:
    """List the appliance users."""
    query = call.given(PageQuery)
    listed = await call.user.users()
    found, following, total = page(listed, lambda each: each.name, query.cursor, query.limit)
    return UserPage(items=tuple(found), total=total, next=following, **as_of(listed))


async def list_roles(call: Call) -> RolePage:
    """List the appliance roles, built-in ones and custom ones."""
    query = call.given(PageQuery)
    listed = await call.user.roles()
    found, following, total = page(listed, lambda each: each.name, query.cursor, query.limit)
    return RolePage(items=tuple(found), total=total, next=following, **as_of(listed))


async def list_clients(call: Call) -> ClientPage:
    """List the registered clients."""
    query = call.given(PageQuery)
    listed = await call.user.clients()
    found, following, total = page(listed, lambda each: each.name, query.cursor, query.limit)
    return ClientPage(items=tuple(found), total=total, next=following, **as_of(listed))


def as_of(listed: AsOf) -> dict[str, Any]:
    """Say whether a listing is all there is, as a page says it."""
    behind = listed.behind
    return {
        "current": listed.current,
        "whole_until": behind.whole_until if behind is not None else 0,
        "skipped": tuple(each.id.hex() for each in listed.skipped),
    }
