"""Operations with keys that were begun: what was given so far, and how long what comes out is. Pure.

Parts are gathered, or hashed as they come where the mechanism hashes them anyway: to the HSM an operation is one
message. So `Update` gives nothing, and `Final` all.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lnh.objects.streaming import comes_in_parts
from lnh_common import limits
from lnh_common.errors import DataLength
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import AES_BLOCK, CURVES_BY_PARAMS, ML_DSA_SIGNATURES, Hash
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, USE_ATTRIBUTES, Mechanism, Output, Scheme, Use
from lnh_common.pkcs11.parameters import HashedParameters, MacParameters
from lnh_pkcs11.fields import Given
from lnh_pkcs11.numbers import CKR
from lnh_pkcs11.refusals import Refused

if TYPE_CHECKING:
    from lnh.aio import StoredObject

_HASHLIB: Final = {each: each.value.lower().replace("sha-", "sha").replace("-", "_") for each in Hash}
_ED448_SIGNATURE: Final = 114


@dataclass
class Operation:
    """One operation.

    Attributes:
        key: None of a digest.
        own_iv: the IV that the application gave; empty where the HSM draws it, and it stands before the ciphertext.
        signature: that is verified, where it was given at the beginning.
        data: the parts so far, where they are not hashed.
        has_parts: whether it goes in parts.
        result: what came out, while it waits for a buffer that it fits into.
        is_busy: whether the HSM is asked.
        message, aad: the parameters and associated data of a message that goes in parts.
        is_spent: whether an empty result was given to a call that may only have asked for its length.
    """

    mechanism: Mechanism
    key: StoredObject | None = None
    parameters: Message | None = None
    own_iv: bytes = b""
    signature: bytes | None = None
    data: bytearray = field(default_factory=bytearray)
    has_parts: bool = False
    result: bytes | None = None
    is_busy: bool = False
    is_spent: bool = False
    message: Given | None = None
    aad: bytes = b""
    _hash: Any = None

    def feed(self, part: bytes) -> None:
        """Take a part; raises DataLength for more than is gathered."""
        if not self.has_parts:
            self.has_parts = True
            if hashes_here(self.mechanism):
                hash_ = MECHANISM_RULES[self.mechanism].hash
                assert hash_ is not None, "it hashes"
                self._hash = new_hash(hash_)
        if self._hash is not None:
            self._hash.update(part)
            return
        most = gathered_most(self.mechanism)
        if len(self.data) + len(part) > most + AES_BLOCK:
            raise DataLength(f"more than {most} bytes in parts of {self.mechanism.name}")
        self.data += part

    def end_message(self) -> tuple[bytes, Given, bytes]:
        """End a message that goes in parts; returns them, its parameters and its associated data."""
        assert self.message is not None, "it was begun"
        ended = bytes(self.data), self.message, self.aad
        self.data, self.has_parts, self.message, self.aad = bytearray(), False, None, b""
        return ended

    def gathered(self) -> tuple[bytes, Message | None]:
        """Return what goes to the HSM, and with which parameters."""
        if self._hash is None:
            return bytes(self.data), self.parameters
        digest: bytes = self._hash.digest()
        if MECHANISM_RULES[self.mechanism].uses == {Use.DIGEST}:
            return digest, None
        given = self.parameters or MECHANISM_RULES[self.mechanism].parameters()
        return digest, msgspec.structs.replace(given, prehashed=True)


def new_hash(hash_: Hash) -> Any:
    """Begin a hash."""
    return hashlib.new(_HASHLIB[hash_], usedforsecurity=False)


def hashes_here(mechanism: Mechanism) -> bool:
    """Tell whether parts are hashed as they come."""
    rule = MECHANISM_RULES[mechanism]
    return rule.hash is not None and (rule.uses == {Use.DIGEST} or issubclass(rule.parameters, HashedParameters))


def gathered_most(mechanism: Mechanism) -> int:
    """Return how many bytes of parts are gathered: more than one request takes, where the SDK feeds them in parts."""
    makes_tag = MECHANISM_RULES[mechanism].output is Output.TAG and comes_in_parts(mechanism)
    return limits.PKCS11_TAGGED_BYTES if makes_tag else limits.PKCS11_GATHERED_BYTES


def check_use(mechanism: Mechanism, key: StoredObject, use: Use) -> None:
    """Raise Refused where this cannot be done with the key, as far as that shows without asking."""
    rule = MECHANISM_RULES[mechanism]
    if use not in rule.uses:
        raise Refused(CKR.MECHANISM_INVALID, f"{mechanism.name} is not to {use.value}")
    if key.attributes.get(Attribute.KEY_TYPE) not in rule.key_types:
        raise Refused(CKR.KEY_TYPE_INCONSISTENT, f"{mechanism.name} is for other keys")
    if key.attributes.get(USE_ATTRIBUTES[use]) is not True:
        raise Refused(CKR.KEY_FUNCTION_NOT_PERMITTED, f"{USE_ATTRIBUTES[use].name} is not true")


def signature_length(operation: Operation) -> int:
    """Compute the length of a signature or tag."""
    rule = MECHANISM_RULES[operation.mechanism]
    assert operation.key is not None, "what signs has a key"
    attributes = operation.key.attributes
    if isinstance(operation.parameters, MacParameters):
        return operation.parameters.length
    if rule.output is Output.TAG:
        return rule.hash.size if rule.hash is not None else AES_BLOCK
    modulus = attributes.get(Attribute.MODULUS)
    if isinstance(modulus, bytes):
        return len(modulus)
    parameter_set = attributes.get(Attribute.PARAMETER_SET)
    if isinstance(parameter_set, int):
        return ML_DSA_SIGNATURES[parameter_set]
    params = attributes.get(Attribute.EC_PARAMS)
    assert isinstance(params, bytes), "a key of a curve names it"
    curve = CURVES_BY_PARAMS[params]
    return _ED448_SIGNATURE if curve.name == "Ed448" else 2 * curve.size


def encrypted_length(operation: Operation, length: int) -> int:
    """Compute the length of the ciphertext of so many bytes."""
    assert operation.key is not None, "what encrypts has a key"
    rule = MECHANISM_RULES[operation.mechanism]
    modulus = operation.key.attributes.get(Attribute.MODULUS)
    if isinstance(modulus, bytes):
        return len(modulus)
    in_front = 0 if operation.own_iv else rule.iv_bytes
    if rule.output is Output.CIPHERTEXT_TAG:
        return in_front + length + AES_BLOCK
    if rule.scheme is Scheme.CBC_PAD:
        return in_front + (length // AES_BLOCK + 1) * AES_BLOCK
    return in_front + length


def decrypted_most(operation: Operation, length: int) -> int:
    """Compute the greatest length of what so many bytes of ciphertext decrypt to."""
    rule = MECHANISM_RULES[operation.mechanism]
    in_front = 0 if operation.own_iv else rule.iv_bytes
    behind = AES_BLOCK if rule.output is Output.CIPHERTEXT_TAG else 0
    return max(length - in_front - behind, 0)
