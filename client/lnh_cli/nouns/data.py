"""`lnh data`: data objects of a keyring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnh_cli.support import files, named, terminal
from lnh_cli.support.command import Yes, noun, verb
from lnh_cli.support.options import ObjectOptions

if TYPE_CHECKING:
    from lnh.objects.keys import DataObject
    from lnh.objects.session import ObjectSession

app = noun("data", "Data objects of a keyring.")

DataArgument = Annotated[str, typer.Argument(metavar="DATA", help="Label or handle.")]


@verb(app, "import", ObjectOptions)
def import_(
    options: ObjectOptions,
    label: Annotated[str, typer.Argument(help="Of the object.")],
    file: files.Input = None,
    application: Annotated[str, typer.Option(help="The program whose data it is.")] = "",
    object_id: Annotated[str, typer.Option("--object-id", help="OBJECT_ID, hexadecimal.")] = "",
) -> None:
    """Keep a file of up to 64 KiB in the keyring."""
    from lnh_common import limits
    from lnh_common.pkcs11.attributes import ObjectClass

    data = files.read(file, limits.DATA_BYTES)
    its_id = files.unhex(object_id)
    with options.objects() as session:
        made = session.create_object(ObjectClass.DATA, data, label=label, application=application, object_id=its_id)
        _rows(options, [made])


@verb(app, "list", ObjectOptions)
def list_(
    options: ObjectOptions,
    label: Annotated[str | None, typer.Option(help="Only with this label.")] = None,
    application: Annotated[str | None, typer.Option(help="Only of this program.")] = None,
) -> None:
    """List the data objects."""
    from lnh_common.pkcs11.attributes import ObjectClass

    wanted: dict[str, Any] = {"object_class": ObjectClass.DATA}
    wanted |= {} if label is None else {"label": label}
    wanted |= {} if application is None else {"application": application}
    with options.objects() as session:
        _rows(options, list(session.find(**wanted)))


@verb(app, "show", ObjectOptions)
def show(options: ObjectOptions, data: DataArgument) -> None:
    """Show a data object's attributes, but for what it holds."""
    with options.objects() as session:
        found = find_data(session, data)
    options.record(_row(found) | {"version": found.version})


@verb(app, "export", ObjectOptions)
def export(options: ObjectOptions, data: DataArgument, output: files.Output = None, as_hex: files.Hex = False) -> None:
    """Write what a data object holds."""
    with options.objects() as session:
        found = find_data(session, data)
    told = {"data": found.value, "handle": found.handle}
    files.write_result(output, found.value, as_hex=as_hex, as_json=options.json, told=told)


@verb(app, "delete", ObjectOptions)
def delete(options: ObjectOptions, data: DataArgument, yes: Yes = False) -> None:
    """Destroy a data object."""
    with options.objects() as session:
        found = find_data(session, data)
        terminal.confirm(f"Destroy data {data!r}? It cannot be undone.", yes=yes)
        found.destroy()
    options.say("destroyed 1 data object", handles=[found.handle])


def find_data(session: ObjectSession, name: str) -> DataObject:
    """The data object with this label or handle; raises ObjectUnknown, or LimitReached for several."""
    from lnh.objects.keys import DataObject
    from lnh_common.pkcs11.attributes import ObjectClass

    found = named.find_one(session, name, ObjectClass.DATA)
    assert isinstance(found, DataObject), "its CLASS says so"
    return found


def _rows(options: ObjectOptions, found: list[Any]) -> None:
    options.rows([_row(one) for one in found], "label", "application", "object_id", "bytes", "handle")


def _row(found: DataObject) -> dict[str, Any]:
    from lnh_common.pkcs11.attributes import Attribute

    attributes = found.attributes
    return {
        "label": found.label,
        "application": attributes.get(Attribute.APPLICATION, ""),
        "object_id": attributes.get(Attribute.OBJECT_ID, b""),
        "bytes": len(found.value),
        "handle": found.handle,
    }
