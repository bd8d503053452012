"""The dashboard's files, what they may do in a browser, and what the service tells them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace
from starlette.requests import ClientDisconnect
from starlette.types import Message

from lnh.aio import Cluster, Session
from lnh.aio.admin import Administration
from lnh_common import limits
from lnh_common.errors import Busy, KeyringUnknown, LnhError, PermissionDenied, SessionEnded, Unreachable
from lnh_common.messages.admin import KeyringView
from lnh_common.messages.base import Behind
from lnh_common.messages.overview import Overview
from lnh_common.wire.audit import HeadLine, RecordLine
from lnh_rest.app import Service
from lnh_rest.base import encode
from lnh_rest.dashboard import Dashboard, files, trail
from lnh_rest.dashboard.watching import PATH, Watches, Watching, event, look
from lnh_rest.logins import Login, Logins
from lnh_rest.route import Call, Route
from lnh_rest.table import ROUTES
from lowered import lower
from models.overviews import AT, overview, sight

PAGE: Final = Path(files.__file__).parent / "page"
SCRIPTS: Final = sorted(PAGE.glob("*.js"))
OWN: Final = {route.path: route for route in Dashboard().routes()}


# --- the files


def test_every_file_that_the_page_names_is_served() -> None:
    named = set(re.findall(r'(?:href|src)="(/[^"#]*)"', (PAGE / "index.html").read_text()))
    for script in SCRIPTS:
        named |= {f"/dashboard/{each}" for each in re.findall(r'from "\./([^"]+)"', script.read_text())}
    assert {"/dashboard/main.js", "/dashboard/style.css", "/dashboard/api.js"} <= named
    assert named <= set(OWN)
    assert "/" in OWN
    assert len(OWN) == len(list(PAGE.iterdir())) + 2, "no file lies there that is not served"


def test_the_page_has_no_script_and_no_style_of_its_own() -> None:
    page = (PAGE / "index.html").read_text()
    assert re.findall(r"<script[^>]*>", page) == ['<script type="module" src="/dashboard/main.js">']
    assert "<style" not in page
    assert not re.search(r"\s(on\w+|style)\s*=", page)


NO_MARKUP: Final = r"innerHTML|outerHTML|insertAdjacent|document\.write|parseFromString|createContextual|srcdoc"
NO_CODE: Final = r"\beval\b|\bnew Function\b|setTimeout\(\s*[\"'`]|javascript:|import\("
NO_STORE: Final = r"localStorage|sessionStorage|indexedDB|document\.cookie|\.style\b|\"style\""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_parses_markup_runs_text_or_keeps_anything(script: Path) -> None:
    assert re.findall(f"{NO_MARKUP}|{NO_CODE}|{NO_STORE}", script.read_text()) == []


def test_nothing_comes_from_elsewhere() -> None:
    for path in PAGE.iterdir():
        found = set(re.findall(r"https?://[^\"'\s)>]+|url\([^)]*\)|@import", path.read_text()))
        assert found <= {"http://www.w3.org/2000/svg"}, path.name


def test_the_token_goes_in_a_header_and_is_known_to_one_module() -> None:
    for script in SCRIPTS:
        text = script.read_text()
        uses = re.findall(r".*\btoken\b.*", re.sub(r"//.*|/\*\*?.*?\*/", "", text, flags=re.DOTALL))
        assert not uses or script.name == "api.js", script.name
        assert all("`Bearer ${token}`" in each for each in uses if "${token}" in each)


def test_the_policy_allows_the_services_own_files_and_nothing_else() -> None:
    policy = dict(each.split(" ", 1) for each in files.POLICY.split("; "))
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'", "'script'"}
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert (
        policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == policy["trusted-types"] == "'none'"
    )


def test_the_page_has_its_policy_and_every_other_answer_one_that_allows_nothing() -> None:
    for path, policy in (
        (b"/", files.POLICY),
        (b"/dashboard/main.js", files.POLICY),
        (b"/v1/health", "default-src 'none'; frame-ancestors 'none'"),
        (b"/dashboard/none.js", "default-src 'none'; frame-ancestors 'none'"),
        (b"/dashboard/../../route.py", "default-src 'none'; frame-ancestors 'none'"),
    ):
        status, headers, body = asked(path)
        assert headers["content-security-policy"] == policy, path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert (status == 200) == (b"none.js" not in path and b".." not in path)
        if path == b"/":
            assert headers["content-type"] == "text/html; charset=utf-8"
            assert body == (PAGE / "index.html").read_bytes()


def test_events_and_the_trail_want_a_session() -> None:
    for path in (PATH, trail.PATH):
        status, headers, _ = asked(path.encode())
        assert (status, headers["www-authenticate"]) == (401, "Bearer")


def asked(path: bytes) -> tuple[int, dict[str, str], bytes]:
    """What the service answers to a GET; it has no cluster."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path.decode(), "raw_path": path, "query_string": b"", "headers": [],
        "client": ("192.0.2.1", 1), "asgi": {"version": "3.0", "spec_version": "2.3"},
    }  # fmt: skip
    asyncio.run(Service(cast("Cluster", None))(scope, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(each.get("body", b"") for each in sent[1:])


# --- what it asks of the table

_STEP: Final = r"\$\{(?:part\()?[\w.]+\)?\}"
ACTS: Final = re.findall(
    r"(\w+): .*?\(\{ method: \"(\w+)\", path: [`\"]([^`\"]+)[`\"](.*?)\}\),", (PAGE / "paths.js").read_text()
)


def routes_of(path: str) -> dict[str, Route]:
    """The table's rows for a path whose parts are `{}`, by method."""
    return {route.method: route for route in ROUTES if re.sub(r"\{\w+\}", "{}", route.path) == path}


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act[0])
def test_each_act_is_a_row_of_the_table(act: tuple[str, str, str, str]) -> None:
    _, method, path, rest = act
    row = routes_of(re.sub(_STEP, "{}", path))[method]
    assert row.creates == ("once: true" in rest), "an Idempotency-Key where the row takes one"
    body = re.search(r"body: \{ (\w+) \}", rest)
    assert (row.body is None) == (body is None)
    if body is not None:
        assert body[1] in row.body.__struct_fields__


def test_each_question_is_a_row_of_the_table_or_the_dashboards_own() -> None:
    asked = set()
    for script in SCRIPTS:
        if script.name not in ("paths.js", "api.js"):
            asked |= set(re.findall(r"[`\"]((?:/v1|/dashboard)/[^`\"?]*)[`\"]", script.read_text()))
    asked |= {"/v1/backups", "/v1/backup-jobs/${id}"}
    assert {"/v1/keyrings", "/dashboard/events", "/dashboard/trail"} <= asked
    for path in asked:
        assert path in OWN or "GET" in routes_of(re.sub(_STEP, "{}", path)), path


def test_no_list_is_asked_for_more_than_a_page_holds() -> None:
    most = {"api.js": ("PAGE", limits.PAGE_ITEMS), "backups.js": ("ARCHIVES", limits.PAGE_ITEMS)}
    for name, (constant, limit) in (most | {"trail.js": ("PAGE", limits.REST_TRAIL_LINES)}).items():
        text = (PAGE / name).read_text()
        (value,) = re.findall(rf"const {constant} = (\d+);", text)
        assert int(value) <= limit, name
        assert re.findall(r"limit: ([A-Z]+)", text) == [constant]
    assert "limit: 1 }" in (PAGE / "main.js").read_text()


# --- colours


def palettes() -> Iterator[dict[str, str]]:
    """The colours by their names: light ones, and dark ones."""
    for block in re.findall(r":root \{(.*?)\}", (PAGE / "style.css").read_text(), re.DOTALL):
        yield dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def luminance(colour: str) -> float:
    """As WCAG 2.2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_every_pair_of_colours_has_the_contrast_of_aa_in_light_and_in_dark() -> None:
    found = list(palettes())
    assert len(found) == 2
    for colours in found:
        grounds = ("ground", "surface", "sunk")
        pairs = [(text, ground) for text in ("text", "muted", "accent", "warned", "bad") for ground in grounds]
        pairs += [("text", "accent-soft"), ("text", "warned-soft"), ("text", "bad-soft"), ("on-accent", "accent")]
        pairs += [("accent", "accent-soft"), ("warned", "warned-soft"), ("bad", "bad-soft"), ("ground", "text")]
        low = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
        assert {pair: value for pair, value in low.items() if value < 4.5} == {}
        assert contrast(colours["edge"], colours["surface"]) >= 3, "of what can be pressed or filled in (1.4.11)"


# --- events


class Asked:
    """A user's session, as far as a dashboard asks it: it answers what it is told to, in this order."""

    def __init__(self, *answers: Overview | LnhError) -> None:
        self.answers = list(answers)

    async def overview(self) -> Overview:
        answer = self.answers.pop(0)
        if isinstance(answer, LnhError):
            raise answer
        return answer


class _User(Administration):
    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.shown: list[str] = []

    def keyrings(self, *, current: bool = False) -> Any:  # as far as `async for` goes
        async def all_of_them() -> AsyncIterator[KeyringView]:
            for label in ("apart", "compatible", "gone"):
                yield KeyringView(id=label.encode(), label=label)

        return all_of_them()

    async def show_keyring(self, label: str, *, current: bool = False) -> KeyringView:
        self.shown.append(label)
        if label == "gone":
            raise KeyringUnknown("deleted meanwhile")
        policy = {"key_uses": "separated"} if label == "apart" else {}
        return KeyringView(id=label.encode(), label=label, policy=policy)

    async def overview(self, *, current: bool = False) -> Overview:
        return await self.asked.overview()


def call_of(*answers: Overview | LnhError, ends: float = AT + 10**6) -> Call:
    login: Login[Session] = Login(_User(Asked(*answers)), "admin", "", ends)
    return Call(cast("Cluster", None), Logins(lambda _: False), AT, login=login)


def told(call: Call, watching: Watching | None = None) -> list[tuple[str, Any]]:
    """The events of one stream, to its end."""

    async def all_of_it() -> list[bytes]:
        response = await (watching or Watching(lambda: AT)).watch(call)
        return [part async for part in cast("AsyncIterator[bytes]", response.body_iterator)]

    found = []
    for part in asyncio.run(all_of_it()):
        matched = re.fullmatch(rb"event: (\w+)\ndata: (.*)\n\n", part)
        assert matched, part
        found.append((matched[1].decode(), json.loads(matched[2])))
    return found


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, REST_WATCH_SECONDS=0)


