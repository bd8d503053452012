"""`make bench`: the cluster and its references in one run; one table, and build/bench.json.

The machine's speed wanders, so a figure and what it is compared with are measured window by window, in
turn, and the medians are set against each other.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path

import lnh
from bench import echo, member, references
from lnh import forms
from lnh.keyrings import KeyringSession
from lnh_common import codec
from lnh_common.attributes import Attribute
from lnh_common.mechanisms import CURVES, Mechanism
from lnh_common.messages import objects

WINDOWS = 5
SECONDS = 2.0
DATA = bytes(32)
BATCH = 256


@dataclass
class Row:
    """One figure; `holds` is None where the reference could not be measured (`note` says why)."""

    name: str
    value: float
    unit: str
    reference: str
    reference_value: float | None
    ratio: float | None
    at_least: float
    holds: bool | None
    spread: str = ""
    note: str = ""


def in_turn(*measures: Callable[[], float]) -> list[list[float]]:
    """Windows of each measure, A B A B ..., after a warm-up of each."""
    for measure in measures:
        measure()
    rounds = [[measure() for measure in measures] for _ in range(WINDOWS)]
    return [list(values) for values in zip(*rounds, strict=True)]


def row(name: str, values: list[float], unit: str, reference: str, others: list[float], at_least: float) -> Row:
    """A rate that must be at least so many times its reference."""
    value, other = statistics.median(values), statistics.median(others)
    ratio = statistics.median(a / b for a, b in zip(values, others, strict=True))
    spread = f"{min(values):.0f}..{max(values):.0f}"
    holds = ratio >= at_least
    return Row(name, round(value, 1), unit, reference, round(other, 1), round(ratio, 3), at_least, holds, spread)


def at_most(name: str, value: float, unit: str, limit: float) -> Row:
    """An absolute figure that must stay under a limit; the ratio is the room it leaves."""
    return Row(name, round(value, 2), unit, "limit", limit, round(limit / value, 3), 1.0, value <= limit)


def unmeasured(name: str, value: float, unit: str, reference: str, least: float, why: Exception) -> Row:
    return Row(name, round(value, 1), unit, reference, None, None, least, None, note=str(why))


def flowing(session: KeyringSession, calls: Iterable[tuple[object, dict[str, object]]], in_flight: int = 64) -> float:
    """Answers a second with so many requests under way, from one thread."""
    ends = time.perf_counter() + SECONDS
    count, began = 0, time.perf_counter()
    timed = itertools.takewhile(lambda _: time.perf_counter() < ends, calls)
    for _ in session.call_each(timed, in_flight):  # type: ignore[arg-type]  # operations of several types
        count += 1
    return count / (time.perf_counter() - began)


def using(
    operation: object, key: lnh.Key, mechanism: Mechanism, data: bytes
) -> Iterable[tuple[object, dict[str, object]]]:
    fields = forms.use_fields(key.handle, mechanism, data, None)
    return itertools.repeat((operation, fields))


def one_at_a_time(key: lnh.PrivateKey) -> float:
    """Median microseconds of a single signature."""
    latencies = []
    for _ in range(1500):
        began = time.perf_counter()
        key.sign(DATA, Mechanism.ECDSA)
        latencies.append(time.perf_counter() - began)
    return statistics.median(latencies) * 1e6


def many(session: KeyringSession, key: lnh.PrivateKey) -> float:
    """Signatures a second in batches of 256, with several batches under way."""
    message = objects.UseMany(handle=key.handle, mechanism=Mechanism.ECDSA, items=(DATA,) * BATCH)
    fields = codec.decode(codec.encode(message))
    return BATCH * flowing(session, itertools.repeat((objects.SIGN_MANY, fields)), 8)


def new_pairs(session: KeyringSession) -> float:
    """P-256 key pairs a second, each durable when it is counted."""
    template = {Attribute.EC_PARAMS.value: CURVES["P-256"].oid}
    message = objects.GenerateKeyPair(mechanism=Mechanism.EC_KEY_PAIR_GEN, public_template=template)
    fields = codec.decode(codec.encode(message))
    return flowing(session, itertools.repeat((objects.GENERATE_PAIR, fields)))


def measure() -> list[Row]:
    rows: list[Row] = []
    with member.running() as running, member.session(running.place) as session:
        _, p256 = session.generate_keypair(lnh.KeyType.EC, curve="P-256")
        _, rsa = session.generate_keypair(lnh.KeyType.RSA, 2048)
        aes = session.generate_key(lnh.KeyType.AES, 256)
        assert isinstance(p256, lnh.PrivateKey)
        assert isinstance(rsa, lnh.PrivateKey)

        def signing() -> float:
            return flowing(session, using(objects.SIGN, p256, Mechanism.ECDSA, DATA))

        values, bare, gcm = in_turn(
            signing,
            lambda: references.p256(SECONDS / 2),
            lambda: flowing(session, using(objects.ENCRYPT, aes, Mechanism.AES_GCM, bytes(1024))),
        )
        rows.append(row("P-256 sign, 64 in flight", values, "/s", "one core's bare rate", bare, 0.28))
        rows.append(row("AES-GCM 1 KiB, 64 in flight", gcm, "/s", "the P-256 rate", values, 0.8))
        _print_cost(running, signing)
        try:
            again, peer = in_turn(signing, lambda: references.softhsm(remote=True)["p256"])
            rows.append(row("P-256 sign, 64 in flight", again, "/s", "SoftHSM2 behind p11-kit", peer, 3.0))
        except references.NotInstalled as why:
            value = statistics.median(values)
            rows.append(unmeasured("P-256 sign, 64 in flight", value, "/s", "SoftHSM2 behind p11-kit", 3.0, why))

        single, hops, sign = in_turn(
            lambda: one_at_a_time(p256), lambda: echo.one_at_a_time() * 1e6, lambda: 1e6 / references.p256(0.3)
        )
        allowed = [hop + one for hop, one in zip(hops, sign, strict=True)]
        slower = row("P-256 sign, one at a time, p50", allowed, "us", "", single, 1 / 1.4)
        rows.append(
            Row("P-256 sign, one at a time, p50", slower.reference_value or 0, "us", "a bare echo and a bare signature",
                slower.value, slower.ratio, round(1 / 1.4, 3), slower.holds, f"{min(single):.0f}..{max(single):.0f}")
        )  # fmt: skip

        batches, bare = in_turn(lambda: many(session, p256), lambda: references.p256(SECONDS / 2))
        rows.append(row("P-256 sign_many, 256 a batch", batches, "/s", "one core's bare rate", bare, 1.5))

        rsas, bare = in_turn(
            lambda: flowing(session, using(objects.SIGN, rsa, Mechanism.SHA256_RSA_PKCS, DATA)),
            lambda: references.on_all_cores(references.rsa2048, SECONDS / 2),
        )
        rows.append(row("RSA-2048 sign, 64 in flight", rsas, "/s", "bare rate of all cores", bare, 0.70))
        rows.append(at_most("idle member, memory (PSS)", running.pss_megabytes(), "MB", 300))
        rows.append(at_most("idle member, processor", running.idle(10) * 100, "% of a core", 2))
        rows.append(_pairs_row(session))
    return rows


def _print_cost(running: member.Running, signing: Callable[[], float]) -> None:
    """Where a signature's time goes: less moved by others on the machine than rates are."""
    before, began = running.cpu_by_service(), time.perf_counter()
    count = signing() * (time.perf_counter() - began)
    after = running.cpu_by_service()
    each = {name: 1e6 * (after[name] - before[name]) / count for name in before}
    began = time.process_time()
    bare = references.p256(0.5)
    spent = 1e6 * (time.process_time() - began) / (bare * 0.5)
    parts = ", ".join(f"{name} {cost:.0f}" for name, cost in sorted(each.items(), key=itemgetter(1)) if cost >= 1)
    print(
        f"processor us a P-256 signature: {sum(each.values()):.0f} = {parts}; a bare one: {spent:.0f}", file=sys.stderr
    )


def _pairs_row(session: KeyringSession) -> Row:
    name, reference = "key pair made and durable", "SoftHSM2's token key pair"
    try:
        pairs, peer = in_turn(lambda: new_pairs(session), lambda: references.softhsm(remote=False)["pairs"])
        return row(name, pairs, "/s", reference, peer, 25.0)
    except references.NotInstalled as why:
        return unmeasured(name, new_pairs(session), "/s", reference, 25.0, why)


def main() -> int:
    rows = measure()
    Path("build").mkdir(exist_ok=True)
    Path("build/bench.json").write_text(json.dumps([asdict(each) for each in rows], indent=2) + "\n")
    if "--json" in sys.argv:
        print(json.dumps([asdict(each) for each in rows]))
        return 0
    print(f"{os.cpu_count()} cores; medians of {WINDOWS} windows")
    for each in rows:
        verdict = {True: "holds", False: "MISSED", None: "not measured"}[each.holds]
        ratio = "-" if each.ratio is None else f"{each.ratio:.2f} x {each.reference} (at least {each.at_least:.2f})"
        print(f"{each.name:34} {each.value:>10.1f} {each.unit:11} {each.spread:>16}  {ratio}: {verdict} {each.note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
