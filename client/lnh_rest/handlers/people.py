"""Appliance users and their roles, clients, and passwords."""

from __future__ import annotations

from typing import Final

from lnh.aio.admin import change_password, change_po_password
from lnh_common.errors import KeyringUnknown, NameUnknown, PasswordIncorrect
from lnh_common.messages.admin import ClientView, RoleView, UserView
from lnh_common.messages.session import Role
from lnh_rest.admin_shapes import KeyringPassword, NewPassword, NewRole, NewUser, UserPassword
from lnh_rest.handlers.sessions import PO, holder_of, keyring_to_log_in
from lnh_rest.route import Call

_LIST: Final = {"advice": "GET /v1/users lists them"}


async def add_user(call: Call) -> None:
    """Add an appliance user, with a first password."""
    new = call.given(NewUser)
    await call.user.add_user(new.name, new.role, new.password)


async def show_user(call: Call) -> UserView:
    """Show an appliance user."""
    found = await call.user.users()
    for view in found if found.current else await call.user.users(current=True):
        if view.name == call.path["user"]:
            return view
    raise NameUnknown("no user has this name", _LIST)


async def delete_user(call: Call) -> None:
    """Delete an appliance user, and end its sessions."""
    await call.user.delete_user(call.path["user"])


async def reset_user(call: Call) -> None:
    """Give another appliance user a new password, good for nothing but being changed."""
    await call.user.reset_user(call.path["user"], call.given(NewPassword).password)


async def unlock_user(call: Call) -> None:
    """Forget an appliance user's failed logins, which unlocks it."""
    await call.user.unlock_user(call.path["user"])


async def unlock_po(call: Call) -> None:
    """Forget the PO's failed logins, which unlocks it."""
    await call.user.unlock_po()


async def create_role(call: Call) -> None:
    """Make a custom appliance role."""
    new = call.given(NewRole)
    await call.user.create_role(new.name, new.permissions)


async def show_role(call: Call) -> RoleView:
    """Show an appliance role, and what it may."""
    return await call.user.role(call.path["role"])


async def delete_role(call: Call) -> None:
    """Delete a custom appliance role that no user has."""
    await call.user.delete_role(call.path["role"])


async def show_client(call: Call) -> ClientView:
    """Show a registered client."""
    return await call.user.client(call.path["client"])


async def revoke_client(call: Call) -> None:
    """End a client's registration, now and for good."""
    await call.user.revoke_client(call.path["client"])


async def assign_keyring(call: Call) -> None:
    """Let only assigned clients see a keyring, this client among them."""
    await call.user.assign(call.path["client"], call.path["keyring"])


async def unassign_keyring(call: Call) -> None:
    """Take an assignment back; once the last is gone, every client sees the keyring again."""
    await call.user.unassign(call.path["client"], call.path["keyring"])


async def change_own_password(call: Call) -> None:
    """Change one's own password, which ends one's other sessions."""
    asked = call.body
    assert isinstance(asked, UserPassword | KeyringPassword), "the route's row names its types"
    if isinstance(asked, KeyringPassword):
        keyring = await keyring_to_log_in(call, asked.keyring)
        with call.guesses.attempt(call.now, call.address, [holder_of(asked.role, asked.keyring)]):
            try:
                await keyring.change_password(Role(asked.role.value), asked.password, asked.new)
            except KeyringUnknown:
                raise PasswordIncorrect("wrong name or password") from None
        return
    connection = call.cluster.connection
    with call.guesses.attempt(call.now, call.address, [asked.user or PO]):
        if asked.user:
            await change_password(connection, asked.user, asked.password, asked.new)
        else:
            await change_po_password(connection, asked.password, asked.new)
