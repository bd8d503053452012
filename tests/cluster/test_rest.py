"""The REST service as a process of its own, over HTTPS, against a real member."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import re
import uuid
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

import lnh
from lnh_common import limits
from lnh_rest import openapi
from lnh_rest.route import Who
from lnh_rest.table import ROUTES
from rest_service import Rest, Running, base64_of
from sites import ADMIN, KRCO, KRSO, PO, Site
from sizes import sized

# What a decoder, Python or a framework says of itself.
NOT_OUR_WORDS = re.compile(
    r"Traceback|Expected `|- at `|msgspec|starlette|uvicorn|h11|File \"|\b(Value|Type|Key|Attribute|Unicode|JSON)\w*Error\b"
)


def test_a_key_pair_signs_and_anybody_verifies(holder: Rest) -> None:
    new = {"key_type": "EC", "curve": "P-256", "attributes": {"label": "rest", "id": "0a0b"}}
    pair = holder.done("POST", "/v1/key-pairs", new)
    private, public = pair["private"], pair["public"]
    assert (private["label"], private["attributes"]["id"], private["attributes"]["class"]) == (
        "rest",
        "0a0b",
        "PRIVATE_KEY",
    )
    data = {"data": base64_of(b"what is signed")}
    signed = holder.done("POST", f"/v1/keys/{private['handle']}/sign", {**data, "der": True})
    key = load_der_public_key(bytes.fromhex(public["attributes"]["public_key_info"]))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(base64.b64decode(signed["signature"]), b"what is signed", ec.ECDSA(hashes.SHA256()))
    verify = f"/v1/keys/{public['handle']}/verify"
    assert holder.done("POST", verify, {**data, **signed, "der": True}) == {"valid": True}
    assert holder.done("POST", verify, {"data": base64_of(b"other"), **signed, "der": True}) == {"valid": False}
    holder.ask("POST", f"/v1/keys/{public['handle']}/sign", data).refused(422, "KeyFunctionNotPermitted")
    for each in (private, public):
        shown = holder.ask("GET", f"/v1/objects/{each['handle']}")
        assert shown.json == each
        assert shown.headers["etag"] == '"1"'
        holder.done("DELETE", f"/v1/objects/{each['handle']}")
        holder.ask("GET", f"/v1/objects/{each['handle']}").refused(404, "ObjectUnknown")


def test_what_is_encrypted_decrypts_with_the_parameters_it_was_given(holder: Rest) -> None:
    (made,) = holder.done("POST", "/v1/keys", {"key_type": "AES", "attributes": {"label": "rest"}})["objects"]
    data, aad = base64_of(bytes(limits.REQUEST_BYTES)), {"parameters": {"aad": base64_of(b"invoice 7")}}
    sealed = holder.done("POST", f"/v1/keys/{made['handle']}/encrypt", {"data": data, **aad})
    decrypt = f"/v1/keys/{made['handle']}/decrypt"
    assert holder.done("POST", decrypt, {**sealed, **aad})["data"] == data
    holder.ask("POST", decrypt, sealed).refused(422, "EncryptedDataInvalid")
    wrong = holder.ask("POST", decrypt, {**sealed, "parameters": {"label": "AA=="}})
    assert "label" in wrong.refused(422, "MechanismParameterInvalid")["detail"]
    long = holder.ask(
        "POST", f"/v1/keys/{made['handle']}/encrypt", {"data": base64_of(bytes(limits.REQUEST_BYTES + 1))}
    )
    long.refused(400, "ArgumentInvalid")
    holder.done("DELETE", f"/v1/objects/{made['handle']}")


def test_objects_are_listed_in_pages_and_found_by_their_attributes(holder: Rest, site: Site) -> None:
    key = {"key_type": "AES", "attributes": {"label": "paged-", "id": "77"}, "total": 5}
    made = {each["handle"] for each in holder.done("POST", "/v1/keys", key)["objects"]}
    found: list[str] = []
    following = ""
    while True:
        page = holder.done("GET", f"/v1/objects?id=77&limit=2&cursor={following}")
        found += [each["handle"] for each in page["items"]]
        assert page["total"] is None
        assert page["current"]
        following = page["next"]
        if not following:
            break
    assert found == sorted(made)
    assert [each["label"] for each in holder.done("GET", "/v1/objects?label=paged-3")["items"]] == ["paged-3"]
    with site.connect() as cluster, cluster.keyring("payments").login(lnh.Role.KRCO, KRCO) as session:
        assert holder.done("GET", "/v1/objects?limit=1")["total"] == len(list(session.find()))
    for each in made:
        holder.done("DELETE", f"/v1/objects/{each}")


def test_the_same_request_with_the_same_key_is_done_once(holder: Rest, admin: Rest) -> None:
    key = str(uuid.uuid4())

    def ask(label: str) -> Any:
        return admin.ask("POST", "/v1/keyrings", {"label": label, "total": 2}, Idempotency_Key=key)

    first, again = ask("rest/"), ask("rest/")
    assert (first.status, again.status) == (201, 201)
    assert first.json == again.json
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
    ask("other").refused(422, "ArgumentInvalid")
    made = [each["label"] for each in first.json["keyrings"]]
    assert made == ["rest/1", "rest/2"]
    pages = [admin.done("GET", "/v1/keyrings?limit=2")]
    while pages[-1]["next"]:
        pages.append(admin.done("GET", f"/v1/keyrings?limit=2&cursor={pages[-1]['next']}"))
    labels = [each["label"] for page in pages for each in page["items"]]
    assert {*made, "payments"} <= set(labels)
    assert {page["total"] for page in pages} == {len(labels)}
    shown = admin.done("GET", "/v1/keyrings/rest%2F1")
    assert (shown["label"], shown["roles"]) == ("rest/1", [])
    assert holder.done("GET", "/v1/keyrings/payments")["roles"] == ["krso", "krco"]
    for label in made:
        admin.done("DELETE", f"/v1/keyrings/{label.replace('/', '%2F')}")
    admin.ask("GET", "/v1/keyrings/rest%2F1").refused(404, "KeyringUnknown")


def test_the_cluster_is_shown_to_its_users_and_to_nobody_else(admin: Rest, holder: Rest, service: Running) -> None:
    assert admin.done("GET", "/v1/status")["cluster"]["label"] == "prod"
    (member,) = admin.done("GET", "/v1/members")["items"]
    assert admin.done("GET", f"/v1/members/{member['name']}")["primary"]
    admin.ask("GET", "/v1/members/nobody").refused(404, "NameUnknown")
    holder.ask("GET", "/v1/status").refused(403, "PermissionDenied")
    admin.ask("GET", "/v1/objects").refused(403, "PermissionDenied")
    service.rest.ask("GET", "/v1/status").refused(401, "TokenUnknown")


def test_groups_users_roles_and_clients_are_listed_and_groups_made(admin: Rest) -> None:
    key = str(uuid.uuid4())
    for _ in range(2):
        made = admin.ask("POST", "/v1/groups", {"label": "rest/east"}, Idempotency_Key=key)
        assert (made.status, made.headers.get("content-type")) == (204, None)
    admin.ask("POST", "/v1/groups", {"label": "rest/east"}).refused(409, "NameTaken")
    groups = {each["label"]: each["members"] for each in admin.done("GET", "/v1/groups")["items"]}
    assert (groups["rest/east"], len(groups["local"])) == ([], 1)
    admin.done("DELETE", "/v1/groups/rest%2Feast")
    admin.ask("DELETE", "/v1/groups/rest%2Feast").refused(404, "NameUnknown")
    admin.ask("DELETE", "/v1/groups/local").refused(409, "NotPossible")
    assert {"name": "admin", "role": "admin", "locked": False} in admin.done("GET", "/v1/users")["items"]
    first = admin.done("GET", "/v1/roles?limit=1")
    assert (first["total"] >= 3, first["items"][0]["name"]) == (True, "admin")
    assert "web-1" in [each["name"] for each in admin.done("GET", "/v1/clients")["items"]]


def test_a_session_ends_at_logout_and_its_token_is_taken_from_the_header_alone(service: Running) -> None:
    rest = service.rest
    ours = rest.logged_in(**{"as": "keyring", "keyring": "payments", "role": "krso", "password": KRSO})
    assert ours.done("GET", "/v1/sessions/current")["holder"] == "krso of payments"
    token = ours.headers["Authorization"].partition(" ")[2]
    rest.ask("GET", f"/v1/objects?access_token={token}").refused(401, "TokenUnknown")
    ours.ask("GET", f"/v1/objects?access_token={token}").refused(400, "ArgumentInvalid")
    ours.done("DELETE", "/v1/sessions/current")
    ours.ask("GET", "/v1/objects").refused(401, "TokenUnknown")


@pytest.mark.parametrize(
    "login",
    [
        {"as": "user", "user": "admin", "password": "a guess that is wrong"},
        {"as": "user", "user": "nobody-of-rest", "password": "a guess that is wrong"},
        {"as": "user", "po_password": "a guess that is wrong"},
        {"as": "keyring", "keyring": "payments", "role": "krco", "password": "a guess that is wrong"},
        {"as": "keyring", "keyring": "no such keyring", "role": "krco", "password": "a guess that is wrong"},
    ],
)
def test_nothing_tells_a_wrong_name_from_a_wrong_password(service: Running, login: dict[str, str]) -> None:
    told = service.rest.ask("POST", "/v1/sessions", login).refused(401, "PasswordIncorrect")
    assert told["detail"] == "wrong name or password"


# Status and error of each; a body is JSON unless it says otherwise.
STRANGE: list[tuple[str, str, bytes | None, dict[str, str], int, str]] = [
    ("GET", "/nothing", None, {}, 404, "NameUnknown"),
    ("GET", "/v1/../../etc/passwd", None, {}, 404, "NameUnknown"),
    ("GET", "/v1/keyrings/%2e%2e%2f%2e%2e%2fetc", None, {}, 404, "KeyringUnknown"),
    ("GET", "/v1/problems/%0A", None, {}, 404, "NameUnknown"),
    ("GET", "/v1/keyrings/%FF", None, {}, 404, "NameUnknown"),
    ("GET", "/v1/keyrings/" + "x" * 5000, None, {}, 422, "ArgumentInvalid"),
    ("GET", "/v1/keyrings/" + "x" * 20_000, None, {}, 431, "LimitReached"),
    ("GET", "/v1/keyrings?limit=99999999999999999999999", None, {}, 400, "ArgumentInvalid"),
    ("GET", "/v1/keyrings?limit=1&limit=2", None, {}, 400, "ArgumentInvalid"),
    ("GET", "/v1/keyrings?cursor=zzz", None, {}, 422, "ArgumentInvalid"),
    ("GET", "/v1/keyrings", b"{}", {}, 400, "ArgumentInvalid"),
    ("GET", "/v1/keyrings", None, {"X": "y" * 30_000}, 431, "LimitReached"),
    ("GET", "/v1/objects/" + "0" * 31, None, {}, 403, "PermissionDenied"),
    ("TRACE", "/v1/keyrings", None, {}, 405, "UnknownOperation"),
    ("PATCH", "/v1/keyrings", b"{}", {}, 405, "UnknownOperation"),
    ("POST", "/v1/keyrings", b"", {}, 400, "MalformedMessage"),
    ("POST", "/v1/keyrings", b"{", {}, 400, "MalformedMessage"),
    ("POST", "/v1/keyrings", b'{"label": "\xff"}', {}, 400, "MalformedMessage"),
    ("POST", "/v1/keyrings", b'{"label": "\\ud800"}', {}, 400, "MalformedMessage"),
    ("POST", "/v1/keyrings", b'{"label": "a", "label": "b"}', {}, 400, "MalformedMessage"),
    ("POST", "/v1/keyrings", b'{"label": "a", "total": ' + b"9" * 6000 + b"}", {}, 400, "MalformedMessage"),
    ("POST", "/v1/keyrings", b'{"label": "a", "total": ' + b"9" * 60 + b"}", {}, 400, "ArgumentInvalid"),
    ("POST", "/v1/keyrings", b'{"label": "a", "total": NaN}', {}, 400, "MalformedMessage"),
    ("POST", "/v1/keyrings", b'{"label": "a", "total": 1.5}', {}, 400, "ArgumentInvalid"),
    ("POST", "/v1/keyrings", b'{"label": "a", "who": 1}', {}, 400, "ArgumentInvalid"),
    ("POST", "/v1/keyrings", b'{"label": "a\\u001b[31m"}', {}, 400, "ArgumentInvalid"),
    ("POST", "/v1/keyrings", b"[" * 300_000, {}, 400, "MalformedMessage"),
    ("POST", "/v1/keyrings", b"x" * (limits.REST_BODY_BYTES + 1), {}, 413, "LimitReached"),
    ("POST", "/v1/keyrings", b'{"label": "a"}', {"Content-Type": "text/plain"}, 415, "MalformedMessage"),
    ("POST", "/v1/keyrings", b'{"label": "a"}', {"Content-Type": "application/json; charset=latin-1"}, 415, "MalformedMessage"),
    ("POST", "/v1/keyrings", b'{"label": "a"}', {"Content-Encoding": "gzip"}, 415, "MalformedMessage"),
    ("POST", "/v1/keyrings", b'{"label": "a"}', {"Idempotency-Key": "a b"}, 400, "ArgumentInvalid"),
    ("POST", "/v1/keyrings", b'{"label": "a"}', {"Authorization": "Bearer lnh_other"}, 401, "TokenUnknown"),
    ("POST", "/v1/keyrings", b'{"label": "a"}', {"Authorization": "Basic YTpi"}, 401, "TokenUnknown"),
    ("GET", "/v1/problems/Nothing", None, {}, 404, "NameUnknown"),
]  # fmt: skip


def test_what_strangers_send_is_refused_by_problem_details(admin: Rest) -> None:
    for method, path, raw, headers, status, error in STRANGE:
        reply = Rest(admin.port, admin.context, {**admin.headers, **headers}).ask(method, path, raw=raw)
        said = f"{method} {path[:60]} {(raw or b'')[:60]!r}: {reply.body[:300]!r}"
        assert (reply.status, reply.json["error"]) == (status, error), said
        reply.refused(status, error)
        assert not NOT_OUR_WORDS.search(reply.body.decode()), said


def test_what_is_no_http_or_comes_too_slowly_is_cut_off(service: Running) -> None:
    head = b"POST /v1/sessions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    told = {
        b"": (b"GARBAGE\r\n\r\n",),
        b"a": (b"GET /v1/health HTTP/1.1\r\nX: ".ljust(limits.REST_HEADER_BYTES + 1, b"y"),),
        b"b": (b"GET /v1/health HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",),
    }
    slow = {
        b"headers": (b"GET /v1/health HTT",),
        b"nothing": (),
        b"body": (head + b"Content-Length: 100\r\n\r\n{",),
        b"chunks": (head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",),
        b"between": (b"GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\nGET /v1/hea",),
    }
    on_and_on = {b"more": (b"GET /v1/health HTTP/1.1\r\nX: ", *(b"y" * 60_000 for _ in range(100)))}
    asked = told | slow | on_and_on
    with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
        said = pool.map(lambda parts: _said(service.rest, parts), asked.values())
        answers = dict(zip(asked, said, strict=True))
    for name in told:
        assert answers[name].startswith(b"HTTP/1.1 400 "), answers[name]
        assert json.loads(answers[name].rpartition(b"\r\n\r\n")[2])["error"] == "MalformedMessage"
    for name in (b"body", b"chunks"):
        assert answers[name].startswith(b"HTTP/1.1 408 "), answers[name]
    assert answers[b"headers"] == answers[b"nothing"] == b""
    assert answers[b"between"].startswith(b"HTTP/1.1 200 ")
    assert answers[b"more"].startswith(b"HTTP/1.1 400 ") or not answers[b"more"], "what is not read cuts off the answer"


def _said(rest: Rest, parts: tuple[bytes, ...]) -> bytes:
    with suppress(ConnectionResetError, BrokenPipeError):
        return rest.said_to(*parts)
    return b""


# What ends what the other calls rest on, changes what they find, or takes long; another test calls it.
_LEFT_OUT = {
    "log_out", "log_in", "change_own_password", "create_keyrings", "delete_keyring", "create_group", "begin_rekey", "set_krco",
    "change_cluster_policy", "upgrade", "invite_member", "roll_over_smk", "retire_smk", "back_up_smk", "add_user", "create_role",
    "unlock_po", "make_backup", "set_schedule", "end_schedule", "verify_audit", "export_audit",
}  # fmt: skip
# Of a request that has the form that the document describes: 422 is what the HSM refuses of what has.
_OF_WHAT_IS_RIGHT = ["2xx", "401", "403", "404", "409", "422"]
_OF_WHAT_IS_WRONG = ["400", "401", "403", "404", "405", "409", "411", "412", "413", "415", "422", "428", "431"]
_SESSIONS = {Who.USER: "admin", Who.SESSION: "admin", Who.HOLDER: "holder"}


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_schemathesis_finds_nothing(mode: GenerationMode, service: Running, admin: Rest, holder: Rest) -> None:
    told = {
        "base-url": service.rest.url,
        "tls-verify": str(service.log.parent / "rest.pem"),
        "checks": {
            "positive_data_acceptance": {"expected-statuses": _OF_WHAT_IS_RIGHT},
            "negative_data_rejection": {"expected-statuses": _OF_WHAT_IS_WRONG},
        },
    }
    schema = schemathesis.openapi.from_dict(openapi.document(), config=SchemathesisConfig.from_dict(told))
    whose = {route.name: {"admin": admin, "holder": holder}.get(_SESSIONS.get(route.who, "")) for route in ROUTES}
    for result in schema.get_all_operations():  # a document that is right has no other results
        operation: Any = result.ok()  # type: ignore[union-attr]
        name = operation.definition.raw["operationId"]
        has_input = operation.body or operation.query or operation.path_parameters
        if name not in _LEFT_OUT and (has_input or mode is GenerationMode.POSITIVE):
            _ask_all(operation.as_strategy(generation_mode=mode), whose[name])


def _ask_all(cases: Any, session: Rest | None) -> None:
    """Ask what is drawn for one operation; the checks of schemathesis look at each answer."""

    @given(case=cases)
    @settings(
        max_examples=sized(2),
        derandomize=sized(1) == 1,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(headers=session.headers if session is not None else None)

    check()


def test_the_log_names_requests_and_tells_no_secret(service: Running, admin: Rest, holder: Rest) -> None:
    refused = admin.ask("GET", "/v1/keyrings/a-name-of-somebody")
    told = service.log.read_text()
    assert refused.json["instance"].removeprefix("urn:uuid:") in told
    for secret in (ADMIN, PO, KRSO, KRCO, "a-name-of-somebody", "lnh_"):
        assert secret not in told
    for rest in (admin, holder):
        assert rest.headers["Authorization"].partition(" ")[2] not in told
    assert not NOT_OUR_WORDS.search(told)
    assert all(json.loads(line)["event"] for line in told.splitlines() if line.startswith("{"))
