"""What `lnh hsm activate` asks for, by what the HSM says of itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer

from lnh_cli.nouns import hsm
from lnh_cli.support import terminal
from lnh_common.messages.console import HsmView
from lnh_common.wire.shares import Share

SHARES = [Share(b"abcd", 2, 3, index, bytes([index]) * 32).text() for index in (1, 2)]


def view(*, shares_needed: int = 0, tpm: bool = False) -> HsmView:
    return HsmView(
        state="sealed", label="a", identity="i", locked_memory=True, workers=0, partitions=0, cluster="", advice=(),
        shares_needed=shares_needed, tpm=tpm,
    )  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked for on the terminal."""
    said: list[str] = []

    def prompt(text: str, **_: object) -> str:
        said.append(text)
        return "typed secret"

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "prompt", prompt)
    monkeypatch.delenv("LNH_ACTIVATION_PASSWORD_FILE", raising=False)
    return said


def test_by_a_tpm_nothing_is_asked_for_but_the_secret_where_it_is_wanted(asked: list[str], tmp_path: Path) -> None:
    assert hsm._opening(view(tpm=True), None, None, by_secret=False) == (b"", [])
    assert asked == []
    assert hsm._opening(view(tpm=True), None, None, by_secret=True) == (b"typed secret", [])
    assert asked == ["activation secret"]
    (tmp_path / "secret").write_text("of a file\n")
    assert hsm._opening(view(tpm=True), tmp_path / "secret", None, by_secret=False) == (b"of a file", [])
    assert len(asked) == 1


def test_without_a_tpm_the_secret_is_asked_for_and_shares_where_they_are_needed(
    asked: list[str], tmp_path: Path
) -> None:
    assert hsm._opening(view(), None, None, by_secret=False) == (b"typed secret", [])
    files = [tmp_path / str(number) for number in range(2)]
    for file, share in zip(files, SHARES, strict=True):
        file.write_text(share)
    found = hsm._opening(view(shares_needed=2), None, files, by_secret=False)
    assert found[0] == b""
    assert [Share.parse(share) for share in found[1]] == [Share.parse(share) for share in SHARES]
    assert asked == ["activation secret"]


@pytest.mark.parametrize(("text", "registers"), [(None, []), ("7", [7]), ("0,7,23", [0, 7, 23])])
def test_registers_are_numbers_with_commas(text: str | None, registers: list[int]) -> None:
    assert hsm._pcrs(text) == registers


@pytest.mark.parametrize("text", ["", "24", "-1", "7,", "7;8", "sha256:7", "007", "\u0663"])
def test_what_is_no_register_is_refused_in_the_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as refused:
        hsm._pcrs(text)
    assert refused.value.exit_code == terminal.USAGE
    assert "--pcrs 0,7" in capsys.readouterr().err
