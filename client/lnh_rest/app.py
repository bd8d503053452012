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
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from typing import Final
from urllib.parse import quote

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
    PasswordIncorrect,
    TokenExpired,
    TokenUnknown,
    UnknownOperation,
)
from lnh_common.events import Log
from lnh_rest import basics, decoding, openapi, problems
from lnh_rest.admission import Admission
from lnh_rest.base import Octets, Stream, Text, encode
from lnh_rest.basics import Basics
from lnh_rest.counts import Counts
from lnh_rest.dashboard import Dashboard
from lnh_rest.guesses import Guesses
from lnh_rest.handlers.sessions import end, opened_by
from lnh_rest.logins import Login, Logins
from lnh_rest.problems import Refused
from lnh_rest.readiness import Readiness
from lnh_rest.repeats import Kept, check_key
from lnh_rest.route import Answer, Call, Route, Who
from lnh_rest.sending import Streaming
from lnh_rest.table import NETHSM, ROUTES

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
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
_BASIC_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="NetHSM", charset="UTF-8"'}
_TAG: Final = re.compile(r'"([1-9][0-9]{0,17})"')
_RANGE: Final = re.compile(r"bytes=([0-9]{1,18})-")
_DOORS: Final = 64  # of those who log in by Basic, one at a time each
_PLAIN: Final = "/api/"  # the profile's paths
_PLAIN_STATUSES: Final = {
    408: 400,
    413: 400,
    415: 406,
    422: 400,
    428: 400,
    431: 400,
    501: 400,
    503: 412,
    504: 500,
    507: 500,
}
_LOG_IN_OR_SAY: Final = {"advice": "send Authorization: Basic, or log in at POST /v1/sessions"}
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
        self._guesses: Final = Guesses()
        self._basics: Final[Basics[Session]] = Basics()
        self._opening: Final = [asyncio.Lock() for _ in range(_DOORS)]
        self._counts: Final = Counts(lambda: (self._admission.under_way, len(self._logins)))
        self._readiness: Final = Readiness()
        self._dashboard: Final = Dashboard(clock)
        self._routes: Final = _by_path((*ROUTES, *NETHSM, _DOCUMENT_ROUTE, *self._dashboard.routes()))
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
        tells = Tells(name, plainly=request.scope["path"].startswith(_PLAIN))
        with contextlib.ExitStack() as until_sent:
            try:
                response = await self._answer(request, tells, until_sent)
            except ClientDisconnect:
                _log.info("gone", request=name, route=tells.route)
                return
            for header, value in {**_SAFE, "Request-Id": name}.items():
                response.headers.setdefault(header, value)
            took = time.monotonic() - begun
            self._counts.add(tells.route, response.status_code, took)
            _log.info(
                "served",
                request=name,
                route=tells.route,
                status=response.status_code,
                ms=round(took * 1000),
                error=tells.error,
            )
            try:
                await response(scope, receive, send)
            except (ClientDisconnect, LnhError, OSError, TimeoutError, asyncio.TimeoutError) as error:
                # Its end is never sent, so that nobody takes what came of it for whole.
                _log.info("cut", request=name, route=tells.route, error=type(error).__name__)

    def end(self) -> None:
        """Have what goes on for as long as somebody looks come to its end."""
        self._dashboard.end()

    async def _answer(self, request: Request, tells: Tells, until_sent: contextlib.ExitStack) -> Response:
        try:
            return await self._admitted(request, tells, until_sent)
        except Refused as refused:
            return tells.refusal(refused)
        except LnhError as error:
            return tells.refusal(Refused(error))
        except ClientDisconnect:
            raise
        except Exception as error:  # a bug: its words may hold a secret, so they go nowhere
            _log.bug("fault", error, request=tells.request, route=tells.route)
            return tells.refusal(Refused(Internal("the service met a fault of its own; its log has this request")))

    async def _admitted(self, request: Request, tells: Tells, until_sent: contextlib.ExitStack) -> Response:
        is_login = (request.method, request.scope["path"]) in _LOGINS
        self._admission.enter(self._clock(), _address(request), is_login=is_login)
        until_sent.callback(self._admission.leave)
        _check_size(request)
        path = self._find(decoding.segments(request.scope["raw_path"]))
        found = path.get(request.method)
        if found is None:
            error = UnknownOperation(f"this path has no {request.method[:16]}", _NO_PATH)
            raise Refused(error, 405, {"Allow": ", ".join(sorted(path))})
        route, named = found
        tells.route = f"{route.method} {route.path}"
        if route.takes_octets or route.reply is Octets:
            self._admission.begin_stream()
            until_sent.callback(self._admission.end_stream)
        return await self._served(request, tells, route, named)

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

    async def _served(self, request: Request, tells: Tells, route: Route, named: dict[str, str]) -> Response:
        call = Call(
            self._cluster,
            self._logins,
            self._clock(),
            path=named,
            request=tells.request,
            address=_address(request),
            guesses=self._guesses,
            counts=self._counts,
            readiness=self._readiness,
        )
        basic = _credentials(request, "basic") if route.basic else ""
        login = None
        if route.who is not Who.ANYBODY:
            login = await self._by_basic(call, basic) if basic else self._login(request, route)
        key = request.headers.get("idempotency-key") if route.creates else None
        data = b""
        try:
            query = decoding.query(request.scope["query_string"], route.query)
            version = _version(request, route) if route.matches else None
            if key is not None:
                check_key(key)
            if route.takes_octets:
                call = replace(call, parts=_pieces(request), length=_length(request))
            else:
                data = await _read(request, route)
            body = decoding.body(data, route.body) if route.body is not None and not route.takes_octets else None
        except ArgumentInvalid as error:  # of what has its form, and is refused later, the status is another
            raise Refused(error, 400) from None
        if route.path == DOCUMENT:
            return Response(self._document, media_type=JSON)
        call = replace(call, query=query, body=body, login=login, version=version, begin=_begin(request, route))
        if basic and login is not None:
            try:
                return _response(await self._handled(route, call), route)
            except (TokenUnknown, TokenExpired):  # what its session met was not done
                return _response(
                    await self._handled(route, replace(call, login=await self._by_basic(call, basic))), route
                )
        if key is None or login is None:
            return _response(await self._handled(route, call), route)
        return await self._once(request, route, call, key, data)

    async def _by_basic(self, call: Call, credentials: str) -> Login[Session]:
        """Find the session that a name and a password opened, or have them open one."""
        name = self._basics.name(credentials)
        async with self._opening[name[0] % len(self._opening)]:  # who comes at once logs in once
            login = self._basics.find(name)
            if login is not None and self._logins.is_open(call.now, login):
                return login
            self._basics.forget(name)
            self._admission.log_in(call.now, call.address)
            asked = basics.read(credentials)
            if asked is None:
                raise PasswordIncorrect("wrong name or password")
            _, login = await opened_by(call, asked)
            self._basics.put(name, login)
            return login

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

    async def _handled(self, route: Route, call: Call) -> Answer:
        try:
            return await route.handler(call)
        except (TokenUnknown, TokenExpired):
            if call.login is not None:
                self._logins.close(call.login)
            raise

    def _login(self, request: Request, route: Route) -> Login[Session]:
        """Find the session of the bearer token; raises TokenUnknown, TokenExpired."""
        token = _credentials(request, "bearer")
        if not token:
            raise TokenUnknown("no bearer token", _LOG_IN_OR_SAY if route.basic else _LOG_IN)
        return self._logins.find(self._clock(), token)

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


