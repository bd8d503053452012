"""Encodes the SDK's arguments for the wire, and results for people: templates, data, signatures.

Pure functions; everything that depends on a mechanism or attribute is read from its row.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final, TypeAlias

import msgspec
from typing_extensions import Self

from lnh.objects import streams
from lnh_common import limits
from lnh_common.errors import (
    ArgumentInvalid,
    AttributeInvalid,
    DataLength,
    EncryptedDataInvalid,
    KeyFunctionNotPermitted,
    KeySizeRange,
    KeyTypeInconsistent,
    MechanismInvalid,
    MechanismParameterInvalid,
    SignatureInvalid,
)
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import AES_BLOCK, CURVES_BY_PARAMS, ML_DSA_SIGNATURES, Hash
from lnh_common.pkcs11.attributes import (
    ATTRIBUTES,
    Attribute,
    AttributeValue,
    KeyType,
    ObjectClass,
    parse_template,
    to_wire,
)
from lnh_common.pkcs11.mechanisms import (
    MECHANISM_RULES,
    POLICY_FIELDS,
    USE_ATTRIBUTES,
    Mechanism,
    Output,
    Use,
    parse_parameters,
)
from lnh_common.pkcs11.parameters import (
    AeadParameters,
    HashedParameters,
    IvParameters,
    NoParameters,
    pack_parameters,
)
from lnh_common.text import shown

BytesLike: TypeAlias = bytes | bytearray | memoryview

_ITEM_HEAD: Final = 5  # bytes that CBOR has in front of a byte string
_M = Mechanism

# Per use and key type, what is taken when no mechanism is named: the first the key allows.
_DEFAULTS: Final[dict[tuple[Use, KeyType], tuple[Mechanism, ...]]] = {
    (Use.SIGN, KeyType.RSA): (_M.SHA256_RSA_PKCS_PSS, _M.SHA256_RSA_PKCS),
    (Use.SIGN, KeyType.EC_EDWARDS): (_M.EDDSA,),
    (Use.SIGN, KeyType.ML_DSA): (_M.ML_DSA,),
    (Use.SIGN, KeyType.AES): (_M.AES_CMAC,),
    (Use.SIGN, KeyType.GENERIC_SECRET): (_M.SHA256_HMAC, _M.SHA384_HMAC, _M.SHA512_HMAC),
    (Use.ENCRYPT, KeyType.RSA): (_M.RSA_PKCS_OAEP,),
    (Use.ENCRYPT, KeyType.AES): (_M.AES_GCM, _M.AES_CBC_PAD, _M.AES_CTR, _M.AES_ECB),
    (Use.ENCRYPT, KeyType.CHACHA20): (_M.CHACHA20_POLY1305,),
    (Use.WRAP, KeyType.AES): (_M.AES_KEY_WRAP_PAD, _M.AES_KEY_WRAP),
    (Use.WRAP, KeyType.RSA): (_M.RSA_AES_KEY_WRAP, _M.RSA_PKCS_OAEP),
    (Use.DERIVE, KeyType.EC): (_M.ECDH1_DERIVE,),
    (Use.DERIVE, KeyType.EC_MONTGOMERY): (_M.ECDH1_DERIVE,),
    (Use.DERIVE, KeyType.GENERIC_SECRET): (_M.HKDF_DERIVE, _M.SP800_108_COUNTER_KDF),
    (Use.DERIVE, KeyType.AES): (_M.SP800_108_COUNTER_KDF,),
    (Use.ENCAPSULATE, KeyType.ML_KEM): (_M.ML_KEM,),
}
_SAME_DEFAULTS: Final = {
    Use.VERIFY: Use.SIGN,
    Use.DECRYPT: Use.ENCRYPT,
    Use.UNWRAP: Use.WRAP,
    Use.DECAPSULATE: Use.ENCAPSULATE,
}

_HASHLIB: Final[dict[Hash, str]] = {Hash.SHA256: "sha256", Hash.SHA384: "sha384", Hash.SHA512: "sha512"}


class Encrypted(bytes):
    """The result of an encryption: `iv || ciphertext`, with the mechanism's tag, if it makes one, at the end."""

    _iv_length: int

    def __new__(cls, iv: bytes, ciphertext: bytes) -> Self:
        """Join an IV, which may be empty, and a ciphertext."""
        self = super().__new__(cls, iv + ciphertext)
        self._iv_length = len(iv)
        return self

    @property
    def iv(self) -> bytes:
        """The IV that the HSM drew, or the caller gave."""
        return bytes(self[: self._iv_length])

    @property
    def ciphertext(self) -> bytes:
        """The ciphertext, with its tag where the mechanism makes one."""
        return bytes(self[self._iv_length :])


