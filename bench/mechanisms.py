"""A row a mechanism: what the cluster does of it, beside what one core does without a cluster.

    python -m bench.mechanisms

The table of mechanisms says which there are, so a new one has its row here by itself. The bare side is the HSM's own
function for the mechanism over a key of this process: the library, and nothing of the way there and back. No row has a
limit; most of a cheap mechanism's time is that way.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench import member, references
from bench.loads import flowing
from bench.rows import Row, in_turn, row, run
from lnh.keyrings import KeyringSession
from lnh.objects import encoding
from lnh.objects.session import ObjectSession
from lnh_common.messages import objects
from lnh_common.messages.base import Message, Operation
from lnh_common.pkcs11.algorithms import CURVES, Hash
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass, parse_template
from lnh_common.pkcs11.mechanisms import GENERATORS, MECHANISM_RULES, Mechanism, Use, parameters_of
from lnh_common.pkcs11.parameters import EcdhParameters, pack_parameters
from lnh_services.hsm.crypto import mechanisms as hsm
from lnh_services.hsm.objects.generate import Generated, generate_key, generate_key_pair
from lnh_services.hsm.objects.policy import KeyUses, Policy

SECONDS: Final = 0.3
WEAK: Final = (Mechanism.AES_ECB,)  # is off unless a policy turns it on

_A = Attribute
_MEASURED: Final = (
    Use.GENERATE,
    Use.GENERATE_PAIR,
    Use.SIGN,
    Use.ENCRYPT,
    Use.WRAP,
    Use.DERIVE,
    Use.ENCAPSULATE,
    Use.DIGEST,
)
# What is generated, or holds the key that is used.
_TEMPLATES: Final[dict[KeyType, dict[int, Any]]] = {
    KeyType.AES: {_A.VALUE_LEN.value: 32},
    KeyType.CHACHA20: {},
    KeyType.GENERIC_SECRET: {_A.VALUE_LEN.value: 32},
    KeyType.RSA: {_A.MODULUS_BITS.value: 2048},
    KeyType.EC: {_A.EC_PARAMS.value: CURVES["P-256"].oid},
    KeyType.EC_EDWARDS: {_A.EC_PARAMS.value: CURVES["Ed25519"].oid},
    KeyType.EC_MONTGOMERY: {_A.EC_PARAMS.value: CURVES["X25519"].oid},
    KeyType.ML_DSA: {_A.PARAMETER_SET.value: 2},
    KeyType.ML_KEM: {_A.PARAMETER_SET.value: 2},
}
_WRAPS_RSA: Final = {_A.MODULUS_BITS.value: 3072}
_MADE: Final[dict[int, Any]] = {
    _A.KEY_TYPE.value: KeyType.AES.value,
    _A.VALUE_LEN.value: 32,
    _A.TOKEN.value: False,
}
# Which half of a pair is used, and what it must be for.
_PUBLIC: Final = (Use.ENCRYPT, Use.WRAP, Use.ENCAPSULATE)
_SECRET: Final = (KeyType.AES, KeyType.CHACHA20, KeyType.GENERIC_SECRET)
_POLICY: Final = Policy(key_uses=KeyUses.COMPATIBLE, weak_mechanisms=WEAK)

Call = tuple[Operation[Any, Any], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """One mechanism in its first use."""

    mechanism: Mechanism
    use: Use

    @property
    def key_type(self) -> KeyType:
        """Of the key that is used or made."""
        return min(MECHANISM_RULES[self.mechanism].key_types)

    @property
    def name(self) -> str:
        """Of the row."""
        return f"{self.mechanism.name}, {self.use.value}"

    @property
    def in_flight(self) -> int:
        """Requests under way: RSA keys take a worker a tenth of a second each."""
        return 4 if self.mechanism is Mechanism.RSA_PKCS_KEY_PAIR_GEN else 64

    def template(self) -> dict[int, Any]:
        """What is generated for it."""
        return _TEMPLATES[self.key_type] | (_WRAPS_RSA if self.use is Use.WRAP and self.key_type is KeyType.RSA else {})

    def data(self) -> bytes:
        """A digest for what signs, or encrypts with RSA; a kilobyte for the rest."""
        return bytes(1024) if self.use is Use.DIGEST or self.key_type in _SECRET else bytes(32)

    def parameters(self, pair: tuple[bytes, bytes] | None) -> bytes:
        """The parameters that must be given; `pair` has a public key to agree with."""
        needed = {each.name for each in parameters_of(self.mechanism) if each.is_required}
        if self.mechanism is Mechanism.ECDH1_DERIVE:
            assert pair is not None, "an agreement has another's public key"
            return pack_parameters(EcdhParameters(public_key=pair[0]))
        if not needed:
            return b""
        assert needed == {"length"}, f"{self.mechanism.name}: {needed}"
        hash_ = MECHANISM_RULES[self.mechanism].hash or Hash.SHA256
        return pack_parameters(MECHANISM_RULES[self.mechanism].parameters(length=hash_.size // 2))


CASES: Final = tuple(
    Case(mechanism, use)
    for mechanism, rule in MECHANISM_RULES.items()
    for use in [next(each for each in _MEASURED if each in rule.uses)]
)


def _own_pair(case: Case) -> tuple[Generated, Generated]:
    uses = {Attribute[case.use.name]: True} if case.use in _PUBLIC else {}
    template = parse_template(case.template()) | uses
    return generate_key_pair(GENERATORS[case.key_type], template, {}, _POLICY)


def _own_secret(case: Case) -> Generated:
    uses = {Attribute[case.use.name]: True} if case.use.name in Attribute.__members__ else {}
    return generate_key(GENERATORS[case.key_type], parse_template(case.template()) | uses, _POLICY)


def bare(case: Case) -> Callable[[], object]:
    """What this process does once, without a cluster."""
    mechanism, template = case.mechanism, parse_template(case.template()) if case.use is not Use.DIGEST else {}
    if case.use is Use.GENERATE:
        return lambda: generate_key(mechanism, template, _POLICY)
    if case.use is Use.GENERATE_PAIR:
        return lambda: generate_key_pair(mechanism, template, {}, _POLICY)
    data = case.data()
    if case.use is Use.DIGEST:
        digest = hsm.digester(mechanism)
        return lambda: digest(data)
    other: tuple[bytes, bytes] | None = None
    if case.key_type in _SECRET:
        loaded = hsm.load_object(*_own_secret(case))
    else:
        public, private = _own_pair(case)
        other = _point(public.attributes), b""
        loaded = hsm.load_object(*(public if case.use in _PUBLIC else private))
    parameters, ivs = case.parameters(other), hsm.IvSource()
    prepared: dict[Use, Callable[[], Callable[[], object]]] = {
        Use.SIGN: lambda: _on(hsm.signer(mechanism, loaded, parameters), data),
        Use.ENCRYPT: lambda: _on(hsm.encrypter(mechanism, loaded, ivs, parameters), data),
        Use.WRAP: lambda: _on(hsm.wrapper(mechanism, loaded, parameters), bytes(32)),
        Use.DERIVE: lambda: _on(hsm.deriver(mechanism, loaded, parameters), 32),
        Use.ENCAPSULATE: lambda: hsm.encapsulator(mechanism, loaded, parameters),
    }
    return prepared[case.use]()


def _on(operate: Callable[[Any], object], data: object) -> Callable[[], object]:
    return lambda: operate(data)


def _point(attributes: dict[Attribute, Any]) -> bytes:
    point = attributes.get(_A.EC_POINT, b"")
    assert isinstance(point, bytes), "EC_POINT is bytes"
    return point


def calls(session: ObjectSession, case: Case) -> Iterator[Call]:
    """What is asked of the cluster, again and again; its key is made first."""
    if case.use is Use.GENERATE:
        made: Message = objects.GenerateKey(
            mechanism=case.mechanism, template=case.template() | {_A.TOKEN.value: False}
        )
        return itertools.repeat((objects.GENERATE_IN_SESSION, encoding_of(made)))
    if case.use is Use.GENERATE_PAIR:
        in_session = {_A.TOKEN.value: False}
        made = objects.GenerateKeyPair(
            mechanism=case.mechanism, public_template=case.template() | in_session, private_template=in_session
        )
        return itertools.repeat((objects.GENERATE_PAIR_IN_SESSION, encoding_of(made)))
    if case.use is Use.DIGEST:
        return (_digested(case) for _ in itertools.count())
    handle, point = _stored(session, case)
    parameters = case.parameters((point, b""))
    if case.use is Use.WRAP:
        wanted = objects.GenerateKey(
            mechanism=Mechanism.AES_KEY_GEN, template=_TEMPLATES[KeyType.AES] | {_A.EXTRACTABLE.value: True}
        )
        key = session.ask(objects.GENERATE, wanted).handle
        wrap = objects.Wrap(handle=handle, mechanism=case.mechanism.value, key=key, parameters=parameters)
        return itertools.repeat((objects.WRAP, encoding_of(wrap)))
    if case.use in (Use.DERIVE, Use.ENCAPSULATE):
        derive = objects.Derive(handle=handle, mechanism=case.mechanism.value, template=_MADE, parameters=parameters)
        operation = objects.DERIVE_IN_SESSION if case.use is Use.DERIVE else objects.ENCAPSULATE_IN_SESSION
        return itertools.repeat((operation, encoding_of(derive)))
    fields = encoding.use_fields(handle, case.mechanism, case.data(), None) | {"parameters": parameters}
    return itertools.repeat((objects.SIGN if case.use is Use.SIGN else objects.ENCRYPT, fields))


def _digested(case: Case) -> Call:
    part = objects.Part(
        stream=os.urandom(16),
        use=objects.StreamedUse.DIGEST,
        mechanism=case.mechanism.value,
        data=case.data(),
        offset=0,
        last=True,
    )
    return objects.STREAM, encoding_of(part)


def _stored(session: ObjectSession, case: Case) -> tuple[bytes, bytes]:
    """The handle of a new key for this mechanism, and the point of its public half."""
    generator = GENERATORS[case.key_type]
    if case.key_type in _SECRET:
        template = case.template() | {Attribute[case.use.name].value: True}
        template |= {_A.ALLOWED_MECHANISMS.value: [case.mechanism.value]}
        made = session.ask(objects.GENERATE, objects.GenerateKey(mechanism=generator, template=template))
        return made.handle, b""
    uses: dict[int, Any] = {Attribute[case.use.name].value: True}
    of_public, of_private = (uses, {}) if case.use in _PUBLIC else ({}, uses)
    message = objects.GenerateKeyPair(
        mechanism=generator, public_template=case.template() | of_public, private_template=of_private
    )
    pair = session.ask(objects.GENERATE_PAIR, message)
    half = pair.public if case.use in _PUBLIC else pair.private
    assert pair.public.attributes[_A.CLASS.value] == ObjectClass.PUBLIC_KEY
    return half.handle, pair.public.attributes.get(_A.EC_POINT.value, b"")


def encoding_of(message: Message) -> dict[str, Any]:
    """A message's fields, as a call carries them."""
    from lnh_common.wire import codec

    fields: dict[str, Any] = codec.decode(codec.encode(message))
    return fields


def measured(session: KeyringSession) -> Iterator[Row]:
    """Measure each mechanism in turn with its bare rate."""
    for case in CASES:
        asked, once = calls(session, case), bare(case)
        values, others = in_turn(
            lambda asked=asked, case=case: flowing(session, asked, case.in_flight, SECONDS),  # type: ignore[misc]
            lambda once=once: references.rate(once, SECONDS / 3, 1),  # type: ignore[misc]
        )
        yield row(case.name, values, "/s", "one core's bare rate", others, 0.0)


def measure() -> Iterator[Row]:
    """Measure all mechanisms with a member of their own."""
    with member.running() as running, member.session(running.place) as session:
        yield from measured(session)


if __name__ == "__main__":
    sys.exit(run(measure))
