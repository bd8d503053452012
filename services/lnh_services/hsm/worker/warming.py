"""Does before a worker serves what its first request would wait for: decoders, and the first use of cryptography.

The first value of a message type has its decoder built, and what is used of the library for the first time is looked up
there: together some 5 ms of processor time, ten times a signature's. A worker that starts has nothing else to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from lnh_common.messages.base import OPERATIONS
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute, Attributes
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism
from lnh_common.wire import codec
from lnh_common.wire.channel import Envelope, SessionKeys
from lnh_services.hsm.auth.tokens import Token, open_token, seal_token, token_epoch
from lnh_services.hsm.crypto.mechanisms import IvSource, decrypter, encrypter, load_object, signer, verifier
from lnh_services.hsm.objects.generate import generate_key, generate_key_pair
from lnh_services.hsm.objects.policy import Policy
from lnh_services.hsm.records import TABLES
from lnh_services.hsm.worker.core import Served

_ASKED: Final = {"store", "core", "argon2", "membership", "balancer", "backup"}  # whose answers a worker decodes

_A: Final = Attribute
_M: Final = Mechanism


def kinds(served: Iterable[Served]) -> frozenset[type[Any]]:
    """Return the message types that a worker decodes which serves these operations."""
    asked = (operation for operation in OPERATIONS.values() if operation.name.partition(".")[0] in _ASKED)
    return frozenset(
        {
            *(row.operation.request for row in served),
            *(operation.reply for operation in asked),
            *(rule.parameters for rule in MECHANISM_RULES.values()),
            *TABLES,
            Envelope,
            Policy,
            Token,
        }
    )


def warm(served: Iterable[Served]) -> None:
    """Build all decoders, and use once, with throw-away keys, what most requests use."""
    codec.prepare(kinds(served))
    _use_tokens()
    _use_keys()


def _use_tokens() -> None:
    seed, cluster = bytes(32), bytes(16)
    token = Token(bytes(32), bytes(16), 0, 0, b"", (), b"", cluster)
    sealed = seal_token(token, cluster, 1, seed)
    open_token(token_epoch(sealed)[1], cluster, 1, seed)
    SessionKeys.derive(token.secret, sealed)


def _use_keys() -> None:
    policy, data = Policy(), bytes(32)
    curve: Attributes = {_A.EC_PARAMS: CURVES["P-256"].oid}
    public, private = generate_key_pair(_M.EC_KEY_PAIR_GEN, curve, {}, policy)
    signature = signer(_M.ECDSA_SHA256, load_object(*private))(data)
    verifier(_M.ECDSA_SHA256, load_object(*public))(data, signature)
    secret = generate_key(_M.AES_KEY_GEN, {_A.VALUE_LEN: 32}, policy)
    encrypted = encrypter(_M.AES_GCM, load_object(*secret), IvSource())(data)
    decrypter(_M.AES_GCM, load_object(*secret), is_joined=True)(encrypted.iv + encrypted.data)
    mac = generate_key(_M.GENERIC_SECRET_KEY_GEN, {_A.VALUE_LEN: 32, _A.SIGN: True}, policy)
    signer(_M.SHA256_HMAC, load_object(*mac))(data)
