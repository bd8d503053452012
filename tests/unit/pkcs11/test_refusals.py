"""What an application is told of an error: a CKR that says what it did wrong is said of that alone."""

from __future__ import annotations

from typing import Any, Final

import pytest

from lnh_common import errors, limits
from lnh_common.errors import ERRORS, LnhError
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_pkcs11.numbers import CKR
from lnh_pkcs11.refusals import ckr_of
from lnh_pkcs11.server import Server
from models.gateway import SLOT, Answered, Keyrings, Program, logged_in
from models.worker import KRCO

# What befell a request, or what stands behind the gateway. Each of these says so, whatever was asked.
OF_THE_WAY: Final = {
    CKR.GENERAL_ERROR,
    CKR.FUNCTION_FAILED,
    CKR.DEVICE_ERROR,
    CKR.DEVICE_MEMORY,
    CKR.DEVICE_REMOVED,
    CKR.TOKEN_NOT_PRESENT,
    CKR.TOKEN_NOT_RECOGNIZED,
    CKR.TOKEN_WRITE_PROTECTED,
}
# All others say what the application did, or must do: exactly these errors are answered so.
OF_THE_APPLICATION: Final[dict[CKR, set[type[LnhError]]]] = {
    CKR.ACTION_PROHIBITED: {errors.ActionProhibited, errors.PolicyForbids, errors.ApprovalNeeded},
    CKR.ARGUMENTS_BAD: {
        errors.MalformedMessage, errors.ArgumentInvalid, errors.NameTaken, errors.NameUnknown,
    },
    CKR.ATTRIBUTE_READ_ONLY: {errors.AttributeReadOnly},
    CKR.ATTRIBUTE_SENSITIVE: {errors.AttributeSensitive},
    CKR.ATTRIBUTE_VALUE_INVALID: {errors.AttributeInvalid},
    CKR.DATA_INVALID: {errors.ArchiveInvalid, errors.KeyFileInvalid, errors.CertificateInvalid},
    CKR.DATA_LEN_RANGE: {errors.DataLength},
    CKR.ENCRYPTED_DATA_INVALID: {errors.EncryptedDataInvalid},
    CKR.FUNCTION_NOT_SUPPORTED: {errors.UnknownOperation},
    CKR.KEY_FUNCTION_NOT_PERMITTED: {errors.KeyFunctionNotPermitted, errors.KeyExpired},
    CKR.KEY_SIZE_RANGE: {errors.KeySizeRange},
    CKR.KEY_TYPE_INCONSISTENT: {errors.KeyTypeInconsistent},
    CKR.KEY_UNEXTRACTABLE: {errors.KeyUnextractable},
    CKR.MECHANISM_INVALID: {errors.MechanismInvalid},
    CKR.MECHANISM_PARAM_INVALID: {errors.MechanismParameterInvalid},
    CKR.OBJECT_HANDLE_INVALID: {errors.ObjectUnknown},
    CKR.OPERATION_NOT_INITIALIZED: {errors.StreamLost},
    CKR.PIN_EXPIRED: {errors.PasswordMustChange},
    CKR.PIN_INCORRECT: {errors.PasswordIncorrect, errors.ActivationFailed, errors.PassphraseIncorrect},
    CKR.PIN_LEN_RANGE: {errors.PasswordInvalid},
    CKR.PIN_LOCKED: {errors.PasswordLocked},
    CKR.SESSION_CLOSED: {errors.TokenExpired},
    CKR.SESSION_HANDLE_INVALID: {
        errors.TokenUnknown, errors.SessionEnded, errors.CredentialChanged, errors.ClusterRestored,
    },
    CKR.SIGNATURE_INVALID: {errors.SignatureInvalid},
    CKR.SLOT_ID_INVALID: {errors.KeyringUnknown, errors.PartitionUnknown},
    CKR.TEMPLATE_INCOMPLETE: {errors.TemplateIncomplete},
    CKR.TEMPLATE_INCONSISTENT: {errors.TemplateInconsistent},
    CKR.USER_NOT_LOGGED_IN: {errors.PermissionDenied},
    CKR.WRAPPED_KEY_INVALID: {errors.WrappedKeyInvalid},
}  # fmt: skip


