"""The image's wheel is built from what the Dockerfile copies: all that the build reads."""

from __future__ import annotations

import re
from pathlib import Path

import tomli

ROOT = Path(__file__).parents[2]


def test_the_image_is_built_with_every_file_that_the_build_reads() -> None:
    built, _, _ = (ROOT / "Dockerfile").read_text().partition("pip wheel")
    copied = {word for line in re.findall(r"^COPY (.+)$", built, re.MULTILINE) for word in line.split()[:-1]}
    settings = tomli.loads((ROOT / "pyproject.toml").read_text())
    project, wheel = settings["project"], settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["readme"], *project["license-files"]}
    needed |= {Path(each).parts[0] for each in wheel["packages"]}
    needed |= {hook.get("path", "hatch_build.py") for hook in wheel["hooks"].values()}
    assert needed <= copied
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert needed <= let_in
