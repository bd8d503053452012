"""Every mechanism over generated keys: what it makes is checked by the bare library, what is wrong by its error."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lnh_common.errors import (
    DataLength,
    EncryptedDataInvalid,
    KeyTypeInconsistent,
    LnhError,
    MechanismInvalid,
    MechanismParameterInvalid,
    PolicyForbids,
    SignatureInvalid,
)
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import Hash
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
from lnh_common.pkcs11.parameters import (
    AeadParameters,
    GcmParameters,
    HashedParameters,
    IvParameters,
    MacParameters,
    MldsaParameters,
    OaepParameters,
    PssParameters,
    pack_parameters,
)
from lnh_common.wire import codec
from lnh_services.hsm.crypto.mechanisms import (
    Decrypter,
    Encrypter,
    IvSource,
    LoadedKey,
    Signer,
    Verifier,
    decrypter,
    encrypter,
    load,
    load_object,
    served,
    signer,
    verifier,
)
from lnh_services.hsm.objects.generate import generate_key
from models.keys import COMPATIBLE, KINDS, PAIRS, SECRETS, pair, secret

DATA = b"what was signed or encrypted, of no special length"
HASHES = {"SHA256": hashes.SHA256(), "SHA384": hashes.SHA384(), "SHA512": hashes.SHA512()}


def halves(kind: str) -> tuple[LoadedKey, LoadedKey]:
    """The key to sign or decrypt with, and the one to verify or encrypt with."""
    if kind in SECRETS:
        key = load_object(*secret(kind))
        return key, key
    public, private = pair(kind)
    return load_object(*private), load_object(*public)


def signing(mechanism: Mechanism, kind: str, parameters: Message | None = None) -> tuple[Signer, Verifier]:
    inner, outer = halves(kind)
    packed = pack_parameters(parameters)
    return signer(mechanism, inner, packed), verifier(mechanism, outer, packed)


def encrypting(mechanism: Mechanism, kind: str, parameters: Message | None = None) -> Encrypter:
    return encrypter(mechanism, halves(kind)[1], IvSource(), pack_parameters(parameters))


def decrypting(mechanism: Mechanism, kind: str, parameters: Message | None = None) -> Decrypter:
    return decrypter(mechanism, halves(kind)[0], pack_parameters(parameters))


def digest(name: str, data: bytes = DATA) -> bytes:
    context = hashes.Hash(HASHES[name])
    context.update(data)
    return context.finalize()


def of_use(use: Use) -> list[tuple[Mechanism, str]]:
    return [
        (mechanism, kind)
        for mechanism in MECHANISM_RULES
        for kind, (key_type, _) in KINDS.items()
        if use in served(mechanism) and key_type in MECHANISM_RULES[mechanism].key_types
    ]


def input_for(mechanism: Mechanism) -> bytes:
    if mechanism in (Mechanism.ECDSA, Mechanism.RSA_PKCS_PSS):
        return digest("SHA256")
    return DATA[:48] if mechanism in (Mechanism.AES_CBC, Mechanism.AES_ECB) else DATA


def parameters_for(mechanism: Mechanism) -> Message | None:
    return MacParameters(length=32) if mechanism.name.endswith("_GENERAL") else None


@pytest.mark.parametrize(("mechanism", "kind"), of_use(Use.SIGN))
def test_what_a_key_signs_its_other_half_verifies_and_nothing_else(mechanism: Mechanism, kind: str) -> None:
    sign, verify = signing(mechanism, kind, parameters_for(mechanism))
    data = input_for(mechanism)
    signature = sign(data)
    verify(data, signature)
    other = data[:-1] + bytes([data[-1] ^ 1])
    for wrong_data, wrong_signature in (
        (other, signature),
        (data, signature[:-1]),
        (data, b""),
        (data, signature + b"\0"),
        (data, bytes(len(signature))),
        (data, b"\xff" * len(signature)),
    ):
        with pytest.raises(SignatureInvalid):
            verify(wrong_data, wrong_signature)


@pytest.mark.parametrize(("mechanism", "kind"), [row for row in of_use(Use.SIGN) if row[1] in PAIRS])
def test_the_bare_library_verifies_what_the_exported_public_key_signed(mechanism: Mechanism, kind: str) -> None:
    sign, _ = signing(mechanism, kind)
    data = input_for(mechanism)
    signature = sign(data)
    info = pair(kind)[0].attributes[Attribute.PUBLIC_KEY_INFO]
    assert isinstance(info, bytes)
    key = load_der_public_key(info)
    name = mechanism.name.replace("ECDSA_", "").partition("_")[0]
    match key:
        case ec.EllipticCurvePublicKey():
            size = len(signature) // 2
            numbers = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
            algorithm = utils.Prehashed(hashes.SHA256()) if mechanism is Mechanism.ECDSA else HASHES[name]
            key.verify(utils.encode_dss_signature(*numbers), data, ec.ECDSA(algorithm))
        case rsa.RSAPublicKey() if mechanism is Mechanism.RSA_PKCS:
            assert key.recover_data_from_signature(signature, padding.PKCS1v15(), None) == data
        case rsa.RSAPublicKey() if mechanism is Mechanism.RSA_PKCS_PSS:
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            key.verify(signature, data, pss, utils.Prehashed(hashes.SHA256()))
        case rsa.RSAPublicKey() if mechanism.name.endswith("_PSS"):
            key.verify(signature, data, padding.PSS(padding.MGF1(HASHES[name]), HASHES[name].digest_size), HASHES[name])
        case rsa.RSAPublicKey():
            key.verify(signature, data, padding.PKCS1v15(), HASHES[name])
        case (
            ed25519.Ed25519PublicKey()
            | ed448.Ed448PublicKey()
            | mldsa.MLDSA44PublicKey()
            | mldsa.MLDSA65PublicKey()
            | mldsa.MLDSA87PublicKey()
        ):
            key.verify(signature, data)
        case _:
            pytest.fail(f"nobody verifies {mechanism.name} with {kind}")


@pytest.mark.parametrize(("mechanism", "kind"), of_use(Use.ENCRYPT))
def test_what_is_encrypted_decrypts_and_a_changed_text_does_not_authenticate(mechanism: Mechanism, kind: str) -> None:
    data = input_for(mechanism)
    encrypted = encrypting(mechanism, kind)(data)
    rule = MECHANISM_RULES[mechanism]
    assert len(encrypted.iv) == rule.iv_bytes
    parameters = rule.parameters(iv=encrypted.iv) if rule.iv_bytes else None
    decrypt = decrypting(mechanism, kind, parameters)
    assert decrypt(encrypted.data) == data
    if mechanism in (Mechanism.AES_GCM, Mechanism.CHACHA20_POLY1305, Mechanism.RSA_PKCS_OAEP):
        texts = set()
        for wrong in (encrypted.data[:-1], encrypted.data[1:], b"", bytes(len(encrypted.data)), encrypted.data + b"1"):
            with pytest.raises(EncryptedDataInvalid) as refused:
                decrypt(wrong)
            texts.add(str(refused.value))
        assert len(texts) == 1


def test_every_cause_of_a_failed_decryption_has_the_same_words() -> None:
    iv = IvParameters(iv=bytes(16))
    block = decrypting(Mechanism.AES_CBC, "AES-128", iv)
    padded = decrypting(Mechanism.AES_CBC_PAD, "AES-128", iv)
    gcm = decrypting(Mechanism.AES_GCM, "AES-128", GcmParameters(iv=bytes(12)))
    rsa_pkcs = decrypting(Mechanism.RSA_PKCS, "RSA")
    oaep = decrypting(Mechanism.RSA_PKCS_OAEP, "RSA")
    texts = set()
    for decrypt, data in (
        (block, b"x"),
        (padded, b"x"),
        (padded, b""),
        (gcm, b""),
        (rsa_pkcs, b""),
        (oaep, b"x" * 256),
    ):
        with pytest.raises(EncryptedDataInvalid) as refused:
            decrypt(data)
        texts.add(str(refused.value))
        assert refused.value.__cause__ is None
        assert not refused.value.detail
    assert len(texts) == 1


def test_a_wrong_padding_of_rsa_pkcs_decrypts_to_noise_and_not_to_an_error() -> None:
    public, private = pair("RSA")
    key = load_der_public_key(public.value)
    assert isinstance(key, rsa.RSAPublicKey)
    unpadded = pow(5, 65537, key.public_numbers().n).to_bytes(256, "big")
    assert decrypter(Mechanism.RSA_PKCS, load_object(*private))(unpadded) != b"\x05"


def test_aead_ciphertexts_open_in_the_bare_library() -> None:
    gcm = encrypting(Mechanism.AES_GCM, "AES-256", GcmParameters(aad=b"header"))(DATA)
    assert AESGCM(secret("AES-256").value).decrypt(gcm.iv, gcm.data, b"header") == DATA
    chacha = encrypting(Mechanism.CHACHA20_POLY1305, "CHACHA20", AeadParameters(aad=b"header"))(DATA)
    assert ChaCha20Poly1305(secret("CHACHA20").value).decrypt(chacha.iv, chacha.data, b"header") == DATA


def test_associated_data_must_be_the_same_to_decrypt() -> None:
    encrypted = encrypting(Mechanism.AES_GCM, "AES-256", GcmParameters(aad=b"one"))(DATA)
    with pytest.raises(EncryptedDataInvalid):
        decrypting(Mechanism.AES_GCM, "AES-256", GcmParameters(iv=encrypted.iv, aad=b"two"))(encrypted.data)


@pytest.mark.parametrize("hash_", [Hash.SHA1, Hash.SHA256, Hash.SHA384, Hash.SHA512])
def test_oaep_takes_a_hash_and_a_label(hash_: Hash) -> None:
    parameters = OaepParameters(hash=hash_, label=b"label")
    encrypted = encrypting(Mechanism.RSA_PKCS_OAEP, "RSA", parameters)(DATA)
    assert decrypting(Mechanism.RSA_PKCS_OAEP, "RSA", parameters)(encrypted.data) == DATA
    with pytest.raises(EncryptedDataInvalid):
        decrypting(Mechanism.RSA_PKCS_OAEP, "RSA", OaepParameters(hash=hash_))(encrypted.data)


def test_oaep_fills_the_modulus_and_not_a_byte_more() -> None:
    encrypt = encrypting(Mechanism.RSA_PKCS_OAEP, "RSA")
    most = 256 - 2 * 32 - 2
    assert len(encrypt(bytes(most)).data) == 256
    with pytest.raises(DataLength, match=str(most)):
        encrypt(bytes(most + 1))
    with pytest.raises(DataLength, match="245"):
        encrypting(Mechanism.RSA_PKCS, "RSA")(bytes(246))


@pytest.mark.parametrize(
    ("mechanism", "kind"),
    [
        (Mechanism.ECDSA_SHA256, "P-256"),
        (Mechanism.ECDSA_SHA384, "P-521"),
        (Mechanism.SHA256_RSA_PKCS, "RSA"),
        (Mechanism.SHA512_RSA_PKCS_PSS, "RSA"),
    ],
)
def test_a_digest_made_by_the_client_signs_as_the_data_does(mechanism: Mechanism, kind: str) -> None:
    parameters = PssParameters(prehashed=True) if mechanism.name.endswith("PSS") else HashedParameters(prehashed=True)
    sign, verify_digest = signing(mechanism, kind, parameters)
    verify = signing(mechanism, kind)[1]
    hash_ = MECHANISM_RULES[mechanism].hash
    assert hash_ is not None
    made = digest(hash_.name)
    verify(DATA, sign(made))
    verify_digest(made, sign(made))
    for call in (sign, lambda data: verify_digest(data, b"")):
        with pytest.raises(DataLength):
            call(made + b"x")


def test_mldsa_signs_for_one_context() -> None:
    sign, verify = signing(Mechanism.ML_DSA, "ML-DSA-65", MldsaParameters(context=b"one"))
    verify(DATA, sign(DATA))
    with pytest.raises(SignatureInvalid):
        signing(Mechanism.ML_DSA, "ML-DSA-65", MldsaParameters(context=b"two"))[1](DATA, sign(DATA))


@pytest.mark.parametrize("length", [0, 1, 20, 28, 31, 33, 100])
def test_a_raw_ecdsa_input_that_is_no_digest_is_refused(length: int) -> None:
    sign, verify = signing(Mechanism.ECDSA, "P-256")
    with pytest.raises(DataLength, match="32 or 48 or 64"):
        sign(bytes(length))
    with pytest.raises(DataLength):
        verify(bytes(length), bytes(64))


@pytest.mark.parametrize("length", [0, 246, 1000])
def test_a_raw_rsa_input_that_does_not_fit_is_refused(length: int) -> None:
    sign, verify = signing(Mechanism.RSA_PKCS, "RSA")
    with pytest.raises(DataLength, match="245"):
        sign(bytes(length))
    with pytest.raises(DataLength):
        verify(bytes(length), bytes(256))


def test_a_raw_pss_input_has_the_length_of_its_hash() -> None:
    sign, verify = signing(Mechanism.RSA_PKCS_PSS, "RSA", PssParameters(hash=Hash.SHA384))
    verify(digest("SHA384"), sign(digest("SHA384")))
    with pytest.raises(DataLength, match="48"):
        sign(digest("SHA256"))


@pytest.mark.parametrize("mechanism", [Mechanism.AES_CBC, Mechanism.AES_ECB])
def test_block_modes_without_padding_take_whole_blocks(mechanism: Mechanism) -> None:
    with pytest.raises(DataLength, match="multiple of 16"):
        encrypting(mechanism, "AES-128")(b"x" * 15)


@pytest.mark.parametrize(
    ("mechanism", "kind", "parameters"),
    [
        (Mechanism.SHA256_RSA_PKCS_PSS, "RSA", PssParameters(hash=Hash.SHA512)),
        (Mechanism.RSA_PKCS_PSS, "RSA", PssParameters(hash=Hash.SHA1)),
        (Mechanism.RSA_PKCS_PSS, "RSA", PssParameters(hash=Hash.SHA3_256)),
        (Mechanism.SHA256_RSA_PKCS_PSS, "RSA", PssParameters(salt_length=223)),
        (Mechanism.SHA512_HMAC_GENERAL, "GENERIC_SECRET", MacParameters(length=31)),
        (Mechanism.SHA256_HMAC_GENERAL, "GENERIC_SECRET", MacParameters(length=33)),
    ],
)
def test_signing_parameters_that_do_not_fit_are_refused(mechanism: Mechanism, kind: str, parameters: Message) -> None:
    with pytest.raises(MechanismParameterInvalid):
        signing(mechanism, kind, parameters)


@pytest.mark.parametrize(
    ("mechanism", "kind", "parameters"),
    [
        (Mechanism.AES_GCM, "AES-128", GcmParameters(iv=bytes(11))),
        (Mechanism.AES_GCM, "AES-128", GcmParameters(iv=bytes(16))),
        (Mechanism.AES_GCM, "AES-128", GcmParameters(iv=bytes(12), tag_bits=96)),
        (Mechanism.AES_CBC, "AES-128", IvParameters(iv=bytes(12))),
        (Mechanism.AES_CTR, "AES-128", IvParameters(iv=bytes(15))),
        (Mechanism.CHACHA20_POLY1305, "CHACHA20", AeadParameters(iv=bytes(8))),
        (Mechanism.RSA_PKCS_OAEP, "RSA", OaepParameters(hash=Hash.SHA3_256)),
    ],
)
def test_encryption_parameters_that_do_not_fit_are_refused(
    mechanism: Mechanism, kind: str, parameters: Message
) -> None:
    packed = pack_parameters(parameters)
    with pytest.raises(MechanismParameterInvalid):
        encrypter(mechanism, halves(kind)[1], IvSource(), packed, caller_ivs=True)
    with pytest.raises(MechanismParameterInvalid):
        decrypter(mechanism, halves(kind)[0], packed)


@pytest.mark.parametrize("mechanism", [Mechanism.AES_GCM, Mechanism.AES_CBC, Mechanism.AES_CBC_PAD, Mechanism.AES_CTR])
def test_decrypting_needs_the_iv(mechanism: Mechanism) -> None:
    with pytest.raises(MechanismParameterInvalid, match="iv"):
        decrypting(mechanism, "AES-128")


def test_parameters_of_another_mechanism_are_refused() -> None:
    with pytest.raises(MechanismParameterInvalid, match="context"):
        signer(Mechanism.ECDSA_SHA256, halves("P-256")[0], codec.encode({"context": b"x"}))


@pytest.mark.parametrize(
    ("mechanism", "kind", "parameters"),
    [
        (Mechanism.AES_GCM, "AES-128", GcmParameters(iv=bytes(12))),
        (Mechanism.AES_CBC_PAD, "AES-128", IvParameters(iv=bytes(16))),
        (Mechanism.AES_CTR, "AES-128", IvParameters(iv=bytes(16))),
        (Mechanism.CHACHA20_POLY1305, "CHACHA20", AeadParameters(iv=bytes(12))),
    ],
)
def test_a_callers_iv_is_used_only_where_policy_allows(mechanism: Mechanism, kind: str, parameters: Message) -> None:
    with pytest.raises(PolicyForbids, match="caller_ivs"):
        encrypting(mechanism, kind, parameters)
    encrypt = encrypter(mechanism, halves(kind)[1], IvSource(), pack_parameters(parameters), caller_ivs=True)
    assert set(encrypt(DATA).iv) == {0}


@pytest.mark.parametrize(
    ("mechanism", "kind"), [row for row in of_use(Use.ENCRYPT) if MECHANISM_RULES[row[0]].iv_bytes]
)
def test_the_hsm_never_draws_an_iv_twice(mechanism: Mechanism, kind: str) -> None:
    encrypt = encrypting(mechanism, kind)
    data = input_for(mechanism)
    assert len({encrypt(data).iv for _ in range(50)}) == 50


def test_an_iv_is_a_random_prefix_and_a_counter_and_drawn_anew_when_it_wraps() -> None:
    one, other = IvSource(), IvSource()
    first, second = one.next(), one.next()
    assert first[:8] == second[:8] != other.next()[:8]
    assert [first[8:], second[8:]] == [bytes(4), b"\0\0\0\x01"]
    one._counter = 0xFFFF_FFFF
    last, drawn = one.next(), one.next()
    assert last == first[:8] + b"\xff" * 4
    assert drawn[8:] == bytes(4)
    assert drawn[:8] != first[:8]


def test_two_messages_under_ctr_never_share_a_counter_block() -> None:
    encrypt = encrypting(Mechanism.AES_CTR, "AES-128")
    starts = [encrypt(DATA).iv for _ in range(3)]
    assert all(iv[12:] == bytes(4) for iv in starts)
    assert len({iv[:12] for iv in starts}) == 3


@pytest.mark.parametrize("kind", [*PAIRS, *SECRETS])
@pytest.mark.parametrize("mechanism", [each for each in Mechanism if served(each)])
def test_a_key_of_another_type_or_use_is_refused_before_anything_is_done(mechanism: Mechanism, kind: str) -> None:
    rule = MECHANISM_RULES[mechanism]
    inner, outer = halves(kind)
    fits = KINDS[kind][0] in rule.key_types
    packed = pack_parameters(parameters_for(mechanism))

    def prepare(use: Use, key: LoadedKey) -> object:
        match use:
            case Use.SIGN:
                return signer(mechanism, key, packed)
            case Use.VERIFY:
                return verifier(mechanism, key, packed)
            case Use.ENCRYPT:
                return encrypter(mechanism, key, IvSource(), packed)
            case _:
                return decrypter(mechanism, key, packed)

    for use, right, wrong in (
        (Use.SIGN, inner, outer),
        (Use.VERIFY, outer, inner),
        (Use.ENCRYPT, outer, inner),
        (Use.DECRYPT, inner, outer),
    ):
        if use not in rule.uses:
            with pytest.raises(MechanismInvalid):
                prepare(use, right)
        elif not fits:
            with pytest.raises(KeyTypeInconsistent):
                prepare(use, right)
        elif wrong is not right:
            with pytest.raises(KeyTypeInconsistent):
                prepare(use, wrong)


@pytest.mark.parametrize(
    ("key_type", "object_class", "value"),
    [
        (KeyType.AES, ObjectClass.SECRET_KEY, bytes(17)),
        (KeyType.AES, ObjectClass.PRIVATE_KEY, bytes(16)),
        (KeyType.CHACHA20, ObjectClass.SECRET_KEY, bytes(16)),
        (KeyType.RSA, ObjectClass.SECRET_KEY, bytes(16)),
        (KeyType.EC, ObjectClass.PRIVATE_KEY, b"not DER"),
        (KeyType.EC, ObjectClass.PUBLIC_KEY, b""),
        (KeyType.EC, ObjectClass.DATA, b""),
    ],
)
def test_a_value_that_is_no_such_key_is_refused(key_type: KeyType, object_class: ObjectClass, value: bytes) -> None:
    with pytest.raises(KeyTypeInconsistent):
        load(key_type, object_class, value)


def test_a_key_is_not_loaded_as_one_of_another_type() -> None:
    public, private = pair("P-256")
    with pytest.raises(KeyTypeInconsistent):
        load(KeyType.RSA, ObjectClass.PRIVATE_KEY, private.value)
    with pytest.raises(KeyTypeInconsistent):
        load(KeyType.EC_EDWARDS, ObjectClass.PUBLIC_KEY, public.value)


def test_no_repr_shows_a_key() -> None:
    made = generate_key(Mechanism.AES_KEY_GEN, {Attribute.VALUE_LEN: 32}, COMPATIBLE)
    for shown in (repr(made), str(made), repr(load_object(*made))):
        assert repr(made.value) not in shown
        assert made.value.hex() not in shown


def test_a_signature_of_another_key_is_refused_by_the_library_too() -> None:
    signature = signing(Mechanism.EDDSA, "Ed25519")[0](DATA)
    with pytest.raises(InvalidSignature):
        ed25519.Ed25519PrivateKey.generate().public_key().verify(signature, DATA)
    with pytest.raises(LnhError):
        signing(Mechanism.EDDSA, "Ed25519")[1](DATA + b"x", signature)
