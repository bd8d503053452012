/* The functions of PKCS#11 about the library, slots, tokens, sessions and objects. */
#include "shapes.h"

/* --- of the library --- */

CK_RV C_Initialize(CK_VOID_PTR args)
{
    const CK_C_INITIALIZE_ARGS *given = args;
    if (given != NULL) {
        int callbacks = (given->CreateMutex != NULL) + (given->DestroyMutex != NULL) + (given->LockMutex != NULL) +
                        (given->UnlockMutex != NULL);
        /* With callbacks or without, the module locks by pthread, which every application on this system has. */
        if (given->pReserved != NULL || (callbacks != 0 && callbacks != 4))
            return CKR_ARGUMENTS_BAD;
    }
    return link_start();
}

CK_RV C_Finalize(CK_VOID_PTR reserved)
{
    return reserved != NULL ? CKR_ARGUMENTS_BAD : link_stop();
}

CK_RV C_GetInfo(CK_INFO_PTR info)
{
    struct call call;
    if (info == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_GetInfo);
    call_send(&call);
    info->cryptokiVersion = get_version(&call);
    get_text(&call, info->manufacturerID, sizeof info->manufacturerID);
    info->flags = get_ulong(&call);
    get_text(&call, info->libraryDescription, sizeof info->libraryDescription);
    info->libraryVersion = get_version(&call);
    return call_close(&call);
}

/* --- slots and tokens --- */

CK_RV C_GetSlotList(CK_BBOOL present, CK_SLOT_ID_PTR slots, CK_ULONG_PTR count)
{
    struct call call;
    if (count == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_GetSlotList);
    put_byte(&call, present != CK_FALSE);
    put_room(&call, "fu", slots, *count);
    return lists(&call, slots, count);
}

CK_RV C_GetSlotInfo(CK_SLOT_ID slot, CK_SLOT_INFO_PTR info)
{
    struct call call;
    if (info == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_GetSlotInfo);
    put_ulong(&call, slot);
    call_send(&call);
    get_text(&call, info->slotDescription, sizeof info->slotDescription);
    get_text(&call, info->manufacturerID, sizeof info->manufacturerID);
    info->flags = get_ulong(&call);
    info->hardwareVersion = get_version(&call);
    info->firmwareVersion = get_version(&call);
    return call_close(&call);
}

CK_RV C_GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info)
{
    struct call call;
    if (info == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_GetTokenInfo);
    put_ulong(&call, slot);
    call_send(&call);
    get_text(&call, info->label, sizeof info->label);
    get_text(&call, info->manufacturerID, sizeof info->manufacturerID);
    get_text(&call, info->model, sizeof info->model);
    get_text(&call, info->serialNumber, sizeof info->serialNumber);
    info->flags = get_ulong(&call);
    info->ulMaxSessionCount = get_ulong(&call);
    info->ulSessionCount = get_ulong(&call);
    info->ulMaxRwSessionCount = get_ulong(&call);
    info->ulRwSessionCount = get_ulong(&call);
    info->ulMaxPinLen = get_ulong(&call);
    info->ulMinPinLen = get_ulong(&call);
    info->ulTotalPublicMemory = get_ulong(&call);
    info->ulFreePublicMemory = get_ulong(&call);
    info->ulTotalPrivateMemory = get_ulong(&call);
    info->ulFreePrivateMemory = get_ulong(&call);
    info->hardwareVersion = get_version(&call);
    info->firmwareVersion = get_version(&call);
    get_text(&call, info->utcTime, sizeof info->utcTime);
    return call_close(&call);
}

CK_RV C_GetMechanismList(CK_SLOT_ID slot, CK_MECHANISM_TYPE_PTR mechanisms, CK_ULONG_PTR count)
{
    struct call call;
    if (count == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_GetMechanismList);
    put_ulong(&call, slot);
    put_room(&call, "fu", mechanisms, *count);
    return lists(&call, mechanisms, count);
}

CK_RV C_GetMechanismInfo(CK_SLOT_ID slot, CK_MECHANISM_TYPE mechanism, CK_MECHANISM_INFO_PTR info)
{
    struct call call;
    if (info == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_GetMechanismInfo);
    put_ulong(&call, slot);
    put_ulong(&call, mechanism);
    call_send(&call);
    info->ulMinKeySize = get_ulong(&call);
    info->ulMaxKeySize = get_ulong(&call);
    info->flags = get_ulong(&call);
    return call_close(&call);
}

