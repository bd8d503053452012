"""`lnh key`: keys of a keyring, or with --partition of a member's own partition."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.options import ObjectOptions
from lnh_cli.support.progress import progress

if TYPE_CHECKING:
    from lnh.objects.keys import Key, StoredObject
    from lnh.objects.session import ObjectSession
    from lnh_common.pkcs11.attributes import Attribute, Kind

app = noun("key", "Keys of a keyring, or of a partition.")

KeyArgument = Annotated[
    str,
    typer.Argument(
        metavar="KEY", help="Label, or handle (32 hexadecimal digits); label:... or handle:... where it is both."
    ),
]


def _half(text: str | None) -> str | None:
    _class(text)
    return text


Half = Annotated[str | None, typer.Option("--class", help="public, private or secret.", callback=_half)]
PassphraseFile = Annotated[Path | None, typer.Option(help="File with its passphrase.", callback=files.readable)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="NAME=VALUE", help="An attribute; of a template: unwrap_template.derive=true."),
]


_READ = ("pem", "der", "pkcs12", "jwk", "openssh", "raw")  # forms of files, as `lnh.objects.key_files.Form` has them
_FORMS = {"pem": "to_pem", "der": "to_der", "jwk": "to_jwk", "openssh": "to_openssh"}  # methods of a public key


@verb(app, "generate", ObjectOptions)
def generate(
    options: ObjectOptions,
    label: Annotated[str, typer.Argument(help="Of the key or key pair.")],
    key_type: Annotated[
        str,
        typer.Option("--type", "-t", help="AES, GENERIC_SECRET, CHACHA20, RSA, EC, EC_EDWARDS, EC_MONTGOMERY, ..."),
    ] = "EC",
    bits: Annotated[int | None, typer.Option("--bits", "-b", help="Of AES, RSA, GENERIC_SECRET.")] = None,
    curve: Annotated[str | None, typer.Option(help="P-256, Ed25519 and so on.")] = None,
    parameter_set: Annotated[str | None, typer.Option(help="ML-DSA-65, ML-KEM-768 and so on.")] = None,
    key_id: Annotated[str, typer.Option("--id", help="ID, hexadecimal.")] = "",
    total: Annotated[int, typer.Option(min=1, help="How many, in steps of 100: label and running number.")] = 1,
    index: Annotated[int, typer.Option(min=0, help="The first running number.")] = 1,
    settings: Settings = None,
) -> None:
    """Make a key or a key pair, or many of one kind."""
    from lnh.keyrings import KeyringSession
    from lnh.objects.session import key_message, pair_message
    from lnh.partitions import PartitionSession
    from lnh_common import limits
    from lnh_common.pkcs11.attributes import KeyType
    from lnh_common.pkcs11.mechanisms import GENERATORS, MECHANISM_RULES, Use

    kind = parse_key_type(key_type)
    attributes = parse_settings(settings or [])
    _refuse_those_with_options(attributes, label="LABEL", id="--id", key_type="--type")
    if attributes.get("token") is False:
        terminal.refuse(
            "token=false: a key that lives in a session would be gone when this command ends",
            "leave it out, or use the SDK: session.generate_key(..., token=False)",
            terminal.USAGE,
        )
    if key_id:
        attributes["id"] = files.unhex(key_id)
    is_secret = Use.GENERATE in MECHANISM_RULES[GENERATORS[kind]].uses
    parameters: dict[str, Any] = {"curve": curve, "parameter_set": parameter_set}
    for option, value in parameters.items():
        if is_secret and value is not None:
            terminal.refuse(f"--{option.replace('_', '-')}: a {kind.name} key has none", "leave it out", terminal.USAGE)
    if is_secret:
        parameters = {}
    elif bits is not None and kind is not KeyType.RSA:
        terminal.refuse(f"--bits: a {kind.name} key pair has none", "--curve or --parameter-set", terminal.USAGE)
    if is_secret:
        key_message(kind, bits, None, None, attributes)
    else:
        pair_message(kind, bits, curve, parameter_set, None, None, None, attributes)

    def one(session: ObjectSession, label: str) -> list[StoredObject]:
        if is_secret:
            return [session.generate_key(kind, bits, label=label, **attributes)]
        return list(session.generate_keypair(kind, bits, label=label, **parameters, **attributes))

    def many(session: KeyringSession, total: int, index: int) -> list[StoredObject]:
        if is_secret:
            return list(session.generate_keys(total, kind, bits, label=label, index=index, **attributes))
        pairs = session.generate_keypairs(total, kind, label=label, index=index, **parameters, **attributes)
        return [half for pair in pairs for half in pair]

    made: list[StoredObject] = []
    with options.objects() as session:
        if total == 1:
            made += one(session, label)
        else:
            if isinstance(session, PartitionSession):
                session.check_room(total if is_secret else 2 * total)
            step = limits.OBJECTS_PER_GENERATE
            if kind is KeyType.RSA or not isinstance(session, KeyringSession):  # made one by one
                step = 1
            try:
                with progress(f"generate {total}", in_bytes=False) as advance:
                    for first in range(0, total, step):
                        advance(first, total)
                        if step == 1 or not isinstance(session, KeyringSession):
                            made += one(session, f"{label}{index + first}")
                        else:
                            made += many(session, min(step, total - first), index + first)
            except BaseException:
                if made:  # whatever ends it, what was made is there
                    _rows(options, made)
                    terminal.note(f"only these {len(made)} objects were made")
                raise
    _rows(options, made)


@verb(app, "list", ObjectOptions)
def list_(
    options: ObjectOptions,
    label: Annotated[str | None, typer.Option(help="Only with this label.")] = None,
    half: Half = None,
    key_type: Annotated[str | None, typer.Option("--type", "-t", help="Only of this type.")] = None,
) -> None:
    """List the keys."""
    wanted: dict[str, Any] = _class(half)
    if label is not None:
        wanted["label"] = label
    if key_type is not None:
        wanted["key_type"] = parse_key_type(key_type)
    with options.objects() as session:
        found = list(session.find(**wanted))
    _rows(options, found)


@verb(app, "show", ObjectOptions)
def show(options: ObjectOptions, key: KeyArgument, half: Half = None) -> None:
    """Show a key's attributes."""
    with options.objects() as session:
        options.record(view(find_key(session, key, half)))


