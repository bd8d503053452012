"""Another version of the product, installed beside this one out of this repository's history.

It has an interpreter, console scripts and packages of its own; what both depend on it takes from this one.
"""

from __future__ import annotations

import io
import subprocess
import sysconfig
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class Version:
    """One version before.

    Args:
        commit: its last.
        scripts: its console scripts, as pyproject.toml has them.
        local: its module that makes a cluster on this machine (`lnh up`).
    """

    commit: str
    scripts: dict[str, str]
    local: str


VERSIONS: Final = {
    "0.1": Version(
        "55de123d11865e10227978e6d914c749aa3b85b9",
        {
            "lnh": "lnh.cli.main:main",
            "lnh-member": "lnh_services.member:main",
            "LNHClientRegistration": "lnh.cli.client:registration",
        },
        "lnh.cli.local",
    )
}


def missing(version: str) -> str:
    """Say why this version cannot be had here; empty where it can: a clone may be without history, or no clone."""
    words = ["git", "-C", str(ROOT), "cat-file", "-e", f"{VERSIONS[version].commit}^{{commit}}"]
    try:
        done = subprocess.run(words, capture_output=True, check=False)
    except OSError:
        return "no git on this machine"
    return "" if done.returncode == 0 else f"this clone has no commit of version {version}: git fetch --unshallow"


def install(version: str, directory: Path) -> Path:
    """Install a version, and return the directory of its programs."""
    words = ["git", "-C", str(ROOT), "archive", VERSIONS[version].commit, "common", "client", "services"]
    archive = subprocess.run(words, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(directory / "source", filter="data")
    venv.create(directory, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(directory)}))
    tops = [str(directory / "source" / top) for top in ("common", "client", "services")]
    # The `.pth` of this version's own installation is not followed there: only what lies in that directory is found.
    (packages / "other.pth").write_text("\n".join([*tops, sysconfig.get_path("purelib")]) + "\n")
    for name, entry in VERSIONS[version].scripts.items():
        module, _, function = entry.partition(":")
        script = directory / "bin" / name
        begin = f"#!{directory}/bin/python"
        lines = [begin, "import sys", f"from {module} import {function}", f"sys.exit({function}())"]
        script.write_text("\n".join(lines) + "\n")
        script.chmod(0o755)
    return directory / "bin"
