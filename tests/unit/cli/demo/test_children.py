"""Commands that the demo forks or starts: their words, environment, output and exit code are their own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# In a process of its own, since one that forks has a single thread.
SCRIPT = """
import json, os, sys
from lnh_cli.demo.children import Child

words, environment = json.loads(sys.argv[1]), {**os.environ, "LNH_CONFIG": sys.argv[2]}
before = dict(os.environ), list(sys.argv)
running = [Child(words, environment, forked=forked) for forked in (True, False)]
forked, started = (child.wait() for child in running)
assert forked == started, (forked, started)
assert (dict(os.environ), list(sys.argv)) == before
print(json.dumps([forked.code, forked.out, forked.err]))
"""


def run(words: list[str], configuration: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(words), configuration], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    code, out, err = json.loads(done.stdout)
    return code, out, err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["lnh", "--version"], 0, "0."),
        (["lnh", "nonsense"], 2, "nonsense"),
        (["LNHClientRegistration", "--list"], 0, "index"),
        (["lnh", "key", "list", "--keyring", "payments"], 1, "no cluster"),
        (["lnh-member", "--member-dir", "/nowhere", "--health"], 2, "/nowhere"),
    ],
)
def test_a_forked_command_does_what_one_that_is_started_does(words: list[str], code: int, says: str) -> None:
    ended, out, err = run(words, "/nowhere/lnh")
    assert (ended, says in out + err) == (code, True), (out, err)