@verb(app, "set", ObjectOptions)
def set_(
    options: ObjectOptions,
    key: KeyArgument,
    settings: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", help="Attributes to change.")],
    half: Half = None,
) -> None:
    """Change attributes of a key, all or none."""
    attributes = parse_settings(settings)
    with options.objects() as session:
        found = find_key(session, key, half)
        found.set_attributes(**attributes)
        options.record(view(found))


@verb(app, "delete", ObjectOptions)
def delete(options: ObjectOptions, key: KeyArgument, half: Half = None, yes: Yes = False) -> None:
    """Destroy a key; of a pair both halves, unless one is named."""
    from lnh.objects.keys import Key

    with options.objects() as session:
        found: list[Key] = [find_key(session, key, half)]
        if half is None and not is_by_handle(found[0], key):
            found = [one for one in session.find(label=found[0].label, current=True) if isinstance(one, Key)]
        terminal.confirm(f"Destroy {len(found)} key(s) {key!r}? It cannot be undone.", yes=yes)
        for one in found:
            one.destroy()
    options.say(f"destroyed {len(found)} key(s)", handles=[one.handle for one in found])


@verb(app, "import", ObjectOptions)
def import_(
    options: ObjectOptions,
    file: files.Input = None,
    label: Annotated[str | None, typer.Option(help="None takes the names in the file.")] = None,
    key_type: Annotated[str | None, typer.Option("--type", "-t", help="Of a secret: AES, GENERIC_SECRET...")] = None,
    key_id: Annotated[str | None, typer.Option("--id", help="ID, hexadecimal.")] = None,
    form: Annotated[str | None, typer.Option(help="pem, der, pkcs12, jwk, openssh, or raw for a secret.")] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="File with its passphrase.", callback=files.readable)
    ] = None,
    settings: Settings = None,
) -> None:
    """Import keys, with their certificates, or a raw secret, where policy allows it: `import` of `cluster policy`."""
    from lnh_common import limits

    attributes = parse_settings(settings or [])
    _refuse_those_with_options(attributes, label="--label", id="--id", key_type="--type")
    if key_id is not None:
        attributes["id"] = files.unhex(key_id)
    kind = None if key_type is None else parse_key_type(key_type)
    if form is not None and form not in _READ:
        terminal.refuse(f"no form {form!r}", ", ".join(_READ), terminal.USAGE)
    data = files.read(file, limits.KEY_FILE_BYTES)

    def passphrase() -> str:
        return terminal.read_secret("passphrase", passphrase_file, what=f"passphrase of {file or 'stdin'}")

    with options.objects() as session:
        made = session.import_file(data, passphrase=passphrase, form=form, key_type=kind, label=label, **attributes)
    _rows(options, made)


