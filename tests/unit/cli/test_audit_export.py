"""An exported trail is checked with nothing but the file and the HSM's identity; and what a SIEM reads of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from lnh_cli.main import tree
from lnh_cli.support.cef import cef
from lnh_cli.support.options import AdminOptions
from lnh_common.errors import AuditFailed
from lnh_common.messages.hsm import AuditEntry
from lnh_common.wire.audit import RecordLine, parse_line
from lnh_common.wire.channel import fingerprint
from lnh_services.hsm.audit.trail import Trail

APP = tree("audit")
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
NOW = 1_700_000_000_000


def written(path: Path, key: Ed25519PrivateKey = KEY) -> list[bytes]:
    """The lines of a trail: six records and two heads, then a record that is not signed yet."""
    trail = Trail(path, "a")
    trail.open(NOW)
    for number in range(5):
        entry = AuditEntry(
            identity="alice", role="user", operation="user.add", target=f"u{number}", outcome="ok", detail={}
        )
        trail.append([entry], NOW + number)
        if number == 2:
            trail.sign(key, NOW)
    trail.sign(key, NOW)
    trail.append([AuditEntry(identity="eve", role="", operation="hello", target="", outcome="ok", detail={})], NOW)
    trail.close()
    return path.read_bytes().splitlines(keepends=True)


def checked(file: Path, identity: str = fingerprint(PUBLIC)) -> tuple[int, dict[str, Any], str]:
    done = CliRunner().invoke(APP, ["audit", "check", str(file), "--identity", identity, "--json"])
    return done.exit_code, json.loads(done.stdout or "{}"), done.stderr


@pytest.mark.parametrize("identity", [fingerprint(PUBLIC), PUBLIC.hex()])
def test_a_whole_trail_holds_and_what_is_not_signed_is_told(tmp_path: Path, identity: str) -> None:
    lines = written(tmp_path / "t")
    code, shown, said = checked(tmp_path / "t", identity)
    assert (code, shown["records"], shown["signed"], shown["signatures"], shown["problem"]) == (0, 7, 6, 2, "none")
    assert (shown["first"], shown["last"]) == (1, len(lines))
    assert "the last 1 records stand behind the last signature" in said


def test_a_part_of_a_trail_holds_and_says_where_it_begins(tmp_path: Path) -> None:
    lines = written(tmp_path / "t")
    (tmp_path / "part").write_bytes(b"".join(lines[3:]))
    code, shown, said = checked(tmp_path / "part")
    assert (code, shown["first"], shown["problem"]) == (0, 4, "none")
    assert "it begins at index 4" in said


def test_whatever_is_edited_left_out_or_put_elsewhere_is_found(tmp_path: Path) -> None:
    lines = written(tmp_path / "t")
    file = tmp_path / "edited"
    found = []
    for place, line in enumerate(lines):
        for at in range(0, len(line) - 1, 7):
            changed = bytes([*line[:at], line[at] ^ 1, *line[at + 1 :]])
            found.append([*lines[:place], changed, *lines[place + 1 :]])
        if 0 < place < len(lines) - 1:
            found.append([*lines[:place], *lines[place + 1 :]])
            found.append([*lines[:place], lines[place + 1], line, *lines[place + 2 :]])
    assert len(found) > 300
    for edited in found:
        file.write_bytes(b"".join(edited))
        code, shown, said = checked(file)
        assert (code, said.startswith("refused: "), shown["problem"] != "none") == (1, True, True), edited


def test_a_trail_that_somebody_else_signed_or_nobody_is_refused(tmp_path: Path) -> None:
    forged = written(tmp_path / "forged", OTHER)
    (tmp_path / "unsigned").write_bytes(b"".join(forged[:2]))
    (tmp_path / "empty").write_bytes(b"")
    for name in ("forged", "unsigned", "empty"):
        code, _, said = checked(tmp_path / name)
        assert (code, "is signed by SHA256:" in said) == (1, True), name


class Exporting:
    """A session whose export has these lines, and fails at the end if it shall."""

    def __init__(self, lines: list[bytes], *, fails: bool = False) -> None:
        self._lines, self._fails = lines, fails

    def export_audit(self, after: int) -> Iterator[str]:
        assert after == 2
        yield from (line.decode().rstrip("\n") for line in self._lines)
        if self._fails:
            raise AuditFailed("lines are missing")


@pytest.mark.parametrize("form", ["jsonl", "cef"])
def test_an_export_tells_what_was_dropped_and_leaves_no_file_where_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    lines = written(tmp_path / "t")
    output = tmp_path / "export"
    for given, fails, code, note in (
        (lines[2:7], True, 1, ""),
        (lines[2:7], False, 0, ""),
        (lines[4:], False, 0, "it begins at index 5: the member has dropped the lines from 3 on"),
    ):
        session = Exporting(given, fails=fails)
        monkeypatch.setattr(AdminOptions, "administration", lambda _, found=session: nullcontext(found))
        done = CliRunner().invoke(APP, ["audit", "export", str(output), "--format", form, "--after", "2"])
        assert (done.exit_code, output.exists()) == (code, not fails), done.output
        assert ("it begins" in done.stderr) is bool(note)
        assert note in done.stderr
        if not fails:
            written_lines = output.read_text().splitlines()
            assert len(written_lines) == sum(form == "jsonl" or b'"operation"' in line for line in given)
            assert all(line.startswith("CEF:0|" if form == "cef" else "{") for line in written_lines)
            output.unlink()


def test_what_is_no_identity_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "t")
    code, _, said = checked(tmp_path / "t", "nobody")
    assert (code, "lnh hsm show" in said) == (2, True)


def test_a_record_in_cef_escapes_what_separates_and_tells_what_failed(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "t", "a|b")
    trail.open(NOW)
    detail = {"request": 7, "why": "a=b\\c"}
    hostile = "x|y=z\\\n\x1b[31m\u2028"
    trail.append(
        [
            AuditEntry(
                identity=hostile, role="user", operation="op|x", target="t=1", outcome="NotPossible", detail=detail
            )
        ],
        NOW,
    )
    trail.close()
    record = parse_line((tmp_path / "t").read_bytes().splitlines(keepends=True)[1], None)
    assert isinstance(record, RecordLine)
    line = cef(record)
    head, _, fields = line.partition("|7|")
    assert head.startswith("CEF:0|lnh|hsm|")
    assert head.endswith("|op\\|x|op\\|x")
    assert "\n" not in line
    assert "\x1b" not in line
    assert "\u2028" not in line
    assert "suser=x|y\\=z\\\\\\n" in fields
    assert f"rt={NOW} externalId=2 dvchost=a|b" in fields
    assert "cs1=t\\=1 outcome=failure reason=NotPossible" in fields
    assert f"cs2={record.hash}" in fields
