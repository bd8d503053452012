"""Messages that are encrypted one by one under one key, each with its own IV (PKCS#11 v3.1, 5.9 and 5.11)."""

from __future__ import annotations

from collections.abc import Callable

from lnh_common.errors import DataLength
from lnh_pkcs11 import parameters
from lnh_pkcs11.application import Application, Kind
from lnh_pkcs11.fields import Given, Short
from lnh_pkcs11.handlers.cryptography import begin, bytes_of, key_of
from lnh_pkcs11.handlers.fitting import is_short
from lnh_pkcs11.numbers import CKR, END_OF_MESSAGE
from lnh_pkcs11.operations import Operation
from lnh_pkcs11.refusals import Refused


def _begins_messages(kind: Kind) -> Callable[[Application, int, Given | None, int], tuple[()]]:
    def handler(app: Application, handle: int, given: Given | None, number: int) -> tuple[()]:
        if given is not None and parameters.mechanism_of(given).name not in {"AES_GCM", "CHACHA20_POLY1305"}:
            raise Refused(CKR.MECHANISM_INVALID, "messages are of AES_GCM and CHACHA20_POLY1305")
        begin(app, handle, kind, given._replace(parameters=None, layout=0) if given else None, number)
        return ()

    return handler


message_encrypt_init = _begins_messages(Kind.MESSAGE_ENCRYPT)
message_decrypt_init = _begins_messages(Kind.MESSAGE_DECRYPT)


def _ends_messages(kind: Kind) -> Callable[[Application, int], tuple[()]]:
    def handler(app: Application, handle: int) -> tuple[()]:
        session = app.session(handle)
        session.active(kind)
        session.end(kind)
        return ()

    return handler


message_encrypt_final = _ends_messages(Kind.MESSAGE_ENCRYPT)
message_decrypt_final = _ends_messages(Kind.MESSAGE_DECRYPT)


async def encrypt_message(
    app: Application, handle: int, given: Given, aad: bytes | None, data: bytes | None, room: int | None
) -> tuple[bytes | Short, Given]:
    """Encrypt a message; the IV that the HSM drew and the tag come back among its parameters."""
    operation = _between(app, handle, Kind.MESSAGE_ENCRYPT)
    plaintext = bytes_of(data)
    if is_short(len(plaintext), room):
        return Short(len(plaintext)), given
    return await _encrypted(operation, plaintext, given, given, bytes_of(aad))


async def decrypt_message(
    app: Application, handle: int, given: Given, aad: bytes | None, data: bytes | None, room: int | None
) -> tuple[bytes | Short]:
    """Decrypt a message."""
    operation = _between(app, handle, Kind.MESSAGE_DECRYPT)
    ciphertext = bytes_of(data)
    if is_short(len(ciphertext), room):
        return (Short(len(ciphertext)),)
    return (await _decrypted(operation, ciphertext, given, given, bytes_of(aad)),)


def encrypt_message_begin(app: Application, handle: int, given: Given, aad: bytes | None) -> tuple[Given]:
    """Begin a message in parts; its IV comes back with the last one."""
    _begin_message(_between(app, handle, Kind.MESSAGE_ENCRYPT), given, aad, draws=True)
    return (given,)


def decrypt_message_begin(app: Application, handle: int, given: Given, aad: bytes | None) -> tuple[()]:
    """Begin a message in parts; its tag is taken from the parameters of the last one."""
    _begin_message(_between(app, handle, Kind.MESSAGE_DECRYPT), given, aad, draws=False)
    return ()


async def encrypt_message_next(
    app: Application, handle: int, given: Given, part: bytes | None, room: int | None, flags: int
) -> tuple[bytes | Short, Given]:
    """Take a part of a message; all comes out with the last one."""
    operation = _within(app, handle, Kind.MESSAGE_ENCRYPT)
    short = _gathered(operation, bytes_of(part), room, flags)
    if short is not None:
        return short, given
    plaintext, began, aad = operation.end_message()
    return await _encrypted(operation, plaintext, began, given, aad)


async def decrypt_message_next(
    app: Application, handle: int, given: Given, part: bytes | None, room: int | None, flags: int
) -> tuple[bytes | Short]:
    """Take a part of a message; all comes out with the last one, when it is known to be genuine."""
    operation = _within(app, handle, Kind.MESSAGE_DECRYPT)
    short = _gathered(operation, bytes_of(part), room, flags)
    if short is not None:
        return (short,)
    ciphertext, began, aad = operation.end_message()
    return (await _decrypted(operation, ciphertext, began, given, aad),)


def _between(app: Application, handle: int, kind: Kind) -> Operation:
    """Return the operation where no message is under way; raises Refused."""
    operation = app.session(handle).active(kind)
    if operation.message is not None:
        raise Refused(CKR.OPERATION_ACTIVE, "a message goes in parts")
    return operation


def _within(app: Application, handle: int, kind: Kind) -> Operation:
    """Return the operation whose message is under way; raises Refused."""
    operation = app.session(handle).active(kind)
    if operation.message is None:
        raise Refused(CKR.OPERATION_NOT_INITIALIZED, "no message was begun")
    return operation


def _begin_message(operation: Operation, given: Given, aad: bytes | None, *, draws: bool) -> None:
    parameters.message(operation.mechanism, given, bytes_of(aad), draws=draws)
    operation.message, operation.aad = given, bytes_of(aad)


def _gathered(operation: Operation, part: bytes, room: int | None, flags: int) -> bytes | Short | None:
    """Take a part; returns what is answered, or None where it was the last one, and there is room for the message."""
    if flags & END_OF_MESSAGE:
        length = len(operation.data) + len(part)
        if is_short(length, room):
            return Short(length)
    elif room is None:
        return Short(len(part) + 1)
    try:
        operation.feed(part)
    except DataLength:
        operation.end_message()
        raise
    return None if flags & END_OF_MESSAGE else b""


async def _encrypted(
    operation: Operation, plaintext: bytes, began: Given, given: Given, aad: bytes
) -> tuple[bytes, Given]:
    with_ = parameters.message(operation.mechanism, began, aad, draws=True)
    result = await key_of(operation).encrypt(plaintext, operation.mechanism, with_)
    ciphertext, tag = result.ciphertext[: len(plaintext)], result.ciphertext[len(plaintext) :]
    return ciphertext, parameters.answered(given, result.iv, tag)


async def _decrypted(operation: Operation, ciphertext: bytes, began: Given, given: Given, aad: bytes) -> bytes:
    with_ = parameters.message(operation.mechanism, began, aad, draws=False)
    parameters.message(operation.mechanism, given, aad, draws=False)
    assert given.parameters is not None, "it was read"
    return await key_of(operation).decrypt(ciphertext + given.parameters["pTag"], operation.mechanism, with_)
