"""The settings of an etcd: what they must be, each refusal naming the setting; and where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lnh_common import etcd
from lnh_common.errors import ConfigurationInvalid

GOOD: dict[str, Any] = {
    "endpoints": ["https://etcd1.example:2379", "https://[::1]:2379"],
    "prefix": "lnh/prod/",
    "ca": "ca.pem",
    "certificate": "member.pem",
    "key": "member.key",
}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no endpoints": ({"endpoints": []}, "endpoints: at least 1"),
    "too many": ({"endpoints": ["https://a:1"] * 17}, "endpoints: at most 16"),
    "no port": ({"endpoints": ["https://a"]}, "'https://a' is no https://host:port"),
    "no number": ({"endpoints": ["https://a:b"]}, "is no https://host:port"),
    "no scheme": ({"endpoints": ["a:2379"]}, "is no https://host:port"),
    "a path": ({"endpoints": ["https://a:2379/v3"]}, "is more than https://host:port"),
    "a user in it": ({"endpoints": ["https://me@a:2379"]}, "is more than https://host:port"),
    "a comma": ({"endpoints": ["https://a,b:2379"]}, "is more than https://host:port"),
    "in clear": ({"endpoints": ["http://a:2379"]}, "is in clear"),
    "no ca": ({"ca": ""}, "ca: needed for https"),
    "no prefix": ({"prefix": ""}, "as lnh/prod/"),
    "a prefix without an end": ({"prefix": "lnh"}, "as lnh/prod/"),
    "certificate alone": ({"key": ""}, "certificate and key: both, or neither"),
    "user alone": ({"user": "lnh"}, "user and password_file: both, or neither"),
    "unknown": ({"prefx": "a/"}, "prefx"),
    "no text": ({"ca": 7}, "ca: is text"),
}


def test_settings_are_taken_as_they_are_given() -> None:
    found = etcd.settings(GOOD, "options")
    assert (found.endpoints, found.prefix) == (tuple(GOOD["endpoints"]), "lnh/prod/")
    local = etcd.settings({"endpoints": ["http://127.0.0.1:2379", "http://localhost:1"], "prefix": "a/"}, "options")
    assert local.ca == ""
    assert etcd.parts("https://[::1]:2379") == ("https", "::1", 2379)


@pytest.mark.parametrize(("changed", "words"), WRONG.values(), ids=WRONG)
def test_a_setting_that_is_wrong_is_named(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        etcd.settings(GOOD | changed, "options")
    assert str(caught.value).startswith("options: ")
    assert words in str(caught.value)


def test_a_setting_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationInvalid, match="prefix"):
        etcd.settings({"endpoints": ["https://a:1"]}, "options")


def test_a_file_names_others_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "engine.toml"
    file.write_text('[engine]\nkind = "etcd"\nendpoints = ["https://a:1"]\nprefix = "a/"\nca = "ca.pem"\nkey = "/k"\n')
    found = etcd.read(file)
    assert found == {"endpoints": ["https://a:1"], "prefix": "a/", "ca": str(tmp_path / "ca.pem"), "key": "/k"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no table"),
        ("engine = 7", "it has no table"),
        ('[engine]\nkind = "embedded"', "'etcd', not 'embedded'"),
        ("[engine", "engine.toml: "),
        ("\udcff", "engine.toml: "),
    ],
)
def test_a_file_that_is_none_of_an_etcd_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "engine.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationInvalid) as caught:
        etcd.read(file)
    assert words in str(caught.value)


def test_a_file_that_is_missing_or_a_directory_is_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none", "is missing"), (tmp_path, "a directory")):
        with pytest.raises(ConfigurationInvalid, match=words):
            etcd.read(path)
