"""The objects of the session's keyring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lnh.aio import StoredObject
from lnh.aio.objects.keys import Certificate, Key, PublicKey
from lnh.objects import encoding
from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, AttributeInvalid, KeyFunctionNotPermitted, TemplateInconsistent
from lnh_common.messages import admin, objects
from lnh_common.pkcs11.attributes import Attribute, Attributes, to_wire
from lnh_rest import attributes, paging
from lnh_rest.key_shapes import (
    CertificateQuery,
    KeyPairsMade,
    NewCopy,
    NewKeyFile,
    NewKeyPairs,
    NewObject,
    ObjectChange,
    ObjectsMade,
    ObjectValue,
    PublicForm,
    PublicQuery,
    PublicText,
)
from lnh_rest.route import Call
from lnh_rest.shapes import KeyPairMade, KeysMade, NewKeyPair, NewKeys, ObjectPage, ObjectQuery, ObjectView

_HANDLE_BYTES: Final = 16
_FILTERS: Final = {"label": "label", "id": "id", "object_class": "class", "key_type": "key_type"}


async def list_objects(call: Call) -> ObjectPage:
    """List the stored objects with these attributes, in the order of their handles.

    Objects that live in the session alone (TOKEN false) are shown by their handles, and not listed.
    """
    query = call.given(ObjectQuery)
    given = {name: getattr(query, field) for field, name in _FILTERS.items() if getattr(query, field) is not None}
    template = to_wire(attributes.parse(given))
    after = _after(query.cursor)
    found = await call.holder.ask(objects.FIND, objects.Find(template=template, after=after, limit=query.limit))
    total = None
    if not template:
        shown = await call.holder.ask(admin.KEYRING_SHOW, admin.KeyringRef(keyring=call.holder.route))
        total = shown.objects
    last = found.last or b"".join(each.handle for each in found.objects[-1:])
    return ObjectPage(
        items=tuple(_view(each.handle, each.version, _known(each.attributes)) for each in found.objects),
        total=total,
        next=paging.encode(last.hex()) if found.more and last > after else "",
        current=found.behind is None,
        whole_until=found.behind.whole_until if found.behind is not None else 0,
        skipped=tuple(each.id.hex() for each in found.skipped),
    )


async def show_object(call: Call) -> ObjectView:
    """Show an object with all its attributes that are not sensitive."""
    return view(await call.holder.get_object(call.handle))


async def change_object(call: Call) -> ObjectView:
    """Change attributes of an object, if it has the version still that its changer has seen."""
    found = await call.holder.get_object(call.handle)
    await found.set_attributes(attributes.parse(call.given(ObjectChange).attributes), if_version=call.version)
    return view(found)


async def destroy_object(call: Call) -> None:
    """Destroy an object: once this is answered, no read-write member uses it."""
    found = await call.holder.get_object(call.handle)
    await found.destroy(if_version=call.version)


async def create_object(call: Call) -> ObjectView:
    """Make an object of a value; keys come in only where the policy's `import` is true."""
    new = call.given(NewObject)
    kind, template = attributes.object_class(new.object_class), attributes.parse(new.attributes)
    return view(await call.holder.create_object(kind, new.value, template=template))


async def copy_object(call: Call) -> ObjectView:
    """Copy an object."""
    found = await call.holder.get_object(call.handle)
    return view(await found.copy(attributes.parse(call.given(NewCopy).attributes)))


async def import_key_file(call: Call) -> ObjectsMade:
    """Bring in all keys, certificates and secrets of a file, or none."""
    new = call.given(NewKeyFile)
    named: dict[str, Any] = attributes.named(new.attributes)
    if again := sorted({"label", "key_type", "class"} & set(named)):
        raise AttributeInvalid(f"{again[0]} has a place of its own", {"advice": "not among the attributes"})
    made = await call.holder.import_file(
        new.file,
        passphrase=new.passphrase,
        label=new.label,
        key_type=None if new.key_type is None else attributes.key_type(new.key_type),
        **named,
    )
    return ObjectsMade(objects=tuple(map(view, made)))


async def show_value(call: Call) -> ObjectValue:
    """Show the value of a key that is not SENSITIVE and is EXTRACTABLE."""
    found = await call.holder.get_object(call.handle)
    if not isinstance(found, Key):
        raise KeyFunctionNotPermitted("only a key has a value of its own", {"advice": "see its attributes"})
    return ObjectValue(value=await found.read_value())


