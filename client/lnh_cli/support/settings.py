"""Settings of a policy as a command line has them: NAME=VALUE."""

from __future__ import annotations

from typing import Any

from lnh_cli.support import files, terminal


def parsed(changes: list[str]) -> dict[str, Any]:
    """Parse settings; a value is JSON (numbers, true, lists, null), or else text; mechanisms go by their names."""
    import json

    from lnh_common.pkcs11.mechanisms import POLICY_FIELDS

    found: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not name:
            terminal.refuse(f"{change!r} is not NAME=VALUE", "lnh cluster policy minimum_rsa_bits=3072", terminal.USAGE)
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = text
        if name == "dual_control" and isinstance(found[name], str):
            found[name] = [each.strip() for each in found[name].split(",") if each.strip()]
        if name in POLICY_FIELDS and found[name] is not None:
            given = found[name] if isinstance(found[name], list) else str(found[name]).split(",")
            found[name] = [files.mechanism(each) if _is_name(each) else int(each) for each in given if each != ""]
    return found


def _is_name(mechanism: object) -> bool:
    return not str(mechanism).isdecimal()
