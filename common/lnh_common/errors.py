"""Every error of the product: one class, one row.

On the wire an error is `[code, message, detail]`. `message` says what failed and with which value
and limit; `advice` says what to do about it; `ckr` is the PKCS#11 v3.1 return value (section 5.1)
a front end answers with: one that says what the application did wrong is for that alone, and not for what befell its
request on the way. `of_state` says that an error rests on what is stored, or is not: a member that may be behind
its cluster cannot know it, and says MemberBehind instead. Codes are never reused.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from typing_extensions import Self

from lnh_common.text import shown

ERRORS: Final[dict[int, type[LnhError]]] = {}


class LnhError(Exception):
    """Base class of every error that the product raises on purpose.

    Attributes:
        of_state: whether the error rests on what is stored, and so may be wrong on a member that is behind its cluster.
        stays: whether this error holds for good all the same, because what it rests on only grows (`for_good`).
    """

    code: ClassVar[int] = 0
    ckr: ClassVar[str] = "CKR_GENERAL_ERROR"
    advice: ClassVar[str] = "look at the member's log"
    of_state: ClassVar[bool] = False

    def __init__(self, message: str = "", detail: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail: dict[str, Any] = detail or {}
        self.stays = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            assert cls.code not in ERRORS, f"error code {cls.code} is taken by {ERRORS[cls.code].__name__}"
            ERRORS[cls.code] = cls

    def __str__(self) -> str:
        return self.message or type(self).__name__

    def for_good(self) -> Self:
        """Mark this error as one that a member that is behind may say too, since what makes it true is never undone."""
        self.stays = True
        return self

    @property
    def needs_step(self) -> bool:
        """Tell whether only a member that is in step with its cluster may say this error."""
        return self.of_state and not self.stays

    @property
    def of_damage(self) -> bool:
        """Tell whether the member that raised it found its own store damaged; another member may do what was asked."""
        return self.detail.get("damaged") is True

    def final(self) -> Self:
        """Mark this refusal of a write as holding for every try of it: none has acted, and none will."""
        self.detail = {**self.detail, "final": True}
        return self

    @property
    def is_final(self) -> bool:
        """Tell whether the side that made this refusal called `final` on it."""
        return self.detail.get("final") is True

    def to_wire(self) -> list[Any]:
        """Encode the error as it travels in a reply: `[code, message, detail]`."""
        return [self.code, self.message, self.detail]

    @staticmethod
    def from_wire(value: Any) -> LnhError:
        """Decode the error that a peer sent.

        A code that is not known, as of a newer peer, becomes `Internal` and keeps its words. The words are escaped,
        because an error that nobody catches prints them on a terminal.
        """
        match value:
            case [int(code), str(message), dict(detail)]:
                return ERRORS.get(code, Internal)(shown(message), detail)
            case _:
                return Internal("a malformed error")


# 1..19: the message and its way


class Internal(LnhError):
    """A member met a fault of its own, or sent an error that this version does not know."""

    code = 1


class MalformedMessage(LnhError):
    """A message, or a field of it, does not have the form that its operation demands."""

    code = 2
    ckr = "CKR_ARGUMENTS_BAD"
    advice = "use the SDK of this version"


class UnsupportedVersion(LnhError):
    """The other side speaks a version of the message format, or of the product, that this side does not."""

    code = 3
    ckr = "CKR_DEVICE_ERROR"
    advice = "upgrade the older side; versions one minor step apart work together"


class UnknownOperation(LnhError):
    """The member serves no operation of this name."""

    code = 4
    ckr = "CKR_FUNCTION_NOT_SUPPORTED"
    advice = "upgrade the member, or use an older SDK"


class DeadlineExceeded(LnhError):
    """The time of an operation was over before an answer came; nothing was changed."""

    code = 5
    ckr = "CKR_DEVICE_ERROR"
    advice = "try again, or allow more time with timeout="


class Busy(LnhError):
    """The member has as much under way as it takes; nothing was done."""

    code = 6
    ckr = "CKR_DEVICE_MEMORY"
    advice = "try again in a moment, or send fewer requests at once"


class Unreachable(LnhError):
    """No connection to the peer could be had, or it broke; nothing was changed."""

    code = 7
    ckr = "CKR_DEVICE_REMOVED"
    advice = "check that the member runs (lnh-member) and that its address and port are right"


class OutcomeUnknown(LnhError):
    """A change was sent and no answer says whether it was made."""

    code = 8
    ckr = "CKR_FUNCTION_FAILED"
    advice = "look whether the change happened before you repeat it"


class ConnectionClosed(LnhError):
    """The connection was closed, or belongs to another process than the one that uses it."""

    code = 9
    ckr = "CKR_DEVICE_REMOVED"
    advice = "open a new connection with lnh.connect()"


class ClockSkew(LnhError):
    """The clocks of the client and of the member that answered are further apart than a request may be old."""

    code = 10
    ckr = "CKR_DEVICE_ERROR"
    advice = "set the clocks of this machine and the members, and keep them set (NTP); a longer timeout does not help"


# 20..39: who you are


class PasswordIncorrect(LnhError):
    """The password is wrong, or nobody has that name; nothing distinguishes the two."""

    code = 20
    ckr = "CKR_PIN_INCORRECT"
    of_state = True
    advice = "check the name and the password; too many failures lock the login for a while"


class PasswordLocked(LnhError):
    """Too many attempts at this password failed; the message says for how long none is taken."""

    code = 21
    ckr = "CKR_PIN_LOCKED"
    of_state = True
    advice = "wait, or have the role's superior reset the password"


class PasswordMustChange(LnhError):
    """The password is a first one, which is good for nothing but being changed."""

    code = 22
    ckr = "CKR_PIN_EXPIRED"
    of_state = True
    advice = "change the password first: lnh role password"


class PasswordInvalid(LnhError):
    """A new password is shorter or longer than a password may be."""

    code = 23
    ckr = "CKR_PIN_LEN_RANGE"
    advice = "choose a password of 8 to 255 characters"


class PermissionDenied(LnhError):
    """The session holds no role that may do this; the message names what is missing."""

    code = 24
    ckr = "CKR_USER_NOT_LOGGED_IN"
    advice = "log in as a role that may do this; docs/operations.md has the table"


class TokenUnknown(LnhError):
    """The session's token does not open, or its session is over."""

    code = 25
    ckr = "CKR_SESSION_HANDLE_INVALID"
    advice = "log in again"


