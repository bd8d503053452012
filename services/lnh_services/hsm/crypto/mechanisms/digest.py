"""Computes digests (FIPS 180-4 and 202)."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import Hash as Context

from lnh_common.pkcs11.mechanisms import MechanismRule
from lnh_services.hsm.crypto.mechanisms.base import HASHES, Digester


def digest(rule: MechanismRule) -> Digester:
    """Hash with SHA-2 or SHA-3."""
    assert rule.hash is not None, "the row names its hash"
    algorithm = HASHES[rule.hash]

    def compute(data: bytes) -> bytes:
        context = Context(algorithm)
        context.update(data)
        return context.finalize()

    return compute
