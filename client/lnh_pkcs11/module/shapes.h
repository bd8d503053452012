/*
 * Calls of one shape: functions with the same fields share one of these.
 *
 * `feeds` gives data, `draws` takes it, `turns` does both. What an application gets is defined whatever happens: after an
 * error a list has no elements and a handle is invalid.
 */
#ifndef LNH_PKCS11_SHAPES_H
#define LNH_PKCS11_SHAPES_H

#include "call.h"

CK_RV plain(enum call_name name, CK_ULONG first);
CK_RV plain_pair(enum call_name name, CK_ULONG first, CK_ULONG second);
CK_RV feeds(enum call_name name, CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len);
/* Give a part in as many requests as it takes: a gateway refuses one that is too long. */
CK_RV feeds_part(enum call_name name, CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len);
CK_RV feeds_pair(enum call_name name, CK_SESSION_HANDLE session, CK_BYTE_PTR first, CK_ULONG first_len,
                 CK_BYTE_PTR second, CK_ULONG second_len);
CK_RV draws(enum call_name name, CK_SESSION_HANDLE session, CK_BYTE_PTR result, CK_ULONG_PTR result_len);
CK_RV turns(enum call_name name, CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len,
            CK_BYTE_PTR result, CK_ULONG_PTR result_len);
/* Begin an operation; without a mechanism, cancel it. */
CK_RV begins(enum call_name name, CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key);
CK_RV lists(struct call *call, CK_ULONG_PTR list, CK_ULONG_PTR count);
/* End a call whose reply is a handle. */
CK_RV makes(struct call *call, CK_ULONG_PTR handle);

#endif
