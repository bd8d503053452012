"""Parts of JSON Schema that types are annotated with where their words come from a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

LARGEST: Final = (1 << 63) - 1  # number that a message of the cluster carries


def one_of(names: Iterable[str]) -> msgspec.Meta:
    """Annotate text that is one of these words."""
    return msgspec.Meta(extra_json_schema={"enum": list(names)})


def fields(properties: Mapping[str, Any]) -> msgspec.Meta:
    """Annotate an object that has some of these fields and no others."""
    return msgspec.Meta(extra_json_schema={"properties": dict(properties), "additionalProperties": False})


def hexadecimal(least: int = 0, most: int | None = None) -> dict[str, Any]:
    """Describe so many bytes in hexadecimal."""
    count = f"{{{least},{'' if most is None else most}}}" if least or most is not None else "*"
    return {"type": "string", "pattern": f"^([0-9a-f]{{2}}){count}$"}
