"""Writes `module/calls.h` and `module/layouts.h`, the tables for the C module: `python -m lnh_pkcs11.generate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lnh_pkcs11 import calls, layouts
from lnh_pkcs11.layouts import Field, FieldKind, Layout

HERE: Final = Path(__file__).parent / "module"
_HEAD: Final = "/* Written by `python -m lnh_pkcs11.generate` from {name}.py, which explains it. */"


def calls_header() -> str:
    """Return `calls.h`: the calls that the module sends, and those that it answers by itself."""
    sent = [call for call in calls.CALLS if call.id and call.name not in calls.P11_KIT_ONLY]
    rows = [
        f'X({call.name}, {call.id}, "{request}", "{reply}", {call.since.value[0]}, {call.since.value[1]})'
        for call in sent
        for request, reply in (call.fields(own=True),)
    ]
    alone = [
        f"X({call.name}, {call.answer}, {call.since.value[0]}, {call.since.value[1]})"
        for call in calls.CALLS
        if not call.id
    ]
    lines = [
        f"#define LNH_MODULE {calls.MODULE:#x}",
        f"#define LNH_MODULE_VERSION {calls.MODULE_VERSION}",
        f"#define LNH_PROCESS_BYTES {calls.PROCESS_BYTES}",
        f"#define LNH_ERROR {calls.ERROR}",
        "",
        "/* X(name without C_, id, fields of the request, fields of the reply, major, minor) */",
        *_macro("LNH_CALLS(X)", rows),
        "",
        "/* X(name without C_, CKR that is answered without a message, major, minor) */",
        *_macro("LNH_ANSWERED(X)", alone),
    ]
    return _header("calls", lines)


def layouts_header() -> str:
    """Return `layouts.h`: structs of parameters, how their fields travel, and kinds of attributes' values."""
    ordered = _ordered()
    numbers = {layout.name: number for number, layout in enumerate(ordered)}
    lines = [
        f"#define LNH_RAW {layouts.RAW:#x}",
        f"#define LNH_NO_MECHANISM {layouts.NO_MECHANISM:#x}UL",
        f"#define LNH_DEPTH {layouts.DEPTH}",
        "",
        "enum lnh_field_kind {",
        *(f"    LNH_FIELD_{kind.name}, /* {kind.value} */" for kind in FieldKind),
        "};",
        "",
        "/* length: offset of the member with the length or count; layout: index of what is pointed to, or -1. */",
        "struct lnh_field {",
        "    enum lnh_field_kind kind;",
        "    size_t offset, length, size;",
        "    int layout, comes_back;",
        "};",
        "",
        "/* A struct of `size` bytes, `fields` of which travel, from lnh_fields[first] on. */",
        "struct lnh_layout {",
        "    size_t size, first, fields;",
        "};",
        "",
    ]
    for layout in ordered:
        lines += [f"struct lnh_{layout.name} {{", *(f"    {kind} {name};" for kind, name in layout.members), "};", ""]
    lines += ["static const struct lnh_field lnh_fields[] = {"]
    lines += [f"    {_field(layout, field, numbers)}," for layout in ordered for field in layout.fields]
    lines += ["};", "", "static const struct lnh_layout lnh_layouts[] = {"]
    first = 0
    for layout in ordered:
        lines.append(f"    {{sizeof(struct lnh_{layout.name}), {first}, {len(layout.fields)}}}, /* {layout.name} */")
        first += len(layout.fields)
    lines += ["};", "", "/* The structs that a mechanism's parameters may be, in order, numbered from 1 on. */"]
    lines += ["struct lnh_mechanism {", "    CK_ULONG type;", "    int layout;", "};", ""]
    lines += ["static const struct lnh_mechanism lnh_mechanisms[] = {"]
    lines += [
        f"    {{{mechanism.value:#06x}UL, {numbers[layout.name]}}}, /* {mechanism.name} */"
        for mechanism, mine in layouts.LAYOUTS.items()
        for layout in mine
    ]
    lines += ["};", "", "/* Those that a message's parameters may be, the same way. */"]
    lines += [
        "static const int lnh_message_layouts[] = {"
        + ", ".join(str(numbers[layout.name]) for layout in layouts.MESSAGE_LAYOUTS)
        + "};",
        "",
        "enum lnh_value_kind {",
        *(f"    LNH_VALUE_{kind.name}, /* {kind.value} */" for kind in layouts.ValueKind),
        "};",
        "",
        "/* The kinds of attributes' values; what has no row is bytes. */",
        "struct lnh_value {",
        "    CK_ULONG type;",
        "    enum lnh_value_kind kind;",
        "};",
        "",
        "static const struct lnh_value lnh_values[] = {",
        *(f"    {{{number:#x}UL, LNH_VALUE_{kind.name}}}," for number, kind in sorted(layouts.VALUE_KINDS.items())),
        "};",
    ]
    return _header("layouts", lines)


HEADERS: Final = {"calls.h": calls_header, "layouts.h": layouts_header}


def _header(name: str, lines: list[str]) -> str:
    guard = f"LNH_{name.upper()}_H"
    return "\n".join([_HEAD.format(name=name), f"#ifndef {guard}", f"#define {guard}", "", *lines, "", "#endif", ""])


def _macro(name: str, rows: list[str]) -> list[str]:
    return [f"#define {name} \\", *(f"    {row} \\" for row in rows[:-1]), f"    {rows[-1]}"]


def _ordered() -> list[Layout]:
    """List every struct once, those that others point to before them."""
    found: dict[str, Layout] = {}

    def add(layout: Layout) -> None:
        for field in layout.fields:
            if field.layout is not None:
                add(field.layout)
        found.setdefault(layout.name, layout)

    for layout in (*(each for mine in layouts.LAYOUTS.values() for each in mine), *layouts.MESSAGE_LAYOUTS):
        add(layout)
    return list(found.values())


def _field(layout: Layout, field: Field, numbers: dict[str, int]) -> str:
    struct = f"struct lnh_{layout.name}"
    length = f"offsetof({struct}, {field.length})" if field.length else "0"
    inner = -1 if field.layout is None else numbers[field.layout.name]
    values = (
        f"LNH_FIELD_{field.kind.name}",
        f"offsetof({struct}, {field.name})",
        length,
        str(field.size),
        str(inner),
        str(int(field.comes_back)),
    )
    return "{" + ", ".join(values) + "}"


def _written() -> Iterator[Path]:
    for name, text in HEADERS.items():
        path = HERE / name
        path.write_text(text())
        yield path


if __name__ == "__main__":
    for path in _written():
        print(path)
