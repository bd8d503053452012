"""`python -m bench.kms`: the KMS plugin as an API server that starts uses it, with 10 000 DEKs to decrypt."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc.aio

import lnh
from bench import member
from bench.rows import Row, at_most, in_turn, row, run
from lnh.keyrings import KeyringSession
from lnh.objects import encoding
from lnh_cli.demo.local import Place
from lnh_common.messages import objects
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_kms import api_pb2 as api
from lnh_kms.keys import key_id, parameters
from lnh_kms.serving import SERVICE

DEKS = 10_000
AT_ONCE = 64
SINGLE = 1000  # of which the median is taken
LABEL = "kubernetes"


@contextmanager
def plugin(place: Place) -> Iterator[Path]:
    """A plugin of the keyring, as a process of its own; gives its socket."""
    socket = place.root / "kms.sock"
    names = ("kms", "serve", "-k", "payments", "--label", LABEL, "--socket", str(socket))
    with subprocess.Popen(
        [sys.executable, "-m", "lnh_cli.main", *names, "--password-file", str(place.secret("krco"))],
        env={**os.environ, "LNH_CONFIG": str(place.first.client)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "it serves"
            yield socket
        finally:
            process.terminate()


def opened(socket: Path, requests: list[api.DecryptRequest], at_once: int) -> list[float]:
    """Decrypt each; returns the seconds that each took."""

    async def ask_all() -> list[float]:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            ask: Any = channel.unary_unary(
                f"/{SERVICE}/Decrypt",
                request_serializer=api.DecryptRequest.SerializeToString,
                response_deserializer=api.DecryptResponse.FromString,
            )
            left = iter(requests)
            took: list[float] = []

            async def ask_on() -> None:
                for each in left:
                    began = time.perf_counter()
                    answer = await ask(each, timeout=60)
                    took.append(time.perf_counter() - began)
                    assert len(answer.plaintext) == 32, "a DEK"

            await asyncio.gather(*(ask_on() for _ in range(at_once)))
            return took

    return asyncio.run(ask_all())


def by_the_sdk(session: KeyringSession, key: lnh.SecretKey, ciphertexts: list[bytes], name: str) -> None:
    """Decrypt each, in one thread."""
    asked = (
        (objects.DECRYPT, encoding.decrypt_fields(key.handle, Mechanism.AES_GCM, ciphertext, given))
        for given, ciphertext in (encoding.split_iv(Mechanism.AES_GCM, parameters(name), each) for each in ciphertexts)
    )
    assert sum(1 for _ in session.call_each(asked, AT_ONCE)) == len(ciphertexts)


def a_second(count: int, work: Any) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def measure() -> Iterator[Row]:
    """Two rows: the rate beside the SDK's, and how long one takes."""
    with member.running() as running, member.session(running.place) as session:
        key = session.generate_key(lnh.KeyType.AES, 256, label=LABEL)
        name = key_id(key)
        deks = [os.urandom(32) for _ in range(DEKS)]
        sealed: list[bytes] = [bytes(each) for each in key.encrypt_many(deks, Mechanism.AES_GCM, parameters(name))]
        requests = [api.DecryptRequest(ciphertext=each, key_id=name, uid=str(at)) for at, each in enumerate(sealed)]
        with plugin(running.place) as socket:
            through, own = in_turn(
                lambda: a_second(DEKS, lambda: opened(socket, requests, AT_ONCE)),
                lambda: a_second(DEKS, lambda: by_the_sdk(session, key, sealed, name)),
            )
            what = f"KMS plugin: {DEKS} DEKs decrypted, {AT_ONCE} in flight"
            yield row(what, through, "/s", "the SDK's own decrypt", own, 0.0)
            median = statistics.median(opened(socket, requests[:SINGLE], 1)) * 1e3
            yield at_most("KMS plugin: Decrypt, one at a time, p50", median, "ms", 10.0)


if __name__ == "__main__":
    sys.exit(run(measure))
