"""Makes the OpenAPI 3.1 document of the table of routes. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, get_args

import msgspec

from lnh_common import VERSION, limits
from lnh_common.messages.base import Message
from lnh_rest import problems
from lnh_rest.base import Body, Octets, Text, plain
from lnh_rest.examples import EXAMPLES
from lnh_rest.problems import OWN_STATUSES, STATUSES, Problem, Refused
from lnh_rest.route import Route, Who
from lnh_rest.schemas import hexadecimal
from lnh_rest.table import ROUTES

_REFERENCE: Final = "#/components/schemas/{name}"
_NAMES: Final = re.compile(r"{(\w+)}")
_LEFT_OUT: Final = ("behind", "skipped")  # of a view: its page tells
_PYTHON_ONLY: Final = re.compile("[\ud800-\udfff]-?")
_BASE64: Final = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_BEARER: Final = "bearer"
_BASIC: Final = "basic"
_REQUEST: Final = "6a0d3c8e-2f6b-4f5e-9d0a-0c1b2a3d4e5f"  # names one, in examples
_AS_THEY_ARE: Final = {"type": "string", "format": "binary"}


def document() -> dict[str, Any]:
    """Make the document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "A software HSM cluster",
            "version": VERSION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": _ABOUT,
        },
        "paths": paths,
        "components": {
            "securitySchemes": {each: {"type": "http", "scheme": each} for each in (_BEARER, _BASIC)},
            "schemas": dict(sorted(_schemas().items())),
            "responses": dict(_refusals()),
            "headers": {
                "Replayed": {
                    "description": "The answer is that of the first try.",
                    "schema": {"type": "string", "enum": ["true"]},
                },
                "ETag": {"description": "The version, quoted.", "schema": {"type": "string", "pattern": '^"[0-9]+"$'}},
            },
        },
    }


_ABOUT: Final = (
    "Administers a cluster and uses its keys. Log in at `POST /v1/sessions`, and send the token in the header "
    "`Authorization: Bearer TOKEN`. Data is base64; handles, ids and the bytes of attributes are hexadecimal. "
    "Refusals are problem details (RFC 9457) with the PKCS#11 name of the error, and what to do about it."
)


def _operation(route: Route) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.about,
        "description": _description(route),
        "tags": [_tag(route.path)],
        "responses": _succeeded(route) | _refused(route),
    }
    parameters = [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)]
    if parameters:
        said["parameters"] = parameters
    if route.takes_octets:
        said["requestBody"] = {"required": True, "content": {"application/octet-stream": {"schema": _AS_THEY_ARE}}}
    elif route.body is not None:
        content = {"schema": _schema(route.body), "examples": dict(_examples(route.body))}
        said["requestBody"] = {"required": True, "content": {"application/json": content}}
    said["security"] = [] if route.who is Who.ANYBODY else [{_BEARER: []}, *([{_BASIC: []}] if route.basic else [])]
    return said


def _tag(path: str) -> str:
    """Name the group of a path: what it is about, or the service."""
    parts = path.split("/")
    return parts[2] if parts[1] == "v1" else "service"


def _description(route: Route) -> str:
    asks = ", ".join(f"`{each.name}`" for each in route.operations)
    of_cluster = f" The cluster's operations are {asks}; docs/permissions.md says who may." if asks else ""
    return f"For {route.who.value}.{of_cluster}"


def _succeeded(route: Route) -> dict[str, Any]:
    answer = _success(route)
    return {str(route.status): answer} | ({"206": answer} if route.in_parts else {})


def _success(route: Route) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if route.etag:
        headers["ETag"] = {"$ref": "#/components/headers/ETag"}
    if route.creates:
        headers["Idempotent-Replayed"] = {"$ref": "#/components/headers/Replayed"}
    answer: dict[str, Any] = {"description": "Done." if route.reply is None else route.about}
    if headers:
        answer["headers"] = headers
    if route.reply in (Octets, Text):
        schema = _AS_THEY_ARE if route.reply is Octets else {"type": "string"}
        answer["content"] = {route.media_type: {"schema": schema}}
    elif route.reply is not None:
        content = {"schema": _schema(route.reply), "examples": dict(_examples(route.reply))}
        answer["content"] = {"application/json": content}
    return answer


def _refused(route: Route) -> dict[str, Any]:
    statuses = {*STATUSES.values(), *OWN_STATUSES}
    if route.body is None:
        statuses -= {408, 413, 415}
    statuses -= {status for status, has in _ONLY.items() if not has(route)}
    return {str(status): {"$ref": f"#/components/responses/Refused{status}"} for status in sorted(statuses)}


_ONLY: Final[dict[int, Callable[[Route], bool]]] = {
    411: lambda route: route.takes_octets,
    416: lambda route: route.in_parts,
    428: lambda route: route.must_match,
}


