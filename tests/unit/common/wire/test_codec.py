"""CBOR is checked against a type, and what is wrong is told by its place in the value."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lnh_common.errors import MalformedMessage
from lnh_common.messages.store import Commit
from lnh_common.wire import codec
from lnh_services.store.log.entries import Payload, Write
from lnh_services.store.replication.messages import Message, Ping


def test_one_of_several_types_is_checked_by_what_was_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [codec.decode(codec.encode(Ping((3, b"a" * 16), b"i" * 16, number))) for number in range(3)]  # type: ignore[arg-type]
    before: list[Any] = [codec.convert(each, Message) for each in said]  # type: ignore[arg-type]
    kinds: list[object] = []

    def convert(value: object, kind: Any, **options: Any) -> Any:
        kinds.append(kind)
        return checked(value, kind, **options)

    checked = msgspec.convert
    monkeypatch.setattr(msgspec, "convert", convert)
    assert [codec.convert(each, Message) for each in said] == before  # type: ignore[arg-type]
    assert len(kinds) == 3
    assert len(set(kinds)) == 1
    assert all(isinstance(kind, type) for kind in kinds), "msgspec keeps what checks a class, and of a union nothing"


def test_what_is_wrong_in_one_of_several_types_is_told_as_in_that_type_alone() -> None:
    fields = {"client": b"c" * 16, "session": b"s" * 16, "sequence": 0, "issued_at": 1, "changes": []}
    with pytest.raises(MalformedMessage) as alone:
        codec.convert(fields, Commit)
    with pytest.raises(MalformedMessage) as one_of_several:
        codec.convert({"type": "write", "commit": fields}, Payload)  # type: ignore[arg-type]
    with pytest.raises(MalformedMessage) as within:
        codec.convert({"type": "write", "commit": fields}, Write)
    assert str(one_of_several.value) == str(within.value) == f"commit, {alone.value}"
