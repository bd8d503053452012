"""`lnh sign`, `verify`, `encrypt`, `decrypt`, `digest`, `random`: files, stdin, hexadecimal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnh_cli.nouns import key as keys
from lnh_cli.support import files, terminal
from lnh_cli.support.command import Output, verb
from lnh_cli.support.options import KeyringOptions, ObjectOptions

if TYPE_CHECKING:
    from lnh_common.messages.base import Message

Der = Annotated[bool, typer.Option("--der", help="An ECDSA signature as X.509 and OpenSSL have it, not r || s.")]


def _hexadecimal(text: str) -> str:
    files.unhex(text)
    return text


Aad = Annotated[str, typer.Option(help="Associated data, hexadecimal.", callback=_hexadecimal)]


def enter(app: typer.Typer) -> None:
    """Enter the verbs that have no noun."""
    verb(app, "sign", ObjectOptions)(sign)
    verb(app, "verify", ObjectOptions)(verify)
    verb(app, "encrypt", ObjectOptions)(encrypt)
    verb(app, "decrypt", ObjectOptions)(decrypt)
    verb(app, "random", KeyringOptions)(random)
    verb(app, "digest", Output)(digest)


def sign(
    options: ObjectOptions,
    key: keys.KeyArgument,
    file: files.Input = None,
    mechanism: files.MechanismOption = None,
    output: files.Output = None,
    der: Der = False,
    as_hex: files.Hex = False,
) -> None:
    """Sign a file of any length (with a mechanism that hashes it), or stdin."""
    from lnh.objects.keys import SigningKey
    from lnh_common.errors import KeyFunctionNotPermitted
    from lnh_common.pkcs11.mechanisms import Use

    chosen = files.mechanism(mechanism, Use.SIGN) if mechanism else None
    with options.objects() as session, files.opened(file) as data:
        found = keys.find_key(session, key)
        if not isinstance(found, SigningKey):
            raise KeyFunctionNotPermitted(f"{key!r} is a public key; the private key signs")
        signature = found.sign(data, chosen, der=der)
    files.write_result(output, signature, as_hex=as_hex, as_json=options.json, told={"signature": signature})


def verify(
    options: ObjectOptions,
    key: keys.KeyArgument,
    signature: Annotated[Path, typer.Option("--signature", help="File with the signature.", callback=files.readable)],
    file: files.Input = None,
    mechanism: files.MechanismOption = None,
    der: Der = False,
    as_hex: Annotated[bool, typer.Option("--hex", help="The signature file is hexadecimal.")] = False,
) -> None:
    """Verify a signature; the exit status is 1 when it is wrong."""
    from lnh.objects.keys import VerifyingKey
    from lnh_common.errors import KeyFunctionNotPermitted, SignatureInvalid
    from lnh_common.pkcs11.mechanisms import Use

    chosen = files.mechanism(mechanism, Use.VERIFY) if mechanism else None
    proof = signature.read_bytes()
    if as_hex:
        proof = files.unhex(proof.decode("ascii", "replace").strip())
    with options.objects() as session, files.opened(file) as data:
        found = keys.find_other_half(session, key)
        if not isinstance(found, VerifyingKey):
            raise KeyFunctionNotPermitted(f"{key!r} does not verify; its public key does")
        valid = found.verify(data, proof, chosen, der=der)
    if options.json:
        terminal.show_json({"valid": valid})
        if not valid:
            raise typer.Exit(terminal.REFUSED)
        return
    if not valid:
        raise SignatureInvalid("the signature is not valid")
    terminal.echo("valid")


def encrypt(
    options: ObjectOptions,
    key: keys.KeyArgument,
    file: files.Input = None,
    mechanism: files.MechanismOption = None,
    aad: Aad = "",
    output: files.Output = None,
    as_hex: files.Hex = False,
) -> None:
    """Encrypt up to 1 MiB: what is written is IV, ciphertext and tag, one after the other."""
    from lnh.objects.keys import EncryptingKey
    from lnh_common import limits
    from lnh_common.errors import KeyFunctionNotPermitted
    from lnh_common.pkcs11.mechanisms import Use

    chosen = files.mechanism(mechanism, Use.ENCRYPT) if mechanism else None
    data = files.read(file, limits.REQUEST_BYTES)
    with options.objects() as session:
        found = keys.find_other_half(session, key)
        if not isinstance(found, EncryptingKey):
            raise KeyFunctionNotPermitted(f"{key!r} is a private key; the public key encrypts")
        chosen = chosen or found.default_mechanism(Use.ENCRYPT)
        encrypted = found.encrypt(data, chosen, _associated(chosen.name, aad))
    told = {"iv": encrypted.iv, "ciphertext": encrypted.ciphertext, "mechanism": chosen}
    files.write_result(output, bytes(encrypted), as_hex=as_hex, as_json=options.json, told=told)


def decrypt(
    options: ObjectOptions,
    key: keys.KeyArgument,
    file: files.Input = None,
    mechanism: files.MechanismOption = None,
    aad: Aad = "",
    output: files.Output = None,
    as_hex: files.Hex = False,
) -> None:
    """Decrypt what `encrypt` wrote."""
    from lnh.objects.keys import DecryptingKey
    from lnh_common import limits
    from lnh_common.errors import KeyFunctionNotPermitted
    from lnh_common.pkcs11.algorithms import AES_BLOCK
    from lnh_common.pkcs11.mechanisms import Use

    chosen = files.mechanism(mechanism, Use.DECRYPT) if mechanism else None
    data = files.read(file, limits.CIPHERTEXT_BYTES + AES_BLOCK)
    with options.objects() as session:
        found = keys.find_key(session, key)
        if not isinstance(found, DecryptingKey):
            raise KeyFunctionNotPermitted(f"{key!r} is a public key; the private key decrypts")
        chosen = chosen or found.default_mechanism(Use.DECRYPT)
        plaintext = found.decrypt(data, chosen, _associated(chosen.name, aad))
    files.write_result(output, plaintext, as_hex=as_hex, as_json=options.json, told={"plaintext": plaintext})


def digest(options: Output, mechanism: files.MechanismOption = None, file: files.Input = None) -> None:
    """Hash a file of any length, or stdin. It is public data, so it is hashed on this machine."""
    import hashlib

    from lnh.objects import streams
    from lnh_common.pkcs11.mechanisms import Mechanism, Use

    chosen = files.mechanism(mechanism, Use.DIGEST) if mechanism else Mechanism.SHA256
    hasher = hashlib.new(chosen.name.lower())
    with files.opened(file) as data:
        for chunk in streams.chunks(data):
            hasher.update(chunk)
    if options.json:
        terminal.show_json({"mechanism": chosen, "digest": hasher.digest()})
    else:
        terminal.echo(hasher.hexdigest())


def random(
    options: KeyringOptions,
    length: Annotated[int, typer.Argument(min=1, help="Bytes.")] = 32,
    output: files.Output = None,
    as_hex: files.Hex = False,
) -> None:
    """Random bytes from the HSM."""
    with options.session() as session:
        data = session.random(length)
    files.write_result(output, data, as_hex=as_hex, as_json=options.json, told={"random": data})


def _associated(mechanism: str, aad: str) -> Message | None:
    from lnh.objects.encoding import aad_parameters

    return aad_parameters(files.mechanism(mechanism), files.unhex(aad)) if aad else None
