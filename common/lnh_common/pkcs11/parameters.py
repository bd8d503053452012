"""Parameters of mechanisms: each is declared once, as a field with its type, bounds, default and help.

A type of parameters is a message. What the SDK checks, the command line takes as options, docs/mechanisms.md shows and
a worker demands is read from its fields (`declared`). What holds for one mechanism only, such as the length of its IV,
is in the mechanism's row (`MechanismRule.narrows`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import cache
from typing import Annotated, Final, TypeAlias

import msgspec

from lnh_common import limits
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import AES_BLOCK, GCM_TAG_BITS, Hash
from lnh_common.wire import codec


def _help(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class NoParameters(Message):
    """The parameters of a mechanism that takes none."""


class HashedParameters(Message):
    """Parameters of a mechanism that hashes.

    The SDK signs a file of any length by `prehashed`.
    """

    prehashed: Annotated[bool, _help("The data is already the digest.")] = False


class PssParameters(HashedParameters):
    """RSASSA-PSS (RFC 8017, 8.1), with MGF1 over the same hash."""

    hash: Annotated[Hash | None, _help("The hash, of MGF1 too; the mechanism's own, or else SHA-256.")] = None
    salt_length: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=1024)] | None, _help("Bytes of salt; the hash's size, if not given.")
    ] = None


class MldsaParameters(Message):
    """ML-DSA's context string (FIPS 204, 5.2)."""

    context: Annotated[bytes, msgspec.Meta(max_length=255), _help("Context that the signature is bound to.")] = b""


class MacParameters(Message):
    """Parameters of a truncated tag."""

    length: Annotated[int, msgspec.Meta(ge=16, le=64), _help("Bytes of the tag, at least half the hash's size and 16.")]


class IvParameters(Message):
    """CBC's IV or CTR's first counter block."""

    iv: Annotated[bytes, msgspec.Meta(max_length=AES_BLOCK), _help("The IV; to encrypt, the HSM draws it.")] = b""


class AeadParameters(Message):
    """ChaCha20-Poly1305 (RFC 8439): a nonce and associated data."""

    iv: Annotated[bytes, msgspec.Meta(max_length=AES_BLOCK), _help("The IV; to encrypt, the HSM draws it.")] = b""
    aad: Annotated[bytes, msgspec.Meta(max_length=limits.AAD_BYTES), _help("Associated data.")] = b""


class GcmParameters(AeadParameters):
    """AES-GCM (SP 800-38D): as `AeadParameters`."""

    tag_bits: Annotated[int, msgspec.Meta(ge=GCM_TAG_BITS, le=GCM_TAG_BITS), _help("Bits of the tag.")] = GCM_TAG_BITS


class OaepParameters(Message):
    """RSAES-OAEP (RFC 8017, 7.1), with MGF1 over the same hash or, as other software has it by default, another."""

    hash: Annotated[Hash, _help("The hash, of MGF1 too.")] = Hash.SHA256
    label: Annotated[bytes, msgspec.Meta(max_length=1024), _help("Label that the ciphertext is bound to.")] = b""
    mgf: Annotated[Hash | None, _help("The hash of MGF1, where it is another; Java's default is SHA-1.")] = None


class Kdf(str, enum.Enum):
    """What follows an agreement on a curve: a raw result is no key."""

    X963 = "X9.63"
    HKDF = "HKDF"


class EcdhParameters(Message):
    """ECDH, and X25519 and X448 (RFC 7748), through X9.63 KDF (SEC 1, 3.6.1) or HKDF (RFC 5869)."""

    public_key: Annotated[
        bytes,
        msgspec.Meta(min_length=32, max_length=256),
        _help("The other side's public key, as its EC_POINT has it, or without the DER around it."),
    ]
    kdf: Annotated[Kdf, _help("The key derivation that follows.")] = Kdf.X963
    hash: Annotated[Hash, _help("The hash of the key derivation.")] = Hash.SHA256
    info: Annotated[
        bytes, msgspec.Meta(max_length=512), _help("What the key is bound to: shared info (X9.63), or info (HKDF).")
    ] = b""
    salt: Annotated[bytes, msgspec.Meta(max_length=512), _help("Salt; of HKDF alone.")] = b""


class HkdfParameters(Message):
    """HKDF (RFC 5869): extract and expand, or expand alone of a key that is uniform already."""

    hash: Annotated[Hash, _help("The hash.")] = Hash.SHA256
    info: Annotated[bytes, msgspec.Meta(max_length=512), _help("What the key is bound to.")] = b""
    salt: Annotated[bytes, msgspec.Meta(max_length=512), _help("Salt of the extraction.")] = b""
    expand_only: Annotated[bool, _help("The key is uniform already: leave the extraction out.")] = False


class CounterParameters(Message):
    """SP 800-108 in counter mode: HMAC with a generic secret, CMAC with AES; counter and length have 32 bits."""

    hash: Annotated[Hash | None, _help("The hash of HMAC; SHA-256, if not given. An AES key has none.")] = None
    label: Annotated[bytes, msgspec.Meta(max_length=512), _help("What the key is for.")] = b""
    context: Annotated[bytes, msgspec.Meta(max_length=512), _help("What the key is bound to.")] = b""


