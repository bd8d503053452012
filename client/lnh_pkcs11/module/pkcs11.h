/*
 * Declare PKCS#11 as far as a module that passes calls on needs it: types, numbers and the three function lists.
 *
 * Written from the standard's facts (OASIS PKCS#11 v2.40, v3.1, v3.2). The functions are one table, `CK_FUNCTIONS_*`;
 * prototypes, pointer types and function lists are made of it, so that their order is told once.
 */
#ifndef LNH_PKCS11_H
#define LNH_PKCS11_H

typedef unsigned char CK_BYTE;
typedef CK_BYTE CK_CHAR;
typedef CK_BYTE CK_UTF8CHAR;
typedef CK_BYTE CK_BBOOL;
typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_FLAGS;
typedef CK_ULONG CK_RV;
typedef CK_ULONG CK_SLOT_ID;
typedef CK_ULONG CK_SESSION_HANDLE;
typedef CK_ULONG CK_OBJECT_HANDLE;
typedef CK_ULONG CK_USER_TYPE;
typedef CK_ULONG CK_STATE;
typedef CK_ULONG CK_MECHANISM_TYPE;
typedef CK_ULONG CK_ATTRIBUTE_TYPE;
typedef CK_ULONG CK_NOTIFICATION;
typedef CK_ULONG CK_SESSION_VALIDATION_FLAGS_TYPE;
typedef void *CK_VOID_PTR;
typedef CK_VOID_PTR *CK_VOID_PTR_PTR;
typedef CK_BYTE *CK_BYTE_PTR;
typedef CK_UTF8CHAR *CK_UTF8CHAR_PTR;
typedef CK_ULONG *CK_ULONG_PTR;
typedef CK_FLAGS *CK_FLAGS_PTR;
typedef CK_SLOT_ID *CK_SLOT_ID_PTR;
typedef CK_SESSION_HANDLE *CK_SESSION_HANDLE_PTR;
typedef CK_OBJECT_HANDLE *CK_OBJECT_HANDLE_PTR;
typedef CK_MECHANISM_TYPE *CK_MECHANISM_TYPE_PTR;

#define CK_TRUE 1
#define CK_FALSE 0
#define CK_INVALID_HANDLE 0UL
#define CK_UNAVAILABLE_INFORMATION (~0UL)

#define CKR_OK 0x000UL
#define CKR_HOST_MEMORY 0x002UL
#define CKR_SLOT_ID_INVALID 0x003UL
#define CKR_GENERAL_ERROR 0x005UL
#define CKR_FUNCTION_FAILED 0x006UL
#define CKR_ARGUMENTS_BAD 0x007UL
#define CKR_NO_EVENT 0x008UL
#define CKR_NEED_TO_CREATE_THREADS 0x009UL
#define CKR_CANT_LOCK 0x00AUL
#define CKR_ATTRIBUTE_SENSITIVE 0x011UL
#define CKR_ATTRIBUTE_TYPE_INVALID 0x012UL
#define CKR_ATTRIBUTE_VALUE_INVALID 0x013UL
#define CKR_DATA_LEN_RANGE 0x021UL
#define CKR_DEVICE_ERROR 0x030UL
#define CKR_FUNCTION_NOT_PARALLEL 0x051UL
#define CKR_FUNCTION_NOT_SUPPORTED 0x054UL
#define CKR_MECHANISM_INVALID 0x070UL
#define CKR_MECHANISM_PARAM_INVALID 0x071UL
#define CKR_SESSION_HANDLE_INVALID 0x0B3UL
#define CKR_TOKEN_NOT_PRESENT 0x0E0UL
#define CKR_BUFFER_TOO_SMALL 0x150UL
#define CKR_CRYPTOKI_NOT_INITIALIZED 0x190UL
#define CKR_CRYPTOKI_ALREADY_INITIALIZED 0x191UL

#define CKF_LIBRARY_CANT_CREATE_OS_THREADS 0x1UL
#define CKF_OS_LOCKING_OK 0x2UL
#define CKF_DONT_BLOCK 0x1UL
#define CKF_ARRAY_ATTRIBUTE 0x40000000UL

typedef struct CK_VERSION {
    CK_BYTE major;
    CK_BYTE minor;
} CK_VERSION;
typedef CK_VERSION *CK_VERSION_PTR;

