"""Every mechanism against published vectors: Wycheproof's, also the malformed ones, and NIST's.

`VECTORS` says which mechanism is covered by which file of tests/data/vectors, a fixed sample (its README.md has the rule);
`ELSEWHERE` says for the others why there is none. A mechanism without a row fails.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x448, x25519
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lnh_common.errors import (
    EncryptedDataInvalid,
    KeySizeRange,
    KeyTypeInconsistent,
    MechanismParameterInvalid,
    SignatureInvalid,
    WrappedKeyInvalid,
)
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import Hash
from lnh_common.pkcs11.attributes import KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
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
    NoParameters,
    OaepParameters,
    PssParameters,
    pack_parameters,
)
from lnh_services.hsm.crypto.mechanisms import (
    IvSource,
    LoadedKey,
    Running,
    accumulator,
    cipher,
    decapsulator,
    decrypter,
    deriver,
    digester,
    encapsulator,
    encrypter,
    load,
    signer,
    unwrapper,
    verifier,
    wrapper,
)

Row = dict[str, Any]
Check = Callable[[Mechanism, Row, Row], None]
M = Mechanism
FOLDER: Final = Path(__file__).parents[3] / "data" / "vectors"
HASHLIB: Final = {Hash.SHA256: "sha256", Hash.SHA384: "sha384", Hash.SHA512: "sha512"}
CURVES: Final[dict[str, ec.EllipticCurve]] = {
    curve.name: curve
    for curve in (
        ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1(),
        ec.BrainpoolP256R1(), ec.BrainpoolP384R1(), ec.BrainpoolP512R1(),
    )
}  # fmt: skip
DIGEST_INFO: Final = {  # RFC 8017, 9.2, note 1
    "sha256": "3031300d060960864801650304020105000420",
    "sha384": "3041300d060960864801650304020205000430",
    "sha512": "3051300d060960864801650304020305000440",
}


def rows(file: str) -> list[Row]:
    read: list[Row] = json.loads((FOLDER / f"{file}.json").read_text())
    return read


def bytes_of(row: Row, name: str) -> bytes:
    return bytes.fromhex(row[name])


def secret(key_type: KeyType, value: bytes) -> LoadedKey:
    return load(key_type, ObjectClass.SECRET_KEY, value)


def public(key_type: KeyType, group: Row) -> LoadedKey:
    return load(key_type, ObjectClass.PUBLIC_KEY, bytes_of(group, "publicKeyDer"))


def private(key_type: KeyType, group: Row) -> LoadedKey:
    return load(key_type, ObjectClass.PRIVATE_KEY, bytes_of(group, "privateKeyPkcs8"))


def hash_of(group: Row) -> Hash:
    return Hash(group["sha"])


def hashed(group: Row, data: bytes) -> bytes:
    return hashlib.new(HASHLIB[hash_of(group)], data).digest()


# What NIST defines over an agreed secret or a key, written out; held to NIST's own values below.


def x963(hash_: Hash, agreed: bytes, info: bytes, length: int) -> bytes:
    blocks = range(1, length // hash_.size + 2)
    return b"".join(
        hashlib.new(HASHLIB[hash_], agreed + number.to_bytes(4, "big") + info).digest() for number in blocks
    )[:length]


def hkdf(hash_: Hash, base: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    name = HASHLIB[hash_]
    extracted = hmac.digest(salt or bytes(hash_.size), base, name)
    whole, block = b"", b""
    for number in range(1, length // hash_.size + 2):
        block = hmac.digest(extracted, block + info + bytes([number]), name)
        whole += block
    return whole[:length]


def counter_kdf(hash_: Hash | None, base: bytes, fixed: bytes, length: int) -> bytes:
    def prf(data: bytes) -> bytes:
        if hash_ is not None:
            return hmac.digest(base, data, HASHLIB[hash_])
        mac = CMAC(algorithms.AES(base))
        mac.update(data)
        return mac.finalize()

    blocks = range(1, length // (hash_.size if hash_ else 16) + 2)
    return b"".join(prf(number.to_bytes(4, "big") + fixed) for number in blocks)[:length]


# Checks: one case of a file each.


def in_parts(running: Running, data: bytes) -> bytes:
    """What a mechanism gives that takes its data in parts, of a size that fits no block."""
    given = [running.update(data[at : at + 7]) for at in range(0, len(data), 7)]
    return b"".join([*given, running.finish()])


def encrypted(
    mechanism: Mechanism, key: LoadedKey, parameters: bytes, message: bytes, sealed: bytes, *, valid: bool = True
) -> None:
    """Encrypt and decrypt at once, and in parts where the mechanism takes them; the malformed is refused both ways."""
    streams = MECHANISM_RULES[mechanism].streams
    if not valid:
        with pytest.raises(EncryptedDataInvalid):
            decrypter(mechanism, key, parameters)(sealed)
        if streams:
            with pytest.raises(EncryptedDataInvalid):
                in_parts(cipher(mechanism, Use.DECRYPT, key, IvSource(), parameters)[1], sealed)
        return
    assert decrypter(mechanism, key, parameters)(sealed) == message
    assert encrypter(mechanism, key, IvSource(), parameters, caller_ivs=True)(message).data == sealed
    if streams:
        assert in_parts(cipher(mechanism, Use.DECRYPT, key, IvSource(), parameters)[1], sealed) == message
        _, running = cipher(mechanism, Use.ENCRYPT, key, IvSource(), parameters, caller_ivs=True)
        assert in_parts(running, message) == sealed


def aead(mechanism: Mechanism, group: Row, case: Row) -> None:
    kind, key_type = (GcmParameters, KeyType.AES) if mechanism is M.AES_GCM else (AeadParameters, KeyType.CHACHA20)
    parameters = pack_parameters(kind(iv=bytes_of(case, "iv"), aad=bytes_of(case, "aad")))
    sealed, key = bytes_of(case, "ct") + bytes_of(case, "tag"), secret(key_type, bytes_of(case, "key"))
    encrypted(mechanism, key, parameters, bytes_of(case, "msg"), sealed, valid=case["result"] == "valid")


def cbc_pad(mechanism: Mechanism, group: Row, case: Row) -> None:
    key, parameters = secret(KeyType.AES, bytes_of(case, "key")), IvParameters(iv=bytes_of(case, "iv"))
    message, sealed = bytes_of(case, "msg"), bytes_of(case, "ct")
    encrypted(mechanism, key, pack_parameters(parameters), message, sealed, valid=case["result"] == "valid")


def blocks(mechanism: Mechanism, group: Row, case: Row) -> None:
    key = secret(KeyType.AES, bytes_of(case, "KEY"))
    parameters = pack_parameters(NoParameters() if mechanism is M.AES_ECB else IvParameters(iv=bytes_of(case, "IV")))
    encrypted(mechanism, key, parameters, bytes_of(case, "PLAINTEXT"), bytes_of(case, "CIPHERTEXT"))


def mac(mechanism: Mechanism, group: Row, case: Row) -> None:
    rule = MECHANISM_RULES[mechanism]
    length = group["tagSize"] // 8
    if rule.parameters is NoParameters and length != (rule.hash.size if rule.hash else 16):
        return  # the truncated one takes it
    key = secret(next(iter(rule.key_types)), bytes_of(case, "key"))
    parameters = b"" if rule.parameters is NoParameters else pack_parameters(MacParameters(length=length))
    message, tag = bytes_of(case, "msg"), bytes_of(case, "tag")
    if case["result"] == "invalid":
        with pytest.raises(SignatureInvalid):
            verifier(mechanism, key, parameters)(message, tag)
        return
    verifier(mechanism, key, parameters)(message, tag)
    assert signer(mechanism, key, parameters)(message) == tag
    assert in_parts(accumulator(mechanism, Use.SIGN, key, parameters), message) == tag


def digest(mechanism: Mechanism, group: Row, case: Row) -> None:
    message = bytes_of(case, "MSG")[: int(case["LEN"]) // 8]
    assert digester(mechanism)(message) == bytes_of(case, "MD")
    assert in_parts(accumulator(mechanism, Use.DIGEST, None), message) == bytes_of(case, "MD")


def key_wrap(mechanism: Mechanism, group: Row, case: Row) -> None:
    key = secret(KeyType.AES, bytes_of(case, "key"))
    value, wrapped = bytes_of(case, "msg"), bytes_of(case, "ct")
    if case["result"] != "valid":
        with pytest.raises(WrappedKeyInvalid):
            unwrapper(mechanism, key)(wrapped)
        return
    assert wrapper(mechanism, key)(value) == wrapped
    assert unwrapper(mechanism, key)(wrapped) == value


def rsa_around_aes(mechanism: Mechanism, group: Row, case: Row) -> None:
    """RSA_AES_KEY_WRAP of a key-wrap vector: its key under OAEP, and after it what the vector wrapped."""
    parameters = pack_parameters(OaepParameters())
    inner = private(KeyType.RSA, rows("rsa_oaep_2048_sha256_mgf1sha256")[0])
    assert not isinstance(inner.material, bytes)
    info = inner.material.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[union-attr]
    outer = load(KeyType.RSA, ObjectClass.PUBLIC_KEY, info)
    sealed = encrypter(M.RSA_PKCS_OAEP, outer, IvSource(), parameters)(bytes_of(case, "key")).data
    unwrap = unwrapper(mechanism, inner, parameters)
    if case["result"] == "invalid":
        with pytest.raises(WrappedKeyInvalid):
            unwrap(sealed + bytes_of(case, "ct"))
        return
    assert unwrap(sealed + bytes_of(case, "ct")) == bytes_of(case, "msg")
    assert unwrap(wrapper(mechanism, outer, parameters)(bytes_of(case, "msg"))) == bytes_of(case, "msg")


def verified(mechanism: Mechanism, key: LoadedKey, parameters: Message | None, data: bytes, case: Row) -> None:
    verify = verifier(mechanism, key, pack_parameters(parameters))
    if case["result"] == "valid":
        verify(data, bytes_of(case, "sig"))
        return
    with pytest.raises(SignatureInvalid):
        verify(data, bytes_of(case, "sig"))


def rsa_pkcs1(mechanism: Mechanism, group: Row, case: Row) -> None:
    message, name = bytes_of(case, "msg"), HASHLIB[hash_of(group)]
    raw = bytes.fromhex(DIGEST_INFO[name]) + hashed(group, message)
    verified(mechanism, public(KeyType.RSA, group), None, raw if mechanism is M.RSA_PKCS else message, case)


def rsa_pss(mechanism: Mechanism, group: Row, case: Row) -> None:
    parameters, message = PssParameters(hash=hash_of(group), salt_length=group["sLen"]), bytes_of(case, "msg")
    data = hashed(group, message) if mechanism is M.RSA_PKCS_PSS else message
    verified(mechanism, public(KeyType.RSA, group), parameters, data, case)


def rsa_pkcs1_decrypt(mechanism: Mechanism, group: Row, case: Row) -> None:
    decrypt = decrypter(mechanism, private(KeyType.RSA, group))
    if case["result"] == "valid":
        assert decrypt(bytes_of(case, "ct")) == bytes_of(case, "msg")
    elif "InvalidPkcs1Padding" in case["flags"]:
        # Noise, and always the same: an error, or another noise, would be the oracle.
        noise = decrypt(bytes_of(case, "ct"))
        assert noise == decrypt(bytes_of(case, "ct"))
        assert noise != bytes_of(case, "msg") or not noise
    else:
        with pytest.raises(EncryptedDataInvalid):
            decrypt(bytes_of(case, "ct"))


def rsa_oaep(mechanism: Mechanism, group: Row, case: Row) -> None:
    label, mask = bytes_of(case, "label"), Hash(group["mgfSha"])
    parameters = pack_parameters(OaepParameters(hash=hash_of(group), label=label, mgf=mask))
    key = private(KeyType.RSA, group)
    if case["result"] == "valid":
        assert decrypter(mechanism, key, parameters)(bytes_of(case, "ct")) == bytes_of(case, "msg")
        assert unwrapper(mechanism, key, parameters)(bytes_of(case, "ct")) == bytes_of(case, "msg")
        return
    with pytest.raises(EncryptedDataInvalid):
        decrypter(mechanism, key, parameters)(bytes_of(case, "ct"))
    with pytest.raises(WrappedKeyInvalid):
        unwrapper(mechanism, key, parameters)(bytes_of(case, "ct"))


def ecdsa(mechanism: Mechanism, group: Row, case: Row) -> None:
    message = bytes_of(case, "msg")
    data = hashed(group, message) if mechanism is M.ECDSA else message
    verified(mechanism, public(KeyType.EC, group), None, data, case)


def eddsa(mechanism: Mechanism, group: Row, case: Row) -> None:
    verified(mechanism, public(KeyType.EC_EDWARDS, group), None, bytes_of(case, "msg"), case)


def ml_dsa(mechanism: Mechanism, group: Row, case: Row) -> None:
    if "IncorrectPublicKeyLength" in case["flags"]:
        with pytest.raises(KeyTypeInconsistent):
            public(KeyType.ML_DSA, group)
        return
    context, key = bytes.fromhex(case.get("ctx", "")), public(KeyType.ML_DSA, group)
    if len(context) > 255:
        with pytest.raises(MechanismParameterInvalid):
            verifier(mechanism, key, pack_parameters(MldsaParameters(context=context)))
        return
    verified(mechanism, key, MldsaParameters(context=context), bytes_of(case, "msg"), case)


def derive_hkdf(mechanism: Mechanism, group: Row, case: Row) -> None:
    hash_, base, salt, info = group["hash"], bytes_of(case, "ikm"), bytes_of(case, "salt"), bytes_of(case, "info")
    derive = deriver(
        mechanism,
        secret(KeyType.GENERIC_SECRET, base),
        pack_parameters(HkdfParameters(hash=hash_, salt=salt, info=info)),
    )
    if case["result"] == "invalid":
        with pytest.raises(KeySizeRange):
            derive(case["size"])
        return
    assert derive(case["size"]) == bytes_of(case, "okm")
    extracted = secret(KeyType.GENERIC_SECRET, hmac.digest(salt or bytes(hash_.size), base, HASHLIB[hash_]))
    expand = pack_parameters(HkdfParameters(hash=hash_, info=info, expand_only=True))
    assert deriver(mechanism, extracted, expand)(case["size"]) == bytes_of(case, "okm")


def agreed(mechanism: Mechanism, key_type: KeyType, value: bytes, case: Row) -> None:
    """Agree, and derive by each key derivation; a point of small order or of no curve is refused."""
    key, point = load(key_type, ObjectClass.PRIVATE_KEY, value), bytes_of(case, "public")
    if case["result"] == "invalid" or "ZeroSharedSecret" in case["flags"]:
        with pytest.raises(MechanismParameterInvalid):
            deriver(mechanism, key, pack_parameters(EcdhParameters(public_key=point)))(32)
        return
    shared = bytes_of(case, "shared")
    for hash_ in (Hash.SHA256, Hash.SHA512):
        parameters = EcdhParameters(public_key=point, hash=hash_, info=b"info")
        assert deriver(mechanism, key, pack_parameters(parameters))(100) == x963(hash_, shared, b"info", 100)
    parameters = EcdhParameters(public_key=point, kdf=Kdf.HKDF, hash=Hash.SHA384, salt=b"salt", info=b"info")
    assert deriver(mechanism, key, pack_parameters(parameters))(100) == hkdf(Hash.SHA384, shared, b"salt", b"info", 100)


def ecdh(mechanism: Mechanism, group: Row, case: Row) -> None:
    key = ec.derive_private_key(int(case["private"], 16), CURVES[group["curve"]])
    agreed(mechanism, KeyType.EC, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), case)


def xdh(mechanism: Mechanism, group: Row, case: Row) -> None:
    kind = x25519.X25519PrivateKey if group["curve"] == "curve25519" else x448.X448PrivateKey
    key = kind.from_private_bytes(bytes_of(case, "private"))
    agreed(mechanism, KeyType.EC_MONTGOMERY, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), case)


def ml_kem(mechanism: Mechanism, group: Row, case: Row) -> None:
    kind = mlkem.MLKEM768PrivateKey if group["set"] == 768 else mlkem.MLKEM1024PrivateKey
    key = kind.from_seed_bytes(bytes_of(case, "seed"))
    inner = load(
        KeyType.ML_KEM,
        ObjectClass.PRIVATE_KEY,
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    )
    if case["result"] == "invalid":
        with pytest.raises(EncryptedDataInvalid):
            decapsulator(mechanism, inner)(bytes_of(case, "c"))
        return
    assert decapsulator(mechanism, inner)(bytes_of(case, "c")) == bytes_of(case, "K")
    info = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    made, ciphertext = encapsulator(mechanism, load(KeyType.ML_KEM, ObjectClass.PUBLIC_KEY, info))()
    assert decapsulator(mechanism, inner)(ciphertext) == made


def derive_counter(mechanism: Mechanism, group: Row, case: Row) -> None:
    """The counter KDF of NIST's keys; NIST's fixed input is opaque, so the value is of the KDF written out here."""
    prf, base = case["section"]["PRF"], bytes_of(case, "KI")
    hash_ = None if prf.startswith("CMAC") else Hash[prf.removeprefix("HMAC_")]
    fixed, length = bytes_of(case, "FIXEDINPUTDATA"), int(case["L"]) // 8
    assert counter_kdf(hash_, base, fixed, length) == bytes_of(case, "KO")
    key = secret(KeyType.GENERIC_SECRET if hash_ else KeyType.AES, base)
    derive = deriver(
        mechanism, key, pack_parameters(CounterParameters(hash=hash_, label=fixed[:20], context=fixed[20:]))
    )
    whole = fixed[:20] + b"\0" + fixed[20:] + (8 * length).to_bytes(4, "big")
    assert derive(length) == counter_kdf(hash_, base, whole, length)


def derive_x963(mechanism: Mechanism, group: Row, case: Row) -> None:
    """What `agreed` compares with is NIST's own KDF."""
    info = bytes_of(case, "SHAREDINFO")
    made = bytes_of(case, "KEY_DATA")
    assert x963(Hash(case["section"]["section"]), bytes_of(case, "Z"), info, len(made)) == made