class ParameterKind(enum.Enum):
    """The kind of a parameter's value."""

    BYTES = "bytes"
    NUMBER = "number"
    FLAG = "flag"
    NAME = "name"


@dataclass(frozen=True)
class Range:
    """The least and the most of a number, or of the length of bytes; the default of a parameter is allowed besides."""

    least: int
    most: int

    def __str__(self) -> str:
        return str(self.most) if self.least == self.most else f"{self.least} to {self.most}"


Choices: TypeAlias = tuple[enum.Enum, ...]
Narrowed: TypeAlias = Range | Choices


@dataclass(frozen=True)
class Parameter:
    """One parameter of a mechanism, as everybody reads it.

    Args:
        default: what holds when it is not given; None lets the mechanism choose.
        is_required: whether it must be given; there is no default then.
        range: of the number, or of the length of the bytes.
        choices: what it may name, such as hashes.
        help: one sentence.
    """

    name: str
    kind: ParameterKind
    help: str
    default: object
    is_required: bool
    range: Range | None
    choices: Choices

    def narrowed(self, to: Narrowed) -> Parameter:
        """Return the parameter within the bounds of one mechanism."""
        return replaced(self, range=to) if isinstance(to, Range) else replaced(self, choices=to)

    def problem(self, value: object) -> str:
        """Say what is wrong with a value of the right type; empty for what may be."""
        if not self.is_required and value == self.default:
            return ""
        if self.choices and value not in self.choices:
            names = ", ".join(str(each.value) for each in self.choices)
            return f"{getattr(value, 'value', value)}; one of {names} wanted"
        if self.range is None:
            return ""
        size = len(value) if isinstance(value, bytes) else value
        assert isinstance(size, int), f"{self.name} has a range, so it is bytes or a number"
        if self.range.least <= size <= self.range.most:
            return ""
        return f"of {size} bytes; {self.range} wanted" if isinstance(value, bytes) else f"{size}; {self.range} wanted"


@cache
def declared(kind: type[Message]) -> tuple[Parameter, ...]:
    """List the parameters that a type of parameters declares."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType), "parameters are a message"
    return tuple(_parameter(field) for field in info.fields)


def _parameter(field: msgspec.inspect.Field) -> Parameter:
    kinds, text = _flat(field.type)
    assert len(kinds) == 1, f"{field.name} is of one kind"
    kind, range_, choices = _KINDS[type(kinds[0])](kinds[0])
    default = field.default if field.default is not msgspec.NODEFAULT else None
    return Parameter(field.name, kind, text, default, field.required, range_, choices)


def _flat(type_: msgspec.inspect.Type) -> tuple[list[msgspec.inspect.Type], str]:
    """Return the types that are united, without None, and the help around them."""
    if isinstance(type_, msgspec.inspect.Metadata):
        kinds, text = _flat(type_.type)
        return kinds, str((type_.extra_json_schema or {}).get("description", text))
    if isinstance(type_, msgspec.inspect.UnionType):
        flat = [_flat(each) for each in type_.types]
        return [kind for kinds, _ in flat for kind in kinds], ""
    return [] if isinstance(type_, msgspec.inspect.NoneType) else [type_], ""


_Described: TypeAlias = tuple[ParameterKind, Range | None, Choices]


def _bytes(type_: msgspec.inspect.Type) -> _Described:
    assert isinstance(type_, msgspec.inspect.BytesType), "found by its type"
    assert type_.max_length is not None, "bytes from outside are bounded"
    return ParameterKind.BYTES, Range(type_.min_length or 0, type_.max_length), ()


def _number(type_: msgspec.inspect.Type) -> _Described:
    assert isinstance(type_, msgspec.inspect.IntType), "found by its type"
    assert type_.ge is not None, "numbers from outside are bounded"
    assert type_.le is not None, "numbers from outside are bounded"
    return ParameterKind.NUMBER, Range(type_.ge, type_.le), ()


def _flag(type_: msgspec.inspect.Type) -> _Described:
    return ParameterKind.FLAG, None, ()


def _name(type_: msgspec.inspect.Type) -> _Described:
    assert isinstance(type_, msgspec.inspect.EnumType), "found by its type"
    return ParameterKind.NAME, None, tuple(type_.cls)


_KINDS: Final = {
    msgspec.inspect.BytesType: _bytes,
    msgspec.inspect.IntType: _number,
    msgspec.inspect.BoolType: _flag,
    msgspec.inspect.EnumType: _name,
}


def pack_parameters(parameters: Message | None) -> bytes:
    """Encode parameters as the wire carries them; None and a type's defaults are empty."""
    if parameters is None:
        return b""
    defaults = {each.name: msgspec.UNSET if each.is_required else each.default for each in declared(type(parameters))}
    fields = {name: value for name, default in defaults.items() if (value := getattr(parameters, name)) != default}
    return codec.encode(msgspec.to_builtins(fields, builtin_types=(bytes,))) if fields else b""
