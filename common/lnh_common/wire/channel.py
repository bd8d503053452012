"""The sealed channel between the SDK and an hsm worker; everything between them sees headers only.

How it goes:

1. `hello` answers with a *statement* about the channel key, signed by the cluster identity that the
   client pinned when it registered (`Statement`).
2. An operation that uses a credential travels in one HPKE message (RFC 9180; the KEM is ML-KEM-768 with X25519)
   to that channel key and carries a fresh 32-byte secret S (`seal_credential`, `open_credential`). HPKE's
   `info` binds it to the cluster, channel epoch, operation, request id and route; a registered client's
   Ed25519 key signs `info` and the plaintext.
3. A login is answered with a token, opaque to the client. Every later message is sealed under a key
   and nonce expanded (HKDF-Expand, RFC 5869) from S and the message's own random 32 bytes N, used
   once, with AES-256-GCM (`seal_request`, `open_request`, `seal_reply`, `open_answer`). S has one key a direction.

A retry sends the same bytes. Formats and test vectors: docs/formats.md.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from lnh_common import limits
from lnh_common.errors import ChannelInvalid, LnhError, MalformedMessage
from lnh_common.wire import codec, frames
from lnh_common.wire.frames import Header, Kind

FORMAT: Final = "lnh-channel-1"
SECRET_BYTES: Final = 32
CHANNEL_KEY_BYTES: Final = 1184 + 32
CHANNEL_SEED_BYTES: Final = 64 + 32

_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_SHA512: Final = hashes.SHA512()
_N: Final = 32
_KEY: Final = 32
_KEY_AND_NONCE: Final = 44
_EPOCH: Final = 8


def fingerprint(identity: bytes) -> str:
    """Spell the fingerprint of a cluster identity (a raw 32-byte Ed25519 public key) as OpenSSH does."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(identity).digest()).rstrip(b"=").decode()


# --- the channel key


def channel_private_key(seed: bytes) -> hpke.MLKEM768X25519PrivateKey:
    """Make the channel key of a 96-byte seed: 64 bytes for ML-KEM-768 (FIPS 203, d || z), 32 for X25519."""
    assert len(seed) == CHANNEL_SEED_BYTES, "a channel seed has 96 bytes"
    return hpke.MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(seed[:64]), X25519PrivateKey.from_private_bytes(seed[64:])
    )


def channel_public_bytes(seed: bytes) -> bytes:
    """Compute the 1216 public bytes of the channel key: ML-KEM-768 encapsulation key, then X25519."""
    return (
        MLKEM768PrivateKey.from_seed_bytes(seed[:64]).public_key().public_bytes_raw()
        + X25519PrivateKey.from_private_bytes(seed[64:]).public_key().public_bytes_raw()
    )


def channel_public_key(public: bytes) -> hpke.MLKEM768X25519PublicKey:
    """Parse 1216 public bytes; raises ChannelInvalid."""
    if len(public) != CHANNEL_KEY_BYTES:
        raise ChannelInvalid(f"a channel key of {len(public)} bytes; it has {CHANNEL_KEY_BYTES}")
    try:
        return hpke.MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:1184]), X25519PublicKey.from_public_bytes(public[1184:])
        )
    except ValueError:
        raise ChannelInvalid("not a channel key") from None


class Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The statement that the cluster identity signs in the answer to `hello`.

    Args:
        cluster: 16-byte cluster id.
        label: the cluster's label.
        epoch: of the channel key; a client refuses one lower than it has seen.
        channel_key: 1216 bytes.
        end: when the channel key is no longer accepted, UTC seconds.
        member: 16-byte id of the member that answers.
        member_key: the 32-byte CURVE key of that member's client port.
    """

    format: str
    cluster: bytes
    label: str
    epoch: int
    channel_key: bytes
    end: int
    member: bytes
    member_key: bytes

    def sign(self, identity: Ed25519PrivateKey) -> tuple[bytes, bytes]:
        """Encode the statement, and sign it (64 bytes)."""
        encoded = codec.encode(list(msgspec.structs.astuple(self)))
        return encoded, identity.sign(encoded)

    @classmethod
    def verify(cls, encoded: bytes, signature: bytes, identity: bytes) -> Statement:
        """Decode a statement that `identity` (32 bytes) signed; raises ChannelInvalid for any other."""
        try:
            Ed25519PublicKey.from_public_bytes(identity).verify(signature, encoded)
        except (InvalidSignature, ValueError):
            raise ChannelInvalid("the answer to hello is not signed by the cluster's identity") from None
        statement = codec.decode_as(encoded, cls)
        if statement.format != FORMAT:
            raise ChannelInvalid(f"channel format {statement.format!r}; this side speaks {FORMAT!r}")
        return statement


# --- messages that use a credential


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The content of every seal, around the operation's fields.

    Args:
        issued_at: UTC milliseconds.
        deadline_ms: how long the client waits for the answer; it overrides the header's.
        connection: 16 random bytes of a connection: the duplicate session of a write.
        sequence: numbers a connection's writes from 1; 0 for a request that writes nothing.
        fields: of the operation.
    """

    issued_at: int
    deadline_ms: int
    connection: bytes
    sequence: int
    fields: dict[str, Any]


