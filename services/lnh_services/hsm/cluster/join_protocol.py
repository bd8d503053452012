"""Gives a cluster's secrets to another HSM: the invitation, the proof of the cloning domain, the answer. Pure.

    inviting HSM                                                    joining HSM
    Invitation: nonce, address, its public keys  --- by hand --->
                      <--- request: HPKE( who joins, its nonce, proof of the domain )
    wrong proof: the invitation is burnt, nothing was released
    reply: HPKE( AES-256-GCM under the domain( Bundle ) ), signed --->   checked against the invitation

    domain key = Argon2id(cloning domain, salt = the first 16 bytes of the invitation's nonce)
    proof      = HMAC-SHA-256(domain key, both identities, both nonces, the member that joins)

The joining HSM speaks first, so one that does not know the domain learns nothing; a reply needs three things to be
opened: the joining HSM's key, the domain, and the transcript. The two membership services that carry these messages can
lose them and no more. docs/formats/joining.md is exact, with a test vector.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import textwrap
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lnh_common import limits
from lnh_common.errors import (
    ArgumentInvalid,
    ChannelInvalid,
    DomainMismatch,
    FingerprintMismatch,
    MalformedMessage,
    SealBroken,
)
from lnh_common.messages.base import Confidential
from lnh_common.messages.hsm import ChannelSeed, Derive, SmkGeneration
from lnh_common.messages.session import Id16, Key32
from lnh_common.messages.store import MemberInfo
from lnh_common.wire import channel, codec
from lnh_services.hsm.crypto.key_hierarchy import KEY_BYTES, Purpose
from lnh_services.hsm.crypto.sealing import Kind, Place, seal, unseal

FORMAT: Final = "lnh-join-1"
INVITATION_FORMAT: Final = "lnh-invitation-1"
SALT_BYTES: Final = 16
_LINE: Final = 76
_INVITATION_BYTES: Final = 8 * limits.KIB
_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_REPLY_LABEL: Final = b"lnh join reply"

PublicKey = Annotated[bytes, msgspec.Meta(min_length=channel.CHANNEL_KEY_BYTES, max_length=channel.CHANNEL_KEY_BYTES)]


class Identity(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An HSM's public keys: `sign` (Ed25519) and `receive` (HPKE)."""

    sign: Key32
    receive: PublicKey

    @classmethod
    def of(cls, seed: bytes) -> Identity:
        """Derive the public keys of the HSM with this identity seed (32 bytes)."""
        signing = Ed25519PrivateKey.from_private_bytes(Purpose.HSM_SIGN.derive(seed))
        return cls(
            signing.public_key().public_bytes_raw(), channel.channel_public_bytes(Purpose.HSM_RECEIVE.derive(seed))
        )

    def digest(self) -> bytes:
        """Hash (SHA-256) both keys."""
        return hashlib.sha256(codec.encode([self.sign, self.receive])).digest()

    def fingerprint(self) -> str:
        """Spell `digest` as people compare it."""
        return "SHA256:" + base64.b64encode(self.digest()).rstrip(b"=").decode()


