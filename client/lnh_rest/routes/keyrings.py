"""Routes of keyrings and their roles, policies and keys."""

from __future__ import annotations

from typing import Final

from lnh_common.messages import admin
from lnh_common.messages.admin import KeyringView, PolicyView, RekeyState, RoleLocks
from lnh_rest import admin_shapes, shapes
from lnh_rest.handlers import cluster, oversight
from lnh_rest.route import Route, Who

_S, _U, _H = Who.SESSION, Who.USER, Who.HOLDER

ROUTES: Final = (
    Route(
        "GET",
        "/v1/keyrings",
        "List the keyrings that the session may see.",
        _S,
        cluster.list_keyrings,
        (admin.KEYRING_LIST,),
        query=shapes.PageQuery,
        reply=shapes.KeyringPage,
    ),
    Route(
        "POST",
        "/v1/keyrings",
        "Create keyrings, all or none.",
        _U,
        cluster.create_keyrings,
        (admin.KEYRING_CREATE,),
        body=shapes.NewKeyrings,
        reply=shapes.KeyringsMade,
        status=201,
        creates=True,
    ),
    Route(
        "GET",
        "/v1/keyrings/{keyring}",
        "Show a keyring.",
        _S,
        cluster.show_keyring,
        (admin.KEYRING_LIST, admin.KEYRING_SHOW),
        reply=KeyringView,
    ),
    Route(
        "DELETE",
        "/v1/keyrings/{keyring}",
        "Delete a keyring and every object in it.",
        _U,
        cluster.delete_keyring,
        (admin.KEYRING_LIST, admin.KEYRING_DELETE),
        status=204,
    ),
    Route(
        "POST",
        "/v1/keyrings/{keyring}/krso",
        "Set a keyring's first KRSO credential.",
        _U,
        oversight.init_krso,
        (
            admin.KEYRING_LIST,
            admin.ROLE_INIT,
        ),
        body=admin_shapes.NewPassword,
        status=204,
        creates=True,
    ),
    Route(
        "GET",
        "/v1/keyrings/{keyring}/locks",
        "Say which roles of a keyring are locked.",
        _U,
        oversight.show_role_locks,
        (
            admin.KEYRING_LIST,
            admin.ROLE_LOCKS,
        ),
        reply=RoleLocks,
    ),
    Route(
        "POST",
        "/v1/keyrings/{keyring}/unlock",
        "Forget the failed logins of a keyring's role, which unlocks it.",
        _U,
        oversight.unlock_keyring_role,
        (
            admin.KEYRING_LIST,
            admin.USER_UNLOCK,
        ),
        body=admin_shapes.LockedRole,
        status=204,
        creates=True,
    ),
    Route(
        "PUT",
        "/v1/krco",
        "Set or reset the KRCO credential of the session's keyring.",
        _H,
        oversight.set_krco,
        (admin.ROLE_SET,),
        body=admin_shapes.NewPassword,
        status=204,
    ),
    Route(
        "GET",
        "/v1/policy",
        "Show the policy of the session's keyring.",
        _H,
        oversight.show_policy,
        (admin.KEYRING_POLICY,),
        reply=PolicyView,
        looks=True,
    ),
    Route(
        "PATCH",
        "/v1/policy",
        "Change fields of the keyring's policy.",
        _H,
        oversight.change_policy,
        (admin.KEYRING_POLICY,),
        body=admin_shapes.Changes,
        reply=PolicyView,
    ),
    Route(
        "GET",
        "/v1/rekey",
        "Tell how far the keyring is with its newest key.",
        _H,
        oversight.show_rekey,
        (admin.KEYRING_REKEY_STATE,),
        reply=RekeyState,
    ),
    Route(
        "POST",
        "/v1/rekey",
        "Give the keyring another key, which ends all its sessions.",
        _H,
        oversight.begin_rekey,
        (admin.KEYRING_REKEY,),
        reply=RekeyState,
        creates=True,
    ),
    Route(
        "POST",
        "/v1/rekey/continue",
        "Seal some more objects under the newest key.",
        _H,
        oversight.continue_rekey,
        (admin.KEYRING_RESEAL,),
        reply=RekeyState,
        creates=True,
    ),
)
