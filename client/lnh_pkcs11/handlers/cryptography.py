"""Signing, verifying, encrypting, decrypting and hashing, at once and in parts (PKCS#11 v3.1, 5.8 to 5.13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from lnh.objects.encoding import given_iv
from lnh_common.errors import DataLength
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Use
from lnh_pkcs11 import operations, parameters
from lnh_pkcs11.application import Application, Kind, Session
from lnh_pkcs11.fields import Given, Short
from lnh_pkcs11.handlers.fitting import fit, is_short
from lnh_pkcs11.numbers import CKR
from lnh_pkcs11.operations import Operation
from lnh_pkcs11.refusals import Refused

if TYPE_CHECKING:
    from lnh.aio import SecretKey

Answer = tuple["bytes | Short"]
_USES = {
    Kind.SIGN: Use.SIGN,
    Kind.VERIFY: Use.VERIFY,
    Kind.ENCRYPT: Use.ENCRYPT,
    Kind.DECRYPT: Use.DECRYPT,
    Kind.MESSAGE_ENCRYPT: Use.ENCRYPT,
    Kind.MESSAGE_DECRYPT: Use.DECRYPT,
}


def begin(app: Application, handle: int, kind: Kind, given: Given | None, number: int) -> Operation | None:
    """Begin an operation with a key, or cancel the one that is active where no mechanism is given. Asks nobody."""
    session = app.session(handle)
    if given is None:
        session.end(kind)
        return None
    mechanism = parameters.mechanism_of(given)
    key = app.key(session, number)
    operations.check_use(mechanism, key, _USES[kind])
    read = parameters.read(given)
    operation = Operation(mechanism, key, read, given_iv(read))
    session.begin(kind, operation)
    return operation


def _begins(kind: Kind) -> Callable[[Application, int, Given | None, int], tuple[()]]:
    def handler(app: Application, handle: int, given: Given | None, number: int) -> tuple[()]:
        begin(app, handle, kind, given, number)
        return ()

    return handler


sign_init = _begins(Kind.SIGN)
verify_init = _begins(Kind.VERIFY)
encrypt_init = _begins(Kind.ENCRYPT)
decrypt_init = _begins(Kind.DECRYPT)


def _whole(session: Session, kind: Kind) -> Operation:
    """Return an operation that takes all data at once; raises Refused for one that goes in parts."""
    operation = session.active(kind)
    if operation.has_parts:
        session.end(kind)
        raise Refused(CKR.OPERATION_ACTIVE, f"{kind.value} goes in parts")
    return operation


def key_of(operation: Operation) -> SecretKey:
    """Return the key, as one that does all there is; its class was looked at when the operation began."""
    return cast("SecretKey", operation.key)


def bytes_of(data: bytes | None) -> bytes:
    """Return what was given; nothing for NULL."""
    return b"" if data is None else data


# --- signatures


async def sign(app: Application, handle: int, data: bytes | None, room: int | None) -> Answer:
    """Sign data."""
    session = app.session(handle)
    operation = _whole(session, Kind.SIGN)
    return await _signed(session, operation, room, lambda: (bytes_of(data), operation.parameters))


async def sign_final(app: Application, handle: int, room: int | None) -> Answer:
    """Sign the parts."""
    session = app.session(handle)
    operation = session.active(Kind.SIGN)
    if not operation.has_parts:
        operation.feed(b"")
    return await _signed(session, operation, room, operation.gathered)


async def _signed(session: Session, operation: Operation, room: int | None, gathered: Callable[[], Any]) -> Answer:
    length = operations.signature_length(operation)
    if is_short(length, room):
        return (Short(length),)
    session.end(Kind.SIGN)
    data, with_ = gathered()
    return (await key_of(operation).sign(data, operation.mechanism, with_),)


def sign_update(app: Application, handle: int, part: bytes | None) -> tuple[()]:
    """Take a part of what is signed."""
    return _update(app.session(handle), Kind.SIGN, part)


def verify_update(app: Application, handle: int, part: bytes | None) -> tuple[()]:
    """Take a part of what is verified."""
    return _update(app.session(handle), Kind.VERIFY, part)


def _update(session: Session, kind: Kind, part: bytes | None) -> tuple[()]:
    operation = session.active(kind)
    try:
        operation.feed(bytes_of(part))
    except DataLength:
        session.end(kind)
        raise
    return ()


async def verify(app: Application, handle: int, data: bytes | None, signature: bytes | None) -> tuple[()]:
    """Verify a signature."""
    session = app.session(handle)
    operation = _whole(session, Kind.VERIFY)
    session.end(Kind.VERIFY)
    await _verified(operation, bytes_of(data), operation.parameters, bytes_of(signature))
    return ()


async def verify_final(app: Application, handle: int, signature: bytes | None) -> tuple[()]:
    """Verify a signature over the parts."""
    session = app.session(handle)
    operation = session.active(Kind.VERIFY)
    session.end(Kind.VERIFY)
    if not operation.has_parts:
        operation.feed(b"")
    await _verified(operation, *operation.gathered(), bytes_of(signature))
    return ()


async def _verified(operation: Operation, data: bytes, with_: Any, signature: bytes) -> None:
    if len(signature) != operations.signature_length(operation):
        raise Refused(CKR.SIGNATURE_LEN_RANGE, f"{len(signature)} bytes")
    if not await key_of(operation).verify(data, signature, operation.mechanism, with_):
        raise Refused(CKR.SIGNATURE_INVALID)


async def sign_once(
    app: Application, handle: int, given: Given | None, number: int, data: bytes | None, room: int | None
) -> Answer:
    """Begin to sign, and sign data."""
    begin(app, handle, Kind.SIGN, given, number)
    return await sign(app, handle, data, room)


async def verify_once(
    app: Application, handle: int, given: Given | None, number: int, data: bytes | None, signature: bytes | None
) -> tuple[()]:
    """Begin to verify, and verify a signature."""
    begin(app, handle, Kind.VERIFY, given, number)
    return await verify(app, handle, data, signature)


def verify_signature_init(
    app: Application, handle: int, given: Given | None, number: int, signature: bytes | None
) -> tuple[()]:
    """Begin to verify a signature that is given before the data."""
    operation = begin(app, handle, Kind.VERIFY, given, number)
    if operation is not None:
        operation.signature = bytes_of(signature)
    return ()


async def verify_signature(app: Application, handle: int, data: bytes | None) -> tuple[()]:
    """Verify the signature over data."""
    return await verify(app, handle, data, _early(app.session(handle)))


async def verify_signature_final(app: Application, handle: int) -> tuple[()]:
    """Verify the signature over the parts."""
    return await verify_final(app, handle, _early(app.session(handle)))


def _early(session: Session) -> bytes:
    signature = session.active(Kind.VERIFY).signature
    if signature is None:
        raise Refused(CKR.OPERATION_NOT_INITIALIZED, "no signature was given at the beginning")
    return signature


# --- ciphertexts


async def encrypt(app: Application, handle: int, data: bytes | None, room: int | None) -> Answer:
    """Encrypt data. Where the application gave no IV, the HSM's stands before the ciphertext."""
    session = app.session(handle)
    return await _encrypted(session, _whole(session, Kind.ENCRYPT), bytes_of(data), room)


