"""How many examples a property is tried with: a number that `make test` has time for, and in `make soak` many times that."""

from __future__ import annotations

import os
from typing import Final

_TIMES: Final = int(os.environ.get("LNH_SOAK_EXAMPLES", "1"))


def sized(examples: int) -> int:
    """A number of examples for `settings(max_examples=...)`."""
    return examples * _TIMES