CK_RV C_InitToken(CK_SLOT_ID slot, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len, CK_UTF8CHAR_PTR label)
{
    struct call call;
    if (label == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_InitToken);
    put_ulong(&call, slot);
    put_bytes(&call, pin, pin_len);
    put_text(&call, label, sizeof((CK_TOKEN_INFO *)0)->label);
    call_send(&call);
    return call_close(&call);
}

CK_RV C_InitPIN(CK_SESSION_HANDLE session, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len)
{
    return feeds(CALL_InitPIN, session, pin, pin_len);
}

CK_RV C_SetPIN(CK_SESSION_HANDLE session, CK_UTF8CHAR_PTR old_pin, CK_ULONG old_len, CK_UTF8CHAR_PTR new_pin,
               CK_ULONG new_len)
{
    return feeds_pair(CALL_SetPIN, session, old_pin, old_len, new_pin, new_len);
}

CK_RV C_WaitForSlotEvent(CK_FLAGS flags, CK_SLOT_ID_PTR slot, CK_VOID_PTR reserved)
{
    struct call call;
    if (slot == NULL || reserved != NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_WaitForSlotEvent);
    put_ulong(&call, flags);
    call_send(&call);
    CK_SLOT_ID found = get_ulong(&call);
    CK_RV rv = call_close(&call);
    if (rv == CKR_OK)
        *slot = found;
    return rv;
}

/* --- sessions --- */

CK_RV C_OpenSession(CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR application, CK_NOTIFY notify,
                    CK_SESSION_HANDLE_PTR session)
{
    struct call call;
    (void)application; /* of callbacks, of which the gateway has none to make */
    (void)notify;
    if (session == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_OpenSession);
    put_ulong(&call, slot);
    put_ulong(&call, flags);
    return makes(&call, session);
}

CK_RV C_CloseSession(CK_SESSION_HANDLE session)
{
    return plain(CALL_CloseSession, session);
}

CK_RV C_CloseAllSessions(CK_SLOT_ID slot)
{
    return plain(CALL_CloseAllSessions, slot);
}

CK_RV C_GetSessionInfo(CK_SESSION_HANDLE session, CK_SESSION_INFO_PTR info)
{
    struct call call;
    if (info == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_GetSessionInfo);
    put_ulong(&call, session);
    call_send(&call);
    info->slotID = get_ulong(&call);
    info->state = get_ulong(&call);
    info->flags = get_ulong(&call);
    info->ulDeviceError = get_ulong(&call);
    return call_close(&call);
}

CK_RV C_GetOperationState(CK_SESSION_HANDLE session, CK_BYTE_PTR state, CK_ULONG_PTR state_len)
{
    return draws(CALL_GetOperationState, session, state, state_len);
}

CK_RV C_SetOperationState(CK_SESSION_HANDLE session, CK_BYTE_PTR state, CK_ULONG state_len,
                          CK_OBJECT_HANDLE encryption_key, CK_OBJECT_HANDLE authentication_key)
{
    struct call call;
    call_open(&call, CALL_SetOperationState);
    put_ulong(&call, session);
    put_bytes(&call, state, state_len);
    put_ulong(&call, encryption_key);
    put_ulong(&call, authentication_key);
    call_send(&call);
    return call_close(&call);
}

CK_RV C_Login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len)
{
    struct call call;
    call_open(&call, CALL_Login);
    put_ulong(&call, session);
    put_ulong(&call, user);
    put_bytes(&call, pin, pin_len);
    call_send(&call);
    return call_close(&call);
}

CK_RV C_LoginUser(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len,
                  CK_UTF8CHAR_PTR name, CK_ULONG name_len)
{
    struct call call;
    call_open(&call, CALL_LoginUser);
    put_ulong(&call, session);
    put_ulong(&call, user);
    put_bytes(&call, pin, pin_len);
    put_bytes(&call, name, name_len);
    call_send(&call);
    return call_close(&call);
}

CK_RV C_Logout(CK_SESSION_HANDLE session)
{
    return plain(CALL_Logout, session);
}

CK_RV C_SessionCancel(CK_SESSION_HANDLE session, CK_FLAGS flags)
{
    return plain_pair(CALL_SessionCancel, session, flags);
}