class TokenExpired(LnhError):
    """The session's token was not renewed in time, or its day is over."""

    code = 26
    ckr = "CKR_SESSION_CLOSED"
    advice = "log in again"


class ClientUnknown(LnhError):
    """The cluster has no client of this name, or with this key."""

    code = 27
    ckr = "CKR_TOKEN_NOT_RECOGNIZED"
    of_state = True
    advice = "register this client: LNHClientRegistration"


class ClientRevoked(LnhError):
    """An administrator ended this client's registration for good."""

    code = 28
    ckr = "CKR_TOKEN_NOT_RECOGNIZED"
    of_state = True
    advice = "ask an administrator; a revoked client registers again under a new name"


class FingerprintMismatch(LnhError):
    """The cluster's identity does not have the fingerprint that was expected."""

    code = 29
    ckr = "CKR_TOKEN_NOT_RECOGNIZED"
    advice = "do not go on: compare with `lnh cluster show` on the member's console"


class ClusterIdentityChanged(LnhError):
    """The cluster behind the member's address is not the one that this machine registered with."""

    code = 30
    ckr = "CKR_TOKEN_NOT_RECOGNIZED"
    advice = "the cluster is not the one registered: remove the registration, and register again if you trust it"


class ChannelInvalid(LnhError):
    """A sealed message does not open: it was changed on its way, or sealed for another key."""

    code = 31
    ckr = "CKR_DEVICE_ERROR"
    advice = "something between client and HSM changed the message; look at the balancer and the network"


class SessionEnded(TokenUnknown):
    """The session was logged out."""

    code = 33


class CredentialChanged(TokenUnknown):
    """The password or the user that opened the session was replaced since, or its keyring given another key."""

    code = 34
    of_state = True
    advice = "log in again, with the new password if there is one"


class ClusterRestored(TokenUnknown):
    """The session was opened before the cluster was restored, or before a lost primary's place was taken by force."""

    code = 35
    of_state = True
    advice = "log in again; of what was done before, what the backup or the members that were left do not have is gone"


class AnswerUnproven(LnhError):
    """The answers were all unsealed words, which anything between client and HSM could have said: none is proved."""

    code = 32
    ckr = "CKR_DEVICE_ERROR"
    advice = "if what was heard is true, do what it asks for; if not, look at the balancer and the network"


# 40..69: keyrings, objects, mechanisms


class KeyringUnknown(LnhError):
    """No keyring has this label or id, or this client may not see it."""

    code = 40
    ckr = "CKR_SLOT_ID_INVALID"
    of_state = True
    advice = "list the keyrings this client may see: lnh keyring list"


class ObjectUnknown(LnhError):
    """No object has this handle, or these attributes."""

    code = 41
    ckr = "CKR_OBJECT_HANDLE_INVALID"
    of_state = True
    advice = "look for the object again: lnh key list"


