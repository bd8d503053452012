"""docs/kubernetes.md says what the plugin does: its manifests are read, and its commands and figures are those there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from lnh_cli.main import tree
from lnh_cli.nouns.kms import _SOCKET
from lnh_common import limits
from lnh_kms import keys, serving
from lnh_kms.statuses import CODES

PAGE = (Path(__file__).parents[3] / "docs" / "kubernetes.md").read_text()
MANIFESTS: list[Any] = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
POD, CONFIGURATION = MANIFESTS


def options(*words: str) -> set[str]:
    """The options of a verb."""
    command: Any = typer.main.get_command(tree(*words))
    for word in words:
        command = command.commands[word]
    return {option for parameter in command.params for option in parameter.opts}


def test_the_commands_of_the_page_have_options_that_there_are() -> None:
    told = [line.partition("lnh kms ")[2].partition("#")[0].split() for line in PAGE.splitlines() if "lnh kms " in line]
    used = {(words[0], word) for words in told for word in words if word.startswith("-") and words[0].isalpha()}
    used |= {("serve", word) for word in POD["spec"]["containers"][0]["command"] if word.startswith("-")}
    assert ("serve", "--password-file") in used
    for verb, option in used:
        assert option in options("kms", verb), f"lnh kms {verb} {option}"


def test_the_manifests_agree_on_the_socket() -> None:
    (container,) = POD["spec"]["containers"]
    assert container["command"][:3] == ["lnh", "kms", "serve"]
    assert {each["mountPath"] for each in container["volumeMounts"]} == {str(_SOCKET.parent), "/etc/lnh"}
    assert {each["name"] for each in POD["spec"]["volumes"]} == {each["name"] for each in container["volumeMounts"]}
    (resources,) = CONFIGURATION["resources"]
    kms = resources["providers"][0]["kms"]
    assert (kms["apiVersion"], kms["endpoint"]) == (serving.VERSION, f"unix://{_SOCKET}")
    assert kms["timeout"] == "3s", "more than a call takes"
    assert POD["spec"]["terminationGracePeriodSeconds"] > limits.KMS_GRACE


@pytest.mark.parametrize("code", sorted({code.name for code in CODES.values()}))
def test_every_status_code_has_a_line(code: str) -> None:
    assert re.search(rf"^\| [A-Z_, ]*\b{code}\b", PAGE, re.MULTILINE)


def test_the_figures_are_the_limits() -> None:
    assert f"more than {limits.KMS_PLAINTEXT_BYTES} bytes" in PAGE
    assert f"{limits.KMS_IN_FLIGHT} calls are under way ({limits.KMS_REQUESTS} of them" in PAGE
    assert f"more than {limits.KMS_MESSAGE_BYTES // 1024} KiB" in PAGE
    assert f"tried again after {limits.KMS_LOGIN_AGAIN:g} s" in PAGE
    assert f"associated data `{keys._BOUND.decode()}`" in PAGE
    assert f"a key id is `{keys._PREFIX}` and the handle" in PAGE
