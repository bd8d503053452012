"""What a client asks for again and again while it is measured."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from typing import Final

import lnh
from bench import references
from bench.rows import Row, in_turn, row, unmeasured
from lnh.keyrings import KeyringSession
from lnh.objects import encoding
from lnh_common.messages import objects
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.wire import codec

SECONDS: Final = 2.0


def flowing(
    session: KeyringSession,
    calls: Iterable[tuple[object, dict[str, object]]],
    in_flight: int = 64,
    seconds: float = SECONDS,
) -> float:
    """Answers a second with so many requests under way, from one thread."""
    ends = time.perf_counter() + seconds
    count, began = 0, time.perf_counter()
    timed = itertools.takewhile(lambda _: time.perf_counter() < ends, calls)
    for _ in session.call_each(timed, in_flight):  # type: ignore[arg-type]  # operations of several types
        count += 1
    return count / (time.perf_counter() - began)


def using(
    operation: object, key: lnh.Key, mechanism: Mechanism, data: bytes
) -> Iterable[tuple[object, dict[str, object]]]:
    fields = encoding.use_fields(key.handle, mechanism, data, None)
    return itertools.repeat((operation, fields))


def new_pairs(session: KeyringSession) -> float:
    """P-256 key pairs a second, each durable when it is counted."""
    template = {Attribute.EC_PARAMS.value: CURVES["P-256"].oid}
    message = objects.GenerateKeyPair(mechanism=Mechanism.EC_KEY_PAIR_GEN, public_template=template)
    fields = codec.decode(codec.encode(message))
    return flowing(session, itertools.repeat((objects.GENERATE_PAIR, fields)))


def pairs_row(session: KeyringSession, name: str, at_least: float) -> Row:
    """The rate of durable key pairs beside SoftHSM2's, where that is installed."""
    reference = "SoftHSM2's token key pair"
    try:
        pairs, peer = in_turn(lambda: new_pairs(session), lambda: references.softhsm(remote=False)["pairs"])
        return row(name, pairs, "/s", reference, peer, at_least)
    except references.NotInstalled as why:
        return unmeasured(name, new_pairs(session), "/s", reference, at_least, why)