class KeyTypeInconsistent(LnhError):
    """The key's type does not go with the mechanism."""

    code = 42
    ckr = "CKR_KEY_TYPE_INCONSISTENT"
    advice = "use a key whose type fits the mechanism"


class KeyFunctionNotPermitted(LnhError):
    """The key's attributes do not allow this use."""

    code = 43
    ckr = "CKR_KEY_FUNCTION_NOT_PERMITTED"
    of_state = True
    advice = "use a key made for this use; a key's use is fixed at creation"


class MechanismInvalid(LnhError):
    """No mechanism has this number or name, or it does not serve this use."""

    code = 44
    ckr = "CKR_MECHANISM_INVALID"
    advice = "choose a mechanism the key and the policies allow"


class MechanismParameterInvalid(LnhError):
    """A parameter of the mechanism is missing or wrong."""

    code = 45
    ckr = "CKR_MECHANISM_PARAM_INVALID"
    advice = "correct the parameter that the message names"


class TemplateInconsistent(LnhError):
    """The attributes of a template contradict one another, the mechanism or the object."""

    code = 46
    ckr = "CKR_TEMPLATE_INCONSISTENT"
    of_state = True
    advice = "correct the attribute that the message names"


class TemplateIncomplete(LnhError):
    """A template lacks an attribute that must be given."""

    code = 47
    ckr = "CKR_TEMPLATE_INCOMPLETE"
    advice = "give the attribute that the message names"


class AttributeInvalid(LnhError):
    """No attribute has this number or name, or its value is not one that it may have."""

    code = 48
    ckr = "CKR_ATTRIBUTE_VALUE_INVALID"
    advice = "correct the attribute that the message names"


class AttributeReadOnly(LnhError):
    """The attribute may not be set by this caller, or not any more."""

    code = 49
    ckr = "CKR_ATTRIBUTE_READ_ONLY"
    of_state = True
    advice = "this attribute is fixed once the object exists"


class AttributeSensitive(LnhError):
    """The value of the object never leaves the HSM in plaintext."""

    code = 50
    ckr = "CKR_ATTRIBUTE_SENSITIVE"
    advice = "a sensitive value never leaves the HSM; wrap the key if it is extractable"


class DataLength(LnhError):
    """The data is shorter or longer than the mechanism or one request takes."""

    code = 51
    ckr = "CKR_DATA_LEN_RANGE"
    advice = "send data of a length that the mechanism and the limit allow"


class EncryptedDataInvalid(LnhError):
    """The ciphertext does not decrypt; the error is the same for every cause."""

    code = 52
    ckr = "CKR_ENCRYPTED_DATA_INVALID"
    advice = "the ciphertext, its tag or its parameters are not what was encrypted with this key"


class SignatureInvalid(LnhError):
    """The signature was not made by this key over this data."""

    code = 53
    ckr = "CKR_SIGNATURE_INVALID"
    advice = "the signature was not made over this data by this key"


class KeyExpired(LnhError):
    """The day is outside the key's START_DATE and END_DATE."""

    code = 54
    ckr = "CKR_KEY_FUNCTION_NOT_PERMITTED"
    of_state = True
    advice = "the key is outside its START_DATE and END_DATE"


class ActionProhibited(LnhError):
    """The object's attributes forbid that it is changed, copied or destroyed."""

    code = 55
    ckr = "CKR_ACTION_PROHIBITED"
    of_state = True
    advice = "the object's attributes forbid this"


class KeySizeRange(LnhError):
    """The key's size is not one that the mechanism has."""

    code = 56
    ckr = "CKR_KEY_SIZE_RANGE"
    advice = "choose a size the mechanism table lists"


class PolicyForbids(LnhError):
    """The policy of the cluster or of the keyring forbids this; the message names the field."""

    code = 57
    ckr = "CKR_ACTION_PROHIBITED"
    of_state = True
    advice = "the cluster's or the keyring's policy forbids it: lnh cluster policy, lnh keyring policy"


class WrappedKeyInvalid(LnhError):
    """What was given to be unwrapped is no key that was wrapped with this key, whatever the cause."""

    code = 60
    ckr = "CKR_WRAPPED_KEY_INVALID"
    advice = "unwrap with the key, mechanism and parameters that it was wrapped with, as the class and type that it is"


class KeyUnextractable(LnhError):
    """The key never leaves the HSM."""

    code = 61
    ckr = "CKR_KEY_UNEXTRACTABLE"
    advice = "make keys that are to be wrapped with EXTRACTABLE true; it never becomes true later"


