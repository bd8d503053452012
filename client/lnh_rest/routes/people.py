"""Routes of appliance users and roles, clients, and passwords."""

from __future__ import annotations

from typing import Final

from lnh_common.messages import admin, session
from lnh_common.messages.admin import ClientView, RoleView, UserView
from lnh_rest import admin_shapes, shapes
from lnh_rest.handlers import cluster, people
from lnh_rest.route import Route, Who

_A, _U = Who.ANYBODY, Who.USER

ROUTES: Final = (
    Route(
        "GET",
        "/v1/users",
        "List the appliance users.",
        _U,
        cluster.list_users,
        (admin.USER_LIST,),
        query=shapes.PageQuery,
        reply=shapes.UserPage,
    ),
    Route(
        "POST",
        "/v1/users",
        "Add an appliance user.",
        _U,
        people.add_user,
        (admin.USER_ADD,),
        body=admin_shapes.NewUser,
        status=204,
        creates=True,
    ),
    Route(
        "GET", "/v1/users/{user}", "Show an appliance user.", _U, people.show_user, (admin.USER_LIST,), reply=UserView
    ),
    Route(
        "DELETE",
        "/v1/users/{user}",
        "Delete an appliance user, and end its sessions.",
        _U,
        people.delete_user,
        (admin.USER_DELETE,),
        status=204,
    ),
    Route(
        "POST",
        "/v1/users/{user}/reset",
        "Give another user a new password, good for nothing but being changed.",
        _U,
        people.reset_user,
        (admin.USER_RESET,),
        body=admin_shapes.NewPassword,
        status=204,
        creates=True,
    ),
    Route(
        "POST",
        "/v1/users/{user}/unlock",
        "Forget a user's failed logins, which unlocks it.",
        _U,
        people.unlock_user,
        (admin.USER_UNLOCK,),
        status=204,
        creates=True,
    ),
    Route(
        "POST",
        "/v1/po/unlock",
        "Forget the PO's failed logins, which unlocks it.",
        _U,
        people.unlock_po,
        (admin.USER_UNLOCK,),
        status=204,
        creates=True,
    ),
    Route(
        "GET",
        "/v1/roles",
        "List the appliance roles.",
        _U,
        cluster.list_roles,
        (admin.USER_ROLE_LIST,),
        query=shapes.PageQuery,
        reply=shapes.RolePage,
    ),
    Route(
        "POST",
        "/v1/roles",
        "Make a custom appliance role.",
        _U,
        people.create_role,
        (admin.USER_ROLE_CREATE,),
        body=admin_shapes.NewRole,
        status=204,
        creates=True,
    ),
    Route(
        "GET",
        "/v1/roles/{role}",
        "Show an appliance role, and what it may.",
        _U,
        people.show_role,
        (admin.USER_ROLE_LIST,),
        reply=RoleView,
    ),
    Route(
        "DELETE",
        "/v1/roles/{role}",
        "Delete a custom appliance role that no user has.",
        _U,
        people.delete_role,
        (admin.USER_ROLE_DELETE,),
        status=204,
    ),
    Route(
        "GET",
        "/v1/clients",
        "List the registered clients.",
        _U,
        cluster.list_clients,
        (admin.CLIENT_LIST,),
        query=shapes.PageQuery,
        reply=shapes.ClientPage,
    ),
    Route(
        "GET",
        "/v1/clients/{client}",
        "Show a registered client.",
        _U,
        people.show_client,
        (admin.CLIENT_LIST,),
        reply=ClientView,
    ),
    Route(
        "POST",
        "/v1/clients/{client}/revoke",
        "End a client's registration, now and for good.",
        _U,
        people.revoke_client,
        (admin.CLIENT_REVOKE,),
        status=204,
        creates=True,
    ),
    Route(
        "PUT",
        "/v1/clients/{client}/keyrings/{keyring}",
        "Let only assigned clients see a keyring, this one among them.",
        _U,
        people.assign_keyring,
        (
            admin.KEYRING_LIST,
            admin.CLIENT_ASSIGN,
        ),
        status=204,
    ),
    Route(
        "DELETE",
        "/v1/clients/{client}/keyrings/{keyring}",
        "Take an assignment back.",
        _U,
        people.unassign_keyring,
        (
            admin.KEYRING_LIST,
            admin.CLIENT_UNASSIGN,
        ),
        status=204,
    ),
    Route(
        "POST",
        "/v1/passwords",
        "Change one's own password.",
        _A,
        people.change_own_password,
        (session.CHANGE_PASSWORD,),
        body=admin_shapes.UserPassword | admin_shapes.KeyringPassword,
        status=204,
        is_login=True,
    ),
)
