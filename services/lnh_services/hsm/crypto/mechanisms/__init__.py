"""Mechanisms over `cryptography`: load a key once, prepare a mechanism once, call it for each item.

A worker keeps a prepared callable for (key and version, mechanism, parameters); parameters that carry an IV differ each
time, so those are not worth keeping. `lnh_services.hsm.objects.policy` decides whether the key may be used at all; here
the key must only fit the mechanism.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from lnh_common import limits
from lnh_common.errors import (
    DataLength,
    KeyTypeInconsistent,
    MechanismInvalid,
    MechanismParameterInvalid,
    PolicyForbids,
)
from lnh_common.messages.base import Message
from lnh_common.pkcs11.attributes import ObjectClass
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, MechanismRule, Use, parse_parameters
from lnh_common.pkcs11.parameters import AeadParameters, IvParameters
from lnh_services.hsm.crypto.mechanisms.aes import draw_iv
from lnh_services.hsm.crypto.mechanisms.base import (
    Decapsulator,
    Decrypter,
    Deriver,
    Digester,
    Encapsulator,
    Encrypted,
    Encrypter,
    Implementation,
    IvSource,
    LoadedKey,
    Running,
    Signer,
    Unwrapper,
    Verifier,
    Wrapper,
    undecryptable,
)
from lnh_services.hsm.crypto.mechanisms.loading import load, load_object
from lnh_services.hsm.crypto.mechanisms.schemes import implementation, served

__all__ = [
    "Decapsulator",
    "Decrypter",
    "Deriver",
    "Digester",
    "Encapsulator",
    "Encrypted",
    "Encrypter",
    "Implementation",
    "IvSource",
    "LoadedKey",
    "Running",
    "Signer",
    "Unwrapper",
    "Verifier",
    "Wrapper",
    "accumulator",
    "cipher",
    "decapsulator",
    "decrypter",
    "deriver",
    "digester",
    "encapsulator",
    "encrypter",
    "load",
    "load_object",
    "served",
    "signer",
    "unwrapper",
    "verifier",
    "wrapper",
]

F = TypeVar("F")
T = TypeVar("T")

_CLASSES = {
    Use.SIGN: (ObjectClass.PRIVATE_KEY, ObjectClass.SECRET_KEY),
    Use.VERIFY: (ObjectClass.PUBLIC_KEY, ObjectClass.SECRET_KEY),
    Use.ENCRYPT: (ObjectClass.PUBLIC_KEY, ObjectClass.SECRET_KEY),
    Use.DECRYPT: (ObjectClass.PRIVATE_KEY, ObjectClass.SECRET_KEY),
    Use.WRAP: (ObjectClass.PUBLIC_KEY, ObjectClass.SECRET_KEY),
    Use.UNWRAP: (ObjectClass.PRIVATE_KEY, ObjectClass.SECRET_KEY),
    Use.DERIVE: (ObjectClass.PRIVATE_KEY, ObjectClass.SECRET_KEY),
    Use.ENCAPSULATE: (ObjectClass.PUBLIC_KEY,),
    Use.DECAPSULATE: (ObjectClass.PRIVATE_KEY,),
}


def _prepared(
    column: Callable[[LoadedKey, Message, MechanismRule], T] | None,
    mechanism: Mechanism,
    use: Use,
    key: LoadedKey,
    parameters: bytes,
) -> T:
    """Prepare what a mechanism does in one use of a key, where the use needs no more than these."""
    prepare = _column(column, mechanism, use)
    _check_key(mechanism, key, use)
    return prepare(key, parse_parameters(mechanism, parameters), MECHANISM_RULES[mechanism])


def signer(mechanism: Mechanism, key: LoadedKey, parameters: bytes = b"") -> Signer:
    """Prepare a callable that signs one item: data to signature; it raises DataLength.

    Args:
        mechanism: what to sign with.
        key: a private or secret key.
        parameters: CBOR of the mechanism's parameter type; empty for its defaults.

    Raises MechanismInvalid, KeyTypeInconsistent, MechanismParameterInvalid.
    """
    return _prepared(implementation(mechanism).sign, mechanism, Use.SIGN, key, parameters)


def verifier(mechanism: Mechanism, key: LoadedKey, parameters: bytes = b"") -> Verifier:
    """Prepare a callable of (data, signature) that raises SignatureInvalid, or DataLength; else as `signer`."""
    return _prepared(implementation(mechanism).verify, mechanism, Use.VERIFY, key, parameters)


def encrypter(
    mechanism: Mechanism,
    key: LoadedKey,
    ivs: IvSource,
    parameters: bytes = b"",
    *,
    caller_ivs: bool = False,
    is_many: bool = False,
) -> Encrypter:
    """Prepare a callable that encrypts one item: data to `Encrypted`, with the IV that was used; it raises DataLength.

    Args:
        mechanism: what to encrypt with.
        key: a public or secret key.
        ivs: the worker's source of IVs.
        parameters: CBOR of the mechanism's parameter type; empty for its defaults.
        caller_ivs: whether the policy lets the parameters choose the IV (`Policy.allows_caller_ivs`).
        is_many: whether more than one item is encrypted, so that the parameters choose no IV.

    Raises MechanismInvalid, KeyTypeInconsistent, MechanismParameterInvalid, PolicyForbids.
    """
    prepare = _column(implementation(mechanism).encrypt, mechanism, Use.ENCRYPT)
    _check_key(mechanism, key, Use.ENCRYPT)
    wanted = parse_parameters(mechanism, parameters)
    _check_caller_iv(_iv(wanted), caller_ivs=caller_ivs)
    if is_many and _iv(wanted):
        raise MechanismParameterInvalid(f"{mechanism.name}: iv: each of many items has its own, which the HSM draws")
    return prepare(key, wanted, MECHANISM_RULES[mechanism], ivs)


def decrypter(mechanism: Mechanism, key: LoadedKey, parameters: bytes = b"", *, is_joined: bool = False) -> Decrypter:
    """Prepare a callable that decrypts one item; it raises EncryptedDataInvalid, with one text for every cause.

    Args:
        mechanism, key, parameters: as of `signer`.
        is_joined: whether each item begins with its IV, instead of the parameters having it.
    """
    prepare = _column(implementation(mechanism).decrypt, mechanism, Use.DECRYPT)
    _check_key(mechanism, key, Use.DECRYPT)
    rule, wanted = MECHANISM_RULES[mechanism], parse_parameters(mechanism, parameters)
    if is_joined and rule.iv_bytes:
        return _joined(prepare, key, wanted, rule)
    if rule.iv_bytes and not _iv(wanted):
        raise MechanismParameterInvalid(f"{mechanism.name}: no iv; the one that encrypting answered is wanted")
    return prepare(key, wanted, rule)


def wrapper(mechanism: Mechanism, key: LoadedKey, parameters: bytes = b"") -> Wrapper:
    """Prepare a callable that wraps a key's value; it raises KeySizeRange. Else as `signer`."""
    return _prepared(implementation(mechanism).wrap, mechanism, Use.WRAP, key, parameters)