def template(attributes: Mapping[Attribute, AttributeValue] | None, named: Mapping[str, object]) -> dict[int, Any]:
    """Encode a template for the wire, from numbers and from names in lower case.

    Raises AttributeInvalid naming the attribute.
    """
    values: dict[int, Any] = dict((attributes or {}).items())
    for name, value in named.items():
        values[attribute(name).value] = value
    return dict(to_wire(parse_template(values)))


def attribute(name: str) -> Attribute:
    """Find the attribute of this name, in lower or upper case; raises AttributeInvalid."""
    try:
        return Attribute[name.upper().replace("-", "_")]
    except KeyError:
        raise AttributeInvalid(f"unknown attribute: {name}") from None


def whole_bytes(key_type: KeyType, bits: int) -> int:
    """Return the bytes of a key of so many bits; raises KeySizeRange."""
    if bits % 8:
        raise KeySizeRange(f"a {key_type.name} key of {bits} bits; whole bytes are wanted")
    return bits // 8


def split_template(named: Mapping[str, object], key_type: KeyType) -> tuple[dict[str, object], dict[str, object]]:
    """Sort attributes of a key pair to its public and its private half; an attribute that both have goes to both.

    Raises AttributeInvalid for an attribute that neither has.
    """
    public: dict[str, object] = {}
    private: dict[str, object] = {}
    for name, value in named.items():
        rule = ATTRIBUTES[attribute(name)]
        of_public = rule.applies(ObjectClass.PUBLIC_KEY, key_type)
        of_private = rule.applies(ObjectClass.PRIVATE_KEY, key_type)
        if not of_public and not of_private:
            raise AttributeInvalid(f"{name}: no key of a {key_type.name} pair has it")
        if of_public:
            public[name] = value
        if of_private:
            private[name] = value
    return public, private


def default_mechanism(attributes: Mapping[Attribute, AttributeValue], use: Use) -> Mechanism:
    """Choose the mechanism that a key with these attributes takes for this use when none is named.

    Raises KeyFunctionNotPermitted for a use that the key does not have, MechanismInvalid.
    """
    if attributes.get(USE_ATTRIBUTES[use]) is False:
        raise KeyFunctionNotPermitted(f"{USE_ATTRIBUTES[use].name} is not true for this key")
    number = attributes.get(Attribute.KEY_TYPE)
    assert isinstance(number, int), "a key has a KEY_TYPE"
    key_type = KeyType(number)
    use = _SAME_DEFAULTS.get(use, use)
    if use is Use.SIGN and key_type is KeyType.EC:
        bits = CURVES_BY_PARAMS[_curve_params(attributes)].bits
        choices: tuple[Mechanism, ...] = (
            _M.ECDSA_SHA256 if bits <= 256 else _M.ECDSA_SHA384 if bits <= 384 else _M.ECDSA_SHA512,
        )
    else:
        choices = _DEFAULTS.get((use, key_type), ())
    allowed = attributes.get(Attribute.ALLOWED_MECHANISMS)
    for choice in choices:
        if not isinstance(allowed, list) or choice.value in allowed:
            return choice
    raise MechanismInvalid(f"no mechanism to {use.value} with this {key_type.name} key; name one")


def named_policy(policy: dict[str, Any]) -> dict[str, Any]:
    """Return a policy with its mechanisms by name; what this version does not know keeps its number."""
    return {
        name: [_mechanism_name(each) for each in value] if name in POLICY_FIELDS and value else value
        for name, value in policy.items()
    }


def _mechanism_name(number: int) -> str | int:
    return Mechanism(number).name if number in Mechanism._value2member_map_ else number


def use_fields(
    handle: bytes, mechanism: Mechanism, data: BytesLike | BinaryIO, parameters: Message | None
) -> dict[str, Any]:
    """Make the fields of a `Use`; data too long for a message is hashed here where the mechanism hashes it anyway.

    Raises DataLength, MechanismParameterInvalid.
    """
    if type(data) is not bytes or len(data) > limits.REQUEST_BYTES:
        if isinstance(data, bytes | bytearray | memoryview):
            data = bytes(data)
        elif not callable(getattr(data, "read", None)):
            raise ArgumentInvalid(f"data is {type(data).__name__}; bytes or an open binary file is wanted")
        if not isinstance(data, bytes) or len(data) > limits.REQUEST_BYTES:
            data, parameters = _shorten(mechanism, data, parameters)
    return _fields(handle, mechanism, data, parameters)