class SealBroken(LnhError):
    """A stored item does not open or verify: it was changed on disk, moved, or belongs to another cluster."""

    code = 58
    ckr = "CKR_DEVICE_ERROR"
    advice = "the stored data was changed outside the product: restore from a backup and look for the cause"


class StateRolledBack(LnhError):
    """A stored item is genuine and older than one that this HSM has used."""

    code = 59
    ckr = "CKR_DEVICE_ERROR"
    advice = (
        "the member's store went back to an older state: stop the member, find out why, and take the newer state from "
        "another member; an HSM that is activated anew takes what is there"
    )


class StreamLost(LnhError):
    """The worker does not have the parts of a long input that came before this one."""

    code = 69
    ckr = "CKR_OPERATION_NOT_INITIALIZED"
    advice = "begin anew: the SDK does so by itself where it can read the input once more, from a file"


# 70..99: the cluster and the appliance


class MemberReadOnly(LnhError):
    """The member is read-only, and refuses what needs a read-write one."""

    code = 70
    ckr = "CKR_TOKEN_WRITE_PROTECTED"
    advice = "wait until the member is connected to its primary again, or write through another member"


class VersionConflict(LnhError):
    """The item was changed by another request first; nothing was changed by this one."""

    code = 71
    ckr = "CKR_FUNCTION_FAILED"
    of_state = True
    advice = "somebody else changed it at the same moment: read it again and repeat"


class LimitReached(LnhError):
    """A limit of the product or of a policy would be exceeded; the message names it."""

    code = 72
    ckr = "CKR_DEVICE_MEMORY"
    of_state = True
    advice = "keep within the limit that the message names"


class NameTaken(LnhError):
    """The name or label that was chosen exists already."""

    code = 73
    ckr = "CKR_ARGUMENTS_BAD"
    of_state = True
    advice = "choose another name"


class NameUnknown(LnhError):
    """The name is one that nothing of its kind has."""

    code = 74
    ckr = "CKR_ARGUMENTS_BAD"
    of_state = True
    advice = "list what exists"


class NotActivated(LnhError):
    """The member's HSM is sealed, so it serves nobody."""

    code = 75
    ckr = "CKR_DEVICE_ERROR"
    advice = "activate the HSM on the member's console: lnh hsm activate"


class NotInitialised(LnhError):
    """A step that must come first was not done on this appliance; the message names it."""

    code = 76
    ckr = "CKR_TOKEN_NOT_PRESENT"
    advice = "the message names the step that is missing; docs/operations.md has their order"


class AlreadyDone(LnhError):
    """The act has nothing to do, because things are so already."""

    code = 77
    ckr = "CKR_FUNCTION_FAILED"
    of_state = True
    advice = "nothing to do"


class NoCluster(LnhError):
    """The member is in no cluster."""

    code = 78
    ckr = "CKR_TOKEN_NOT_PRESENT"
    advice = "create a cluster on the member's console: lnh cluster create"


class StorageFailed(LnhError):
    """The disk refused a write or a read; nothing that was not durable has been acknowledged."""

    code = 79
    ckr = "CKR_DEVICE_ERROR"
    advice = "free space or replace the disk; the member goes on by itself once it can write"


class ArgumentInvalid(LnhError):
    """An argument has a wrong type or a value that is not allowed; the message names it."""

    code = 80
    ckr = "CKR_ARGUMENTS_BAD"
    advice = "correct the argument that the message names"


class ConfigurationInvalid(LnhError):
    """A settings file or environment variable is wrong; the message names the setting."""

    code = 81
    ckr = "CKR_FUNCTION_FAILED"
    advice = "correct the file and setting that the message names"


class FileModeUnsafe(LnhError):
    """A file that holds a secret may be read by other users."""

    code = 82
    ckr = "CKR_FUNCTION_FAILED"
    advice = "chmod 600 the file; if others could read it, register again with new keys"


class PartitionUnknown(LnhError):
    """The appliance has no partition with this label."""

    code = 83
    ckr = "CKR_SLOT_ID_INVALID"
    advice = "list the partitions: lnh partition list"


class AuditFailed(LnhError):
    """The audit trail could not be written, so the act was not done."""

    code = 84
    ckr = "CKR_DEVICE_ERROR"
    advice = "free space in the member's log directory"


class ActivationFailed(LnhError):
    """The activation secret is wrong, or the state file was changed: the seal cannot tell the two apart."""

    code = 85
    ckr = "CKR_PIN_INCORRECT"
    advice = "give the right activation secret; if it is right, put data/hsm.state back from a copy of this disk"