def unwrapper(mechanism: Mechanism, key: LoadedKey, parameters: bytes = b"") -> Unwrapper:
    """Prepare a callable that unwraps a key's value; it raises WrappedKeyInvalid, with one text. Else as `signer`."""
    return _prepared(implementation(mechanism).unwrap, mechanism, Use.UNWRAP, key, parameters)


def deriver(mechanism: Mechanism, key: LoadedKey, parameters: bytes = b"") -> Deriver:
    """Prepare a callable that derives so many bytes; it raises KeySizeRange. Else as `signer`."""
    return _prepared(implementation(mechanism).derive, mechanism, Use.DERIVE, key, parameters)


def encapsulator(mechanism: Mechanism, key: LoadedKey, parameters: bytes = b"") -> Encapsulator:
    """Prepare a callable that draws a secret, and the ciphertext for the holder of the private key; as `signer`."""
    return _prepared(implementation(mechanism).encapsulate, mechanism, Use.ENCAPSULATE, key, parameters)


def decapsulator(mechanism: Mechanism, key: LoadedKey, parameters: bytes = b"") -> Decapsulator:
    """Prepare a callable of a ciphertext that returns the secret; it raises EncryptedDataInvalid. Else as `signer`."""
    return _prepared(implementation(mechanism).decapsulate, mechanism, Use.DECAPSULATE, key, parameters)