class Tells:
    """What is told about one request: in its answer, and in the log.

    Args:
        request: names it.
        plainly: whether a refusal is told as NetHSM tells it.

    Attributes:
        route: method and path of the row; empty where none was found.
        error: the name of the error that it ended with.
    """

    def __init__(self, request: str, *, plainly: bool = False) -> None:
        self.request: Final = request
        self._plainly: Final = plainly
        self.route = ""
        self.error = ""

    def refusal(self, refused: Refused) -> Response:
        """Make the answer that tells a refusal."""
        self.error = type(refused.error).__name__
        headers = refused.headers
        if refused.status == 401:
            headers = {**(_BASIC_CHALLENGE if self._plainly else _CHALLENGE), **headers}
        if refused.status == 503:
            headers = {"Retry-After": "1", **headers}
        problem = problems.problem(refused, self.request)
        if self._plainly:
            status = _PLAIN_STATUSES.get(refused.status, refused.status)
            said = {"message": f"{problem.detail}; {problem.advice}"}
            return Response(json.dumps(said), status, headers=headers, media_type=JSON)
        return Response(encode(problem), refused.status, headers=headers, media_type=problems.MEDIA_TYPE)


def _response(answer: Answer, route: Route) -> Response:
    if isinstance(answer, Response):
        return answer
    if answer is None:
        return Response(status_code=route.status)
    if isinstance(answer, Stream):
        return _streamed(answer, route)
    if isinstance(answer, Text):
        return Response(answer.text, route.status, media_type=route.media_type)
    headers = {"ETag": f'"{answer.version}"'} if route.etag and hasattr(answer, "version") else {}
    if route.location:
        fields = {each: quote(str(getattr(answer, each)), safe="") for each in answer.__struct_fields__}
        headers["Location"] = route.location.format(**fields)
    return Response(encode(answer), route.status, headers=headers, media_type=JSON)


