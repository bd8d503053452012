"""What the versions before wrote and said opens with the code of now, and says what it said then.

`tests/data` has a directory for each version that still matters; of the version of now the bytes are the same as well, so
that a change of format is noticed when it is made. tests/data/README.md says what is then to be done.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

import lnh_common
from lnh_common import errors
from lnh_common.errors import ERRORS
from lnh_common.versions import check_compatible
from lnh_common.wire import codec
from lnh_services.hsm.records import TABLES
from lnh_services.store.disk.sqlite import Disk
from lnh_services.store.net import transfer
from lnh_services.store.net.peers import MESSAGE_BYTES, _check_entries
from lnh_services.store.replication import messages as protocol
from models import carried

DATA = Path(__file__).parents[1] / "data"
VERSIONS = sorted(path.name for path in DATA.iterdir() if path.is_dir() and path.name[0].isdigit())
THIS = lnh_common.VERSION.rpartition(".")[0]


def load(version: str, name: str) -> Any:
    return json.loads((DATA / version / name).read_text())


def messages() -> list[tuple[str, str, str, dict[str, Any]]]:
    return [
        (version, whose, each["name"], each)
        for version in VERSIONS
        for whose, said in load(version, "messages.json").items()
        if whose != "errors"
        for each in said
    ]


def kind_of(whose: str, name: str) -> Any:
    if whose == "stores":
        of_replica = any(kind.__name__ == name for kind in get_args(protocol.Message))
        return protocol.Message if of_replica else transfer.Transfer
    return carried.bodies(carried.PEER_OPERATIONS if whose == "members" else carried.CLIENT_OPERATIONS)[name]


def test_there_is_data_of_this_version_and_none_that_does_not_run_with_it() -> None:
    assert THIS in VERSIONS, f"run tests/data/make.py for {THIS}"
    for version in VERSIONS:
        check_compatible(lnh_common.VERSION, f"{version}.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_versions_data_opens_and_says_what_it_said(version: str, tmp_path: Path) -> None:
    expected, found = load(version, "expected.json"), carried.read(DATA / version, tmp_path)
    assert carried.differences(expected, found) == []
    if version == THIS:
        assert found == expected, "a field that is new since this version's data was written"


@pytest.mark.parametrize(("version", "whose", "name", "sample"), messages())
def test_a_versions_message_is_understood_and_says_what_it_said(
    version: str, whose: str, name: str, sample: dict[str, Any]
) -> None:
    data = bytes.fromhex(sample["cbor"])
    message = codec.decode_as(data, kind_of(whose, name), MESSAGE_BYTES)
    assert carried.differences(sample["says"], carried.plain(message)) == []
    if isinstance(message, carried.STORE_MESSAGES):
        _check_entries(message)
    assert codec.encode(message) == data, "that version would not read what this one says in its place"
    if version == THIS:
        assert carried.plain(message) == sample["says"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_versions_records_are_written_as_it_reads_them(version: str) -> None:
    store = load(version, "expected.json")["store"]
    heads = {(each["key"]["table"], each["key"]["id"]): each["head"] for each in store["items"]}
    kinds = [kind for kind in TABLES if kind.__name__ in store["records"]]
    assert kinds
    for kind in kinds:
        head = bytes.fromhex(heads[TABLES[kind], "0x" + kind.__name__.encode().hex()][2:])
        assert codec.encode(codec.decode_as(head, kind)) == head, kind


def test_every_message_of_this_version_is_there() -> None:
    said = load(THIS, "messages.json")
    assert {each["name"] for each in said["stores"]} == {kind.__name__ for kind in carried.STORE_MESSAGES}
    for whose, operations in (("members", carried.PEER_OPERATIONS), ("clients", carried.CLIENT_OPERATIONS)):
        there = {each["name"]: each["cbor"] for each in said[whose]}
        now = {name: codec.encode(carried.sample(kind)).hex() for name, kind in carried.bodies(operations).items()}
        assert there == now
    forwarded = [bytes.fromhex(each["cbor"]) for each in said["stores"] if each["name"] == "Forward"]
    orders = {type(codec.decode_as(each, protocol.Forward).what()).__name__ for each in forwarded}
    assert orders == {kind.__name__ for kind in get_args(protocol.Order)}
    payloads = {entry["payload"] for entry in load(THIS, "expected.json")["store"]["durable"]["entries"]}
    kinds = {codec.decode(bytes.fromhex(payload[2:]))["type"] for payload in payloads}
    assert kinds == {"open", "set", "members", "terms", "write"}


@pytest.mark.parametrize("version", VERSIONS)
def test_an_error_keeps_its_code(version: str) -> None:
    said = load(version, "messages.json")["errors"]
    assert {each["code"]: each["name"] for each in said}.items() <= {
        c: kind.__name__ for c, kind in ERRORS.items()
    }.items()
    for each in said:
        assert type(errors.LnhError.from_wire([each["code"], "what", {}])).__name__ == each["name"]


def test_this_version_makes_the_snapshot_that_was_made(tmp_path: Path) -> None:
    carried.read(DATA / THIS, tmp_path)  # copies
    engine = Disk(tmp_path / "copy" / "store")
    engine.load()
    outgoing = engine.send()
    stream = b"".join(iter(lambda: outgoing.next() or b"", b""))
    assert stream == (DATA / THIS / "snapshot.bin").read_bytes()
    engine.release(outgoing)
    engine.close()


def test_a_field_that_was_lost_or_changed_is_noticed_and_a_new_one_is_none() -> None:
    said = {"is": "Old", "a": 1, "b": [{"c": "0x00"}]}
    assert carried.differences(said, {"is": "New", "a": 1, "b": [{"c": "0x00", "d": 2}]}) == []
    for changed in ({"a": 1}, {**said, "a": True}, {**said, "b": []}, {**said, "b": [{"c": "0x01"}]}):
        assert carried.differences(said, changed) != []