def test_an_error_says_what_the_application_did_wrong_only_where_it_did() -> None:
    said: dict[CKR, set[type[LnhError]]] = {}
    for kind in ERRORS.values():
        ckr = ckr_of(kind(""))
        if ckr not in OF_THE_WAY:
            said.setdefault(ckr, set()).add(kind)
    assert said == OF_THE_APPLICATION


@pytest.mark.parametrize(
    "kind",
    [
        errors.Internal, errors.UnsupportedVersion, errors.DeadlineExceeded, errors.Busy, errors.Unreachable,
        errors.OutcomeUnknown, errors.ConnectionClosed, errors.ClockSkew, errors.ChannelInvalid, errors.AnswerUnproven,
        errors.SealBroken, errors.NotActivated, errors.NoCluster, errors.StorageFailed, errors.MemberBehind,
        errors.ConfigurationInvalid, errors.FileModeUnsafe,
    ],
)  # fmt: skip
def test_what_befalls_a_decryption_on_its_way_is_not_laid_to_its_data(
    monkeypatch: pytest.MonkeyPatch, kind: type[LnhError]
) -> None:
    keyrings = Keyrings()
    program, session = logged_in(keyrings, password=KRCO)
    template = {Attribute.VALUE_LEN: 32}
    key = program.call("GenerateKey", session, Mechanism.AES_KEY_GEN, template)

    async def fails(*_: object, **__: object) -> dict[str, Any]:
        raise kind("on its way")

    monkeypatch.setattr(keyrings.opened[0], "call", fails)
    program.call("DecryptInit", session, Mechanism.AES_GCM, key)
    with pytest.raises(Answered) as caught:
        program.call("Decrypt", session, bytes(100), 100)
    assert caught.value.ckr in OF_THE_WAY


def test_a_ciphertext_that_is_too_long_is_called_a_ciphertext() -> None:
    program, session = logged_in(Keyrings(), password=KRCO)
    key = program.call("GenerateKey", session, Mechanism.AES_KEY_GEN, {Attribute.VALUE_LEN: 32})
    for name, ckr in (("Encrypt", CKR.DATA_LEN_RANGE), ("Decrypt", CKR.ENCRYPTED_DATA_LEN_RANGE)):
        program.call(f"{name}Init", session, Mechanism.AES_GCM, key)
        with pytest.raises(Answered) as caught:
            program.call(name, session, bytes(limits.REQUEST_BYTES + 100), 2 * limits.REQUEST_BYTES)
        assert caught.value.ckr is ckr
        program.call(f"{name}Init", session, Mechanism.AES_GCM, key)
        program.call(f"{name}Update", session, bytes(limits.PKCS11_GATHERED_BYTES), limits.REQUEST_BYTES)
        with pytest.raises(Answered) as caught:
            program.call(f"{name}Update", session, bytes(100), 200)
        assert caught.value.ckr is ckr
        with pytest.raises(Answered) as caught:
            program.call(f"{name}Final", session, 200)
        assert caught.value.ckr is CKR.OPERATION_NOT_INITIALIZED


def test_what_a_token_does_not_do_is_not_among_its_flags() -> None:
    """Dual functions and signed messages are refused: the token and its mechanisms say beforehand that they are."""
    program = Program(Server(Keyrings()))
    dual, message_sign, message_verify = 0x200, 0x8, 0x10
    assert not program.call("GetTokenInfo", SLOT)[4] & dual
    for mechanism in program.call("GetMechanismList", SLOT, 1000):
        assert not program.call("GetMechanismInfo", SLOT, mechanism)[2] & (message_sign | message_verify)
