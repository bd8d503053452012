"""Finds the certificate or the data object that a command line names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lnh_cli.support import files, terminal

if TYPE_CHECKING:
    from lnh.objects.keys import StoredObject
    from lnh.objects.session import ObjectSession
    from lnh_common.pkcs11.attributes import ObjectClass


def find_one(session: ObjectSession, name: str, kind: ObjectClass) -> StoredObject:
    """Find the one object of this class with this label or handle; of certificates also `serial:` and hexadecimal.

    `label:` or `handle:` in front says which is meant. Raises ObjectUnknown, or LimitReached for several.
    """
    from lnh_common.errors import LimitReached, ObjectUnknown

    found = _candidates(session, name, kind)
    said = kind.name.lower()
    if not found:
        raise ObjectUnknown(f"no {said} {name!r}", {"advice": f"lnh {said} list shows them"})
    if len(found) > 1:
        several = f"{len(found)} objects of class {said} named {name!r}"
        raise LimitReached(several, {"advice": f"name it by its handle, which lnh {said} list shows"})
    return found[0]


def _candidates(session: ObjectSession, name: str, kind: ObjectClass) -> list[StoredObject]:
    from lnh_common.errors import ObjectUnknown
    from lnh_common.pkcs11.attributes import ObjectClass

    which, _, rest = name.partition(":")
    if which == "serial" and kind is ObjectClass.CERTIFICATE:
        return list(session.find_certificates(serial=parse_serial(rest), current=True))
    found: list[StoredObject] = []
    if which != "handle":
        label = rest if which == "label" else name
        found += session.find(object_class=kind, label=label, current=True)
    handle = rest if which == "handle" else name
    if which != "label" and files.is_handle(handle):
        try:
            other = session.get_object(bytes.fromhex(handle))
        except ObjectUnknown:
            return found
        if other.object_class is kind and other not in found:
            found.append(other)
    return found


def parse_serial(text: str) -> int:
    """Parse a certificate's serial number, which is hexadecimal, with or without colons; a usage error otherwise."""
    digits = text.replace(":", "").removeprefix("0x")
    try:
        return int(digits, 16)
    except ValueError:
        terminal.refuse(f"{text!r} is no serial number", "hexadecimal: lnh certificate list", terminal.USAGE)
