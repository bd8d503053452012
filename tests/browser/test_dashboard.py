"""The dashboard in headless Chromium, on a real cluster of three members that `lnh up` started.

`make test-browser` runs this; with `make test` it is skipped, since it wants a browser. The tests are in an order.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import failed
import lnh
from commands import ForkedSteps
from lnh import admin
from lnh.admin import Administration
from lnh_cli.demo.local import Place
from members import is_read_write
from waits import wait_until

if TYPE_CHECKING:
    from browser.page import Page

WANTED: Final = "LNH_TEST_BROWSER"
pytestmark = pytest.mark.skipif(not os.environ.get(WANTED), reason="a browser: run by make test-browser")

EVIL: Final = "<img src=x onerror=window.ran=1><script>window.ran=1</script>"
MALLORY: Final = "<b onmouseover=window.ran=1>mallory</b>"
PASSWORD: Final = "password of somebody"
LNH: Final = Path(sys.executable).parent / "lnh"
LOST: Final = 40.0  # seconds within which the loss of a member is seen, beside whatever else runs here


@dataclass(frozen=True)
class Shown:
    """A cluster with its dashboard, and a browser that looks at it."""

    place: Place
    page: Page
    said: str  # by `lnh up`

    @property
    def password(self) -> str:
        return self.place.secret("admin").read_text().strip()

    @contextlib.contextmanager
    def administration(self, *, po: bool = False) -> Iterator[Administration]:
        po_password = self.place.secret("po").read_text().strip() if po else ""
        with (
            lnh.connect("demo", directory=self.place.first.client) as cluster,
            admin.login(cluster.connection, "admin", self.password, po_password=po_password) as session,
        ):
            yield session


@pytest.fixture(scope="module")
def shown() -> Iterator[Shown]:
    from browser.page import DESK, Page, chromium

    with failed.directory() as root, tempfile.TemporaryDirectory() as profile:
        place = Place(root / "cluster")
        try:
            said = subprocess.run(
                [LNH, "up", "--dir", place.root], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            assert said.returncode == 0, said.stderr
            with chromium(Path(profile)) as driver:
                page = Page(driver, place.rest.url)
                page.size(*DESK)
                page.colours("light")
                found = Shown(place, page, said.stdout)
                _prepare(found)
                yield found
        finally:
            ended = subprocess.run([LNH, "down", "--dir", place.root], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert not place.root.exists()


def _prepare(shown: Shown) -> None:
    """Somebody who may only look, and names that would do something if they were markup."""
    with shown.administration(po=True) as session:
        session.add_user("watcher", "monitor", PASSWORD)
        session.add_user(MALLORY, "admin", PASSWORD)
        session.create_keyrings(EVIL)
    with lnh.connect("demo", directory=shown.place.first.client) as cluster:
        krco = shown.place.secret("krco").read_text().strip()
        with cluster.keyring("payments").login(lnh.Role.KRCO, krco) as holder:
            holder.generate_key(lnh.KeyType.AES, 256, label=EVIL)
            holder.generate_keypair(lnh.KeyType.EC, curve="P-256", label="signing")


@pytest.fixture(scope="module")
def page(shown: Shown) -> Page:
    return shown.page


@pytest.fixture
def administering(shown: Shown) -> Iterator[Page]:
    """An admin's page, with what changes something; whatever a test left open is gone after it."""
    shown.page.log_in("admin", shown.password, administers=True)
    yield shown.page
    shown.page.driver.get("about:blank")


def test_up_prints_where_the_dashboard_is(shown: Shown) -> None:
    assert f"The dashboard: {shown.place.rest.url}" in shown.said
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", shown.place.rest.url)


def test_a_wrong_password_is_refused_and_said_so(page: Page) -> None:
    page.driver.get(page.url)
    page.type("User", "admin")
    page.type("Password", "wrong password")
    page.press("Log in")
    page.shows("form .trouble", "Wrong name or password")
    assert page.barriers() == []


def test_who_may_only_look_is_offered_nothing_that_changes_anything(page: Page) -> None:
    page.log_in("watcher", PASSWORD)
    page.shows("#verdict", "3 of 3")
    page.shows("#keyrings .labels", "payments")
    page.press("payments", "button.label")
    page.shows("#keyrings .detail", "krco")
    assert page.acts() == {"Show its objects…"}, "which opens a session of the keyring's own role"
    page.press("Administer")
    page.shows("#messages", "may look, and change nothing")
    assert page.acts() == {"Show its objects…"}
    assert not page.all("#trail, #approvals")
    page.leave()


