"""`lnh bench`: how fast one mechanism is, through everything.

Two phases. Throughput: so many requests in flight, all the time; the median of the windows, and how far
they lie apart. Latency: requests start at a fixed rate below that, and each is measured from when it
*should* have started, so that a stall counts for every request it held up (coordinated omission avoided).
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lnh_cli.nouns import key as keys
from lnh_cli.support import files, terminal
from lnh_cli.support.command import Noun, verb
from lnh_cli.support.options import KeyringOptions

if TYPE_CHECKING:
    from lnh.keyrings import KeyringSession
    from lnh.net.channel import Channel
    from lnh.net.request import Request
    from lnh.objects.keys import Key
    from lnh_common.messages.base import Operation
    from lnh_common.pkcs11.mechanisms import Mechanism

WINDOWS: Final = 5
_LOAD: Final = 0.7  # of the throughput, for the latency phase
_WARM_UP: Final = 0.1  # of the time, thrown away
_SINGLE: Final = 1000  # requests of a timeline
_NAP: Final = 0.0001  # seconds: shorter than the poll's millisecond, to start requests on time


@dataclass(frozen=True)
class Work:
    """One request that is repeated, and how many operations it carries."""

    session: KeyringSession
    operation: Operation[Any, Any]
    fields: dict[str, Any]
    items: int

    def submit(self, channel: Channel) -> Request:
        """Submit the request to a channel once more."""
        token, seal = self.session.credentials()
        timeout = self.session.timeout
        return channel.submit(self.operation, self.fields, timeout, route=self.session.route, token=token, seal=seal)


def enter(app: Noun) -> None:
    """Enter `lnh bench` into the command tree."""
    verb(app, "bench", KeyringOptions)(bench)


def bench(
    options: KeyringOptions,
    mechanism: files.MechanismOption = None,
    key: Annotated[str | None, typer.Option("--key", help="A key to use; none makes one and destroys it.")] = None,
    bits: Annotated[int | None, typer.Option("--bits", "-b", help="Of the key that is made.")] = None,
    curve: Annotated[str | None, typer.Option(help="Of the key that is made.")] = None,
    size: Annotated[int, typer.Option(min=1, help="Bytes of data.")] = 32,
    in_flight: Annotated[int, typer.Option(min=1, max=1000, help="Requests under way at once.")] = 64,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Operations a request (signatures only).")] = 1,
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="For each of the two phases.")] = 5.0,
    rate: Annotated[float | None, typer.Option(help="Requests a second in the latency phase.")] = None,
    timeline: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Show where the time of single requests goes, instead. DIR is the directory of the member that serves "
            "them, on this machine and started with LNH_TIMELINE=1.",
        ),
    ] = None,
) -> None:
    """Measure throughput and latency of one mechanism."""
    from lnh_common.pkcs11.mechanisms import Mechanism

    chosen = files.mechanism(mechanism) if mechanism else Mechanism.ECDSA_SHA256
    with options.session() as session, _key(session, chosen, key, bits, curve) as found:
        work = _work(session, found, chosen, size, batch)
        if timeline is not None:
            _show_timeline(options, work, timeline)
            return
        with session.connection.channel() as channel, _progress(2 * seconds) as advance:
            rates = _throughput(channel, work, in_flight, seconds, advance)
            per_second = rate or max(statistics.median(rates) / work.items * _LOAD, 1.0)
            latencies = _latencies(channel, work, in_flight, per_second, seconds, advance)
    _show(options, chosen, work, in_flight, rates, per_second, latencies)


def _throughput(
    channel: Channel, work: Work, in_flight: int, seconds: float, advance: Callable[[float], None]
) -> list[float]:
    """Operations a second in each window, with `in_flight` requests under way all the time."""
    rates: list[float] = []
    for window in range(WINDOWS + 1):
        length = seconds * _WARM_UP if window == 0 else seconds / WINDOWS
        start = time.perf_counter()
        done = 0
        while time.perf_counter() - start < length:
            while len(channel.requests) < in_flight:
                work.submit(channel)
            for request in channel.step(0.1):
                request.result()
                done += 1
        took = time.perf_counter() - start
        advance(took)
        if window:
            rates.append(done * work.items / took)
    while channel.requests:
        for request in channel.step(0.1):
            request.result()
    return rates


def _latencies(
    channel: Channel, work: Work, in_flight: int, per_second: float, seconds: float, advance: Callable[[float], None]
) -> list[list[float]]:
    """Seconds each request took from when it should have started, by window; the first requests are left out."""
    windows: list[list[float]] = [[] for _ in range(WINDOWS)]
    total = max(int(seconds * per_second), 1)
    start = time.perf_counter() + 0.01
    intended: dict[Request, float] = {}
    waiting: deque[float] = deque()
    started = 0
    shown = start
    while started < total or waiting or intended:
        now = time.perf_counter()
        while started < total and start + started / per_second <= now:
            waiting.append(start + started / per_second)
            started += 1
        while waiting and len(intended) < in_flight:
            moment = waiting.popleft()
            intended[work.submit(channel)] = moment
        pause = start + started / per_second - time.perf_counter() if started < total else 0.1
        if pause < 0.001:
            time.sleep(min(max(pause, 0.0), _NAP))
            pause = 0.0
        for request in channel.step(min(pause, 0.1)):
            request.result()
            moment = intended.pop(request)
            window = int((moment - start) / seconds * WINDOWS)
            windows[min(window, WINDOWS - 1)].append(time.perf_counter() - moment)
        if now - shown > 0.1:
            advance(now - shown)
            shown = now
    return [window[int(len(window) * _WARM_UP) :] if not index else window for index, window in enumerate(windows)]


@contextmanager
def _key(
    session: KeyringSession, mechanism: Mechanism, named: str | None, bits: int | None, curve: str | None
) -> Iterator[Key]:
    from lnh_common.pkcs11.attributes import Attribute, Attributes
    from lnh_common.pkcs11.mechanisms import GENERATORS, MECHANISM_RULES, Use

    if named is not None:
        yield keys.find_key(session, named)
        return
    rule = MECHANISM_RULES[mechanism]
    if not rule.uses & {Use.SIGN, Use.ENCRYPT}:
        terminal.refuse(f"{mechanism.name} neither signs nor encrypts", "ECDSA_SHA256, AES_GCM", terminal.USAGE)
    key_type = min(rule.key_types)
    label = f"lnh bench {time.time():.0f}"
    if Use.GENERATE in MECHANISM_RULES[GENERATORS[key_type]].uses:
        uses = (Attribute.SIGN, Attribute.VERIFY) if Use.SIGN in rule.uses else (Attribute.ENCRYPT, Attribute.DECRYPT)
        template: Attributes = dict.fromkeys(uses, True)
        template[Attribute.ALLOWED_MECHANISMS] = [mechanism.value]
        made: list[Any] = [session.generate_key(key_type, bits, label=label, template=template)]
    else:
        made = list(session.generate_keypair(key_type, bits, curve=curve, label=label, timeout=60.0))
    try:
        # Of a pair the private key signs, and the public key encrypts.
        yield made[-1] if Use.SIGN in rule.uses else made[0]
    finally:
        for one in made:
            one.destroy()


def _work(session: KeyringSession, key: Key, mechanism: Mechanism, size: int, batch: int) -> Work:
    import os

    from lnh.objects import encoding
    from lnh_common.messages import objects
    from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Use

    data = os.urandom(size)
    signs = Use.SIGN in MECHANISM_RULES[mechanism].uses
    if batch > 1:
        if not signs:
            terminal.refuse("only signatures come in batches", "--batch 1", terminal.USAGE)
        return Work(
            session, objects.SIGN_MANY, encoding.many_fields(key.handle, mechanism, [data] * batch, None), batch
        )
    operation: Operation[Any, Any] = objects.SIGN if signs else objects.ENCRYPT
    return Work(session, operation, encoding.use_fields(key.handle, mechanism, data, None), 1)


@contextmanager
def _progress(seconds: float) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal; what it yields moves it by so many seconds."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("measuring"), BarColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task("", total=seconds)
        yield lambda passed: progress.advance(task, passed)


def percentile(ordered: list[float], share: float) -> float:
    """The value that `share` (0 to 1) of an ordered list do not exceed (nearest rank)."""
    if not ordered:
        return float("nan")
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _show(
    options: KeyringOptions,
    mechanism: Mechanism,
    work: Work,
    in_flight: int,
    rates: list[float],
    per_second: float,
    latencies: list[list[float]],
) -> None:
    ordered = sorted(latency for window in latencies for latency in window)
    median = statistics.median(rates)
    medians = [percentile(sorted(window), 0.5) for window in latencies if window]
    figures: dict[str, Any] = {
        "mechanism": mechanism,
        "in_flight": in_flight,
        "batch": work.items,
        "operations_per_second": round(median, 1),
        "operations_per_second_windows": [round(rate, 1) for rate in rates],
        "operations_per_second_spread": round((max(rates) - min(rates)) / median, 3) if median else None,
        "latency_requests_per_second": round(per_second, 1),
        "p50_us": _microseconds(percentile(ordered, 0.5)),
        "p99_us": _microseconds(percentile(ordered, 0.99)),
        "p99.9_us": _microseconds(percentile(ordered, 0.999)),
        "p50_us_windows": [_microseconds(value) for value in medians],
    }
    if options.json:
        terminal.show_json(figures)
        return
    spread = figures["operations_per_second_spread"]
    shown = {
        "mechanism": f"{mechanism.name}, {in_flight} in flight" + (f", {work.items} a batch" if work.items > 1 else ""),
        "throughput": f"{median:,.0f} operations/s (spread of {WINDOWS} windows {spread:.1%})",
        "latency at": f"{per_second:,.0f} requests/s",
        "p50": f"{figures['p50_us']:,} us",
        "p99": f"{figures['p99_us']:,} us",
        "p99.9": f"{figures['p99.9_us']:,} us",
    }
    options.record(shown)


def _show_timeline(options: KeyringOptions, work: Work, member: Path) -> None:
    """Measure and show the timeline of one request at a time."""
    from lnh_cli.support import timeline

    with work.session.connection.channel() as channel:

        def act() -> None:
            channel.wait(work.submit(channel))

        for _ in range(_SINGLE // 5):
            act()
        measured = timeline.measure(member, act, _SINGLE)
    if not measured.steps:
        terminal.refuse(
            f"none of {measured.requests} requests was seen on its whole way through the member of {member}",
            "start that member, on this machine, with LNH_TIMELINE=1, and use a client that is registered with it",
        )
    rows = [
        {
            "at": f"{step.at:.0f}",
            "took": f"{step.took:.0f}",
            "processor": f"{step.spent:.0f}",
            "process": step.process,
            "point": step.point,
            "of": step.kind,
        }
        for step in measured.steps
    ]
    if options.json:
        terminal.show_json({"requests": measured.requests, "complete": measured.complete, "steps": rows})
        return
    terminal.show_rows(rows, columns=["at", "took", "processor", "process", "point", "of"])
    kinds = ", ".join(f"{kind} {took:.0f}" for kind, took in measured.by_kind().items())
    spent = ", ".join(f"{process} {time:.0f}" for process, time in measured.by_process().items())
    terminal.echo(f"us, medians of {measured.complete} requests of {measured.requests}; together: {kinds}")
    terminal.echo(f"processor time, without libzmq's threads: {spent}")


def _microseconds(seconds: float) -> int | None:
    return None if math.isnan(seconds) else round(seconds * 1e6)