def test_a_dashboard_is_told_what_a_member_sees_and_what_is_wrong_with_it() -> None:
    ill = overview(sight("a"), sight("b", state="unreachable", figures=None), sight("c"))
    events = told(call_of(overview(), ill, SessionEnded("logged out")))
    assert [kind for kind, _ in events] == ["look", "look", "ended"]
    assert events[0][1]["findings"] == []
    (finding,) = events[1][1]["findings"]
    assert (finding["check"], finding["severity"], finding["where"]) == ("member-unreachable", "problem", "b")
    assert finding["do"].endswith("lnh member delete b")
    assert events[1][1]["overview"]["seen"]["members"][1]["state"] == "unreachable"
    assert "logged out" in events[2][1]["detail"]


def test_a_member_that_does_not_answer_is_told_of_and_the_next_one_may() -> None:
    events = told(call_of(overview(), Unreachable("nobody"), overview(), SessionEnded("over")))
    assert [kind for kind, _ in events] == ["look", "trouble", "look", "ended"]
    assert (events[1][1]["error"], events[1][1]["status"]) == ("Unreachable", 503)


def test_a_stream_ends_with_its_session() -> None:
    events = told(call_of(overview(), overview(), ends=AT))
    assert [kind for kind, _ in events] == ["look", "ended"]


