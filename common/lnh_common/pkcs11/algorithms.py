"""Hashes, curves, and sizes of keys: what the rows of mechanisms and attributes are made of."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from lnh_common.pkcs11.attributes import CURVE_NAMES, KeyType


class Hash(str, enum.Enum):
    """A hash as a parameter."""

    SHA1 = "SHA-1"  # OAEP only
    SHA224 = "SHA-224"
    SHA256 = "SHA-256"
    SHA384 = "SHA-384"
    SHA512 = "SHA-512"
    SHA3_224 = "SHA3-224"
    SHA3_256 = "SHA3-256"
    SHA3_384 = "SHA3-384"
    SHA3_512 = "SHA3-512"

    @property
    def size(self) -> int:
        """Bytes of the digest."""
        return _HASH_SIZES[self]


_HASH_SIZES: Final[dict[Hash, int]] = {
    Hash.SHA1: 20,
    Hash.SHA224: 28,
    Hash.SHA256: 32,
    Hash.SHA384: 48,
    Hash.SHA512: 64,
    Hash.SHA3_224: 28,
    Hash.SHA3_256: 32,
    Hash.SHA3_384: 48,
    Hash.SHA3_512: 64,
}

# What RSA and ECDSA sign: SHA-2 of at least 256 bits.
SIGNED_HASHES: Final = (Hash.SHA256, Hash.SHA384, Hash.SHA512)
OAEP_HASHES: Final = (Hash.SHA1, Hash.SHA256, Hash.SHA384, Hash.SHA512)


@dataclass(frozen=True)
class Curve:
    """A named curve.

    Args:
        name: as people say it.
        oid: the DER object identifier that EC_PARAMS holds.
        bits: of the field; a coordinate takes `size` bytes.
        approved: by NIST SP 800-186 for what the product does with it.
    """

    name: str
    oid: bytes
    bits: int
    key_type: KeyType
    approved: bool = False

    @property
    def aliases(self) -> tuple[bytes, ...]:
        """Other DER that names the curve in EC_PARAMS."""
        return tuple(name for name, oid in CURVE_NAMES.items() if oid == self.oid)

    @property
    def size(self) -> int:
        """Bytes of a coordinate."""
        return (self.bits + 7) // 8


_K = KeyType
CURVES: Final[dict[str, Curve]] = {
    curve.name: curve
    for curve in (
        Curve("P-256", bytes.fromhex("06082a8648ce3d030107"), 256, _K.EC, approved=True),
        Curve("P-384", bytes.fromhex("06052b81040022"), 384, _K.EC, approved=True),
        Curve("P-521", bytes.fromhex("06052b81040023"), 521, _K.EC, approved=True),
        Curve("secp256k1", bytes.fromhex("06052b8104000a"), 256, _K.EC),
        Curve("brainpoolP256r1", bytes.fromhex("06092b2403030208010107"), 256, _K.EC),
        Curve("brainpoolP384r1", bytes.fromhex("06092b240303020801010b"), 384, _K.EC),
        Curve("brainpoolP512r1", bytes.fromhex("06092b240303020801010d"), 512, _K.EC),
        Curve("Ed25519", bytes.fromhex("06032b6570"), 256, _K.EC_EDWARDS, approved=True),
        Curve("Ed448", bytes.fromhex("06032b6571"), 456, _K.EC_EDWARDS, approved=True),
        Curve("X25519", bytes.fromhex("06032b656e"), 256, _K.EC_MONTGOMERY),
        Curve("X448", bytes.fromhex("06032b656f"), 448, _K.EC_MONTGOMERY),
    )
}
CURVES_BY_PARAMS: Final[dict[bytes, Curve]] = {
    params: curve for curve in CURVES.values() for params in (curve.oid, *curve.aliases)
}

RSA_BITS: Final = (2048, 3072, 4096, 8192)
WRAPPING_RSA_BITS: Final = 3072  # and more: with fewer no key is wrapped
AES_BYTES: Final = (16, 24, 32)
CHACHA20_BYTES: Final = 32
GENERIC_SECRET_BYTES: Final = (16, 512)  # least and most
# PARAMETER_SET (CKP_, PKCS#11 v3.2) of each lattice scheme.
ML_DSA_SETS: Final[dict[int, str]] = {1: "ML-DSA-44", 2: "ML-DSA-65", 3: "ML-DSA-87"}
ML_DSA_SIGNATURES: Final[dict[int, int]] = {1: 2420, 2: 3309, 3: 4627}  # bytes (FIPS 204, table 2)
ML_KEM_SETS: Final[dict[int, str]] = {2: "ML-KEM-768", 3: "ML-KEM-1024"}

AES_BLOCK: Final = 16
GCM_IV_BYTES: Final = 12
GCM_TAG_BITS: Final = 128