def encrypt_fields(handle: bytes, mechanism: Mechanism, data: BytesLike, parameters: Message | None) -> dict[str, Any]:
    """Make the fields of a `Use` that encrypts; raises as `use_fields` does."""
    return _fields(handle, mechanism, _bounded(data, limits.REQUEST_BYTES, "to encrypt"), parameters)


def decrypt_fields(handle: bytes, mechanism: Mechanism, data: BytesLike, parameters: Message | None) -> dict[str, Any]:
    """Make the fields of a `Decrypt`, which takes whatever `encrypt_fields` can give; raises as that does."""
    return _fields(handle, mechanism, _bounded(data, limits.CIPHERTEXT_BYTES, "to decrypt"), parameters)


def _bounded(data: BytesLike, most: int, what: str) -> bytes:
    data = bytes(data)
    if len(data) > most:
        raise DataLength(f"{len(data)} bytes {what}; at most {most}")
    return data


def _fields(handle: bytes, mechanism: Mechanism, data: bytes, parameters: Message | None) -> dict[str, Any]:
    return {
        "handle": handle,
        "mechanism": mechanism.value,
        "data": data,
        "parameters": packed(mechanism, parameters) if parameters is not None else b"",
    }


def packed(mechanism: Mechanism, parameters: Message) -> bytes:
    """Check parameters, and encode them for the wire; raises MechanismParameterInvalid.

    Parameters of another mechanism are refused also where all of them have their defaults.
    """
    kind = MECHANISM_RULES[mechanism].parameters
    if not issubclass(kind, type(parameters)):
        takes = f"{mechanism.name} takes {'none' if kind is NoParameters else kind.__name__}"
        raise MechanismParameterInvalid(f"{type(parameters).__name__}: {takes}")
    try:
        encoded = pack_parameters(parameters)
    except (TypeError, ValueError):
        raise MechanismParameterInvalid(f"{type(parameters).__name__} holds a value of no such type") from None
    parse_parameters(mechanism, encoded)
    return encoded


def many_fields(
    handle: bytes, mechanism: Mechanism, items: Sequence[bytes], parameters: Message | None
) -> dict[str, Any]:
    """Make the fields of a `UseMany`; raises MechanismParameterInvalid."""
    return {
        "handle": handle,
        "mechanism": mechanism.value,
        "items": list(items),
        "parameters": packed(mechanism, parameters) if parameters is not None else b"",
    }


