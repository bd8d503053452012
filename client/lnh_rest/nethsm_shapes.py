"""The JSON that a NetHSM takes, as its published document has it (nethsm-api.yaml): exactly these fields."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from lnh_common import limits
from lnh_rest.base import Body, Secretive
from lnh_rest.shapes import Ciphertext, Data

KeyId = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z", min_length=1, max_length=128)]


class NetHsmRandom(Body):
    """Ask for random bytes."""

    length: Annotated[int, msgspec.Meta(ge=1, le=1024)]


class NetHsmQuery(Body):
    """Ask for keys; what a restriction lets one use is all of a keyring's."""

    filter: str = ""


class Restrictions(Body):
    """Name the tags that a user needs."""

    tags: tuple[str, ...] = ()


class NetHsmNewKey(Body):
    """Ask for a new key."""

    mechanisms: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=32)]
    type: str
    length: Annotated[int, msgspec.Meta(ge=128, le=8192)] | None = None
    id: KeyId = ""
    restrictions: Restrictions = Restrictions()
    label: Annotated[str, msgspec.Meta(max_length=limits.LABEL_BYTES)] = ""


class NetHsmKeyMade(Body):
    """Answer with the id of a new key."""

    id: str


class NetHsmSign(Secretive):
    """Ask for a signature: of a digest, but for EdDSA of a message, and for PKCS1 of what is padded."""

    mode: str
    message: Data


class NetHsmEncrypt(Secretive):
    """Ask for an encryption."""

    mode: str
    message: Data
    iv: bytes | None = None


class NetHsmDecrypt(Secretive):
    """Ask for a decryption."""

    mode: str
    encrypted: Ciphertext
    iv: bytes | None = None


class NetHsmState(enum.Enum):
    """The state of a NetHSM."""

    OPERATIONAL = "Operational"
    LOCKED = "Locked"
