"""Signatures through PKCS#11: the gateway's two ways in, beside SoftHSM2 in process and behind p11-kit's server.

    python -m bench.pkcs11

One program in C (`pkcs11.c`) signs through all of them, so that what is compared is what is behind the module. The keys
of SoftHSM2 are of the session, which is its faster kind; ours are stored.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench import member, references, rows
from bench.rows import Row, at_most, in_turn, row, unmeasured
from lnh_common import limits
from lnh_common.messages.hsm import Derive
from lnh_pkcs11.module import build
from lnh_services.hsm.crypto.argon2 import derive

SECONDS: Final = 0.5
MANY: Final = 16
_SOURCE: Final = Path(__file__).with_name("pkcs11.c")
_PEER: Final = "SoftHSM2 behind p11-kit"
_FIRST: Final = 15  # processes that use the module for the first time
_FIRST_LIMIT: Final = 50.0
# The key and the threads of each row, and how many times its reference it must be: one at a time a P-256 signature may
# take 2.5 times as long.
_ROWS: Final = (("p256", 1, 0.4), ("p256", MANY, 1.0), ("rsa2048", 1, 1.0), ("rsa2048", MANY, 1.0))
_NAMES: Final = {"p256": "P-256", "rsa2048": "RSA-2048"}


@dataclass
class Driver:
    """The program with one module loaded."""

    process: subprocess.Popen[str]
    used: list[float]

    def ask(self, words: str) -> list[float]:
        """Have it do something; returns the numbers that it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{words}\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        assert said, f"the driver ended; it was told {words}"
        return [float(each) for each in said.split()]

    def sign(self, key: str, threads: int, seconds: float = SECONDS) -> float:
        """Sign for a while; returns signatures a second, and notes what this process's processor did for one."""
        rate, _, used = self.ask(f"sign {key} {threads} {seconds}")
        self.used.append(used)
        return rate


def compiled(directory: Path) -> Path:
    """Compile the program; raises NotInstalled without a compiler."""
    cc = build.compiler()
    if cc is None:
        raise references.NotInstalled("there is no C compiler")
    target = directory / "driver"
    flags = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")
    subprocess.run([*cc, *flags, "-o", str(target), str(_SOURCE), "-ldl"], check=True)
    return target


