"""Text from outside: refused in names, escaped wherever it is shown."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import unicodedata
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

import lnh_cli
from lnh_cli.support import terminal
from lnh_cli.support.command import Output
from lnh_common import metrics, text
from lnh_common.errors import MalformedMessage
from lnh_common.messages import admin, console, session
from lnh_common.wire import codec
from lnh_services import configuration, logs

HOSTILE = "a\nforged  row\r\t\x1b]0;owned\x07\x9b31m\x1b[2J\x7f\u202eevil\u2066\u200b\ufeff\ud800\u2028\U000e0041z"
DANGEROUS = frozenset("\x1b\x07\x9b\r\x7f\u202e\u2066\u200b\ufeff\ud800\u2028\U000e0041")
CLI = Path(lnh_cli.__file__).parent


def is_harmless(shown: str) -> bool:
    return not any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") or each in DANGEROUS for each in shown)


@given(st.text(st.characters()) | st.text(st.sampled_from([*sorted(DANGEROUS), "a", "\n", "é", "\u200d"])))
def test_shown_text_does_nothing_and_json_reads_back_the_same(value: str) -> None:
    assert is_harmless(text.shown(value))
    assert is_harmless(text.json_text({value: [value]}))
    assert json.loads(text.json_text({value: [value]})) == {value: [value]}
    assert is_harmless(text.json_text({value: [value]}, indent=2).replace("\n", ""))
    if text.is_name(value):
        assert text.shown(value) == value
    assert text.is_name(value) == (text.shown(value) == value) == bool(re.search(text.NAME, value))


@pytest.mark.parametrize("name", ["Ada", "رضا\u200cپور", "山田 太郎", "naïve-1", "👩\u200d💻", "O'Neil \\ Sons"])
def test_names_of_all_languages_are_names(name: str) -> None:
    assert text.is_name(name)
    assert text.shown(name) == name


# Every message that brings a name in, with a good one for its place.
ENTRIES: list[tuple[type[msgspec.Struct], str, dict[str, Any]]] = [
    (session.Credential, "name", {"role": "user", "password": "password"}),
    (session.Register, "name", {"administrator": {"role": "user", "password": "x"}, "curve_key": bytes(32), "sign_key": bytes(32)}),
    (session.Register, "monitor", {"administrator": {"role": "user", "password": "x"}, "name": "n", "curve_key": bytes(32), "sign_key": bytes(32)}),
    (admin.AddUser, "name", {"role": "admin", "password": "password"}),
    (admin.CreateKeyrings, "label", {}),
    (admin.ChangeMember, "name", {"member": bytes(16)}),
    (admin.NewGroup, "label", {}),
    (console.InitAppliance, "admin", {"password": "password"}),
    (console.InitHsm, "label", {"so_password": "password", "activation": b"activation secret"}),
    (console.CreatePartition, "label", {"so_password": "password", "version": 0, "po_password": "password", "co_password": "password"}),
    (console.CreateCluster, "label", {"so_password": "password", "po_password": "password"}),
    (configuration.Settings, "name", {"base_port": 7100}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "field", "others"), ENTRIES)
@pytest.mark.parametrize("bad", ["\n", "\x1b", "\x9b", "\u202e", "\u200b", "\u2028", "\x7f", "\x00"])
def test_a_name_with_what_is_no_text_is_refused_where_it_enters(
    kind: type[msgspec.Struct], field: str, others: dict[str, Any], bad: str
) -> None:
    assert getattr(codec.convert({**others, field: "good"}, kind), field) == "good"
    for name in (f"a{bad}b", bad, f"a{bad}"):
        with pytest.raises(MalformedMessage) as refused:
            codec.convert({**others, field: name}, kind)
        assert is_harmless(str(refused.value))
        assert "control characters" in str(refused.value)


def test_no_part_of_the_command_line_writes_past_the_one_that_escapes() -> None:
    """Every command's output goes through `terminal`; `local`, `demo` and `children` show what commands said, `wires` numbers."""
    own = {"terminal.py", "local.py", "demo.py", "children.py", "wires.py"}
    for path in CLI.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or path.name in own:
                continue
            called = ast.unparse(node.func)
            assert called not in {
                "print", "typer.echo", "typer.secho", "typer.prompt", "typer.confirm", "click.echo",
                "sys.stdout.write", "sys.stderr.write",
            }, f"{path.name}:{node.lineno} writes with {called}: use lnh_cli.support.terminal"  # fmt: skip
            if called in {"Text", "rich.text.Text"}:
                assert "shown" in ast.unparse(node), f"{path.name}:{node.lineno} shows text that is not escaped"


def everything_shown() -> None:
    row = {"label": HOSTILE, "nested": {HOSTILE: [HOSTILE]}}
    for as_json in (False, True):
        output = Output(json=as_json)
        output.rows([row], "label", "nested")
        output.record(row)
        terminal.say(HOSTILE, as_json=as_json, name=HOSTILE)
    terminal.echo(HOSTILE, styled=HOSTILE[:1])
    terminal.note(HOSTILE)
    with suppress(typer.Exit):
        terminal.refuse(HOSTILE, HOSTILE)
    with suppress(typer.Exit):
        terminal.confirm(HOSTILE, yes=False)
    with suppress(typer.Exit):
        terminal.read_secret("KRCO", what=HOSTILE)
    terminal.confirm_fingerprint(HOSTILE, HOSTILE)


@pytest.mark.parametrize("tty", [False, True])
def test_whatever_the_command_line_shows_is_escaped(tty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: tty, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    with redirect_stdout(out), redirect_stderr(out):
        everything_shown()
    written = out.getvalue()
    assert "owned" in written
    assert not [line for line in written.splitlines() if line.startswith("forged")]
    assert is_harmless(written.replace("\n", "").replace("\x1b[1m", "").replace("\x1b[0m", ""))


@pytest.mark.parametrize("lines", [logs.JsonLines("a"), logs.TextLines("a")])
def test_a_line_of_a_log_is_one_line_and_does_nothing(lines: logging.Formatter) -> None:
    record = logging.LogRecord("lnh.a", logging.INFO, "", 0, HOSTILE, None, None)
    record.__dict__["fields"] = {"name": HOSTILE, "nested": [HOSTILE, {HOSTILE: HOSTILE}]}
    assert is_harmless(lines.format(record))


def test_metrics_do_not_carry_it() -> None:
    row = metrics.Row("name", "about", lambda _: [((HOSTILE,), 1.0)], labels=("member",))
    (sample,) = row.family(cast("metrics.Own", None)).samples
    assert is_harmless(sample.labels["member"])
