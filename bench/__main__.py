"""`make bench`: the cluster and its references in one run; one table, and build/bench.json."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from operator import itemgetter

import lnh
from bench import attacks, cold, echo, failover, groups, kms, mechanisms, member, members, pkcs11, references, startup
from bench.loads import SECONDS, flowing, pairs_row, using
from bench.rows import Row, at_most, in_turn, row, save, show, unmeasured
from lnh.keyrings import KeyringSession
from lnh_common.messages import objects
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_common.wire import codec

DATA = bytes(32)
BATCH = 256


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

        batches, bare, ceiling = in_turn(
            lambda: many(session, p256),
            lambda: references.p256(SECONDS / 2),
            lambda: references.on_all_cores(references.p256, SECONDS / 2),
        )
        made = row("P-256 sign_many, 256 a batch", batches, "/s", "one core's bare rate", bare, 1.5)
        most = row("", ceiling, "/s", "one core's bare rate", bare, 1.5)
        made.note = f"bare on all cores: {most.value:.0f} /s, {most.ratio:.2f} x"
        rows.append(made)

        rsas, bare = in_turn(
            lambda: flowing(session, using(objects.SIGN, rsa, Mechanism.SHA256_RSA_PKCS, DATA)),
            lambda: references.on_all_cores(references.rsa2048, SECONDS / 2),
        )
        rows.append(row("RSA-2048 sign, 64 in flight", rsas, "/s", "bare rate of all cores", bare, 0.70))
        rows.append(at_most("idle member, memory (PSS)", running.megabytes(), "MB", 300))
        rows.append(at_most("idle member, processor", running.idle(10) * 100, "% of a core", 2))
        rows.append(pairs_row(session, "key pair made and durable", 25.0))
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


def main() -> int:
    found = [
        *measure(),
        *members.measure(),
        *groups.measure(),
        *failover.measure(),
        *cold.measure(),
        *startup.measure(),
        *pkcs11.measure(),
        *attacks.measure(),
        *mechanisms.measure(),
        *kms.measure(),
    ]
    save(found, fresh=True)
    show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
