"""What is wrong with a file of settings is said in the product's words, whoever reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lnh.configuration import Configuration
from lnh_common import etcd
from lnh_common.errors import ConfigurationInvalid
from lnh_services import configuration

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "member": ("member.toml", configuration.load),
    "client": ("client.toml", lambda path: Configuration(path.parent).registrations()),
    "engine": ("engine.toml", etcd.read),
}


@pytest.mark.parametrize(("name", "reads"), READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"name = \x82", "not TOML: byte 8 is no UTF-8"),
        (b"name", "not TOML: Expected '=' after a key in a key/value pair (at end of document)"),
    ],
)
def test_what_is_no_toml_is_said_so(
    tmp_path: Path, data: bytes, said: str, name: str, reads: Callable[[Path], object]
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(ConfigurationInvalid) as caught:
        reads(path)
    assert str(caught.value) == f"{path}: {said}"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_no_matter(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "engine.toml"
    path.write_bytes(mark + b"[engine]\n")
    assert etcd.read(path) == {}