typedef struct CK_INFO {
    CK_VERSION cryptokiVersion;
    CK_UTF8CHAR manufacturerID[32];
    CK_FLAGS flags;
    CK_UTF8CHAR libraryDescription[32];
    CK_VERSION libraryVersion;
} CK_INFO;
typedef CK_INFO *CK_INFO_PTR;

typedef struct CK_SLOT_INFO {
    CK_UTF8CHAR slotDescription[64];
    CK_UTF8CHAR manufacturerID[32];
    CK_FLAGS flags;
    CK_VERSION hardwareVersion;
    CK_VERSION firmwareVersion;
} CK_SLOT_INFO;
typedef CK_SLOT_INFO *CK_SLOT_INFO_PTR;

typedef struct CK_TOKEN_INFO {
    CK_UTF8CHAR label[32];
    CK_UTF8CHAR manufacturerID[32];
    CK_UTF8CHAR model[16];
    CK_CHAR serialNumber[16];
    CK_FLAGS flags;
    CK_ULONG ulMaxSessionCount;
    CK_ULONG ulSessionCount;
    CK_ULONG ulMaxRwSessionCount;
    CK_ULONG ulRwSessionCount;
    CK_ULONG ulMaxPinLen;
    CK_ULONG ulMinPinLen;
    CK_ULONG ulTotalPublicMemory;
    CK_ULONG ulFreePublicMemory;
    CK_ULONG ulTotalPrivateMemory;
    CK_ULONG ulFreePrivateMemory;
    CK_VERSION hardwareVersion;
    CK_VERSION firmwareVersion;
    CK_CHAR utcTime[16];
} CK_TOKEN_INFO;
typedef CK_TOKEN_INFO *CK_TOKEN_INFO_PTR;

typedef struct CK_SESSION_INFO {
    CK_SLOT_ID slotID;
    CK_STATE state;
    CK_FLAGS flags;
    CK_ULONG ulDeviceError;
} CK_SESSION_INFO;
typedef CK_SESSION_INFO *CK_SESSION_INFO_PTR;

typedef struct CK_ATTRIBUTE {
    CK_ATTRIBUTE_TYPE type;
    CK_VOID_PTR pValue;
    CK_ULONG ulValueLen;
} CK_ATTRIBUTE;
typedef CK_ATTRIBUTE *CK_ATTRIBUTE_PTR;

typedef struct CK_MECHANISM {
    CK_MECHANISM_TYPE mechanism;
    CK_VOID_PTR pParameter;
    CK_ULONG ulParameterLen;
} CK_MECHANISM;
typedef CK_MECHANISM *CK_MECHANISM_PTR;

typedef struct CK_MECHANISM_INFO {
    CK_ULONG ulMinKeySize;
    CK_ULONG ulMaxKeySize;
    CK_FLAGS flags;
} CK_MECHANISM_INFO;
typedef CK_MECHANISM_INFO *CK_MECHANISM_INFO_PTR;

typedef struct CK_ASYNC_DATA {
    CK_ULONG ulVersion;
    CK_BYTE_PTR pValue;
    CK_ULONG ulValue;
    CK_OBJECT_HANDLE hObject;
    CK_OBJECT_HANDLE hAdditionalObject;
} CK_ASYNC_DATA;
typedef CK_ASYNC_DATA *CK_ASYNC_DATA_PTR;

typedef CK_RV (*CK_NOTIFY)(CK_SESSION_HANDLE session, CK_NOTIFICATION event, CK_VOID_PTR application);
typedef CK_RV (*CK_CREATEMUTEX)(CK_VOID_PTR_PTR mutex);
typedef CK_RV (*CK_DESTROYMUTEX)(CK_VOID_PTR mutex);
typedef CK_RV (*CK_LOCKMUTEX)(CK_VOID_PTR mutex);
typedef CK_RV (*CK_UNLOCKMUTEX)(CK_VOID_PTR mutex);

typedef struct CK_C_INITIALIZE_ARGS {
    CK_CREATEMUTEX CreateMutex;
    CK_DESTROYMUTEX DestroyMutex;
    CK_LOCKMUTEX LockMutex;
    CK_UNLOCKMUTEX UnlockMutex;
    CK_FLAGS flags;
    CK_VOID_PTR pReserved;
} CK_C_INITIALIZE_ARGS;
typedef CK_C_INITIALIZE_ARGS *CK_C_INITIALIZE_ARGS_PTR;

