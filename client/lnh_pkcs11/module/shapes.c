#include "shapes.h"

#include "once.h"

#define PART_MOST (1UL << 20) /* bytes of a part in one request; limits.py: PKCS11_FRAME_BYTES is four times that */

CK_RV plain(enum call_name name, CK_ULONG first)
{
    struct call call;
    call_open(&call, name);
    put_ulong(&call, first);
    call_send(&call);
    return call_close(&call);
}

CK_RV plain_pair(enum call_name name, CK_ULONG first, CK_ULONG second)
{
    struct call call;
    call_open(&call, name);
    put_ulong(&call, first);
    put_ulong(&call, second);
    call_send(&call);
    return call_close(&call);
}

CK_RV feeds(enum call_name name, CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len)
{
    struct call call;
    call_open(&call, name);
    put_ulong(&call, session);
    put_bytes(&call, data, data_len);
    call_send(&call);
    return call_close(&call);
}

CK_RV feeds_part(enum call_name name, CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len)
{
    CK_RV rv = CKR_OK;
    while (data != NULL && data_len > PART_MOST && rv == CKR_OK) {
        rv = feeds(name, session, data, PART_MOST);
        data += PART_MOST;
        data_len -= PART_MOST;
    }
    return rv == CKR_OK ? feeds(name, session, data, data_len) : rv;
}

CK_RV feeds_pair(enum call_name name, CK_SESSION_HANDLE session, CK_BYTE_PTR first, CK_ULONG first_len,
                 CK_BYTE_PTR second, CK_ULONG second_len)
{
    struct call call;
    struct begun begun;
    bool joins = once_joins(session, &name, &begun);
    call_open(&call, name);
    put_ulong(&call, session);
    if (joins)
        put_begun(&call, &begun);
    put_bytes(&call, first, first_len);
    put_bytes(&call, second, second_len);
    call_send(&call);
    CK_RV rv = call_close(&call);
    if (rv == CKR_OK)
        once_ended(session, name);
    return rv;
}

CK_RV draws(enum call_name name, CK_SESSION_HANDLE session, CK_BYTE_PTR result, CK_ULONG_PTR result_len)
{
    struct call call;
    if (result_len == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, name);
    put_ulong(&call, session);
    put_room(&call, "fy", result, *result_len);
    call_send(&call);
    get_bytes(&call, result, result_len);
    return call_close(&call);
}

CK_RV turns(enum call_name name, CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len,
            CK_BYTE_PTR result, CK_ULONG_PTR result_len)
{
    struct call call;
    struct begun begun;
    if (result_len == NULL)
        return CKR_ARGUMENTS_BAD;
    bool joins = once_joins(session, &name, &begun);
    call_open(&call, name);
    put_ulong(&call, session);
    if (joins)
        put_begun(&call, &begun);
    put_bytes(&call, data, data_len);
    put_room(&call, "fy", result, *result_len);
    call_send(&call);
    get_bytes(&call, result, result_len);
    CK_RV rv = call_close(&call);
    if (rv == CKR_OK && result != NULL)
        once_ended(session, name);
    return rv;
}

CK_RV begins(enum call_name name, CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key)
{
    struct call call;
    struct begun begun;
    call_open(&call, name);
    put_ulong(&call, session);
    put_mechanism(&call, mechanism);
    put_ulong(&call, key);
    bool is_kept = mechanism != NULL && once_read(&call, &begun);
    if (is_kept && once_defers(session, &begun)) {
        call_drop(&call);
        return CKR_OK;
    }
    call_send(&call);
    CK_RV rv = call_close(&call);
    if (is_kept && rv == CKR_OK)
        once_accepted(session, &begun);
    return rv;
}

CK_RV lists(struct call *call, CK_ULONG_PTR list, CK_ULONG_PTR count)
{
    call_send(call);
    get_ulongs(call, list, count);
    CK_RV rv = call_close(call);
    if (rv != CKR_OK && rv != CKR_BUFFER_TOO_SMALL)
        *count = 0;
    return rv;
}

CK_RV makes(struct call *call, CK_ULONG_PTR handle)
{
    call_send(call);
    *handle = get_ulong(call);
    CK_RV rv = call_close(call);
    if (rv != CKR_OK)
        *handle = CK_INVALID_HANDLE;
    return rv;
}
