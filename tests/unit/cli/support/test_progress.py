"""A bar says how far a long act is: on a terminal, and nowhere else."""

from __future__ import annotations

import pytest

from lnh_cli.support.progress import progress


@pytest.mark.parametrize(("in_bytes", "said"), [(True, "3.1/12.6 MB"), (False, "3145728/12582912")])
def test_a_terminal_sees_how_much_of_how_much_is_done(
    in_bytes: bool, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress("Encrypting", in_bytes=in_bytes) as advance:
        advance(3 << 20, 12 << 20)
    seen = capsys.readouterr()
    assert "Encrypting" in seen.err
    assert said in seen.err
    assert seen.out == ""


def test_a_pipe_sees_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Encrypting") as advance:
        advance(1, 2)
    assert capsys.readouterr() == ("", "")