typedef struct CK_INTERFACE {
    CK_CHAR *pInterfaceName;
    CK_VOID_PTR pFunctionList;
    CK_FLAGS flags;
} CK_INTERFACE;
typedef CK_INTERFACE *CK_INTERFACE_PTR;
typedef CK_INTERFACE_PTR *CK_INTERFACE_PTR_PTR;

typedef struct CK_FUNCTION_LIST CK_FUNCTION_LIST;
typedef CK_FUNCTION_LIST *CK_FUNCTION_LIST_PTR;
typedef CK_FUNCTION_LIST_PTR *CK_FUNCTION_LIST_PTR_PTR;

/* The functions of v2.40 (5.2), in the order of CK_FUNCTION_LIST: each with its parameters. */
#define CK_FUNCTIONS_2_40(X)                                                                                           \
    X(C_Initialize, (CK_VOID_PTR args))                                                                                \
    X(C_Finalize, (CK_VOID_PTR reserved))                                                                              \
    X(C_GetInfo, (CK_INFO_PTR info))                                                                                   \
    X(C_GetFunctionList, (CK_FUNCTION_LIST_PTR_PTR list))                                                              \
    X(C_GetSlotList, (CK_BBOOL present, CK_SLOT_ID_PTR slots, CK_ULONG_PTR count))                                     \
    X(C_GetSlotInfo, (CK_SLOT_ID slot, CK_SLOT_INFO_PTR info))                                                         \
    X(C_GetTokenInfo, (CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info))                                                       \
    X(C_GetMechanismList, (CK_SLOT_ID slot, CK_MECHANISM_TYPE_PTR mechanisms, CK_ULONG_PTR count))                     \
    X(C_GetMechanismInfo, (CK_SLOT_ID slot, CK_MECHANISM_TYPE mechanism, CK_MECHANISM_INFO_PTR info))                  \
    X(C_InitToken, (CK_SLOT_ID slot, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len, CK_UTF8CHAR_PTR label))                    \
    X(C_InitPIN, (CK_SESSION_HANDLE session, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len))                                   \
    X(C_SetPIN,                                                                                                        \
      (CK_SESSION_HANDLE session, CK_UTF8CHAR_PTR old_pin, CK_ULONG old_len, CK_UTF8CHAR_PTR new_pin,                  \
       CK_ULONG new_len))                                                                                              \
    X(C_OpenSession,                                                                                                   \
      (CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR application, CK_NOTIFY notify, CK_SESSION_HANDLE_PTR session))     \
    X(C_CloseSession, (CK_SESSION_HANDLE session))                                                                     \
    X(C_CloseAllSessions, (CK_SLOT_ID slot))                                                                           \
    X(C_GetSessionInfo, (CK_SESSION_HANDLE session, CK_SESSION_INFO_PTR info))                                         \
    X(C_GetOperationState, (CK_SESSION_HANDLE session, CK_BYTE_PTR state, CK_ULONG_PTR state_len))                     \
    X(C_SetOperationState,                                                                                             \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR state, CK_ULONG state_len, CK_OBJECT_HANDLE encryption_key,              \
       CK_OBJECT_HANDLE authentication_key))                                                                           \
    X(C_Login, (CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len))                  \
    X(C_Logout, (CK_SESSION_HANDLE session))                                                                           \
    X(C_CreateObject,                                                                                                  \
      (CK_SESSION_HANDLE session, CK_ATTRIBUTE_PTR template, CK_ULONG count, CK_OBJECT_HANDLE_PTR object))             \
    X(C_CopyObject,                                                                                                    \
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR template, CK_ULONG count,                  \
       CK_OBJECT_HANDLE_PTR copy))                                                                                     \
    X(C_DestroyObject, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object))                                           \
    X(C_GetObjectSize, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ULONG_PTR size))                        \
    X(C_GetAttributeValue,                                                                                             \
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR template, CK_ULONG count))                 \
    X(C_SetAttributeValue,                                                                                             \
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR template, CK_ULONG count))                 \
    X(C_FindObjectsInit, (CK_SESSION_HANDLE session, CK_ATTRIBUTE_PTR template, CK_ULONG count))                       \
    X(C_FindObjects,                                                                                                   \
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE_PTR objects, CK_ULONG max_count, CK_ULONG_PTR count))               \
    X(C_FindObjectsFinal, (CK_SESSION_HANDLE session))                                                                 \
    X(C_EncryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key))                    \
    X(C_Encrypt,                                                                                                       \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR encrypted,                          \
       CK_ULONG_PTR encrypted_len))                                                                                    \
    X(C_EncryptUpdate,                                                                                                 \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len, CK_BYTE_PTR encrypted,                          \
       CK_ULONG_PTR encrypted_len))                                                                                    \
    X(C_EncryptFinal, (CK_SESSION_HANDLE session, CK_BYTE_PTR last, CK_ULONG_PTR last_len))                            \
    X(C_DecryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key))                    \
    X(C_Decrypt,                                                                                                       \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR encrypted, CK_ULONG encrypted_len, CK_BYTE_PTR data,                     \
       CK_ULONG_PTR data_len))                                                                                         \
    X(C_DecryptUpdate,                                                                                                 \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR encrypted, CK_ULONG encrypted_len, CK_BYTE_PTR part,                     \
       CK_ULONG_PTR part_len))                                                                                         \
    X(C_DecryptFinal, (CK_SESSION_HANDLE session, CK_BYTE_PTR last, CK_ULONG_PTR last_len))                            \
    X(C_DigestInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism))                                           \
    X(C_Digest,                                                                                                        \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR digest, CK_ULONG_PTR digest_len))   \
    X(C_DigestUpdate, (CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len))                                \
    X(C_DigestKey, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key))                                                  \
    X(C_DigestFinal, (CK_SESSION_HANDLE session, CK_BYTE_PTR digest, CK_ULONG_PTR digest_len))                         \
    X(C_SignInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key))                       \
    X(C_Sign,                                                                                                          \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,                          \
       CK_ULONG_PTR signature_len))                                                                                    \
    X(C_SignUpdate, (CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len))                                  \
    X(C_SignFinal, (CK_SESSION_HANDLE session, CK_BYTE_PTR signature, CK_ULONG_PTR signature_len))                     \
    X(C_SignRecoverInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key))                \
    X(C_SignRecover,                                                                                                   \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,                          \
       CK_ULONG_PTR signature_len))                                                                                    \
    X(C_VerifyInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key))                     \
    X(C_Verify,                                                                                                        \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,                          \
       CK_ULONG signature_len))                                                                                        \
    X(C_VerifyUpdate, (CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len))                                \
    X(C_VerifyFinal, (CK_SESSION_HANDLE session, CK_BYTE_PTR signature, CK_ULONG signature_len))                       \
    X(C_VerifyRecoverInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key))              \
    X(C_VerifyRecover,                                                                                                 \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR signature, CK_ULONG signature_len, CK_BYTE_PTR data,                     \
       CK_ULONG_PTR data_len))                                                                                         \
    X(C_DigestEncryptUpdate,                                                                                           \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len, CK_BYTE_PTR encrypted,                          \
       CK_ULONG_PTR encrypted_len))                                                                                    \
    X(C_DecryptDigestUpdate,                                                                                           \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR encrypted, CK_ULONG encrypted_len, CK_BYTE_PTR part,                     \
       CK_ULONG_PTR part_len))                                                                                         \
    X(C_SignEncryptUpdate,                                                                                             \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len, CK_BYTE_PTR encrypted,                          \
       CK_ULONG_PTR encrypted_len))                                                                                    \
    X(C_DecryptVerifyUpdate,                                                                                           \
      (CK_SESSION_HANDLE session, CK_BYTE_PTR encrypted, CK_ULONG encrypted_len, CK_BYTE_PTR part,                     \
       CK_ULONG_PTR part_len))                                                                                         \
    X(C_GenerateKey,                                                                                                   \
      (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_ATTRIBUTE_PTR template, CK_ULONG count,               \
       CK_OBJECT_HANDLE_PTR key))                                                                                      \
    X(C_GenerateKeyPair,                                                                                               \
      (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_ATTRIBUTE_PTR public_template,                        \
       CK_ULONG public_count, CK_ATTRIBUTE_PTR private_template, CK_ULONG private_count,                               \
       CK_OBJECT_HANDLE_PTR public_key, CK_OBJECT_HANDLE_PTR private_key))                                             \
    X(C_WrapKey,                                                                                                       \
      (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE wrapping_key, CK_OBJECT_HANDLE key,     \
       CK_BYTE_PTR wrapped, CK_ULONG_PTR wrapped_len))                                                                 \
    X(C_UnwrapKey,                                                                                                     \
      (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE unwrapping_key, CK_BYTE_PTR wrapped,    \
       CK_ULONG wrapped_len, CK_ATTRIBUTE_PTR template, CK_ULONG count, CK_OBJECT_HANDLE_PTR key))                     \
    X(C_DeriveKey,                                                                                                     \
      (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE base_key, CK_ATTRIBUTE_PTR template,    \
       CK_ULONG count, CK_OBJECT_HANDLE_PTR key))                                                                      \
    X(C_SeedRandom, (CK_SESSION_HANDLE session, CK_BYTE_PTR seed, CK_ULONG seed_len))                                  \
    X(C_GenerateRandom, (CK_SESSION_HANDLE session, CK_BYTE_PTR random, CK_ULONG random_len))                          \
    X(C_GetFunctionStatus, (CK_SESSION_HANDLE session))                                                                \
    X(C_CancelFunction, (CK_SESSION_HANDLE session))                                                                   \
    X(C_WaitForSlotEvent, (CK_FLAGS flags, CK_SLOT_ID_PTR slot, CK_VOID_PTR reserved))

