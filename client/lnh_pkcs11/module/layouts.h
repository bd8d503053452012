/* Written by `python -m lnh_pkcs11.generate` from layouts.py, which explains it. */
#ifndef LNH_LAYOUTS_H
#define LNH_LAYOUTS_H

#define LNH_RAW 0xff
#define LNH_NO_MECHANISM 0xffffffffUL
#define LNH_DEPTH 4

enum lnh_field_kind {
    LNH_FIELD_ULONG, /* CK_ULONG, 8 bytes */
    LNH_FIELD_BOOL, /* CK_BBOOL, 1 byte */
    LNH_FIELD_INLINE, /* an array in the struct: length (4), bytes */
    LNH_FIELD_BYTES, /* a pointer, and a length in bytes: length (4; 0xffffffff for NULL), bytes */
    LNH_FIELD_BITS, /* a pointer, and a length in bits: as bytes */
    LNH_FIELD_FIXED, /* a pointer to `size` bytes: as bytes */
    LNH_FIELD_STRUCT, /* a pointer to one struct: 1 and its fields, or 0 for NULL */
    LNH_FIELD_ARRAY, /* a pointer to structs, and their count: count (4), and the fields of each */
};

/* length: offset of the member with the length or count; layout: index of what is pointed to, or -1. */
struct lnh_field {
    enum lnh_field_kind kind;
    size_t offset, length, size;
    int layout, comes_back;
};

/* A struct of `size` bytes, `fields` of which travel, from lnh_fields[first] on. */
struct lnh_layout {
    size_t size, first, fields;
};

struct lnh_CK_RSA_PKCS_PSS_PARAMS {
    CK_ULONG hashAlg;
    CK_ULONG mgf;
    CK_ULONG sLen;
};

struct lnh_CK_RSA_PKCS_OAEP_PARAMS {
    CK_ULONG hashAlg;
    CK_ULONG mgf;
    CK_ULONG source;
    CK_BYTE_PTR pSourceData;
    CK_ULONG ulSourceDataLen;
};

struct lnh_CK_RSA_AES_KEY_WRAP_PARAMS {
    CK_ULONG ulAESKeyBits;
    void * pOAEPParams;
};

struct lnh_CK_MAC_GENERAL_PARAMS {
    CK_ULONG value;
};

struct lnh_IV {
    CK_BYTE iv[16];
};

struct lnh_CK_AES_CTR_PARAMS {
    CK_ULONG ulCounterBits;
    CK_BYTE cb[16];
};

struct lnh_CK_GCM_PARAMS {
    CK_BYTE_PTR pIv;
    CK_ULONG ulIvLen;
    CK_ULONG ulIvBits;
    CK_BYTE_PTR pAAD;
    CK_ULONG ulAADLen;
    CK_ULONG ulTagBits;
};

struct lnh_CK_GCM_PARAMS_2_20 {
    CK_BYTE_PTR pIv;
    CK_ULONG ulIvLen;
    CK_BYTE_PTR pAAD;
    CK_ULONG ulAADLen;
    CK_ULONG ulTagBits;
};

struct lnh_CK_SALSA20_CHACHA20_POLY1305_PARAMS {
    CK_BYTE_PTR pNonce;
    CK_ULONG ulNonceLen;
    CK_BYTE_PTR pAAD;
    CK_ULONG ulAADLen;
};

struct lnh_CK_ECDH1_DERIVE_PARAMS {
    CK_ULONG kdf;
    CK_ULONG ulSharedDataLen;
    CK_BYTE_PTR pSharedData;
    CK_ULONG ulPublicDataLen;
    CK_BYTE_PTR pPublicData;
};

struct lnh_CK_HKDF_PARAMS {
    CK_BBOOL bExtract;
    CK_BBOOL bExpand;
    CK_ULONG prfHashMechanism;
    CK_ULONG ulSaltType;
    CK_BYTE_PTR pSalt;
    CK_ULONG ulSaltLen;
    CK_ULONG hSaltKey;
    CK_BYTE_PTR pInfo;
    CK_ULONG ulInfoLen;
};