@contextmanager
def driver(program: Path, module: Path, token: str, environment: Mapping[str, str]) -> Iterator[Driver]:
    """The program, which ends afterwards."""
    command = [str(program), str(module), token]
    everything = {**os.environ, **environment}
    with subprocess.Popen(command, env=everything, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Driver(process, [])
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(30) == 0
        finally:
            process.kill()


@contextmanager
def gateway(running: member.Running) -> Iterator[tuple[int, dict[str, str]]]:
    """A gateway of the member's client; its process, and what the environment of an application says of it."""
    path = running.place.root / "pkcs11.sock"
    command = [sys.executable, "-m", "lnh_cli.main", "pkcs11", "serve", "--socket", str(path)]
    environment = {**os.environ, **running.place.variables()}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"serves {path}\n"
            pin = running.place.secret("krco").read_text().strip()
            said = {"LNH_PKCS11_ADDRESS": str(path), "P11_KIT_SERVER_ADDRESS": f"unix:path={path}", "PIN": pin}
            yield process.pid, said
        finally:
            process.terminate()
            process.wait(30)


def _seconds_of(pid: int) -> float:
    """Processor time of a process so far."""
    return sum(int((each / "schedstat").read_text().split()[0]) for each in Path(f"/proc/{pid}/task").iterdir()) / 1e9


class Peers:
    """SoftHSM2 in process and behind p11-kit's server, where they are installed; `why` says what is missing."""

    def __init__(self, program: Path, ends: ExitStack) -> None:
        self.why: references.NotInstalled | None = None
        try:
            references.check_installed(references.SOFTHSM, references.P11_CLIENT)
        except references.NotInstalled as missing:
            self.why = missing
            return
        pin = {"PIN": references.PIN}
        token = ends.enter_context(references.softhsm_token())
        self.local = ends.enter_context(driver(program, references.SOFTHSM, references.TOKEN, token | pin))
        address = ends.enter_context(references.p11_kit_server(token))
        self.remote = ends.enter_context(driver(program, references.P11_CLIENT, references.TOKEN, address | pin))
        for each in (self.local, self.remote):
            each.ask("make 0")


def measure() -> Iterator[Row]:
    """Each key by one thread and by many, through each way in; and the first use."""
    with ExitStack() as ends:
        directory = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        program = compiled(directory)
        module = directory / build.NAME
        cc = build.compiler()
        assert cc is not None, "it compiled the driver"
        build.build(module, cc)
        running = ends.enter_context(member.running())
        pid, environment = ends.enter_context(gateway(running))
        own = ends.enter_context(driver(program, module, "payments", environment))
        own.ask("make 1")
        ways = {"the module": own}
        if references.P11_CLIENT.exists():
            ways["p11-kit"] = ends.enter_context(driver(program, references.P11_CLIENT, "payments", environment))
        peers = Peers(program, ends)
        for key, threads, at_least in _ROWS:
            yield from _rates(ways, peers, key, threads, at_least)
        _print_cost(running, pid, own)
        yield _first(program, module, environment)


def _rates(ways: Mapping[str, Driver], peers: Peers, key: str, threads: int, at_least: float) -> Iterator[Row]:
    count = "one thread" if threads == 1 else f"{threads} threads"
    names = {way: f"PKCS#11, {_NAMES[key]} sign, {count}, {way}" for way in ways}
    mine = [partial(each.sign, key, threads) for each in ways.values()]
    if peers.why is not None:
        for way, values in zip(ways, in_turn(*mine), strict=True):
            yield unmeasured(names[way], statistics.median(values), "/s", _PEER, at_least, peers.why)
        return
    *rates, remote, local = in_turn(
        *mine, lambda: peers.remote.sign(key, threads), lambda: peers.local.sign(key, threads)
    )
    for way, values in zip(ways, rates, strict=True):
        made = row(names[way], values, "/s", _PEER, remote, at_least)
        made.note = f"SoftHSM2 in process: {statistics.median(local):.0f} /s"
        yield made


def _print_cost(running: member.Running, pid: int, own: Driver) -> None:
    """Where a signature's time goes, with many threads; the application's own share is small beside the others."""
    before, gateway_before, began = running.cpu_by_service(), _seconds_of(pid), time.perf_counter()
    rate = own.sign("p256", MANY, 2.0)
    count = rate * (time.perf_counter() - began)
    after, spent = running.cpu_by_service(), _seconds_of(pid) - gateway_before
    each = {name: 1e6 * (after[name] - before[name]) / count for name in before if name != "client"}
    each |= {"gateway": 1e6 * spent / count, "application": own.used[-1]}
    parts = ", ".join(f"{name} {cost:.0f}" for name, cost in sorted(each.items(), key=lambda one: one[1]) if cost >= 1)
    print(f"processor us a P-256 signature through the module: {sum(each.values()):.0f} = {parts}", file=sys.stderr)


def _first(program: Path, module: Path, environment: Mapping[str, str]) -> Row:
    """The first use by a process; a login derives a key from the PIN, which takes as long as it is made to."""
    spent, logins, alone = [], [], []
    memory, passes, lanes = limits.CREDENTIAL_ARGON2
    request = Derive(password=b"a PIN of some length", salt=bytes(16), memory=memory, passes=passes, lanes=lanes)
    for _ in range(_FIRST):
        with driver(program, module, "payments", environment) as fresh:
            whole, login = fresh.ask("first")
        began = time.perf_counter()
        derive(request)
        alone.append((time.perf_counter() - began) * 1e3)
        spent.append(whole / 1e3 - alone[-1])
        logins.append(login / 1e3)
    name = "PKCS#11, C_Initialize to the first signature, without its Argon2, p50"
    made = at_most(name, statistics.median(spent), "ms", _FIRST_LIMIT)
    made.spread = f"{min(spent):.0f}..{max(spent):.0f}"
    made.note = f"C_Login takes {statistics.median(logins):.0f} ms, of which Argon2 {statistics.median(alone):.0f}"
    return made


if __name__ == "__main__":
    raise SystemExit(rows.run(measure))