/* What v3.0 adds, in the order of CK_FUNCTION_LIST_3_0; v3.1 has the same. */
#define CK_FUNCTIONS_3_0(X)                                                                                            \
    X(C_GetInterfaceList, (CK_INTERFACE_PTR interfaces, CK_ULONG_PTR count))                                           \
    X(C_GetInterface,                                                                                                  \
      (CK_UTF8CHAR_PTR name, CK_VERSION_PTR version, CK_INTERFACE_PTR_PTR interface, CK_FLAGS flags))                  \
    X(C_LoginUser,                                                                                                     \
      (CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len, CK_UTF8CHAR_PTR name,      \
       CK_ULONG name_len))                                                                                             \
    X(C_SessionCancel, (CK_SESSION_HANDLE session, CK_FLAGS flags))                                                    \
    X(C_MessageEncryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key))             \
    X(C_EncryptMessage,                                                                                                \
      (CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR aad, CK_ULONG aad_len,    \
       CK_BYTE_PTR plaintext, CK_ULONG plaintext_len, CK_BYTE_PTR ciphertext, CK_ULONG_PTR ciphertext_len))            \
    X(C_EncryptMessageBegin,                                                                                           \
      (CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR aad, CK_ULONG aad_len))   \
    X(C_EncryptMessageNext,                                                                                            \
      (CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR part, CK_ULONG part_len,  \
       CK_BYTE_PTR ciphertext, CK_ULONG_PTR ciphertext_len, CK_FLAGS flags))                                           \
    X(C_MessageEncryptFinal, (CK_SESSION_HANDLE session))                                                              \
    X(C_MessageDecryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key))             \
    X(C_DecryptMessage,                                                                                                \
      (CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR aad, CK_ULONG aad_len,    \
       CK_BYTE_PTR ciphertext, CK_ULONG ciphertext_len, CK_BYTE_PTR plaintext, CK_ULONG_PTR plaintext_len))            \
    X(C_DecryptMessageBegin,                                                                                           \
      (CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR aad, CK_ULONG aad_len))   \
    X(C_DecryptMessageNext,                                                                                            \
      (CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR part, CK_ULONG part_len,  \
       CK_BYTE_PTR plaintext, CK_ULONG_PTR plaintext_len, CK_FLAGS flags))                                             \
    X(C_MessageDecryptFinal, (CK_SESSION_HANDLE session))                                                              \
    X(C_MessageSignInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key))                \
    X(C_SignMessage,                                                                                                   \
      (CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR data, CK_ULONG data_len,  \
       CK_BYTE_PTR signature, CK_ULONG_PTR signature_len))                                                             \
    X(C_SignMessageBegin, (CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len))                  \
    X(C_SignMessageNext,                                                                                               \
      (CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR part, CK_ULONG part_len,  \
       CK_BYTE_PTR signature, CK_ULONG_PTR signature_len))                                                             \
    X(C_MessageSignFinal, (CK_SESSION_HANDLE session))                                                                 \
    X(C_MessageVerifyInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key))              \
    X(C_VerifyMessage,                                                                                                 \
      (CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR data, CK_ULONG data_len,  \
       CK_BYTE_PTR signature, CK_ULONG signature_len))                                                                 \
    X(C_VerifyMessageBegin, (CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len))                \
    X(C_VerifyMessageNext,                                                                                             \
      (CK_SESSION_HANDLE session, CK_VOID_PTR parameter, CK_ULONG parameter_len, CK_BYTE_PTR part, CK_ULONG part_len,  \
       CK_BYTE_PTR signature, CK_ULONG signature_len))                                                                 \
    X(C_MessageVerifyFinal, (CK_SESSION_HANDLE session))

