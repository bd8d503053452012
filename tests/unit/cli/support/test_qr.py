"""The QR codes of shares are read back, by another library, as the shares that were handed out."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import typer
import zxingcpp
from hypothesis import given, settings
from hypothesis import strategies as st

from lnh_cli.support import qr, shares, terminal
from lnh_common.errors import ArgumentInvalid, NotPossible
from lnh_common.wire.shares import Share
from sizes import sized

SCALE = 4
SHARES = st.builds(
    lambda set_, index, secret: Share(set_, 2, 3, index, secret),
    st.binary(min_size=4, max_size=4), st.integers(1, 3), st.binary(min_size=32, max_size=32),
)  # fmt: skip
ONE = Share(b"abcd", 2, 3, 1, bytes(32)).text()


def seen(rows: list[list[bool]]) -> str:
    """What a reader of codes makes of modules, True being dark."""
    pixels = b"".join(
        bytes(0 if dark else 255 for dark in row for _ in range(SCALE)) for row in rows for _ in range(SCALE)
    )
    image = memoryview(pixels).cast("B", shape=[len(rows) * SCALE, len(rows[0]) * SCALE])
    (found,) = zxingcpp.read_barcodes(image)
    return str(found.text)


def of_terminal(lines: list[str]) -> list[list[bool]]:
    rows: list[list[bool]] = []
    for line in lines:
        rows += [[block in "█▀" for block in line], [block in "█▄" for block in line]]
    return rows


def of_svg(text: str) -> list[list[bool]]:
    """The modules that an SVG draws: horizontal strokes of one module's width, as `segno` writes them."""
    root = ET.fromstring(text)
    size = int(root.attrib["width"]) // SCALE
    rows = [[False] * size for _ in range(size)]
    (path,) = [each for each in root.iter() if each.tag.endswith("path") and "stroke" in each.attrib]
    x = y = 0.0
    for command, first, second in re.findall(r"([Mmh])(-?[\d.]+)(?: ?(-?[\d.]+))?", path.attrib["d"]):
        if command == "M":
            x, y = float(first), float(second)
        elif command == "m":
            x, y = x + float(first), y + float(second)
        else:
            for at in range(int(x), int(x + float(first))):
                rows[int(y)][at] = True
            x += float(first)
    return rows


@settings(max_examples=sized(25))
@given(SHARES)
def test_what_a_reader_sees_is_the_share_that_was_drawn(share: Share) -> None:
    text = share.text()
    for rows in (of_terminal(qr.lines(text)), of_svg(qr.svg(text))):
        said = seen(rows)
        assert said == qr.letters(text)
        assert Share.parse(said) == share


def test_a_code_fits_on_a_terminal_and_is_in_the_alphanumeric_mode() -> None:
    lines = qr.lines(ONE)
    assert len(lines) <= 24
    assert {len(line) for line in lines} == {45}
    assert qr.code(ONE).mode == "alphanumeric"
    assert qr.code(ONE).error == "Q"


def test_each_share_has_its_code_beside_its_file_which_is_its_owners_alone(tmp_path: Path) -> None:
    places = shares.places(tmp_path / "held", "activation", 2, qr=True)
    made = [Share(b"abcd", 2, 2, index, bytes([index]) * 32).text() for index in (1, 2)]
    shares.write(places, made, qr=True)
    for place, share in zip(places, made, strict=True):
        drawn = place.with_name(f"{place.name}.svg")
        assert seen(of_svg(drawn.read_text())) == qr.letters(share)
        assert drawn.stat().st_mode & 0o777 == 0o600
    with pytest.raises(typer.Exit):
        shares.places(tmp_path / "held", "activation", 2, qr=True)
    places[0].unlink()
    places[1].unlink()
    with pytest.raises(typer.Exit):
        shares.places(tmp_path / "held", "activation", 2, qr=True)


def test_printed_codes_are_ink_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    shares.show([ONE], qr=True)
    printed = capsys.readouterr().out.splitlines()
    assert printed[: len(ONE.splitlines())] == ONE.splitlines()
    assert seen(of_terminal(printed[len(ONE.splitlines()) :])) == qr.letters(ONE)


def test_without_the_library_it_is_said_before_anything_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    with pytest.raises(NotPossible, match="segno") as refused:
        shares.check_together("2-of-3", None, qr=True, json=False)
    assert "lnh[qr]" in refused.value.detail["advice"]
    shares.check_together("2-of-3", None, qr=False, json=False)


@pytest.mark.parametrize(
    ("of", "to", "qr_", "json"),
    [(None, Path("held"), False, False), (None, None, True, False), ("2-of-3", None, True, True)],
)
def test_codes_want_shares_and_json_wants_files_for_them(
    of: str | None, to: Path | None, qr_: bool, json: bool
) -> None:
    with pytest.raises(typer.Exit) as refused:
        shares.check_together(of, to, qr=qr_, json=json)
    assert refused.value.exit_code == terminal.USAGE


class Typist:
    """Answers prompts with what is typed in advance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *typed: str) -> None:
        self.asked: list[str] = []
        self._typed = iter(typed)
        monkeypatch.setattr(terminal, "read_secret", self._read)

    def _read(self, role: str, file: Path | None = None, *, what: str = "", new: bool = False) -> str:
        self.asked.append(what)
        return next(self._typed)


def test_a_share_is_typed_line_by_line_or_read_from_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    on_paper = Share(b"abcd", 2, 3, 2, b"2" * 32).text()
    typist = Typist(monkeypatch, qr.letters(ONE), *on_paper.lower().splitlines())
    found = [Share.parse(share) for share in shares.read(None, 2)]
    assert found == [Share.parse(ONE), Share.parse(on_paper)]
    assert typist.asked[0] == "share, 1 of 2"
    assert typist.asked[-1] == "share, 2 of 2, line 5 of 5"


def test_a_line_that_is_mistyped_is_named_before_the_next_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ONE.splitlines()[1:]
    typist = Typist(monkeypatch, lines[0], lines[2])
    with pytest.raises(ArgumentInvalid, match="line 2 of the share"):
        shares.read(None, 2)
    assert typist.asked == ["share, 1 of 2", "share, 1 of 2, line 2 of 5"]
