"""The objects of the session's keyring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lnh.aio import StoredObject
from lnh.objects import encoding
from lnh_common import limits
from lnh_common.errors import TemplateInconsistent
from lnh_common.messages import admin, objects
from lnh_common.pkcs11.attributes import Attribute, Attributes, to_wire
from lnh_rest import attributes, paging
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


async def destroy_object(call: Call) -> None:
    """Destroy an object: once this is answered, no read-write member uses it."""
    found = await call.holder.get_object(call.handle)
    await found.destroy()


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
