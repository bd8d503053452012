"""The steps of docs/contributing.md, followed to the letter in a copy: what they add is served, permitted and documented."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "contributing.md").read_text()
_BLOCK: Final = re.compile(
    r"(?P<words>[^\n]+(?:\n(?! *```)[^\n]+)*)\n\n {3}```python\n(?P<code>.*?) {3}```\n", re.DOTALL
)
_PLACE: Final = re.compile(r"(?P<side>before|after) the line `(?P<line>[^`]*)`:$")
_COLUMNS: Final = 3  # by which the list that a block is in indents it


def follow(title: str, root: Path) -> int:
    """Insert each block of code of a section where the words above it say; how many there were."""
    part = PAGE.partition(f"### {title}\n")[2].partition("\n### ")[0]
    path, blocks = root, 0
    for block in _BLOCK.finditer(part):
        words = block["words"]
        lines = block["code"].splitlines(keepends=True)
        code = "".join(line[_COLUMNS:] if line.strip() else "\n" for line in lines)
        named = re.findall(r"[Ii]n `([\w/.]+\.py)`", words)
        path = root / named[-1] if named else path
        source = path.read_text()
        place = _PLACE.search(words)
        if place is None:
            assert words.endswith("at the end of that file:"), words
            path.write_text(source + code)
        else:
            line = f"\n{place['line']}\n"
            assert source.count(line) == 1, f"{path}: {place['line']!r} is there {source.count(line)} times"
            at = source.index(line) + (1 if place["side"] == "before" else len(line))
            path.write_text(source[:at] + code + source[at:])
        blocks += 1
    return blocks


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "copy"
    root.mkdir()
    for top in ("common", "client", "services", "tests", "docs"):
        shutil.copytree(ROOT / top, root / top, ignore=shutil.ignore_patterns("__pycache__", "compose"))
    for file in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / file, root)
    yield root
    shutil.rmtree(root)


def run(root: Path, *words: str) -> str:
    """Run Python in the copy, with the copy's packages in place of the installed ones."""
    path = os.pathsep.join(str(root / top) for top in ("common", "client", "services", "tests"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


_ASK: Final = """
from lnh_common.messages import session
from lnh_common.messages.base import Empty
from models.worker import Client, World
world = World()
client = Client(world, world.worker()).register()
print(client.as_administrator().ask(session.WHO, Empty()).who)
"""
_SIGN: Final = """
import hashlib, hmac
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_services.hsm.crypto.mechanisms import load_object, served, signer
from lnh_services.hsm.objects.generate import generate_key
from lnh_services.hsm.objects.policy import Policy
template = {Attribute.VALUE_LEN: 32, Attribute.SIGN: True}
made = generate_key(Mechanism.GENERIC_SECRET_KEY_GEN, template, Policy())
assert Mechanism.SHA3_256_HMAC in made.attributes[Attribute.ALLOWED_MECHANISMS]
sign = signer(Mechanism.SHA3_256_HMAC, load_object(*made))
assert sign(b"data") == hmac.digest(made.value, b"data", "sha3_256")
print(*sorted(use.value for use in served(Mechanism.SHA3_256_HMAC)))
"""


def test_an_operation_added_as_the_page_says_is_served_and_permitted(copy: Path) -> None:
    assert follow("An operation", copy) > 5
    assert run(copy, "-c", _ASK) == "admin+po\n"
    walked = (
        "tests/unit/hsm/auth/test_permissions.py",
        "tests/unit/hsm/worker/test_certainty.py::test_every_operation_is_asked",
        "tests/unit/hsm/worker/test_lying_stores.py",
    )
    run(copy, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", "who or every", *walked)


def test_a_mechanism_that_is_added_as_the_page_says_is_carried_out_and_documented(copy: Path) -> None:
    assert follow("A mechanism", copy) == 3
    assert run(copy, "-c", _SIGN) == "sign verify\n"
    assert "SHA3_256_HMAC" in run(copy, "-m", "lnh_services.hsm.objects.document")