def test_the_token_is_nowhere_but_in_the_pages_memory(administering: Page) -> None:
    held = administering.driver.execute_script(
        "return [localStorage.length, sessionStorage.length, document.cookie.length, location.href,"
        " performance.getEntriesByType('resource').map((each) => each.name).join(' ')]"
    )
    assert held[:4] == [0, 0, 0, administering.url]
    assert "/v1/keyrings" in held[4]
    assert "lnh_" not in held[4]
    assert administering.driver.get_cookies() == []


def test_a_member_is_seen_to_die_and_to_come_back(shown: Shown, page: Page) -> None:
    page.log_in("admin", shown.password)
    page.shows("#findings", "advice")
    lost = shown.place.members[2]
    try:
        lost.kill()
        page.shows("#members tbody", "✕ unreachable", LOST)
        page.shows("#findings", f"lnh member delete {lost.name}")
        page.shows("#verdict", "problem")
        page.shows("#verdict", "2 of 3")
        assert page.row(lost.name)["state"] == "✕ unreachable"
        assert page.all("svg.topology .node.bad .name", lost.name)
        assert "is unreachable" in (page.one("svg.topology").get_attribute("aria-label") or "")
        page.shot("lost")
    finally:
        ForkedSteps(shown.place, quiet=True).start(lost)
    wait_until(lambda: page.row(lost.name)["state"] == "● read-write", "the member, come back", LOST, every=0.1)
    page.shows("#verdict", "3 of 3")
    wait_until(lambda: "member-unreachable" not in page.text("#findings"), "a finding that is gone", every=0.1)
    page.leave()