def test_a_stream_ends_with_its_service() -> None:
    watching = Watching(lambda: AT)
    watching.ending = True
    assert [kind for kind, _ in told(call_of(overview(), overview()), watching)] == ["look"]


def test_what_refuses_the_first_look_refuses_the_request() -> None:
    watching = Watching(lambda: AT)
    with pytest.raises(PermissionDenied):
        told(call_of(PermissionDenied("not yours")), watching)
    assert len(watching._watches) == 0


def test_keyrings_whose_keys_have_several_uses_are_looked_at_once_in_a_while() -> None:
    lax = replace(overview(), key_uses="compatible")
    call = call_of(lax, lax, lax, SessionEnded("over"))
    events = told(call)
    for _, each in events[1:3]:
        assert [(found["check"], found["where"]) for found in each["findings"]] == [
            ("keys-not-separated", "compatible")
        ]
    assert cast("_User", call.session).shown == ["apart", "compatible", "gone"]


def test_of_very_many_keyrings_none_is_looked_at() -> None:
    lax = replace(overview(), key_uses="compatible", keyrings=3500)
    call = call_of(lax, lax, SessionEnded("over"))
    assert told(call)[1][1]["findings"] == []
    assert cast("_User", call.session).shown == []


def test_a_member_that_is_behind_says_so() -> None:
    behind = replace(overview(), behind=Behind(whole_until=1000 * AT - 7000, behind_ms=7000))
    assert (look(overview(), AT).current, look(overview(), AT).whole_until) == (True, 0)
    assert (look(behind, AT).current, look(behind, AT).whole_until) == (False, 1000 * AT - 7000)