@verb(app, "export", ObjectOptions)
def export(
    options: ObjectOptions,
    key: KeyArgument,
    der: Annotated[bool, typer.Option("--der", help="DER instead of PEM.")] = False,
    form: Annotated[str, typer.Option("--form", help="pem, der, jwk or openssh.")] = "pem",
    output: files.Output = None,
) -> None:
    """Write a public key: as SubjectPublicKeyInfo in PEM or DER, as a JWK, or as a line for OpenSSH."""
    from lnh.objects.keys import PublicKey
    from lnh_common.errors import KeyTypeInconsistent

    form = "der" if der else form
    if form not in _FORMS:
        terminal.refuse(f"no form {form!r}", ", ".join(_FORMS), terminal.USAGE)
    with options.objects() as session:
        found = find_key(session, key, "public")
        if not isinstance(found, PublicKey):
            raise KeyTypeInconsistent(f"{key!r} is no public key; others are not exported")
        made: str | bytes = getattr(found, _FORMS[form])()
    data = made.encode() if isinstance(made, str) else made
    told = {form: made, "handle": found.handle}
    files.write_result(output, data, as_json=options.json, told=told, is_text=form != "der")


def find_key(session: ObjectSession, key: str, half: str | None = None) -> Key:
    """The key with this label or handle; raises ObjectUnknown, or LimitReached for several.

    A label may look like a handle. It is then looked for as both, and `label:` or `handle:` in front says which.
    """
    from lnh_common.errors import LimitReached, ObjectUnknown

    kind, _, name = key.partition(":")
    if kind == "handle" and files.is_handle(name):
        return _by_handle(session, name)
    if kind == "label" and files.is_handle(name):
        return session.get_key(label=name, **_class(half))
    if not files.is_handle(key):
        return session.get_key(label=key, **_class(half))
    try:
        labelled = session.get_key(label=key, **_class(half))
    except ObjectUnknown:
        return _by_handle(session, key)
    try:
        other = _by_handle(session, key)
    except ObjectUnknown:
        return labelled
    said = f"{key} is the label of {labelled.handle.hex()} and the handle of {other.label!r}"
    raise LimitReached(said, {"advice": f"name it handle:{key} or label:{key}"})


def _by_handle(session: ObjectSession, handle: str) -> Key:
    from lnh.objects.keys import Key
    from lnh_common.errors import ObjectUnknown

    found = session.get_object(bytes.fromhex(handle))
    if not isinstance(found, Key):
        raise ObjectUnknown(f"object {handle} is no key")
    return found


def find_other_half(session: ObjectSession, key: str) -> Key:
    """The key with this label or handle; of a key pair the public key, which verifies and encrypts."""
    from lnh_common.pkcs11.mechanisms import GENERATORS, MECHANISM_RULES, Use

    found = find_key(session, key)
    if is_by_handle(found, key) or Use.GENERATE_PAIR not in MECHANISM_RULES[GENERATORS[found.key_type]].uses:
        return found
    return session.get_key(label=found.label, **_class("public"))


def is_by_handle(found: Key, key: str) -> bool:
    """Whether what was named was a handle, so that one object is meant, and no other half."""
    return key.lower().removeprefix("handle:") == found.handle.hex()


def parse_key_type(text: str) -> Any:
    """A KeyType; a usage error otherwise."""
    from lnh_common.pkcs11.attributes import KeyType

    name = text.upper().replace("-", "_")
    if name not in KeyType.__members__:
        terminal.refuse(f"no key type {text!r}", ", ".join(KeyType.__members__), terminal.USAGE)
    return KeyType[name]


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """NAME=VALUE attributes, each value read as its attribute's row says.

    An attribute of a template is TEMPLATE.NAME=VALUE: unwrap_template.derive=true. TEMPLATE= alone is an empty one.
    """
    from lnh.objects.encoding import attribute
    from lnh_common.pkcs11.attributes import ATTRIBUTES, Kind

    parsed: dict[str, Any] = {}
    for setting in settings:
        whole, equals, text = setting.partition("=")
        if not equals:
            terminal.refuse(f"{setting!r} is not NAME=VALUE", "label=new, extractable=false", terminal.USAGE)
        name, dot, inner = whole.partition(".")
        is_template = ATTRIBUTES[attribute(name)].kind is Kind.TEMPLATE
        key = name.lower().replace("-", "_")
        if dot and not is_template:
            templates = ", ".join(each.name.lower() for each, rule in ATTRIBUTES.items() if rule.kind is Kind.TEMPLATE)
            terminal.refuse(
                f"{name} is no template, so {whole} is nothing", f"templates are {templates}", terminal.USAGE
            )
        if is_template and (text if not dot else ATTRIBUTES[attribute(inner)].kind is Kind.TEMPLATE):
            said = f"{setting!r}: a template is set by each of its attributes, and holds no other template"
            terminal.refuse(
                said, f"{key}.derive=true, {key}.allowed_mechanisms=AES_GCM; {key}= for none", terminal.USAGE
            )
        if is_template:
            template = parsed.setdefault(key, {})
            if dot:
                template[attribute(inner).value] = _parse_value(whole, ATTRIBUTES[attribute(inner)].kind, text)
        else:
            parsed[key] = _parse_value(name, ATTRIBUTES[attribute(name)].kind, text)
    return parsed


