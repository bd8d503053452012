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
    ArchiveInvalid,
    ArgumentInvalid,
    AttributeInvalid,
    AttributeReadOnly,
    AttributeSensitive,
    AuditFailed,
    Busy,
    CertificateInvalid,
    ChannelInvalid,
    ClientRevoked,
    ClientUnknown,
    ClockSkew,
    ClusterIdentityChanged,
    ClusterRestored,
    ConfigurationInvalid,
    ConnectionClosed,
    CredentialChanged,
    DataLength,
    DeadlineExceeded,
    DomainMismatch,
    EncryptedDataInvalid,
    FileModeUnsafe,
    FingerprintMismatch,
    Internal,
    InvitationBurnt,
    InvitationExpired,
    InvitationUnknown,
    InvitationUsed,
    KeyExpired,
    KeyFileInvalid,
    KeyFunctionNotPermitted,
    KeyringUnknown,
    KeySizeRange,
    KeyTypeInconsistent,
    LimitReached,
    LnhError,
    MalformedMessage,
    MechanismInvalid,
    MechanismParameterInvalid,
    MemberBehind,
    MemberExpelled,
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
    PassphraseIncorrect,
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
    from lnh.keyrings import Keyring, KeyringSession
    from lnh.objects.authority import Authority
    from lnh.objects.certificates import Profile
    from lnh.objects.encoding import Encrypted
    from lnh.objects.keys import Certificate, DataObject, Key, PrivateKey, PublicKey, SecretKey, StoredObject
    from lnh.objects.listings import Listed, Listing
    from lnh.registration import register
    from lnh.sessions import Session
    from lnh_common.messages.session import Role
    from lnh_common.pkcs11.algorithms import Hash
    from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
    from lnh_common.pkcs11.mechanisms import Mechanism
    from lnh_common.pkcs11.parameters import (
        AeadParameters,
        GcmParameters,
        HashedParameters,
        IvParameters,
        MacParameters,
        MldsaParameters,
        OaepParameters,
        PssParameters,
    )

_HOMES: Final = {
    "Cluster": "lnh.cluster",
    "connect": "lnh.cluster",
    "Configuration": "lnh.configuration",
    "Registration": "lnh.configuration",
    "Authority": "lnh.objects.authority",
    "Encrypted": "lnh.objects.encoding",
    "Profile": "lnh.objects.certificates",
    "Keyring": "lnh.keyrings",
    "KeyringSession": "lnh.keyrings",
    "Listed": "lnh.objects.listings",
    "Listing": "lnh.objects.listings",
    "Certificate": "lnh.objects.keys",
    "DataObject": "lnh.objects.keys",
    "Key": "lnh.objects.keys",
    "PrivateKey": "lnh.objects.keys",
    "PublicKey": "lnh.objects.keys",
    "SecretKey": "lnh.objects.keys",
    "StoredObject": "lnh.objects.keys",
    "register": "lnh.registration",
    "Session": "lnh.sessions",
    "Attribute": "lnh_common.pkcs11.attributes",
    "KeyType": "lnh_common.pkcs11.attributes",
    "ObjectClass": "lnh_common.pkcs11.attributes",
    "AeadParameters": "lnh_common.pkcs11.mechanisms",
    "GcmParameters": "lnh_common.pkcs11.mechanisms",
    "Hash": "lnh_common.pkcs11.mechanisms",
    "HashedParameters": "lnh_common.pkcs11.mechanisms",
    "IvParameters": "lnh_common.pkcs11.mechanisms",
    "MacParameters": "lnh_common.pkcs11.mechanisms",
    "Mechanism": "lnh_common.pkcs11.mechanisms",
    "MldsaParameters": "lnh_common.pkcs11.mechanisms",
    "OaepParameters": "lnh_common.pkcs11.mechanisms",
    "PssParameters": "lnh_common.pkcs11.mechanisms",
    "Role": "lnh_common.messages.session",
}

__all__ = [
    "ActionProhibited",
    "ActivationFailed",
    "AeadParameters",
    "AlreadyDone",
    "AnswerUnproven",
    "ArchiveInvalid",
    "ArgumentInvalid",
    "Attribute",
    "AttributeInvalid",
    "AttributeReadOnly",
    "AttributeSensitive",
    "AuditFailed",
    "Authority",
    "Busy",
    "Certificate",
    "CertificateInvalid",
    "ChannelInvalid",
    "ClientRevoked",
    "ClientUnknown",
    "ClockSkew",
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
    "DomainMismatch",
    "Encrypted",
    "EncryptedDataInvalid",
    "FileModeUnsafe",
    "FingerprintMismatch",
    "GcmParameters",
    "Hash",
    "HashedParameters",
    "Internal",
    "InvitationBurnt",
    "InvitationExpired",
    "InvitationUnknown",
    "InvitationUsed",
    "IvParameters",
    "Key",
    "KeyExpired",
    "KeyFileInvalid",
    "KeyFunctionNotPermitted",
    "KeySizeRange",
    "KeyType",
    "KeyTypeInconsistent",
    "Keyring",
    "KeyringSession",
    "KeyringUnknown",
    "LimitReached",
    "Listed",
    "Listing",
    "LnhError",
    "MacParameters",
    "MalformedMessage",
    "Mechanism",
    "MechanismInvalid",
    "MechanismParameterInvalid",
    "MemberBehind",
    "MemberExpelled",
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
    "PassphraseIncorrect",
    "PasswordIncorrect",
    "PasswordInvalid",
    "PasswordLocked",
    "PasswordMustChange",
    "PermissionDenied",
    "PolicyForbids",
    "PrivateKey",
    "Profile",
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
