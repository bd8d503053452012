"""The openssl command verifies, and opens, what the HSM's mechanisms made, and the other way round."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from lnh_common.pkcs11.algorithms import CURVES, Hash
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.pkcs11.parameters import (
    CounterParameters,
    EcdhParameters,
    GcmParameters,
    HkdfParameters,
    IvParameters,
    Kdf,
    OaepParameters,
    PssParameters,
    pack_parameters,
)
from lnh_services.hsm.crypto.mechanisms import (
    IvSource,
    decrypter,
    deriver,
    encrypter,
    load_object,
    signer,
    unwrapper,
    verifier,
    wrapper,
)
from lnh_services.hsm.objects.generate import Generated
from models.keys import pair, secret

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="no openssl command on this machine")

DATA = b"what openssl and the HSM must agree on"
PSS = ("-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest")


def openssl(*arguments: str | Path, data: bytes = b"") -> bytes:
    assert OPENSSL is not None
    done = subprocess.run([OPENSSL, *map(str, arguments)], input=data, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def files(tmp_path: Path, halves: tuple[Generated, Generated]) -> tuple[Path, Path]:
    """The public and the private key in PEM, as a user would export the first."""
    paths = tmp_path / "public.pem", tmp_path / "private.pem"
    for path, half, arguments in zip(paths, halves, (("-pubin",), ()), strict=True):
        (tmp_path / "key.der").write_bytes(half.value)
        form = ("-pubout",) if arguments else ()
        path.write_bytes(openssl("pkey", "-inform", "DER", "-in", tmp_path / "key.der", *arguments, *form))
    return paths


def to_der(signature: bytes) -> bytes:
    size = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big"))


def from_der(signature: bytes, size: int) -> bytes:
    r, s = decode_dss_signature(signature)
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


SIGNATURES = [
    *(
        (kind, Mechanism[f"{digest}_RSA_PKCS{suffix}"], digest, options)
        for kind, suffix, options in (("RSA", "", ()), ("RSA", "_PSS", PSS))
        for digest in ("SHA256", "SHA384", "SHA512")
    ),
    *(
        (kind, Mechanism[f"ECDSA_{digest}"], digest, ())
        for kind, curve in CURVES.items()
        if curve.key_type.name == "EC"
        for digest in ("SHA256", "SHA512")
    ),
]


@pytest.mark.parametrize(("kind", "mechanism", "digest", "options"), SIGNATURES)
def test_openssl_and_the_hsm_verify_each_others_hashed_signatures(
    tmp_path: Path, kind: str, mechanism: Mechanism, digest: str, options: tuple[str, ...]
) -> None:
    public, private = pair(kind)
    public_pem, private_pem = files(tmp_path, (public, private))
    size = CURVES[kind].size if kind in CURVES else 0
    ours = signer(mechanism, load_object(*private))(DATA)
    (tmp_path / "signature").write_bytes(to_der(ours) if size else ours)
    (tmp_path / "data").write_bytes(DATA)
    name = f"-{digest.lower()}"
    checked = openssl(
        "dgst", name, "-verify", public_pem, "-signature", tmp_path / "signature", *options, tmp_path / "data"
    )
    assert checked.strip() == b"Verified OK"
    theirs = openssl("dgst", name, "-sign", private_pem, *options, tmp_path / "data")
    verifier(mechanism, load_object(*public))(DATA, from_der(theirs, size) if size else theirs)


@pytest.mark.parametrize("kind", ["Ed25519", "Ed448"])
def test_openssl_and_the_hsm_verify_each_others_eddsa(tmp_path: Path, kind: str) -> None:
    public, private = pair(kind)
    public_pem, private_pem = files(tmp_path, (public, private))
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "signature").write_bytes(signer(Mechanism.EDDSA, load_object(*private))(DATA))
    raw = ("-rawin", "-in", tmp_path / "data")
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", public_pem, *raw, "-sigfile", tmp_path / "signature")
    theirs = openssl("pkeyutl", "-sign", "-inkey", private_pem, *raw)
    verifier(Mechanism.EDDSA, load_object(*public))(DATA, theirs)


def test_openssl_and_the_hsm_verify_each_others_raw_pss(tmp_path: Path) -> None:
    public, private = pair("RSA")
    public_pem, private_pem = files(tmp_path, (public, private))
    digest = openssl("dgst", "-sha384", "-binary", data=DATA)
    (tmp_path / "digest").write_bytes(digest)
    parameters = pack_parameters(PssParameters(hash=Hash.SHA384, salt_length=20))
    (tmp_path / "signature").write_bytes(signer(Mechanism.RSA_PKCS_PSS, load_object(*private), parameters)(digest))
    options = [
        part
        for option in ("digest:sha384", "rsa_padding_mode:pss", "rsa_pss_saltlen:20")
        for part in ("-pkeyopt", option)
    ]
    common: list[str | Path] = ["-in", tmp_path / "digest", *options]
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", public_pem, "-sigfile", tmp_path / "signature", *common)
    theirs = openssl("pkeyutl", "-sign", "-inkey", private_pem, *common)
    verifier(Mechanism.RSA_PKCS_PSS, load_object(*public), parameters)(digest, theirs)


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha512"])
def test_openssl_and_the_hsm_open_each_others_oaep(tmp_path: Path, digest: str) -> None:
    public, private = pair("RSA")
    public_pem, private_pem = files(tmp_path, (public, private))
    parameters = pack_parameters(OaepParameters(hash=Hash(digest.upper().replace("SHA", "SHA-"))))
    options = ("-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", f"rsa_oaep_md:{digest}")
    ours = encrypter(Mechanism.RSA_PKCS_OAEP, load_object(*public), IvSource(), parameters)(DATA).data
    assert openssl("pkeyutl", "-decrypt", "-inkey", private_pem, *options, data=ours) == DATA
    theirs = openssl("pkeyutl", "-encrypt", "-pubin", "-inkey", public_pem, *options, data=DATA)
    assert decrypter(Mechanism.RSA_PKCS_OAEP, load_object(*private), parameters)(theirs) == DATA


@pytest.mark.parametrize("bits", [128, 192, 256])
@pytest.mark.parametrize(
    ("mechanism", "mode", "options"),
    [
        (Mechanism.AES_CBC_PAD, "cbc", ()),
        (Mechanism.AES_CBC, "cbc", ("-nopad",)),
        (Mechanism.AES_CTR, "ctr", ()),
    ],
)
def test_openssl_and_the_hsm_open_each_others_aes(
    mechanism: Mechanism, mode: str, options: tuple[str, ...], bits: int
) -> None:
    made = secret(f"AES-{bits}")
    key = load_object(*made)
    data = DATA[:32] if mechanism is Mechanism.AES_CBC else DATA
    ours = encrypter(mechanism, key, IvSource())(data)
    common = ("enc", f"-aes-{bits}-{mode}", "-K", made.value.hex(), "-iv", ours.iv.hex(), *options)
    assert openssl(*common, "-d", data=ours.data) == data
    theirs = openssl(*common, data=data)
    assert decrypter(mechanism, key, pack_parameters(IvParameters(iv=ours.iv)))(theirs) == data


def test_openssl_makes_the_same_tags(tmp_path: Path) -> None:
    generic, aes = secret("GENERIC_SECRET"), secret("AES-256")
    for mechanism, made, arguments in (
        (Mechanism.SHA256_HMAC, generic, ("-digest", "SHA256", "HMAC")),
        (Mechanism.SHA512_HMAC, generic, ("-digest", "SHA512", "HMAC")),
        (Mechanism.AES_CMAC, aes, ("-cipher", "AES-256-CBC", "CMAC")),
    ):
        (tmp_path / "data").write_bytes(DATA)
        key = ("-macopt", f"hexkey:{made.value.hex()}", "-in", tmp_path / "data", "-binary")
        assert openssl("mac", *key, *arguments) == signer(mechanism, load_object(*made))(DATA)


# The initial values of RFC 3394 and of RFC 5649, which openssl wants to be told.
WRAPS = [(Mechanism.AES_KEY_WRAP, "wrap", "a6" * 8, 32), (Mechanism.AES_KEY_WRAP_PAD, "wrap-pad", "a65959a6", 21)]


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize(("mechanism", "mode", "iv", "length"), WRAPS)
def test_openssl_and_the_hsm_unwrap_each_others_keys(
    mechanism: Mechanism, mode: str, iv: str, length: int, bits: int
) -> None:
    made = secret(f"AES-{bits}")
    key, inner = load_object(*made), bytes(range(length))
    common = ("enc", f"-id-aes{bits}-{mode}", "-K", made.value.hex(), "-iv", iv)
    assert openssl(*common, "-d", data=wrapper(mechanism, key)(inner)) == inner
    assert unwrapper(mechanism, key)(openssl(*common, data=inner)) == inner


def test_openssl_unwraps_what_rsa_and_aes_wrapped(tmp_path: Path) -> None:
    public, private = pair("RSA")
    _, private_pem = files(tmp_path, (public, private))
    inner = bytes(range(200))
    wrapped = wrapper(
        Mechanism.RSA_AES_KEY_WRAP, load_object(*public), pack_parameters(OaepParameters(hash=Hash.SHA256))
    )(inner)
    modulus = 2048 // 8
    options = ("-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256")
    aes = openssl("pkeyutl", "-decrypt", "-inkey", private_pem, *options, data=wrapped[:modulus])
    assert (
        openssl("enc", "-id-aes256-wrap-pad", "-d", "-K", aes.hex(), "-iv", "a65959a6", data=wrapped[modulus:]) == inner
    )


def kdf(name: str, key: bytes, **options: str) -> bytes:
    """32 bytes that openssl derives."""
    said = [part for option, value in options.items() for part in ("-kdfopt", f"{option}:{value}")]
    return openssl("kdf", "-binary", "-keylen", "32", "-kdfopt", f"hexkey:{key.hex()}", *said, name)


@pytest.mark.parametrize("digest", ["SHA256", "SHA512"])
def test_openssl_derives_the_same_keys(digest: str) -> None:
    generic, aes = secret("GENERIC_SECRET"), secret("AES-256")
    hash_ = Hash(digest.replace("SHA", "SHA-"))
    label, context = b"what it is for".hex(), b"what it is bound to".hex()
    hkdf = HkdfParameters(hash=hash_, salt=bytes.fromhex(label), info=bytes.fromhex(context))
    counter = CounterParameters(hash=hash_, label=bytes.fromhex(label), context=bytes.fromhex(context))
    of_aes = CounterParameters(label=bytes.fromhex(label), context=bytes.fromhex(context))
    options = {"hexsalt": label, "hexinfo": context}
    for mechanism, made, parameters, theirs in (
        (Mechanism.HKDF_DERIVE, generic, hkdf, kdf("HKDF", generic.value, digest=digest, **options)),
        (
            Mechanism.SP800_108_COUNTER_KDF,
            generic,
            counter,
            kdf("KBKDF", generic.value, mac="HMAC", digest=digest, **options),
        ),
        (
            Mechanism.SP800_108_COUNTER_KDF,
            aes,
            of_aes,
            kdf("KBKDF", aes.value, mac="CMAC", cipher="AES-256-CBC", **options),
        ),
    ):
        assert deriver(mechanism, load_object(*made), pack_parameters(parameters))(32) == theirs


@pytest.mark.parametrize("curve", ["P-256", "P-521", "X25519", "X448"])
def test_openssl_and_the_hsm_agree_on_the_same_key(tmp_path: Path, curve: str) -> None:
    public_pem, _ = files(tmp_path, pair(curve))
    theirs, their_public = tmp_path / "theirs.pem", tmp_path / "their-public.pem"
    kind = ("EC", "-pkeyopt", f"ec_paramgen_curve:{curve}") if curve.startswith("P-") else (curve,)
    theirs.write_bytes(openssl("genpkey", "-algorithm", *kind))
    their_public.write_bytes(openssl("pkey", "-in", theirs, "-pubout"))
    shared = openssl("pkeyutl", "-derive", "-inkey", theirs, "-peerkey", public_pem)
    loaded = load_pem_public_key(their_public.read_bytes())
    if isinstance(loaded, EllipticCurvePublicKey):
        point = loaded.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    else:
        point = loaded.public_bytes(Encoding.Raw, PublicFormat.Raw)
    info = b"both sides"
    private = load_object(*pair(curve)[1])
    for how, wanted in (
        (Kdf.X963, kdf("X963KDF", shared, digest="SHA256", hexinfo=info.hex())),
        (Kdf.HKDF, kdf("HKDF", shared, digest="SHA256", hexinfo=info.hex())),
    ):
        parameters = pack_parameters(EcdhParameters(public_key=point, kdf=how, info=info))
        assert deriver(Mechanism.ECDH1_DERIVE, private, parameters)(32) == wanted


def test_the_bare_library_and_the_hsm_open_each_others_gcm() -> None:
    made = secret("AES-128")
    key, bare = load_object(*made), AESGCM(made.value)
    ours = encrypter(Mechanism.AES_GCM, key, IvSource(), pack_parameters(GcmParameters(aad=b"header")))(DATA)
    assert bare.decrypt(ours.iv, ours.data, b"header") == DATA
    iv = bytes(range(12))
    parameters = pack_parameters(GcmParameters(iv=iv, aad=b"header"))
    assert decrypter(Mechanism.AES_GCM, key, parameters)(bare.encrypt(iv, DATA, b"header")) == DATA
