"""The table of routes: one row a route says all that is to be said of it.

The service, the OpenAPI document and docs/rest.md are made of it. A route that is not here is not served.
"""

from __future__ import annotations

from typing import Final

from lnh_common.messages import admin, objects, session
from lnh_common.messages.admin import ClusterView, KeyringView, MemberView, StatusView
from lnh_rest import shapes
from lnh_rest.handlers import cluster, cryptography, sessions
from lnh_rest.handlers import objects as on_objects
from lnh_rest.route import Route, Who

_A, _S, _U, _H = Who.ANYBODY, Who.SESSION, Who.USER, Who.HOLDER
_KEY: Final = "/v1/keys/{handle}"

ROUTES: Final = (
    Route("GET", "/v1/health", "Say that the service serves.", _A, sessions.health, reply=shapes.Health),
    Route("GET", "/v1/problems", "List every kind of error.", _A, sessions.list_problems, reply=shapes.ProblemKinds),
    Route(
        "GET", "/v1/problems/{error}", "Describe a kind of error.", _A, sessions.show_problem, reply=shapes.ProblemKind
    ),
    Route(
        "POST",
        "/v1/sessions",
        "Log in; the answer has the bearer token.",
        _A,
        sessions.log_in,
        (session.LOGIN,),
        body=shapes.UserLogin | shapes.KeyringLogin,
        reply=shapes.SessionOpened,
        status=201,
        is_login=True,
    ),
    Route(
        "GET", "/v1/sessions/current", "Describe one's session.", _S, sessions.show_session, reply=shapes.SessionView
    ),
    Route("DELETE", "/v1/sessions/current", "Log out.", _S, sessions.log_out, (session.LOGOUT,), status=204),
    Route(
        "GET",
        "/v1/status",
        "Show the cluster, and the services of the member that answers.",
        _U,
        cluster.show_status,
        (admin.STATUS,),
        reply=StatusView,
    ),
    Route(
        "GET",
        "/v1/cluster",
        "Show the cluster and its members.",
        _U,
        cluster.show_cluster,
        (admin.CLUSTER_SHOW,),
        reply=ClusterView,
    ),
    Route(
        "GET",
        "/v1/members",
        "List the members.",
        _U,
        cluster.list_members,
        (admin.CLUSTER_SHOW,),
        query=shapes.PageQuery,
        reply=shapes.MemberPage,
    ),
    Route(
        "GET",
        "/v1/members/{member}",
        "Show a member.",
        _U,
        cluster.show_member,
        (admin.CLUSTER_SHOW,),
        reply=MemberView,
    ),
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
        "GET",
        "/v1/objects",
        "List the objects with some attributes.",
        _H,
        on_objects.list_objects,
        (objects.FIND, admin.KEYRING_SHOW),
        query=shapes.ObjectQuery,
        reply=shapes.ObjectPage,
    ),
    Route(
        "GET",
        "/v1/objects/{handle}",
        "Show an object.",
        _H,
        on_objects.show_object,
        (objects.SHOW,),
        reply=shapes.ObjectView,
        etag=True,
    ),
    Route(
        "DELETE",
        "/v1/objects/{handle}",
        "Destroy an object.",
        _H,
        on_objects.destroy_object,
        (objects.SHOW, objects.DESTROY),
        status=204,
    ),
    Route(
        "POST",
        "/v1/keys",
        "Generate secret keys, all or none.",
        _H,
        on_objects.generate_keys,
        (objects.GENERATE, objects.GENERATE_MANY, objects.GENERATE_IN_SESSION),
        body=shapes.NewKeys,
        reply=shapes.KeysMade,
        status=201,
        creates=True,
    ),
    Route(
        "POST",
        "/v1/key-pairs",
        "Generate a key pair.",
        _H,
        on_objects.generate_key_pair,
        (objects.GENERATE_PAIR, objects.GENERATE_PAIR_IN_SESSION),
        body=shapes.NewKeyPair,
        reply=shapes.KeyPairMade,
        status=201,
        creates=True,
    ),
    Route(
        "POST",
        f"{_KEY}/sign",
        "Sign data.",
        _H,
        cryptography.sign,
        (objects.SHOW, objects.SIGN),
        body=shapes.Sign,
        reply=shapes.Signed,
    ),
    Route(
        "POST",
        f"{_KEY}/verify",
        "Verify a signature.",
        _H,
        cryptography.verify,
        (objects.SHOW, objects.VERIFY),
        body=shapes.Verify,
        reply=shapes.Verified,
    ),
    Route(
        "POST",
        f"{_KEY}/encrypt",
        "Encrypt data.",
        _H,
        cryptography.encrypt,
        (objects.SHOW, objects.ENCRYPT),
        body=shapes.Encrypt,
        reply=shapes.Encrypted,
    ),
    Route(
        "POST",
        f"{_KEY}/decrypt",
        "Decrypt data.",
        _H,
        cryptography.decrypt,
        (objects.SHOW, objects.DECRYPT),
        body=shapes.Decrypt,
        reply=shapes.Decrypted,
    ),
    Route(
        "POST",
        "/v1/random",
        "Draw random bytes from the HSM.",
        _H,
        cryptography.random,
        (objects.RANDOM,),
        body=shapes.RandomLength,
        reply=shapes.RandomData,
    ),
)
