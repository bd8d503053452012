/* The functions of PKCS#11 that use keys: encryption, decryption, digests, signatures, messages; and random data. */
#include "shapes.h"

#define BEGINS(name)                                                                                                   \
    CK_RV C_##name(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key)                        \
    {                                                                                                                  \
        return begins(CALL_##name, session, mechanism, key);                                                           \
    }
#define FEEDS(name)                                                                                                    \
    CK_RV C_##name(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len)                                     \
    {                                                                                                                  \
        return feeds(CALL_##name, session, data, data_len);                                                            \
    }
#define FEEDS_PART(name)                                                                                               \
    CK_RV C_##name(CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len)                                     \
    {                                                                                                                  \
        return feeds_part(CALL_##name, session, part, part_len);                                                       \
    }
#define DRAWS(name)                                                                                                    \
    CK_RV C_##name(CK_SESSION_HANDLE session, CK_BYTE_PTR result, CK_ULONG_PTR result_len)                             \
    {                                                                                                                  \
        return draws(CALL_##name, session, result, result_len);                                                        \
    }
#define TURNS(name)                                                                                                    \
    CK_RV C_##name(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR result,                 \
                   CK_ULONG_PTR result_len)                                                                            \
    {                                                                                                                  \
        return turns(CALL_##name, session, data, data_len, result, result_len);                                        \
    }
#define PLAIN(name)                                                                                                    \
    CK_RV C_##name(CK_SESSION_HANDLE session)                                                                          \
    {                                                                                                                  \
        return plain(CALL_##name, session);                                                                            \
    }

BEGINS(EncryptInit)
TURNS(Encrypt)
TURNS(EncryptUpdate)
DRAWS(EncryptFinal)
BEGINS(DecryptInit)
TURNS(Decrypt)
TURNS(DecryptUpdate)
DRAWS(DecryptFinal)
TURNS(Digest)
FEEDS_PART(DigestUpdate)
DRAWS(DigestFinal)
BEGINS(SignInit)
TURNS(Sign)
FEEDS_PART(SignUpdate)
DRAWS(SignFinal)
BEGINS(SignRecoverInit)
TURNS(SignRecover)
BEGINS(VerifyInit)
FEEDS_PART(VerifyUpdate)
FEEDS(VerifyFinal)
BEGINS(VerifyRecoverInit)
TURNS(VerifyRecover)
TURNS(DigestEncryptUpdate)
TURNS(DecryptDigestUpdate)
TURNS(SignEncryptUpdate)
TURNS(DecryptVerifyUpdate)
FEEDS(SeedRandom)
BEGINS(MessageEncryptInit)
PLAIN(MessageEncryptFinal)
BEGINS(MessageDecryptInit)
PLAIN(MessageDecryptFinal)
BEGINS(MessageSignInit)
PLAIN(MessageSignFinal)
BEGINS(MessageVerifyInit)
PLAIN(MessageVerifyFinal)
FEEDS(VerifySignature)
FEEDS_PART(VerifySignatureUpdate)
PLAIN(VerifySignatureFinal)

CK_RV C_DigestInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism)
{
    struct call call;
    call_open(&call, CALL_DigestInit);
    put_ulong(&call, session);
    put_mechanism(&call, mechanism);
    call_send(&call);
    return call_close(&call);
}

CK_RV C_DigestKey(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key)
{
    return plain_pair(CALL_DigestKey, session, key);
}

CK_RV C_Verify(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,
               CK_ULONG signature_len)
{
    return feeds_pair(CALL_Verify, session, data, data_len, signature, signature_len);
}

CK_RV C_VerifySignatureInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key,
                            CK_BYTE_PTR signature, CK_ULONG signature_len)
{
    struct call call;
    call_open(&call, CALL_VerifySignatureInit);
    put_ulong(&call, session);
    put_mechanism(&call, mechanism);
    put_ulong(&call, key);
    put_bytes(&call, signature, signature_len);
    call_send(&call);
    return call_close(&call);
}

CK_RV C_GenerateRandom(CK_SESSION_HANDLE session, CK_BYTE_PTR random, CK_ULONG random_len)
{
    CK_ULONG found = random_len;
    if (random == NULL && random_len > 0)
        return CKR_ARGUMENTS_BAD;
    CK_RV rv = draws(CALL_GenerateRandom, session, random, &found);
    /* A caller never takes what it left in its buffer for random bytes. */
    return rv == CKR_OK && random != NULL && found != random_len ? CKR_DEVICE_ERROR : rv;
}

/* --- messages (v3.0) --- */

/* Encrypt or decrypt one message whole; what was drawn for it, IV and tag, comes back in its parameters. */
static CK_RV turns_message(enum call_name name, CK_SESSION_HANDLE session, CK_VOID_PTR parameter,
                           CK_ULONG parameter_len, CK_BYTE_PTR aad, CK_ULONG aad_len, CK_BYTE_PTR data,
                           CK_ULONG data_len, CK_BYTE_PTR result, CK_ULONG_PTR result_len)
{
    struct call call;
    if (result_len == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, name);
    put_ulong(&call, session);
    put_message(&call, parameter, parameter_len);
    put_bytes(&call, aad, aad_len);
    put_bytes(&call, data, data_len);
    put_room(&call, "fy", result, *result_len);
    call_send(&call);
    get_bytes(&call, result, result_len);
    if (name == CALL_EncryptMessage)
        get_message(&call, parameter, parameter_len);
    return call_close(&call);
}

static CK_RV begins_message(enum call_name name, CK_SESSION_HANDLE session, CK_VOID_PTR parameter,
                            CK_ULONG parameter_len, CK_BYTE_PTR aad, CK_ULONG aad_len)
{
    struct call call;
    call_open(&call, name);
    put_ulong(&call, session);
    put_message(&call, parameter, parameter_len);
    put_bytes(&call, aad, aad_len);
    call_send(&call);
    if (name == CALL_EncryptMessageBegin)
        get_message(&call, parameter, parameter_len);
    return call_close(&call);
}

static CK_RV turns_part(enum call_name name, CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len,
                        CK_BYTE_PTR part, CK_ULONG part_len, CK_BYTE_PTR result, CK_ULONG_PTR result_len,
                        CK_FLAGS flags)
{
    struct call call;
    if (result_len == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, name);
    put_ulong(&call, session);
    put_message(&call, parameter, parameter_len);
    put_bytes(&call, part, part_len);
    put_room(&call, "fy", result, *result_len);
    put_ulong(&call, flags);
    call_send(&call);
    get_bytes(&call, result, result_len);
    if (name == CALL_EncryptMessageNext)
        get_message(&call, parameter, parameter_len);
    return call_close(&call);
}

CK_RV C_EncryptMessage(CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR aad,
                       CK_ULONG aad_len, CK_BYTE_PTR plaintext, CK_ULONG plaintext_len, CK_BYTE_PTR ciphertext,
                       CK_ULONG_PTR ciphertext_len)
{
    return turns_message(CALL_EncryptMessage, session, parameter, parameter_len, aad, aad_len, plaintext,
                         plaintext_len, ciphertext, ciphertext_len);
}

CK_RV C_EncryptMessageBegin(CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR aad,
                            CK_ULONG aad_len)
{
    return begins_message(CALL_EncryptMessageBegin, session, parameter, parameter_len, aad, aad_len);
}

CK_RV C_EncryptMessageNext(CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR part,
                           CK_ULONG part_len, CK_BYTE_PTR ciphertext, CK_ULONG_PTR ciphertext_len, CK_FLAGS flags)
{
    return turns_part(CALL_EncryptMessageNext, session, parameter, parameter_len, part, part_len, ciphertext,
                      ciphertext_len, flags);
}

CK_RV C_DecryptMessage(CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR aad,
                       CK_ULONG aad_len, CK_BYTE_PTR ciphertext, CK_ULONG ciphertext_len, CK_BYTE_PTR plaintext,
                       CK_ULONG_PTR plaintext_len)
{
    return turns_message(CALL_DecryptMessage, session, parameter, parameter_len, aad, aad_len, ciphertext,
                         ciphertext_len, plaintext, plaintext_len);
}

CK_RV C_DecryptMessageBegin(CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR aad,
                            CK_ULONG aad_len)
{
    return begins_message(CALL_DecryptMessageBegin, session, parameter, parameter_len, aad, aad_len);
}

CK_RV C_DecryptMessageNext(CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR part,
                           CK_ULONG part_len, CK_BYTE_PTR plaintext, CK_ULONG_PTR plaintext_len, CK_FLAGS flags)
{
    return turns_part(CALL_DecryptMessageNext, session, parameter, parameter_len, part, part_len, plaintext,
                      plaintext_len, flags);
}

CK_RV C_SignMessage(CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR data,
                    CK_ULONG data_len, CK_BYTE_PTR signature, CK_ULONG_PTR signature_len)
{
    struct call call;
    if (signature_len == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_SignMessage);
    put_ulong(&call, session);
    put_bytes(&call, parameter, parameter_len);
    put_bytes(&call, data, data_len);
    put_room(&call, "fy", signature, *signature_len);
    call_send(&call);
    get_bytes(&call, signature, signature_len);
    return call_close(&call);
}

CK_RV C_SignMessageBegin(CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len)
{
    return feeds(CALL_SignMessageBegin, session, parameter, parameter_len);
}

/* Give one part; the last one is that with a place for the signature's length. */
CK_RV C_SignMessageNext(CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR part,
                        CK_ULONG part_len, CK_BYTE_PTR signature, CK_ULONG_PTR signature_len)
{
    struct call call;
    CK_ULONG none = 0;
    call_open(&call, CALL_SignMessageNext);
    put_ulong(&call, session);
    put_bytes(&call, parameter, parameter_len);
    put_bytes(&call, part, part_len);
    put_byte(&call, signature_len != NULL);
    put_room(&call, "fy", signature_len == NULL ? NULL : signature, signature_len == NULL ? 0 : *signature_len);
    call_send(&call);
    get_bytes(&call, signature_len == NULL ? NULL : signature, signature_len == NULL ? &none : signature_len);
    return call_close(&call);
}

static CK_RV verifies_message(enum call_name name, CK_SESSION_HANDLE session, CK_VOID_PTR parameter,
                              CK_ULONG parameter_len, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,
                              CK_ULONG signature_len)
{
    struct call call;
    call_open(&call, name);
    put_ulong(&call, session);
    put_bytes(&call, parameter, parameter_len);
    put_bytes(&call, data, data_len);
    put_bytes(&call, signature, signature_len);
    call_send(&call);
    return call_close(&call);
}

CK_RV C_VerifyMessage(CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR data,
                      CK_ULONG data_len, CK_BYTE_PTR signature, CK_ULONG signature_len)
{
    return verifies_message(CALL_VerifyMessage, session, parameter, parameter_len, data, data_len, signature,
                            signature_len);
}

CK_RV C_VerifyMessageBegin(CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len)
{
    return feeds(CALL_VerifyMessageBegin, session, parameter, parameter_len);
}

CK_RV C_VerifyMessageNext(CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR part,
                          CK_ULONG part_len, CK_BYTE_PTR signature, CK_ULONG signature_len)
{
    return verifies_message(CALL_VerifyMessageNext, session, parameter, parameter_len, part, part_len, signature,
                            signature_len);
}
