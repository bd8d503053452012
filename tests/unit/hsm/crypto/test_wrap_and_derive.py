"""Key wrapping and derivation against published vectors, and against the constructions written out here."""

from __future__ import annotations

import hmac

import pytest
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.cmac import CMAC

from lnh_common.errors import KeySizeRange, WrappedKeyInvalid
from lnh_common.pkcs11.algorithms import Hash
from lnh_common.pkcs11.attributes import KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.pkcs11.parameters import CounterParameters, HkdfParameters, pack_parameters
from lnh_services.hsm.crypto.mechanisms import LoadedKey, deriver, load, unwrapper, wrapper

M = Mechanism


def secret(value: bytes, key_type: KeyType = KeyType.AES) -> LoadedKey:
    return load(key_type, ObjectClass.SECRET_KEY, value)


@pytest.mark.parametrize(
    ("mechanism", "kek", "key", "wrapped"),
    [
        # RFC 3394, 4.1 and 4.6; RFC 5649, 6.
        (M.AES_KEY_WRAP, "000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff",
         "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"),
        (M.AES_KEY_WRAP, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
         "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f",
         "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"),
        (M.AES_KEY_WRAP_PAD, "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8",
         "c37b7e6492584340bed12207808941155068f738",
         "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"),
        (M.AES_KEY_WRAP_PAD, "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8", "466f7250617369",
         "afbeb0f07dfbf5419200f2ccb50bb24f"),
    ],
)  # fmt: skip
def test_aes_key_wrap_gives_the_published_values(mechanism: Mechanism, kek: str, key: str, wrapped: str) -> None:
    wrapping = secret(bytes.fromhex(kek))
    assert wrapper(mechanism, wrapping)(bytes.fromhex(key)).hex() == wrapped
    assert unwrapper(mechanism, wrapping)(bytes.fromhex(wrapped)).hex() == key
    for spoiled in (b"", bytes.fromhex(wrapped)[:-8], bytes.fromhex(wrapped)[:-1] + b"\0"):
        with pytest.raises(WrappedKeyInvalid):
            unwrapper(mechanism, wrapping)(spoiled)


@pytest.mark.parametrize("length", [8, 17, 23])
def test_what_aes_key_wrap_does_not_take_is_told_what_to_use(length: int) -> None:
    with pytest.raises(KeySizeRange) as refused:
        wrapper(M.AES_KEY_WRAP, secret(bytes(32)))(bytes(length))
    assert "AES_KEY_WRAP_PAD" in refused.value.detail["advice"]


def test_hkdf_gives_the_published_values() -> None:
    # RFC 5869, appendix A.1.
    salt, info = bytes(range(13)), bytes(range(0xF0, 0xFA))
    okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    whole = pack_parameters(HkdfParameters(salt=salt, info=info))
    base = secret(b"\x0b" * 22, KeyType.GENERIC_SECRET)
    assert deriver(M.HKDF_DERIVE, base, whole)(42).hex() == okm
    prk = bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    expand = pack_parameters(HkdfParameters(info=info, expand_only=True))
    assert deriver(M.HKDF_DERIVE, secret(prk, KeyType.GENERIC_SECRET), expand)(42).hex() == okm
    with pytest.raises(KeySizeRange, match="8160"):
        deriver(M.HKDF_DERIVE, base, whole)(8161)


@pytest.mark.parametrize("length", [16, 32, 100])
@pytest.mark.parametrize("hash_", [None, Hash.SHA384, Hash.SHA512])
def test_the_counter_kdf_is_that_of_sp_800_108(length: int, hash_: Hash | None) -> None:
    parameters = CounterParameters(hash=hash_, label=b"label", context=b"context")
    fixed = b"label\0context" + (8 * length).to_bytes(4, "big")
    name = {None: "sha256", Hash.SHA384: "sha384", Hash.SHA512: "sha512"}[hash_]
    blocks = [hmac.digest(b"k" * 32, i.to_bytes(4, "big") + fixed, name) for i in range(1, 5)]
    derive = deriver(M.SP800_108_COUNTER_KDF, secret(b"k" * 32, KeyType.GENERIC_SECRET), pack_parameters(parameters))
    assert derive(length) == b"".join(blocks)[:length]


@pytest.mark.parametrize("length", [16, 32, 40])
def test_the_counter_kdf_of_an_aes_key_is_cmac(length: int) -> None:
    fixed = b"label\0context" + (8 * length).to_bytes(4, "big")
    blocks = []
    for number in range(1, 4):
        mac = CMAC(algorithms.AES(b"k" * 32))
        mac.update(number.to_bytes(4, "big") + fixed)
        blocks.append(mac.finalize())
    parameters = pack_parameters(CounterParameters(label=b"label", context=b"context"))
    assert deriver(M.SP800_108_COUNTER_KDF, secret(b"k" * 32), parameters)(length) == b"".join(blocks)[:length]
