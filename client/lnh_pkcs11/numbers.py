"""PKCS#11's numbers that the gateway speaks and the product itself has no use for (v3.2, annex of the headers)."""

from __future__ import annotations

import enum
from typing import Final

from lnh_common.pkcs11.algorithms import Hash
from lnh_common.pkcs11.mechanisms import Mechanism

UNAVAILABLE: Final = 2**64 - 1
"""CK_UNAVAILABLE_INFORMATION."""
EFFECTIVELY_INFINITE: Final = 0


class CKR(enum.IntEnum):
    """Return values; `lnh_common.errors` names one for each error of the product."""

    OK = 0x000
    HOST_MEMORY = 0x002
    SLOT_ID_INVALID = 0x003
    GENERAL_ERROR = 0x005
    FUNCTION_FAILED = 0x006
    ARGUMENTS_BAD = 0x007
    NO_EVENT = 0x008
    ATTRIBUTE_READ_ONLY = 0x010
    ATTRIBUTE_SENSITIVE = 0x011
    ATTRIBUTE_TYPE_INVALID = 0x012
    ATTRIBUTE_VALUE_INVALID = 0x013
    ACTION_PROHIBITED = 0x01B
    DATA_INVALID = 0x020
    DATA_LEN_RANGE = 0x021
    DEVICE_ERROR = 0x030
    DEVICE_MEMORY = 0x031
    DEVICE_REMOVED = 0x032
    ENCRYPTED_DATA_INVALID = 0x040
    ENCRYPTED_DATA_LEN_RANGE = 0x041
    FUNCTION_CANCELED = 0x050
    FUNCTION_NOT_PARALLEL = 0x051
    FUNCTION_NOT_SUPPORTED = 0x054
    KEY_HANDLE_INVALID = 0x060
    KEY_SIZE_RANGE = 0x062
    KEY_TYPE_INCONSISTENT = 0x063
    KEY_INDIGESTIBLE = 0x067
    KEY_FUNCTION_NOT_PERMITTED = 0x068
    KEY_NOT_WRAPPABLE = 0x069
    KEY_UNEXTRACTABLE = 0x06A
    MECHANISM_INVALID = 0x070
    MECHANISM_PARAM_INVALID = 0x071
    OBJECT_HANDLE_INVALID = 0x082
    OPERATION_ACTIVE = 0x090
    OPERATION_NOT_INITIALIZED = 0x091
    PIN_INCORRECT = 0x0A0
    PIN_INVALID = 0x0A1
    PIN_LEN_RANGE = 0x0A2
    PIN_EXPIRED = 0x0A3
    PIN_LOCKED = 0x0A4
    SESSION_CLOSED = 0x0B0
    SESSION_COUNT = 0x0B1
    SESSION_HANDLE_INVALID = 0x0B3
    SESSION_PARALLEL_NOT_SUPPORTED = 0x0B4
    SESSION_READ_ONLY = 0x0B5
    SESSION_READ_ONLY_EXISTS = 0x0B7
    SESSION_READ_WRITE_SO_EXISTS = 0x0B8
    SIGNATURE_INVALID = 0x0C0
    SIGNATURE_LEN_RANGE = 0x0C1
    TEMPLATE_INCOMPLETE = 0x0D0
    TEMPLATE_INCONSISTENT = 0x0D1
    TOKEN_NOT_PRESENT = 0x0E0
    TOKEN_NOT_RECOGNIZED = 0x0E1
    TOKEN_WRITE_PROTECTED = 0x0E2
    USER_ALREADY_LOGGED_IN = 0x100
    USER_NOT_LOGGED_IN = 0x101
    USER_PIN_NOT_INITIALIZED = 0x102
    USER_TYPE_INVALID = 0x103
    USER_ANOTHER_ALREADY_LOGGED_IN = 0x104
    WRAPPED_KEY_INVALID = 0x110
    WRAPPED_KEY_LEN_RANGE = 0x112
    RANDOM_SEED_NOT_SUPPORTED = 0x120
    BUFFER_TOO_SMALL = 0x150
    SAVED_STATE_INVALID = 0x160
    STATE_UNSAVEABLE = 0x180
    CRYPTOKI_NOT_INITIALIZED = 0x190
    CRYPTOKI_ALREADY_INITIALIZED = 0x191


