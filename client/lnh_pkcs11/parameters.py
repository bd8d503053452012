"""Reads the parameters of mechanisms from the structs that were given, into those of the product. Pure.

What a struct says and the product does not do is refused by name, never left out: a key that was derived otherwise than
it was asked for would be found out late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from lnh_common import limits
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import AES_BLOCK, GCM_TAG_BITS, Hash
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism
from lnh_common.pkcs11.parameters import (
    AeadParameters,
    CounterParameters,
    EcdhParameters,
    GcmParameters,
    HkdfParameters,
    IvParameters,
    Kdf,
    MacParameters,
    MldsaParameters,
    OaepParameters,
    PssParameters,
)
from lnh_pkcs11 import layouts, numbers
from lnh_pkcs11.fields import Given
from lnh_pkcs11.numbers import CKR
from lnh_pkcs11.refusals import Refused

_M = Mechanism
_WRAPPED_AES_BITS: Final = 256  # of the key that RSA_AES_KEY_WRAP draws


def _wrong(why: str) -> Refused:
    return Refused(CKR.MECHANISM_PARAM_INVALID, why)


def mechanism_of(given: Given) -> Mechanism:
    """Return the mechanism that was given; raises Refused for one that the product does not have."""
    mechanism = numbers.MECHANISMS.get(given.type)
    if mechanism is None:
        raise Refused(CKR.MECHANISM_INVALID, f"mechanism {given.type:#x}")
    return mechanism


def read(given: Given) -> Message | None:
    """Read the parameters of a mechanism; None where it has none. Raises Refused."""
    mechanism = mechanism_of(given)
    if given.layout == layouts.RAW:
        raise _wrong(f"{mechanism.name}: parameters of another struct")
    reader = _READERS.get(mechanism)
    if reader is None:
        return None
    try:
        return reader(mechanism, given.parameters)
    except KeyError as error:
        raise _wrong(f"{mechanism.name}: {error} is not known") from None


_Struct = dict[str, Any]


def _needed(mechanism: Mechanism, struct: _Struct | None) -> _Struct:
    if struct is None:
        raise _wrong(f"{mechanism.name} needs its parameters")
    return struct


def _pss(mechanism: Mechanism, struct: _Struct | None) -> Message:
    given = _needed(mechanism, struct)
    hash_ = numbers.HASHES[given["hashAlg"]]
    if numbers.MGFS[given["mgf"]] is not hash_:
        raise _wrong("MGF1 has the same hash")
    if MECHANISM_RULES[mechanism].hash not in {None, hash_}:
        raise _wrong(f"{mechanism.name} has another hash")
    return PssParameters(hash=hash_, salt_length=_bounded("sLen", given["sLen"], 1024))


def _bounded(name: str, number: int, most: int) -> int:
    if number > most:
        raise _wrong(f"{name} is {number}; at most {most}")
    return number


def _oaep(mechanism: Mechanism, struct: _Struct | None) -> OaepParameters:
    given = _needed(mechanism, struct)
    label = given["pSourceData"]
    if given["source"] not in {0, numbers.DATA_SPECIFIED} or (label and given["source"] == 0):
        raise _wrong("source is CKZ_DATA_SPECIFIED")
    hash_, mgf = numbers.HASHES[given["hashAlg"]], numbers.MGFS[given["mgf"]]
    return OaepParameters(hash=hash_, label=label, mgf=None if mgf is hash_ else mgf)


def _rsa_aes(mechanism: Mechanism, struct: _Struct | None) -> Message:
    given = _needed(mechanism, struct)
    if given["ulAESKeyBits"] != _WRAPPED_AES_BITS:
        raise _wrong(f"ulAESKeyBits is {given['ulAESKeyBits']}; the HSM draws a key of {_WRAPPED_AES_BITS}")
    return _oaep(mechanism, given["pOAEPParams"])


def _length(mechanism: Mechanism, struct: _Struct | None) -> Message:
    length = _needed(mechanism, struct)["value"]
    row = MECHANISM_RULES[mechanism]
    assert row.hash is not None, "a tag is of a hash"
    least, most = max(AES_BLOCK, row.hash.size // 2), row.hash.size
    if not least <= length <= most:
        raise _wrong(f"a tag of {length} bytes; {least} to {most}")
    return MacParameters(length=length)


def _iv(mechanism: Mechanism, struct: _Struct | None) -> Message | None:
    return IvParameters(iv=struct["iv"]) if struct else None


def _counter_block(mechanism: Mechanism, struct: _Struct | None) -> Message | None:
    if struct is None:
        return None
    if struct["ulCounterBits"] != AES_BLOCK * 8:
        raise _wrong(f"ulCounterBits is {struct['ulCounterBits']}; the whole block counts")
    return IvParameters(iv=struct["cb"])


def _gcm(mechanism: Mechanism, struct: _Struct | None) -> Message | None:
    if struct is None:
        return None
    if struct["ulTagBits"] != GCM_TAG_BITS:
        raise _wrong(f"ulTagBits is {struct['ulTagBits']}; tags have {GCM_TAG_BITS}")
    return GcmParameters(iv=_nonce(struct["pIv"]), aad=_aad(struct["pAAD"]))


def _chacha(mechanism: Mechanism, struct: _Struct | None) -> Message | None:
    return AeadParameters(iv=_nonce(struct["pNonce"]), aad=_aad(struct["pAAD"])) if struct else None


def _nonce(iv: bytes) -> bytes:
    if len(iv) not in {0, 12}:
        raise _wrong(f"an IV of {len(iv)} bytes; 12, or none for the HSM to draw it")
    return iv


def _aad(aad: bytes) -> bytes:
    if len(aad) > limits.AAD_BYTES:
        raise _wrong(f"associated data of {len(aad)} bytes; at most {limits.AAD_BYTES}")
    return aad


def message(mechanism: Mechanism, given: Given, aad: bytes, *, draws: bool) -> Message:
    """Read the parameters of one message of MessageEncrypt or MessageDecrypt; raises Refused.

    Args:
        draws: whether the HSM may draw the IV, as it may to encrypt.
    """
    struct = given.parameters
    is_gcm = mechanism is _M.AES_GCM
    if given.layout != (1 if is_gcm else 2) or struct is None:
        raise _wrong(f"{mechanism.name}: parameters of another struct")
    iv = struct["pIv" if is_gcm else "pNonce"]
    if len(iv) != MECHANISM_RULES[mechanism].iv_bytes:
        raise _wrong(f"an IV of {len(iv)} bytes; 12 are wanted")
    if len(struct["pTag"]) * 8 != GCM_TAG_BITS:
        raise _wrong(f"a tag of {len(struct['pTag']) * 8} bits; tags have {GCM_TAG_BITS}")
    if is_gcm and draws and struct["ivGenerator"] != numbers.NO_GENERATE:
        if struct["ulIvFixedBits"]:
            raise _wrong("ulIvFixedBits is 0: the HSM draws all of the IV")
        iv = b""
    return (GcmParameters if is_gcm else AeadParameters)(iv=iv, aad=_aad(aad))


def answered(given: Given, iv: bytes, tag: bytes) -> Given:
    """Return a message's parameters with the IV and the tag that came out."""
    assert given.parameters is not None, "it was read"
    name = "pIv" if "pIv" in given.parameters else "pNonce"
    return given._replace(parameters={**given.parameters, name: iv, "pTag": tag})


