"""The calls of PKCS#11, one row each: how a request and its reply travel between an application and the gateway.

The gateway reads this table, and `python -m lnh_pkcs11.generate` writes it for the module, as `module/calls.h`. Ids and
fields are those of p11-kit's remoting, so that one server answers both ways in; where p11-kit carries less than a call
has, the module's own fields are given beside them. Ids from `FIRST_OWN_ID` on are calls that p11-kit has no ids for.

A field is a letter, or two:

    u    CK_ULONG, 8 bytes
    y    CK_BYTE, 1 byte
    v    CK_VERSION: major, minor
    s    text of fixed length, padded with spaces: length (4 bytes, 0xffffffff for NULL), bytes
    z    text that ended in a zero byte, without it: as s
    ay   bytes: 1, length (4), the bytes; or 0 and a length alone, where a reply's buffer was not given or too small
    au   numbers: 1, count (4), 8 bytes each; or 0 and a count alone
    fy   room of a buffer of bytes: length (4); 0 asks what length is needed, 0xffffffff is a buffer of no length
    fu   room of a buffer of numbers: count (4); 0 asks for the count
    aA   attributes: count (4); of each type (4), validity (1) and, if that is 1, ulValueLen (4) and the value
    fA   room of attributes: count (4); of each type (4) and ulValueLen (4), 0 for a NULL pValue; and after one of
         `layouts.TEMPLATES`, unless its length is 0, an fA of what its pValue has
    M    CK_MECHANISM: type (4; 0xffffffff for NULL), then its parameters as `layouts.py` says
    P    parameters of one message (`layouts.MESSAGE_LAYOUTS`), without a type before them
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

MODULE: Final = 0x4C
"""The first byte that the module sends, an L; p11-kit's client sends its version, which is less."""
MODULE_VERSION: Final = 1
"""The version of the frames; the module sends its highest, the gateway answers the lesser of both."""
PROCESS_BYTES: Final = 16
"""Of the random token by which the gateway knows the sockets of one process."""
ERROR: Final = 0
"""The id of a reply that is an error; its only field is the CKR."""
FIRST_OWN_ID: Final = 0x100


class Version(enum.Enum):
    """The release of PKCS#11 that a call came with; the interface that has it, and all later ones."""

    V2_40 = (2, 40)
    V3_0 = (3, 0)
    V3_2 = (3, 2)


@dataclass(frozen=True)
class Call:
    """One call.

    Args:
        name: without `C_`.
        id: in a frame; 0 for what needs no message.
        request, reply: fields, as letters.
        own_request, own_reply: fields where the module carries more than p11-kit's client.
        since: the release it came with.
        answer: the CKR that the module gives without a message, of a call that it does not pass.
    """

    name: str
    id: int
    request: str = ""
    reply: str = ""
    own_request: str | None = None
    own_reply: str | None = None
    since: Version = Version.V2_40
    answer: str = ""

    def fields(self, *, own: bool) -> tuple[str, str]:
        """Return the letters of request and reply, for the module or for p11-kit's client."""
        if not own:
            return self.request, self.reply
        return (
            self.request if self.own_request is None else self.own_request,
            self.reply if self.own_reply is None else self.own_reply,
        )