class PartitionDisabled(LnhError):
    """The partition cannot be used any more, because the cluster package was installed."""

    code = 86
    ckr = "CKR_TOKEN_NOT_PRESENT"
    advice = "the cluster package disabled it; only re-imaging the appliance, which destroys it, reverses that"


class NotPossible(LnhError):
    """The state of the cluster or the member forbids the act; the message names what stands in the way."""

    code = 87
    ckr = "CKR_FUNCTION_FAILED"
    of_state = True
    advice = "remove what the message names first, or leave things as they are"


class MemberBehind(LnhError):
    """The member that was asked cannot answer, because it may be behind its cluster and be wrong.

    `detail` has `whole_until` (UTC ms: the member knows all that was acknowledged by then; 0: it cannot tell),
    `behind_ms` (for how long it has not been in step, as far as it knows) and `doubted` (the code of the error it would
    have answered).
    """

    code = 88
    ckr = "CKR_DEVICE_ERROR"
    advice = "ask again in a moment, or another member (failover on); connect this one to its primary: lnh member list"


class SmkRolled(LnhError):
    """The SMK was being rolled over while this was done, so nothing was done, nor will be; it is asked for anew."""

    code = 89
    ckr = "CKR_FUNCTION_FAILED"
    advice = "do it again; the SDK of this version does so by itself"


class ApprovalNeeded(LnhError):
    """The act waits for a second person, as policy `dual_control` demands; nothing was done.

    `detail` has `approval` (the id of the request that waits), `decision` and `expires` (UTC seconds).
    """

    code = 90
    ckr = "CKR_ACTION_PROHIBITED"
    of_state = True
    advice = "ask another admin: lnh approval list shows what waits; once it is approved run the same command again"


class TpmFailed(LnhError):
    """The TPM that holds what activates the HSM is not there, is another, or refuses; the message says which.

    `detail` has `cause`, one word.
    """

    code = 91
    ckr = "CKR_DEVICE_ERROR"
    advice = "the message says why; with the secret it goes without the TPM: lnh hsm activate --by-secret"


# 100..109: joining, leaving


class DomainMismatch(LnhError):
    """The joining HSM did not prove the cloning domain of the inviting one; nothing was released."""

    code = 100
    ckr = "CKR_FUNCTION_FAILED"
    advice = "initialise the joining HSM with the cluster's cloning domain, and have a new invitation made"


class InvitationExpired(LnhError):
    """The invitation's 15 minutes are over."""

    code = 101
    ckr = "CKR_FUNCTION_FAILED"
    advice = "have a new one made: lnh member invite"


class InvitationUsed(LnhError):
    """The invitation was used already, by another request."""

    code = 102
    ckr = "CKR_FUNCTION_FAILED"
    advice = "an invitation serves one member; have another made: lnh member invite"


class InvitationBurnt(LnhError):
    """An HSM with another cloning domain tried this invitation, which made it worthless."""

    code = 103
    ckr = "CKR_FUNCTION_FAILED"
    advice = "find out who tried it; then have a new one made: lnh member invite"


class InvitationUnknown(LnhError):
    """The HSM at the invitation's address did not make it."""

    code = 104
    ckr = "CKR_FUNCTION_FAILED"
    advice = "the member at that address did not make it: have a new one made with lnh member invite"


class MemberExpelled(LnhError):
    """The member was removed from its cluster; its HSM wiped what it held of it."""

    code = 105
    ckr = "CKR_DEVICE_REMOVED"
    advice = "join again with a new invitation: lnh cluster join"


# 110..119: backup


class ArchiveInvalid(LnhError):
    """The file is no archive, or damaged, cut short, of another cluster or of a newer format; nothing was changed."""

    code = 110
    ckr = "CKR_DATA_INVALID"
    advice = "the message says why; use another archive: lnh backup list, lnh backup verify"


# 120..129: files with keys and certificates


class KeyFileInvalid(LnhError):
    """The file holds no key, certificate or secret of a form and kind that is read, or it is damaged."""

    code = 120
    ckr = "CKR_DATA_INVALID"
    advice = "the message says what was found; docs/certificates.md has the forms that are read"


class PassphraseIncorrect(LnhError):
    """The file is encrypted, and its passphrase was not given, or is wrong; a damaged file looks the same."""

    code = 121
    ckr = "CKR_PIN_INCORRECT"
    advice = "give the file's passphrase: --passphrase-file FILE, or answer the prompt"


class CertificateInvalid(LnhError):
    """A certificate, a request or a revocation list does not say, or prove, what it must; the message names what."""

    code = 122
    ckr = "CKR_DATA_INVALID"
    advice = "the message says which condition failed, and of which certificate"