struct lnh_CK_PRF_DATA_PARAM {
    CK_ULONG type;
    CK_BYTE_PTR pValue;
    CK_ULONG ulValueLen;
};

struct lnh_CK_SP800_108_KDF_PARAMS {
    CK_ULONG prfType;
    CK_ULONG ulNumberOfDataParams;
    void * pDataParams;
    CK_ULONG ulAdditionalDerivedKeys;
    void * pAdditionalDerivedKeys;
};

struct lnh_CK_EDDSA_PARAMS {
    CK_BBOOL phFlag;
    CK_ULONG ulContextDataLen;
    CK_BYTE_PTR pContextData;
};

struct lnh_CK_SIGN_ADDITIONAL_CONTEXT {
    CK_ULONG hedgeVariant;
    CK_BYTE_PTR pContext;
    CK_ULONG ulContextLen;
};

struct lnh_CK_GCM_MESSAGE_PARAMS {
    CK_BYTE_PTR pIv;
    CK_ULONG ulIvLen;
    CK_ULONG ulIvFixedBits;
    CK_ULONG ivGenerator;
    CK_BYTE_PTR pTag;
    CK_ULONG ulTagBits;
};

struct lnh_CK_SALSA20_CHACHA20_POLY1305_MSG_PARAMS {
    CK_BYTE_PTR pNonce;
    CK_ULONG ulNonceLen;
    CK_BYTE_PTR pTag;
};

