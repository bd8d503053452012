"""Digests (FIPS 180-4 and 202) and random bytes."""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.hashes import Hash as Context

from lnh_common import limits
from lnh_common.errors import DataLength
from lnh_common.mechanisms import MechanismRule
from lnh_services.hsm.mechanisms.base import HASHES, Digester


def digest(rule: MechanismRule) -> Digester:
    """SHA-2 and SHA-3."""
    assert rule.hash is not None, "the row names its hash"
    algorithm = HASHES[rule.hash]

    def compute(data: bytes) -> bytes:
        context = Context(algorithm)
        context.update(data)
        return context.finalize()

    return compute


def random_bytes(length: int) -> bytes:
    """1 byte to 1 MiB from the system's generator; raises DataLength."""
    if not 1 <= length <= limits.REQUEST_BYTES:
        raise DataLength(f"{length} random bytes; from 1 to {limits.REQUEST_BYTES}")
    return os.urandom(length)