def test_hostile_names_are_data_of_one_event() -> None:
    evil = "</script><img src=x onerror=alert(1)>\n\nevent: ended\ndata: {}"
    kind, data, *rest = event("look", look(overview(sight("a", group=evil)), AT)).split(b"\n")
    assert (kind, rest) == (b"event: look", [b"", b""])
    assert json.loads(data.removeprefix(b"data: "))["overview"]["seen"]["members"][0]["group"] == evil


def test_who_takes_no_event_is_cut_off_and_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, REST_PIECE_SECONDS=0.02)
    watching = Watching(lambda: AT)

    async def watches() -> None:
        async def takes_nothing(_: object) -> None:
            await asyncio.Event().wait()

        async def says_nothing() -> Message:
            await asyncio.Event().wait()
            raise AssertionError("never")

        answer = await watching.watch(call_of(overview()))
        assert len(watching._watches) == 1
        await answer({"type": "http", "asgi": {"spec_version": "2.4"}}, says_nothing, takes_nothing)

    with pytest.raises(ClientDisconnect):  # as whom it is treated
        asyncio.run(watches())
    assert not len(watching._watches)


def test_so_many_dashboards_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, REST_WATCHES=3, REST_WATCHES_OF_ONE=2)
    watches = Watches()
    watches.enter(1)
    watches.enter(1)
    with pytest.raises(Busy, match="of this session"):
        watches.enter(1)
    watches.enter(2)
    with pytest.raises(Busy, match="through this service"):
        watches.enter(3)
    watches.leave(1)
    watches.enter(3)
    assert len(watches) == 3


# --- the audit trail


def trail_of(kinds: str, first: int = 1) -> list[str]:
    """Lines that follow one another, from this index on: `r` is a record, `h` a head that signs all before it."""
    signer = Ed25519PrivateKey.from_private_bytes(bytes(32))
    previous, lines = bytes(32).hex(), []
    for index, kind in enumerate(kinds, first):
        line: RecordLine | HeadLine
        if kind == "r":
            line = RecordLine(
                index=index, time=AT * 1000, member="a", identity="admin", role="admin", operation="member.promote",
                target="<b>b</b>", outcome="ok", detail={}, previous=previous,
            )  # fmt: skip
        else:
            line = HeadLine(index, AT * 1000, signer.public_key().public_bytes_raw().hex(), "", previous)
            line = replace(line, signature=signer.sign(line.signed()).hex())
        line = replace(line, hash=line.digest().hex())
        previous = line.hash
        lines.append(line.spelling().decode().rstrip())
    return lines


def test_records_are_shown_newest_first_with_what_proves_them() -> None:
    view = trail.proven(trail_of("rrhrhr", first=40))
    assert (view.problem, view.first, view.last, view.unsigned) == ("", 40, 45, 1)
    assert view.signer.startswith("SHA256:")
    assert [(each.index, each.signed) for each in view.records] == [(45, False), (43, True), (41, True), (40, True)]
    assert json.loads(encode(view))["records"][-1]["target"] == "<b>b</b>"


def test_lines_without_a_signature_are_not_said_to_be_signed() -> None:
    view = trail.proven(trail_of("rrr"))
    assert (view.signer, view.unsigned, view.problem) == ("", 3, "")
    assert not any(each.signed for each in view.records)


def test_an_edited_line_is_named_and_nothing_behind_it_is_shown() -> None:
    lines = trail_of("rrrrh")
    lines[2] = lines[2].replace('"outcome":"ok"', '"outcome":"refused"')
    view = trail.proven(lines)
    assert view.problem == "the line after index 2: its hash is not that of what it says"
    assert ([each.index for each in view.records], view.last) == ([2, 1], 2)
    assert not any(each.signed for each in view.records)


def test_a_line_that_is_missing_is_named() -> None:
    lines = trail_of("rrrrh")
    view = trail.proven([*lines[:2], *lines[3:]])
    assert view.problem == "the line after index 2: index 4 where 3 belongs"


def test_no_line_proves_nothing() -> None:
    view = trail.proven([])
    assert (view.records, view.signer, view.first, view.problem) == ((), "", 0, "")


def test_a_trail_is_read_a_page_at_a_time_from_its_end() -> None:
    assert trail.TrailQuery().limit == limits.REST_TRAIL_PAGE
    assert OWN[trail.PATH].query is trail.TrailQuery