static const struct lnh_field lnh_fields[] = {
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_RSA_PKCS_PSS_PARAMS, hashAlg), 0, 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_RSA_PKCS_PSS_PARAMS, mgf), 0, 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_RSA_PKCS_PSS_PARAMS, sLen), 0, 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_RSA_PKCS_OAEP_PARAMS, hashAlg), 0, 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_RSA_PKCS_OAEP_PARAMS, mgf), 0, 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_RSA_PKCS_OAEP_PARAMS, source), 0, 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_RSA_PKCS_OAEP_PARAMS, pSourceData), offsetof(struct lnh_CK_RSA_PKCS_OAEP_PARAMS, ulSourceDataLen), 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_RSA_AES_KEY_WRAP_PARAMS, ulAESKeyBits), 0, 0, -1, 0},
    {LNH_FIELD_STRUCT, offsetof(struct lnh_CK_RSA_AES_KEY_WRAP_PARAMS, pOAEPParams), 0, 0, 1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_MAC_GENERAL_PARAMS, value), 0, 0, -1, 0},
    {LNH_FIELD_INLINE, offsetof(struct lnh_IV, iv), 0, 16, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_AES_CTR_PARAMS, ulCounterBits), 0, 0, -1, 0},
    {LNH_FIELD_INLINE, offsetof(struct lnh_CK_AES_CTR_PARAMS, cb), 0, 16, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_GCM_PARAMS, pIv), offsetof(struct lnh_CK_GCM_PARAMS, ulIvLen), 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_GCM_PARAMS, ulIvBits), 0, 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_GCM_PARAMS, pAAD), offsetof(struct lnh_CK_GCM_PARAMS, ulAADLen), 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_GCM_PARAMS, ulTagBits), 0, 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_GCM_PARAMS_2_20, pIv), offsetof(struct lnh_CK_GCM_PARAMS_2_20, ulIvLen), 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_GCM_PARAMS_2_20, pAAD), offsetof(struct lnh_CK_GCM_PARAMS_2_20, ulAADLen), 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_GCM_PARAMS_2_20, ulTagBits), 0, 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_SALSA20_CHACHA20_POLY1305_PARAMS, pNonce), offsetof(struct lnh_CK_SALSA20_CHACHA20_POLY1305_PARAMS, ulNonceLen), 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_SALSA20_CHACHA20_POLY1305_PARAMS, pAAD), offsetof(struct lnh_CK_SALSA20_CHACHA20_POLY1305_PARAMS, ulAADLen), 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_ECDH1_DERIVE_PARAMS, kdf), 0, 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_ECDH1_DERIVE_PARAMS, pSharedData), offsetof(struct lnh_CK_ECDH1_DERIVE_PARAMS, ulSharedDataLen), 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_ECDH1_DERIVE_PARAMS, pPublicData), offsetof(struct lnh_CK_ECDH1_DERIVE_PARAMS, ulPublicDataLen), 0, -1, 0},
    {LNH_FIELD_BOOL, offsetof(struct lnh_CK_HKDF_PARAMS, bExtract), 0, 0, -1, 0},
    {LNH_FIELD_BOOL, offsetof(struct lnh_CK_HKDF_PARAMS, bExpand), 0, 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_HKDF_PARAMS, prfHashMechanism), 0, 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_HKDF_PARAMS, ulSaltType), 0, 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_HKDF_PARAMS, pSalt), offsetof(struct lnh_CK_HKDF_PARAMS, ulSaltLen), 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_HKDF_PARAMS, hSaltKey), 0, 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_HKDF_PARAMS, pInfo), offsetof(struct lnh_CK_HKDF_PARAMS, ulInfoLen), 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_PRF_DATA_PARAM, type), 0, 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_PRF_DATA_PARAM, pValue), offsetof(struct lnh_CK_PRF_DATA_PARAM, ulValueLen), 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_SP800_108_KDF_PARAMS, prfType), 0, 0, -1, 0},
    {LNH_FIELD_ARRAY, offsetof(struct lnh_CK_SP800_108_KDF_PARAMS, pDataParams), offsetof(struct lnh_CK_SP800_108_KDF_PARAMS, ulNumberOfDataParams), 0, 11, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_SP800_108_KDF_PARAMS, ulAdditionalDerivedKeys), 0, 0, -1, 0},
    {LNH_FIELD_BOOL, offsetof(struct lnh_CK_EDDSA_PARAMS, phFlag), 0, 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_EDDSA_PARAMS, pContextData), offsetof(struct lnh_CK_EDDSA_PARAMS, ulContextDataLen), 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_SIGN_ADDITIONAL_CONTEXT, hedgeVariant), 0, 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_SIGN_ADDITIONAL_CONTEXT, pContext), offsetof(struct lnh_CK_SIGN_ADDITIONAL_CONTEXT, ulContextLen), 0, -1, 0},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_GCM_MESSAGE_PARAMS, pIv), offsetof(struct lnh_CK_GCM_MESSAGE_PARAMS, ulIvLen), 0, -1, 1},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_GCM_MESSAGE_PARAMS, ulIvFixedBits), 0, 0, -1, 0},
    {LNH_FIELD_ULONG, offsetof(struct lnh_CK_GCM_MESSAGE_PARAMS, ivGenerator), 0, 0, -1, 0},
    {LNH_FIELD_BITS, offsetof(struct lnh_CK_GCM_MESSAGE_PARAMS, pTag), offsetof(struct lnh_CK_GCM_MESSAGE_PARAMS, ulTagBits), 0, -1, 1},
    {LNH_FIELD_BYTES, offsetof(struct lnh_CK_SALSA20_CHACHA20_POLY1305_MSG_PARAMS, pNonce), offsetof(struct lnh_CK_SALSA20_CHACHA20_POLY1305_MSG_PARAMS, ulNonceLen), 0, -1, 1},
    {LNH_FIELD_FIXED, offsetof(struct lnh_CK_SALSA20_CHACHA20_POLY1305_MSG_PARAMS, pTag), 0, 16, -1, 1},
};

