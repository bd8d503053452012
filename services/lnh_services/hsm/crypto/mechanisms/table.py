"""The table of mechanisms this HSM carries out: adding one is a row here and a function beside it.

What a mechanism is for, with which keys and parameters, is its rule in `lnh_common.pkcs11.mechanisms`. A rule
without a row is not served; `docs/mechanisms.md` lists both.
"""

from __future__ import annotations

from typing import Final

from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_services.hsm.crypto.mechanisms import aes, chacha, digest, ecdsa, eddsa, mac, mldsa, rsa
from lnh_services.hsm.crypto.mechanisms.base import Implementation

_M = Mechanism
_RSA_HASHED = Implementation(sign=rsa.sign_hashed, verify=rsa.verify_hashed)
_RSA_PSS = Implementation(sign=rsa.sign_pss, verify=rsa.verify_pss)
_ECDSA = Implementation(sign=ecdsa.sign, verify=ecdsa.verify)
_HMAC = Implementation(sign=mac.sign_hmac, verify=mac.verify_hmac)
_DIGEST = Implementation(digest=digest.digest)

MECHANISMS: Final[dict[Mechanism, Implementation]] = {
    _M.RSA_PKCS: Implementation(
        sign=rsa.sign_raw, verify=rsa.verify_raw, encrypt=rsa.encrypt_pkcs1, decrypt=rsa.decrypt_pkcs1
    ),
    _M.SHA256_RSA_PKCS: _RSA_HASHED,
    _M.SHA384_RSA_PKCS: _RSA_HASHED,
    _M.SHA512_RSA_PKCS: _RSA_HASHED,
    _M.RSA_PKCS_PSS: _RSA_PSS,
    _M.SHA256_RSA_PKCS_PSS: _RSA_PSS,
    _M.SHA384_RSA_PKCS_PSS: _RSA_PSS,
    _M.SHA512_RSA_PKCS_PSS: _RSA_PSS,
    _M.RSA_PKCS_OAEP: Implementation(encrypt=rsa.encrypt_oaep, decrypt=rsa.decrypt_oaep),
    _M.ECDSA: _ECDSA,
    _M.ECDSA_SHA256: _ECDSA,
    _M.ECDSA_SHA384: _ECDSA,
    _M.ECDSA_SHA512: _ECDSA,
    _M.EDDSA: Implementation(sign=eddsa.sign, verify=eddsa.verify),
    _M.ML_DSA: Implementation(sign=mldsa.sign, verify=mldsa.verify),
    _M.SHA256_HMAC: _HMAC,
    _M.SHA384_HMAC: _HMAC,
    _M.SHA512_HMAC: _HMAC,
    _M.SHA256_HMAC_GENERAL: _HMAC,
    _M.SHA384_HMAC_GENERAL: _HMAC,
    _M.SHA512_HMAC_GENERAL: _HMAC,
    _M.AES_CMAC: Implementation(sign=mac.sign_cmac, verify=mac.verify_cmac),
    _M.AES_GCM: Implementation(encrypt=aes.encrypt_gcm, decrypt=aes.decrypt_gcm),
    _M.AES_CBC: Implementation(encrypt=aes.encrypt_cbc, decrypt=aes.decrypt_cbc),
    _M.AES_CBC_PAD: Implementation(encrypt=aes.encrypt_cbc_pad, decrypt=aes.decrypt_cbc_pad),
    _M.AES_CTR: Implementation(encrypt=aes.encrypt_ctr, decrypt=aes.decrypt_ctr),
    _M.AES_ECB: Implementation(encrypt=aes.encrypt_ecb, decrypt=aes.decrypt_ecb),
    _M.CHACHA20_POLY1305: Implementation(encrypt=chacha.encrypt, decrypt=chacha.decrypt),
    _M.SHA224: _DIGEST,
    _M.SHA256: _DIGEST,
    _M.SHA384: _DIGEST,
    _M.SHA512: _DIGEST,
    _M.SHA3_224: _DIGEST,
    _M.SHA3_256: _DIGEST,
    _M.SHA3_384: _DIGEST,
    _M.SHA3_512: _DIGEST,
}