def batches(messages: Iterable[BytesLike], answer: int = 0, more: int = 0) -> Iterator[list[bytes]]:
    """Cut messages into batches of what one request and its answer may carry, in order.

    Args:
        answer: bytes of the answer to each, at most, whatever its length.
        more: bytes by which its answer may be longer than a message, or what goes with it in the request.

    Raises DataLength, ArgumentInvalid.
    """
    most = max(min(limits.BATCH_ITEMS, limits.REQUEST_BYTES // (answer + _ITEM_HEAD)), 1)
    longest = limits.REQUEST_BYTES - more
    batch: list[bytes] = []
    size = 0
    for number, message in enumerate(messages):
        if not isinstance(message, bytes | bytearray | memoryview):
            raise ArgumentInvalid(f"message {number} is {type(message).__name__}; bytes are wanted")
        message = bytes(message)
        if len(message) > longest:
            raise DataLength(f"{len(message)} bytes in one message; at most {longest}")
        if batch and (len(batch) == most or size + len(message) > longest):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += len(message) + _ITEM_HEAD + more
    if batch:
        yield batch


def signature_bytes(mechanism: Mechanism, attributes: Mapping[Attribute, AttributeValue]) -> int:
    """Compute the greatest length of a signature or tag by a key with these attributes."""
    rule = MECHANISM_RULES[mechanism]
    if rule.output is Output.TAG:
        return rule.hash.size if rule.hash is not None else AES_BLOCK
    modulus = attributes.get(Attribute.MODULUS)
    if isinstance(modulus, bytes):
        return len(modulus)
    params = attributes.get(Attribute.EC_PARAMS)
    if isinstance(params, bytes) and params in CURVES_BY_PARAMS:
        return 2 * (CURVES_BY_PARAMS[params].size + 1)  # Ed448 has an octet more than its field
    number = attributes.get(Attribute.PARAMETER_SET)
    found = ML_DSA_SIGNATURES.get(number) if isinstance(number, int) else None
    return found or limits.SIGNATURE_BYTES


def _shorten(mechanism: Mechanism, data: bytes | BinaryIO, parameters: Message | None) -> tuple[bytes, Message | None]:
    rule = MECHANISM_RULES[mechanism]
    if not isinstance(data, bytes):
        head = streams.read(data, limits.REQUEST_BYTES + 1)
        if len(head) <= limits.REQUEST_BYTES:
            return head, parameters
    else:
        head = data
    hash_ = rule.hash
    if hash_ not in _HASHLIB or not issubclass(rule.parameters, HashedParameters):
        raise DataLength(f"more than {limits.REQUEST_BYTES} bytes; {mechanism.name} takes no more")
    digest = hashlib.new(_HASHLIB[hash_], head)
    if not isinstance(data, bytes):
        for chunk in streams.chunks(data):
            digest.update(chunk)
    given = parameters if parameters is not None else rule.parameters()
    if not isinstance(given, HashedParameters):
        raise MechanismParameterInvalid(f"{type(given).__name__}: {mechanism.name} takes {rule.parameters.__name__}")
    if given.prehashed:
        raise DataLength(f"more than {limits.REQUEST_BYTES} bytes; with prehashed it is a digest")
    return digest.digest(), msgspec.structs.replace(given, prehashed=True)


def given_iv(parameters: Message | None) -> bytes:
    """Return the caller's own IV, or nothing."""
    return parameters.iv if isinstance(parameters, IvParameters | AeadParameters) else b""


def split_iv(mechanism: Mechanism, parameters: Message | None, data: BytesLike) -> tuple[Message | None, bytes]:
    """Split an IV off the front of the data, unless it was given; returns parameters with the IV, and the ciphertext.

    Raises EncryptedDataInvalid for data too short to have one.
    """
    rule = MECHANISM_RULES[mechanism]
    data = bytes(data)
    length = rule.iv_bytes
    if not length or given_iv(parameters):
        return parameters, data
    if len(data) < length:
        raise EncryptedDataInvalid("the data does not decrypt")
    given = parameters if parameters is not None else rule.parameters()
    if not isinstance(given, IvParameters | AeadParameters):
        raise MechanismParameterInvalid(f"{type(given).__name__}: {mechanism.name} takes {rule.parameters.__name__}")
    return msgspec.structs.replace(given, iv=data[:length]), data[length:]


def ecdsa_to_der(mechanism: Mechanism, signature: bytes) -> bytes:
    """Encode `r || s` as an ECDSA-Sig-Value (RFC 3279, 2.2.3); raises MechanismInvalid for another mechanism."""
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    if MECHANISM_RULES[mechanism].output is not Output.R_S:
        raise MechanismInvalid(f"{mechanism.name} makes no ECDSA signature; only that has a DER form")
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))


def ecdsa_from_der(mechanism: Mechanism, signature: bytes, attributes: Mapping[Attribute, AttributeValue]) -> bytes:
    """Decode an ECDSA-Sig-Value to `r || s`; raises SignatureInvalid when it is none, or too large for the curve."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    if MECHANISM_RULES[mechanism].output is not Output.R_S:
        raise MechanismInvalid(f"{mechanism.name} makes no ECDSA signature; only that has a DER form")
    size = CURVES_BY_PARAMS[_curve_params(attributes)].size
    try:
        r, s = decode_dss_signature(signature)
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    except (ValueError, OverflowError):
        raise SignatureInvalid("not an ECDSA signature in DER") from None


def _curve_params(attributes: Mapping[Attribute, AttributeValue]) -> bytes:
    params = attributes.get(Attribute.EC_PARAMS)
    if not isinstance(params, bytes) or params not in CURVES_BY_PARAMS:
        raise MechanismInvalid("the key's curve is not known to this SDK")
    return params


def pem(label: str, der: bytes) -> str:
    """Encode DER as PEM (RFC 7468)."""
    text = base64.b64encode(der).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def openssh(der: bytes, comment: str) -> str:
    """Encode a public key as a line for OpenSSH.

    Args:
        der: SubjectPublicKeyInfo.
        comment: put behind the key; escaped, since a line feed in it would begin another line.

    Raises KeyTypeInconsistent for a type that OpenSSH does not have.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

    try:
        line = load_der_public_key(der).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyTypeInconsistent("OpenSSH has no keys of this type; write PEM, DER or JWK") from None
    return f"{line} {shown(comment)}".rstrip() + "\n"
