"""The channel's keys, held to the library's own derivation."""

from __future__ import annotations

import os

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from lnh_common.wire import channel, codec, frames
from lnh_common.wire.channel import Envelope, SessionKeys


def test_a_messages_key_and_nonce_are_hkdf_expand_of_its_random_number() -> None:
    keys = SessionKeys.derive(os.urandom(32), b"token")
    header = frames.request("key.sign", 1, 1000, route=bytes(16))
    envelope = Envelope(1, 1000, bytes(16), 0, {"data": b"x"})
    body = channel.seal_request(keys, header, envelope)
    material = HKDFExpand(hashes.SHA512(), 44, body[:32]).derive(keys.request)
    associated = codec.encode([1, 0, 1, "key.sign", bytes(16), keys.token_hash])
    opened = AESGCM(material[:32]).decrypt(material[32:], body[32:], associated)
    assert opened
    assert channel.open_request(keys, header, body) == envelope