def _ecdh(mechanism: Mechanism, struct: _Struct | None) -> Message:
    given = _needed(mechanism, struct)
    public = given["pPublicData"]
    if given["kdf"] not in numbers.KDFS:
        raise _wrong(f"kdf {given['kdf']}: a raw agreement is no key; CKD_SHA256_KDF, SHA384 or SHA512")
    if not 32 <= len(public) <= 256:
        raise _wrong(f"a public key of {len(public)} bytes")
    info = _short("pSharedData", given["pSharedData"])
    return EcdhParameters(public_key=public, kdf=Kdf.X963, hash=numbers.KDFS[given["kdf"]], info=info)


def _short(name: str, value: bytes) -> bytes:
    if len(value) > 512:
        raise _wrong(f"{name} of {len(value)} bytes; at most 512")
    return value


def _hkdf(mechanism: Mechanism, struct: _Struct | None) -> Message:
    given = _needed(mechanism, struct)
    if not given["bExpand"]:
        raise _wrong("bExpand is true: what is extracted alone is no key")
    hash_ = numbers.HASHES[given["prfHashMechanism"]]
    salt = given["pSalt"]
    if given["bExtract"] and given["ulSaltType"] not in {numbers.SALT_NULL, numbers.SALT_DATA}:
        raise _wrong("ulSaltType is CKF_HKDF_SALT_NULL or CKF_HKDF_SALT_DATA")
    if not given["bExtract"] or given["ulSaltType"] == numbers.SALT_NULL:
        salt = b""
    return HkdfParameters(
        hash=hash_,
        info=_short("pInfo", given["pInfo"]),
        salt=_short("pSalt", salt),
        expand_only=not given["bExtract"],
    )