async def show_public(call: Call) -> PublicText:
    """Show a public key, or a certificate, as text that other programs read."""
    form = call.given(PublicQuery).form
    found = await call.holder.get_object(call.handle)
    if isinstance(found, PublicKey):
        make = {PublicForm.PEM: found.to_pem, PublicForm.JWK: found.to_jwk, PublicForm.OPENSSH: found.to_openssh}
        return PublicText(form=form, text=make[form]())
    if isinstance(found, Certificate) and form is PublicForm.PEM:
        return PublicText(form=form, text=found.to_pem())
    raise KeyFunctionNotPermitted(
        f"a {type(found).__name__} has no form {form.value}", {"advice": "name the handle of the public half"}
    )


async def list_certificates(call: Call) -> ObjectsMade:
    """List the certificates that say this."""
    query = call.given(CertificateQuery)
    serial = None if query.serial is None else int(query.serial, 16)
    found = call.holder.find_certificates(subject=query.subject, issuer=query.issuer, serial=serial)
    return ObjectsMade(objects=tuple([view(each) async for each in found]))


async def generate_keys(call: Call) -> KeysMade:
    """Generate secret keys of one kind, all or none."""
    new = call.given(NewKeys)
    kind, template = attributes.key_type(new.key_type), attributes.parse(new.attributes)
    if new.total == 1:
        made = [await call.holder.generate_key(kind, new.bits, template=template)]
    else:
        made = await call.holder.generate_keys(new.total, kind, new.bits, index=new.index, template=template)
    return KeysMade(objects=tuple(map(view, made)))


async def generate_key_pair(call: Call) -> KeyPairMade:
    """Generate a key pair."""
    new = call.given(NewKeyPair)
    kind = attributes.key_type(new.key_type)
    of_public, of_private = encoding.split_template(attributes.named(new.attributes), kind)
    public, private = await call.holder.generate_keypair(
        kind,
        new.bits,
        curve=new.curve,
        parameter_set=new.parameter_set,
        public=_joined(of_public, new.public),
        private=_joined(of_private, new.private),
        timeout=limits.REST_SLOW_SECONDS,
    )
    return KeyPairMade(public=view(public), private=view(private))


async def generate_key_pairs(call: Call) -> KeyPairsMade:
    """Generate many key pairs of one kind, all or none."""
    new = call.given(NewKeyPairs)
    if new.bits is not None:
        raise ArgumentInvalid("RSA pairs take long, and are made one by one", {"advice": "POST /v1/key-pairs for each"})
    kind = attributes.key_type(new.key_type)
    of_public, of_private = encoding.split_template(attributes.named(new.attributes), kind)
    made = await call.holder.generate_keypairs(
        new.total,
        kind,
        index=new.index,
        curve=new.curve,
        parameter_set=new.parameter_set,
        public=_joined(of_public, new.public),
        private=_joined(of_private, new.private),
        timeout=limits.REST_SLOW_SECONDS,
    )
    return KeyPairsMade(
        pairs=tuple(KeyPairMade(public=view(public), private=view(private)) for public, private in made)
    )


def view(found: StoredObject) -> ObjectView:
    """Describe an object of the SDK."""
    return _view(found.handle, found.version, found.attributes)


def _view(handle: bytes, version: int, known: Attributes) -> ObjectView:
    label = known.get(Attribute.LABEL, "")
    assert isinstance(label, str), "LABEL is text"
    return ObjectView(handle=handle.hex(), version=version, label=label, attributes=attributes.shown(known))


def _known(values: Mapping[int, Any]) -> Attributes:
    """Leave out the attributes that only a newer version knows."""
    return {Attribute(number): value for number, value in values.items() if number in Attribute._value2member_map_}


def _joined(shared: Mapping[str, object], own: Mapping[str, Any]) -> Attributes:
    """Add the attributes of one half to those of both; raises TemplateInconsistent where they contradict each other."""
    joined: Attributes = {encoding.attribute(name): value for name, value in shared.items()}  # type: ignore[misc]  # `named` made them
    for attribute, value in attributes.parse(own).items():
        if joined.get(attribute, value) != value:
            raise TemplateInconsistent(f"{attribute.name}: said twice, and not the same")
        joined[attribute] = value
    return joined


def _after(cursor: str) -> bytes:
    if not cursor:
        return b""
    try:
        found = bytes.fromhex(paging.decode(cursor))
    except ValueError:
        found = b""
    if len(found) != _HANDLE_BYTES:
        raise paging.no_cursor()
    return found