def _streamed(answer: Stream, route: Route) -> Response:
    """Send an answer piece by piece; who takes too long to take one is cut off."""
    headers: dict[str, str] = {}
    if answer.tag:
        headers |= {"ETag": f'"{answer.tag}"', "Accept-Ranges": "bytes"}
    if answer.name:
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(answer.name, safe='')}"
    status = route.status
    if answer.length is not None:
        headers["Content-Length"] = str(answer.length)
        if answer.begin:
            whole = answer.begin + answer.length
            headers["Content-Range"] = f"bytes {answer.begin}-{whole - 1}/{whole}"
            status = 206
    return Streaming(answer.parts, status, headers=headers, media_type=route.media_type)


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def _credentials(request: Request, wanted: str) -> str:
    """Return what the header Authorization says under a scheme; empty where it says nothing."""
    scheme, _, said = request.headers.get("authorization", "").partition(" ")
    return said.strip() if scheme.lower() == wanted else ""


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


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """Yield a body of any length as it comes; raises Refused where the next piece is too slow."""
    stream = request.stream()
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), limits.REST_PIECE_SECONDS)
        except StopAsyncIteration:
            return
        except (TimeoutError, asyncio.TimeoutError):
            said = f"nothing more of the body came for {limits.REST_PIECE_SECONDS:g} s"
            raise Refused(DeadlineExceeded(said, {"advice": "send it faster"}), 408, {"Connection": "close"}) from None


def _length(request: Request) -> int | None:
    """Return the length that a body of any length says of itself; raises Refused for one that is no such body."""
    if request.headers.get("content-type", "").lower() != OCTETS or "content-encoding" in request.headers:
        error = MalformedMessage(
            "the body is bytes as they are, not encoded further", {"advice": f"Content-Type: {OCTETS}"}
        )
        raise Refused(error, 415, {"Connection": "close"})
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) <= 18 else None


def _begin(request: Request, route: Route) -> int:
    """Read where an answer of any length is to begin; as HTTP has it, a `Range` that is not understood is not there."""
    found = _RANGE.fullmatch(request.headers.get("range", "")) if route.in_parts else None
    return int(found[1]) if found is not None else 0


def _version(request: Request, route: Route) -> int | None:
    """Read the version that `If-Match` demands; raises ArgumentInvalid for what is no ETag of ours."""
    text = request.headers.get("if-match")
    if text is None and route.must_match:
        error = ArgumentInvalid(
            "no If-Match", {"advice": "take the ETag that the object was shown with, or If-Match: *"}
        )
        raise Refused(error, 428)
    if text is None or text == "*":
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


def _by_path(routes: Iterable[Route]) -> list[tuple[tuple[str, ...], dict[str, Route]]]:
    """Put the routes of one path together, those first whose path names fewer parts."""
    found: dict[tuple[str, ...], dict[str, Route]] = {}
    for route in routes:
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
