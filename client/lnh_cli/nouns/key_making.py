"""`lnh key wrap`, `unwrap`, `derive`, `copy`, `encapsulate`, `decapsulate`: keys that come out of other keys."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from lnh_cli.nouns import key as keys
from lnh_cli.support import files, terminal
from lnh_cli.support.command import verb
from lnh_cli.support.options import ObjectOptions
from lnh_cli.support.parameters import MechanismOptions, mechanism_options
from lnh_common.pkcs11.mechanisms import Use

NewLabel = Annotated[str, typer.Argument(metavar="LABEL", help="Of the new key.")]
KeyType = Annotated[str, typer.Option("--type", "-t", help="Of the new key: AES, GENERIC_SECRET, CHACHA20.")]
KeyId = Annotated[str, typer.Option("--id", help="ID of the new key, hexadecimal.")]


@verb(keys.app, "wrap", partial(mechanism_options, Use.WRAP))
def wrap(
    options: MechanismOptions,
    key: keys.KeyArgument,
    wrapped: Annotated[str, typer.Argument(metavar="WRAPPED", help="The key to be wrapped: its label or handle.")],
    output: files.Output = None,
    as_hex: files.Hex = False,
) -> None:
    """Wrap the key WRAPPED with the key KEY, so that it may leave the HSM; it must be EXTRACTABLE."""
    from lnh.objects.uses import WrappingKey
    from lnh_common.errors import KeyFunctionNotPermitted

    chosen = options.chosen(Use.WRAP)
    given = options.parameters(chosen) if chosen is not None else None
    with options.objects() as session:
        found = keys.find_other_half(session, key)
        if not isinstance(found, WrappingKey):
            raise KeyFunctionNotPermitted(f"{key!r} is a private key; the public key wraps")
        target = keys.find_key(session, wrapped)
        chosen = chosen or found.default_mechanism(Use.WRAP)
        data = found.wrap(target, chosen, given or options.parameters(chosen))
    told = {"wrapped": data, "mechanism": chosen, "handle": target.handle}
    files.write_result(output, data, as_hex=as_hex, as_json=options.json, told=told)


@verb(keys.app, "unwrap", partial(mechanism_options, Use.UNWRAP))
def unwrap(
    options: MechanismOptions,
    key: keys.KeyArgument,
    new: NewLabel,
    file: files.Input = None,
    key_type: Annotated[str, typer.Option("--type", "-t", help="Of the wrapped key: AES, EC, RSA and so on.")] = "AES",
    key_id: KeyId = "",
    settings: keys.Settings = None,
) -> None:
    """Make the key that `wrap` wrapped."""
    from lnh.objects.keys import UnwrappingKey
    from lnh_common import limits
    from lnh_common.errors import KeyFunctionNotPermitted
    from lnh_common.pkcs11.attributes import ObjectClass
    from lnh_common.pkcs11.mechanisms import GENERATORS, MECHANISM_RULES

    chosen = options.chosen(Use.UNWRAP)
    given = options.parameters(chosen) if chosen is not None else None
    kind = keys.parse_key_type(key_type)
    attributes = _attributes(new, key_id, settings)
    is_pair = Use.GENERATE_PAIR in MECHANISM_RULES[GENERATORS[kind]].uses
    data = files.read(file, limits.WRAPPED_BYTES)
    with options.objects() as session:
        found = keys.find_key(session, key)
        if not isinstance(found, UnwrappingKey):
            raise KeyFunctionNotPermitted(f"{key!r} is a public key; the private key unwraps")
        chosen = chosen or found.default_mechanism(Use.UNWRAP)
        object_class = ObjectClass.PRIVATE_KEY if is_pair else ObjectClass.SECRET_KEY
        parameters = given or options.parameters(chosen)
        made = found.unwrap(data, object_class, kind, chosen, parameters, **attributes)
        options.record(keys.view(made))


@verb(keys.app, "derive", partial(mechanism_options, Use.DERIVE))
def derive(
    options: MechanismOptions,
    key: keys.KeyArgument,
    new: NewLabel,
    key_type: KeyType = "AES",
    bits: Annotated[int, typer.Option("--bits", "-b", help="Of the new key.")] = 256,
    key_id: KeyId = "",
    settings: keys.Settings = None,
) -> None:
    """Make a secret key out of another, or of a private key and another's public key (ECDH1_DERIVE)."""
    from lnh.objects.keys import DerivingKey
    from lnh_common.errors import KeyFunctionNotPermitted

    chosen = options.chosen(Use.DERIVE)
    given = options.parameters(chosen) if chosen is not None else None
    kind = keys.parse_key_type(key_type)
    attributes = _attributes(new, key_id, settings)
    with options.objects() as session:
        found = keys.find_key(session, key)
        if not isinstance(found, DerivingKey):
            raise KeyFunctionNotPermitted(f"{key!r} is a public key; the private key derives")
        chosen = chosen or found.default_mechanism(Use.DERIVE)
        made = found.derive(kind, bits, chosen, given or options.parameters(chosen), **attributes)
        options.record(keys.view(made))