def _parse_value(name: str, kind: Kind, text: str) -> Any:
    """Read a value of this kind; a usage error otherwise names the attribute."""
    from lnh_common.pkcs11.attributes import Kind

    if kind is Kind.BOOL:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            terminal.refuse(f"{name} is true or false, not {text!r}", f"{name}=true", terminal.USAGE)
        return words[text.lower()]
    if kind is Kind.INT:
        try:
            return int(text, 0)
        except ValueError:
            terminal.refuse(f"{name} is a whole number, not {text!r}", f"{name}=32, {name}=0x20", terminal.USAGE)
    if kind is Kind.BYTES:
        return files.unhex(text)
    if kind is Kind.MECHANISMS:
        return [files.mechanism(one).value for one in text.split(",") if one]
    return text


def _refuse_those_with_options(attributes: dict[str, Any], **options: str) -> None:
    """End with a usage error for an attribute that has an option, or argument, of its own."""
    for name, option in options.items():
        if name in attributes:
            terminal.refuse(f"--set {name}: it has an option of its own", option, terminal.USAGE)


def _class(half: str | None) -> dict[str, Any]:
    from lnh_common.pkcs11.attributes import ObjectClass

    if half is None:
        return {}
    name = f"{half.upper()}_KEY"
    if name not in ObjectClass.__members__:
        terminal.refuse(f"no class {half!r} of keys", "public, private or secret", terminal.USAGE)
    return {"object_class": ObjectClass[name]}


def _rows(options: ObjectOptions, found: list[StoredObject]) -> None:
    if options.json:
        options.show_json([view(one) for one in found])
        return
    options.rows([_row(one) for one in found], "label", "class", "type", "size", "id", "uses", "handle")


def _row(one: StoredObject) -> dict[str, Any]:
    from lnh_common.pkcs11.attributes import Attribute, KeyType

    number = one.attributes.get(Attribute.KEY_TYPE)
    return {
        "label": one.label,
        "class": one.object_class.name.removesuffix("_KEY").lower(),
        "type": KeyType(number).name if isinstance(number, int) else "",
        "size": _size(one),
        "id": one.id,
        "uses": _uses(one),
        "handle": one.handle,
    }


def _size(one: StoredObject) -> object:
    """Bits, or the name of the curve or of the parameter set; "" of what has none."""
    from lnh_common.pkcs11.algorithms import CURVES_BY_PARAMS, ML_DSA_SETS, ML_KEM_SETS
    from lnh_common.pkcs11.attributes import Attribute, KeyType

    attributes = one.attributes
    which = attributes.get(Attribute.PARAMETER_SET)
    if isinstance(which, int):
        number = attributes.get(Attribute.KEY_TYPE)
        return (ML_DSA_SETS if number == KeyType.ML_DSA else ML_KEM_SETS).get(which, which)
    length = attributes.get(Attribute.VALUE_LEN)
    if isinstance(length, int):
        return length * 8
    params = attributes.get(Attribute.EC_PARAMS)
    if isinstance(params, bytes) and params in CURVES_BY_PARAMS:
        return CURVES_BY_PARAMS[params].name
    modulus = attributes.get(Attribute.MODULUS)
    return len(modulus) * 8 if isinstance(modulus, bytes) else ""


def _uses(one: StoredObject) -> list[str]:
    from lnh_common.pkcs11.attributes import USES

    return [use.name.lower() for use in USES if one.attributes.get(use)]


def view(one: StoredObject) -> dict[str, Any]:
    """All that a key says of itself, by the names of its attributes."""
    shown: dict[str, Any] = {"handle": one.handle, "version": one.version, "size": _size(one), "uses": _uses(one)}
    return shown | {attribute.name.lower(): _named(attribute, value) for attribute, value in one.attributes.items()}


def _named(attribute: Attribute, value: Any) -> Any:
    """Name what an attribute's value has numbers for; a template is named as `--set` takes it."""
    from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
    from lnh_common.pkcs11.mechanisms import Mechanism

    names: dict[Attribute, Any] = {
        Attribute.CLASS: ObjectClass,
        Attribute.KEY_TYPE: KeyType,
        Attribute.KEY_GEN_MECHANISM: Mechanism,
    }
    if attribute in names and value in names[attribute]._value2member_map_:
        return names[attribute](value)
    if attribute is Attribute.ALLOWED_MECHANISMS and isinstance(value, list):
        known = Mechanism._value2member_map_
        return [Mechanism(number) if number in known else number for number in value]
    if isinstance(value, dict):
        known = Attribute._value2member_map_
        inner = {Attribute(number): each for number, each in value.items() if number in known}
        newer = {str(number): each for number, each in value.items() if number not in known}
        return {each.name.lower(): _named(each, what) for each, what in inner.items()} | newer
    return value