static const struct lnh_layout lnh_layouts[] = {
    {sizeof(struct lnh_CK_RSA_PKCS_PSS_PARAMS), 0, 3}, /* CK_RSA_PKCS_PSS_PARAMS */
    {sizeof(struct lnh_CK_RSA_PKCS_OAEP_PARAMS), 3, 4}, /* CK_RSA_PKCS_OAEP_PARAMS */
    {sizeof(struct lnh_CK_RSA_AES_KEY_WRAP_PARAMS), 7, 2}, /* CK_RSA_AES_KEY_WRAP_PARAMS */
    {sizeof(struct lnh_CK_MAC_GENERAL_PARAMS), 9, 1}, /* CK_MAC_GENERAL_PARAMS */
    {sizeof(struct lnh_IV), 10, 1}, /* IV */
    {sizeof(struct lnh_CK_AES_CTR_PARAMS), 11, 2}, /* CK_AES_CTR_PARAMS */
    {sizeof(struct lnh_CK_GCM_PARAMS), 13, 4}, /* CK_GCM_PARAMS */
    {sizeof(struct lnh_CK_GCM_PARAMS_2_20), 17, 3}, /* CK_GCM_PARAMS_2_20 */
    {sizeof(struct lnh_CK_SALSA20_CHACHA20_POLY1305_PARAMS), 20, 2}, /* CK_SALSA20_CHACHA20_POLY1305_PARAMS */
    {sizeof(struct lnh_CK_ECDH1_DERIVE_PARAMS), 22, 3}, /* CK_ECDH1_DERIVE_PARAMS */
    {sizeof(struct lnh_CK_HKDF_PARAMS), 25, 7}, /* CK_HKDF_PARAMS */
    {sizeof(struct lnh_CK_PRF_DATA_PARAM), 32, 2}, /* CK_PRF_DATA_PARAM */
    {sizeof(struct lnh_CK_SP800_108_KDF_PARAMS), 34, 3}, /* CK_SP800_108_KDF_PARAMS */
    {sizeof(struct lnh_CK_EDDSA_PARAMS), 37, 2}, /* CK_EDDSA_PARAMS */
    {sizeof(struct lnh_CK_SIGN_ADDITIONAL_CONTEXT), 39, 2}, /* CK_SIGN_ADDITIONAL_CONTEXT */
    {sizeof(struct lnh_CK_GCM_MESSAGE_PARAMS), 41, 4}, /* CK_GCM_MESSAGE_PARAMS */
    {sizeof(struct lnh_CK_SALSA20_CHACHA20_POLY1305_MSG_PARAMS), 45, 2}, /* CK_SALSA20_CHACHA20_POLY1305_MSG_PARAMS */
};

/* The structs that a mechanism's parameters may be, in order, numbered from 1 on. */
struct lnh_mechanism {
    CK_ULONG type;
    int layout;
};

static const struct lnh_mechanism lnh_mechanisms[] = {
    {0x000dUL, 0}, /* RSA_PKCS_PSS */
    {0x0043UL, 0}, /* SHA256_RSA_PKCS_PSS */
    {0x0044UL, 0}, /* SHA384_RSA_PKCS_PSS */
    {0x0045UL, 0}, /* SHA512_RSA_PKCS_PSS */
    {0x0009UL, 1}, /* RSA_PKCS_OAEP */
    {0x1054UL, 2}, /* RSA_AES_KEY_WRAP */
    {0x0252UL, 3}, /* SHA256_HMAC_GENERAL */
    {0x0262UL, 3}, /* SHA384_HMAC_GENERAL */
    {0x0272UL, 3}, /* SHA512_HMAC_GENERAL */
    {0x1082UL, 4}, /* AES_CBC */
    {0x1085UL, 4}, /* AES_CBC_PAD */
    {0x1086UL, 5}, /* AES_CTR */
    {0x1087UL, 6}, /* AES_GCM */
    {0x1087UL, 7}, /* AES_GCM */
    {0x4021UL, 8}, /* CHACHA20_POLY1305 */
    {0x1050UL, 9}, /* ECDH1_DERIVE */
    {0x402aUL, 10}, /* HKDF_DERIVE */
    {0x03acUL, 12}, /* SP800_108_COUNTER_KDF */
    {0x1057UL, 13}, /* EDDSA */
    {0x001dUL, 14}, /* ML_DSA */
};

