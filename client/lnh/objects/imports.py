"""Plans which objects of a keyring the contents of a file become. Pure.

A private key brings its public half along, as a generated one has it: both are made. What belongs together (the halves
of a pair, and their certificate) shares an ID, by default the key identifier of RFC 5280, 4.2.1.2 (1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lnh.objects import encoding
from lnh.objects.key_files import FileObject
from lnh_common.errors import ArgumentInvalid, AttributeInvalid, KeyFileInvalid, LimitReached
from lnh_common.limits import OBJECT_BYTES
from lnh_common.pkcs11.attributes import ATTRIBUTES, KeyType, ObjectClass
from lnh_common.secret import Secret


@dataclass(frozen=True)
class Planned:
    """An object to be made.

    Args:
        object_class: its class.
        value: as `object.create` takes it.
        attributes: its template, by name in lower case.
        public: of a certificate without an ID that was given, the public key by which its private key is found.
    """

    object_class: ObjectClass
    value: Secret
    attributes: Mapping[str, object]
    public: bytes = b""


def plan(
    found: Sequence[FileObject],
    named: Mapping[str, object],
    *,
    key_type: KeyType | None = None,
    label: str | None = None,
    only: ObjectClass | None = None,
) -> list[Planned]:
    """Plan the objects of a file, private keys before all else, since policy may refuse these.

    Args:
        found: what the file holds.
        named: attributes by name in lower case; each goes to the objects that have it.
        key_type: of secrets that do not say it.
        label: of all objects; None for the names that the file has.
        only: a class; a file that holds something else is refused.

    Raises ArgumentInvalid, AttributeInvalid for an attribute that no object has, KeyFileInvalid, LimitReached.
    """
    if only is not None:
        for each in found:
            if each.object_class is not only:
                other = each.object_class.name.lower().replace("_", " ")
                raise KeyFileInvalid(f"the file holds a {other} too; lnh key import brings in all of a file")
    objects = [_typed(each, key_type) for each in _with_public_halves(found)]
    _check_attributes(objects, named)
    objects.sort(key=lambda each: each.object_class is not ObjectClass.PRIVATE_KEY)
    return [_planned(each, named, label) for each in objects]


def key_identifier(public: bytes) -> bytes:
    """Compute the key identifier (RFC 5280, 4.2.1.2, method 1) of a SubjectPublicKeyInfo: 20 bytes."""
    key = load_der_public_key(public)
    return x509.SubjectKeyIdentifier.from_public_key(key).digest  # type: ignore[arg-type]  # it takes every kind


def _with_public_halves(found: Sequence[FileObject]) -> list[FileObject]:
    """Add the public half of each private key, where the file does not have it too; what is there twice counts once."""
    publics = {each.value.reveal() for each in found if each.object_class is ObjectClass.PUBLIC_KEY}
    objects: list[FileObject] = []
    for each in found:
        if each in objects:
            continue
        objects.append(each)
        if each.object_class is ObjectClass.PRIVATE_KEY and each.public not in publics:
            publics.add(each.public)
            objects.append(FileObject(ObjectClass.PUBLIC_KEY, each.key_type, Secret(each.public), label=each.label))
    return objects


def _typed(found: FileObject, key_type: KeyType | None) -> FileObject:
    if found.object_class is not ObjectClass.SECRET_KEY:
        return found
    if found.key_type is None and key_type is None:
        raise ArgumentInvalid(
            "the secret does not say what it is for: name its key type, such as AES or GENERIC_SECRET"
        )
    if key_type is not None and found.key_type not in {None, key_type}:
        raise ArgumentInvalid(f"the secret is for {found.key_type.name if found.key_type else ''}, not {key_type.name}")
    return FileObject(found.object_class, found.key_type or key_type, found.value, label=found.label)


def _check_attributes(objects: Sequence[FileObject], named: Mapping[str, object]) -> None:
    for name in named:
        rule = ATTRIBUTES[encoding.attribute(name)]
        if not any(rule.applies(each.object_class, each.key_type) for each in objects):
            raise AttributeInvalid(f"{name}: nothing in this file has it")


def _planned(found: FileObject, named: Mapping[str, object], label: str | None) -> Planned:
    attributes: dict[str, object] = {
        name: value
        for name, value in named.items()
        if ATTRIBUTES[encoding.attribute(name)].applies(found.object_class, found.key_type)
    }
    size = len(found.value)
    if size > OBJECT_BYTES:
        raise LimitReached(f"an object of {size} bytes in the file; at most {OBJECT_BYTES}")
    attributes.setdefault("label", found.label if label is None else label)
    if found.object_class is ObjectClass.SECRET_KEY:
        attributes["key_type"] = found.key_type
        return Planned(found.object_class, found.value, attributes)
    public = found.value.reveal() if found.object_class is ObjectClass.PUBLIC_KEY else found.public
    is_given = "id" in attributes
    if public and not is_given:
        attributes["id"] = key_identifier(public)
    is_certificate = found.object_class is ObjectClass.CERTIFICATE
    return Planned(found.object_class, found.value, attributes, public if is_certificate and not is_given else b"")