class _Credential(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The plaintext of an HPKE message."""

    secret: bytes
    nonce: bytes
    client: bytes
    envelope: Envelope


class OpenedCredential(msgspec.Struct, frozen=True):
    """An opened HPKE message, whose signature `check_signature` checks once the client's key is known."""

    secret: bytes
    nonce: bytes
    client: bytes
    envelope: Envelope
    signature: bytes
    signed: bytes

    def check_signature(self, public: bytes) -> None:
        """Raise ChannelInvalid unless the client with this raw Ed25519 key made the message."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(self.signature, self.signed)
        except (InvalidSignature, ValueError):
            raise ChannelInvalid("the message is not signed by the registered client's key") from None


def _info(cluster: bytes, epoch: int, header: Header) -> bytes:
    return codec.encode([FORMAT, cluster, epoch, header.operation, header.request_id, header.route])


def seal_credential(
    header: Header,
    envelope: Envelope,
    statement: Statement,
    secret: bytes,
    client: bytes = b"",
    client_key: Ed25519PrivateKey | None = None,
) -> bytes:
    """Seal the body frame of an operation that uses a credential.

    Args:
        secret: S, 32 fresh random bytes.
        client, client_key: the registered client's id and signature key, or neither.
    """
    info = _info(statement.cluster, statement.epoch, header)
    plaintext = codec.encode([secret, os.urandom(16), client, list(msgspec.structs.astuple(envelope))])
    signature = client_key.sign(info + plaintext) if client_key else b""
    sealed = _SUITE.encrypt(codec.encode([plaintext, signature]), channel_public_key(statement.channel_key), info)
    return statement.epoch.to_bytes(_EPOCH, "big") + sealed


def credential_epoch(body: bytes) -> int:
    """Read the channel epoch that a credential message was sealed for; raises ChannelInvalid."""
    if len(body) <= _EPOCH:
        raise ChannelInvalid("a sealed message too short to be one")
    return int.from_bytes(body[:_EPOCH], "big")


def open_credential(
    header: Header, body: bytes, cluster: bytes, private: hpke.MLKEM768X25519PrivateKey
) -> OpenedCredential:
    """Open what `seal_credential` made; raises ChannelInvalid."""
    info = _info(cluster, credential_epoch(body), header)
    try:
        plaintext = _SUITE.decrypt(body[_EPOCH:], private, info)
    except (InvalidTag, ValueError):
        raise ChannelInvalid("the sealed message does not open") from None
    inner, signature = codec.decode_as(plaintext, tuple[bytes, bytes])
    opened = codec.decode_as(inner, _Credential)
    if len(opened.secret) != SECRET_BYTES:
        raise ChannelInvalid(f"a channel secret of {len(opened.secret)} bytes; it has {SECRET_BYTES}")
    return OpenedCredential(opened.secret, opened.nonce, opened.client, opened.envelope, signature, info + inner)


# --- messages under a session's secret


@dataclass(frozen=True, eq=False)
class SessionKeys:
    """The keys of a session, one a direction, both from S; `token_hash` is bound into every message.

    `request_mac` and `reply_mac` are those keys' HMACs, copied for each message: keying one costs more than using it.
    """

    request: bytes = field(repr=False)
    reply: bytes = field(repr=False)
    token_hash: bytes
    request_mac: HMAC = field(repr=False)
    reply_mac: HMAC = field(repr=False)

    @classmethod
    def derive(cls, secret: bytes, token: bytes) -> SessionKeys:
        """Derive the keys of secret S (32 bytes) for messages that carry `token` (empty around a credential)."""
        request = HKDFExpand(_SHA512, _KEY, b"lnh channel request").derive(secret)
        reply = HKDFExpand(_SHA512, _KEY, b"lnh channel reply").derive(secret)
        token_hash = hashlib.sha256(token).digest()
        return cls(request, reply, token_hash, HMAC(request, _SHA512), HMAC(reply, _SHA512))


def _crypt(key: HMAC, n: bytes) -> tuple[AESGCM, bytes]:
    # HKDF-Expand of one block (RFC 5869, 2.3): T(1) = HMAC(key, info || 0x01), of which the first 44 of 64 bytes.
    block = key.copy()
    block.update(n + b"\x01")
    material = block.finalize()
    return AESGCM(material[:_KEY]), material[_KEY:_KEY_AND_NONCE]


def _seal(key: HMAC, plaintext: bytes, associated: bytes) -> bytes:
    n = os.urandom(_N)
    cipher, nonce = _crypt(key, n)
    return n + cipher.encrypt(nonce, plaintext, associated)


def _open(key: HMAC, body: bytes, associated: bytes) -> bytes:
    cipher, nonce = _crypt(key, body[:_N])
    try:
        return cipher.decrypt(nonce, body[_N:], associated)
    except (InvalidTag, ValueError):
        raise ChannelInvalid("the sealed message does not open") from None


def seal_request(keys: SessionKeys, header: Header, envelope: Envelope) -> bytes:
    """Seal the body frame of a request under a session."""
    plaintext = codec.encode(msgspec.structs.astuple(envelope))
    return _seal(keys.request_mac, plaintext, header.bound(Kind.REQUEST, keys.token_hash))


def open_request(keys: SessionKeys, header: Header, body: bytes) -> Envelope:
    """Open what `seal_request` made; raises ChannelInvalid."""
    return codec.decode_as(_open(keys.request_mac, body, header.bound(Kind.REQUEST, keys.token_hash)), Envelope)


def _reply_associated(keys: SessionKeys, header: Header, request_body: bytes) -> bytes:
    # The request's own associated data and body: a reply fits exactly one request.
    return header.bound(Kind.REPLY, keys.token_hash) + hashlib.sha256(request_body).digest()


def seal_reply(keys: SessionKeys, header: Header, request_body: bytes, value: dict[str, Any] | LnhError) -> bytes:
    """Seal the body frame of the answer to a request: its fields, or an error that nobody on the way can see.

    An answer that no message holds is replaced by an error that says so.
    """
    associated = _reply_associated(keys, header, request_body)
    error = value if isinstance(value, LnhError) else None
    body = _seal(keys.reply_mac, codec.encode([0, value] if error is None else error.to_wire()), associated)
    if len(body) > limits.BODY_BYTES:
        told = frames.instead(header, error, len(body))
        body = _seal(keys.reply_mac, codec.encode(told.to_wire()), associated)
    return body


def open_answer(keys: SessionKeys, header: Header, request_body: bytes, body: bytes) -> dict[str, Any] | LnhError:
    """Open the answer to a request: its fields, or the error that was sealed.

    Args:
        header: of the request.
        request_body: the body frame that was sent.
        body: the body frame that came back.

    Raises ChannelInvalid unless a holder of S made this answer to this request.
    """
    plaintext = _open(keys.reply_mac, body, _reply_associated(keys, header, request_body))
    try:
        return outcome(codec.decode(plaintext))
    except MalformedMessage:
        raise ChannelInvalid("a sealed answer of an unknown form") from None


def outcome(value: Any) -> dict[str, Any] | LnhError:
    """Decode `[0, fields]` or `[code, message, detail]`; raises MalformedMessage for anything else."""
    match value:
        case [0, dict(fields)]:
            return fields
        case [int(code), str(), dict()] as error if code:
            return LnhError.from_wire(error)
    raise MalformedMessage("an outcome of an unknown form")


def open_reply(keys: SessionKeys, header: Header, request_body: bytes, body: bytes) -> dict[str, Any]:
    """Open the answer to a request as `open_answer` does, and raise the error that was sealed."""
    answer = open_answer(keys, header, request_body, body)
    if isinstance(answer, LnhError):
        raise answer
    return answer