@verb(keys.app, "encapsulate", ObjectOptions)
def encapsulate(
    options: ObjectOptions,
    key: keys.KeyArgument,
    new: NewLabel,
    key_type: KeyType = "AES",
    key_id: KeyId = "",
    output: files.Output = None,
    as_hex: files.Hex = False,
    settings: keys.Settings = None,
) -> None:
    """Make a secret key of 256 bits, and write the ciphertext that carries it to the private key's holder (ML-KEM)."""
    from lnh.objects.keys import PublicKey
    from lnh_common.errors import KeyFunctionNotPermitted

    kind = keys.parse_key_type(key_type)
    attributes = _attributes(new, key_id, settings)
    with options.objects() as session:
        found = keys.find_other_half(session, key)
        if not isinstance(found, PublicKey):
            raise KeyFunctionNotPermitted(f"{key!r} is no public key; the public key encapsulates")
        made, ciphertext = found.encapsulate(kind, **attributes)
    told = {"ciphertext": ciphertext, "handle": made.handle}
    files.write_result(output, ciphertext, as_hex=as_hex, as_json=options.json, told=told)


@verb(keys.app, "decapsulate", ObjectOptions)
def decapsulate(
    options: ObjectOptions,
    key: keys.KeyArgument,
    new: NewLabel,
    file: files.Input = None,
    key_type: KeyType = "AES",
    key_id: KeyId = "",
    settings: keys.Settings = None,
) -> None:
    """Make the secret key that a ciphertext of `encapsulate` carries (ML-KEM)."""
    from lnh.objects.keys import PrivateKey
    from lnh_common import limits
    from lnh_common.errors import KeyFunctionNotPermitted

    kind = keys.parse_key_type(key_type)
    attributes = _attributes(new, key_id, settings)
    data = files.read(file, limits.WRAPPED_BYTES)
    with options.objects() as session:
        found = keys.find_key(session, key)
        if not isinstance(found, PrivateKey):
            raise KeyFunctionNotPermitted(f"{key!r} is no private key; the private key decapsulates")
        options.record(keys.view(found.decapsulate(data, kind, **attributes)))


@verb(keys.app, "copy", ObjectOptions)
def copy(
    options: ObjectOptions,
    key: keys.KeyArgument,
    new: NewLabel,
    half: keys.Half = None,
    key_id: KeyId = "",
    settings: keys.Settings = None,
) -> None:
    """Copy a key. What changes one way only goes along; TRUSTED does not."""
    attributes = _attributes(new, key_id, settings)
    with options.objects() as session:
        options.record(keys.view(keys.find_key(session, key, half).copy(**attributes)))


def _attributes(label: str, key_id: str, settings: list[str] | None) -> dict[str, Any]:
    """Make the attributes of a new key; one that would be gone when the command ends is a usage error."""
    attributes = keys.parse_settings(settings or [])
    if attributes.get("token") is False:
        terminal.refuse(
            "token=false: a key that lives in a session would be gone when this command ends",
            "leave it out, or use the SDK",
            terminal.USAGE,
        )
    if key_id:
        attributes["id"] = files.unhex(key_id)
    return {"label": label} | attributes
