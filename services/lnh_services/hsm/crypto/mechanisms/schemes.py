"""The functions of each scheme: a mechanism whose row names the scheme is carried out by them.

What a mechanism is for, with which keys and parameters, is its row in `lnh_common.pkcs11.mechanisms`. A scheme without
a function for a use of a row does not serve that use; `docs/mechanisms.md` lists such uses. What generates keys has a
function for each type of key in `lnh_services.hsm.objects.generate`.
"""

from __future__ import annotations

from typing import Final

from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Scheme, Use
from lnh_services.hsm.crypto.mechanisms import (
    aes,
    chacha,
    derivation,
    digest,
    ecdsa,
    eddsa,
    keywrap,
    mac,
    mldsa,
    rsa,
    running,
)
from lnh_services.hsm.crypto.mechanisms.base import Implementation

_S = Scheme

SCHEMES: Final[dict[Scheme, Implementation]] = {
    _S.RSA_PKCS1: Implementation(
        sign=rsa.sign_raw, verify=rsa.verify_raw, encrypt=rsa.encrypt_pkcs1, decrypt=rsa.decrypt_pkcs1
    ),
    _S.RSA_PKCS1_HASHED: Implementation(sign=rsa.sign_hashed, verify=rsa.verify_hashed),
    _S.RSA_PSS: Implementation(sign=rsa.sign_pss, verify=rsa.verify_pss),
    _S.RSA_OAEP: Implementation(
        encrypt=rsa.encrypt_oaep, decrypt=rsa.decrypt_oaep, wrap=keywrap.wrap_oaep, unwrap=keywrap.unwrap_oaep
    ),
    _S.RSA_AES_KEY_WRAP: Implementation(wrap=keywrap.wrap_rsa_aes, unwrap=keywrap.unwrap_rsa_aes),
    _S.KEY_WRAP: Implementation(wrap=keywrap.wrap_aes, unwrap=keywrap.unwrap_aes),
    _S.KEY_WRAP_PAD: Implementation(wrap=keywrap.wrap_aes_pad, unwrap=keywrap.unwrap_aes_pad),
    _S.ECDH: Implementation(derive=derivation.derive_ecdh),
    _S.HKDF: Implementation(derive=derivation.derive_hkdf),
    _S.COUNTER_KDF: Implementation(derive=derivation.derive_counter),
    _S.ML_KEM: Implementation(encapsulate=derivation.encapsulate, decapsulate=derivation.decapsulate),
    _S.ECDSA: Implementation(sign=ecdsa.sign, verify=ecdsa.verify),
    _S.EDDSA: Implementation(sign=eddsa.sign, verify=eddsa.verify),
    _S.ML_DSA: Implementation(sign=mldsa.sign, verify=mldsa.verify),
    _S.HMAC: Implementation(sign=mac.sign_hmac, verify=mac.verify_hmac, accumulate=running.hmac),
    _S.CMAC: Implementation(sign=mac.sign_cmac, verify=mac.verify_cmac, accumulate=running.cmac),
    _S.GCM: Implementation(encrypt=aes.encrypt_gcm, decrypt=aes.decrypt_gcm, cipher=running.gcm),
    _S.CBC: Implementation(encrypt=aes.encrypt_cbc, decrypt=aes.decrypt_cbc, cipher=running.cbc),
    _S.CBC_PAD: Implementation(encrypt=aes.encrypt_cbc_pad, decrypt=aes.decrypt_cbc_pad, cipher=running.cbc_pad),
    _S.CTR: Implementation(encrypt=aes.encrypt_ctr, decrypt=aes.decrypt_ctr, cipher=running.ctr),
    _S.ECB: Implementation(encrypt=aes.encrypt_ecb, decrypt=aes.decrypt_ecb, cipher=running.ecb),
    _S.CHACHA20_POLY1305: Implementation(encrypt=chacha.encrypt, decrypt=chacha.decrypt),
    _S.DIGEST: Implementation(digest=digest.digest, accumulate=running.digest),
}
_NOTHING: Final = Implementation()


def implementation(mechanism: Mechanism) -> Implementation:
    """Find the functions that carry a mechanism out."""
    return SCHEMES.get(MECHANISM_RULES[mechanism].scheme, _NOTHING)


def served(mechanism: Mechanism) -> frozenset[Use]:
    """Return the uses of a mechanism that its scheme carries out."""
    functions = implementation(mechanism)
    uses = MECHANISM_RULES[mechanism].uses
    return frozenset(use for use in uses if getattr(functions, use.name.lower(), None) is not None)
