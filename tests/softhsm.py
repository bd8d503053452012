"""Tokens of SoftHSM2 for tests, as other software's keys come from; made in a directory of this process."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN, SO_PIN = "123456", "12345678"
MISSING = "" if shutil.which("softhsm2-util") and Path(MODULE).exists() else "no SoftHSM2 on this machine"
_numbers = itertools.count(1)


@cache
def environment() -> dict[str, str]:
    """What a process needs to see the tokens of this one."""
    home = Path(tempfile.mkdtemp(prefix="lnh-softhsm-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    (home / "tokens").mkdir()
    settings = f"directories.tokendir = {home}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    (home / "softhsm2.conf").write_text(settings)
    return {"SOFTHSM2_CONF": str(home / "softhsm2.conf")}


def new_token() -> str:
    """Make a token, and return its label."""
    import pkcs11

    label = f"token-{next(_numbers)}"
    os.environ.update(environment())  # the module reads it when it is initialised
    words = ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SO_PIN]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    pkcs11.lib(MODULE).reinitialize()
    return label


def open_token(label: str) -> Any:
    """A session of its user, as `python-pkcs11` has it."""
    import pkcs11

    return pkcs11.lib(MODULE).get_token(token_label=label).open(rw=True, user_pin=PIN)
