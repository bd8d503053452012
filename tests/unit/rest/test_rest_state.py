"""What the service remembers: sessions by their tokens, answers by their keys, rates by address, and where a page ended."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, Busy, LimitReached, TokenExpired, TokenUnknown
from lnh_rest import paging
from lnh_rest.admission import Admission, client_of
from lnh_rest.logins import Logins
from lnh_rest.problems import Refused
from lnh_rest.repeats import Kept, Repeats
from lowered import lower
from sizes import sized

NOW = 1_796_000_000.0


class Session:
    ended = False


def logins() -> Logins[Session]:
    return Logins(lambda session: session.ended)


def test_a_token_finds_its_session_and_is_itself_nowhere() -> None:
    held = logins()
    session = Session()
    token, login = held.open(NOW, session, "admin", "", NOW + 100)
    assert held.find(NOW, token) is login
    assert login.session is session
    assert token not in repr(vars(held))
    assert len(token) > 40


@pytest.mark.parametrize("token", ["", "lnh_", "x" * 100])
def test_another_token_finds_none(token: str) -> None:
    held = logins()
    held.open(NOW, Session(), "admin", "", NOW + 100)
    with pytest.raises(TokenUnknown):
        held.find(NOW, token)


def test_a_session_ends_with_its_time_with_the_clusters_or_at_logout() -> None:
    held = logins()
    token, login = held.open(NOW, Session(), "admin", "", NOW + 10**6)
    assert login.ends == NOW + limits.REST_SESSION_SECONDS
    with pytest.raises(TokenExpired):
        held.find(login.ends, token)
    session = Session()
    token, login = held.open(NOW, session, "admin", "", NOW + 100)
    session.ended = True
    with pytest.raises(TokenExpired):
        held.find(NOW, token)
    assert held.sweep(NOW) == [login]
    token, login = held.open(NOW, Session(), "admin", "", NOW + 100)
    held.close(login)
    with pytest.raises(TokenUnknown):
        held.find(NOW, token)


def test_one_holder_has_so_many_sessions_and_all_have_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, REST_SESSIONS_OF_ONE=2)
    lower(monkeypatch, REST_SESSIONS=3)
    held = logins()
    for holder in ("a", "a", "b"):
        held.check_room(NOW, holder)
        held.open(NOW, Session(), holder, "", NOW + 100)
    for holder, said in (("a", "at this service"), ("c", "3 sessions are open")):
        with pytest.raises(LimitReached, match=said):
            held.check_room(NOW, holder)
    assert len(held.check_room(NOW + 100, "a")) == 3, "what has ended makes room"


ANSWER = Kept(201, "application/json", b"made")


def test_the_same_request_with_the_same_key_has_the_same_answer() -> None:
    repeats = Repeats()
    assert repeats.begin("k", "POST", b"/v1/keys", b"{}") is None
    repeats.end("k", ANSWER)
    assert repeats.begin("k", "POST", b"/v1/keys", b"{}") == ANSWER


@pytest.mark.parametrize(
    "other", [("PUT", b"/v1/keys", b"{}"), ("POST", b"/v1/key", b"s{}"), ("POST", b"/v1/keys", b"[]")]
)
def test_a_key_serves_one_request(other: tuple[str, bytes, bytes]) -> None:
    repeats = Repeats()
    repeats.begin("k", "POST", b"/v1/keys", b"{}")
    repeats.end("k", ANSWER)
    with pytest.raises(Refused) as caught:
        repeats.begin("k", *other)
    assert caught.value.status == 422


def test_a_request_under_way_is_not_begun_again_and_one_that_failed_is() -> None:
    repeats = Repeats()
    repeats.begin("k", "POST", b"/", b"")
    with pytest.raises(Refused) as caught:
        repeats.begin("k", "POST", b"/", b"")
    assert caught.value.status == 409
    repeats.end("k", None)
    assert repeats.begin("k", "POST", b"/", b"") is None


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 129, "\x00"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ArgumentInvalid):
        Repeats().begin(key, "POST", b"/", b"")


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), max_size=60))
@settings(max_examples=sized(100))
def test_what_is_kept_of_answers_has_a_bound(requests: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        lower(patch, REST_REPEATS=5)
        lower(patch, REST_REPEAT_BYTES=100)
        repeats = Repeats()
        for number, size in requests:
            if repeats.begin(str(number), "POST", b"/", b"") is None:
                repeats.end(str(number), Kept(201, "", bytes(size)))
            held = [each.answer for each in repeats._kept.values() if each.answer is not None]
            assert len(held) <= 5
            assert sum(len(each.body) for each in held) == repeats._bytes <= 100


def test_of_what_is_under_way_nothing_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, REST_REPEATS=2)
    repeats = Repeats()
    repeats.begin("a", "POST", b"/", b"")
    repeats.begin("b", "POST", b"/", b"")
    with pytest.raises(Busy):
        repeats.begin("c", "POST", b"/", b"")


def admitted(admission: Admission, now: float, address: str, times: int, *, is_login: bool = False) -> int:
    count = 0
    refused: list[Refused] = []
    for _ in range(times):
        try:
            admission.enter(now, address, is_login=is_login)
        except Refused as error:
            refused.append(error)
            continue
        admission.leave()
        count += 1
    assert all(each.status == 429 and int(each.headers["Retry-After"]) >= 1 for each in refused)
    return count


def test_an_address_has_its_rates_and_no_other_pays_for_it() -> None:
    admission = Admission()
    logins_at_once = int(limits.REST_LOGIN_RATE * limits.REST_LOGIN_BURST)
    assert admitted(admission, NOW, "192.0.2.1", 100, is_login=True) == logins_at_once
    assert admitted(admission, NOW, "192.0.2.1", 10) == 10, "who may not log in may ask"
    assert admitted(admission, NOW + 1 / limits.REST_LOGIN_RATE, "192.0.2.1", 10, is_login=True) == 1
    assert admitted(admission, NOW, "192.0.2.2", 1, is_login=True) == 1
    assert admitted(admission, NOW, "192.0.2.3", 2000) == limits.REST_RATE


def test_addresses_of_one_network_are_one_client() -> None:
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff") != client_of("2001:db8:0:1::1")
    assert client_of("::ffff:192.0.2.1") == client_of("192.0.2.1") != client_of("192.0.2.2")
    assert client_of("fe80::1%eth0") == client_of("fe80::2")


def test_so_many_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, REST_ADDRESSES=3)
    admission = Admission()
    for number in range(9):
        admitted(admission, NOW, f"192.0.2.{number}", 1)
    assert len(admission._clients) == 3


def test_so_many_requests_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, REST_IN_FLIGHT=2)
    admission = Admission()
    for _ in range(2):
        admission.enter(NOW, "192.0.2.1", is_login=False)
    with pytest.raises(Refused) as caught:
        admission.enter(NOW, "192.0.2.2", is_login=False)
    assert caught.value.status == 503
    admission.leave()
    admission.enter(NOW, "192.0.2.2", is_login=False)


@given(keys=st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)), limit=st.integers(1, 5))
@settings(max_examples=sized(100))
def test_the_pages_together_are_the_whole_list(keys: set[str], limit: int) -> None:
    found: list[str] = []
    cursor = ""
    while True:
        page, cursor, total = paging.page(keys, lambda key: key, cursor, limit)
        assert total == len(keys)
        assert len(page) <= limit
        found += page
        if not cursor:
            break
    assert found == sorted(keys)


@given(st.text())
@settings(max_examples=sized(100))
def test_what_no_page_gave_is_no_cursor(cursor: str) -> None:
    try:
        key = paging.decode(cursor)
    except Refused:
        return
    assert paging.encode(key) == cursor