async def encrypt_final(app: Application, handle: int, room: int | None) -> Answer:
    """Encrypt the parts."""
    session = app.session(handle)
    operation = session.active(Kind.ENCRYPT)
    return await _encrypted(session, operation, bytes(operation.data), room)


async def _encrypted(session: Session, operation: Operation, data: bytes, room: int | None) -> Answer:
    length = operations.encrypted_length(operation, len(data))
    if is_short(length, room):
        return (Short(length),)
    if room is None:
        operation.is_spent = True
        return (b"",)
    session.end(Kind.ENCRYPT)
    result = await key_of(operation).encrypt(data, operation.mechanism, operation.parameters)
    return (result.ciphertext if operation.own_iv else bytes(result),)


async def decrypt(app: Application, handle: int, data: bytes | None, room: int | None) -> Answer:
    """Decrypt data."""
    session = app.session(handle)
    return await _decrypted(session, _whole(session, Kind.DECRYPT), bytes_of(data), room)


async def decrypt_final(app: Application, handle: int, room: int | None) -> Answer:
    """Decrypt the parts."""
    session = app.session(handle)
    operation = session.active(Kind.DECRYPT)
    return await _decrypted(session, operation, bytes(operation.data), room)


async def _decrypted(session: Session, operation: Operation, data: bytes, room: int | None) -> Answer:
    """Decrypt once, and keep what comes out until it fits."""
    if operation.result is None:
        most = operations.decrypted_most(operation, len(data))
        if room is None and most:
            return (Short(most),)
        operation.is_busy = True
        try:
            operation.result = await key_of(operation).decrypt(data, operation.mechanism, operation.parameters)
        except BaseException:
            session.end(Kind.DECRYPT)
            raise
        finally:
            operation.is_busy = False
    answer = fit(operation.result, room)
    if room is None and not operation.result:
        operation.is_spent = True
    elif not isinstance(answer, Short):
        session.end(Kind.DECRYPT)
    return (answer,)


