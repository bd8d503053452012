"""The report of a drill as one HTML file with a timeline: nothing in it is loaded from elsewhere, and nothing runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

from lnh_cli.drill.report import PAGE, Flow, Report, ScenarioLines, StepLine, client_words, verdict
from lnh_common.text import shown

_WIDTH: Final = 1000.0  # of a timeline, in its own units
_LANE: Final = 22.0
_LEAST: Final = 1.5  # so that what took no time is seen
_TICKS: Final = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
_MOST_TICKS: Final = 12
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 0; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .6rem; }
tr { border-top: 1px solid #d8dee4; } td.number { text-align: right; white-space: nowrap; }
code { font-size: .9em; color: #57606a; overflow-wrap: anywhere; } pre { white-space: pre-wrap; margin: .2rem 0; }
.passed { color: #116329; } .failed { color: #a40e26; font-weight: 600; } .about { color: #57606a; margin: 0; }
svg { width: 100%; height: auto; margin: .8rem 0; } svg text { font: 11px system-ui, sans-serif; fill: #57606a; }
.step { fill: #54aeff; stroke: #fff; } .step.failed { fill: #cf222e; }
.flow { fill: #4ac26b; } .pause { fill: #cf222e; }
.tick { stroke: #d8dee4; }
"""


def page(made: Report) -> str:
    """Show a report as one HTML file; what came from outside is escaped."""
    title = f"Drill on {made.where}, {made.moment}"
    body = [
        f"<h1>{_safe(title)}: {_verdict(passed=made.passed)}</h1>",
        f'<p class="about">after {made.took:.1f} s; the runbook is {_safe(PAGE)}</p>',
    ]
    if made.problem:
        body.append(f'<p class="failed">ended early: {_safe(made.problem)}</p>')
    body.append(_overview(made.scenarios))
    for scenario in made.scenarios:
        body += _scenario(scenario)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_safe(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _safe(words: str) -> str:
    return escape("\n".join(map(shown, words.split("\n"))))


def _verdict(*, passed: bool) -> str:
    return f'<span class="{"passed" if passed else "failed"}">{verdict(passed=passed)}</span>'


def _overview(scenarios: Iterable[ScenarioLines]) -> str:
    heads = ("scenario", "", "took", "longest wait for a signature", "for a key", "keys lost")
    rows = [
        f"<tr><td>{_safe(each.title)}</td><td>{_verdict(passed=each.passed)}</td>"
        + "".join(
            f'<td class="number">{figure}</td>'
            for figure in (
                f"{each.took:.1f} s",
                f"{each.client.signatures.longest_wait:.1f} s",
                f"{each.client.keys.longest_wait:.1f} s",
                f"{len(each.client.lost)} of {each.client.keys.done}",
            )
        )
        + "</tr>"
        for each in scenarios
    ]
    return _table(heads, rows)


def _table(heads: Iterable[str], rows: Iterable[str]) -> str:
    titles = "".join(f"<th>{head}</th>" for head in heads)
    return f"<table><tr>{titles}</tr>\n" + "\n".join(rows) + "\n</table>"


def _scenario(scenario: ScenarioLines) -> Iterator[str]:
    yield f"<h2>{_safe(scenario.title)}: {_verdict(passed=scenario.passed)}</h2>"
    yield f'<p class="about">{_safe(PAGE)}, section “{_safe(scenario.section)}”; {scenario.took:.1f} s</p>'
    yield _timeline(scenario)
    yield "<ul>" + "".join(f"<li>{_safe(sentence)}</li>" for sentence in client_words(scenario.client)) + "</ul>"
    yield _table(("at", "took", "what"), map(_row, scenario.steps))


def _row(step: StepLine) -> str:
    told = _safe(step.words)
    if step.command:
        told += f"<br><code>{_safe(step.command)}</code>"
    if step.problem:
        told += f'<pre class="failed">{_safe(step.problem)}</pre>try: {_safe(step.advice)}'
    return (
        f'<tr><td class="number">{step.began:.1f} s</td><td class="number">{step.took:.1f} s</td><td>{told}</td></tr>'
    )


def _timeline(scenario: ScenarioLines) -> str:
    """Draw three lanes over the seconds of a scenario: its steps, the client's signatures, and its keys."""
    scale = (_WIDTH - 90) / max(scenario.took, 0.001)
    drawn = list(_ticks(scenario.took, scale))
    for step in scenario.steps:
        kind = "step failed" if step.problem else "step"
        drawn.append(_bar(kind, 0, step.began, step.took, scale, f"{step.took:.1f} s: {step.words}"))
    begins, ends = scenario.client.worked
    flows: tuple[tuple[int, str, Flow], ...] = (
        (1, "signatures", scenario.client.signatures), (2, "keys", scenario.client.keys),
    )  # fmt: skip
    for lane, what, flow in flows:
        if flow.done:
            drawn.append(_bar("flow", lane, begins, ends - begins, scale, f"{flow.done} {what}"))
        for since, until in flow.pauses:
            drawn.append(_bar("pause", lane, since, until - since, scale, f"{until - since:.1f} s without {what}"))
    for lane, what in enumerate(("steps", "signatures", "keys")):
        drawn.append(f'<text x="0" y="{(lane + 0.7) * _LANE:.1f}">{what}</text>')
    return f'<svg viewBox="0 0 {_WIDTH:.0f} {4 * _LANE:.0f}" role="img">' + "".join(drawn) + "</svg>"


def _bar(kind: str, lane: int, began: float, took: float, scale: float, told: str) -> str:
    return (
        f'<rect class="{kind}" x="{90 + began * scale:.1f}" y="{lane * _LANE + 3:.1f}" '
        f'width="{max(took * scale, _LEAST):.1f}" height="{_LANE - 6:.1f}"><title>{_safe(told)}</title></rect>'
    )


def _ticks(seconds: float, scale: float) -> Iterator[str]:
    every = next((each for each in _TICKS if seconds / each <= _MOST_TICKS), max(1, int(seconds / _MOST_TICKS)))
    for number in range(int(seconds // every) + 1):
        x = 90 + number * every * scale
        yield f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{3 * _LANE:.0f}"/>'
        yield f'<text x="{x:.1f}" y="{3.7 * _LANE:.1f}">{number * every} s</text>'
