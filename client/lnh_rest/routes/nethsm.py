"""Routes of the profile of NetHSM's paths; no part of the OpenAPI document, since NetHSM has its own."""

from __future__ import annotations

from typing import Final

from lnh_common.messages import objects
from lnh_rest import nethsm_shapes
from lnh_rest.base import Text
from lnh_rest.handlers import nethsm
from lnh_rest.route import Route, Who

_A, _H = Who.ANYBODY, Who.HOLDER

ROUTES: Final = (
    Route(
        "GET", "/api/v1/info", "Say what this is.", _A, nethsm.nethsm_info, reply=Text, media_type="application/json"
    ),
    Route("GET", "/api/v1/health/alive", "Say that no member answers.", _A, nethsm.nethsm_alive),
    Route("GET", "/api/v1/health/ready", "Say that a member answers.", _A, nethsm.nethsm_ready),
    Route(
        "GET",
        "/api/v1/health/state",
        "Say whether a member answers.",
        _A,
        nethsm.nethsm_state,
        reply=Text,
        media_type="application/json",
    ),
    Route(
        "POST",
        "/api/v1/random",
        "Draw random bytes.",
        _H,
        nethsm.nethsm_random,
        (objects.RANDOM,),
        body=nethsm_shapes.NetHsmRandom,
        reply=Text,
        media_type="application/json",
        basic=True,
    ),
    Route(
        "GET",
        "/api/v1/keys",
        "List the ids of keys.",
        _H,
        nethsm.nethsm_list_keys,
        (objects.FIND,),
        query=nethsm_shapes.NetHsmQuery,
        reply=Text,
        media_type="application/json",
        basic=True,
    ),
    Route(
        "POST",
        "/api/v1/keys/generate",
        "Generate a key.",
        _H,
        nethsm.nethsm_generate_key,
        (
            objects.FIND,
            objects.GENERATE,
            objects.GENERATE_PAIR,
        ),
        body=nethsm_shapes.NetHsmNewKey,
        reply=nethsm_shapes.NetHsmKeyMade,
        status=201,
        location="/api/v1/keys/{id}",
        basic=True,
    ),
    Route(
        "GET",
        "/api/v1/keys/{key}",
        "Show a key.",
        _H,
        nethsm.nethsm_show_key,
        (
            objects.FIND,
            objects.SHOW,
        ),
        reply=Text,
        media_type="application/json",
        basic=True,
    ),
    Route(
        "DELETE",
        "/api/v1/keys/{key}",
        "Destroy a key.",
        _H,
        nethsm.nethsm_delete_key,
        (
            objects.FIND,
            objects.SHOW,
            objects.DESTROY,
        ),
        status=204,
        basic=True,
    ),
    Route(
        "GET",
        "/api/v1/keys/{key}/public.pem",
        "Show a public key.",
        _H,
        nethsm.nethsm_public_key,
        (
            objects.FIND,
            objects.SHOW,
        ),
        reply=Text,
        media_type="application/x-pem-file",
        basic=True,
    ),
    Route(
        "POST",
        "/api/v1/keys/{key}/sign",
        "Sign.",
        _H,
        nethsm.nethsm_sign,
        (
            objects.FIND,
            objects.SHOW,
            objects.SIGN,
        ),
        body=nethsm_shapes.NetHsmSign,
        reply=Text,
        media_type="application/json",
        basic=True,
    ),
    Route(
        "POST",
        "/api/v1/keys/{key}/decrypt",
        "Decrypt.",
        _H,
        nethsm.nethsm_decrypt,
        (
            objects.FIND,
            objects.SHOW,
            objects.DECRYPT,
        ),
        body=nethsm_shapes.NetHsmDecrypt,
        reply=Text,
        media_type="application/json",
        basic=True,
    ),
    Route(
        "POST",
        "/api/v1/keys/{key}/encrypt",
        "Encrypt.",
        _H,
        nethsm.nethsm_encrypt,
        (
            objects.FIND,
            objects.SHOW,
            objects.ENCRYPT,
        ),
        body=nethsm_shapes.NetHsmEncrypt,
        reply=Text,
        media_type="application/json",
        basic=True,
    ),
)