/* What v3.2 adds, in the order of CK_FUNCTION_LIST_3_2. */
#define CK_FUNCTIONS_3_2(X)                                                                                            \
    X(C_EncapsulateKey,                                                                                                \
      (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE public_key, CK_ATTRIBUTE_PTR template,  \
       CK_ULONG count, CK_BYTE_PTR ciphertext, CK_ULONG_PTR ciphertext_len, CK_OBJECT_HANDLE_PTR key))                 \
    X(C_DecapsulateKey,                                                                                                \
      (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE private_key, CK_ATTRIBUTE_PTR template, \
       CK_ULONG count, CK_BYTE_PTR ciphertext, CK_ULONG ciphertext_len, CK_OBJECT_HANDLE_PTR key))                     \
    X(C_VerifySignatureInit,                                                                                           \
      (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key, CK_BYTE_PTR signature,             \
       CK_ULONG signature_len))                                                                                        \
    X(C_VerifySignature, (CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len))                             \
    X(C_VerifySignatureUpdate, (CK_SESSION_HANDLE session, CK_BYTE_PTR part, CK_ULONG part_len))                       \
    X(C_VerifySignatureFinal, (CK_SESSION_HANDLE session))                                                             \
    X(C_GetSessionValidationFlags,                                                                                     \
      (CK_SESSION_HANDLE session, CK_SESSION_VALIDATION_FLAGS_TYPE type, CK_FLAGS_PTR flags))                          \
    X(C_AsyncComplete, (CK_SESSION_HANDLE session, CK_UTF8CHAR_PTR function, CK_ASYNC_DATA_PTR result))                \
    X(C_AsyncGetID, (CK_SESSION_HANDLE session, CK_UTF8CHAR_PTR function, CK_ULONG_PTR id))                            \
    X(C_AsyncJoin,                                                                                                     \
      (CK_SESSION_HANDLE session, CK_UTF8CHAR_PTR function, CK_ULONG id, CK_BYTE_PTR data, CK_ULONG data_len))         \
    X(C_WrapKeyAuthenticated,                                                                                          \
      (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE wrapping_key, CK_OBJECT_HANDLE key,     \
       CK_BYTE_PTR aad, CK_ULONG aad_len, CK_BYTE_PTR wrapped, CK_ULONG_PTR wrapped_len))                              \
    X(C_UnwrapKeyAuthenticated,                                                                                        \
      (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE unwrapping_key, CK_BYTE_PTR wrapped,    \
       CK_ULONG wrapped_len, CK_ATTRIBUTE_PTR template, CK_ULONG count, CK_BYTE_PTR aad, CK_ULONG aad_len,             \
       CK_OBJECT_HANDLE_PTR key))

#define CK_DECLARE(name, parameters)                                                                                   \
    CK_RV name parameters;                                                                                             \
    typedef CK_RV(*CK_##name) parameters;
#define CK_MEMBER(name, parameters) CK_##name name;

CK_FUNCTIONS_2_40(CK_DECLARE)
CK_FUNCTIONS_3_0(CK_DECLARE)
CK_FUNCTIONS_3_2(CK_DECLARE)

struct CK_FUNCTION_LIST {
    CK_VERSION version;
    CK_FUNCTIONS_2_40(CK_MEMBER)
};

typedef struct CK_FUNCTION_LIST_3_0 {
    CK_VERSION version;
    CK_FUNCTIONS_2_40(CK_MEMBER)
    CK_FUNCTIONS_3_0(CK_MEMBER)
} CK_FUNCTION_LIST_3_0;

typedef struct CK_FUNCTION_LIST_3_2 {
    CK_VERSION version;
    CK_FUNCTIONS_2_40(CK_MEMBER)
    CK_FUNCTIONS_3_0(CK_MEMBER)
    CK_FUNCTIONS_3_2(CK_MEMBER)
} CK_FUNCTION_LIST_3_2;

#endif