def test_an_admin_promotes_by_the_keyboard_alone(shown: Shown, page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.driver.get(page.url)
    page.one("form.login")
    page.keys("admin", Keys.TAB, shown.password)
    page.keys(Keys.TAB)
    page.keys(Keys.SPACE)
    page.keys(Keys.ENTER)
    page.one("button", "Administering")
    page.shows(".live", "live,")
    page.tab_to("Promote member-b")
    page.keys(Keys.ENTER)
    page.one("dialog", "member-b becomes the primary, in place of member-a")
    assert page.focused() == "Cancel"
    assert page.barriers() == []
    page.keys(Keys.ESCAPE)
    wait_until(lambda: not page.all("dialog"), "a dialog that is gone", every=0.05)
    assert page.focused() == "Promote member-b", "who looks again is where he was"
    page.keys(Keys.ENTER)
    page.one("dialog")
    page.tab_to("Promote member-b")
    page.keys(Keys.ENTER)
    page.shows("#messages", "member-b was promoted.", LOST)
    wait_until(lambda: page.row("member-b")["state"] == "● read-write, primary", "the new primary", every=0.1)
    with shown.administration() as session:
        assert [each.name for each in session.members() if each.primary] == ["member-b"]
    for member in shown.place.members:
        wait_until(partial(is_read_write, member), member.name)


def test_an_admin_backs_up(shown: Shown, administering: Page) -> None:
    administering.shows("#backups", "has no archive yet")
    administering.press("Back up now…")
    administering.one("dialog", "writes one archive of the whole cluster")
    administering.press("Back up", "dialog button")
    administering.shows("#messages", "was made.", LOST)
    administering.shows("#backups", ".lnhb")
    administering.one(".calendar .today .mark.archive")
    with shown.administration() as session:
        (archive,) = session.backups.list().archives
    assert archive.name in administering.text("#backups")


def test_an_admin_moves_a_member_to_a_new_group(shown: Shown, administering: Page) -> None:
    administering.press("Move member-c")
    administering.one("dialog", "member-c leaves the group local")
    administering.type("Group", "west")
    administering.press("Move", "dialog button")
    administering.shows("#messages", "member-c is in the group west now.", LOST)
    wait_until(lambda: administering.row("member-c")["group"] == "west", "the group in the table", every=0.1)
    administering.shows("svg.topology .group-label", "west")
    with shown.administration() as session:
        assert {each.label: each.members for each in session.groups()}["west"] == ("member-c",)


def test_an_admin_assigns_a_keyring(shown: Shown, administering: Page) -> None:
    administering.press("payments", "button.label")
    administering.shows("#keyrings .detail", "every registered client")
    administering.press("Assign…")
    administering.one("dialog", "no other client does any more")
    administering.press("Assign", "dialog button")
    administering.shows("#messages", "payments is assigned to client-of-member-a")
    with shown.administration() as session:
        assert session.show_keyring("payments").clients == ("client-of-member-a",)


def test_hostile_names_are_shown_as_they_are_and_do_not_run(shown: Shown, administering: Page) -> None:
    with (
        lnh.connect("demo", directory=shown.place.first.client) as cluster,
        admin.login(cluster.connection, MALLORY, PASSWORD),
    ):
        pass  # which the trail has now
    administering.complaints()
    administering.press(EVIL, "button.label")
    administering.shows("#keyrings .detail h3", EVIL)
    administering.press("payments", "button.label")
    administering.shows("#keyrings .detail h3", "payments")
    administering.press("Show its objects…")
    administering.type("Password", shown.place.secret("krco").read_text().strip())
    administering.press("Show the objects", "dialog button")
    administering.shows("#keyrings .objects", EVIL)
    administering.shows("#keyrings .objects", "signing")
    administering.press("Read the newest")
    administering.shows("#trail", MALLORY)
    administering.shows("#trail", EVIL)
    administering.shows("#trail .proof", "The chain holds.")
    administering.shows("#trail .proof", "SHA256:")
    assert administering.driver.execute_script("return window.ran ?? 0") == 0
    assert len(administering.driver.find_elements("css selector", "img")) == 1, "the page's own"
    assert administering.driver.find_elements("css selector", "main script, main b") == []
    assert administering.complaints() == []
    assert administering.barriers() == []


def test_axe_finds_nothing_in_light_in_dark_and_on_a_phone(shown: Shown, administering: Page) -> None:
    from browser.page import DESK, PHONE

    administering.press("payments", "button.label")
    administering.press("Read the newest")
    administering.shows("#trail .proof", "The chain holds.")
    try:
        for scheme in ("light", "dark"):
            administering.colours(scheme)
            administering.size(*DESK)
            assert administering.barriers() == [], scheme
            assert administering.overflow() <= 0
            administering.shot(scheme)
            administering.shot(f"{scheme}-whole", whole=True)
            administering.size(*PHONE)
            assert administering.barriers() == [], f"{scheme}, on a phone"
            assert administering.overflow() <= 0
            administering.shot(f"{scheme}-phone", whole=True, size=PHONE)
    finally:
        administering.colours("light")
        administering.size(*DESK)


def test_a_browser_runs_no_text_as_a_script_whoever_puts_it_there(administering: Page) -> None:
    from selenium.common.exceptions import JavascriptException

    for attempt in (
        "const made = document.createElement('script'); made.textContent = 'window.ran = 1'; document.body.append(made)",
        "const made = document.createElement('script'); made.src = 'https://elsewhere.example/x.js'",
        "document.body.innerHTML += '<p>x</p>'",
    ):
        with pytest.raises(JavascriptException, match="Trusted"):
            administering.driver.execute_script(attempt)
    assert administering.driver.execute_script("return window.ran ?? 0") == 0


def test_a_service_that_is_gone_is_said_so_and_a_session_that_ended_too(shown: Shown, page: Page) -> None:
    page.log_in("admin", shown.password)
    shown.place.rest.stop()
    page.shows(".banner", "The service does not answer")
    page.shows(".banner", "What is shown is of")
    page.shot("gone")
    assert page.barriers() == []
    shown.place.rest.start({**os.environ, **shown.place.variables()})
    page.one("h1", "Log in")
    page.shows("form .why", "The session ended. Log in again.")
    assert page.text("main").count("payments") == 0, "nothing of the cluster is left on the page"


def test_a_session_that_is_ended_elsewhere_ends_on_the_page(shown: Shown, page: Page) -> None:
    page.log_in("watcher", PASSWORD)
    with (
        lnh.connect("demo", directory=shown.place.first.client) as cluster,
        admin.login(cluster.connection, "watcher", PASSWORD) as session,
    ):
        session.logout(everywhere=True)
        session.abandon()
    page.one("h1", "Log in")
    page.shows("form .why", "The session ended")


def test_a_second_person_approves_on_the_page(shown: Shown, page: Page) -> None:
    with shown.administration(po=True) as session:
        session.policy(dual_control=["keyring.delete"])
        with pytest.raises(lnh.ApprovalNeeded):
            session.delete_keyring(EVIL)
        page.log_in(MALLORY, PASSWORD, administers=True)
        page.shows("#approvals", "keyring.delete")
        page.press("Approve…")
        page.one("dialog", "Nothing happens by the approval alone")
        page.press("Approve", "dialog button")
        page.shows("#messages", "was approved.")
        session.delete_keyring(EVIL)
        assert EVIL not in [each.label for each in session.keyrings()]
    page.leave()
