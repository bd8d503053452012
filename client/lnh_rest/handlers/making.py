"""Keys that are made of other keys, and carried by them."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from lnh.aio import StoredObject
from lnh.aio.objects.keys import DerivingKey, Key, PrivateKey, PublicKey, UnwrappingKey
from lnh.aio.objects.uses import WrappingKey
from lnh_common.errors import KeyFunctionNotPermitted
from lnh_common.messages.base import Message
from lnh_common.pkcs11.mechanisms import Mechanism, Use
from lnh_rest import attributes
from lnh_rest.handlers.objects import view
from lnh_rest.key_shapes import Decapsulate, Derive, Encapsulate, EncapsulatedKey, Unwrap, Wrap, WrappedKey
from lnh_rest.route import Call, id_of
from lnh_rest.shapes import ObjectView

K = TypeVar("K", bound=StoredObject)

_OTHER: Final = {"advice": "name the handle of the other half, or of another key"}


async def wrap(call: Call) -> WrappedKey:
    """Wrap a key that is EXTRACTABLE."""
    asked = call.given(Wrap)
    key = await usable(call, WrappingKey, Use.WRAP)
    carried = await call.holder.get_object(id_of(asked.key, "key"))
    if not isinstance(carried, Key):
        raise KeyFunctionNotPermitted("keys are wrapped, and nothing else", _OTHER)
    return WrappedKey(wrapped=await key.wrap(carried, *chosen(key, Use.WRAP, asked.mechanism, asked.parameters)))


async def unwrap(call: Call) -> ObjectView:
    """Make the key that another wrapped."""
    asked = call.given(Unwrap)
    key = await usable(call, UnwrappingKey, Use.UNWRAP)
    made = await key.unwrap(
        asked.wrapped,
        attributes.object_class(asked.object_class),
        attributes.key_type(asked.key_type),
        *chosen(key, Use.UNWRAP, asked.mechanism, asked.parameters),
        template=attributes.parse(asked.attributes),
    )
    return view(made)


async def derive(call: Call) -> ObjectView:
    """Derive a secret key."""
    asked = call.given(Derive)
    key = await usable(call, DerivingKey, Use.DERIVE)
    made = await key.derive(
        attributes.key_type(asked.key_type),
        asked.bits,
        *chosen(key, Use.DERIVE, asked.mechanism, asked.parameters),
        template=attributes.parse(asked.attributes),
    )
    return view(made)


async def encapsulate(call: Call) -> EncapsulatedKey:
    """Draw a secret key, and the ciphertext that carries it to the private key's holder."""
    asked = call.given(Encapsulate)
    key = await usable(call, PublicKey, Use.ENCAPSULATE)
    template = attributes.parse(asked.attributes)
    made, ciphertext = await key.encapsulate(attributes.key_type(asked.key_type), template=template)
    return EncapsulatedKey(key=view(made), ciphertext=ciphertext)


async def decapsulate(call: Call) -> ObjectView:
    """Make the secret key that a ciphertext carries."""
    asked = call.given(Decapsulate)
    key = await usable(call, PrivateKey, Use.DECAPSULATE)
    template = attributes.parse(asked.attributes)
    return view(await key.decapsulate(asked.ciphertext, attributes.key_type(asked.key_type), template=template))


async def usable(call: Call, kind: type[K], use: Use) -> K:
    """Find the key that the path names; raises KeyFunctionNotPermitted where its kind has not this use."""
    found = await call.holder.get_object(call.handle)
    if not isinstance(found, kind):
        raise KeyFunctionNotPermitted(f"a {type(found).__name__} does not {use.value}", _OTHER)
    return found


def chosen(key: Any, use: Use, name: str | None, given: dict[str, Any]) -> tuple[Mechanism, Message | None]:
    """Choose mechanism and parameters: those that are named, or the key's own."""
    which = key.default_mechanism(use) if name is None else attributes.mechanism(name)
    return which, attributes.parameters(which, given)
