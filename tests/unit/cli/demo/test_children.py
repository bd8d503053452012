"""Commands that the demo forks or starts: their words, environment, output and exit code are their own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

# In a process of its own, since one that forks has a single thread; which is started once for all.
SCRIPT = """
import json, os, sys
from lnh_cli.demo.children import Child

lines, environment = json.loads(sys.argv[1]), {**os.environ, "LNH_CONFIG": sys.argv[2]}
before = dict(os.environ), list(sys.argv)
running = [[Child(words, environment, forked=forked) for forked in (True, False)] for words in lines]
told = [[child.wait() for child in both] for both in running]
assert (dict(os.environ), list(sys.argv)) == before
print(json.dumps([[[done.code, done.out, done.err] for done in both] for both in told]))
"""

LINES = (
    (["lnh", "--version"], 0, "0."),
    (["lnh", "nonsense"], 2, "nonsense"),
    (["LNHClientRegistration", "--list"], 0, "index"),
    (["lnh", "key", "list", "--keyring", "payments"], 1, "no cluster"),
    (["lnh-member", "--member-dir", "/nowhere", "--health"], 2, "/nowhere"),
)


@pytest.fixture(scope="module")
def told() -> Any:
    lines = json.dumps([words for words, _, _ in LINES])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, lines, "/nowhere/lnh"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("number", range(len(LINES)), ids=[" ".join(words) for words, _, _ in LINES])
def test_a_forked_command_does_what_one_that_is_started_does(told: Any, number: int) -> None:
    _, code, says = LINES[number]
    forked, started = told[number]
    assert forked == started
    ended, out, err = forked
    assert (ended, says in out + err) == (code, True), (out, err)