_2_40: Final = (
    ("Initialize", "ayyay", ""),
    ("Finalize", "", ""),
    ("GetInfo", "", "vsusv"),
    ("GetSlotList", "yfu", "au"),
    ("GetSlotInfo", "u", "ssuvv"),
    ("GetTokenInfo", "u", "ssssuuuuuuuuuuuvvs"),
    ("GetMechanismList", "ufu", "au"),
    ("GetMechanismInfo", "uu", "uuu"),
    ("InitToken", "uayz", ""),
    ("OpenSession", "uu", "u"),
    ("CloseSession", "u", ""),
    ("CloseAllSessions", "u", ""),
    ("GetSessionInfo", "u", "uuuu"),
    ("InitPIN", "uay", ""),
    ("SetPIN", "uayay", ""),
    ("GetOperationState", "ufy", "ay"),
    ("SetOperationState", "uayuu", ""),
    ("Login", "uuay", ""),
    ("Logout", "u", ""),
    ("CreateObject", "uaA", "u"),
    ("CopyObject", "uuaA", "u"),
    ("DestroyObject", "uu", ""),
    ("GetObjectSize", "uu", "u"),
    ("GetAttributeValue", "uufA", "aAu"),
    ("SetAttributeValue", "uuaA", ""),
    ("FindObjectsInit", "uaA", ""),
    ("FindObjects", "ufu", "au"),
    ("FindObjectsFinal", "u", ""),
    ("EncryptInit", "uMu", ""),
    ("Encrypt", "uayfy", "ay"),
    ("EncryptUpdate", "uayfy", "ay"),
    ("EncryptFinal", "ufy", "ay"),
    ("DecryptInit", "uMu", ""),
    ("Decrypt", "uayfy", "ay"),
    ("DecryptUpdate", "uayfy", "ay"),
    ("DecryptFinal", "ufy", "ay"),
    ("DigestInit", "uM", ""),
    ("Digest", "uayfy", "ay"),
    ("DigestUpdate", "uay", ""),
    ("DigestKey", "uu", ""),
    ("DigestFinal", "ufy", "ay"),
    ("SignInit", "uMu", ""),
    ("Sign", "uayfy", "ay"),
    ("SignUpdate", "uay", ""),
    ("SignFinal", "ufy", "ay"),
    ("SignRecoverInit", "uMu", ""),
    ("SignRecover", "uayfy", "ay"),
    ("VerifyInit", "uMu", ""),
    ("Verify", "uayay", ""),
    ("VerifyUpdate", "uay", ""),
    ("VerifyFinal", "uay", ""),
    ("VerifyRecoverInit", "uMu", ""),
    ("VerifyRecover", "uayfy", "ay"),
    ("DigestEncryptUpdate", "uayfy", "ay"),
    ("DecryptDigestUpdate", "uayfy", "ay"),
    ("SignEncryptUpdate", "uayfy", "ay"),
    ("DecryptVerifyUpdate", "uayfy", "ay"),
    ("GenerateKey", "uMaA", "u"),
    ("GenerateKeyPair", "uMaAaA", "uu"),
    ("WrapKey", "uMuufy", "ay"),
    ("UnwrapKey", "uMuayaA", "u"),
    ("DeriveKey", "uMuaA", "u"),
    ("SeedRandom", "uay", ""),
    ("GenerateRandom", "ufy", "ay"),
    ("WaitForSlotEvent", "u", "u"),
)
_3_0: Final = (
    ("LoginUser", "uuayay", ""),
    ("SessionCancel", "uu", ""),
    ("MessageEncryptInit", "uMu", ""),
    ("EncryptMessage", "uayayayfy", "ay"),
    ("EncryptMessageBegin", "uayay", ""),
    ("EncryptMessageNext", "uayayfyu", "ay"),
    ("MessageEncryptFinal", "u", ""),
    ("MessageDecryptInit", "uMu", ""),
    ("DecryptMessage", "uayayayfy", "ay"),
    ("DecryptMessageBegin", "uayay", ""),
    ("DecryptMessageNext", "uayayfyu", "ay"),
    ("MessageDecryptFinal", "u", ""),
    ("MessageSignInit", "uMu", ""),
    ("SignMessage", "uayayfy", "ay"),
    ("SignMessageBegin", "uay", ""),
    ("SignMessageNext", "uayayyfy", "ay"),
    ("MessageSignFinal", "u", ""),
    ("MessageVerifyInit", "uMu", ""),
    ("VerifyMessage", "uayayay", ""),
    ("VerifyMessageBegin", "uay", ""),
    ("VerifyMessageNext", "uayayay", ""),
    ("MessageVerifyFinal", "u", ""),
)
# Of a message's parameters p11-kit passes the bytes of the struct, which are pointers; the module, what these point to.
_OWN: Final[dict[str, tuple[str, str]]] = {
    "Initialize": ("", ""),
    "EncryptMessage": ("uPayayfy", "ayP"),
    "EncryptMessageBegin": ("uPay", "P"),
    "EncryptMessageNext": ("uPayfyu", "ayP"),
    "DecryptMessage": ("uPayayfy", "ay"),
    "DecryptMessageBegin": ("uPay", ""),
    "DecryptMessageNext": ("uPayfyu", "ay"),
}
_3_2: Final = (
    ("EncapsulateKey", "uMuaAfy", "ayu"),
    ("DecapsulateKey", "uMuaAay", "u"),
    ("VerifySignatureInit", "uMuay", ""),
    ("VerifySignature", "uay", ""),
    ("VerifySignatureUpdate", "uay", ""),
    ("VerifySignatureFinal", "u", ""),
    ("GetSessionValidationFlags", "uu", "u"),
    ("WrapKeyAuthenticated", "uMuuayfy", "ay"),
    ("UnwrapKeyAuthenticated", "uMuayaAay", "u"),
)
# p11-kit's later ways to pass calls of before: a label that is not ended by a zero byte, parameters that come back.
_LATER: Final = (("InitToken2", "uays", ""), ("DeriveKey2", "uMuaA", "uPu"))

