"""Files of every form, written by `cryptography`, openssl and ssh-keygen, are read to the same objects."""

from __future__ import annotations

import base64
import datetime as dt
import json
import random
import shutil
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    pkcs7,
    pkcs12,
)

from lnh.objects import encoding, jwk, key_files
from lnh.objects.key_files import FileObject, Form
from lnh_common import limits
from lnh_common.errors import DataLength, KeyFileInvalid, KeyTypeInconsistent, LimitReached, PassphraseIncorrect
from lnh_common.pkcs11.attributes import KeyType, ObjectClass
from models.keys import KINDS, PAIRS, pair

PASSPHRASE = "correct horse, 電池"
KEYS: dict[str, Any] = {kind: load_der_private_key(pair(kind)[1].value, None) for kind in PAIRS}
IN_JWK = [kind for kind in PAIRS if not kind.startswith(("brainpool", "ML-"))]
IN_OPENSSH = ["RSA", "P-256", "P-384", "P-521", "Ed25519"]


def no_passphrase() -> str:
    raise AssertionError("nothing is encrypted, so nothing is asked")


def one(data: bytes, passphrase: Callable[[], str] = no_passphrase, form: Form | None = None) -> FileObject:
    (found,) = key_files.read(data, passphrase, form)
    return found


def public_bytes(key: Any, encoding: Encoding = Encoding.DER) -> bytes:
    made: bytes = key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    return made


def private_bytes(kind: str, encoding: Encoding, form: PrivateFormat, passphrase: str = "") -> bytes:
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    made: bytes = KEYS[kind].private_bytes(encoding, form, encryption)
    return made


def is_key(found: FileObject, kind: str) -> bool:
    """Whether this is the key of that kind, both halves of it."""
    loaded: Any = load_der_private_key(found.value.reveal(), None)
    return (
        found.object_class is ObjectClass.PRIVATE_KEY
        and found.key_type is KINDS[kind][0]
        and found.public == public_bytes(KEYS[kind]) == public_bytes(loaded)
    )


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_private_keys_are_read_from_pkcs8(kind: str, encoding: Encoding) -> None:
    assert is_key(one(private_bytes(kind, encoding, PrivateFormat.PKCS8)), kind)
    sealed = private_bytes(kind, encoding, PrivateFormat.PKCS8, PASSPHRASE)
    assert is_key(one(sealed, lambda: PASSPHRASE), kind)
    with pytest.raises(PassphraseIncorrect, match="wrong"):
        key_files.read(sealed, lambda: "another one")
    with pytest.raises(PassphraseIncorrect, match="no passphrase was given"):
        key_files.read(sealed)


@pytest.mark.parametrize("kind", ["RSA", "P-256", "P-521", "secp256k1", "brainpoolP384r1"])
def test_private_keys_are_read_from_the_forms_of_before_pkcs8(kind: str) -> None:
    for code in (Encoding.PEM, Encoding.DER):
        assert is_key(one(private_bytes(kind, code, PrivateFormat.TraditionalOpenSSL)), kind)
    sealed = private_bytes(kind, Encoding.PEM, PrivateFormat.TraditionalOpenSSL, PASSPHRASE)
    assert is_key(one(sealed, lambda: PASSPHRASE), kind)
    with pytest.raises(PassphraseIncorrect):
        key_files.read(sealed, lambda: "another one")


@pytest.mark.parametrize("kind", IN_OPENSSH)
def test_keys_are_read_from_opensshs_files(kind: str) -> None:
    assert is_key(one(private_bytes(kind, Encoding.PEM, PrivateFormat.OpenSSH)), kind)
    line = KEYS[kind].public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    found = one(b"# a comment\n\n" + line + b" somebody@a host\n")
    assert found.object_class is ObjectClass.PUBLIC_KEY
    assert (found.value.reveal(), found.label) == (public_bytes(KEYS[kind]), "somebody@a host")


def test_encrypted_keys_of_openssh_are_read() -> None:
    sealed = private_bytes("Ed25519", Encoding.PEM, PrivateFormat.OpenSSH, PASSPHRASE)
    assert is_key(one(sealed, lambda: PASSPHRASE), "Ed25519")
    with pytest.raises(PassphraseIncorrect):
        key_files.read(sealed, lambda: "another one")


@pytest.mark.parametrize("kind", PAIRS)
def test_public_keys_are_read(kind: str) -> None:
    for code in (Encoding.PEM, Encoding.DER):
        found = one(public_bytes(KEYS[kind], code))
        assert (found.object_class, found.key_type) == (ObjectClass.PUBLIC_KEY, KINDS[kind][0])
        assert found.value.reveal() == public_bytes(KEYS[kind])
    if kind == "RSA":
        for code in (Encoding.PEM, Encoding.DER):
            old = KEYS[kind].public_key().public_bytes(code, PublicFormat.PKCS1)
            assert one(old).value.reveal() == public_bytes(KEYS[kind])


