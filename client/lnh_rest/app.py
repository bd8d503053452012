"""Serves the table of routes: one way in for every request, from its first byte to its answer.

Whatever goes wrong becomes problem details here. Nothing of a request but its route, its status and its id is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lnh.aio import Cluster, Session
from lnh_common import limits
from lnh_common.errors import (
    ArgumentInvalid,
    DeadlineExceeded,
    Internal,
    LimitReached,
    LnhError,
    MalformedMessage,
    NameUnknown,
    OutcomeUnknown,
    TokenExpired,
    TokenUnknown,
    UnknownOperation,
)
from lnh_common.events import Log
from lnh_common.messages.base import Message
from lnh_rest import decoding, openapi, problems
from lnh_rest.admission import Admission
from lnh_rest.base import Body, encode
from lnh_rest.handlers.sessions import end
from lnh_rest.logins import Login, Logins
from lnh_rest.problems import Refused
from lnh_rest.repeats import Kept, check_key
from lnh_rest.route import Call, Route, Who
from lnh_rest.table import ROUTES

JSON: Final = "application/json"
DOCUMENT: Final = "/v1/openapi.json"

_SWEEP: Final = 60.0  # seconds between two looks for sessions that have ended
_HEARD_OUT: Final = 2 * limits.REST_BODY_BYTES  # bytes of a body that is refused
_SAFE: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_NO_PATH: Final = {"advice": f"GET {DOCUMENT} has every path"}
_LOG_IN: Final = {"advice": "log in at POST /v1/sessions, and send Authorization: Bearer TOKEN"}
_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}
_TAG: Final = re.compile(r'"([0-9]{1,18})"')
_JSON_TYPE: Final = re.compile(r'application/json(\s*;\s*charset\s*=\s*"?utf-8"?)?', re.IGNORECASE)

_log: Final = Log("rest")


class Service:
    """The service, as an ASGI application.

    Args:
        cluster: its own connection, of a registered client; it is the service's to close.
        clock: UTC seconds.
    """

    def __init__(self, cluster: Cluster, *, clock: Callable[[], float] = time.time) -> None:
        self._cluster: Final = cluster
        self._clock: Final = clock
        self._logins: Final[Logins[Session]] = Logins(lambda session: session.ended)
        self._admission: Final = Admission()
        self._routes: Final = _by_path()
        self._ends: Final = Starlette(lifespan=self._lifespan)
        self._document: Final = json.dumps(openapi.document(), ensure_ascii=True).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or begin and end with the server."""
        if scope["type"] == "lifespan":
            await self._ends(scope, receive, send)
            return
        assert scope["type"] == "http", "nothing else is served"
        request = Request(scope, receive)
        begun = time.monotonic()
        name = str(uuid.uuid4())
        tells = _Tells(name)
        try:
            response = await self._answer(request, tells)
        except ClientDisconnect:
            _log.info("gone", request=name, route=tells.route)
            return
        response.headers.update({**_SAFE, "Request-Id": name})
        took = round((time.monotonic() - begun) * 1000)
        _log.info("served", request=name, route=tells.route, status=response.status_code, ms=took, error=tells.error)
        await response(scope, receive, send)

    async def _answer(self, request: Request, tells: _Tells) -> Response:
        try:
            return await self._admitted(request, tells)
        except Refused as refused:
            return tells.refusal(refused)
        except LnhError as error:
            return tells.refusal(Refused(error))
        except ClientDisconnect:
            raise
        except Exception as error:  # a bug: its words may hold a secret, so they go nowhere
            _log.bug("fault", error, request=tells.request, route=tells.route)
            return tells.refusal(Refused(Internal("the service met a fault of its own; its log has this request")))

    async def _admitted(self, request: Request, tells: _Tells) -> Response:
        address = request.client.host if request.client is not None else ""
        is_login = (request.method, request.scope["path"]) in _LOGINS
        self._admission.enter(self._clock(), address, is_login=is_login)
        try:
            _check_size(request)
            path = self._find(decoding.segments(request.scope["raw_path"]))
            route = path.get(request.method)
            if route is None:
                error = UnknownOperation(f"this path has no {request.method[:16]}", _NO_PATH)
                raise Refused(error, 405, {"Allow": ", ".join(sorted(path))})
            tells.route = f"{route[0].method} {route[0].path}"
            return await self._served(request, *route)
        finally:
            self._admission.leave()

    def _find(self, parts: list[str]) -> dict[str, tuple[Route, dict[str, str]]]:
        """Find the routes of a path, by method, with the parts that each names; raises NameUnknown."""
        found: dict[str, tuple[Route, dict[str, str]]] = {}
        for pattern, routes in self._routes:
            named = _matched(pattern, parts)
            if named is not None:
                found |= {method: (route, named) for method, route in routes.items() if method not in found}
        if not found:
            raise NameUnknown("no such path", _NO_PATH)
        return found

    async def _served(self, request: Request, route: Route, named: dict[str, str]) -> Response:
        login = self._login(request) if route.who is not Who.ANYBODY else None
        key = request.headers.get("idempotency-key") if route.creates else None
        try:
            query = decoding.query(request.scope["query_string"], route.query)
            version = _version(request) if route.matches else None
            if key is not None:
                check_key(key)
            data = await _read(request, route)
            body = decoding.body(data, route.body) if route.body is not None else None
        except ArgumentInvalid as error:  # of what has its form, and is refused later, the status is another
            raise Refused(error, 400) from None
        if route.path == DOCUMENT:
            return Response(self._document, media_type=JSON)
        call = Call(
            self._cluster, self._logins, self._clock(), path=named, query=query, body=body, login=login, version=version
        )
        if key is None or login is None:
            return _response(await self._handled(route, call), route)
        return await self._once(request, route, call, key, data)

    async def _once(self, request: Request, route: Route, call: Call, key: str, data: bytes) -> Response:
        """Carry out a request under its idempotency key, or repeat the answer it had."""
        assert call.login is not None, "what creates demands a session"
        repeats = call.login.repeats
        kept = repeats.begin(key, route.method, request.scope["raw_path"], data)
        if kept is not None:
            return Response(
                kept.body, kept.status, media_type=kept.media_type or None, headers={"Idempotent-Replayed": "true"}
            )
        answer: Kept | None = None
        try:
            response = _response(await self._handled(route, call), route)
            answer = Kept(response.status_code, JSON if response.body else "", bytes(response.body))
        except OutcomeUnknown as error:
            # Nobody knows whether it was done, so it is not done by this key again.
            refused = Refused(error)
            told = encode(problems.problem(refused, str(uuid.uuid4())))
            answer = Kept(refused.status, problems.MEDIA_TYPE, told)
            raise
        finally:
            repeats.end(key, answer)
        return response

    async def _handled(self, route: Route, call: Call) -> Body | Message | None:
        try:
            return await route.handler(call)
        except (TokenUnknown, TokenExpired):
            if call.login is not None:
                self._logins.close(call.login)
            raise

    def _login(self, request: Request) -> Login[Session]:
        """Find the session of the bearer token; raises TokenUnknown, TokenExpired."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenUnknown("no bearer token", _LOG_IN)
        return self._logins.find(self._clock(), token.strip())

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeper.cancel()
            await asyncio.gather(*(end(each.session) for each in self._logins.close_all()))
            await self._cluster.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            for each in self._logins.sweep(self._clock()):
                await end(each.session)


class _Tells:
    """What is told about one request: in its answer, and in the log.

    Attributes:
        route: method and path of the row; empty where none was found.
        error: the name of the error that it ended with.
    """

    def __init__(self, request: str) -> None:
        self.request: Final = request
        self.route = ""
        self.error = ""

    def refusal(self, refused: Refused) -> Response:
        """Make the answer that tells a refusal."""
        self.error = type(refused.error).__name__
        headers = refused.headers
        if refused.status == 401:
            headers = {**_CHALLENGE, **headers}
        if refused.status == 503:
            headers = {"Retry-After": "1", **headers}
        told = encode(problems.problem(refused, self.request))
        return Response(told, refused.status, headers=headers, media_type=problems.MEDIA_TYPE)


def _response(answer: Body | Message | None, route: Route) -> Response:
    if answer is None:
        return Response(status_code=route.status)
    headers = {"ETag": f'"{answer.version}"'} if route.etag and hasattr(answer, "version") else {}
    return Response(encode(answer), route.status, headers=headers, media_type=JSON)


def _check_size(request: Request) -> None:
    """Raise Refused for a request whose line and headers are too long together."""
    most = limits.REST_HEADER_BYTES
    headers = sum(len(name) + len(value) for name, value in request.scope["headers"])
    if headers + len(request.scope["raw_path"]) + len(request.scope["query_string"]) > most:
        error = LimitReached(f"more than {most} bytes of headers", {"advice": "send fewer and shorter headers"})
        raise Refused(error, 431, {"Connection": "close"})


async def _read(request: Request, route: Route) -> bytes:
    """Read the body; raises Refused for one of another type, too long, too slow, or where none is wanted."""
    length = request.headers.get("content-length", "0")
    if route.body is None:
        if length != "0" or "transfer-encoding" in request.headers:
            raise ArgumentInvalid("this path takes no body", {"advice": "send none"})
        return b""
    if not _JSON_TYPE.fullmatch(request.headers.get("content-type", "")) or "content-encoding" in request.headers:
        raise Refused(
            MalformedMessage("the body is JSON, not encoded further", {"advice": f"Content-Type: {JSON}"}), 415
        )
    if len(length) > 18 or not length.isascii() or not length.isdigit() or int(length) > _HEARD_OUT:
        raise _too_long()
    try:
        return await asyncio.wait_for(_collected(request), limits.REST_BODY_SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        said = f"the body was not there within {limits.REST_BODY_SECONDS:g} s"
        raise Refused(DeadlineExceeded(said, {"advice": "send it faster"}), 408, {"Connection": "close"}) from None


async def _collected(request: Request) -> bytes:
    """Read a body; one that is somewhat too long is heard out, since who is cut off while sending hears no answer."""
    found = bytearray()
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > _HEARD_OUT:
            break
        if size <= limits.REST_BODY_BYTES:
            found += part
    if size > limits.REST_BODY_BYTES:
        raise _too_long()
    return bytes(found)


def _too_long() -> Refused:
    error = LimitReached(f"a body of more than {limits.REST_BODY_BYTES} bytes", {"advice": "send less at once"})
    return Refused(error, 413, {"Connection": "close"})


def _version(request: Request) -> int | None:
    """Read the version that `If-Match` demands; raises ArgumentInvalid for what is no ETag of ours."""
    text = request.headers.get("if-match", "*")
    if text == "*":
        return None
    found = _TAG.fullmatch(text)
    if found is None:
        raise ArgumentInvalid(
            'If-Match: an ETag such as "3"', {"advice": "take the ETag that the object was shown with"}
        )
    return int(found[1])


async def _show_document(_: Call) -> None:
    raise AssertionError("the service has the document at hand")


_DOCUMENT_ROUTE: Final = Route("GET", DOCUMENT, "Show the OpenAPI document.", Who.ANYBODY, _show_document)
_LOGINS: Final = frozenset((route.method, route.path) for route in ROUTES if route.is_login)


def _by_path() -> list[tuple[tuple[str, ...], dict[str, Route]]]:
    """Put the routes of one path together, those first whose path names fewer parts."""
    found: dict[tuple[str, ...], dict[str, Route]] = {}
    for route in (*ROUTES, _DOCUMENT_ROUTE):
        pattern = tuple(route.path.removeprefix("/").split("/"))
        assert route.method not in found.get(pattern, {}), f"{route.method} {route.path} is there twice"
        found.setdefault(pattern, {})[route.method] = route
    return sorted(found.items(), key=lambda item: sum(part.startswith("{") for part in item[0]))


def _matched(pattern: tuple[str, ...], parts: list[str]) -> dict[str, str] | None:
    """Return the parts that a path names; None where it is another path."""
    if len(pattern) != len(parts):
        return None
    named: dict[str, str] = {}
    for wanted, part in zip(pattern, parts, strict=True):
        if wanted.startswith("{"):
            if not part:
                return None
            named[wanted.strip("{}")] = part
        elif wanted != part:
            return None
    return named