def digester(mechanism: Mechanism) -> Digester:
    """Prepare a callable that hashes one item; raises MechanismInvalid."""
    prepare = _column(implementation(mechanism).digest, mechanism, Use.DIGEST)
    return prepare(MECHANISM_RULES[mechanism])


def _joined(
    prepare: Callable[[LoadedKey, Message, MechanismRule], Decrypter],
    key: LoadedKey,
    parameters: Message,
    rule: MechanismRule,
) -> Decrypter:
    if _iv(parameters):
        raise MechanismParameterInvalid("iv: each of many items begins with its own")

    def decrypt(item: bytes) -> bytes:
        iv, data = item[: rule.iv_bytes], item[rule.iv_bytes :]
        if len(iv) < rule.iv_bytes:
            raise undecryptable()
        return prepare(key, msgspec.structs.replace(parameters, iv=iv), rule)(data)

    return decrypt


def _iv(parameters: Message) -> bytes:
    return parameters.iv if isinstance(parameters, IvParameters | AeadParameters) else b""


def accumulator(mechanism: Mechanism, use: Use, key: LoadedKey | None, parameters: bytes = b"") -> Running:
    """Begin a tag (`use` is SIGN or VERIFY) or, without a key, a hash over data that comes in parts.

    Raises as `signer`; DataLength for a mechanism that takes no parts.
    """
    begin = implementation(mechanism).accumulate
    if use not in MECHANISM_RULES[mechanism].uses:
        raise MechanismInvalid(f"{mechanism.name} does not {use.value}")
    if begin is None:
        raise _takes_no_parts(mechanism)
    if key is not None:
        _check_key(mechanism, key, use)
    return begin(key, parse_parameters(mechanism, parameters), MECHANISM_RULES[mechanism])


def cipher(
    mechanism: Mechanism,
    use: Use,
    key: LoadedKey,
    ivs: IvSource,
    parameters: bytes = b"",
    *,
    caller_ivs: bool = False,
) -> tuple[bytes, Running]:
    """Begin to encrypt or decrypt data that comes in parts; returns the IV that is used, too.

    Raises as `encrypter` and `decrypter`; DataLength for a mechanism that takes no parts.
    """
    rule, begin = MECHANISM_RULES[mechanism], implementation(mechanism).cipher
    if use not in rule.uses:
        raise MechanismInvalid(f"{mechanism.name} does not {use.value}")
    if begin is None:
        raise _takes_no_parts(mechanism)
    _check_key(mechanism, key, use)
    wanted, encrypts = parse_parameters(mechanism, parameters), use is Use.ENCRYPT
    iv = _iv(wanted)
    if encrypts:
        _check_caller_iv(iv, caller_ivs=caller_ivs)
    elif rule.iv_bytes and not iv:
        raise MechanismParameterInvalid(f"{mechanism.name}: no iv; the one that encrypting answered is wanted")
    if rule.iv_bytes and not iv:
        iv = draw_iv(rule.scheme, ivs)
        wanted = msgspec.structs.replace(wanted, iv=iv)
    return iv, begin(key, wanted, encrypts)


def _takes_no_parts(mechanism: Mechanism) -> DataLength:
    return DataLength(f"{mechanism.name} takes its data at once, up to {limits.REQUEST_BYTES} bytes")


def _check_caller_iv(iv: bytes, *, caller_ivs: bool) -> None:
    if iv and not caller_ivs:
        raise PolicyForbids("iv: the HSM draws it; the policy's caller_ivs can allow a caller's")


def _column(prepare: F | None, mechanism: Mechanism, use: Use) -> F:
    if prepare is None or use not in MECHANISM_RULES[mechanism].uses:
        raise MechanismInvalid(f"{mechanism.name} does not {use.value}")
    return prepare


def _check_key(mechanism: Mechanism, key: LoadedKey, use: Use) -> None:
    if key.key_type not in MECHANISM_RULES[mechanism].key_types or key.object_class not in _CLASSES[use]:
        raise KeyTypeInconsistent(
            f"{mechanism.name} does not {use.value} with {key.key_type.name} {key.object_class.name}"
        )
