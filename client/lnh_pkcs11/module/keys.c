/* The functions of PKCS#11 that make keys, wrap and unwrap them. */
#include "shapes.h"

CK_RV C_GenerateKey(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_ATTRIBUTE_PTR template, CK_ULONG count,
                    CK_OBJECT_HANDLE_PTR key)
{
    struct call call;
    if (mechanism == NULL || key == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_GenerateKey);
    put_ulong(&call, session);
    put_mechanism(&call, mechanism);
    put_template(&call, template, count);
    return makes(&call, key);
}

CK_RV C_GenerateKeyPair(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_ATTRIBUTE_PTR public_template,
                        CK_ULONG public_count, CK_ATTRIBUTE_PTR private_template, CK_ULONG private_count,
                        CK_OBJECT_HANDLE_PTR public_key, CK_OBJECT_HANDLE_PTR private_key)
{
    struct call call;
    if (mechanism == NULL || public_key == NULL || private_key == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_GenerateKeyPair);
    put_ulong(&call, session);
    put_mechanism(&call, mechanism);
    put_template(&call, public_template, public_count);
    put_template(&call, private_template, private_count);
    call_send(&call);
    *public_key = get_ulong(&call);
    *private_key = get_ulong(&call);
    CK_RV rv = call_close(&call);
    if (rv != CKR_OK)
        *public_key = *private_key = CK_INVALID_HANDLE;
    return rv;
}

static CK_RV wraps(enum call_name name, CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism,
                   CK_OBJECT_HANDLE wrapping_key, CK_OBJECT_HANDLE key, CK_BYTE_PTR aad, CK_ULONG aad_len,
                   CK_BYTE_PTR wrapped, CK_ULONG_PTR wrapped_len)
{
    struct call call;
    if (mechanism == NULL || wrapped_len == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, name);
    put_ulong(&call, session);
    put_mechanism(&call, mechanism);
    put_ulong(&call, wrapping_key);
    put_ulong(&call, key);
    if (name == CALL_WrapKeyAuthenticated)
        put_bytes(&call, aad, aad_len);
    put_room(&call, "fy", wrapped, *wrapped_len);
    call_send(&call);
    get_bytes(&call, wrapped, wrapped_len);
    return call_close(&call);
}

CK_RV C_WrapKey(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE wrapping_key,
                CK_OBJECT_HANDLE key, CK_BYTE_PTR wrapped, CK_ULONG_PTR wrapped_len)
{
    return wraps(CALL_WrapKey, session, mechanism, wrapping_key, key, NULL, 0, wrapped, wrapped_len);
}

CK_RV C_WrapKeyAuthenticated(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE wrapping_key,
                             CK_OBJECT_HANDLE key, CK_BYTE_PTR aad, CK_ULONG aad_len, CK_BYTE_PTR wrapped,
                             CK_ULONG_PTR wrapped_len)
{
    return wraps(CALL_WrapKeyAuthenticated, session, mechanism, wrapping_key, key, aad, aad_len, wrapped, wrapped_len);
}

static CK_RV unwraps(enum call_name name, CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism,
                     CK_OBJECT_HANDLE unwrapping_key, CK_BYTE_PTR wrapped, CK_ULONG wrapped_len,
                     CK_ATTRIBUTE_PTR template, CK_ULONG count, CK_BYTE_PTR aad, CK_ULONG aad_len,
                     CK_OBJECT_HANDLE_PTR key)
{
    struct call call;
    if (mechanism == NULL || key == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, name);
    put_ulong(&call, session);
    put_mechanism(&call, mechanism);
    put_ulong(&call, unwrapping_key);
    put_bytes(&call, wrapped, wrapped_len);
    put_template(&call, template, count);
    if (name == CALL_UnwrapKeyAuthenticated)
        put_bytes(&call, aad, aad_len);
    return makes(&call, key);
}

CK_RV C_UnwrapKey(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE unwrapping_key,
                  CK_BYTE_PTR wrapped, CK_ULONG wrapped_len, CK_ATTRIBUTE_PTR template, CK_ULONG count,
                  CK_OBJECT_HANDLE_PTR key)
{
    return unwraps(CALL_UnwrapKey, session, mechanism, unwrapping_key, wrapped, wrapped_len, template, count, NULL, 0,
                   key);
}

CK_RV C_UnwrapKeyAuthenticated(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE unwrapping_key,
                               CK_BYTE_PTR wrapped, CK_ULONG wrapped_len, CK_ATTRIBUTE_PTR template, CK_ULONG count,
                               CK_BYTE_PTR aad, CK_ULONG aad_len, CK_OBJECT_HANDLE_PTR key)
{
    return unwraps(CALL_UnwrapKeyAuthenticated, session, mechanism, unwrapping_key, wrapped, wrapped_len, template,
                   count, aad, aad_len, key);
}

CK_RV C_DeriveKey(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE base_key,
                  CK_ATTRIBUTE_PTR template, CK_ULONG count, CK_OBJECT_HANDLE_PTR key)
{
    struct call call;
    if (mechanism == NULL || key == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_DeriveKey);
    put_ulong(&call, session);
    put_mechanism(&call, mechanism);
    put_ulong(&call, base_key);
    put_template(&call, template, count);
    return makes(&call, key);
}

CK_RV C_EncapsulateKey(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE public_key,
                       CK_ATTRIBUTE_PTR template, CK_ULONG count, CK_BYTE_PTR ciphertext, CK_ULONG_PTR ciphertext_len,
                       CK_OBJECT_HANDLE_PTR key)
{
    struct call call;
    if (mechanism == NULL || ciphertext_len == NULL || key == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_EncapsulateKey);
    put_ulong(&call, session);
    put_mechanism(&call, mechanism);
    put_ulong(&call, public_key);
    put_template(&call, template, count);
    put_room(&call, "fy", ciphertext, *ciphertext_len);
    call_send(&call);
    get_bytes(&call, ciphertext, ciphertext_len);
    *key = get_ulong(&call);
    CK_RV rv = call_close(&call);
    if (rv != CKR_OK)
        *key = CK_INVALID_HANDLE;
    return rv;
}

CK_RV C_DecapsulateKey(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE private_key,
                       CK_ATTRIBUTE_PTR template, CK_ULONG count, CK_BYTE_PTR ciphertext, CK_ULONG ciphertext_len,
                       CK_OBJECT_HANDLE_PTR key)
{
    struct call call;
    if (mechanism == NULL || key == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_DecapsulateKey);
    put_ulong(&call, session);
    put_mechanism(&call, mechanism);
    put_ulong(&call, private_key);
    put_template(&call, template, count);
    put_bytes(&call, ciphertext, ciphertext_len);
    return makes(&call, key);
}