class Invitation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An invitation, which a new member is given by hand: the address to ask at, and the HSM to trust there.

    Args:
        expires: UTC seconds by the inviting member's clock.
        host, port, key: of the inviting member's membership port, and its CURVE public key.
        identity: of the inviting HSM.
    """

    format: str
    nonce: Key32
    cluster: Id16
    label: str
    expires: int
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    key: Key32
    identity: Identity

    @property
    def occasion(self) -> Occasion:
        """The occasion of this invitation."""
        return Occasion(self.nonce, self.identity)

    def text(self) -> str:
        """Spell the invitation as it is handed over: lines of base64 under one that says what it is."""
        encoded = base64.b64encode(codec.encode(_plain(self))).decode()
        return "\n".join([INVITATION_FORMAT, *textwrap.wrap(encoded, _LINE)]) + "\n"

    @classmethod
    def parse(cls, text: str) -> Invitation:
        """Parse an invitation; raises ArgumentInvalid for a text that is no invitation of this version."""
        first, _, rest = text.strip().partition("\n")
        if first.strip() != INVITATION_FORMAT:
            raise ArgumentInvalid(f"not an invitation: it begins with the line {INVITATION_FORMAT}")
        try:
            encoded = base64.b64decode("".join(rest.split()), validate=True)
            found = codec.convert(codec.decode(encoded, _INVITATION_BYTES), cls)
        except (ValueError, MalformedMessage):  # what is no base64 is a ValueError, in one of its forms
            raise ArgumentInvalid("the invitation is damaged: a part of it is missing or changed") from None
        if found.format != INVITATION_FORMAT:
            raise ArgumentInvalid(f"an invitation of format {found.format!r}; this version reads {INVITATION_FORMAT!r}")
        return found


@dataclass(frozen=True)
class Occasion:
    """One invitation, as both sides bind their words to it: its nonce, and the HSM that made it."""

    nonce: bytes
    inviter: Identity

    def domain_derivation(self, domain: str) -> Derive:
        """Make the Argon2id request that derives the domain key, a fresh one for each invitation."""
        memory, passes, lanes = limits.DOMAIN_ARGON2
        return Derive(password=domain.encode(), salt=self.nonce[:SALT_BYTES], memory=memory, passes=passes, lanes=lanes)


class Bundle(Confidential, omit_defaults=True):
    """All that a member's HSM holds of its cluster; oldest first.

    The cluster's instance is not in it: it is in the cluster's own record, which comes with the log and carries an HMAC
    under the SMK. `lookup` is the record key of the first generation, since the first rollover; it is left out before.
    """

    cluster: Id16
    label: str
    identity: Key32
    smk: Annotated[tuple[SmkGeneration, ...], msgspec.Meta(min_length=1)]
    channel: Annotated[tuple[ChannelSeed, ...], msgspec.Meta(min_length=1)]
    members: Annotated[tuple[MemberInfo, ...], msgspec.Meta(min_length=1, max_length=limits.MEMBERS)]
    lookup: Annotated[bytes, msgspec.Meta(max_length=32)] = b""


class _Asking(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The plaintext of a request."""

    identity: Identity
    nonce: Key32
    member: MemberInfo
    product: str
    proof: Key32