/* Those that a message's parameters may be, the same way. */
static const int lnh_message_layouts[] = {15, 16};

enum lnh_value_kind {
    LNH_VALUE_BYTES, /* length (4; 0xffffffff where only the length is told), bytes; numbers as the machine has them */
    LNH_VALUE_BYTE, /* 1 byte */
    LNH_VALUE_ULONG, /* 8 bytes */
    LNH_VALUE_DATE, /* CK_DATE, or nothing: as bytes */
    LNH_VALUE_MECHANISMS, /* count (4), 8 bytes each */
    LNH_VALUE_TEMPLATE, /* attributes: as aA */
};

/* The kinds of attributes' values; what has no row is bytes. */
struct lnh_value {
    CK_ULONG type;
    enum lnh_value_kind kind;
};

static const struct lnh_value lnh_values[] = {
    {0x0UL, LNH_VALUE_ULONG},
    {0x1UL, LNH_VALUE_BYTE},
    {0x2UL, LNH_VALUE_BYTE},
    {0x80UL, LNH_VALUE_ULONG},
    {0x86UL, LNH_VALUE_BYTE},
    {0x87UL, LNH_VALUE_ULONG},
    {0x88UL, LNH_VALUE_ULONG},
    {0x100UL, LNH_VALUE_ULONG},
    {0x103UL, LNH_VALUE_BYTE},
    {0x104UL, LNH_VALUE_BYTE},
    {0x105UL, LNH_VALUE_BYTE},
    {0x106UL, LNH_VALUE_BYTE},
    {0x107UL, LNH_VALUE_BYTE},
    {0x108UL, LNH_VALUE_BYTE},
    {0x109UL, LNH_VALUE_BYTE},
    {0x10aUL, LNH_VALUE_BYTE},
    {0x10bUL, LNH_VALUE_BYTE},
    {0x10cUL, LNH_VALUE_BYTE},
    {0x110UL, LNH_VALUE_DATE},
    {0x111UL, LNH_VALUE_DATE},
    {0x121UL, LNH_VALUE_ULONG},
    {0x133UL, LNH_VALUE_ULONG},
    {0x134UL, LNH_VALUE_ULONG},
    {0x160UL, LNH_VALUE_ULONG},
    {0x161UL, LNH_VALUE_ULONG},
    {0x162UL, LNH_VALUE_BYTE},
    {0x163UL, LNH_VALUE_BYTE},
    {0x164UL, LNH_VALUE_BYTE},
    {0x165UL, LNH_VALUE_BYTE},
    {0x166UL, LNH_VALUE_ULONG},
    {0x170UL, LNH_VALUE_BYTE},
    {0x171UL, LNH_VALUE_BYTE},
    {0x200UL, LNH_VALUE_BYTE},
    {0x201UL, LNH_VALUE_ULONG},
    {0x202UL, LNH_VALUE_BYTE},
    {0x210UL, LNH_VALUE_BYTE},
    {0x300UL, LNH_VALUE_ULONG},
    {0x301UL, LNH_VALUE_BYTE},
    {0x302UL, LNH_VALUE_BYTE},
    {0x400UL, LNH_VALUE_ULONG},
    {0x401UL, LNH_VALUE_ULONG},
    {0x402UL, LNH_VALUE_ULONG},
    {0x403UL, LNH_VALUE_ULONG},
    {0x404UL, LNH_VALUE_ULONG},
    {0x405UL, LNH_VALUE_BYTE},
    {0x406UL, LNH_VALUE_ULONG},
    {0x500UL, LNH_VALUE_ULONG},
    {0x40000211UL, LNH_VALUE_TEMPLATE},
    {0x40000212UL, LNH_VALUE_TEMPLATE},
    {0x40000213UL, LNH_VALUE_TEMPLATE},
    {0x40000600UL, LNH_VALUE_MECHANISMS},
};

#endif
