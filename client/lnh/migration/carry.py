"""Carries out a migration: what `plan` decides, between a source and a session of a keyring.

All that wraps is wrapped first, so that a plan can be shown that the source has agreed to. What receives lives in the
session of the keyring; so an interruption leaves there what had come, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from lnh.migration import plan
from lnh.migration.journal import Journal
from lnh.migration.plan import Choices, Found, Held, Receiver, Route, Step, Way
from lnh.migration.source import Source, Wrapped
from lnh.objects.keys import Key, PrivateKey, PublicKey, SecretKey, StoredObject
from lnh.objects.session import ObjectSession
from lnh_common.errors import (
    AttributeInvalid,
    AttributeSensitive,
    KeyFunctionNotPermitted,
    KeySizeRange,
    KeyTypeInconsistent,
    KeyUnextractable,
    LimitReached,
    LnhError,
    MechanismInvalid,
    PermissionDenied,
    PolicyForbids,
    TemplateIncomplete,
    TemplateInconsistent,
    WrappedKeyInvalid,
)
from lnh_common.pkcs11.attributes import Attribute, Attributes, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.pkcs11.parameters import OaepParameters

_A = Attribute
_O = ObjectClass
_SECONDS: Final = 60.0  # to generate an RSA pair, or to test the primes of one that comes in
_BY_PUBLIC: Final = {Route.OAEP: Mechanism.RSA_PKCS_OAEP, Route.RSA_AES: Mechanism.RSA_AES_KEY_WRAP}
_CARRIER: Final = Receiver(Route.OAEP, _O.SECRET_KEY, KeyType.AES, frozenset({_A.UNWRAP}))

# What is wrong with one object; whatever else is raised ends the run.
_OF_AN_OBJECT: Final = (
    AttributeInvalid,
    AttributeSensitive,
    KeyFunctionNotPermitted,
    KeySizeRange,
    KeyTypeInconsistent,
    LimitReached,
    MechanismInvalid,
    PermissionDenied,
    PolicyForbids,
    TemplateIncomplete,
    TemplateInconsistent,
    WrappedKeyInvalid,
)


@dataclass(frozen=True)
class Outcome:
    """What became of an object.

    Args:
        step: what was to be done.
        handle: of the object in the keyring; empty for what stays, or failed.
        failure: why it failed.
    """

    step: Step
    handle: bytes = b""
    failure: LnhError | None = None


class Migration:
    """One run: made with a plan that the source has agreed to, then carried out.

    Args:
        source: what keys come from.
        session: of the keyring's KRCO or KRSO.
        choices: what the user wants; `separated` is what the keyring's policy says.
        journal: of what was done before.

    Attributes:
        steps: one for each object of the source.

    Raises what reading either side raises.
    """

    def __init__(self, source: Source, session: ObjectSession, choices: Choices, journal: Journal) -> None:
        self._source: Final = source
        self._session: Final = session
        self._choices: Final = choices
        self._journal: Final = journal
        self._receivers: dict[Receiver, tuple[PublicKey, PrivateKey]] = {}
        self._carrier: SecretKey | None = None
        self._wrapped: dict[int, Wrapped] = {}
        found = source.objects()
        self._names: Final = plan.fingerprints(found)
        self.steps: list[Step] = self._agreed(found)

    def carry_out(self) -> Iterator[Outcome]:
        """Do each step in order, and yield what became of it; what stays or is there already is yielded as it is.

        Raises what ends a session; what is wrong with one object is in its outcome.
        """
        try:
            for step in self.steps:
                if step.way in {Way.THERE, Way.STAYS}:
                    yield Outcome(step, step.handle)
                    continue
                try:
                    made = self._carry_out(step)
                except _OF_AN_OBJECT as error:
                    yield Outcome(step, failure=error)
                    continue
                self._journal.add(self._names[step.found.number], made.handle)
                yield Outcome(step, made.handle)
        finally:
            self._forget()

    def _forget(self) -> None:
        """Drop what received from the session of the keyring."""
        receivers = [half for pair in self._receivers.values() for half in pair]
        for each in (*receivers, *((self._carrier,) if self._carrier else ())):
            self._session.forget(each.handle)
        self._receivers.clear()
        self._carrier = None

    def _agreed(self, found: list[Found]) -> list[Step]:
        """Plan, and wrap what is to be wrapped; what the source refuses is planned anew."""
        held = [Held(each.handle, each.attributes) for each in self._session.find(token=True, current=True)]
        done = self._journal.read()
        refused: dict[int, str] = {}
        steps = plan.plan(found, held, done, self._source.routes, self._choices)
        for step in steps:
            if step.receiver is None:
                continue
            try:
                self._wrapped[step.found.number] = self._wrap(step.found, step.receiver)
            except KeyUnextractable as error:
                refused[step.found.number] = str(error)
        if refused:
            steps = plan.plan(found, held, done, self._source.routes, self._choices, refused)
        return steps

    def _wrap(self, found: Found, receiver: Receiver) -> Wrapped:
        if receiver.route is not Route.CARRIER:
            public, _ = self._receiver(receiver)
            return self._source.wrap(found, public, receiver.route)
        if self._carrier is None:
            public, private = self._receiver(_CARRIER)
            self._carrier = self._unwrapped_carrier(private, self._source.carrier(public))
        return Wrapped(self._source.wrap_by_carrier(found))

    def _unwrapped_carrier(self, private: PrivateKey, sent: Wrapped) -> SecretKey:
        # What it carries is EXTRACTABLE only if its template lets it be, which `key_uses = separated` fixes.
        may_stay_extractable = self._choices.extractable and not self._choices.separated
        comes_out: Attributes = {_A.UNWRAP_TEMPLATE: {_A.SENSITIVE.value: True}} if may_stay_extractable else {}
        made = private.unwrap(
            sent.data,
            _O.SECRET_KEY,
            KeyType.AES,
            Mechanism.RSA_PKCS_OAEP,
            OaepParameters(hash=sent.hash),
            template=comes_out,
            token=False,
            unwrap=True,
            extractable=may_stay_extractable,
        )
        assert isinstance(made, SecretKey), "an AES key was sent"
        return made

    def _receiver(self, receiver: Receiver) -> tuple[PublicKey, PrivateKey]:
        """Return the pair of this session under which such keys come in."""
        if receiver not in self._receivers:
            comes_out: dict[int, Any] = {_A.SENSITIVE.value: True}
            if not self._choices.extractable:
                comes_out[_A.EXTRACTABLE.value] = False
            comes_out |= {use.value: True for use in sorted(receiver.uses)}
            if receiver.mechanisms:
                comes_out[_A.ALLOWED_MECHANISMS.value] = list(receiver.mechanisms)
            self._receivers[receiver] = self._session.generate_keypair(
                KeyType.RSA,
                plan.RECEIVING_BITS,
                public={_A.WRAP: True},
                private={
                    _A.UNWRAP: True,
                    _A.UNWRAP_TEMPLATE: comes_out,
                    _A.EXTRACTABLE: self._choices.extractable,
                },
                allowed_mechanisms=[_BY_PUBLIC[receiver.route].value],
                token=False,
                timeout=_SECONDS,
            )
        return self._receivers[receiver]

    def _carry_out(self, step: Step) -> StoredObject:
        if step.way is Way.WRAPPED:
            return self._unwrap(step)
        if step.way is Way.NEW:
            return self._generate(step.found, step.template)
        found = step.found
        value = self._source.value(found) if step.way is Way.IN_CLEAR else _value(found)
        template = dict(step.template)
        if found.key_type is not None:
            template[_A.KEY_TYPE] = found.key_type.value
        return self._session.create_object(found.object_class, value, template=template)

    def _unwrap(self, step: Step) -> Key:
        found, receiver, sent = step.found, step.receiver, self._wrapped[step.found.number]
        assert receiver is not None and found.key_type is not None, "it was planned so"  # noqa: PT018
        if receiver.route is Route.CARRIER:
            assert self._carrier is not None, "it came before what it carries"
            return self._carrier.unwrap(
                sent.data,
                found.object_class,
                found.key_type,
                Mechanism.AES_KEY_WRAP_PAD,
                template=step.template,
                timeout=_SECONDS,
            )
        return self._receiver(receiver)[1].unwrap(
            sent.data,
            found.object_class,
            found.key_type,
            _BY_PUBLIC[receiver.route],
            OaepParameters(hash=sent.hash),
            template=step.template,
            timeout=_SECONDS,
        )

    def _generate(self, found: Found, template: Attributes) -> Key:
        """Make a new key of the same type and size, for the same uses; of a pair, return the private key."""
        parameters = plan.parameters(found)
        assert found.key_type is not None and parameters is not None, "it was planned so"  # noqa: PT018
        if found.object_class is _O.SECRET_KEY:
            return self._session.generate_key(found.key_type, template=template | parameters)
        named = {name: template[name] for name in (_A.LABEL, _A.ID) if name in template}
        _, private = self._session.generate_keypair(
            found.key_type, public=parameters | named, private=template, timeout=_SECONDS
        )
        return private


def _value(found: Found) -> bytes:
    """Return what `object.create` takes of a public key, a certificate or data."""
    if found.object_class is _O.PUBLIC_KEY:
        return found.public
    value = found.attributes.get(_A.VALUE, b"")
    assert isinstance(value, bytes), "VALUE is bytes"
    return value