@dataclass(frozen=True)
class Vectors:
    """A file of tests/data/vectors.

    Args:
        mechanisms: which it covers, each over every case.
        check: what a case must do.
        extra: what the file's name says of every group.
    """

    file: str
    mechanisms: tuple[Mechanism, ...]
    check: Check
    extra: tuple[tuple[str, object], ...] = ()


ECDSA_OF: Final = {"sha256": M.ECDSA_SHA256, "sha384": M.ECDSA_SHA384, "sha512": M.ECDSA_SHA512}
VECTORS: Final = (
    Vectors("aes_gcm", (M.AES_GCM,), aead),
    Vectors("chacha20_poly1305", (M.CHACHA20_POLY1305,), aead),
    Vectors("aes_cbc_pkcs5", (M.AES_CBC_PAD,), cbc_pad),
    Vectors("aes_cbc", (M.AES_CBC,), blocks),
    Vectors("aes_ctr", (M.AES_CTR,), blocks),
    Vectors("aes_ecb", (M.AES_ECB,), blocks),
    Vectors("aes_cmac", (M.AES_CMAC,), mac),
    Vectors("hmac_sha256", (M.SHA256_HMAC, M.SHA256_HMAC_GENERAL), mac),
    Vectors("hmac_sha384", (M.SHA384_HMAC, M.SHA384_HMAC_GENERAL), mac),
    Vectors("hmac_sha512", (M.SHA512_HMAC, M.SHA512_HMAC_GENERAL), mac),
    Vectors("aes_wrap", (M.AES_KEY_WRAP,), key_wrap),
    Vectors("aes_kwp", (M.AES_KEY_WRAP_PAD,), key_wrap),
    Vectors("aes_kwp", (M.RSA_AES_KEY_WRAP,), rsa_around_aes),
    *(Vectors(f"sha2_{bits}", (Mechanism[f"SHA{bits}"],), digest) for bits in (224, 256, 384, 512)),
    *(Vectors(f"sha3_{bits}", (Mechanism[f"SHA3_{bits}"],), digest) for bits in (224, 256, 384, 512)),
    *(
        Vectors(f"rsa_signature_2048_sha{bits}", (Mechanism[f"SHA{bits}_RSA_PKCS"], M.RSA_PKCS), rsa_pkcs1)
        for bits in (256, 384, 512)
    ),
    *(
        Vectors(
            f"rsa_pss_{size}_sha{bits}_mgf1_{salt}", (Mechanism[f"SHA{bits}_RSA_PKCS_PSS"], M.RSA_PKCS_PSS), rsa_pss
        )
        for size, bits, salt in ((2048, 256, 0), (2048, 256, 32), (2048, 384, 48), (4096, 512, 32), (4096, 512, 64))
    ),
    Vectors("rsa_pkcs1_2048", (M.RSA_PKCS,), rsa_pkcs1_decrypt),
    *(
        Vectors(f"rsa_oaep_2048_sha{bits}_mgf1sha{mask}", (M.RSA_PKCS_OAEP,), rsa_oaep)
        for bits, mask in ((1, 1), (256, 256), (256, 1), (384, 384), (384, 1), (512, 512), (512, 1))
    ),
    *(
        Vectors(f"ecdsa_{curve}_{hash_}_p1363", (ECDSA_OF[hash_], M.ECDSA), ecdsa)
        for curve, hash_ in (
            ("secp256r1", "sha256"),
            ("secp256r1", "sha512"),
            ("secp384r1", "sha384"),
            ("secp521r1", "sha512"),
            ("secp256k1", "sha256"),
            ("brainpoolP256r1", "sha256"),
            ("brainpoolP384r1", "sha384"),
            ("brainpoolP512r1", "sha512"),
        )
    ),
    Vectors("ed25519", (M.EDDSA,), eddsa),
    Vectors("ed448", (M.EDDSA,), eddsa),
    *(Vectors(f"mldsa_{size}_verify", (M.ML_DSA,), ml_dsa) for size in (44, 65, 87)),
    *(Vectors(f"mlkem_{size}", (M.ML_KEM,), ml_kem, (("set", size),)) for size in (768, 1024)),
    *(
        Vectors(f"hkdf_sha{bits}", (M.HKDF_DERIVE,), derive_hkdf, (("hash", Hash[f"SHA{bits}"]),))
        for bits in (256, 384, 512)
    ),
    *(Vectors(f"ecdh_{curve}_ecpoint", (M.ECDH1_DERIVE,), ecdh) for curve in ("secp256r1", "secp384r1", "secp521r1")),
    *(
        Vectors(f"ecdh_{curve}", (M.ECDH1_DERIVE,), ecdh)
        for curve in ("secp256k1", "brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1")
    ),
    Vectors("x25519", (M.ECDH1_DERIVE,), xdh),
    Vectors("x448", (M.ECDH1_DERIVE,), xdh),
    Vectors("x963", (M.ECDH1_DERIVE,), derive_x963),
    Vectors("sp800_108", (M.SP800_108_COUNTER_KDF,), derive_counter),
)
_RANDOM: Final = "draws its key, so no value is right; tests/unit/hsm/crypto/test_mechanisms.py uses what each makes"
ELSEWHERE: Final = {mechanism: _RANDOM for mechanism in MECHANISM_RULES if mechanism.name.endswith("_GEN")}


@pytest.mark.parametrize("vectors", VECTORS, ids=lambda vectors: f"{vectors.file}-{vectors.mechanisms[0].name}")
def test_a_mechanism_gives_the_published_values_and_refuses_the_malformed(vectors: Vectors) -> None:
    seen: Counter[str] = Counter()
    for read in rows(vectors.file):
        group = read | dict(vectors.extra)
        for case in group.get("tests", [read]):
            for mechanism in vectors.mechanisms:
                vectors.check(mechanism, group, case)
            seen[case.get("result", "valid")] += 1
    assert seen["valid"], f"{vectors.file} has no case that a mechanism must get right"


def test_every_mechanism_has_vectors_or_a_reason() -> None:
    covered = {mechanism for vectors in VECTORS for mechanism in vectors.mechanisms}
    assert covered | set(ELSEWHERE) == set(MECHANISM_RULES)
    assert not covered & set(ELSEWHERE)
    for reason in ELSEWHERE.values():
        assert all((FOLDER.parents[2] / path).is_file() for path in re.findall(r"tests/\S+\.py", reason))
    assert {vectors.file for vectors in VECTORS} == {path.stem for path in FOLDER.glob("*.json")}
