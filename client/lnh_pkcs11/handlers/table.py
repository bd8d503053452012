"""Which function does each call, and with which CKR a call is refused that none does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from lnh_pkcs11.handlers import cryptography, general, keys, objects
from lnh_pkcs11.numbers import CKR

HANDLERS: Final[dict[str, Callable[..., Any]]] = {
    "Initialize": general.initialize,
    "Finalize": general.finalize,
    "GetInfo": general.get_info,
    "GetSlotList": general.get_slot_list,
    "GetSlotInfo": general.get_slot_info,
    "GetTokenInfo": general.get_token_info,
    "GetMechanismList": general.get_mechanism_list,
    "GetMechanismInfo": general.get_mechanism_info,
    "OpenSession": general.open_session,
    "CloseSession": general.close_session,
    "CloseAllSessions": general.close_all_sessions,
    "GetSessionInfo": general.get_session_info,
    "SessionCancel": general.session_cancel,
    "GetSessionValidationFlags": general.get_session_validation_flags,
    "InitPIN": general.init_pin,
    "SetPIN": general.set_pin,
    "Login": general.login,
    "LoginUser": general.login_user,
    "Logout": general.logout,
    "WaitForSlotEvent": general.wait_for_slot_event,
    "GenerateRandom": general.generate_random,
    "CreateObject": objects.create_object,
    "CopyObject": objects.copy_object,
    "DestroyObject": objects.destroy_object,
    "GetObjectSize": objects.get_object_size,
    "GetAttributeValue": objects.get_attribute_value,
    "SetAttributeValue": objects.set_attribute_value,
    "FindObjectsInit": objects.find_objects_init,
    "FindObjects": objects.find_objects,
    "FindObjectsFinal": objects.find_objects_final,
    "EncryptInit": cryptography.encrypt_init,
    "Encrypt": cryptography.encrypt,
    "EncryptUpdate": cryptography.encrypt_update,
    "EncryptFinal": cryptography.encrypt_final,
    "DecryptInit": cryptography.decrypt_init,
    "Decrypt": cryptography.decrypt,
    "DecryptUpdate": cryptography.decrypt_update,
    "DecryptFinal": cryptography.decrypt_final,
    "DigestInit": cryptography.digest_init,
    "Digest": cryptography.digest,
    "DigestUpdate": cryptography.digest_update,
    "DigestKey": cryptography.digest_key,
    "DigestFinal": cryptography.digest_final,
    "SignInit": cryptography.sign_init,
    "Sign": cryptography.sign,
    "SignUpdate": cryptography.sign_update,
    "SignFinal": cryptography.sign_final,
    "VerifyInit": cryptography.verify_init,
    "Verify": cryptography.verify,
    "VerifyUpdate": cryptography.verify_update,
    "VerifyFinal": cryptography.verify_final,
    "VerifySignatureInit": cryptography.verify_signature_init,
    "VerifySignature": cryptography.verify_signature,
    "VerifySignatureUpdate": cryptography.verify_update,
    "VerifySignatureFinal": cryptography.verify_signature_final,
    "MessageEncryptInit": cryptography.message_encrypt_init,
    "EncryptMessage": cryptography.encrypt_message,
    "MessageEncryptFinal": cryptography.message_encrypt_final,
    "MessageDecryptInit": cryptography.message_decrypt_init,
    "DecryptMessage": cryptography.decrypt_message,
    "MessageDecryptFinal": cryptography.message_decrypt_final,
    "GenerateKey": keys.generate_key,
    "GenerateKeyPair": keys.generate_key_pair,
    "WrapKey": keys.wrap_key,
    "UnwrapKey": keys.unwrap_key,
    "DeriveKey": keys.derive_key,
    "DeriveKey2": keys.derive_key_2,
    "EncapsulateKey": keys.encapsulate_key,
    "DecapsulateKey": keys.decapsulate_key,
}

_NOT = CKR.FUNCTION_NOT_SUPPORTED
REFUSED: Final[dict[str, tuple[CKR, str]]] = {
    "InitToken": (_NOT, "keyrings are made by an administrator"),
    "InitToken2": (_NOT, "keyrings are made by an administrator"),
    "GetOperationState": (CKR.STATE_UNSAVEABLE, "what was begun ends where it was begun"),
    "SetOperationState": (CKR.SAVED_STATE_INVALID, "no state was ever saved"),
    "SeedRandom": (CKR.RANDOM_SEED_NOT_SUPPORTED, "the HSM's generator takes no seed"),
    **dict.fromkeys(
        ("SignRecoverInit", "SignRecover", "VerifyRecoverInit", "VerifyRecover"), (_NOT, "no mechanism recovers data")
    ),
    **dict.fromkeys(
        ("DigestEncryptUpdate", "DecryptDigestUpdate", "SignEncryptUpdate", "DecryptVerifyUpdate"),
        (_NOT, "two operations are two calls"),
    ),
    **dict.fromkeys(
        (
            "MessageSignInit",
            "SignMessage",
            "SignMessageBegin",
            "SignMessageNext",
            "MessageSignFinal",
            "MessageVerifyInit",
            "VerifyMessage",
            "VerifyMessageBegin",
            "VerifyMessageNext",
            "MessageVerifyFinal",
        ),
        (_NOT, "messages are encrypted; to sign many, C_SignInit costs nothing"),
    ),
    **dict.fromkeys(
        ("EncryptMessageBegin", "EncryptMessageNext", "DecryptMessageBegin", "DecryptMessageNext"),
        (_NOT, "a message goes at once"),
    ),
    **dict.fromkeys(("WrapKeyAuthenticated", "UnwrapKeyAuthenticated"), (_NOT, "no mechanism wraps so")),
}
"""Calls that are refused, with which CKR, and why."""
