"""Reads TOML files that people write, and says in the product's words what is wrong with them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lnh_common.errors import ConfigurationInvalid

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse(data: bytes, path: Path) -> dict[str, Any]:
    """Parse what a file holds, with or without a byte order mark.

    Args:
        data: all of it.
        path: where it was, for what is said.

    Raises:
        ConfigurationInvalid: it is no text in UTF-8, or no TOML (with line and column).
    """
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigurationInvalid(f"{path}: not TOML: byte {error.start + 1} is no UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationInvalid(f"{path}: not TOML: {error}") from None