# The module's own: an operation is begun, as the call of the name before does, and used at once.
_ONCE: Final = (
    ("SignOnce", "uMuayfy", "ay"),
    ("VerifyOnce", "uMuayay", ""),
    ("EncryptOnce", "uMuayfy", "ay"),
    ("DecryptOnce", "uMuayfy", "ay"),
)


def _rows(named: tuple[tuple[str, str, str], ...], first: int, since: Version) -> list[Call]:
    return [
        Call(name, number, request, reply, own_request, own_reply, since)
        for number, (name, request, reply) in enumerate(named, first)
        for own_request, own_reply in (_OWN.get(name, (None, None)),)
    ]


def _local(answer: str, since: Version, *names: str) -> list[Call]:
    return [Call(name, 0, since=since, answer=answer) for name in names]


CALLS: Final[tuple[Call, ...]] = (
    *_rows(_2_40, 1, Version.V2_40),
    *_rows(_3_0, 1 + len(_2_40), Version.V3_0),
    *_rows(_LATER, 1 + len(_2_40) + len(_3_0), Version.V2_40),
    *_rows(_3_2, FIRST_OWN_ID, Version.V3_2),
    *_rows(_ONCE, FIRST_OWN_ID + len(_3_2), Version.V3_2),
    *_local("CKR_OK", Version.V2_40, "GetFunctionList"),
    *_local("CKR_OK", Version.V3_0, "GetInterfaceList", "GetInterface"),
    *_local("CKR_FUNCTION_NOT_PARALLEL", Version.V2_40, "GetFunctionStatus", "CancelFunction"),
    *_local("CKR_FUNCTION_NOT_SUPPORTED", Version.V3_2, "AsyncComplete", "AsyncGetID", "AsyncJoin"),
)
"""Every call; 3.1 has those of 3.0."""

P11_KIT_ONLY: Final = frozenset(name for name, _, _ in _LATER)
"""Calls that are no functions of PKCS#11, which the module does not send."""
NO_FUNCTIONS: Final = P11_KIT_ONLY | {name for name, _, _ in _ONCE}
"""Those, and the ones that the module sends in place of two functions."""
MODULE_ONLY: Final = frozenset(_OWN) - {"Initialize"}
"""Calls that p11-kit's client sends with pointers of its own process, so that nobody can do them."""
CALLS_BY_ID: Final[dict[int, Call]] = {call.id: call for call in CALLS if call.id}
CALLS_BY_NAME: Final[dict[str, Call]] = {call.name: call for call in CALLS}