class UserType(enum.IntEnum):
    """CKU_."""

    SO = 0
    USER = 1
    CONTEXT_SPECIFIC = 2


class State(enum.IntEnum):
    """CKS_: of a session."""

    RO_PUBLIC = 0
    RO_USER = 1
    RW_PUBLIC = 2
    RW_USER = 3
    RW_SO = 4


class SlotFlag(enum.IntFlag):
    """CKF_ of a slot."""

    TOKEN_PRESENT = 0x01


class TokenFlag(enum.IntFlag):
    """CKF_ of a token."""

    RNG = 0x0001
    WRITE_PROTECTED = 0x0002
    LOGIN_REQUIRED = 0x0004
    USER_PIN_INITIALIZED = 0x0008
    TOKEN_INITIALIZED = 0x0400
    SO_PIN_TO_BE_CHANGED = 0x80_0000


class SessionFlag(enum.IntFlag):
    """CKF_ of a session."""

    RW = 0x2
    SERIAL = 0x4


class MechanismFlag(enum.IntFlag):
    """CKF_ of a mechanism; those of uses also name operations to be cancelled."""

    MESSAGE_ENCRYPT = 0x2
    MESSAGE_DECRYPT = 0x4
    FIND_OBJECTS = 0x40
    ENCRYPT = 0x100
    DECRYPT = 0x200
    DIGEST = 0x400
    SIGN = 0x800
    VERIFY = 0x2000
    GENERATE = 0x8000
    GENERATE_KEY_PAIR = 0x1_0000
    WRAP = 0x2_0000
    UNWRAP = 0x4_0000
    DERIVE = 0x8_0000
    EC_F_P = 0x10_0000
    EC_OID = 0x80_0000
    EC_UNCOMPRESS = 0x100_0000
    EC_CURVENAME = 0x400_0000
    ENCAPSULATE = 0x1000_0000
    DECAPSULATE = 0x2000_0000


DONT_BLOCK: Final = 0x1
END_OF_MESSAGE: Final = 0x1
NO_GENERATE: Final = 0  # CKG_: the caller's IV; all others are the HSM's to draw
SALT_NULL, SALT_DATA = 1, 2  # CKF_HKDF_SALT_
DATA_SPECIFIED: Final = 1  # CKZ_
DETERMINISTIC_REQUIRED: Final = 2  # CKH_
ITERATION_VARIABLE, DKM_LENGTH, BYTE_ARRAY = 1, 3, 4  # CK_SP800_108_
SUM_OF_KEYS, SUM_OF_SEGMENTS = 1, 2  # CK_SP800_108_DKM_LENGTH_

# CKM_ of hashes as parameters, CKG_MGF1_, and CKD_ of key derivations.
HASHES: Final[dict[int, Hash]] = {
    0x0220: Hash.SHA1,
    Mechanism.SHA224: Hash.SHA224,
    Mechanism.SHA256: Hash.SHA256,
    Mechanism.SHA384: Hash.SHA384,
    Mechanism.SHA512: Hash.SHA512,
    Mechanism.SHA3_224: Hash.SHA3_224,
    Mechanism.SHA3_256: Hash.SHA3_256,
    Mechanism.SHA3_384: Hash.SHA3_384,
    Mechanism.SHA3_512: Hash.SHA3_512,
}
MGFS: Final[dict[int, Hash]] = {1: Hash.SHA1, 2: Hash.SHA256, 3: Hash.SHA384, 4: Hash.SHA512, 5: Hash.SHA224}
KDFS: Final[dict[int, Hash]] = {6: Hash.SHA256, 7: Hash.SHA384, 8: Hash.SHA512}
PRFS: Final[dict[int, Hash | None]] = {
    Mechanism.SHA256_HMAC: Hash.SHA256,
    Mechanism.SHA384_HMAC: Hash.SHA384,
    Mechanism.SHA512_HMAC: Hash.SHA512,
    Mechanism.AES_CMAC: None,
}

MECHANISMS: Final = {each.value: each for each in Mechanism}
"""The mechanisms of the product, by CKM_."""
