"""The SDK of the HSM cluster.

    import lnh

    with lnh.connect("prod") as cluster:
        with cluster.keyring("payments").login(lnh.Role.KRCO, password) as session:
            public, private = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="ca")
            signature = private.sign(b"data", mechanism=lnh.Mechanism.ECDSA_SHA256)

Every operation has a deadline (10 s unless it says otherwise) and raises a `LnhError`, of which
`lnh.errors` has the tree.
"""

from typing import TYPE_CHECKING, Final

from lnh_common import errors
from lnh_common.errors import (
    ActionProhibited,
    ActivationFailed,
    AlreadyDone,
    AnswerUnproven,
    ArgumentInvalid,
    AttributeInvalid,
    AttributeReadOnly,
    AttributeSensitive,
    AuditFailed,
    Busy,
    ChannelInvalid,
    ClientRevoked,
    ClientUnknown,
    ClusterIdentityChanged,
    ClusterRestored,
    ConfigurationInvalid,
    ConnectionClosed,
    CredentialChanged,
    DataLength,
    DeadlineExceeded,
    EncryptedDataInvalid,
    FileModeUnsafe,
    FingerprintMismatch,
    Internal,
    KeyExpired,
    KeyFunctionNotPermitted,
    KeyringUnknown,
    KeySizeRange,
    KeyTypeInconsistent,
    LimitReached,
    LnhError,
    MalformedMessage,
    MechanismInvalid,
    MechanismParameterInvalid,
    MemberReadOnly,
    NameTaken,
    NameUnknown,
    NoCluster,
    NotActivated,
    NotInitialised,
    NotPossible,
    ObjectUnknown,
    OutcomeUnknown,
    PartitionDisabled,
    PartitionUnknown,
    PasswordIncorrect,
    PasswordInvalid,
    PasswordLocked,
    PasswordMustChange,
    PermissionDenied,
    PolicyForbids,
    SealBroken,
    SessionEnded,
    SignatureInvalid,
    StateRolledBack,
    StorageFailed,
    TemplateIncomplete,
    TemplateInconsistent,
    TokenExpired,
    TokenUnknown,
    UnknownOperation,
    Unreachable,
    UnsupportedVersion,
    VersionConflict,
)

# What is not an error is imported when it is first asked for: `lnh --help` needs none of it.
if TYPE_CHECKING:
    from lnh.cluster import Cluster, connect
    from lnh.configuration import Configuration, Registration
    from lnh.forms import Encrypted
    from lnh.keyrings import Keyring, KeyringSession
    from lnh.keys import (
        Certificate,
        DataObject,
        Key,
        PrivateKey,
        PublicKey,
        SecretKey,
        StoredObject,
    )
    from lnh.registration import register
    from lnh.sessions import Session
    from lnh_common.attributes import Attribute, KeyType, ObjectClass
    from lnh_common.mechanisms import (
        AeadParameters,
        GcmParameters,
        Hash,
        HashedParameters,
        IvParameters,
        MacParameters,
        Mechanism,
        MldsaParameters,
        OaepParameters,
        PssParameters,
    )
    from lnh_common.messages.session import Role

_HOMES: Final = {
    "Cluster": "lnh.cluster",
    "connect": "lnh.cluster",
    "Configuration": "lnh.configuration",
    "Registration": "lnh.configuration",
    "Encrypted": "lnh.forms",
    "Keyring": "lnh.keyrings",
    "KeyringSession": "lnh.keyrings",
    "Certificate": "lnh.keys",
    "DataObject": "lnh.keys",
    "Key": "lnh.keys",
    "PrivateKey": "lnh.keys",
    "PublicKey": "lnh.keys",
    "SecretKey": "lnh.keys",
    "StoredObject": "lnh.keys",
    "register": "lnh.registration",
    "Session": "lnh.sessions",
    "Attribute": "lnh_common.attributes",
    "KeyType": "lnh_common.attributes",
    "ObjectClass": "lnh_common.attributes",
    "AeadParameters": "lnh_common.mechanisms",
    "GcmParameters": "lnh_common.mechanisms",
    "Hash": "lnh_common.mechanisms",
    "HashedParameters": "lnh_common.mechanisms",
    "IvParameters": "lnh_common.mechanisms",
    "MacParameters": "lnh_common.mechanisms",
    "Mechanism": "lnh_common.mechanisms",
    "MldsaParameters": "lnh_common.mechanisms",
    "OaepParameters": "lnh_common.mechanisms",
    "PssParameters": "lnh_common.mechanisms",
    "Role": "lnh_common.messages.session",
}

__all__ = [
    "ActionProhibited",
    "ActivationFailed",
    "AeadParameters",
    "AlreadyDone",
    "AnswerUnproven",
    "ArgumentInvalid",
    "Attribute",
    "AttributeInvalid",
    "AttributeReadOnly",
    "AttributeSensitive",
    "AuditFailed",
    "Busy",
    "Certificate",
    "ChannelInvalid",
    "ClientRevoked",
    "ClientUnknown",
    "Cluster",
    "ClusterIdentityChanged",
    "ClusterRestored",
    "Configuration",
    "ConfigurationInvalid",
    "ConnectionClosed",
    "CredentialChanged",
    "DataLength",
    "DataObject",
    "DeadlineExceeded",
    "Encrypted",
    "EncryptedDataInvalid",
    "FileModeUnsafe",
    "FingerprintMismatch",
    "GcmParameters",
    "Hash",
    "HashedParameters",
    "Internal",
    "IvParameters",
    "Key",
    "KeyExpired",
    "KeyFunctionNotPermitted",
    "KeySizeRange",
    "KeyType",
    "KeyTypeInconsistent",
    "Keyring",
    "KeyringSession",
    "KeyringUnknown",
    "LimitReached",
    "LnhError",
    "MacParameters",
    "MalformedMessage",
    "Mechanism",
    "MechanismInvalid",
    "MechanismParameterInvalid",
    "MemberReadOnly",
    "MldsaParameters",
    "NameTaken",
    "NameUnknown",
    "NoCluster",
    "NotActivated",
    "NotInitialised",
    "NotPossible",
    "OaepParameters",
    "ObjectClass",
    "ObjectUnknown",
    "OutcomeUnknown",
    "PartitionDisabled",
    "PartitionUnknown",
    "PasswordIncorrect",
    "PasswordInvalid",
    "PasswordLocked",
    "PasswordMustChange",
    "PermissionDenied",
    "PolicyForbids",
    "PrivateKey",
    "PssParameters",
    "PublicKey",
    "Registration",
    "Role",
    "SealBroken",
    "SecretKey",
    "Session",
    "SessionEnded",
    "SignatureInvalid",
    "StateRolledBack",
    "StorageFailed",
    "StoredObject",
    "TemplateIncomplete",
    "TemplateInconsistent",
    "TokenExpired",
    "TokenUnknown",
    "UnknownOperation",
    "Unreachable",
    "UnsupportedVersion",
    "VersionConflict",
    "connect",
    "errors",
    "register",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lnh' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
