"""`lnh sign`, `verify`, `encrypt`, `decrypt`, `digest`, `random`: files, stdin, hexadecimal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO, Final, TypeVar

import typer

from lnh_cli.nouns import key as keys
from lnh_cli.support import files, terminal
from lnh_cli.support.command import Noun, verb
from lnh_cli.support.options import KeyringOptions, ObjectOptions
from lnh_cli.support.parameters import MechanismOptions, mechanism_options
from lnh_cli.support.progress import progress
from lnh_common.messages.base import Message
from lnh_common.pkcs11.mechanisms import Mechanism, Use

Der = Annotated[bool, typer.Option("--der", help="An ECDSA signature as X.509 and OpenSSL have it, not r || s.")]

K = TypeVar("K")


def enter(app: Noun) -> None:
    """Enter the verbs that have no noun."""
    verb(app, "sign", partial(mechanism_options, Use.SIGN))(sign)
    verb(app, "verify", partial(mechanism_options, Use.VERIFY))(verify)
    verb(app, "encrypt", partial(mechanism_options, Use.ENCRYPT))(encrypt)
    verb(app, "decrypt", partial(mechanism_options, Use.DECRYPT))(decrypt)
    verb(app, "random", KeyringOptions)(random)
    verb(app, "digest", ObjectOptions)(digest)


# Why the half of a key pair that was named does not do what was asked.
_REFUSED: Final = {
    Use.SIGN: "is a public key; the private key signs",
    Use.VERIFY: "does not verify; its public key does",
    Use.ENCRYPT: "is a private key; the public key encrypts",
    Use.DECRYPT: "is a public key; the private key decrypts",
}


@contextmanager
def _using(
    options: MechanismOptions, key: str, use: Use, kind: type[K]
) -> Iterator[tuple[K, Mechanism, Message | None]]:
    """Find a key for a use, and the mechanism and parameters that the options name.

    Raises KeyFunctionNotPermitted for the wrong half of a key pair.
    """
    from lnh.objects.keys import Key
    from lnh_common.errors import KeyFunctionNotPermitted

    chosen = options.chosen(use)
    if chosen is not None:
        options.parameters(chosen)  # refused before a password is asked for
    with options.objects() as session:
        find = keys.find_other_half if use in (Use.VERIFY, Use.ENCRYPT) else keys.find_key
        found = find(session, key)
        if not isinstance(found, kind):
            raise KeyFunctionNotPermitted(f"{key!r} {_REFUSED[use]}")
        assert isinstance(found, Key), "what is used is a key"
        chosen = chosen or found.default_mechanism(use)
        yield found, chosen, options.parameters(chosen)


@contextmanager
def _read(file: Path | None, what: str) -> Iterator[BinaryIO]:
    """Open a file to read, with a bar of how much was read; or stdin."""
    if file is None or str(file) == "-":
        with files.opened(file) as data:
            yield data
        return
    from lnh.objects import streaming

    with progress(what) as tell, streaming.opened(file, tell) as data:
        yield data


def _long(file: Path | None, output: Path | None, most: int, *, as_hex: bool) -> tuple[Path, Path] | None:
    """Return input and output of what one message does not carry; None for what it does, and for stdin.

    All of it is written before it is put in its place, so the output is a file.
    """
    if file is None or str(file) == "-" or not file.is_file() or file.stat().st_size <= most:
        return None
    if output is None or str(output) == "-" or as_hex:
        terminal.refuse(
            f"{file} has more than {most} bytes", "name a file to write, without --hex: -o FILE", terminal.USAGE
        )
    return file, output


def _say_written(options: MechanismOptions, output: Path) -> None:
    if options.json:
        options.show_json({"done": True, "file": str(output)})


def sign(
    options: MechanismOptions,
    key: keys.KeyArgument,
    file: files.Input = None,
    output: files.Output = None,
    der: Der = False,
    as_hex: files.Hex = False,
) -> None:
    """Sign a file of any length, or stdin: with a mechanism that hashes it, or makes a tag of it."""
    from lnh.objects.uses import SigningKey

    with _using(options, key, Use.SIGN, SigningKey) as (found, chosen, parameters), _read(file, "Signing") as data:
        signature = found.sign(data, chosen, parameters, der=der)
    files.write_result(output, signature, as_hex=as_hex, as_json=options.json, told={"signature": signature})


def verify(
    options: MechanismOptions,
    key: keys.KeyArgument,
    signature: Annotated[Path, typer.Option("--signature", help="File with the signature.", callback=files.readable)],
    file: files.Input = None,
    der: Der = False,
    as_hex: Annotated[bool, typer.Option("--hex", help="The signature file is hexadecimal.")] = False,
) -> None:
    """Verify a signature; the exit status is 1 when it is wrong."""
    from lnh.objects.uses import VerifyingKey
    from lnh_common.errors import SignatureInvalid

    proof = signature.read_bytes()
    if as_hex:
        proof = files.unhex(proof.decode("ascii", "replace").strip())
    with _using(options, key, Use.VERIFY, VerifyingKey) as (found, chosen, parameters), _read(file, "Reading") as data:
        valid = found.verify(data, proof, chosen, parameters, der=der)
    if options.json:
        terminal.show_json({"valid": valid})
        if not valid:
            raise typer.Exit(terminal.REFUSED)
        return
    if not valid:
        raise SignatureInvalid("the signature is not valid")
    terminal.echo("valid")


def encrypt(
    options: MechanismOptions,
    key: keys.KeyArgument,
    file: files.Input = None,
    output: files.Output = None,
    as_hex: files.Hex = False,
) -> None:
    """Encrypt a file, or up to 1 MiB of stdin: what is written is IV, ciphertext and tag, one after the other."""
    from lnh.objects.uses import EncryptingKey
    from lnh_common import limits

    long = _long(file, output, limits.REQUEST_BYTES, as_hex=as_hex)
    data = b"" if long else files.read(file, limits.REQUEST_BYTES)
    with _using(options, key, Use.ENCRYPT, EncryptingKey) as (found, chosen, parameters):
        if long:
            with progress("Encrypting") as tell:
                found.encrypt_file(*long, chosen, parameters, progress=tell)
            _say_written(options, long[1])
            return
        encrypted = found.encrypt(data, chosen, parameters)
    told = {"iv": encrypted.iv, "ciphertext": encrypted.ciphertext, "mechanism": chosen}
    files.write_result(output, bytes(encrypted), as_hex=as_hex, as_json=options.json, told=told)


def decrypt(
    options: MechanismOptions,
    key: keys.KeyArgument,
    file: files.Input = None,
    output: files.Output = None,
    as_hex: files.Hex = False,
) -> None:
    """Decrypt what `encrypt` wrote; with --iv, what comes after the IV."""
    from lnh.objects.uses import DecryptingKey
    from lnh_common import limits
    from lnh_common.pkcs11.algorithms import AES_BLOCK

    most = limits.CIPHERTEXT_BYTES + AES_BLOCK
    long = _long(file, output, most, as_hex=as_hex)
    data = b"" if long else files.read(file, most)
    with _using(options, key, Use.DECRYPT, DecryptingKey) as (found, chosen, parameters):
        if long:
            with progress("Decrypting") as tell:
                found.decrypt_file(*long, chosen, parameters, progress=tell)
            _say_written(options, long[1])
            return
        plaintext = found.decrypt(data, chosen, parameters)
    files.write_result(output, plaintext, as_hex=as_hex, as_json=options.json, told={"plaintext": plaintext})


def digest(
    options: ObjectOptions,
    mechanism: files.MechanismOption = None,
    file: files.Input = None,
    in_hsm: Annotated[
        bool, typer.Option("--in-hsm", help="In the HSM, with a session of --keyring; its policy holds.")
    ] = False,
) -> None:
    """Hash a file of any length, or stdin: on this machine, since it is public data, or with --in-hsm in the HSM."""
    chosen = files.mechanism(mechanism, Use.DIGEST) if mechanism else Mechanism.SHA256
    if in_hsm:
        with options.objects() as session, files.opened(file) as data:
            made = session.digest(data, chosen)
    else:
        made = _hash_here(chosen, file)
    if options.json:
        terminal.show_json({"mechanism": chosen, "digest": made})
    else:
        terminal.echo(made.hex())


def _hash_here(mechanism: Mechanism, file: Path | None) -> bytes:
    import hashlib

    from lnh.objects import streams

    hasher = hashlib.new(mechanism.name.lower())
    with files.opened(file) as data:
        for chunk in streams.chunks(data):
            hasher.update(chunk)
    return hasher.digest()


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
