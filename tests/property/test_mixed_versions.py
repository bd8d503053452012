"""Members of two versions read each other: a field that one of them lacks is left out, has its default, or is refused.

The rules of docs/contributing.md ("A message field"), held for every message and record there is: each is read by the layout
that it would have without some of its newest fields, and reads what that layout says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnh_common.errors import MalformedMessage
from lnh_common.messages.base import OPERATIONS
from lnh_common.wire import codec
from lnh_services.hsm.records import TABLES
from models.carried import STORE_MESSAGES, sample
from sizes import sized


def _kinds() -> Iterator[type[msgspec.Struct]]:
    """Every message and record, but for what a member's local console says to its own core: that has one version."""
    for each in OPERATIONS.values():
        yield from (kind for kind in (each.request, each.reply) if isinstance(kind, type))
    yield from TABLES
    yield from STORE_MESSAGES


KINDS: Final = tuple(dict.fromkeys(_kinds()))


def fields_with_defaults(kind: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind) if not field.required]


def without(kind: type[msgspec.Struct], lacking: set[str]) -> type[msgspec.Struct]:
    """The layout of a type in a version that lacks some of its fields."""
    config = kind.__struct_config__
    kept = [each for each in msgspec.structs.fields(kind) if each.name not in lacking]
    fields: list[Any] = []
    for each in kept:
        encoded = each.encode_name
        if each.required:
            fields.append((each.name, each.type, msgspec.field(name=encoded)))
        elif each.default_factory is not msgspec.NODEFAULT:
            fields.append((each.name, each.type, msgspec.field(name=encoded, default_factory=each.default_factory)))
        else:
            fields.append((each.name, each.type, msgspec.field(name=encoded, default=each.default)))
    return msgspec.defstruct(
        kind.__name__, fields, frozen=True, kw_only=not config.array_like, array_like=config.array_like,
        omit_defaults=config.omit_defaults, forbid_unknown_fields=config.forbid_unknown_fields, tag=config.tag,
        tag_field=config.tag_field,
    )  # fmt: skip


def default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


OF_A_MAP: Final = [each for each in KINDS if not each.__struct_config__.array_like and fields_with_defaults(each)]
OF_PLACES: Final = [each for each in KINDS if each.__struct_config__.array_like and fields_with_defaults(each)]
BOTH: Final = [*OF_A_MAP, *OF_PLACES]


@st.composite
def changed(draw: st.DrawFn) -> tuple[type[msgspec.Struct], set[str]]:
    """A type, and some of its newest fields."""
    kind = draw(st.sampled_from(BOTH))
    optional = fields_with_defaults(kind)
    return kind, set(optional[draw(st.integers(0, len(optional) - 1)) :])


def at_default(kind: type[msgspec.Struct], names: set[str]) -> msgspec.Struct:
    defaults = {field.name: default(field) for field in msgspec.structs.fields(kind) if field.name in names}
    return msgspec.structs.replace(sample(kind), **defaults)


@settings(max_examples=sized(150), deadline=None)
@given(changed())
def test_what_a_version_before_says_is_read_with_the_defaults_of_what_it_lacks(
    case: tuple[type[msgspec.Struct], set[str]],
) -> None:
    kind, lacking = case
    value = at_default(kind, lacking)
    before = without(kind, lacking)
    said = {name: getattr(value, name) for name in before.__struct_fields__}
    assert codec.decode_as(codec.encode(before(**said)), kind) == value


@settings(max_examples=sized(150), deadline=None)
@given(changed())
def test_a_version_before_reads_what_leaves_out_defaults_and_refuses_what_it_lacks(
    case: tuple[type[msgspec.Struct], set[str]],
) -> None:
    kind, lacking = case
    before = without(kind, lacking)
    leaves_out = kind.__struct_config__.omit_defaults and not kind.__struct_config__.array_like
    data = codec.encode(at_default(kind, lacking))
    if leaves_out or not kind.__struct_config__.forbid_unknown_fields:
        read = codec.decode_as(data, before)
        assert all(getattr(read, name) == getattr(sample(kind), name) for name in before.__struct_fields__)
    else:
        with pytest.raises(MalformedMessage):
            codec.decode_as(data, before)
    if kind.__struct_config__.forbid_unknown_fields and at_default(kind, lacking) != sample(kind):
        with pytest.raises(MalformedMessage):
            codec.decode_as(codec.encode(sample(kind)), before)


def test_a_new_field_stands_at_the_end_where_fields_go_by_place() -> None:
    for kind in KINDS:
        required = [field.required for field in msgspec.structs.fields(kind)]
        assert not kind.__struct_config__.array_like or required == sorted(required, reverse=True), kind
    assert len(OF_A_MAP) > 40
