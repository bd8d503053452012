"""Routes of the service itself: health, metrics, errors, sessions."""

from __future__ import annotations

from typing import Final

from lnh_common.messages import session
from lnh_common.messages.overview import OVERVIEW
from lnh_rest import shapes
from lnh_rest.base import Text
from lnh_rest.counts import MEDIA_TYPE
from lnh_rest.handlers import sessions, state
from lnh_rest.route import Route, Who

_A, _S, _U = Who.ANYBODY, Who.SESSION, Who.USER

ROUTES: Final = (
    Route("GET", "/v1/health", "Say that the service serves.", _A, state.health, reply=shapes.Health),
    Route("GET", "/healthz", "Say that the service serves.", _A, state.healthz, reply=shapes.Health),
    Route(
        "GET",
        "/readyz",
        "Say whether a member answers the service.",
        _A,
        state.readyz,
        reply=shapes.Health,
    ),
    Route(
        "GET",
        "/metrics",
        "Tell Prometheus of the service and of every member.",
        _U,
        state.metrics,
        (OVERVIEW,),
        reply=Text,
        basic=True,
        media_type=MEDIA_TYPE,
    ),
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
)