def _counter(mechanism: Mechanism, struct: _Struct | None) -> Message:
    """Read SP 800-108's data, which is the counter, label, a zero byte, context, and the length, in that order."""
    given = _needed(mechanism, struct)
    hash_: Hash | None = numbers.PRFS[given["prfType"]]
    if given["ulAdditionalDerivedKeys"]:
        raise _wrong("ulAdditionalDerivedKeys is 0: one key at a time")
    parts = given["pDataParams"]
    if len(parts) < 3 or parts[0]["type"] != numbers.ITERATION_VARIABLE or parts[-1]["type"] != numbers.DKM_LENGTH:
        raise _wrong("pDataParams: the counter comes first, and the length last")
    if any(each["type"] != numbers.BYTE_ARRAY for each in parts[1:-1]):
        raise _wrong("pDataParams: between counter and length are byte arrays")
    _check_width("counter", parts[0]["pValue"], before=())
    _check_width("length", parts[-1]["pValue"], before=(numbers.SUM_OF_KEYS,))
    label, zero, context = b"".join(each["pValue"] for each in parts[1:-1]).partition(b"\0")
    if not zero:
        raise _wrong("pDataParams: label and context have a zero byte between them")
    return CounterParameters(hash=hash_, label=_short("label", label), context=_short("context", context))


def _check_width(name: str, struct: bytes, before: tuple[int, ...]) -> None:
    """Check a CK_SP800_108_COUNTER_FORMAT or DKM_LENGTH_FORMAT, as bytes: a flag, 32 bits, big-endian."""
    size = len(struct) // (2 + len(before))
    words = [int.from_bytes(struct[at : at + size], "little") for at in range(0, len(struct), max(size, 1))]
    if size not in {4, 8} or tuple(words[: len(before)]) != before:
        raise _wrong(f"pDataParams: no struct of the {name}")
    if words[-2] & 0xFF or words[-1] != 32:
        raise _wrong(f"pDataParams: the {name} has 32 bits, most significant first")


def _eddsa(mechanism: Mechanism, struct: _Struct | None) -> None:
    if struct is not None and (struct["phFlag"] or struct["pContextData"]):
        raise _wrong("EDDSA: phFlag is false, and there is no context")


def _context(mechanism: Mechanism, struct: _Struct | None) -> Message | None:
    if struct is None:
        return None
    if struct["hedgeVariant"] == numbers.DETERMINISTIC_REQUIRED:
        raise _wrong("hedgeVariant: signatures are hedged")
    if len(struct["pContext"]) > 255:
        raise _wrong(f"a context of {len(struct['pContext'])} bytes; at most 255")
    return MldsaParameters(context=struct["pContext"])


_READERS: Final[dict[Mechanism, Callable[[Mechanism, _Struct | None], Message | None]]] = {
    _M.RSA_PKCS_PSS: _pss,
    _M.SHA256_RSA_PKCS_PSS: _pss,
    _M.SHA384_RSA_PKCS_PSS: _pss,
    _M.SHA512_RSA_PKCS_PSS: _pss,
    _M.RSA_PKCS_OAEP: _oaep,
    _M.RSA_AES_KEY_WRAP: _rsa_aes,
    _M.SHA256_HMAC_GENERAL: _length,
    _M.SHA384_HMAC_GENERAL: _length,
    _M.SHA512_HMAC_GENERAL: _length,
    _M.AES_CBC: _iv,
    _M.AES_CBC_PAD: _iv,
    _M.AES_CTR: _counter_block,
    _M.AES_GCM: _gcm,
    _M.CHACHA20_POLY1305: _chacha,
    _M.ECDH1_DERIVE: _ecdh,
    _M.HKDF_DERIVE: _hkdf,
    _M.SP800_108_COUNTER_KDF: _counter,
    _M.EDDSA: _eddsa,
    _M.ML_DSA: _context,
}
