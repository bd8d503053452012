"""CURVE (RFC 26/CurveZMQ): key files, socket options, and failures of the handshake in words.

Keys are Z85 text as libzmq takes them (40 characters); messages carry them raw (32 bytes). A key file holds one line,
`lnh-curve-secret-1 <z85>`, and is refused when others could read it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zmq
from zmq.utils import z85

from lnh_common.errors import ConfigurationInvalid, FileModeUnsafe
from lnh_common.files import open_regular, sync_directory
from lnh_common.secret import Secret

_MARK: Final = "lnh-curve-secret-1"
_Z85_LENGTH: Final = 40

FAILED_EVENTS: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
# After these libzmq does not connect again; yet the other side may only not have heard of this key so far.
REFUSED_EVENTS: Final = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
REFUSED_AGAIN: Final = 1.0  # seconds until a peer that was refused connects again by itself
LINK_EVENTS: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | FAILED_EVENTS

_EXPLANATIONS: Final = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the other side refused this key",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the other side's key is not the expected one, or it does not speak CURVE",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the connection broke during the handshake: wrong server key, or no CURVE",
}


@dataclass(frozen=True)
class KeyPair:
    """A CURVE25519 key pair; `public` is Z85."""

    public: bytes
    secret: Secret

    @classmethod
    def generate(cls) -> KeyPair:
        """Draw a new key pair."""
        public, secret = zmq.curve_keypair()
        return cls(public, Secret(secret))

    @classmethod
    def of_secret(cls, secret: bytes) -> KeyPair:
        """Compute the pair of a Z85 secret key."""
        return cls(zmq.curve_public(secret), Secret(secret))

    @property
    def raw_public(self) -> bytes:
        """The public key as messages carry it: 32 bytes."""
        return to_raw(self.public)

    def save(self, path: Path) -> None:
        """Write a new key file of mode 0600; raises FileExistsError rather than replace one."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_MARK.encode() + b" " + self.secret.reveal() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)

    @classmethod
    def load(cls, path: Path) -> KeyPair:
        """Read a key file; raises FileModeUnsafe when others may read it, ConfigurationInvalid when it is no key."""
        descriptor = open_regular(path, follow=True)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise FileModeUnsafe(f"{path} has mode {mode:04o}; a key file has 0600")
            words = file.read(256).split()
        if len(words) != 2 or words[0] != _MARK.encode() or len(words[1]) != _Z85_LENGTH:
            raise ConfigurationInvalid(f"{path} is not a CURVE key file")
        try:
            return cls.of_secret(words[1])
        except (zmq.ZMQError, ValueError):
            raise ConfigurationInvalid(f"{path} is not a CURVE key file") from None


def to_raw(public: bytes) -> bytes:
    """Decode a Z85 key to its 32 raw bytes."""
    return z85.decode(public)


def to_z85(raw: bytes) -> bytes:
    """Encode 32 raw bytes as a Z85 key."""
    return z85.encode(raw)


def serve(socket: zmq.Socket[bytes], keys: KeyPair, domain: bytes = b"lnh") -> None:
    """Make this socket the server side; the ZAP authenticator decides which keys may connect (`zap.py`)."""
    socket.curve_server = True
    socket.curve_publickey = keys.public
    socket.curve_secretkey = keys.secret.reveal()
    socket.zap_domain = domain


def connect(socket: zmq.Socket[bytes], server_key: bytes, keys: KeyPair) -> None:
    """Make this socket the client side, which accepts only the server with this Z85 public key."""
    socket.curve_serverkey = server_key
    socket.curve_publickey = keys.public
    socket.curve_secretkey = keys.secret.reveal()


def explain(event: int) -> str:
    """Put a failed handshake (an event of FAILED_EVENTS) into words."""
    return _EXPLANATIONS.get(zmq.Event(event), "the handshake failed")


# The key of every member's door, the port that answers `hello` alone. It is published here on purpose: a client needs
# some key to speak CURVE at all, and what `hello` answers is signed by the cluster identity.
DOOR: Final = KeyPair.of_secret(b"+I-r!R+C+[KO461bPbC)aWVyKvONQLi3aG&@}]2@")