def _refusals() -> Iterator[tuple[str, Any]]:
    for status in sorted({*STATUSES.values(), *OWN_STATUSES}):
        kinds = [each for each in problems.kinds() if problems.status_of_kind(each) == status]
        said = [OWN_STATUSES[status]] if status in OWN_STATUSES else []
        said += [each.__name__ for each in kinds]
        content = {"schema": {"$ref": _REFERENCE.format(name="Problem")}, "examples": dict(_refused_examples(status))}
        answer: dict[str, Any] = {
            "description": "; ".join(said) + ".",
            "content": {problems.MEDIA_TYPE: content},
        }
        if status in (429, 503):
            answer["headers"] = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}}
        if status == 401:
            answer["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        yield f"Refused{status}", answer


def _refused_examples(status: int) -> Iterator[tuple[str, Any]]:
    """Show each kind of error that comes with a status."""
    kinds = [each for each in problems.kinds() if problems.status_of_kind(each) == status]
    for kind in kinds or [problems.OWN_KINDS[status]]:
        refused = Refused(kind("what failed, and the value seen"), status)
        yield kind.__name__, {"value": plain(problems.problem(refused, _REQUEST))}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    of = {each: {"type": "string", "pattern": "^[0-9a-f]{32}$"} for each in ("handle", "approval", "job")}
    text = {"type": "string", "minLength": 1, "maxLength": limits.LABEL_BYTES}
    return [
        {"name": name, "in": "path", "required": True, "schema": of.get(name, text)}
        for name in _NAMES.findall(route.path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    schema = _components()[route.query.__name__]
    return [
        {"name": name, "in": "query", "required": False, "schema": _without_null(each)}
        for name, each in schema.get("properties", {}).items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Describe a field of a query, which is there or is not."""
    some = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    found = {**schema, **some[0]} if some else dict(schema)
    found.pop("anyOf", None)
    if found.get("default", "") is None:
        del found["default"]
    return found


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if route.creates:
        schema = {"type": "string", "pattern": "^[!-~]+$", "maxLength": limits.REST_REPEAT_CHARACTERS}
        said = "The same request with the same key again is not done again."
        found.append({"name": "Idempotency-Key", "in": "header", "schema": schema, "description": said})
    if route.matches:
        schema = {"type": "string", "pattern": '^"[1-9][0-9]{0,17}"$'}
        said = "The version that the object must have: its ETag; or * for any."
        if not route.must_match:
            said += " Without it any will do."
        found.append(
            {"name": "If-Match", "in": "header", "required": route.must_match, "schema": schema, "description": said}
        )
    if route.in_parts:
        schema = {"type": "string"}
        said = "The byte from which on to answer, as in bytes=1048576-; what is written otherwise counts for nothing."
        found.append({"name": "Range", "in": "header", "schema": schema, "description": said})
    return found


def _types() -> list[Any]:
    found: dict[Any, None] = {Problem: None}
    for route in ROUTES:
        for kind in (route.body, route.reply, route.query):
            if kind is not None and kind not in (Octets, Text):
                found[kind] = None
    return list(found)


def _schema(kind: Any) -> dict[str, Any]:
    kinds = get_args(kind)
    if not kinds:
        return {"$ref": _REFERENCE.format(name=kind.__name__)}
    return {"oneOf": [_schema(each) for each in kinds]}


def _examples(kind: Any) -> Iterator[tuple[str, Any]]:
    for each in get_args(kind) or (kind,):
        example = EXAMPLES[each]
        tag = each.__struct_config__.tag
        value = plain(example)
        yield each.__name__, {"value": {each.__struct_config__.tag_field: tag, **value} if tag else value}


@functools.cache
def _components() -> dict[str, Any]:
    _, components = msgspec.json.schema_components(_types(), ref_template=_REFERENCE)
    return components


def _schemas() -> dict[str, Any]:
    """Describe every type of requests and answers, as `plain` writes them."""
    kinds = {each.__name__: each for each in _structs(Message)} | {each.__name__: each for each in _structs(Body)}
    found: dict[str, Any] = {}
    for name, schema in _components().items():
        kind = kinds.get(name)
        of_view = kind is not None and issubclass(kind, Message)
        described = _rewritten(schema, of_view=of_view)
        if of_view:
            for each in _LEFT_OUT:
                described.get("properties", {}).pop(each, None)
        if kind is not None and not get_args(kind):
            described["description"] = (kind.__doc__ or name).partition("\n")[0]
        found[name] = described
    return {name: schema for name, schema in found.items() if name not in ("Behind", "Skipped", "Nothing")}


def _structs(base: type[Any]) -> Iterator[type[Any]]:
    found: list[type[Any]] = base.__subclasses__()
    for each in found:
        yield each
        yield from _structs(each)


def _rewritten(schema: Any, *, of_view: bool) -> Any:
    """Say bytes as they are written, and patterns as others than Python read them."""
    if isinstance(schema, list):
        return [_rewritten(each, of_view=of_view) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if of_view and schema.get("contentEncoding") == "base64":
        return hexadecimal()
    if schema.get("contentEncoding") == "base64":
        return {**schema, "pattern": _BASE64}
    found = {
        name: _rewritten(each, of_view=of_view) for name, each in schema.items() if (name, type(each)) != ("title", str)
    }
    if isinstance(found.get("pattern"), str):
        found["pattern"] = _PYTHON_ONLY.sub("", found["pattern"]).replace(r"\A", "^").replace(r"\Z", "$")
    return found
