"""Objects: making, copying, destroying, their attributes, and finding them (PKCS#11 v3.1, 5.7)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lnh_common import limits
from lnh_common.errors import AttributeInvalid, LimitReached
from lnh_common.pkcs11.attributes import Attribute, Attributes, ObjectClass
from lnh_pkcs11 import components, values
from lnh_pkcs11.application import Application, Entry, Session
from lnh_pkcs11.fields import Attribute as Given
from lnh_pkcs11.fields import Room, Short, length_of
from lnh_pkcs11.layouts import TEMPLATES
from lnh_pkcs11.numbers import CKR
from lnh_pkcs11.refusals import Refused

if TYPE_CHECKING:
    from lnh.aio import StoredObject


def made_in(app: Application, session: Session, template: Attributes) -> Attributes:
    """Complete a template with TOKEN as PKCS#11 has it by default; raises Refused where the session may not do that."""
    app.login(session)
    completed = {Attribute.TOKEN: False, **template}
    if completed[Attribute.TOKEN]:
        check_writes(session)
    return completed


def check_writes(session: Session) -> None:
    """Raise Refused in a session that is read-only."""
    if not session.read_write:
        raise Refused(CKR.SESSION_READ_ONLY)


async def create_object(app: Application, handle: int, given: list[Given]) -> tuple[int]:
    """Make an object of what is given."""
    session = app.session(handle)
    template, value = components.read(given)
    template = made_in(app, session, template)
    object_class = template.pop(Attribute.CLASS)
    assert isinstance(object_class, int), "its rule says so"
    made = await app.login(session).create_object(ObjectClass(object_class), value, template=template)
    return (app.handle(session, made),)


async def copy_object(app: Application, handle: int, number: int, given: list[Given]) -> tuple[int]:
    """Copy an object, with the attributes of the template in place of its own."""
    session = app.session(handle)
    entry = app.entry(session, number)
    template = values.template(given)
    if template.get(Attribute.TOKEN, not entry.found.sealed):
        check_writes(session)
    return (app.handle(session, await entry.found.copy(template)),)


async def destroy_object(app: Application, handle: int, number: int) -> tuple[()]:
    """Destroy an object."""
    session = app.session(handle)
    entry = app.entry(session, number)
    if not entry.found.sealed:
        check_writes(session)
    await entry.found.destroy()
    app.drop(number)
    return ()


async def get_object_size(app: Application, handle: int, number: int) -> tuple[int]:
    """Tell how many bytes the attributes of an object have that may be seen."""
    session = app.session(handle)
    entry = await _fresh(app, session, number)
    answers = [Given(name.value, values.shown(entry.found, name.value)) for name in entry.found.attributes]
    return (sum(length_of(each) for each in answers if each.value is not None),)


async def get_attribute_value(
    app: Application, handle: int, number: int, rooms: Sequence[Room]
) -> tuple[list[Given], int]:
    """Give attributes; those that are not to be had, or not fitting in, have no value, and the CKR says why."""
    session = app.session(handle)
    entry = await _fresh(app, session, number)
    parts: dict[int, Any] = {}
    if any(values.is_part_of_value(entry.found, room.type) for room in rooms) and values.may_be_read(entry.found):
        parts = await components.parts_of(entry.found)
    problem = CKR.OK
    answers: list[Given] = []
    for room in rooms:
        if room.type in TEMPLATES and not app.way.nests:
            answer, ckr = Given(room.type, None), CKR.ATTRIBUTE_TYPE_INVALID
        else:
            answer, ckr = _answer(entry.found, room, parts)
        answers.append(answer)
        if problem is CKR.OK:
            problem = ckr
    return answers, int(problem)


def _answer(found: StoredObject, room: Room, parts: dict[int, Any]) -> tuple[Given, CKR]:
    value = parts.get(room.type)
    if value is None:
        if values.is_part_of_value(found, room.type):
            sensitive = not values.may_be_read(found)
            return Given(room.type, None), CKR.ATTRIBUTE_SENSITIVE if sensitive else CKR.ATTRIBUTE_TYPE_INVALID
        value = values.shown(found, room.type)
    if value is None:
        return Given(room.type, None), CKR.ATTRIBUTE_TYPE_INVALID
    answer = Given(room.type, value)
    if room.size and room.size < length_of(answer):
        return Given(room.type, None), CKR.BUFFER_TOO_SMALL
    if room.within and isinstance(value, list):
        return _within(room, value)
    return answer, CKR.OK


def _within(room: Room, value: list[Any]) -> tuple[Given, CKR]:
    """Give the attributes of a template into the rooms that its pValue has, in order."""
    for each, inner in zip(value, room.within, strict=False):
        if inner.size and inner.size < length_of(each):
            return Given(room.type, None), CKR.BUFFER_TOO_SMALL
    return Given(room.type, value), CKR.OK


async def _fresh(app: Application, session: Session, number: int) -> Entry:
    """Return the object of a handle, read again where it was read a while ago."""
    entry = app.entry(session, number)
    if app.tokens.now() - entry.read > limits.PKCS11_FRESH:
        if not entry.found.sealed:
            await entry.found.refresh()
        entry.read = app.tokens.now()
    return entry


async def set_attribute_value(app: Application, handle: int, number: int, given: list[Given]) -> tuple[()]:
    """Change attributes, all or none."""
    session = app.session(handle)
    entry = app.entry(session, number)
    if not entry.found.sealed:
        check_writes(session)
    await entry.found.set_attributes(values.template(given))
    entry.read = app.tokens.now()
    return ()


def find_objects_init(app: Application, handle: int, given: list[Given]) -> tuple[()]:
    """Begin a search; who has not logged in finds nothing."""
    session = app.session(handle)
    if session.is_finding:
        raise Refused(CKR.OPERATION_ACTIVE, "a search")
    template = values.wanted(given)
    session.finding, session.is_finding = None, True
    if template is not None and session.slot in app.logins:
        with contextlib.suppress(AttributeInvalid, LimitReached):  # no object has what none may have
            session.finding = app.login(session).find(template)
    return ()


async def find_objects(app: Application, handle: int, room: int | None) -> tuple[list[int] | Short]:
    """Give the next objects of a search."""
    session = app.session(handle)
    if not session.is_finding:
        raise Refused(CKR.OPERATION_NOT_INITIALIZED, "a search")
    found: list[int] = []
    most = min(room or 0, limits.PKCS11_FOUND)
    while len(found) < most and session.finding is not None:
        one = await anext(session.finding, None)
        if one is None:
            session.finding = None
        else:
            found.append(app.handle(session, one))
    return (found,)


def find_objects_final(app: Application, handle: int) -> tuple[()]:
    """End a search."""
    session = app.session(handle)
    if not session.is_finding:
        raise Refused(CKR.OPERATION_NOT_INITIALIZED, "a search")
    session.finding, session.is_finding = None, False
    return ()