async def encrypt_once(
    app: Application, handle: int, given: Given | None, number: int, data: bytes | None, room: int | None
) -> Answer:
    """Begin to encrypt, and encrypt data."""
    begin(app, handle, Kind.ENCRYPT, given, number)
    return await encrypt(app, handle, data, room)


async def decrypt_once(
    app: Application, handle: int, given: Given | None, number: int, data: bytes | None, room: int | None
) -> Answer:
    """Begin to decrypt, and decrypt data."""
    begin(app, handle, Kind.DECRYPT, given, number)
    return await decrypt(app, handle, data, room)


def encrypt_update(app: Application, handle: int, part: bytes | None, room: int | None) -> Answer:
    """Take a part of what is encrypted; all comes out at the end."""
    return _gather(app.session(handle), Kind.ENCRYPT, part, room)


def decrypt_update(app: Application, handle: int, part: bytes | None, room: int | None) -> Answer:
    """Take a part of what is decrypted; all comes out at the end, when it is known to be genuine."""
    return _gather(app.session(handle), Kind.DECRYPT, part, room)


def _gather(session: Session, kind: Kind, part: bytes | None, room: int | None) -> Answer:
    session.active(kind)
    if room is None:  # only the length is asked: one that is not 0, so that the call itself comes with a buffer
        return (Short(len(bytes_of(part)) + 1),)
    _update(session, kind, part)
    return (b"",)


# --- hashes


def digest_init(app: Application, handle: int, given: Given | None) -> tuple[()]:
    """Begin a hash, which is computed here: it is of public data."""
    session = app.session(handle)
    if given is None:
        session.end(Kind.DIGEST)
        return ()
    mechanism = parameters.mechanism_of(given)
    if Use.DIGEST not in MECHANISM_RULES[mechanism].uses:
        raise Refused(CKR.MECHANISM_INVALID, f"{mechanism.name} is no hash")
    session.begin(Kind.DIGEST, Operation(mechanism))
    return ()


def digest(app: Application, handle: int, data: bytes | None, room: int | None) -> Answer:
    """Hash data."""
    session = app.session(handle)
    operation = _whole(session, Kind.DIGEST)
    hash_ = MECHANISM_RULES[operation.mechanism].hash
    assert hash_ is not None, "it is a hash"
    if is_short(hash_.size, room):
        return (Short(hash_.size),)
    operation.feed(bytes_of(data))
    session.end(Kind.DIGEST)
    return (operation.gathered()[0],)


def digest_update(app: Application, handle: int, part: bytes | None) -> tuple[()]:
    """Take a part of what is hashed."""
    return _update(app.session(handle), Kind.DIGEST, part)


def digest_key(app: Application, handle: int, number: int) -> tuple[()]:
    """Refuse to hash a key."""
    session = app.session(handle)
    session.active(Kind.DIGEST)
    session.end(Kind.DIGEST)
    raise Refused(CKR.KEY_INDIGESTIBLE)


def digest_final(app: Application, handle: int, room: int | None) -> Answer:
    """Give the hash of the parts."""
    session = app.session(handle)
    operation = session.active(Kind.DIGEST)
    hash_ = MECHANISM_RULES[operation.mechanism].hash
    assert hash_ is not None, "it is a hash"
    if is_short(hash_.size, room):
        return (Short(hash_.size),)
    if not operation.has_parts:
        operation.feed(b"")
    session.end(Kind.DIGEST)
    return (operation.gathered()[0],)
