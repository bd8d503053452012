"""Writes a member's directory of a version before, made by that version's own processes: `python tests/data/member.py 0.1`.

What it has, a test starts with the code of now (`tests/cluster/test_versions.py`); README.md says when this is run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import installed  # noqa: E402  # what the tests share

ROOT = "ROOT"  # stands for the directory that all of it is in, in member.toml
TEXT = "what version {} signed and encrypted\n"

BEGIN = """
from pathlib import Path
from {local} import Place, Steps, make_keyring, set_up, stop
place = Place(Path("{root}"))
place.create()
steps = Steps(place, quiet=True)
try:
    set_up(steps)
    make_keyring(steps)
except BaseException:
    stop(place)
    raise
"""
END = """
from pathlib import Path
from {local} import Place, stop
stop(Place(Path("{root}")))
"""
KEYS = {
    "ec": ("--type", "EC", "--curve", "P-256"),
    "rsa": ("--type", "RSA", "--bits", "2048"),
    "edwards": ("--type", "EC_EDWARDS", "--curve", "Ed25519"),
    "ml-dsa": ("--type", "ML_DSA", "--parameter-set", "ML-DSA-65"),
    "aes": ("--type", "AES", "--bits", "256"),
}
KEPT = ("a/member.toml", "a/data/*/*", "a/keys/*", "a/log/audit.jsonl", "client-a/[!.]*", "secrets/*", "made/*")


def fill(programs: Path, root: Path, version: str, environment: dict[str, str]) -> None:
    def run(*words: str | Path) -> None:
        subprocess.run([programs / "lnh", *words], env=environment, check=True, stdout=subprocess.DEVNULL)

    made = root / "made"
    made.mkdir()
    text = made / "text"
    text.write_text(TEXT.format(version))
    where = ("-k", "payments")
    for label, kind in KEYS.items():
        run("key", "generate", *where, label, *kind)
        if label != "aes":
            run("sign", *where, label, text, "--output", made / f"{label}.sig")
    run("encrypt", *where, "aes", text, "--output", made / "aes.enc")
    run("user", "add", "olga", "--role", "operator", "--new-password-file", root / "secrets" / "admin")
    run("keyring", "create", "others")
    run("user", "login")


def main() -> None:
    version = sys.argv[1]
    target = HERE / version / "member"
    if target.exists():
        sys.exit(f"{target} is there: what a version wrote is never written again")
    with TemporaryDirectory(prefix="lnh-", dir="/tmp") as scratch:
        root = Path(scratch) / "D"
        programs = installed.install(version, Path(scratch) / "before")
        secrets = {f"LNH_{name.upper()}_PASSWORD_FILE": str(root / "secrets" / name) for name in
                   ("so", "admin", "po", "krso", "krco")}  # fmt: skip
        environment = os.environ | secrets | {
            "PYTHONPATH": str(HERE.parent / "startup"), "LNH_WORKERS": "1",
            "LNH_CONFIG": str(root / "client-a"), "XDG_RUNTIME_DIR": str(root / "client-a" / "runtime"),
        }  # fmt: skip
        words = {"local": installed.VERSIONS[version].local, "root": root}
        subprocess.run([programs / "python", "-c", BEGIN.format(**words)], env=environment, check=True)
        try:
            fill(programs, root, version, environment)
        finally:
            subprocess.run([programs / "python", "-c", END.format(**words)], env=environment, check=True)
        member = root / "a" / "member.toml"
        member.write_text(member.read_text().replace(str(root), ROOT))
        for pattern in KEPT:
            for path in root.glob(pattern):
                to = target / path.relative_to(root)
                to.parent.mkdir(parents=True, exist_ok=True)
                if path.is_file():
                    shutil.copy(path, to)


if __name__ == "__main__":
    main()