class _Reply(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: str
    sealed: bytes
    signature: bytes


@dataclass(frozen=True)
class Asker:
    """The HSM that asks to join, as its opened request says; it has proved nothing before `check_proof`."""

    identity: Identity
    nonce: bytes
    member: MemberInfo
    product: str
    proof: bytes = field(repr=False)

    def check_proof(self, occasion: Occasion, domain_key: bytes) -> None:
        """Raise DomainMismatch unless the asker knows the cloning domain."""
        expected = _proof(domain_key, occasion, self.identity, self.nonce, self.member, self.product)
        if not hmac.compare_digest(expected, self.proof):
            raise DomainMismatch("the joining HSM has another cloning domain; the invitation is burnt")


def request(
    occasion: Occasion, *, seed: bytes, nonce: bytes, member: MemberInfo, product: str, domain_key: bytes
) -> bytes:
    """Make the request that the joining HSM sends.

    Args:
        seed: of its identity.
        nonce: 32 random bytes of its own.
        member: itself, as the cluster will list it.
        product: its version.
    """
    identity = Identity.of(seed)
    asking = _Asking(identity, nonce, member, product, _proof(domain_key, occasion, identity, nonce, member, product))
    recipient = channel.channel_public_key(occasion.inviter.receive)
    return _SUITE.encrypt(codec.encode(_plain(asking)), recipient, _request_info(occasion))


def open_request(occasion: Occasion, sealed: bytes, seed: bytes) -> Asker:
    """Open a request; raises ChannelInvalid when it was not made for this invitation and HSM."""
    private = channel.channel_private_key(Purpose.HSM_RECEIVE.derive(seed))
    try:
        asking = codec.decode_as(_SUITE.decrypt(sealed, private, _request_info(occasion)), _Asking)
    except (InvalidTag, ValueError, MalformedMessage):
        raise ChannelInvalid("the request to join was not made for this invitation, or was changed") from None
    return Asker(asking.identity, asking.nonce, asking.member, asking.product, asking.proof)


def reply(sealed_request: bytes, asker: Asker, bundle: Bundle, *, seed: bytes, domain_key: bytes) -> bytes:
    """Make the inviting HSM's reply, once the proof was checked.

    Args:
        seed: of the inviting HSM's identity.
    """
    transcript = hashlib.sha256(sealed_request).digest()
    place = Place(Kind.JOINING, cluster=bundle.cluster, extra=transcript)
    inner = codec.encode([bundle.cluster, seal(_reply_key(domain_key, asker.nonce), codec.encode(bundle), place)])
    sealed = _SUITE.encrypt(inner, channel.channel_public_key(asker.identity.receive), _reply_info(transcript))
    signing = Ed25519PrivateKey.from_private_bytes(Purpose.HSM_SIGN.derive(seed))
    return codec.encode([FORMAT, sealed, signing.sign(_signed(transcript, sealed))])


def open_reply(
    invitation: Invitation, sealed_request: bytes, answer: bytes, *, seed: bytes, nonce: bytes, domain_key: bytes
) -> Bundle:
    """Open the bundle of a reply, if the HSM that the invitation names made it for this very request.

    Raises FingerprintMismatch, SealBroken.
    """
    transcript = hashlib.sha256(sealed_request).digest()
    try:
        outer = codec.decode_as(answer, _Reply)
        Ed25519PublicKey.from_public_bytes(invitation.identity.sign).verify(
            outer.signature, _signed(transcript, outer.sealed, outer.format)
        )
    except (InvalidSignature, ValueError, MalformedMessage):
        raise FingerprintMismatch(
            f"the answer is not signed by the HSM that made the invitation ({invitation.identity.fingerprint()})"
        ) from None
    private = channel.channel_private_key(Purpose.HSM_RECEIVE.derive(seed))
    try:
        cluster, inner = codec.decode_as(
            _SUITE.decrypt(outer.sealed, private, _reply_info(transcript)), tuple[bytes, bytes]
        )
        place = Place(Kind.JOINING, cluster=cluster, extra=transcript)
        bundle = codec.decode_as(unseal(_reply_key(domain_key, nonce), inner, place), Bundle)
    except (InvalidTag, ValueError, MalformedMessage):
        raise SealBroken("the answer to the request to join does not open") from None
    if bundle.cluster != invitation.cluster:
        raise SealBroken("the answer is about another cluster than the invitation")
    return bundle


def _proof(
    domain_key: bytes, occasion: Occasion, identity: Identity, nonce: bytes, member: MemberInfo, product: str
) -> bytes:
    covered = [
        FORMAT, "proof", occasion.inviter.digest(), identity.digest(), occasion.nonce, nonce,
        msgspec.to_builtins(member, builtin_types=(bytes,)), product,
    ]  # fmt: skip
    return hmac.digest(domain_key, codec.encode(covered), "sha256")


def _reply_key(domain_key: bytes, nonce: bytes) -> bytes:
    return HKDF(hashes.SHA512(), KEY_BYTES, nonce, _REPLY_LABEL).derive(domain_key)


def _request_info(occasion: Occasion) -> bytes:
    return codec.encode([FORMAT, "request", occasion.nonce, occasion.inviter.digest()])


def _reply_info(transcript: bytes) -> bytes:
    return codec.encode([FORMAT, "reply", transcript])


def _signed(transcript: bytes, sealed: bytes, form: str = FORMAT) -> bytes:
    return codec.encode([form, "reply", transcript, sealed])


def _plain(value: msgspec.Struct) -> object:
    return msgspec.to_builtins(value, builtin_types=(bytes,))
