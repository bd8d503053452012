"""What the cluster is compared with, measured in the same run: bare `cryptography`, and SoftHSM2 where installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
P11_CLIENT = Path("/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so")
TOKEN, PIN = "peer", "123456"


def rate(operation: Callable[[], object], seconds: float, between: int = 16) -> float:
    """Operations a second of a callable, in this process; the clock is read after so many."""
    operation()
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        for _ in range(between):
            operation()
        count += between
    return count / elapsed


def p256(seconds: float) -> float:
    """P-256 signatures a second of one core."""
    key = ec.generate_private_key(ec.SECP256R1())
    algorithm, digest = ec.ECDSA(Prehashed(hashes.SHA256())), bytes(32)
    return rate(lambda: key.sign(digest, algorithm), seconds)


def rsa2048(seconds: float) -> float:
    """RSA-2048 signatures a second of one core."""
    key = rsa.generate_private_key(65537, 2048)
    scheme, algorithm = padding.PKCS1v15(), hashes.SHA256()
    return rate(lambda: key.sign(bytes(32), scheme, algorithm), seconds)


def on_all_cores(measure: Callable[[float], float], seconds: float) -> float:
    """The sum over one process a core, at once."""
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores) as pool:
        return sum(pool.map(measure, [seconds] * cores))


class NotInstalled(Exception):
    """What is missing to measure SoftHSM2."""


def check_installed(*paths: Path) -> None:
    """Raise NotInstalled where one of these is not there."""
    for path in paths:
        if not path.exists():
            raise NotInstalled(f"{path} is missing; docs/contributing.md says what to install")


def softhsm(*, remote: bool) -> dict[str, float]:
    """SoftHSM2's rates: in process, or behind p11-kit's remoting; in a process of its own. Raises NotInstalled."""
    check_installed(SOFTHSM, *((P11_CLIENT,) if remote else ()))
    command = [sys.executable, "-m", "bench.references", *(["--remote"] if remote else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise NotInstalled(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "SoftHSM2 failed")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _counted(operation: Callable[[], object], count: int) -> float:
    operation()
    began = time.perf_counter()
    for _ in range(count):
        operation()
    return count / (time.perf_counter() - began)


def _measure_softhsm(module: Path, *, writes: bool) -> dict[str, float]:
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    token = pkcs11.lib(str(module)).get_token(token_label=TOKEN)
    with token.open(user_pin=PIN, rw=True) as session:
        parameters = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        curve = session.create_domain_parameters(pkcs11.KeyType.EC, parameters, local=True)
        _, key = curve.generate_keypair(mechanism=pkcs11.Mechanism.EC_KEY_PAIR_GEN)
        sign: Any = key  # python-pkcs11 gives keys their methods when they are made
        figures = {"p256": _counted(lambda: sign.sign(bytes(32), mechanism=pkcs11.Mechanism.ECDSA), 4000)}
        if writes:
            make = pkcs11.Mechanism.EC_KEY_PAIR_GEN
            figures["pairs"] = _counted(lambda: curve.generate_keypair(mechanism=make, store=True, label="x"), 100)
        return figures


@contextmanager
def softhsm_token() -> Iterator[dict[str, str]]:
    """A token `peer` of SoftHSM2's in a directory of its own; yields what the environment says of it."""
    with tempfile.TemporaryDirectory() as home:
        Path(home, "tokens").mkdir()
        configuration = f"directories.tokendir = {home}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
        Path(home, "softhsm2.conf").write_text(configuration)
        said = {"SOFTHSM2_CONF": f"{home}/softhsm2.conf"}
        initialise = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--so-pin", "12345678"]
        everything = {**os.environ, **said}
        subprocess.run([*initialise, "--pin", PIN], env=everything, check=True, stdout=subprocess.DEVNULL)
        yield said


@contextmanager
def p11_kit_server(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """p11-kit's server in front of that token; yields what the environment of its client says of it."""
    with tempfile.TemporaryDirectory() as home:
        serve = ["p11-kit", "server", "--provider", str(SOFTHSM), "-n", f"{home}/p11.sock", "pkcs11:"]
        everything = {**os.environ, **environment}
        started = subprocess.run(serve, env=everything, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = re.search(r"P11_KIT_SERVER_PID=(\d+)", started)
        assert found, "p11-kit server prints its process id"
        try:
            yield {"P11_KIT_SERVER_ADDRESS": f"unix:path={home}/p11.sock"}
        finally:
            os.kill(int(found.group(1)), 15)


def main() -> None:
    """Measure SoftHSM2 with a token of its own, and print its figures."""
    with softhsm_token() as environment:
        os.environ.update(environment)
        if "--remote" not in sys.argv:
            print(json.dumps(_measure_softhsm(SOFTHSM, writes=True)))
            return
        with p11_kit_server(environment) as address:
            os.environ.update(address)
            print(json.dumps(_measure_softhsm(P11_CLIENT, writes=False)))


if __name__ == "__main__":
    main()
