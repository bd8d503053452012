"""Long inputs in parts: what the pure worker makes of them is what the bare library makes of the whole."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import itertools
import os
from collections.abc import Callable
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given
from hypothesis import strategies as st

from lnh_common import errors, limits
from lnh_common.messages import admin, objects, session
from lnh_common.messages.objects import Part, Result, StreamedUse
from lnh_common.messages.session import Credential, Role
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use, parse_parameters
from lnh_common.pkcs11.parameters import GcmParameters, HashedParameters, IvParameters, MacParameters, pack_parameters
from lnh_services.hsm.crypto.mechanisms import IvSource
from lnh_services.hsm.crypto.mechanisms.schemes import implementation
from lnh_services.hsm.objects.policy import Policy
from lnh_services.hsm.objects.streams import begin
from lnh_services.hsm.worker.caches import Streams
from models.worker import KRCO, Client, World

M = Mechanism
DATA: Final = os.urandom(1000)  # of no whole number of blocks
CUTS: Final = (0, 1, 15, 16, 17, 500, 984, 999)


def secret(client: Client, keyring: bytes, mechanism: Mechanism) -> bytes:
    """A key for this mechanism, and no other."""
    is_aes = mechanism.name.startswith("AES")
    use = Attribute.SIGN if Use.SIGN in MECHANISM_RULES[mechanism].uses else Attribute.ENCRYPT
    other = Attribute.VERIFY if use is Attribute.SIGN else Attribute.DECRYPT
    template = {Attribute.VALUE_LEN.value: 32, use.value: True, other.value: True}
    template |= {Attribute.ALLOWED_MECHANISMS.value: [mechanism.value]}  # type: ignore[dict-item]
    generator = M.AES_KEY_GEN if is_aes else M.GENERIC_SECRET_KEY_GEN
    return client.ask(objects.GENERATE, objects.GenerateKey(mechanism=generator, template=template), keyring).handle


class Feed:
    """Feeds a stream part by part."""

    def __init__(self, client: Client, keyring: bytes, use: StreamedUse, mechanism: Mechanism, **fields: Any) -> None:
        self.client, self.keyring = client, keyring
        self.fields = {"stream": os.urandom(16), "use": use, "mechanism": mechanism, **fields}
        self.offset = 0

    def part(self, data: bytes, *, last: bool = False, **other: Any) -> Result:
        message = Part(**{**self.fields, "data": data, "offset": self.offset, "last": last, **other})
        answer = self.client.ask(objects.STREAM, message, self.keyring)
        self.offset += len(data)
        return answer

    def all(self, data: bytes, cuts: tuple[int, ...], **last: Any) -> tuple[bytes, bytes]:
        """The IV of all answers, and their data."""
        edges = (0, *cuts, len(data))
        answers = [
            self.part(data[begin:end], last=end == len(data), **(last if end == len(data) else {}))
            for begin, end in itertools.pairwise(edges)
        ]
        (iv,) = {each.iv for each in answers}
        return iv, b"".join(each.data for each in answers)


def value_of(client: Client, keyring: bytes, handle: bytes) -> bytes:
    found = client.worker.caches.keys.get((keyring, handle))
    assert found is not None
    secret_bytes: bytes = found.loaded.secret
    return secret_bytes


def cmac(key: bytes, data: bytes) -> bytes:
    context = CMAC(algorithms.AES(key))
    context.update(data)
    return context.finalize()


def mode(name: Any, key: bytes, iv: bytes, data: bytes) -> bytes:
    context = Cipher(algorithms.AES(key), name(iv) if iv else name()).encryptor()
    return context.update(data) + context.finalize()


def padded(data: bytes) -> bytes:
    padder = padding.PKCS7(128).padder()
    return padder.update(data) + padder.finalize()


TAGS: Final[dict[Mechanism, Callable[[bytes, bytes], bytes]]] = {
    M.SHA256_HMAC: lambda key, data: hmac.digest(key, data, "sha256"),
    M.SHA512_HMAC: lambda key, data: hmac.digest(key, data, "sha512"),
    M.SHA384_HMAC_GENERAL: lambda key, data: hmac.digest(key, data, "sha384")[:24],
    M.AES_CMAC: cmac,
}
CIPHERS: Final[dict[Mechanism, Callable[[bytes, bytes, bytes], bytes]]] = {
    M.AES_CBC_PAD: lambda key, iv, data: mode(modes.CBC, key, iv, padded(data)),
    M.AES_CBC: lambda key, iv, data: mode(modes.CBC, key, iv, data),
    M.AES_CTR: lambda key, iv, data: mode(modes.CTR, key, iv, data),
    M.AES_ECB: lambda key, _, data: mode(modes.ECB, key, b"", data),
    M.AES_GCM: lambda key, iv, data: AESGCM(key).encrypt(iv, data, None),
}


def fitting(mechanism: Mechanism) -> bytes:
    return DATA[:992] if mechanism in (M.AES_CBC, M.AES_ECB) else DATA


@pytest.fixture
def weak(client: Client, keyring: bytes) -> None:
    changes = {"weak_mechanisms": ["AES_ECB"]}
    client.as_administrator().ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes=changes))
    client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))


def test_every_mechanism_that_streams_has_what_takes_parts_and_a_comparison_here() -> None:
    for mechanism, rule in MECHANISM_RULES.items():
        if Use.DIGEST in rule.uses:
            assert implementation(mechanism).accumulate is not None
        elif not issubclass(rule.parameters, HashedParameters):
            functions = implementation(mechanism)
            assert rule.streams == (functions.accumulate is not None or functions.cipher is not None), mechanism
    assert {implementation(each) for each in TAGS} == {
        implementation(each) for each in M if Use.SIGN in MECHANISM_RULES[each].uses and implementation(each).accumulate
    }
    assert set(CIPHERS) == {each for each in M if implementation(each).cipher is not None}


@pytest.mark.parametrize("mechanism", TAGS)
def test_a_tag_over_parts_is_the_tag_of_the_whole(client: Client, keyring: bytes, mechanism: Mechanism) -> None:
    key = secret(client, keyring, mechanism)
    general = pack_parameters(MacParameters(length=24)) if mechanism.name.endswith("GENERAL") else b""
    fields = {"handle": key, "parameters": general}
    for cuts in ((), CUTS, (16, 32)):
        _, tag = Feed(client, keyring, StreamedUse.SIGN, mechanism, **fields).all(DATA, cuts)
        assert tag == TAGS[mechanism](value_of(client, keyring, key), DATA)
        Feed(client, keyring, StreamedUse.VERIFY, mechanism, **fields).all(DATA, cuts, signature=tag)
        with pytest.raises(errors.SignatureInvalid):
            Feed(client, keyring, StreamedUse.VERIFY, mechanism, **fields).all(DATA[:-1], CUTS[:-1], signature=tag)


@pytest.mark.parametrize("mechanism", CIPHERS)
@pytest.mark.usefixtures("weak")
def test_parts_encrypt_to_what_the_whole_does_and_back(client: Client, keyring: bytes, mechanism: Mechanism) -> None:
    key, data = secret(client, keyring, mechanism), fitting(mechanism)
    for cuts in ((), CUTS[:-2]):
        iv, box = Feed(client, keyring, StreamedUse.ENCRYPT, mechanism, handle=key).all(data, cuts)
        assert box == CIPHERS[mechanism](value_of(client, keyring, key), iv, data)
        chosen = {"iv": iv} if iv else {}
        packed = pack_parameters(MECHANISM_RULES[mechanism].parameters(**chosen))
        assert parse_parameters(mechanism, packed)
        opened = Feed(client, keyring, StreamedUse.DECRYPT, mechanism, handle=key, parameters=packed).all(
            box, CUTS[:-2]
        )
        assert opened == (iv, data)


@pytest.mark.parametrize("name", ["SHA256", "SHA3_512"])
def test_a_hash_over_parts_is_the_hash_of_the_whole(client: Client, keyring: bytes, name: str) -> None:
    assert (
        Feed(client, keyring, StreamedUse.DIGEST, Mechanism[name]).all(DATA, CUTS)[1]
        == hashlib.new(name.lower(), DATA).digest()
    )


def test_what_was_changed_on_the_way_does_not_decrypt(client: Client, keyring: bytes) -> None:
    for mechanism, parameters in ((M.AES_GCM, GcmParameters), (M.AES_CBC_PAD, IvParameters)):
        key = secret(client, keyring, mechanism)
        iv, box = Feed(client, keyring, StreamedUse.ENCRYPT, mechanism, handle=key).all(DATA, ())
        packed = pack_parameters(parameters(iv=iv))
        for wrong in (box[:-17] + bytes([box[-17] ^ 1]) + box[-16:], box[:15], b""):
            with pytest.raises(errors.EncryptedDataInvalid):
                Feed(client, keyring, StreamedUse.DECRYPT, mechanism, handle=key, parameters=packed).all(wrong, ())


def test_the_same_part_twice_has_one_answer_and_another_order_none(client: Client, keyring: bytes) -> None:
    key = secret(client, keyring, M.AES_GCM)
    feed = Feed(client, keyring, StreamedUse.ENCRYPT, M.AES_GCM, handle=key)
    first = feed.part(DATA[:100])
    feed.offset = 0
    assert feed.part(DATA[:100]) == first
    second = feed.part(DATA[100:], last=True)
    feed.offset = 100
    assert feed.part(DATA[100:], last=True) == second
    assert AESGCM(value_of(client, keyring, key)).decrypt(first.iv, first.data + second.data, None) == DATA
    for offset in (0, 50, 1000):
        feed.offset = offset
        with pytest.raises(errors.StreamLost):
            feed.part(b"more")


def test_a_part_is_the_same_again_only_if_all_of_it_is(client: Client, keyring: bytes) -> None:
    key = secret(client, keyring, M.SHA256_HMAC)
    feed = Feed(client, keyring, StreamedUse.VERIFY, M.SHA256_HMAC, handle=key)
    feed.part(b"x")
    right = hmac.digest(value_of(client, keyring, key), b"x", "sha256")
    feed.part(b"")
    feed.part(b"")
    with pytest.raises(errors.SignatureInvalid):
        feed.part(b"", last=True, signature=bytes(32))
    for other in (right, bytes(31)):
        with pytest.raises(errors.StreamLost):
            feed.part(b"", last=True, signature=other)
    with pytest.raises(errors.StreamLost):
        feed.part(b"", signature=bytes(32))
    with pytest.raises(errors.SignatureInvalid):
        feed.part(b"", last=True, signature=bytes(32))
    feed = Feed(client, keyring, StreamedUse.SIGN, M.SHA256_HMAC, handle=key)
    feed.part(b"x", last=True)
    feed.offset = 0
    with pytest.raises(errors.StreamLost):
        feed.part(b"y", last=True)


def test_a_stream_that_verifies_does_not_end_with_the_tag(client: Client, keyring: bytes) -> None:
    key = secret(client, keyring, M.SHA256_HMAC)
    feed = Feed(client, keyring, StreamedUse.VERIFY, M.SHA256_HMAC, handle=key)
    feed.part(DATA)
    with pytest.raises(errors.StreamLost):
        feed.part(b"", last=True, use=StreamedUse.SIGN)


def test_another_worker_does_not_go_on_and_says_so(world: World, client: Client, keyring: bytes) -> None:
    feed = Feed(client, keyring, StreamedUse.SIGN, M.AES_CMAC, handle=secret(client, keyring, M.AES_CMAC))
    feed.part(DATA)
    client.worker = world.worker()
    with pytest.raises(errors.StreamLost, match="1000 bytes"):
        feed.part(DATA)


@pytest.mark.parametrize("kind", ["destroyed", "forbidden", "changed"])
def test_a_stream_ends_with_what_it_rests_on(world: World, client: Client, keyring: bytes, kind: str) -> None:
    key = secret(client, keyring, M.AES_GCM)
    feed = Feed(client, keyring, StreamedUse.ENCRYPT, M.AES_GCM, handle=key)
    feed.part(DATA)
    if kind == "destroyed":
        client.ask(objects.DESTROY, objects.Destroy(handle=key), keyring)
    elif kind == "changed":
        template: dict[int, Any] = {Attribute.ENCRYPT.value: False}
        client.ask(objects.SET, objects.SetAttributes(handle=key, template=template), keyring)
    else:
        client.as_administrator().ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"allowed_mechanisms": []}))
        client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    with pytest.raises((errors.ObjectUnknown, errors.StreamLost)):
        feed.part(DATA)


def test_what_may_not_be_done_is_refused_with_the_first_part(client: Client, keyring: bytes) -> None:
    key = secret(client, keyring, M.AES_GCM)
    chosen = pack_parameters(GcmParameters(iv=bytes(12)))
    for use, mechanism, fields, wanted in (
        (StreamedUse.ENCRYPT, M.AES_GCM, {"parameters": chosen}, errors.PolicyForbids),
        (StreamedUse.DECRYPT, M.AES_GCM, {}, errors.MechanismParameterInvalid),
        (StreamedUse.ENCRYPT, M.AES_CTR, {}, errors.MechanismInvalid),
        (StreamedUse.SIGN, M.AES_GCM, {}, errors.MechanismInvalid),
        (StreamedUse.SIGN, M.AES_CMAC, {}, errors.KeyFunctionNotPermitted),
    ):
        with pytest.raises(wanted):
            Feed(client, keyring, use, mechanism, handle=key, **fields).part(DATA)


def test_a_client_that_begins_too_many_loses_its_own(world: World, client: Client, keyring: bytes) -> None:
    mine = [Feed(client, keyring, StreamedUse.DIGEST, M.SHA256) for _ in range(2)]
    for feed in mine:
        feed.part(DATA)
    other = Client(world, client.worker).register("other")
    theirs: list[Feed] = []
    for login in range(3):
        other.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
        for _ in range(limits.CACHED_STREAMS // 2):
            theirs.append(Feed(other, keyring, StreamedUse.DIGEST, M.SHA256))
            theirs[-1].part(b"x")
        assert len(client.worker.caches.streams) == min(limits.CACHED_STREAMS, 2 + (login + 1) * 32)
    for feed in mine:
        assert feed.part(DATA, last=True).data == hashlib.sha256(DATA + DATA).digest()
    theirs[-1].part(b"y")
    with pytest.raises(errors.StreamLost):
        theirs[-limits.CACHED_STREAMS].part(b"y")


@given(owners=st.lists(st.integers(0, 3), max_size=60), size=st.integers(1, 9))
def test_who_has_no_more_than_a_share_loses_nothing(owners: list[int], size: int) -> None:
    part = Part(stream=bytes(16), use=StreamedUse.DIGEST, mechanism=M.SHA256, data=b"", offset=0)
    stream, streams = begin(part, None, Policy(), IvSource()), Streams(size)
    mine: list[tuple[bytes, bytes]] = []
    for number, owner in enumerate(owners):
        if owner == 0 and len(mine) >= size // 4:
            continue
        where = (bytes([owner]), bytes([number]))
        streams.put(where, bytes([owner]), stream)
        assert streams.get(where) is stream
        if owner == 0:
            mine.append(where)
        assert len(streams) <= size
        assert all(streams.get(each) is stream for each in mine)


@pytest.mark.parametrize("how", ["logged out", "logged out elsewhere"])
def test_the_streams_of_a_session_go_with_it(world: World, client: Client, keyring: bytes, how: str) -> None:
    stays = Client(world, client.worker).register("stays")
    stays.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    left = Feed(stays, keyring, StreamedUse.DIGEST, M.SHA256)
    left.part(DATA)
    for _ in range(3):
        Feed(client, keyring, StreamedUse.SIGN, M.SHA256_HMAC, handle=secret(client, keyring, M.SHA256_HMAC)).part(DATA)
        Feed(client, keyring, StreamedUse.DIGEST, M.SHA256).part(DATA)
    assert len(client.worker.caches.streams) == 7
    by = client if how == "logged out" else dataclasses.replace(client, worker=world.worker())
    by.ask(session.LOGOUT, session.Logout())
    assert len(client.worker.caches.streams) == 1
    assert left.part(b"", last=True).data == hashlib.sha256(DATA).digest()


def test_one_iv_encrypts_no_more_than_its_counter_counts(client: Client, keyring: bytes) -> None:
    key = secret(client, keyring, M.AES_CTR)
    feed = Feed(client, keyring, StreamedUse.ENCRYPT, M.AES_CTR, handle=key)
    feed.part(DATA)
    (stream,) = client.worker.caches.streams.values()
    stream.running._taken = limits.STREAMED_BYTES - 1  # type: ignore[attr-defined]  # as if it had come
    with pytest.raises(errors.DataLength, match="under one IV"):
        feed.part(b"xy")
