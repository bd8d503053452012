"""Applications that people have, on a real cluster: each recipe of docs/pkcs11-recipes.md, through each way that carries it.

`make test-apps` runs this; with `make test` it is skipped, since it wants a dozen Debian packages.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from typing_extensions import Self

from apps.recipes import RECIPES, Recipe, blocks, cook
from lnh_pkcs11.module.build import NAME, build, compiler
from members import Load, Members, is_read_write, stopped, three_members
from processes import Processes
from waits import wait_until
from wires import Wires

WANTED: Final = "LNH_TEST_APPS"
P11_KIT: Final = next(Path("/usr/lib").glob("*/pkcs11/p11-kit-client.so"), Path("p11-kit-client.so"))
TOKEN: Final = "payments"
WAYS: Final = ("module", "p11-kit")
UNDERNEATH: Final = ("OpenSC: pkcs11-tool", "Python: python-pkcs11")  # while members come and go; they are quick

pytestmark = pytest.mark.skipif(not os.environ.get(WANTED), reason="applications: run by make test-apps")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Served:
    """A cluster of three members, and a gateway to it."""

    members: Members
    socket: Path
    module: Path

    def environment(self, way: str) -> dict[str, str]:
        """What an application has in its environment."""
        number = next(_numbers)
        pin = self.members.place.secret("krco").read_text().strip()
        module = {"module": self.module, "p11-kit": P11_KIT}[way]
        return {
            **os.environ,
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "LNH_PKCS11_ADDRESS": str(self.socket),
            "P11_KIT_SERVER_ADDRESS": f"unix:path={self.socket}",
            "PKCS11_MODULE": str(module),
            "TOKEN": TOKEN,
            "PIN": pin,
            "KEY": f"key-{number}",
            "ID": f"{number:08x}",
            "SLOT_INDEX": "0",
        }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    cc = compiler()
    assert cc is not None, "no C compiler on this machine"
    module = tmp_path_factory.mktemp("module") / NAME
    build(module, cc)
    with three_members() as members, Processes() as processes:
        socket = members.place.root / "pkcs11.sock"
        processes.start("-m", "lnh_cli.main", "pkcs11", "serve", "--socket", str(socket), **members.steps.environment)
        wait_until(socket.exists, "the gateway's socket")
        yield Served(members, socket, module)


def test_each_recipe_of_the_page_is_tried() -> None:
    assert [recipe.heading for recipe in RECIPES] == [heading for heading in blocks() if "configuration" not in heading]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.heading.partition(" ")[0])
def test_an_application_works_as_its_recipe_says(served: Served, recipe: Recipe, way: str, tmp_path: Path) -> None:
    assert not (missing := recipe.missing()), f"not on this machine: {missing}; .ci/run has the packages"
    assert P11_KIT.exists(), "p11-kit's client is not on this machine; .ci/run has the package"
    if way == "p11-kit" and recipe.not_by_p11_kit:
        pytest.skip(f"p11-kit's client: {recipe.not_by_p11_kit}")
    cook(recipe, tmp_path, served.environment(way))


class Cooking:
    """Carries out recipes, which make, use and destroy keys, one after another through each way until the block ends."""

    def __init__(self, served: Served, directory: Path) -> None:
        by_name = {recipe.heading: recipe for recipe in RECIPES}
        chosen = [by_name[heading] for heading in UNDERNEATH]
        self._turns = itertools.cycle([(recipe, way) for recipe in chosen for way in WAYS])
        self._served = served
        self._directory = directory
        self._done = 0
        self._load = Load(self._cook)

    def _cook(self) -> None:
        recipe, way = next(self._turns)
        directory = self._directory / str(self._done)
        directory.mkdir()
        cook(recipe, directory, self._served.environment(way))
        self._done += 1

    def goes_on(self, when: str) -> None:
        """Wait until a recipe was carried out from its beginning to its end; raises what one ended with."""
        wanted = self._done + 2
        wait_until(lambda: self._done >= wanted or bool(self._load.errors), f"recipes, {when}", within=60)
        if self._load.errors:
            raise AssertionError(when) from self._load.errors[0]

    def __enter__(self) -> Self:
        self._load.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._load.__exit__(*raised)
        assert self._load.errors == []


def test_applications_see_nothing_of_what_befalls_members(served: Served, tmp_path: Path) -> None:
    members = served.members
    first, second, third = members.all
    with Wires(members) as wires, ExitStack() as ends:
        signing = {way: ends.enter_context(_signing(served, way)) for way in WAYS}
        with Cooking(served, tmp_path) as recipes:
            wires.isolate(second)
            wait_until(lambda: not is_read_write(second), f"{second.name} knows that it is cut off")
            recipes.goes_on("while a secondary is cut off")
            wires.heal()
            members.all_read_write()
            members.steps.run("lnh", "member", "promote", third.name, "--timeout", "60")
            recipes.goes_on("under another primary")
            with members.brought_back(first):
                first.kill()
                recipes.goes_on("while the member that the gateway is registered with is gone")
        with members.brought_back(third):
            third.kill()  # the primary: no writes without it, and all else as before
        with stopped(second):
            time.sleep(3)  # seconds that the member stands still, longer than its lease
        members.all_read_write()
        for way, process in signing.items():
            said, errors = process.communicate("", timeout=60)
            assert process.returncode == 0, f"{way}: {errors}"
            assert int(said) > 0, f"{way} signed nothing"


@contextmanager
def _signing(served: Served, way: str) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, str(Path(__file__).with_name("signing.py"))]
    with subprocess.Popen(
        words, env=served.environment(way), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "signs\n"
            yield process
        finally:
            process.kill()