CK_RV C_GetSessionValidationFlags(CK_SESSION_HANDLE session, CK_SESSION_VALIDATION_FLAGS_TYPE type, CK_FLAGS_PTR flags)
{
    struct call call;
    if (flags == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_GetSessionValidationFlags);
    put_ulong(&call, session);
    put_ulong(&call, type);
    return makes(&call, flags);
}

/* --- objects --- */

CK_RV C_CreateObject(CK_SESSION_HANDLE session, CK_ATTRIBUTE_PTR template, CK_ULONG count, CK_OBJECT_HANDLE_PTR object)
{
    struct call call;
    if (object == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_CreateObject);
    put_ulong(&call, session);
    put_template(&call, template, count);
    return makes(&call, object);
}

CK_RV C_CopyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR template, CK_ULONG count,
                   CK_OBJECT_HANDLE_PTR copy)
{
    struct call call;
    if (copy == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_CopyObject);
    put_ulong(&call, session);
    put_ulong(&call, object);
    put_template(&call, template, count);
    return makes(&call, copy);
}

CK_RV C_DestroyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object)
{
    return plain_pair(CALL_DestroyObject, session, object);
}

CK_RV C_GetObjectSize(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ULONG_PTR size)
{
    struct call call;
    if (size == NULL)
        return CKR_ARGUMENTS_BAD;
    call_open(&call, CALL_GetObjectSize);
    put_ulong(&call, session);
    put_ulong(&call, object);
    return makes(&call, size);
}

CK_RV C_GetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR template, CK_ULONG count)
{
    struct call call;
    call_open(&call, CALL_GetAttributeValue);
    put_ulong(&call, session);
    put_ulong(&call, object);
    put_template_room(&call, template, count);
    call_send(&call);
    get_template(&call, template, count);
    return call_close(&call);
}

CK_RV C_SetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR template, CK_ULONG count)
{
    struct call call;
    call_open(&call, CALL_SetAttributeValue);
    put_ulong(&call, session);
    put_ulong(&call, object);
    put_template(&call, template, count);
    call_send(&call);
    return call_close(&call);
}

CK_RV C_FindObjectsInit(CK_SESSION_HANDLE session, CK_ATTRIBUTE_PTR template, CK_ULONG count)
{
    struct call call;
    call_open(&call, CALL_FindObjectsInit);
    put_ulong(&call, session);
    put_template(&call, template, count);
    call_send(&call);
    return call_close(&call);
}

CK_RV C_FindObjects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE_PTR objects, CK_ULONG max_count, CK_ULONG_PTR count)
{
    struct call call;
    if (objects == NULL || count == NULL)
        return CKR_ARGUMENTS_BAD;
    *count = max_count;
    call_open(&call, CALL_FindObjects);
    put_ulong(&call, session);
    put_room(&call, "fu", objects, max_count);
    return lists(&call, objects, count);
}

CK_RV C_FindObjectsFinal(CK_SESSION_HANDLE session)
{
    return plain(CALL_FindObjectsFinal, session);
}

/* --- what the module answers by itself --- */

CK_RV C_GetFunctionStatus(CK_SESSION_HANDLE session)
{
    (void)session;
    return CKR_FUNCTION_NOT_PARALLEL;
}

CK_RV C_CancelFunction(CK_SESSION_HANDLE session)
{
    (void)session;
    return CKR_FUNCTION_NOT_PARALLEL;
}

CK_RV C_AsyncComplete(CK_SESSION_HANDLE session, CK_UTF8CHAR_PTR function, CK_ASYNC_DATA_PTR result)
{
    (void)session, (void)function, (void)result;
    return CKR_FUNCTION_NOT_SUPPORTED;
}

CK_RV C_AsyncGetID(CK_SESSION_HANDLE session, CK_UTF8CHAR_PTR function, CK_ULONG_PTR id)
{
    (void)session, (void)function, (void)id;
    return CKR_FUNCTION_NOT_SUPPORTED;
}

CK_RV C_AsyncJoin(CK_SESSION_HANDLE session, CK_UTF8CHAR_PTR function, CK_ULONG id, CK_BYTE_PTR data,
                  CK_ULONG data_len)
{
    (void)session, (void)function, (void)id, (void)data, (void)data_len;
    return CKR_FUNCTION_NOT_SUPPORTED;
}