def b64(number: int, size: int | None = None) -> str:
    data = number.to_bytes(size or (number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def private_jwk(kind: str) -> dict[str, str]:
    """A JWK of the private key, written down here from the RFC, and not by the product."""
    key = KEYS[kind]
    if kind == "RSA":
        numbers = key.private_numbers()
        public = numbers.public_numbers
        fields = {"n": public.n, "e": public.e, "d": numbers.d, "p": numbers.p, "q": numbers.q, "dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp}  # fmt: skip
        return {"kty": "RSA"} | {name: b64(number) for name, number in fields.items()}
    if KINDS[kind][0] is KeyType.EC:
        point, size = key.private_numbers().public_numbers, (key.key_size + 7) // 8
        return {"kty": "EC", "crv": kind, "x": b64(point.x, size), "y": b64(point.y, size), "d": b64(key.private_numbers().private_value, size)}  # fmt: skip
    raw, public_raw = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    return {"kty": "OKP", "crv": kind, "x": base64.urlsafe_b64encode(public_raw).rstrip(b"=").decode(), "d": base64.urlsafe_b64encode(raw).rstrip(b"=").decode()}  # fmt: skip


@pytest.mark.parametrize("kind", IN_JWK)
def test_keys_are_read_from_jwk_and_public_ones_written(kind: str) -> None:
    private = private_jwk(kind)
    assert is_key(one(json.dumps(private | {"kid": "mine", "use": "sig"}).encode()), kind)
    public = {name: value for name, value in private.items() if name in ("kty", "crv", "n", "e", "x", "y")}
    found = one(json.dumps(public).encode())
    assert (found.object_class, found.value.reveal()) == (ObjectClass.PUBLIC_KEY, public_bytes(KEYS[kind]))
    assert json.loads(jwk.of_public_key(public_bytes(KEYS[kind]))) == public
    both = key_files.read(json.dumps({"keys": [private, public | {"kid": "other"}]}).encode())
    assert [each.label for each in both] == ["", "other"]


def test_an_rsa_jwk_without_its_primes_is_completed() -> None:
    private = {name: value for name, value in private_jwk("RSA").items() if name in ("kty", "n", "e", "d")}
    assert is_key(one(json.dumps(private).encode()), "RSA")


def test_the_example_of_rfc_8037_is_read() -> None:
    example = {"kty": "OKP", "crv": "Ed25519", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}  # fmt: skip
    found: Any = load_der_private_key(one(json.dumps(example).encode()).value.reveal(), None)
    assert found.private_bytes_raw().hex() == "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"


def test_a_secret_in_a_jwk_says_what_it_is_for_or_not() -> None:
    for alg, key_type in (("HS256", KeyType.GENERIC_SECRET), ("A128GCM", KeyType.AES), ("", None), ("dir", None)):
        found = one(json.dumps({"kty": "oct", "k": "AAECAwQFBgcICQoLDA0ODw", "alg": alg}).encode())
        assert (found.object_class, found.key_type) == (ObjectClass.SECRET_KEY, key_type)
        assert found.value.reveal() == bytes(range(16))


def test_public_keys_are_written_for_openssh_in_one_line_whatever_their_label_is() -> None:
    for kind in IN_OPENSSH:
        line = encoding.openssh(public_bytes(KEYS[kind]), "a\nssh-rsa AAAA \x1b[31m")
        assert line.count("\n") == 1
        assert "\x1b" not in line
        assert one(line.encode()).value.reveal() == public_bytes(KEYS[kind])
    assert len(encoding.openssh(public_bytes(KEYS["P-256"]), "").split()) == 2
    for kind in ("Ed448", "secp256k1", "ML-DSA-44", "X25519"):
        with pytest.raises(KeyTypeInconsistent, match="OpenSSH"):
            encoding.openssh(public_bytes(KEYS[kind]), "")


def test_a_key_that_jwk_has_no_form_for_is_not_written() -> None:
    for kind in ("brainpoolP256r1", "ML-DSA-65"):
        with pytest.raises(KeyTypeInconsistent, match="JWK has no"):
            jwk.of_public_key(public_bytes(KEYS[kind]))


def certificate(kind: str = "Ed25519", name: str = "of Ed25519") -> x509.Certificate:
    key = KEYS[kind]
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + dt.timedelta(days=1))
    return builder.sign(key, None if kind == "Ed25519" else hashes.SHA256())


def test_certificates_are_read_wherever_they_stand() -> None:
    made, other = certificate(), certificate("P-256", "another")
    ders = [each.public_bytes(Encoding.DER) for each in (made, other)]
    pems = [each.public_bytes(Encoding.PEM) for each in (made, other)]
    found = one(ders[0])
    assert (found.object_class, found.value.reveal(), found.label) == (ObjectClass.CERTIFICATE, ders[0], "of Ed25519")
    assert found.public == public_bytes(KEYS["Ed25519"])
    bundle = b"subject=CN = some words\n" + pems[0] + b"\r\n" + pems[1]
    assert [each.value.reveal() for each in key_files.read(bundle)] == ders
    for code in (Encoding.DER, Encoding.PEM):
        bag = pkcs7.serialize_certificates([made, other], code)
        assert {each.value.reveal() for each in key_files.read(bag)} == set(ders)
    key = private_bytes("Ed25519", Encoding.PEM, PrivateFormat.PKCS8, PASSPHRASE)
    both = key_files.read(key + pems[0], lambda: PASSPHRASE)
    assert [each.object_class for each in both] == [ObjectClass.PRIVATE_KEY, ObjectClass.CERTIFICATE]


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
def test_pkcs12_is_read_with_its_names(passphrase: str) -> None:
    made, other = certificate(), certificate("P-256", "another")
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    data = pkcs12.serialize_key_and_certificates("größe".encode(), KEYS["Ed25519"], made, [other], encryption)
    asked = []

    def ask() -> str:
        asked.append(1)
        return passphrase

    key, first, second = key_files.read(data, ask)
    assert is_key(key, "Ed25519")
    assert (key.label, first.label, second.label) == ("größe", "größe", "another")
    assert [first.value.reveal(), second.value.reveal()] == [each.public_bytes(Encoding.DER) for each in (made, other)]
    assert len(asked) == bool(passphrase)
    if passphrase:
        with pytest.raises(PassphraseIncorrect):
            key_files.read(data, lambda: "another one")
        with pytest.raises(PassphraseIncorrect, match="no passphrase was given"):
            key_files.read(data)


def test_a_raw_secret_is_read_when_that_is_said_and_not_before() -> None:
    found = one(bytes(range(32)), form=Form.RAW)
    assert (found.object_class, found.key_type, found.value.reveal()) == (
        ObjectClass.SECRET_KEY,
        None,
        bytes(range(32)),
    )
    with pytest.raises(KeyFileInvalid, match="come in by form raw"):
        key_files.read(bytes(range(32)))
    with pytest.raises(KeyFileInvalid, match="empty"):
        key_files.read(b"", form=Form.RAW)


REFUSED: list[tuple[bytes, str]] = [
    (b"", "empty"),
    (b" \n", "empty"),
    (b"\x30\x03\x02\x01\x00", "DER: neither"),
    (b"-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----", "certificate issue"),
    (b"-----BEGIN X509 CRL-----\n-----END X509 CRL-----", "--crl"),
    (b"-----BEGIN PGP MESSAGE-----\n-----END PGP MESSAGE-----", "PGP MESSAGE is not read"),
    (b"-----BEGIN PRIVATE KEY-----\nAAAA", "does not end"),
    (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "does not parse"),
    (b'{"kty":"EC"}', "curve ''"),
    (b'{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}', "no EC key"),
    (b'{"kty":"EC","crv":"P-256","x":"+/","y":"AA"}', "no base64url"),
    (b'{"kty":"EC","crv":"P-256","x":"AA"}', "lacks it"),
    (b'{"kty":"AKP","alg":"ML-DSA-65"}', "kty 'AKP'"),
    (b'{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}', "not the public half"),
    (b'{"keys":[{"kty":1}]}', "no JSON Web Key"),
    (b"{" * 100_000, "no JSON Web Key"),
    (b"ssh-ed25519 AAAA nobody", "does not parse"),
    (b"ssh-dss AAAA nobody", "not read"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "said"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_is_not_read_is_named(data: bytes, said: str) -> None:
    with pytest.raises(KeyFileInvalid) as caught:
        key_files.read(data, no_passphrase)
    assert said in caught.value.message


def test_keys_that_the_hsm_does_not_have_are_refused() -> None:
    for key, said in (
        (ec.generate_private_key(ec.SECP224R1()), "secp224r1"),
        (dsa.generate_private_key(2048), "does not have"),
    ):
        for code in (Encoding.PEM, Encoding.DER):
            data = key.private_bytes(code, PrivateFormat.PKCS8, NoEncryption())
            with pytest.raises(KeyFileInvalid, match=said):
                key_files.read(data)


def test_files_are_bounded() -> None:
    with pytest.raises(DataLength):
        key_files.read(b"x" * (limits.KEY_FILE_BYTES + 1))
    many = certificate().public_bytes(Encoding.PEM) * (limits.KEY_FILE_OBJECTS + 1)
    with pytest.raises(LimitReached, match="100 objects"):
        key_files.read(many)


def test_no_error_and_no_representation_holds_what_is_secret() -> None:
    for kind in ("RSA", "P-256"):
        pem = private_bytes(kind, Encoding.PEM, PrivateFormat.PKCS8)
        found = one(pem)
        lines = [line for line in pem.decode().splitlines() if "-----" not in line]
        said = repr(found) + str(found) + repr(jwk.parse(json.dumps(private_jwk(kind)).encode()))
        for place in (40, len(pem) // 2, len(pem) - 60):
            damaged = pem[:place] + (b"A" if pem[place : place + 1] != b"A" else b"B") + pem[place + 1 :]
            try:
                key_files.read(damaged)
            except KeyFileInvalid as error:
                said += "".join(traceback.format_exception(error)) + repr(error)
        broken = private_jwk(kind) | {"d": private_jwk(kind)["d"][:-4] + "AAAA"}
        with pytest.raises(KeyFileInvalid) as caught:
            key_files.read(json.dumps(broken).encode())
        said += "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert not any(line in said for line in lines)
        assert not any(value in said for name, value in private_jwk(kind).items() if name in ("d", "p", "q"))
        assert found.value.reveal().hex() not in said


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command on this machine")
def test_what_openssl_writes_is_read(tmp_path: Path) -> None:
    def openssl(*words: str) -> None:
        done = subprocess.run(["openssl", *words], cwd=tmp_path, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()

    (tmp_path / "pass").write_text("openssl's")
    openssl("ecparam", "-name", "secp384r1", "-genkey", "-out", "ec.pem")  # parameters stand in front of the key
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "rsa.pem")
    openssl("pkcs8", "-topk8", "-in", "rsa.pem", "-v2", "aes-256-cbc", "-scrypt", "-passout", "file:pass", "-out", "scrypt.pem")  # fmt: skip
    openssl("req", "-new", "-x509", "-key", "ec.pem", "-subj", "/CN=by openssl", "-out", "cert.pem")
    openssl("pkcs12", "-export", "-inkey", "ec.pem", "-in", "cert.pem", "-name", "mine", "-passout", "file:pass", "-out", "a.p12")  # fmt: skip
    openssl("pkcs12", "-in", "a.p12", "-passin", "file:pass", "-nodes", "-out", "bags.pem")
    keys = {name: key_files.read((tmp_path / name).read_bytes(), lambda: "openssl's") for name in ("ec.pem", "rsa.pem", "scrypt.pem", "a.p12", "bags.pem")}  # fmt: skip
    (of_ec,) = keys["ec.pem"]
    assert keys["scrypt.pem"] == keys["rsa.pem"]
    for name in ("a.p12", "bags.pem"):
        assert {each.object_class for each in keys[name]} == {ObjectClass.PRIVATE_KEY, ObjectClass.CERTIFICATE}
        assert {each.public for each in keys[name]} == {of_ec.public}


@pytest.mark.parametrize("seed", range(8))
def test_any_damage_is_answered_by_an_error_of_the_product(seed: int) -> None:
    """Files of every form, cut and changed at random: they are read, or refused by name, and nothing else happens."""
    draw = random.Random(seed)
    files = [
        private_bytes("P-256", Encoding.DER, PrivateFormat.PKCS8),
        private_bytes("P-256", Encoding.PEM, PrivateFormat.TraditionalOpenSSL),
        private_bytes("Ed25519", Encoding.PEM, PrivateFormat.OpenSSH),
        public_bytes(KEYS["P-256"]),
        certificate().public_bytes(Encoding.DER),
        certificate().public_bytes(Encoding.PEM),
        pkcs12.serialize_key_and_certificates(None, KEYS["Ed25519"], certificate(), None, NoEncryption()),
        json.dumps(private_jwk("P-256")).encode(),
        KEYS["Ed25519"].public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    ]
    for _ in range(300):
        data = bytearray(draw.choice(files))
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(data))
            match draw.randrange(3):
                case 0:
                    data[place] ^= 1 << draw.randrange(8)
                case 1:
                    del data[place : place + draw.randint(1, 8)]
                case _:
                    data[place:place] = draw.randbytes(draw.randint(1, 8))
            if not data:
                data = bytearray(b"-")
        try:
            found = key_files.read(bytes(data), lambda: "")
        except (KeyFileInvalid, PassphraseIncorrect):
            continue
        for each in found:
            assert isinstance(each.object_class, ObjectClass)


def test_a_public_key_reads_back_from_what_is_exported() -> None:
    for kind in PAIRS:
        assert load_der_public_key(one(public_bytes(KEYS[kind])).value.reveal()) == KEYS[kind].public_key()
    assert isinstance(KEYS["RSA"], rsa.RSAPrivateKey)
    assert isinstance(KEYS["Ed25519"], ed25519.Ed25519PrivateKey)
