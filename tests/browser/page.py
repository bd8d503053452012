"""The dashboard in a real browser: what its user sees and presses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from waits import wait_until

BUILD: Final = Path(__file__).parents[2] / "build"
DESK: Final = (1280, 860)
PHONE: Final = (360, 780)
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser with a new profile."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert browser is not None, "no chromium on this machine: apt-get install chromium"
    assert driver is not None, "no chromedriver on this machine: apt-get install chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield running
    finally:
        running.quit()


class Page:
    """The page at a service's address."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    # --- what is there

    def all(self, css: str, text: str = "") -> list[WebElement]:
        """The elements that are shown, and have this in their text."""
        return [each for each in self.driver.find_elements(By.CSS_SELECTOR, css) if _is(each, text)]

    def one(self, css: str, text: str = "", within: float = 30) -> WebElement:
        return wait_until(lambda: next(iter(self.all(css, text)), None), f"{css} {text!r}", within, every=0.05)

    def text(self, css: str) -> str:
        """All text of the elements, also what scrolled away."""
        words: str = self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent).join('\\n')", css
        )
        return words

    def shows(self, css: str, text: str, within: float = 30) -> None:
        wait_until(lambda: text in self.text(css), f"{text!r} in {css}", within, every=0.05)

    def row(self, member: str) -> dict[str, str]:
        """A member's line of the table, by column."""
        cells: list[list[str]] = self.driver.execute_script(
            "const rows = [...document.querySelectorAll('#members tr')];"
            "return rows.map((row) => [...row.children].map((cell) => cell.textContent))"
        )
        head, *lines = cells
        return next(dict(zip(head, line, strict=True)) for line in lines if line[0] == member)

    def acts(self) -> set[str]:
        """What the buttons of the page's parts are called that are shown, but for the labels of keyrings."""
        found: list[str] = self.driver.execute_script(
            "return [...document.querySelectorAll('main button:not(.label)')]"
            ".filter((each) => each.offsetParent).map((each) => each.textContent)"
        )
        return set(found)

    # --- what is done

    def press(self, name: str, css: str = "button") -> None:
        button = wait_until(
            lambda: next((each for each in self.all(css) if _names(each, name) and each.is_enabled()), None),
            f"a button {name!r}",
            30,
            every=0.05,
        )
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def type(self, label: str, text: str) -> None:
        """Type into the field of this label."""
        name = self.one("label", label).get_attribute("for")
        field = self.one(f"#{name}")
        field.clear()
        field.send_keys(text)

    def keys(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def focused(self) -> str:
        """The name of what has the focus."""
        name: str = self.driver.execute_script(
            "const at = document.activeElement; return at.getAttribute('aria-label') ?? at.textContent"
        )
        return name

    def tab_to(self, name: str, most: int = 60) -> None:
        """Go to an element by the tabulator alone."""
        for _ in range(most):
            if self.focused().strip() == name:
                return
            self.keys(Keys.TAB)
        raise AssertionError(f"{most} tabulators do not reach {name!r}")

    def log_in(self, user: str, password: str, *, administers: bool = False) -> None:
        self.driver.get(self.url)
        self.type("User", user)
        self.type("Password", password)
        if administers:
            self.one("#administers").click()
        self.press("Log in")
        self.shows(".live", "live,")
        if administers:
            self.one("button", "Administering")

    def leave(self) -> None:
        self.press("Log out")
        self.one("h1", "Log in")

    # --- how it looks

    def size(self, width: int, height: int) -> None:
        given = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", given)

    def colours(self, scheme: str) -> None:
        given = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", given)

    def shot(self, name: str, *, whole: bool = False, size: tuple[int, int] = DESK) -> None:
        """Keep a picture in build/."""
        height: int = self.driver.execute_script("return document.documentElement.scrollHeight") if whole else size[1]
        self.size(size[0], height)
        self.driver.execute_script("window.scrollTo(0, 0)")
        painted = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        self.driver.execute_async_script(painted)  # drawings follow the size of their frames
        BUILD.mkdir(exist_ok=True)
        assert self.driver.save_screenshot(str(BUILD / f"dashboard-{name}.png"))
        self.size(*size)

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        wider: int = self.driver.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return wider

    def barriers(self) -> list[tuple[str, str, list[Any]]]:
        """What axe-core finds: rule, help and elements."""
        found = Axe().run(self.driver)
        assert len(found["passes"]) > 10, "it looked"
        return [(each["id"], each["help"], [node["target"] for node in each["nodes"]]) for each in found["violations"]]

    def complaints(self) -> list[str]:
        """What the browser had to complain of since it was asked last, such as what its policy did not allow."""
        return [
            each["message"]
            for each in self.driver.execute("getLog", {"type": "browser"})["value"]
            if each["level"] in ("SEVERE", "WARNING")
        ]


def _is(element: WebElement, text: str) -> bool:
    try:
        return element.is_displayed() and text in element.text
    except StaleElementReferenceException:
        return False


def _names(element: WebElement, name: str) -> bool:
    try:
        return name in (element.text.strip(), element.get_attribute("aria-label"))
    except StaleElementReferenceException:
        return False
