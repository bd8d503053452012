/* Written by `python -m lnh_pkcs11.generate` from calls.py, which explains it. */
#ifndef LNH_CALLS_H
#define LNH_CALLS_H

#define LNH_MODULE 0x4c
#define LNH_MODULE_VERSION 1
#define LNH_PROCESS_BYTES 16
#define LNH_ERROR 0

/* X(name without C_, id, fields of the request, fields of the reply, major, minor) */
#define LNH_CALLS(X) \
    X(Initialize, 1, "", "", 2, 40) \
    X(Finalize, 2, "", "", 2, 40) \
    X(GetInfo, 3, "", "vsusv", 2, 40) \
    X(GetSlotList, 4, "yfu", "au", 2, 40) \
    X(GetSlotInfo, 5, "u", "ssuvv", 2, 40) \
    X(GetTokenInfo, 6, "u", "ssssuuuuuuuuuuuvvs", 2, 40) \
    X(GetMechanismList, 7, "ufu", "au", 2, 40) \
    X(GetMechanismInfo, 8, "uu", "uuu", 2, 40) \
    X(InitToken, 9, "uayz", "", 2, 40) \
    X(OpenSession, 10, "uu", "u", 2, 40) \
    X(CloseSession, 11, "u", "", 2, 40) \
    X(CloseAllSessions, 12, "u", "", 2, 40) \
    X(GetSessionInfo, 13, "u", "uuuu", 2, 40) \
    X(InitPIN, 14, "uay", "", 2, 40) \
    X(SetPIN, 15, "uayay", "", 2, 40) \
    X(GetOperationState, 16, "ufy", "ay", 2, 40) \
    X(SetOperationState, 17, "uayuu", "", 2, 40) \
    X(Login, 18, "uuay", "", 2, 40) \
    X(Logout, 19, "u", "", 2, 40) \
    X(CreateObject, 20, "uaA", "u", 2, 40) \
    X(CopyObject, 21, "uuaA", "u", 2, 40) \
    X(DestroyObject, 22, "uu", "", 2, 40) \
    X(GetObjectSize, 23, "uu", "u", 2, 40) \
    X(GetAttributeValue, 24, "uufA", "aAu", 2, 40) \
    X(SetAttributeValue, 25, "uuaA", "", 2, 40) \
    X(FindObjectsInit, 26, "uaA", "", 2, 40) \
    X(FindObjects, 27, "ufu", "au", 2, 40) \
    X(FindObjectsFinal, 28, "u", "", 2, 40) \
    X(EncryptInit, 29, "uMu", "", 2, 40) \
    X(Encrypt, 30, "uayfy", "ay", 2, 40) \
    X(EncryptUpdate, 31, "uayfy", "ay", 2, 40) \
    X(EncryptFinal, 32, "ufy", "ay", 2, 40) \
    X(DecryptInit, 33, "uMu", "", 2, 40) \
    X(Decrypt, 34, "uayfy", "ay", 2, 40) \
    X(DecryptUpdate, 35, "uayfy", "ay", 2, 40) \
    X(DecryptFinal, 36, "ufy", "ay", 2, 40) \
    X(DigestInit, 37, "uM", "", 2, 40) \
    X(Digest, 38, "uayfy", "ay", 2, 40) \
    X(DigestUpdate, 39, "uay", "", 2, 40) \
    X(DigestKey, 40, "uu", "", 2, 40) \
    X(DigestFinal, 41, "ufy", "ay", 2, 40) \
    X(SignInit, 42, "uMu", "", 2, 40) \
    X(Sign, 43, "uayfy", "ay", 2, 40) \
    X(SignUpdate, 44, "uay", "", 2, 40) \
    X(SignFinal, 45, "ufy", "ay", 2, 40) \
    X(SignRecoverInit, 46, "uMu", "", 2, 40) \
    X(SignRecover, 47, "uayfy", "ay", 2, 40) \
    X(VerifyInit, 48, "uMu", "", 2, 40) \
    X(Verify, 49, "uayay", "", 2, 40) \
    X(VerifyUpdate, 50, "uay", "", 2, 40) \
    X(VerifyFinal, 51, "uay", "", 2, 40) \
    X(VerifyRecoverInit, 52, "uMu", "", 2, 40) \
    X(VerifyRecover, 53, "uayfy", "ay", 2, 40) \
    X(DigestEncryptUpdate, 54, "uayfy", "ay", 2, 40) \
    X(DecryptDigestUpdate, 55, "uayfy", "ay", 2, 40) \
    X(SignEncryptUpdate, 56, "uayfy", "ay", 2, 40) \
    X(DecryptVerifyUpdate, 57, "uayfy", "ay", 2, 40) \
    X(GenerateKey, 58, "uMaA", "u", 2, 40) \
    X(GenerateKeyPair, 59, "uMaAaA", "uu", 2, 40) \
    X(WrapKey, 60, "uMuufy", "ay", 2, 40) \
    X(UnwrapKey, 61, "uMuayaA", "u", 2, 40) \
    X(DeriveKey, 62, "uMuaA", "u", 2, 40) \
    X(SeedRandom, 63, "uay", "", 2, 40) \
    X(GenerateRandom, 64, "ufy", "ay", 2, 40) \
    X(WaitForSlotEvent, 65, "u", "u", 2, 40) \
    X(LoginUser, 66, "uuayay", "", 3, 0) \
    X(SessionCancel, 67, "uu", "", 3, 0) \
    X(MessageEncryptInit, 68, "uMu", "", 3, 0) \
    X(EncryptMessage, 69, "uPayayfy", "ayP", 3, 0) \
    X(EncryptMessageBegin, 70, "uPay", "P", 3, 0) \
    X(EncryptMessageNext, 71, "uPayfyu", "ayP", 3, 0) \
    X(MessageEncryptFinal, 72, "u", "", 3, 0) \
    X(MessageDecryptInit, 73, "uMu", "", 3, 0) \
    X(DecryptMessage, 74, "uPayayfy", "ay", 3, 0) \
    X(DecryptMessageBegin, 75, "uPay", "", 3, 0) \
    X(DecryptMessageNext, 76, "uPayfyu", "ay", 3, 0) \
    X(MessageDecryptFinal, 77, "u", "", 3, 0) \
    X(MessageSignInit, 78, "uMu", "", 3, 0) \
    X(SignMessage, 79, "uayayfy", "ay", 3, 0) \
    X(SignMessageBegin, 80, "uay", "", 3, 0) \
    X(SignMessageNext, 81, "uayayyfy", "ay", 3, 0) \
    X(MessageSignFinal, 82, "u", "", 3, 0) \
    X(MessageVerifyInit, 83, "uMu", "", 3, 0) \
    X(VerifyMessage, 84, "uayayay", "", 3, 0) \
    X(VerifyMessageBegin, 85, "uay", "", 3, 0) \
    X(VerifyMessageNext, 86, "uayayay", "", 3, 0) \
    X(MessageVerifyFinal, 87, "u", "", 3, 0) \
    X(EncapsulateKey, 256, "uMuaAfy", "ayu", 3, 2) \
    X(DecapsulateKey, 257, "uMuaAay", "u", 3, 2) \
    X(VerifySignatureInit, 258, "uMuay", "", 3, 2) \
    X(VerifySignature, 259, "uay", "", 3, 2) \
    X(VerifySignatureUpdate, 260, "uay", "", 3, 2) \
    X(VerifySignatureFinal, 261, "u", "", 3, 2) \
    X(GetSessionValidationFlags, 262, "uu", "u", 3, 2) \
    X(WrapKeyAuthenticated, 263, "uMuuayfy", "ay", 3, 2) \
    X(UnwrapKeyAuthenticated, 264, "uMuayaAay", "u", 3, 2) \
    X(SignOnce, 265, "uMuayfy", "ay", 3, 2) \
    X(VerifyOnce, 266, "uMuayay", "", 3, 2) \
    X(EncryptOnce, 267, "uMuayfy", "ay", 3, 2) \
    X(DecryptOnce, 268, "uMuayfy", "ay", 3, 2)

/* X(name without C_, CKR that is answered without a message, major, minor) */
#define LNH_ANSWERED(X) \
    X(GetFunctionList, CKR_OK, 2, 40) \
    X(GetInterfaceList, CKR_OK, 3, 0) \
    X(GetInterface, CKR_OK, 3, 0) \
    X(GetFunctionStatus, CKR_FUNCTION_NOT_PARALLEL, 2, 40) \
    X(CancelFunction, CKR_FUNCTION_NOT_PARALLEL, 2, 40) \
    X(AsyncComplete, CKR_FUNCTION_NOT_SUPPORTED, 3, 2) \
    X(AsyncGetID, CKR_FUNCTION_NOT_SUPPORTED, 3, 2) \
    X(AsyncJoin, CKR_FUNCTION_NOT_SUPPORTED, 3, 2)

#endif
