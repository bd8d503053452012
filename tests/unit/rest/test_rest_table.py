"""The table of routes: each row is whole, says who may as the cluster does, and is documented."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest

from lnh_rest import decoding, document, openapi, problems
from lnh_rest.app import _by_path, _matched
from lnh_rest.base import Octets, Text, encode, plain
from lnh_rest.examples import EXAMPLES
from lnh_rest.route import Route, Who
from lnh_rest.table import ROUTES
from lnh_services.hsm.worker.document import RULES

IDS = [f"{route.method} {route.path}" for route in ROUTES]
DOCUMENT = openapi.document()


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_a_route_wants_the_session_that_its_operations_want(route: Route) -> None:
    for operation in route.operations:
        rule = RULES.get(operation.name)
        if rule is None or rule.session:
            continue  # a login, or whose own session it is
        may = {Who.USER: rule.permission is not None, Who.HOLDER: bool(rule.keyring)}
        wanted = [who for who in (Who.USER, Who.HOLDER) if route.who in (who, Who.SESSION)]
        assert wanted, f"{operation.name} wants a session"
        assert all(may[who] for who in wanted), operation.name


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_examples_of_each_body_and_answer_are_read_as_the_service_reads_them(route: Route) -> None:
    content = DOCUMENT["paths"][route.path][route.method.lower()].get("requestBody", {}).get("content", {})
    for shown in content.get("application/json", {}).get("examples", {}).values():
        assert decoding.body(json.dumps(shown["value"]).encode(), route.body) in EXAMPLES.values()
        _check(route.body, shown["value"])
    for kind in get_args(route.reply) or (route.reply,):
        if kind not in (None, Octets, Text):
            _check(kind, json.loads(encode(EXAMPLES[kind])))


def _check(kind: Any, value: Any) -> None:
    """Hold a value against the document's schema of its type."""
    schema = {**openapi._schema(kind), "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(schema).validate(value)


def test_problem_details_are_as_the_document_says() -> None:
    _check(problems.Problem, plain(EXAMPLES[problems.Problem]))


# Operations that may change something, and asked without a change show it.
_ALSO_SHOW = {"cluster.policy", "keyring.policy", "backup.schedule"}


def test_every_refusal_has_an_example_of_each_of_its_kinds() -> None:
    shown: set[str] = set()
    for name, response in DOCUMENT["components"]["responses"].items():
        examples = response["content"][problems.MEDIA_TYPE]["examples"]
        assert examples, name
        for kind, example in examples.items():
            _check(problems.Problem, example["value"])
            assert (name, kind) == (f"Refused{example['value']['status']}", example["value"]["error"])
            shown.add(kind)
    assert shown == {each.__name__ for each in problems.kinds()}


def test_what_only_reads_is_asked_by_get_and_what_makes_takes_a_key() -> None:
    for route in ROUTES:
        writes = any(operation.effect.value == "write" for operation in route.operations)
        if route.looks:
            assert (route.method, route.body) == ("GET", None)
            assert {operation.name for operation in route.operations} <= _ALSO_SHOW
            continue
        assert (route.method == "GET") <= (not writes), route.path
        makes = writes and route.method == "POST"
        assert not makes or route.creates or route.is_login, f"{route.path} could be done twice"


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [route.name for route in ROUTES]
    assert len(set(names)) == len(names)


def test_the_page_has_the_tables_as_they_are() -> None:
    page = document.PAGE.read_text()
    assert page == document.rewritten(page), "run `python -m lnh_rest.document`"


def test_the_document_names_every_schema_that_it_refers_to() -> None:
    text = json.dumps(DOCUMENT)
    for kind, name in set(re.findall(r"#/components/(\w+)/(\w+)", text)):
        assert name in DOCUMENT["components"][kind], name
    assert text.isascii()
    assert not re.search(r"\\ud[89ab]..(?!\\ud[c-f])", text), "half of a pair is no Unicode"


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (b"/v1/keyrings/k%2Fr", {"keyring": "k/r"}),
        (b"/v1/keyrings/..", {"keyring": ".."}),
        (b"/v1/keyrings/%2e%2e%2f%2e%2e%2fetc", {"keyring": "../../etc"}),
        (b"/v1/keyrings/%C3%A9", {"keyring": "é"}),
        (b"/v1/keyrings/", None),
        (b"/v1/keyrings/a/b", None),
        (b"//v1/keyrings/a", None),
        (b"/v1/keyrings/a/", None),
        (b"/v1/../v1/keyrings/a", None),
    ],
)
def test_a_name_in_a_path_is_one_part_of_it_whatever_it_holds(path: bytes, named: dict[str, str] | None) -> None:
    pattern = ("v1", "keyrings", "{keyring}")
    assert pattern in dict(_by_path(ROUTES))
    assert _matched(pattern, decoding.segments(path)) == named


def test_the_packages_page_is_where_the_writer_puts_it() -> None:
    assert Path(__file__).parents[3] / "docs" / "rest.md" == document.PAGE
